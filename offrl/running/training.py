"""Trains one run from where it stopped, and scores it on the way."""

import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offrl.data.dataset import Dataset, load_dataset
from offrl.errors import Damaged, InputError
from offrl.evaluation.rollouts import Diverged, Episodes, Evaluator
from offrl.learning import checkpoint
from offrl.learning.learner import Learner, Metrics, SingleSeedLearner
from offrl.learning.policy import Policy
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.results.provenance import SIMULATORS, versions
from offrl.results.rows import ScoreRow, Status
from offrl.results.store import RunFolder, Unreadable
from offrl.running.decisions import decide
from offrl.running.faults import AlgorithmError, CheckedPolicy, blaming, check_metrics
from offrl.running.jobs import Job, identity
from offrl.running.task import Workload, prepare, validation_split

log = logging.getLogger(__name__)

CHECK_EVERY = 100  # gradient steps between checks for numbers that are not finite
CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 0.5

# Called with the step and the latest score; where it returns True, the run saves and ends.
OnProgress = Callable[[int, float | None], bool]


class Interrupted(Exception):
    """The run was stopped and is saved; it carries on with the same command."""


def train_run(job: Job, root: Path, on_progress: OnProgress = lambda _step, _score: False) -> None:
    """Runs `job` in its folder below `root` to its last step.

    A run that was interrupted, or killed, carries on from its checkpoint and ends with the numbers
    of an uninterrupted run. Raises Held where another process holds it, Interrupted after
    saving if `on_progress` returns True, and Diverged where a number is not finite; the latter two
    are noted in run.json, as is any other failure.
    """
    folder = RunFolder(job.folder(root), root)
    with folder.held():
        with _noting_failure(folder):
            dataset = load_dataset(job.dataset, view=job.view, trust=job.trust, check=True)
        run, trust = identity(job, dataset), decide(job.trust)
        folder.enlist(run, trust)  # raises where the record is another run's, which stays as it is
        with _noting_failure(folder):
            folder.begin(run, trust)
            try:
                _train(job, folder, dataset, on_progress)
            except Interrupted:
                folder.set_status(Status.INTERRUPTED)
                raise
            folder.set_status(Status.DONE)


@contextmanager
def _noting_failure(folder: RunFolder) -> Iterator[None]:
    """Notes what fails inside in the run's record, where it has one, and raises it again."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        try:
            folder.fail(cause_of(error), traceback.format_exc())
        except InputError as unnoted:  # the disk may be full: the first cause is the one to say
            log.warning("%s", unnoted)
        raise


def cause_of(error: Exception) -> str:
    """How a run's record and its last event name the error that ended it."""
    if isinstance(error, AlgorithmError):
        return f"{error} (run.json has the traceback)"
    return f"{type(error).__name__}: {error}"


