"""Samplers turn training data into batches with a replica axis."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from offrl.data.transitions import Transitions
from offrl.learning.batch import Batch, Windows
from offrl.learning.streams import Streams

BATCHED = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminations",
    "next_actions",
)


class Sampler(Protocol):
    """Draws batches and can be carried on where it stopped."""

    def sample(self) -> Any:
        """The next batch, for the learner's `update`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What drawing changes."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        ...


def _tensor(column: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.tensor(column, dtype=torch.float32, device=device)


def _rows(column: Tensor, indices: Tensor) -> Tensor:
    return column.index_select(0, indices.flatten()).view(*indices.shape, *column.shape[1:])


class _Drawing:
    """A sampler whose state is that of its streams."""

    streams: Streams

    def state_dict(self) -> dict[str, Any]:
        """The streams' states."""
        return self.streams.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.streams.load_state_dict(state)

    def split_state(self) -> list[dict[str, Any]]:
        """The state of each replica's sampler alone."""
        return [*self.streams.split_state()]

    def join_states(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The state of the sampler of R replicas, made of those of each alone."""
        return self.streams.join_states(states)


class UniformSampler(_Drawing):
    """Batches of transitions drawn uniformly with replacement, one stream per replica.

    Args:
        data: the prepared training data, copied to `device` once and shared by all replicas.
        batch_size: B, transitions per replica; may exceed the rows of the data.
        seeds: one per replica.
        device: where the batches live.
    """

    def __init__(
        self,
        data: Transitions,
        batch_size: int,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.batch_size = batch_size
        self.streams = Streams(seeds, "batches", device)
        self.columns = {
            name: _tensor(column, device)
            for name in BATCHED
            if (column := getattr(data, name)) is not None
        }

    def sample(self) -> Batch:
        """The next batch, of shape (R, B, ...)."""
        indices = self.streams.integers(len(self.columns["rewards"]), self.batch_size)
        return Batch(**{name: _rows(column, indices) for name, column in self.columns.items()})


class WindowSampler(_Drawing):
    """Batches of windows whose first steps are drawn uniformly from all steps of the data.

    That is an episode drawn with probability proportional to its length, and a first step uniform
    in it, as Decision Transformer and its descendants draw.

    Args:
        data: the prepared training data, whole episodes.
        batch_size: B, windows per replica.
        length: K, steps per window.
        padding: the side on which a window that runs over its episode's end is filled up.
        seeds: one per replica.
        device: where the batches live.
    """

    def __init__(
        self,
        data: Transitions,
        batch_size: int,
        length: int,
        padding: Literal["left", "right"],
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.batch_size, self.padding = batch_size, padding
        self.streams = Streams(seeds, "batches", device)
        starts, lengths = data.episodes()
        totals = np.cumsum(data.rewards, dtype=np.float64)
        ends = np.repeat(starts + lengths, lengths)  # one past each row's episode
        to_go = totals[ends - 1] - totals + data.rewards
        self.observations = _tensor(data.observations, device)
        self.actions = _tensor(data.actions, device)
        self.rewards = _tensor(data.rewards, device)
        self.returns_to_go = _tensor(to_go, device)
        steps = np.arange(len(data.rewards)) - np.repeat(starts, lengths)
        self.timesteps = torch.tensor(steps, device=device)
        self.ends = torch.tensor(ends, device=device)
        self.offsets = torch.arange(length, device=device)

    def sample(self) -> Windows:
        """The next windows, of shape (R, B, K, ...)."""
        first = self.streams.integers(len(self.rewards), self.batch_size).unsqueeze(-1)
        end = _rows(self.ends, first)
        if self.padding == "left":
            surplus = (first + len(self.offsets) - end).clamp(min=0)
            first = first - surplus
        else:
            surplus = torch.zeros_like(first)
        rows = first + self.offsets
        real = (rows < end) & (self.offsets >= surplus)
        rows = torch.where(real, rows, 0)

        def fill(column: Tensor) -> Tensor:
            values = _rows(column, rows)
            mask = real.view(*real.shape, *[1] * (values.dim() - 3)).to(values.dtype)
            return values * mask

        return Windows(
            fill(self.observations),
            fill(self.actions),
            fill(self.rewards),
            fill(self.returns_to_go),
            fill(self.timesteps),
            real.to(torch.float32),
        )


def whole(data: Transitions, device: torch.device | str = "cpu") -> Batch:
    """All of the data as one batch with a replica axis of 1, copied to `device`."""
    return Batch(
        **{
            name: _tensor(column, device).unsqueeze(0)
            for name in BATCHED
            if (column := getattr(data, name)) is not None
        }
    )
