"""Two algorithms on the same data sets, with A > B read as "x scores more than y".

- P(X > Y), probability of improvement: the mean over data sets of the probability that a run of x
  scores more than a run of y, ties counting one half (Agarwal et al. 2021, equation 2);
- the difference of their IQMs, and that of their means over data sets;
- p of two one-sided t tests that the means differ by less than a margin (Schuirmann 1987), with
  Welch's standard error and Satterthwaite's degrees of freedom;
- how many seeds would tell.
"""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from offrl.errors import InputError, unknown
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Interval
from offrl.statistics.metrics import Tasks, canonical, iqm, mean, variances_of

POWER = 0.8  # of the tests with the number of seeds that a verdict names
SEEDS = np.unique(np.geomspace(2, 100_000, 400).round().astype(int))
PAIRS = (
    "x",
    "y",
    "probability",
    "probability_low",
    "probability_high",
    "difference",
    "difference_low",
    "difference_high",
    "mean_difference",
    "p",
    "p_adjusted",
    "p_equivalent",
    "verdict",
    "seeds",
    "n_x",
    "n_y",
    "n_tasks",
    "reps",
    "probability_error",
    "difference_error",
)


def probability_of_improvement(x: Sequence[Array], y: Sequence[Array]) -> float:
    """P(X > Y): mean over tasks of the share of pairs of runs with x above y, ties one half.

    Args:
        x: one array of runs per task.
        y: the same tasks in the same order.
    """
    return float(np.mean([_above(a, b).mean() for a, b in zip(x, y, strict=True)]))


class Pair:
    """Two algorithms on the same data sets, in an order that no name decides.

    `x` and `y` are sorted runs per task, `turned` if they stand the other way round than given:
    resamples of the one come from a first stream and of the other from a second.
    """

    def __init__(self, x: Tasks, y: Tasks):
        tasks = [(np.sort(x[task]), np.sort(y[task])) for task in x]
        mine, other = (canonical([task[k] for task in tasks]) for k in (0, 1))
        keys = [
            (cells_key(side), sorted(tuple(map(tuple, task[::step])) for task in tasks))
            for side, step in ((mine, 1), (other, -1))
        ]
        self.turned = keys[0] > keys[1]
        if self.turned:
            tasks = [task[::-1] for task in tasks]
            mine, other = other, mine
        tasks.sort(key=lambda task: (len(task[0]), len(task[1]), *task[0], *task[1]))
        self.x, self.y = [a for a, _ in tasks], [b for _, b in tasks]
        runs = np.array([[len(a), len(b)] for a, b in tasks])
        self.runs = runs
        self.sides = mine, other  # as `Draws` takes them for the IQM of each alone
        self.n_x, self.n_y = runs.T[::-1] if self.turned else runs.T
        self.sign = -1 if self.turned else 1
        self.above = [_above(a, b) for a, b in tasks]
        point = probability_of_improvement(self.x, self.y)
        self.probability = 1 - point if self.turned else point
        self.grid = 1 / (2 * int(runs.prod(axis=1).min()) * len(tasks))
        self.difference = self.sign * (iqm(mine) - iqm(other))
        self.mean_difference = self.sign * (mean(mine) - mean(other))
        # Variances of both differences and of P(X > Y), of 2 T strata each.
        self.variances = np.concatenate([variances_of(side, np.inf)[0] for side in self.sides])
        self.strata = np.array([len(cell) for side in self.sides for cell in side])
        self.mean_variances = np.concatenate(
            [
                [cell.var(ddof=1) / len(cell) / len(side) ** 2 for cell in side]
                for side in self.sides
            ]
        )
        placed = [[above.mean(axis=1 - k).var(ddof=1) for above in self.above] for k in (0, 1)]
        self.placements = (np.array(placed) / runs.T / len(tasks) ** 2).ravel()

    def equivalence_p(self, margin: float) -> float:
        """P of the test that the means differ by less than the margin; 1 without any spread."""
        return float(equivalence_p(self.mean_difference, self.mean_variances, self.strata, margin))

    def seeds(
        self, level: float, reachable: float, permutations: int, margin: float | None
    ) -> int | None:
        """The fewest seeds, more than now, with which a test has POWER; or None.

        Args:
            level: of the tests of a difference and of equivalence, which are t tests.
            reachable: what the smallest p of the permutation test has to be at most.
            permutations: of that test.
            margin: within which means may differ and be equivalent; None is no such test.
        """
        share = self.mean_variances * self.strata  # with a single seed
        if share.sum() == 0:
            return None
        t, seeds = scipy.stats.t, SEEDS[np.searchsorted(SEEDS, self.runs.max(), side="right") :]
        error = np.sqrt(share.sum() / seeds)
        df = (seeds - 1) * share.sum() ** 2 / (share**2).sum()
        different = t.sf(t.isf(level / 2, df) - abs(self.mean_difference) / error, df)
        # The smallest p that the permutation test can give.
        ways = len(self.runs) * (gammaln(2 * seeds + 1) - 2 * gammaln(seeds + 1))
        least = np.maximum(np.exp(np.log(2) - ways), 1 / (permutations + 1))
        power = np.where(least <= reachable, different, 0)
        if margin is not None:
            limit = t.isf(level, df)
            low, high = (
                t.cdf((side - self.mean_difference) / error - sign * limit, df)
                for side, sign in ((-margin, -1), (margin, 1))
            )
            power = np.maximum(power, high - low)
        enough = np.flatnonzero(power >= POWER)
        return int(seeds[enough[0]]) if len(enough) else None


