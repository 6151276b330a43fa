"""How often verdicts err and conclude, simulated; what docs/statistics.md quotes.

A hypothesis divides the algorithms into blocks of equal ones, as `offrl.statistics.closed` says. A
closed test calls two equal algorithms different only where it rejects the hypothesis that is true,
so that the rate of that bounds the error from above, wherever the blocks lie.

A run of these tests draws 400 suites; `pytest -m nightly -s` draws 4,000 and prints the rates with
their standard errors. A bound on errors is met where the rate less two of these is below it, a
power where the rate plus two is above.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from simulated import MEANS, POPULATIONS

from offrl.statistics.closed import adjusted_of_pairs, closed_p
from offrl.statistics.pairs import equivalence_p
from offrl.statistics.permutations import Moments, Runs, pooled_p
from offrl.statistics.significance import holm

FEW, MANY = 400, 4_000  # suites
PERMUTATIONS = 500
Cells = Sequence[Sequence[Any]]  # by data set and algorithm the scores, shape (suites, runs)


def p_of(cells: Cells, permutations: int = PERMUTATIONS) -> Any:
    """P of a set of algorithms in each suite."""
    shape = tuple(tuple(x.shape[1] for x in task) for task in cells)
    size = max(np.abs(x).max() for task in cells for x in task)
    runs = np.array(shape, dtype=float).T[..., None]
    means = np.array(
        [[x.mean(axis=1) for x in algorithm] for algorithm in zip(*cells, strict=True)]
    )
    spread = np.array(
        [[x.var(axis=1, ddof=1) for x in algorithm] for algorithm in zip(*cells, strict=True)]
    )
    observed = Moments(
        means.mean(axis=1) / size,
        (spread / runs).sum(axis=1) / (size * len(shape)) ** 2,
        (runs - 1).sum(axis=1),
    )
    pools = [np.concatenate(task, axis=1) / size for task in cells]
    return pooled_p(pools, observed, shape, permutations, 0)


def drawn(
    algorithms: Sequence[tuple[str, int, float]], tasks: int, suites: int, seed: int
) -> list[list[Any]]:
    """Scores about a mean of 0 of algorithms, each given by its law, runs and spread."""
    rng = np.random.default_rng(seed)
    return [
        [
            spread * (POPULATIONS[law](rng, (suites, runs)) - MEANS.get(law, 0))
            for law, runs, spread in algorithms
        ]
        for _ in range(tasks)
    ]


def rejected(cells: Cells, blocks: Sequence[Sequence[int]]) -> tuple[float, float]:
    """How often the hypothesis of these blocks is rejected, and the standard error."""
    number = sum(map(len, blocks))
    p = [p_of([[t[k] for k in block] for t in cells]) * number / len(block) for block in blocks]
    return rate(np.min(p, axis=0) <= 0.05)


def rate(events: Any) -> tuple[float, float]:
    """Their share and its standard error; suites are the last axis, which are independent."""
    shares = np.asarray(events, dtype=float)
    shares = shares.reshape(-1, shares.shape[-1]).mean(axis=0)
    return float(shares.mean()), float(shares.std(ddof=1) / np.sqrt(len(shares)))


def all_sets(cells: Cells, permutations: int) -> Any:
    """P of every set of algorithms in each suite, as `adjusted_of_pairs` takes them."""
    count, suites = len(cells[0]), len(cells[0][0])
    p = np.zeros((2**count, suites))
    for place in range(2**count):
        members = [k for k in range(count) if place >> k & 1]
        if len(members) > 1:
            p[place] = p_of([[task[k] for k in members] for task in cells], permutations)
    return p


def neighbours(suites: int, algorithms: int, runs: int, tasks: int, distance: float) -> Any:
    """Whether each two neighbours are told apart, shape (L - 1, suites)."""
    rng = np.random.default_rng(1)
    told = []
    for first in range(0, suites, 100):
        drawn = min(100, suites - first)
        cells = [
            [rng.normal(distance * k, 1, (drawn, runs)) for k in range(algorithms)]
            for _ in range(tasks)
        ]
        adjusted = adjusted_of_pairs(all_sets(cells, PERMUTATIONS // 2))
        told.append([adjusted[k, k + 1] <= 0.05 for k in range(algorithms - 1)])
    return np.concatenate(told, axis=1)


# Laws, runs and spreads of six algorithms, of which one of the following may be equal.
BLOCKS = {"all equal": [range(6)], "three and two": [range(3), range(3, 5)]}
UNEQUAL = {
    "2, spreads 1 and 3, 3 seeds": [("normal", 3, 1), ("normal", 3, 3)],
    "2, spreads 1 and 5, 5 seeds": [("normal", 5, 1), ("normal", 5, 5)],
    "2, 10 seeds, and 3 with spread 5": [("normal", 10, 1), ("normal", 3, 5)],
    "2, normal and collapsing, 5 seeds": [("normal", 5, 1), ("collapse", 5, 1)],
    "4, spreads 1, 1, 5 and 5, 5 seeds": [("normal", 5, s) for s in (1, 1, 5, 5)],
    "4, 10 seeds, and 3 with spread 5": [("normal", 10, 1)] * 2 + [("normal", 3, 5)] * 2,
    "6, spreads 1 to 6, 5 seeds": [("normal", 5, s) for s in range(1, 7)],
    "6, normal and collapsing, 5 seeds": [("normal", 5, 1), ("collapse", 5, 1)] * 3,
}
TASKS = 9


def check_one_law(law: str, runs: int, blocks: str, suites: int) -> None:
    cells = drawn([(law, runs, 1)] * 6, TASKS, suites, 1)
    share, error = rejected(cells, BLOCKS[blocks])
    print(law, runs, blocks, f"{share:.4f} +- {error:.4f}")  # noqa: T201
    assert share - 2 * error <= 0.055


def check_unequal(case: str, suites: int) -> None:
    cells = drawn(UNEQUAL[case], TASKS, suites, 2)
    share, error = rejected(cells, [range(len(UNEQUAL[case]))])
    print(case, f"{share:.4f} +- {error:.4f}")  # noqa: T201
    assert share - 2 * error <= 0.07


@pytest.mark.parametrize(("law", "runs"), [("t3", 3), ("lognormal", 5), ("collapse", 5)])
def test_equal_algorithms_are_not_told_apart(law, runs):
    check_one_law(law, runs, "three and two", FEW)


@pytest.mark.parametrize("case", [*UNEQUAL][2:5])
def test_unequal_spreads_and_numbers_of_runs_tell_nothing_apart(case):
    check_unequal(case, FEW)


@pytest.mark.nightly
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize("law", POPULATIONS)
def test_equal_algorithms_are_not_told_apart_in_full(law, runs, blocks):
    check_one_law(law, runs, blocks, MANY)


@pytest.mark.nightly
@pytest.mark.parametrize("case", UNEQUAL)
def test_unequal_spreads_and_numbers_of_runs_tell_nothing_apart_in_full(case):
    check_unequal(case, MANY)


def check_power(case: Any, least: float, suites: int) -> None:
    share, error = rate(neighbours(suites, *case))
    print(case, f"{share:.4f} +- {error:.4f}")  # noqa: T201
    assert share + 2 * error >= least


# Algorithms, seeds and data sets, and the distance of neighbours in standard deviations of a run.
SIX: Any = (6, 5, 1, 3.0)
TEN: Any = (10, 3, 9, 1.0)


def test_six_algorithms_on_one_data_set_are_told_apart():
    check_power(SIX, 0.85, FEW)


def test_ten_algorithms_on_nine_data_sets_are_told_apart():
    check_power(TEN, 0.70, 20)


@pytest.mark.nightly
@pytest.mark.parametrize(("case", "least"), [(SIX, 0.85), (TEN, 0.70)])
def test_algorithms_are_told_apart_in_full(case, least):
    check_power(case, least, MANY)


def errors_beyond_all_sets(law: str, groups: Sequence[int], distance: float, suites: int) -> Any:
    """Whether any two of a group are told apart, of more algorithms than have all sets tested.

    And whether any of the first group is told apart from the first algorithm, a baseline; shape
    (2, suites). Groups stand at a distance from each other; 5 runs on 3 data sets.
    """
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(len(groups)), groups)
    equal = group[:, None] == group
    np.fill_diagonal(equal, False)
    told = []
    for suite in range(suites):
        scores = POPULATIONS[law](rng, (len(group), 3, 5)) + distance * group[:, None, None]
        runs = [Runs(x) for x in scores]
        adjusted = closed_p(runs, PERMUTATIONS, suite)
        with_first = closed_p(runs, PERMUTATIONS, suite, baseline=True)[0]
        told.append(
            [(p[same] <= 0.05).any() for p, same in ((adjusted, equal), (with_first, equal[0]))]
        )
    return np.array(told).T


LARGE = [
    ("normal", (14,), 0),
    ("normal", (7, 7), 1),
    ("normal", (5, 5, 4), 20),
    ("normal", (2,) * 7, 3),
    ("lognormal", (5, 5, 4), 3),
    ("collapse", (5, 5, 4), 3),
    ("2 t2", (5, 5, 4), 3),
]


def check_large(law: str, groups: Sequence[int], distance: float, suites: int) -> None:
    for kind, told in zip(
        ("all pairs", "baseline"),
        errors_beyond_all_sets(law, groups, distance, suites),
        strict=True,
    ):
        share, error = rate(told)
        print(law, groups, distance, kind, f"{share:.4f} +- {error:.4f}")  # noqa: T201
        assert share - 2 * error <= 0.055


def test_more_algorithms_than_have_all_sets_tested_err_no_more():
    check_large("collapse", (5, 5, 4), 3, 100)


@pytest.mark.nightly
@pytest.mark.parametrize(("law", "groups", "distance"), LARGE)
def test_more_algorithms_than_have_all_sets_tested_err_no_more_in_full(law, groups, distance):
    check_large(law, groups, distance, MANY)


def check_far_and_tight(suites: int) -> None:
    """Three equal algorithms that spread, on one data set, and ten that are far away and do not."""
    rng = np.random.default_rng(5)
    told = []
    for suite in range(suites):
        spread = rng.normal(0, 5, (3, 1, 5))
        tight = rng.normal(40 + 3 * np.arange(10)[:, None, None], 0.1, (10, 1, 5))
        adjusted = closed_p([Runs(x) for x in (*spread, *tight)], PERMUTATIONS, suite)
        told.append((adjusted[:3, :3] <= 0.05).any())
    share, error = rate(np.array(told))
    print("three spread, ten far and tight", f"{share:.4f} +- {error:.4f}")  # noqa: T201
    assert share - 2 * error <= 0.055


def test_algorithms_that_are_far_away_tell_equal_ones_apart_no_more():
    check_far_and_tight(300)


@pytest.mark.nightly
def test_algorithms_that_are_far_away_tell_equal_ones_apart_no_more_in_full():
    check_far_and_tight(MANY)


def equivalent(
    law: str, spreads: Sequence[float], margin: float, suites: int, apart: float = 1
) -> Any:
    """Whether any two that are a margin apart are called equivalent: two groups, 9 data sets.

    Args:
        law: of all scores; its mean is moved to 0.
        spreads: of the algorithms, one half of them in each group; 5 runs each.
        margin: of equivalence.
        suites: how many are drawn.
        apart: how far apart the groups are, in margins.
    """
    rng = np.random.default_rng(4)
    half = len(spreads) // 2
    pairs = np.array([(i, j) for j in range(len(spreads)) for i in range(j)])
    across = (pairs[:, 0] < half) != (pairs[:, 1] < half)
    scores = POPULATIONS[law](rng, (suites, len(spreads), TASKS, 5)) - MEANS.get(law, 0)
    scores *= np.array(spreads)[:, None, None]
    scores[:, half:] += apart * margin
    means, parts = scores.mean(axis=(2, 3)), scores.var(axis=3, ddof=1) / 5 / TASKS**2
    p = equivalence_p(
        means[:, pairs[:, 0]] - means[:, pairs[:, 1]],
        np.concatenate([parts[:, pairs[:, k]] for k in (0, 1)], axis=2),
        np.full(2 * TASKS, 5),
        margin,
    )
    return ((np.array([*map(holm, p)]) <= 0.05) & across).T


EQUIVALENCE = [(law, (1,) * 4) for law in POPULATIONS] + [("normal", (1, 5, 1, 5))]


def check_equivalence(law: str, spreads: Sequence[float], suites: int) -> None:
    share, error = rate(equivalent(law, spreads, 2, suites).any(axis=0))
    print(law, spreads, f"{share:.4f} +- {error:.4f}")  # noqa: T201
    assert share - 2 * error <= (0.055 if len({*spreads}) == 1 else 0.07)


def test_what_differs_by_the_margin_is_not_called_equivalent():
    check_equivalence("lognormal", (1,) * 4, FEW)
    # And what is equal is, where the margin is wide: four standard errors of the difference.
    share, error = rate(equivalent("normal", (1, 1), 4 * np.sqrt(2 / 45), FEW, apart=0))
    assert share + 2 * error >= 0.95


@pytest.mark.nightly
@pytest.mark.parametrize(("law", "spreads"), EQUIVALENCE)
def test_what_differs_by_the_margin_is_not_called_equivalent_in_full(law, spreads):
    check_equivalence(law, spreads, MANY)
