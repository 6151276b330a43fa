"""IQL: implicit Q-learning.

Kostrikov, Nair & Levine, "Offline Reinforcement Learning with Implicit Q-Learning", ICLR 2022,
arXiv 2110.06169. Reference code: ikostrikov/implicit_q_learning (JAX); CORL `iql.py`, which follows
gwthomas/IQL-PyTorch.

V is an upper expectile of Q over the data's actions, Q is backed up through V, and the policy is
fitted to the data's actions by their advantage: no loss needs an action outside the data.

    L_V  = mean L2_tau(min_i Q_i'(s, a) - V(s)),  L2_tau(u) = |tau - 1(u < 0)| u^2      (eq. 5)
    L_pi = -mean w log pi(a|s),  w = min(exp(beta (min_i Q_i'(s, a) - V(s))), 100)      (eq. 7)
    L_Q  = sum_i mean (Q_i(s, a) - r - gamma (1 - termination) V(s'))^2                 (eq. 6)

in the order of the authors' code: V; the policy with the updated V; Q with the updated V; then
the target Q. The policy is a Gaussian with mean a_max tanh(f(s)) and a log standard deviation that
does not depend on the state; it acts by its mean. The actor's learning rate decays to 0 along a
cosine.

Known differences, where the defaults are the authors' and `order = "corl"`, `critic_loss = "mean"`,
`initialisation = "torch"`, `log_std_range = (-20.0, 2.0)`, `clip_actions = false` and
`normalize = true` together are CORL's:
1. `order`: CORL takes V(s') and the advantage from V before its step, the authors after.
2. `critic_loss`: CORL halves the sum of the two critics' losses, which Adam's division by the size
   of the gradient undoes but for its epsilon.
3. `initialisation`: the authors start every layer orthogonal with gain sqrt(2) and biases of zero,
   CORL with torch's default.
4. `log_std_range`: the authors clamp to (-5, 2), CORL to (-20, 2).
5. `clip_actions`: the authors clip the data's actions to a_max (1 - 1e-5); CORL does not.
6. `normalize`: CORL standardises observations; the authors do not.
7. `deterministic`: on hopper-medium and hopper-medium-replay CORL has an actor without a Gaussian,
   whose loss is mean w |pi(s) - a|^2; the authors never.
8. `dropout` of the actor's hidden units: 0.1 on adroit and, the authors, on kitchen.
9. `reward`: the authors scale locomotion's to a range of returns of 1000 ("return range") and
   subtract 1 from antmaze's. CORL scales two data sets only, those of 7, by the range of
   trajectories cut at a termination or at 1000 rows, an unfinished last one left out ("corl return
   range"); as the data lack the rows of timeouts, its cuts drift by one row per timed-out episode.
10. Where a_max is not 1, CORL fits its mean in (-1, 1) to the data's actions as they are and
    multiplies by a_max when it acts; here the mean has the actions' scale.
11. gwthomas/IQL-PyTorch has the order, loss, initialisation and "corl return range" of CORL, the
    log_std_range of the authors, raw observations, and a Gaussian whose mean lacks the tanh.
12. The authors' optax computes Adam's corrections 1 - beta^t in float32, where they are off by 1e-5
    or so in the first updates; torch computes them in double precision.
13. The authors add a trajectory's rewards one by one in float32, which here are added in float64.
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
    Dropout,
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
    cosine_decay,
    losses,
    polyak,
    rewards,
    set_rate,
    step,
    steps_made,
)

MAX_WEIGHT = 100.0  # cap of the exponentiated advantage


@dataclass(frozen=True)
class IQLConfig:
    """Defaults of the paper for locomotion, but for the reward, which is the data set's own."""

    expectile: Share = 0.7  # tau in the paper; 0.5 is the mean, towards 1 the maximum
    beta: NonNegative = 3.0  # inverse temperature; 0 is behaviour cloning
    gamma: Share = 0.99  # discount per step
    tau: Share = 0.005  # target update rate per gradient step
    actor_lr: Positive = 3e-4  # at the start of the cosine
    critic_lr: Positive = 3e-4
    value_lr: Positive = 3e-4
    reward: Literal["raw", "return range", "corl return range", "minus one"] = "raw"
    order: Literal["authors", "corl"] = "authors"  # which V the policy and the critics learn from
    critic_loss: Literal["sum", "mean"] = "sum"  # over the two critics
    initialisation: Literal["orthogonal", "torch"] = "orthogonal"
    deterministic: bool = False  # an actor without a Gaussian
    log_std_range: tuple[float, float] = (-5.0, 2.0)
    dropout: Dropout = 0.0  # share of the actor's hidden units dropped in training
    clip_actions: bool = True  # keep the data's actions 1e-5 inside the bounds
    normalize: bool = False  # standardise observations
    hidden: Widths = (256, 256)
    batch_size: Count = 256


