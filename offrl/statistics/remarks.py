"""Sentences on estimates and comparisons: verdicts, and what a reader must beware of."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from offrl.results.table import ScoreTable
from offrl.statistics.labels import level_of, main_method, metric_name, percent
from offrl.statistics.metrics import METRICS, point_estimates
from offrl.statistics.pairs import Pair
from offrl.statistics.permutations import permutation_count
from offrl.statistics.resampling import COVERAGE


def comparison_notes(
    pairs: Sequence[Pair],
    frame: pd.DataFrame,
    alpha: float,
    permutations: int,
    tests: int,
) -> list[str]:
    """What a reader must know of pairs.

    That no number can tell them apart, that means and IQMs differ, that an interval is a point.

    Args:
        pairs: all of them.
        frame: their rows.
        alpha: error rate of the verdicts.
        permutations: of the test.
        tests: by what the p of a pair is multiplied at most.
    """
    notes = []
    # Where all numbers of runs are equal, swapping the two algorithms changes no difference.
    ways = [
        (permutation_count(pair.runs.tolist()), bool((pair.runs[:, 0] == pair.runs[:, 1]).all()))
        for pair in pairs
    ]
    least = min(max((1 + even) / number, 1 / (permutations + 1)) for number, even in ways)
    if least * tests > alpha:
        notes.append(
            f"no pair can be told apart, whatever the scores: the smallest p that so few runs or "
            f"permutations can give is {least:.2g}, and {min(1, least * tests):.2g} corrected "
            f"for {len(pairs)} {'pairs' if len(pairs) > 1 else 'pair'}; run more seeds"
            + (", or compare with one baseline" if tests > 1 else "")
        )
    told = frame[frame["verdict"].isin(("better", "worse"))]
    against = told[told["difference"] * told["mean_difference"] < 0]
    if len(against):
        notes.append(
            "The test is of means. It tells these apart although their IQMs differ the other way "
            f"round, as some runs are far from the others: {_pairs(against)}"
        )
    point = frame[(frame["probability_low"] == frame["probability_high"])]
    if len(point):
        notes.append(
            "The interval of P(X > Y) is a single point where every resample agrees, which is no "
            f"evidence of certainty: {_pairs(point)}"
        )
    return notes


def way_notes(table: ScoreTable, compared: Sequence[str]) -> list[str]:
    """Which other ways to act are not among the algorithms that are compared."""
    left = [name for name in table.ways if name not in compared]
    if not left:
        return []
    are = "is another way" if len(left) == 1 else "are other ways"
    return [
        f"{', '.join(left)} {are} to act in the same runs, and no algorithm to compare by default; "
        "name the algorithms to choose otherwise"
    ]


def explain(table: ScoreTable, summary: pd.DataFrame) -> list[str]:
    """Sentences on what is missing or odd in `summarise(table)`, for its reader."""
    notes = []
    sizes = {a: {d: len(c) for d, c in tasks.items()} for a, tasks in table.cells().items()}
    for algorithm, tasks in sizes.items():
        lacking = [d for d in table.datasets if d not in tasks]
        single = [d for d, n in tasks.items() if n == 1]
        if lacking:
            notes.append(
                f"{algorithm} has no finished run on {', '.join(lacking)}: "
                "no aggregate is computed for it"
            )
        elif single:
            notes.append(
                f"{algorithm} has a single run on {', '.join(single)}: no interval can be "
                "computed; an interval needs two runs or more on every data set"
            )
    counts = sorted({n for tasks in sizes.values() for n in tasks.values()})
    if len(counts) > 1:
        notes.append(
            f"Numbers of runs differ, from {counts[0]} to {counts[-1]} per data set (each is shown "
            "in the table per data set). Mean, median and optimality gap weigh data sets equally; "
            "the IQM pools runs, so a data set with more runs weighs more"
        )
    cells = table.cells()
    point: dict[tuple[str, ...], list[str]] = {}
    capped: dict[tuple[str, ...], list[str]] = {}
    method = main_method(summary["ci_method"])
    main = summary[(summary["ci_method"] == method) & summary["ci_low"].notna()]
    for name in main["algorithm"].unique():
        scores = list(cells[name].values())
        ends = [
            point_estimates([np.array([end(cell)]) for cell in scores], table.scale)
            for end in (np.min, np.max)
        ]
        tied, at_end = [], []
        rows = main[main["algorithm"] == name].set_index("metric")
        for k, metric in enumerate(METRICS):
            low, high = rows.loc[metric, ["ci_low", "ci_high"]].astype(float)
            lowest, highest = sorted(float(end[k]) for end in ends)
            slack = 1e-9 * (highest - lowest)
            if low == high:
                tied.append(metric)
            elif low <= lowest + slack or high >= highest - slack:
                at_end.append(metric)
        for group, affected in ((point, tied), (capped, at_end)):
            if affected:
                group.setdefault(tuple(affected), []).append(name)
    endless = summary[np.isinf(summary["ci_low"]) | np.isinf(summary["ci_high"])]
    if len(endless):
        notes.append(
            "A studentized interval has no end where too many resamples of so few runs have no "
            f"variance: {', '.join(endless['algorithm'].unique())}"
        )
    for metrics, names in point.items():
        notes.append(
            f"The interval of {_words(metrics)} is a single point for {', '.join(names)}: runs "
            "tie, so that every resample gives the same value. That is no evidence of certainty"
        )
    if capped:
        level = level_of(summary)
        measured = " (some 75 % with 3 runs on 1 data set)" if level == COVERAGE else ""
        which = "; ".join(f"{', '.join(names)} ({_words(m)})" for m, names in capped.items())
        notes.append(
            f"Some {method} intervals reach the lowest or highest value that resampling so few "
            "runs can give, are narrower than they should be, and may cover less than "
            f"{percent(level)}{measured}: {which}"
        )
    return notes


def _pairs(frame: pd.DataFrame) -> str:
    shown = [f"{x} and {y}" for x, y in zip(frame["x"], frame["y"], strict=True)]
    if len(shown) > 5:
        shown[5:] = [f"{len(shown) - 5} more pairs"]
    return ", ".join(shown)


def _words(metrics: Sequence[str]) -> str:
    return ", ".join(map(metric_name, metrics))
