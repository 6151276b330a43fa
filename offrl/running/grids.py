"""Grids: settings of an algorithm that a protocol tries, in all combinations of their values."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from offrl.errors import InputError
from offrl.toml import shown

MOST_RUNS = 50_000  # of a protocol with a grid: each is a folder


def settings(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Each combination of a grid's values, the last key's fastest; one without values for none."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def size(grid: Mapping[str, Sequence[Any]]) -> int:
    """The number of combinations."""
    return math.prod(map(len, grid.values()))


def check_runs(runs: int, where: str) -> None:
    """Raises InputError where grids make more runs than MOST_RUNS."""
    if runs > MOST_RUNS:
        number = f"{runs:,}" if runs < 10**15 else "more than 10^15"
        raise InputError(
            f"{where}: its grid makes {number} runs, one for each combination of values, data set "
            f"and seed; at most {MOST_RUNS:,} are made, so give fewer values"
        )


def _checked(grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
    for key, values in grid.items():
        if not values:
            raise PydanticCustomError(
                "empty", "{key} has no value to try; give one or more", {"key": key}
            )
        seen = set()
        for value in values:
            text = json.dumps(_number(value), default=str)
            if text in seen:
                raise PydanticCustomError(
                    "twice",
                    "{key} has the value {value} twice; give each once",
                    {"key": key, "value": shown(value)},
                )
            seen.add(text)
    return grid


def _number(value: Any) -> Any:
    """A whole number as a float: 3 and 3.0 are one value."""
    try:
        return float(value) if type(value) is int else value
    except OverflowError:  # the config's own check says what it expects
        return value


Grid = Annotated[dict[str, list[Any]], AfterValidator(_checked)]  # by key of the config
