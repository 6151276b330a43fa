"""Runs jobs in processes of this machine, one single-threaded worker per core."""

import contextlib
import logging
import math
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import torch

from offrl.data.foreign import free_memory
from offrl.results.rows import Status
from offrl.running.costs import Costs
from offrl.running.devices import players_each, worker_places
from offrl.running.events import Event, OnEvent
from offrl.running.groups import Group
from offrl.running.jobs import Job
from offrl.running.launchers import Launcher
from offrl.running.retries import Retries, memory_kills, sessions, was_killed
from offrl.running.scoring import Players
from offrl.running.training import train_group

log = logging.getLogger(__name__)


class _Local:
    """The executor of this machine."""

    def places(self, device: str, workers: int | None) -> list[str]:
        return worker_places(device, workers)

    def under_way(self, jobs: Sequence[Job], root: Path) -> list[Job]:
        del jobs, root  # none outlives its command
        return []

    def __call__(
        self, groups: Sequence[Group], root: Path, places: Sequence[str], on_event: OnEvent
    ) -> list[Event]:
        return run_in_processes(groups, root, places, on_event)


def executor(_launcher: Launcher) -> _Local:
    """Carries out runs in processes of this machine."""
    return _Local()


def run_in_processes(
    groups: Sequence[Group], root: Path, places: Sequence[str], on_event: OnEvent
) -> list[Event]:
    """Carries out groups in processes of this machine, one for each of `places`; see `Executor`.

    There are fewer where the memory that is free would not do for as many, by what such runs took
    before, and after one was killed for want of memory.
    """
    # Ctrl-C reaches every process of a terminal. This one alone handles it, and sends SIGTERM to
    # the workers: each starts with SIGINT blocked, else one that is importing prints a traceback,
    # or a helper process of such an import dies and the run counts as failed. The tracker unblocks
    # SIGINT when it starts, so it starts first. Slurm sends SIGUSR2 to every process of a task.
    multiprocessing.resource_tracker.ensure_running()
    places = places[: _fitting(groups, root, places)]
    pool = _Pool(groups, root, len(places), players_each(places, len(groups)), on_event)
    try:
        for place in places[: len(groups)]:
            pool.start(place)
        while pool.workers:
            pool.listen()
    except BaseException:  # Ctrl-C, and anything that a callback or the disk may raise
        pool.stop()
        raise
    return pool.ended


