"""P of sets of algorithms, by permuting the runs of all of them within each data set.

Two algorithms are as far apart as the difference of their means over data sets, divided by its
standard error with each one's own variances: Welch's t. So that pairs of few degrees of freedom
decide no more than others, t is brought to the scale of the normal distribution (Wallace 1959),

    z^2 = ((8 df + 1) / (8 df + 3))^2 df log(1 + t^2 / df),

with Satterthwaite's df, as if an algorithm's spread were the same on all data sets. Without any
spread z is infinite, or 0 where nothing differs. A set of algorithms is as far apart as the two of
its members that are furthest apart, and its p is how often runs that change hands within data sets
give sets as far apart (Fisher 1935).

That is exact where the algorithms of a set have one distribution on each data set, whatever it is.
Where only their means are equal it holds the more nearly the more runs and data sets there are,
since each difference is studentized by its own spreads (Janssen 1997; Chung and Romano 2013).

Permutations depend on the seed and the numbers of runs alone. They are taken one by one where they
are no more than asked for; otherwise they are drawn until HITS of them are as far apart, which
leaves p valid (Besag and Clifford 1991), or as many as asked for.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.statistics.bootstrap import Array, stream

LISTED = 100_000  # permutations that are taken one by one, where there are no more
FIRST = 500  # permutations before it is first looked whether that is enough; then four times these
HITS = 50
WORK = 400_000_000  # runs that are dealt to all sets of a size, in all permutations
LEAST = 499  # permutations by default where WORK allows no more
CHUNK = 250  # permutations at once
BLOCK = 2**19  # runs of sets on a data set times permutations at once, or entries of a matrix
FEW = 3  # sets for which runs are rather picked than multiplied with a matrix of zeros and ones
KEPT = 256  # runs whose permutations are kept for other sets
SLACK = 1e-13  # of a variance, for the order of summation, where scores are of size 1
SAME = 1e-12  # differences of size 1 that are none
ENDLESS = 1e270  # t^2 without spread is no less
TIE = 1 - 1e-9  # of z^2, from which on permuted runs are as far apart

Deal = NDArray[Any]  # shape (permutations, runs)
Shape = tuple[tuple[int, ...], ...]  # by data set the numbers of runs of the members


@dataclass(frozen=True)
class Moments:
    """Means over data sets of algorithms (first axis), their variances and degrees of freedom.

    The degrees of freedom have as many axes, all but the first of length one.
    """

    mean: Array
    variance: Array
    freedom: Array

    def at(self, index: slice | int) -> "Moments":
        """Of some of the algorithms."""
        return Moments(self.mean[index], self.variance[index], self.freedom[index])

    def of(self, some: NDArray[np.bool_]) -> "Moments":
        """Of all algorithms, for some places of the other axes."""
        return Moments(self.mean[:, some], self.variance[:, some], self.freedom[..., 0])


def apart(x: Moments, y: Moments, slack: float = 0.0) -> Array:
    """How far apart algorithms are: z^2 of the differences, see above."""
    difference, variance = (x.mean - y.mean) ** 2, x.variance + y.variance
    less = np.maximum(variance - slack, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = variance**2 / (x.variance**2 / x.freedom + y.variance**2 / y.freedom)
        z = _wallace(df) * df * np.log1p(difference / less / df)
    return np.where(less > 0, z, np.where(difference > SAME**2, np.inf, 0.0))


def _wallace(df: Any) -> Any:
    return ((8 * df + 1) / (8 * df + 3)) ** 2


class Runs:
    """The runs of an algorithm by data set, with their means and variances."""

    def __init__(self, cells: Sequence[Array]):
        self.cells = cells
        self.sizes = [len(cell) for cell in cells]
        self.means = np.array([cell.mean() for cell in cells])
        # Runs that tie up to rounding have no spread.
        self.variances = np.array(
            [
                0.0 if np.ptp(cell) <= SAME * np.abs(cell).max() else cell.var(ddof=1)
                for cell in cells
            ]
        )


class Set:
    """Algorithms whose runs are permuted, in an order that no name decides.

    Args:
        algorithms: the members, on the same data sets.
        fixed: so many of the first members keep their places.
    """

    def __init__(self, algorithms: Sequence[Runs], fixed: int = 0):
        tasks = range(len(algorithms[0].cells))
        pools = [np.sort(np.concatenate([a.cells[t] for a in algorithms])) for t in tasks]
        sizes = [[a.sizes[t] for a in algorithms] for t in tasks]
        order = sorted(tasks, key=lambda t: (sorted(sizes[t]), pools[t].tolist()))
        rest = range(fixed, len(algorithms))
        members = [*range(fixed), *sorted(rest, key=lambda k: [sizes[t][k] for t in order])]
        self.shape: Shape = tuple(tuple(sizes[t][k] for k in members) for t in order)
        # Scores of size 1 about 0 on each data set.
        half = max(float(pool[-1] / 2 - pool[0] / 2) for pool in pools)
        unit = 2.0 ** np.ceil(np.log2(half)) if half > 0 else 1.0
        centres = [float(pools[t][0] / 2 + pools[t][-1] / 2) for t in order]
        self.pools = [(pools[t] - c) / unit for t, c in zip(order, centres, strict=True)]
        means = np.array([algorithms[k].means[order] for k in members])
        spread = np.array([algorithms[k].variances[order] for k in members]) / unit / unit
        runs = np.array(self.shape).T
        self.moments = Moments(
            ((means - centres) / unit).mean(axis=1),
            (spread / runs).sum(axis=1) / len(order) ** 2,
            (runs - 1).sum(axis=1),
        )

    @property
    def runs(self) -> int:
        """Of all members on all data sets."""
        return sum(map(sum, self.shape))


def permutation_count(shape: Sequence[Sequence[int]]) -> int:
    """How many ways there are to hand out the runs of each data set."""
    return prod(comb(sum(task[: k + 1]), n) for task in shape for k, n in enumerate(task))


def set_p(
    sets: Sequence[Set],
    permutations: int,
    seed: int,
    *,
    first: bool = False,
    least: int = LEAST,
) -> Array:
    """P of each set.

    Args:
        sets: all of one number of algorithms.
        permutations: as many of each set at most; fewer where that is beyond WORK.
        seed: of the permutations.
        first: look at the differences from the first member alone, which is `fixed`.
        least: permutations of each set where WORK allows no more.
    """
    most = min(permutations, max(least, WORK // sum(some.runs for some in sets)))
    shapes: dict[Shape, list[int]] = {}
    for k, members in enumerate(sets):
        shapes.setdefault(members.shape, []).append(k)
    p = np.empty(len(sets))
    for shape, places in shapes.items():
        step = max(1, BLOCK // (CHUNK * max(map(sum, shape))))
        for k in range(0, len(places), step):
            some = [sets[place] for place in places[k : k + step]]
            pools = [np.stack(pools) for pools in zip(*(one.pools for one in some), strict=True)]
            moments = Moments(
                np.stack([one.moments.mean for one in some], axis=1),
                np.stack([one.moments.variance for one in some], axis=1),
                some[0].moments.freedom[:, None],
            )
            p[places[k : k + step]] = pooled_p(pools, moments, shape, most, seed, first=first)
    return p


def pooled_p(
    pools: Sequence[Array],
    observed: Moments,
    shape: Shape,
    permutations: int,
    seed: int,
    *,
    first: bool = False,
) -> Array:
    """P of K sets of one shape, shape (K,).

    Args:
        pools: by data set the runs of each set, in any order, shape (K, N). Their sizes are about 1
            at most.
        observed: of the members as they are, shape (p, K).
        shape: the numbers of runs.
        permutations: as many at most.
        seed: of the permutations.
        first: as in `set_p`.
    """
    sets, ways = len(pools[0]), permutation_count(shape)
    listed = ways <= min(permutations, LISTED)
    z = _furthest(observed, first) * TIE
    # No pair has more degrees of freedom, and with fewer the same t is less far: most permutations
    # need no logarithm.
    freedom = sum(sum(sorted(task)[-2:]) - 2 for task in shape)
    with np.errstate(over="ignore"):
        least = np.minimum(freedom * np.expm1(z / _wallace(freedom) / freedom), ENDLESS)
    hits, taken = np.zeros(sets, dtype=int), np.zeros(sets, dtype=int)
    active = np.arange(sets)
    for start, end in pairwise([0, ways] if listed else _ends(permutations)):
        for deals in _every(shape) if listed else _drawn(shape, start, end, seed):
            moments = permuted([pool[active] for pool in pools], deals, shape)
            near = _largest(moments, first) >= least[active, None]
            some, _ = np.nonzero(near)
            far = _furthest(moments.of(near), first, SLACK / len(shape)) >= z[active[some]]
            hits[active] += np.bincount(some[far], minlength=len(active))
        taken[active] = end
        active = active[hits[active] < HITS]
        if not len(active):
            break
    # All permutations include the runs as they are; of a sample they are one more.
    return hits / taken if listed else (hits + 1) / (taken + 1)


def _furthest(moments: Moments, first: bool, slack: float = 0.0) -> Array:
    """How far apart the two algorithms are that are furthest apart, over the first axis."""
    if first:
        return np.asarray(apart(moments.at(slice(1, None)), moments.at(0), slack).max(axis=0))
    z = np.zeros(moments.mean.shape[1:])
    for k in range(len(moments.mean) - 1):
        np.maximum(z, apart(moments.at(slice(k + 1, None)), moments.at(k), slack).max(0), out=z)
    return z


def _largest(moments: Moments, first: bool) -> Array:
    """The largest t^2 over the first axis, and no less than it."""
    means, variances = moments.mean, np.maximum(moments.variance - SLACK, 1e-300)
    t = np.zeros(means.shape[1:])
    for k in range(1 if first else len(means) - 1):
        squares = means[k + 1 :] - means[k]
        squares *= squares
        squares /= variances[k + 1 :] + variances[k]
        np.maximum(t, squares.max(axis=0), out=t)
    return t


def _ends(most: int) -> list[int]:
    """The numbers of permutations after which it is looked whether they are enough."""
    ends = [0, min(FIRST, most)]
    while ends[-1] < most:
        ends.append(min(4 * ends[-1], most))
    return ends


def permuted(pools: Sequence[Array], deals: Sequence[Deal], shape: Shape) -> Moments:
    """The members of K sets under b permutations, shape (p, K, b).

    Args:
        pools: by data set the runs of the sets, shape (K, N).
        deals: by data set which of these N runs the first, the second, ... member gets.
        shape: the numbers of runs.
    """
    mean = np.zeros((len(pools[0]), len(shape[0]), len(deals[0])))
    variance = np.zeros_like(mean)
    for pool, deal, runs in zip(pools, deals, shape, strict=True):
        sizes = np.array(runs)
        if len(pool) <= FEW or deal.size * len(runs) > BLOCK:
            starts = sizes.cumsum() - sizes
            total, square = (
                np.add.reduceat(values[:, deal], starts, axis=2).swapaxes(1, 2)
                for values in (pool, pool**2)
            )
        else:
            picks = np.zeros((deal.shape[1], len(runs), len(deal)))
            members = np.repeat(np.arange(len(runs)), sizes)
            picks[deal, members, np.arange(len(deal))[:, None]] = 1
            matrix = picks.reshape(len(picks), -1)
            total, square = ((values @ matrix).reshape(mean.shape) for values in (pool, pool**2))
        # In place, as this is where the time goes.
        n = sizes[:, None].astype(np.float64)
        total /= n * len(shape)
        mean += total
        total *= total
        total *= 1 / (n - 1)
        square *= 1 / (n * (n - 1) * len(shape) ** 2)
        square -= total
        variance += square
    freedom = np.array(shape).sum(axis=0) - len(shape)
    return Moments(mean.swapaxes(0, 1), variance.swapaxes(0, 1), freedom[:, None, None])


def _drawn(shape: Shape, start: int, end: int, seed: int) -> Iterator[list[Deal]]:
    """Permutations number `start` to `end` - 1, in blocks: by data set as `permuted` takes them."""
    place = [shape[:t].count(task) for t, task in enumerate(shape)]
    for chunk in range(start // CHUNK, -(-end // CHUNK)):
        kept = slice(max(start - chunk * CHUNK, 0), end - chunk * CHUNK)
        yield [
            (_deal if sum(task) <= KEPT else _deal.__wrapped__)(task, k, chunk, seed)[kept]
            for task, k in zip(shape, place, strict=True)
        ]


@functools.lru_cache(maxsize=1_000)
def _deal(runs: tuple[int, ...], place: int, chunk: int, seed: int) -> Deal:
    """CHUNK random permutations of a data set's runs, the `place`-th with these numbers of runs."""
    rng = stream(seed, "permutation", place, chunk, *runs)
    total = sum(runs)
    places = np.arange(total, dtype=np.min_scalar_type(total))
    return rng.permuted(np.tile(places, (CHUNK, 1)), axis=1)


def _every(shape: Shape) -> Iterator[list[Deal]]:
    """All permutations at once, as far as members get other runs."""
    tasks = [np.array([*_arrangements(tuple(range(sum(task))), task)]) for task in shape]
    grid = np.indices([len(task) for task in tasks]).reshape(len(tasks), -1)
    for k in range(0, grid.shape[1], CHUNK):
        yield [task[at[k : k + CHUNK]] for task, at in zip(tasks, grid, strict=True)]


def _arrangements(places: tuple[int, ...], runs: Sequence[int]) -> Iterator[tuple[int, ...]]:
    if not runs:
        yield ()
        return
    for some in combinations(places, runs[0]):
        rest = tuple(place for place in places if place not in some)
        for others in _arrangements(rest, runs[1:]):
            yield (*some, *others)


def joint(members: Set, permutations: int, seed: int) -> Iterator[Moments]:
    """All members under joint permutations of them all, in blocks, shape (p, b)."""
    for deals in _drawn(members.shape, 0, permutations, seed):
        moments = permuted([pool[None] for pool in members.pools], deals, members.shape)
        yield Moments(moments.mean[:, 0], moments.variance[:, 0], moments.freedom[:, 0])
