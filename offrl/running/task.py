"""The work of a job: an algorithm with its config, on prepared data, for a simulator."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offrl.data.card import Environment
from offrl.data.columns import moments
from offrl.data.dataset import Dataset
from offrl.data.transforms import has_action
from offrl.data.transitions import Transitions, transitions
from offrl.errors import InputError
from offrl.evaluation.environments import Actions, actions_of
from offrl.learning.batch import Batch
from offrl.learning.learner import (
    CONTINUOUS,
    DISCRETE,
    Learner,
    SingleSeedLearner,
    find_algorithm,
    taking,
)
from offrl.learning.sampler import whole
from offrl.learning.single import build, schedule_of
from offrl.learning.spec import Spec, WatchedSpec, rescaled
from offrl.running.faults import AlgorithmError, blaming
from offrl.running.jobs import Job, configure

log = logging.getLogger(__name__)


def learner_spec(data: Transitions, actions: Actions, steps: int) -> Spec:
    """What a learner is built from, besides its config and its seeds.

    Its actions are those of the simulator where they lie in [-a, a], else rescaled to [-1, 1].
    """
    mean, deviation = moments(data.observations)
    return Spec(
        observation_dim=data.observations.shape[1],
        action_dim=len(actions.low),
        max_action=0.0 if actions.count else actions.bound or 1.0,
        steps=steps,
        action_count=actions.count,
        action_low=actions.low if actions.rescaled else None,
        action_high=actions.high if actions.rescaled else None,
        observation_mean=mean.astype(np.float32),
        observation_std=deviation.astype(np.float32),
    )


@dataclass(frozen=True)
class Workload:
    """All that a run needs before its learner exists."""

    algorithm: type[Learner] | type[SingleSeedLearner]
    config: Any
    environment: Environment | None  # None: no policy is played
    data: Transitions
    spec: Spec


def prepare(job: Job, dataset: Dataset) -> Workload:
    """What `job` trains with. Raises InputError where algorithm, data and simulator do not fit."""
    algorithm = find_algorithm(job.algorithm)
    config = configure(job.algorithm, job.config, f"algorithm {job.label}")
    environment = dataset.card.scoring()[0] if dataset.card.environment else None
    check_kind(job, dataset)
    actions = actions_of(dataset, environment)
    given = taken_rows(job, dataset)
    if actions.rescaled:
        given = replace(given, actions=rescaled(given.actions, actions.low, actions.high))
    with blaming(algorithm, "prepare"):
        data = algorithm.prepare(given, config)
    return Workload(algorithm, config, environment, data, learner_spec(data, actions, job.steps))


def taken_rows(job: Job, dataset: Dataset) -> Transitions:
    """The rows that a job's algorithm is given: those with an action, where it takes no others."""
    given = transitions(dataset)
    if dataset.card.clean is None or find_algorithm(job.algorithm).accepts_action_free:
        return given
    known = has_action(given.actions)
    return given if known.all() else given.rows(known)


def check_kind(job: Job, dataset: Dataset) -> None:
    """Raises InputError where the algorithm of a job does not take the actions of its data."""
    kind = CONTINUOUS if dataset.action_count is None else DISCRETE
    own = find_algorithm(job.algorithm).actions
    if kind not in own:
        raise InputError(
            f"data set {dataset.card.id} has {kind} actions, but algorithm {job.label} takes "
            f"{' and '.join(sorted(own))} ones only; those that take {kind} ones are "
            f"{', '.join(taking(kind))}"
        )


def validation_split(job: Job, dataset: Dataset, learner: Learner, spec: Spec) -> Batch:
    """The published validation split as one batch. Raises InputError where there is none."""
    if dataset.validation is None:
        raise InputError(
            f"algorithm {job.label} needs a validation split, which data set {dataset.card.id} "
            f"does not publish; {learner.validation_advice}"
        )
    data = transitions(dataset.validation)
    return whole(replace(data, actions=spec.to_learner(data.actions)))


def check(job: Job, dataset: Dataset) -> tuple[Spec, str]:
    """Builds the job's learner, and returns its spec and what depends on the number of steps.

    The latter is as of `schedule_of`. Raises InputError where `job` cannot run on `dataset`.
    """
    work = prepare(job, dataset)
    if (rows := len(taken_rows(job, dataset).rewards)) < len(dataset):
        log.warning(
            "%s: algorithm %s takes no rows without an action, so it trains on %s of %s",
            dataset.card.id,
            job.label,
            f"{rows:,}",
            f"{len(dataset):,}",
        )
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
    except InputError:  # which says what to do
        raise
    except Exception as error:  # of a config that the user chose
        raise InputError(
            f"algorithm {job.label} cannot be built: {type(error).__name__}: {error}; correct its "
            "config or its file"
        ) from error
    if learner.validation_interval:
        validation_split(job, dataset, learner, work.spec)
    return work.spec, schedule
