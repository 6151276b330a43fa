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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.batch import Batch
from offrl.learning.fields import Count, Finite, NonNegative, Positive, Share, Widths
from offrl.learning.learner import Learner, Metrics
from offrl.learning.losses import critic_loss
from offrl.learning.networks import MLP, Standardise
from offrl.learning.optim import adam, polyak, step
from offrl.learning.policy import StatelessPolicy
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams


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
    rewards: Tensor, continues: Tensor, next_q: Tensor, penalties: Tensor, gamma: float, coef: float
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


def actor_loss(q: Tensor, penalties: Tensor, coef: float) -> Tensor:
    """The actor's loss of each replica, shape (R,).

    Args:
        q: Q_i(s, pi(s)) of all critics, shape (R, N, B).
        penalties: of pi(s), shape (R, B).
        coef: beta_1.
    """
    least = q.amin(1)
    scale = 1 / least.detach().abs().mean(-1)
    return coef * penalties.mean(-1) - scale * least.mean(-1)


class ReBRAC(Learner):
    """ReBRAC on the replica axis."""

    Config = ReBRACConfig
    paper = "Tarasov, Kurenkov, Nikulin & Kolesnikov 2023, arXiv 2305.09836"
    family = "deterministic actor-critic"
    agreement = "tinkoff-ai/ReBRAC 694385b src/algorithms/rebrac.py"
    view = "transitions"  # of a D4RL file; `prepare` leaves out what the authors do

    def __init__(
        self,
        spec: Spec,
        config: ReBRACConfig,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.config = config
        self.max_action = spec.max_action
        self.standardise = Standardise(spec, device)

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
        self.actor_loss = torch.zeros(len(seeds), device=device)  # of the actor's last step

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
        return replace(
            data,
            rewards=data.rewards * np.float32(config.reward_scale),
            next_actions=np.roll(data.actions, -1, axis=0),
        ).rows(known)

    def _states(self, observations: Tensor) -> Tensor:
        states: Tensor = self.standardise(observations) if self.config.normalize else observations
        return states

    def _act(self, actor: MLP, states: Tensor) -> Tensor:
        return self.max_action * torch.tanh(actor(states))

    def update(self, batch: Batch) -> Metrics:
        """One critic step and, first and then every `policy_delay` steps, one actor step."""
        config = self.config
        assert batch.next_actions is not None  # `prepare` made them
        states = self._states(batch.observations)
        next_states = self._states(batch.next_observations)

        with torch.no_grad():
            noise = self.noise.normal(*batch.actions.shape[1:]) * config.policy_noise
            noise = self.max_action * noise.clamp(-config.noise_clip, config.noise_clip)
            next_actions = self._act(self.target_actor, next_states) + noise
            next_actions = next_actions.clamp(-self.max_action, self.max_action)
            target_q = backup(
                batch.rewards,
                1 - batch.terminations,
                self.target_critic(torch.cat([next_states, next_actions], -1)).squeeze(-1),
                penalty(next_actions, batch.next_actions),
                config.gamma,
                config.critic_bc_coef,
            )
        q = self.critic(torch.cat([states, batch.actions], -1)).squeeze(-1)
        loss = critic_loss(q, target_q)
        step(self.critic_optimizer, loss)

        if self.updates % config.policy_delay == 0:
            policy_actions = self._act(self.actor, states)
            policy_q = self.critic(torch.cat([states, policy_actions], -1), frozen=True).squeeze(-1)
            penalties = penalty(policy_actions, batch.actions)
            policy_loss = actor_loss(policy_q, penalties, config.actor_bc_coef)
            polyak(self.target_actor, self.actor, config.tau)  # before the actor's step
            step(self.actor_optimizer, policy_loss)
            polyak(self.target_critic, self.critic, config.tau)
            self.actor_loss = policy_loss.detach()
        self.updates += 1
        return {
            "critic/loss": loss.detach(),
            "critic/q": q.detach().mean((1, 2)),
            "actor/loss": self.actor_loss,
        }

    def policy(self) -> StatelessPolicy:
        """The actor, which is deterministic."""
        return StatelessPolicy(
            lambda observations: self._act(self.actor, self._states(observations))
        )
