"""Transforms: pure functions that make rows of other rows, decided by their parameters alone.

Each is a frozen record whose text, such as `corrupt[observations,random,rate=0.3,range=1,seed=0]`,
holds all of its parameters and is part of the altered data set's name; `altered` reads such names.
A row is one of the view that is trained on.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from offrl.data.columns import Columns, episodes, moments
from offrl.errors import InputError
from offrl.toml import Strict

Parts = Mapping[str, Columns]  # the rows of other data sets, by name
NO_PARTS: Parts = {}

LARGEST_SEED = 2**32 - 1  # that numpy's RandomState takes
RUN = re.compile(r"run(:[0-9]+)?")  # the seed of each run, and what it is for one of them
BLOCK = 2**19  # numbers drawn together, as float64
LARGEST = 10**9  # range, scale and number of steps
FAR = 30  # a random reward lies within so many ranges of 0 (Yang et al. 2024, attack.py)


class Transform(Strict):
    """What all have: parameters, and the rows that follow from them."""

    kind: ClassVar[str]
    bare: ClassVar[tuple[str, ...]] = ()  # parameters that stand without their names, in order
    seed: int | str = 0  # or "run": each run's own

    @field_validator("seed")
    @classmethod
    def _is_a_seed(cls, seed: int | str) -> int | str:
        known = RUN.fullmatch(seed) if isinstance(seed, str) else 0 <= seed <= LARGEST_SEED
        if not known:
            raise PydanticCustomError(
                "seed",
                'expected a whole number from 0 to {most}, or "run" for the run\'s own',
                {"most": LARGEST_SEED},
            )
        return seed

    @property
    def drawn(self) -> int:
        """The seed that is drawn with. Raises InputError where it is a run's and none is known."""
        if isinstance(self.seed, int):
            return self.seed
        seed = self.seed.partition(":")[2]
        if not seed or int(seed) > LARGEST_SEED:
            expected = "a run's, which a protocol has; give a number" if not seed else "too large"
            raise InputError(f"{self}: its seed is {expected}")
        return int(seed)

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the other data sets from which rows come."""
        return ()

    def parameters(self) -> dict[str, Any]:
        """All that decide what is made."""
        return {
            key: value
            for key in type(self).model_fields
            if (value := getattr(self, key)) is not None
        }

    def __str__(self) -> str:
        values = self.parameters()
        named = [f"{key}={text_of(value)}" for key, value in values.items() if key not in self.bare]
        seed = [part for part in named if part.startswith("seed=")]
        named = [part for part in named if part not in seed]
        return f"{self.kind}[{','.join([*(values[key] for key in self.bare), *named, *seed])}]"

    @classmethod
    def read(cls, text: str) -> dict[str, Any]:
        """The parameters in a text such as `observations,rate=0.3`, which are texts still."""
        values: dict[str, Any] = {}
        bare = iter(cls.bare)
        for part in filter(None, text.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                key, value = next(bare, part), part
            values[key] = value
        return values

    def made(self, columns: Columns, others: Parts = NO_PARTS) -> Columns:
        """The rows that it makes of others; its notes say what was done.

        Args:
            columns: of the data set, in whole episodes.
            others: those of the data sets that `others` names.
        """
        raise NotImplementedError


class Corrupt(Transform):
    """Some rows have wrong values in one column (RIQL: Yang et al. 2024, attack.py).

    The rows are those where a draw of RandomState(seed) is below the rate; the same generator
    draws, row by row, what is added to them: uniform in [-range, range] times the column's standard
    deviation (population, whole set). A random reward is replaced by one in [-30, 30] ranges, an
    adversarial one is multiplied by -range. A next observation is not that of the next row any
    more, and an action may leave its bounds. The standard deviation is summed in float64 here, in
    float32 there. Other adversarial values need `critic`, an algorithm whose critic is trained on
    the data for `updates`: see `offrl.running.attacks`.
    """

    kind = "corrupt"
    bare = ("element", "mode")
    element: Literal["observations", "actions", "rewards", "next_observations"]
    mode: Literal["random", "adversarial"] = "random"
    rate: float = Field(default=0.3, gt=0, le=1)
    range: float = Field(default=1.0, gt=0, le=LARGEST)

    critic: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]+$")
    updates: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _has_its_critic(self) -> Self:
        if self.attacks != (self.critic is not None) or self.attacks != (self.updates is not None):
            expected = (
                "adversarial {element} need critic, the name of an algorithm, and updates, for "
                "which it is trained on the data"
            )
            others = "only adversarial values other than rewards take critic and updates"
            fault = expected if self.attacks else others
            raise PydanticCustomError("critic", fault, {"element": self.element})
        return self

    @property
    def attacks(self) -> bool:
        """Whether the values are those that a critic trained on the data likes least."""
        return self.mode == "adversarial" and self.element != "rewards"

    def rows(self, count: int, generator: np.random.RandomState) -> NDArray[np.int64]:
        """The rows that are corrupted, of so many; the first that the generator draws."""
        return np.flatnonzero(generator.random_sample(count) < self.rate)

    def corrupted(self, columns: Columns, rows: NDArray[np.int64], new: Any) -> Columns:
        """The rows with another column, and a note of it."""
        _check_finite(new, self, self.element)
        of = f"{len(rows):,} of {len(new):,} {self.element.replace('_', ' ')}"
        return changed(columns, f"{self}: {of} corrupted", **{self.element: new})

    def made(self, columns: Columns, others: Parts = NO_PARTS) -> Columns:  # noqa: ARG002
        """The rows, some of which are corrupted. Raises InputError where that needs a critic."""
        if self.attacks:
            raise InputError(
                f"{self}: is made by a run, or by offrl data make, which trains its critic first"
            )
        check_noise(columns, self)
        old: NDArray[np.float32] = getattr(columns, self.element)
        generator = np.random.RandomState(self.drawn)
        rows = self.rows(len(old), generator)
        new = np.array(old)
        with np.errstate(over="ignore"):  # infinity is found below
            if self.mode == "adversarial":
                new[rows] *= -self.range
            elif self.element == "rewards":
                limit = FAR * self.range
                new[rows] = generator.uniform(-limit, limit, len(rows))
            else:
                spread = spread_of(old)
                for block in _blocks(rows, len(spread)):
                    noise = generator.uniform(-self.range, self.range, (len(block), len(spread)))
                    new[block] += (noise * spread).astype(np.float32)
        return self.corrupted(columns, rows, new)


class Noise(Transform):
    """Gaussian noise on a column, of `scale` standard deviations of its own in each dimension.

    Observations are noisy as of a sensor: the one after a step is the same as in the next row
    wherever it was.
    """

    kind = "noise"
    bare = ("element",)
    element: Literal["observations", "actions", "rewards"]
    scale: float = Field(default=0.1, gt=0, le=LARGEST)

    def made(self, columns: Columns, others: Parts = NO_PARTS) -> Columns:  # noqa: ARG002
        """The rows, one column of which is noisy."""
        check_noise(columns, self)
        generator = np.random.default_rng(self.drawn)
        old = getattr(columns, self.element)
        spread = self.scale * spread_of(old)
        new: dict[str, NDArray[np.float32]] = {self.element: _noisy(old, spread, generator)}
        if self.element == "observations":
            after = _noisy(columns.next_observations, spread, generator)
            for rows in _blocks(np.arange(len(old) - 1), old.shape[1]):
                same = (columns.next_observations[rows] == old[rows + 1]).all(1)
                same &= ~(columns.terminations[rows] | columns.truncations[rows])
                after[rows[same]] = new["observations"][rows[same] + 1]
            new["next_observations"] = after
        for element, values in new.items():
            _check_finite(values, self, element)
        return changed(columns, f"{self}: Gaussian noise on all {self.element}", **new)


class Delay(Transform):
    """Rewards are summed over so many steps and given at the last of them, or the episode's."""

    kind = "delay"
    steps: int = Field(ge=2, le=LARGEST)
    seed: Literal[0] = 0  # nothing is drawn

    def parameters(self) -> dict[str, Any]:
        """Without a seed."""
        return {"steps": self.steps}

    def made(self, columns: Columns, others: Parts = NO_PARTS) -> Columns:  # noqa: ARG002
        """The rows with their rewards delayed; returns stay, but for rounding."""
        starts, lengths, _ = episode_returns(columns)
        rows = len(columns.rewards)
        first = np.flatnonzero((np.arange(rows) - np.repeat(starts, lengths)) % self.steps == 0)
        last = np.append(first[1:], rows) - 1
        rewards = np.zeros(rows, dtype=np.float32)
        with np.errstate(over="ignore"):
            rewards[last] = np.add.reduceat(np.asarray(columns.rewards, dtype=np.float64), first)
        _check_finite(rewards, self, "rewards")
        return changed(columns, f"{self}: rewards come every {self.steps} steps", rewards=rewards)


