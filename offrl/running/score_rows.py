"""What the rows of a run hold of an evaluation."""

import math

import numpy as np

from offrl.evaluation.rollouts import Diverged
from offrl.learning.learner import Metrics
from offrl.results.provenance import simulator_versions
from offrl.results.rows import ScoreRow
from offrl.running.opening import Run
from offrl.running.scoring import Played


def score_row(
    run: Run,
    played: Played,
    metrics: Metrics,
    step: int,
    seconds: float,
) -> ScoreRow:
    """One evaluation of a run as a score row. Raises Diverged where it holds no finite number."""
    dataset = run.dataset
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
    return loss_row(run, played.way, metrics, step, seconds).model_copy(
        update={
            "environment": dataset.card.scoring()[0].id,
            "score": score,
            "mean_return": mean,
            "returns": returns.tolist(),
            "lengths": played.episodes.lengths[0].tolist(),
            "action_mode": played.mode,
        }
    )


def loss_row(run: Run, way: str, metrics: Metrics, step: int, seconds: float) -> ScoreRow:
    """What a row has of an evaluation in which no episode is played."""
    job, card = run.job, run.dataset.card
    return ScoreRow(
        protocol=job.protocol,
        dataset=f"{card.id}@{card.version}",
        environment="",
        simulator=simulator_versions(card.valid_with),
        algorithm=job.label,
        config=job.config_hash,
        seed=job.seed,
        step=step,
        score=None,
        mean_return=None,
        returns=[],
        lengths=[],
        policy=way,
        action_mode="",
        metrics={name: float(value[0]) for name, value in metrics.items()},
        wall_time=round(seconds, 3),
    )
