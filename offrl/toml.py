"""TOML files read into pydantic models: an error names the file, the key and the reason."""

import stat
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from offrl.errors import SHOWN, InputError, unknown

MOST_BYTES = 2**24  # of a TOML file: the largest that ships has 30 kB
DEEPEST = 50  # tables and arrays inside each other
TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"
LONGEST = 300  # characters of a reason, which may quote a value


class Strict(BaseModel):
    """A frozen record that refuses unknown keys and values of the wrong type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, a byte order mark or not.

    Raises InputError, at once, where it is missing, no file (a pipe, a device), too large or not
    TOML.
    """
    try:
        kind = path.stat()
        if stat.S_ISDIR(kind.st_mode):
            raise ValueError("it is a folder")
        if not stat.S_ISREG(kind.st_mode):
            raise ValueError("it is a pipe or a device")
        if kind.st_size > MOST_BYTES:
            raise ValueError(f"it has {kind.st_size:,} bytes, and at most {MOST_BYTES:,} are read")
        return parse_toml(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a TOML file") from None
    except (OSError, ValueError) as error:  # a ValueError too for a path that no system can open
        raise InputError(f"{path}: expected a TOML file, but {str(error)[:200]}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a text. Raises ValueError with the reason where they cannot be used.

    That is so of a NUL too: no name, path or note has one, and no file system takes it.
    """
    try:
        tables = tomllib.loads(text)  # a ValueError too for numbers of thousands of digits
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    _check(tables, DEEPEST)
    return tables


def to_toml(tables: dict[str, Any]) -> str:
    """The tables as a text of which `parse_toml` makes them again."""
    return tomli_w.dumps(tables)


def _check(value: Any, levels: int) -> None:
    """Raises ValueError for a string with a NUL, and for values nested deeper than `levels`."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("it holds a NUL character (\\u0000), which no name and no path has")
    if isinstance(value, dict | list) and not levels:
        raise ValueError(TOO_DEEP)
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, levels)
            _check(item, levels - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, levels - 1)


def validate(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """`values` as a `model`; the error names `where` (file and table), key, value and reason."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A mistyped key shows as one too many and as one missing: the first tells what to do.
        errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    except RecursionError:
        raise InputError(f"{where}: {TOO_DEEP}; give plain tables and values") from None
    first, more = errors[0], f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    key = ".".join(shortened(part) for part in first["loc"]) or "(table)"
    missing = [str(e["loc"][-1]) for e in errors if e["type"] == "missing"]
    if first["type"] == "extra_forbidden":
        near = unknown("key", str(first["loc"][-1])[:SHOWN], missing) if missing else "unknown key"
        raise InputError(f"{where}: {key}: {near}{more}")
    found = "" if first["type"] == "missing" else f", found {shown(first['input'])}"
    reason = first["msg"] if len(first["msg"]) <= LONGEST else f"{first['msg'][:LONGEST]}..."
    raise InputError(f"{where}: {key}: {reason}{found}{more}")


def shown(value: Any) -> str:
    """A value as messages show it: its beginning, whatever it is."""
    try:
        return f"{value!r:.{SHOWN}}"
    except (ValueError, RecursionError):  # an integer of thousands of digits; deep nesting
        return f"{'an' if isinstance(value, int) else 'a'} {type(value).__name__} that is too large"


def shortened(part: object) -> str:
    """A key or an index in the path to a value: its beginning."""
    text = str(part)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
