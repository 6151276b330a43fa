"""Discrete actions: how many there are and what they are called, on a card or in a file of data."""

import json
import re
from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from offrl.errors import InputError
from offrl.toml import MOST_BYTES, Strict, validate

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
