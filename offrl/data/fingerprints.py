"""Numbers that are equal where rows or episodes are, and else differ but for one pair in 2^64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.dataset import Dataset

Array = NDArray[Any]
Prints = NDArray[np.uint64]

BLOCK = 2**18  # numbers of a block of rows
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
HALF = np.uint64(32)


def row_prints(*columns: Array) -> Prints:
    """A number for each row of columns (N,) or (N, dimensions); 0 and -0 are equal."""
    rows = len(columns[0])
    width = sum(column[:1].size for column in columns)
    prints = np.zeros(rows, np.uint64)
    block = max(1, BLOCK // max(1, width))
    places = _mixed(np.arange(width, dtype=np.uint64))
    for start in range(0, rows, block):
        part = slice(start, start + block)
        first = 0
        for column in columns:
            bits = _bits(column[part])
            end = first + bits.shape[1]
            prints[part] += _mixed(bits ^ places[first:end]).sum(axis=1, dtype=np.uint64)
            first = end
    return prints


def _bits(values: Array) -> Prints:
    """Numbers (N,) or (N, dimensions) as whole ones (N, dimensions)."""
    if values.dtype.kind == "f":
        exact = values.astype(np.float64) + 0.0  # without a sign of zero
        bits = exact.view(np.uint64)
    else:
        bits = values.astype(np.int64).view(np.uint64)
    return bits.reshape(len(values), -1)


def _mixed(numbers: Prints) -> Prints:
    """Numbers whose every bit depends on all lower and upper bits (Steele et al. 2014)."""
    mixed = (numbers + ODD) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> HALF
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> HALF)


def distinct(prints: Prints) -> int:
    """How many different ones there are of some numbers."""
    ordered = np.sort(prints)  # numpy's unique makes a table, which takes longer
    return min(1, len(ordered)) + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def episode_prints(dataset: Dataset) -> Prints:
    """A number for each episode, of its observations, actions and rewards in their order."""
    rows = row_prints(dataset.observations, dataset.actions, dataset.rewards)
    starts = dataset.episode_starts
    place = np.arange(len(rows), dtype=np.uint64)
    place -= np.repeat(starts.astype(np.uint64), dataset.episode_lengths)
    return np.add.reduceat(_mixed(rows ^ _mixed(place)), starts)
