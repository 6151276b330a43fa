"""BC whose network also has a head for the deviation, trained by the Gaussian likelihood.

It stands beside BC in docs/results.md, where the loss behind NeoRL-2's published scores is asked:

    offrl train benchmarks/bc_likelihood.py neorl2-dmsd -o runs --steps 30000 --every 30000 \
        --episodes 1000 --seed 0..7 --replicas 8
    offrl train bc neorl2-dmsd -o runs --steps 30000 --every 30000 --episodes 1000 --seed 0..7 \
        --replicas 8 --set actor_lr=1e-3 --set activation=leaky_relu --set output=linear \
        --set normalize=false --set checkpoint="best validation"

The parameters of the lowest squared error on the validation split act, by the mean, as in the
second command. The logarithm of the deviation is held in [-5, 2]; these bounds are ours.
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from offrl.algorithms.bc import BC, BCConfig
from offrl.learning import (
    CONTINUOUS,
    MLP,
    Batch,
    Device,
    Loss,
    Positive,
    Seeds,
    Spec,
    StatelessPolicy,
    Streams,
    adam,
)


@dataclass(frozen=True)
class BCLikelihoodConfig(BCConfig):
    """Defaults of the protocol neorl2-dmsd for BC."""

    actor_lr: Positive = 1e-3
    activation: Literal["relu", "leaky_relu"] = "leaky_relu"
    output: Literal["linear"] = "linear"
    normalize: bool = False
    checkpoint: Literal["best validation"] = "best validation"


class BCLikelihood(BC):
    """BC by the likelihood of a normal distribution around the cloned action."""

    Config = BCLikelihoodConfig  # type: ignore[assignment]  # BC names its own class
    actions = frozenset((CONTINUOUS,))
    agreement = ""  # none was measured

    def __init__(self, spec: Spec, config: BCConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        sizes = (spec.observation_dim, *config.hidden, 2 * spec.action_dim)
        self.actor, self.acting = (
            MLP(Streams(seeds, "actor", device), sizes, activation=config.activation)
            for _ in range(2)
        )
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)

    def _heads(self, network: MLP, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the logarithm of the deviation, each (R, B, action_dim)."""
        mean, log_std = network(self.states(observations)).chunk(2, -1)
        return mean, log_std.clamp(-5.0, 2.0)

    def actor_loss(self, batch: Batch) -> Loss:
        """The negative logarithm of the likelihood, mean over batch and action dimensions."""
        mean, log_std = self._heads(self.actor, batch.observations)
        squares = ((batch.actions - mean) / log_std.exp()).square()
        loss = (squares / 2 + log_std + math.log(2 * math.pi) / 2).mean((1, 2))
        return loss, {"actor/loss": loss.detach()}

    def _cloning_loss(self, observations: Tensor, actions: Tensor) -> Tensor:
        mean, _ = self._heads(self.actor, observations)
        return (mean - actions).square().mean((1, 2))

    def policy(self) -> StatelessPolicy:
        """The mean of the parameters that were the best on validation."""
        return StatelessPolicy(lambda o: self._heads(self.acting, o)[0])
