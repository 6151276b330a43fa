"""Trains one run from wherever it stopped, and scores it on the way."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offrl.data.card import Card, Environment, Reference
from offrl.data.dataset import Dataset, load_dataset
from offrl.errors import InputError
from offrl.evaluation.rollouts import Diverged, Evaluator, spaces
from offrl.learning import checkpoint
from offrl.learning.batch import Batch, Transitions, transitions
from offrl.learning.learner import (
    Learner,
    Metrics,
    Policy,
    SingleSeedLearner,
    Spec,
    build,
    find_algorithm,
)
from offrl.learning.sampler import whole
from offrl.results.store import RunFolder, versions
from offrl.running.protocol import Job, configure, identity

CHECK_EVERY = 100  # gradient steps between looks for numbers that are not finite
CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 0.5

# Called with the step and the latest score; returning True asks the run to stop and save.
OnProgress = Callable[[int, float | None], bool]


class Interrupted(Exception):
    """The run was asked to stop; it is saved and carries on with the same command."""


def scoring(card: Card) -> tuple[Environment, Reference]:
    """The simulator and the reference returns of a card. Raises InputError where it lacks one."""
    if card.environment is None or card.reference is None:
        lacking = "environment" if card.environment is None else "reference"
        raise InputError(
            f"data set {card.id}: its card has no [{lacking}], so a policy cannot be scored"
            f"{f'; its notes may say why (offrl show {card.id})' if card.notes else ''}; give a "
            "card (TOML) that has one"
        )
    return card.environment, card.reference


def describe(data: Transitions, max_action: float, steps: int) -> Spec:
    """What a learner may know of the prepared training data."""
    return Spec(
        observation_dim=data.observations.shape[1],
        action_dim=data.actions.shape[1],
        max_action=max_action,
        steps=steps,
        observation_mean=data.observations.mean(0, dtype=np.float64).astype(np.float32),
        observation_std=data.observations.std(0, dtype=np.float64).astype(np.float32),
    )


@dataclass(frozen=True)
class Task:
    """All that a run needs before its learner exists."""

    algorithm: type[Learner] | type[SingleSeedLearner]
    config: Any
    environment: Environment
    data: Transitions
    spec: Spec


def prepare(job: Job, dataset: Dataset) -> Task:
    """What `job` trains with. Raises InputError where algorithm, data and simulator do not fit."""
    algorithm = find_algorithm(job.algorithm)
    config = configure(job.algorithm, job.config, f"algorithm {job.label}")
    environment, _ = scoring(dataset.card)
    data = algorithm.prepare(transitions(dataset), config)
    sizes = (data.observations.shape[1], data.actions.shape[1])
    observation_dim, action_dim, limit = spaces(environment)
    if sizes != (observation_dim, action_dim):
        raise InputError(
            f"data set {dataset.card.id}: holds observations and actions of {sizes} numbers, but "
            f"environment {environment.id!r} of its card has {(observation_dim, action_dim)}; "
            "correct the card"
        )
    return Task(algorithm, config, environment, data, describe(data, limit, job.steps))


def validation_split(job: Job, dataset: Dataset) -> Batch:
    """The published validation split as one batch. Raises InputError where there is none."""
    if dataset.validation is None:
        raise InputError(
            f"algorithm {job.label} looks at a validation split, which data set {dataset.card.id} "
            "does not publish; set checkpoint = 'last'"
        )
    return whole(transitions(dataset.validation))


def check(job: Job, dataset: Dataset) -> Spec:
    """What the learner will know; raises InputError where `job` cannot run on `dataset`."""
    task = prepare(job, dataset)
    try:
        learner = build(task.algorithm, task.spec, task.config, [job.seed])
        learner.state_dict()  # raises where something cannot be saved
    except Exception as error:  # of a file or a config of the user's own
        raise InputError(
            f"algorithm {job.label} cannot be built: {type(error).__name__}: {error}; correct its "
            "config or its file"
        ) from error
    if learner.validation_interval:
        validation_split(job, dataset)
    return task.spec


def train_run(job: Job, root: Path, on_progress: OnProgress = lambda _step, _score: False) -> None:
    """Runs `job` in its folder below `root` to its last step.

    A run that was interrupted, or killed, carries on from its checkpoint and ends with the numbers
    of a run that was left alone. Raises Interrupted after saving if `on_progress` asks for it, and
    Diverged where a number is not finite; both are noted in run.json, as is any other failure.
    """
    folder = RunFolder(job.folder(root))
    with folder.held():
        dataset = load_dataset(job.dataset, view=job.view)
        folder.begin(identity(job, dataset))
        try:
            _train(job, folder, dataset, on_progress)
        except Interrupted:
            folder.set_status("interrupted")
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            folder.set_status("failed", cause, traceback.format_exc())
            raise
        folder.set_status("done")


def _train(job: Job, folder: RunFolder, dataset: Dataset, on_progress: OnProgress) -> None:
    task = prepare(job, dataset)
    learner = build(task.algorithm, task.spec, task.config, [job.seed])
    sampler = task.algorithm.sampler(task.data, task.config, [job.seed], "cpu")
    validation = validation_split(job, dataset) if learner.validation_interval else None
    evaluator = Evaluator(
        task.environment, [job.seed], job.evaluation["episodes"], job.evaluation["seed"]
    )

    step, spent = 0, 0.0
    if folder.checkpoint.exists():
        state = checkpoint.load(folder.checkpoint)
        learner.load_state_dict(state["learner"])
        sampler.load_state_dict(state["sampler"])
        step, spent = state["step"], state["seconds"]
    folder.rewind(step)
    rows = folder.rows()
    score = rows[-1]["score"] if rows else None

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
        evaluate = step % job.evaluation["every"] == 0 or step == job.steps
        if step % CHECK_EVERY == 0 or evaluate:
            _check_finite(metrics, step)
        if evaluate:
            # The policy that stands for the run comes last, where its score is looked for.
            for name, policy in reversed(list(learner.policies().items())):
                row = _score(job, dataset, name, policy, evaluator, metrics, step)
                row["wall_time"] = round(spent + time.monotonic() - begun, 3)
                folder.append(row)
            score = row["score"]
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


def _score(
    job: Job,
    dataset: Dataset,
    name: str,
    policy: Policy,
    evaluator: Evaluator,
    metrics: Metrics,
    step: int,
) -> dict[str, Any]:
    """One score row: a number and all that it depends on."""
    episodes = evaluator(policy)
    environment, _ = scoring(dataset.card)
    found = versions()
    return {
        "protocol": job.protocol,
        "dataset": f"{dataset.card.id}@{dataset.card.version}",
        "environment": environment.id,
        "simulator": {k: found[k] for k in ("gymnasium", "gymnasium-robotics", "mujoco", "offrl")},
        "algorithm": job.label,
        "config": job.config_hash,
        "seed": job.seed,
        "step": step,
        "score": float(dataset.normalized(episodes.returns[0].mean())),
        "return": float(episodes.returns[0].mean()),
        "returns": episodes.returns[0].tolist(),
        "lengths": episodes.lengths[0].tolist(),
        "policy": name,
        "action_mode": policy.mode,
        "metrics": {name: float(value[0]) for name, value in metrics.items()},
    }
