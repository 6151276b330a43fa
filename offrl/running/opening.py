"""Opens runs: data, learner and sampler as the run's folder left them, or as they begin."""

import logging
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from offrl.data.dataset import Dataset, load_dataset
from offrl.errors import Damaged, InputError
from offrl.learning import checkpoint
from offrl.learning.groups import build_sampler, grouped
from offrl.learning.learner import Learner, SingleSeedLearner
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.learning.spec import Device
from offrl.results.curves import Line
from offrl.results.record_files import Unreadable
from offrl.results.rows import Status, main_scores, run_score
from offrl.results.store import Lost, RunFolder, State, StoredRun
from offrl.running.decisions import decide
from offrl.running.events import Event
from offrl.running.faults import blaming, cause_of
from offrl.running.jobs import Job, identity
from offrl.running.task import Workload, prepare

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The run was stopped and is saved; it carries on with the same command."""


class Done(Exception):
    """Another process has brought the run to its end, since it was planned here."""

    def __init__(self, stored: StoredRun):
        super().__init__(f"{stored.path}: is done")
        self.stored = stored


@dataclass
class Run:
    """A run that this process holds, and the learner of its replica alone."""

    job: Job
    folder: RunFolder
    dataset: Dataset
    work: Workload
    learner: Learner
    ways: list[str]  # to act, in the order of an evaluation's rows
    drawn: dict[str, Any] | None = None  # the state of its sampler; None before the first batch
    step: int = 0  # of its checkpoint
    seconds: float = 0.0  # that training and evaluation took up to there
    scores: list[float] = field(default_factory=list)  # of its evaluations so far
    metrics: list[Line] = field(default_factory=list)  # that are not written yet
    end: Event | None = None  # where it failed before the others
    seat: int = 0  # the number of its replica

    @property
    def acting(self) -> str:
        """The method of the algorithm that acts."""
        return "act" if issubclass(self.work.algorithm, SingleSeedLearner) else "policy"

    @property
    def score(self) -> float | None:
        """The run's score so far."""
        return run_score(self.scores, self.job.evaluation.last)

    def write_metrics(self) -> None:
        """Writes the metrics that were kept since the last time."""
        if self.metrics:
            self.folder.append_metrics(self.metrics)
            self.metrics.clear()

    def event(self, status: Status, step: int) -> Event:
        """What is reported of the run at a step."""
        return Event(self.job, status, step, self.score)


@contextmanager
def noting_failure(folder: RunFolder) -> Iterator[None]:
    """Notes what fails inside in the run's record, where it has one, and raises it again.

    Where another process has taken the run over, that is what is raised.
    """
    try:
        yield
    except (Interrupted, Lost):
        raise
    except Exception as error:
        try:
            folder.fail(cause_of(error), traceback.format_exc())
        except Lost:
            raise
        except InputError as unnoted:  # the disk may be full: the first cause is the one to say
            log.warning("%s", unnoted)
        raise


def open_run(job: Job, folder: RunFolder, others: Sequence[Run] = ()) -> Run:
    """A run that is held, with its learner as it was saved; what is wrong with it is noted.

    Raises Done where there is nothing left to do.

    Args:
        job: the run.
        folder: of the run.
        others: runs of its group; one whose prepared data are equal shares them.
    """
    with noting_failure(folder):
        dataset = load_dataset(job.dataset, view=job.view, trust=job.trust, check=True)
    run, trust = identity(job, dataset), decide(job.trust)
    stored = folder.enlist(run, trust)  # raises where the record is another run's, which stays
    if stored.state is State.DONE:
        raise Done(stored)
    with noting_failure(folder):
        folder.begin(run, trust)
        shared = [o.work for o in others if replace(o.job, seed=job.seed) == job]
        work = shared[0] if shared else prepare(job, dataset)
        same = [o.work.data for o in others if o.job.dataset == job.dataset]
        work = replace(work, data=next(filter(work.data.equals, same), work.data))
        opened = Run(job, folder, dataset, work, learner_of([work], [job.seed]), ways=[])
        # The policy that stands for the run comes last: the last row's score is the run's.
        with blaming(work.algorithm, opened.acting):
            opened.ways = list(opened.learner.policies())[::-1]
        _restore(opened)
        return opened


def learner_of(works: Sequence[Workload], seeds: Sequence[int], device: Device = "cpu") -> Learner:
    """An untrained learner with a replica per run.

    Raises InputError where the runs cannot train as one batch.
    """
    algorithm = works[0].algorithm
    config, spec = grouped(algorithm, [w.config for w in works], [w.spec for w in works])
    with blaming(algorithm, "__init__"):
        return build(algorithm, spec, config, seeds, device)


def sampler_of(works: Sequence[Workload], seeds: Sequence[int], device: Device = "cpu") -> Sampler:
    """A sampler with a replica per run, at its first batch."""
    algorithm = works[0].algorithm
    config, _ = grouped(algorithm, [w.config for w in works], [w.spec for w in works])
    with blaming(algorithm, "sampler"):
        return build_sampler(algorithm, [w.data for w in works], config, seeds, device)


def _restore(run: Run) -> None:
    """Brings a run to where its checkpoint left it, or to the start of a new one."""
    folder = run.folder
    try:
        if not os.path.lexists(folder.checkpoint):
            folder.carry_on(run.ways, 0)
            return
        step = folder.checkpoint_step(run.job.steps)
        state = checkpoint.load(folder.checkpoint)
        seconds = state.get("seconds")
        if not {"learner", "sampler"} <= state.keys() or not isinstance(seconds, float):
            raise Damaged(f"{folder.checkpoint}: expected the checkpoint of a run")
        rows = folder.carry_on(run.ways, step)
        try:
            with blaming(run.work.algorithm, "load_state_dict"):
                run.learner.load_state_dict(state["learner"])
        except Damaged as error:
            raise Damaged(f"{folder.checkpoint}: {error}") from error
    except Unreadable:
        raise
    except Damaged as error:
        start_anew(run, str(error))
    else:
        run.step, run.seconds, run.drawn = step, seconds, state["sampler"]
        run.scores = main_scores(rows)


def start_anew(run: Run, why: str) -> None:
    """Puts a run back to its first step, and logs why: a file of its folder is damaged."""
    log.warning("%s; the run starts anew", why)
    run.folder.drop_checkpoint()
    run.folder.carry_on(run.ways, 0)
    run.learner = learner_of([run.work], [run.job.seed])
    run.step, run.seconds, run.drawn, run.scores = 0, 0.0, None, []
