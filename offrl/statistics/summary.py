"""Estimates from a score table, each with its intervals.

`metrics` says what the estimates are, `bootstrap` how runs are resampled and intervals are read.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
import scipy.stats

from offrl.errors import InputError
from offrl.progress import Progress
from offrl.results.table import ScoreTable
from offrl.statistics import frames
from offrl.statistics.bootstrap import Interval
from offrl.statistics.engines import engine
from offrl.statistics.labels import METHODS
from offrl.statistics.metrics import (
    METRICS,
    Metric,
    Scores,
    as_cells,
    check_metrics,
    point_estimates,
)
from offrl.statistics.resampling import COVERAGE, Resampling

DEFAULT_METHODS = METHODS[:2]
COLUMNS = frames.SUMMARY
GROUPS = ("group", "algorithm", "iqm", "mean", "n_tasks")
NO_METRICS: Mapping[str, Metric] = MappingProxyType({})


def intervals(
    scores: Scores,
    *,
    gamma: float,
    metrics: Mapping[str, Metric] = NO_METRICS,
    resampling: Resampling = Resampling(),
    methods: Sequence[str] = DEFAULT_METHODS,
) -> dict[str, dict[str, Interval]]:
    """Bootstrap intervals as metric -> method -> Interval, all from the same resamples.

    Args:
        scores: as in `iqm`; every task needs two runs, else InputError.
        gamma: as in `optimality_gap`.
        metrics: as in `summarise`; tasks stand in the order of `scores`.
        resampling: seed and level; its repetitions are by default enough for a Monte-Carlo error
            of at most `bootstrap.SHARE` of the width of every expanded percentile interval.
        methods: some of METHODS; "studentized" has the metrics STUDENTIZED alone, and infinite
            ends where too many resamples have no variance.
    """
    check_metrics(metrics)
    cells = as_cells(scores)
    few = [str(k) for k, cell in enumerate(cells) if len(cell) < 2]
    if few:
        raise InputError(
            f"task {', '.join(few)} has one run; an interval needs two runs or more of every task"
        )
    tasks = {str(k): cell for k, cell in enumerate(cells)}
    aggregates = engine(resampling).aggregates(
        {"": tasks}, gamma, metrics, methods, resampling, None
    )
    return {metric: dict(aggregate.intervals) for metric, aggregate in aggregates[""].items()}


def summarise(
    table: ScoreTable,
    *,
    metrics: Mapping[str, Metric] = NO_METRICS,
    resampling: Resampling = Resampling(),
    studentized: bool = False,
    partial: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Aggregates of every algorithm over all data sets: one row per metric and interval method.

    Columns are COLUMNS: `n_runs` is the smallest number of runs that a data set has, `reps` the
    number of resamples, `mc_error` the larger Monte-Carlo standard error of the two ends. As in all
    frames of estimates, `attrs["level"]` is the level of the intervals.

    Args:
        table: the scores.
        metrics: functions by name, which follow the METRICS: each takes scores (runs, data sets),
            or a list of one array per data set where numbers of runs differ, and returns a number.
            Data sets stand in the order of `table.datasets`, the same for every algorithm. Each is
            resampled by itself, so which runs share a row means nothing. A function has a
            percentile and an expanded percentile interval, and no studentized one (see
            `functions`), from as many resamples as its own precision needs.
        resampling: by default each algorithm has as many resamples as `intervals` needs. The engine
            "rliable" has percentile intervals alone, 2,000 resamples by default, and no Monte-Carlo
            error.
        studentized: whether to give studentized intervals too.
        partial: whether to go on where a data set has a single run, or none. Such an algorithm then
            has an empty (NaN) interval, and an empty estimate if a data set has none: `explain`
            says so in words. By default a single run is an InputError which names the cells.
        progress: called with the number of algorithms done and their number; the functions of
            each are further ones.
    """
    check_metrics(metrics)
    if not partial:
        table.check_several_runs()
    chosen = engine(resampling)
    methods = [m for m in (METHODS if studentized else DEFAULT_METHODS) if m in chosen.METHODS]
    cells = frames.complete_cells(table)
    aggregates = chosen.aggregates(cells, table.scale, metrics, methods, resampling, progress)
    frame = frames.summary(table, aggregates, [*METRICS, *metrics], methods)
    frame.attrs["level"] = resampling.level
    return frame


def per_task(table: ScoreTable) -> pd.DataFrame:
    """One row per algorithm and data set, over its runs.

    Columns: mean; std (ddof 1); ci_low and ci_high, Student's 95 % interval of the mean; iqm,
    median, optimality_gap; n, n_failed, step. std and the interval are NaN for a single run; `step`
    is missing where the scores have none.
    """
    final = table.final().frame
    steps = (
        final.groupby(["algorithm", "dataset"])["step"].first().to_dict() if "step" in final else {}
    )
    failed = [(f.algorithm, f.dataset) for f in table.failures if not f.unfinished]
    rows = []
    for algorithm, tasks in table.cells().items():
        for dataset in table.datasets:
            cell = tasks.get(dataset, np.empty(0))
            n = len(cell)
            std = float(cell.std(ddof=1)) if n > 1 else np.nan
            half = (
                scipy.stats.t.ppf((1 + COVERAGE) / 2, n - 1) * std / np.sqrt(n) if n > 1 else np.nan
            )
            middle, _, average, gap = point_estimates([cell], table.scale) if n else [np.nan] * 4
            rows.append(
                {
                    "algorithm": algorithm,
                    "dataset": dataset,
                    "mean": float(average),
                    "std": std,
                    "ci_low": float(average - half),
                    "ci_high": float(average + half),
                    "iqm": float(middle),
                    "median": float(np.median(cell)) if n else np.nan,
                    "optimality_gap": float(gap),
                    "n": n,
                    "n_failed": failed.count((algorithm, dataset)),
                    "step": steps.get((algorithm, dataset), pd.NA),
                }
            )
    return pd.DataFrame(rows).astype({"step": "Int64"})


def per_group(table: ScoreTable, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """One row per group of data sets and algorithm, with the columns GROUPS.

    iqm and mean are those over the group's data sets; NaN where the algorithm lacks one of them.
    """
    cells, rows = table.cells(), []
    for group, datasets in groups.items():
        for algorithm, tasks in cells.items():
            scores = [tasks[dataset] for dataset in datasets if dataset in tasks]
            whole = 0 < len(scores) == len(datasets)
            middle, _, average, _ = point_estimates(scores, table.scale) if whole else [np.nan] * 4
            rows.append((group, algorithm, float(middle), float(average), len(datasets)))
    return pd.DataFrame(rows, columns=list(GROUPS))
