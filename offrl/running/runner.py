"""Runs a protocol: one single-threaded worker process per core, each with one run at a time.

The parent hands out the runs and listens; it writes nothing but the cause of death of a worker. A
worker that loses its parent saves and ends, so the same command can be given again at once.
"""

import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import torch

from offrl.data.dataset import load_dataset, resolve, share_outside
from offrl.errors import InputError
from offrl.results.store import RunFolder
from offrl.running.protocol import Job, Protocol, expand, find_protocol, identity, patterns
from offrl.running.training import Interrupted, check, scoring, train_run
from offrl.toml import validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """What happened to a run. `status`: waiting, running, done, failed or interrupted."""

    job: Job
    status: str
    step: int
    score: float | None = None
    cause: str | None = None


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
            pipe.send(Event(job, "running", step, score))
        except OSError:  # the parent is gone
            stop = True
        return stop

    try:
        train_run(job, root, report)
        end = Event(job, "done", *last)
    except Interrupted:
        end = Event(job, "interrupted", *last)
    except Exception as error:  # run.json has the traceback
        end = Event(job, "failed", *last, cause=f"{type(error).__name__}: {error}")
    try:
        pipe.send(end)
    except OSError:
        log.info("%s: %s, and the parent process is gone", job.folder(root), end.status)


def run(
    protocol: str | Path | Protocol,
    output: str | Path,
    *,
    algorithms: Sequence[str] = (),
    datasets: Sequence[str] = (),
    workers: int | None = None,
    on_event: Callable[[Event], None] = lambda _event: None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Event]:
    """Runs every run of a protocol that is not done yet; the last event of each run.

    Interrupted anywhere, even by SIGKILL, the same call carries on and ends with the same scores.

    Args:
        protocol: a shipped protocol's id, a path to a TOML file, or a Protocol.
        output: the folder of runs.
        algorithms: only these: labels of the protocol, registered names or paths to Python files.
        datasets: only these of the protocol's data sets: ids or patterns such as antmaze-*.
        workers: processes; by default one per core.
        on_event: called with each run's progress.
        progress: called with done and total while data are downloaded or made.

    Raises InputError before anything is started where a name, a config, a file or a lock is in the
    way, and KeyboardInterrupt after every worker has saved. A run that fails is noted in its folder
    and among the events; the others go on.
    """
    described = protocol if isinstance(protocol, Protocol) else find_protocol(str(protocol))
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    root = Path(output)
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file; expected the folder of runs, so choose another -o")
    jobs = [
        replace(job, dataset=_absolute(job.dataset))
        for job in expand(described, list(algorithms), list(datasets))
    ]
    if not jobs:
        raise InputError(
            f"protocol {described.id}: has none of these algorithms on any of these data sets; "
            f"see offrl show {described.id}"
        )
    _check_scored(described, list(dict.fromkeys(job.dataset for job in jobs)))
    loaded = {}
    for name, view in dict.fromkeys((job.dataset, job.view) for job in jobs):  # before the workers
        loaded[name, view] = load_dataset(name, view=view, progress=progress)
    bounds = {}
    for job in {(job.label, job.dataset): job for job in jobs}.values():
        bounds[job.dataset] = check(job, loaded[job.dataset, job.view]).max_action
    for name, data in {name: data for (name, _), data in loaded.items()}.items():
        if share := share_outside(data.actions, bounds[name]):
            log.info(
                "%s: %.1f %% of action entries lie outside [-%g, %g]; they stay as they are, "
                "except where an algorithm's reference clips them",
                data.card.id,
                100 * share,
                bounds[name],
                bounds[name],
            )
    root.mkdir(parents=True, exist_ok=True)

    ended: dict[str, Event] = {}
    waiting = []
    for job in jobs:
        folder = RunFolder(job.folder(root))
        with folder.held():
            folder.enlist(identity(job, loaded[job.dataset, job.view]))
            record = folder.record()
        if record["status"] == "done":
            row = folder.rows()[-1]
            event = Event(job, "done", row["step"], row["score"])
            ended[_key(job)] = event
            on_event(event)
        else:
            waiting.append(job)
            rows = folder.rows()
            on_event(Event(job, "waiting", rows[-1]["step"] if rows else 0))
    _work(waiting, root, workers or _cores(), ended, on_event)
    return [ended[_key(job)] for job in jobs]


