"""The runs that a protocol expands into."""

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import (
    PydanticUndefinedAnnotation,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from offrl import registry
from offrl.data.altered import of_all_runs, of_run, placed
from offrl.data.dataset import Dataset
from offrl.data.resolve import is_path
from offrl.errors import InputError, unknown
from offrl.files import LONGEST_NAME, plain, user_path
from offrl.learning.learner import find_algorithm
from offrl.results.rows import Identity
from offrl.results.settings import setting_text, with_setting
from offrl.running.grids import check_runs, settings, size
from offrl.running.patterns import is_chosen
from offrl.running.protocol import AlgorithmEntry, Evaluation, Protocol, label_fault
from offrl.toml import shown
from offrl.trust import Files, Origin, trusted


@dataclass(frozen=True)
class Job:
    """One run: one algorithm, one data set, one seed."""

    protocol: str  # id@version
    dataset: str  # an id or a path, as the protocol gives it, with the run's seed where it has it
    label: str  # the algorithm's name in reports
    algorithm: str  # registered name or path
    config: dict[str, Any]  # complete, defaults included
    code: str | None  # SHA-256 of an algorithm file outside the package
    view: str | None  # the rows that the algorithm needs; None: those of the data set's card
    steps: int
    evaluation: Evaluation
    seed: int
    precision: str = "float32"  # of products, on a GPU
    trust: tuple[str, ...] = ()  # files whose code may run; see `offrl.trust`
    dataset_id: str | None = None  # of the card, once it is read; None: as the protocol gives it
    setting: str = ""  # the values of a grid, such as `beta=10`; they are in the config too

    @property
    def title(self) -> str:
        """How messages name the run: data set, algorithm with its setting, and seed."""
        named = with_setting(self.label, self.setting)
        return f"{self.dataset_id or self.dataset} {named} seed {self.seed}"

    @cached_property
    def config_hash(self) -> str:
        """Eight hexadecimal digits that differ with the config, and with a user's file."""
        return config_hash(self.algorithm, self.config, self.code)

    @cached_property
    def place(self) -> tuple[str, ...]:
        """The names of the folders, one in another, in which the run lives."""
        protocol = self.protocol.partition("@")[0]
        dataset = placed(of_all_runs(self.dataset), _folder_name)
        return protocol, dataset, f"{self.label}-{self.config_hash}", f"seed-{self.seed}"

    def folder(self, root: Path) -> Path:
        """Where the run lives below `root`; RunFolder takes no link on the way for a folder."""
        return root.joinpath(*(plain(name, str(root)) for name in self.place))


def _folder_name(dataset: str) -> str:
    """What stands for a data set in the names of folders."""
    if is_path(dataset):
        return Path(dataset).stem
    return dataset.replace(":", "-").replace("/", "-")


def config_hash(algorithm: str, config: Mapping[str, Any], code: str | None) -> str:
    """Eight hexadecimal digits that differ with a config, and with a user's file."""
    identity = {"algorithm": Path(algorithm).stem, "config": config}
    if code:
        identity["code"] = code
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def configure(algorithm: str, overrides: dict[str, Any], where: str) -> Any:
    """The algorithm's config with `overrides` applied; an error names `where` and the key."""
    try:
        learner = find_algorithm(algorithm)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    config_type = getattr(learner, "Config", None)
    if not isinstance(config_type, type) or not dataclasses.is_dataclass(config_type):
        raise InputError(
            f"{where}: class {learner.__name__} has no Config; expected a frozen dataclass with at "
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
        raise InputError(f"{where}: {key}: {first['msg']}, found {shown(first['input'])}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: a value cannot be kept as JSON: {error}"[:300]) from None
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
    protocol: Protocol,
    algorithms: Sequence[str] = (),
    datasets: Sequence[str] = (),
    trust: Files = (),
) -> list[Job]:
    """All runs of a protocol, seed by seed so that complete comparisons come first.

    Args:
        protocol: what to expand.
        datasets: ids or patterns; only the protocol's data sets that match one. Empty: all.
        algorithms: labels of the protocol, registered names or paths of Python files; only these
            run, those that the protocol does not list with their own defaults. Empty: all it lists.
        trust: files whose code may run. A Python file that the protocol's file names needs it; one
            among `algorithms` does not.

    Raises InputError for a name that there is not, and Untrusted for code that is not trusted.
    """
    files = (*protocol.origin.trust, *trusted(trust))
    chosen = chosen_entries(protocol, algorithms)
    for pattern in datasets:
        if not any(is_chosen(d, pattern, protocol.datasets) for d in protocol.datasets):
            own = "for data of your own: a .toml file with extends, id, version and datasets"
            advice = own if is_path(pattern) else ""
            raise unknown(f"data set of {protocol.id}", pattern, protocol.datasets, advice)
    on = {
        label: [
            dataset
            for dataset in protocol.datasets
            if entry.runs_on(dataset, protocol.datasets)
            and (not datasets or any(is_chosen(dataset, p, protocol.datasets) for p in datasets))
        ]
        for label, entry in chosen.items()
    }
    jobs = []
    for label, entry in chosen.items():
        name = entry.algorithm or label
        where = f"{protocol.id}, algorithm {label}"
        if name.endswith(".py"):
            Origin(entry.origin.file, files).allow(f"algorithm {label}", Path(name))
        configs = _Configs(name, where)
        configs.complete(entry.config | next(settings(entry.grid)))
        code, view = code_of(name), find_algorithm(name).view
        if entry.grid:
            check_runs(size(entry.grid) * len(on[label]) * len(protocol.seeds), where)
        for dataset in on[label]:
            overrides = entry.on_dataset(dataset, protocol.datasets)
            budget = overrides.model_dump(include={"every", "episodes"}, exclude_none=True)
            steps = overrides.steps or protocol.steps
            evaluation = protocol.evaluation.model_copy(update=budget)
            _check_last(evaluation, steps, f"{where} on {dataset}")
            for values in settings(entry.grid):
                config = configs.complete(overrides.config | values, dataset)
                jobs += [
                    Job(
                        protocol=f"{protocol.id}@{protocol.version}",
                        dataset=of_run(dataset, seed),
                        label=label,
                        algorithm=name,
                        config=config,
                        code=code,
                        view=view,
                        steps=steps,
                        evaluation=evaluation,
                        seed=seed,
                        precision=protocol.precision,
                        trust=files,
                        setting=setting_text({key: config[key] for key in values}),
                    )
                    for seed in protocol.seeds
                ]
    _check_places(protocol, jobs)
    return sorted(jobs, key=lambda job: protocol.seeds.index(job.seed))


def chosen_entries(protocol: Protocol, algorithms: Sequence[str]) -> dict[str, AlgorithmEntry]:
    """The algorithms of a protocol that run, by label; see `expand`."""
    chosen = {} if algorithms else dict(protocol.algorithms)
    for name in algorithms:
        if name.endswith(".py"):
            path = user_path(name)
            label, entry = path.stem, AlgorithmEntry(algorithm=str(path.resolve()))
            if fault := label_fault(label):
                raise InputError(f"--algorithm {name}: {fault}; rename the file")
            listed = protocol.algorithms.get(label, entry)
            if listed.algorithm and Path(listed.algorithm).resolve() == path.resolve():
                entry = listed.read_from(Origin())  # who gives it on the command line trusts it
        else:
            known = {**registry.modules("algorithms"), **protocol.algorithms}
            if name not in known:
                raise unknown("algorithm", name, known, "or give the path of a .py file")
            label, entry = name, protocol.algorithms.get(name, AlgorithmEntry())
        if chosen.get(label, entry) != entry:
            raise InputError(f"--algorithm {name}: a second {label!r}; rename the file of one")
        chosen[label] = entry
    return chosen


class _Configs:
    """Complete configs of one algorithm, each made once; as JSON has them."""

    def __init__(self, algorithm: str, where: str):
        self.algorithm, self.where = algorithm, where
        self.made: dict[str, dict[str, Any]] = {}

    def complete(self, values: dict[str, Any], dataset: str = "") -> dict[str, Any]:
        """The config with `values`; an error names the data set where there is one."""
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # `configure` says why
            if (text := json.dumps(values, sort_keys=True)) in self.made:
                return self.made[text]
        where = f"{self.where} on {dataset}" if dataset else self.where
        config = configure(self.algorithm, values, where)
        made: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
        self.made[json.dumps(values, sort_keys=True, default=str)] = made
        return made


def _check_places(protocol: Protocol, jobs: Sequence[Job]) -> None:
    """Raises InputError where runs would share a folder, or its name is too long."""
    owner: dict[tuple[str, ...], Job] = {}
    for job in jobs:
        for name in job.place:
            where = f"protocol {protocol.id}, {job.label} on {job.dataset:.100}: folder of its runs"
            if len(plain(name, where).encode()) > LONGEST_NAME:
                raise InputError(
                    f"{where}: {name:.40}... has more than {LONGEST_NAME} bytes; give a card "
                    "(TOML) with a short name for the data set"
                )
        other = owner.setdefault(job.place, job)
        if other.dataset != job.dataset:
            raise InputError(
                f"protocol {protocol.id}: data sets {other.dataset} and {job.dataset} would share "
                "a folder of runs; rename the file of one"
            )
        if other is not job:
            raise InputError(
                f"protocol {protocol.id}, algorithm {job.label}: the settings {other.setting} and "
                f"{job.setting} of its grid are one; give each once"
            )


def _check_last(evaluation: Evaluation, steps: int, where: str) -> None:
    """Raises InputError where a run has fewer evaluations than its score is the mean of."""
    evaluations = -(-steps // evaluation.every)
    if evaluation.last > evaluations:
        raise InputError(
            f"{where}: evaluation.last is {evaluation.last:,}, but a run of {steps:,} steps, with "
            f"an evaluation every {evaluation.every:,}, has {evaluations:,}; lower last, or every"
        )


def code_of(algorithm: str) -> str | None:
    """SHA-256 of an algorithm's file, or None where offrl's version and commit stand for it."""
    module = sys.modules[find_algorithm(algorithm).__module__]
    if module.__name__.startswith("offrl.") or not module.__file__:
        return None
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()


def identity(job: Job, dataset: Dataset) -> Identity:
    """Everything that decides the scores of `job` on `dataset`."""
    card = dataset.card
    return Identity(
        protocol=job.protocol,
        dataset=f"{card.id}@{card.version}",
        data_sha256=dataset.checksum,
        view=card.view,
        environment=card.environment.model_dump(exclude={"entry_point"})
        if card.environment
        else None,
        reference=card.reference.model_dump() if card.reference else None,
        label=job.label,
        algorithm=Path(job.algorithm).name if job.code else job.algorithm,  # files may move
        config=job.config,
        code=job.code,
        config_hash=job.config_hash,
        steps=job.steps,
        evaluation=job.evaluation.record(),
        seed=job.seed,
        **({} if job.precision == "float32" else {"precision": job.precision}),
    )
