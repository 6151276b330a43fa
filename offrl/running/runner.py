"""Carries out protocols: plans the runs, enlists them in the run store, and executes them.

This process hands out the runs and takes their events; it writes nothing but run records: of runs
that wait, and of workers that died. A worker that loses this process saves and ends, so the same
command can be given again at once.
"""

import collections
import contextlib
import logging
import os
import shlex
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from offrl.data.altered import parted, placed
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.describe import share_outside
from offrl.data.resolve import is_path, resolve
from offrl.errors import Damaged, InputError
from offrl.files import user_path
from offrl.learning.precision import check_precision
from offrl.learning.spec import Spec
from offrl.progress import Progress
from offrl.results.leases import check_locks
from offrl.results.rows import Identity, Status
from offrl.results.store import LOCK_SECONDS, Held, RunFolder, Shorter, State
from offrl.running.attacks import attacked
from offrl.running.boards import find_board, following
from offrl.running.changes import Changes, changed
from offrl.running.decisions import decide, decided
from offrl.running.events import Event, OnEvent, ended_before, left_to
from offrl.running.groups import checked_once, group, kind_of
from offrl.running.guard import check_guard
from offrl.running.jobs import Job, expand, identity
from offrl.running.kernel_choice import choose_replicas
from offrl.running.launchers import Launcher, find_executor
from offrl.running.patterns import patterns
from offrl.running.protocol import Protocol, find_protocol
from offrl.running.task import check
from offrl.toml import validate
from offrl.trust import Files, Untrusted, trusted

log = logging.getLogger(__name__)


