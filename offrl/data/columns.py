"""What a loader reads: checked columns, a row per transition."""

import hashlib
import math
from collections.abc import Callable
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


Empty = Callable[[tuple[int, ...], Any], NDArray[Any]]  # of a shape and a dtype
FLAGS = ("terminations", "truncations")
BLOCK = 2**22  # numbers looked at together: a mask of all would cost a quarter of a column
ROWS = 2**16  # moved together
LONG = 32  # neighbouring rows that are quicker to copy together


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
    Discrete actions are int64 with one axis, from 0. A row with either flag ends an episode, and
    the last row has one. A loader says in `notes` which rows it dropped or changed and why, and in
    `source` what there was before, where that differs.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32] | NDArray[np.int64]
    rewards: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    notes: list[str] = field(default_factory=list)
    source: Totals | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The six columns by name."""
        return {name: getattr(self, name) for name in NAMES}

    def digest(self) -> str:
        """The digest of the columns: one SHA-256 over the kind, shape and numbers of all six.

        It is what cards of made sets hold; `Dataset.checksum`, which runs hold, is another value.
        """
        found = hashlib.sha256()
        for values in self.arrays().values():
            found.update(f"{values.dtype.str}{values.shape}".encode())
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()


def column(
    values: Any,
    where: Path,
    key: str,
    rows: int,
    axes: int,
    empty: Empty = np.empty,
    flat: bool = False,
) -> NDArray[np.float32]:
    """One column of a file as float32, checked.

    Args:
        values: as read, or an array of an open HDF5 file, which is read in blocks of rows.
        where: the file, for messages.
        key: the column's name in the file, for messages.
        rows: the length that all columns of the file have.
        axes: 2 for vectors per row, 1 for numbers per row; a column (rows, 1) counts as either.
        empty: makes the array of a column that is read here; see `Room`.
        flat: whether arrays per row, such as images, are flattened to vectors.

    Raises InputError for another shape, for text, and for the first NaN or infinity.
    """
    given = values if _is_in_file(values) else np.asarray(values)
    shape = given.shape or ()
    if given.dtype.kind not in "fiub":
        raise InputError(f"{where}: {key}: expected numbers, found {given.dtype}")
    if rows == 0:
        raise InputError(f"{where}: {key}: no rows; expected at least one transition")
    if not shape or shape[0] != rows:
        raise InputError(
            f"{where}: {key}: {shape[0] if shape else 'no'} rows, but the first column has "
            f"{rows}; all columns need the same length, so fetch or write the file again"
        )
    form = shape
    if axes == 1 and shape == (rows, 1):
        form = (rows,)
    elif axes == 2 and (len(shape) == 1 or flat):
        form = (rows, math.prod(shape[1:]))
    if len(form) != axes or 0 in form:
        expected = "(rows,)" if axes == 1 else "(rows, dimensions)"
        raise InputError(f"{where}: {key}: shape {shape}, expected {expected}")
    with np.errstate(over="ignore"):  # float64 beyond float32 turns to infinity: caught below
        if isinstance(given, np.ndarray):
            result = np.ascontiguousarray(given.reshape(form), dtype=np.float32)
            _check_finite(result, given, where, key)
            return result
        result = empty(form, np.float32)
        if given.dtype == np.float32:
            given.read_direct(result.reshape(shape))
            _check_finite(result, result, where, key)
            return result
        chunk = given.chunks[0] if given.chunks else 1  # each is unpacked once
        block = max(1, BLOCK // result[0].size // chunk) * chunk
        for first in range(0, rows, block):
            part = given[first : first + block]
            result[first : first + block] = part.reshape(-1, *form[1:])
            _check_finite(result[first : first + block], part, where, key, first)
    return result


def _is_in_file(values: Any) -> bool:
    """Whether an array is one of an open HDF5 file, of which nothing is read yet."""
    return hasattr(values, "chunks") and hasattr(values, "file")


def moved(values: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[Any]:
    """The rows that are kept, moved to the front in place: a copy would be a second column."""
    if kept.all():
        return values
    rows = np.flatnonzero(kept)
    return gathered(values, rows, values[: len(rows)])


def gathered(values: NDArray[Any], rows: NDArray[np.int64], into: NDArray[Any]) -> NDArray[Any]:
    """`into`, filled with rows of values: neighbours together, as most rows of episodes are.

    It may be the front of the values where no row comes before its new place.
    """
    firsts = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1])
    if len(firsts) > len(rows) // LONG:
        firsts = np.arange(0, len(rows), ROWS)
        for first in firsts:
            into[first : first + ROWS] = values[rows[first : first + ROWS]]
        return into
    for first, end in zip(firsts, [*firsts[1:], len(rows)], strict=True):
        into[first:end] = values[rows[first] : rows[first] + end - first]
    return into


def spaced(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of the numbers below `count`, at equal distances, the ends among them."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)


def moments(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation of each dimension of values (N, dimensions).

    To the last bit those of numpy in float64, which takes memory for all values at once.
    """
    if values.shape[1] == 1:  # whose sums numpy makes in another order
        return values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    mean = _summed(values, lambda block: block.astype(np.float64)) / len(values)
    squares = _summed(values, lambda block: np.square(block - mean))
    return mean, np.sqrt(squares / len(values))


