"""Estimates from a score table, each with its intervals.

Point estimates follow Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice") as
rliable computes them. `bootstrap` says how runs are resampled and how intervals are read.

An estimate's variance, which the expanded and the studentized interval need, is a sum over tasks of
v, from the sample variance s^2 (ddof 1) of a task's n runs, with N runs on T tasks in all:

- IQM: scores winsorised at the pooled cut points, its influence function: v = n s^2 / (N - 2 cut)^2
  (Tukey and McLaughlin 1963);
- mean: the scores, v = s^2 / (n T^2); median: the same, since it is a median of task means;
- optimality gap: min(score, gamma), v = s^2 / (n T^2).

No number depends on the other algorithms, on the order of runs, or on the order and the names of
data sets and algorithms: scores are sorted within tasks, and tasks by their scores.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

from offrl.errors import InputError
from offrl.progress import Progress
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import NONE, Array, Counts, Draws, Interval, TrimmedMean
from offrl.statistics.labels import METHODS
from offrl.statistics.metrics import (
    METRICS,
    STUDENTIZED,
    Scores,
    as_cells,
    canonical,
    median_of_tasks,
    point_estimates,
    task_means,
    variances_of,
)
from offrl.statistics.resampling import COVERAGE, Resampling

DEFAULT_METHODS = METHODS[:2]
COLUMNS = (
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

Found = dict[str, dict[str, Interval]]


def intervals(
    scores: Scores,
    *,
    gamma: float,
    resampling: Resampling = Resampling(),
    methods: Sequence[str] = DEFAULT_METHODS,
) -> Found:
    """Bootstrap intervals as metric -> method -> Interval, all from the same resamples.

    Args:
        scores: as in `iqm`; every task needs two runs, else InputError.
        gamma: as in `optimality_gap`.
        resampling: seed and level; its repetitions are by default enough for a Monte-Carlo error
            of at most `bootstrap.SHARE` of the width of every expanded percentile interval.
        methods: some of METHODS; "studentized" has the metrics STUDENTIZED alone, and infinite
            ends where too many resamples have no variance.
    """
    cells = as_cells(scores)
    few = [str(k) for k, cell in enumerate(cells) if len(cell) < 2]
    if few:
        raise InputError(
            f"task {', '.join(few)} has one run; an interval needs two runs or more of every task"
        )
    return _intervals([cells], gamma, resampling, methods, None)[0][0]


def summarise(
    table: ScoreTable,
    *,
    resampling: Resampling = Resampling(),
    studentized: bool = False,
    partial: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Aggregates of every algorithm over all data sets: one row per metric and interval method.

    Columns are COLUMNS: `n_runs` is the smallest number of runs that a data set has, `reps` the
    number of resamples, `mc_error` the larger Monte-Carlo standard error of the two ends.

    Args:
        table: the scores.
        resampling: by default each algorithm has as many resamples as `intervals` needs. The engine
            "rliable" has percentile intervals alone, 2,000 resamples by default, and no Monte-Carlo
            error.
        studentized: whether to give studentized intervals too.
        partial: whether to go on where a data set has a single run, or none. Such an algorithm then
            has an empty (NaN) interval, and an empty estimate if a data set has none: `explain`
            says so in words. By default a single run is an InputError which names the cells.
        progress: called with the number of algorithms done and their number.
    """
    if resampling.engine == "rliable":
        from offrl.statistics import rliable as rliable_engine

        return rliable_engine.summarise(
            table,
            reps=resampling.reps,
            seed=resampling.seed,
            partial=partial,
            progress=progress,
        )
    if not partial:
        table.check_several_runs()
    methods = METHODS if studentized else DEFAULT_METHODS
    cells = {name: list(tasks.values()) for name, tasks in table.cells().items()}
    whole = [name for name, tasks in cells.items() if len(tasks) == len(table.datasets)]
    able = [name for name in whole if min(map(len, cells[name])) > 1]
    answers = _intervals([cells[name] for name in able], table.scale, resampling, methods, progress)
    found = dict(zip(able, answers, strict=True))
    rows = []
    for name, tasks in cells.items():
        ci, used = found.get(name, ({}, 0))
        estimates = point_estimates(tasks, table.scale) if name in whole else np.full(4, np.nan)
        for metric, estimate in zip(METRICS, estimates.tolist(), strict=True):
            for method in methods:
                if method == "studentized" and metric not in STUDENTIZED:
                    continue
                end = ci[metric][method] if ci else NONE
                few = min(map(len, tasks), default=0)
                answer = (estimate, end.low, end.high, method, few, len(tasks), used, end.error)
                rows.append((name, metric, *answer))
    return pd.DataFrame(rows, columns=list(COLUMNS))


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
    failed = [(f.algorithm, f.dataset) for f in table.failures]
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


def _intervals(
    algorithms: Sequence[Sequence[Array]],
    gamma: float,
    resampling: Resampling,
    methods: Sequence[str],
    progress: Progress | None,
) -> list[tuple[Found, int]]:
    """Intervals of each algorithm, and the number of resamples behind them."""
    resampled = _Resampled(algorithms, gamma, "studentized" in methods, resampling)
    return resampled.converge(len(algorithms), resampling.reps, progress)


