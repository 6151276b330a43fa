"""Tests of differences, and their correction for many.

- p of a stratified permutation test: runs change hands between x and y within each data set, and p
  is how often the IQMs then differ as much (Fisher 1935; Phipson and Smyth 2010 for the count). It
  is exact if x and y have equal distributions, but errs too often where only their IQMs are equal
  and their spreads or numbers of runs are not;
- Welch's test of the means on each data set (Welch 1947).

p is corrected by Holm's method (1979): of the IQMs over all pairs, Welch's over all pairs and data
sets.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import comb, prod

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Counts, TrimmedMean
from offrl.statistics.metrics import Tasks
from offrl.statistics.pairs import Pair, run_counts
from offrl.statistics.resampling import COVERAGE

ALPHA = 0.05  # error rate of tests, by default
PERMUTATIONS = 10_000  # by default
MOST_PERMUTATIONS = 10_000_000
LISTED = 100_000  # permutations that are taken one by one, all at once, where there are no more
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


def permutation(pairs: Sequence[Pair], permutations: int, seed: int) -> Array:
    """Two-sided p of each pair: how often labels drawn within tasks give IQMs as far apart."""
    p = np.empty(len(pairs))
    for shape in dict.fromkeys(run_counts(pair.runs) for pair in pairs):
        group = [i for i, pair in enumerate(pairs) if run_counts(pair.runs) == shape]
        runs = pairs[group[0]].runs
        every = permutation_count(runs)
        listed = every <= min(permutations, LISTED)
        hits = np.zeros(len(group), dtype=int)
        pooled = [
            np.concatenate(
                [np.concatenate(both) for both in zip(pairs[i].x, pairs[i].y, strict=True)]
            )
            for i in group
        ]
        x_total, y_total = (int(n) for n in runs.sum(axis=0))
        trimmed = [(TrimmedMean(row, x_total), TrimmedMean(row, y_total)) for row in pooled]
        # Differences that agree up to the order of summation are equal.
        limits = [
            abs(pairs[i].difference) - 1e-12 * np.abs(row).max()
            for i, row in zip(group, pooled, strict=True)
        ]
        total = every if listed else permutations
        places = np.arange(1, x_total + y_total + 1)[:, None]
        places = places.astype(np.min_scalar_type(x_total + y_total))
        blocks = _every(runs) if listed else _labels(runs, permutations, seed)
        for labels in blocks:
            for k, (x, y) in enumerate(trimmed):
                ranks = x.ranks(labels)
                # What is not x's is y's.
                difference = x.mean(ranks) - y.mean(places - ranks)
                hits[k] += int((np.abs(difference) >= limits[k]).sum())
        # All permutations include the labels as they are; of a sample they are one more.
        p[group] = hits / total if listed else (hits + 1) / (total + 1)
    return p


def permutation_count(runs: NDArray[np.int_]) -> int:
    """How many ways there are to hand out the runs of each task."""
    return prod(comb(int(n_x + n_y), int(n_x)) for n_x, n_y in runs)


def _labels(runs: NDArray[np.int_], permutations: int, seed: int) -> Iterator[Counts]:
    """Random labels, 1 for x and 0 for y, in blocks of shape (N, b)."""
    size = bootstrap.block_size(int(runs.sum()))
    for k, first in enumerate(range(0, permutations, size)):
        rng = bootstrap.stream(seed, "permutation", *runs.ravel().tolist(), k)
        parts = []
        for n_x, n_y in runs.tolist():
            keys = rng.random((size, n_x + n_y))
            last = np.partition(keys, n_x - 1, axis=1)[:, n_x - 1, None]
            parts.append((keys <= last).T)
        yield np.concatenate(parts)[:, : permutations - first].astype(np.uint8)


def _every(runs: NDArray[np.int_]) -> Iterator[Counts]:
    """All labels at once, shape (N, number)."""
    tasks = []
    for n_x, n_y in runs.tolist():
        chosen = np.array(list(combinations(range(n_x + n_y), n_x)))
        labels = np.zeros((len(chosen), n_x + n_y), dtype=np.uint8)
        np.put_along_axis(labels, chosen, 1, axis=1)
        tasks.append(labels)
    grid = np.indices([len(labels) for labels in tasks]).reshape(len(tasks), -1)
    yield np.concatenate([labels[at].T for labels, at in zip(tasks, grid, strict=True)])
