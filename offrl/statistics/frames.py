"""The frames of estimates: their rows and labels, alike whichever engine computed the numbers.

An engine takes the scores of algorithms and returns an `Aggregate`, a `Line` or a `PairEstimate`.
The functions here select these scores from a table, and make rows with labels and counts of what
the engine returns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offrl.results.table import ScoreTable
from offrl.statistics.bootstrap import NONE, Array, Interval
from offrl.statistics.metrics import STUDENTIZED, Tasks

SUMMARY = (
    "algorithm",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "ci_method",
    "n_runs",
    "n_tasks",
    "reps",
    "mc_error",
)
CURVE_REPS = 2_000  # resamples by default
CURVE_POINTS = 100  # steps of a curve by default, at most
LIMITS = ("ci_low", "ci_high", "mc_error", "band_low", "band_high")


@dataclass(frozen=True)
class Aggregate:
    """A metric of an algorithm, its intervals by method, and how many resamples they are from."""

    estimate: float
    intervals: Mapping[str, Interval]
    reps: int


Steps = NDArray[np.int_]
Aggregates = Mapping[str, Mapping[str, Aggregate]]  # by algorithm and metric


@dataclass(frozen=True)
class Line:
    """A profile or a learning curve of an algorithm: K points and their LIMITS, shape (5, K)."""

    points: Array
    limits: Array


@dataclass(frozen=True)
class PairEstimate:
    """P(X > Y) and its interval, and the interval of the difference of IQMs.

    `reps` is the number of resamples of the difference.
    """

    probability: float
    interval: Interval
    difference: Interval
    reps: int


def complete_cells(table: ScoreTable) -> dict[str, Tasks]:
    """Final scores of the algorithms that have a run on every data set."""
    cells = table.cells().items()
    return {name: tasks for name, tasks in cells if len(tasks) == len(table.datasets)}


def summary(
    table: ScoreTable, aggregates: Aggregates, metrics: Sequence[str], methods: Sequence[str]
) -> pd.DataFrame:
    """A row per algorithm, metric and method, with the columns SUMMARY."""
    missing = Aggregate(np.nan, {}, 0)
    rows = []
    for name, tasks in table.cells().items():
        few = min(map(len, tasks.values()), default=0)
        for metric in metrics:
            aggregate = aggregates.get(name, {}).get(metric, missing)
            for method in methods:
                if method == "studentized" and metric not in STUDENTIZED:
                    continue
                ci = aggregate.intervals.get(method, NONE)
                ends = (aggregate.estimate, ci.low, ci.high)
                counts = (few, len(tasks), aggregate.reps)
                rows.append((name, metric, *ends, method, *counts, ci.error))
    return pd.DataFrame(rows, columns=list(SUMMARY))


def profile(thresholds: Array, lines: Mapping[str, Line]) -> pd.DataFrame:
    """A row per algorithm and threshold: algorithm, tau, share and LIMITS."""
    return _rows("tau", "share", {name: (thresholds, line) for name, line in lines.items()})


def curve_cells(
    table: ScoreTable, dataset: str | None, points: int
) -> dict[str, tuple[Steps, Tasks]]:
    """By algorithm the steps at which all its runs were evaluated, and scores (runs, steps).

    Args:
        table: scores, with steps or without.
        dataset: a single data set, or None for all of them: then an algorithm needs each.
        points: the most steps that are kept, evenly spread, the last one included.
    """
    table.check_one_setting()
    frame = table.frame
    if "step" not in frame:
        return {}
    frame = frame[frame["step"].notna()]
    if dataset is not None:
        frame = frame[frame["dataset"] == dataset]
    wanted = 1 if dataset is not None else len(table.datasets)
    cells: dict[str, tuple[Steps, Tasks]] = {}
    for name, part in frame.groupby("algorithm", sort=True):
        if part["dataset"].nunique() < wanted:
            continue
        shared = part.set_index(["dataset", "seed", "step"])["score"].unstack("step")
        shared = shared.loc[:, shared.notna().all()]
        if not shared.shape[1]:
            continue
        keep = np.unique(np.linspace(0, shared.shape[1] - 1, points).round().astype(int))
        kept = shared.iloc[:, keep]
        cells[str(name)] = (
            kept.columns.to_numpy(np.int_),
            {str(task): cell.to_numpy(np.float64) for task, cell in kept.groupby("dataset")},
        )
    return cells


def curve(steps: Mapping[str, Steps], lines: Mapping[str, Line]) -> pd.DataFrame:
    """A row per algorithm and step: algorithm, step, iqm and LIMITS."""
    return _rows("step", "iqm", {name: (steps[name], line) for name, line in lines.items()})


def _rows(x: str, y: str, lines: Mapping[str, tuple[Array | Steps, Line]]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "algorithm": name,
                x: xs,
                y: line.points,
                **dict(zip(LIMITS, line.limits, strict=True)),
            }
        )
        for name, (xs, line) in lines.items()
    ]
    columns = ["algorithm", x, y, *LIMITS]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
