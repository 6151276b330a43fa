"""What a check of a data set found, a verdict on each subject."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Numbers = Sequence[int] | NDArray[Any]
Verdict = Literal["ok", "warning", "fault", "cannot be checked"]
SHOWN = 5  # rows or episodes that a sentence names


@dataclass(frozen=True)
class Finding:
    """A verdict on one subject.

    A fault makes training or scoring wrong; a warning may be as it should be, and is to be looked
    at. `rows` are the first of the rows that it is about, counted from 0.
    """

    subject: str
    verdict: Verdict
    text: str
    rows: tuple[int, ...] = ()
    split: str = "train"


def listed(numbers: Numbers) -> str:
    """The first of some numbers, in words."""
    more = ", ..." if len(numbers) > SHOWN else ""
    return f"{', '.join(f'{number:,}' for number in numbers[:SHOWN])}{more}"


def first_rows(numbers: Numbers) -> tuple[int, ...]:
    """The first of some rows, for `Finding.rows`."""
    return tuple(int(number) for number in numbers[:SHOWN])
