"""Settings of an algorithm as text: `beta=10`, for tables, labels and messages."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from offrl.errors import unknown
from offrl.text import one_form

LONGEST = 60  # characters of a value; the config itself is in run.json

Config = Mapping[str, Any]
Pair = tuple[str, str]  # an algorithm and its setting, which is empty where there is none


def setting_text(values: Config) -> str:
    """The values of a setting, such as `beta=10, hidden=[64,64]`; empty where there are none."""
    return ", ".join(f"{key}={_text(value)}" for key, value in values.items())


def settings_of(
    configs: Mapping[str, Config | None], cells: Iterable[Collection[str]]
) -> dict[str, str] | None:
    """What each config of an algorithm is called, by its hash: the values in which some differ.

    Configs may differ between data sets as a protocol says, which makes no setting: only those on
    one data set are set beside each other. One that nobody can read any more is called by its hash.

    Args:
        configs: by hash; None for one whose records are all damaged.
        cells: the hashes on each data set.

    Returns:
        Texts by hash, empty where no data set has several configs; None where values do not tell
        them apart, as where files of code differ, or the keys of several versions of one.
    """
    cells = [sorted(cell) for cell in cells]
    if all(len(cell) < 2 for cell in cells):
        return dict.fromkeys(configs, "")
    values = {
        name: {key: json.dumps(value, sort_keys=True) for key, value in config.items()}
        for name, config in configs.items()
        if config is not None
    }
    differing = set()
    for cell in cells:
        known = [values[name] for name in cell if name in values]
        if any(of_config.keys() != known[0].keys() for of_config in known):
            return None
        for key in known[0] if known else ():
            if len({of_config[key] for of_config in known}) > 1:
                differing.add(key)
    texts = {
        name: f"config {name}"
        if config is None
        else setting_text({key: value for key, value in config.items() if key in differing})
        for name, config in configs.items()
    }
    apart = all(len({texts[name] for name in cell}) == len(cell) for cell in cells)
    return texts if apart and all(texts.values()) else None


def with_setting(algorithm: str, setting: str) -> str:
    """How pages and notes name an algorithm with a setting: `iql (beta=10)`."""
    return f"{algorithm} ({setting})" if setting else algorithm


def names_by_setting(pairs: Sequence[Pair], ways: Mapping[str, str]) -> dict[Pair, str]:
    """The names of algorithms that are one each by setting: "ALGORITHM (SETTING)[: WAY]".

    An algorithm with one setting keeps its name.

    Args:
        pairs: algorithms, each with each of its settings.
        ways: names under which an algorithm acts in another way, with the algorithm's own.
    """
    settings: dict[str, dict[str, None]] = {}
    for algorithm, setting in pairs:
        settings.setdefault(ways.get(algorithm, algorithm), {})[setting] = None
    names = {}
    for algorithm, setting in pairs:
        main = ways.get(algorithm, algorithm)
        way = algorithm.removeprefix(main)
        named = f"{main} ({setting}){way}"
        names[algorithm, setting] = named if len(settings[main]) > 1 else algorithm
    return names


def chosen_settings(
    wanted: Iterable[str], names: Mapping[Pair, str], ways: Mapping[str, str]
) -> set[Pair]:
    """The algorithms and settings that are wanted, with their other ways to act.

    Args:
        wanted: names of algorithms, with all of their settings, or names with a setting.
        names: of `names_by_setting`.
        ways: as there.

    Raises InputError for another name.
    """
    pairs: set[Pair] = set()
    for name in map(one_form, wanted):
        named = {pair for pair, by_setting in names.items() if name in (pair[0], by_setting)}
        if not named:
            raise unknown("algorithm", name, {*(of for of, _ in names), *names.values()})
        pairs |= named
    return pairs | {(way, s) for way, s in names if (ways.get(way), s) in pairs}


def _text(value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, float):
        text = repr(value).removesuffix(".0")
    elif isinstance(value, Sequence):
        text = f"[{','.join(map(_text, value))}]"
    else:
        text = json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
