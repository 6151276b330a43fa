"""Runs jobs in processes of this machine, one single-threaded worker per core."""

import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import torch

from offrl.results.rows import Status
from offrl.results.store import RunFolder
from offrl.running.events import Event, key
from offrl.running.jobs import Job
from offrl.running.training import Interrupted, train_run

log = logging.getLogger(__name__)


def _worker(job: Job, root: Path, pipe: Connection) -> None:
    """Trains one run in a process of its own; reports through `pipe`."""
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
    except Interrupted:
        end = Event(job, Status.INTERRUPTED, *last)
    except Exception as error:  # run.json has the traceback
        end = Event(job, Status.FAILED, *last, cause=f"{type(error).__name__}: {error}")
    try:
        pipe.send(end)
    except OSError:
        log.info("%s: %s, and the parent process is gone", job.folder(root), end.status)


def cores() -> int:
    """The cores that this process may use."""
    # Of this process, which a container or `taskset` may hold to fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(
    waiting: list[Job],
    root: Path,
    workers: int,
    ended: dict[str, Event],
    on_event: Callable[[Event], None],
) -> None:
    """Runs the waiting jobs, `workers` at a time; fills `ended` with their last events."""
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches every process of a terminal. This one alone answers it, with SIGTERM: a worker
    # is born with SIGINT blocked, else one that is importing prints a traceback, or a helper
    # process of such an import dies and the run is said to have failed. The tracker unblocks SIGINT
    # when it starts, so it starts first.
    multiprocessing.resource_tracker.ensure_running()
    running: dict[Connection, tuple[BaseProcess, Event]] = {}

    stopping = False

    def finish(pipe: Connection) -> None:
        process, last = running.pop(pipe)
        process.join()
        pipe.close()
        if last.status is Status.RUNNING and stopping:  # told before it had begun to listen
            last = replace(last, status=Status.INTERRUPTED)
        elif last.status is Status.RUNNING:  # it died without a word
            code = process.exitcode or 0
            name = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit {code}"
            last = replace(last, status=Status.FAILED, cause=f"worker ended by {name}")
            folder = RunFolder(last.job.folder(root))
            with folder.held():
                if folder.read().record is not None:
                    folder.set_status(Status.FAILED, last.cause)
        ended[key(last.job)] = last
        on_event(last)

    def listen() -> None:
        for ready in wait(list(running), timeout=1):
            pipe = cast(Connection, ready)
            try:
                event: Event = pipe.recv()
            except (EOFError, OSError):
                finish(pipe)
                continue
            process, _ = running[pipe]
            running[pipe] = (process, event)
            if event.status is Status.RUNNING:
                on_event(event)

    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_worker, args=(job, root, theirs), daemon=False
                )
                before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
                try:
                    process.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                theirs.close()
                running[ours] = (process, Event(job, Status.RUNNING, 0))
            listen()
    except BaseException:  # Ctrl-C, and anything that a callback or the disk may raise
        stopping = True
        for process, _ in running.values():  # the terminal has told them; a kill of us has not
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        while running:  # a worker saves at its next step, after the evaluation it may be in
            listen()
        raise
