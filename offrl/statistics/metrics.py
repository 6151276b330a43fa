"""Point estimates of scores, and their variances.

Point estimates follow Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice") as
rliable computes them.

An estimate's variance, which the expanded and the studentized interval need, is a sum over tasks of
v, from the sample variance s^2 (ddof 1) of a task's n runs, with N runs on T tasks in all:

- IQM: scores winsorised at the pooled cut points, its influence function: v = n s^2 / (N - 2 cut)^2
  (Tukey and McLaughlin 1963);
- mean: the scores, v = s^2 / (n T^2); median: the same, since it is a median of task means;
- optimality gap: min(score, gamma), v = s^2 / (n T^2).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.errors import InputError
from offrl.statistics.bootstrap import Array

METRICS = ("iqm", "median", "mean", "optimality_gap")
# A median of task means has no standard error that holds where two means lie close.
STUDENTIZED = ("iqm", "mean", "optimality_gap")
Scores = ArrayLike | Sequence[ArrayLike]
Tasks = Mapping[str, Array]  # runs by data set
Metric = Callable[[Any], float]  # of scores as `iqm` takes them


def iqm(scores: Scores) -> float:
    """Interquartile mean: floor(0.25 N) of all N pooled scores are left out at each end.

    Args:
        scores: array of shape (runs, tasks), or one array of runs per task. Pooling gives a task
            with more runs more weight.
    """
    return float(point_estimates(as_cells(scores), np.inf)[0])


def median(scores: Scores) -> float:
    """Median over tasks of the mean over runs; arguments as in `iqm`."""
    return float(point_estimates(as_cells(scores), np.inf)[1])


def mean(scores: Scores) -> float:
    """Mean over tasks of the mean over runs; arguments as in `iqm`."""
    return float(point_estimates(as_cells(scores), np.inf)[2])


def optimality_gap(scores: Scores, gamma: float) -> float:
    """Gamma minus the mean over tasks of the mean over runs of min(score, gamma).

    Args:
        scores: as in `iqm`.
        gamma: the score that counts as solved, on the scale of the scores: 1 or 100.
    """
    return float(point_estimates(as_cells(scores), gamma)[3])


def evaluate(name: str, metric: Metric, cells: Sequence[Array]) -> float:
    """A function's value: of an array (runs, tasks), or of a list where numbers of runs differ.

    InputError where it is no finite number.
    """
    equal = len({len(cell) for cell in cells}) == 1
    value = metric(np.stack(cells, axis=1) if equal else list(cells))
    if np.ndim(value) or not np.isfinite(value):
        raise InputError(f"metric {name!r} returned {value!r}; expected a finite number")
    return float(value)


def check_metrics(metrics: Mapping[str, Metric]) -> None:
    """Raise InputError for a function with the name of one of the METRICS."""
    taken = [name for name in metrics if name in METRICS]
    if taken:
        raise InputError(f"metric {taken[0]!r} is built in; give yours another name")


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


def task_means(cells: Sequence[Array], counts: NDArray[Any]) -> Array:
    """Mean of each task in resamples with counts (N, b), shape (tasks, b)."""
    ends = np.cumsum([len(cell) for cell in cells])
    return np.stack(
        [
            cell @ counts[end - len(cell) : end] / len(cell)
            for cell, end in zip(cells, ends, strict=True)
        ]
    )


def median_of_tasks(means: Array) -> Array:
    """Median over tasks, shape (b,), from (tasks, b); sorting short rows beats partitioning."""
    ordered = np.sort(means.T, axis=1)
    low, high = (means.shape[0] - 1) // 2, means.shape[0] // 2
    medians: Array = (ordered[:, low] + ordered[:, high]) / 2
    return medians


def as_cells(scores: Scores) -> list[Array]:
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
    ordered = [_sorted_runs(cell) for cell in cells]
    return [ordered[k] for k in _order(ordered)]


def canonical_places(cells: Sequence[Array]) -> list[int]:
    """Where each task stands in `canonical(cells)`."""
    places: list[int] = np.argsort(_order([_sorted_runs(cell) for cell in cells])).tolist()
    return places


def _sorted_runs(cell: Array) -> Array:
    return np.sort(cell) if cell.ndim == 1 else cell[np.lexsort(cell.T[::-1])]


def _order(cells: Sequence[Array]) -> list[int]:
    return sorted(range(len(cells)), key=lambda k: (len(cells[k]), *cells[k].ravel()))


def point_estimates(cells: Sequence[Array], gamma: float) -> Array:
    """The four METRICS of the scores themselves."""
    cells = canonical(cells)
    pooled = np.sort(np.concatenate(cells))
    cut = int(0.25 * len(pooled))
    means = np.array([cell.mean() for cell in cells])
    capped = np.array([np.minimum(cell, gamma).mean() for cell in cells])
    middle = pooled[cut : len(pooled) - cut].mean()
    return np.array([middle, np.median(means), means.mean(), gamma - capped.mean()])
