"""Changes to a data set's rewards before training, and the returns that they are based on.

All take and return Transitions, so that an algorithm's `prepare` can chain them. `setting` is what
the user wrote, for example "iql: reward = 'return range'"; an error names it.
"""

from dataclasses import replace

import numpy as np

from offrl.data.transitions import Transitions
from offrl.errors import InputError

Episodes = tuple[np.ndarray, np.ndarray]  # first rows and lengths, int64, without gaps between

RETURN_RANGE = 1000.0  # largest minus smallest return after `to_return_range`
CUT_ROWS = 1000  # after which reference code cuts a trajectory, whatever the environment


def shifted(data: Transitions, by: float) -> Transitions:
    """The data with `by` added to every reward."""
    return replace(data, rewards=data.rewards + np.float32(by))


def scaled(data: Transitions, factor: float) -> Transitions:
    """The data with every reward multiplied by `factor`."""
    return replace(data, rewards=data.rewards * np.float32(factor))


def standardised(data: Transitions, setting: str) -> Transitions:
    """The data with rewards of mean 0 and standard deviation 1.

    Raises InputError where all rewards are equal.
    """
    mean, std = data.rewards.mean(dtype=np.float64), data.rewards.std(dtype=np.float64)
    _check_divisor(std, "the rewards' standard deviation", setting)
    return replace(data, rewards=((data.rewards - mean) / std).astype(np.float32))


def to_return_range(data: Transitions, episodes: Episodes, setting: str) -> Transitions:
    """The data with rewards scaled so that the episodes' returns range over 1000.

    Raises InputError where all returns are equal, or there is no episode.
    """
    spread = return_range(data, episodes)
    _check_divisor(spread, "the spread of returns", setting)
    return scaled(data, RETURN_RANGE / spread)


def return_range(data: Transitions, episodes: Episodes) -> float:
    """Largest minus smallest undiscounted return of these episodes; 0 where there is none."""
    starts, lengths = episodes
    if len(starts) == 0:
        return 0.0
    rewards = data.rewards[: starts[-1] + lengths[-1]].astype(np.float64)
    returns = np.add.reduceat(rewards, starts)
    return float(returns.max() - returns.min())


def cut_episodes(data: Transitions, length: int) -> Episodes:
    """Episodes cut at terminations and at `length` rows; there may be none.

    Truncations are not looked at, and what comes after the last cut belongs to no episode. Where a
    data set lacks the row of every timeout, an episode that timed out after `length` steps has one
    row less than that, and cuts drift by a row per such episode.
    """
    starts: list[int] = []
    start = 0
    for end in [*(np.flatnonzero(data.terminations) + 1), len(data.terminations)]:
        starts += range(start, end, length)
        start = end
    lengths = np.diff([*starts, len(data.terminations)])
    if not data.terminations[-1] and lengths[-1] < length:
        starts, lengths = starts[:-1], lengths[:-1]
    return np.array(starts, dtype=np.int64), lengths


def joined_episodes(data: Transitions) -> Episodes:
    """Episodes of rows that follow from one another, whatever the truncations say.

    One ends at a termination, where the next observation is not the next row's, or at the last row.
    """
    jumps = np.abs(data.observations[1:] - data.next_observations[:-1]).max(1) > 1e-6
    ends = np.append(jumps | (data.terminations[:-1] > 0), True)
    starts = np.flatnonzero(np.append(True, ends[:-1]))
    return starts, np.diff([*starts, len(ends)])


def _check_divisor(value: float, what: str, setting: str) -> None:
    if value == 0:
        raise InputError(
            f"{setting} divides by {what}, which is 0 in this data set; use reward = 'raw'"
        )
