"""Returns by hand, where episodes end by either rule, and what rewards become."""

from dataclasses import replace

import numpy as np
import pytest

from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning import rewards


def rewarded(
    paid: np.ndarray | list[float], terminations: list[int], length: int | None = None
) -> Transitions:
    """Data in episodes of `length` rows, where alone the next observation is not the next row's."""
    rows = len(paid)
    numbers = np.arange(rows, dtype=np.float32)[:, None]
    cut = (np.arange(rows) % (length or rows) == (length or rows) - 1)[:, None]
    flags = np.zeros(rows, np.float32)
    flags[terminations] = 1
    none = np.zeros(rows, np.float32)
    paid = np.asarray(paid, np.float32)
    return Transitions(numbers, numbers, paid, numbers + 1 + cut, flags, none)


def range_cut_at(length: int, data: Transitions) -> float:
    return rewards.return_range(data, rewards.cut_episodes(data, length))


def test_joined_episodes_end_where_the_next_observation_is_not_the_next_row() -> None:
    observations = np.array([[0], [1], [5], [6], [9]], np.float32)
    data = Transitions(
        observations,
        np.zeros((5, 1), np.float32),
        np.array([1, 2, 10, 20, -4], np.float32),
        np.array([[1], [2], [6], [9], [10]], np.float32),
        np.array([0, 0, 0, 1, 0], np.float32),
        np.array([0, 1, 0, 0, 1], np.float32),
    )
    starts, lengths = rewards.joined_episodes(data)
    assert starts.tolist() == [0, 2, 4]
    assert lengths.tolist() == [2, 2, 1]
    # of returns 3, 30 and -4
    assert rewards.return_range(data, (starts, lengths)) == 30 - -4


def test_returns_are_cut_at_terminations_and_at_so_many_rows() -> None:
    """1000 rows of 1, then 500 of 2 that terminate, then 1000 of 3 and 999 that do not count."""
    paid = np.repeat([1.0, 2.0, 3.0, 9.0], [1000, 500, 1000, 999])
    assert range_cut_at(1000, rewarded(paid, [1499])) == 3000 - 1000


@pytest.mark.parametrize(
    ("length", "starts", "lengths"),
    [(4, [0, 4, 5], [4, 1, 4]), (5, [0, 5], [5, 5]), (7, [0], [5]), (1, [*range(11)], [1] * 11)],
)
def test_what_comes_after_the_last_cut_belongs_to_no_episode(
    length: int, starts: list[int], lengths: list[int]
) -> None:
    """Eleven rows, of which the fifth terminates."""
    cut = rewards.cut_episodes(rewarded(np.zeros(11), [4]), length)
    assert [part.tolist() for part in cut] == [starts, lengths]


def test_a_cut_drifts_by_a_row_per_timed_out_episode() -> None:
    """Four episodes of 999 rows with returns 5, 7, 2 and 100, paid in the first row of each.

    The first thousand rows have the first two payments, 12; the second the third, 2; the third the
    fourth, 100; the last 996 rows are unfinished and count for nothing.
    """
    paid = np.zeros(3996)
    paid[[0, 999, 1998, 2997]] = [5, 7, 2, 100]
    drifting = rewarded(paid, [], 999)
    assert rewards.return_range(drifting, rewards.joined_episodes(drifting)) == 98
    assert range_cut_at(1000, drifting) == 98
    paid[2997:] = 0
    paid[3000] = 100  # in the unfinished rest
    assert range_cut_at(1000, rewarded(paid, [], 999)) == 12
    assert range_cut_at(1000, rewarded(paid, [3995], 999)) == 100  # a termination finishes it


def test_rewards_are_shifted_scaled_and_standardised() -> None:
    data = rewarded([1, 2, 3, 6], [3])
    assert rewards.shifted(data, -1).rewards.tolist() == [0, 1, 2, 5]
    assert rewards.scaled(data, 100).rewards.tolist() == [100, 200, 300, 600]
    standardised = rewards.standardised(data, "x: reward = 'standardised'").rewards
    np.testing.assert_allclose(standardised, (np.array([1, 2, 3, 6]) - 3) / np.sqrt(3.5))
    for changed in (rewards.shifted(data, -1).rewards, rewards.scaled(data, 2).rewards):
        assert changed.dtype == standardised.dtype == np.float32
    assert data.rewards.tolist() == [1, 2, 3, 6]


def test_returns_range_over_1000_after_scaling() -> None:
    """Returns of 3 and 8 range over 5."""
    data = rewarded([1, 2, 3, 5], [1, 3])
    scaled = rewards.to_return_range(data, data.episodes(), "x: reward = 'return range'")
    np.testing.assert_allclose(scaled.rewards, [200, 400, 600, 1000])


def test_rewards_that_cannot_be_divided_are_an_error_that_names_the_setting() -> None:
    """Where all rewards or all returns are the same, and where there is no episode."""
    flat = rewarded([1, 1, 1, 1], [1, 3])
    with pytest.raises(InputError, match=r"^x: reward = 'a' divides by the rewards' standard dev"):
        rewards.standardised(flat, "x: reward = 'a'")
    unfinished = replace(flat, terminations=np.zeros(4, np.float32))
    for data in (flat, unfinished):
        with pytest.raises(InputError, match=r"^x: reward = 'b' divides by the spread of returns"):
            rewards.to_return_range(data, rewards.cut_episodes(data, 5), "x: reward = 'b'")