def _train(job: Job, folder: RunFolder, dataset: Dataset, on_progress: OnProgress) -> None:
    work = prepare(job, dataset)
    algorithm = work.algorithm
    learner, sampler = _untrained(job, work)
    validation = validation_split(job, dataset, learner) if learner.validation_interval else None
    evaluation = job.evaluation

    # The policy that stands for the run comes last: the last row's score is the run's.
    acting = "act" if issubclass(algorithm, SingleSeedLearner) else "policy"
    with blaming(algorithm, acting):
        ways = list(learner.policies())[::-1]

    step, spent = 0, 0.0
    state, rows = _carry_on(folder, ways, job.steps)
    if state is not None:
        try:
            with blaming(algorithm, "load_state_dict"):
                learner.load_state_dict(state["learner"])
            sampler.load_state_dict(state["sampler"])
        except Damaged as error:
            rows = _start_anew(folder, ways, f"{folder.checkpoint}: {error}")
            learner, sampler = _untrained(job, work)
        else:
            step, spent = state["step"], state["seconds"]
    score = rows[-1].score if rows else None
    if step and on_progress(step, score) and step < job.steps:
        raise Interrupted

    def save() -> None:
        with blaming(algorithm, "state_dict", step):
            learned = learner.state_dict()
        checkpoint.save(
            folder.checkpoint,
            {
                "learner": learned,
                "sampler": sampler.state_dict(),
                "step": step,
                "seconds": spent + time.monotonic() - begun,
            },
        )

    evaluator = Evaluator(work.environment, [job.seed], evaluation.episodes, evaluation.seed)
    begun = saved = reported = time.monotonic()
    with closing(evaluator):
        while step < job.steps:
            step += 1
            with blaming(algorithm, "update", step):
                metrics = check_metrics(learner.update(sampler.sample()), 1)
            if learner.validation_interval and step % learner.validation_interval == 0:
                assert validation is not None
                with blaming(algorithm, "validate", step):
                    metrics = {**metrics, **check_metrics(learner.validate(validation), 1)}
            evaluate = step % evaluation.every == 0 or step == job.steps
            if step % CHECK_EVERY == 0 or evaluate:
                with blaming(algorithm, "update", step):
                    _check_finite(metrics, step)
            if evaluate:
                with blaming(algorithm, acting, step):
                    policies = _policies(learner, ways, step)
                for name, way in policies.items():
                    policy = CheckedPolicy(way, algorithm, acting, step, work.spec.action_dim)
                    episodes = evaluator(policy)
                    seconds = round(spent + time.monotonic() - begun, 3)
                    row = _score_row(
                        job, dataset, name, policy.mode, episodes, metrics, step, seconds
                    )
                    folder.append(row)
                score = row.score
            now = time.monotonic()
            if evaluate or now - saved > CHECKPOINT_SECONDS:
                save()
                saved = now
            if evaluate or now - reported > REPORT_SECONDS:
                reported = now
                if on_progress(step, score) and step < job.steps:
                    save()
                    raise Interrupted


def _untrained(job: Job, work: Workload) -> tuple[Learner, Sampler]:
    with blaming(work.algorithm, "__init__"):
        learner = build(work.algorithm, work.spec, work.config, [job.seed])
    with blaming(work.algorithm, "sampler"):
        sampler = work.algorithm.sampler(work.data, work.config, [job.seed], "cpu")
    return learner, sampler


def _carry_on(
    folder: RunFolder, ways: list[str], steps: int
) -> tuple[dict[str, Any] | None, list[ScoreRow]]:
    """The checkpoint and the rows up to it; None and no rows where the run starts anew.

    That is so, and is logged, where the checkpoint or a row up to it is damaged or missing.
    """
    if os.path.lexists(folder.checkpoint):
        try:
            step = folder.checkpoint_step(steps)
            state = checkpoint.load(folder.checkpoint)
            seconds = state.get("seconds")
            if not {"learner", "sampler"} <= state.keys() or not isinstance(seconds, float):
                raise Damaged(f"{folder.checkpoint}: expected the checkpoint of a run")
            return state, folder.carry_on(ways, step)
        except Unreadable:
            raise
        except Damaged as error:
            return None, _start_anew(folder, ways, str(error))
    return None, folder.carry_on(ways, 0)


def _start_anew(folder: RunFolder, ways: list[str], why: str) -> list[ScoreRow]:
    log.warning("%s; the run starts anew", why)
    folder.checkpoint.unlink()
    return folder.carry_on(ways, 0)


def _policies(learner: Learner, ways: list[str], step: int) -> dict[str, Policy]:
    """The ways to act, in this order. Raises ValueError where the learner has others by now."""
    policies = learner.policies()
    if list(policies)[::-1] != ways:
        raise ValueError(
            f"policies() are {list(policies)} at step {step}, but were {ways[::-1]} before "
            "training; expected the same names throughout"
        )
    return {way: policies[way] for way in ways}


def _check_finite(metrics: Metrics, step: int) -> None:
    for name, value in metrics.items():
        if not torch.isfinite(value).all():
            raise Diverged(f"{name} is {value.flatten()[0].item()} at step {step}")


def _score_row(
    job: Job,
    dataset: Dataset,
    policy: str,
    action_mode: str,
    episodes: Episodes,
    metrics: Metrics,
    step: int,
    seconds: float,
) -> ScoreRow:
    """One evaluation of a run as a score row. Raises Diverged where it holds no finite number."""
    returns = episodes.returns[0]
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
        lengths=episodes.lengths[0].tolist(),
        policy=policy,
        action_mode=action_mode,
        metrics={name: float(value[0]) for name, value in metrics.items()},
        wall_time=seconds,
    )