class _Resampled(bootstrap.Resampled[Found]):
    """The METRICS of resamples of algorithms."""

    def __init__(
        self,
        algorithms: Sequence[Sequence[Array]],
        gamma: float,
        studentized: bool,
        resampling: Resampling,
    ):
        self.scores = [canonical(cells) for cells in algorithms]
        self.shapes = [tuple(len(cell) for cell in cells) for cells in self.scores]
        self.gamma, self.studentized = gamma, studentized
        self.seed, self.level = resampling.seed, resampling.level

    def sample(self, items: list[int], first: int, last: int) -> list[Array]:
        samples: dict[int, Array] = {}
        for shape in dict.fromkeys(self.shapes[i] for i in items):
            group = [i for i in items if self.shapes[i] == shape]
            metrics = _Metrics([self.scores[i] for i in group], self.gamma, self.studentized)
            block = np.empty((len(group), metrics.rows, last - first))
            for place, counts in Draws(shape, self.seed, "summary").blocks(first, last):
                metrics(counts, block[:, :, place])
            samples.update(zip(group, block, strict=True))
        return [samples[i] for i in items]

    def read(self, item: int, samples: Array) -> tuple[Found, bool]:
        scores, runs = self.scores[item], np.array(self.shapes[item])
        estimates, variances = point_estimates(scores, self.gamma), variances_of(scores, self.gamma)
        levels = bootstrap.expanded_level(variances, runs, self.level)
        samples = np.sort(samples, axis=1)
        plain = (1 - self.level) / 2
        intervals: Found = {}
        for k, metric in enumerate(METRICS):
            intervals[metric] = {
                "percentile": bootstrap.read(samples[k], plain, estimates[k]),
                "expanded percentile": bootstrap.read(samples[k], float(levels[k]), estimates[k]),
            }
        if self.studentized:
            for k, metric in enumerate(STUDENTIZED):
                j = METRICS.index(metric)
                error = float(np.sqrt(variances[j].sum()))
                t = bootstrap.read(samples[len(METRICS) + k], plain, 0.0)
                # The upper quantile of t sets the lower end.
                intervals[metric]["studentized"] = Interval(
                    float(estimates[j] - error * t.high),
                    float(estimates[j] - error * t.low),
                    error * t.high_error,
                    error * t.low_error,
                )
        precise = all(intervals[metric]["expanded percentile"].precise for metric in METRICS)
        return intervals, precise


class _Metrics:
    """The METRICS of resamples of algorithms whose tasks have the same numbers of runs."""

    def __init__(self, algorithms: Sequence[Sequence[Array]], gamma: float, studentized: bool):
        self.algorithms, self.gamma = algorithms, gamma
        self.runs = np.array([len(cell) for cell in algorithms[0]])
        flat = np.stack([np.concatenate(cells) for cells in algorithms])
        self.trimmed = [TrimmedMean(row, flat.shape[1]) for row in flat]
        weight = np.repeat(1 / (self.runs * len(self.runs)), self.runs)
        self.weighted, self.gaps = flat * weight, (gamma - np.minimum(flat, gamma)) * weight
        self.estimates = [point_estimates(cells, gamma) for cells in algorithms]
        self.studentized = studentized
        self.rows = len(METRICS) + (len(STUDENTIZED) if studentized else 0)

    def __call__(self, counts: Counts, samples: Array) -> None:
        """Fills `samples`, shape (algorithms, rows, b), from counts (N, b)."""
        floats = counts.astype(np.float64)
        for k, (cells, trimmed) in enumerate(zip(self.algorithms, self.trimmed, strict=True)):
            rank = trimmed.ranks(counts)
            samples[k, 0] = trimmed.mean(rank)
            samples[k, 1] = median_of_tasks(task_means(cells, floats))
            # One by one: the last bits of a product with a matrix depend on its number of rows.
            samples[k, 2] = self.weighted[k] @ floats
            samples[k, 3] = self.gaps[k] @ floats
            if self.studentized:
                inside = (rank > trimmed.cut).argmax(axis=0)
                upper = (rank >= trimmed.total - trimmed.cut).argmax(axis=0)
                ends = trimmed.scores[inside], trimmed.scores[upper]
                flat = np.concatenate(cells)[:, None]
                middle = np.clip(flat, *ends)
                kept = trimmed.total - 2 * trimmed.cut
                size = self.runs / kept**2, 1 / (self.runs * len(self.runs) ** 2)
                for row, (values, weights) in enumerate(
                    ((middle, size[0]), (flat, size[1]), (np.minimum(flat, self.gamma), size[1]))
                ):
                    spread = weights @ self._variance(values, floats)
                    j = METRICS.index(STUDENTIZED[row])
                    samples[k, len(METRICS) + row] = _studentize(
                        samples[k, j] - self.estimates[k][j], spread
                    )

    def _variance(self, values: Array, counts: Array) -> Array:
        """Sample variances (ddof 1) of the resampled runs of each task, shape (tasks, b)."""
        runs, starts = self.runs[:, None], self.runs.cumsum() - self.runs
        means = np.add.reduceat(values * counts, starts, axis=0) / runs
        squares = counts * (values - np.repeat(means, self.runs, axis=0)) ** 2
        found: Array = np.add.reduceat(squares, starts, axis=0) / (runs - 1)
        return found


def _studentize(differences: Array, variances: Array) -> Array:
    """Differences over standard errors; without variance infinite, or 0 where nothing differs."""
    error = np.sqrt(variances)
    tiny = error <= 1e-12 * error.max(initial=0)
    endless = np.where(np.abs(differences) > 1e-12 * np.abs(differences).max(initial=0), np.inf, 0)
    found: Array = np.divide(differences, error, out=np.copysign(endless, differences), where=~tiny)
    return found
