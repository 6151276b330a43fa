"""Reads and writes transitions as a Parquet table: a row per transition, a column per number.

The columns are `observation_0`, `observation_1`, ..., `action_0`, ..., `reward`,
`next_observation_0`, ... as float32, then `termination` and `truncation` as bool; other columns are
left alone. Discrete actions are one column `action` of whole numbers from 0; how many there are and
what they are called stands in the table's metadata, as JSON under `offrl.actions`, or on a card.
Rows of an episode follow one another, and one with a flag ends it.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data import (
    Card,
    Choices,
    Columns,
    actions,
    check_table,
    choices_text,
    column,
    disk_usage,
    flags,
    read_choices,
)
from offrl.errors import InputError

SUFFIXES = (".parquet",)
WRITES = (".parquet",)
VIEWS = ("transitions",)
VERSION = 1  # raised whenever the same file would be read otherwise
GROUPS = ("observation", "action", "next_observation")
SINGLE = ("reward", "termination", "truncation")
BLOCK = 2**16  # rows that are read or written together
KEY = "offrl.actions"  # of the metadata: how many discrete actions there are, and their names


def lacking(path: Path) -> list[str]:
    """The columns that a table lacks."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return _lacking(file.schema_arrow.names)


def choices(path: Path) -> Choices | None:
    """The discrete actions by the metadata of a table that `write` wrote."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        text = (file.schema_arrow.metadata or {}).get(KEY.encode())
    return None if text is None else read_choices(text, f"{path}: metadata {KEY}")


def read(path: Path, card: Card) -> Columns:
    """The columns of a table. Raises InputError where it lacks one, or a row says nothing."""
    from pyarrow import parquet

    check_table(path, disk_usage(path))
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if missing := _lacking(names):
            raise InputError(
                f"{path}: lacks {', '.join(missing)}; found {', '.join(names[:8])}; for a table of "
                "your own: offrl data import"
            )
        columns = {group: _numbered(group, names) for group in GROUPS}
        notes = _after_gaps(columns, names)
        if "action" in names:
            columns["action"] = ["action"]
        columns |= {name: [name] for name in SINGLE}
        rows = file.metadata.num_rows
        raw: dict[str, NDArray[Any]] = {
            name: np.empty((rows, len(parts)), np.int64 if parts == ["action"] else np.float32)
            for name, parts in columns.items()
        }
        first = 0
        used = [name for parts in columns.values() for name in parts]
        groups = range(file.num_row_groups)  # one by one: they would be read ahead together
        for block in itertools.chain.from_iterable(
            file.iter_batches(BLOCK, [group], used, use_threads=False) for group in groups
        ):
            for name, parts in columns.items():
                for place, part in enumerate(parts):
                    cells = _cells(block.column(part), path, part, first)
                    raw[name][first : first + block.num_rows, place] = cells
            first += block.num_rows
        if first != rows:
            raise InputError(f"{path}: holds {first:,} rows, but says {rows:,}; write it again")

    def taken(name: str, axes: int) -> NDArray[np.float32]:
        return column(raw.pop(name), path, name, rows, axes)

    return Columns(
        observations=taken("observation", 2),
        actions=actions(raw.pop("action"), path, "action", rows, card.action_count),
        rewards=taken("reward", 1),
        next_observations=taken("next_observation", 2),
        terminations=flags(raw.pop("termination"), path, "termination", rows),
        truncations=flags(raw.pop("truncation"), path, "truncation", rows),
        notes=notes,
    )


def write(path: Path, columns: Columns, card: Card) -> None:
    """Writes rows as a table, uncompressed: so much as it takes on disk, it takes in memory."""
    import pyarrow
    from pyarrow import parquet

    blocks = _blocks(columns)
    first = next(blocks)
    schema = first.schema
    if card.actions is not None:
        schema = schema.with_metadata({KEY: choices_text(card.actions)})
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for block in itertools.chain([first], blocks):
            # A row group; batches would be collected in memory.
            writer.write_table(pyarrow.Table.from_batches([block]))


def _blocks(columns: Columns) -> Iterator[Any]:
    import pyarrow

    arrays = {
        "observation": columns.observations,
        "action": columns.actions,
        "reward": columns.rewards,
        "next_observation": columns.next_observations,
        "termination": columns.terminations,
        "truncation": columns.truncations,
    }
    for first in range(0, len(columns.rewards), BLOCK):
        cells = {}
        for name, values in arrays.items():
            block = np.asarray(values[first : first + BLOCK])
            if block.ndim == 1:
                cells[name] = block
            else:
                cells |= {
                    f"{name}_{k}": np.ascontiguousarray(part) for k, part in enumerate(block.T)
                }
        yield pyarrow.RecordBatch.from_pydict(cells)


def _lacking(names: list[str]) -> list[str]:
    wanted = ["observation_0", "next_observation_0", *SINGLE]
    acting = [] if {"action", "action_0"} & {*names} else ["action_0"]
    return [name for name in wanted if name not in names] + acting


def _after_gaps(columns: dict[str, list[str]], names: list[str]) -> list[str]:
    """One note on the numbered columns that a gap in the numbers leaves out, if there are any."""
    left_out = [
        name
        for group, numbered in columns.items()
        for taken in [{*numbered}]
        for name in names
        if re.fullmatch(rf"{group}_\d+", name) and name not in taken
    ]
    if not left_out:
        return []
    shown = ", ".join(left_out[:8]) + (", ..." if len(left_out) > 8 else "")
    return [f"left out, as the numbers before them have a gap: {shown}"]


def _numbered(group: str, names: list[str]) -> list[str]:
    """The columns of a group as far as they are numbered without a gap."""
    among, found = {*names}, list[str]()
    while (name := f"{group}_{len(found)}") in among:
        found.append(name)
    return found


def _cells(cells: Any, path: Path, name: str, first: int) -> NDArray[Any]:
    """The numbers of a block of a column. Raises InputError for other types and empty cells."""
    from pyarrow import types

    kind = cells.type
    if not (types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)):
        raise InputError(f"{path}: {name}: expected numbers, found {str(kind)[:80]}")
    if cells.null_count:
        row = int(np.argmax(cells.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(f"{path}: {name}: empty in row {first + row} (counted from 0)")
    if name == "action":
        if not types.is_integer(kind):
            raise InputError(f"{path}: {name}: expected whole numbers, found {str(kind)[:80]}")
        return np.asarray(cells.to_numpy(zero_copy_only=False)).astype(np.int64)
    with np.errstate(over="ignore"):  # infinity is found where the columns are checked
        return np.asarray(cells.to_numpy(zero_copy_only=False)).astype(np.float32)
