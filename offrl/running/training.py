"""Trains a run from where it stopped, or several as replicas of one learner, and scores them."""

import hashlib
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offrl.errors import Damaged, InputError
from offrl.evaluation.rollouts import Diverged
from offrl.learning import checkpoint, kernels
from offrl.learning.graphs import Captured
from offrl.learning.learner import Metrics
from offrl.learning.precision import set_precision
from offrl.learning.sampler import Sampler
from offrl.learning.state import join, split
from offrl.results.provenance import SIMULATORS, numerics, versions
from offrl.results.rows import ScoreRow, Status
from offrl.results.store import Held, RunFolder, finish_saving
from offrl.running.costs import Meter
from offrl.running.events import Event
from offrl.running.faults import (
    AlgorithmError,
    blaming,
    cause_of,
    check_metrics,
)
from offrl.running.jobs import Job
from offrl.running.kernel_choice import choose
from offrl.running.opening import (
    Interrupted,
    Run,
    learner_of,
    noting_failure,
    open_run,
    sampler_of,
    start_anew,
)
from offrl.running.scoring import Played, Players, Stage, Task
from offrl.running.task import validation_split

log = logging.getLogger(__name__)

CHECK_EVERY = 100  # gradient steps between checks for numbers that are not finite
CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 0.5
STARTED_AFTER = 2.0  # seconds of an evaluation for which it pays to start processes for the next

# Called with the progress of a run; where it returns True, the run saves and ends.
OnProgress = Callable[[Event], bool]


def train_run(
    job: Job,
    root: Path,
    on_progress: OnProgress = lambda _event: False,
    device: str = "cpu",
    players: Players | None = None,
) -> None:
    """Runs `job` in its folder below `root` to its last step.

    A run that was interrupted, or killed, carries on from its checkpoint and ends with the numbers
    of an uninterrupted run. Raises Held where another process holds it, Interrupted after
    saving if `on_progress` returns True, and Diverged where a number is not finite; the latter two
    are noted in run.json, as is any other failure.
    """
    folder = RunFolder(job.folder(root), root)
    with folder.held():
        finish_saving({folder: job.steps})
        run = open_run(job, folder)
        with noting_failure(folder):
            _Training([run], 1, on_progress, device, players).finish()


def train_group(
    jobs: Sequence[Job],
    root: Path,
    replicas: int,
    on_progress: OnProgress,
    device: str = "cpu",
    players: Players | None = None,
) -> list[Event]:
    """Runs jobs as replicas of one learner; the last event of each.

    Each run has its own folder, rows and checkpoint below `root`, as if it ran alone, and its
    failure leaves the others going. Runs that stand at different steps are no longer one group.
    Where one makes all of them raise, they go on one by one, so that each has its own cause.

    Args:
        jobs: runs that can train as one batch; see `offrl.running.groups`.
        root: the folder of runs.
        replicas: R, at least the number of jobs: where some runs of a group have ended, copies of
            another take their place, so that the others' numbers stay what they were.
        on_progress: see `OnProgress`; called for each run.
        device: where the learner computes.
        players: processes that play evaluations while training goes on; None: they are played here.
    """
    if len(jobs) == replicas == 1:
        return [_trained(jobs[0], root, on_progress, device, players)]
    ended: list[Event] = []
    parts: list[list[Job]] = []
    with ExitStack() as stack:
        held = _held(jobs, root, stack, ended)
        runs: list[Run] = []
        for job, folder in held:
            try:
                runs.append(open_run(job, folder, runs))
            except Exception as error:  # run.json has the traceback
                ended.append(_end(Event(job, Status.RUNNING, 0), error))
        steps = sorted({run.step for run in runs})
        for step in steps:
            together = [run for run in runs if run.step == step]
            status = Status.DONE
            try:
                size = replicas if len(steps) == 1 else len(together)
                training = _Training(together, size, on_progress, device, players)
                training.finish()
            except Interrupted:
                status = Status.INTERRUPTED
            except Exception as error:
                left = [run.job for run in together if run.end is None]
                ended += [run.end for run in together if run.end]
                most = math.ceil(len(left) / 2)
                if isinstance(error, torch.OutOfMemoryError):
                    log.warning(
                        "%d replicas need more memory than %s has: they go on in two halves",
                        len(left),
                        device,
                    )
                else:
                    most = 1
                    title = left[0].title
                    log.warning("%s: %s; its group goes on one by one", title, cause_of(error))
                parts += [left[first : first + most] for first in range(0, len(left), most)]
                continue
            ended += [run.end or run.event(status, training.step) for run in together]
    for part in parts:
        ended += train_group(part, root, len(part), on_progress, device, players)
    return ended