def expectile_loss(diff: Tensor, expectile: Setting) -> Tensor:
    """Asymmetric squared error of each replica, mean over its batch (eq. 5), shape (R,).

    Args:
        diff: target minus prediction, shape (R, B).
        expectile: weight of positive errors, in (0, 1).
    """
    weight = (expectile - (diff < 0).to(diff.dtype)).abs()
    return (weight * diff.square()).mean(-1)


class IQL(Learner):
    """IQL on the replica axis."""

    Config = IQLConfig
    config: IQLConfig
    paper = "Kostrikov, Nair & Levine 2022, arXiv 2110.06169"
    family = "in-sample value"
    agreement = (
        "ikostrikov/implicit_q_learning 09d7002, corl-team/CORL eeeeef2 iql.py, "
        "gwthomas/IQL-PyTorch 71ea1aa"
    )
    period = 1
    schedule = "the cosine decay of actor_lr"
    varying = frozenset(("expectile", "beta", "gamma", "tau", "actor_lr", "critic_lr", "value_lr"))
    preparing = frozenset(("reward",))
    not_restored = Learner.not_restored | {"steps"}

    def __init__(self, spec: Spec, config: IQLConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        self.steps = spec.steps
        q_sizes = (spec.observation_dim + spec.action_dim, *config.hidden, 1)
        v_sizes = (spec.observation_dim, *config.hidden, 1)
        actor_sizes = (spec.observation_dim, *config.hidden, spec.action_dim)
        start = config.initialisation
        self.critic, self.target_critic = (
            MLP(Streams(seeds, "critic", device), q_sizes, members=2, initialisation=start)
            for _ in range(2)
        )
        self.vf = MLP(Streams(seeds, "value", device), v_sizes, initialisation=start)
        self.actor = MLP(Streams(seeds, "actor", device), actor_sizes, initialisation=start)
        trained = [*self.actor.parameters()]
        if not config.deterministic:
            self.log_std = nn.Parameter(torch.zeros(len(seeds), 1, spec.action_dim, device=device))
            trained.append(self.log_std)
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.value_optimizer = adam(self.vf.parameters(), config.value_lr)
        self.actor_optimizer = adam(trained, config.actor_lr)
        self.dropout = Streams(seeds, "dropout", device)
        self.updates = 0

    @classmethod
    def prepare(cls, data: Transitions, config: IQLConfig) -> Transitions:
        """Rewards as the config says; nothing else changes."""
        if config.log_std_range[0] > config.log_std_range[1]:
            raise InputError(
                f"iql: log_std_range = {[*config.log_std_range]}; expected the lower bound first"
            )
        setting = f"iql: reward = {config.reward!r}"
        match config.reward:
            case "minus one":
                return rewards.shifted(data, -1)
            case "return range":
                return rewards.to_return_range(data, rewards.joined_episodes(data), setting)
            case "corl return range":
                cut = rewards.cut_episodes(data, rewards.CUT_ROWS)
                return rewards.to_return_range(data, cut, setting)
            case "raw":
                return data

    def _mean(self, states: Tensor, training: bool = False) -> Tensor:
        dropout = training and self.config.dropout
        out = self._dropped_out(states) if dropout else self.actor(states)
        return self.max_action * torch.tanh(out)

    def value_loss(self, value: Tensor, target_q: Tensor) -> Loss:
        """L_V, for V(s) and the least of the target critics at the data's actions, (R, B)."""
        loss = expectile_loss(target_q - value, self.config.expectile)
        return loss, {"value/loss": loss.detach(), "value/v": value.detach().mean(-1)}

    def actor_loss(self, states: Tensor, actions: Tensor, advantage: Tensor) -> Loss:
        """L_pi, for the data's actions (R, B, action_dim) and their advantage (R, B)."""
        config = self.config
        weight = torch.exp(config.beta * advantage).clamp(max=MAX_WEIGHT)
        mean = self._mean(states, training=True)
        if config.deterministic:
            cost = (mean - actions).square().sum(-1)
        else:
            log_std = self.log_std.clamp(*config.log_std_range)
            cost = -losses.gaussian_log_prob(actions, mean, log_std)
        loss = (weight * cost).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/advantage": advantage.mean(-1)}

    def critic_loss(self, states_actions: Tensor, batch: Batch, next_value: Tensor) -> Loss:
        """L_Q, for V(s') of shape (R, B)."""
        target_q = batch.rewards + self.config.gamma * (1 - batch.terminations) * next_value
        q = self.critic(states_actions).squeeze(-1)
        errors = (q - target_q.unsqueeze(1)).square().mean(-1)
        loss = errors.sum(-1) if self.config.critic_loss == "sum" else errors.mean(-1)
        return loss, {"critic/loss": loss.detach(), "critic/q": q.detach().mean((1, 2))}

    def update(self, batch: Batch) -> Metrics:
        """One step each of the value, the policy and the critics."""
        config = self.config
        states, next_states = self.states(batch.observations), self.states(batch.next_observations)
        actions = self._clipped(batch.actions)
        states_actions = torch.cat([states, actions], -1)
        with torch.no_grad():
            target_q = self.target_critic(states_actions).squeeze(-1).amin(1)
            if config.order == "corl":
                next_value = self.vf(next_states).squeeze(-1)

        # --- Value ---
        value = self.vf(states).squeeze(-1)
        loss, value_metrics = self.value_loss(value, target_q)
        step(self.value_optimizer, loss)
        if config.order == "authors":
            with torch.no_grad():
                both = self.vf(torch.cat([states, next_states], 1)).squeeze(-1)
                value, next_value = both.chunk(2, 1)

        # --- Policy ---
        loss, actor_metrics = self.actor_loss(states, actions, target_q - value.detach())
        updates = steps_made(self.actor_optimizer, self.updates)
        set_rate(self.actor_optimizer, config.actor_lr * cosine_decay(updates, self.steps))
        step(self.actor_optimizer, loss)

        # --- Critics ---
        loss, critic_metrics = self.critic_loss(states_actions, batch, next_value)
        step(self.critic_optimizer, loss)
        polyak(self.target_critic, self.critic, config.tau)

        self.updates += 1
        return {**critic_metrics, **value_metrics, **actor_metrics}

    def policy(self) -> StatelessPolicy:
        """The policy's mean, without dropout: temperature 0, as the authors evaluate."""
        return StatelessPolicy(lambda observations: self._mean(self.states(observations)))

    # --- Variants ---

    def _clipped(self, actions: Tensor) -> Tensor:
        if not self.config.clip_actions:
            return actions
        limit = self.max_action * (1 - 1e-5)
        return actions.clamp(-limit, limit)

    def _dropped_out(self, states: Tensor) -> Tensor:
        rate = self.config.dropout
        masks = [
            self.dropout.bernoulli(1 - rate, states.shape[1], width) / (1 - rate)
            for width in self.config.hidden
        ]
        return dropped_out(self.actor, states, masks)


def dropped_out(mlp: MLP, states: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """The network's outputs where each hidden layer is multiplied by its mask (R, B, width)."""
    *hidden, (weight, bias) = zip(mlp.weights, mlp.biases, strict=True)
    x = states
    for (w, b), mask in zip(hidden, masks, strict=True):
        x = torch.relu(torch.baddbmm(b, x, w)) * mask
    return torch.baddbmm(bias, x, weight)
