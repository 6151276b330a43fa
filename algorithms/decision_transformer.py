"""Decision Transformer: actions from the history and the return that is asked for.

Chen, Lu et al., "Decision Transformer: Reinforcement Learning via Sequence Modeling", NeurIPS 2021,
arXiv 2106.01345. Reference code: kzl/decision-transformer, `gym/`, on Hugging Face's GPT-2.

No values and no bootstrapping: a causal transformer predicts actions from the last K steps.

A window of K steps of one episode is a sequence of 3 K tokens
    x_{R,t} = R_t w_R + e_t,  x_{s,t} = s_t W_s + e_t,  x_{a,t} = a_t W_a + e_t
in the order R_1, s_1, a_1, R_2, ..., with e_t a learned vector for step t of the episode, biases
left out here, and
    R_t = (sum over t' >= t of r_t') / scale                              the return-to-go
After a LayerNorm, GPT-2 blocks (attention and a two-layer network, each after a LayerNorm and added
on) under a causal mask and a last LayerNorm turn them into outputs y, and
    pi(R_1, s_1, a_1, ..., R_t, s_t) = a_max tanh(y_{s,t} W + b)
    L = mean (pi(...) - a_t)^2           over the windows' real steps and the action dimensions
A window starts at a step drawn uniformly from all data, so that an episode is drawn in proportion
to its length, and is padded where its episode ends first; no token attends to padding. The
optimiser is AdamW with a linear warm-up; the norm of each replica's gradient is clipped for itself.
To act, R_1 is the target return over the scale, R_{t+1} = R_t - r_t / scale, and the model sees the
last K steps. `target_returns` has no default: which returns are targets is part of a protocol.
Of a D4RL file it takes the view "transitions", rows in whole episodes, whatever the card's view.

Known differences:
1. CORL has GELU (`activation`), N(0, 0.02) initial weights (`initialisation = "corl"`), padding on
   the right (`padding`) and a loss that divides by all steps, padding included (`average_over`);
   for locomotion it trains with batch_size 4096 and actor_lr 8e-4. Defaults are the authors', whose
   initial weights are N(0, 0.02) in the blocks, N(0, 1) for e_t and torch's own elsewhere. CORL's
   queries, keys and values start by Xavier's uniform. Padding changes no action and no loss.
2. The authors fill padding with the state 0 before standardising and with the action -10 (0 to
   act); here and in CORL it is zeros. CORL acts without a padding mask, on windows that have no
   padding. None of this is seen: attention to padding has the weight 0.
3. The heads that predict states and returns are left out: the authors do not train them.
4. The last block is computed at the state tokens alone; its other outputs would go unused.
5. The authors give steps beyond the timestep table its last row. Here that is so to act;
   `prepare` raises an error, as the data's episodes may not be marked. CORL's table has K rows
   more, which only padding reads.
6. Both leave out an unfinished episode at the end of a D4RL file. Here it counts, and its
   returns-to-go stop where the file does.
7. Of a D4RL file without `next_observations` the last row of an episode that timed out is left out,
   as everywhere in offrl; both references keep it. Its reward is missing from returns-to-go.
8. The authors evaluate several targets. Here the highest stands for the run, and the others are
   scored as "target 2" and so on, in descending order.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from offrl.learning import (
    Count,
    Device,
    Dropout,
    Finite,
    InputError,
    LayerNorm,
    Learner,
    Linear,
    Loss,
    Metrics,
    Network,
    NonNegative,
    Policy,
    Positive,
    Seeds,
    Spec,
    Standardise,
    Steps,
    Streams,
    Transitions,
    Windows,
    WindowSampler,
    adamw,
    aligned,
    look_up,
    set_rate,
    step,
    steps_made,
    warm_up,
)

Drop = Callable[[Tensor], Tensor]
STATE_TOKENS = slice(1, None, 3)  # of (R_1, s_1, a_1, R_2, s_2, a_2, ...)
LAST_STATE_TOKEN = slice(-2, -1)


@dataclass(frozen=True)
class DecisionTransformerConfig:
    """Defaults of the authors' code."""

    target_returns: tuple[Finite, ...] = ()  # asked for in evaluation; the highest is the run's
    return_scale: Positive = 1000.0  # returns-to-go are divided by it
    context: Count = 20  # K, steps that the model sees
    max_episode_steps: Count = 1000  # rows of the timestep embedding
    embedding: Count = 128  # width of a token
    layers: Count = 3
    heads: Count = 1
    activation: Literal["relu", "gelu"] = "relu"  # the latter is CORL's
    dropout: Dropout = 0.1  # of embeddings, attention weights and residual branches
    initialisation: Literal["authors", "corl"] = "authors"
    padding: Literal["left", "right"] = "left"  # the latter is CORL's; neither changes an action
    average_over: Literal["real steps", "all steps"] = "real steps"  # the latter is CORL's loss
    actor_lr: Positive = 1e-4  # after the warm-up
    warmup: Steps = 10_000  # gradient steps over which the learning rate rises from 0
    weight_decay: NonNegative = 1e-4  # of AdamW, on all parameters
    max_norm: Positive = 0.25  # of each replica's gradient
    batch_size: Count = 64  # windows


