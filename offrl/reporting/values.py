"""Any value as JSON or as a line of text."""

import math
from collections.abc import Mapping
from typing import Any


def json_value(value: Any) -> Any:
    """The value in types that JSON has: None for NaN and infinity, text for any other type."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def value_text(value: Any, *, commas: bool = False) -> str:
    """The value as TOML writes it, but text without quotes and `none` for None.

    Args:
        value: such as `True` ("true"), `[256, 256]`, or a mapping ("{lr = 0.0003}").
        commas: whether whole numbers have commas, as in 1,000,000.
    """
    value = _plain(value)
    if isinstance(value, Mapping):
        pairs = (f"{key} = {value_text(item, commas=commas)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple | set):
        return f"[{', '.join(value_text(item, commas=commas) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if commas and isinstance(value, int):
        return f"{value:,}"
    return "none" if value is None else str(value)


def _plain(value: Any) -> Any:
    """A number or an array of numpy as one of Python, or a list."""
    return value.tolist() if hasattr(value, "tolist") else value
