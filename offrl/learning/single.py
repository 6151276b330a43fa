"""Runs algorithms that are written for one seed under the Learner contract."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from offrl.learning.batch import Batch
from offrl.learning.learner import Learner, Metrics, SingleSeedLearner
from offrl.learning.policy import Policy, StatelessPolicy
from offrl.learning.spec import Spec, WatchedSpec
from offrl.learning.streams import spawn_seed


class _Replicated(Learner):
    """Runs single-seed learners side by side under the Learner contract."""

    def __init__(
        self,
        algorithm: type[SingleSeedLearner],
        spec: Spec,
        config: Any,
        seeds: Sequence[int],
        device: torch.device | str,
    ):
        self.learners: list[SingleSeedLearner] = []
        self.generator_states: list[Tensor] = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(spawn_seed(seed, "global"))
                self.learners.append(algorithm(spec, config, seed, device))
                self.generator_states.append(torch.get_rng_state())

    def update(self, batch: Batch) -> Metrics:
        rows: list[dict[str, Tensor]] = []
        for r, learner in enumerate(self.learners):
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self.generator_states[r])
                metrics = learner.update(batch.replica(r))
                self.generator_states[r] = torch.get_rng_state()
            rows.append(_scalars(metrics))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def policy(self) -> Policy:
        # Acting draws from copies of the training generators, which stay as they are.
        states = list(self.generator_states)

        def act(observations: Tensor) -> Tensor:
            actions = []
            for r, learner in enumerate(self.learners):
                with torch.random.fork_rng(devices=[]):
                    torch.set_rng_state(states[r])
                    actions.append(learner.act(observations[r]))
                    states[r] = torch.get_rng_state()
            return torch.stack(actions)

        return StatelessPolicy(act, self.learners[0].mode)


def _scalars(metrics: Any) -> dict[str, Tensor]:
    """Metrics as tensors without axes. Raises ValueError, with the name, for all but numbers."""
    if not isinstance(metrics, Mapping):
        raise ValueError(f"returned {type(metrics).__name__}; expected metrics by name, or {{}}")
    scalars = {}
    for name, value in metrics.items():
        try:
            scalar = torch.as_tensor(value).detach()
        except (TypeError, ValueError, RuntimeError):
            kind = type(value).__name__
            raise ValueError(f"metric {name!r} is a {kind}; expected a number") from None
        if scalar.numel() != 1:
            raise ValueError(
                f"metric {name!r} has shape {tuple(scalar.shape)}; expected one number, such as a "
                "mean"
            )
        scalars[name] = scalar.reshape(())
    return scalars


def build(
    algorithm: type[Learner] | type[SingleSeedLearner],
    spec: Spec,
    config: Any,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
) -> Learner:
    """A Learner with one replica per seed, whichever way the algorithm is written."""
    if issubclass(algorithm, Learner):
        return algorithm(spec, config, seeds, device)
    return _Replicated(algorithm, spec, config, seeds, device)


def schedule_of(
    algorithm: type[Learner] | type[SingleSeedLearner], learner: Learner, spec: WatchedSpec
) -> str:
    """What of a learner depends on the number of steps, as messages name it; empty where nothing.

    That is so where it read `spec.steps` when it was built of `spec`, or keeps the spec.
    """
    parts = learner.learners if isinstance(learner, _Replicated) else [learner]
    if not spec.decides(value for part in parts for value in vars(part).values()):
        return ""
    return algorithm.schedule or "what it makes of spec.steps"
