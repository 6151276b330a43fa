"""Losses on a validation split, by an algorithm's own update, of which nothing is kept."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from offrl.data.transitions import transitions
from offrl.results.unplayed import HELD_OUT
from offrl.running.faults import blaming, check_metrics
from offrl.running.opening import Run, learner_of, sampler_of

BATCHES = 20  # the same at every evaluation of a run


def held_out(run: Run, state: Mapping[str, Any], step: int) -> dict[str, Tensor]:
    """Means of the metrics of updates on batches of the validation split, each (1,).

    Every update begins at the same state and is thrown away, so the split trains nothing. Empty
    where the data have none.

    Args:
        run: of which it is asked.
        state: of its learner, of one replica.
        step: of that state, for messages.
    """
    split = run.dataset.validation
    if split is None:
        return {}
    algorithm = run.work.algorithm
    with blaming(algorithm, "prepare", step):
        data = algorithm.prepare(transitions(split), run.work.config)
    sampler = sampler_of([replace(run.work, data=data)], [run.job.seed])
    learner = learner_of([run.work], [run.job.seed])
    found: dict[str, list[Tensor]] = {}
    for _ in range(BATCHES):
        with blaming(algorithm, "load_state_dict", step):
            learner.load_state_dict(state)
        with blaming(algorithm, "update", step):
            metrics = check_metrics(learner.update(sampler.sample()), 1)
        for name, value in metrics.items():
            found.setdefault(f"{HELD_OUT}{name}", []).append(value.detach().cpu())
    return {name: torch.stack(values).mean(0) for name, values in found.items()}
