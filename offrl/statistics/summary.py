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

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from offrl.errors import InputError, unknown
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import LEVEL, NONE, Array, Counts, Draws, Interval, Trimmed

METRICS = ("iqm", "median", "mean", "optimality_gap")
METHODS = ("percentile", "expanded percentile", "studentized")
DEFAULT = METHODS[:2]
ENGINES = ("offrl", "rliable")
# A median of task means has no standard error that holds where two means lie close.
STUDENTIZED = ("iqm", "mean", "optimality_gap")
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

Scores = ArrayLike | Sequence[ArrayLike]
Progress = Callable[[int, int], None]
Found = dict[str, dict[str, Interval]]


def iqm(scores: Scores) -> float:
    """Interquartile mean: floor(0.25 N) of all N pooled scores are left out at each end.

    Args:
        scores: array of shape (runs, tasks), or one array of runs per task. Pooling gives a task
            with more runs more weight.
    """
    return float(_estimates(_as_cells(scores), np.inf)[0])


def median(scores: Scores) -> float:
    """Median over tasks of the mean over runs; arguments as in `iqm`."""
    return float(_estimates(_as_cells(scores), np.inf)[1])


def mean(scores: Scores) -> float:
    """Mean over tasks of the mean over runs; arguments as in `iqm`."""
    return float(_estimates(_as_cells(scores), np.inf)[2])


def optimality_gap(scores: Scores, gamma: float) -> float:
    """Gamma minus the mean over tasks of the mean over runs of min(score, gamma).

    Args:
        scores: as in `iqm`.
        gamma: the score that counts as solved, on the scale of the scores: 1 or 100.
    """
    return float(_estimates(_as_cells(scores), gamma)[3])


def intervals(
    scores: Scores,
    *,
    gamma: float,
    reps: int | None = None,
    seed: int = 0,
    level: float = LEVEL,
    methods: Sequence[str] = DEFAULT,
) -> Found:
    """Bootstrap intervals as metric -> method -> Interval, all from the same resamples.

    Args:
        scores: as in `iqm`; every task needs two runs, else InputError.
        gamma: as in `optimality_gap`.
        reps: number of resamples; by default enough for a Monte-Carlo error of at most
            `bootstrap.SHARE` of the width of every expanded percentile interval.
        seed: of the resamples.
        level: nominal coverage.
        methods: some of METHODS; "studentized" has the metrics STUDENTIZED alone, and infinite
            ends where too many resamples have no variance.
    """
    bootstrap.check(reps, seed, level)
    cells = _as_cells(scores)
    few = [str(k) for k, cell in enumerate(cells) if len(cell) < 2]
    if few:
        raise InputError(
            f"task {', '.join(few)} has one run; an interval needs two runs or more of every task"
        )
    return _intervals([cells], gamma, reps, seed, level, methods, None)[0][0]


