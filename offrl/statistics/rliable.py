"""The engine that has the library rliable compute points and percentile intervals.

Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice". It has neither Monte-Carlo
errors nor bands: those are NaN. The difference of IQMs of a pair is offrl's in either engine.

rliable takes matrices alone, so an algorithm needs as many runs on every data set. It draws from
numpy's global generator even when it is given another, so that one is seeded from our seed before
each algorithm or pair, and put back afterwards; a thread that draws from it meanwhile changes the
numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from offrl.errors import InputError
from offrl.progress import Progress, parts
from offrl.results.checks import first_few
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Interval
from offrl.statistics.frames import CURVE_REPS, Aggregate, Line, PairEstimate
from offrl.statistics.metrics import (
    METRICS,
    Metric,
    Tasks,
    canonical,
    canonical_places,
    evaluate,
)
from offrl.statistics.pair_intervals import pair_intervals
from offrl.statistics.pairs import Pair
from offrl.statistics.resampling import DEFAULT_REPS, Resampling

METHODS = ("percentile",)
REPS = 2_000  # rliable's default for profiles; its 50,000 for the others take minutes to hours


def aggregates(
    cells: Mapping[str, Tasks],
    gamma: float,
    metrics: Mapping[str, Metric],
    methods: Sequence[str],  # noqa: ARG001 (there is one alone)
    resampling: Resampling,
    progress: Progress | None,
) -> dict[str, dict[str, Aggregate]]:
    """Metrics of each algorithm with their intervals, of which single runs have none."""
    matrices = {name: _matrix(name, tasks) for name, tasks in cells.items()}
    reps = resampling.reps or REPS
    from rliable import library  # takes a second
    from rliable import metrics as theirs

    def all_metrics(scores: Array, places: Sequence[int]) -> Array:
        in_order = [scores[:, k] for k in places]  # the data sets as they were given
        return np.array(  # in the order of METRICS, then of the functions
            [
                theirs.aggregate_iqm(scores),
                theirs.aggregate_median(scores),
                theirs.aggregate_mean(scores),
                theirs.aggregate_optimality_gap(scores, gamma),
                *(evaluate(name, metric, in_order) for name, metric in metrics.items()),
            ]
        )

    if progress is not None:
        progress(0, len(matrices))
    aggregates: dict[str, dict[str, Aggregate]] = {}
    for name, scores in matrices.items():
        places = canonical_places(list(cells[name].values()))
        estimate = partial(
            library.get_interval_estimates, func=partial(all_metrics, places=places), reps=reps
        )
        points, ends = _estimate(estimate, scores, resampling)
        aggregates[name] = {
            metric: Aggregate(point, {METHODS[0]: _interval(low, high)}, reps)
            if len(scores) > 1
            else Aggregate(point, {}, 0)
            for metric, point, low, high in zip(
                (*METRICS, *metrics), points.tolist(), *ends.tolist(), strict=True
            )
        }
        if progress is not None:
            progress(len(aggregates), len(matrices))
    return aggregates


def profile(
    cells: Mapping[str, Tasks], thresholds: Array, resampling: Resampling
) -> dict[str, Line]:
    """Score distributions with pointwise limits."""
    matrices = {name: _matrix(name, tasks) for name, tasks in cells.items()}
    from rliable import library

    reps = resampling.reps or DEFAULT_REPS
    estimate = partial(library.create_performance_profile, tau_list=thresholds, reps=reps)
    return {name: _line(estimate, scores, resampling) for name, scores in matrices.items()}


def curve(cells: Mapping[str, Tasks], resampling: Resampling) -> dict[str, Line]:
    """Learning curves of scores (runs, steps), with pointwise limits.

    rliable resamples every step by itself, not whole runs. Of a single step's interval that makes
    no difference.
    """
    matrices = {name: _matrix(name, tasks) for name, tasks in cells.items()}
    from rliable import library, metrics

    def iqms(scores: Array) -> Array:
        return np.array([metrics.aggregate_iqm(scores[..., k]) for k in range(scores.shape[-1])])

    estimate = partial(
        library.get_interval_estimates, func=iqms, reps=resampling.reps or CURVE_REPS
    )
    return {name: _line(estimate, scores, resampling) for name, scores in matrices.items()}


def compare_pairs(
    cells: Mapping[str, Tasks],
    names: Sequence[tuple[str, str]],
    pairs: Sequence[Pair],
    resampling: Resampling,
    progress: Progress | None,
) -> list[PairEstimate]:
    """P(X > Y) and the intervals of each pair.

    Of 10 runs on 26 data sets REPS resamples take 20 seconds for a pair.
    """
    # Before the slow part: rliable rejects scores that offrl's own engine accepts.
    for name in dict.fromkeys(name for both in names for name in both):
        _check_equal(name, cells[name])
    from rliable import library, metrics

    estimate = partial(
        library.get_interval_estimates,
        func=metrics.probability_of_improvement,
        reps=resampling.reps or REPS,
    )
    first, second = parts(progress, len(pairs), len(pairs))
    if first is not None:
        first(0, len(pairs))
    probabilities: list[tuple[float, Interval]] = []
    for pair in pairs:
        # No name decides which of the two is drawn first.
        sides = np.stack(pair.x, axis=1), np.stack(pair.y, axis=1)
        point, ends = _estimate(estimate, sides, resampling)
        low, high = ends.ravel().tolist()
        if pair.turned:
            probabilities.append((1 - float(point), _interval(1 - high, 1 - low)))
        else:
            probabilities.append((float(point), _interval(low, high)))
        if first is not None:
            first(len(probabilities), len(pairs))
    return [
        PairEstimate(probability, interval, difference, reps)
        for (probability, interval), ((_, difference), reps) in zip(
            probabilities, pair_intervals(pairs, resampling, second), strict=True
        )
    ]


def _matrix(algorithm: str, tasks: Tasks) -> Array:
    """Scores of shape (runs, data sets[, steps]), in an order that no name decides."""
    _check_equal(algorithm, tasks)
    return np.stack(canonical(list(tasks.values())), axis=1)


def _check_equal(algorithm: str, tasks: Tasks) -> None:
    runs = {task: len(cell) for task, cell in tasks.items()}
    most = max(runs.values())
    fewer = [f"{algorithm!r} on {task!r} ({n})" for task, n in runs.items() if n < most]
    if fewer:
        raise InputError(
            f"{first_few(fewer)}: fewer runs than the {most} of {algorithm!r} on other data sets; "
            "rliable needs as many on each: use offrl's own engine, which does not, or leave runs "
            "out until they are equal"
        )


def _estimate(
    estimate: Callable[..., Any], scores: Array | tuple[Array, Array], resampling: Resampling
) -> tuple[Array, Array]:
    """Rliable's points and interval ends, shapes (K,) and (2, K)."""
    with seeded(resampling.seed):
        points, ends = estimate({"": scores}, confidence_interval_size=resampling.level)
    return points[""], ends[""]


def _line(estimate: Callable[..., Any], scores: Array, resampling: Resampling) -> Line:
    points, ends = _estimate(estimate, scores, resampling)
    limits = np.full((5, len(points)), np.nan)
    if len(scores) > 1:  # of a single run rliable makes an interval without width
        limits[:2] = ends
    return Line(points, limits)


def _interval(low: float, high: float) -> Interval:
    return Interval(low, high, np.nan, np.nan)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generator of numpy, seeded, and in the end as it was before."""
    before = np.random.get_state(legacy=False)  # noqa: NPY002 (rliable draws from it)
    words = bootstrap.stream(seed, "rliable").integers(2**32, size=8, dtype=np.uint32)
    np.random.seed(words)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
