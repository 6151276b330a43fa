"""CQL: conservative Q-learning on a soft actor-critic, CQL(H) and CQL(rho).

Kumar, Zhou, Tucker & Levine, "Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS
2020, arXiv 2006.04779. Reference code: aviralkumar2907/CQL (d4rl/rlkit/torch/sac/cql.py); CORL's
cql.py, which derives from young-geng/CQL; offlinerl's, which NeoRL-2's benchmark ran.

A soft actor-critic whose critics are pushed down where the policy, its successor or chance would
act, and up at the data's actions.

With a~ ~ pi(s), a'~ ~ pi(s'), and H_t = -action_dim:
    L_alpha = -mean log(alpha) (log pi(a~|s) + H_t)
    L_pi    = mean (alpha log pi(a~|s) - min_i Q_i(s, a~)); for the first `bc_steps` steps
              mean (alpha log pi(a~|s) - log pi(a|s)), with the data's a
    y       = r + gamma (1 - termination) min_i Q_i'(s', a'~)
    gap_i   = mean (Z_i(s) - Q_i(s, a))                                                     (eq. 4)
    L_Q     = sum_i mean (Q_i(s, a) - y)^2 + cql_alpha gap_i
CQL(H), by importance sampling from u_j ~ U(-1, 1), a_j ~ pi(s), a'_j ~ pi(s'), N each, all at s:
    Z_i = log (sum_j exp(Q_i(s, u_j)) / 0.5^d + sum_j exp(Q_i(s, a_j)) / pi(a_j|s)
               + sum_j exp(Q_i(s, a'_j)) / pi(a'_j|s'))
CQL(rho), `importance_sampling = false`, leaves the densities out and adds the data's action: 3N + 1
terms. Nothing divides either sum by its number of terms, so that a gap is larger than that of an
average by the log of that number. Densities take no gradient, nor do the policy or the actions in
L_Q. With Lagrange's multiplier alpha' = min(exp(log alpha'), 1e6) the last term of L_Q is
penalty_i, and L_alpha' = -mean_i penalty_i:
    authors: penalty_i = alpha' (cql_alpha gap_i - tau),  alpha' = 1 at first
    corl:    penalty_i = alpha' cql_alpha (gap_i - tau),  alpha' = e at first
Both targets of Q move by the target update rate at every step. The policy acts by the tanh of its
mean.

Known differences. The defaults are the authors', of their code and its README for MuJoCo; `policy`,
`initialisation` and `order` of "corl", `bc_steps = 0`, `cql_alpha = 10`, `actor_lr = 3e-5` and
`normalize = true` are CORL's for locomotion.
1. `order`: the authors step alpha and use its new value; CORL takes all losses before any step;
   offlinerl steps alpha, then the policy, then the critics with that policy. The authors' code
   steps the critics between the policy's loss and its gradient, which then mixes old activations
   with new weights (torch before 1.5) or fails (since). Here the gradient belongs to the loss.
2. `policy`: the authors clamp the log standard deviation to [-5, 2] and add 1e-6 to 1 - tanh(u)^2
   in densities. CORL learns a scale and an offset of it, from 1 and -1, clamps to [-20, 2] and adds
   nothing.
3. `initialisation`: the authors' is rlkit's: weights from U(-1/sqrt(fan_out), 1/sqrt(fan_out)),
   biases of 0.1, last layers from U(-1e-3, 1e-3) for the policy and 3e-3 for Q. CORL's is
   orthogonal with gain sqrt(2), 0.01 in last layers, biases 0; but it does not hand that flag on to
   its policy, which has torch's weights and a Xavier-uniform last layer of gain 0.01, bias 0, here
   as there. offlinerl's is torch's. The authors draw the target critics' weights independently of
   the critics', the others copy them.
4. CORL's second critic has three hidden layers even where its settings ask for five (antmaze);
   here both have `critic_hidden`.
5. `backup`: of N actions at s' the authors take each critic's maximum, then the minimum over
   critics; CORL the other way round. The authors draw 10 whatever N is.
6. `backup_entropy`: offlinerl subtracts alpha log pi(a'~|s') in y, the others by option only.
   "max then min" has none in the authors' code, and is an error with it here.
7. The authors' and offlinerl's warm starts end one step short of the number they are given and
   clamp the mean to +-9. CORL's takes the density of a fresh sample for that of the data's action;
   no setting of CORL's uses it.
8. `gap_min` clips Z_i - Q_i of each state from below, as CORL does on antmaze (-200).
9. `reward = "corl return range"` scales rewards to a range of returns of 1000, as CORL does on
   hopper-medium-v2, between cuts at terminations and at 1000 rows. As the data lack the rows of
   timeouts, the cuts drift by one row per timed-out episode, there and here.
10. Random actions fill the bounds of the action space; in all references [-1, 1].
11. `sampled_dtype = "bfloat16"` takes the critics' products at the 3N sampled actions in bfloat16,
    forward and back, but for the last layer's, for speed on CPUs with AVX-512. No paper
    or code has it.
12. Fixed, as in all the references' settings: a logsumexp at temperature 1, an alpha that is tuned,
    two critics, targets that move at every step; of offlinerl's backups, "min".
13. CORL's last backward pass also leaves a gradient in log alpha'. The next update clears it before
    use, so it changes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from offrl.learning import (
    MLP,
    Batch,
    Count,
    Device,
    Finite,
    InputError,
    Loss,
    Metrics,
    NonNegative,
    Positive,
    Seeds,
    Setting,
    Share,
    Spec,
    SquashedGaussian,
    StatelessPolicy,
    Steps,
    Streams,
    Tempered,
    Transitions,
    Widths,
    adam,
    polyak,
    rewards,
    soft_policy,
    step,
)

MAX_MULTIPLIER = 1e6  # cap of alpha'


@dataclass(frozen=True)
class CQLConfig:
    """Defaults of the authors' code with the settings of its README for MuJoCo."""

    cql_alpha: NonNegative = 5.0  # alpha, weight of the gap; the authors take 5 or 10
    n_actions: Count = 10  # N, sampled a state from each of three distributions
    importance_sampling: bool = True  # CQL(H); else CQL(rho)
    lagrange: Literal["off", "authors", "corl"] = "off"  # form of the penalty with alpha'
    target_gap: Finite = 5.0  # tau in the paper: alpha' grows while the gap exceeds it
    gap_min: float | None = None  # lower bound of each state's gap
    backup: Literal["min", "max then min", "min then max"] = "min"  # the maxima over N actions
    backup_entropy: bool = False
    bc_steps: Steps = 40_000  # of the policy's warm start
    actor_lr: Positive = 1e-4  # of the policy and of alpha
    critic_lr: Positive = 3e-4  # of the critics and of alpha'
    gamma: Share = 0.99  # discount per step
    tau: Share = 0.005  # target update rate per gradient step
    order: Literal["authors", "corl", "offlinerl"] = "authors"  # of the updates
    policy: Literal["authors", "corl"] = "authors"  # how the standard deviation is made
    initialisation: Literal["authors", "corl", "offlinerl"] = "authors"
    reward: Literal["raw", "corl return range"] = "raw"
    reward_scale: Finite = 1.0  # antmaze: the authors (r - 0.5) 4, CORL 10 r - 5
    reward_bias: Finite = 0.0  # added after scaling
    normalize: bool = False  # standardise observations
    sampled_dtype: Literal["float32", "bfloat16"] = "float32"  # of products at sampled actions
    actor_hidden: Widths = (256, 256, 256)
    critic_hidden: Widths = (256, 256, 256)
    batch_size: Count = 256


