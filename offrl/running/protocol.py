"""Protocols: which algorithms on which data sets, with which seeds, budget and evaluation.

A protocol is a TOML file, shipped in `protocols/` or the user's own. It expands into jobs, one per
run; everything that a job's scores depend on is in the job.
"""

import dataclasses
import fnmatch
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    NonNegativeInt,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from offrl import registry
from offrl.data.dataset import LOADERS, Dataset
from offrl.errors import InputError, unknown
from offrl.learning.learner import find_algorithm
from offrl.toml import Strict, read_toml, validate


class Evaluation(Strict):
    """How often and how a policy is scored."""

    every: int = Field(gt=0)  # gradient steps; the last step is always evaluated
    episodes: int = Field(gt=0)
    seed: int = Field(default=0, ge=0)  # of the episodes' starts, together with the run's seed


class Setting(Strict):
    """What an algorithm runs with; what is left out is the protocol's, or the algorithm's own."""

    steps: int | None = Field(default=None, gt=0)
    every: int | None = Field(default=None, gt=0)
    episodes: int | None = Field(default=None, gt=0)
    config: dict[str, Any] = Field(default_factory=dict)  # what differs from the defaults


class SettingOn(Setting):
    """What differs on some data sets."""

    datasets: list[str] = Field(min_length=1)  # ids, or patterns such as antmaze-*


class Entry(Setting):
    """One algorithm of a protocol; its table's name is the label in every report."""

    algorithm: str | None = None  # a registered name or a .py file; None: the label itself
    datasets: list[str] | None = Field(default=None, min_length=1)  # ids or patterns; None: all
    on: list[SettingOn] = Field(default_factory=list)  # a later one comes before an earlier one

    def runs_on(self, dataset: str) -> bool:
        """Whether the protocol has this algorithm on the data set."""
        return self.datasets is None or _matches(dataset, self.datasets)

    def setting(self, dataset: str) -> Setting:
        """What the algorithm runs with on one data set."""
        setting = Setting(**self.model_dump(include=set(Setting.model_fields)))
        for on in self.on:
            if _matches(dataset, on.datasets):
                changes = on.model_dump(include=set(Setting.model_fields), exclude_none=True)
                changes["config"] = setting.config | on.config
                setting = setting.model_copy(update=changes)
        return setting


def _matches(dataset: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(dataset, pattern) for pattern in patterns)


def _chosen(dataset: str, patterns: Sequence[str]) -> bool:
    """Whether `--dataset` means it: by id, by a path's file name, or by a pattern of either."""
    return _matches(dataset, patterns) or _matches(Path(dataset).name, patterns)


def patterns(names: Sequence[str], among: Sequence[str]) -> list[str]:
    """Ids and patterns that match the names and nothing else of `among`, in the names' order."""
    found, left = [], list(names)
    while left:
        best, parts = left[0], left[0].split("-")
        heads = ["-".join([*parts[:i], "*"]) for i in range(1, len(parts))]
        tails = ["-".join(["*", *parts[i:]]) for i in range(1, len(parts))]
        for pattern in [*heads, *tails]:
            if len(fnmatch.filter(left, pattern)) > 1 and set(
                fnmatch.filter(among, pattern)
            ) <= set(names):
                best = pattern
                break
        found.append(best)
        left = [name for name in left if name != best and not fnmatch.fnmatchcase(name, best)]
    return found


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
    algorithms: dict[Label, Entry] = Field(min_length=1)

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


