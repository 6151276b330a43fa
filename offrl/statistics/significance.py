"""Welch's test of the means on each data set (1947), and Holm's correction of many p (1979)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.stats

from offrl.statistics.bootstrap import Array
from offrl.statistics.metrics import Tasks
from offrl.statistics.resampling import COVERAGE

ALPHA = 0.05  # error rate of tests, by default
PERMUTATIONS = 10_000  # by default
MOST_PERMUTATIONS = 10_000_000
TASKS = (
    "x",
    "y",
    "dataset",
    "difference",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "n_x",
    "n_y",
)


def holm(p: Array) -> Array:
    """Holm's step-down adjusted p (1979); NaN is not a test and stays NaN."""
    adjusted = np.full(len(p), np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def welch(
    cells: Mapping[str, Tasks], pairs: Sequence[tuple[str, str]], level: float = COVERAGE
) -> pd.DataFrame:
    """Differences of means on each data set with Welch's interval and p; columns TASKS.

    p_holm is corrected over all rows. Where neither algorithm's runs differ among themselves there
    is no test: interval and p are NaN.
    """
    rows = [(x, y, task, cells[x][task], cells[y][task]) for x, y in pairs for task in cells[x]]
    runs = np.array([[len(a), len(b)] for *_, a, b in rows])
    means = np.array([[a.mean(), b.mean()] for *_, a, b in rows])
    shares = np.array([[a.var(ddof=1), b.var(ddof=1)] for *_, a, b in rows]) / runs
    # Runs that tie up to the order of summation.
    shares[shares <= (1e-13 * np.abs(means)) ** 2] = 0
    total = shares.sum(axis=1)
    difference = means[:, 0] - means[:, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        df = total**2 / (shares**2 / (runs - 1)).sum(axis=1)
        p = 2 * scipy.stats.t.sf(np.abs(difference) / np.sqrt(total), df)
        half = scipy.stats.t.isf((1 - level) / 2, df) * np.sqrt(total)
    p[total == 0] = half[total == 0] = np.nan
    labels = pd.DataFrame([row[:3] for row in rows], columns=list(TASKS[:3]))
    return labels.assign(
        difference=difference,
        ci_low=difference - half,
        ci_high=difference + half,
        p=p,
        p_holm=holm(p),
        n_x=runs[:, 0],
        n_y=runs[:, 1],
    )
