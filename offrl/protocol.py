"""Protocols: which algorithms on which data sets, with which seeds, budget and evaluation.

A protocol is a TOML file, shipped in `protocols/` or the user's own. It expands into jobs, one per
run; everything that a job's scores depend on is in the job.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from offrl import __version__, registry
from offrl.card import Card
from offrl.errors import InputError, unknown
from offrl.learner import find_algorithm
from offrl.toml import Strict, read_toml, validate


class Evaluation(Strict):
    """How often and how a policy is scored."""

    every: int = Field(gt=0)  # gradient steps; the last step is always evaluated
    episodes: int = Field(gt=0)
    seed: int = 0  # of the episodes' starts, together with the run's seed


class Entry(Strict):
    """One algorithm of a protocol; its table's name is the label in every report."""

    algorithm: str | None = None  # a registered name or a path; None: the label itself
    steps: int | None = Field(default=None, gt=0)  # instead of the protocol's
    config: dict[str, Any] = Field(default_factory=dict)  # what differs from the defaults


class Protocol(Strict):
    """A protocol; `version` changes whenever scores would."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    title: str
    source: str  # the publication it follows, or who made it
    notes: str = ""  # where it differs from the source
    datasets: list[str] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    steps: int = Field(gt=0)  # gradient steps per run
    evaluation: Evaluation
    algorithms: dict[str, Entry] = Field(min_length=1)


@dataclass(frozen=True)
class Job:
    """One run: one algorithm, one data set, one seed."""

    protocol: str  # id@version
    dataset: str  # an id or a path, as the protocol gives it
    label: str  # the algorithm's name in reports
    algorithm: str  # registered name or path
    config: dict[str, Any]  # complete, defaults included
    code: str | None  # SHA-256 of an algorithm file outside the package
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
        dataset = Path(self.dataset).stem if "/" in self.dataset else self.dataset
        dataset = dataset.replace(":", "-")
        return root / protocol / dataset / f"{self.label}-{self.config_hash}" / f"seed-{self.seed}"


def shipped_protocols() -> dict[str, Path]:
    """The files of all protocols that ship in `protocols/`, by id."""
    return {path.stem: path for path in registry.resources("protocols", ".toml")}


def find_protocol(name: str) -> Protocol:
    """The shipped protocol called `name`, or the one in the TOML file at that path."""
    if name.endswith(".toml"):
        path = Path(name)
    else:
        known = shipped_protocols()
        if name not in known:
            raise unknown("protocol", name, known, "or give the path of a .toml file")
        path = known[name]
    protocol = validate(Protocol, read_toml(path), str(path))
    if protocol.id != path.stem and not name.endswith(".toml"):
        raise InputError(f"{path}: id {protocol.id!r}, expected the file's name {path.stem!r}")
    return protocol


def configure(algorithm: str, overrides: dict[str, Any], where: str) -> Any:
    """The algorithm's config with `overrides` applied; an error names `where` and the key."""
    config_type = find_algorithm(algorithm).Config
    fields = [field.name for field in dataclasses.fields(config_type)]
    for key in overrides:
        if key not in fields:
            error = unknown("config key", key, fields)
            raise InputError(f"{where}: {error}")
    try:
        # As JSON, where a list may stand for a tuple; nothing else is converted.
        text = json.dumps(overrides, default=str)
        config: Any = TypeAdapter(config_type).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {key}: {first['msg']}, found {first['input']!r}") from None
    if not isinstance(getattr(config, "batch_size", None), int) or config.batch_size < 1:
        raise InputError(f"{where}: {config_type.__name__} needs batch_size, a positive integer")
    return config


def expand(protocol: Protocol, algorithms: Sequence[str] = ()) -> list[Job]:
    """All runs of a protocol, seed by seed so that complete comparisons come first.

    Args:
        protocol: what to expand.
        algorithms: labels of the protocol, registered names or paths of Python files; only these
            run, those that the protocol does not list with their own defaults. Empty: all it lists.
    """
    chosen = dict(protocol.algorithms)
    if algorithms:
        chosen = {}
        for name in algorithms:
            label = Path(name).stem if name.endswith(".py") else name
            if name.endswith(".py"):
                chosen[label] = Entry(algorithm=str(Path(name).resolve()))
            else:
                known = {**registry.modules("algorithms"), **protocol.algorithms}
                if name not in known:
                    raise unknown("algorithm", name, known)
                chosen[label] = protocol.algorithms.get(name, Entry())
    jobs = []
    for label, entry in chosen.items():
        name = entry.algorithm or label
        where = f"protocol {protocol.id}, algorithm {label}"
        config = dataclasses.asdict(configure(name, entry.config, where))
        code = hashlib.sha256(Path(name).read_bytes()).hexdigest() if name.endswith(".py") else None
        for dataset in protocol.datasets:
            jobs += [
                Job(
                    protocol=f"{protocol.id}@{protocol.version}",
                    dataset=dataset,
                    label=label,
                    algorithm=name,
                    config=json.loads(json.dumps(config)),
                    code=code,
                    steps=entry.steps or protocol.steps,
                    evaluation=protocol.evaluation.model_dump(),
                    seed=seed,
                )
                for seed in protocol.seeds
            ]
    return sorted(jobs, key=lambda job: protocol.seeds.index(job.seed))


def identity(job: Job, card: Card) -> dict[str, Any]:
    """Everything that decides a run's scores; a run folder refuses to carry on with another."""
    return {
        "protocol": job.protocol,
        "dataset": f"{card.id}@{card.version}",
        "view": card.view,
        "environment": card.environment.model_dump() if card.environment else None,
        "reference": card.reference.model_dump() if card.reference else None,
        "label": job.label,
        "algorithm": job.algorithm,
        "config": job.config,
        "code": job.code,
        "config_hash": job.config_hash,
        "steps": job.steps,
        "evaluation": job.evaluation,
        "seed": job.seed,
    }


def versions() -> dict[str, str]:
    """Versions of what a score depends on, by distribution name."""
    import platform
    from importlib.metadata import version

    names = ("numpy", "torch", "gymnasium", "gymnasium-robotics", "mujoco", "minari")
    return {
        "offrl": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