def run(
    protocol: str | Path | Protocol,
    output: str | Path,
    *,
    algorithms: Sequence[str] = (),
    datasets: Sequence[str] = (),
    steps: int | None = None,
    seeds: Sequence[int] | None = None,
    evaluate_every: int | None = None,
    episodes: int | None = None,
    config: Mapping[str, Any] | None = None,
    workers: int | None = None,
    replicas: int | None = None,
    device: str = "auto",
    launcher: str | Launcher = "local",
    only_failed: bool = False,
    log_to: str | None = None,
    on_event: OnEvent = lambda _event: None,
    progress: Progress | None = None,
    trust: Files = (),
) -> list[Event]:
    """Carries out every run of a protocol that is not done yet; the last event of each run.

    Interrupted anywhere, even by SIGKILL, the same call carries on and ends with the same scores.

    Args:
        protocol: a shipped protocol's id, a path to a TOML file, or a Protocol.
        output: the folder of runs.
        algorithms: only these: labels of the protocol, registered names or paths to Python files.
        datasets: only these of the protocol's data sets: ids or patterns such as antmaze-*.
        steps: of every run, in place of all that the protocol says. With this or one of the next
            four it is another protocol, whose id says what was changed, as `corl+steps=1000`.
        seeds: in place of the protocol's.
        evaluate_every: gradient steps between evaluations, likewise.
        episodes: of every evaluation, the last one too.
        config: values in place of the protocol's, by KEY for all algorithms that have it or by
            LABEL.KEY for one.
        workers: processes; by default one per core, or per GPU.
        replicas: so many runs of one algorithm train together in one process, as replicas of one
            learner; by default as many as keep all workers busy. They may differ in seeds, in data
            of equal sizes and in numeric settings. A run that has begun stays in its group.
        device: `auto` (GPUs where there are any), `cpu`, `cuda` (all GPUs) or `cuda:N`.
        launcher: `local`, `ray` or `slurm`, or a `Launcher` with its options. By Ray, `workers` are
            those of the whole cluster; by Slurm those of a task, which each get a core.
        only_failed: whether to run those alone that failed, or whose folders are damaged; there are
            no events of the others.
        log_to: a program that shows curves while runs train, such as tensorboard; see
            `offrl.running.boards`.
        on_event: called with each run's progress.
        progress: called with done and total while data are downloaded or made.
        trust: the protocol, cards and folders of data whose code may run: algorithms, loaders,
            makers and simulators that are no part of offrl or of a plug-in. What was trusted when
            runs in `output` began still is.

    Raises InputError before anything is started where a name, a config or a file does not allow a
    run, and KeyboardInterrupt after every worker has saved. A run that fails is noted in its folder
    and among the events; the others go on. One that lacks rows, or whose checkpoint is damaged, is
    run again from the last state that is whole, else from the start. One whose record is damaged or
    of a newer offrl, or whose folder cannot be read, counts as failed, and its folder stays as it
    is. Any number of these calls, on any machines, share the runs of one folder: one that another
    process holds is left to it, and its last event is that it waits; where it is free by the time
    the others have ended, it is run.
    """
    check_guard()
    given = protocol if isinstance(protocol, Protocol) else find_protocol(str(protocol))
    numbers = None if seeds is None else [_native(seed) for seed in seeds]
    values = {key: _native(value) for key, value in (config or {}).items()}
    changes = Changes(steps, numbers, evaluate_every, episodes, values)
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    if replicas is not None and replicas < 1:
        raise InputError(f"replicas is {replicas}; expected at least 1")
    if log_to is not None:
        find_board(log_to)
    execute = find_executor(launcher)
    places = execute.places(device, workers)
    check_precision(given.precision, places[0])
    root = user_path(output)
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file; expected the folder of runs, so choose another -o")
    files = trusted(trust)
    try:
        described = changed(given, changes, algorithms, files)
        planned = plan(described, algorithms, datasets, progress, files, root)
    except Untrusted:
        if not (known := decided(root / changes.id_of(given))):
            raise
        files = (*files, *known)
        described = changed(given, changes, algorithms, files)
        planned = plan(described, algorithms, datasets, progress, files, root)
    every = planned.jobs
    if only_failed:
        planned = replace(planned, jobs=[job for job in planned.jobs if _has_failed(job, root)])
    root.mkdir(parents=True, exist_ok=True)
    check_locks(root)
    with following(log_to, root, on_event) as report:
        waiting, ended = enlist(planned, root, report)
        mine = execute.under_way([e.job for e in ended if e.status is Status.WAITING], root)
        waiting += mine
        ended = [event for event in ended if event.job not in mine]
        if waiting and (elsewhere := _made_elsewhere(ended)):
            log.info("%s", elsewhere)
        while waiting:
            sized = [planned.replicas] if places[0] == "cpu" else []
            groups = group(waiting, root, replicas, places, planned.kind, every, *sized)
            ended += execute(groups, root, places, report)
            # Runs that other processes held may be free or done by now.
            left = [event.job for event in ended if event.status is Status.WAITING]
            ended = [event for event in ended if event.status is not Status.WAITING]
            waiting, settled = enlist(replace(planned, jobs=left), root, report, seconds=0)
            ended += settled
    _log_left(ended)
    by_folder = {event.job.folder(root): event for event in ended}
    return [by_folder[job.folder(root)] for job in planned.jobs]


@dataclass(frozen=True)
class Plan:
    """Jobs that can all be carried out, and their data by name and view."""

    jobs: list[Job]
    datasets: dict[tuple[str, str | None], Dataset]
    kinds: dict[Hashable, Hashable] = field(default_factory=dict)  # by what `checked_once` gives
    schedules: dict[Hashable, str] = field(default_factory=dict)  # that depend on steps, likewise
    done: dict[tuple[str, ...], Event] = field(default_factory=dict)  # runs that were, by place

    def dataset(self, job: Job) -> Dataset:
        """The data of a job."""
        return self.datasets[job.dataset, job.view]

    def kind(self, job: Job) -> Hashable:
        """The same for jobs that can train as replicas of one learner; None for one that cannot."""
        return self.kinds[checked_once(job)]

    def replicas(self, job: Job, most: int) -> int:
        """How many of up to `most` runs like a job train together the fastest on a processor."""
        return choose_replicas(job, self.dataset(job), most)

    def named(self, job: Job) -> Job:
        """The job, with the id of its data set's card for messages."""
        return replace(job, dataset_id=self.dataset(job).card.id)


