"""The work of a job: an algorithm with its config, on prepared data, for a simulator."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from offrl.data.card import Environment
from offrl.data.dataset import Dataset
from offrl.data.transitions import Transitions, transitions
from offrl.errors import InputError
from offrl.evaluation.environments import spaces
from offrl.learning.batch import Batch
from offrl.learning.learner import Learner, SingleSeedLearner, find_algorithm
from offrl.learning.sampler import whole
from offrl.learning.single import build, schedule_of
from offrl.learning.spec import Spec, WatchedSpec
from offrl.running.faults import AlgorithmError, blaming
from offrl.running.jobs import Job, configure


def learner_spec(data: Transitions, max_action: float, steps: int) -> Spec:
    """What a learner is built from, besides its config and its seeds."""
    return Spec(
        observation_dim=data.observations.shape[1],
        action_dim=data.actions.shape[1],
        max_action=max_action,
        steps=steps,
        observation_mean=data.observations.mean(0, dtype=np.float64).astype(np.float32),
        observation_std=data.observations.std(0, dtype=np.float64).astype(np.float32),
    )


@dataclass(frozen=True)
class Workload:
    """All that a run needs before its learner exists."""

    algorithm: type[Learner] | type[SingleSeedLearner]
    config: Any
    environment: Environment
    data: Transitions
    spec: Spec


def prepare(job: Job, dataset: Dataset) -> Workload:
    """What `job` trains with. Raises InputError where algorithm, data and simulator do not fit."""
    algorithm = find_algorithm(job.algorithm)
    config = configure(job.algorithm, job.config, f"algorithm {job.label}")
    environment, _ = dataset.card.scoring()
    if dataset.action_count is not None:
        raise InputError(
            f"data set {dataset.card.id} has {dataset.action_count} discrete actions, but "
            f"algorithm {job.label} takes continuous ones; choose another of the two"
        )
    with blaming(algorithm, "prepare"):
        data = algorithm.prepare(transitions(dataset), config)
    sizes = (data.observations.shape[1], data.actions.shape[1])
    observation_dim, action_dim, bound = spaces(environment)
    if sizes != (observation_dim, action_dim):
        raise InputError(
            f"data set {dataset.card.id}: holds observations and actions of {sizes} numbers, but "
            f"environment {environment.id!r} of its card has {(observation_dim, action_dim)}; "
            "correct the card"
        )
    return Workload(algorithm, config, environment, data, learner_spec(data, bound, job.steps))


def validation_split(job: Job, dataset: Dataset, learner: Learner) -> Batch:
    """The published validation split as one batch. Raises InputError where there is none."""
    if dataset.validation is None:
        raise InputError(
            f"algorithm {job.label} needs a validation split, which data set {dataset.card.id} "
            f"does not publish; {learner.validation_advice}"
        )
    return whole(transitions(dataset.validation))


def check(job: Job, dataset: Dataset) -> tuple[Spec, str]:
    """Builds the job's learner, and returns its spec and what depends on the number of steps.

    The latter is as of `schedule_of`. Raises InputError where `job` cannot run on `dataset`.
    """
    work = prepare(job, dataset)
    try:
        with blaming(work.algorithm, "__init__"):
            spec = WatchedSpec.of(work.spec)
            learner = build(work.algorithm, spec, work.config, [job.seed])
            schedule = schedule_of(work.algorithm, learner, spec)
        with blaming(work.algorithm, "state_dict"):
            learner.state_dict()  # raises where something cannot be saved
    except AlgorithmError as error:
        raise InputError(
            f"algorithm {job.label} cannot be built: {error}; correct its config or its file"
        ) from error
    except Exception as error:  # of a config that the user chose
        raise InputError(
            f"algorithm {job.label} cannot be built: {type(error).__name__}: {error}; correct its "
            "config or its file"
        ) from error
    if learner.validation_interval:
        validation_split(job, dataset, learner)
    return work.spec, schedule
