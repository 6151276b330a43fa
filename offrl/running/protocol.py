"""Protocols: which algorithms on which data sets, with which seeds, budget and evaluation.

A protocol is a TOML file, shipped in `protocols/` or the user's own. It expands into jobs, one per
run; everything that a job's scores depend on is in the job.
"""

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from offrl import registry
from offrl.data.altered import entry_name, placed
from offrl.data.resolve import is_path
from offrl.errors import InputError, unknown
from offrl.files import user_path
from offrl.running.extending import MOST_EXTENDED, Tables, merged, on_datasets
from offrl.running.grids import Grid
from offrl.running.patterns import matches
from offrl.text import one_form
from offrl.toml import Strict, read_toml, shown, validate
from offrl.trust import Files, Origin, trusted

Whole = Annotated[int, Field(ge=0, lt=2**63)]  # what every table and run folder can hold
Positive = Annotated[int, Field(gt=0, lt=2**63)]


class Evaluation(Strict):
    """How often and how a policy is scored."""

    every: Positive  # gradient steps; the last step is always evaluated
    episodes: Positive
    seed: Whole = 0  # of the episodes' starts, together with the run's seed
    last: Positive = 1  # evaluations, the last ones, whose mean score is the run's
    final_episodes: Positive | None = None  # of the last evaluation; None: as of the others

    def episodes_at(self, step: int, steps: int) -> int:
        """The episodes of the evaluation at a step of a run of so many steps."""
        return self.final_episodes or self.episodes if step == steps else self.episodes

    def record(self) -> dict[str, int]:
        """What a run's identity holds: a key that changes nothing is left out."""
        values: dict[str, int] = self.model_dump(include={"every", "episodes", "seed"})
        if self.last > 1:
            values["last"] = self.last
        if self.final_episodes not in (None, self.episodes):
            values["final_episodes"] = self.final_episodes
        return values


class Overrides(Strict):
    """What replaces the protocol's budget and the algorithm's own config; None keeps them."""

    steps: Positive | None = None
    every: Positive | None = None
    episodes: Positive | None = None
    config: dict[str, Any] = Field(default_factory=dict)  # what differs from the defaults


class OverridesOn(Overrides):
    """Overrides for some data sets."""

    datasets: list[str] = Field(min_length=1)  # ids, or patterns such as antmaze-*


class AlgorithmEntry(Overrides):
    """One algorithm of a protocol; its table's name is the label in every report."""

    algorithm: str | None = None  # a registered name or a .py file; None: the label itself
    datasets: list[str] | None = Field(default=None, min_length=1)  # ids or patterns; None: all
    on: list[OverridesOn] = Field(default_factory=list)  # later entries override earlier ones
    grid: Grid = Field(default_factory=dict)  # values of the config that are tried everywhere
    _origin: Origin = PrivateAttr(default=Origin())

    @property
    def origin(self) -> Origin:
        """Where the entry's code was named."""
        return self._origin

    def read_from(self, origin: Origin) -> "AlgorithmEntry":
        """The same entry, whose code was named in a file that the user trusts or does not."""
        copy = self.model_copy()
        copy._origin = origin
        return copy

    def runs_on(self, dataset: str, among: Sequence[str] = ()) -> bool:
        """Whether the protocol has this algorithm on one of its data sets, `among`."""
        return self.datasets is None or any(matches(dataset, p, among) for p in self.datasets)

    def on_dataset(self, dataset: str, among: Sequence[str] = ()) -> Overrides:
        """The overrides that hold on one of the protocol's data sets, `among`."""
        overrides = Overrides(**self.model_dump(include=set(Overrides.model_fields)))
        for on in self.on:
            if any(matches(dataset, pattern, among) for pattern in on.datasets):
                changes = on.model_dump(include=set(Overrides.model_fields), exclude_none=True)
                changes["config"] = overrides.config | on.config
                overrides = overrides.model_copy(update=changes)
        return overrides