def cloning_loss(
    predictions: Tensor, actions: Tensor, mask: Tensor, average_over: str = "real steps"
) -> Tensor:
    """Squared error of each replica over the real steps of its windows, shape (R,).

    Args:
        predictions: shape (R, B, K, action_dim).
        actions: of the data, of the same shape.
        mask: shape (R, B, K), 1 where the step is real.
        average_over: what the sum is divided by, "real steps" or "all steps".
    """
    errors = (predictions - actions).square().mean(-1) * mask
    steps = mask.sum((1, 2)) if average_over == "real steps" else mask[0].numel()
    return errors.sum((1, 2)) / steps


class Block(Network):
    """GPT-2's block: attention and a two-layer network, each after a LayerNorm, each added on."""

    def __init__(self, replicas: int, config: DecisionTransformerConfig, device: Device):
        super().__init__()
        width = config.embedding
        self.heads, self.activation = config.heads, config.activation
        self.norm1 = LayerNorm(replicas, width, device)
        self.query = Linear(replicas, width, width, device)
        self.key = Linear(replicas, width, width, device)
        self.value = Linear(replicas, width, width, device)
        self.out = Linear(replicas, width, width, device)
        self.norm2 = LayerNorm(replicas, width, device)
        self.expand = Linear(replicas, width, 4 * width, device)
        self.contract = Linear(replicas, 4 * width, width, device)

    def forward(self, x: Tensor, allowed: Tensor, drop: Drop, at: slice = slice(None)) -> Tensor:
        """Outputs at the tokens `at`, which attend to all tokens of `x` (R, B, T, width).

        Args:
            x: the tokens.
            allowed: bool (R, B, 1, T, T), whether a token (row) may attend to another (column).
            drop: applies dropout.
            at: the tokens whose outputs are wanted.
        """
        normal = self.norm1(x)
        query, key, value = (
            part.view(*part.shape[:-1], self.heads, -1).transpose(2, 3)  # (R, B, heads, T, -1)
            for part in (self.query(normal[:, :, at]), self.key(normal), self.value(normal))
        )
        scores = query @ key.mT / math.sqrt(key.shape[-1])
        # Finite, since a padded step on the left may attend to nothing; the exponential is 0.
        weights = scores.masked_fill(~allowed[..., at, :], -1e4).softmax(-1)
        attended = (drop(weights) @ value).transpose(2, 3).flatten(-2)
        x = x[:, :, at] + drop(self.out(attended))
        hidden = self.expand(self.norm2(x), relu=self.activation == "relu")
        if self.activation == "gelu":
            hidden = nn.functional.gelu(hidden)
        return x + drop(self.contract(hidden))


class Transformer(Network):
    """From windows of (return-to-go, state, action) to actions."""

    def __init__(
        self,
        replicas: int,
        spec: Spec,
        config: DecisionTransformerConfig,
        device: Device,
    ):
        super().__init__()
        width = config.embedding
        self.timesteps = nn.Parameter(
            torch.empty(replicas, config.max_episode_steps, width, device=device)
        )
        self.embed_return = Linear(replicas, 1, width, device)
        self.embed_state = Linear(replicas, spec.observation_dim, width, device)
        self.embed_action = Linear(replicas, spec.action_dim, width, device)
        self.embed_norm = LayerNorm(replicas, width, device)
        self.blocks = nn.ModuleList([Block(replicas, config, device) for _ in range(config.layers)])
        self.out_norm = LayerNorm(replicas, width, device)
        self.action = Linear(replicas, width, spec.action_dim, device)

    def forward(
        self,
        returns: Tensor,
        states: Tensor,
        windows: Windows,
        drop: Drop,
        at: slice,
    ) -> Tensor:
        """Actions in (-1, 1), shape (R, B, n, action_dim), read off the n tokens `at`.

        Args:
            returns: scaled returns-to-go, shape (R, B, K, 1).
            states: standardised observations, shape (R, B, K, observation_dim).
            windows: whose actions, timesteps and mask the model sees as they are.
            drop: applies dropout.
            at: the state tokens whose actions are wanted.
        """
        time = look_up(self.timesteps, windows.timesteps)
        tokens = torch.stack(
            [
                self.embed_return(returns) + time,
                self.embed_state(states) + time,
                self.embed_action(windows.actions) + time,
            ],
            3,
        )
        x = drop(self.embed_norm(tokens.flatten(2, 3)))
        real = windows.mask.bool().repeat_interleave(3, -1)
        causal = torch.ones(x.shape[2], x.shape[2], dtype=torch.bool, device=x.device).tril()
        allowed = (causal & real.unsqueeze(-2)).unsqueeze(2)
        for block in self.blocks[:-1]:
            x = block(x, allowed, drop)
        # The last block's outputs at other tokens would go nowhere.
        x = self.blocks[-1](x, allowed, drop, at)
        return torch.tanh(self.action(self.out_norm(x)))


