"""AdaStop: which algorithms differ, decided in stages so that clear cases stop early.

Mathieu, Della Vecchia, Shilova, Centa de Medeiros, Kohler, Maillard and Preux 2024, "AdaStop:
adaptive statistical testing for sound comparisons of Deep RL agents" (TMLR, arXiv 2306.10882): a
group sequential permutation test of many comparisons. Every algorithm gets `size` runs; those with
an undecided pair get `size` more, `interims` times (the paper's K) at most. The chance that any two
algorithms of equal distribution are told apart, at any interim, is at most alpha.

The paper's parts:

- T, the statistic at interim k: the largest absolute difference of sums over all runs so far. Its
  null distribution deals the runs of each interim anew to the algorithms, never across interims.
  T is divided by the number of runs here, and so is a difference of means in units of the scores.
- B, the boundary at interim k: the smallest above which, now or at an earlier interim, at most a
  share k alpha / K of the deals lies.
- After the last interim, what is not told apart is "equal".

Corrected:

- The published package (0.1.3) holds the absolute T against deals that keep their sign, which about
  doubles the error (0.096 with 2 algorithms, size 5, K = 1). Both sides are absolute here.
- Paper and package deal within pairs of algorithms and hold the largest T of all pairs against the
  largest of the deals. That keeps the law of each pair but not the joint one, as pairs share
  algorithms: with both sides absolute the error at alpha = 0.05 is still 0.06 to 0.07 with 4
  algorithms and 0.07 to 0.08 with 8 (size 5, normal scores). Here the runs of all algorithms of a
  set are dealt together.
- So the paper's step-down over pairs becomes one over sets of algorithms (Ryan 1960, Einot and
  Gabriel 1975, Welsch 1977): a set is rejected once its T is above its B and all its supersets are
  rejected; a pair is told apart once it is rejected as a set. A set of p out of L algorithms is
  tested at alpha p / L, or at alpha if p >= L - 1 or if all are compared with a baseline. This
  bounds the error for any distributions: the sets of truly equal algorithms are disjoint, so that
  their levels add up to alpha at most, and one of them is rejected before any pair within it.

With two algorithms only the first of these changes anything. Left out: the package's early
acceptance (`beta`, off by default and gone from its later versions).
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from offrl.errors import InputError, unknown
from offrl.results.table import ScoreTable
from offrl.statistics.bootstrap import Array, stream
from offrl.statistics.closed import MOST_WHOLE
from offrl.statistics.pairs import chosen_cells
from offrl.statistics.resampling import DEFAULT_REPS, Resampling
from offrl.statistics.significance import ALPHA

COLUMNS = ("x", "y", "decision", "interim", "statistic", "boundary", "n_x", "n_y")
MOST_RUNS = 10_000  # of an algorithm
MOST_DEALT = 10**8  # runs that are dealt at an interim, over all deals

Names = tuple[str, ...]


def decide(
    table: ScoreTable,
    dataset: str,
    *,
    size: int,
    interims: int,
    alpha: float = ALPHA,
    baseline: str | None = None,
    algorithms: Sequence[str] | None = None,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Decisions on the algorithms of one data set, as `adastop` gives them.

    Final scores count in the order of their seeds, so that runs made later need greater seeds.
    Raises InputError as `adastop` does, and where a run of one of these algorithms has no score: a
    failed one's is not missing by chance.

    Args:
        table: the scores.
        dataset: one of its data sets.
        size: as in `adastop`.
        interims: as in `adastop`.
        alpha: as in `adastop`.
        baseline: as in `adastop`.
        algorithms: take these alone; by default all algorithms of the table, each in the first of
            the ways in which it acts.
        resampling: as in `adastop`.
    """
    if dataset not in table.datasets:
        raise unknown("data set", dataset, table.datasets)
    chosen = chosen_cells(table, baseline, algorithms)
    for failure in table.failures:
        if failure.dataset == dataset and failure.algorithm in chosen:
            how = "has no score" if failure.unfinished else "failed"
            raise InputError(
                f"{failure.algorithm!r} on {dataset!r}, seed {failure.seed} {how} "
                f"({failure.cause}); AdaStop needs a score of every run: run it again, or leave "
                "the algorithm out"
            )
    scores = {name: cells.get(dataset, ()) for name, cells in chosen.items()}
    try:
        return adastop(
            scores,
            size=size,
            interims=interims,
            alpha=alpha,
            baseline=baseline,
            resampling=resampling,
        )
    except InputError as error:
        raise InputError(f"{dataset}: {error}") from None


