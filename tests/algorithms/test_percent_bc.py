"""Which trajectories 10% BC keeps, by both filters and both splits."""

from typing import Any

import numpy as np
import pytest

from offrl.algorithms.percent_bc import PercentBC, PercentBCConfig
from offrl.data.transitions import Transitions
from offrl.errors import InputError


def rows(
    rewards: list[float] | np.ndarray,
    terminations: list[int] | None = None,
    truncations: list[int] | None = None,
) -> Transitions:
    """Data of which each row's observation is its number; flags name rows."""
    count = len(rewards)
    numbers = np.arange(count, dtype=np.float32)[:, None]
    flags = np.zeros((2, count), np.float32)
    flags[0, terminations or []] = 1
    flags[1, truncations or []] = 1
    return Transitions(
        numbers, numbers, np.asarray(rewards, np.float32), numbers + 1, flags[0], flags[1]
    )


def kept(data: Transitions, **changes: Any) -> list[int]:
    """The numbers of the rows that are kept, in order."""
    prepared = PercentBC.prepare(data, PercentBCConfig(**changes))
    assert np.array_equal(prepared.actions, prepared.observations)
    return [int(number) for number in prepared.observations[:, 0]]


# Five trajectories of 1, 4, 2, 1 and 2 rows with returns 5, 8, 7, 1 and 0.
UNEQUAL = rows([5, 2, 2, 2, 2, 3, 4, 1, 0, 0], terminations=[0, 4, 7], truncations=[6])


def test_the_two_filters_count_trajectories_or_timesteps() -> None:
    """0.6 is 3 of 5 trajectories; or 6 of 10 steps, which the best two, of 4 and 2, fill."""
    assert kept(UNEQUAL, fraction=0.6) == [1, 2, 3, 4, 5, 6, 0]
    assert kept(UNEQUAL, fraction=0.6, filter="timesteps") == [1, 2, 3, 4, 5, 6]


def test_timesteps_end_at_the_first_trajectory_that_does_not_fit() -> None:
    """Of 5 steps the best takes 4; the second has 2, and the third's 1 would fit but is not asked.

    The best is kept even where it alone has too many.
    """
    assert kept(UNEQUAL, fraction=0.5, filter="timesteps") == [1, 2, 3, 4]
    assert kept(UNEQUAL, fraction=0.7, filter="timesteps") == [1, 2, 3, 4, 5, 6, 0]
    assert kept(UNEQUAL, fraction=0.1, filter="timesteps") == [1, 2, 3, 4]


def test_a_fraction_of_less_than_one_trajectory_keeps_the_best() -> None:
    assert kept(UNEQUAL, fraction=0.1) == [1, 2, 3, 4]
    assert kept(UNEQUAL, fraction=0.39) == [1, 2, 3, 4]  # 1.95 of 5 is 1
    assert kept(UNEQUAL, fraction=0.4) == [1, 2, 3, 4, 5, 6]


def test_a_fraction_of_one_keeps_all_the_best_first() -> None:
    order = [1, 2, 3, 4, 5, 6, 0, 7, 8, 9]
    assert kept(UNEQUAL, fraction=1.0) == order
    assert kept(UNEQUAL, fraction=1.0, filter="timesteps") == order


def test_returns_are_discounted_from_the_start_of_the_trajectory() -> None:
    """Undiscounted 8 > 7 > 5; with gamma of a half 3.75 < 5 and 3 + 4 / 2 = 5: a tie."""
    assert kept(UNEQUAL, fraction=0.2, gamma=0.5) == [5, 6]
    assert kept(UNEQUAL, fraction=0.6, gamma=0.5) == [5, 6, 0, 1, 2, 3, 4]


def test_of_equal_returns_the_later_comes_first() -> None:
    """Forty of them, more than the sixteen up to which numpy's default sort keeps the order."""
    ties = rows([1.0] * 40, terminations=list(range(40)))
    assert kept(ties, fraction=0.1) == [39, 38, 37, 36]


def test_corls_split_drifts_by_a_row_per_timed_out_episode() -> None:
    """Three episodes of 999 rows. CORL's first has one row of the second, its second two of the
    third, and the last 997 rows are unfinished.
    """
    rewards = np.zeros(2997)
    rewards[999] = 5  # the first row of the second episode, to CORL the last of its first
    rewards[1998] = 3  # the first row of the third episode, to CORL the second's
    data = rows(rewards, truncations=[998, 1997, 2996])
    assert kept(data, fraction=0.4) == list(range(999, 1998))
    assert kept(data, fraction=0.4, split="corl") == list(range(1000))
    # What is unfinished counts neither as a trajectory nor as steps.
    assert kept(data, fraction=1.0, split="corl") == list(range(2000))
    assert len(kept(data, fraction=1.0)) == 2997
    assert kept(data, fraction=0.6, filter="timesteps", split="corl") == list(range(1000))


def test_corls_split_ends_at_terminations_and_starts_to_count_anew() -> None:
    """A termination at row 299, one with the thousandth row after it, and one on the last row."""
    data = rows(np.arange(2500), terminations=[299, 1299, 2499], truncations=[700])
    cut = [range(2300, 2500), range(1300, 2300), range(300, 1300), range(300)]
    by_return = sorted(cut, key=sum, reverse=True)
    expected = [row for piece in by_return for row in piece]
    assert kept(data, fraction=1.0, split="corl") == expected
    assert by_return[0] == range(1300, 2300)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 10.0])
def test_a_fraction_that_is_no_share_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=f"fraction = {fraction}"):
        kept(UNEQUAL, fraction=fraction)


def test_data_without_a_whole_trajectory_of_corls_are_refused() -> None:
    with pytest.raises(InputError, match="999 rows have neither"):
        kept(rows(np.ones(999), truncations=[499]), split="corl")
    assert len(kept(rows(np.ones(1000)), split="corl")) == 1000
