"""The loop that trains runs at one step as replicas of one learner, saves and scores them."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from offrl.data.dataset import load_dataset
from offrl.errors import Damaged, InputError
from offrl.evaluation.rollouts import Diverged
from offrl.learning import checkpoint, kernels
from offrl.learning.graphs import Captured
from offrl.learning.learner import Metrics
from offrl.learning.precision import set_precision
from offrl.learning.sampler import Sampler
from offrl.learning.state import join, split
from offrl.results.curves import interval
from offrl.results.provenance import numerics
from offrl.results.rows import Status, main_scores
from offrl.results.store import Held, Lost, finish_saving
from offrl.running.costs import Meter
from offrl.running.events import Event, ended_before, left_to
from offrl.running.faults import AlgorithmError, blaming, cause_of, check_metrics
from offrl.running.groups import group_name
from offrl.running.jobs import Job
from offrl.running.kernel_choice import choose
from offrl.running.opening import Done, Interrupted, Run, learner_of, sampler_of, start_anew
from offrl.running.retries import is_out_of_memory
from offrl.running.score_rows import loss_row, score_row
from offrl.running.scoring import Played, Players, Stage, Task
from offrl.running.task import prepare, validation_split
from offrl.running.validating import held_out

log = logging.getLogger(__name__)

CHECK_EVERY = 100  # gradient steps between checks for numbers that are not finite
CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 0.5
STARTED_AFTER = 2.0  # seconds of an evaluation for which it pays to start processes for the next

# Called with the progress of a run; where it returns True, the run saves and ends.
OnProgress = Callable[[Event], bool]


def ended_by(last: Event, error: Exception) -> Event:
    """The last event of a run that an error ended, from the one before it."""
    match error:
        case Held():  # by another process, which has taken it meanwhile
            if isinstance(error, Lost):
                log.warning("%s", error)
            return left_to(last, error)
        case Done():
            return ended_before(last.job, error.stored)
        case Interrupted():
            return replace(last, status=Status.INTERRUPTED)
        case AlgorithmError() if error.step is not None:
            last = replace(last, step=error.step)
    memory = is_out_of_memory(error)
    return replace(last, status=Status.FAILED, cause=cause_of(error), out_of_memory=memory)


class Training:
    """Runs at the same step that go on as replicas of one learner."""

    def __init__(
        self,
        runs: Sequence[Run],
        replicas: int,
        on_progress: OnProgress,
        device: str,
        players: Players | None,
        seats: Sequence[Job] = (),
    ):
        self.runs, self.on_progress = runs, on_progress
        self.replicas = replicas
        self.device = device
        first = runs[0]
        self.members = _members(runs, replicas, seats)
        self.algorithm, self.steps = first.work.algorithm, first.job.steps
        self.evaluation = first.job.evaluation
        self.group = _group(runs, replicas, seats) if replicas > 1 else None
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
            spec = first.work.spec
            self.validation = validation_split(first.job, first.dataset, self.learner, spec)
        for run in runs:
            how = numerics(self.step, replicas, self.group, device, run.job.precision)
            run.folder.note_numerics(how)
        self.meter = Meter(replicas, device)
        self.interval = interval(self.steps)  # a multiple of CHECK_EVERY, at which numbers are here
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
        return [(run.seat, run) for run in self.runs if run.end is None]

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
            for run in self.runs:  # up to the step at which something was raised
                with suppress(InputError):
                    run.write_metrics()
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
            if self.step % self.interval == 0 or evaluate:
                self._keep(metrics)
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

    def _keep(self, metrics: Metrics) -> None:
        """Keeps each run's metrics, until they are written with its next checkpoint."""
        values = {name: value.tolist() for name, value in metrics.items()}
        for r, run in self.live:
            run.metrics.append((self.step, {name: each[r] for name, each in values.items()}))

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
        if self.runs[0].work.environment is None:
            self._append_losses(snapshot)
            return
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
                assert environment is not None
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
            row = score_row(run, one, metrics, snapshot.step, seconds)
            run.folder.append(row)
        run.scores += main_scores([row])

    def _append_losses(self, snapshot: "_Snapshot") -> None:
        """Adds rows of losses: without a simulator there is nothing to play."""
        for r, run in snapshot.live:
            with self._alone(run):
                losses = held_out(run, snapshot.learned[r], snapshot.step)
                metrics = {**_of(snapshot.metrics, r), **losses}
                _check_finite(metrics, snapshot.step)
                for way in run.ways:
                    seconds = self._spent(run)
                    run.folder.append(loss_row(run, way, metrics, snapshot.step, seconds))
        self._save(snapshot)

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
            if self.replicas == 1:
                raise
            run.end = ended_by(run.event(Status.RUNNING, self.step), error)
            with suppress(InputError):  # the disk may be full: the first cause is the one to say
                run.write_metrics()
            run.folder.fail(cause_of(error), traceback.format_exc())

    def _save(self, snapshot: "_Snapshot") -> None:
        """Writes the runs' checkpoints, all or none of them."""
        self.saved = time.monotonic()
        self._note_costs()
        several = len(self.runs) > 1
        live = [(r, run) for r, run in snapshot.live if run.end is None]
        for r, run in live:
            run.write_metrics()
            state = {
                "learner": snapshot.learned[r],
                "sampler": snapshot.drawn[r],
                "spec": run.work.spec.state(),  # so that the policy can be loaded without the data
                "step": snapshot.step,
                "seconds": self._spent(run),
            }
            path = run.folder.upcoming if several else run.folder.checkpoint
            checkpoint.save(path, state, run.folder.check_held)
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


def _members(runs: Sequence[Run], replicas: int, seats: Sequence[Job]) -> list[Run]:
    """The run of each replica; a copy of the first where there is none to be kept.

    In a seat the copy has the config and the data of the seat's job, so that the others compute as
    with that job beside them.
    """
    first = runs[0]
    if not seats:
        for number, run in enumerate(runs):
            run.seat = number
        return [*runs, *[first] * (replicas - len(runs))]
    taken = {run.seat: run for run in runs}
    prepared = [*runs]
    for number, job in enumerate(seats):
        if number in taken:
            continue
        alike = [run for run in prepared if replace(run.job, seed=job.seed) == job]
        if not alike:
            dataset = load_dataset(job.dataset, view=job.view, trust=job.trust, check=True)
            alike = [replace(first, job=job, dataset=dataset, work=prepare(job, dataset))]
            prepared += alike
        taken[number] = replace(first, job=job, dataset=alike[0].dataset, work=alike[0].work)
    return [taken[number] for number in range(replicas)]


def _group(runs: Sequence[Run], replicas: int, seats: Sequence[Job]) -> str:
    """The name of a group of runs: the one that it has, or a new one."""
    if seats:
        return group_name(seats, 0)
    last = [numerics for run in runs for numerics in run.folder.record().numerics[-1:]]
    if len({(n.group, n.replicas) for n in last}) == 1 and last[0].replicas == replicas:
        return str(last[0].group)
    return group_name([run.job for run in runs], runs[0].step)


def _of(metrics: Metrics, r: int) -> Metrics:
    """The metrics of one replica, each of shape (1,)."""
    return {name: value[r : r + 1] for name, value in metrics.items()}


def _check_finite(metrics: Metrics, step: int) -> None:
    for name, value in metrics.items():
        if not torch.isfinite(value).all():
            raise Diverged(f"{name} is {value.flatten()[0].item()} at step {step}")
