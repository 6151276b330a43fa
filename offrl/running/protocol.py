"""Protocols: which algorithms on which data sets, with which seeds, budget and evaluation.

A protocol is a TOML file, shipped in `protocols/` or the user's own. It expands into jobs, one per
run; everything that a job's scores depend on is in the job.
"""

import fnmatch
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from offrl import registry
from offrl.data.resolve import is_path
from offrl.errors import InputError, unknown
from offrl.running.patterns import matches_any
from offrl.toml import Strict, read_toml, validate
from offrl.trust import Files, Origin, trusted


class Evaluation(Strict):
    """How often and how a policy is scored."""

    every: int = Field(gt=0)  # gradient steps; the last step is always evaluated
    episodes: int = Field(gt=0)
    seed: int = Field(default=0, ge=0)  # of the episodes' starts, together with the run's seed


class Overrides(Strict):
    """What replaces the protocol's budget and the algorithm's own config; None keeps them."""

    steps: int | None = Field(default=None, gt=0)
    every: int | None = Field(default=None, gt=0)
    episodes: int | None = Field(default=None, gt=0)
    config: dict[str, Any] = Field(default_factory=dict)  # what differs from the defaults


class OverridesOn(Overrides):
    """Overrides for some data sets."""

    datasets: list[str] = Field(min_length=1)  # ids, or patterns such as antmaze-*


class AlgorithmEntry(Overrides):
    """One algorithm of a protocol; its table's name is the label in every report."""

    algorithm: str | None = None  # a registered name or a .py file; None: the label itself
    datasets: list[str] | None = Field(default=None, min_length=1)  # ids or patterns; None: all
    on: list[OverridesOn] = Field(default_factory=list)  # later entries override earlier ones

    def runs_on(self, dataset: str) -> bool:
        """Whether the protocol has this algorithm on the data set."""
        return self.datasets is None or matches_any(dataset, self.datasets)

    def on_dataset(self, dataset: str) -> Overrides:
        """The overrides that hold on one data set."""
        overrides = Overrides(**self.model_dump(include=set(Overrides.model_fields)))
        for on in self.on:
            if matches_any(dataset, on.datasets):
                changes = on.model_dump(include=set(Overrides.model_fields), exclude_none=True)
                changes["config"] = overrides.config | on.config
                overrides = overrides.model_copy(update=changes)
        return overrides


Label = Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$")]  # a folder of the run store has its name


class Protocol(Strict):
    """A protocol; `version` changes whenever scores would."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    title: str
    source: str  # the publication it follows, or who made it
    notes: str = ""  # where it differs from the source
    datasets: list[str] = Field(min_length=1)
    seeds: list[NonNegativeInt] = Field(min_length=1)
    steps: int = Field(gt=0)  # gradient steps per run
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
                if not fnmatch.filter(self.datasets, pattern):
                    raise PydanticCustomError(
                        "matches nothing",
                        "algorithm {label}: {pattern} matches none of the protocol's data sets",
                        {"label": label, "pattern": repr(pattern)},
                    )
        return self

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

    Paths in such a file, of data sets and of algorithms, are relative to the file's own folder. The
    algorithms that it gives by path run only where `trust` has the file.
    """
    if name.endswith(".toml"):
        path = Path(name)
    else:
        known = shipped_protocols()
        if name not in known:
            raise unknown("protocol", name, known, "or give the path of a .toml file")
        path = known[name]
    protocol = validate(Protocol, read_toml(path), str(path))
    if not name.endswith(".toml"):
        if protocol.id != path.stem:
            raise InputError(f"{path}: id {protocol.id!r}, expected the file's name {path.stem!r}")
        return protocol
    folder = path.absolute().parent
    algorithms = {
        label: _placed_entry(folder, label, entry) for label, entry in protocol.algorithms.items()
    }
    datasets = [_placed(folder, dataset) for dataset in protocol.datasets]
    placed = protocol.model_copy(update={"algorithms": algorithms, "datasets": datasets})
    return placed.read_from(Origin(str(path.absolute()), trusted(trust)))


def _placed_entry(folder: Path, label: str, entry: AlgorithmEntry) -> AlgorithmEntry:
    """An algorithm of a protocol's file, whose paths start at the file's folder."""

    def placed(datasets: list[str]) -> list[str]:
        return [_placed(folder, dataset) for dataset in datasets]

    on = [some.model_copy(update={"datasets": placed(some.datasets)}) for some in entry.on]
    changes: dict[str, Any] = {"on": on}
    if entry.datasets is not None:
        changes["datasets"] = placed(entry.datasets)
    if (name := entry.algorithm or label).endswith(".py"):
        changes["algorithm"] = str(folder / name)
    return entry.model_copy(update=changes)


def _placed(folder: Path, dataset: str) -> str:
    """A data set of a protocol's file: ids stay, a path starts at the file's folder."""
    return str(folder / Path(dataset).expanduser()) if is_path(dataset) else dataset