def _summed(
    values: NDArray[Any], of: Callable[[NDArray[Any]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The sum over all rows, each added to the sum of those before it, of a function of blocks."""
    total, rows = np.zeros(values.shape[1]), max(1, BLOCK // 8 // values.shape[1])
    for first in range(0, len(values), rows):
        total = np.concatenate([total[None], of(values[first : first + rows])]).sum(0)
    return total


def _check_finite(
    values: NDArray[Any], given: NDArray[Any], where: Path, key: str, before: int = 0
) -> None:
    """Raises InputError for the first NaN or infinity among numbers, shown as it was given.

    `before` are the rows of the column that precede these.
    """
    rows = max(1, BLOCK // values[0].size)
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        if not np.isfinite(block).all():
            row = start + int(np.argwhere(~np.isfinite(block.reshape(len(block), -1)))[0, 0])
            bad = np.ravel(given[row])[~np.isfinite(np.ravel(values[row]))]
            raise InputError(
                f"{where}: {key}: {bad[0]} in row {before + row} (counted from 0); expected finite "
                f"float32 numbers, so repair or leave out that episode"
            )


def check_columns(columns: Any, where: Path, count: int | None = None) -> None:
    """Raises InputError where what a loader returned is not as `Columns` says.

    Args:
        columns: of any loader, one of a user's own too; its arrays may be larger than the memory.
        where: the file or folder that was read, for messages.
        count: of discrete actions; None where they are continuous.
    """
    if not isinstance(columns, Columns):
        raise InputError(
            f"{where}: its loader returned {type(columns).__name__}, expected offrl.data.Columns; "
            "correct the loader"
        )
    arrays = columns.arrays()
    rows = len(arrays["rewards"]) if np.ndim(arrays["rewards"]) else 0
    for name, values in arrays.items():
        choices = count is not None and name == "actions"
        dtype = np.dtype(np.bool_ if name in FLAGS else np.int64 if choices else np.float32)
        axes = 1 if choices or name in (*FLAGS, "rewards") else 2
        if not isinstance(values, np.ndarray) or values.dtype != dtype:
            kind = getattr(values, "dtype", type(values).__name__)
            raise _wrong(where, name, f"{kind}, expected an array of {dtype}")
        if rows == 0 or values.ndim != axes or len(values) != rows or 0 in values.shape:
            form = f"({rows or 'rows'},{' dimensions' if axes == 2 else ''}) by the rewards"
            raise _wrong(where, name, f"shape {values.shape}, expected {form}")
        if count is not None and name == "actions":
            _check_choices(values, count, where, name)
        elif name not in FLAGS:
            _check_finite(values, values, where, name)
    if columns.next_observations.shape != columns.observations.shape:
        shapes = columns.next_observations.shape, columns.observations.shape
        raise _wrong(
            where, "next_observations", "shape {}, but observations have {}".format(*shapes)
        )
    if not (columns.terminations[-1] or columns.truncations[-1]):
        raise _wrong(where, "truncations", "the last row ends no episode, expected a flag in it")
    if not (isinstance(columns.notes, list) and all(isinstance(n, str) for n in columns.notes)):
        raise _wrong(where, "notes", f"{columns.notes!r:.60}, expected a list of sentences")
    if not isinstance(columns.source, Totals | None):
        raise _wrong(where, "source", f"{columns.source!r:.60}, expected offrl.data.Totals or None")


def _wrong(where: Path, name: str, what: str) -> InputError:
    return InputError(
        f"{where}: what its loader returned is not right: {name}: {what}; correct the loader "
        "(offrl.data has `column`, `actions` and `flags` for it)"
    )


def actions(
    values: Any,
    where: Path,
    key: str,
    rows: int,
    count: int | None = None,
    empty: Empty = np.empty,
) -> NDArray[np.float32] | NDArray[np.int64]:
    """The column of actions, checked as `column` does.

    Args:
        values: as read, or an array of an open HDF5 file.
        where: the file, for messages.
        key: the column's name in the file, for messages.
        rows: the length that all columns of the file have.
        count: of discrete actions, as the card has it (`Card.action_count`).
        empty: makes the array of a column that is read here; see `Room`.

    Returns float32 (rows, dimensions), or int64 (rows,) where there is a count.

    Raises InputError for integers without a count, which are choices among several and not
    quantities, and for an action that is none of the choices.
    """
    if count is not None:
        return _choices(np.asarray(values), where, key, rows, count)
    given = values if _is_in_file(values) else np.asarray(values)
    if given.dtype.kind in "iub":
        raise InputError(
            f"{where}: {key} are {given.dtype}, so discrete, and its card does not say how many "
            f"there are; give a card with actions.count (from_episodes: discrete), or write them "
            f"as floats if they are quantities"
        )
    return column(given, where, key, rows, 2, empty)


def _choices(
    given: NDArray[Any], where: Path, key: str, rows: int, count: int
) -> NDArray[np.int64]:
    """Discrete actions as int64 (rows,)."""
    if given.dtype.kind not in "fiub":
        raise InputError(f"{where}: {key}: expected whole numbers, found {given.dtype}")
    if given.shape == (rows, 1):
        given = given[:, 0]
    if rows == 0 or given.shape != (rows,):
        raise InputError(
            f"{where}: {key}: shape {given.shape}, expected ({rows or 'rows'},): one of the card's "
            f"{count} discrete actions a row; several that are taken together are one choice among "
            f"all combinations"
        )
    _check_choices(given, count, where, key)
    return np.ascontiguousarray(given, dtype=np.int64)


def _check_choices(values: NDArray[Any], count: int, where: Path, key: str) -> None:
    """Raises InputError for the first of the numbers (rows,) that is no action."""
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        odd = ~((block >= 0) & (block < count))
        if block.dtype.kind == "f":
            odd |= block != np.floor(block)
        if odd.any():
            row = start + int(np.argmax(odd))
            raise InputError(
                f"{where}: {key}: {values[row]} in row {row} (counted from 0); the card has "
                f"{count} discrete actions, so expected a whole number from 0 to {count - 1}"
            )


def flags(values: ArrayLike, where: Path, key: str, rows: int) -> NDArray[np.bool_]:
    """One column of flags as bool. Raises InputError for a value other than 0 and 1."""
    numbers = column(values, where, key, rows, 1)
    odd = (numbers != 0) & (numbers != 1)
    if odd.any():
        row = int(np.argmax(odd))
        raise InputError(f"{where}: {key}: {numbers[row]} in row {row}; expected 0 or 1")
    return np.asarray(numbers != 0)


def cut_off(
    ends: NDArray[np.bool_],
    terminations: NDArray[np.bool_],
    truncations: NDArray[np.bool_],
    notes: list[str],
) -> NDArray[np.bool_]:
    """Truncations, with one where an episode ends with no flag, of which a note has the number."""
    unflagged = ends & ~(terminations | truncations)
    if count := int(unflagged.sum()):
        notes.append(f"{count} episodes end with no flag: marked as truncated")
    return truncations | unflagged


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