def conservative_gap(
    sampled_q: Tensor,
    q: Tensor,
    log_density: Tensor,
    importance_sampling: bool = True,
    gap_min: float | None = None,
) -> Tensor:
    """Z - Q(s, a) of every state (eq. 4), shape (..., B).

    Args:
        sampled_q: of the 3N sampled actions, shape (..., B, 3N).
        q: of the data's actions, shape (..., B).
        log_density: of the sampled actions where they were drawn, shape (..., B, 3N).
        importance_sampling: CQL(H); else CQL(rho).
        gap_min: lower bound of the result, which has no gradient there.
    """
    if importance_sampling:
        z = torch.logsumexp(sampled_q - log_density, -1)
    else:
        z = torch.logsumexp(torch.cat([sampled_q, q.unsqueeze(-1)], -1), -1)
    gap = z - q
    return gap if gap_min is None else gap.clamp(min=gap_min)


def next_value(q: Tensor, log_prob: Tensor, alpha: Tensor, backup: str) -> Tensor:
    """The value of s' in y, shape (R, B).

    Args:
        q: of n actions of the policy, shape (R, 2, n, B).
        log_prob: of the same actions, shape (R, n, B).
        alpha: weight of the entropy, shape (R, 1); "max then min" has none.
        backup: over which the maximum over actions and the minimum over critics is taken first.
    """
    if backup == "max then min":
        return q.amax(2).amin(1)
    value, best = q.amin(1).max(1)
    return value - alpha * log_prob.gather(1, best.unsqueeze(1)).squeeze(1)


