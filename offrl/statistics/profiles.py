"""Performance profiles and learning curves: points with pointwise and simultaneous limits."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from offrl.results.table import ScoreTable
from offrl.statistics import frames
from offrl.statistics.engines import engine
from offrl.statistics.resampling import Resampling


def profile(
    table: ScoreTable,
    tau: ArrayLike | None = None,
    *,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Score distributions: per algorithm and threshold tau, the share of runs with a score above.

    The share is the mean over data sets of the share of runs (Agarwal et al. 2021, section 4.3).
    ci_low and ci_high are pointwise expanded percentile limits with their mc_error, band_low and
    band_high simultaneous ones (see `own`); they are NaN where `summarise` has none.

    Args:
        table: the scores.
        tau: thresholds; by default 101 from the smallest score, or 0, to the largest, or `scale`.
        resampling: 10,000 resamples by default; the level is that at each threshold, and of the
            band at all of them. rliable has pointwise limits alone.
    """
    if tau is None:
        every = table.final().frame["score"]
        tau = np.linspace(min(0.0, every.min()), max(table.scale, every.max()), 101)
    thresholds = np.asarray(tau, dtype=np.float64)
    lines = engine(resampling).profile(frames.complete_cells(table), thresholds, resampling)
    frame = frames.profile(thresholds, lines)
    frame.attrs["level"] = resampling.level
    return frame


def curve(
    table: ScoreTable,
    dataset: str | None = None,
    *,
    points: int = frames.CURVE_POINTS,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Learning curves: per algorithm and step, the IQM over runs and data sets with its interval.

    A step counts where every run of the algorithm was evaluated at it, so that a curve never
    changes the runs it is made of. Whole runs are resampled, so that the band is one of curves
    (rliable resamples each step by itself). Limits as in `profile`.

    Args:
        table: scores with steps; without steps the frame has no rows.
        dataset: a single data set, or None for all of them.
        points: the most steps that are kept, evenly spread, the last one included.
        resampling: as in `profile`, with 2,000 resamples by default.
    """
    parts = frames.curve_cells(table, dataset, points)
    steps = {name: steps for name, (steps, _) in parts.items()}
    cells = {name: tasks for name, (_, tasks) in parts.items()}
    frame = frames.curve(steps, engine(resampling).curve(cells, resampling))
    frame.attrs["level"] = resampling.level
    return frame
