"""ReBRAC: TD3+BC with a penalty in the critic too, deeper networks and layer normalisation.

Tarasov, Kurenkov, Nikulin & Kolesnikov, "Revisiting the Minimalist Approach to Offline
Reinforcement Learning", NeurIPS 2023, arXiv 2305.09836. Reference code: tinkoff-ai/ReBRAC (JAX),
which corl-team/CORL holds too.

Critic, every step, with a'_data the action that follows a in the data:
    a~ = clip(pi'(s') + clip(sigma eps, -c, c), -a_max, a_max),  eps ~ N(0, I)
    y  = r + gamma (1 - termination) (min_i Q_i'(s', a~) - beta_2 |a~ - a'_data|^2)
    L_Q = sum_i mean (Q_i(s, a) - y)^2
Actor, every second step:
    L_pi = mean (beta_1 |pi(s) - a|^2 - lambda min_i Q_i(s, pi(s))),
    lambda = 1 / mean |min_i Q_i(s, pi(s))|, which takes no gradient
    where |.|^2 is the sum over action dimensions (TD3+BC: their mean, and Q_1 alone).
Both targets move on the actor's steps only. Three hidden layers; the critic's are Linear, ReLU,
LayerNorm in this order, with flax's epsilon of 1e-6; the actor has no LayerNorm. Hidden weights
start U(-1/sqrt(fan_in), 1/sqrt(fan_in)) and biases 0.1; the last layer's U(-1e-3, 1e-3) in the
actor, U(-3e-3, 3e-3) in the critic.

What the code does and the paper does not say, done here as there:
- the first step is an actor's step, then every second;
- the target actor moves toward the actor as it was before the actor's step of this update (the code
  passes the old parameters), while the target critic moves toward the critic after its step.

Known differences:
1. The authors' count of steps starts anew every 1000, which changes nothing for a delay of 2 and
   would for one that does not divide 1000. Here it never starts anew.
2. The authors build a' by reading one row further in a D4RL file, and leave out its rows at
   timeouts and its last row. Here, on the view "transitions", `prepare` takes the next row's action
   and leaves out truncated rows and the last one: the same rows, where the file holds `timeouts`
   and `next_observations`. A successor is the one the file gives, where the authors take the next
   row's observation. Where the file lacks `next_observations`, the row before a timeout is left
   out too: the loader, which has no successor for the row at the timeout, has dropped that row and
   its action. That is one row fewer per episode that timed out; an unfinished episode at the end of
   such a file likewise loses one row more. Where the file lacks `timeouts`, the rows at the step
   limit are not always d4rl's, whose count of steps is off by one after a termination
   (`datasets/d4rl.py`).
3. optax computes Adam's 1 - 0.999^t in float32, which has lost 5 digits at t = 1; torch does so in
   float64. In float32 the losses of ten updates differ by up to 7e-6 of their size for that alone.
4. Options of the authors' code that all their settings leave alone are not offered: LayerNorm in
   the actor or none in the critic, and lambda = 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offrl.learning import (
    MLP,
    Batch,
    Count,
    Device,
    Finite,
    InputError,
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
class ReBRACConfig:
    """Defaults of the authors' code; they tune both coefficients for every data set.

    For antmaze they take actor_lr 3e-4, critic_lr 5e-5, gamma 0.999, batch 256 and rewards times
    100; for the other sets that are not locomotion, 3e-4 twice and batch 256.
    """

    actor_bc_coef: NonNegative = 1.0  # beta_1: weight of cloning in the actor
    critic_bc_coef: NonNegative = 1.0  # beta_2: weight of the penalty in the critic's target
    actor_lr: Positive = 1e-3
    critic_lr: Positive = 1e-3
    gamma: Share = 0.99  # discount per step
    tau: Share = 0.005  # target update rate per actor step
    policy_noise: NonNegative = 0.2  # sigma, in units of max_action
    noise_clip: NonNegative = 0.5  # c, in units of max_action
    policy_delay: Count = 2  # critic steps per actor step
    reward_scale: Finite = 1.0  # multiplies the data's rewards
    normalize: bool = False  # standardise observations
    actor_hidden: Widths = (256, 256, 256)
    critic_hidden: Widths = (256, 256, 256)
    batch_size: Count = 1024


def penalty(actions: Tensor, data_actions: Tensor) -> Tensor:
    """Squared distance between actions (R, B, action_dim), summed over dimensions, (R, B)."""
    return (actions - data_actions).square().sum(-1)


def backup(
    rewards: Tensor,
    continues: Tensor,
    next_q: Tensor,
    penalties: Tensor,
    gamma: Setting,
    coef: Setting,
) -> Tensor:
    """The critic's target y, shape (R, B).

    Args:
        rewards: shape (R, B).
        continues: 0 after a termination, else 1, shape (R, B).
        next_q: of all target critics, shape (R, N, B).
        penalties: of the target policy's actions, shape (R, B).
        gamma: discount per step.
        coef: beta_2.
    """
    return rewards + gamma * continues * (next_q.amin(1) - coef * penalties)


def policy_loss(q: Tensor, penalties: Tensor, coef: Setting) -> Tensor:
    """L_pi of each replica, shape (R,).

    Args:
        q: Q_i(s, pi(s)) of all critics, shape (R, N, B).
        penalties: of pi(s), shape (R, B).
        coef: beta_1.
    """
    least = q.amin(1)
    scale = 1 / least.detach().abs().mean(-1)
    cloning = penalties.mean(-1)
    return aligned(coef, cloning) * cloning - scale * least.mean(-1)


class ReBRAC(Learner):
    """ReBRAC on the replica axis."""

    Config = ReBRACConfig
    config: ReBRACConfig
    paper = "Tarasov, Kurenkov, Nikulin & Kolesnikov 2023, arXiv 2305.09836"
    family = "deterministic actor-critic"
    agreement = "tinkoff-ai/ReBRAC 694385b src/algorithms/rebrac.py"
    varying = frozenset(("actor_bc_coef", "critic_bc_coef", "actor_lr", "critic_lr")) | {
        *("gamma", "tau", "policy_noise", "noise_clip")
    }
    preparing = frozenset(("reward_scale",))
    view = "transitions"  # of a D4RL file; `prepare` leaves out what the authors do

    def __init__(self, spec: Spec, config: ReBRACConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        actor_sizes = (spec.observation_dim, *config.actor_hidden, spec.action_dim)
        critic_sizes = (spec.observation_dim + spec.action_dim, *config.critic_hidden, 1)
        self.actor, self.target_actor = (
            MLP(Streams(seeds, "actor", device), actor_sizes, initialisation="fan in", last=1e-3)
            for _ in range(2)
        )
        self.critic, self.target_critic = (
            MLP(
                Streams(seeds, "critic", device),
                critic_sizes,
                members=2,
                initialisation="fan in",
                last=3e-3,
                layer_norm=True,
            )
            for _ in range(2)
        )
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.noise = Streams(seeds, "policy noise", device)
        self.updates = 0
        self.last_actor_loss = torch.zeros(len(seeds), device=device)  # of its last step

    @classmethod
    def prepare(cls, data: Transitions, config: ReBRACConfig) -> Transitions:
        """Adds the next row's action, leaves out rows without one, and scales rewards.

        After a termination the next row is another episode's, and its action is never used.
        """
        known = data.truncations == 0
        known[-1] = False
        if not known.any():
            raise InputError(
                f"rebrac: none of the {len(known)} transitions has a next action, since each is "
                "truncated or the last; it needs episodes of two steps or more"
            )
        data = rewards.scaled(data, config.reward_scale)
        return replace(data, next_actions=np.roll(data.actions, -1, axis=0)).rows(known)

    def _act(self, actor: MLP, states: Tensor) -> Tensor:
        return self.max_action * torch.tanh(actor(states))

    @property
    def period(self) -> int:
        """The actor's steps come every `policy_delay` updates."""
        return self.config.policy_delay

    @torch.no_grad()
    def target_q(self, batch: Batch) -> Tensor:
        """The critics' target y, (R, B)."""
        config = self.config
        assert batch.next_actions is not None  # `prepare` made them
        next_states = self.states(batch.next_observations)
        next_actions = losses.smoothed(
            self._act(self.target_actor, next_states),
            self.noise.normal(*batch.actions.shape[1:])
            * aligned(config.policy_noise, batch.actions),
            config.noise_clip,
            self.max_action,
        )
        next_q = self.target_critic(torch.cat([next_states, next_actions], -1)).squeeze(-1)
        penalties = penalty(next_actions, batch.next_actions)
        continues = 1 - batch.terminations
        return backup(
            batch.rewards, continues, next_q, penalties, config.gamma, config.critic_bc_coef
        )

    def critic_loss(self, batch: Batch) -> Loss:
        """L_Q."""
        target_q = self.target_q(batch)
        states = self.states(batch.observations)
        q = self.critic(torch.cat([states, batch.actions], -1)).squeeze(-1)
        loss = losses.critic_loss(q, target_q)
        return loss, {"critic/loss": loss.detach(), "critic/q": q.detach().mean((1, 2))}

    def actor_loss(self, batch: Batch) -> Loss:
        """L_pi."""
        states = self.states(batch.observations)
        actions = self._act(self.actor, states)
        q = self.critic(torch.cat([states, actions], -1), frozen=True).squeeze(-1)
        penalties = penalty(actions, batch.actions)
        loss = policy_loss(q, penalties, self.config.actor_bc_coef)
        return loss, {"actor/loss": loss.detach()}

    def update(self, batch: Batch) -> Metrics:
        """One critic step and, first and then every `policy_delay` steps, one actor step."""
        # --- Critics ---
        loss, metrics = self.critic_loss(batch)
        step(self.critic_optimizer, loss)

        # --- Actor and targets ---
        if self.updates % self.config.policy_delay == 0:
            loss, actor_metrics = self.actor_loss(batch)
            polyak(self.target_actor, self.actor, self.config.tau)  # before the actor's step
            step(self.actor_optimizer, loss)
            polyak(self.target_critic, self.critic, self.config.tau)
            self.last_actor_loss.copy_(actor_metrics["actor/loss"])

        self.updates += 1
        return {**metrics, "actor/loss": self.last_actor_loss.clone()}

    def policy(self) -> StatelessPolicy:
        """The actor, which is deterministic."""
        return StatelessPolicy(
            lambda observations: self._act(self.actor, self.states(observations))
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned; `last_actor_loss` was once called `actor_loss`."""
        names = {"actor_loss": "last_actor_loss"}
        super().load_state_dict({names.get(name, name): value for name, value in state.items()})
