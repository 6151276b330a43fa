"""What data sets cover: quality and coverage in numbers, and a plane on which they show.

Trajectory quality (TQ) and state-action coverage (SACo) are those of Schweighofer et al. 2022, "A
Dataset Perspective on Offline Reinforcement Learning", arXiv 2111.04714, as their code computes
them (ml-jku/OfflineRL, source/offline_ds_evaluation/evaluator.py): each column of observations and
actions falls into 99 equal bins between its extremes, and pairs of equal bins are one. Differences:

1. Their TQ lies between a random policy and the best policy found online, that of a card between
   its reference returns for 0 and 100.
2. Their bins lie between the extremes of the replay; here between those of the reference, else of
   all sets that stand side by side. What lies beyond falls into a bin outside.
3. Distinct pairs are counted by 64-bit fingerprints, where they estimate the number to 1 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.columns import spaced
from offrl.data.dataset import Dataset
from offrl.data.fingerprints import distinct, episode_prints, row_prints
from offrl.data.transforms import has_action
from offrl.errors import InputError
from offrl.progress import Progress, stage

BINS = 99  # of a column, between 100 edges
SAMPLE = 50_000  # rows of a set by which the plane is laid
NUMBERS = 2**23  # of that sample: the wider the rows, the fewer
COLUMNS = 512  # of observations in which it lies; of more, those at equal distances
CELLS = 64  # of a density, along each axis
BLOCK = 2**20  # numbers of a block of rows

Array = NDArray[Any]


def positive_sided_variance(returns: Array) -> float:
    """The mean of max(G - mean G, 0)^2 over episodes (Hong et al. 2023, arXiv 2306.13085).

    It is large where some episodes are far better than most, which an algorithm can learn from.
    """
    return float(np.mean(np.square(np.maximum(returns - returns.mean(), 0))))


def trajectory_quality(dataset: Dataset) -> float | None:
    """TQ: 0 where episodes return the card's lower reference on average, 1 the upper one.

    None where the card has no references.
    """
    if not dataset.scored:
        return None
    return float(dataset.normalized(dataset.episode_returns.mean())) / 100


@dataclass(frozen=True)
class Coverage:
    """What data sets of one kind of rows cover, side by side.

    Attributes:
        pairs: the number of distinct pairs of binned observations and known actions, of each set.
        saco: the same as a share of the reference's; None without one.
        explained: the share of the variance that the two axes of the plane hold.
        edges: of the cells along both axes, each (CELLS + 1,).
        densities: the share of each set's rows in each cell, (CELLS, CELLS), the first axis first.
        shared: how many episodes of each set stand in each set too, bit by bit.
    """

    pairs: list[int]
    saco: list[float] | None
    explained: float
    edges: tuple[Array, Array]
    densities: list[Array]
    shared: list[list[int]]


def coverage(
    datasets: Sequence[Dataset],
    reference: Dataset | None = None,
    progress: Progress | None = None,
) -> Coverage:
    """The coverage of data sets, a block of rows at a time.

    Args:
        datasets: of one size of observations and one kind of actions; InputError for others.
        reference: the replay of an online policy, whose pairs SACo counts as 1.
        progress: called with what is done and the total.
    """
    every = [*datasets, *([reference] if reference is not None else [])]
    kinds = {(d.observations.shape[1], d.actions.shape[1:], d.action_count) for d in every}
    if len(kinds) != 1:
        names = ", ".join(d.card.id for d in every)
        raise InputError(
            f"{names}: their observations or actions differ in size or kind, so nothing is common "
            f"to them; give data sets of one task"
        )
    low, high = _extremes([reference] if reference is not None else datasets)
    counts = []
    for place, dataset in enumerate(every):
        part = stage(progress, 60 * place // len(every), 60 * (place + 1) // len(every))
        counts.append(_pairs(dataset, low, high, part))
    pairs = counts[: len(datasets)]
    explained, edges, densities = _plane(datasets, stage(progress, 60, 100))
    return Coverage(
        pairs=pairs,
        saco=[number / counts[-1] for number in pairs] if reference is not None else None,
        explained=explained,
        edges=edges,
        densities=densities,
        shared=_shared(datasets),
    )


def _blocks(dataset: Dataset) -> list[slice]:
    rows = max(1, BLOCK // (dataset.observations.shape[1] + 8))
    return [slice(start, start + rows) for start in range(0, len(dataset), rows)]


def _extremes(datasets: Sequence[Dataset]) -> tuple[Array, Array]:
    """The least and the largest number of each column of observations and actions."""
    low = [[*d.observations.min(0), *np.nanmin(_continuous(d.actions), 0)] for d in datasets]
    high = [[*d.observations.max(0), *np.nanmax(_continuous(d.actions), 0)] for d in datasets]
    return np.min(low, 0), np.max(high, 0)


def _continuous(actions: Array) -> Array:
    """Actions with an axis of columns; discrete ones are their own bins."""
    return actions if actions.ndim == 2 else actions[:, None]


def _pairs(dataset: Dataset, low: Array, high: Array, progress: Progress | None) -> int:
    """The number of distinct pairs of binned observations and actions."""
    width = np.where(high > low, (high - low) / BINS, 1)
    discrete = dataset.action_count is not None
    prints = np.empty(len(dataset), np.uint64)
    known = has_action(dataset.actions)
    for part in _blocks(dataset):
        actions = _continuous(dataset.actions[part])
        rows = np.concatenate([dataset.observations[part], actions], axis=1, dtype=np.float64)
        rows[~known[part]] = low  # is left out below
        rows -= low
        rows /= width
        bins = np.floor(rows, out=rows).clip(-1, BINS, out=rows).astype(np.int64)
        if discrete:
            bins[:, -1] = actions[:, 0]
        prints[part] = row_prints(bins)
        if progress is not None:
            progress(min(part.stop, len(dataset)), len(dataset))
    return distinct(prints[known])


def _shared(datasets: Sequence[Dataset]) -> list[list[int]]:
    """How many episodes of each set stand in each set too."""
    if len(datasets) == 1:
        return [[len(datasets[0].episode_lengths)]]
    prints = [episode_prints(dataset) for dataset in datasets]
    return [[int(np.isin(one, other).sum()) for other in prints] for one in prints]


def _plane(
    datasets: Sequence[Dataset], progress: Progress | None
) -> tuple[float, tuple[Array, Array], list[Array]]:
    """The two main directions of the observations of all sets, and each set's density there.

    Columns are scaled to unit variance, each set has the same weight, and the edges of the cells
    hold all but a thousandth of the sampled rows at each side; what lies beyond is in the last.
    """
    columns = spaced(datasets[0].observations.shape[1], COLUMNS)
    every = len(columns) == datasets[0].observations.shape[1]
    samples = []
    for dataset in datasets:
        rows = spaced(len(dataset), min(SAMPLE, NUMBERS // len(columns) // len(datasets)))
        some = dataset.observations[rows] if every else dataset.observations[np.ix_(rows, columns)]
        samples.append(some.astype(np.float64))
    weights = np.concatenate([np.full(len(s), 1 / len(s) / len(samples)) for s in samples])
    union = np.concatenate(samples)
    mean = weights @ union
    scale = np.sqrt(weights @ np.square(union - mean))
    scale[union.min(0) == union.max(0)] = np.inf  # a constant column has no direction
    unit = (union - mean) / scale
    values, vectors = np.linalg.eigh((unit * weights[:, None]).T @ unit)
    axes = np.zeros((unit.shape[1], 2))
    axes[:, : min(2, unit.shape[1])] = vectors[:, ::-1][:, :2]
    # Of the two signs of a direction, the one whose largest part is positive.
    axes *= np.where(axes[np.abs(axes).argmax(0), [0, 1]] < 0, -1, 1)
    ends = np.quantile(unit @ axes, [0.001, 0.999], axis=0)
    ends[:, ends[0] == ends[1]] = [[-0.5], [0.5]]
    first, second = (np.linspace(ends[0, k], ends[1, k], CELLS + 1) for k in range(2))
    densities = []
    for place, dataset in enumerate(datasets):
        cells = np.zeros((CELLS, CELLS))
        for part in _blocks(dataset):
            some = dataset.observations[part] if every else dataset.observations[part][:, columns]
            points = ((some - mean) / scale) @ axes
            points = points.clip([first[0], second[0]], [first[-1], second[-1]])
            cells += np.histogram2d(points[:, 0], points[:, 1], bins=(first, second))[0]
        densities.append(cells / len(dataset))
        if progress is not None:
            progress(place + 1, len(datasets))
    total = values.sum()
    explained = float(values[::-1][:2].sum() / total) if total > 0 else 1.0
    return explained, (first, second), densities
