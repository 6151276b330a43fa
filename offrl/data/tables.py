"""Tables of logged rows, from CSV, Parquet or pandas, in blocks: never whole in memory as text.

Cells are numbers, texts, truth values or dates; which of these a column of a CSV file holds is seen
in its first block. Row numbers count from 0, below the names of the columns.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offrl.data.foreign import check_ordinary, disk_usage, reading
from offrl.data.unfolded import check_table
from offrl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet")
SEPARATORS = (",", ";", "\t")
BLOCK = 2**16  # rows of a table that are looked at together
BLOCK_BYTES = 2**20  # of a CSV file, of which some 30 are read ahead; no line is longer
HEADER = 2**20  # bytes in which the names of a CSV file's columns stand
EXACT = 2**53  # whole numbers beyond are no float64
ADVICE = "correct it, or write the table again, in UTF-8"
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d{1,20},\d{1,20}\s*")


class Cells(NamedTuple):
    """What the cells of a column of numbers should be."""

    form: str  # such as "a number"
    advice: str  # where another is the first of its column


class Table:
    """A table of rows, of which blocks are read.

    Attributes:
        where: the file, for messages.
        names: of the columns, in their order.
        most: rows that it may have.
    """

    def __init__(
        self, where: str, names: list[str], most: int, blocks: Callable[..., Iterator[Any]]
    ):
        self.where, self.names, self.most, self._blocks = where, names, most, blocks

    def blocks(self, numbers: Mapping[str, Cells], texts: Sequence[str]) -> Iterator[Any]:
        """Record batches of Arrow with the columns `numbers` and `texts`, in blocks of rows.

        Of `numbers`, which may be dates, it says what a cell should be, for messages. A column
        among `texts` of a CSV file is read as text, so that 007 is not 7.
        """
        blocks = self._blocks(numbers, texts)
        while True:
            with reading(self.where, "a table", ADVICE):
                block = next(blocks, None)
            if block is None:
                return
            yield block


def open_table(path: Path) -> Table:
    """The table in a .csv, .tsv or .parquet file.

    Raises InputError where it is none, has a name twice, or would take more memory than is free.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: expected a table in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a table in {', '.join(SUFFIXES)}")
    check_ordinary(path)
    with reading(path, "a table", ADVICE):
        if path.suffix.lower() == ".parquet":
            return _parquet_table(path)
        return _csv_table(path)


def frame_table(frame: "pd.DataFrame") -> Table:
    """A table of pandas. Raises InputError for columns without plain, distinct names."""
    names = _distinct("the frame", [str(name) for name in frame.columns])
    place_of = {name: place for place, name in enumerate(names)}

    def blocks(numbers: Mapping[str, Cells], texts: Sequence[str]) -> Iterator[Any]:
        import pyarrow

        places = [place_of[name] for name in (*numbers, *texts)]
        for first in range(0, len(frame), BLOCK):
            part = frame.iloc[first : first + BLOCK, places]
            part.columns = [*numbers, *texts]
            yield pyarrow.RecordBatch.from_pandas(part, preserve_index=False)

    return Table("the frame", names, len(frame), blocks)


def _distinct(where: str, names: list[str]) -> list[str]:
    """The names. Raises InputError for two that are equal."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"{where}: has several columns {twice[0]!r:.80}; rename all but one")
    return names


def _parquet_table(path: Path) -> Table:
    from pyarrow import parquet

    check_table(path, disk_usage(path), categories=True)
    with parquet.ParquetFile(path) as file:
        names = _distinct(str(path), list(file.schema_arrow.names))
        most = file.metadata.num_rows

    def blocks(numbers: Mapping[str, Cells], texts: Sequence[str]) -> Iterator[Any]:
        with parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):  # together they would be read ahead
                yield from file.iter_batches(BLOCK, [group], [*numbers, *texts], use_threads=False)

    return Table(str(path), names, most, blocks)


def _csv_table(path: Path) -> Table:
    most = 1
    with path.open("rb") as file:
        header = file.read(HEADER).split(b"\n", 1)[0]
        file.seek(0)
        while part := file.read(BLOCK_BYTES):
            # A line's end of two bytes that two parts share counts twice: a few rows too many.
            most += part.count(b"\n") + part.count(b"\r") - part.count(b"\r\n")
    counts = {separator: header.count(separator.encode()) for separator in SEPARATORS}
    separator = max(counts, key=lambda s: counts[s])
    with _csv_reader(path, separator, None, {}) as reader:
        schema, first = reader.schema, next(reader, None)
    names = _distinct(str(path), list(schema.names))

    def blocks(numbers: Mapping[str, Cells], texts: Sequence[str]) -> Iterator[Any]:
        import pyarrow
        from pyarrow import types

        kinds = {name: schema.field(name).type for name in numbers}
        for name, kind in kinds.items():  # in the first block
            exact = False
            if first is not None and types.is_integer(kind):
                exact = _beyond_floats(first.column(name))
            if not (exact or types.is_boolean(kind) or types.is_temporal(kind)):
                kinds[name] = pyarrow.float64()
        kinds |= dict.fromkeys(texts, pyarrow.string())
        try:
            with _csv_reader(path, separator, list(kinds), kinds) as reader:
                yield from reader
        except pyarrow.ArrowInvalid as error:
            raise _culprit(path, separator, kinds, numbers) or error from None

    return Table(str(path), names, most, blocks)


def _beyond_floats(cells: Any) -> bool:
    """Whether some of these whole numbers are larger than float64 tells apart."""
    from pyarrow import compute

    ends = compute.min_max(cells).as_py().values()
    return any(end is not None and abs(end) > EXACT for end in ends)


def _csv_reader(
    path: Path, separator: str, names: list[str] | None, kinds: Mapping[str, Any]
) -> Any:
    from pyarrow import csv

    return csv.open_csv(
        path,
        csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        csv.ConvertOptions(
            include_columns=names or [], column_types=kinds, strings_can_be_null=True
        ),
    )


def _culprit(
    path: Path, separator: str, kinds: Mapping[str, Any], numbers: Mapping[str, Cells]
) -> InputError | None:
    """An error that names the first cell which is not of its column's type; None for no such."""
    import pyarrow

    first = 0
    with _csv_reader(path, separator, list(kinds), dict.fromkeys(kinds, pyarrow.string())) as texts:
        for block in texts:
            for name, kind in kinds.items():
                for row, cell in enumerate(_failing(block.column(name), kind)):
                    if cell is not None:
                        form, advice = numbers[name]
                        if first + row or kind != pyarrow.float64():
                            form = f"{_called(kind, form)}, as in the rows above it"
                            advice = "correct that cell"
                        return InputError(
                            f"{path}: {name}: {cell!r:.60} in row {first + row} (counted from 0); "
                            f"{_expected(cell, Cells(form, advice))}"
                        )
            first += block.num_rows
    return None


