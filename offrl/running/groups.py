"""Which runs train together: as replicas of one learner, in one process."""

import contextlib
import json
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from offrl.errors import Damaged
from offrl.learning.groups import group_key, is_number
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.spec import Spec
from offrl.learning.state import Stateful
from offrl.results.rows import Numerics
from offrl.results.store import RunFolder
from offrl.running.jobs import Job, configure

LARGEST, LARGEST_ON_GPU = 10, 100  # replicas of a group, unless a number is given


@dataclass(frozen=True)
class Group:
    """Jobs that train as replicas of one learner, `replicas` of them or fewer."""

    jobs: tuple[Job, ...]
    replicas: int


def kind_of(job: Job, spec: Spec) -> Hashable:
    """The same for jobs that can train as replicas of one learner; None for one that cannot."""
    algorithm = find_algorithm(job.algorithm)
    if not issubclass(algorithm, Learner) or algorithm.state_dict is not Stateful.state_dict:
        return None  # offrl cannot save its replicas one by one
    config = configure(job.algorithm, job.config, f"algorithm {job.label}")
    # A validation split is one batch for all replicas.
    dataset = None if algorithm.validate is Learner.validate else job.dataset
    key = group_key(algorithm, config, spec, job.steps)
    return key, job.code, job.precision, dataset, repr(job.evaluation)


def checked_once(job: Job) -> Hashable:
    """The same for jobs that build the same learner, but for seeds and numbers that may vary."""
    varying = find_algorithm(job.algorithm).varying
    fixed = {k: v for k, v in job.config.items() if k not in varying or not is_number(v)}
    return job.label, job.dataset, json.dumps(fixed, sort_keys=True)


def group(
    jobs: Sequence[Job],
    root: Path,
    replicas: int | None,
    places: Sequence[str],
    kind: Callable[[Job], Hashable],
) -> list[Group]:
    """The jobs in groups, in the order of each group's first job.

    A run that has a checkpoint stays in the group, of the size, with which it began. Runs of one
    data set and one label are put together first.

    Args:
        jobs: to be carried out.
        root: the folder of runs.
        replicas: R of new groups; None: as many as keep all workers busy, up to LARGEST.
        places: the devices of the workers.
        kind: the same for jobs that can go together; None for one that goes alone.
    """
    position = {job.place: number for number, job in enumerate(jobs)}
    begun: dict[tuple[Hashable, str, int], list[Job]] = {}
    fresh: dict[Hashable, list[Job]] = {}
    for job in jobs:
        if (last := _numerics(job, root)) is not None:
            name = last.group or str(job.place)
            begun.setdefault((kind(job) or job.place, name, last.replicas), []).append(job)
        else:
            fresh.setdefault(kind(job) or (None, job.place), []).append(job)
    largest = LARGEST if places[0] == "cpu" else LARGEST_ON_GPU
    groups = []
    for (_, _, size), members in begun.items():
        # A record may be anybody's: its size costs memory only as far as a new group's may.
        kept = size if size <= max(largest, replicas or 1) else 1
        groups.append(Group(tuple(members), max(kept, len(members))))
    for members in fresh.values():
        size = replicas or min(largest, math.ceil(len(members) * len(fresh) / len(places)))
        firsts: dict[tuple[str, str], int] = {}
        for job in members:
            firsts.setdefault((job.dataset, job.label), position[job.place])
        members = sorted(members, key=lambda job: firsts[job.dataset, job.label])
        for first in range(0, len(members), size):
            together = tuple(members[first : first + size])
            groups.append(Group(together, len(together)))
    return sorted(groups, key=lambda group: min(position[job.place] for job in group.jobs))


def _numerics(job: Job, root: Path) -> Numerics | None:
    """How a run that has a checkpoint was computed; None for one that begins."""
    folder = RunFolder(job.folder(root), root)
    with contextlib.suppress(Damaged):
        if folder.checkpoint_step(job.steps) or folder.checkpoint_step(job.steps, upcoming=True):
            last = folder.record().numerics[-1:]
            return last[0] if last else BEFORE
    return None


# Of runs that began before there was a record of it.
BEFORE = Numerics(step=0, replicas=1, group=None, kernel="", dtype="", threads=1, device="cpu")
