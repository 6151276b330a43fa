"""Intervals of P(X > Y) and of the difference of IQMs of pairs of algorithms.

They are expanded percentile ones (see `bootstrap`) over the runs of both, as 2 T strata. The
variance of P(X > Y) is that of its placements, the share of y's runs below each run of x and the
other way round (DeLong, DeLong and Clarke-Pearson 1988).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from offrl.progress import Progress
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Draws, Interval, TrimmedMean
from offrl.statistics.pairs import Pair, cells_key, run_counts, turn
from offrl.statistics.resampling import Resampling

PairInterval = tuple[Interval, Interval]  # of P(X > Y), and of the difference of IQMs


def pair_intervals(
    pairs: Sequence[Pair], resampling: Resampling, progress: Progress | None
) -> list[tuple[PairInterval, int]]:
    """Intervals of P(X > Y) and of the difference of each pair, and the number of resamples."""
    return _ResampledPairs(pairs, resampling).converge(len(pairs), resampling.reps, progress)


class _ResampledPairs(bootstrap.Resampled[PairInterval]):
    """P(X > Y) and the difference of IQMs of resamples of pairs."""

    def __init__(self, pairs: Sequence[Pair], resampling: Resampling):
        self.pairs, self.seed, self.level = pairs, resampling.seed, resampling.level

    def sample(self, items: list[int], first: int, last: int) -> list[Array]:
        pairs = {i: self.pairs[i] for i in items}
        samples = {i: np.zeros((2, last - first)) for i in items}
        for shape in dict.fromkeys(run_counts(pair.runs) for pair in pairs.values()):
            group = {i: pair for i, pair in pairs.items() if run_counts(pair.runs) == shape}
            rows = resampled_probabilities([*group.values()], first, last, self.seed)
            for i, row in zip(group, rows, strict=True):
                samples[i][0] = row
        # An algorithm is resampled once for all its pairs.
        for k, purpose in enumerate(("first", "second")):
            sides = {cells_key(pair.sides[k]): pair.sides[k] for pair in pairs.values()}
            iqms = resampled_iqms(sides, purpose, first, last, self.seed)
            for i, pair in pairs.items():
                samples[i][1] += (1, -1)[k] * iqms[cells_key(pair.sides[k])]
        return [samples[i] for i in items]

    def read(self, item: int, samples: Array) -> tuple[PairInterval, bool]:
        pair = self.pairs[item]
        probabilities, differences = np.sort(samples, axis=1)
        levels = [
            float(bootstrap.expanded_level(pair.placements, pair.runs.T.ravel(), self.level)),
            float(bootstrap.expanded_level(pair.variances, pair.strata, self.level)),
        ]
        point = 1 - pair.probability if pair.turned else pair.probability
        probability = bootstrap.read(probabilities, levels[0], point)
        difference = bootstrap.read(differences, levels[1], pair.sign * pair.difference)
        # P lies on a grid, so that an end may always fall on either of two points.
        settled = probability.precise or probability.error <= pair.grid * (1 + 1e-9)
        precise = settled and difference.precise
        if pair.turned:
            probability, difference = turn(probability, 1), turn(difference, 0)
        return (probability, difference), precise


def resampled_probabilities(pairs: Sequence[Pair], first: int, last: int, seed: int) -> Array:
    """P(X > Y) in resamples of pairs of one shape, shape (pairs, last - first).

    With how often each run is drawn, c and d, a task's P is c A d: a product of all pairs' A with
    the outer products of c and d, which all pairs share. Small whole numbers, so exact in float32.
    """
    runs = pairs[0].runs
    # Twice A is whole; sums stay below 2 n_x n_y.
    dtype = np.float32 if 2 * runs.prod(axis=1).max() < 2**24 else np.float64
    matrices = [
        np.stack([2 * pair.above[t].ravel() for pair in pairs]).astype(dtype)
        for t in range(len(runs))
    ]
    probabilities = np.zeros((len(pairs), last - first))
    size = bootstrap.block_size(int(runs.sum(axis=0).max()))
    draws = [
        Draws(runs[:, k], seed, f"probability {name}", size)
        for k, name in enumerate(("first", "second"))
    ]
    ends = runs.cumsum(axis=0)
    for (place, mine), (_, other) in zip(*(d.blocks(first, last) for d in draws), strict=True):
        for (x_end, y_end), (n_x, n_y), matrix in zip(ends, runs, matrices, strict=True):
            c = mine[x_end - n_x : x_end].astype(dtype)
            d = other[y_end - n_y : y_end].astype(dtype)
            step = max(16, bootstrap.BLOCK // (n_x * n_y))
            for start in range(0, c.shape[1], step):
                part = slice(start, start + step)
                outer = (c[:, None, part] * d[None, :, part]).reshape(n_x * n_y, -1)
                wins = (matrix @ outer).astype(np.float64)
                probabilities[:, place][:, part] += wins / (2 * n_x * n_y * len(runs))
    return probabilities.round(12)


def resampled_iqms(
    sides: Mapping[tuple[float, ...], Sequence[Array]],
    purpose: str,
    first: int,
    last: int,
    seed: int,
) -> dict[tuple[float, ...], Array]:
    """The IQM of each algorithm in resamples."""
    iqms = {key: np.empty(last - first) for key in sides}
    shapes = {key: tuple(len(cell) for cell in cells) for key, cells in sides.items()}
    for shape in dict.fromkeys(shapes.values()):
        trimmed = {
            key: TrimmedMean(np.concatenate(sides[key]), sum(shape))
            for key in sides
            if shapes[key] == shape
        }
        for place, counts in Draws(shape, seed, f"difference {purpose}").blocks(first, last):
            for key, mean in trimmed.items():
                iqms[key][place] = mean(counts)
    return iqms