def plan(
    protocol: Protocol,
    algorithms: Sequence[str] = (),
    datasets: Sequence[str] = (),
    progress: Progress | None = None,
    trust: Files = (),
    root: Path | None = None,
) -> Plan:
    """The runs of a protocol, seed by seed, once all that can be checked beforehand is checked.

    Loads the data, which workers then open from the cache. Raises InputError where a name, a
    config or a file does not allow a run; arguments are those of `run`. Where all runs are done in
    the folder `root`, no learner is built to check them.
    """
    files = (*protocol.origin.trust, *trusted(trust))
    expanded = expand(protocol, algorithms, datasets, files)
    paths = {name: _absolute(name) for name in {job.dataset for job in expanded}}
    jobs = [replace(job, dataset=paths[job.dataset]) for job in expanded]
    if not jobs:
        raise InputError(
            f"protocol {protocol.id}: has none of these algorithms on any of these data sets; "
            f"see offrl show {protocol.id}"
        )
    _check_scored(protocol, list(dict.fromkeys(parted(job.dataset)[0] for job in jobs)), files)
    planned = Plan(
        jobs,
        {
            (name, view): load_dataset(
                name, view=view, progress=progress, trust=files, check=True, attack=attacked
            )
            for name, view in dict.fromkeys((job.dataset, job.view) for job in jobs)
        },
    )
    planned = replace(planned, jobs=[planned.named(job) for job in jobs])
    if root is not None:
        planned = replace(planned, done=_done(planned, root))
        if len(planned.done) == len(jobs):
            return planned
    specs, kinds, schedules = {}, {}, {}
    for key, job in {checked_once(job): job for job in jobs}.items():
        spec, schedules[key] = check(job, planned.dataset(job))
        specs[job.dataset] = spec
        kinds[key] = kind_of(job, spec)
    for name, data in {name: data for (name, _), data in planned.datasets.items()}.items():
        _log_share_outside(data, specs[name])
    return replace(planned, kinds=kinds, schedules=schedules)


def _done(planned: Plan, root: Path) -> dict[tuple[str, ...], Event]:
    """The last events of the runs that are done, by place.

    Nobody writes to these any more, so they are read without keeping others out.
    """
    cells: dict[tuple[str, ...], Identity] = {}  # of one seed of each
    done = {}
    for job in planned.jobs:
        cell = job.place[:-1]
        if cell not in cells:
            cells[cell] = identity(job, planned.dataset(job))
        run = cells[cell].model_copy(update={"seed": job.seed})
        stored = RunFolder(job.folder(root), root).read()
        known = stored.record.identity if stored.record else None
        if stored.state is State.DONE and known is not None and not run.differing(known):
            done[job.place] = ended_before(job, stored)
    return done


def enlist(
    planned: Plan, root: Path, on_event: OnEvent, seconds: float | None = None
) -> tuple[list[Job], list[Event]]:
    """Makes the run folders; the jobs that can begin, and the last events of the others.

    A run that is done, or whose folder is damaged, does not begin; one that lacks rows does. The
    event of one that another process holds is that it waits, with cause and holder. Where no job
    can begin, these are waited for, all of them together for `seconds` (LOCK_SECONDS), and those
    whose holders may be gone, as their beats are missing, until they beat or are taken over. One
    that has fewer steps goes on to those of its job, if no schedule of its algorithm depends on
    them. Raises InputError where a folder holds another run.
    """
    root.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + (LOCK_SECONDS if seconds is None else seconds)
    events = _first_events(planned, root)
    if not any(_begins(event) for event in events):
        for number, event in enumerate(events):
            if event.holder:
                left = max(0, deadline - time.monotonic())
                events[number] = _awaited(event.job, planned, root, left)
    for event in events:
        on_event(event)
    return (
        [event.job for event in events if _begins(event)],
        [event for event in events if not _begins(event)],
    )


