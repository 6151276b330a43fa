"""The estimates that the library rliable itself computes, in the frames of offrl's own engine.

Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice". Same score table in, same
frames out: labels, counts and what is refused are ours, points and intervals are rliable's. Of our
intervals it has the percentile one alone, and neither Monte-Carlo errors nor bands: those columns
are NaN.

rliable takes matrices alone, so an algorithm needs as many runs on every data set. It draws from
numpy's global generator whatever it is told, so that one is seeded from our seed before each
algorithm or pair, and put back afterwards; a thread that draws from it meanwhile changes the
numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial as bind
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from offrl.errors import InputError
from offrl.progress import Progress
from offrl.results.checks import first_few
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap, profiles, summary
from offrl.statistics.bootstrap import Array
from offrl.statistics.metrics import canonical
from offrl.statistics.pairs import PAIRS, Pair, comparable_cells
from offrl.statistics.resampling import Resampling

METHOD = "percentile"
REPS = 2_000  # rliable's default for profiles; its 50,000 for the others take minutes to hours
FEW = 100  # of our own resamples, where a frame of ours is made for its labels


def summarise(
    table: ScoreTable,
    *,
    reps: int | None = None,
    seed: int = 0,
    partial: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Aggregates as `statistics.summarise` gives them, one row per algorithm and metric.

    InputError for unequal numbers of runs, besides what `statistics.summarise` refuses.

    Args:
        table: the scores; its scale is the optimality gap's gamma.
        reps: number of resamples; REPS by default.
        seed: of the resamples.
        partial: as in `statistics.summarise`.
        progress: called with the number of algorithms done and their number.
    """
    reps = reps or REPS
    frame = summary.summarise(table, resampling=Resampling(FEW), partial=partial)
    frame = frame[frame["ci_method"] == METHOD].reset_index(drop=True)
    frame = frame.assign(reps=np.where(frame["reps"] > 0, reps, 0), mc_error=np.nan)
    matrices = _matrices(table)
    from rliable import library, metrics  # takes a second

    def aggregates(scores: Array) -> Array:
        return np.array(  # in the order of statistics.METRICS
            [
                metrics.aggregate_iqm(scores),
                metrics.aggregate_median(scores),
                metrics.aggregate_mean(scores),
                metrics.aggregate_optimality_gap(scores, table.scale),
            ]
        )

    estimate = bind(library.get_interval_estimates, func=aggregates, reps=reps)
    if progress is not None:
        progress(0, len(matrices))
    for done, (algorithm, scores) in enumerate(matrices.items(), start=1):
        _fill(frame, "estimate", algorithm, scores, estimate, seed)
        if progress is not None:
            progress(done, len(matrices))
    return frame


def profile(table: ScoreTable, tau: ArrayLike, *, reps: int = REPS, seed: int = 0) -> pd.DataFrame:
    """Score distributions at thresholds tau as `statistics.profile` gives them.

    InputError for unequal numbers of runs.
    """
    frame = profiles.profile(table, tau, resampling=Resampling(FEW))
    frame = frame.assign(mc_error=np.nan, band_low=np.nan, band_high=np.nan)
    matrices = _matrices(table)
    from rliable import library

    thresholds = np.asarray(tau, dtype=np.float64)
    estimate = bind(library.create_performance_profile, tau_list=thresholds, reps=reps)
    for algorithm, scores in matrices.items():
        _fill(frame, "share", algorithm, scores, estimate, seed)
    return frame