def adastop(
    scores: Mapping[str, ArrayLike],
    *,
    size: int,
    interims: int,
    alpha: float = ALPHA,
    baseline: str | None = None,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """One row per pair of algorithms, with the columns COLUMNS, from the runs made so far.

    `decision` is "larger" or "smaller" (x than y), "equal" (not told apart by the last interim) or
    "undecided": both need `size` more runs. `interim` is the one at which it fell, or the last one
    made, `n_x` and `n_y` the runs used by then, and `statistic` the absolute difference of means of
    these. `boundary` is below it for a pair told apart (the boundary of the pair) and not below it
    for others (the greatest boundary of the sets that hold the pair back).

    Nothing is kept between calls: call again with longer lists. Plan (size, interims, alpha,
    baseline and algorithms) before the first runs, and keep to it.

    Args:
        scores: per algorithm its scores, shape (runs,), in order of arrival. Once all its pairs are
            decided an algorithm needs no more runs, and further ones are not looked at.
        size: runs per algorithm and interim, 2 or more.
        interims: the greatest number of interims.
        alpha: bound of the family-wise error.
        baseline: compare each algorithm (x) with this one (y) only; by default all pairs.
        resampling: seed of the deals, and how many are drawn per interim, the observed one among
            them; 10,000 by default. Those of a pair are enumerated instead as long as they, 1/2
            binom(2 size, size)^k, are at most as many. Level and engine play no part.

    Raises:
        InputError: for a plan that cannot decide, a score that is not finite, and where some
            algorithms with undecided pairs have the runs of the next interim and others do not.
    """
    reps, seed = resampling.reps or DEFAULT_REPS, resampling.seed
    _check_plan(list(scores), size, interims, alpha, baseline, reps)
    runs = {name: _runs(name, values, size * interims) for name, values in scores.items()}
    # The baseline stands last in its sets: `_statistic` looks for it there. Widest sets first.
    names = sorted(runs, key=lambda name: name == baseline)
    sets = [
        members
        for p in range(len(names), 1, -1)
        for members in itertools.combinations(names, p)
        if baseline is None or baseline in members
    ]
    pairs = [members for members in sets if len(members) == 2]
    # Values that differ by rounding alone are ties.
    tolerance = 1e-12 * max(float(np.abs(values).max(initial=0)) for values in runs.values())
    rejected = set[Names]()
    rows: dict[Names, tuple[str, int, float, float, int, int]] = {}
    for k in range(1, interims + 1):
        undecided = [pair for pair in pairs if pair not in rejected]
        if not undecided or not _ready(runs, undecided, k, size):
            break
        used = k * size
        boundaries = dict[Names, float]()
        for members in sets:
            wider = (
                tuple(name for name in names if name in members or name == other)
                for other in names
                if other not in members
            )
            if members in rejected or not rejected.issuperset(wider):
                continue
            groups = np.stack([runs[name][:used].reshape(k, size) for name in members], axis=1)
            level = _level(alpha, len(members), len(names), baseline) / interims
            boundary, above = _test(groups, level, baseline is not None, reps, seed, tolerance)
            if above:
                rejected.add(members)
            for pair in [members] if above else itertools.combinations(members, 2):
                boundaries[pair] = max(boundary, boundaries.get(pair, 0.0))
        for pair in undecided:
            x, y = (float(runs[name][:used].mean()) for name in pair)
            decision, boundary = "larger" if x > y else "smaller", boundaries[pair]
            if pair not in rejected:
                decision = "equal" if k == interims else "undecided"
                boundary = max(boundary, abs(x - y))  # no further apart than rounding
            rows[pair] = (decision, k, abs(x - y), boundary, used, used)
    return pd.DataFrame([(*pair, *rows[pair]) for pair in pairs], columns=list(COLUMNS))


def _level(alpha: float, p: int, algorithms: int, baseline: str | None) -> float:
    """The level of a set of p algorithms, so that disjoint sets have alpha at most together."""
    return alpha if baseline is not None or p >= algorithms - 1 else alpha * p / algorithms


def _test(
    groups: Array, level: float, with_last: bool, reps: int, seed: int, tolerance: float
) -> tuple[float, bool]:
    """The boundary of a set at its last interim, and whether the statistic is above it.

    Args:
        groups: the runs, shape (k, p, size): interims, algorithms, runs.
        level: spent per interim.
        with_last: as in `_statistic`.
        reps: deals drawn per interim.
        seed: of the deals.
        tolerance: statistics no further apart are ties.
    """
    path, null = list[float](), list[Array]()
    for k in range(1, len(groups) + 1):
        if len(null) < k:
            null = _dealt(groups, k, with_last, reps, seed)
        alive = np.ones(len(null[0]), dtype=bool)
        for earlier, boundary in zip(null, path, strict=False):
            alive &= earlier <= boundary + tolerance
        left = np.sort(null[k - 1][alive])
        # How many may lie above: none where drawn deals, after enumerated ones, spent more already.
        spend = math.floor(k * level * len(alive) + 1e-9) - (len(alive) - len(left))
        path.append(float(left[-1 - max(spend, 0)]))
    observed = _statistic(groups.sum(axis=(0, 2)), with_last) / groups[:, 0].size
    return path[-1], bool(observed > path[-1] + tolerance)


def _statistic(sums: Array, with_last: bool) -> Array:
    """The largest absolute difference along the last axis: of any two, or of any with the last."""
    if with_last:
        return np.asarray(np.abs(sums[..., :-1] - sums[..., -1:]).max(axis=-1))
    return np.asarray(np.ptp(sums, axis=-1))


def _dealt(groups: Array, k: int, with_last: bool, reps: int, seed: int) -> list[Array]:
    """The statistic of each deal at interims 1, 2, ...: to k if enumerated, to the last if drawn.

    Arrays of shape (M,); number m of each belongs to one sequence of deals.
    """
    _, p, size = groups.shape
    count = math.comb(2 * size, size)
    every = p == 2 and count**k // 2 <= reps
    sums, null = np.zeros((1, p)), list[Array]()
    for i, group in enumerate(groups[:k] if every else groups):
        # Sorted, so that what is drawn does not depend on the order of runs and algorithms.
        pool = np.sort(group, axis=None)
        deals = _all_deals(size) if every else _deals(p, size, reps, seed, i)
        if every and i == 0:
            deals = deals[: count // 2]  # a deal and its mirror image have one statistic
        dealt = pool[deals].reshape(-1, p, size).sum(axis=2)
        if every:
            null = [np.repeat(earlier, len(dealt)) for earlier in null]
            sums = (sums[:, None] + dealt).reshape(-1, p)
        else:
            sums = sums + np.concatenate([group.sum(axis=1)[None], dealt])
        null.append(_statistic(sums, with_last) / (size * (i + 1)))
    return null


@functools.cache
def _all_deals(size: int) -> NDArray[np.intp]:
    """Every deal of 2 size runs to two algorithms, a row each; row -1 - m mirrors row m."""
    runs = range(2 * size)
    first = itertools.combinations(runs, size)
    return np.array([[*some, *(run for run in runs if run not in some)] for some in first])


@functools.lru_cache(maxsize=8)
def _deals(p: int, size: int, reps: int, seed: int, interim: int) -> NDArray[np.intp]:
    """Drawn deals of p size runs to p algorithms, shape (reps - 1, p size), alike for all sets."""
    rng = stream(seed, "adastop", p, size, interim)
    return rng.permuted(np.tile(np.arange(p * size), (reps - 1, 1)), axis=1)


def _ready(runs: Mapping[str, Array], undecided: Sequence[Names], k: int, size: int) -> bool:
    """Whether interim k can be made: False if no algorithm that needs runs for it has new ones."""
    names = list(dict.fromkeys(itertools.chain(*undecided)))
    short = [name for name in names if len(runs[name]) < k * size]
    if not short:
        return True
    if k > 1 and all(len(runs[name]) == (k - 1) * size for name in names):
        return False
    lacks = ", ".join(f"{name!r} has {len(runs[name])}" for name in short)
    raise InputError(
        f"too few runs: {lacks}; interim {k} needs {k * size} of every algorithm with an undecided "
        f"pair ({', '.join(map(repr, names))})"
    )


def _runs(name: str, values: ArrayLike, most: int) -> Array:
    try:
        runs = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name!r}: {values!r}; expected one number per run") from None
    if runs.ndim != 1:
        raise InputError(f"{name!r}: scores of shape {runs.shape}; expected one number per run")
    if not np.isfinite(runs).all():
        at = int(np.flatnonzero(~np.isfinite(runs))[0])
        raise InputError(f"{name!r}: score {at + 1} is {runs[at]}; expected finite scores")
    if len(runs) > most:
        raise InputError(
            f"{name!r} has {len(runs)} runs, and the plan ends with {most} (size x interims); "
            "a plan holds every run: choose it before the runs are made, and keep it"
        )
    return runs


def _check_plan(
    names: Sequence[str],
    size: int,
    interims: int,
    alpha: float,
    baseline: str | None,
    reps: int,
) -> None:
    if not 2 <= len(names) <= MOST_WHOLE:
        raise InputError(f"{len(names)} algorithms; AdaStop compares 2 to {MOST_WHOLE} at once")
    if baseline is not None and baseline not in names:
        raise unknown("baseline", baseline, names)
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha:g}; expected a share between 0 and 1, such as 0.05")
    if size < 2 or interims < 1:
        raise InputError(
            f"size {size}, interims {interims}; expected 2 runs or more per interim, and 1 interim "
            "or more"
        )
    if size * interims > MOST_RUNS:
        raise InputError(
            f"size {size:,}, interims {interims:,}: expected at most {MOST_RUNS:,} runs of each "
            "algorithm in all"
        )
    if reps * size * len(names) > MOST_DEALT:
        raise InputError(
            f"reps {reps:,}, size {size:,}, {len(names)} algorithms: expected a product of at "
            f"most {MOST_DEALT:,}"
        )
    least = _level(alpha, 2, len(names), baseline)
    smallest = 2 / math.comb(2 * size, size) ** interims
    if smallest > least:
        raise InputError(
            f"size {size}, interims {interims}: the smallest possible p is {smallest:.3g}, and "
            f"{len(names)} algorithms need {least:.3g} or less to be told apart; plan more runs"
        )
    if reps * least < interims:
        raise InputError(
            f"reps {reps}: too few for {interims} interims at alpha {alpha:g}; give "
            f"{math.ceil(interims / least)} or more"
        )
