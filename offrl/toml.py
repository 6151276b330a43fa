"""TOML files read into pydantic models: an error names the file, the key and the reason."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from offrl.errors import InputError, unknown

MOST_BYTES = 2**24  # of a TOML file


class Strict(BaseModel):
    """A frozen record that refuses unknown keys and values of the wrong type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises InputError where it is missing or not TOML."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path}: expected a TOML file, but it is a pipe or a device")
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise InputError(f"{path}: expected a TOML file, but it has over {MOST_BYTES:,} bytes")
        return parse_toml(text.decode())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a TOML file") from None
    except InputError:
        raise
    except (ValueError, OSError) as error:  # TOMLDecodeError and UnicodeDecodeError among them
        raise InputError(f"{path}: expected a TOML file, but {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; ValueError where it is none, or nested too deep to be read."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deep; expected some levels at most") from None


def validate(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """`values` as a `model`; the error names `where` (file and table), key, value and reason."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A mistyped key shows as one too many and as one missing: the first tells what to do.
        errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        first, more = errors[0], f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        key = ".".join(map(str, first["loc"])) or "(table)"
        missing = [str(e["loc"][-1]) for e in errors if e["type"] == "missing"]
        if first["type"] == "extra_forbidden":
            near = unknown("key", str(first["loc"][-1]), missing) if missing else "unknown key"
            raise InputError(f"{where}: {key}: {near}{more}") from None
        found = "" if first["type"] == "missing" else f", found {first['input']!r:.80}"
        raise InputError(f"{where}: {key}: {first['msg']}{found}{more}") from None
