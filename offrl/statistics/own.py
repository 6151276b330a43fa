"""offrl's own engine: intervals from resamples that are counts (see `bootstrap`).

No number depends on the other algorithms, on the order of runs, or on the order and the names of
data sets and algorithms: scores are sorted within tasks, and tasks by their scores. A metric that
is given as a function alone takes tasks in the order of their names, so that it may weigh them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from offrl.progress import Progress, parts
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Counts, Draws, Interval, TrimmedMean
from offrl.statistics.frames import CURVE_REPS, Aggregate, Line, PairEstimate
from offrl.statistics.functions import Job, ResampledFunctions
from offrl.statistics.labels import METHODS as METHODS
from offrl.statistics.metrics import (
    METRICS,
    STUDENTIZED,
    Metric,
    Tasks,
    canonical,
    canonical_places,
    median_of_tasks,
    point_estimates,
    task_means,
    variances_of,
)
from offrl.statistics.pair_intervals import pair_intervals
from offrl.statistics.pairs import Pair
from offrl.statistics.resampling import DEFAULT_REPS, Resampling

Intervals = dict[str, dict[str, Interval]]  # by metric and method


def aggregates(
    cells: Mapping[str, Tasks],
    gamma: float,
    metrics: Mapping[str, Metric],
    methods: Sequence[str],
    resampling: Resampling,
    progress: Progress | None,
) -> dict[str, dict[str, Aggregate]]:
    """Metrics of each algorithm with their intervals, of which single runs have none."""
    scores = {name: canonical(list(tasks.values())) for name, tasks in cells.items()}
    several = [name for name, tasks in scores.items() if min(map(len, tasks)) > 1]
    resampled = _ResampledMetrics(
        [scores[name] for name in several], gamma, "studentized" in methods, resampling
    )
    functions = {
        name: [
            Job(metric, function, scores[name], canonical_places(list(tasks.values())))
            for metric, function in metrics.items()
        ]
        for name, tasks in cells.items()
    }
    jobs = [job for name in several for job in functions[name]]
    first, second = parts(progress, len(several), len(jobs))
    built_in = resampled.converge(len(several), resampling.reps, first)
    more = iter(ResampledFunctions(jobs, resampling).converge(len(jobs), resampling.reps, second))
    intervals = {}
    for name, (by_metric, reps) in zip(several, built_in, strict=True):
        for metric in METRICS:
            intervals[name, metric] = by_metric[metric], reps
        for metric in metrics:
            intervals[name, metric] = next(more)
    aggregates: dict[str, dict[str, Aggregate]] = {}
    for name, tasks in scores.items():
        points = dict(zip(METRICS, point_estimates(tasks, gamma).tolist(), strict=True))
        points |= {job.name: job.value(tasks) for job in functions[name]}
        aggregates[name] = {
            metric: Aggregate(point, *intervals.get((name, metric), ({}, 0)))
            for metric, point in points.items()
        }
    return aggregates


def profile(
    cells: Mapping[str, Tasks], thresholds: Array, resampling: Resampling
) -> dict[str, Line]:
    """Score distributions with pointwise and simultaneous limits."""
    resamples = _Resamples(resampling.reps or DEFAULT_REPS, resampling.seed, "profile")
    lines = {}
    for name, tasks in cells.items():
        scores = canonical(list(tasks.values()))
        runs = np.array([len(cell) for cell in scores])
        above = np.concatenate(scores)[:, None] > thresholds
        # `weight * counts @ above` is the profile of a resample that holds each score `counts`
        # times. Rounded, as sums of weights err in their last bits and all runs are 1, not less.
        weight = np.repeat(1 / (runs * len(runs)), runs)
        share = (weight @ above).round(14)
        limits = np.full((5, len(thresholds)), np.nan)
        if runs.min() > 1:
            samples = np.empty((len(thresholds), resamples.reps))
            weighted = (weight[:, None] * above).T
            for place, counts in resamples.of(runs):
                samples[:, place] = weighted @ counts
            spread = [cell.var(axis=0, ddof=1) for cell in np.split(above, runs.cumsum()[:-1])]
            variances = (np.array(spread) / (runs * len(runs) ** 2)[:, None]).T
            limits = _limits(samples.round(12), share, variances, runs, resampling.level)
            limits[3:] = limits[3:].clip(0, 1)
        lines[name] = Line(share, limits)
    return lines


def curve(cells: Mapping[str, Tasks], resampling: Resampling) -> dict[str, Line]:
    """Learning curves of scores (runs, steps), with pointwise and simultaneous limits."""
    resamples = _Resamples(resampling.reps or CURVE_REPS, resampling.seed, "curve")
    lines = {}
    for name, tasks in cells.items():
        scores = canonical(list(tasks.values()))
        runs = np.array([len(cell) for cell in scores])
        steps = np.concatenate(scores).T
        at_step = [[cell[:, k] for cell in scores] for k in range(len(steps))]
        estimates = np.array([point_estimates(cells, 1)[0] for cells in at_step])
        limits = np.full((5, len(steps)), np.nan)
        if runs.min() > 1:
            trimmed = [TrimmedMean(row, int(runs.sum())) for row in steps]
            samples = np.empty((len(steps), resamples.reps))
            for place, counts in resamples.of(runs):
                for row, mean in zip(samples, trimmed, strict=True):
                    row[place] = mean(counts)
            variances = np.array([variances_of(cells, 1)[0] for cells in at_step])
            limits = _limits(samples, estimates, variances, runs, resampling.level)
        lines[name] = Line(estimates, limits)
    return lines


class _Resamples:
    """Resamples that algorithms with the same numbers of runs share, one after the other."""

    def __init__(self, reps: int, seed: int, purpose: str):
        self.reps, self.seed, self.purpose = reps, seed, purpose
        self.runs: list[int] = []
        self.blocks: list[tuple[slice, Counts]] = []

    def of(self, runs: NDArray[np.int_]) -> list[tuple[slice, Counts]]:
        """Counts and their places, as `Draws.blocks` has them, for these numbers of runs."""
        if self.runs != runs.tolist():
            self.runs = runs.tolist()
            self.blocks = list(Draws(runs, self.seed, self.purpose).blocks(0, self.reps))
        return self.blocks


def compare_pairs(
    cells: Mapping[str, Tasks],  # noqa: ARG001 (rliable's needs them)
    names: Sequence[tuple[str, str]],  # noqa: ARG001
    pairs: Sequence[Pair],
    resampling: Resampling,
    progress: Progress | None,
) -> list[PairEstimate]:
    """P(X > Y) and the intervals of each pair."""
    return [
        PairEstimate(pair.probability, probability, difference, reps)
        for pair, ((probability, difference), reps) in zip(
            pairs, pair_intervals(pairs, resampling, progress), strict=True
        )
    ]


class _ResampledMetrics(bootstrap.Resampled[Intervals]):
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

    def read(self, item: int, samples: Array) -> tuple[Intervals, bool]:
        scores, runs = self.scores[item], np.array(self.shapes[item])
        estimates, variances = point_estimates(scores, self.gamma), variances_of(scores, self.gamma)
        levels = bootstrap.expanded_level(variances, runs, self.level)
        samples = np.sort(samples, axis=1)
        plain = (1 - self.level) / 2
        intervals: Intervals = {}
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
        variances: Array = np.add.reduceat(squares, starts, axis=0) / (runs - 1)
        return variances


def _studentize(differences: Array, variances: Array) -> Array:
    """Differences over standard errors; without variance infinite, or 0 where nothing differs."""
    error = np.sqrt(variances)
    tiny = error <= 1e-12 * error.max(initial=0)
    endless = np.where(np.abs(differences) > 1e-12 * np.abs(differences).max(initial=0), np.inf, 0)
    out = np.copysign(endless, differences)
    ratios: Array = np.divide(differences, error, out=out, where=~tiny)
    return ratios


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
    intervals = [
        bootstrap.read(row, float(p), point)
        for row, p, point in zip(ordered, levels, estimates, strict=True)
    ]
    low = np.array([interval.low for interval in intervals])
    high = np.array([interval.high for interval in intervals])
    error = np.array([interval.error for interval in intervals])
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
