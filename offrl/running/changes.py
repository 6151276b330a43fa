"""What a command changes of a protocol, which then is another one with a name of its own."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offrl.errors import InputError, unknown
from offrl.learning.learner import find_algorithm
from offrl.running.jobs import chosen_entries
from offrl.running.protocol import Protocol, tables
from offrl.toml import validate
from offrl.trust import Origin

LONGEST_NAME = 100  # characters of what is added to an id; a longer one is a checksum
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
BUDGET = ("steps", "every", "episodes")


@dataclass(frozen=True)
class Changes:
    """What replaces a protocol's own values everywhere; None keeps them.

    A key of `config` is that of every algorithm that has it, or LABEL.KEY of one algorithm.
    """

    steps: int | None = None
    seeds: Sequence[int] | None = None
    every: int | None = None
    episodes: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def name(self) -> str:
        """What an id says of them: `steps=1000+iql.beta=10`, or a checksum where text is long.

        Two that differ have different names.
        """
        parts = [f"{key}={value}" for key in BUDGET if (value := getattr(self, key)) is not None]
        if self.seeds is not None:
            parts.append(f"seeds={_seeds(self.seeds)}")
        texts = {key: _text(value) for key, value in sorted(self.config.items())}
        parts += [f"{key}={text}" for key, text in texts.items()]
        name = "+".join(parts)
        known = all(
            text is not None and all(map(_plain, key.split("."))) and key not in (*BUDGET, "seeds")
            for key, text in texts.items()
        )
        if known and len(name) <= LONGEST_NAME:
            return name
        whole = json.dumps(dataclasses.asdict(self), sort_keys=True, default=list)
        return hashlib.sha256(whole.encode()).hexdigest()[:8]

    def id_of(self, protocol: Protocol) -> str:
        """The id of a protocol with these changes."""
        return f"{protocol.id}+{self.name()}" if self != Changes() else protocol.id


def changed(
    protocol: Protocol,
    changes: Changes,
    algorithms: Sequence[str] = (),
    trust: tuple[str, ...] = (),
) -> Protocol:
    """The protocol with the changes, as another one; itself where they change nothing.

    Args:
        protocol: what is changed.
        changes: of steps, every and episodes those of single algorithms and data sets are replaced
            too, and of episodes those of the last evaluation.
        algorithms: that run, as in `expand`; the others keep their configs.
        trust: files whose code may run, beside those that the protocol has.

    Raises InputError for a value that no protocol has, a label or a key that there is not, and
    Untrusted for code that is not trusted.
    """
    if changes == Changes():
        return protocol
    chosen = chosen_entries(protocol, algorithms)
    entries = {**protocol.algorithms, **chosen}
    plain = protocol.model_copy(update={"algorithms": entries})
    values = tables(plain)
    values["algorithms"] = {label: dict(entry) for label, entry in values["algorithms"].items()}
    values["evaluation"] = dict(values["evaluation"])
    if changes.seeds is not None:
        values["seeds"] = list(changes.seeds)
    for key in BUDGET:
        if (value := getattr(changes, key)) is not None:
            (values if key == "steps" else values["evaluation"])[key] = value
            for entry in values["algorithms"].values():
                _remove(entry, (), key)
    if changes.episodes is not None:
        values["evaluation"].pop("final_episodes", None)
    files = (*protocol.origin.trust, *trust)
    for key, value in changes.config.items():
        for label in _having(key, chosen, files):
            entry, name = values["algorithms"][label], key.rpartition(".")[2]
            if name in entry.get("grid", {}):
                raise InputError(
                    f"--set {key:.80}: algorithm {label} has a grid of it; leave one of them out"
                )
            _remove(entry, ("config",), name)
            entry["config"] = {**entry.get("config", {}), name: value}
    made = _validated(values, entries, protocol)
    if made == plain:
        return protocol
    name = changes.name()
    values |= {"id": changes.id_of(protocol), "title": f"{protocol.title}; {name}"}
    return _validated(values, entries, protocol)


def _validated(values: dict[str, Any], entries: Mapping[str, Any], of: Protocol) -> Protocol:
    """The protocol of these tables, whose code is named where that of `of` is."""
    made = validate(Protocol, values, f"protocol {of.id}")
    algorithms = {
        label: entry.read_from(entries[label].origin) for label, entry in made.algorithms.items()
    }
    return made.model_copy(update={"algorithms": algorithms}).read_from(of.origin)


def _remove(entry: dict[str, Any], path: Sequence[str], key: str) -> None:
    """Takes a key out of an algorithm's tables, everywhere and on single data sets."""
    for table in [entry, *entry.get("on", ())]:
        for name in path:
            table = table.get(name, {})
        table.pop(key, None)


def _having(key: str, entries: Mapping[str, Any], trust: tuple[str, ...]) -> list[str]:
    """The labels of the algorithms that KEY or LABEL.KEY means."""
    label, dot, name = key.rpartition(".")
    if dot:
        if label not in entries:
            raise unknown("algorithm", label, entries, f"in --set {key:.80}")
        return [label]
    fields: dict[str, list[str]] = {}
    for label, entry in entries.items():
        algorithm = entry.algorithm or label
        if algorithm.endswith(".py"):
            Origin(entry.origin.file, trust).allow(f"algorithm {label}", Path(algorithm))
        config = getattr(find_algorithm(algorithm), "Config", None)
        for found in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
            fields.setdefault(found.name, []).append(label)
    if name not in fields:
        raise InputError(f"--set {key:.80}: {unknown('config key', name, fields)}")
    return fields[name]


def _plain(word: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]+", word) is not None


def _seeds(seeds: Sequence[int]) -> str:
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered == [*range(ordered[0], ordered[-1] + 1)]:
        return f"{ordered[0]}..{ordered[-1]}"
    return ",".join(map(str, ordered))


def _text(value: Any) -> str | None:
    """A value in an id, as `64x64` for lists of numbers; None for what would be ambiguous."""
    if isinstance(value, list | tuple) and len(value) > 1:
        texts = [_text(item) for item in value if type(item) in (int, float)]
        return "x".join(filter(None, texts)) if len(texts) == len(value) else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and abs(value) < 2**63:
        return repr(float(value)).removesuffix(".0").replace("+", "")
    word = isinstance(value, str) and WORD.fullmatch(value)
    return value if word and value not in ("true", "false", "inf", "nan") else None
