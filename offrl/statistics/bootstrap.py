"""The stratified bootstrap: resamples, and the intervals that are read from them.

The runs of each data set (task) are drawn with replacement within that data set. A resample is kept
as counts, how often it holds each run: means are products with counts, and trimmed means need only
running sums of them, so nothing is sorted.

Three intervals are read from resamples:

- `percentile`: the alpha/2 and 1 - alpha/2 quantiles, rliable's. At 3 to 5 runs it covers 85 to
  90 % instead of 95 %.
- `expanded percentile` (the default): the quantiles at Phi(-c t) and Phi(c t) instead, after
  Hesterberg 2015 ("What teachers should know about the bootstrap", section 5.3). t is Student's
  1 - alpha/2 quantile; its degrees of freedom come from the per-task variances by Satterthwaite
  (1946), df = (sum v)^2 / sum(v^2 / (n - 1)), and c^2 = sum v / sum(v (n - 1) / n) undoes the
  bootstrap's too small variance: n / (n - 1) where every task has n runs.
- `studentized` (bootstrap-t, Efron and Tibshirani 1993, section 12.5): the estimate minus its
  standard error times the quantiles of (resampled - estimate) / (resample's standard error).

v is each task's share of the estimate's variance (`variances_of` in `metrics`).

Draws depend on the seed, their purpose and the numbers of runs per task, not on names or scores:
equal shapes share their resamples, so no number depends on the other algorithms. Where two
estimates must be independent (a difference, ranks), their purposes differ.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from offrl.progress import Progress
from offrl.statistics.resampling import DEFAULT_REPS

SHARE = 0.01  # automatic repetitions: the Monte-Carlo error of an end, as a share of the width
MOST_AUTOMATIC = 160_000  # automatic repetitions, which begin with DEFAULT_REPS
# Counts and resamples per block: some 2**18 stay in a core's cache, and bound memory at a few MB.
BLOCK, ROWS = 2**18, 2**12

Array = NDArray[np.float64]
Counts = NDArray[Any]  # small unsigned integers
Result = TypeVar("Result")


@dataclass(frozen=True)
class Interval:
    """The two ends of an interval and the Monte-Carlo standard error of each."""

    low: float
    high: float
    low_error: float
    high_error: float

    @property
    def error(self) -> float:
        """The larger Monte-Carlo standard error of the two ends."""
        return max(self.low_error, self.high_error)

    @property
    def precise(self) -> bool:
        """Whether the Monte-Carlo error of both ends is at most SHARE of the width."""
        return self.error <= SHARE * (self.high - self.low)


NONE = Interval(np.nan, np.nan, np.nan, np.nan)


def stream(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """A generator that depends on the seed, the purpose and the key, and on nothing else."""
    digest = hashlib.sha256(repr((purpose, *key)).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(map(int, words))))


def block_size(total: int) -> int:
    """How many resamples of `total` runs make a block."""
    return min(max(1, BLOCK // total), ROWS)


class Draws:
    """Resamples of tasks as counts, in blocks.

    Resample number i does not depend on how many there are.

    Args:
        runs: number of runs of each task.
        seed: with the purpose, the runs and the size it decides all draws.
        purpose: what the resamples are for.
        size: resamples in a block; needed where two Draws go side by side.
    """

    def __init__(
        self,
        runs: Sequence[int] | NDArray[np.int_],
        seed: int,
        purpose: str,
        size: int | None = None,
    ):
        self.runs = np.array(runs)
        self.seed, self.purpose = seed, purpose
        self.total = int(self.runs.sum())
        self.size = size or block_size(self.total)
        self.starts = self.runs.cumsum() - self.runs

    def blocks(self, first: int, last: int) -> Iterator[tuple[slice, Counts]]:
        """Counts of shape (N, b) of resamples first to last - 1, and where they stand among them.

        N is the number of runs of all tasks laid end to end.
        """
        for k in range(first // self.size, -(-last // self.size)):
            start = k * self.size
            low, high = max(first, start), min(last, start + self.size)
            counts = self._block(k)[:, low - start : high - start]
            yield slice(low - first, high - first), counts

    def _block(self, k: int) -> Counts:
        rng = stream(self.seed, self.purpose, *self.runs.tolist(), k)
        columns = np.arange(self.size)[:, None, None]
        drawn = np.zeros(self.total * self.size, dtype=np.intp)
        for n in np.unique(self.runs):
            start = self.starts[self.runs == n]
            shape = (self.size, len(start), n)
            draw = rng.integers(0, n, shape, dtype=np.min_scalar_type(n - 1))
            slots = (draw + start[:, None]) * self.size + columns
            drawn += np.bincount(slots.ravel(), minlength=len(drawn))
        dtype = np.min_scalar_type(int(self.runs.max()))
        counts: Counts = drawn.astype(dtype).reshape(self.total, self.size)
        return counts


class TrimmedMean:
    """The interquartile mean of resamples of `scores` (N,), from their counts."""

    def __init__(self, scores: Array, total: int):
        self.order = np.argsort(scores, kind="stable")
        self.scores = scores[self.order]
        self.total, self.cut = total, int(0.25 * total)
        self.steps = np.append(-np.diff(self.scores), 0.0)
        middle = len(scores) // 2
        self.center = self.scores[middle]
        self.base = np.where(np.arange(len(scores)) < middle, self.cut, total - self.cut)[:, None]

    def ranks(self, counts: Counts) -> Counts:
        """How many draws of each resample are no larger than each sorted score, shape (N, b)."""
        dtype = np.min_scalar_type(self.total)
        ranks: Counts = np.cumsum(counts[self.order], axis=0, dtype=dtype)
        return ranks

    def mean(self, ranks: Counts) -> Array:
        """Interquartile means, shape (b,).

        With r_i draws up to score v_i, sum v_i (clip(r_i) - clip(r_(i-1))) is summed by parts about
        the middle score, so that scores that are cut off leave no trace in the last digits.
        """
        inside = np.clip(ranks, self.cut, self.total - self.cut).astype(np.float64)
        inside -= self.base
        means: Array = self.steps @ inside / (self.total - 2 * self.cut) + self.center
        return means

    def __call__(self, counts: Counts) -> Array:
        """Interquartile means, shape (b,), from counts (N, b)."""
        return self.mean(self.ranks(counts))


def expanded_level(variances: Array, runs: NDArray[np.int_], level: float | Array) -> Array:
    """Lower quantile level of the expanded percentile interval, for variances (..., tasks)."""
    df, widen = freedom(variances, runs)
    t = scipy.stats.t.ppf((1 + np.asarray(level)) / 2, df)
    return np.asarray(scipy.stats.norm.cdf(-widen * t), dtype=np.float64)


def freedom(variances: Array, runs: NDArray[np.int_]) -> tuple[Array, Array]:
    """Satterthwaite's degrees of freedom and the widening c, for variances (..., tasks)."""
    # Relative to the largest, so that tiny scores do not underflow; all zero: any level will do.
    top = variances.max(axis=-1, keepdims=True)
    share = np.divide(variances, top, out=np.ones_like(variances), where=top > 0)
    total = share.sum(axis=-1)
    df = total**2 / (share**2 / (runs - 1)).sum(axis=-1)
    return df, np.sqrt(total / (share * (runs - 1) / runs).sum(axis=-1))


