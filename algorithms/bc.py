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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from offrl.learning.batch import Batch
from offrl.learning.fields import Count, Positive, Widths
from offrl.learning.learner import Learner, Metrics
from offrl.learning.networks import MLP, Standardise
from offrl.learning.optim import adam, step
from offrl.learning.policy import StatelessPolicy
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams


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


def cloning_loss(policy_actions: Tensor, actions: Tensor) -> Tensor:
    """Mean squared error of each replica over its batch and the action dimensions, shape (R,)."""
    return (policy_actions - actions).square().mean((-2, -1))


class BC(Learner):
    """Behaviour cloning on the replica axis."""

    Config = BCConfig
    paper = "Pomerleau 1991"
    family = "imitation"
    agreement = "corl-team/CORL eeeeef2 any_percent_bc.py"

    def __init__(
        self,
        spec: Spec,
        config: BCConfig,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.config = config
        self.max_action = spec.max_action
        self.standardise = Standardise(spec, device)

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
        if self.config.normalize:
            observations = self.standardise(observations)
        actions: Tensor = actor(observations)
        return self.max_action * torch.tanh(actions) if self.config.output == "tanh" else actions

    def update(self, batch: Batch) -> Metrics:
        """One step of regression."""
        loss = cloning_loss(self._act(self.actor, batch.observations), batch.actions)
        step(self.actor_optimizer, loss)
        self.updates += 1
        return {"actor/loss": loss.detach()}

    @torch.no_grad()
    def validate(self, batch: Batch) -> Metrics:
        """Keeps each replica's parameters where their validation error is the lowest so far."""
        observations = batch.observations.expand(len(self.best_error), -1, -1)
        error = cloning_loss(self._act(self.actor, observations), batch.actions)
        better = error < self.best_error
        self.best_error = torch.where(better, error, self.best_error)
        self.best_step = torch.where(better, float(self.updates), self.best_step)
        for best, current in zip(self.acting.parameters(), self.actor.parameters(), strict=True):
            best[better] = current[better]
        return {"validation/loss": error, "validation/best_step": self.best_step}

    def policy(self) -> StatelessPolicy:
        """The actor as the config's `checkpoint` says: the last, or the best on validation."""
        return StatelessPolicy(lambda observations: self._act(self.acting, observations))
