"""Which runs train together: as replicas of one learner, in one process."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from offrl.errors import Damaged
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.state import Stateful
from offrl.results.rows import Numerics
from offrl.results.store import RunFolder
from offrl.running.jobs import Job

LARGEST = 10  # replicas of a group on a CPU, unless a number is given


@dataclass(frozen=True)
class Group:
    """Jobs that train as replicas of one learner, `replicas` of them or fewer."""

    jobs: tuple[Job, ...]
    replicas: int


def group(jobs: Sequence[Job], root: Path, replicas: int | None, workers: int) -> list[Group]:
    """The jobs in groups, in the order of each group's first job.

    Jobs that differ in their seeds alone can go together. A run that has a checkpoint stays in the
    group, of the size, with which it began.

    Args:
        jobs: to be carried out.
        root: the folder of runs.
        replicas: R of new groups; None: as many as keep all workers busy, up to LARGEST.
        workers: processes that carry out groups.
    """
    begun: dict[str, list[Job]] = {}
    sizes: dict[str, int] = {}
    fresh: dict[str, list[Job]] = {}
    for job in jobs:
        numerics = _numerics(job, root)
        if numerics is not None and (numerics.group or numerics.replicas == 1):
            name = numerics.group or job.title
            begun.setdefault(f"{_kind(job)} {name}", []).append(job)
            sizes[f"{_kind(job)} {name}"] = numerics.replicas
        else:
            fresh.setdefault(_kind(job), []).append(job)
    groups = []
    for name, members in begun.items():
        size = max(sizes[name], len(members))
        groups.append(Group(tuple(members), size))
    for members in fresh.values():
        size = replicas or min(LARGEST, math.ceil(len(members) * len(fresh) / workers))
        if not _has_axis(members[0]):
            size = 1
        for first in range(0, len(members), size):
            together = tuple(members[first : first + size])
            groups.append(Group(together, len(together)))
    position = {job.place: number for number, job in enumerate(jobs)}
    return sorted(groups, key=lambda group: position[group.jobs[0].place])


def _kind(job: Job) -> str:
    """The same for jobs that differ in their seeds alone."""
    return repr(replace(job, seed=0))


def _has_axis(job: Job) -> bool:
    """Whether the algorithm trains replicas, and leaves it to offrl to save them one by one."""
    algorithm = find_algorithm(job.algorithm)
    return issubclass(algorithm, Learner) and algorithm.state_dict is Stateful.state_dict


def _numerics(job: Job, root: Path) -> Numerics | None:
    """How a run that has a checkpoint was computed; None for one that begins."""
    folder = RunFolder(job.folder(root), root)
    with contextlib.suppress(Damaged):
        if folder.checkpoint_step(job.steps) or folder.checkpoint_step(job.steps, upcoming=True):
            last = folder.record().numerics[-1:]
            alone = Numerics(
                step=0, replicas=1, group=None, kernel="", dtype="", threads=1, device=""
            )
            return last[0] if last else alone
    return None