def _failing(cells: Any, kind: Any) -> Iterator[str | None]:
    """Each cell that is not of a type, and None for each that is."""
    import pyarrow

    try:
        cells.cast(kind)
        return
    except pyarrow.ArrowInvalid:
        pass
    for cell in cells:
        try:
            cell.cast(kind)
            yield None
        except pyarrow.ArrowInvalid:
            yield cell.as_py()


def _called(kind: Any, form: str) -> str:
    """What the cells above are, by their type; a column of numbers is of this form."""
    from pyarrow import types

    if types.is_temporal(kind):
        return "a date such as 2020-01-31"
    return "true or false" if types.is_boolean(kind) else form


def _expected(cell: Any, cells: Cells) -> str:
    """What a cell should be, and what to do."""
    if isinstance(cell, str) and DECIMAL_COMMA.fullmatch(cell):
        return (
            f"expected a number such as {cell.strip().replace(',', '.')}, with a point where this "
            "one has a decimal comma; write the table with points"
        )
    return f"expected {cells.form}; {cells.advice}"


def numbers_of(
    column: Any, where: str, name: str, first: int, expected: Cells
) -> NDArray[np.float64]:
    """A column of Arrow as numbers, NaN where a cell is empty; truth values are 0 and 1.

    Args:
        column: a block of it.
        where: the table, for messages.
        name: of the column.
        first: the row with which the block begins.
        expected: what a cell should be.

    Raises InputError, with the row, for a cell that is no number.
    """
    cells = column
    import pyarrow
    from pyarrow import types

    kind = cells.type
    if types.is_dictionary(kind):
        cells = cells.dictionary_decode()
        kind = cells.type
    if not (
        types.is_floating(kind)
        or types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    ):
        found = next((cell.as_py() for cell in cells if cell.is_valid), kind)
        shown = repr(found) if found is not kind else str(kind)
        raise InputError(
            f"{where}: {name}: {shown:.60} near row {first} (counted from 0); "
            f"{_expected(found, expected)}"
        )
    if types.is_boolean(kind):
        cells = cells.cast(pyarrow.int8())
    return np.asarray(cells.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False))


def moments_of(cells: Any, where: str, name: str, first: int, expected: Cells) -> NDArray[Any]:
    """Cells of Arrow as numbers that grow with time: float64, or int64.

    The latter are whole numbers, and the nanoseconds of dates.

    Raises InputError, with the row, for a cell that is empty or neither number nor date.
    """
    import pyarrow
    from pyarrow import types

    if types.is_temporal(cells.type) and not types.is_time(cells.type):
        if not cells.null_count:
            moments = cells
            if not types.is_duration(cells.type):
                moments = cells.cast(pyarrow.timestamp("ns", getattr(cells.type, "tz", None)))
            return np.asarray(moments.cast(pyarrow.int64()).to_numpy(zero_copy_only=False))
        values = np.where(cells.is_null().to_numpy(zero_copy_only=False), np.nan, 0.0)
    elif types.is_signed_integer(cells.type) and not cells.null_count:
        return np.asarray(cells.cast(pyarrow.int64()).to_numpy(zero_copy_only=False))
    else:
        values = numbers_of(cells, where, name, first, expected)
    if np.isfinite(values).all():
        return values
    row = int(np.argmin(np.isfinite(values)))
    raise InputError(
        f"{where}: {name}: {'empty' if np.isnan(values[row]) else values[row]} in row "
        f"{first + row} (counted from 0); every row needs its time"
    )


class Levels:
    """The distinct values of a column, numbered as they appear."""

    def __init__(self, where: str, name: str):
        self.where, self.name = where, name
        self.codes: dict[Any, int] = {}

    def of(self, cells: Any, first: int) -> NDArray[np.int64]:
        """The number of each cell's value. Raises InputError, with the row, for an empty cell."""
        import pyarrow
        from pyarrow import types

        plain = cells.dictionary_decode() if types.is_dictionary(cells.type) else cells
        if types.is_floating(plain.type):
            plain = pyarrow.array(plain.to_numpy(zero_copy_only=False), from_pandas=True)
        encoded = plain.dictionary_encode()
        if encoded.null_count:
            row = int(np.argmax(encoded.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(
                f"{self.where}: {self.name}: empty in row {first + row} (counted from 0); every "
                "row needs one, so complete it or leave the row out"
            )
        values = encoded.dictionary.to_pylist()
        codes = np.array([self.codes.setdefault(v, len(self.codes)) for v in values], np.int64)
        return np.asarray(codes[encoded.indices.to_numpy()], dtype=np.int64)

    @property
    def values(self) -> list[Any]:
        """The values by number."""
        return list(self.codes)
