"""Expected online performance: what an algorithm gives when a budget is left for tuning it.

Policies of N hyperparameter settings are at hand, and k of them may be tried online; the best is
kept. Kurenkov and Kolesnikov 2022 ("Showing your offline reinforcement learning work: online
evaluation budget matters") report its expected value for k = 1, 2, ..., after Dodge et al. 2019
("Show your work: improved reporting of experimental results"). With the settings' values in order,
v_1 <= ... <= v_N, and k settings drawn uniformly with replacement, as in both papers,

    value(k) = sum_i v_i ((i / N)^k - ((i - 1) / N)^k).

value(1) is the mean over settings. With replacement a setting may be drawn twice: value(N) lies
below the best setting's, which is the limit of ever larger budgets. The settings are taken as they
stand: where they are few draws from a large space, value(k) is too low for that space (Tang et al.
2020, "Showing your work doesn't always work").

A setting's value is the mean of its runs' final scores. Each data set is tuned by itself, and
value(k) is the mean over data sets. (Where one setting is to serve all of them, as in the curves of
Tarasov et al. 2023, ReBRAC, average each setting's scores over data sets first.)

The value is biased upwards: seeds that were lucky lift a setting's mean, and the maximum prefers
lucky ones (the winner's curse). The bias grows with the budget and with the ratio of the seeds'
spread to the settings'; it shrinks with more seeds. Intervals cover variation over seeds only:

- Runs are resampled within each setting and data set. A resampled mean's distance from the mean is
  stretched by sqrt(n / (n - 1)), as n runs vary too little when resampled.
- Resamples add the same bias once more. The interval therefore mirrors their quantiles at the value
  (the basic interval, Davison and Hinkley 1997, section 5.2), which takes the bias off instead of
  doubling it. Where the bias is large the interval lies below the value itself.
- Quantiles are read at Phi(+-t), with Student's t at Satterthwaite's degrees of freedom, as in the
  expanded percentile of `bootstrap`; a cell's share of the variance follows from its weight in
  value(k).

Simulated on 9 data sets with 3 seeds, where settings spread as much as seeds do, the 95 % interval
of value(N) covers 94 % with 4 settings and 92 % with 16; read without the mirror it would cover
66 % and 3 %. Where one seed in five collapses it covers 84 % and 71 %: three seeds seldom show it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike

from offrl.errors import InputError
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Draws, Interval
from offrl.statistics.resampling import DEFAULT_REPS, Resampling

COLUMNS = ("algorithm", "budget", "value", "ci_low", "ci_high", "mc_error", "n_settings")

MOST_BUDGET = 10**9  # settings that are tried

Grid = list[list[Array]]  # one array of runs per data set and setting


def online_performance(
    table: ScoreTable,
    budgets: Sequence[int] | None = None,
    *,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Expected online performance of every algorithm, one row per budget.

    Columns: algorithm; budget, the number of settings tried; value; ci_low, ci_high; mc_error, the
    larger Monte-Carlo standard error of the two ends; n_settings. Raises InputError for a table
    without settings, and where a setting lacks a data set or has fewer than two finished runs.

    Args:
        table: scores with a column `setting`.
        budgets: numbers of settings tried, 1 or more; by default 1 to the number of settings that
            the algorithm has. They may be larger, as settings are drawn with replacement.
        resampling: 10,000 resamples by default, by offrl's own engine; the level is that of the
            interval at each budget.
    """
    if "setting" not in table.frame:
        raise InputError(
            "no settings in these scores; expected a column 'setting' that names the "
            "hyperparameter setting of each run, or runs of a grid (offrl train --grid)"
        )
    table.check_complete()
    table.check_several_runs()
    frame = table.final().frame
    rows = []
    for algorithm in table.algorithms:
        grid = _grid(frame[frame["algorithm"] == algorithm])
        tried = range(1, len(grid[0]) + 1) if budgets is None else budgets
        means = [[cell.mean() for cell in row] for row in grid]
        values: Array = np.array([expected_maximum(row, tried) for row in means]).mean(axis=0)
        intervals = intervals_of(grid, tried, values, resampling)
        for budget, value, ci in zip(tried, values.tolist(), intervals, strict=True):
            rows.append((algorithm, int(budget), value, ci.low, ci.high, ci.error, len(grid[0])))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs["level"] = resampling.level
    return frame