def _has_failed(job: Job, root: Path) -> bool:
    """Whether a run is there and counts as failed, or its folder is damaged."""
    folder = RunFolder(job.folder(root), root)
    failed = (State.FAILED, State.LACKING, State.DAMAGED)
    return os.path.lexists(folder.record_file) and folder.read().state in failed


def _begins(event: Event) -> bool:
    """Whether a run waits for this process, not for another that holds it."""
    return event.status is Status.WAITING and not event.holder


def _made_elsewhere(events: Sequence[Event]) -> str:
    """How many runs other processes hold, and which; empty for none."""
    held = collections.Counter(event.holder for event in events if event.holder)
    first = ", ".join(f"{count} by {name}" for name, count in held.most_common(3))
    more = f" and {len(held) - 3} more processes" if len(held) > 3 else ""
    runs = "1 run is" if held.total() == 1 else f"{held.total()} runs are"
    return f"{runs} being made elsewhere: {first}{more}" if held else ""


def _first_events(planned: Plan, root: Path) -> list[Event]:
    """What becomes of each run where none is waited for; no run is made longer if one cannot be."""
    events: list[Event | None] = []
    for job in planned.jobs:
        try:
            events.append(_enlisted(job, planned, root, 0))
        except Shorter:
            _lengthen(job, planned, root, write=False)
            events.append(None)
    for place, job in enumerate(planned.jobs):
        if events[place] is None:
            _lengthen(job, planned, root, write=True)
    return [
        event or _enlisted(job, planned, root, 0)
        for job, event in zip(planned.jobs, events, strict=True)
    ]


def _awaited(job: Job, planned: Plan, root: Path, seconds: float) -> Event:
    """What becomes of a run that another process holds, or held with fewer steps."""
    try:
        return _enlisted(job, planned, root, seconds, patient=True)
    except Shorter:
        _lengthen(job, planned, root, write=True)
        return _enlisted(job, planned, root, 0)


def _lengthen(job: Job, planned: Plan, root: Path, *, write: bool) -> None:
    """Has a run go on to the steps of its job, unless another process holds it by now.

    See `RunFolder.lengthen`.
    """
    folder = RunFolder(job.folder(root), root)
    schedule = planned.schedules[checked_once(job)]
    with contextlib.suppress(Held), folder.held():
        folder.lengthen(identity(job, planned.dataset(job)), schedule, write=write)


def _log_left(events: Sequence[Event]) -> None:
    """Says which runs are left to other processes."""
    if elsewhere := _made_elsewhere(events):
        first = next(event.cause for event in events if event.holder)
        log.warning("%s (the first: %s); the same command looks at them again", elsewhere, first)


def _enlisted(job: Job, planned: Plan, root: Path, seconds: float, patient: bool = False) -> Event:
    """The last event of a run that is done or damaged, else that it waits."""
    if done := planned.done.get(job.place):
        return done
    folder = RunFolder(job.folder(root), root)
    try:
        with folder.held(seconds, patient):
            stored = folder.enlist(identity(job, planned.dataset(job)), decide(job.trust))
    except Held as error:
        return left_to(Event(job, Status.WAITING, 0), error)
    except Damaged as error:
        return Event(job, Status.FAILED, 0, cause=str(error))
    step = stored.rows[-1].step if stored.rows else 0
    match stored.state:
        case State.DONE:
            return ended_before(job, stored)
        case State.DAMAGED:
            return Event(job, Status.FAILED, step, cause=stored.cause)
        case State.LACKING:
            log.warning("%s", stored.cause)
    return Event(job, Status.WAITING, step)