def curve(
    table: ScoreTable,
    dataset: str | None = None,
    *,
    reps: int = REPS,
    seed: int = 0,
    points: int = 100,
) -> pd.DataFrame:
    """Learning curves as `statistics.curve` gives them, at the same steps.

    rliable resamples every step by itself, not whole runs. Of a single step's interval that makes
    no difference. InputError for unequal numbers of runs.
    """
    frame = profiles.curve(table, dataset, resampling=Resampling(FEW), points=points)
    frame = frame.assign(mc_error=np.nan, band_low=np.nan, band_high=np.nan)
    matrices = {}
    for name, part in frame.groupby("algorithm"):
        rows = table.frame[table.frame["algorithm"] == name]
        if dataset is not None:
            rows = rows[rows["dataset"] == dataset]
        rows = rows[rows["step"].isin(part["step"])]
        runs = rows.set_index(["dataset", "seed", "step"])["score"].unstack("step")
        cells = {str(task): cell.to_numpy(np.float64) for task, cell in runs.groupby("dataset")}
        matrices[str(name)] = _matrix(str(name), cells)
    from rliable import library, metrics

    def iqms(scores: Array) -> Array:
        return np.array([metrics.aggregate_iqm(scores[..., k]) for k in range(scores.shape[-1])])

    estimate = bind(library.get_interval_estimates, func=iqms, reps=reps)
    for algorithm, scores in matrices.items():
        _fill(frame, "iqm", algorithm, scores, estimate, seed)
    return frame


def probabilities(
    table: ScoreTable,
    pairs: Sequence[tuple[str, str]],
    *,
    reps: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """P(X > Y) of each pair (x, y): columns x, y, probability, probability_low, probability_high.

    InputError where `comparison.compare` raises one, and for unequal numbers of runs.

    Args:
        table: the scores.
        pairs: names of algorithms.
        reps: number of resamples; REPS by default, which take 20 seconds for a pair of 10 runs on
            26 data sets.
        seed: of the resamples.
        progress: called with the number of pairs done and their number.
    """
    reps = reps or REPS
    cells = comparable_cells(table, None, [name for pair in pairs for name in pair])
    for name, tasks in cells.items():
        _check_equal(name, tasks)
    from rliable import library, metrics

    rows = []
    if progress is not None:
        progress(0, len(pairs))
    for x, y in pairs:
        # No name decides which of the two is drawn first.
        pair = Pair(cells[x], cells[y])
        sides = np.stack(pair.x, axis=1), np.stack(pair.y, axis=1)
        with seeded(seed):
            points, ends = library.get_interval_estimates(
                {"x,y": sides}, metrics.probability_of_improvement, reps=reps
            )
        found = [float(points["x,y"]), *ends["x,y"].ravel().tolist()]
        if pair.turned:
            point, low, high = found
            found = [1 - point, 1 - high, 1 - low]
        rows.append((x, y, *found))
        if progress is not None:
            progress(len(rows), len(pairs))
    return pd.DataFrame(rows, columns=list(PAIRS[:5]))


def _matrices(table: ScoreTable) -> dict[str, Array]:
    """Scores of shape (runs, data sets) of every algorithm that has a run on each data set."""
    return {
        algorithm: _matrix(algorithm, tasks)
        for algorithm, tasks in table.cells().items()
        if len(tasks) == len(table.datasets)
    }


def _matrix(algorithm: str, tasks: Mapping[str, Array]) -> Array:
    """Scores of shape (runs, data sets[, steps]), in an order that no name decides."""
    _check_equal(algorithm, tasks)
    return np.stack(canonical(list(tasks.values())), axis=1)


def _check_equal(algorithm: str, tasks: Mapping[str, Array]) -> None:
    runs = {task: len(cell) for task, cell in tasks.items()}
    most = max(runs.values())
    fewer = [f"{algorithm!r} on {task!r} ({n})" for task, n in runs.items() if n < most]
    if fewer:
        raise InputError(
            f"{first_few(fewer)}: fewer runs than the {most} of {algorithm!r} on other data sets; "
            "rliable needs as many on each: use offrl's own engine, which does not, or leave runs "
            "out until they are equal"
        )


def _fill(
    frame: pd.DataFrame,
    column: str,
    algorithm: str,
    scores: Array,
    estimate: Callable[[dict[str, Array]], Any],
    seed: int,
) -> None:
    """Puts rliable's points and interval ends into the algorithm's rows."""
    with seeded(seed):
        points, ends = estimate({algorithm: scores})
    rows = frame["algorithm"] == algorithm
    frame.loc[rows, column] = points[algorithm]
    # Of a single run rliable makes an interval without width.
    frame.loc[rows, ["ci_low", "ci_high"]] = ends[algorithm].T if len(scores) > 1 else np.nan


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
