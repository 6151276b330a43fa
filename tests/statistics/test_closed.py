import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from offrl.statistics.closed import (
    MOST_WHOLE,
    adjusted_of_neighbours,
    adjusted_of_pairs,
    closed_p,
    most_disjoint,
    p_of_all_sets,
    p_of_neighbours,
)
from offrl.statistics.permutations import Runs, Set, set_p


def partitions(members: list[int]) -> Iterator[list[list[int]]]:
    """Every way to divide algorithms into blocks."""
    if not members:
        yield []
        return
    first, rest = members[0], members[1:]
    for size in range(len(members)):
        for others in itertools.combinations(rest, size):
            left = [k for k in rest if k not in others]
            for more in partitions(left):
                yield [[first, *others], *more]


def by_hand(p: Any, count: int, *, neighbours: bool = False) -> Any:
    """Adjusted p by the definition: the largest p of the hypotheses that a pair is equal in."""
    adjusted = np.zeros((count, count))
    for blocks in partitions([*range(count)]):
        several = [block for block in blocks if len(block) > 1]
        if neighbours and any(block[-1] - block[0] >= len(block) for block in several):
            continue
        number = sum(map(len, several))
        whole = [p[sum(1 << k for k in block)] * number / len(block) for block in several]
        for block in several:
            for i, j in itertools.permutations(block, 2):
                adjusted[i, j] = max(adjusted[i, j], min(1, *whole))
    return adjusted + np.eye(count)


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_adjusted_p_are_the_largest_of_all_hypotheses(count):
    rng = np.random.default_rng(count)
    p = rng.random((2**count, 3)) ** 4
    found = adjusted_of_pairs(p)
    for k in range(3):
        np.testing.assert_allclose(found[..., k], by_hand(p[:, k], count), rtol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_adjusted_p_of_neighbours_are_those_of_their_hypotheses(count):
    rng = np.random.default_rng(count)
    grid, p = np.zeros((count, count)), np.zeros(2**count)
    for i, j in itertools.combinations(range(count), 2):
        grid[i, j] = p[sum(1 << k for k in range(i, j + 1))] = rng.random() ** 4
    expected = by_hand(p, count, neighbours=True)
    np.testing.assert_allclose(adjusted_of_neighbours(grid), expected, rtol=1e-12)


def algorithms(shifts: Any, tasks: int = 2, runs: int = 5) -> list[Runs]:
    rng = np.random.default_rng(0)
    return [Runs([*rng.normal(shift, 1, (tasks, runs))]) for shift in shifts]


def test_one_pair_needs_no_correction_and_two_pairs_twice_their_p():
    two = algorithms((0, 1))
    (p,) = set_p([Set(two)], 1_000, 0)
    assert closed_p(two, 1_000, 0)[0, 1] == p
    # Two pairs far from each other: either both are equal or one is.
    four = algorithms((0, 0.9, 90, 91))
    p = set_p([Set(four[:2]), Set(four[2:])], 1_000, 0)
    adjusted = closed_p(four, 1_000, 0)
    assert adjusted[0, 1] == max(p[0], 2 * min(p))
    assert adjusted[2, 3] == max(p[1], 2 * min(p))
    assert adjusted[0, 2] <= 0.02
    assert [most_disjoint(n, False) for n in (2, 3, 4, 5)] == [1, 1, 2, 2]
    assert most_disjoint(9, True) == 1


def test_a_baseline_is_told_apart_where_all_sets_with_it_are():
    five = algorithms((0, 0.3, 1, 2, -2))
    p = p_of_all_sets(five, 1_000, 0, baseline=True)
    adjusted = closed_p(five, 1_000, 0, baseline=True)
    for k in range(1, 5):
        sets = [place for place in range(32) if place & 1 and place >> k & 1]
        assert adjusted[0, k] == max(p[place] for place in sets)
    assert adjusted[0, 3] < 0.05 < adjusted[0, 1]
    assert (p[::2] == 0).all()


@pytest.mark.parametrize("baseline", [False, True])
def test_many_algorithms_are_those_of_few_up_to_their_permutations(baseline):
    # The same table as a whole and by neighbours: the pool of the joint permutations is wider.
    shifts = (0, 0.2, 3, 3.1, 6, 9)
    few = algorithms(shifts, tasks=4)
    whole = closed_p(few, 2_000, 0, baseline=baseline)
    far = [*few, *algorithms(50 + 3.0 * np.arange(MOST_WHOLE), tasks=4)]
    many = closed_p(far, 2_000, 0, baseline=baseline)
    assert many.shape == (len(far), len(far))
    for i, j in itertools.combinations(range(len(few)), 2):
        if not baseline or i == 0:
            assert (whole[i, j] <= 0.05) == (many[i, j] <= 0.05)
            assert many[i, j] == many[j, i]
    np.testing.assert_array_equal(many, closed_p(far, 2_000, 0, baseline=baseline))


def test_neighbours_have_the_p_of_their_sets_where_these_are_all():
    five = algorithms((0, 0, 0, 0, 0))
    order = np.argsort([x.means.mean() for x in five])
    in_order = [five[k] for k in order]
    (expected,) = set_p([Set(in_order)], 10_000, 0)
    assert p_of_neighbours(in_order, 10_000, 0)[0, 4] == pytest.approx(expected, abs=0.15)
