"""Runs jobs in processes of this machine, one single-threaded worker per core."""

import contextlib
import logging
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

from offrl.errors import InputError
from offrl.results.rows import Status
from offrl.results.store import Held, RunFolder, State
from offrl.running.devices import players_each
from offrl.running.events import Event, OnEvent, ended_before, left_to
from offrl.running.groups import Group
from offrl.running.scoring import Players
from offrl.running.training import train_group

log = logging.getLogger(__name__)

BRIEF = 1.0  # seconds that another process may look at the run of a worker that died


def run_in_processes(
    groups: Sequence[Group], root: Path, places: Sequence[str], on_event: OnEvent
) -> list[Event]:
    """Carries out groups in processes of this machine, one for each of `places`; see `Executor`."""
    # Ctrl-C reaches every process of a terminal. This one alone handles it, and sends SIGTERM to
    # the workers: each starts with SIGINT blocked, else one that is importing prints a traceback,
    # or a helper process of such an import dies and the run counts as failed. The tracker unblocks
    # SIGINT when it starts, so it starts first.
    multiprocessing.resource_tracker.ensure_running()
    pool = _Pool(groups, root, players_each(places, len(groups)), on_event)
    try:
        for place in places[: len(groups)]:
            pool.start(place)
        while pool.workers:
            pool.listen()
    except BaseException:  # Ctrl-C, and anything that a callback or the disk may raise
        pool.stop()
        raise
    return pool.ended


@dataclass
class _Worker:
    """A process that carries out one group after another, with the last event of each run."""

    process: BaseProcess
    pipe: Connection
    place: str  # the device on which it computes
    running: dict[tuple[str, ...], Event] = field(default_factory=dict)


class _Pool:
    """The worker processes, and the groups that wait for one."""

    def __init__(self, groups: Sequence[Group], root: Path, players: int, on_event: OnEvent):
        self.players = players  # processes of each worker that play evaluations
        self.waiting = list(groups)
        self.root = root
        self.on_event = on_event
        self.context = multiprocessing.get_context("spawn")
        self.workers: dict[Connection, _Worker] = {}
        self.ended: list[Event] = []
        self.stopping = False

    def start(self, place: str) -> None:
        """Starts a worker that computes on a device, and hands it the next group."""
        ours, theirs = self.context.Pipe()
        process: BaseProcess = self.context.Process(
            target=_work, args=(self.root, place, self.players, theirs), daemon=False
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.workers[ours] = _Worker(process, ours, place)
        self._hand_out(self.workers[ours])

    def _hand_out(self, worker: _Worker) -> None:
        """Gives a worker the next group; None, so that it ends, where there is none."""
        group = self.waiting.pop(0) if self.waiting and not self.stopping else None
        if group:
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
            worker.running = {}
            ended, leaves = message
            if not leaves:
                self._hand_out(worker)
            for event in ended:
                self._end(event)

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
        del self.workers[worker.pipe]
        worker.process.join()
        worker.pipe.close()
        if self.waiting and not self.stopping:
            self.start(worker.place)
        for last in worker.running.values():
            if self.stopping:  # SIGTERM came before its handler was installed
                self._end(replace(last, status=Status.INTERRUPTED))
            else:
                self._end(self._recorded_end(worker.process, last))

    def _end(self, event: Event) -> None:
        self.ended.append(event)
        self._hand_on(event)

    def _recorded_end(self, process: BaseProcess, last: Event) -> Event:
        """The end of a run whose worker sent none: done if its record says so, else a failure."""
        code = process.exitcode or 0
        name = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit {code}"
        cause = f"worker ended by {name}"
        folder = RunFolder(last.job.folder(self.root), self.root)
        try:
            with folder.held(BRIEF):
                stored = folder.fail(cause)
            if stored.state is State.DONE:
                return ended_before(last.job, stored)
        except Held as error:  # by another process, which has taken it meanwhile
            return left_to(last, error)
        except InputError as error:  # the others go on
            log.warning("%s", error)
        return replace(last, status=Status.FAILED, cause=cause)

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