def _held(
    jobs: Sequence[Job], root: Path, stack: ExitStack, ended: list[Event]
) -> list[tuple[Job, RunFolder]]:
    """The jobs whose folders could be held, and these; adds the ends of the others."""
    held = []
    for job in jobs:
        folder = RunFolder(job.folder(root), root)
        try:
            stack.enter_context(folder.held())
            held.append((job, folder))
        except Exception as error:
            ended.append(_end(Event(job, Status.RUNNING, 0), error))
    try:
        finish_saving({folder: job.steps for job, folder in held})
    except InputError as error:
        ended += [_end(Event(job, Status.RUNNING, 0), error) for job, _ in held]
        return []
    return held


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
        train_run(job, root, report, device, players)
    except Exception as error:  # run.json has the traceback
        return _end(last, error)
    return replace(last, status=Status.DONE)


def _end(last: Event, error: Exception) -> Event:
    """The last event of a run that an error ended, from the one before it."""
    match error:
        case Held():  # by another process, which has taken it meanwhile
            return replace(last, status=Status.WAITING, cause=str(error))
        case Interrupted():
            return replace(last, status=Status.INTERRUPTED)
        case AlgorithmError() if error.step is not None:
            last = replace(last, step=error.step)
    return replace(last, status=Status.FAILED, cause=cause_of(error))


