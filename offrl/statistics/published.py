"""Published tables, and what runs of one's own say about them, cell by cell.

A cell is `reproduced` where the difference of means is shown to be smaller than a margin that was
stated before, by two one-sided Welch tests (Schuirmann 1987): the 90 % interval of the difference,
for a level of 5 %, lies inside the margin. It `differs` where it is not, and the 95 % interval
leaves out 0. Otherwise the runs are `underpowered`: they show neither. Runs that have not come as
far as the published ones are `unfinished`, whatever their scores, and runs of another protocol
than the table's, or longer ones, have `other settings`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from offrl import registry
from offrl.errors import InputError, unknown
from offrl.results.table import ScoreTable

ERROR_RATE = 0.05  # of the equivalence test, and of the interval that finds a difference


@dataclass(frozen=True)
class Verdict:
    """What the runs of one cell say about the published value."""

    verdict: str
    difference: float  # ours minus the published mean
    low: float  # of the 95 % Welch interval of the difference; NaN where there is none
    high: float


@cache
def _published() -> pd.DataFrame:
    tables = pd.concat([pd.read_csv(path) for path in registry.resources("reports", ".csv")])
    printed, n = tables["sd"], tables["n"]
    whole = printed * np.sqrt(n / (n - 1))
    return tables.assign(printed_sd=printed, sd=printed.where(tables["ddof"] != 0, whole))


def tables() -> dict[str, pd.DataFrame]:
    """The published tables that ship with offrl: algorithm, dataset, mean, sd, n, steps, source.

    Scores are on 0-100. `protocol` is the one whose runs the table can be held against. `sd` is the
    sample standard deviation over the n seeds. The source printed `printed_sd` with `ddof`: 0 where
    it took numpy's default, as CORL does, so that sd is larger by sqrt(n / (n - 1)); empty where it
    does not say, and then what it printed is taken for a sample deviation. sd is empty where a
    source prints none, and n where it does not say how many seeds it had.
    """
    return {str(name): rows for name, rows in _published().groupby("table", sort=False)}


def judge(scores: ArrayLike, mean: float, sd: float, n: float, margin: float) -> Verdict:
    """The verdict on one cell.

    Args:
        scores: ours, one per run.
        mean: published.
        sd: published, the sample standard deviation over n runs; NaN where it is not known.
        n: published number of runs; NaN where it is not known.
        margin: the largest difference of means that counts as none, in points of the score.
    """
    ours = np.asarray(scores, dtype=np.float64)
    difference = float(ours.mean() - mean)
    if len(ours) < 2 or not n >= 2 or math.isnan(sd):
        return Verdict("underpowered", difference, math.nan, math.nan)
    parts = np.array([ours.var(ddof=1) / len(ours), sd**2 / n])
    error = float(np.sqrt(parts.sum()))
    if error == 0:
        verdict = "reproduced" if abs(difference) < margin else "differs"
        return Verdict(verdict, difference, difference, difference)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(ours) - 1, n - 1])).sum()
    one_sided = float(stats.t.ppf(1 - ERROR_RATE, freedom)) * error
    two_sided = float(stats.t.ppf(1 - ERROR_RATE / 2, freedom)) * error
    if abs(difference) + one_sided < margin:
        verdict = "reproduced"
    else:
        verdict = "differs" if abs(difference) > two_sided else "underpowered"
    return Verdict(verdict, difference, difference - two_sided, difference + two_sided)


def compare(scores: ScoreTable, name: str, margin: float) -> pd.DataFrame:
    """Our scores beside those of the published table `name`, a row per cell that both have.

    Columns: algorithm, dataset, n, step, mean, sd, published, published_sd, published_n,
    published_step, difference, low, high, verdict, source. Raises InputError where the table is not
    known, the margin is not positive, or no cell is in both.
    """
    known = tables()
    if name not in known:
        raise unknown("published table", name, known)
    if not margin > 0 or math.isinf(margin):
        raise InputError(f"margin is {margin:g}; expected a positive number of points, such as 3")
    scores.check_one_setting()
    final = scores.final()
    if scores.scale != 100:
        raise InputError("published scores are on 0-100; bring yours to that scale first")
    rows = []
    cells = cast(Iterable[Any], known[name].itertuples())
    for label, cell in ((label, cell) for cell in cells for label in final.algorithms):
        # One that ran under several protocols or configs carries them behind its label.
        if label != cell.algorithm and not label.startswith(f"{cell.algorithm} ("):
            continue
        frame = final.frame
        ours = frame[(frame["algorithm"] == label) & (frame["dataset"] == cell.dataset)]
        if not len(ours):
            continue
        result = judge(ours["score"], cell.mean, cell.sd, cell.n, margin)
        step = int(ours["step"].max()) if "step" in ours and ours["step"].notna().all() else None
        verdict = result.verdict
        if step is not None and step != cell.steps:
            verdict = "unfinished" if step < cell.steps else "other settings"
        if "protocol" in ours and (ours["protocol"].str.split("@").str[0] != cell.protocol).any():
            verdict = "other settings"
        rows.append(
            {
                "algorithm": label,
                "dataset": cell.dataset,
                "n": len(ours),
                "step": step,
                "mean": float(ours["score"].mean()),
                "sd": float(ours["score"].std()),
                "published": cell.mean,
                "published_sd": cell.sd,
                "published_n": cell.n,
                "published_step": cell.steps,
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "verdict": verdict,
                "source": cell.source,
            }
        )
    if not rows:
        table = known[name]
        raise InputError(
            f"none of these scores belongs to the table {name!r}, which has "
            f"{', '.join(table['algorithm'].unique())} on "
            f"{', '.join(table['dataset'].unique()[:4])}...; names must be the same"
        )
    frame = pd.DataFrame(rows)
    frame.attrs["level"] = 1 - ERROR_RATE
    return frame
