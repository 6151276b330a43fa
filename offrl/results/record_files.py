"""Records and score rows as JSON with a checksum, as run folders hold them.

What is read is data from anyone: it is bounded in size and depth before it is parsed.
"""

import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from offrl.errors import Damaged, InputError
from offrl.files import read_own, seal, unseal, unsealed_text
from offrl.results.rows import FORMAT, RunRecord, ScoreRow
from offrl.toml import Model, validate
from offrl.version import __version__

LARGEST = 2**28  # bytes of a file of records; a run of 100,000 evaluations has a fifth
LONGEST = 2**24  # bytes of a record or a row, which take some 25 times as much when they are read
DEEPEST = 50  # levels of JSON


class Unreadable(Damaged):
    """A run folder, or a file in it, that cannot be read or is no folder or file of its own."""


class Newer(Damaged):
    """A run that a newer offrl wrote: only that one can read it."""


def read_record(path: Path) -> RunRecord:
    """What a run.json holds. Raises Damaged where it is no record, Newer and Unreadable."""
    values = _parsed(str(path), _bytes(path))
    written = values.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise Newer(
            f"{path}: format {written}, but offrl {__version__} reads formats up to {FORMAT}; "
            "update offrl"
        )
    return _validated(RunRecord, values, str(path))


def read_rows(path: Path) -> Iterator[ScoreRow]:
    """The rows of an evaluations.jsonl up to a line that is torn; none where there is no file.

    Raises Damaged where a line is no row, and Unreadable.
    """
    if not os.path.lexists(path):
        return
    for number, line in enumerate(io.BytesIO(_bytes(path)), 1):
        if not line.endswith(b"\n"):
            return  # torn
        if (row := _as_written(line)) is not None:
            yield row
            continue
        where = f"{path}: line {number}"
        yield _validated(ScoreRow, _parsed(where, line), where)


def record_text(record: RunRecord) -> str:
    """What run.json holds of a record."""
    optional = ("ways", "traceback", "trust", "attempts")
    left_out = {key for key in optional if getattr(record, key) is None}
    left_out |= set() if record.numerics else {"numerics"}
    return json.dumps(seal(record.model_dump(exclude=left_out)), indent=2) + "\n"


def row_line(row: ScoreRow) -> str:
    """The line of evaluations.jsonl that holds a row."""
    return json.dumps(seal(row.model_dump(by_alias=True))) + "\n"


def _as_written(line: bytes) -> ScoreRow | None:
    """The row of a line as `row_line` writes it, in a third of the time; None for others."""
    content = unsealed_text(line.removesuffix(b"\n"))
    if (
        content is None
        or len(line) > LONGEST
        or content.count(b"{") + content.count(b"[") > DEEPEST
    ):
        return None
    try:
        return ScoreRow.model_validate_json(content)
    except ValidationError:
        return None


def _bytes(path: Path) -> bytes:
    """The bytes of a file of the run. Raises Unreadable, or Damaged where there is none."""
    try:
        return read_own(path, LARGEST)
    except FileNotFoundError:
        raise Damaged(f"{path}: expected the JSON that offrl writes, but there is none") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise Damaged(
                f"{path}: expected the JSON that offrl writes, but it is above {LARGEST} B"
            ) from None
        raise Unreadable(f"{path}: {error.strerror or error}") from None


def _parsed(where: str, data: bytes) -> dict[str, Any]:
    """A JSON object that offrl wrote, without its checksum. Raises Damaged for anything else."""
    try:
        if len(data) > LONGEST:
            raise ValueError(f"it has more than {LONGEST:,} bytes")
        text = data.decode()
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(f"it is a {type(value).__name__}; expected a JSON object")
        if text.count("[") + text.count("{") > DEEPEST and _levels(value) > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels")
        return unseal(value)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{where}: expected the JSON that offrl writes, but {error}") from None


def _levels(value: Any) -> int:
    """How deep a JSON value is nested."""
    levels, layer = 0, [value]
    while layer:
        levels += 1
        layer = [
            inner
            for outer in layer
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return levels


def _validated(model: type[Model], values: dict[str, Any], where: str) -> Model:
    try:
        return validate(model, values, where)
    except InputError as error:
        raise Damaged(str(error)) from None
