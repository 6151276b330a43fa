"""Double DQN: Q-learning whose targets choose an action by one network and value it by another.

van Hasselt, Guez & Silver, "Deep Reinforcement Learning with Double Q-learning", AAAI 2016, arXiv
1509.06461. Reference code: d3rlpy `DoubleDQN`. Nothing in it is for offline data: it is the plain
value-based method that conservative ones are measured against, and may overrate what the data lack.

    y = r + gamma (1 - termination) Q'(s', argmax_a Q(s', a))                            (eq. 4)
    L = mean huber(Q(s, a) - y),  huber(u) = u^2 / 2 where |u| <= 1, else |u| - 1/2

with Q' a copy of Q, made anew every `target_interval` updates, the first time after as many. The
policy is argmax_a Q(s, a). Hidden layers have ReLU.

Known differences:
1. The paper learns online, from pixels, with RMSProp and clipped rewards. Defaults are d3rlpy's for
   vectors: Adam, two hidden layers of 256, raw observations and rewards.
2. d3rlpy counts from 0: it makes its copies after update 1, `target_interval` + 1, ...
3. d3rlpy initialises as torch does, as here; a target is copied bit for bit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offrl.learning import (
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
    Share,
    Spec,
    StatelessPolicy,
    Streams,
    Widths,
    adam,
    copy_every,
    losses,
    step,
    steps_made,
)


@dataclass(frozen=True)
class DoubleDQNConfig:
    """Defaults of d3rlpy."""

    critic_lr: Positive = 6.25e-5
    gamma: Share = 0.99  # discount per step
    target_interval: Count = 8000  # updates between copies to the target network
    normalize: bool = False  # standardise observations
    hidden: Widths = (256, 256)
    batch_size: Count = 32


def huber_loss(q: Tensor, target_q: Tensor) -> Tensor:
    """Mean Huber loss of each replica over its batch, for Q and target (R, B), shape (R,)."""
    return nn.functional.smooth_l1_loss(q, target_q, reduction="none").mean(-1)


class DoubleDQN(Learner):
    """Double DQN on the replica axis."""

    Config = DoubleDQNConfig
    config: DoubleDQNConfig
    paper = "van Hasselt, Guez & Silver 2016, arXiv 1509.06461"
    family = "value"
    actions = frozenset((DISCRETE,))
    period = 1
    varying = frozenset(("critic_lr", "gamma"))

    def __init__(self, spec: Spec, config: DoubleDQNConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        assert spec.action_count is not None
        sizes = (spec.observation_dim, *config.hidden, spec.action_count)
        self.critic, self.target_critic = (
            MLP(Streams(seeds, "critic", device), sizes) for _ in range(2)
        )
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.updates = 0

    @torch.no_grad()
    def target_q(self, batch: Batch) -> Tensor:
        """The target y, (R, B)."""
        next_states = self.states(batch.next_observations)
        best = self.critic(next_states).argmax(-1)
        next_q = losses.chosen(self.target_critic(next_states), best)
        return batch.rewards + self.config.gamma * (1 - batch.terminations) * next_q

    def critic_loss(self, batch: Batch) -> Loss:
        """L."""
        target_q = self.target_q(batch)
        q = losses.chosen(self.critic(self.states(batch.observations)), batch.actions)
        loss = huber_loss(q, target_q)
        return loss, {"critic/loss": loss.detach(), "critic/q": q.detach().mean(-1)}

    def update(self, batch: Batch) -> Metrics:
        """One step of the critic and, every `target_interval` updates, a copy to its target."""
        loss, metrics = self.critic_loss(batch)
        step(self.critic_optimizer, loss)
        self.updates += 1
        made = steps_made(self.critic_optimizer, self.updates)
        copy_every(self.target_critic, self.critic, self.config.target_interval, made)
        return metrics

    def policy(self) -> StatelessPolicy:
        """The action of the largest Q."""
        return StatelessPolicy(
            lambda observations: self.critic(self.states(observations)).argmax(-1)
        )
