"""Transforms: pure functions that make rows of other rows, decided by their parameters alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from offrl.data.columns import Columns, episodes
from offrl.errors import InputError, unknown

ORDERS = ("random", "top", "bottom", "first")


@dataclass(frozen=True)
class Subset:
    """Some whole episodes, in the order of the data set.

    Those that come first by `by` are taken, so a smaller subset lies inside a larger one.

    Attributes:
        episodes: how many, or
        share: of all, in (0, 1]; at least one.
        by: random, top or bottom (by return), or first.
        seed: of the random order.
    """

    episodes: int | None = None
    share: float | None = None
    by: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.episodes is None) == (self.share is None):
            raise InputError("subset: expected episodes or share, one of the two")
        if self.episodes is not None and self.episodes < 1:
            raise InputError(f"subset: episodes is {self.episodes}; expected at least 1")
        if self.share is not None and not 0 < self.share <= 1:
            raise InputError(f"subset: share is {self.share}; expected more than 0, up to 1")
        if self.by not in ORDERS:
            raise unknown("order of episodes", self.by, ORDERS)

    def __str__(self) -> str:
        size = f"{self.episodes} episodes" if self.share is None else f"share {self.share:g}"
        seed = f", seed {self.seed}" if self.by == "random" else ""
        return f"subset ({size} by {self.by}{seed})"


def subset(columns: Columns, chosen: Subset) -> Columns:
    """The rows of the episodes that are chosen. Raises InputError for more than there are."""
    return parted(columns, chosen)[0]


def parted(columns: Columns, chosen: Subset) -> tuple[Columns, Columns]:
    """The rows of the episodes that are chosen, and those of the others, which may be none.

    Raises InputError where more are chosen than there are.
    """
    starts, lengths = episodes(columns.terminations, columns.truncations)
    count = chosen.episodes
    if count is None:
        count = max(1, round(float(chosen.share or 0) * len(starts)))
    if count > len(starts):
        raise InputError(f"subset: {count:,} episodes of {len(starts):,}; choose fewer")
    order = np.arange(len(starts))
    if chosen.by == "random":
        order = np.random.default_rng(chosen.seed).permutation(len(starts))
    elif chosen.by != "first":
        returns = np.add.reduceat(np.asarray(columns.rewards, dtype=np.float64), starts)
        order = np.argsort(-returns if chosen.by == "top" else returns, kind="stable")
    taken = np.zeros(len(starts), dtype=np.bool_)
    taken[order[:count]] = True
    rows = np.repeat(taken, lengths)
    parts: list[dict[str, Any]] = [
        {name: values[kept] for name, values in columns.arrays().items()} for kept in (rows, ~rows)
    ]
    return Columns(**parts[0]), Columns(**parts[1])