class _Training:
    """Runs at the same step that go on as replicas of one learner."""

    def __init__(
        self,
        runs: Sequence[Run],
        replicas: int,
        on_progress: OnProgress,
        device: str,
        players: Players | None,
    ):
        self.runs, self.on_progress = runs, on_progress
        self.replicas = replicas
        self.device = device
        first = runs[0]
        self.members = [*runs, *[first] * (replicas - len(runs))]
        self.algorithm, self.steps = first.work.algorithm, first.job.steps
        self.evaluation = first.job.evaluation
        self.group = _group(runs, replicas) if replicas > 1 else None
        kernels.use(self._kernel())
        self.sampler = self._sampler()
        self.step = first.step
        self.learner = first.learner
        if self.apart:
            self.learner = learner_of([member.work for member in self.members], self.seeds, device)
            self.learner.load_state_dict(join([member.learner for member in self.members]))
        self.stage, self.players = Stage(), players
        self.played_for = 0.0  # seconds that the last evaluation took here
        self.pending: _Snapshot | None = None  # whose evaluation other processes play
        set_precision(self.learner, first.job.precision, device)
        self.validation = None
        if self.learner.validation_interval:
            self.validation = validation_split(first.job, first.dataset, self.learner)
        for run in runs:
            how = numerics(self.step, replicas, self.group, device, run.job.precision)
            run.folder.note_numerics(how)
        self.meter = Meter(replicas, device)
        self.begun = self.saved = self.reported = time.monotonic()

    @property
    def apart(self) -> bool:
        """Whether what trains is another learner than that of a run alone."""
        return self.replicas > 1 or self.device != "cpu"

    @property
    def seeds(self) -> list[int]:
        """Of all replicas."""
        return [member.job.seed for member in self.members]

    def _kernel(self) -> str:
        """The kernel with which the runs began, if it is here, else the fastest."""
        first = self.runs[0]
        last = first.folder.record().numerics[-1:]
        if first.step and not last:
            return kernels.KERNELS[0]  # before there was a choice
        if first.step and last[0].kernel in kernels.KERNELS:
            return last[0].kernel
        return choose(first.job, first.work, self.replicas)

    def _sampler(self) -> Sampler:
        """Draws every replica's batches from where it was."""
        first = self.runs[0]
        works = [member.work for member in self.members]
        sampler: Any = sampler_of(works, self.seeds, self.device)
        if self.replicas > 1:
            if not hasattr(sampler, "split_state"):
                raise TypeError(f"{type(sampler).__name__} cannot be saved replica by replica")
            if first.drawn is not None:
                sampler.load_state_dict(sampler.join_states([m.drawn for m in self.members]))
        elif first.drawn is not None:
            try:
                sampler.load_state_dict(first.drawn)
            except Damaged as error:
                start_anew(first, f"{first.folder.checkpoint}: {error}")
                return sampler_of([first.work], [first.job.seed], self.device)
        drawing: Sampler = sampler
        return drawing

    @property
    def live(self) -> list[tuple[int, Run]]:
        """The runs that have not failed, each with its replica's number."""
        return [(r, run) for r, run in enumerate(self.runs) if run.end is None]

    def finish(self) -> None:
        """Trains to the last step, and notes how the runs ended.

        Raises Interrupted once they are saved, where `on_progress` asks for it, and what ends all
        of them.
        """
        try:
            if self.step and self._reported() and self.step < self.steps:
                raise Interrupted
            self._train()
        except Interrupted:
            self._note(Status.INTERRUPTED)
            raise
        self._note(Status.DONE)

    def _note(self, status: Status) -> None:
        self._note_costs(ended=True)
        for _, run in self.live:
            run.folder.set_status(status)

    def _note_costs(self, *, ended: bool = False) -> None:
        self.meter.note([run.job for run in self.runs], self.runs[0].folder.root, ended=ended)

    def _train(self) -> None:
        try:
            self._advance_to_the_end()
        finally:
            self.stage.close()
            if self.players is not None and self.pending is not None:  # something was raised
                self.players.collect()

    def _advance_to_the_end(self) -> None:
        every, validation = self.evaluation.every, self.learner.validation_interval
        captured = Captured(self.learner, self.sampler, self.device, self.step)
        while self.step < self.steps and any(run.end is None for run in self.runs):
            first, begun = self.step, time.monotonic()
            metrics = self._advance(captured)
            self.meter.add_updates(self.step - first, time.monotonic() - begun)
            if validation and self.step % validation == 0:
                assert self.validation is not None
                with blaming(self.algorithm, "validate", self.step):
                    validated = self.learner.validate(self.validation)
                metrics = {**metrics, **check_metrics(validated, self.replicas)}
            evaluate = self.step % every == 0 or self.step == self.steps
            if self.step % CHECK_EVERY == 0 or evaluate:
                self._check_finite(metrics)
            if evaluate:
                self._evaluate(metrics)
            self._collect(wait=self.step == self.steps)
            now = time.monotonic()
            if now - self.saved > CHECKPOINT_SECONDS and self.pending is None:
                self._save(self._snapshot(metrics))
            if evaluate or now - self.reported > REPORT_SECONDS:
                self.reported = now
                if self._reported() and self.step < self.steps:
                    self._collect(wait=True)
                    self._save(self._snapshot(metrics))
                    raise Interrupted

    def _advance(self, captured: Captured) -> Metrics:
        """The metrics after an update; on a GPU after all up to where something is due."""
        if self.device == "cpu":
            self.step += 1
            with blaming(self.algorithm, "update", self.step):
                metrics = self.learner.update(self.sampler.sample())
                return check_metrics(metrics, self.replicas)
        intervals = (CHECK_EVERY, self.evaluation.every, self.learner.validation_interval)
        due = min(self.step + n - self.step % n for n in intervals if n)
        count = min(due, self.steps) - self.step
        self.step += count
        with blaming(self.algorithm, "update", self.step):
            captured.advance(count)
            metrics = {name: value.cpu() for name, value in captured.metrics.items()}
            return check_metrics(metrics, self.replicas)

    def _reported(self) -> bool:
        """Whether one of the runs is asked to end."""
        asked = False
        for _, run in self.live:
            asked |= self.on_progress(run.event(Status.RUNNING, self.step))
        return asked

    def _check_finite(self, metrics: Metrics) -> None:
        if all(torch.isfinite(value).all() for value in metrics.values()):
            return
        self._collect(wait=True)
        for r, run in self.live:
            with self._alone(run), blaming(self.algorithm, "update", self.step):
                _check_finite(_of(metrics, r), self.step)

    def _evaluate(self, metrics: Metrics) -> None:
        """Scores each run's policy, by itself: a score does not depend on the others."""
        self._collect(wait=True)
        snapshot = self._snapshot(metrics)
        if self.players is not None and (self.device != "cpu" or self.played_for > STARTED_AFTER):
            self.players.begin(
                [
                    Task(
                        run.job,
                        run.work.spec,
                        run.ways,
                        self.step,
                        snapshot.learned[r],
                        kernels.current(),
                    )
                    for r, run in snapshot.live
                ]
            )
            self.pending = snapshot
            return
        begun = time.monotonic()
        for r, run in snapshot.live:
            with self._alone(run):
                if self.apart:
                    run.learner.load_state_dict(snapshot.learned[r])
                environment, spec = run.work.environment, run.work.spec
                played = self.stage.play(
                    run.job, environment, spec, run.learner, run.ways, self.step
                )
                self._append(run, r, played, snapshot)
        self.played_for = time.monotonic() - begun
        episodes = self.evaluation.episodes_at(self.step, self.steps)
        self.meter.add_episodes(episodes * len(snapshot.live), self.played_for)
        self._save(snapshot)

    def _collect(self, wait: bool) -> None:
        """Writes what other processes have played, and the checkpoint of that step."""
        snapshot = self.pending
        if self.players is None or snapshot is None or not (wait or self.players.finished()):
            return
        self.pending = None
        for (r, run), played in zip(snapshot.live, self.players.collect(), strict=True):
            with self._alone(run):
                if isinstance(played, Exception):
                    raise played
                self._append(run, r, played, snapshot)
        self._save(snapshot)

    def _append(self, run: Run, r: int, played: Sequence[Played], snapshot: "_Snapshot") -> None:
        """Adds the rows of an evaluation to a run's folder."""
        for one in played:
            metrics, seconds = _of(snapshot.metrics, r), self._spent(run)
            row = _score_row(run, one, metrics, snapshot.step, seconds)
            run.folder.append(row)
        run.scores.append(row.score)

    def _snapshot(self, metrics: Metrics) -> "_Snapshot":
        """The runs as they stand."""
        with blaming(self.algorithm, "state_dict", self.step):
            if self.apart:
                learned, drawn = (split(v, self.replicas) for v in (self.learner, self.sampler))
            else:
                learned, drawn = [self.learner.state_dict()], [self.sampler.state_dict()]
        return _Snapshot(self.live, self.step, metrics, learned, drawn)

    def _spent(self, run: Run) -> float:
        """Seconds of a run so far."""
        return run.seconds + time.monotonic() - self.begun

    @contextmanager
    def _alone(self, run: Run) -> Iterator[None]:
        """Where the run diverges inside, the others of its group go on."""
        try:
            yield
        except Diverged as error:
            if len(self.runs) == 1:
                raise
            run.end = _end(run.event(Status.RUNNING, self.step), error)
            run.folder.fail(cause_of(error), traceback.format_exc())

    def _save(self, snapshot: "_Snapshot") -> None:
        """Writes the runs' checkpoints, all or none of them."""
        self.saved = time.monotonic()
        self._note_costs()
        several = len(self.runs) > 1
        live = [(r, run) for r, run in snapshot.live if run.end is None]
        for r, run in live:
            state = {
                "learner": snapshot.learned[r],
                "sampler": snapshot.drawn[r],
                "spec": run.work.spec.state(),  # so that the policy can be loaded without the data
                "step": snapshot.step,
                "seconds": self._spent(run),
            }
            checkpoint.save(run.folder.upcoming if several else run.folder.checkpoint, state)
        if several:
            finish_saving({run.folder: self.steps for _, run in live})


