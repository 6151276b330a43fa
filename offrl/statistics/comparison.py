"""Comparisons of algorithms, two at a time, from a score table.

Of every pair (x, y), with A > B read as "x scores more than y":

- P(X > Y), the probability of improvement, and the difference of IQMs (`pairs`), with their
  intervals (`pair_intervals`);
- p of a permutation test of the means over data sets (`permutations`), and p adjusted for all pairs
  by the closed test (`closed`) or by Holm's method (`significance`);
- Welch's test of the means on each data set (`significance`).

The test is of means, not of IQMs: an IQM leaves out whole runs, and so ties where runs are few.
Adjusted p apart, and how many permutations p is from, a pair's numbers depend on its own scores
alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from offrl.errors import InputError, unknown
from offrl.progress import Progress
from offrl.results.table import ScoreTable
from offrl.statistics.closed import closed_p, most_disjoint
from offrl.statistics.engines import engine
from offrl.statistics.metrics import Tasks
from offrl.statistics.pairs import PAIRS, Pair, comparable_cells
from offrl.statistics.permutations import Runs, Set, set_p
from offrl.statistics.remarks import comparison_notes, way_notes
from offrl.statistics.resampling import Resampling
from offrl.statistics.significance import ALPHA, MOST_PERMUTATIONS, PERMUTATIONS, holm, welch

CORRECTIONS = ("closed", "holm")  # the first by default
STATISTIC = "studentized difference of means"
MOST_COMPARED = 600_000  # runs, of all pairs: a minute or two
MOST_DEALT = 4_000_000_000  # runs that are dealt to all pairs, in all permutations: likewise


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
    correction: str = CORRECTIONS[0],
    permutations: int = PERMUTATIONS,
    resampling: Resampling = Resampling(),
    progress: Progress | None = None,
) -> Comparison:
    """Every pair of algorithms, or every algorithm against a baseline, compared.

    The verdict on x against y is

    - "equivalent" where a margin is given and two one-sided t tests show that the means differ by
      less (Schuirmann 1987), with p corrected by Holm's method for all pairs;
    - "better" or "worse" where the adjusted p is at most alpha, by the sign of the difference of
      means;
    - "cannot tell" otherwise. `seeds` is then with how many seeds on each data set, more than now,
      a t test at the level alpha over the number of pairs would tell it with probability 0.8, were
      the difference and the variances what they seem: a plan, which other differences can shorten.

    The chance that any two of equal distribution are told apart is at most alpha, and so is the
    chance that any two whose means differ by the margin or more are called equivalent.

    `pairs` has the columns PAIRS: `p` is that of the pair alone, `p_equivalent` the corrected one
    of equivalence within the margin, `n_x` and `n_y` are the smallest numbers of runs on a data
    set, the errors the larger Monte-Carlo standard error of an interval's two ends. `tasks` has
    TASKS: the difference of means with Welch's interval and p.

    Args:
        table: scores of two algorithms or more, with two runs or more of each on every data set;
            otherwise InputError, which names the cells. InputError too where the pairs have more
            than MOST_COMPARED runs in all. Each setting of an algorithm that has several is one.
        baseline: the algorithm to compare all others with.
        algorithms: compare these alone; by default all algorithms of the table, each in the first
            of the ways in which it acts.
        margin: the largest difference of means that counts as none, in points of the scale.
        alpha: error rate of the tests, over all pairs.
        correction: of p for all pairs, one of CORRECTIONS.
        permutations: of each set of algorithms, at most.
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
    if correction not in CORRECTIONS:
        raise unknown("correction", correction, CORRECTIONS)
    if permutations < 100:
        raise InputError(f"permutations {permutations}: too few for a p; give 100 or more")
    if permutations > MOST_PERMUTATIONS:
        raise InputError(f"permutations {permutations:,}: expected at most {MOST_PERMUTATIONS:,}")
    if algorithms is not None:
        algorithms = [name for given in algorithms for name in table.names_by_setting(given)]
    table = table.by_setting()
    cells = comparable_cells(table, baseline, algorithms)
    names = [baseline, *(a for a in cells if a != baseline)] if baseline else list(cells)
    if baseline:
        labels = [(name, baseline) for name in names[1:]]
    else:
        labels = [(x, y) for k, x in enumerate(names) for y in names[k + 1 :]]
    _check_size(cells, labels)
    pairs = [Pair(cells[x], cells[y]) for x, y in labels]
    estimates = engine(resampling).compare_pairs(cells, labels, pairs, resampling, progress)
    runs = {name: Runs([cells[name][task] for task in cells[names[0]]]) for name in names}
    sets = [Set([runs[x], runs[y]]) for x, y in labels]
    if correction == "holm":
        least = _least_permutations(sets, alpha)
        p = set_p(sets, permutations, resampling.seed, least=least)
        adjusted, tests = holm(p), len(pairs)
    else:
        p = set_p(sets, permutations, resampling.seed)
        grid = closed_p(
            [*runs.values()], permutations, resampling.seed, baseline=baseline is not None
        )
        place = {name: k for k, name in enumerate(names)}
        adjusted = np.maximum(p, [grid[place[x], place[y]] for x, y in labels])
        tests = most_disjoint(len(names), baseline is not None)
    equivalent = np.full(len(pairs), np.nan)
    if margin is not None:
        equivalent = holm(np.array([pair.equivalence_p(margin) for pair in pairs]))
    rows = []
    for k, ((x, y), pair, estimate) in enumerate(zip(labels, pairs, estimates, strict=True)):
        verdict, seeds = "cannot tell", None
        if equivalent[k] <= alpha:
            verdict = "equivalent"
        elif adjusted[k] <= alpha:
            verdict = "better" if pair.mean_difference > 0 else "worse"
        else:
            seeds = pair.seeds(alpha / len(pairs), alpha / tests, permutations, margin)
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
                "mean_difference": pair.mean_difference,
                "p": p[k],
                "p_adjusted": adjusted[k],
                "p_equivalent": equivalent[k],
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
    notes = comparison_notes(pairs, frame, alpha, permutations, tests)
    if algorithms is None:
        notes += way_notes(table, names)
    return Comparison(frame, tasks, alpha, correction, STATISTIC, tuple(notes))


def _least_permutations(sets: Sequence[Set], alpha: float) -> int:
    """The fewest permutations with which Holm's method can tell a pair apart.

    Raises InputError where they are too many.
    """
    least = math.ceil(len(sets) / alpha)
    if least * sum(some.runs for some in sets) > MOST_DEALT:
        raise InputError(
            f"correction holm: {len(sets):,} pairs need {least:,} permutations each, more than a "
            "comparison takes; use the closed test, which needs fewer, compare with one baseline, "
            "or choose algorithms or data sets"
        )
    return least


def _check_size(cells: Mapping[str, Tasks], labels: Sequence[tuple[str, str]]) -> None:
    runs = {name: sum(map(len, tasks.values())) for name, tasks in cells.items()}
    total = sum(runs[x] + runs[y] for x, y in labels)
    if total > MOST_COMPARED:
        raise InputError(
            f"{len(runs)} algorithms: their {len(labels):,} pairs have {total:,} runs, and a "
            f"comparison takes at most {MOST_COMPARED:,}; compare with one baseline "
            f"({len(runs) - 1} pairs), or choose algorithms or data sets"
        )
