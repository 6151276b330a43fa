"""TD3+BC: TD3 with a behaviour-cloning term in the actor loss.

Fujimoto & Gu, "A Minimalist Approach to Offline Reinforcement Learning", NeurIPS 2021,
arXiv 2106.06860. Reference code: sfujim/TD3_BC; CORL `td3_bc.py`.

Critic, every step (TD3's clipped double Q with a smoothed target policy):
    a~ = clip(pi'(s') + clip(sigma eps, -c, c), -a_max, a_max),  eps ~ N(0, I)
    y  = r + gamma (1 - termination) min_i Q_i'(s', a~)
    L_Q = mean (Q_1(s, a) - y)^2 + mean (Q_2(s, a) - y)^2
Actor, every second step (eq. 5, with lambda of eq. 6):
    L_pi = -lambda mean Q_1(s, pi(s)) + mean (pi(s) - a)^2,  lambda = alpha / mean |Q_1(s, pi(s))|
    where lambda takes no gradient and the second mean runs over the batch and action dimensions.
Both targets move on the actor's steps only.

Known differences:
1. The authors keep the critics in one module, and CORL in two with an optimiser each; here they are
   the members of one ensemble. Adam is elementwise, so the updates are the same.
2. NeoRL-2's benchmark (offlinerl 0.0.2) has three hidden layers in the actor and standardises the
   observations of the actor alone: `actor_hidden`, `normalize = "actor"`. It also updates the
   actor on the first, third, ... step of every thousand, where the reference and this file take
   the second, fourth, ...
3. CORL subtracts 1 from antmaze's rewards: `reward = "minus one"`. The authors do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from offrl.data.transitions import Transitions
from offrl.learning.batch import Batch
from offrl.learning.fields import Count, NonNegative, Positive, Share, Widths
from offrl.learning.learner import Learner, Metrics
from offrl.learning.losses import critic_loss
from offrl.learning.networks import MLP, Standardise
from offrl.learning.optim import adam, polyak, step
from offrl.learning.policy import StatelessPolicy
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams


@dataclass(frozen=True)
class TD3BCConfig:
    """Defaults of the paper and its code."""

    alpha: NonNegative = 2.5  # weight of Q against cloning
    actor_lr: Positive = 3e-4
    critic_lr: Positive = 3e-4
    gamma: Share = 0.99  # discount per step
    tau: Share = 0.005  # target update rate per actor step
    policy_noise: NonNegative = 0.2  # sigma, in units of max_action
    noise_clip: NonNegative = 0.5  # c, in units of max_action
    policy_delay: Count = 2  # critic steps per actor step
    normalize: Literal["all", "actor", "none"] = "all"  # who sees standardised observations
    reward: Literal["raw", "minus one"] = "raw"  # the latter for antmaze
    actor_hidden: Widths = (256, 256)
    critic_hidden: Widths = (256, 256)
    batch_size: Count = 256


def actor_loss(q: Tensor, policy_actions: Tensor, actions: Tensor, alpha: float) -> Tensor:
    """TD3+BC's actor loss (eq. 5 and 6) of each replica, shape (R,).

    Args:
        q: Q_1(s, pi(s)), shape (R, B).
        policy_actions: pi(s), shape (R, B, action_dim).
        actions: of the data, shape (R, B, action_dim).
        alpha: weight of Q against cloning.
    """
    scale = alpha / q.detach().abs().mean(-1)
    cloning = (policy_actions - actions).square().mean((-2, -1))
    return -scale * q.mean(-1) + cloning


class TD3BC(Learner):
    """TD3+BC on the replica axis."""

    Config = TD3BCConfig
    paper = "Fujimoto & Gu 2021, arXiv 2106.06860"
    family = "deterministic actor-critic"
    agreement = "sfujim/TD3_BC 8791ad7, corl-team/CORL eeeeef2 td3_bc.py"

    def __init__(
        self,
        spec: Spec,
        config: TD3BCConfig,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.config = config
        self.max_action = spec.max_action
        self.standardise = Standardise(spec, device)

        actor_sizes = (spec.observation_dim, *config.actor_hidden, spec.action_dim)
        critic_sizes = (spec.observation_dim + spec.action_dim, *config.critic_hidden, 1)
        self.actor = MLP(Streams(seeds, "actor", device), actor_sizes)
        self.critic = MLP(Streams(seeds, "critic", device), critic_sizes, members=2)
        self.target_actor = MLP(Streams(seeds, "actor", device), actor_sizes)
        self.target_critic = MLP(Streams(seeds, "critic", device), critic_sizes, members=2)
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.noise = Streams(seeds, "policy noise", device)
        self.updates = 0

    @classmethod
    def prepare(cls, data: Transitions, config: TD3BCConfig) -> Transitions:
        """Rewards as the config says; nothing else changes."""
        return data if config.reward == "raw" else replace(data, rewards=data.rewards - 1)

    def _for_actor(self, observations: Tensor) -> Tensor:
        standardised: Tensor = self.standardise(observations)
        return observations if self.config.normalize == "none" else standardised

    def _for_critic(self, observations: Tensor) -> Tensor:
        standardised: Tensor = self.standardise(observations)
        return standardised if self.config.normalize == "all" else observations

    def _act(self, actor: MLP, observations: Tensor) -> Tensor:
        return self.max_action * torch.tanh(actor(self._for_actor(observations)))

    def update(self, batch: Batch) -> Metrics:
        """One critic step and, every `policy_delay` steps, one actor step."""
        config = self.config
        self.updates += 1

        with torch.no_grad():
            noise = self.noise.normal(*batch.actions.shape[1:]) * config.policy_noise
            noise = self.max_action * noise.clamp(-config.noise_clip, config.noise_clip)
            next_actions = self._act(self.target_actor, batch.next_observations) + noise
            next_actions = next_actions.clamp(-self.max_action, self.max_action)
            next_states = self._for_critic(batch.next_observations)
            next_q = self.target_critic(torch.cat([next_states, next_actions], -1)).squeeze(-1)
            continues = 1 - batch.terminations
            target_q = batch.rewards + config.gamma * continues * next_q.amin(1)

        states = self._for_critic(batch.observations)
        q = self.critic(torch.cat([states, batch.actions], -1)).squeeze(-1)
        loss = critic_loss(q, target_q)
        step(self.critic_optimizer, loss)
        metrics = {"critic/loss": loss.detach(), "critic/q": q.detach().mean((1, 2))}

        if self.updates % config.policy_delay == 0:
            policy_actions = self._act(self.actor, batch.observations)
            policy_q = self.critic(
                torch.cat([states, policy_actions], -1), member=0, frozen=True
            ).squeeze(-1)
            loss = actor_loss(policy_q, policy_actions, batch.actions, config.alpha)
            step(self.actor_optimizer, loss)
            metrics["actor/loss"] = loss.detach()
            polyak(self.target_critic, self.critic, config.tau)
            polyak(self.target_actor, self.actor, config.tau)
        return metrics

    def policy(self) -> StatelessPolicy:
        """The actor, which is deterministic."""
        return StatelessPolicy(lambda observations: self._act(self.actor, observations))
