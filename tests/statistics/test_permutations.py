import itertools
from typing import Any

import numpy as np
import pytest
import scipy.stats

from offrl.statistics.permutations import LISTED, Runs, Set, permutation_count, set_p


def far(x: Any, y: Any) -> float:
    """How far apart two algorithms are, word by word; runs by data set."""
    n_x, n_y = ([len(cell) for cell in cells] for cells in (x, y))
    v_x, v_y = (
        sum(np.var(cell, ddof=1) / len(cell) for cell in cells) / len(cells) ** 2
        for cells in (x, y)
    )
    difference = abs(np.mean([np.mean(a) - np.mean(b) for a, b in zip(x, y, strict=True)]))
    if v_x + v_y < 1e-20:
        return np.inf if difference > 1e-9 else 0
    df = (v_x + v_y) ** 2 / (v_x**2 / sum(n - 1 for n in n_x) + v_y**2 / sum(n - 1 for n in n_y))
    t = difference / np.sqrt(v_x + v_y)
    return float((8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log(1 + t**2 / df)))


def furthest(algorithms: Any) -> float:
    return max(far(x, y) for x, y in itertools.combinations(algorithms, 2))


def deals(pool: list[float], sizes: list[int]) -> Any:
    """Every way to hand out runs."""
    if not sizes:
        yield []
        return
    for first in itertools.combinations(range(len(pool)), sizes[0]):
        rest = [value for k, value in enumerate(pool) if k not in first]
        for others in deals(rest, sizes[1:]):
            yield [[pool[k] for k in first], *others]


def counted(algorithms: list[list[list[float]]]) -> tuple[float, int]:
    """P by counting every permutation, and their number."""
    tasks = [
        [*deals([v for cell in task for v in cell], [len(cell) for cell in task])]
        for task in zip(*algorithms, strict=True)
    ]
    values = [furthest([*zip(*dealt, strict=True)]) for dealt in itertools.product(*tasks)]
    return float(np.mean(np.array(values) >= furthest(algorithms) * (1 - 1e-9))), len(values)


def set_of(algorithms: Any, fixed: int = 0) -> Set:
    return Set([Runs([np.array(cell, float) for cell in cells]) for cells in algorithms], fixed)


@pytest.mark.parametrize(
    "algorithms",
    [
        [[[1.0, 5, 7], [2.0, 9]], [[4.0, 6], [0.0, 3, 8]]],  # 100 ways
        [[[1.0, 2]], [[4.0, 5.5]], [[3.0, 8]]],  # 90
        [[[1.0, 1, 1]], [[1.0, 2]], [[2.0, 2]]],  # 210, many without spread
    ],
)
def test_few_permutations_are_all_counted(algorithms):
    expected, ways = counted(algorithms)
    members = set_of(algorithms)
    assert permutation_count(members.shape) == ways
    for seed in (0, 1):
        assert set_p([members], 10_000, seed) == [expected]
    assert 0 < expected < 1
    # Several sets at once go another way to the same numbers.
    np.testing.assert_array_equal(set_p([members] * 5, 10_000, 0), [expected] * 5)
    drawn = set_p([members], 10_000 if ways > LISTED else ways - 1, 0)[0]
    assert drawn == pytest.approx(expected, abs=5 * np.sqrt(expected / 50))


def test_drawn_permutations_agree_with_scipy():
    rng = np.random.default_rng(5)
    x, y = rng.normal(0, 1, 12), rng.normal(2.5, 3, 9)

    def statistic(a: Any, b: Any, axis: int) -> Any:
        n, m = a.shape[axis], b.shape[axis]
        v, w = a.var(axis=axis, ddof=1) / n, b.var(axis=axis, ddof=1) / m
        t = (a.mean(axis=axis) - b.mean(axis=axis)) / np.sqrt(v + w)
        df = (v + w) ** 2 / (v**2 / (n - 1) + w**2 / (m - 1))
        return np.sign(t) * scipy.stats.norm.isf(scipy.stats.t.sf(np.abs(t), df))

    expected = scipy.stats.permutation_test(
        (x, y), statistic, vectorized=True, n_resamples=20_000, rng=1
    ).pvalue
    members = set_of([[x], [y]])
    p = [set_p([members], 20_000, seed)[0] for seed in range(4)]
    assert 0.05 < expected < 0.6
    # 2,000 permutations or more each.
    assert p == pytest.approx(
        [expected] * 4, abs=5 * float(np.sqrt(expected * (1 - expected) / 500))
    )
    assert len({*p}) > 1


def test_against_the_first_alone():
    algorithms = [[[2.5, 3.0]], [[1.0, 2.9]], [[4.0, 5.5]]]
    values = [
        max(far(dealt[0], other) for other in dealt[1:])
        for dealt in ([[cell] for cell in way] for way in deals([1, 2.5, 2.9, 3, 4, 5.5], [2] * 3))
    ]
    observed = max(far(algorithms[0], other) for other in algorithms[1:])
    expected = np.mean(np.array(values) >= observed * (1 - 1e-9))
    members = set_of(algorithms, fixed=1)
    assert set_p([members], 1_000, 0, first=True)[0] == expected
    assert set_p([members], 1_000, 0)[0] != expected


def test_p_is_uniform_under_one_law_however_heavy_its_tails():
    rng = np.random.default_rng(2)
    scores = rng.standard_t(1, (1_000, 3, 2, 3))
    p = set_p([Set([Runs(x) for x in suite]) for suite in scores], 199, 0)
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 1_000))


def test_runs_without_spread():
    constant = [[[50.0] * 5], [[50.5] * 5]]
    assert set_p([set_of(constant)], 10_000, 0)[0] == 2 / 252
    assert set_p([set_of([constant[0]] * 3)], 500, 0)[0] == 1
    # Up to rounding: the mean of three times 0.1 is not 0.1.
    assert set_p([set_of([[[0.1] * 3, [7.0] * 3], [[0.1] * 3, [7.0] * 3]])], 10_000, 0)[0] == 1


def test_neither_the_unit_nor_the_zero_of_scores_matters():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 9, (3, 2, 4)).astype(float)
    expected = set_p([set_of(scores)], 2_000, 0)[0]
    for factor, shift in ((1e-70, 0), (1e70, 0), (0.1, 300), (3, -1e6)):
        assert set_p([set_of(scores * factor + shift)], 2_000, 0)[0] == expected


def test_orders_of_algorithms_data_sets_and_runs_do_not_matter():
    rng = np.random.default_rng(4)
    cells = [[rng.normal(size=n) for n in sizes] for sizes in ((3, 4, 3), (5, 3, 3), (3, 3, 4))]
    expected = set_p([set_of(cells)], 2_000, 0)[0]
    for _ in range(5):
        tasks = rng.permutation(3)
        moved = [[rng.permutation(cells[k][t]) for t in tasks] for k in rng.permutation(3)]
        assert set_p([set_of(moved)], 2_000, 0)[0] == expected


def test_a_set_has_the_same_p_beside_others():
    rng = np.random.default_rng(5)
    sets = [set_of(rng.normal(k / 9, 1, (3, 2, 4))) for k in range(9)]
    alone = [set_p([one], 1_500, 0)[0] for one in sets]
    np.testing.assert_array_equal(set_p(sets, 1_500, 0), alone)