def expected_maximum(values: ArrayLike, budgets: Sequence[int]) -> Array:
    """The expected largest of k values drawn uniformly with replacement, for each budget k.

    Args:
        values: shape (N,), such as the mean score of each of N settings.
        budgets: values of k, 1 or more, else InputError.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    expected: Array = maximum_weights(len(ordered), budgets) @ ordered
    return expected


def maximum_weights(n: int, budgets: Sequence[int]) -> Array:
    """Probability that the largest of k draws is the i-th of n values in order, shape (K, n)."""
    for budget in budgets:
        if not (1 <= budget <= MOST_BUDGET and budget % 1 == 0):
            raise InputError(
                f"budget {budget}: expected a whole number of settings, 1 or more and at most "
                f"{MOST_BUDGET:,}"
            )
    share = np.arange(n + 1) / n
    return np.diff(share ** np.array(budgets, dtype=np.float64)[:, None], axis=1)


def _grid(frame: pd.DataFrame) -> Grid:
    """An algorithm's runs by data set and setting, in an order of scores, not of names."""

    def key(cell: Array) -> tuple[float, ...]:
        return (len(cell), *cell)

    rows = [
        sorted((np.sort(cell) for _, cell in part.groupby("setting")["score"]), key=key)
        for _, part in frame.groupby("dataset")
    ]
    return sorted(rows, key=lambda row: [key(cell) for cell in row])


def intervals_of(
    grid: Grid, budgets: Sequence[int], values: Array, resampling: Resampling
) -> list[Interval]:
    """The interval of the value at each budget."""
    reps = resampling.reps or DEFAULT_REPS
    cells = [cell for row in grid for cell in row]
    runs = np.array([len(cell) for cell in cells])
    means = np.array([cell.mean() for cell in cells])
    stretch = np.sqrt(runs / (runs - 1)) / runs
    distances = np.concatenate([(c - m) * s for c, m, s in zip(cells, means, stretch, strict=True)])
    weights = maximum_weights(len(grid[0]), budgets)
    samples = np.empty((len(budgets), reps))
    for place, counts in Draws(runs, resampling.seed, "online").blocks(0, reps):
        sums = np.add.reduceat(distances[:, None] * counts, runs.cumsum() - runs, axis=0)
        resampled = (means[:, None] + sums).reshape(len(grid), len(grid[0]), -1)
        samples[:, place] = weights @ np.sort(resampled, axis=1).mean(axis=0)
    spread = np.array([cell.var(ddof=1) for cell in cells]) / runs
    df, _ = bootstrap.freedom(
        slopes_of_means(means.reshape(len(grid), -1), weights) ** 2 * spread, runs
    )
    levels = np.asarray(scipy.stats.norm.cdf(-scipy.stats.t.ppf((1 + resampling.level) / 2, df)))
    return [
        _mirrored(bootstrap.read(np.sort(row), p, value), value)
        for row, p, value in zip(samples, levels.tolist(), values.tolist(), strict=True)
    ]


def slopes_of_means(means: Array, weights: Array) -> Array:
    """How much each cell's mean moves the value, shape (K, data sets * settings), up to scale.

    Args:
        means: shape (data sets, settings).
        weights: as from `maximum_weights`, shape (K, settings).
    """
    slopes = np.empty((len(weights), *means.shape))
    for k, row in enumerate(means):
        order = np.argsort(row, kind="stable")
        # Settings whose means tie share their weights, so that rounding does not decide.
        apart = np.diff(row[order]) > 1e-12 * np.abs(row).max()
        starts = np.flatnonzero(np.append(True, apart))
        sizes = np.diff(np.append(starts, len(row)))
        shared = np.add.reduceat(weights, starts, axis=1) / sizes
        slopes[:, k, order] = np.repeat(shared, sizes, axis=1)
    return slopes.reshape(len(weights), -1)


def _mirrored(ends: Interval, value: float) -> Interval:
    return Interval(2 * value - ends.high, 2 * value - ends.low, ends.high_error, ends.low_error)
