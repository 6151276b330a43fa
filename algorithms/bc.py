"""BC: behaviour cloning, by regression or by classification.

Pomerleau, "Efficient Training of Artificial Neural Networks for Autonomous Navigation", Neural
Computation 1991. Reference code: CORL `any_percent_bc.py` with the whole data set.

    L = mean (pi(s) - a)^2    over the batch and the action dimensions

with pi(s) = a_max tanh(f(s)), two hidden layers of 256 with ReLU, and Adam. CORL's filter by return
is an algorithm of its own here, `percent_bc`. Where actions are discrete, f(s) are the logits of a
categorical policy, which acts by its most probable action, and the loss is the cross-entropy

    L = -mean log pi(a|s)

for which the reference code is d3rlpy's DiscreteBC.

Known differences:
1. CORL standardises observations with (s - mean) / (std + 1e-3): `normalize = true`, the default.
2. NeoRL-2's benchmark (offlinerl 0.0.2) regresses with an untransformed linear output and
   LeakyReLU on raw observations, and evaluates the parameters with the lowest mean squared error
   on the published validation split, looked at every 1000 steps: `output = "linear"`,
   `activation = "leaky_relu"`, `normalize = false`, `checkpoint = "best validation"`. Its
   validation error is a sum of batch means, in which the last, smaller batch weighs as much as the
   others; here every transition weighs the same. The unused standard-deviation head of its network
   is left out.
3. d3rlpy adds 0.5 mean (log pi)^2, over all actions, to the loss of discrete actions; here nothing
   is added. `output` concerns continuous actions alone.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from offrl.learning import (
    CONTINUOUS,
    DISCRETE,
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
    cloning,
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
    actions = frozenset((CONTINUOUS, DISCRETE))
    period = 1
    not_restored = Learner.not_restored | {"discrete"}
    varying = frozenset(("actor_lr",))
    validation_advice = "set checkpoint = 'last'"

    def __init__(self, spec: Spec, config: BCConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        self.discrete = spec.action_count is not None
        outputs = spec.action_count or spec.action_dim
        sizes = (spec.observation_dim, *config.hidden, outputs)
        self.actor = MLP(Streams(seeds, "actor", device), sizes, activation=config.activation)
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        self.updates = 0
        self.acting = self.actor
        if config.checkpoint == "best validation":
            self.validation_interval = config.validation_interval
            self.acting = MLP(Streams(seeds, "actor", device), sizes, activation=config.activation)
            self.best_error = torch.full((len(seeds),), torch.inf, device=device)
            self.best_step = torch.zeros(len(seeds), device=device)

    @property
    def bound(self) -> float | None:
        """Of tanh actions; None where the outputs are linear."""
        return self.max_action if self.config.output == "tanh" else None

    def _cloning_loss(self, observations: Tensor, actions: Tensor) -> Tensor:
        outputs = self.actor(self.states(observations))
        return cloning.imitation_loss(outputs, actions, self.discrete, self.bound)

    def actor_loss(self, batch: Batch) -> Loss:
        """L, of the data's actions."""
        loss = self._cloning_loss(batch.observations, batch.actions)
        return loss, {"actor/loss": loss.detach()}

    def update(self, batch: Batch) -> Metrics:
        """One step of regression, or of classification."""
        loss, metrics = self.actor_loss(batch)
        step(self.actor_optimizer, loss)
        self.updates += 1
        return metrics

    def policy(self) -> StatelessPolicy:
        """The actor as the config's `checkpoint` says: the last, or the best on validation."""
        return StatelessPolicy(
            lambda o: cloning.acted(self.acting(self.states(o)), self.discrete, self.bound)
        )

    # --- Variants ---

    @torch.no_grad()
    def validate(self, batch: Batch) -> Metrics:
        """Keeps each replica's parameters where their validation error is the lowest so far."""
        observations = batch.observations.expand(len(self.best_error), -1, -1)
        actions = batch.actions.expand(len(observations), *batch.actions.shape[1:])
        error = self._cloning_loss(observations, actions)
        better = error < self.best_error
        self.best_error = torch.where(better, error, self.best_error)
        self.best_step = torch.where(better, float(self.updates), self.best_step)
        for best, current in zip(self.acting.parameters(), self.actor.parameters(), strict=True):
            best[better] = current[better]
        return {"validation/loss": error, "validation/best_step": self.best_step}
