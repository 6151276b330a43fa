"""Samplers turn training data into batches with a replica axis."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from offrl.data.foreign import free_memory
from offrl.data.transitions import Transitions
from offrl.errors import Damaged
from offrl.learning.batch import Batch, Windows
from offrl.learning.streams import Streams

SHARE = 6  # of the memory that is free, the part that the copy of a column may take
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
    """A column as float32; discrete actions as they are, int64.

    It is a copy, unless that would take much of the memory that is free: columns of the cache are
    pages of its files, which the system reads as they are drawn from.
    """
    dtype = torch.int64 if column.dtype == np.int64 else torch.float32
    free = free_memory() if torch.device(device).type == "cpu" else None
    if free is not None and SHARE * column.nbytes > free:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it cannot be written, and is not
            return torch.from_numpy(column).to(dtype)
    return torch.tensor(column, dtype=dtype, device=device)


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


class Rows:
    """Draws rows of a table in which distinct data sets stand one after another.

    Args:
        lengths: of the distinct data sets.
        places: of each replica's data set among them.
        device: where rows are drawn.
    """

    def __init__(self, lengths: Sequence[int], places: Sequence[int], device: torch.device | str):
        self.high: int | Tensor = lengths[0]
        self.starts: Tensor | None = None  # (R, 1), of each replica's data in the table
        if len(lengths) > 1:
            firsts = np.cumsum([0, *lengths])
            self.high = torch.tensor([[lengths[place]] for place in places], device=device)
            self.starts = torch.tensor([[firsts[place]] for place in places], device=device)

    def draw(self, streams: Streams, count: int) -> Tensor:
        """Rows (R, count), uniform over each replica's data."""
        rows = streams.integers(self.high, count)
        return rows if self.starts is None else rows + self.starts


def _distinct(
    data: Transitions | Sequence[Transitions], replicas: int
) -> tuple[list[Transitions], list[int]]:
    """The data sets of all replicas, each once, and the place of each replica's among them."""
    each = [data] * replicas if isinstance(data, Transitions) else list(data)
    if len(each) != replicas:
        raise ValueError(f"{len(each)} data sets for {replicas} replicas; give one to each")
    distinct = {id(one): one for one in each}
    places = {key: place for place, key in enumerate(distinct)}
    return [*distinct.values()], [places[id(one)] for one in each]


def _column(values: Sequence[np.ndarray], device: torch.device | str) -> Tensor:
    """One column of the table, of that of each distinct data set."""
    return _tensor(values[0] if len(values) == 1 else np.concatenate(values), device)


class UniformSampler(_Drawing):
    """Batches of transitions drawn uniformly with replacement, one stream per replica.

    Args:
        data: the prepared training data, copied to `device` once and shared by all replicas; or a
            sequence with that of each replica.
        batch_size: B, transitions per replica; may exceed the rows of the data.
        seeds: one per replica.
        device: where the batches live.
    """

    def __init__(
        self,
        data: Transitions | Sequence[Transitions],
        batch_size: int,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.batch_size = batch_size
        self.streams = Streams(seeds, "batches", device)
        distinct, places = _distinct(data, len(seeds))
        self.rows = Rows([len(one.rewards) for one in distinct], places, device)
        self.columns = {}
        for name in BATCHED:
            values = [getattr(one, name) for one in distinct]
            if all(value is not None for value in values):
                self.columns[name] = _column(values, device)

    def sample(self) -> Batch:
        """The next batch, of shape (R, B, ...)."""
        indices = self.rows.draw(self.streams, self.batch_size)
        return Batch(**{name: _rows(column, indices) for name, column in self.columns.items()})


class Episodes:
    """What windows need of one data set's episodes, by row."""

    def __init__(self, data: Transitions):
        starts, lengths = data.episodes()
        totals = np.cumsum(data.rewards, dtype=np.float64)
        self.ends = np.repeat(starts + lengths, lengths)  # one past each row's episode
        self.to_go = totals[self.ends - 1] - totals + data.rewards
        self.steps = np.arange(len(data.rewards)) - np.repeat(starts, lengths)


class WindowSampler(_Drawing):
    """Batches of windows whose first steps are drawn uniformly from all steps of the data.

    That is an episode drawn with probability proportional to its length, and a first step uniform
    in it, as Decision Transformer and its descendants draw.

    Args:
        data: the prepared training data, whole episodes; or a sequence with that of each replica.
        batch_size: B, windows per replica.
        length: K, steps per window.
        padding: the side on which a window that runs over its episode's end is filled up.
        seeds: one per replica.
        device: where the batches live.
    """

    def __init__(
        self,
        data: Transitions | Sequence[Transitions],
        batch_size: int,
        length: int,
        padding: Literal["left", "right"],
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.batch_size, self.padding = batch_size, padding
        self.streams = Streams(seeds, "batches", device)
        distinct, places = _distinct(data, len(seeds))
        lengths = [len(one.rewards) for one in distinct]
        self.rows = Rows(lengths, places, device)
        self.observations, self.actions, self.rewards = (
            _column([getattr(one, name) for one in distinct], device)
            for name in ("observations", "actions", "rewards")
        )
        episodes = [Episodes(one) for one in distinct]
        self.returns_to_go = _column([one.to_go for one in episodes], device)
        self.timesteps = torch.tensor(np.concatenate([e.steps for e in episodes]), device=device)
        firsts = np.cumsum([0, *lengths[:-1]])
        ends = [one.ends + first for one, first in zip(episodes, firsts, strict=True)]
        self.ends = torch.tensor(np.concatenate(ends), device=device)
        self.offsets = torch.arange(length, device=device)

    def sample(self) -> Windows:
        """The next windows, of shape (R, B, K, ...)."""
        first = self.rows.draw(self.streams, self.batch_size).unsqueeze(-1)
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


class Stacked:
    """Batches of samplers that draw for one replica each, along the replica axis."""

    def __init__(self, samplers: Sequence[Sampler]):
        self.samplers = list(samplers)

    def sample(self) -> Any:
        """The next batch of each, as one. Raises TypeError where it is no dataclass of tensors."""
        batches = [sampler.sample() for sampler in self.samplers]
        if not dataclasses.is_dataclass(batches[0]):
            raise TypeError(
                f"a batch is a {type(batches[0]).__name__}; expected a dataclass of tensors, so "
                "that replicas on different data can train as one batch"
            )
        kind: Any = type(batches[0])
        columns = {}
        for name, value in vars(batches[0]).items():
            values = [getattr(batch, name) for batch in batches]
            columns[name] = None if value is None else torch.cat(values)
        return kind(**columns)

    def state_dict(self) -> dict[str, Any]:
        """The samplers' states, by replica."""
        return {str(r): sampler.state_dict() for r, sampler in enumerate(self.samplers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned. Raises Damaged for anything else."""
        for r, sampler in enumerate(self.samplers):
            if not isinstance(state, dict) or str(r) not in state:
                raise Damaged(f"no state of {len(self.samplers)} samplers")
            sampler.load_state_dict(state[str(r)])

    def split_state(self) -> list[dict[str, Any]]:
        """The state of each replica's sampler alone."""
        return [sampler.state_dict() for sampler in self.samplers]

    def join_states(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The state of the samplers of R replicas, made of those of each alone."""
        return {str(r): state for r, state in enumerate(states)}


def whole(data: Transitions, device: torch.device | str = "cpu") -> Batch:
    """All of the data as one batch with a replica axis of 1, copied to `device`."""
    return Batch(
        **{
            name: _tensor(column, device).unsqueeze(0)
            for name in BATCHED
            if (column := getattr(data, name)) is not None
        }
    )