@dataclass(frozen=True)
class Job:
    """One run: one algorithm, one data set, one seed."""

    protocol: str  # id@version
    dataset: str  # an id or a path, as the protocol gives it
    label: str  # the algorithm's name in reports
    algorithm: str  # registered name or path
    config: dict[str, Any]  # complete, defaults included
    code: str | None  # SHA-256 of an algorithm file outside the package
    view: str | None  # the rows that the algorithm needs; None: those of the data set's card
    steps: int
    evaluation: dict[str, int]
    seed: int

    @property
    def config_hash(self) -> str:
        """Eight hexadecimal digits that tell configurations (and files of one's own) apart."""
        identity = {"algorithm": Path(self.algorithm).stem, "config": self.config}
        if self.code:
            identity["code"] = self.code
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]

    def folder(self, root: Path) -> Path:
        """Where the run lives below `root`."""
        protocol = self.protocol.partition("@")[0]
        if self.dataset.startswith("minari:"):
            dataset = self.dataset.replace(":", "-").replace("/", "-")
        else:
            dataset = Path(self.dataset).stem if "/" in self.dataset else self.dataset
        return root / protocol / dataset / f"{self.label}-{self.config_hash}" / f"seed-{self.seed}"


def shipped_protocols() -> dict[str, Path]:
    """The files of all protocols that ship in `protocols/`, by id."""
    return {path.stem: path for path in registry.resources("protocols", ".toml")}


def find_protocol(name: str) -> Protocol:
    """The shipped protocol called `name`, or the one in the TOML file at that path.

    Paths in such a file, of data sets and of algorithms, are relative to the file's own folder.
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
    algorithms = {label: _placed_entry(folder, e) for label, e in protocol.algorithms.items()}
    datasets = [_placed(folder, dataset) for dataset in protocol.datasets]
    return protocol.model_copy(update={"algorithms": algorithms, "datasets": datasets})


def _placed_entry(folder: Path, entry: Entry) -> Entry:
    """An algorithm of a protocol's file, whose paths start at the file's folder."""

    def placed(datasets: list[str]) -> list[str]:
        return [_placed(folder, dataset) for dataset in datasets]

    on = [s.model_copy(update={"datasets": placed(s.datasets)}) for s in entry.on]
    changes: dict[str, Any] = {"on": on}
    if entry.datasets is not None:
        changes["datasets"] = placed(entry.datasets)
    if entry.algorithm and entry.algorithm.endswith(".py"):
        changes["algorithm"] = str(folder / entry.algorithm)
    return entry.model_copy(update=changes)


def _placed(folder: Path, dataset: str) -> str:
    """A data set of a protocol's file: ids stay, a path starts at the file's folder."""
    is_path = "/" in dataset or Path(dataset).suffix in (".toml", *LOADERS)
    if not is_path or dataset.startswith("minari:"):
        return dataset
    return str(folder / Path(dataset).expanduser())


def configure(algorithm: str, overrides: dict[str, Any], where: str) -> Any:
    """The algorithm's config with `overrides` applied; an error names `where` and the key."""
    try:
        found = find_algorithm(algorithm)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    config_type = getattr(found, "Config", None)
    if not isinstance(config_type, type) or not dataclasses.is_dataclass(config_type):
        raise InputError(
            f"{where}: class {found.__name__} has no Config; expected a frozen dataclass with at "
            "least batch_size"
        )
    if not config_type.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise InputError(
            f"{where}: {config_type.__name__} is a dataclass that can be changed; write "
            "@dataclass(frozen=True)"
        )
    fields = [field.name for field in dataclasses.fields(config_type)]
    for key in overrides:
        if key not in fields:
            raise InputError(f"{where}: {unknown('config key', key, fields)}")
    try:
        # As JSON, where a list may stand for a tuple; nothing else is converted.
        text = json.dumps(overrides, default=str)
        config: Any = TypeAdapter(config_type).validate_json(text, strict=True)
        values = dataclasses.asdict(config)
        json.dumps(values)  # a run folder keeps it
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {key}: {first['msg']}, found {first['input']!r}") from None
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{where}: {config_type.__name__} cannot be written as TOML: {reason}; give its fields "
            "types such as float, int, bool, str or tuple[int, ...]"
        ) from None
    if type(values.get("batch_size")) is not int or values["batch_size"] < 1:
        raise InputError(
            f"{where}: batch_size: expected a field of {config_type.__name__} that is a positive "
            f"integer, found {values.get('batch_size')!r}"
        )
    for key, value in values.items():
        if value != value:
            raise InputError(f"{where}: {key}: expected a number, found nan")
    return config