def train(
    algorithm: str,
    dataset: str | Path,
    output: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    grid: Mapping[str, Iterable[Any]] | None = None,
    steps: int = 100_000,
    seeds: Sequence[int] = (0,),
    evaluate_every: int = 10_000,
    episodes: int = 10,
    workers: int | None = None,
    replicas: int | None = None,
    device: str = "auto",
    launcher: str | Launcher = "local",
    log_to: str | None = None,
    on_event: OnEvent = lambda _event: None,
    progress: Progress | None = None,
    trust: Files = (),
) -> list[Event]:
    """Trains one algorithm on one data set outside any protocol; the last event of each run.

    The runs are those of an unnamed protocol, in `output/train/`; see `run` for the rest.

    Args:
        algorithm: a registered name or the path of a Python file.
        dataset: an id, or a path to a card (TOML) that says how policies are scored.
        output: the folder of runs.
        config: what differs from the algorithm's defaults.
        grid: values of the config to try, such as {"beta": [1, 3, 10]}: a run for each combination
            of them, for each seed.
        steps: gradient steps.
        seeds: one run each.
        evaluate_every: gradient steps between evaluations; the last step is always evaluated.
        episodes: per evaluation.
        workers: processes; by default one per core.
        replicas: of a group; see `run`.
        device: see `run`.
        launcher: see `run`.
        log_to: see `run`.
        on_event: called with each run's progress.
        progress: called with done and total while data are downloaded or made.
        trust: the card or folder of data, where it names code of its own.
    """
    name = str(user_path(algorithm).resolve()) if algorithm.endswith(".py") else algorithm
    grid = {key: _listed(values) for key, values in (grid or {}).items()}
    if twice := sorted({*grid} & {*(config or {})}):
        raise InputError(f"{twice[0]} is set and has a grid; give it one of the two")
    entry = {"algorithm": name, "config": dict(config or {}), "grid": grid}
    values = {
        "id": "train",
        "version": 1,
        "title": f"{algorithm} on {dataset}",
        "source": "offrl train",
        "datasets": [str(dataset)],
        "seeds": list(seeds),
        "steps": steps,
        "evaluation": {"every": evaluate_every, "episodes": episodes},
        "algorithms": {Path(algorithm).stem: entry},
    }
    protocol = validate(Protocol, values, "offrl train")
    return run(
        protocol,
        output,
        workers=workers,
        replicas=replicas,
        device=device,
        launcher=launcher,
        log_to=log_to,
        on_event=on_event,
        progress=progress,
        trust=trust,
    )


def _native(value: Any) -> Any:
    """A number or an array of NumPy as numbers of Python; any other value as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _listed(values: Any) -> Any:
    """The values of a grid as a list; a text stays as it is."""
    values = _native(values)
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else values


def _check_scored(protocol: Protocol, names: list[str], trust: tuple[str, ...]) -> None:
    """Raises InputError, before anything is fetched, where policies cannot be scored on some."""
    scored, failures = [], []
    for name in names:
        card = resolve(name, trust=trust)
        if card.environment is None:
            log.warning(
                "%s: its card has no simulator, so no policy is evaluated: its runs have losses, "
                "and those of different algorithms do not compare",
                card.id,
            )
            scored.append(name)
            continue
        try:
            card.scoring()
            scored.append(name)
        except Untrusted:
            raise
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


def _log_share_outside(data: Dataset, spec: Spec) -> None:
    if spec.action_count is not None:
        return
    if share := share_outside(spec.to_learner(data.actions), spec.max_action):
        bounds = f"[-{spec.max_action:g}, {spec.max_action:g}]"
        log.info(
            "%s: %.1f %% of action entries lie outside %s; they stay as they are, except where an "
            "algorithm's reference clips them",
            data.card.id,
            100 * share,
            bounds if spec.action_low is None else "the simulator's bounds",
        )


def _absolute(dataset: str) -> str:
    """An existing path as seen from anywhere; ids and other names unchanged."""

    def absolute(name: str) -> str:
        path = Path(name)
        return str(path.resolve()) if is_path(name) and path.exists() else name

    return placed(dataset, absolute)
