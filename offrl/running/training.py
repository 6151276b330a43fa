"""Trains one run from where it stopped, and scores it on the way."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from offrl.data.dataset import Dataset, load_dataset
from offrl.evaluation.rollouts import Diverged, Episodes, Evaluator
from offrl.learning import checkpoint
from offrl.learning.learner import Metrics
from offrl.learning.single import build
from offrl.results.provenance import versions
from offrl.results.rows import ScoreRow, Status
from offrl.results.store import RunFolder
from offrl.running.decisions import decide
from offrl.running.jobs import Job, identity
from offrl.running.task import prepare, validation_split

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
    of an uninterrupted run. Raises Interrupted after saving if `on_progress` returns True, and
    Diverged where a number is not finite; both are noted in run.json, as is any other failure.
    """
    folder = RunFolder(job.folder(root))
    with folder.held():
        dataset = load_dataset(job.dataset, view=job.view, trust=job.trust)
        folder.begin(identity(job, dataset), decide(job.trust))
        try:
            _train(job, folder, dataset, on_progress)
        except Interrupted:
            folder.set_status(Status.INTERRUPTED)
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            folder.set_status(Status.FAILED, cause, traceback.format_exc())
            raise
        folder.set_status(Status.DONE)


def _train(job: Job, folder: RunFolder, dataset: Dataset, on_progress: OnProgress) -> None:
    work = prepare(job, dataset)
    learner = build(work.algorithm, work.spec, work.config, [job.seed])
    sampler = work.algorithm.sampler(work.data, work.config, [job.seed], "cpu")
    validation = validation_split(job, dataset) if learner.validation_interval else None
    evaluation = job.evaluation
    evaluator = Evaluator(work.environment, [job.seed], evaluation.episodes, evaluation.seed)

    step, spent = 0, 0.0
    if folder.checkpoint.exists():
        state = checkpoint.load(folder.checkpoint)
        learner.load_state_dict(state["learner"])
        sampler.load_state_dict(state["sampler"])
        step, spent = state["step"], state["seconds"]
    folder.rewind(step)
    rows = folder.rows()
    score = rows[-1].score if rows else None

    begun = saved = reported = time.monotonic()

    def save() -> None:
        checkpoint.save(
            folder.checkpoint,
            {
                "learner": learner.state_dict(),
                "sampler": sampler.state_dict(),
                "step": step,
                "seconds": spent + time.monotonic() - begun,
            },
        )

    while step < job.steps:
        metrics = learner.update(sampler.sample())
        step += 1
        if learner.validation_interval and step % learner.validation_interval == 0:
            assert validation is not None
            metrics = {**metrics, **learner.validate(validation)}
        evaluate = step % evaluation.every == 0 or step == job.steps
        if step % CHECK_EVERY == 0 or evaluate:
            _check_finite(metrics, step)
        if evaluate:
            # The policy that stands for the run comes last: the last row's score is the run's.
            for name, policy in reversed(list(learner.policies().items())):
                episodes = evaluator(policy)
                seconds = round(spent + time.monotonic() - begun, 3)
                row = _score_row(job, dataset, name, policy.mode, episodes, metrics, step, seconds)
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
    evaluator.close()


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
    """One evaluation of a run as a score row. Raises Diverged where a return is not finite."""
    returns = episodes.returns[0]
    if not np.isfinite(returns).all():
        raise Diverged(f"the return of an episode is not finite in the evaluation at step {step}")
    environment, _ = dataset.card.scoring()
    present = versions()
    simulator = ("gymnasium", "gymnasium-robotics", "mujoco", "offrl")
    return ScoreRow(
        protocol=job.protocol,
        dataset=f"{dataset.card.id}@{dataset.card.version}",
        environment=environment.id,
        simulator={name: present[name] for name in simulator},
        algorithm=job.label,
        config=job.config_hash,
        seed=job.seed,
        step=step,
        score=float(dataset.normalized(returns.mean())),
        mean_return=float(returns.mean()),
        returns=returns.tolist(),
        lengths=episodes.lengths[0].tolist(),
        policy=policy,
        action_mode=action_mode,
        metrics={name: float(value[0]) for name, value in metrics.items()},
        wall_time=seconds,
    )