def equivalence_p(
    difference: ArrayLike, variances: Array, runs: NDArray[np.int_], margin: float
) -> Array:
    """P of two one-sided t tests that means differ by less than a margin.

    Args:
        difference: of the means, shape (...).
        variances: the parts that add up to its variance, shape (..., parts).
        runs: behind each part, shape (parts,).
        margin: more than 0.
    """
    error = np.sqrt(variances.sum(axis=-1))
    df, _ = bootstrap.freedom(variances, runs)
    left = margin - np.abs(difference)
    t = np.divide(left, error, out=np.full_like(error, -np.inf), where=error > 1e-13 * margin)
    return np.asarray(scipy.stats.t.sf(t, df))


def chosen_cells(
    table: ScoreTable, baseline: str | None, algorithms: Sequence[str] | None
) -> dict[str, Tasks]:
    """Scores of the algorithms that are named, and of the baseline; InputError for an unknown one.

    Without `algorithms` these are all of them, each in the first of the ways in which it acts.
    """
    cells = table.cells()
    for name in [*([baseline] if baseline else []), *(algorithms or [])]:
        if name not in cells:
            raise unknown("algorithm", name, cells)
    chosen = {*(table.main_algorithms if algorithms is None else algorithms), baseline}
    return {name: cells[name] for name in cells if name in chosen}


def comparable_cells(
    table: ScoreTable, baseline: str | None, algorithms: Sequence[str] | None
) -> dict[str, Tasks]:
    """The `chosen_cells` to compare; InputError where a comparison is impossible."""
    cells = chosen_cells(table, baseline, algorithms)
    if len(cells) < 2:
        raise InputError(
            f"{', '.join(cells) or 'no algorithm'}: a comparison needs two algorithms or more"
        )
    empty = [(a, d) for a in cells for d in table.datasets if d not in cells[a]]
    if empty:
        more = f" and {len(empty) - 1} more cells" if len(empty) > 1 else ""
        failures = [f for f in table.failures if (f.algorithm, f.dataset) == empty[0]]
        causes = [f.cause for f in failures if not f.unfinished]
        failed = f" (the first failed by: {causes[0]:.80})" if causes else ""
        raise InputError(
            f"{empty[0][0]!r} has no finished run on {empty[0][1]!r}{more}{failed}; "
            "compare the algorithms that have, or leave the data set out for all"
        )
    table.only(cells).check_several_runs()
    return cells


def _above(x: Array, y: Array) -> Array:
    """1 where a run of x scores more than a run of y, 1/2 where they tie, shape (n_x, n_y)."""
    above: Array = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    return above


def turn(interval: Interval, whole: int) -> Interval:
    """The interval of `whole` minus the estimate."""
    return Interval(
        whole - interval.high, whole - interval.low, interval.high_error, interval.low_error
    )


def run_counts(runs: NDArray[np.int_]) -> tuple[int, ...]:
    """Numbers of runs as one tuple: what decides a pair's resamples."""
    return tuple(runs.ravel().tolist())


def cells_key(cells: Sequence[Array]) -> tuple[float, ...]:
    """Sorted scores as one tuple, task after task, with the numbers of runs."""
    return tuple(value for cell in cells for value in (len(cell), *cell.tolist()))
