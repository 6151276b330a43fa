"""Estimates and intervals from a score table.

Point estimates follow Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice") as
rliable computes them. Resampling is the stratified bootstrap: the runs of each data set (task) are
drawn with replacement within that data set. Two intervals are read from the same resamples:

- `percentile`: the alpha/2 and 1 - alpha/2 quantiles, rliable's default. At 3 to 5 runs it covers
  85 to 90 % instead of 95 %.
- `expanded percentile` (the default): the quantiles at Phi(-c t) and Phi(c t) instead, after
  Hesterberg 2015 ("What teachers should know about the bootstrap", section 5.3). t is Student's
  1 - alpha/2 quantile; its degrees of freedom come from the per-task variances by Satterthwaite
  (1946), df = (sum v)^2 / sum(v^2 / (n - 1)), and c^2 = sum v / sum(v (n - 1) / n) undoes the
  bootstrap's too small variance: n / (n - 1) where every task has n runs.

v is each task's share of the estimate's variance, from the sample variance s^2 (ddof 1) of

- IQM: scores winsorised at the pooled cut points (its influence function), v = n s^2 / N^2;
- mean: the scores, v = s^2 / n; median: the same, since it is a median of task means;
- optimality gap: min(score, gamma), v = s^2 / n.

Every algorithm draws from a stream of its own, spawned from the seed and its name, over scores
sorted within tasks and tasks sorted by their scores. So no number depends on the other algorithms,
on the order of runs, or on the order and the names of data sets.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from offrl.errors import InputError
from offrl.scores import ScoreTable

METRICS = ("iqm", "median", "mean", "optimality_gap")
METHODS = ("percentile", "expanded percentile")
LEVEL = 0.95
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
# Scores per block of resamples: 2**18 stays in a core's cache, and bounds memory at some 10 MB.
BLOCK = 2**18

Array = NDArray[np.float64]
Scores = ArrayLike | Sequence[ArrayLike]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Interval:
    """The two ends of an interval and the Monte-Carlo standard error of each."""

    low: float
    high: float
    low_error: float
    high_error: float


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
    rng: np.random.Generator,
    *,
    gamma: float,
    reps: int = 50_000,
    level: float = LEVEL,
) -> dict[str, dict[str, Interval]]:
    """Bootstrap intervals as metric -> method -> Interval, all from the same resamples.

    Args:
        scores: as in `iqm`; every task needs two runs, else InputError.
        rng: source of the resamples.
        gamma: as in `optimality_gap`.
        reps: number of resamples.
        level: nominal coverage.
    """
    cells = _as_cells(scores)
    few = [str(k) for k, cell in enumerate(cells) if len(cell) < 2]
    if few:
        raise InputError(
            f"task {', '.join(few)} has one run; an interval needs two runs or more of every task"
        )
    cells = _canonical(cells)
    estimates = _estimates(cells, gamma)
    samples = np.concatenate(list(_bootstrap(cells, reps, rng, gamma)))
    samples.sort(axis=0)
    plain = (1 - level) / 2
    levels = _expanded_level(_variances(cells, gamma), np.array([len(c) for c in cells]), level)
    return {
        metric: {
            "percentile": _read(samples[:, k], plain, estimates[k]),
            "expanded percentile": _read(samples[:, k], float(levels[k]), estimates[k]),
        }
        for k, metric in enumerate(METRICS)
    }


def summarise(
    table: ScoreTable,
    *,
    reps: int = 50_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Aggregates of every algorithm over all data sets: one row per metric and interval method.

    Columns are COLUMNS: `n_runs` is the smallest number of runs that a data set has, `mc_error`
    the larger Monte-Carlo standard error of the two ends. An interval is empty (NaN) where a data
    set has a single run, and the estimate too where an algorithm has none left on a data set;
    `explain` says so in words.
    """
    _check_reps(reps, seed)
    rows = []
    cells = table.cells()
    for done, (algorithm, tasks) in enumerate(cells.items()):
        if progress is not None:
            progress(done, len(cells))
        scores = list(tasks.values())
        runs = [len(cell) for cell in scores]
        whole = len(tasks) == len(table.datasets)
        estimates = _estimates(scores, table.scale) if whole else np.full(len(METRICS), np.nan)
        found = (
            intervals(scores, stream(seed, "summary", algorithm), gamma=table.scale, reps=reps)
            if whole and min(runs) > 1
            else None
        )
        for metric, estimate in zip(METRICS, estimates, strict=True):
            for method in METHODS:
                ci = found[metric][method] if found else Interval(*[np.nan] * 4)
                rows.append(
                    {
                        "algorithm": algorithm,
                        "metric": metric,
                        "estimate": float(estimate),
                        "ci_low": ci.low,
                        "ci_high": ci.high,
                        "ci_method": method,
                        "n_runs": min(runs, default=0),
                        "n_tasks": len(tasks),
                        "reps": reps,
                        "mc_error": max(ci.low_error, ci.high_error),
                    }
                )
    if progress is not None:
        progress(len(cells), len(cells))
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
    expanded = summary[(summary["ci_method"] == "expanded percentile") & summary["ci_low"].notna()]
    for name in expanded["algorithm"].unique():
        scores = list(cells[name].values())
        ends = [
            _estimates([np.array([end(cell)]) for cell in scores], table.scale)
            for end in (np.min, np.max)
        ]
        tied, at_end = [], []
        rows = expanded[expanded["algorithm"] == name].set_index("metric")
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
    for metrics, names in point.items():
        notes.append(
            f"The interval of {_words(metrics)} is a single point for {', '.join(names)}: runs "
            "tie, so that every resample gives the same value. That is no evidence of certainty"
        )
    if capped:
        which = "; ".join(f"{', '.join(names)} ({_words(m)})" for m, names in capped.items())
        notes.append(
            "Some expanded percentile intervals reach the lowest or highest value that resampling "
            "so few runs can give, are narrower than they should be, and may cover less than "
            f"95 % (some 75 % with 3 runs on 1 data set): {which}"
        )
    return notes


