"""Where runs are carried out: on this machine, by a Ray cluster, or as jobs of Slurm."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from offrl.errors import InputError, unknown
from offrl.running.events import Executor

EXECUTORS = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Launcher:
    """Where and how runs are carried out; `offrl.run(..., launcher=Launcher("slurm"))`.

    Args:
        name: `local`, `ray` or `slurm`.
        allow_versions: packages, `python` or `commit`, in which the machines of a cluster may
            differ from this one.
        chunk_hours: how long a task of Ray or of Slurm's array works, about.
        partition: of Slurm; None: its default.
        array_parallelism: tasks of an array that work at once, at most.
        slurm: further options of submitit and of sbatch: account, qos, gres, time, ...
    """

    name: str = "local"
    allow_versions: Sequence[str] = ()
    chunk_hours: float = 1.0
    partition: str | None = None
    array_parallelism: int = 256
    slurm: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in EXECUTORS:
            raise unknown("launcher", self.name, EXECUTORS)
        without = {
            "local": ("allow_versions", "chunk_hours"),
            "ray": (),
            "slurm": (),
        }[self.name]
        given = {f.name for f in fields(self) if getattr(self, f.name) != _default(f)}
        of_slurm = {"partition", "array_parallelism", "slurm"} if self.name != "slurm" else set()
        if wrong := sorted(given & {*without, *of_slurm}):
            option = wrong[0].replace("_", "-")
            raise InputError(
                f"--{option}: is no option of the launcher {self.name}; leave it out, or choose "
                "--launcher slurm"
            )
        if not 0 < self.chunk_hours <= 1000:
            raise InputError(f"--chunk-hours {self.chunk_hours:g}: expected hours, up to 1,000")
        if not 0 < self.array_parallelism <= 100_000:
            raise InputError(
                f"--array-parallelism {self.array_parallelism}: expected 1 to 100,000 tasks at once"
            )


def _default(described: Any) -> Any:
    empty = described.default_factory
    return described.default if not callable(empty) else empty()


def find_executor(launcher: str | Launcher) -> Executor:
    """The executor of a launcher, or of the launcher of this name.

    Raises InputError where there is none of the name, or where the extra that it needs is missing.
    """
    if isinstance(launcher, str):
        launcher = Launcher(launcher)
    module = importlib.import_module(f"offrl.running.executors.{launcher.name}")
    if (needed := getattr(module, "NEEDS", None)) and importlib.util.find_spec(needed) is None:
        raise InputError(
            f"launcher {launcher.name}: the Python package {needed} is not installed; "
            f"pip install 'offrl[{launcher.name}]'"
        )
    made: Executor = module.executor(launcher)
    return made