@dataclass(frozen=True)
class _Snapshot:
    """The runs at a step, of which each replica's state can be saved and played."""

    live: list[tuple[int, Run]]  # with each replica's number
    step: int
    metrics: Metrics
    learned: list[Any]  # of each replica
    drawn: list[Any]


def _group(runs: Sequence[Run], replicas: int) -> str:
    """The name of a group of runs: the one that it has, or a new one."""
    last = [numerics for run in runs for numerics in run.folder.record().numerics[-1:]]
    if len({(n.group, n.replicas) for n in last}) == 1 and last[0].replicas == replicas:
        return str(last[0].group)
    places = sorted(str(run.job.place) for run in runs)
    return hashlib.sha256(f"{places} {runs[0].step}".encode()).hexdigest()[:8]


def _of(metrics: Metrics, r: int) -> Metrics:
    """The metrics of one replica, each of shape (1,)."""
    return {name: value[r : r + 1] for name, value in metrics.items()}


def _check_finite(metrics: Metrics, step: int) -> None:
    for name, value in metrics.items():
        if not torch.isfinite(value).all():
            raise Diverged(f"{name} is {value.flatten()[0].item()} at step {step}")


def _score_row(
    run: Run,
    played: Played,
    metrics: Metrics,
    step: int,
    seconds: float,
) -> ScoreRow:
    """One evaluation of a run as a score row. Raises Diverged where it holds no finite number."""
    job, dataset = run.job, run.dataset
    returns = played.episodes.returns[0]
    if not np.isfinite(returns).all():
        first = np.flatnonzero(~np.isfinite(returns))[0]
        raise Diverged(
            f"the return of an episode is not finite in the evaluation at step {step}: "
            f"{returns[first]} in episode {first}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(returns.mean())
        score = float(dataset.normalized(mean))
    if not math.isfinite(score):
        raise Diverged(f"the score is {score} at step {step}, of a mean return of {mean}")
    environment, _ = dataset.card.scoring()
    present = versions()
    return ScoreRow(
        protocol=job.protocol,
        dataset=f"{dataset.card.id}@{dataset.card.version}",
        environment=environment.id,
        simulator={name: present[name] for name in (*SIMULATORS, "offrl")},
        algorithm=job.label,
        config=job.config_hash,
        seed=job.seed,
        step=step,
        score=score,
        mean_return=mean,
        returns=returns.tolist(),
        lengths=played.episodes.lengths[0].tolist(),
        policy=played.way,
        action_mode=played.mode,
        metrics={name: float(value[0]) for name, value in metrics.items()},
        wall_time=round(seconds, 3),
    )
