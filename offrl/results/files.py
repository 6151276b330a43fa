"""Score tables as CSV and Parquet files, and those of other programs."""

import csv
import gzip
import hashlib
import io
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from offrl.data import foreign
from offrl.errors import InputError
from offrl.files import replacing
from offrl.results import formats
from offrl.results.checks import REQUIRED, check_columns, with_labels_of_index
from offrl.results.reading import AS_IT_IS, OURS, Reading, understood
from offrl.results.table import ScoreTable
from offrl.text import from_cell, to_cell

TEXT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
PIPE = "-"  # in place of a file: the standard input
# Some 1.5 GB of memory at most, whatever a file unpacks to; a million rows of twelve columns.
MOST_CELLS = 12_000_000
MOST_TEXT = 2**28  # characters of a CSV file, or bytes of a Parquet file, unpacked
MOST_LINE = 2**24  # characters of a line
SMALLER = "give fewer columns, or the scores that count alone"
SEPARATORS = (",", ";", "\t")
DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+([eE][-+]?[0-9]+)?")


def read_scores(
    source: str | Path | pd.DataFrame | ScoreTable,
    *,
    scale: float = 100.0,
    complete: bool = True,
    reading: Reading = AS_IT_IS,
) -> ScoreTable:
    """The table in a file, a folder of logs or a frame; a ScoreTable is returned as it is.

    Args:
        source: a CSV file (also .tsv, and with .gz), with commas, semicolons or tabs between cells,
            and in the last two cases decimal commas too, which a note says; a Parquet file; "-",
            which is CSV from the standard input; a file or folder of another program that a module
            of `reports/` reads.
        scale: as in `ScoreTable.from_frame`, as is `complete`.
        complete: whether no data set may be missing.
        reading: how the columns of others are to be read; those of `from_frame` need nothing.

    InputError for a file that unpacks to more than MOST_CELLS or MOST_TEXT.
    """
    if isinstance(source, ScoreTable):
        return source
    if isinstance(source, pd.DataFrame):
        return _table_of(source, "scores", scale, complete, reading)
    path = Path(source)
    if str(source) == PIPE:
        frame, notes = _read_pipe()
        where, origin = "standard input", dict[str, Any](source="standard input", rows=len(frame))
        return _table_of(frame, where, scale, complete, reading, notes, origin)
    name = path.name.lower()
    is_table = path.is_file() and name.endswith(SUFFIXES)
    if not is_table and (table := read_logs(path, scale, complete, reading)) is not None:
        return table
    if not path.is_file():
        what = "no file, but something else" if path.exists() else "no such file"
        raise InputError(f"{path}: {what}; expected a score table ({', '.join(SUFFIXES)})")
    if not is_table:
        raise InputError(
            f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}, or one of: "
            f"{'; '.join(formats.known())}"
        )
    if path.stat().st_size > 4 * MOST_TEXT:  # at once: a file may be a hole of any size
        raise InputError(f"{path}: has more than {4 * MOST_TEXT / 2**20:.0f} MiB; {SMALLER}")
    kind, advice = "Parquet", "if it was copied or downloaded, do so again"
    if not name.endswith(".parquet"):
        kind, advice = "CSV in UTF-8", f"save it so; {advice}"
    with foreign.reading(path, kind, advice):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        frame, notes = _read_parquet(path) if kind == "Parquet" else _read_csv(path)
    origin = {"source": str(path), "sha256": digest, "rows": len(frame)}
    return _table_of(frame, str(path), scale, complete, reading, notes, origin)


def read_logs(
    path: Path, scale: float = 100.0, complete: bool = True, reading: Reading = AS_IT_IS
) -> ScoreTable | None:
    """The table of a file or folder of another program that is no table; None where none reads it.

    The arguments are those of `read_scores`.
    """
    if not path.exists():
        return None
    if path.is_file() and path.stat().st_size > MOST_TEXT:
        raise InputError(f"{path}: has more than {MOST_TEXT / 2**20:.0f} MiB; {SMALLER}")
    rows = formats.rows_of_logs(path)
    if rows is None:
        return None
    _check_size(str(path), rows.frame.size)
    origin = {"source": str(path), "rows": len(rows.frame)}
    return _table_of(rows, str(path), scale, complete, reading, origin=origin)


