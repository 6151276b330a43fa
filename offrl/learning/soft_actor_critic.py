"""A soft actor-critic with the minimum over N critics, for the algorithms that build on it.

    L_alpha = -mean log(alpha) (log pi(a~|s) + H_t),  H_t = -action_dim
    L_pi    = mean (alpha log pi(a~|s) - min_i Q_i(s, a~))
    y       = r + gamma (1 - termination) (min_i Q_i'(s', a'~) - alpha log pi(a'~|s'))
    L_Q     = sum_i mean (Q_i(s, a) - y)^2

with a~ ~ pi(s) and a'~ ~ pi(s'). The policy is a Gaussian through tanh; it acts by its mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from offrl.data.transitions import Transitions
from offrl.learning import losses, rewards
from offrl.learning.batch import Batch
from offrl.learning.learner import Learner, Loss, Metrics
from offrl.learning.networks import MLP, SquashedGaussian
from offrl.learning.optim import adam, polyak, step
from offrl.learning.policy import StatelessPolicy
from offrl.learning.spec import Device, Seeds, Spec
from offrl.learning.streams import Streams

LOG_STD_RANGE = (-5.0, 2.0)
DENSITY_EPSILON = 1e-6  # added to 1 - tanh(u)^2 in log densities
CRITIC_LAST = 3e-3  # bound of the critics' first output weights
MAX_Q_SAMPLES = 10  # actions that `max_q_backup` takes the largest Q of


@dataclass(frozen=True)
class Order:
    """How the steps of one update follow from one another; alpha's is always the first."""

    targets_first: bool  # the critics' targets have the policy and the alpha of before the update
    own_sample: bool  # the policy's loss has actions of its own, and the alpha just stepped


AT_ONCE = Order(targets_first=True, own_sample=False)  # all losses are built before any step
IN_TURN = Order(targets_first=False, own_sample=True)


@dataclass(frozen=True)
class Start:
    """How networks start: keys of INITIALISERS."""

    actor: str
    actor_last: float | None  # bound of the policy's output layer, where it differs
    critic: str  # of hidden layers


# Which of a layer's widths bounds its weights, in the policy and in the critics.
FAN_OUT = Start("fan out", 1e-3, "fan in")
FAN_IN = Start("fan in", 1e-3, "fan out")


def soft_policy(mlp: MLP, max_action: float) -> SquashedGaussian:
    """A Gaussian through tanh with bounds on its spread and on its densities."""
    return SquashedGaussian(mlp, max_action, LOG_STD_RANGE, DENSITY_EPSILON)


