"""Performance profiles and learning curves."""

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import Array, Draws, TrimmedMean
from offrl.statistics.metrics import canonical, point_estimates, variances_of
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
    band_high simultaneous ones (`_limits`); they are NaN where `summarise` has none.

    Args:
        table: the scores.
        tau: thresholds; by default 101 from the smallest score, or 0, to the largest, or `scale`.
        resampling: 10,000 resamples by default; the level is that at each threshold, and of the
            band at all of them. rliable has pointwise limits alone.
    """
    reps, seed, level = resampling.reps or 10_000, resampling.seed, resampling.level
    cells = table.cells()
    if tau is None:
        every = table.final().frame["score"]
        tau = np.linspace(min(0.0, every.min()), max(table.scale, every.max()), 101)
    thresholds = np.asarray(tau, dtype=np.float64)
    if resampling.engine == "rliable":
        from offrl.statistics import rliable as rliable_engine

        return rliable_engine.profile(table, thresholds, reps=reps, seed=seed)
    parts = []
    for algorithm, tasks in cells.items():
        if len(tasks) < len(table.datasets):
            continue
        scores = canonical(list(tasks.values()))
        runs = np.array([len(cell) for cell in scores])
        above = np.concatenate(scores)[:, None] > thresholds
        # `weight * counts @ above` is the profile of a resample that holds each score `counts`
        # times. Rounded, as sums of weights err in their last bits and all runs are 1, not less.
        weight = np.repeat(1 / (runs * len(runs)), runs)
        share = (weight @ above).round(14)
        limits = np.full((5, len(thresholds)), np.nan)
        if runs.min() > 1:
            samples = np.empty((len(thresholds), reps))
            weighted = (weight[:, None] * above).T
            for place, counts in Draws(runs, seed, "profile").blocks(0, reps):
                samples[:, place] = weighted @ counts
            spread = [cell.var(axis=0, ddof=1) for cell in np.split(above, runs.cumsum()[:-1])]
            variances = (np.array(spread) / (runs * len(runs) ** 2)[:, None]).T
            limits = _limits(samples.round(12), share, variances, runs, level)
        columns = dict(zip(("ci_low", "ci_high", "mc_error"), limits[:3], strict=True))
        bands = dict(zip(("band_low", "band_high"), limits[3:].clip(0, 1), strict=True))
        labels = {"algorithm": algorithm, "tau": thresholds, "share": share}
        parts.append(pd.DataFrame({**labels, **columns, **bands}))
    names = ("algorithm", "tau", "share", "ci_low", "ci_high", "mc_error", "band_low", "band_high")
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(names))


def curve(
    table: ScoreTable,
    dataset: str | None = None,
    *,
    points: int = 100,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Learning curves: per algorithm and step, the IQM over runs and data sets with its interval.

    A step counts where every run of the algorithm was evaluated at it, so that a curve never
    changes the runs it is made of. Whole runs are resampled, so that the band is one of curves
    (rliable resamples each step by itself). Limits as in `profile`.

    Args:
        table: scores with steps; without steps the answer has no rows.
        dataset: a single data set, or None for all of them.
        points: at most so many steps are kept, evenly spread, the last one included.
        resampling: as in `profile`, with 2,000 resamples by default.
    """
    reps, seed, level = resampling.reps or 2_000, resampling.seed, resampling.level
    if resampling.engine == "rliable":
        from offrl.statistics import rliable as rliable_engine

        return rliable_engine.curve(table, dataset, reps=reps, seed=seed, points=points)
    columns = ["algorithm", "step", "iqm", "ci_low", "ci_high", "mc_error", "band_low", "band_high"]
    parts = []
    table.check_one_setting()
    frame = table.frame
    if "step" not in frame:
        frame = frame.iloc[:0].assign(step=0)
    frame = frame[frame["step"].notna()]
    if dataset is not None:
        frame = frame[frame["dataset"] == dataset]
    wanted = 1 if dataset is not None else len(table.datasets)
    for name, part in frame.groupby("algorithm", sort=True):
        if part["dataset"].nunique() < wanted:
            continue
        shared = part.set_index(["dataset", "seed", "step"])["score"].unstack("step")
        shared = shared.loc[:, shared.notna().all()]
        keep = np.unique(np.linspace(0, shared.shape[1] - 1, points).round().astype(int))
        kept = shared.iloc[:, keep if shared.shape[1] else []]
        if not kept.shape[1]:
            continue
        cells = canonical([c.to_numpy(np.float64) for _, c in kept.groupby("dataset")])
        runs = np.array([len(cell) for cell in cells])
        steps = np.concatenate(cells).T
        estimates = np.array(
            [point_estimates([c[:, k] for c in cells], 1)[0] for k in range(len(steps))]
        )
        limits = np.full((5, len(steps)), np.nan)
        if runs.min() > 1:
            trimmed = [TrimmedMean(scores, int(runs.sum())) for scores in steps]
            samples = np.empty((len(steps), reps))
            for place, counts in Draws(runs, seed, "curve").blocks(0, reps):
                for row, at in zip(samples, trimmed, strict=True):
                    row[place] = at(counts)
            variances = [variances_of([c[:, k] for c in cells], 1)[0] for k in range(len(steps))]
            limits = _limits(samples, estimates, np.array(variances), runs, level)
        found = dict(zip(columns[2:], [estimates, *limits], strict=True))
        parts.append(pd.DataFrame({"algorithm": name, "step": kept.columns.astype(int), **found}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _limits(
    samples: Array, estimates: Array, variances: Array, runs: NDArray[np.int_], level: float
) -> Array:
    """Limits at each of K points from samples (K, reps): low, high, error, band low, band high.

    The first two are pointwise, by the expanded percentile. The band holds all points at once:
    estimates +- q times their standard errors, q the quantile of the largest standardised
    deviation over points (sup-t, Montiel Olea and Plagborg-Moeller 2019). As in the expanded
    percentile, errors are widened and q taken from the normal to Student's distribution. Where all
    runs agree, in the tails of a profile, neither has any width: that is no evidence.
    """
    levels = bootstrap.expanded_level(variances, runs, level)
    ordered = np.sort(samples, axis=1)
    found = [
        bootstrap.read(row, float(p), point)
        for row, p, point in zip(ordered, levels, estimates, strict=True)
    ]
    low = np.array([interval.low for interval in found])
    high = np.array([interval.high for interval in found])
    error = np.array([interval.error for interval in found])
    spread = samples.std(axis=1)
    moving = spread > 1e-12 * np.abs(estimates).max(initial=0)
    half = np.zeros(len(estimates))
    if moving.any():
        away = np.abs(samples[moving] - estimates[moving, None]) / spread[moving, None]
        q = np.quantile(away.max(axis=0), level)
        df, widen = bootstrap.freedom(variances[moving], runs)
        half[moving] = spread[moving] * widen * scipy.stats.t.isf(scipy.stats.norm.sf(q), df)
    # Where the distribution is skew, the pointwise limits may lie outside.
    return np.stack(
        [low, high, error, np.minimum(estimates - half, low), np.maximum(estimates + half, high)]
    )
