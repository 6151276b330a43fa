"""What a protocol that extends another takes over from it, as tables of TOML."""

from collections.abc import Container, Sequence
from typing import Any

from offrl.running.patterns import matches

Tables = dict[str, Any]

MOST_EXTENDED = 10  # protocols, each of which extends the next


def merged(base: Tables, own: Tables) -> Tables:
    """The tables of `base` with what `own` has: tables key by key, all else replaced, lists too."""
    whole = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        whole[key] = merged(base[key], value) if both else value
    return whole


def on_datasets(base: Tables, datasets: Sequence[str], own: Container[str]) -> Tables:
    """The tables of a protocol without what is for none of these data sets.

    That are patterns, entries of `on`, and algorithms that would run on none.

    Args:
        base: of a whole protocol.
        datasets: of the one that extends it.
        own: labels of algorithms that the latter speaks of, which are kept.
    """

    def kept(patterns: list[str]) -> list[str]:
        return [p for p in patterns if any(matches(name, p, datasets) for name in datasets)]

    algorithms = {}
    for label, entry in base["algorithms"].items():
        entry = dict(entry)
        if entry.get("datasets") is not None:
            entry["datasets"] = kept(entry["datasets"])
            if not entry["datasets"] and label not in own:
                continue
        on = [{**some, "datasets": kept(some["datasets"])} for some in entry.get("on", ())]
        if "on" in entry:
            entry["on"] = [some for some in on if some["datasets"]]
        algorithms[label] = entry
    return {**base, "datasets": list(datasets), "algorithms": algorithms}
