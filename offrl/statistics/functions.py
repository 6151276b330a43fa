"""Intervals of metrics that are given as functions, from the stratified bootstrap.

A function takes any scores, so a resample is an array here, and its value a call. Resamples are
those of the METRICS, so that a function which computes the mean has the intervals of the mean.

- The percentile interval needs the values alone.
- The expanded percentile needs v, each task's share of the variance of the estimate, too. For any
  function it is read from the same resamples: with cov_i, the covariance of the value with how
  often run i of a task is drawn, v = n / (n - 1) sum_i cov_i^2 (the infinitesimal jackknife of
  Efron 2014, "Estimation and accuracy after model selection"), less what the sum holds by chance
  alone. For the mean that is s^2 / (n T^2).
- A studentized interval would need a standard error of every resample, which no function gives.

Both hold as far as a resample's value follows its runs smoothly. Of a maximum over runs, say, no
bootstrap interval holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Draws, Interval
from offrl.statistics.metrics import Metric, evaluate
from offrl.statistics.resampling import Resampling


@dataclass(frozen=True, eq=False)
class Job:
    """A function of an algorithm's scores.

    Attributes:
        name: of the function.
        metric: the function, which takes the data sets in the order in which they were given.
        cells: the scores in the order of `canonical`, in which they are resampled.
        places: where each data set stands among the cells, as from `canonical_places`.
    """

    name: str
    metric: Metric
    cells: Sequence[Array]
    places: Sequence[int]

    def value(self, cells: Sequence[Array]) -> float:
        """The function's value of scores in the order of the cells."""
        return evaluate(self.name, self.metric, [cells[k] for k in self.places])


class ResampledFunctions(bootstrap.Resampled[dict[str, Interval]]):
    """Values of functions of resamples."""

    def __init__(self, jobs: Sequence[Job], resampling: Resampling):
        self.jobs, self.seed, self.level = jobs, resampling.seed, resampling.level
        self.estimates = [job.value(job.cells) for job in jobs]
        # Sums over resamples of how much more often than once a run is drawn, alone and times the
        # value's distance from the estimate.
        sizes = [sum(map(len, job.cells)) for job in jobs]
        self.sums = [(np.zeros(size), np.zeros(size)) for size in sizes]

    def sample(self, items: list[int], first: int, last: int) -> list[Array]:
        """Values of resamples first to last - 1 of some jobs."""
        return [self._values(item, first, last) for item in items]

    def _values(self, item: int, first: int, last: int) -> Array:
        job = self.jobs[item]
        flat, runs = np.concatenate(job.cells), [len(cell) for cell in job.cells]
        ends, every = np.cumsum(runs)[:-1], np.arange(len(flat))
        values = np.empty(last - first)
        alone, together = self.sums[item]
        for place, counts in Draws(runs, self.seed, "summary").blocks(first, last):
            block = np.empty(counts.shape[1])
            for b, drawn in enumerate(counts.T):
                block[b] = job.value(np.split(flat[np.repeat(every, drawn)], ends))
            values[place] = block
            more = counts.astype(np.float64) - 1
            alone += more.sum(axis=1)
            together += more @ (block - self.estimates[item])
        return values

    def read(self, item: int, samples: Array) -> tuple[dict[str, Interval], bool]:
        """The intervals of a job by method, and whether the expanded one is precise."""
        estimate = self.estimates[item]
        runs = np.array([len(cell) for cell in self.jobs[item].cells])
        variances = self._variances(item, samples, runs)
        p = float(bootstrap.expanded_level(variances, runs, self.level))
        ordered = np.sort(samples)
        intervals = {
            "percentile": bootstrap.read(ordered, (1 - self.level) / 2, estimate),
            "expanded percentile": bootstrap.read(ordered, p, estimate),
        }
        return intervals, intervals["expanded percentile"].precise

    def _variances(self, item: int, samples: Array, runs: NDArray[np.int_]) -> Array:
        """Each task's share v of the variance of the estimate."""
        alone, together = self.sums[item]
        distance = samples.mean() - self.estimates[item]
        covariances = (together - alone * distance) / len(samples)
        squares = np.add.reduceat(covariances**2, runs.cumsum() - runs)
        # A count has the variance 1 - 1 / n.
        by_chance = (runs - 1) * samples.var() / len(samples)
        variances: Array = np.maximum(squares - by_chance, 0) * runs / (runs - 1)
        return variances
