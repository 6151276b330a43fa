"""Which runs train together: as replicas of one learner, in one process."""

import contextlib
import hashlib
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
    seats: tuple[Job, ...] = ()  # of all replicas, where their order is fixed


def group_name(jobs: Sequence[Job], step: int) -> str:
    """The name of a group of runs that is made at a step."""
    places = sorted(str(job.place) for job in jobs)
    return hashlib.sha256(f"{places} {step}".encode()).hexdigest()[:8]


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
    planned: Sequence[Job] = (),
    sized: Callable[[Job, int], int] = lambda _job, most: most,
) -> list[Group]:
    """The jobs in groups, in the order of each group's first job.

    A run that has a checkpoint stays in the group, of the size, with which it began. Runs of one
    data set and one label are put together first. With `replicas`, the groups are those of all
    planned jobs, and each job keeps its replica: so whichever of them are carried out here, and
    when, their numbers are the same.

    Args:
        jobs: to be carried out.
        root: the folder of runs.
        replicas: R of new groups; None: as many as keep all workers busy, up to LARGEST, or as
            many of these as `sized` says.
        places: the devices of the workers.
        kind: the same for jobs that can go together; None for one that goes alone.
        planned: all jobs of the protocol, in their order; those to be carried out where empty.
        sized: the best R for a job, up to a number.
    """
    position = {job.place: number for number, job in enumerate(jobs)}
    seats: dict[tuple[str, ...], tuple[Job, ...]] = {}
    for members in _by_kind(planned or jobs, kind):
        for together in _cut(members, replicas or 1):
            seats |= {job.place: together for job in together if len(together) > 1}
    seated: dict[str, list[Job]] = {}
    begun: dict[tuple[Hashable, str, int], list[Job]] = {}
    fresh: list[Job] = []
    for job in jobs:
        last, name = _numerics(job, root), group_name(seats.get(job.place, ()), 0)
        if job.place in seats and (last is None or last.group == name):
            seated.setdefault(name, []).append(job)
        elif last is not None:
            name = last.group or str(job.place)
            begun.setdefault((kind(job) or job.place, name, last.replicas), []).append(job)
        else:
            fresh.append(job)
    largest = LARGEST if places[0] == "cpu" else LARGEST_ON_GPU
    groups = []
    for members in seated.values():
        all_of_them = seats[members[0].place]
        members.sort(key=all_of_them.index)
        groups.append(Group(tuple(members), len(all_of_them), all_of_them))
    for (_, _, size), members in begun.items():
        # A record may be anybody's: its size costs memory only as far as a new group's may.
        kept = size if size <= max(largest, replicas or 1) else 1
        groups.append(Group(tuple(members), max(kept, len(members))))
    kinds = _by_kind(fresh, kind)
    for members in kinds:
        busy = math.ceil(len(members) * len(kinds) / len(places))
        size = replicas or sized(members[0], min(largest, busy, len(members)))
        groups += [Group(together, len(together)) for together in _cut(members, size)]
    return sorted(groups, key=lambda group: min(position[job.place] for job in group.jobs))


def _by_kind(jobs: Sequence[Job], kind: Callable[[Job], Hashable]) -> list[list[Job]]:
    """Jobs that can go together; those of one data set and one label follow one another."""
    position = {job.place: number for number, job in enumerate(jobs)}
    kinds: dict[Hashable, list[Job]] = {}
    firsts: dict[tuple[Hashable, str, str], int] = {}
    for job in jobs:
        its = kind(job) or (None, job.place)
        kinds.setdefault(its, []).append(job)
        firsts.setdefault((its, job.dataset, job.label), position[job.place])
    return [
        sorted(members, key=lambda job: firsts[its, job.dataset, job.label])
        for its, members in kinds.items()
    ]


def _cut(jobs: Sequence[Job], size: int) -> list[tuple[Job, ...]]:
    return [tuple(jobs[first : first + size]) for first in range(0, len(jobs), size)]


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
