"""How often each algorithm takes each rank."""

import numpy as np
import pandas as pd

from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.bootstrap import NONE, Array, Draws
from offrl.statistics.frames import complete_cells
from offrl.statistics.metrics import canonical, task_means
from offrl.statistics.resampling import DEFAULT_REPS, Resampling


def ranks(table: ScoreTable, *, resampling: Resampling = Resampling()) -> pd.DataFrame:
    """How often each algorithm takes each rank, 1 the best, over resamples and data sets.

    In every resample the algorithms are ranked on each data set by their mean over runs, ties
    sharing their ranks (Agarwal et al. 2021, appendix A.3, over their bootstrap). Columns:
    algorithm; mean_rank, the mean over data sets of the ranks of the scores themselves; ci_low and
    ci_high, a percentile interval of it; mc_error; rank_1, rank_2, ...,
    probabilities that sum to 1. Every cell needs a run; every interval two.

    Args:
        table: the scores.
        resampling: 10,000 resamples by default, by offrl's own engine.
    """
    reps, seed = resampling.reps or DEFAULT_REPS, resampling.seed
    cells = complete_cells(table)
    names = sorted(cells, key=lambda a: [tuple(c) for c in canonical(list(cells[a].values()))])
    columns = ["algorithm", "mean_rank", "ci_low", "ci_high", "mc_error"]
    columns += [f"rank_{k + 1}" for k in range(len(names))]
    if not names:
        return pd.DataFrame(columns=columns)
    # Data sets in an order of their scores, not of their names.
    tasks = sorted(
        table.datasets, key=lambda d: [(len(cells[a][d]), *sorted(cells[a][d])) for a in names]
    )
    scores = [[np.sort(cells[name][task]) for task in tasks] for name in names]
    point = _ranked(np.array([[cell.mean() for cell in row] for row in scores])[:, :, None])[0]
    means = np.empty((len(names), reps))
    shares = np.zeros((len(names), len(names)))
    size = bootstrap.block_size(max(sum(map(len, row)) for row in scores))
    draws = [
        Draws([len(cell) for cell in row], seed, f"ranks {k}", size).blocks(0, reps)
        for k, row in enumerate(scores)
    ]
    for blocks in zip(*draws, strict=True):
        resampled = [task_means(cell, c) for cell, (_, c) in zip(scores, blocks, strict=True)]
        rank, share = _ranked(np.stack(resampled))
        means[:, blocks[0][0]] = rank.mean(axis=1)
        shares += share
    shares /= reps * len(tasks)
    rows = []
    single = min(len(cell) for row in scores for cell in row) < 2
    p = (1 - resampling.level) / 2
    for k, name in enumerate(names):
        estimate = float(point[k].mean())
        ci = NONE if single else bootstrap.read(np.sort(means[k]), p, estimate)
        rows.append((name, estimate, ci.low, ci.high, ci.error, *shares[k]))
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.sort_values(["mean_rank", "algorithm"], ignore_index=True)
    frame.attrs["level"] = resampling.level
    return frame


def _ranked(means: Array) -> tuple[Array, Array]:
    """Ranks of algorithms on each task, 1 the best, from means (A, T, b); and how often each.

    Ties share the mean of their ranks, and count as each of them in equal parts: ranks (A, T, b),
    counts (A, A) of algorithm by rank.
    """
    size = len(means)
    # Means that agree in 40 bits, up to the order of summation, are tied.
    mantissa, exponent = np.frexp(means)
    rounded = np.ldexp(np.round(mantissa * 2**40), exponent)
    above = np.stack([(rounded > row).sum(axis=0) for row in rounded])
    tied = np.stack([(rounded == row).sum(axis=0) for row in rounded])
    counts = np.zeros((size, size))
    for k in range(size):
        for number in range(1, size + 1):
            at = above[k][tied[k] == number]
            better = np.bincount(at, minlength=size)
            for extra in range(number):
                counts[k, extra:] += better[: size - extra] / number
    return above + (tied + 1) / 2, counts
