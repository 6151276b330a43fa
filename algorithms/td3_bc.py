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
    NonNegative,
    Positive,
    Seeds,
    Setting,
    Share,
    Spec,
    StatelessPolicy,
    Streams,
    Transitions,
    Widths,
    adam,
    aligned,
    losses,
    polyak,
    rewards,
    step,
)


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


def policy_loss(q: Tensor, policy_actions: Tensor, actions: Tensor, alpha: Setting) -> Tensor:
    """L_pi (eq. 5 and 6) of each replica, shape (R,).

    Args:
        q: Q_1(s, pi(s)), shape (R, B).
        policy_actions: pi(s), shape (R, B, action_dim).
        actions: of the data, shape (R, B, action_dim).
        alpha: weight of Q against cloning.
    """
    mean = q.mean(-1)
    scale = aligned(alpha, mean) / q.detach().abs().mean(-1)
    return -scale * mean + losses.cloning_loss(policy_actions, actions)


class TD3BC(Learner):
    """TD3+BC on the replica axis."""

    Config = TD3BCConfig
    config: TD3BCConfig
    paper = "Fujimoto & Gu 2021, arXiv 2106.06860"
    family = "deterministic actor-critic"
    agreement = "sfujim/TD3_BC 8791ad7, corl-team/CORL eeeeef2 td3_bc.py"
    varying = frozenset(
        ("alpha", "actor_lr", "critic_lr", "gamma", "tau", "policy_noise", "noise_clip")
    )
    preparing = frozenset(("reward",))

    def __init__(self, spec: Spec, config: TD3BCConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
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
        return data if config.reward == "raw" else rewards.shifted(data, -1)

    def _act(self, actor: MLP, observations: Tensor) -> Tensor:
        return self.max_action * torch.tanh(actor(self._for_actor(observations)))

    @property
    def period(self) -> int:
        """The actor's steps come every `policy_delay` updates."""
        return self.config.policy_delay

    @torch.no_grad()
    def target_q(self, batch: Batch) -> Tensor:
        """The critics' target y, (R, B)."""
        config = self.config
        next_actions = losses.smoothed(
            self._act(self.target_actor, batch.next_observations),
            self.noise.normal(*batch.actions.shape[1:])
            * aligned(config.policy_noise, batch.actions),
            config.noise_clip,
            self.max_action,
        )
        next_states = self._for_critic(batch.next_observations)
        next_q = self.target_critic(torch.cat([next_states, next_actions], -1)).squeeze(-1)
        return batch.rewards + config.gamma * (1 - batch.terminations) * next_q.amin(1)

    def critic_loss(self, batch: Batch) -> Loss:
        """L_Q."""
        target_q = self.target_q(batch)
        states = self._for_critic(batch.observations)
        q = self.critic(torch.cat([states, batch.actions], -1)).squeeze(-1)
        loss = losses.critic_loss(q, target_q)
        return loss, {"critic/loss": loss.detach(), "critic/q": q.detach().mean((1, 2))}

    def actor_loss(self, batch: Batch) -> Loss:
        """L_pi."""
        actions = self._act(self.actor, batch.observations)
        pairs = torch.cat([self._for_critic(batch.observations), actions], -1)
        q = self.critic(pairs, member=0, frozen=True).squeeze(-1)
        loss = policy_loss(q, actions, batch.actions, self.config.alpha)
        return loss, {"actor/loss": loss.detach()}

    def update(self, batch: Batch) -> Metrics:
        """One critic step and, every `policy_delay` steps, one actor step."""
        self.updates += 1

        # --- Critics ---
        loss, metrics = self.critic_loss(batch)
        step(self.critic_optimizer, loss)

        # --- Actor and targets ---
        if self.updates % self.config.policy_delay == 0:
            loss, actor_metrics = self.actor_loss(batch)
            step(self.actor_optimizer, loss)
            polyak(self.target_critic, self.critic, self.config.tau)
            polyak(self.target_actor, self.actor, self.config.tau)
            metrics = {**metrics, **actor_metrics}
        return metrics

    def policy(self) -> StatelessPolicy:
        """The actor, which is deterministic."""
        return StatelessPolicy(lambda observations: self._act(self.actor, observations))

    # --- Variants ---

    def _for_actor(self, observations: Tensor) -> Tensor:
        return observations if self.config.normalize == "none" else self.standardise(observations)

    def _for_critic(self, observations: Tensor) -> Tensor:
        return self.standardise(observations) if self.config.normalize == "all" else observations