def text_of(value: Any) -> str:
    """A parameter in a name: the shortest text of which it is read again."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "..".join(map(text_of, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def episode_returns(
    columns: Columns,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The first row, the length and the return of each episode."""
    starts, lengths = episodes(columns.terminations, columns.truncations)
    returns = np.add.reduceat(np.asarray(columns.rewards, dtype=np.float64), starts)
    return starts, lengths, returns


def changed(columns: Columns, note: str, **arrays: Any) -> Columns:
    """The rows with other columns, and one more note."""
    return replace(columns, **arrays, notes=[*columns.notes, note], source=None)


def _blocks(rows: NDArray[np.int64], width: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers in blocks whose values take little memory."""
    size = max(1, BLOCK // width)
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def spread_of(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The standard deviation (population) of each dimension, in float64; (dim,) or ()."""
    return moments(values.reshape(len(values), -1))[1].reshape(values.shape[1:])


def _noisy(
    values: NDArray[np.float32], spread: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float32]:
    noisy = np.array(values)
    for block in _blocks(np.arange(len(values)), values[0].size):
        noise = generator.standard_normal((len(block), *values.shape[1:])) * spread
        with np.errstate(over="ignore"):  # infinity is found where all is noisy
            noisy[block] += noise.astype(np.float32)
    return noisy


def _check_finite(values: NDArray[np.float32], transform: Transform, element: str) -> None:
    """Raises InputError where what a transform made is larger than float32 has."""
    for block in _blocks(np.arange(len(values)), values[0].size):
        if not np.isfinite(values[block]).all():
            raise InputError(
                f"{transform}: makes {element.replace('_', ' ')} that are larger than float32 has "
                f"({np.finfo(np.float32).max:.3g}); choose smaller numbers"
            )


def check_noise(columns: Columns, transform: Transform) -> None:
    """Raises InputError where a transform would add to actions that are choices or not known."""
    if getattr(transform, "element", "") != "actions":
        return
    if columns.actions.dtype.kind == "i":
        raise InputError(f"{transform}: its actions are discrete, to which no noise can be added")
    check_known(columns, transform)


def check_known(columns: Columns, transform: Transform) -> None:
    """Raises InputError where some rows have no action, of which no deviation can be computed."""
    if not has_action(columns.actions).all():
        raise InputError(f"{transform}: some rows have no action; put drop-actions behind it")


def has_action(actions: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the action of each row is known, bool (N,); see `DropActions`."""
    known = actions >= 0 if actions.dtype.kind == "i" else ~np.isnan(actions[:, 0])
    return np.asarray(known)
