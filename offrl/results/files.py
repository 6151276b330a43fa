"""Score tables as CSV and Parquet files."""

import csv
import gzip
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from offrl.data.foreign import reading
from offrl.errors import InputError
from offrl.files import replacing
from offrl.results.checks import REQUIRED, check_columns, with_labels_of_index
from offrl.results.table import ScoreTable
from offrl.text import from_cell, to_cell

SUFFIXES = (".csv", ".csv.gz", ".parquet")
# Some 1.5 GB of memory at most, whatever a file unpacks to; a million rows of twelve columns.
MOST_CELLS = 12_000_000
MOST_TEXT = 2**28  # characters of a CSV file, or bytes of a Parquet file, unpacked
MOST_LINE = 2**24  # characters of a line
SMALLER = "give fewer columns, or the scores that count alone"
SEPARATORS = (",", ";", "\t")
DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+([eE][-+]?[0-9]+)?")


def read_scores(
    source: str | Path | pd.DataFrame | ScoreTable, *, scale: float = 100.0, complete: bool = True
) -> ScoreTable:
    """The table in a CSV (also .csv.gz) or Parquet file, or in a frame; columns as in `from_frame`.

    A ScoreTable is returned as it is.

    A CSV file may have semicolons or tabs for commas, and then decimal commas too, which a note
    says. InputError for a file that unpacks to more than MOST_CELLS or MOST_TEXT.
    """
    if isinstance(source, ScoreTable):
        return source
    if isinstance(source, pd.DataFrame):
        return ScoreTable.from_frame(source, scale=scale, complete=complete)
    path = Path(source)
    name = path.name.lower()
    if not path.is_file():
        what = "no file, but something else" if path.exists() else "no such file"
        raise InputError(f"{path}: {what}; expected a score table ({', '.join(SUFFIXES)})")
    if not name.endswith(SUFFIXES):
        raise InputError(f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}")
    if path.stat().st_size > 4 * MOST_TEXT:  # at once: a file may be a hole of any size
        raise InputError(f"{path}: has more than {4 * MOST_TEXT / 2**20:.0f} MiB; {SMALLER}")
    kind, read, advice = "Parquet", _read_parquet, "if it was copied or downloaded, do so again"
    if not name.endswith(".parquet"):
        kind, read, advice = "CSV in UTF-8", _read_csv, f"save it so; {advice}"
    with reading(path, kind, advice):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        frame, notes = read(path)
    origin = {"source": str(path), "sha256": digest, "rows": len(frame)}
    return ScoreTable.from_frame(
        frame, str(path), scale=scale, notes=notes, provenance=[origin], complete=complete
    )


def _read_csv(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The cells of a CSV file as text, indexed by line number, and notes on how they were read.

    Blank lines are left out.
    """
    rows, lines = [], []
    opener: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        text = _lines(path, file)
        first = next(text, "")
        separator = _separator(first)
        reader = csv.reader(itertools.chain([first], text), strict=True, delimiter=separator)
        header = [from_cell(name.strip()) for name in next(reader, [])]
        if not header:
            raise InputError(f"{path}: the file is empty; expected columns {', '.join(REQUIRED)}")
        check_columns(pd.DataFrame(columns=header), str(path))
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, not {len(header)} "
                    "as in the first line"
                )
            rows.append([from_cell(cell.strip(" \t\r\n")) for cell in row])
            lines.append(reader.line_num)
            _check_size(path, len(rows) * len(header))
    frame = pd.DataFrame(rows, columns=header, index=pd.Index(lines, name="line"), dtype=object)
    notes = _mend_decimal_commas(path, frame) if separator != "," else []
    return frame, notes


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of a text, as far as they are no more than MOST_TEXT and MOST_LINE."""
    size = 0
    while line := file.readline(MOST_LINE):
        size += len(line)
        if len(line) >= MOST_LINE:
            raise InputError(f"{path}: a line has {MOST_LINE:,} characters or more; {SMALLER}")
        _check_size(path, 0, size)
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


def _mend_decimal_commas(path: Path, frame: pd.DataFrame) -> list[str]:
    """Writes points for decimal commas of scores where no score has a point, and says so."""
    scores = frame["score"]
    if "." in "".join(scores) or not any(map(DECIMAL_COMMA.fullmatch, scores)):
        return []
    frame["score"] = [
        score.replace(",", ".") if DECIMAL_COMMA.fullmatch(score) else score for score in scores
    ]
    return [f"the commas in scores of {path} are read as decimal points"]


def _read_parquet(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The columns of a Parquet file, and labels in its index as columns too."""
    from pyarrow import Table, parquet, types

    with parquet.ParquetFile(path) as file:
        held, schema = file.metadata, file.schema_arrow
        size = sum(held.row_group(k).total_byte_size for k in range(held.num_row_groups))
    _check_size(path, held.num_rows * len(schema), size)
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
            _check_size(path, cells)
            batches.append(batch)
        empty = file.schema_arrow.empty_table().select(columns or file.schema_arrow.names)
    whole = Table.from_batches(batches) if batches else empty
    frame = with_labels_of_index(whole.to_pandas()).reset_index(drop=True)
    if frame.columns.is_unique:
        shared = [c for c in frame if isinstance(frame[c].dtype, pd.CategoricalDtype)]
        frame = frame.astype(dict.fromkeys(shared, object))
    notes = [f"{name!r} of {path} holds lists or records and is left out" for name in nested]
    return frame, notes


def _check_size(path: Path, cells: int, size: int = 0) -> None:
    """Raises InputError for more than MOST_CELLS, or more than MOST_TEXT."""
    if cells > MOST_CELLS:
        raise InputError(f"{path}: more than {MOST_CELLS:,} cells; {SMALLER}")
    if size > MOST_TEXT:
        raise InputError(f"{path}: unpacks to more than {MOST_TEXT / 2**20:.0f} MiB; {SMALLER}")


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


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes a frame without its index as CSV in UTF-8, its text as `to_cell` gives it."""
    safe = frame.rename(columns=lambda name: to_cell(str(name)))
    for name, column in safe.items():
        if not pd.api.types.is_numeric_dtype(column.dtype):
            cells = [to_cell(cell) if isinstance(cell, str) else cell for cell in column]
            safe[name] = pd.Series(cells, index=safe.index, dtype=object)
    safe.to_csv(path, index=False, lineterminator="\n", errors="backslashreplace")
