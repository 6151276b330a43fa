"""A run's losses while it trains, as `metrics.csv` in its folder. No score depends on them.

Columns: `step` and the algorithm's metrics, in the order in which they first appear; one line for
each step at which they are kept. A last line that a crash cut short does not count.
"""

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from offrl.files import read_own
from offrl.text import from_cell, one_line, to_cell

STEP = "step"
EVERY, MOST = 100, 1_000  # gradient steps between lines, more in runs where that is too many lines
LARGEST = 2**26  # bytes that are read

Line = tuple[int, Mapping[str, float]]  # a gradient step and the metrics of its update


def interval(steps: int) -> int:
    """Gradient steps between the lines of a run; every evaluation has one besides."""
    return EVERY * max(1, math.ceil(steps / (EVERY * MOST)))


def added(data: bytes, lines: Sequence[Line]) -> tuple[bytes, bytes]:
    """The file's bytes as they should begin, and those to append, once lines are added.

    The first differ from `data` where a metric is new: it gets a column, empty in earlier lines.
    """
    named = [(step, {_column(n): value for n, value in of.items()}) for step, of in lines]
    before = _header(data)
    names = list(dict.fromkeys([*(before or [STEP]), *(name for _, of in named for name in of)]))
    rows = [
        [str(step), *(f"{of[n]:.7g}" if n in of else "" for n in names[1:])] for step, of in named
    ]
    if before == names:
        return data, _text(rows)
    _, _, rest = data.partition(b"\n")
    empty = b"," * (len(names) - len(before or names)) + b"\n"
    return _text([names]) + (rest.replace(b"\n", empty) if before else b""), _text(rows)


def up_to(data: bytes, step: int) -> bytes:
    """The file's bytes without the lines after a step, and without what is not as it was written.

    Empty where no line is left.
    """
    if _header(data) is None:
        return b""
    head, *lines = data.split(b"\n")[:-1]
    kept, last = [head], 0
    for line in lines:
        first = line.partition(b",")[0]
        if not first.isdigit() or len(first) > 18 or not last < int(first) <= step:
            break
        last = int(first)
        kept.append(line)
    return b"".join(line + b"\n" for line in kept) if len(kept) > 1 else b""


def at(data: bytes, steps: Collection[int]) -> bytes:
    """Of the bytes that `up_to` gave, the lines at some steps; empty where no line is left."""
    head, *lines = data.split(b"\n")[:-1] or [b""]
    kept = [line for line in lines if int(line.partition(b",")[0]) in steps]
    return b"".join(line + b"\n" for line in (head, *kept)) if kept else b""


def read_curves(path: Path) -> list[Line]:
    """The lines of a `metrics.csv`. Raises OSError where it is no file of offrl's own."""
    data = up_to(read_own(path, LARGEST), 10**18)
    lines: list[Line] = []
    rows = csv.reader(io.StringIO(data.decode("utf-8", errors="replace")))
    try:
        names = next(rows, [])
        for step, *cells in rows:
            named = zip(names[1:], cells, strict=False)
            lines.append((int(step), {from_cell(n): float(cell) for n, cell in named if cell}))
    except (csv.Error, ValueError):
        pass  # damaged from here on
    return lines


def _header(data: bytes) -> list[str] | None:
    """The names of the columns; None where the first line has none."""
    head, end, _ = data.partition(b"\n")
    try:
        names = next(csv.reader([head.decode()]), [])
    except (UnicodeDecodeError, csv.Error):
        return None
    return names if end and names[:1] == [STEP] else None


def _column(name: str) -> str:
    return to_cell(one_line(name if name != STEP else f"{STEP}_"))


def _text(rows: Sequence[Sequence[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()