@torch.no_grad()
def initialise(transformer: Transformer, choice: str, streams: Streams) -> None:
    """Draws the first weights; LayerNorms start at 1 and 0, and biases at 0 if not said otherwise.

    "authors": N(0, 0.02) in the blocks, N(0, 1) for timesteps, nn.Linear's uniform weights and
    biases elsewhere. "corl": N(0, 0.02), but Xavier's uniform for queries, keys and values, which
    nn.MultiheadAttention draws as one matrix.
    """
    for r, generator in enumerate(streams.generators):
        std = 1.0 if choice == "authors" else 0.02
        transformer.timesteps[r].normal_(0, std, generator=generator)
        for name, layer in transformer.named_modules():
            if not isinstance(layer, Linear):
                continue
            inputs = layer.weight.shape[1]
            if choice == "authors" and not name.startswith("blocks"):
                bound = 1 / math.sqrt(inputs)
                layer.weight[r].uniform_(-bound, bound, generator=generator)
                layer.bias[r].uniform_(-bound, bound, generator=generator)
            elif choice == "corl" and name.endswith(("query", "key", "value")):
                bound = math.sqrt(6 / (inputs + 3 * inputs))
                layer.weight[r].uniform_(-bound, bound, generator=generator)
            else:
                layer.weight[r].normal_(0, 0.02, generator=generator)