def summarise(
    table: ScoreTable,
    *,
    reps: int | None = None,
    seed: int = 0,
    studentized: bool = False,
    partial: bool = False,
    engine: str = "offrl",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Aggregates of every algorithm over all data sets: one row per metric and interval method.

    Columns are COLUMNS: `n_runs` is the smallest number of runs that a data set has, `reps` the
    number of resamples, `mc_error` the larger Monte-Carlo standard error of the two ends.

    Args:
        table: the scores.
        reps: resamples; by default as many as `intervals` needs, for each algorithm by itself.
        seed: of the resamples.
        studentized: whether to give studentized intervals too.
        partial: whether to go on where a data set has a single run, or none. Such an algorithm then
            has an empty (NaN) interval, and an empty estimate if a data set has none: `explain`
            says so in words. By default a single run is an InputError which names the cells.
        engine: "rliable" has the library of that name compute the percentile intervals, its only
            ones; 2,000 resamples by default, and no Monte-Carlo error.
        progress: called with the number of algorithms done and their number.
    """
    bootstrap.check(reps, seed)
    if check_engine(engine) == "rliable":
        from offrl.statistics import rliable as rliable_engine

        return rliable_engine.summarise(
            table, reps=reps, seed=seed, partial=partial, progress=progress
        )
    if not partial:
        table.check_several_runs()
    methods = METHODS if studentized else DEFAULT
    cells = {name: list(tasks.values()) for name, tasks in table.cells().items()}
    whole = [name for name, tasks in cells.items() if len(tasks) == len(table.datasets)]
    able = [name for name in whole if min(map(len, cells[name])) > 1]
    answers = _intervals(
        [cells[name] for name in able], table.scale, reps, seed, LEVEL, methods, progress
    )
    found = dict(zip(able, answers, strict=True))
    rows = []
    for name, tasks in cells.items():
        ci, used = found.get(name, ({}, 0))
        estimates = _estimates(tasks, table.scale) if name in whole else np.full(4, np.nan)
        for metric, estimate in zip(METRICS, estimates.tolist(), strict=True):
            for method in methods:
                if method == "studentized" and metric not in STUDENTIZED:
                    continue
                end = ci[metric][method] if ci else NONE
                few = min(map(len, tasks), default=0)
                answer = (estimate, end.low, end.high, method, few, len(tasks), used, end.error)
                rows.append((name, metric, *answer))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def explain(table: ScoreTable, summary: pd.DataFrame) -> list[str]:
    """Sentences on what is missing or odd in `summarise(table)`, for its reader."""
    notes = []
    sizes = {a: {d: len(c) for d, c in tasks.items()} for a, tasks in table.cells().items()}
    for algorithm, tasks in sizes.items():
        lacking = [d for d in table.datasets if d not in tasks]
        single = [d for d, n in tasks.items() if n == 1]
        if lacking:
            notes.append(
                f"{algorithm} has no finished run on {', '.join(lacking)}: "
                "no aggregate is computed for it"
            )
        elif single:
            notes.append(
                f"{algorithm} has a single run on {', '.join(single)}: no interval can be "
                "computed; an interval needs two runs or more on every data set"
            )
    counts = sorted({n for tasks in sizes.values() for n in tasks.values()})
    if len(counts) > 1:
        notes.append(
            f"Numbers of runs differ, from {counts[0]} to {counts[-1]} per data set (each is shown "
            "in the table per data set). Mean, median and optimality gap weigh data sets equally; "
            "the IQM pools runs, so a data set with more runs weighs more"
        )
    cells = table.cells()
    point: dict[tuple[str, ...], list[str]] = {}
    capped: dict[tuple[str, ...], list[str]] = {}
    # The default method's, or the only one that rliable gives.
    method = DEFAULT[1] if (summary["ci_method"] == DEFAULT[1]).any() else DEFAULT[0]
    main = summary[(summary["ci_method"] == method) & summary["ci_low"].notna()]
    for name in main["algorithm"].unique():
        scores = list(cells[name].values())
        ends = [
            _estimates([np.array([end(cell)]) for cell in scores], table.scale)
            for end in (np.min, np.max)
        ]
        tied, at_end = [], []
        rows = main[main["algorithm"] == name].set_index("metric")
        for k, metric in enumerate(METRICS):
            low, high = rows.loc[metric, ["ci_low", "ci_high"]].astype(float)
            lowest, highest = sorted(float(end[k]) for end in ends)
            slack = 1e-9 * (highest - lowest)
            if low == high:
                tied.append(metric)
            elif low <= lowest + slack or high >= highest - slack:
                at_end.append(metric)
        for group, found in ((point, tied), (capped, at_end)):
            if found:
                group.setdefault(tuple(found), []).append(name)
    endless = summary[np.isinf(summary["ci_low"]) | np.isinf(summary["ci_high"])]
    if len(endless):
        notes.append(
            "A studentized interval has no end where too many resamples of so few runs have no "
            f"variance: {', '.join(endless['algorithm'].unique())}"
        )
    for metrics, names in point.items():
        notes.append(
            f"The interval of {_words(metrics)} is a single point for {', '.join(names)}: runs "
            "tie, so that every resample gives the same value. That is no evidence of certainty"
        )
    if capped:
        which = "; ".join(f"{', '.join(names)} ({_words(m)})" for m, names in capped.items())
        notes.append(
            f"Some {method} intervals reach the lowest or highest value that resampling so few "
            "runs can give, are narrower than they should be, and may cover less than 95 % (some "
            f"75 % with 3 runs on 1 data set): {which}"
        )
    return notes


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
            half = scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1) * std / np.sqrt(n) if n > 1 else np.nan
            middle, _, average, gap = _estimates([cell], table.scale) if n else [np.nan] * 4
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


def profile(
    table: ScoreTable,
    tau: ArrayLike | None = None,
    *,
    reps: int = 10_000,
    seed: int = 0,
    level: float = LEVEL,
    engine: str = "offrl",
) -> pd.DataFrame:
    """Score distributions: per algorithm and threshold tau, the share of runs with a score above.

    The share is the mean over data sets of the share of runs (Agarwal et al. 2021, section 4.3).
    ci_low and ci_high are pointwise expanded percentile limits with their mc_error, band_low and
    band_high simultaneous ones (`_limits`); they are NaN where `summarise` has none.

    Args:
        table: the scores.
        tau: thresholds; by default 101 from the smallest score, or 0, to the largest, or `scale`.
        reps: number of resamples.
        seed: as in `summarise`.
        level: nominal coverage at each threshold, and of the band at all of them.
        engine: as in `summarise`; rliable has pointwise limits alone, at 95 %.
    """
    bootstrap.check(reps, seed, level)
    cells = table.cells()
    if tau is None:
        every = table.final().frame["score"]
        tau = np.linspace(min(0.0, every.min()), max(table.scale, every.max()), 101)
    thresholds = np.asarray(tau, dtype=np.float64)
    if check_engine(engine) == "rliable":
        from offrl.statistics import rliable as rliable_engine

        return rliable_engine.profile(table, thresholds, reps=reps, seed=seed)
    parts = []
    for algorithm, tasks in cells.items():
        if len(tasks) < len(table.datasets):
            continue
        scores = canonical(list(tasks.values()))
        runs = np.array([len(cell) for cell in scores])
        above = np.concatenate(scores)[:, None] > thresholds
        # `weight * counts @ above` is the profile of a resample that holds each score `counts`
        # times. Rounded, as sums of weights err in their last bits and all runs are 1, not less.
        weight = np.repeat(1 / (runs * len(runs)), runs)
        share = (weight @ above).round(14)
        limits = np.full((5, len(thresholds)), np.nan)
        if runs.min() > 1:
            samples = np.empty((len(thresholds), reps))
            weighted = (weight[:, None] * above).T
            for place, counts in Draws(runs, seed, "profile").blocks(0, reps):
                samples[:, place] = weighted @ counts
            spread = [cell.var(axis=0, ddof=1) for cell in np.split(above, runs.cumsum()[:-1])]
            variances = (np.array(spread) / (runs * len(runs) ** 2)[:, None]).T
            limits = _limits(samples.round(12), share, variances, runs, level)
        columns = dict(zip(("ci_low", "ci_high", "mc_error"), limits[:3], strict=True))
        bands = dict(zip(("band_low", "band_high"), limits[3:].clip(0, 1), strict=True))
        labels = {"algorithm": algorithm, "tau": thresholds, "share": share}
        parts.append(pd.DataFrame({**labels, **columns, **bands}))
    names = ("algorithm", "tau", "share", "ci_low", "ci_high", "mc_error", "band_low", "band_high")
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(names))


def curve(
    table: ScoreTable,
    dataset: str | None = None,
    *,
    reps: int = 2_000,
    seed: int = 0,
    points: int = 100,
    level: float = LEVEL,
    engine: str = "offrl",
) -> pd.DataFrame:
    """Learning curves: per algorithm and step, the IQM over runs and data sets with its interval.

    A step counts where every run of the algorithm was evaluated at it, so that a curve never
    changes the runs it is made of. Whole runs are resampled, so that the band is one of curves
    (rliable resamples each step by itself). Limits as in `profile`.

    Args:
        table: scores with steps; without steps the answer has no rows.
        dataset: a single data set, or None for all of them.
        reps: number of resamples.
        seed: as in `summarise`.
        points: at most so many steps are kept, evenly spread, the last one included.
        level: nominal coverage at each step, and of the band at all of them.
        engine: as in `profile`.
    """
    bootstrap.check(reps, seed, level)
    if check_engine(engine) == "rliable":
        from offrl.statistics import rliable as rliable_engine

        return rliable_engine.curve(table, dataset, reps=reps, seed=seed, points=points)
    columns = ["algorithm", "step", "iqm", "ci_low", "ci_high", "mc_error", "band_low", "band_high"]
    parts = []
    table.check_one_setting()
    frame = table.frame
    if "step" not in frame:
        frame = frame.iloc[:0].assign(step=0)
    frame = frame[frame["step"].notna()]
    if dataset is not None:
        frame = frame[frame["dataset"] == dataset]
    wanted = 1 if dataset is not None else len(table.datasets)
    for name, part in frame.groupby("algorithm", sort=True):
        if part["dataset"].nunique() < wanted:
            continue
        shared = part.set_index(["dataset", "seed", "step"])["score"].unstack("step")
        shared = shared.loc[:, shared.notna().all()]
        keep = np.unique(np.linspace(0, shared.shape[1] - 1, points).round().astype(int))
        kept = shared.iloc[:, keep if shared.shape[1] else []]
        if not kept.shape[1]:
            continue
        cells = canonical([c.to_numpy(np.float64) for _, c in kept.groupby("dataset")])
        runs = np.array([len(cell) for cell in cells])
        steps = np.concatenate(cells).T
        estimates = np.array(
            [_estimates([c[:, k] for c in cells], 1)[0] for k in range(len(steps))]
        )
        limits = np.full((5, len(steps)), np.nan)
        if runs.min() > 1:
            trimmed = [Trimmed(scores, int(runs.sum())) for scores in steps]
            samples = np.empty((len(steps), reps))
            for place, counts in Draws(runs, seed, "curve").blocks(0, reps):
                for row, at in zip(samples, trimmed, strict=True):
                    row[place] = at(counts)
            variances = [variances_of([c[:, k] for c in cells], 1)[0] for k in range(len(steps))]
            limits = _limits(samples, estimates, np.array(variances), runs, level)
        found = dict(zip(columns[2:], [estimates, *limits], strict=True))
        parts.append(pd.DataFrame({"algorithm": name, "step": kept.columns.astype(int), **found}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def ranks(table: ScoreTable, *, reps: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """How often each algorithm takes each rank, 1 the best, over resamples and data sets.

    In every resample the algorithms are ranked on each data set by their mean over runs, ties
    sharing their ranks (Agarwal et al. 2021, appendix A.3, over their bootstrap). Columns:
    algorithm; mean_rank, the mean over data sets of the ranks of the scores themselves; ci_low and
    ci_high, the resamples' 2.5 and 97.5 % quantiles of it; mc_error; rank_1, rank_2, ...,
    probabilities that sum to 1. Every cell needs a run; every interval two.
    """
    bootstrap.check(reps, seed)
    cells = {
        name: tasks for name, tasks in table.cells().items() if len(tasks) == len(table.datasets)
    }
    names = sorted(cells, key=lambda a: [tuple(c) for c in canonical(list(cells[a].values()))])
    columns = ["algorithm", "mean_rank", "ci_low", "ci_high", "mc_error"]
    columns += [f"rank_{k + 1}" for k in range(len(names))]
    if not names:
        return pd.DataFrame(columns=columns)
    # Data sets in an order of their scores, not of their names.
    tasks = sorted(
        table.datasets, key=lambda d: [(len(cells[a][d]), *sorted(cells[a][d])) for a in names]
    )
    scores = [[np.sort(cells[name][task]) for task in tasks] for name in names]
    point = _ranked(np.array([[cell.mean() for cell in row] for row in scores])[:, :, None])[0]
    means = np.empty((len(names), reps))
    shares = np.zeros((len(names), len(names)))
    size = bootstrap.block_size(max(sum(map(len, row)) for row in scores))
    draws = [
        Draws([len(cell) for cell in row], seed, f"ranks {k}", size).blocks(0, reps)
        for k, row in enumerate(scores)
    ]
    for blocks in zip(*draws, strict=True):
        resampled = [_task_means(cell, c) for cell, (_, c) in zip(scores, blocks, strict=True)]
        rank, share = _ranked(np.stack(resampled))
        means[:, blocks[0][0]] = rank.mean(axis=1)
        shares += share
    shares /= reps * len(tasks)
    rows = []
    single = min(len(cell) for row in scores for cell in row) < 2
    for k, name in enumerate(names):
        estimate = float(point[k].mean())
        ci = NONE if single else bootstrap.read(np.sort(means[k]), (1 - LEVEL) / 2, estimate)
        rows.append((name, estimate, ci.low, ci.high, ci.error, *shares[k]))
    answer = pd.DataFrame(rows, columns=columns)
    return answer.sort_values(["mean_rank", "algorithm"], ignore_index=True)


def check_engine(name: str) -> str:
    """The name of an engine; InputError for an unknown one."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    return name


def variances_of(cells: Sequence[Array], gamma: float) -> Array:
    """Each task's share v of the variance of each of the METRICS, shape (4, tasks)."""
    pooled = np.sort(np.concatenate(cells))
    cut = int(0.25 * len(pooled))
    runs = np.array([len(cell) for cell in cells])
    per_mean = 1 / (runs * len(cells) ** 2)
    plain = np.array([cell.var(ddof=1) for cell in cells])
    low, high = pooled[cut], pooled[len(pooled) - cut - 1]
    winsorised = np.array([np.clip(cell, low, high).var(ddof=1) for cell in cells])
    capped = np.array([np.minimum(cell, gamma).var(ddof=1) for cell in cells])
    # Winsorising may leave no variance where resamples still differ (two tasks of two runs, say).
    winsorised = winsorised if winsorised.any() else plain
    trimmed = runs / (len(pooled) - 2 * cut) ** 2
    return np.stack([winsorised * trimmed, plain * per_mean, plain * per_mean, capped * per_mean])


def _intervals(
    algorithms: Sequence[Sequence[Array]],
    gamma: float,
    reps: int | None,
    seed: int,
    level: float,
    methods: Sequence[str],
    progress: Progress | None,
) -> list[tuple[Found, int]]:
    """Intervals of each algorithm, and the number of resamples behind them."""
    scores = [canonical(cells) for cells in algorithms]
    shapes = [tuple(len(cell) for cell in cells) for cells in scores]
    studentized = "studentized" in methods
    done: set[int] = set()
    if progress is not None:
        progress(0, len(scores))

    def sample(active: list[int], first: int, last: int) -> list[Array]:
        found: dict[int, Array] = {}
        for shape in dict.fromkeys(shapes[i] for i in active):
            group = [i for i in active if shapes[i] == shape]
            resampled = _Resampled([scores[i] for i in group], gamma, studentized)
            samples = np.empty((len(group), resampled.rows, last - first))
            for place, counts in Draws(shape, seed, "summary").blocks(first, last):
                resampled(counts, samples[:, :, place])
            found.update(zip(group, samples, strict=True))
        return [found[i] for i in active]

    def read(i: int, samples: Array) -> tuple[Found, bool]:
        estimates, variances = _estimates(scores[i], gamma), variances_of(scores[i], gamma)
        levels = bootstrap.expanded_level(variances, np.array(shapes[i]), level)
        samples = np.sort(samples, axis=1)
        plain = (1 - level) / 2
        found: Found = {}
        for k, metric in enumerate(METRICS):
            found[metric] = {
                "percentile": bootstrap.read(samples[k], plain, estimates[k]),
                "expanded percentile": bootstrap.read(samples[k], float(levels[k]), estimates[k]),
            }
        if studentized:
            for k, metric in enumerate(STUDENTIZED):
                j = METRICS.index(metric)
                error = float(np.sqrt(variances[j].sum()))
                t = bootstrap.read(samples[len(METRICS) + k], plain, 0.0)
                # The upper quantile of t sets the lower end.
                found[metric]["studentized"] = Interval(
                    float(estimates[j] - error * t.high),
                    float(estimates[j] - error * t.low),
                    error * t.high_error,
                    error * t.low_error,
                )
        precise = all(found[metric]["expanded percentile"].precise for metric in METRICS)
        done.add(i)
        if progress is not None:
            progress(len(done), len(scores))
        return found, precise

    return bootstrap.converge(len(scores), sample, read, reps)


class _Resampled:
    """The METRICS of resamples of algorithms whose tasks have the same numbers of runs."""

    def __init__(self, algorithms: Sequence[Sequence[Array]], gamma: float, studentized: bool):
        self.algorithms, self.gamma = algorithms, gamma
        self.runs = np.array([len(cell) for cell in algorithms[0]])
        flat = np.stack([np.concatenate(cells) for cells in algorithms])
        self.trimmed = [Trimmed(row, flat.shape[1]) for row in flat]
        weight = np.repeat(1 / (self.runs * len(self.runs)), self.runs)
        self.weighted, self.gaps = flat * weight, (gamma - np.minimum(flat, gamma)) * weight
        self.estimates = [_estimates(cells, gamma) for cells in algorithms]
        self.studentized = studentized
        self.rows = len(METRICS) + (len(STUDENTIZED) if studentized else 0)

    def __call__(self, counts: Counts, samples: Array) -> None:
        """Fills `samples`, shape (algorithms, rows, b), from counts (N, b)."""
        floats = counts.astype(np.float64)
        for k, (cells, trimmed) in enumerate(zip(self.algorithms, self.trimmed, strict=True)):
            rank = trimmed.ranks(counts)
            samples[k, 0] = trimmed.mean(rank)
            samples[k, 1] = _median(_task_means(cells, floats))
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


def _limits(
    samples: Array, estimates: Array, variances: Array, runs: NDArray[np.int_], level: float
) -> Array:
    """Limits at each of K points from samples (K, reps): low, high, error, band low, band high.

    The first two are pointwise, by the expanded percentile. The band holds all points at once:
    estimates +- q times their standard errors, q the quantile of the largest standardised
    deviation over points (sup-t, Montiel Olea and Plagborg-Moeller 2019). As in the expanded
    percentile, errors are widened and q taken from the normal to Student's distribution. Where all
    runs agree, in the tails of a profile, neither has any width: that is no evidence.
    """
    levels = bootstrap.expanded_level(variances, runs, level)
    ordered = np.sort(samples, axis=1)
    found = [
        bootstrap.read(row, float(p), point)
        for row, p, point in zip(ordered, levels, estimates, strict=True)
    ]
    low = np.array([interval.low for interval in found])
    high = np.array([interval.high for interval in found])
    error = np.array([interval.error for interval in found])
    spread = samples.std(axis=1)
    moving = spread > 1e-12 * np.abs(estimates).max(initial=0)
    half = np.zeros(len(estimates))
    if moving.any():
        away = np.abs(samples[moving] - estimates[moving, None]) / spread[moving, None]
        q = np.quantile(away.max(axis=0), level)
        df, widen = bootstrap.freedom(variances[moving], runs)
        half[moving] = spread[moving] * widen * scipy.stats.t.isf(scipy.stats.norm.sf(q), df)
    # Where the distribution is skew, the pointwise limits may lie outside.
    return np.stack(
        [low, high, error, np.minimum(estimates - half, low), np.maximum(estimates + half, high)]
    )


def _ranked(means: Array) -> tuple[Array, Array]:
    """Ranks of algorithms on each task, 1 the best, from means (A, T, b); and how often each.

    Ties share the mean of their ranks, and count as each of them in equal parts: ranks (A, T, b),
    counts (A, A) of algorithm by rank.
    """
    size = len(means)
    # Means that agree in 40 bits, up to the order of summation, are tied.
    mantissa, exponent = np.frexp(means)
    rounded = np.ldexp(np.round(mantissa * 2**40), exponent)
    above = np.stack([(rounded > row).sum(axis=0) for row in rounded])
    tied = np.stack([(rounded == row).sum(axis=0) for row in rounded])
    counts = np.zeros((size, size))
    for k in range(size):
        for number in range(1, size + 1):
            at = above[k][tied[k] == number]
            found = np.bincount(at, minlength=size)
            for extra in range(number):
                counts[k, extra:] += found[: size - extra] / number
    return above + (tied + 1) / 2, counts


def _task_means(cells: Sequence[Array], counts: NDArray[Any]) -> Array:
    """Mean of each task in resamples with counts (N, b), shape (tasks, b)."""
    ends = np.cumsum([len(cell) for cell in cells])
    return np.stack(
        [
            cell @ counts[end - len(cell) : end] / len(cell)
            for cell, end in zip(cells, ends, strict=True)
        ]
    )


def _median(means: Array) -> Array:
    """Median over tasks, shape (b,), from (tasks, b); sorting short rows beats partitioning."""
    ordered = np.sort(means.T, axis=1)
    low, high = (means.shape[0] - 1) // 2, means.shape[0] // 2
    found: Array = (ordered[:, low] + ordered[:, high]) / 2
    return found


def _words(metrics: Sequence[str]) -> str:
    names: Mapping[str, str] = {"iqm": "IQM", "optimality_gap": "optimality gap"}
    return ", ".join(names.get(metric, metric) for metric in metrics)


def _as_cells(scores: Scores) -> list[Array]:
    """One float array of runs per task, from a matrix (runs, tasks) or from such a list."""
    if isinstance(scores, np.ndarray):
        if scores.ndim != 2:
            raise InputError(f"scores of shape {scores.shape}; expected (runs, tasks)")
        cells = list(np.asarray(scores, dtype=np.float64).T)
    else:
        assert isinstance(scores, Sequence)
        cells = [np.asarray(cell, dtype=np.float64) for cell in scores]
    for k, cell in enumerate(cells):
        if cell.ndim != 1 or not cell.size or not np.isfinite(cell).all():
            raise InputError(f"task {k}: expected one finite score or more, found {cell.tolist()}")
    if not cells:
        raise InputError("no task; expected scores of shape (runs, tasks)")
    return cells


def canonical(cells: Sequence[Array]) -> list[Array]:
    """Runs sorted within tasks, tasks sorted by number of runs, then by scores.

    A run is a score, or a row of scores at several steps.
    """
    ordered = [
        np.sort(cell) if cell.ndim == 1 else cell[np.lexsort(cell.T[::-1])] for cell in cells
    ]
    return sorted(ordered, key=lambda cell: (len(cell), *cell.ravel()))


def _estimates(cells: Sequence[Array], gamma: float) -> Array:
    """The four METRICS of the scores themselves."""
    cells = canonical(cells)
    pooled = np.sort(np.concatenate(cells))
    cut = int(0.25 * len(pooled))
    means = np.array([cell.mean() for cell in cells])
    capped = np.array([np.minimum(cell, gamma).mean() for cell in cells])
    middle = pooled[cut : len(pooled) - cut].mean()
    return np.array([middle, np.median(means), means.mean(), gamma - capped.mean()])
