"""Samplers turn training data into batches with a replica axis."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from offrl.learner import Batch, Transitions
from offrl.streams import Streams


class UniformSampler:
    """Batches of transitions drawn uniformly with replacement, one stream per replica.

    Args:
        data: the prepared training data, copied to `device` once and shared by all replicas.
        batch_size: B, transitions per replica.
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
        self.columns = whole(data, device)

    def sample(self) -> Batch:
        """The next batch, of shape (R, B, ...)."""
        columns = self.columns
        indices = self.streams.integers(columns.rewards.shape[1], self.batch_size)

        def rows(column: Tensor) -> Tensor:
            return (
                column[0].index_select(0, indices.flatten()).view(*indices.shape, *column.shape[2:])
            )

        return Batch(
            rows(columns.observations),
            rows(columns.actions),
            rows(columns.rewards),
            rows(columns.next_observations),
            rows(columns.terminations),
        )

    def state_dict(self) -> dict[str, Any]:
        """The streams' states."""
        return self.streams.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.streams.load_state_dict(state)


def whole(data: Transitions, device: torch.device | str = "cpu") -> Batch:
    """All of the data as one batch with a replica axis of 1, copied to `device`."""
    return Batch(
        *(
            torch.tensor(column, dtype=torch.float32, device=device).unsqueeze(0)
            for column in (
                data.observations,
                data.actions,
                data.rewards,
                data.next_observations,
                data.terminations,
            )
        )
    )
