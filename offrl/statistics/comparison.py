"""Comparisons of algorithms, two at a time, from a score table.

Of every pair (x, y), with A > B read as "x scores more than y":

- P(X > Y), the probability of improvement, and the difference of IQMs (`pairs`), with their
  intervals (`pair_intervals`);
- p of a permutation test and of a t test of the IQMs (`significance`, `pairs`). The larger of both
  is the one that counts. It is corrected by Holm's method over all pairs;
- Welch's test of the means on each data set (`significance`).

Correction aside, a pair's numbers depend on its own scores alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from offrl.errors import InputError
from offrl.progress import Progress
from offrl.results.table import ScoreTable
from offrl.statistics.engines import engine
from offrl.statistics.pairs import PAIRS, Pair, comparable_cells
from offrl.statistics.remarks import comparison_notes, way_notes
from offrl.statistics.resampling import Resampling
from offrl.statistics.significance import (
    ALPHA,
    MOST_PERMUTATIONS,
    PERMUTATIONS,
    holm,
    permutation,
    welch,
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """All pairs: `pairs`, a row each, and `tasks`, a row for each data set of each.

    `alpha` is the error rate of the verdicts, `correction` how it is held over all pairs,
    `statistic` what is tested, in words, and `notes` sentences for their reader.
    """

    pairs: pd.DataFrame
    tasks: pd.DataFrame
    alpha: float
    correction: str
    statistic: str
    notes: tuple[str, ...]


def compare(
    table: ScoreTable,
    *,
    baseline: str | None = None,
    algorithms: Sequence[str] | None = None,
    margin: float | None = None,
    alpha: float = ALPHA,
    permutations: int = PERMUTATIONS,
    resampling: Resampling = Resampling(),
    progress: Progress | None = None,
) -> Comparison:
    """Every pair of algorithms, or every algorithm against a baseline, compared.

    The verdict on x against y is

    - "equivalent" where a margin is given and the t interval of the difference of IQMs at level
      1 - 2 alpha / (number of pairs) lies within it (two one-sided tests, Schuirmann 1987);
    - "better" or "worse" where the corrected p is at most alpha, by the sign of the difference;
    - "cannot tell" otherwise. `seeds` is then with how many seeds on each data set, more than now,
      the tests would have power 0.8, were the difference and the variances what they seem: a plan.

    `pairs` has the columns PAIRS: `n_x` and `n_y` are the smallest numbers of runs on a data set,
    the errors the larger Monte-Carlo standard error of an interval's two ends. `tasks` has TASKS:
    the difference of means with Welch's interval and p.

    Args:
        table: scores of two algorithms or more, with two runs or more of each on every data set;
            otherwise InputError, which names the cells.
        baseline: the algorithm to compare all others with.
        algorithms: compare these alone; by default all algorithms of the table, each in the first
            of the ways in which it acts.
        margin: the largest difference of IQMs that counts as none, in points of the scale.
        alpha: error rate of the tests, over all pairs.
        permutations: random permutations; where there are no more in all (up to LISTED), each is
            taken once.
        resampling: its seed is that of the permutations too; its repetitions are by default as many
            as a Monte-Carlo error of at most `bootstrap.SHARE` of the width of both intervals of a
            pair needs. The engine "rliable" computes P(X > Y) and its percentile interval, by
            default from 2,000 resamples; `reps` is then that of the difference.
        progress: called with the number of pairs done and their number; "rliable" takes each twice.
    """
    if not 0 < alpha < 0.5:
        raise InputError(f"alpha {alpha:g}: expected an error rate between 0 and 0.5, such as 0.05")
    if margin is not None and not (margin > 0 and np.isfinite(margin)):
        raise InputError(f"margin {margin:g}: expected points of the score, more than 0")
    if permutations < 100:
        raise InputError(f"permutations {permutations}: too few for a p; give 100 or more")
    if permutations > MOST_PERMUTATIONS:
        raise InputError(f"permutations {permutations:,}: expected at most {MOST_PERMUTATIONS:,}")
    cells = comparable_cells(table, baseline, algorithms)
    names = [baseline, *(a for a in cells if a != baseline)] if baseline else list(cells)
    if baseline:
        labels = [(name, baseline) for name in names[1:]]
    else:
        labels = [(x, y) for k, x in enumerate(names) for y in names[k + 1 :]]
    pairs = [Pair(cells[x], cells[y]) for x, y in labels]
    estimates = engine(resampling).compare_pairs(cells, labels, pairs, resampling, progress)
    exact = permutation(pairs, permutations, resampling.seed)
    t = np.array([pair.p for pair in pairs])
    corrected = holm(np.maximum(exact, t))
    rows = []
    for k, ((x, y), pair, estimate) in enumerate(zip(labels, pairs, estimates, strict=True)):
        verdict, seeds = "cannot tell", None
        if margin is not None and pair.within(margin, alpha / len(pairs)):
            verdict = "equivalent"
        elif corrected[k] <= alpha:
            verdict = "better" if pair.difference > 0 else "worse"
        else:
            seeds = pair.seeds(alpha / len(pairs), margin, permutations)
        rows.append(
            {
                "x": x,
                "y": y,
                "probability": estimate.probability,
                "probability_low": estimate.interval.low,
                "probability_high": estimate.interval.high,
                "difference": pair.difference,
                "difference_low": estimate.difference.low,
                "difference_high": estimate.difference.high,
                "p_permutation": exact[k],
                "p_t": t[k],
                "mean_difference": pair.mean_difference,
                "p": max(exact[k], t[k]),
                "p_adjusted": corrected[k],
                "verdict": verdict,
                "seeds": seeds,
                "n_x": int(min(pair.n_x)),
                "n_y": int(min(pair.n_y)),
                "n_tasks": len(pair.n_x),
                "reps": estimate.reps,
                "probability_error": estimate.interval.error,
                "difference_error": estimate.difference.error,
            }
        )
    frame = pd.DataFrame(rows, columns=list(PAIRS)).astype({"seeds": "Int64"})
    tasks = welch(cells, labels, resampling.level)
    frame.attrs["level"] = tasks.attrs["level"] = resampling.level
    notes = comparison_notes(pairs, frame, alpha, permutations)
    if algorithms is None:
        notes += way_notes(table, names)
    return Comparison(frame, tasks, alpha, "holm", "difference of IQMs", tuple(notes))
