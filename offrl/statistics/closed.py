"""Which of many pairs are told apart: closed tests, whose p of sets come from `permutations`.

A pair is told apart where every hypothesis under which its two algorithms are equal is rejected
(Marcus, Peritz and Gabriel 1976), so that the chance to tell any two equal ones apart is at most
alpha, whichever are equal. Its adjusted p is the largest p of these hypotheses.

- All pairs: a hypothesis divides the algorithms into blocks, within which all are equal. It is
  rejected where one of its blocks B of two algorithms or more has p <= alpha |B| / N, with N the
  number of algorithms in such blocks. These are the levels of Ryan (1960), Einot and Gabriel (1975)
  and Welsch (1977), closed as by Peritz (1970; Begun and Gabriel 1981). Where many algorithms
  differ clearly, a pair is therefore tested at up to alpha.
- One baseline: a hypothesis is the set of algorithms that equal it, and has that set's p.

This is proved: where equal algorithms have one distribution on each data set, no more than a share
alpha of such tests errs.

There are 2^L sets of L algorithms. For more than MOST_WHOLE the hypotheses are only those whose
blocks stand next to each other in the order of the means (against a baseline: of the distance from
it). Blocks of up to SMALL neighbours have p of their own, as far as WORK allows so many
permutations; larger ones have p from joint permutations of all algorithms, which is exact where all
are equal. That the error holds where some differ is shown by simulation alone.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from offrl.statistics.bootstrap import Array
from offrl.statistics.permutations import (
    SLACK,
    TIE,
    WORK,
    Moments,
    Runs,
    Set,
    apart,
    joint,
    set_p,
)

MOST_WHOLE = 12  # algorithms of which all sets are tested: there are some 2^12
SMALL = 5  # neighbours, of more algorithms, that have p of their own permutations


def most_disjoint(algorithms: int, baseline: bool) -> int:
    """How many pairs without a common algorithm there are.

    Where no two are told apart, the p of a pair is multiplied by this at least.
    """
    return 1 if baseline else algorithms // 2


def closed_p(
    algorithms: Sequence[Runs], permutations: int, seed: int, *, baseline: bool = False
) -> Array:
    """Adjusted p of all pairs, shape (L, L); with a baseline, which is the first, in its row alone.

    Args:
        algorithms: runs by data set of each, two or more.
        permutations: of each set at most.
        seed: of the permutations.
        baseline: compare all others with the first.
    """
    if len(algorithms) <= MOST_WHOLE:
        p = p_of_all_sets(algorithms, permutations, seed, baseline=baseline)
        return _of_baseline(p) if baseline else adjusted_of_pairs(p)
    if baseline:
        return _stepped(algorithms, permutations, seed)
    means = Set(algorithms, fixed=len(algorithms)).moments.mean
    order = np.argsort(means, kind="stable")
    adjusted = np.empty((len(order), len(order)))
    in_order = [algorithms[k] for k in order]
    adjusted[np.ix_(order, order)] = adjusted_of_neighbours(
        p_of_neighbours(in_order, permutations, seed)
    )
    return adjusted


def p_of_all_sets(
    algorithms: Sequence[Runs], permutations: int, seed: int, *, baseline: bool = False
) -> Array:
    """P of every set, shape (2^L,): bit k of its place says whether it holds algorithm k.

    It is 0 where there is no test: of fewer than two, or without the baseline, which is the first.
    """
    count = len(algorithms)
    p = np.zeros(2**count)
    for size in range(2, count + 1):
        chosen = [some for some in combinations(range(count), size) if not baseline or some[0] == 0]
        sets = [Set([algorithms[k] for k in some], fixed=int(baseline)) for some in chosen]
        p[[sum(1 << k for k in some) for some in chosen]] = set_p(
            sets, permutations, seed, first=baseline
        )
    return p


def adjusted_of_pairs(p: Array) -> Array:
    """Adjusted p of all pairs, shape (L, L, ...), from p of all sets as `p_of_all_sets` gives them.

    Args:
        p: shape (2^L, ...); further axes are other tables.
    """
    places = np.arange(len(p))
    count = len(p).bit_length() - 1
    more = p.ndim - 1
    sizes = np.bitwise_count(places).astype(int)
    share = p / np.maximum(sizes, 1).reshape(-1, *[1] * more)
    # best[C, m]: of all ways to choose blocks with m algorithms in all from the set C, the largest
    # of the smallest p / |B|; algorithm after algorithm, which is in no block or in one with some
    # of those before it.
    best = np.full((len(p), count + 1, *p.shape[1:]), -np.inf)
    best[0, 0] = np.inf
    for k in range(count):
        last, before = 1 << k, places[: 1 << k]
        best[before | last] = best[before]
        for some in range(1, last):
            rest, size = before[before & some == 0], int(sizes[some]) + 1
            block = some | last
            with_block = np.minimum(best[rest, :-size], share[block])
            np.maximum(best[rest | block, size:], with_block, out=with_block)
            best[rest | block, size:] = with_block
    number = sizes[:, None] + np.arange(count + 1)
    blocks = np.minimum(best[places[::-1]], share[:, None])
    hypotheses = (number.reshape(*number.shape, *[1] * more) * blocks).max(axis=1)
    adjusted = np.ones((count, count, *p.shape[1:]))
    for i, j in combinations(range(count), 2):
        both = (places >> i & 1 == 1) & (places >> j & 1 == 1)
        adjusted[i, j] = adjusted[j, i] = hypotheses[both].max(axis=0).clip(max=1)
    return adjusted


def _of_baseline(p: Array) -> Array:
    places = np.arange(len(p))
    count = len(p).bit_length() - 1
    adjusted = np.ones((count, count))
    for k in range(1, count):
        adjusted[0, k] = adjusted[k, 0] = p[places >> k & 1 == 1].max()
    return adjusted


def p_of_neighbours(algorithms: Sequence[Runs], permutations: int, seed: int) -> Array:
    """P of the algorithms a to b, which stand in order, shape (L, L).

    They count as being as far apart as a and b are. So does a set with these two and some of those
    between them, which is as far apart at least, and whose p from joint permutations is less as it
    is smaller.
    """
    members = Set(algorithms, fixed=len(algorithms))
    ends = members.moments
    observed = [
        apart(ends.at(slice(span, None)), ends.at(slice(None, -span)))
        for span in range(1, len(algorithms))
    ]
    hits = [np.ones(len(z)) for z in observed]
    for moments in joint(members, permutations, seed):
        for count, far, z in zip(
            hits, _of_spans(moments, SLACK / len(members.shape)), observed, strict=True
        ):
            count += (far >= z[:, None] * TIE).sum(axis=1)
    p = np.zeros((len(algorithms), len(algorithms)))
    for span, count in enumerate(hits, start=1):
        first = np.arange(len(count))
        p[first, first + span] = count / (permutations + 1)
        if span < SMALL:
            sets = [Set(algorithms[a : a + span + 1]) for a in range(len(count))]
            if permutations * sum(some.runs for some in sets) <= WORK:
                p[first, first + span] = set_p(sets, permutations, seed)
    return p


def _of_spans(moments: Moments, slack: float) -> Iterator[Array]:
    """How far apart the furthest two of k + 1 neighbours are, k = 1, 2, ..., shape (L - k, ...)."""
    furthest = np.zeros_like(moments.mean)
    for span in range(1, len(furthest)):
        ends = apart(moments.at(slice(span, None)), moments.at(slice(None, -span)), slack)
        furthest = np.maximum(np.maximum(furthest[1:], furthest[:-1]), ends)
        yield furthest


def adjusted_of_neighbours(p: Array) -> Array:
    """Adjusted p of all pairs of algorithms in order, shape (L, L), from `p_of_neighbours`."""
    count = len(p)
    share = p / np.maximum(1, np.arange(count) - np.arange(count)[:, None] + 1)
    left, right = _best_before(share), _best_before(share[::-1, ::-1].T)
    adjusted = np.zeros((count + 1, count + 1))
    for span in range(count - 1, 0, -1):
        for a in range(count - span):
            b = a + span
            before, after = left[a, : a + 1], right[count - 1 - b, : count - b]
            both = np.minimum.outer(before, after).clip(max=share[a, b])
            number = span + 1 + np.add.outer(np.arange(len(before)), np.arange(len(after)))
            # The pair is held back by the sets it is in.
            adjusted[a, b] = max((number * both).max(), adjusted[a - 1, b], adjusted[a, b + 1])
    upper: Array = adjusted[:count, :count].clip(max=1)
    return np.asarray(upper + upper.T + np.eye(count))


def _best_before(share: Array) -> Array:
    """As `best` in `adjusted_of_pairs`, for blocks of neighbours among the first, shape (L, L)."""
    count = len(share)
    best = np.full((count, count), -np.inf)
    best[0, 0] = np.inf
    for end in range(1, count):
        best[end] = best[end - 1]
        for a in range(end - 1):
            size = end - a
            with_block = np.minimum(best[a, :-size], share[a, end - 1])
            np.maximum(best[end, size:], with_block, out=best[end, size:])
    return best


def _stepped(algorithms: Sequence[Runs], permutations: int, seed: int) -> Array:
    """As `closed_p` against the first algorithm, from joint permutations, the furthest first."""
    count = len(algorithms)
    moments = Set(algorithms, fixed=count).moments
    order = 1 + np.argsort(-apart(moments.at(slice(1, None)), moments.at(0)), kind="stable")
    members = Set([algorithms[k] for k in (0, *order)], fixed=count)
    z = apart(members.moments.at(slice(1, None)), members.moments.at(0))
    hits = np.ones(len(z))
    for moments in joint(members, permutations, seed):
        far = apart(moments.at(slice(1, None)), moments.at(0), SLACK / len(members.shape))
        furthest = np.maximum.accumulate(far[::-1], axis=0)[::-1]
        hits += (furthest >= z[:, None] * TIE).sum(axis=1)
    adjusted = np.ones((count, count))
    adjusted[0, order] = adjusted[order, 0] = np.maximum.accumulate(hits / (permutations + 1))
    return adjusted
