"""SAC-N: soft actor-critic with the minimum over N critics.

An, Moon, Kim & Song, "Uncertainty-Based Offline Reinforcement Learning with Diversified
Q-Ensemble", NeurIPS 2021, arXiv 2110.01548. Reference code: snu-mllab/EDAC with eta < 0
(lifelong_rl/trainers/q_learning/sac.py); CORL's sac_n.py.

The minimum over many critics is low where they disagree, which is away from the data: a pessimism
that needs neither a model of the behaviour policy nor a weight. With a~ ~ pi(s), a'~ ~ pi(s'):

    L_alpha = -mean log(alpha) (log pi(a~|s) + H_t),  H_t = -action_dim
    L_pi    = mean (alpha log pi(a~|s) - min_i Q_i(s, a~))
    y       = r + gamma (1 - termination) (min_i Q_i'(s', a'~) - alpha log pi(a'~|s'))
    L_Q     = sum_i mean (Q_i(s, a) - y)^2

The targets of Q then move by tau. The policy is a Gaussian through tanh with a log standard
deviation in [-5, 2]; it acts by its mean. Neither the authors nor CORL standardise observations.

Known differences. The defaults are the authors'; CORL's algorithm is `order = "corl"`,
`targets = "copy"`, `initialisation = "corl"`.
1. `order`: the authors' code builds all three losses before it steps alpha, the policy and the
   critics. CORL (sac_n.py) steps alpha; then the policy, with actions drawn anew and that alpha;
   then the critics, whose targets use the new policy and alpha.
2. `targets`: the authors' code draws the target critics' initial weights independently of the
   critics', and they approach one another by tau alone. CORL copies them.
3. `initialisation`: hidden layers have biases of 0.1 and weights from U(-1/sqrt(n), 1/sqrt(n)). In
   the authors' code n is a layer's inputs in the critics and its outputs in the policy, since one
   function reads matrices that are stored transposed to one another; in CORL it is the other way
   round, for a like reason. In the first layer, of 23 inputs and 256 outputs for halfcheetah, that
   is a factor of 3.3. Last layers are alike: weights and biases within 3e-3 for the critics, 1e-3
   for the policy.
4. Both add 1e-6 to 1 - tanh(u)^2 in log densities, and so does this file, though the change of
   variables has no such term. It bounds the density of saturated actions. Theirs cancels digits in
   float32; here it is computed from u.
5. `max_q_backup`, which the authors' code has and CORL has not: the value of s' is the minimum over
   the critics, not over their targets, of each one's largest Q among 10 actions of the policy; no
   entropy is added. The authors use it for pen-cloned.
6. `reward`: on Adroit the authors standardise rewards, and CORL does not. CORL's own reward options
   are off in all its settings of this algorithm and are not offered.
7. The authors' `--deterministic_backup`, which leaves out the entropy and keeps alpha at 1, is in
   none of their published commands and is not offered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.batch import Batch
from offrl.learning.fields import Count, Positive, Share, Widths
from offrl.learning.learner import Learner, Metrics
from offrl.learning.losses import alpha_loss, critic_loss, soft_actor_loss
from offrl.learning.networks import MLP, SquashedGaussian
from offrl.learning.optim import adam, polyak, step
from offrl.learning.policy import StatelessPolicy
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams

LOG_STD_RANGE = (-5.0, 2.0)
DENSITY_EPSILON = 1e-6  # added to 1 - tanh(u)^2 in log densities
MAX_Q_SAMPLES = 10  # actions that `max_q_backup` takes the largest Q of

# Which of a layer's widths bounds its weights, in the policy and in the critics.
FANS: dict[str, tuple[str, str]] = {
    "authors": ("fan out", "fan in"),
    "corl": ("fan in", "fan out"),
}


@dataclass(frozen=True)
class SACNConfig:
    """Defaults of the authors' code; CORL's for halfcheetah but for the three named choices."""

    num_critics: Count = 10  # N; hopper needs 200 to 500, walker2d 20
    actor_lr: Positive = 3e-4  # of the policy and of alpha; the authors take 3e-5 on Adroit
    critic_lr: Positive = 3e-4
    gamma: Share = 0.99  # discount per step
    tau: Share = 0.005  # target update rate per gradient step
    order: Literal["authors", "corl"] = "authors"  # of the updates
    targets: Literal["independent", "copy"] = "independent"  # how target critics start
    initialisation: Literal["authors", "corl"] = "authors"
    max_q_backup: bool = False  # the authors' for pen-cloned
    reward: Literal["raw", "standardised"] = "raw"  # the latter the authors' for Adroit
    actor_hidden: Widths = (256, 256, 256)
    critic_hidden: Widths = (256, 256, 256)
    batch_size: Count = 256


class SACN(Learner):
    """SAC-N on the replica axis."""

    Config = SACNConfig
    paper = "An, Moon, Kim & Song 2021, arXiv 2110.01548"
    family = "critic ensemble"
    agreement = "snu-mllab/EDAC 198d570 sac.py; corl-team/CORL eeeeef2 sac_n.py"

    def __init__(
        self,
        spec: Spec,
        config: SACNConfig,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.config = config
        actor_sizes = (spec.observation_dim, *config.actor_hidden, 2 * spec.action_dim)
        critic_sizes = (spec.observation_dim + spec.action_dim, *config.critic_hidden, 1)
        actor_fan, critic_fan = FANS[config.initialisation]

        mlp = MLP(Streams(seeds, "actor", device), actor_sizes, initialisation=actor_fan, last=1e-3)
        self.actor = SquashedGaussian(mlp, spec.max_action, LOG_STD_RANGE, DENSITY_EPSILON)
        own = "critic" if config.targets == "copy" else "target critic"
        self.critic, self.target_critic = (
            MLP(
                Streams(seeds, purpose, device),
                critic_sizes,
                members=config.num_critics,
                initialisation=critic_fan,
                last=3e-3,
            )
            for purpose in ("critic", own)
        )
        self.log_alpha = nn.Parameter(torch.zeros(len(seeds), 1, device=device))
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        self.alpha_optimizer = adam([self.log_alpha], config.actor_lr)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.noise = Streams(seeds, "policy noise", device)
        self.next_noise = Streams(seeds, "next policy noise", device)

    @classmethod
    def prepare(cls, data: Transitions, config: SACNConfig) -> Transitions:
        """Rewards as the config says; nothing else changes."""
        if config.reward == "raw":
            return data
        mean, std = data.rewards.mean(dtype=np.float64), data.rewards.std(dtype=np.float64)
        if std == 0:
            raise InputError(
                "sac_n: reward = 'standardised' divides by the rewards' standard deviation, which "
                "is 0 in this data set; use reward = 'raw'"
            )
        return replace(data, rewards=((data.rewards - mean) / std).astype(np.float32))

    @torch.no_grad()
    def _target_q(self, batch: Batch, alpha: Tensor) -> Tensor:
        states, (size, action_dim) = batch.next_observations, batch.actions.shape[1:]
        if self.config.max_q_backup:
            noise = self.next_noise.normal(MAX_Q_SAMPLES, size, action_dim)
            actions, _ = self.actor.sample(states, noise)
            repeated = states.unsqueeze(1).expand(-1, MAX_Q_SAMPLES, -1, -1)
            q = self.critic(torch.cat([repeated, actions], -1).flatten(1, 2)).squeeze(-1)
            value: Tensor = q.unflatten(2, (MAX_Q_SAMPLES, size)).amax(2).amin(1)
        else:
            noise = self.next_noise.normal(size, action_dim)
            actions, log_prob = self.actor.sample(states, noise)
            q = self.target_critic(torch.cat([states, actions], -1)).squeeze(-1)
            value = q.amin(1) - alpha * log_prob
        return batch.rewards + self.config.gamma * (1 - batch.terminations) * value

    def update(self, batch: Batch) -> Metrics:
        """One step each of alpha, the policy and the critics, then of the target critics."""
        config, states = self.config, batch.observations
        size, action_dim = batch.actions.shape[1:]
        alpha = self.log_alpha.detach().exp()
        if config.order == "authors":
            target_q = self._target_q(batch, alpha)

        # One sample serves alpha and the policy; CORL's policy has its own, the last.
        noise = self.noise.normal(1 if config.order == "authors" else 2, size, action_dim)
        actions, log_prob = self.actor.sample(states, noise)
        loss = alpha_loss(self.log_alpha, log_prob[:, 0], -action_dim)
        step(self.alpha_optimizer, loss)
        new_alpha = self.log_alpha.detach().exp()
        metrics = {"alpha/loss": loss.detach(), "alpha/value": new_alpha[:, 0]}

        q = self.critic(torch.cat([states, actions[:, -1]], -1), frozen=True).squeeze(-1)
        disagreement = q.detach().std(1, correction=0).mean(-1)
        loss = soft_actor_loss(q, log_prob[:, -1], new_alpha if config.order == "corl" else alpha)
        step(self.actor_optimizer, loss)
        metrics |= {
            "actor/loss": loss.detach(),
            "actor/entropy": -log_prob[:, -1].detach().mean(-1),
            "critic/disagreement": disagreement,  # standard deviation, at the policy's actions
        }

        if config.order == "corl":
            target_q = self._target_q(batch, new_alpha)
        q = self.critic(torch.cat([states, batch.actions], -1)).squeeze(-1)
        loss = critic_loss(q, target_q)
        step(self.critic_optimizer, loss)
        polyak(self.target_critic, self.critic, config.tau)
        return metrics | {"critic/loss": loss.detach(), "critic/q": q.detach().mean((1, 2))}

    def policy(self) -> StatelessPolicy:
        """The tanh of the policy's mean, as the authors and CORL evaluate."""
        return StatelessPolicy(self.actor.mode)