def train(
    algorithm: str,
    dataset: str | Path,
    output: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    steps: int = 100_000,
    seeds: Sequence[int] = (0,),
    evaluate_every: int = 10_000,
    episodes: int = 10,
    workers: int | None = None,
    on_event: Callable[[Event], None] = lambda _event: None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Event]:
    """Trains one algorithm on one data set outside any protocol; the last event of each run.

    The runs are those of an unnamed protocol, in `output/train/`; see `run` for the rest.

    Args:
        algorithm: a registered name or the path of a Python file.
        dataset: an id, or a path to a card (TOML) that says how policies are scored.
        output: the folder of runs.
        config: what differs from the algorithm's defaults.
        steps: gradient steps.
        seeds: one run each.
        evaluate_every: gradient steps between evaluations; the last step is always evaluated.
        episodes: per evaluation.
        workers: processes; by default one per core.
        on_event: called with each run's progress.
        progress: called with done and total while data are downloaded or made.
    """
    name = str(Path(algorithm).resolve()) if algorithm.endswith(".py") else algorithm
    values = {
        "id": "train",
        "version": 1,
        "title": f"{algorithm} on {dataset}",
        "source": "offrl train",
        "datasets": [str(dataset)],
        "seeds": list(seeds),
        "steps": steps,
        "evaluation": {"every": evaluate_every, "episodes": episodes},
        "algorithms": {Path(algorithm).stem: {"algorithm": name, "config": dict(config or {})}},
    }
    protocol = validate(Protocol, values, "offrl train")
    return run(protocol, output, workers=workers, on_event=on_event, progress=progress)


def _check_scored(protocol: Protocol, names: list[str]) -> None:
    """Raises InputError, before anything is fetched, where policies cannot be scored on some."""
    scored, failures = [], []
    for name in names:
        card = resolve(name)
        try:
            scoring(card)
            scored.append(name)
        except InputError as error:
            failures.append((name, error))
    if not failures:
        return
    if not scored:
        raise failures[0][1]
    lacking = patterns([name for name, _ in failures], names)
    choice = " ".join(f"--dataset {shlex.quote(p)}" for p in patterns(scored, names))
    raise InputError(
        f"protocol {protocol.id}: policies cannot be scored on {len(failures)} of its {len(names)} "
        f"data sets ({', '.join(lacking)}), so choose the others: {choice}. The first of these: "
        f"{failures[0][1]}"
    )


def _key(job: Job) -> str:
    return str(job.folder(Path()))


def _absolute(dataset: str) -> str:
    path = Path(dataset)
    return str(path.resolve()) if ("/" in dataset or path.suffix) and path.exists() else dataset


def _cores() -> int:
    # Of this process, which a container or `taskset` may hold to fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(
    waiting: list[Job],
    root: Path,
    workers: int,
    ended: dict[str, Event],
    on_event: Callable[[Event], None],
) -> None:
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
        if last.status == "running" and stopping:  # told before it had begun to listen
            last = replace(last, status="interrupted")
        elif last.status == "running":  # it died without a word
            code = process.exitcode or 0
            name = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit {code}"
            last = replace(last, status="failed", cause=f"worker ended by {name}")
            folder = RunFolder(last.job.folder(root))
            with folder.held():
                if folder.record():
                    folder.set_status("failed", last.cause)
        ended[_key(last.job)] = last
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
            if event.status == "running":
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
                running[ours] = (process, Event(job, "running", 0))
            listen()
    except BaseException:  # Ctrl-C, and anything that a callback or the disk may raise
        stopping = True
        for process, _ in running.values():  # the terminal has told them; a kill of us has not
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        while running:  # a worker saves at its next step, after the evaluation it may be in
            listen()
        raise
