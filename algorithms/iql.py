"""IQL: implicit Q-learning.

Kostrikov, Nair & Levine, "Offline Reinforcement Learning with Implicit Q-Learning", ICLR 2022,
arXiv 2110.06169. Reference code: ikostrikov/implicit_q_learning (JAX).

    L_V  = mean L2_tau(min_i Q_i'(s, a) - V(s)),  L2_tau(u) = |tau - 1(u < 0)| u^2      (eq. 5)
    L_pi = -mean w log pi(a|s),  w = min(exp(beta (min_i Q_i'(s, a) - V(s))), 100)      (eq. 7)
    L_Q  = sum_i mean (Q_i(s, a) - r - gamma (1 - termination) V(s'))^2                 (eq. 6)

in the order of the authors' code: V; the policy with the updated V; Q with the updated V; then
the target Q. The policy is a Gaussian with mean a_max tanh(f(s)) and a log standard deviation that
does not depend on the state; it acts by its mean. Every layer starts orthogonal with gain sqrt(2),
biases zero, and the actor's learning rate decays to 0 along a cosine.

Actions of the data are clipped to a_max (1 - 1e-5), as the authors do.

Known differences:
1. CORL evaluates V(s') and the advantage with V before its step, takes the mean of the two critics'
   losses, keeps torch's default initialisation and standardises observations (`normalize`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from offrl.batch import Batch, Transitions
from offrl.errors import InputError
from offrl.learner import Learner, Metrics, Spec, StatelessPolicy
from offrl.networks import MLP, Standardise, adam, polyak, step
from offrl.streams import Streams

LOG_STD_RANGE = (-5.0, 2.0)
MAX_WEIGHT = 100.0  # cap of the exponentiated advantage


@dataclass(frozen=True)
class IQLConfig:
    """Defaults of the paper for locomotion, but for the reward, which is the data set's own."""

    expectile: float = 0.7  # tau in the paper; 0.5 is the mean, towards 1 the maximum
    beta: float = 3.0  # inverse temperature; 0 is behaviour cloning
    gamma: float = 0.99  # discount per step
    tau: float = 0.005  # target update rate per gradient step
    actor_lr: float = 3e-4  # at the start of the cosine
    critic_lr: float = 3e-4
    value_lr: float = 3e-4
    reward: Literal["raw", "return range", "minus one"] = "raw"  # the last two: locomotion, antmaze
    normalize: bool = False  # standardise observations, as CORL does
    hidden: tuple[int, ...] = (256, 256)
    batch_size: int = 256


def expectile_loss(diff: Tensor, expectile: float) -> Tensor:
    """Asymmetric squared error of each replica, mean over its batch (eq. 5), shape (R,).

    Args:
        diff: target minus prediction, shape (R, B).
        expectile: weight of positive errors, in (0, 1).
    """
    weight = (expectile - (diff < 0).to(diff.dtype)).abs()
    return (weight * diff.square()).mean(-1)