def lagrange_penalty(
    gap: Tensor, multiplier: Tensor, cql_alpha: Setting, target_gap: Setting, form: str
) -> Tensor:
    """The multiplier alpha' times what the gap has over its target, of the shape (R, N) of `gap`.

    Args:
        gap: of each critic, shape (R, N).
        multiplier: alpha', shape (R, 1).
        cql_alpha: weight of the gap.
        target_gap: tau; the authors compare it with the weighted gap, CORL with the gap.
        form: "authors" or "corl".
    """
    if form == "authors":
        return multiplier * (cql_alpha * gap - target_gap)
    return multiplier * cql_alpha * (gap - target_gap)


class Terms(NamedTuple):
    """What the critics' loss is made of."""

    q: Tensor  # of the data's actions, (R, 2, B)
    target_q: Tensor  # y, (R, B)
    gap: Tensor  # of each critic, (R, 2)


class CQL(Tempered):
    """CQL on the replica axis."""

    Config = CQLConfig
    config: CQLConfig
    paper = "Kumar, Zhou, Tucker & Levine 2020, arXiv 2006.04779"
    family = "conservative critic"
    agreement = (
        "corl-team/CORL eeeeef2 cql.py, aviralkumar2907/CQL d67dbe9 cql.py, offlinerl 0.0.2 cql.py"
    )
    period = 1
    varying = frozenset(("cql_alpha", "target_gap", "actor_lr", "critic_lr", "gamma", "tau"))
    preparing = frozenset(("reward", "reward_scale", "reward_bias"))

    def __init__(self, spec: Spec, config: CQLConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)

        def network(purpose: str, sizes: Sequence[int], last: float, members: int | None) -> MLP:
            streams = Streams(seeds, purpose, device)
            if config.initialisation == "authors":
                return MLP(streams, sizes, members=members, initialisation="fan out", last=last)
            if config.initialisation == "offlinerl":
                return MLP(streams, sizes, members=members)
            return corl_actor(streams, sizes) if members is None else corl_critic(streams, sizes)

        critic_sizes = (spec.observation_dim + spec.action_dim, *config.critic_hidden, 1)
        own = "target critic" if config.initialisation == "authors" else "critic"
        self.critic = network("critic", critic_sizes, 3e-3, 2)
        self.target_critic = network(own, critic_sizes, 3e-3, 2)
        actor_sizes = (spec.observation_dim, *config.actor_hidden, 2 * spec.action_dim)
        mlp = network("actor", actor_sizes, 1e-3, None)
        self.actor = (
            soft_policy(mlp, spec.max_action)
            if config.policy == "authors"
            else ScaledGaussian(mlp, spec.max_action)
        )
        self.critic_optimizer = adam(self.critic.parameters(), config.critic_lr)
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)
        if config.lagrange != "off":
            first = 0.0 if config.lagrange == "authors" else 1.0
            self.log_multiplier = nn.Parameter(torch.full((len(seeds), 1), first, device=device))
            self.multiplier_optimizer = adam([self.log_multiplier], config.critic_lr)
        self.noise = Streams(seeds, "policy noise", device)
        self.current_noise = Streams(seeds, "current policy noise", device)
        self.next_noise = Streams(seeds, "next policy noise", device)
        self.random_actions = Streams(seeds, "random actions", device)
        self.updates = 0

    @classmethod
    def prepare(cls, data: Transitions, config: CQLConfig) -> Transitions:
        """Rewards as the config says; nothing else changes."""
        if config.backup_entropy and config.backup == "max then min":
            raise InputError(
                "cql: backup_entropy = true with backup = 'max then min', where the critics' best "
                "actions differ and so have no one density; use 'min' or 'min then max'"
            )
        if config.reward == "corl return range":
            cut = rewards.cut_episodes(data, rewards.CUT_ROWS)
            data = rewards.to_return_range(data, cut, "cql: reward = 'corl return range'")
        return rewards.shifted(rewards.scaled(data, config.reward_scale), config.reward_bias)

    @property
    def phases(self) -> tuple[int, ...]:
        """The policy's warm start."""
        return (self.config.bc_steps,)

    def _q(self, critic: MLP, states: Tensor, actions: Tensor, frozen: bool = False) -> Tensor:
        """Q of actions (R, n, B, action_dim), n a state, shape (R, 2, n, B)."""
        repeated = states.unsqueeze(1).expand(-1, actions.shape[1], -1, -1)
        q = critic(torch.cat([repeated, actions], -1).flatten(1, 2), frozen=frozen)
        return q.view(*q.shape[:2], *actions.shape[1:3])

    def actor_loss(
        self, states: Tensor, batch: Batch, actions: Tensor, log_prob: Tensor, alpha: Tensor
    ) -> Loss:
        """L_pi, for the policy's actions (R, B, action_dim) and their log densities (R, B)."""
        if self.updates <= self.config.bc_steps:
            value = self.actor.log_prob(states, batch.actions)
        else:
            value = self._q(self.critic, states, actions.unsqueeze(1), frozen=True).amin(1)
            value = value.squeeze(1)
        loss = (alpha * log_prob - value).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/entropy": -log_prob.detach().mean(-1)}

    def critic_terms(self, states: Tensor, batch: Batch, alpha: Tensor) -> Terms:
        """What L_Q is made of, with samples of the policy as it is now."""
        config, N, shape = self.config, self.config.n_actions, batch.actions.shape[1:]
        next_states = self.states(batch.next_observations)
        with torch.no_grad():
            n = 1 if config.backup == "min" else N
            noise = self.next_noise.normal(n + N, *shape)
            next_actions, next_log_prob = self.actor.sample(next_states, noise)
            next_q = self._q(self.target_critic, next_states, next_actions[:, :n])
            weight = alpha if config.backup_entropy else torch.zeros_like(alpha)
            value = next_value(next_q, next_log_prob[:, :n], weight, config.backup)
            target_q = batch.rewards + config.gamma * (1 - batch.terminations) * value

            actions, log_prob = self.actor.sample(states, self.current_noise.normal(N, *shape))
            uniform = self.max_action * (2 * self.random_actions.uniform(N, *shape) - 1)
            uniform_log_prob = torch.full_like(log_prob, -shape[1] * math.log(2))
            sampled = torch.cat([uniform, actions, next_actions[:, n:]], 1).transpose(1, 2)
            log_density = torch.cat([uniform_log_prob, log_prob, next_log_prob[:, n:]], 1).mT
            repeated = states.unsqueeze(2).expand(-1, -1, 3 * N, -1)
            inputs = torch.cat([repeated, sampled], -1)

        def gaps(sampled_q: Tensor, q: Tensor, log_density: Tensor) -> Tensor:
            choice = config.importance_sampling, config.gap_min
            return conservative_gap(sampled_q, q, log_density, *choice).sum(-1)

        q = self._q(self.critic, states, batch.actions.unsqueeze(1)).squeeze(2)
        dtype = torch.bfloat16 if config.sampled_dtype == "bfloat16" else None
        others = q, log_density.unsqueeze(1)
        gap = self.critic.sum_in_blocks(gaps, inputs, *others, dtype=dtype) / shape[0]
        return Terms(q, target_q, gap)

    def critic_loss(self, terms: Terms) -> Loss:
        """L_Q."""
        q, target_q, gap = terms
        if self.config.lagrange == "off":
            penalty = self.config.cql_alpha * gap
        else:
            penalty = self._lagrange_penalty(gap, self._multiplier().detach())
        loss = ((q - target_q.unsqueeze(1)).square().mean(-1) + penalty).sum(1)
        return loss, {
            "critic/loss": loss.detach(),
            "critic/q": q.detach().mean((1, 2)),
            "critic/gap": gap.detach().mean(1),
        }

    def update(self, batch: Batch) -> Metrics:
        """One step each of alpha, the policy and the critics, then of the target critics."""
        order, states = self.config.order, self.states(batch.observations)
        self.updates += 1
        alpha = self.alpha()
        noise = self.noise.normal(*batch.actions.shape[1:])
        actions, log_prob = self.actor.sample(states, noise)

        # --- Alpha ---
        loss, metrics = self.alpha_loss(log_prob)
        step(self.alpha_optimizer, loss)
        if order != "corl":
            alpha = self.alpha()

        # --- Policy ---
        if order != "offlinerl":
            terms = self.critic_terms(states, batch, alpha)
        loss, actor_metrics = self.actor_loss(states, batch, actions, log_prob, alpha)
        step(self.actor_optimizer, loss)

        # --- Critics ---
        if order == "offlinerl":
            terms = self.critic_terms(states, batch, alpha)
        loss, critic_metrics = self.critic_loss(terms)
        step(self.critic_optimizer, loss)
        polyak(self.target_critic, self.critic, self.config.tau)

        metrics = {**metrics, "alpha/value": alpha[:, 0], **actor_metrics, **critic_metrics}
        if self.config.lagrange != "off":
            loss, multiplier_metrics = self.multiplier_loss(terms.gap.detach())
            step(self.multiplier_optimizer, loss)
            metrics |= multiplier_metrics
        return metrics

    def policy(self) -> StatelessPolicy:
        """The tanh of the policy's mean, as all references evaluate."""
        return StatelessPolicy(lambda observations: self.actor.mode(self.states(observations)))

    # --- Variants ---

    def _multiplier(self) -> Tensor:
        return self.log_multiplier.exp().clamp(max=MAX_MULTIPLIER)

    def _lagrange_penalty(self, gap: Tensor, multiplier: Tensor) -> Tensor:
        config = self.config
        weights = config.cql_alpha, config.target_gap, config.lagrange
        return lagrange_penalty(gap, multiplier, *weights)

    def multiplier_loss(self, gap: Tensor) -> Loss:
        """L_alpha', for the gap (R, 2) of each critic."""
        multiplier = self._multiplier()
        loss = -self._lagrange_penalty(gap, multiplier).mean(1)
        return loss, {
            "alpha/multiplier": multiplier.detach()[:, 0],
            "alpha/multiplier_loss": loss.detach(),
        }


