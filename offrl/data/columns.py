"""What a loader reads: checked columns, a row per transition."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offrl.errors import InputError

NAMES = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminations",
    "truncations",
)


@dataclass(frozen=True)
class Totals:
    """What a source holds, before a view leaves rows out: what a card's `expected` is about."""

    transitions: int
    episodes: int
    mean_return: float


@dataclass
class Columns:
    """What a loader reads: one row per transition, whole episodes one after another.

    The flags are bool, the rest float32; observations, actions and next_observations have two axes.
    A row with either flag ends an episode, and the last row has one. A loader says in `notes` which
    rows it dropped or changed and why, and in `source` what there was before, where that differs.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    notes: list[str] = field(default_factory=list)
    source: Totals | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The six columns by name."""
        return {name: getattr(self, name) for name in NAMES}


def column(values: ArrayLike, where: Path, key: str, rows: int, axes: int) -> NDArray[np.float32]:
    """One column of a file as float32, checked.

    Args:
        values: as read.
        where: the file, for messages.
        key: the column's name in the file, for messages.
        rows: the length that all columns of the file have.
        axes: 2 for vectors per row, 1 for numbers per row; a column (rows, 1) counts as either.

    Raises InputError for another shape, for text, and for the first NaN or infinity.
    """
    given = np.asarray(values)
    if given.dtype.kind not in "fiub":
        raise InputError(f"{where}: {key}: expected numbers, found {given.dtype}")
    if rows == 0:
        raise InputError(f"{where}: {key}: no rows; expected at least one transition")
    if given.ndim == 0 or len(given) != rows:
        raise InputError(
            f"{where}: {key}: {len(given) if given.ndim else 'no'} rows, but the first column has "
            f"{rows}; all columns need the same length, so fetch or write the file again"
        )
    if axes == 1 and given.shape == (rows, 1):
        given = given[:, 0]
    elif axes == 2 and given.ndim == 1:
        given = given[:, None]
    if given.ndim != axes or 0 in given.shape:
        expected = "(rows,)" if axes == 1 else "(rows, dimensions)"
        raise InputError(f"{where}: {key}: shape {given.shape}, expected {expected}")
    with np.errstate(over="ignore"):  # float64 beyond float32 turns to infinity: caught below
        result = np.ascontiguousarray(given, dtype=np.float32)
    for start in range(0, rows, 65536):  # in blocks: a mask of the whole would cost a quarter of it
        block = result[start : start + 65536]
        if not np.isfinite(block).all():
            row = start + int(np.argwhere(~np.isfinite(block.reshape(len(block), -1)))[0, 0])
            bad = given[row][~np.isfinite(np.asarray(result[row]))] if axes == 2 else given[row]
            raise InputError(
                f"{where}: {key}: {np.ravel(bad)[0]} in row {row} (counted from 0); expected "
                f"finite float32 numbers, so repair or leave out that episode"
            )
    return result


def actions(values: ArrayLike, where: Path, key: str, rows: int) -> NDArray[np.float32]:
    """The column of actions, float32 (rows, dimensions), checked as `column` does.

    Raises InputError for integers, which are choices among several and not quantities.
    """
    given = np.asarray(values)
    if given.dtype.kind in "iub":
        raise InputError(
            f"{where}: {key} are {given.dtype}; offrl reads continuous actions only, not discrete "
            f"ones, so write them as floats if they are quantities"
        )
    return column(given, where, key, rows, 2)


def flags(values: ArrayLike, where: Path, key: str, rows: int) -> NDArray[np.bool_]:
    """One column of flags as bool. Raises InputError for a value other than 0 and 1."""
    numbers = column(values, where, key, rows, 1)
    odd = (numbers != 0) & (numbers != 1)
    if odd.any():
        row = int(np.argmax(odd))
        raise InputError(f"{where}: {key}: {numbers[row]} in row {row}; expected 0 or 1")
    return np.asarray(numbers != 0)


def episodes(
    terminations: NDArray[np.bool_], truncations: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row and the length of each episode; the last row has to end one."""
    ends = np.flatnonzero(terminations | truncations)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return starts, ends + 1 - starts


def totals(
    rewards: NDArray[np.float32],
    terminations: NDArray[np.bool_],
    truncations: NDArray[np.bool_],
) -> Totals:
    """Transitions, episodes and mean return of rows of which the last ends an episode."""
    count = len(episodes(terminations, truncations)[0])
    return Totals(len(rewards), count, float(np.sum(rewards, dtype=np.float64)) / count)
