"""Discrete actions: how many there are and what they are called, on a card or in a file of data."""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from offrl.errors import InputError
from offrl.text import counted, one_line
from offrl.toml import MOST_BYTES, Strict, validate

RARE = 0.1  # of an equal share of the rows: a choice with fewer may be a slip
SHOWN = 5  # values that a note names
_HALF = re.compile("[\ud800-\udfff]")
MOST_CHOICES = 10_000  # discrete actions: networks have an output for each


class Choices(Strict):
    """Discrete actions: integers from 0, each of which is one of `count` choices."""

    count: int = Field(ge=2, le=MOST_CHOICES)
    names: list[str] = Field(default_factory=list)  # of the choices, in order; empty: none known

    @model_validator(mode="after")
    def _names_all(self) -> Self:
        """Where there are names, each choice has one of its own."""
        if self.names and not len(self.names) == len({*self.names}) == self.count:
            raise PydanticCustomError(
                "names",
                "names: {named} names, {distinct} of them distinct, for {count} actions; expected "
                "one for each, or none",
                {"named": len(self.names), "distinct": len({*self.names}), "count": self.count},
            )
        if any("\0" in name or _HALF.search(name) for name in self.names):
            raise PydanticCustomError(
                "text", "names: one holds a NUL or half a character, which no text has"
            )
        return self


def choices_text(choices: Choices) -> str:
    """Choices as JSON, which a file of data keeps beside its actions."""
    return choices.model_dump_json(exclude_defaults=True)


def read_choices(text: str | bytes, where: str) -> Choices:
    """The choices of such a text, of a file from anywhere. Raises InputError where it is none.

    `where` is the file and the place in it.
    """
    if len(text) > MOST_BYTES:
        raise InputError(
            f"{where}: is {len(text):,} long, and at most {MOST_BYTES:,} are read; shorten the "
            "names of the actions"
        )
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise InputError(
            f'{where}: expected JSON such as {{"count": 2}}, but {str(error)[:100]}; write the '
            "file again"
        ) from None
    return validate(Choices, values, where)


def doubts(name: str, values: Sequence[Any], counts: Sequence[int]) -> list[str]:
    """Notes on values of a column that are choices of their own, and may be slips.

    Args:
        name: of the column.
        values: the distinct ones.
        counts: in how many rows each stands.
    """
    alike: dict[str, list[Any]] = {}
    for value in values:
        plain = unicodedata.normalize("NFKC", str(value)).casefold()
        alike.setdefault(" ".join(plain.split()), []).append(value)
    same = [" and ".join(map(_shown, group)) for group in alike.values() if len(group) > 1]
    numbers = [_number(value) for value in values]
    odd: list[str] = []
    if None not in numbers:
        odd = [_shown(v) for v, number in zip(values, numbers, strict=True) if (number or 0) % 1]
    equal = sum(counts) / max(1, len(values))
    rare = [
        f"{_shown(value)} in {counted(count, 'row')}"
        for value, count in zip(values, counts, strict=True)
        if count < RARE * equal
    ]
    doubted = {
        "nearly the same, yet choices of their own": same,
        "no whole number, as others are": odd if len(odd) < len(values) else [],
        "rare": rare,
    }
    return [
        f"look at {one_line(name)}, and correct slips: {what}: {_listed(found)}"
        for what, found in doubted.items()
        if found
    ]


def _shown(value: Any) -> str:
    return one_line(repr(value))[:60]


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:SHOWN]) + (", ..." if len(texts) > SHOWN else "")


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