def _fitting(groups: Sequence[Group], root: Path, places: Sequence[str]) -> int:
    """How many workers there is memory for, at least one."""
    known, free = Costs.read(root), free_memory()
    device = places[0].partition(":")[0]
    each = max(known.memory(g.jobs[0], g.replicas, device) or 0 for g in groups)
    wanted = min(len(places), len(groups))
    if free is None or wanted * each <= free:
        return len(places)
    fitting = max(1, free // each)
    log.warning(
        "%d of %d workers are used: each needs up to %.1f GiB of memory, and %.1f GiB are free",
        fitting,
        wanted,
        each / 2**30,
        free / 2**30,
    )
    return fitting


@dataclass
class _Worker:
    """A process that carries out one group after another, with the last event of each run."""

    process: BaseProcess
    pipe: Connection
    place: str  # the device on which it computes
    group: Group | None = None
    begun: dict[tuple[str, ...], int] = field(default_factory=dict)  # processes before this one
    running: dict[tuple[str, ...], Event] = field(default_factory=dict)


class _Pool:
    """The worker processes, and the groups that wait for one."""

    def __init__(
        self, groups: Sequence[Group], root: Path, most: int, players: int, on_event: OnEvent
    ):
        self.players = players  # processes of each worker that play evaluations
        self.waiting = list(groups)
        self.root = root
        self.on_event = on_event
        self.context = multiprocessing.get_context("spawn")
        self.workers: dict[Connection, _Worker] = {}
        self.ended: list[Event] = []
        self.stopping = False
        self.retries = Retries(root)
        self.kills = memory_kills()
        self.most = most  # workers at once; fewer after memory ran out

    def start(self, place: str) -> None:
        """Starts a worker that computes on a device, and hands it the next group."""
        ours, theirs = self.context.Pipe()
        process: BaseProcess = self.context.Process(
            target=_work, args=(self.root, place, self.players, theirs), daemon=False
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGUSR2))
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.workers[ours] = _Worker(process, ours, place)
        self._hand_out(self.workers[ours])

    def _hand_out(self, worker: _Worker) -> None:
        """Gives a worker the next group; None, so that it ends, where there is none for it."""
        busy = sum(other.group is not None for other in self.workers.values())
        has_room = not self.stopping and busy < self.most
        group = self.waiting.pop(0) if self.waiting and has_room else None
        worker.group = group
        if group:
            worker.begun = {job.place: sessions(job, self.root) for job in group.jobs}
            worker.running = {job.place: Event(job, Status.RUNNING, 0) for job in group.jobs}
        with contextlib.suppress(OSError):  # it has died, which `listen` notices
            worker.pipe.send(group)

    def listen(self) -> None:
        """Takes one message from each worker that has sent one, for at most a second."""
        for ready in wait(list(self.workers), timeout=1):
            worker = self.workers[cast(Connection, ready)]
            try:
                message: Event | tuple[list[Event], bool] = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(message, Event):
                worker.running[message.job.place] = message
                self._hand_on(message)
                continue
            worker.running, worker.group = {}, None
            ended, leaves = message
            for event in ended:
                if not event.out_of_memory or self.stopping:
                    self._end(event)
                    continue
                alone = Group((event.job,), 1)
                self._lose(replace(worker, group=alone), [event], event.cause or "", True, True)
            if not leaves:
                self._hand_out(worker)

    def stop(self) -> None:
        """Asks every worker to save and end, and waits until they have."""
        self.stopping = True
        for worker in self.workers.values():
            if worker.process.pid is not None and worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGTERM)
        while self.workers:  # one saves at its next step, after the evaluation it may be in
            self.listen()

    def _bury(self, worker: _Worker) -> None:
        """Notes the end of a worker whose pipe is closed, and of the runs that it left."""
        worker.process.join()
        worker.pipe.close()
        try:
            self._end_group(worker)
        finally:  # whatever a callback raises: a closed pipe is not listened to
            del self.workers[worker.pipe]
        if self.waiting and not self.stopping and len(self.workers) < self.most:
            self.start(worker.place)

    def _end_group(self, worker: _Worker) -> None:
        """Notes the ends of the runs that a worker left, which has ended."""
        if worker.group is not None and self.stopping:
            # SIGTERM came before its handler was installed.
            for last in worker.running.values():
                self._end(replace(last, status=Status.INTERRUPTED))
        elif worker.group is not None:
            code = worker.process.exitcode or 0
            name = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit {code}"
            killed_before, self.kills = self.kills, memory_kills()
            out_of_memory = code == -signal.SIGKILL and self.kills > killed_before
            cause = f"worker ended by {name}" + (", out of memory" if out_of_memory else "")
            lasts = [*worker.running.values()]
            self._lose(worker, lasts, cause, was_killed(code), out_of_memory)

    def _lose(
        self,
        worker: _Worker,
        lasts: Sequence[Event],
        cause: str,
        again: bool,
        out_of_memory: bool,
    ) -> None:
        """Notes the ends of runs whose worker was lost, or had no memory left, or tries them again.

        Where memory ran out, half as many workers go on; where there is one, half of the group.
        """
        left = []
        for last in lasts:
            event = self.retries.end(last, cause, worker.begun[last.job.place], again=again)
            if event is None:
                log.warning("%s: %s; it is tried again", last.job.title, cause)
                left.append(last.job)
            else:
                self._end(event)
        assert worker.group is not None
        if left and out_of_memory and self.most == 1 and len(left) > 1:
            half = math.ceil(len(left) / 2)
            parts = (tuple(left[:half]), tuple(left[half:]))
            self.waiting += [Group(part, len(part)) for part in parts]
        elif left:
            self.waiting.append(replace(worker.group, jobs=tuple(left)))
        if out_of_memory:
            self.most = max(1, min(self.most, len(self.workers)) // 2)

    def _end(self, event: Event) -> None:
        self.ended.append(event)
        self._hand_on(event)

    def _hand_on(self, event: Event) -> None:
        """Calls `on_event`, until it raises: `stop` then waits for all workers without it."""
        try:
            self.on_event(event)
        except BaseException:
            self.on_event = lambda _event: None
            if not self.stopping:  # else the exception for which they are stopped is raised
                raise


def _work(root: Path, place: str, count: int, pipe: Connection) -> None:
    """The work of one process: trains the groups that it is given, and sends their events."""
    torch.set_num_threads(1)
    stop = False

    def ask_to_stop(_signal: int, _frame: Any) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a process that this one starts unblocks it

    def report(event: Event) -> bool:
        nonlocal stop
        try:
            pipe.send(event)
        except OSError:  # the parent is gone
            stop = True
        return stop

    players = Players(count) if count else None
    try:
        while group := pipe.recv():
            ended = train_group(
                group.jobs, root, group.replicas, report, place, players, group.seats
            )
            pipe.send((ended, stop))
            if stop:
                break
    except (EOFError, OSError):
        log.info("the parent process is gone")
    if players is not None:
        players.close()
