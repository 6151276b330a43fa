"""Scores on altered data sets beside those on the clean ones."""

import numpy as np
import pandas as pd

from offrl.data.altered import clean_name
from offrl.results.table import ScoreTable
from offrl.statistics.resampling import COVERAGE
from offrl.statistics.significance import welch

ROBUSTNESS = (
    "algorithm",
    "dataset",
    "clean",
    "clean_mean",
    "altered_mean",
    "difference",
    "ci_low",
    "ci_high",
    "ratio",
    "n_clean",
    "n_altered",
)


def robustness(table: ScoreTable, level: float = COVERAGE) -> pd.DataFrame:
    """A row per algorithm and altered data set with scores on both sides; columns ROBUSTNESS.

    `difference` is that of the mean scores, altered minus clean, with Welch's interval, which is
    NaN where a side has one run; `ratio` is altered by clean, NaN where the clean mean is not
    positive.
    """
    rows = []
    for algorithm, cells in table.cells().items():
        for dataset in table.datasets:
            clean = clean_name(dataset)
            if dataset not in cells or clean is None or clean not in cells:
                continue
            sides = {"altered": cells[dataset], "clean": cells[clean]}
            means = {name: float(scores.mean()) for name, scores in sides.items()}
            low = high = np.nan
            if min(map(len, sides.values())) > 1:
                tasks = {name: {dataset: scores} for name, scores in sides.items()}
                test = welch(tasks, [("altered", "clean")], level)
                low, high = float(test["ci_low"].iloc[0]), float(test["ci_high"].iloc[0])
            ratio = means["altered"] / means["clean"] if means["clean"] > 0 else np.nan
            rows.append(
                {
                    "algorithm": algorithm,
                    "dataset": dataset,
                    "clean": clean,
                    "clean_mean": means["clean"],
                    "altered_mean": means["altered"],
                    "difference": means["altered"] - means["clean"],
                    "ci_low": low,
                    "ci_high": high,
                    "ratio": ratio,
                    "n_clean": len(sides["clean"]),
                    "n_altered": len(sides["altered"]),
                }
            )
    return pd.DataFrame(rows, columns=list(ROBUSTNESS))
