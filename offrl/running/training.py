"""Trains a run from where it stopped, or several as replicas of one learner, and scores them."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from offrl.errors import InputError
from offrl.results.rows import Status
from offrl.results.store import Held, Lost, RunFolder, finish_saving
from offrl.running.events import Event
from offrl.running.faults import cause_of
from offrl.running.jobs import Job
from offrl.running.loop import OnProgress, Training, ended_by
from offrl.running.opening import Done, Interrupted, Run, noting_failure, open_run
from offrl.running.retries import is_out_of_memory
from offrl.running.scoring import Players

log = logging.getLogger(__name__)


def train_run(
    job: Job,
    root: Path,
    on_progress: OnProgress = lambda _event: False,
    device: str = "cpu",
    players: Players | None = None,
) -> None:
    """Runs `job` in its folder below `root` to its last step.

    A run that was interrupted, or killed, carries on from its checkpoint and ends with the numbers
    of an uninterrupted run; one that is done stays as it is. Raises Held where another process
    holds it, Lost where one has taken it over, Interrupted after saving if `on_progress` returns
    True, and Diverged where a number is not finite; the latter two are noted in run.json, as is any
    other failure.
    """
    with suppress(Done):
        _train_alone(job, root, on_progress, device, players)


def _train_alone(
    job: Job, root: Path, on_progress: OnProgress, device: str, players: Players | None
) -> None:
    """As `train_run`, but raises Done for a run that is done."""
    folder = RunFolder(job.folder(root), root)
    with folder.held(0):
        finish_saving({folder: job.steps})
        run = open_run(job, folder)
        with noting_failure(folder):
            Training([run], 1, on_progress, device, players).finish()


def train_group(
    jobs: Sequence[Job],
    root: Path,
    replicas: int,
    on_progress: OnProgress,
    device: str = "cpu",
    players: Players | None = None,
    seats: Sequence[Job] = (),
) -> list[Event]:
    """Runs jobs as replicas of one learner; the last event of each.

    Each run has its own folder, rows and checkpoint below `root`, as if it ran alone, and its
    failure leaves the others going. Runs that stand at different steps are no longer one group.
    Where one makes all of them raise, they go on one by one, so that each has its own cause. Runs
    that another process holds, or has taken over, are left to it; the others go on.

    Args:
        jobs: runs that can train as one batch; see `offrl.running.groups`.
        root: the folder of runs.
        replicas: R, at least the number of jobs: where some runs of a group have ended, copies of
            another take their place, so that the others' numbers stay what they were.
        on_progress: see `OnProgress`; called for each run.
        device: where the learner computes.
        players: processes that play evaluations while training goes on; None: they are played here.
        seats: the jobs of all replicas in a fixed order, which does not depend on the process that
            trains them: a run keeps its replica, and those that are not among `jobs` are trained
            from a copy of another and thrown away. Where the first of `jobs` is held, so is the
            group, and all of it is left. Empty: any order, with copies at the end.
    """
    if len(jobs) == replicas == 1:
        return [_trained(jobs[0], root, on_progress, device, players)]
    ended: list[Event] = []
    parts: list[tuple[list[Job], int, Sequence[Job]]] = []
    with ExitStack() as stack:
        held = _held(jobs, root, stack, ended, together=bool(seats))
        runs: list[Run] = []
        for job, folder in held:
            try:
                run = open_run(job, folder, runs)
                run.seat = seats.index(job) if seats else len(runs)
                runs.append(run)
            except Exception as error:  # run.json has the traceback
                ended.append(ended_by(Event(job, Status.RUNNING, 0), error))
        steps = sorted({run.step for run in runs})
        for step in steps:
            together = [run for run in runs if run.step == step]
            status = Status.DONE
            size = replicas if seats or len(steps) == 1 else len(together)
            try:
                training = Training(together, size, on_progress, device, players, seats)
                training.finish()
            except Interrupted:
                status = Status.INTERRUPTED
            except Exception as error:
                lost = _lost(together)
                taken = [event.job for event in lost]
                mine = [run for run in together if run.job not in taken]
                ended += [*lost, *(run.end for run in mine if run.end)]
                left = [run.job for run in mine if not run.end]
                parts += [(left, size, seats)] if lost and left else []
                if not lost:
                    parts += [(part, len(part), ()) for part in _parted(left, error, device)]
                continue
            ended += [run.end or run.event(status, training.step) for run in together]
    for part, size, kept in parts:
        ended += train_group(part, root, size, on_progress, device, players, kept)
    return ended


def _held(
    jobs: Sequence[Job], root: Path, stack: ExitStack, ended: list[Event], together: bool
) -> list[tuple[Job, RunFolder]]:
    """The jobs whose folders could be held, and these; adds the ends of the others.

    Where the first is held elsewhere, none are held `together`.
    """
    held: list[tuple[Job, RunFolder]] = []
    for job in jobs:
        folder = RunFolder(job.folder(root), root)
        try:
            stack.enter_context(folder.held(0))
            held.append((job, folder))
        except Exception as error:
            if together and isinstance(error, Held) and job is jobs[0]:
                ended += [ended_by(Event(each, Status.RUNNING, 0), error) for each in jobs]
                return []
            ended.append(ended_by(Event(job, Status.RUNNING, 0), error))
    try:
        finish_saving({folder: job.steps for job, folder in held})
    except InputError as error:
        ended += [ended_by(Event(job, Status.RUNNING, 0), error) for job, _ in held]
        return []
    return held


def _parted(jobs: list[Job], error: Exception, device: str) -> list[list[Job]]:
    """The parts in which jobs go on after an error of all of them."""
    most = 1
    if is_out_of_memory(error):
        most = math.ceil(len(jobs) / 2)
        need = f"{len(jobs)} replicas need more memory than there is ({device})"
        log.warning("%s: they go on in two halves", need)
    else:
        log.warning("%s: %s; its group goes on one by one", jobs[0].title, cause_of(error))
    return [jobs[first : first + most] for first in range(0, len(jobs), most)]


def _lost(runs: Sequence[Run]) -> list[Event]:
    """The last events of runs that other processes have taken over."""
    lost = []
    for run in runs:
        try:
            run.folder.check_held()
        except Lost as error:
            lost.append(ended_by(run.event(Status.RUNNING, run.step), error))
    return lost


def _trained(
    job: Job, root: Path, on_progress: OnProgress, device: str, players: Players | None
) -> Event:
    """The last event of a run that is trained alone."""
    last = Event(job, Status.RUNNING, 0)

    def report(event: Event) -> bool:
        nonlocal last
        last = event
        return on_progress(event)

    try:
        _train_alone(job, root, report, device, players)
    except Exception as error:  # run.json has the traceback
        return ended_by(last, error)
    return replace(last, status=Status.DONE)
