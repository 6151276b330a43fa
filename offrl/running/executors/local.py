"""Runs jobs in processes of this machine, one single-threaded worker per core."""

import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import torch

from offrl.errors import InputError
from offrl.results.rows import Status
from offrl.results.store import Held, RunFolder, State
from offrl.running.events import Event, OnEvent, ended_before
from offrl.running.faults import AlgorithmError
from offrl.running.jobs import Job
from offrl.running.training import Interrupted, cause_of, train_run

log = logging.getLogger(__name__)


def run_in_processes(
    jobs: Sequence[Job], root: Path, workers: int, on_event: OnEvent
) -> list[Event]:
    """Carries out jobs in processes of this machine, `workers` at a time; see `Executor`."""
    # Ctrl-C reaches every process of a terminal. This one alone handles it, and sends SIGTERM to
    # the workers: each starts with SIGINT blocked, else one that is importing prints a traceback,
    # or a helper process of such an import dies and the run counts as failed. The tracker unblocks
    # SIGINT when it starts, so it starts first.
    multiprocessing.resource_tracker.ensure_running()
    waiting, pool = list(jobs), _Pool(root, on_event)
    try:
        while waiting or pool.running:
            while waiting and len(pool.running) < workers:
                pool.start(waiting.pop(0))
            pool.listen()
    except BaseException:  # Ctrl-C, and anything that a callback or the disk may raise
        pool.stop()
        raise
    return pool.ended


class _Pool:
    """The worker processes that run, each with the last event that it sent."""

    def __init__(self, root: Path, on_event: OnEvent):
        self.root = root
        self.on_event = on_event
        self.context = multiprocessing.get_context("spawn")
        self.running: dict[Connection, tuple[BaseProcess, Event]] = {}
        self.ended: list[Event] = []
        self.stopping = False

    def start(self, job: Job) -> None:
        """Starts a worker for one job."""
        ours, theirs = self.context.Pipe(duplex=False)
        process: BaseProcess = self.context.Process(
            target=_worker, args=(job, self.root, theirs), daemon=False
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.running[ours] = (process, Event(job, Status.RUNNING, 0))

    def listen(self) -> None:
        """Takes one event from each worker that has sent one, for at most a second."""
        for ready in wait(list(self.running), timeout=1):
            pipe = cast(Connection, ready)
            try:
                event: Event = pipe.recv()
            except (EOFError, OSError):
                self._finish(pipe)
                continue
            process, _ = self.running[pipe]
            self.running[pipe] = (process, event)
            if event.status is Status.RUNNING:
                self._hand_on(event)

    def stop(self) -> None:
        """Asks every worker to save and end, and waits until they have."""
        self.stopping = True
        for process, _ in self.running.values():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        while self.running:  # a worker saves at its next step, after the evaluation it may be in
            self.listen()

    def _finish(self, pipe: Connection) -> None:
        """Notes the end of a worker whose pipe is closed, and its cause where it sent none."""
        process, last = self.running.pop(pipe)
        process.join()
        pipe.close()
        if last.status is Status.RUNNING and self.stopping:
            # SIGTERM came before its handler was installed.
            last = replace(last, status=Status.INTERRUPTED)
        elif last.status is Status.RUNNING:
            last = self._recorded_end(process, last)
        self.ended.append(last)
        self._hand_on(last)

    def _recorded_end(self, process: BaseProcess, last: Event) -> Event:
        """The end of a run whose worker sent none: done if its record says so, else a failure."""
        code = process.exitcode or 0
        name = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit {code}"
        cause = f"worker ended by {name}"
        folder = RunFolder(last.job.folder(self.root), self.root)
        try:
            with folder.held():
                stored = folder.fail(cause)
            if stored.state is State.DONE:
                return ended_before(last.job, stored)
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


def _worker(job: Job, root: Path, pipe: Connection) -> None:
    """The work of one process: trains one run, and sends its events through `pipe`."""
    torch.set_num_threads(1)
    stop = False

    def ask_to_stop(_signal: int, _frame: Any) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    last: tuple[int, float | None] = (0, None)

    def report(step: int, score: float | None) -> bool:
        nonlocal last, stop
        last = (step, score)
        try:
            pipe.send(Event(job, Status.RUNNING, step, score))
        except OSError:  # the parent is gone
            stop = True
        return stop

    try:
        train_run(job, root, report)
        end = Event(job, Status.DONE, *last)
    except Held as held:  # by another process, which has taken it meanwhile
        end = Event(job, Status.WAITING, *last, cause=str(held))
    except Interrupted:
        end = Event(job, Status.INTERRUPTED, *last)
    except Exception as error:  # run.json has the traceback
        if isinstance(error, AlgorithmError) and error.step is not None:
            last = (error.step, last[1])
        end = Event(job, Status.FAILED, *last, cause=cause_of(error))
    try:
        pipe.send(end)
    except OSError:
        log.info("%s: %s, and the parent process is gone", job.folder(root), end.status)


def cores() -> int:
    """The cores that this process may use."""
    # Of this process, which a container or `taskset` may hold to fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
