"""BC: behaviour cloning by regression.

Pomerleau, "Efficient Training of Artificial Neural Networks for Autonomous Navigation", Neural
Computation 1991. Reference code: CORL `any_percent_bc.py` with the whole data set.

    L = mean (pi(s) - a)^2    over the batch and the action dimensions

with pi(s) = a_max tanh(f(s)), two hidden layers of 256 with ReLU, and Adam. CORL's filter by return
is an algorithm of its own here, `percent_bc`.

Known differences:
1. CORL standardises observations with (s - mean) / (std + 1e-3): `normalize = true`, the default.
2. NeoRL-2's benchmark (offlinerl 0.0.2) regresses with an untransformed linear output and
   LeakyReLU on raw observations, and evaluates the parameters with the lowest mean squared error
   on the published validation split, looked at every 1000 steps: `output = "linear"`,
   `activation = "leaky_relu"`, `normalize = false`, `checkpoint = "best validation"`. Its
   validation error is a sum of batch means, in which the last, smaller batch weighs as much as the
   others; here every transition weighs the same. The unused standard-deviation head of its network
   is left out.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from offrl.learning import (
    MLP,
    Batch,
    Count,
    Device,
    Learner,
    Loss,
    Metrics,
    Positive,
    Seeds,
    Spec,
    StatelessPolicy,
    Streams,
    Widths,
    adam,
    losses,
    step,
)


@dataclass(frozen=True)
class BCConfig:
    """Defaults of CORL."""

    actor_lr: Positive = 3e-4
    hidden: Widths = (256, 256)
    activation: Literal["relu", "leaky_relu"] = "relu"
    output: Literal["tanh", "linear"] = "tanh"
    normalize: bool = True  # standardise observations
    checkpoint: Literal["last", "best validation"] = "last"  # which parameters act
    validation_interval: Count = 1000  # gradient steps between looks at the validation split
    batch_size: Count = 256


class BC(Learner):
    """Behaviour cloning on the replica axis."""

    Config = BCConfig
    config: BCConfig
    paper = "Pomerleau 1991"
    family = "imitation"
    agreement = "corl-team/CORL eeeeef2 any_percent_bc.py"
    period = 1
    varying = frozenset(("actor_lr",))
    validation_advice = "set checkpoint = 'last'"

    def __init__(self, spec: Spec, config: BCConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        sizes = (spec.observation_dim, *config.hidden, spec.action_dim)
        self.actor = MLP(Streams(seeds, "actor", device), sizes, activation=config.activation)
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        self.updates = 0
        self.acting = self.actor
        if config.checkpoint == "best validation":
            self.validation_interval = config.validation_interval
            self.acting = MLP(Streams(seeds, "actor", device), sizes, activation=config.activation)
            self.best_error = torch.full((len(seeds),), torch.inf, device=device)
            self.best_step = torch.zeros(len(seeds), device=device)

    def _act(self, actor: MLP, observations: Tensor) -> Tensor:
        actions = actor(self.states(observations))
        return self.max_action * torch.tanh(actions) if self.config.output == "tanh" else actions

    def actor_loss(self, batch: Batch) -> Loss:
        """L, the regression on the data's actions."""
        loss = losses.cloning_loss(self._act(self.actor, batch.observations), batch.actions)
        return loss, {"actor/loss": loss.detach()}

    def update(self, batch: Batch) -> Metrics:
        """One step of regression."""
        loss, metrics = self.actor_loss(batch)
        step(self.actor_optimizer, loss)
        self.updates += 1
        return metrics

    def policy(self) -> StatelessPolicy:
        """The actor as the config's `checkpoint` says: the last, or the best on validation."""
        return StatelessPolicy(lambda observations: self._act(self.acting, observations))

    # --- Variants ---

    @torch.no_grad()
    def validate(self, batch: Batch) -> Metrics:
        """Keeps each replica's parameters where their validation error is the lowest so far."""
        observations = batch.observations.expand(len(self.best_error), -1, -1)
        error = losses.cloning_loss(self._act(self.actor, observations), batch.actions)
        better = error < self.best_error
        self.best_error = torch.where(better, error, self.best_error)
        self.best_step = torch.where(better, float(self.updates), self.best_step)
        for best, current in zip(self.acting.parameters(), self.actor.parameters(), strict=True):
            best[better] = current[better]
        return {"validation/loss": error, "validation/best_step": self.best_step}
