"""What a cluster carries out as one task: groups of runs for the workers of one machine."""

import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from offrl.errors import InputError
from offrl.results.provenance import commit, versions
from offrl.results.rows import Status
from offrl.results.store import RunFolder, State
from offrl.running.costs import Costs
from offrl.running.devices import worker_places
from offrl.running.events import Event, OnEvent
from offrl.running.executors.local import run_in_processes
from offrl.running.groups import Group
from offrl.running.jobs import Job
from offrl.running.retries import Retries, sessions

SHORTEST = 300.0  # seconds of work below which a task of its own does not pay
MOST_GROUPS = 64  # of a chunk
ROOM = 1.25  # memory that is asked for, by what was measured


@dataclass(frozen=True)
class Chunk:
    """Groups that the workers of one machine carry out, one after another."""

    groups: tuple[Group, ...]
    root: Path
    device: str
    workers: int
    memory: int | None  # bytes that the workers need together; None: nobody measured it
    begun: Mapping[tuple[str, ...], int]  # how many processes had worked on each run before
    versions: Mapping[str, str]  # of the machine that hands it out, in what has to be the same
    kernel: str | None  # OFFRL_KERNEL there

    @property
    def jobs(self) -> list[Job]:
        """The runs."""
        return [job for group in self.groups for job in group.jobs]


@dataclass(frozen=True)
class _Cost:
    """What a group takes; None: nobody measured it."""

    group: Group
    seconds: float | None
    memory: int | None


def cut(
    groups: Sequence[Group],
    root: Path,
    *,
    device: str,
    workers: int,
    tasks: int,
    seconds: float,
    allowed: Sequence[str] = (),
) -> list[Chunk]:
    """Groups in chunks, the longest first.

    A chunk takes about `seconds`, or less where all tasks would not be busy otherwise. Groups of
    which nobody knows how long they take are in chunks with one of them for each worker.

    Args:
        groups: to be carried out.
        root: the folder of runs.
        device: of the workers.
        workers: of a chunk.
        tasks: chunks that are carried out at once.
        seconds: of a chunk.
        allowed: versions that may differ.
    """
    known = Costs.read(root)
    costs = sorted(
        (_cost(group, known, device) for group in groups),
        key=lambda cost: math.inf if cost.seconds is None else cost.seconds,
        reverse=True,
    )
    total = sum(cost.seconds or 0.0 for cost in costs)
    target = min(seconds, max(SHORTEST, total / (tasks * workers)))
    filling: list[tuple[list[_Cost], list[float]]] = []  # groups, and seconds of each worker
    first_open = 0  # those before it are full
    for cost in costs:
        while first_open < len(filling) and _is_full(*filling[first_open], target):
            first_open += 1
        for held, busy in filling[first_open:]:
            least = min(range(workers), key=busy.__getitem__)
            after = busy[least] + (math.inf if cost.seconds is None else cost.seconds)
            has_room = len(held) < MOST_GROUPS and after <= target
            if has_room or (len(held) < workers and busy[least] == 0):
                held.append(cost)
                busy[least] = after
                break
        else:
            first = math.inf if cost.seconds is None else cost.seconds
            filling.append(([cost], [first, *[0.0] * (workers - 1)]))
    same = {**versions(), "commit": commit() or "none"}
    for name in allowed:
        if name not in same:
            raise InputError(
                f"--allow-versions {name:.80}: expected one of {', '.join(sorted(same))}"
            )
    return [
        Chunk(
            groups=tuple(cost.group for cost in held),
            root=root,
            device=device,
            workers=min(workers, len(held)),
            memory=_memory(held, workers),
            begun={job.place: sessions(job, root) for cost in held for job in cost.group.jobs},
            versions={name: value for name, value in same.items() if name not in allowed},
            kernel=os.environ.get("OFFRL_KERNEL"),
        )
        for held, _ in filling
    ]


def _is_full(held: Sequence[_Cost], busy: Sequence[float], target: float) -> bool:
    return len(held) >= MOST_GROUPS or (len(held) >= len(busy) and min(busy) >= target)


def _cost(group: Group, known: Costs, device: str) -> _Cost:
    each = [known.seconds(job, group.replicas, device) for job in group.jobs]
    some = [known.memory(job, group.replicas, device) for job in group.jobs]
    return _Cost(
        group,
        None if None in each else sum(value for value in each if value is not None),
        max((value for value in some if value is not None), default=None),
    )