def per_task(table: ScoreTable) -> pd.DataFrame:
    """One row per algorithm and data set: mean, std (ddof 1), iqm over runs, n, n_failed, step.

    std is NaN for a single run; `step` is missing where the scores have none.
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
            rows.append(
                {
                    "algorithm": algorithm,
                    "dataset": dataset,
                    "mean": float(cell.mean()) if n else np.nan,
                    "std": float(cell.std(ddof=1)) if n > 1 else np.nan,
                    "iqm": iqm([cell]) if n else np.nan,
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
) -> pd.DataFrame:
    """Score distributions: per algorithm and threshold tau, the share of runs with a score above.

    The share is the mean over data sets of the share of runs (Agarwal et al. 2021, section 4.3).
    ci_low and ci_high are pointwise expanded percentile limits, NaN where `summarise` has none.

    Args:
        table: the scores.
        tau: thresholds; by default 101 from the smallest score, or 0, to the largest, or `scale`.
        reps: number of resamples.
        seed: as in `summarise`.
        level: nominal coverage at each threshold.
    """
    _check_reps(reps, seed)
    cells = table.cells()
    if tau is None:
        every = table.final().frame["score"]
        tau = np.linspace(min(0.0, every.min()), max(table.scale, every.max()), 101)
    thresholds = np.asarray(tau, dtype=np.float64)
    parts = []
    for algorithm, tasks in cells.items():
        if len(tasks) < len(table.datasets):
            continue
        scores = _canonical(list(tasks.values()))
        runs = np.array([len(cell) for cell in scores])
        flat = np.concatenate(scores)
        # `counts * weight @ above` is the profile of a resample that holds each score `counts`
        # times. Rounded, as sums of weights err in their last bits and all runs are 1, not less.
        weight = np.repeat(1 / (runs * len(runs)), runs)
        above = flat[:, None] > thresholds
        low = high = np.full(len(thresholds), np.nan)
        if runs.min() > 1:
            rng = stream(seed, "profile", algorithm)
            samples = (
                np.concatenate(
                    [_counts(block) * weight @ above for block in _resamples(runs, reps, rng)]
                )
                .round(12)
                .T.copy()
            )
            samples.sort(axis=1)
            spread = np.array(
                [cell.var(axis=0, ddof=1) for cell in np.split(above, runs.cumsum()[:-1])]
            )
            levels = _expanded_level((spread / runs[:, None]).T, runs, level)
            ends = np.array(
                [np.quantile(s, [p, 1 - p]) for s, p in zip(samples, levels, strict=True)]
            )
            low, high = ends.T
        parts.append(
            pd.DataFrame(
                {
                    "algorithm": algorithm,
                    "tau": thresholds,
                    "share": (weight @ above).round(12),
                    "ci_low": low,
                    "ci_high": high,
                }
            )
        )
    columns = ["algorithm", "tau", "share", "ci_low", "ci_high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def curve(
    table: ScoreTable,
    dataset: str | None = None,
    *,
    reps: int = 2_000,
    seed: int = 0,
    points: int = 100,
) -> pd.DataFrame:
    """Learning curves: per algorithm and step, the IQM over runs and data sets with its interval.

    A step counts where every run of the algorithm was evaluated at it, so that a curve never
    changes the runs it is made of. ci_low and ci_high are pointwise expanded percentile limits.

    Args:
        table: scores with steps; without steps the answer has no rows.
        dataset: a single data set, or None for all of them.
        reps: number of resamples at each step.
        seed: as in `summarise`.
        points: at most so many steps are kept, evenly spread, the last one included.
    """
    _check_reps(reps, seed)
    rows = []
    frame = table.frame
    if "step" not in frame:
        frame = frame.iloc[:0].assign(step=0)
    frame = frame[frame["step"].notna()]
    if dataset is not None:
        frame = frame[frame["dataset"] == dataset]
    wanted = 1 if dataset is not None else len(table.datasets)
    for name, part in frame.groupby("algorithm", sort=True):
        algorithm = str(name)
        if part["dataset"].nunique() < wanted:
            continue
        runs = part.set_index(["dataset", "seed", "step"])["score"].unstack("step")
        runs = runs.loc[:, runs.notna().all()]
        keep = np.unique(np.linspace(0, runs.shape[1] - 1, points).round().astype(int))
        for step in runs.columns[keep] if runs.shape[1] else []:
            cells = [c.to_numpy(np.float64) for _, c in runs[step].groupby("dataset")]
            low = high = np.nan
            if min(map(len, cells)) > 1:
                rng = stream(seed, f"curve {dataset or ''}", algorithm)
                found = intervals(cells, rng, gamma=table.scale, reps=reps)
                ci = found["iqm"]["expanded percentile"]
                low, high = ci.low, ci.high
            rows.append((algorithm, int(step), iqm(cells), low, high))
    return pd.DataFrame(rows, columns=["algorithm", "step", "iqm", "ci_low", "ci_high"])


def stream(seed: int, purpose: str, name: str) -> np.random.Generator:
    """A generator that depends on the seed, the purpose and the name, and on nothing else."""
    digest = hashlib.sha256(f"{purpose}\0{name}".encode()).digest()
    key = np.frombuffer(digest, dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(map(int, key))))


def _check_reps(reps: int, seed: int) -> None:
    if reps < 100:
        raise InputError(f"reps {reps}: too few resamples for an interval; give 100 or more")
    if seed < 0:
        raise InputError(f"seed {seed}: expected a whole number, 0 or more")


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


def _canonical(cells: Sequence[Array]) -> list[Array]:
    """Runs sorted within tasks, tasks sorted by number of runs, then by scores."""
    return sorted((np.sort(cell) for cell in cells), key=lambda cell: (len(cell), *cell))


def _estimates(cells: Sequence[Array], gamma: float) -> Array:
    """The four METRICS of the scores themselves."""
    cells = _canonical(cells)
    pooled = np.sort(np.concatenate(cells))
    cut = int(0.25 * len(pooled))
    means = np.array([cell.mean() for cell in cells])
    capped = np.array([np.minimum(cell, gamma).mean() for cell in cells])
    middle = pooled[cut : len(pooled) - cut].mean()
    return np.array([middle, np.median(means), means.mean(), gamma - capped.mean()])


def _variances(cells: Sequence[Array], gamma: float) -> Array:
    """Each task's share v of the variance of each of the METRICS, shape (4, tasks), up to scale.

    Tasks stand in the order given.
    """
    pooled = np.sort(np.concatenate(cells))
    cut = int(0.25 * len(pooled))
    runs = np.array([len(cell) for cell in cells])
    plain = np.array([cell.var(ddof=1) for cell in cells]) / runs
    low, high = pooled[cut], pooled[len(pooled) - cut - 1]
    winsorised = np.array([np.clip(cell, low, high).var(ddof=1) for cell in cells]) * runs
    capped = np.array([np.minimum(cell, gamma).var(ddof=1) for cell in cells]) / runs
    # Winsorising may leave no variance where resamples still differ (two tasks of two runs, say).
    winsorised = winsorised if winsorised.any() else plain
    return np.stack([winsorised, plain, plain, capped])


def _expanded_level(variances: Array, runs: NDArray[np.int_], level: float) -> Array:
    """Lower quantile level of the expanded percentile interval, for variances (..., tasks)."""
    # Relative to the largest, so that tiny scores do not underflow; all zero: any level will do.
    top = variances.max(axis=-1, keepdims=True)
    share = np.divide(variances, top, out=np.ones_like(variances), where=top > 0)
    total = share.sum(axis=-1)
    df = total**2 / (share**2 / (runs - 1)).sum(axis=-1)
    widen = np.sqrt(total / (share * (runs - 1) / runs).sum(axis=-1))
    t = scipy.stats.t.ppf((1 + level) / 2, df)
    return np.asarray(scipy.stats.norm.cdf(-widen * t), dtype=np.float64)


def _read(ordered: Array, p: float, estimate: float) -> Interval:
    """The p and 1 - p quantiles of sorted samples, each with its Monte-Carlo standard error."""
    # Resamples that agree up to the order of summation are one point.
    if ordered[-1] - ordered[0] <= 1e-12 * np.abs(ordered[[0, -1]]).max():
        return Interval(float(estimate), float(estimate), 0.0, 0.0)
    # A quantile's error in level is binomial; half the distance between its ends, in scores.
    error = np.sqrt(p * (1 - p) / len(ordered))
    levels = np.array([p, p - error, p + error])
    low = np.quantile(ordered, levels.clip(0, 1))
    high = np.quantile(ordered, (1 - levels).clip(0, 1))
    return Interval(
        float(low[0]), float(high[0]), float(low[2] - low[1]) / 2, float(high[1] - high[2]) / 2
    )


def _resamples(
    runs: NDArray[np.int_], reps: int, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Blocks of resamples, as indices (block, N) into the scores of tasks laid end to end.

    `runs` is sorted, as `_canonical` leaves it, so that tasks with equal numbers are drawn at once.
    """
    starts = runs.cumsum() - runs
    size = max(1, BLOCK // int(runs.sum()))
    for first in range(0, reps, size):
        count = min(size, reps - first)
        parts = []
        for n in np.unique(runs):
            start = starts[runs == n]
            draw = rng.integers(0, n, (count, len(start), n), dtype=np.min_scalar_type(n - 1))
            parts.append((draw + start[:, None]).reshape(count, -1))
        yield np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _counts(block: NDArray[np.intp]) -> NDArray[np.intp]:
    """How often each score stands in each resample, same shape as the indices."""
    rows, width = block.shape
    flat = block + width * np.arange(rows)[:, None]
    return np.bincount(flat.ravel(), minlength=rows * width).reshape(rows, width)


def _bootstrap(
    cells: Sequence[Array], reps: int, rng: np.random.Generator, gamma: float
) -> Iterator[Array]:
    """The four METRICS of resamples, in blocks of shape (block, 4)."""
    cells = _canonical(cells)
    runs = np.array([len(cell) for cell in cells])
    starts = runs.cumsum() - runs
    flat = np.concatenate(cells)
    capped = np.minimum(flat, gamma)
    pooled = np.sort(flat)
    cut = int(0.25 * len(flat))
    # Sorting small ranks is several times faster than sorting scores.
    ranks = np.searchsorted(pooled, flat).astype(np.min_scalar_type(len(flat)))
    for block in _resamples(runs, reps, rng):
        middle = pooled[np.sort(ranks[block], axis=1)[:, cut : len(flat) - cut]].mean(axis=1)
        means = np.add.reduceat(flat[block], starts, axis=1) / runs
        gaps = gamma - (np.add.reduceat(capped[block], starts, axis=1) / runs).mean(axis=1)
        yield np.stack([middle, np.median(means, axis=1), means.mean(axis=1), gaps], axis=1)
