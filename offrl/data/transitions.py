"""Training data as arrays, which an algorithm's `prepare` may transform.

The one module of this wing that an algorithm imports: it draws in numpy alone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from offrl.data.dataset import Dataset

CORL_LENGTH = 1000  # rows after which CORL cuts a trajectory, whatever the environment


@dataclass(frozen=True)
class Transitions:
    """Training data as float32 arrays, a row per transition; `prepare` may change or drop rows.

    Rows follow one another as in the data set. A row with either flag ends an episode.
    """

    observations: np.ndarray  # (N, observation_dim)
    actions: np.ndarray  # (N, action_dim)
    rewards: np.ndarray  # (N,)
    next_observations: np.ndarray  # (N, observation_dim)
    terminations: np.ndarray  # (N,), 1 where the environment ended; a truncation is 0
    truncations: np.ndarray  # (N,), 1 where the episode was cut off; it never stops bootstrapping
    next_actions: np.ndarray | None = None  # (N, action_dim), where `prepare` makes them

    def episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """The first row and the length of each episode, int64; the last row ends one."""
        ends = (self.terminations > 0) | (self.truncations > 0)
        ends[-1] = True
        last = np.flatnonzero(ends)
        starts = np.concatenate(([0], last[:-1] + 1))
        return starts, last + 1 - starts

    def corl_episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """First rows and lengths of the trajectories that CORL's code cuts; there may be none.

        It cuts at a termination or after 1000 rows, and leaves out what comes after the last cut.
        `d4rl.qlearning_dataset` has dropped the row of every timeout, so that an episode of 1000
        steps has 999 rows: cuts drift by a row per timed-out episode.
        """
        starts: list[int] = []
        start = 0
        for end in [*(np.flatnonzero(self.terminations) + 1), len(self.terminations)]:
            starts += range(start, end, CORL_LENGTH)
            start = end
        lengths = np.diff([*starts, len(self.terminations)])
        if not self.terminations[-1] and lengths[-1] < CORL_LENGTH:
            starts, lengths = starts[:-1], lengths[:-1]
        return np.array(starts, dtype=np.int64), lengths

    def corl_return_range(self) -> float:
        """Largest minus smallest return of the trajectories that CORL cuts; 0 where none is."""
        starts, lengths = self.corl_episodes()
        if len(starts) == 0:
            return 0.0
        rewards = self.rewards[: starts[-1] + lengths[-1]].astype(np.float64)
        returns = np.add.reduceat(rewards, starts)
        return float(returns.max() - returns.min())

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
