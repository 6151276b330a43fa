"""Score tables as CSV and Parquet files."""

import csv
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from offrl.errors import InputError
from offrl.files import replacing
from offrl.results.checks import REQUIRED
from offrl.results.table import ScoreTable
from offrl.text import from_cell, to_cell

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def read_scores(path: Path, *, scale: float = 100.0, complete: bool = True) -> ScoreTable:
    """The table in a CSV (also .csv.gz) or Parquet file; columns as in `from_frame`."""
    path = Path(path)
    name = path.name.lower()
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a score table ({', '.join(SUFFIXES)})")
    if not name.endswith(SUFFIXES):
        raise InputError(f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}")
    frame = _read_parquet(path) if name.endswith(".parquet") else _read_csv(path)
    source = {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": len(frame),
    }
    return ScoreTable.from_frame(
        frame, str(path), scale=scale, provenance=[source], complete=complete
    )


def _read_csv(path: Path) -> pd.DataFrame:
    """The cells of a CSV file as text, indexed by line number; blank lines are left out."""
    rows, lines = [], []
    opener: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [from_cell(name.strip()) for name in next(reader, [])]
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row)} cells, not {len(header)} "
                        "as in the first line"
                    )
                rows.append([from_cell(cell.strip()) for cell in row])
                lines.append(reader.line_num)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as CSV in UTF-8: {error}") from error
    if not header:
        raise InputError(f"{path}: the file is empty; expected columns {', '.join(REQUIRED)}")
    return pd.DataFrame(rows, columns=header, index=pd.Index(lines, name="line"), dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not readable as Parquet: {text}") from error


def write_scores(table: ScoreTable, path: Path) -> None:
    """Writes a table's rows and failures to a .csv or .parquet file that `read_scores` reads."""
    frame = table.tidy()
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: expected a name that ends in .csv or .parquet")
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            write_csv(frame, temporary)
        else:
            frame.to_parquet(temporary, index=False)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes a frame without its index as CSV in UTF-8, its text as `to_cell` gives it."""
    safe = frame.rename(columns=lambda name: to_cell(str(name)))
    for name, column in safe.items():
        if not pd.api.types.is_numeric_dtype(column.dtype):
            cells = [to_cell(cell) if isinstance(cell, str) else cell for cell in column]
            safe[name] = pd.Series(cells, index=safe.index, dtype=object)
    safe.to_csv(path, index=False, lineterminator="\n", errors="backslashreplace")