def gaussian_log_prob(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of diagonal Gaussians, summed over action dimensions, shape (R, B)."""
    z = (actions - mean) * torch.exp(-log_std)
    return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def return_range(data: Transitions) -> float:
    """Largest minus smallest undiscounted return, trajectories split as in the authors' code.

    A trajectory ends at a termination, where the next observation is not the next row's, or at the
    last row.
    """
    jumps = np.abs(data.observations[1:] - data.next_observations[:-1]).max(1) > 1e-6
    ends = np.append(jumps | (data.terminations[:-1] > 0), True)
    starts = np.flatnonzero(np.append(True, ends[:-1]))
    returns = np.add.reduceat(data.rewards.astype(np.float64), starts)
    return float(returns.max() - returns.min())


class IQL(Learner):
    """IQL on the replica axis."""

    Config = IQLConfig
    paper = "Kostrikov, Nair & Levine 2022, arXiv 2110.06169"
    family = "in-sample value"

    def __init__(
        self,
        spec: Spec,
        config: IQLConfig,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.config = config
        self.max_action = spec.max_action
        self.steps = spec.steps
        self.standardise = Standardise(spec, device)

        q_sizes = (spec.observation_dim + spec.action_dim, *config.hidden, 1)
        v_sizes = (spec.observation_dim, *config.hidden, 1)
        actor_sizes = (spec.observation_dim, *config.hidden, spec.action_dim)
        self.critic, self.target_critic = (
            MLP(Streams(seeds, "critic", device), q_sizes, members=2, initialisation="orthogonal")
            for _ in range(2)
        )
        self.vf = MLP(Streams(seeds, "value", device), v_sizes, initialisation="orthogonal")
        self.actor = MLP(Streams(seeds, "actor", device), actor_sizes, initialisation="orthogonal")
        self.log_std = nn.Parameter(torch.zeros(len(seeds), 1, spec.action_dim, device=device))
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.value_optimizer = adam(self.vf.parameters(), config.value_lr)
        self.actor_optimizer = adam([*self.actor.parameters(), self.log_std], config.actor_lr)
        self.updates = 0

    @classmethod
    def prepare(cls, data: Transitions, config: IQLConfig) -> Transitions:
        """Rewards as the config says; nothing else changes."""
        rewards = data.rewards
        if config.reward == "return range":
            spread = return_range(data)
            if spread == 0:
                raise InputError(
                    "iql: reward = 'return range' divides by the spread of returns, which is 0 "
                    "in this data set; use reward = 'raw'"
                )
            rewards = rewards * np.float32(1000 / spread)
        elif config.reward == "minus one":
            rewards = rewards - 1
        return replace(data, rewards=rewards)

    def _states(self, observations: Tensor) -> Tensor:
        states: Tensor = self.standardise(observations) if self.config.normalize else observations
        return states

    def _mean(self, states: Tensor) -> Tensor:
        return self.max_action * torch.tanh(self.actor(states))

    def update(self, batch: Batch) -> Metrics:
        """One step each of the value, the policy and the critic."""
        config = self.config
        states = self._states(batch.observations)
        next_states = self._states(batch.next_observations)
        limit = self.max_action * (1 - 1e-5)
        actions = batch.actions.clamp(-limit, limit)
        states_actions = torch.cat([states, actions], -1)

        with torch.no_grad():
            target_q = self.target_critic(states_actions).squeeze(-1).amin(1)
        value = self.vf(states).squeeze(-1)
        value_loss = expectile_loss(target_q - value, config.expectile)
        step(self.value_optimizer, value_loss)

        with torch.no_grad():
            both = self.vf(torch.cat([states, next_states], 1)).squeeze(-1)
            value, next_value = both.chunk(2, 1)
            weight = torch.exp(config.beta * (target_q - value)).clamp(max=MAX_WEIGHT)
            backup = batch.rewards + config.gamma * (1 - batch.terminations) * next_value
        log_prob = gaussian_log_prob(
            actions, self._mean(states), self.log_std.clamp(*LOG_STD_RANGE)
        )
        actor_loss = -(weight * log_prob).mean(-1)
        decay = 0.5 * (1 + math.cos(math.pi * min(self.updates / self.steps, 1)))
        self.actor_optimizer.param_groups[0]["lr"] = config.actor_lr * decay
        step(self.actor_optimizer, actor_loss)

        q = self.critic(states_actions).squeeze(-1)
        critic_loss = (q - backup.unsqueeze(1)).square().mean(-1).sum(-1)
        step(self.critic_optimizer, critic_loss)
        polyak(self.target_critic, self.critic, config.tau)

        self.updates += 1
        return {
            "critic/loss": critic_loss.detach(),
            "critic/q": q.detach().mean((1, 2)),
            "value/loss": value_loss.detach(),
            "actor/loss": actor_loss.detach(),
        }

    def policy(self) -> StatelessPolicy:
        """The policy's mean: temperature 0, as the authors evaluate."""
        return StatelessPolicy(lambda observations: self._mean(self._states(observations)))