def label_fault(label: str) -> str | None:
    """Why a label cannot name a folder and stand in tables and on pages; None where it can."""
    if not label.strip() or label != label.strip():
        return "a label is empty, or begins or ends with a space"
    if {unicodedata.category(c) for c in label} & {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return "a label has control characters, or others that cannot be seen"
    if label.startswith(".") or "/" in label or "\\" in label:
        return "a label begins with a dot, or has a slash or a backslash"
    if len(label.encode()) > LONGEST_LABEL:
        return f"a label has more than {LONGEST_LABEL} bytes"
    return None


def _check_label(label: str) -> str:
    if fault := label_fault(label):
        raise PydanticCustomError("label", "{fault}; choose another", {"fault": fault})
    return label


LONGEST_LABEL = 200  # a folder's name has at most 255 bytes, with a hash behind the label
Label = Annotated[str, AfterValidator(_check_label)]


class Protocol(Strict):
    """A protocol; `version` changes whenever scores would."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=,-]*$", max_length=200)
    version: Positive
    title: str
    source: str  # the publication it follows, or who made it
    notes: str = ""  # where it differs from the source
    datasets: list[str] = Field(min_length=1)  # an altered one's name holds its transforms
    seeds: list[Whole] = Field(min_length=1)
    steps: Positive  # gradient steps per run
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # of products, on a GPU
    evaluation: Evaluation
    algorithms: dict[Label, AlgorithmEntry] = Field(min_length=1)
    _origin: Origin = PrivateAttr(default=Origin())

    @property
    def origin(self) -> Origin:
        """Where the protocol was read."""
        return self._origin

    def read_from(self, origin: Origin) -> "Protocol":
        """The same protocol, read from a file that the user trusts or does not."""
        copy = self.model_copy()
        copy._origin = origin
        return copy

    @model_validator(mode="after")
    def _patterns_match(self) -> "Protocol":
        for label, entry in self.algorithms.items():
            for pattern in [*(entry.datasets or []), *(p for on in entry.on for p in on.datasets)]:
                if not any(matches(dataset, pattern, self.datasets) for dataset in self.datasets):
                    raise PydanticCustomError(
                        "matches nothing",
                        "algorithm {label}: {pattern} matches none of the protocol's data sets",
                        {"label": label, "pattern": repr(pattern)},
                    )
        return self

    @field_validator("algorithms")
    @classmethod
    def _distinct(cls, values: dict[str, Any]) -> dict[str, Any]:
        forms = Counter(one_form(label) for label in values)
        label, count = forms.most_common(1)[0] if forms else ("", 0)
        if count > 1:  # a table of scores takes them for one
            raise PydanticCustomError(
                "twice",
                "{label} stands there in two Unicode forms that look the same; rename one",
                {"label": repr(label)},
            )
        return values

    @field_validator("datasets", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """Names in place of tables; see `offrl.data.altered`."""
        try:
            return [entry_name(entry) for entry in given] if isinstance(given, list) else given
        except InputError as error:
            raise PydanticCustomError("transform", "{fault}", {"fault": str(error)}) from None

    @field_validator("datasets", "seeds")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        value, count = Counter(values).most_common(1)[0]
        if count > 1:  # two workers would meet in one folder
            raise PydanticCustomError("twice", "{value} stands there twice", {"value": repr(value)})
        return values


def shipped_protocols() -> dict[str, Path]:
    """The files of all protocols that ship in `protocols/`, by id."""
    return {path.stem: path for path in registry.resources("protocols", ".toml")}


def find_protocol(name: str, trust: Files = ()) -> Protocol:
    """The shipped protocol called `name`, or the one in the TOML file at that path.

    A file may say `extends`, with the id of a shipped protocol or the path of a file, and then has
    only what differs. Paths in a file, of data sets and of algorithms, are relative to the file's
    own folder. The algorithms that it gives by path run only where `trust` has the file.
    """
    return _found(name, trusted(trust), ())[0]


def _found(
    name: str, trust: tuple[str, ...], extending: tuple[Path, ...]
) -> tuple[Protocol, set[str]]:
    """A protocol, and the ids of it and of those that it extends.

    Args:
        name: an id, or the path of a file.
        trust: of `trusted`.
        extending: the files that extend it, the first of which was asked for.
    """
    path = user_path(name)
    if shipped := not name.endswith(".toml"):
        known = shipped_protocols()
        if name not in known:
            raise unknown("protocol", name, known, "or give the path of a .toml file")
        path = known[name]
    values, folder, ids = read_toml(path), path.absolute().parent, set[str]()
    real = Path(os.path.realpath(path))
    if real in extending:
        raise InputError(f"{extending[-1]}: extends {name}, which extends it: a circle; cut it")
    if len(extending) > MOST_EXTENDED:
        raise InputError(
            f"{extending[0]}: extends more than {MOST_EXTENDED} protocols in a row; write out one"
        )
    origin = Origin() if shipped else Origin(str(path.absolute()), trust)
    origins: dict[str, Origin] = {}
    if "extends" in values:
        base, ids = _extended(path, values, trust, (*extending, real))
        own = values.get("algorithms")
        entries = own if isinstance(own, dict) else {}
        named = {
            k for k, entry in entries.items() if isinstance(entry, dict) and "algorithm" in entry
        }
        origins = {k: entry.origin for k, entry in base.algorithms.items() if k not in named}
        values = _over(base, values, folder)
    protocol = validate(Protocol, values, str(path))
    if shipped and protocol.id != path.stem:
        raise InputError(f"{path}: id {protocol.id!r}, expected the file's name {path.stem!r}")
    algorithms = {
        label: _placed_entry(folder, label, entry, protocol.datasets, origins.get(label, origin))
        for label, entry in protocol.algorithms.items()
    }
    datasets = [_placed(folder, dataset) for dataset in protocol.datasets]
    here = protocol.model_copy(update={"algorithms": algorithms, "datasets": datasets})
    return here.read_from(origin), ids | {protocol.id}


def _extended(
    path: Path, values: Tables, trust: tuple[str, ...], extending: tuple[Path, ...]
) -> tuple[Protocol, set[str]]:
    """The protocol that a file extends, and the ids of it and of those that it extends."""
    name = values["extends"]
    if not isinstance(name, str):
        raise InputError(
            f"{path}: extends: expected the id of a protocol or the path of a .toml file, found "
            f"{shown(name)}"
        )
    for key in ("id", "version"):
        if key not in values:
            raise InputError(f"{path}: {key}: a protocol that extends another has its own; add it")
    if name.endswith(".toml"):
        extended = path.absolute().parent / user_path(name)
        name = str(Path(os.path.realpath(extended.parent)) / extended.name)
    try:
        base, ids = _found(name, trust, extending)
    except InputError as error:
        if str(error).startswith("unknown protocol"):
            raise InputError(f"{path}: extends: {error}") from None
        raise
    if values["id"] in ids:
        raise InputError(
            f"{path}: id {shown(values['id'])} is that of a protocol that it extends, whose scores "
            "it would be taken for; choose another"
        )
    return base, ids


def _over(base: Protocol, values: Tables, folder: Path) -> Tables:
    """The tables of a protocol that extends `base`, of its file's own `values`."""
    datasets, own = values.get("datasets"), values.get("algorithms")
    names = base.datasets
    if isinstance(datasets, list):
        given = [entry_name(entry) for entry in datasets]
        if all(isinstance(name, str) for name in given):
            names = [_placed(folder, name) for name in given]
    inherited = on_datasets(tables(base), names, own if isinstance(own, dict) else ())
    return merged(inherited, {key: value for key, value in values.items() if key != "extends"})


def tables(protocol: Protocol) -> Tables:
    """What a file of a protocol holds; paths are absolute."""
    return protocol.model_dump(exclude_unset=True, exclude_none=True)


def _placed_entry(
    folder: Path, label: str, entry: AlgorithmEntry, names: Sequence[str], origin: Origin
) -> AlgorithmEntry:
    """An algorithm of a protocol's file, whose paths start at the file's folder.

    Args:
        folder: the file's.
        label: the algorithm's.
        entry: as the file gives it.
        names: the protocol's data sets, as the file gives them.
        origin: of the file that names its code.
    """

    def absolute(datasets: list[str]) -> list[str]:
        return [_placed(folder, d) if d in names else _placed_pattern(folder, d) for d in datasets]

    on = [some.model_copy(update={"datasets": absolute(some.datasets)}) for some in entry.on]
    changes: dict[str, Any] = {"on": on} if on else {}
    if entry.datasets is not None:
        changes["datasets"] = absolute(entry.datasets)
    if (name := entry.algorithm or label).endswith(".py"):
        changes["algorithm"] = str(folder / user_path(name))
    return entry.model_copy(update=changes).read_from(origin)


def _placed(folder: Path, dataset: str) -> str:
    """A data set of a protocol's file: ids stay, a path starts at the file's folder."""

    def absolute(name: str) -> str:
        return str(folder / user_path(name)) if is_path(name) else name

    return placed(dataset, absolute)


def _placed_pattern(folder: Path, pattern: str) -> str:
    """The same for a pattern: what is special about the folder's own name means itself."""
    path = user_path(pattern)
    if not is_path(pattern) or path.is_absolute():
        return pattern
    return f"{glob.escape(str(folder))}/{path}"
