"""AWAC: advantage-weighted actor-critic.

Nair, Gupta, Dalal & Levine, "AWAC: Accelerating Online Reinforcement Learning with Offline
Datasets", 2020, arXiv 2006.09359. Reference code: the authors' rail-berkeley/rlkit
(rlkit/torch/sac/awac_trainer.py, examples/awac/mujoco/awac1.py) and corl-team/CORL
(algorithms/offline/awac.py), which differ.

A TD critic under the current policy, and a policy fitted to the data's actions by maximum
likelihood, weighted by their advantage.

    y    = r + gamma (1 - termination) min_i Q_i'(s', a'),  a' ~ pi(s')
    L_Q  = sum_i mean (Q_i(s, a) - y)^2
    A    = min_i Q_i(s, a) - min_i Q_i(s, a~),  a~ ~ pi(s), one sample
    L_pi = -mean w log pi(a|s),  w = exp(A / lambda), which takes no gradient

Both targets of Q then move by tau. The policy is a diagonal Gaussian, not squashed, whose log
standard deviation does not depend on the state; it acts by its mean.

The default is CORL's, whose scores benchmark tables quote. The authors' form is chosen by name:
1. `weights`: CORL takes min(exp(A / lambda), 100); the authors B times a softmax of A / lambda over
   the batch ("softmax"), as their losses' mean is over the batch: the weights' mean is 1.
2. `mean`: CORL's network output is the mean itself, which may leave the actions' bounds and is not
   clipped in evaluation; the authors' passes through tanh.
3. `log_std`: CORL clamps its parameter to [-20, 2]; the authors squash theirs to (-6, 0) as
   -6 + 6 sigmoid(z). Both start at z = 0, a standard deviation of 1 and of exp(-3).
4. `clip_samples`: CORL clips sampled actions to their bounds, the authors do not.
5. `advantage`: CORL measures A by the critics after their step ("after"), the authors by those
   before it.
6. `initialisation`: CORL keeps torch's; rlkit's ("rlkit") has weights U(-1/sqrt(fan_out),
   1/sqrt(fan_out)), in the last layer U(-1e-3, 1e-3) for the policy and U(-3e-3, 3e-3) for Q,
   biases 0, and target critics whose weights are drawn independently of the critics'.
7. The authors' settings for MuJoCo: temperature 2, weight_decay 1e-4, normalize False, actor_hidden
   four times 256, critic_hidden twice 256, batch_size 128 (1024 online). CORL's for all but
   locomotion: temperature 0.1, and reward "minus one" on antmaze.

Known differences:
1. The authors hold a tenth of their data out of training, for validation; here all of it is used.
   They go on online after these offline steps; here, training ends with them.
2. The authors' settings for the tasks of the dexterous hand (value at the policy's mean, advantage
   at most 0.5, Q at most 0, no terminations) are not offered.
3. With the authors' settings, whose alpha is 0, their target subtracts 0 times a log density of
   another shape, which broadcasts it to a (B, B) matrix of equal columns. Losses and gradients are
   the same; here is no such matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

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
    losses,
    polyak,
    rewards,
    step,
)

LOG_STD_CLAMP = (-20.0, 2.0)
LOG_STD_SIGMOID = (-6.0, 0.0)
MAX_WEIGHT = 100.0  # cap of the exponentiated advantage


@dataclass(frozen=True)
class AWACConfig:
    """Defaults of CORL for locomotion."""

    temperature: Positive = 0.3333  # lambda in the paper, beta in rlkit; towards infinity: cloning
    weights: Literal["exp", "softmax"] = "exp"  # the authors: softmax
    mean: Literal["linear", "tanh"] = "linear"  # the authors: tanh
    log_std: Literal["clamp", "sigmoid"] = "clamp"  # the authors: sigmoid
    clip_samples: bool = True  # sampled actions to their bounds; the authors: False
    advantage: Literal["after", "before"] = "after"  # the critics' step; the authors: before
    initialisation: Literal["torch", "rlkit"] = "torch"  # the authors: rlkit
    actor_lr: Positive = 3e-4
    critic_lr: Positive = 3e-4
    weight_decay: NonNegative = 0.0  # of the policy, added to its gradient; the authors: 1e-4
    gamma: Share = 0.99  # discount per step
    tau: Share = 0.005  # target update rate per gradient step
    reward: Literal["raw", "minus one"] = "raw"  # the latter for antmaze
    normalize: bool = True  # standardise observations; the authors: False
    actor_hidden: Widths = (256, 256, 256)
    critic_hidden: Widths = (256, 256, 256)
    batch_size: Count = 256


def exponential_weights(advantages: Tensor, temperature: Setting) -> Tensor:
    """exp(A / temperature), at most 100, shape (R, B)."""
    return torch.exp(advantages / temperature).clamp(max=MAX_WEIGHT)


def softmax_weights(advantages: Tensor, temperature: Setting) -> Tensor:
    """The same normalised to a mean of 1 over the batch, without a cap, shape (R, B)."""
    return advantages.shape[-1] * torch.softmax(advantages / temperature, -1)


class AWAC(Learner):
    """AWAC on the replica axis."""

    Config = AWACConfig
    config: AWACConfig
    paper = "Nair, Gupta, Dalal & Levine 2020, arXiv 2006.09359"
    family = "advantage-weighted actor-critic"
    agreement = "corl-team/CORL eeeeef2 awac.py; rail-berkeley/rlkit ac45a9d awac_trainer.py"
    period = 1
    varying = frozenset(("temperature", "actor_lr", "critic_lr", "weight_decay", "gamma", "tau"))
    preparing = frozenset(("reward",))

    def __init__(self, spec: Spec, config: AWACConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)

        def network(purpose: str, sizes: Sequence[int], members: int | None, last: float) -> MLP:
            streams = Streams(seeds, purpose, device)
            if config.initialisation == "rlkit":
                return rlkit_network(streams, sizes, members, last)
            return MLP(streams, sizes, members=members)

        actor_sizes = (spec.observation_dim, *config.actor_hidden, spec.action_dim)
        critic_sizes = (spec.observation_dim + spec.action_dim, *config.critic_hidden, 1)
        self.actor = network("actor", actor_sizes, None, 1e-3)
        self.critic = network("critic", critic_sizes, 2, 3e-3)
        own = "critic" if config.initialisation == "torch" else "target critic"
        self.target_critic = network(own, critic_sizes, 2, 3e-3)
        self.log_std = nn.Parameter(torch.zeros(len(seeds), 1, spec.action_dim, device=device))
        policy = [*self.actor.parameters(), self.log_std]
        self.actor_optimizer = adam(policy, config.actor_lr, config.weight_decay)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.noise = Streams(seeds, "policy noise", device)
        self.target_noise = Streams(seeds, "target policy noise", device)

    @classmethod
    def prepare(cls, data: Transitions, config: AWACConfig) -> Transitions:
        """Rewards as the config says; nothing else changes."""
        return data if config.reward == "raw" else rewards.shifted(data, -1)

    def _sample(self, mean: Tensor, noise: Streams) -> Tensor:
        actions = mean + self._log_std().exp() * noise.normal(*mean.shape[1:])
        if self.config.clip_samples:
            actions = actions.clamp(-self.max_action, self.max_action)
        return actions

    @torch.no_grad()
    def target_q(self, batch: Batch) -> Tensor:
        """The critics' target y, (R, B)."""
        next_states = self.states(batch.next_observations)
        next_actions = self._sample(self._mean(next_states), self.target_noise)
        next_q = self.target_critic(torch.cat([next_states, next_actions], -1)).squeeze(-1)
        return batch.rewards + self.config.gamma * (1 - batch.terminations) * next_q.amin(1)

    @torch.no_grad()
    def advantage(self, states: Tensor, actions: Tensor, mean: Tensor) -> Tensor:
        """A, (R, B), by the critics as they are now."""
        both = torch.cat([actions, self._sample(mean, self.noise)], 1)
        pairs = torch.cat([torch.cat([states, states], 1), both], -1)
        data_q, value = self.critic(pairs).squeeze(-1).amin(1).chunk(2, -1)
        return data_q - value

    def critic_loss(self, states: Tensor, batch: Batch) -> Loss:
        """L_Q."""
        target_q = self.target_q(batch)
        q = self.critic(torch.cat([states, batch.actions], -1)).squeeze(-1)
        loss = losses.critic_loss(q, target_q)
        return loss, {"critic/loss": loss.detach(), "critic/q": q.detach().mean((1, 2))}

    def actor_loss(self, actions: Tensor, mean: Tensor, advantage: Tensor) -> Loss:
        """L_pi, for the data's actions and the policy's mean (R, B, action_dim)."""
        weigh = exponential_weights if self.config.weights == "exp" else softmax_weights
        weights = weigh(advantage, self.config.temperature)
        loss = -(weights * losses.gaussian_log_prob(actions, mean, self._log_std())).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/advantage": advantage.mean(-1)}

    def update(self, batch: Batch) -> Metrics:
        """One step of the critics, then one of the policy."""
        states = self.states(batch.observations)
        mean = self._mean(states)
        if self.config.advantage == "before":
            advantage = self.advantage(states, batch.actions, mean)

        # --- Critics ---
        loss, critic_metrics = self.critic_loss(states, batch)
        step(self.critic_optimizer, loss)

        # --- Policy ---
        if self.config.advantage == "after":
            advantage = self.advantage(states, batch.actions, mean)
        loss, actor_metrics = self.actor_loss(batch.actions, mean, advantage)
        step(self.actor_optimizer, loss)

        # --- Targets ---
        polyak(self.target_critic, self.critic, self.config.tau)
        return {**critic_metrics, **actor_metrics}

    def policy(self) -> StatelessPolicy:
        """The Gaussian's mean, as both codes evaluate."""
        return StatelessPolicy(lambda observations: self._mean(self.states(observations)))

    # --- Variants ---

    def _mean(self, states: Tensor) -> Tensor:
        mean = self.actor(states)
        return self.max_action * torch.tanh(mean) if self.config.mean == "tanh" else mean

    def _log_std(self) -> Tensor:
        if self.config.log_std == "clamp":
            return self.log_std.clamp(*LOG_STD_CLAMP)
        low, high = LOG_STD_SIGMOID
        return low + (high - low) * torch.sigmoid(self.log_std)


def rlkit_network(streams: Streams, sizes: Sequence[int], members: int | None, last: float) -> MLP:
    """A network as rlkit starts it for this algorithm: as for others, but with biases of 0."""
    mlp = MLP(streams, sizes, members=members, initialisation="fan out", last=last)
    for bias in mlp.biases:
        nn.init.zeros_(bias)
    return mlp