def _table_of(
    rows: pd.DataFrame | formats.Rows,
    where: str,
    scale: float,
    complete: bool,
    reading: Reading,
    notes: list[str] | None = None,
    origin: dict[str, Any] | None = None,
) -> ScoreTable:
    """The checked table of rows as a source has them."""
    frame, more = understood(rows, where, reading, scale)
    _check_size(where, frame.size)
    return ScoreTable.from_frame(
        frame,
        where,
        scale=scale,
        notes=[*(notes or []), *more],
        provenance=[origin] if origin else [],
        complete=complete,
    )


def _read_csv(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The cells of a CSV file: see `_cells`."""
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        return _cells(str(path), file)


def _read_pipe() -> tuple[pd.DataFrame, list[str]]:
    """The cells of CSV on the standard input: see `_cells`."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError(f"{PIPE}: nothing is piped in; give a file, or CSV on the standard input")
    with foreign.reading("standard input", "CSV in UTF-8", "write it so"):
        raw: Any = getattr(sys.stdin, "buffer", None)
        if raw is None:  # a program has put text in its place
            return _cells("standard input", sys.stdin)
        text = io.TextIOWrapper(raw, "utf-8-sig", newline="")
        try:
            return _cells("standard input", text)
        finally:
            text.detach()


def _cells(where: str, file: TextIO) -> tuple[pd.DataFrame, list[str]]:
    """The cells of CSV as text, indexed by line number, and notes on how they were read.

    Blank lines are left out.
    """
    rows, lines = [], []
    text = _lines(where, file)
    first = next(text, "")
    separator = _separator(first)
    reader = csv.reader(itertools.chain([first], text), strict=True, delimiter=separator)
    header = [from_cell(name.strip()) for name in next(reader, [])]
    if not header:
        raise InputError(f"{where}: the file is empty; expected columns {', '.join(REQUIRED)}")
    if len({*header}) < len(header):
        check_columns(pd.DataFrame(columns=header), where)
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise InputError(
                f"{where}, line {reader.line_num}: {len(row)} cells, not {len(header)} "
                "as in the first line"
            )
        rows.append([from_cell(cell.strip(" \t\r\n")) for cell in row])
        lines.append(reader.line_num)
        _check_size(where, len(rows) * len(header))
    frame = pd.DataFrame(rows, columns=header, index=pd.Index(lines, name="line"), dtype=object)
    notes = _mend_decimal_commas(where, frame) if separator != "," else []
    return frame, notes


def _lines(where: str, file: TextIO) -> Iterator[str]:
    """The lines of a text, as far as they are no more than MOST_TEXT and MOST_LINE."""
    size = 0
    while line := file.readline(MOST_LINE):
        size += len(line)
        if len(line) >= MOST_LINE:
            raise InputError(f"{where}: a line has {MOST_LINE:,} characters or more; {SMALLER}")
        _check_size(where, 0, size)
        yield line


def _separator(header: str) -> str:
    """What stands between cells, by which of SEPARATORS splits the header into known columns."""

    def columns(separator: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([header], strict=True, delimiter=separator), [])
        except csv.Error:
            return 0, 0
        return len({*REQUIRED} & {name.strip() for name in names}), len(names)

    return max(SEPARATORS, key=columns)


def _mend_decimal_commas(where: str, frame: pd.DataFrame) -> list[str]:
    """Writes points for decimal commas of scores where no score has a point, and says so.

    Of a table of others, in every column that holds numbers with commas alone.
    """
    mended = False
    for name in frame.columns:
        cells = frame[name]
        if name != "score" and ("score" in frame or name in OURS or not _is_of_commas(cells)):
            continue
        if "." in "".join(cells) or not any(map(DECIMAL_COMMA.fullmatch, cells)):
            continue
        frame[name] = [
            cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells
        ]
        mended = True
    return [f"the commas in scores of {where} are read as decimal points"] if mended else []


def _is_of_commas(cells: "pd.Series[Any]") -> bool:
    """Whether a column holds whole numbers, numbers with a comma, and empty cells alone."""
    return all(
        not cell or cell.lstrip("+-").isdigit() or DECIMAL_COMMA.fullmatch(cell) for cell in cells
    )


def _read_parquet(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The columns of a Parquet file, and labels in its index as columns too."""
    from pyarrow import Table, parquet, types

    with parquet.ParquetFile(path) as file:
        held, schema = file.metadata, file.schema_arrow
        size = sum(held.row_group(k).total_byte_size for k in range(held.num_row_groups))
    _check_size(str(path), held.num_rows * len(schema), size)
    flat = [field for field in schema if not types.is_nested(field.type)]
    nested = sorted({*schema.names} - {field.name for field in flat})
    if labels := [name for name in nested if name in (*REQUIRED, "setting", "step")]:
        raise InputError(
            f"{path}: {labels[0]!r} holds lists or records; expected one name or number in each row"
        )
    # A text that many rows share stays one.
    texts = [f.name for f in flat if types.is_string(f.type) or types.is_binary(f.type)]
    columns = [field.name for field in flat] if nested else None
    batches, cells = [], 0
    # In parts that are counted: what a damaged file says of a column may be wrong, and pyarrow
    # aborts the process where it is asked for that alone.
    with parquet.ParquetFile(path, read_dictionary=texts, page_checksum_verification=True) as file:
        for batch in file.iter_batches(columns=columns):
            cells += batch.num_rows * batch.num_columns
            _check_size(str(path), cells)
            batches.append(batch)
        empty = file.schema_arrow.empty_table().select(columns or file.schema_arrow.names)
    whole = Table.from_batches(batches) if batches else empty
    frame = with_labels_of_index(whole.to_pandas()).reset_index(drop=True)
    if frame.columns.is_unique:
        shared = [c for c in frame if isinstance(frame[c].dtype, pd.CategoricalDtype)]
        frame = frame.astype(dict.fromkeys(shared, object))
    notes = [f"{name!r} of {path} holds lists or records and is left out" for name in nested]
    return frame, notes


def _check_size(where: str, cells: int, size: int = 0) -> None:
    """Raises InputError for more than MOST_CELLS, or more than MOST_TEXT."""
    if cells > MOST_CELLS:
        raise InputError(f"{where}: more than {MOST_CELLS:,} cells; {SMALLER}")
    if size > MOST_TEXT:
        raise InputError(f"{where}: unpacks to more than {MOST_TEXT / 2**20:.0f} MiB; {SMALLER}")


def write_scores(table: ScoreTable, path: Path) -> None:
    """Writes a table's rows and failures to a .csv or .parquet file that `read_scores` reads."""
    frame = table.tidy()
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: expected a name that ends in .csv or .parquet")
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            write_csv(frame, temporary)
        else:
            frame.to_parquet(temporary, index=False, write_page_checksum=True)


def write_csv(frame: pd.DataFrame, path: Path | TextIO) -> None:
    """Writes a frame without its index as CSV in UTF-8, its text as `to_cell` gives it."""
    safe = frame.rename(columns=lambda name: to_cell(str(name)))
    for name, column in safe.items():
        if not pd.api.types.is_numeric_dtype(column.dtype):
            cells = [to_cell(cell) if isinstance(cell, str) else cell for cell in column]
            safe[name] = pd.Series(cells, index=safe.index, dtype=object)
    safe.to_csv(path, index=False, lineterminator="\n", errors="backslashreplace")