class Tempered(Learner):
    """A learner whose temperature alpha is tuned towards an entropy of -action_dim.

    Its config has `actor_lr`, of alpha too.
    """

    not_restored = Learner.not_restored | {"target_entropy"}

    def __init__(self, spec: Spec, config: Any, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        self.target_entropy = -spec.action_dim
        self.log_alpha = nn.Parameter(torch.zeros(len(seeds), 1, device=device))
        self.alpha_optimizer = adam([self.log_alpha], config.actor_lr)

    def alpha(self) -> Tensor:
        """The temperature as it is now, (R, 1), without a gradient."""
        alpha: Tensor = self.log_alpha.detach().exp()
        return alpha

    def alpha_loss(self, log_prob: Tensor) -> Loss:
        """L_alpha, for log densities (R, B) of the policy's actions."""
        loss = losses.alpha_loss(self.log_alpha, log_prob, self.target_entropy)
        return loss, {"alpha/loss": loss.detach()}


class SoftActorCritic(Tempered):
    """The networks, losses, target and update of the above.

    A subclass names its orders and starts by the values of its config's `order` and
    `initialisation`. The config has further `num_critics`, `actor_hidden`, `critic_hidden`,
    `actor_lr` (of the policy and of alpha), `critic_lr`, `gamma`, `tau`, `max_q_backup`, `targets`
    ("copy", or target critics are drawn on their own) and `reward` ("raw" or "standardised").
    """

    period = 1
    orders: ClassVar[Mapping[str, Order]]
    starts: ClassVar[Mapping[str, Start]]

    def __init__(self, spec: Spec, config: Any, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        start = self.starts[config.initialisation]
        actor_sizes = (spec.observation_dim, *config.actor_hidden, 2 * spec.action_dim)
        critic_sizes = (spec.observation_dim + spec.action_dim, *config.critic_hidden, 1)

        def critics(purpose: str) -> MLP:
            return MLP(
                Streams(seeds, purpose, device),
                critic_sizes,
                members=config.num_critics,
                initialisation=start.critic,
                last=CRITIC_LAST,
            )

        streams = Streams(seeds, "actor", device)
        mlp = MLP(streams, actor_sizes, initialisation=start.actor, last=start.actor_last)
        self.actor = soft_policy(mlp, spec.max_action)
        self.critic = critics("critic")
        self.target_critic = critics("critic" if config.targets == "copy" else "target critic")
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.noise = Streams(seeds, "policy noise", device)
        self.next_noise = Streams(seeds, "next policy noise", device)

    @classmethod
    def prepare(cls, data: Transitions, config: Any) -> Transitions:
        """Rewards as the config says; nothing else changes."""
        if config.reward == "raw":
            return data
        name = cls.__module__.rpartition(".")[2]
        return rewards.standardised(data, f"{name}: reward = {config.reward!r}")

    def update(self, batch: Batch) -> Metrics:
        """One step each of alpha, the policy and the critics, then of the target critics."""
        order, alpha = self.orders[self.config.order], self.alpha()
        if order.targets_first:
            target_q = self.target_q(batch, alpha)
        # One sample serves alpha and the policy, unless the policy has its own, the last.
        actions, log_prob = self.sample(batch, 2 if order.own_sample else 1)

        # --- Alpha ---
        loss, alpha_metrics = self.alpha_loss(log_prob[:, 0])
        step(self.alpha_optimizer, loss)
        new_alpha = self.alpha()

        # --- Policy ---
        weight = new_alpha if order.own_sample else alpha
        loss, actor_metrics = self.actor_loss(
            batch.observations, actions[:, -1], log_prob[:, -1], weight
        )
        step(self.actor_optimizer, loss)

        # --- Critics ---
        if not order.targets_first:
            target_q = self.target_q(batch, new_alpha)
        loss, critic_metrics = self.critic_loss(batch, target_q)
        step(self.critic_optimizer, loss)
        polyak(self.target_critic, self.critic, self.config.tau)
        metrics = {**alpha_metrics, **actor_metrics, **critic_metrics}
        return {**metrics, "alpha/value": new_alpha[:, 0]}

    def sample(self, batch: Batch, count: int) -> tuple[Tensor, Tensor]:
        """Actions (R, count, B, action_dim) of the policy at s, and their log densities."""
        noise = self.noise.normal(count, *batch.actions.shape[1:])
        return self.actor.sample(batch.observations, noise)

    @torch.no_grad()
    def target_q(self, batch: Batch, alpha: Tensor) -> Tensor:
        """The critics' target y, (R, B)."""
        gamma: float = self.config.gamma
        if self.config.max_q_backup:
            value = self.max_q(batch)
        else:
            states = batch.next_observations
            noise = self.next_noise.normal(*batch.actions.shape[1:])
            actions, log_prob = self.actor.sample(states, noise)
            q = self.target_critic(torch.cat([states, actions], -1)).squeeze(-1)
            value = q.amin(1) - alpha * log_prob
        return batch.rewards + gamma * (1 - batch.terminations) * value

    def actor_loss(self, states: Tensor, actions: Tensor, log_prob: Tensor, alpha: Tensor) -> Loss:
        """L_pi, for the policy's actions (R, B, action_dim) and their log densities (R, B)."""
        q = self.critic(torch.cat([states, actions], -1), frozen=True).squeeze(-1)
        loss = losses.soft_actor_loss(q, log_prob, alpha)
        return loss, {
            "actor/loss": loss.detach(),
            "actor/entropy": -log_prob.detach().mean(-1),
            "critic/disagreement": q.detach().std(1, correction=0).mean(-1),  # at these actions
        }

    def critic_loss(self, batch: Batch, target_q: Tensor) -> Loss:
        """L_Q, for targets (R, B)."""
        q = self.critic(torch.cat([batch.observations, batch.actions], -1)).squeeze(-1)
        loss = losses.critic_loss(q, target_q)
        return loss, {"critic/loss": loss.detach(), "critic/q": q.detach().mean((1, 2))}

    def policy(self) -> StatelessPolicy:
        """The tanh of the policy's mean."""
        return StatelessPolicy(self.actor.mode)

    # --- Variants ---

    def max_q(self, batch: Batch) -> Tensor:
        """The value of s' by `max_q_backup`, (R, B).

        It is the minimum over the critics, not over their targets, of each one's largest Q among
        10 actions of the policy; no entropy is added.
        """
        states, (size, action_dim) = batch.next_observations, batch.actions.shape[1:]
        actions, _ = self.actor.sample(
            states, self.next_noise.normal(MAX_Q_SAMPLES, size, action_dim)
        )
        repeated = states.unsqueeze(1).expand(-1, MAX_Q_SAMPLES, -1, -1)
        q = self.critic(torch.cat([repeated, actions], -1).flatten(1, 2)).squeeze(-1)
        return q.view(*q.shape[:2], MAX_Q_SAMPLES, size).amax(2).amin(1)