class DecisionTransformer(Learner):
    """Decision Transformer on the replica axis."""

    Config = DecisionTransformerConfig
    config: DecisionTransformerConfig
    paper = "Chen, Lu et al. 2021, arXiv 2106.01345"
    family = "sequence model"
    agreement = (
        "kzl/decision-transformer e2d82e6 gym/decision_transformer; corl-team/CORL eeeeef2 dt.py"
    )
    view = "transitions"  # returns-to-go need whole episodes
    period = 1
    varying = frozenset(("return_scale", "actor_lr", "weight_decay", "max_norm"))
    samples_many = True

    def __init__(
        self, spec: Spec, config: DecisionTransformerConfig, seeds: Seeds, device: Device = "cpu"
    ):
        if config.context > config.max_episode_steps:
            raise InputError(
                f"decision_transformer: context = {config.context} is longer than any episode, "
                f"max_episode_steps = {config.max_episode_steps}; lower the one or raise the other"
            )
        super().__init__(spec, config, seeds, device)
        self.standardise = Standardise(spec, device, eps=1e-6)
        self.transformer = Transformer(len(seeds), spec, config, "cpu")
        initialise(self.transformer, config.initialisation, Streams(seeds, "actor"))
        self.transformer.to(device)
        self.optimizer = adamw(self.transformer.parameters(), config.actor_lr, config.weight_decay)
        self.dropout = Streams(seeds, "dropout", device)
        self.updates = 0

    @classmethod
    def prepare(cls, data: Transitions, config: DecisionTransformerConfig) -> Transitions:
        """The data unchanged; raises InputError where the config does not fit them."""
        starts, lengths = data.episodes()
        if not config.target_returns:
            best = np.add.reduceat(data.rewards.astype(np.float64), starts).max()
            raise InputError(
                "decision_transformer: target_returns is empty; set the returns to ask for in "
                f"evaluation, for example [{best:g}, {best / 2:g}]: the highest return of an "
                "episode of this data set, and half of it"
            )
        if lengths.max() > config.max_episode_steps:
            raise InputError(
                f"decision_transformer: an episode of this data set has {lengths.max()} steps, but "
                f"max_episode_steps = {config.max_episode_steps}; raise it, or mark where "
                "the data's episodes end"
            )
        if len({*config.target_returns}) < len(config.target_returns):
            raise InputError(
                f"decision_transformer: target_returns = {[*config.target_returns]} names a return "
                "twice; give each once"
            )
        if config.embedding % config.heads:
            raise InputError(
                f"decision_transformer: embedding = {config.embedding} cannot be shared among "
                f"heads = {config.heads}; make it a multiple"
            )
        return data

    @classmethod
    def sampler(
        cls,
        data: Transitions | Sequence[Transitions],
        config: DecisionTransformerConfig,
        seeds: Seeds,
        device: Device,
    ) -> WindowSampler:
        """Windows of `context` steps whose first step is uniform over the data."""
        return WindowSampler(data, config.batch_size, config.context, config.padding, seeds, device)

    def _drop(self, x: Tensor) -> Tensor:
        rate = self.config.dropout
        return x * (self.dropout.bernoulli(1 - rate, *x.shape[1:]) / (1 - rate)) if rate else x

    def predict(self, windows: Windows, drop: Drop, at: slice) -> Tensor:
        """Actions at the state tokens `at` of windows as `sampler` draws them."""
        returns = windows.returns_to_go.unsqueeze(-1)
        returns = returns / aligned(self.config.return_scale, returns)
        states = self.standardise(windows.observations)
        return self.max_action * self.transformer(returns, states, windows, drop, at)

    def actor_loss(self, batch: Windows) -> Loss:
        """L, over the actions of all real steps."""
        predictions = self.predict(batch, self._drop, STATE_TOKENS)
        average_over = self.config.average_over
        loss = cloning_loss(predictions, batch.actions, batch.mask, average_over)
        return loss, {"actor/loss": loss.detach()}

    def update(self, batch: Windows) -> Metrics:
        """One step of regression."""
        config = self.config
        loss, metrics = self.actor_loss(batch)
        updates = steps_made(self.optimizer, self.updates)
        set_rate(self.optimizer, config.actor_lr * warm_up(updates, config.warmup))
        step(self.optimizer, loss, config.max_norm)
        self.updates += 1
        return metrics

    def policy(self) -> Policy:
        """Acts towards the highest target."""
        return self.policies()[""]

    def policies(self) -> Mapping[str, Policy]:
        """One policy per target, the highest first; their names have the same rank on all data."""
        targets = sorted(self.config.target_returns, reverse=True)
        return {
            f"target {i}" if i > 1 else "": Conditioned(self, target)
            for i, target in enumerate(targets, 1)
        }


class Conditioned:
    """Acts towards a target return on the last K steps of each environment's episode."""

    mode = "deterministic"

    def __init__(self, learner: DecisionTransformer, target: float):
        self.learner, self.target = learner, target

    def begin(self, starts: Tensor) -> None:
        """Resets return-to-go, step count and history where an episode starts."""
        if starts.all():
            self.past: dict[str, Tensor] = {}
            self.steps = torch.zeros_like(starts, dtype=torch.int64)
            self.to_go = torch.full_like(starts, self.target, dtype=torch.float32)
        self.steps = torch.where(starts, 0, self.steps)
        self.to_go = torch.where(starts, self.target, self.to_go)

    @torch.no_grad()
    def act(self, observations: Tensor) -> Tensor:
        """Actions of shape (R, E, action_dim) for observations (R, E, observation_dim)."""
        config, transformer = self.learner.config, self.learner.transformer
        newest = {
            "observations": observations,
            "actions": observations.new_zeros(*self.steps.shape, transformer.action.bias.shape[-1]),
            "rewards": torch.zeros_like(self.to_go),  # the model does not look at them
            "returns_to_go": self.to_go,
            "timesteps": self.steps.clamp(max=config.max_episode_steps - 1),
        }
        for name, value in newest.items():
            past = self.past.get(name, torch.stack([value] * config.context, 2))
            self.past[name] = torch.cat([past[:, :, 1:], value.unsqueeze(2)], 2)
        age = torch.arange(config.context, device=self.steps.device).flip(0)
        windows = Windows(mask=age <= self.steps.unsqueeze(-1), **self.past)
        actions = self.learner.predict(windows, lambda x: x, LAST_STATE_TOKEN)[:, :, 0]
        self.past["actions"][:, :, -1] = actions
        self.steps = self.steps + 1
        return actions

    def reward(self, rewards: Tensor) -> None:
        """Subtracts the rewards (R, E) from the return-to-go."""
        self.to_go = self.to_go - rewards
