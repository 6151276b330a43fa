"""Training data as arrays, which an algorithm's `prepare` may transform.

The one module of this wing that an algorithm imports: it draws in numpy alone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from offrl.data.dataset import Dataset


@dataclass(frozen=True)
class Transitions:
    """Training data as float32 arrays, a row per transition; `prepare` may change or drop rows.

    Discrete actions are int64 (N,), from 0.

    Rows follow one another as in the data set. A row with either flag ends an episode.
    """

    observations: np.ndarray  # (N, observation_dim)
    actions: np.ndarray  # (N, action_dim); discrete (N,)
    rewards: np.ndarray  # (N,)
    next_observations: np.ndarray  # (N, observation_dim)
    terminations: np.ndarray  # (N,), 1 where the environment ended; a truncation is 0
    truncations: np.ndarray  # (N,), 1 where the episode was cut off; it never stops bootstrapping
    next_actions: np.ndarray | None = None  # as actions, where `prepare` makes them

    def episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """The first row and the length of each episode, int64; the last row ends one."""
        ends = (self.terminations > 0) | (self.truncations > 0)
        ends[-1] = True
        last = np.flatnonzero(ends)
        starts = np.concatenate(([0], last[:-1] + 1))
        return starts, last + 1 - starts

    def equals(self, other: "Transitions") -> bool:
        """Whether all numbers are those of another."""
        columns = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(
            one is two or (one is not None and two is not None and np.array_equal(one, two))
            for one, two in columns
        )

    def rows(self, kept: np.ndarray) -> "Transitions":
        """These rows only, by index or mask."""
        columns: dict[str, Any] = {k: v if v is None else v[kept] for k, v in vars(self).items()}
        return Transitions(**columns)


def transitions(dataset: "Dataset") -> Transitions:
    """A data set's transitions as arrays that `prepare` may transform; the originals stay."""
    return Transitions(
        np.asarray(dataset.observations),
        np.asarray(dataset.actions),
        np.asarray(dataset.rewards),
        np.asarray(dataset.next_observations),
        np.asarray(dataset.terminations, dtype=np.float32),
        np.asarray(dataset.truncations, dtype=np.float32),
    )