def _memory(costs: Sequence[_Cost], workers: int) -> int | None:
    """Bytes that the workers need at once: the largest groups, with some room."""
    known = sorted((c.memory for c in costs if c.memory is not None), reverse=True)[:workers]
    if not known:
        return None
    return int(ROOM * (sum(known) + known[-1] * (min(workers, len(costs)) - len(known))))


def carry_out(
    chunk: Chunk, on_event: OnEvent = lambda _event: None
) -> list[tuple[int, Status, int, float | None, str | None]]:
    """Carries out what is left of a chunk on this machine; how its runs ended, briefly.

    Each end has the run's number in the chunk, status, step, score and cause. Raises InputError
    where this machine differs from the one that hands the chunk out in what has to be the same.
    """
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if chunk.kernel is None:
        os.environ.pop("OFFRL_KERNEL", None)
    else:
        os.environ["OFFRL_KERNEL"] = chunk.kernel
    _check_same(chunk)
    groups = [left for group in chunk.groups if (left := _left(group, chunk)).jobs]
    if not groups:
        return []
    places = worker_places(chunk.device, chunk.workers)
    numbers = {job.place: number for number, job in enumerate(chunk.jobs)}
    return [
        (numbers[end.job.place], end.status, end.step, end.score, end.cause)
        for end in run_in_processes(groups, chunk.root, places, on_event)
    ]


def _check_same(chunk: Chunk) -> None:
    host = platform.node()
    here = {**versions(), "commit": commit() or "none"}
    if differing := [n for n, value in chunk.versions.items() if here.get(n) != value]:
        told = ", ".join(f"{n} {here.get(n)} for {chunk.versions[n]}" for n in differing)
        allow = " ".join(f"--allow-versions {name}" for name in differing)
        raise InputError(
            f"host {host}: versions differ from those of the machine that hands out the runs: "
            f"{told}; install the same, or allow it: {allow}"
        )
    first = RunFolder(chunk.jobs[0].folder(chunk.root), chunk.root)
    if not os.path.lexists(first.record_file):
        raise InputError(
            f"host {host}: {first.record_file}: no such file; expected a folder of runs that all "
            "machines share, so choose -o on a shared disk"
        )


def _left(group: Group, chunk: Chunk) -> Group:
    """The runs of a group that have not ended since the chunk was made."""
    left = []
    for job in group.jobs:
        stored = RunFolder(job.folder(chunk.root), chunk.root).read()
        processes = len(stored.record.sessions) if stored.record is not None else 0
        failed = stored.state is State.FAILED and processes > chunk.begun.get(job.place, 0)
        if stored.state is not State.DONE and not failed:
            left.append(job)
    return replace(group, jobs=tuple(left))


def lost(
    chunk: Chunk,
    retries: Retries,
    cause: str,
    end: Callable[[Event], None],
    *,
    again: bool,
    host: str | None = None,
    out_of_memory: bool = False,
) -> Chunk | None:
    """What is left to try of a chunk whose task is gone; None: nothing.

    Args:
        chunk: whose task is gone.
        retries: of the executor.
        cause: how it ended.
        end: called with the end of each run that is not tried again.
        again: whether the task was lost.
        host: of the task, if it is known.
        out_of_memory: whether it needs more memory.
    """
    begun = {job.place for job in chunk.jobs if sessions(job, chunk.root) > chunk.begun[job.place]}
    groups = []
    for group in chunk.groups:
        left = []
        for job in group.jobs:
            if again and begun and job.place not in begun:  # it was not this run's turn
                left.append(job)
                continue
            last = Event(job, Status.RUNNING, 0)
            event = retries.end(last, cause, chunk.begun[job.place], again=again, host=host)
            if event is None:
                left.append(job)
            else:
                end(event)
        if left:
            groups.append(replace(group, jobs=tuple(left)))
    if not groups:
        return None
    memory = chunk.memory
    if out_of_memory:
        memory = 2 * (memory or chunk.workers * 2**31)
    now = {job.place: sessions(job, chunk.root) for group in groups for job in group.jobs}
    return replace(chunk, groups=tuple(groups), memory=memory, begun=now)