def read(ordered: Array, p: float, estimate: float) -> Interval:
    """The p and 1 - p quantiles of sorted samples, each with its Monte-Carlo standard error."""
    # Resamples that agree up to the order of summation are one point. (Studentized ones may be
    # infinite.)
    size = np.abs(ordered[[0, -1]]).max()
    if np.isfinite(size) and ordered[-1] - ordered[0] <= 1e-12 * size:
        return Interval(float(estimate), float(estimate), 0.0, 0.0)
    # A quantile's error in level is binomial, but no less than a sample where it is the first or
    # the last; half the distance between its ends, in scores.
    error = max(np.sqrt(p * (1 - p) / len(ordered)), 1 / len(ordered))
    levels = np.array([p, p - error, p + error]).clip(0, 1)
    low, low_less, low_more = _quantiles(ordered, levels)
    high, high_more, high_less = _quantiles(ordered, 1 - levels)
    return Interval(low, high, (low_more - low_less) / 2, (high_more - high_less) / 2)


def _quantiles(ordered: Array, levels: Array) -> list[float]:
    """Quantiles of sorted samples by linear interpolation, numpy's default."""
    at = levels * (len(ordered) - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, len(ordered) - 1)
    # Infinite samples stand at the ends: there is nothing between them to interpolate.
    with np.errstate(invalid="ignore"):
        between = ordered[below] + (ordered[above] - ordered[below]) * (at - below)
    certain = (at == below) | np.isinf(ordered[below]) | (ordered[above] == ordered[below])
    quantiles: list[float] = np.where(certain, ordered[below], between).tolist()
    return quantiles


class Resampled(ABC, Generic[Result]):
    """Items whose intervals are read from resamples, of which rough intervals take more."""

    @abstractmethod
    def sample(self, items: list[int], first: int, last: int) -> Sequence[Array]:
        """Resamples first to last - 1 of some items: for each an array (..., last - first)."""

    @abstractmethod
    def read(self, item: int, samples: Array) -> tuple[Result, bool]:
        """The result of all resamples of an item so far, and whether it is precise enough."""

    def converge(
        self, count: int, reps: int | None, progress: Progress | None
    ) -> list[tuple[Result, int]]:
        """The result of each of `count` items, and the number of resamples behind it.

        Args:
            count: number of items.
            reps: number of resamples; None doubles DEFAULT_REPS until precise, or
                MOST_AUTOMATIC.
            progress: called with the number of items that have a result and their number.
        """
        parts: list[list[Array]] = [[] for _ in range(count)]
        results: dict[int, tuple[Result, int]] = {}
        active, first, last = list(range(count)), 0, reps or DEFAULT_REPS
        if progress is not None:
            progress(0, count)
        while active:
            for item, part in zip(active, self.sample(active, first, last), strict=True):
                parts[item].append(part)
            rough = []
            for item in active:
                result, precise = self.read(item, np.concatenate(parts[item], axis=-1))
                results[item] = (result, last)
                if progress is not None:
                    progress(len(results), count)
                if not precise and reps is None and last < MOST_AUTOMATIC:
                    rough.append(item)
                else:
                    parts[item].clear()
            active, first, last = rough, last, 2 * last
        return [results[item] for item in range(count)]
