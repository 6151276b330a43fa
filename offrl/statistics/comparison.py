"""Comparisons of algorithms, two at a time, from a score table.

Of every pair (x, y), with A > B read as "x scores more than y":

- P(X > Y), probability of improvement: the mean over data sets of the probability that a run of x
  scores more than a run of y, ties counting one half (Agarwal et al. 2021, equation 2);
- the difference of their IQMs;
- p of a stratified permutation test: runs change hands between x and y within each data set, and p
  is how often the IQMs then differ as much (Fisher 1935; Phipson and Smyth 2010 for the count). It
  is exact if x and y have equal distributions, but errs too often where only their IQMs are equal
  and their spreads or numbers of runs are not;
- p of a t test of the IQMs, which holds for unequal spreads: the difference over its standard error
  from winsorised variances (Yuen 1974), with Satterthwaite's degrees of freedom. The larger of both
  p is the one that counts;
- Welch's test of the means on each data set (Welch 1947).

Intervals are expanded percentile ones (see `bootstrap`) over the runs of both, as 2 T strata. The
variance of P(X > Y) is that of its placements, the share of y's runs below each run of x and the
other way round (DeLong, DeLong and Clarke-Pearson 1988). p is corrected by Holm's method (1979)
over all pairs, Welch's over all pairs and data sets. Correction aside, a pair's numbers depend on
its own scores alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from offrl.errors import InputError
from offrl.progress import Progress
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Draws, Interval, TrimmedMean
from offrl.statistics.pairs import PAIRS, Pair, cells_key, comparable_cells, run_counts, turn
from offrl.statistics.remarks import comparison_notes
from offrl.statistics.resampling import Resampling
from offrl.statistics.significance import PERMUTATIONS, holm, permutation, welch


@dataclass(frozen=True, eq=False)
class Comparison:
    """All pairs: `pairs`, a row each, and `tasks`, a row for each data set of each.

    `alpha` is the error rate of the verdicts, `notes` sentences for their reader.
    """

    pairs: pd.DataFrame
    tasks: pd.DataFrame
    alpha: float
    notes: tuple[str, ...]


def compare(
    table: ScoreTable,
    *,
    baseline: str | None = None,
    algorithms: Sequence[str] | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    permutations: int = PERMUTATIONS,
    resampling: Resampling = Resampling(),
    progress: Progress | None = None,
) -> Comparison:
    """Every pair of algorithms, or every algorithm against a baseline, compared.

    The verdict on x against y is

    - "equivalent" where a margin is given and the t interval of the difference of IQMs at level
      1 - 2 alpha / (number of pairs) lies within it (two one-sided tests, Schuirmann 1987);
    - "better" or "worse" where the corrected p is at most alpha, by the sign of the difference;
    - "cannot tell" otherwise. `seeds` is then how many seeds on each data set, more than now, would
      tell with probability 0.8, were the difference and the variances what they seem: a plan.

    `pairs` has the columns PAIRS: `n_x` and `n_y` are the smallest numbers of runs on a data set,
    the errors the larger Monte-Carlo standard error of an interval's two ends. `tasks` has TASKS:
    the difference of means with Welch's interval and p.

    Args:
        table: scores of two algorithms or more, with two runs or more of each on every data set;
            otherwise InputError, which names the cells.
        baseline: the algorithm to compare all others with.
        algorithms: compare these alone.
        margin: the largest difference of IQMs that counts as none, in points of the scale.
        alpha: error rate of the tests, over all pairs.
        permutations: random permutations; where there are no more in all (up to LISTED), each is
            taken once.
        resampling: its seed is that of the permutations too; its repetitions are by default as many
            as a Monte-Carlo error of at most `bootstrap.SHARE` of the width of both intervals of a
            pair needs. The engine "rliable" computes P(X > Y) and its percentile interval, by
            default from 2,000 resamples; `reps` is then that of the difference.
        progress: called with the number of pairs done and their number.
    """
    if not 0 < alpha < 0.5:
        raise InputError(f"alpha {alpha:g}: expected an error rate between 0 and 0.5, such as 0.05")
    if margin is not None and not (margin > 0 and np.isfinite(margin)):
        raise InputError(f"margin {margin:g}: expected points of the score, more than 0")
    if permutations < 100:
        raise InputError(f"permutations {permutations}: too few for a p; give 100 or more")
    cells = comparable_cells(table, baseline, algorithms)
    names = [baseline, *(a for a in cells if a != baseline)] if baseline else list(cells)
    if baseline:
        labels = [(name, baseline) for name in names[1:]]
    else:
        labels = [(x, y) for k, x in enumerate(names) for y in names[k + 1 :]]
    theirs = None
    if resampling.engine == "rliable":
        # First: rliable rejects tables that our engine accepts, so fail before the slow part.
        from offrl.statistics import rliable as rliable_engine

        theirs = rliable_engine.probabilities(
            table, labels, reps=resampling.reps, seed=resampling.seed, progress=progress
        )
    pairs = [Pair(cells[x], cells[y]) for x, y in labels]
    found = pair_intervals(pairs, resampling, progress)
    exact = permutation(pairs, permutations, resampling.seed)
    t = np.array([pair.p for pair in pairs])
    corrected = holm(np.maximum(exact, t))
    rows = []
    for k, ((x, y), pair, (ends, used)) in enumerate(zip(labels, pairs, found, strict=True)):
        verdict, seeds = "cannot tell", None
        if margin is not None and pair.within(margin, alpha / len(pairs)):
            verdict = "equivalent"
        elif corrected[k] <= alpha:
            verdict = "better" if pair.difference > 0 else "worse"
        else:
            seeds = pair.seeds(alpha / len(pairs), margin, permutations)
        probability, difference = ends
        rows.append(
            {
                "x": x,
                "y": y,
                "probability": pair.probability,
                "probability_low": probability.low,
                "probability_high": probability.high,
                "difference": pair.difference,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "p_permutation": exact[k],
                "p_t": t[k],
                "p_holm": corrected[k],
                "verdict": verdict,
                "seeds": seeds,
                "n_x": int(min(pair.n_x)),
                "n_y": int(min(pair.n_y)),
                "n_tasks": len(pair.n_x),
                "reps": used,
                "probability_error": probability.error,
                "difference_error": difference.error,
            }
        )
    frame = pd.DataFrame(rows, columns=list(PAIRS)).astype({"seeds": "Int64"})
    if theirs is not None:
        columns = ["probability", "probability_low", "probability_high"]
        frame[columns] = theirs[columns].to_numpy()
        frame["probability_error"] = np.nan
    tasks = welch(cells, labels, resampling.level)
    notes = comparison_notes(pairs, frame, alpha, permutations)
    return Comparison(frame, tasks, alpha, tuple(notes))


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
    found = np.zeros((len(pairs), last - first))
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
                found[:, place][:, part] += wins / (2 * n_x * n_y * len(runs))
    return found.round(12)


def resampled_iqms(
    sides: Mapping[tuple[float, ...], Sequence[Array]],
    purpose: str,
    first: int,
    last: int,
    seed: int,
) -> dict[tuple[float, ...], Array]:
    """The IQM of each algorithm in resamples."""
    found = {key: np.empty(last - first) for key in sides}
    shapes = {key: tuple(len(cell) for cell in cells) for key, cells in sides.items()}
    for shape in dict.fromkeys(shapes.values()):
        trimmed = {
            key: TrimmedMean(np.concatenate(sides[key]), sum(shape))
            for key in sides
            if shapes[key] == shape
        }
        for place, counts in Draws(shape, seed, f"difference {purpose}").blocks(first, last):
            for key, at in trimmed.items():
                found[key][place] = at(counts)
    return found
