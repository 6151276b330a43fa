"""Transforms that take whole episodes: some of one data set, those with actions, or of several."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from offrl.data.columns import Columns, gathered
from offrl.data.foreign import check_size, size_of
from offrl.data.room import Room, release
from offrl.data.transforms import NO_PARTS, Parts, Transform, changed, episode_returns, text_of
from offrl.errors import InputError

BLOCK = 2**14  # rows of a mixture that are gathered together
Shares = tuple[float, float]  # of ranks, from the lowest


class _Ranked(Transform):
    """Transforms that take episodes by the ranks of their returns."""

    from_returns: Shares | None = None  # only episodes whose rank, from the lowest return, is there

    @field_validator("from_returns", mode="before")
    @classmethod
    def _two_shares(cls, given: Any) -> Any:
        if given is None:
            return None
        values = given.split("..") if isinstance(given, str) else given
        try:
            low, high = map(float, values)
        except (TypeError, ValueError):
            low, high = 1.0, 0.0
        if not 0 <= low < high <= 1:
            raise PydanticCustomError("shares", "expected two shares that rise, in [0, 1]")
        return low, high

    def eligible(self, returns: NDArray[np.float64]) -> NDArray[np.int64]:
        """The episodes whose return is in the range, from the lowest."""
        ranked = np.argsort(returns, kind="stable")
        low, high = self.from_returns or (0.0, 1.0)
        return ranked[int(low * len(ranked)) : int(high * len(ranked))]


class Subset(_Ranked):
    """Some whole episodes, in the order of the data set.

    Those that come first by `by` are taken, so a smaller subset lies inside a larger one.

    Attributes:
        episodes: how many, or
        share: of all that are eligible, in (0, 1]; at least one; or
        rows: as many episodes as have at most so many rows together.
        by: random, top or bottom (by return), or first.
        seed: of the random order.
        from_returns: two quantiles of the returns, between which an episode is eligible; with
            nothing else, all that are eligible are taken.
    """

    kind = "subset"
    episodes: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, gt=0, le=1)
    rows: int | None = Field(default=None, ge=1)
    by: Literal["random", "top", "bottom", "first"] = "random"

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        sizes = [size for size in (self.episodes, self.share, self.rows) if size is not None]
        if len(sizes) > 1 or (not sizes and self.from_returns is None):
            raise PydanticCustomError(
                "size", "expected episodes, share or rows, one of the three (or from_returns alone)"
            )
        return self

    def parameters(self) -> dict[str, Any]:
        """Without a seed where nothing is drawn."""
        values = super().parameters()
        whole = self.episodes is self.share is self.rows is None
        for key, needless in (("by", whole), ("seed", whole or self.by != "random")):
            if needless:
                values.pop(key)
        return values

    def made(self, columns: Columns, others: Parts = NO_PARTS) -> Columns:  # noqa: ARG002
        """The rows of the episodes that are chosen. Raises InputError for more than there are."""
        taken = self._taken(columns)
        chosen = _rows(columns, taken)
        chosen.notes.append(f"{self}: {int(taken.sum()):,} of {len(taken):,} rows")
        return chosen

    def parted(self, columns: Columns) -> tuple[Columns, Columns]:
        """The rows of the episodes that are chosen, and those of the others, maybe none."""
        taken = self._taken(columns)
        return _rows(columns, taken), _rows(columns, ~taken)

    def _taken(self, columns: Columns) -> NDArray[np.bool_]:
        """Whether each row is taken. Raises InputError where fewer are there than are wanted."""
        starts, lengths, returns = episode_returns(columns)
        eligible = self.eligible(returns)
        if self.by == "top":  # as the episodes stand where returns are equal
            eligible = eligible[np.argsort(-returns[eligible], kind="stable")]
        elif self.by == "first":
            eligible = np.sort(eligible)
        elif self.by == "random":
            order = np.random.default_rng(self.drawn).permutation(len(eligible))
            eligible = np.sort(eligible)[order]
        count = self.episodes or len(eligible)
        if self.share is not None:
            count = max(1, round(self.share * len(eligible)))
        if self.rows is not None:
            count = int(np.searchsorted(lengths[eligible].cumsum(), self.rows, side="right"))
        if not len(eligible):
            raise InputError(
                f"{self}: no episode of {len(starts):,} has a return in that range; widen "
                "from_returns"
            )
        if not count:
            raise InputError(
                f"{self}: the first episode has {lengths[eligible[0]]:,} rows, more than "
                f"{self.rows:,}; choose more rows"
            )
        if count > len(eligible):
            raise InputError(
                f"{self}: {count:,} episodes of {len(eligible):,} that are eligible; choose fewer"
            )
        taken = np.zeros(len(starts), dtype=np.bool_)
        taken[eligible[:count]] = True
        return np.repeat(taken, lengths)


class DropActions(_Ranked):
    """Actions are known of some episodes alone (SS-ORL: Zheng et al. 2023, data.py).

    Of the episodes by rising return, without the lowest, which that code leaves out, a share `keep`
    of all have actions, drawn from those whose rank is within `from_returns`. The actions of the
    others, of the lowest too, are NaN, and -1 where they are discrete: an algorithm that does not
    take such rows trains on the labelled ones alone.
    """

    kind = "drop-actions"
    keep: float = Field(default=0.1, gt=0, le=1)
    from_returns: Shares = (0.0, 0.5)

    def made(self, columns: Columns, others: Parts = NO_PARTS) -> Columns:  # noqa: ARG002
        """The rows, most of them without an action. Raises InputError where no episode has one."""
        _, lengths, returns = episode_returns(columns)
        lowest = int(np.argsort(returns, kind="stable")[0])
        kept = np.delete(np.arange(len(lengths)), lowest)
        eligible = kept[self.eligible(returns[kept])]
        count = min(len(eligible), int(len(kept) * self.keep))
        if not count:
            raise InputError(
                f"{self}: leaves the actions of none of {len(lengths):,} episodes; choose larger "
                "shares, or a larger data set"
            )
        labelled = np.zeros(len(lengths), dtype=np.bool_)
        chosen = np.random.RandomState(self.drawn).choice(len(eligible), count, replace=False)
        labelled[eligible[chosen]] = True
        rows = np.repeat(labelled, lengths)
        actions: Any = np.array(columns.actions)
        actions[~rows] = -1 if actions.dtype.kind == "i" else np.nan
        note = (
            f"{self}: {int(rows.sum()):,} of {len(rows):,} rows, those of {count:,} of "
            f"{len(lengths):,} episodes, have actions"
        )
        return changed(columns, note, actions=actions)


class Mix(Transform):
    """Whole episodes of several data sets (Hong et al. 2023, gen_mixed_datasets.py).

    The data set itself has the share that the others leave. Of it episodes are drawn until they
    have more than its share of the rows, then of the others, in turn, until they have more than
    theirs of the rest.

    Attributes:
        of: names of the others, with their shares of the rows.
        rows: of the mixture, at least; by default as many as the data set itself has.
        replace: whether an episode may be drawn more than once, as in that code.
    """

    kind = "mix"
    of: list[tuple[str, float]] = Field(min_length=1)
    rows: int | None = Field(default=None, ge=1)
    replace: bool = False

    @field_validator("of", mode="before")
    @classmethod
    def _pairs(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = [part.rpartition("=")[::2] for part in given.split(";")]
        try:
            pairs = [(name, float(share)) for name, share in given]
        except (TypeError, ValueError):
            raise PydanticCustomError("pairs", "expected pairs of a name and a share") from None
        for name, _ in pairs:
            if not isinstance(name, str) or not name.isprintable() or set(name) & set("[],;@"):
                raise PydanticCustomError("name", "a name has one of [],;@ or cannot be shown")
            if not name:
                raise PydanticCustomError("name", "a name is empty")
        if not (all(share > 0 for _, share in pairs) and sum(share for _, share in pairs) < 1):
            raise PydanticCustomError(
                "shares", "expected shares above 0 that leave some of 1 to the data set itself"
            )
        if len({name for name, _ in pairs}) < len(pairs):
            raise PydanticCustomError("twice", "a data set stands there twice")
        return pairs

    @property
    def others(self) -> tuple[str, ...]:
        """The names of the others."""
        return tuple(name for name, _ in self.of)

    @classmethod
    def read(cls, text: str) -> dict[str, Any]:
        """The parameters in a text; what is none of them is a name with its share."""
        pairs: list[str] = []
        known: list[str] = []
        for part in text.split(","):
            is_known = part.partition("=")[0] in ("rows", "replace", "seed")
            (known if is_known else pairs).append(part)
        return {**super().read(",".join(known)), "of": ";".join(pairs)}

    def __str__(self) -> str:
        values = {
            key: value for key, value in self.parameters().items() if key not in ("of", "seed")
        }
        pairs = {**dict(self.of), **values, "seed": self.seed}
        return f"{self.kind}[{','.join(f'{key}={text_of(value)}' for key, value in pairs.items())}]"

    def made(self, columns: Columns, others: Parts = NO_PARTS) -> Columns:
        """The mixture. Raises InputError where data sets do not fit, or have too few rows."""
        generator = np.random.default_rng(self.drawn)
        rows = self.rows or len(columns.rewards)
        own = 1 - sum(share for _, share in self.of)
        named = {"the data set itself": (columns, own)}
        named |= {name: (others[name], share) for name, share in self.of}
        taken: list[tuple[Columns, NDArray[np.int64]]] = []
        wanted, left, texts = int(round(own * rows, 6)), 0, []  # 1 - 0.9 is below 0.1
        for name, (part, share) in named.items():
            if part.observations.shape[1:] != columns.observations.shape[1:] or (
                part.actions.shape[1:] != columns.actions.shape[1:]
                or part.actions.dtype != columns.actions.dtype
            ):
                raise InputError(
                    f"{self}: {name} has other observations or actions; choose another"
                )
            if taken:
                wanted = round(left * share / (1 - own))
            index, count = self._drawn_rows(part, wanted, generator, name)
            if not taken:
                left = rows - len(index)
            taken.append((part, index))
            texts.append((name, len(index), count))
        total = sum(size for _, size, _ in texts)
        shares = "; ".join(
            f"{name} {size / total:.4%} ({size:,} rows of {count:,} episodes)"
            for name, size, count in texts
        )
        mixed = _gathered(taken, str(self))
        returns = episode_returns(mixed)[2]
        above = np.square(np.maximum(returns - returns.mean(), 0)).mean()
        mixed.notes += [*columns.notes, f"{self}: {shares}; upper variance of returns {above:.6g}"]
        return mixed

    def _drawn_rows(
        self, columns: Columns, wanted: int, generator: np.random.Generator, name: str
    ) -> tuple[NDArray[np.int64], int]:
        """Row numbers of episodes that have just more than the wanted rows, and how many."""
        starts, lengths, _ = episode_returns(columns)
        if self.replace:
            most = max(wanted, 0) // int(lengths.min()) + 1
            needed = [(4 * most,), (6 * max(wanted, 0),)]  # numbers of episodes and of rows
            check_size(str(self), needed, size_of(needed))
            order = generator.integers(len(starts), size=most)
        else:
            order = generator.permutation(len(starts))
        held = lengths[order].cumsum()
        count = int(np.searchsorted(held, wanted, side="right")) + 1
        if count > len(order):
            raise InputError(
                f"{self}: {wanted:,} rows of {name}, which has {int(held[-1]):,}; choose fewer "
                "rows or replace = true"
            )
        taken = order[:count]
        index = np.arange(held[count - 1])
        index += np.repeat(starts[taken] + lengths[taken] - held[:count], lengths[taken])
        return index, count


def _rows(columns: Columns, kept: NDArray[np.bool_]) -> Columns:
    arrays: dict[str, Any] = {name: values[kept] for name, values in columns.arrays().items()}
    return Columns(**arrays, notes=[*columns.notes])


def _gathered(parts: Sequence[tuple[Columns, NDArray[np.int64]]], where: str) -> Columns:
    """The rows with these numbers, one part after another; `where` is what they are."""
    total = sum(len(index) for _, index in parts)
    first = parts[0][0].arrays()
    kinds = {name: ((total, *values.shape[1:]), values.dtype) for name, values in first.items()}
    sizes = [shape for shape, _ in kinds.values()]
    room = Room(where, sizes, size_of(sizes))
    arrays: dict[str, Any] = {name: room.empty(*kind) for name, kind in kinds.items()}
    for name, into in arrays.items():
        row = 0
        for columns, index in parts:
            values = getattr(columns, name)
            for start in range(0, len(index), BLOCK):
                some = index[start : start + BLOCK]
                gathered(values, some, into[row : row + len(some)])
                release(values)
                row += len(some)
    return Columns(**arrays)