class ScaledGaussian(SquashedGaussian):
    """CORL's policy: the log standard deviation is the network's, times a scale, plus an offset."""

    def __init__(self, mlp: MLP, max_action: float):
        super().__init__(mlp, max_action, (-20.0, 2.0))
        ones = torch.ones_like(mlp.biases[0][:, :, :1])
        self.log_std_scale, self.log_std_offset = nn.Parameter(ones), nn.Parameter(-ones)

    def gaussian(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the tanh, each (R, B, action_dim)."""
        mean, log_std = self.mlp(states).chunk(2, -1)
        log_std = self.log_std_scale * log_std + self.log_std_offset
        return mean, log_std.clamp(*self.log_std_range)


def corl_actor(streams: Streams, sizes: Sequence[int]) -> MLP:
    """The network of CORL's policy.

    CORL does not pass `orthogonal_init` on to the policy, which keeps torch's initial weights.
    """
    mlp = MLP(streams, sizes, last=0.01 * math.sqrt(6 / (sizes[-2] + sizes[-1])))
    nn.init.zeros_(mlp.biases[-1])
    return mlp


def corl_critic(streams: Streams, sizes: Sequence[int]) -> MLP:
    """CORL's two critics, orthogonal at first."""
    mlp = MLP(streams, sizes, members=2, initialisation="orthogonal")
    mlp.weights[-1].data *= 0.01 / math.sqrt(2)
    return mlp
