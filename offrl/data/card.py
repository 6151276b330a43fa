"""Data set cards: what a data set is, where it comes from, and what a score on it means.

A card is a TOML table. The cards of a family share a file beside their loader
(`datasets/d4rl.toml`): `[defaults]` for the family and one table per data set, merged key by key. A
user's own card is a TOML file anywhere, holding one card's keys at the top level.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from offrl.errors import InputError, unknown
from offrl.files import plain
from offrl.registry import resources
from offrl.toml import Strict, read_toml, validate


class File(Strict):
    """One published file of a data set."""

    name: str  # plain, as `--from DIR` looks for it; without URLs, a path
    urls: list[str] = Field(default_factory=list)  # the first, then mirrors in order
    md5: str | None = None  # as published
    sha256: str | None = None  # measured where the file could be obtained

    @model_validator(mode="after")
    def _stays_in_its_folder(self) -> Self:
        """A file that is downloaded has a plain name, which no temporary or lock file has."""
        if self.urls:
            try:
                plain(self.name, "name")
            except InputError as error:
                raise PydanticCustomError("plain", "{error}", {"error": str(error)}) from None
            if self.name.startswith("."):
                raise PydanticCustomError("hidden", "name: expected one without a leading dot")
        return self


class Source(Strict):
    """Where the transitions come from and which loader reads them.

    Either `files`, or a `maker` that makes the data, or an `id` by which the loader fetches them.
    The key `id` may also be spelled with the loader's name before it: `LOADER_id`.
    """

    loader: str  # a module of offrl.datasets that follows the contract of offrl/data/loader.py
    files: list[File] = Field(default_factory=list)  # the training data
    validation: list[File] = Field(default_factory=list)  # a published validation split
    id: str | None = None
    maker: str | None = None  # a module of offrl.datasets that makes the data

    @model_validator(mode="before")
    @classmethod
    def _plain_id(cls, values: Any) -> Any:
        """The values with `LOADER_id`, as cards of the first format have it, under `id`."""
        if not isinstance(values, dict) or "id" in values:
            return values
        spelled = f"{values.get('loader')}_id"
        return {"id" if key == spelled else key: value for key, value in values.items()}

    @property
    def fetched_id(self) -> str | None:
        """The id by which the loader fetches and keeps the data; None with files or a maker."""
        return None if self.files or self.maker else self.id

    def of_split(self, split: str) -> list[File]:
        """The files of the split "train" or "validation"."""
        return self.validation if split == "validation" else self.files


class Environment(Strict):
    """The simulator that scores a policy, in Gymnasium's terms."""

    id: str  # may carry a module: "offrl.datasets.neorl2_simulators:offrl/DMSD-v0"
    max_episode_steps: int = Field(gt=0)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    observation_keys: list[str] = Field(default_factory=list)  # order of a flattened dict


class Reference(Strict):
    """Raw returns that count as 0 and 100, and where they come from."""

    min: float = Field(allow_inf_nan=False)
    max: float = Field(allow_inf_nan=False)
    source: str

    @model_validator(mode="after")
    def _apart(self) -> "Reference":
        if self.min >= self.max:  # a score would be infinite, not a number or upside down
            raise PydanticCustomError("apart", "expected min below max")
        return self


class Expected(Strict):
    """What a faithful copy of the published files holds, before a view leaves rows out.

    Checked after loading.
    """

    transitions: int | None = None
    episodes: int | None = None
    mean_return: float | None = None
    validation_transitions: int | None = None
    validation_episodes: int | None = None


class Card(Strict):
    """A data set's card. `id` is its name everywhere; `version` changes whenever scores would."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    title: str
    source: Source
    environment: Environment | None = None
    reference: Reference | None = None
    expected: Expected = Expected()
    view: str = "transitions"  # which rows are taken, one of the loader's VIEWS
    licence: str
    citation: str
    notes: str = ""  # what a user of the scores has to know

    def scoring(self) -> tuple[Environment, Reference]:
        """The simulator and the reference returns. Raises InputError where the card lacks one."""
        if self.environment is None or self.reference is None:
            lacking = "environment" if self.environment is None else "reference"
            raise InputError(
                f"data set {self.id}: its card has no [{lacking}], so a policy cannot be scored"
                f"{f'; its notes may say why (offrl show {self.id})' if self.notes else ''}; give "
                "a card (TOML) that has one"
            )
        return self.environment, self.reference


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def read_card(path: Path) -> Card:
    """The card in a TOML file of the user's own.

    A file without URLs is a path on this machine; a relative one starts at the card's folder.
    """
    card = validate(Card, read_toml(path), str(path))
    folder = path.absolute().parent

    def placed(files: list[File]) -> list[File]:
        return [
            file if file.urls else file.model_copy(update={"name": str(folder / file.name)})
            for file in files
        ]

    source = card.source.model_copy(
        update={
            "files": placed(card.source.files),
            "validation": placed(card.source.validation),
        }
    )
    return card.model_copy(update={"source": source})


def shipped_cards() -> dict[str, Card]:
    """Every card that ships in `datasets/`, by id."""
    cards: dict[str, Card] = {}
    for path in resources("datasets", ".toml"):
        tables = read_toml(path)
        defaults = tables.pop("defaults", {})
        for name, table in tables.items():
            where = f"{path}: [{name}]"
            if not isinstance(table, dict):
                raise InputError(f"{where}: expected a table per data set, found {table!r}")
            cards[name] = validate(Card, {"id": name, **_merge(defaults, table)}, where)
    return cards


def find_card(name: str) -> Card:
    """The shipped card called `name`. Raises InputError, with the nearest name, for another."""
    cards = shipped_cards()
    if name not in cards:
        raise unknown("data set", name, cards)
    return cards[name]