def expand(
    protocol: Protocol, algorithms: Sequence[str] = (), datasets: Sequence[str] = ()
) -> list[Job]:
    """All runs of a protocol, seed by seed so that complete comparisons come first.

    Args:
        protocol: what to expand.
        datasets: ids or patterns; only the protocol's data sets that match one. Empty: all.
        algorithms: labels of the protocol, registered names or paths of Python files; only these
            run, those that the protocol does not list with their own defaults. Empty: all it lists.
    """
    chosen = {} if algorithms else dict(protocol.algorithms)
    for name in algorithms:
        if name.endswith(".py"):
            label, entry = Path(name).stem, Entry(algorithm=str(Path(name).resolve()))
        else:
            known = {**registry.modules("algorithms"), **protocol.algorithms}
            if name not in known:
                raise unknown("algorithm", name, known, "or give the path of a .py file")
            label, entry = name, protocol.algorithms.get(name, Entry())
        if chosen.get(label, entry) != entry:
            raise InputError(f"--algorithm {name}: a second {label!r}; rename the file of one")
        chosen[label] = entry
    for pattern in datasets:
        if not any(_chosen(dataset, [pattern]) for dataset in protocol.datasets):
            raise unknown(f"data set of {protocol.id}", pattern, protocol.datasets)
    jobs = []
    for label, entry in chosen.items():
        name = entry.algorithm or label
        where = f"{protocol.id}, algorithm {label}"
        configure(name, entry.config, where)
        code, view = _code(name), find_algorithm(name).view
        for dataset in protocol.datasets:
            if not entry.runs_on(dataset) or not _chosen(dataset, datasets or ["*"]):
                continue
            setting = entry.setting(dataset)
            config = dataclasses.asdict(configure(name, setting.config, f"{where} on {dataset}"))
            evaluation = protocol.evaluation.model_dump()
            evaluation["every"] = setting.every or evaluation["every"]
            evaluation["episodes"] = setting.episodes or evaluation["episodes"]
            jobs += [
                Job(
                    protocol=f"{protocol.id}@{protocol.version}",
                    dataset=dataset,
                    label=label,
                    algorithm=name,
                    config=json.loads(json.dumps(config)),
                    code=code,
                    view=view,
                    steps=setting.steps or protocol.steps,
                    evaluation=evaluation,
                    seed=seed,
                )
                for seed in protocol.seeds
            ]
    owner: dict[Path, str] = {}
    for job in jobs:
        other = owner.setdefault(job.folder(Path()), job.dataset)
        if other != job.dataset:
            raise InputError(
                f"protocol {protocol.id}: data sets {other} and {job.dataset} would share a folder "
                "of runs; rename the file of one"
            )
    return sorted(jobs, key=lambda job: protocol.seeds.index(job.seed))


def _code(algorithm: str) -> str | None:
    """SHA-256 of an algorithm's file, or None where offrl's version and commit stand for it."""
    module = sys.modules[find_algorithm(algorithm).__module__]
    if module.__name__.startswith("offrl.") or not module.__file__:
        return None
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()


def identity(job: Job, dataset: Dataset) -> dict[str, Any]:
    """Everything that decides a run's scores; a run folder refuses to carry on with another."""
    card = dataset.card
    return {
        "protocol": job.protocol,
        "dataset": f"{card.id}@{card.version}",
        "data_sha256": dataset.checksum,
        "view": card.view,
        "environment": card.environment.model_dump() if card.environment else None,
        "reference": card.reference.model_dump() if card.reference else None,
        "label": job.label,
        "algorithm": Path(job.algorithm).name if job.code else job.algorithm,  # files may move
        "config": job.config,
        "code": job.code,
        "config_hash": job.config_hash,
        "steps": job.steps,
        "evaluation": job.evaluation,
        "seed": job.seed,
    }
