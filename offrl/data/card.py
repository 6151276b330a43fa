"""Data set cards: what a data set is, where it comes from, and what a score on it means.

A card is a TOML table. The cards of a family share a file beside their loader
(`datasets/d4rl.toml`), as `families` says. A user's own card is a TOML file anywhere, holding one
card's keys at the top level.
"""

import functools
import shlex
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from offrl import machine
from offrl.data.choices import Choices
from offrl.data.families import family_tables
from offrl.errors import InputError, unknown
from offrl.files import plain, user_path
from offrl.registry import modules, resources, simulator_plugins
from offrl.text import one_line
from offrl.toml import Strict, read_toml, validate
from offrl.trust import Files, Origin, trusted


class File(Strict):
    """One published file of a data set."""

    name: str  # plain, as `--from DIR` looks for it; without URLs, a path
    urls: list[str] = Field(default_factory=list)  # the first, then mirrors in order
    md5: str | None = None  # as published
    sha256: str | None = None  # measured where the file could be obtained
    size: int | None = Field(default=None, gt=0)  # bytes; a download that is larger is refused

    @model_validator(mode="after")
    def _stays_in_its_folder(self) -> Self:
        """A file that is downloaded has a plain name, which no temporary or lock file has."""
        if self.urls:
            try:
                hidden = plain(self.name, "name").startswith(".")
            except InputError:
                hidden = True
            if hidden:
                raise PydanticCustomError(
                    "plain",
                    "name: expected the plain name of a file, as it has urls: no separator, no "
                    "control character, no leading dot",
                )
        return self


class Source(Strict):
    """Where the transitions come from and which loader reads them.

    Either `files`, or a `maker` that makes the data, or an `id` by which the loader fetches them.
    The key `id` may also be spelled with the loader's name before it: `LOADER_id`. In a card file,
    `bases` are addresses under which files without `urls` lie by their names, mirrors in order.
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

    @model_validator(mode="before")
    @classmethod
    def _based(cls, values: Any) -> Any:
        """The values with `bases` as URLs of the files that have none."""
        bases = values.get("bases") if isinstance(values, dict) else None
        if not (isinstance(bases, list) and all(isinstance(base, str) for base in bases)):
            return values

        def addressed(file: Any) -> Any:
            if not isinstance(file, dict) or "urls" in file:
                return file
            return file | {"urls": [f"{base}{file.get('name')}" for base in bases]}

        return {
            key: [*map(addressed, value)]
            if key in ("files", "validation") and isinstance(value, list)
            else value
            for key, value in values.items()
            if key != "bases"
        }

    @property
    def fetched_id(self) -> str | None:
        """The id by which the loader fetches and keeps the data; None with files or a maker."""
        return None if self.files or self.maker else self.id

    def of_split(self, split: str) -> list[File]:
        """The files of the split "train" or "validation"."""
        return self.validation if split == "validation" else self.files


class Wrapper(Strict):
    """A wrapper around a simulator, of Gymnasium's own or offrl's."""

    entry_point: str  # "gymnasium.wrappers.transform_action:RescaleAction"
    kwargs: dict[str, Any] = Field(default_factory=dict)


class Environment(Strict):
    """The simulator that scores a policy, in Gymnasium's terms.

    A copy that `read_from` makes holds where its card was read, and whether that file is trusted.
    """

    id: str  # may carry a module: "offrl.datasets.neorl2_simulators:offrl/DMSD-v0"
    max_episode_steps: int = Field(gt=0, le=10**9)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    observation_keys: list[str] = Field(default_factory=list)  # order of a flattened dict
    wrappers: list[Wrapper] = Field(default_factory=list)  # the innermost first
    # The class that the data say they come from: compared with that of `id`; not imported. It is
    # no part of a run's identity.
    entry_point: str | None = None
    _origin: Origin = PrivateAttr(default=Origin())

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without wrappers and entry_point where there are none, as in runs recorded before."""
        values: dict[str, Any] = handler(self)
        late = ("wrappers", "entry_point")
        return {key: value for key, value in values.items() if key not in late or value}

    def read_from(self, origin: Origin) -> "Environment":
        """The same environment, of a card that was read there."""
        copy = self.model_copy()
        copy._origin = origin
        return copy

    def check_code(self) -> None:
        """Raises Untrusted where a file names code that making this environment would import.

        Gymnasium imports what stands before a colon in an id, before it looks at the rest, and
        environments that wrap others take such ids among their arguments.
        """
        values = self.model_dump(include={"id", "kwargs", "wrappers"})
        for key, value in _texts(values, "environment"):
            if key == "environment.wrappers.entry_point":
                continue  # Gymnasium's or offrl's own or none, whoever names them
            if key != "environment.id" and value.startswith(_ADDRESSES):
                continue
            module = value.rpartition(":")[0]
            if module and module not in simulator_modules():
                self._origin.allow(f"{key} = {value!r:.80}", module)


_ADDRESSES = ("/", "http://", "https://", "ftp://", "file://")  # absolute paths and URLs


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """The texts in nested values, each with its key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, key)


class Reference(Strict):
    """Raw returns that count as 0 and 100, and where they come from."""

    min: float = Field(allow_inf_nan=False)
    max: float = Field(allow_inf_nan=False)
    source: str

    @property
    def fault(self) -> str | None:
        """Why no score follows from them, or None. The data can be read all the same."""
        if self.min < self.max:
            return None
        return f"reference returns are {self.min:g} (min) and {self.max:g} (max): min must be below"


class Seen(Strict):
    """A machine on which a maker's numbers were seen."""

    processor: str  # as `machine.processor` has it
    mathematics: str  # as `machine.mathematics` has it
    packages: dict[str, str]  # versions

    @property
    def here(self) -> bool:
        """Whether this machine is of the same kind."""
        if (self.processor, self.mathematics) != (machine.processor(), machine.mathematics()):
            return False
        try:
            return all(version_of(name) == version for name, version in self.packages.items())
        except PackageNotFoundError:
            return False


class Made(Strict):
    """What a maker makes, to the bit on machines like those that are listed.

    On others the numbers of episodes and the mean return decide, within `tolerance`.
    """

    sha256: str  # of the columns, as `Columns.digest` has it
    seen: list[Seen]
    tolerance: float = Field(ge=0, lt=1)  # relative to what is expected


class Expected(Strict):
    """What a faithful copy of the published files holds, before a view leaves rows out.

    Checked after loading.
    """

    transitions: int | None = None
    episodes: int | None = None
    mean_return: float | None = None
    validation_transitions: int | None = None
    validation_episodes: int | None = None
    made: Made | None = None  # of data that a maker makes


class Card(Strict):
    """A data set's card. `id` is its name everywhere; `version` changes whenever scores would."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    title: str
    source: Source
    actions: Choices | None = None  # where they are discrete; None: continuous
    environment: Environment | None = None
    reference: Reference | None = None
    expected: Expected = Expected()
    view: str = "transitions"  # which rows are taken, one of the loader's VIEWS
    licence: str
    citation: str
    notes: str = ""  # what a user of the scores has to know
    faults: list[str] = Field(default_factory=list)  # of the data and of scores on them, as known
    # Versions of packages with which scores in the environment are valid: { mujoco = "<3.5" }.
    valid_with: dict[str, str] = Field(default_factory=dict)
    family: str = ""  # who published the data, such as "d4rl"
    group: str = ""  # the data sets with which a table averages its scores, such as "antmaze"
    _origin: Origin = PrivateAttr(default=Origin())
    _clean: "Card | None" = PrivateAttr(default=None)

    @property
    def origin(self) -> Origin:
        """Where the card was read."""
        return self._origin

    @property
    def command_name(self) -> str:
        """What a command takes for this card: the file where it was read, else its id."""
        return shlex.quote(one_line(self._origin.file or self.id))

    @property
    def clean(self) -> "Card | None":
        """The card of the data set of which an altered one is made; None for one that is not."""
        return self._clean

    def altered(self, name: str) -> "Card":
        """The card of a data set that transforms make of this one's, called `name`.

        It keeps simulator and reference returns: policies are scored as on the clean one.
        """
        copy = self.model_copy(update={"id": name, "expected": Expected()})
        copy._clean = self
        return copy

    @property
    def action_count(self) -> int | None:
        """How many discrete actions there are; None where actions are continuous."""
        return self.actions.count if self.actions else None

    @property
    def scored(self) -> bool:
        """Whether the card says how a policy is scored."""
        return self.environment is not None and self.reference is not None

    @property
    def unknown(self) -> list[str]:
        """What a card of its kind may expect of a copy, and this one does not, in words."""
        if self.source.maker is None and not (self.source.files or self.source.id):
            return []
        splits = ("", "validation_") if self.source.validation else ("",)
        keys = [f"{split}{key}" for split in splits for key in ("transitions", "episodes")]
        lacking = [key for key in [*keys, "mean_return"] if getattr(self.expected, key) is None]
        files = [*self.source.files, *self.source.validation]
        unchecked = [file.name for file in files if file.urls and not (file.md5 or file.sha256)]
        return [
            *(key.replace("_", " ") for key in lacking),
            *(f"the checksum of {name}" for name in unchecked),
        ]

    def read_from(self, origin: Origin) -> "Card":
        """The same card, read from a file that the user trusts or does not."""
        environment = self.environment.read_from(origin) if self.environment else None
        copy = self.model_copy(update={"environment": environment})
        copy._origin = origin
        return copy

    def module(self, role: Literal["loader", "maker"]) -> str | None:
        """The name of the card's loader or maker, or the path of its Python file.

        Raises Untrusted where it is a file that a card names which is not trusted.
        """
        name = self.source.loader if role == "loader" else self.source.maker
        if name is None or not name.endswith(".py"):
            return name
        path = self._origin.place(name)
        self._origin.allow(f"source.{role} = {name!r:.80}", path)
        return str(path)

    def scoring(self) -> tuple[Environment, Reference]:
        """The simulator and the reference returns.

        Raises InputError where the card lacks one, and Untrusted where its simulator is code that
        it may not name.
        """
        if self.environment is None or self.reference is None:
            lacking, advice = "environment", "give a card (TOML) that has one"
            if self.environment is not None:
                lacking = "reference"
                advice += ", where min = 0 and max = 100 make a score the return itself"
            if own := _scored_card(self.source):
                advice = f"take {own.id}, offrl's card of the same data, or {advice}"
            raise InputError(
                f"data set {self.id}: its card has no [{lacking}], so a policy cannot be scored"
                f"{_said(self)}; {advice}"
            )
        if self.reference.fault:
            raise InputError(
                f"data set {self.id}: {self.reference.fault}, so a policy cannot be scored; "
                f"correct [reference] in a card"
            )
        self.environment.check_code()
        return self.environment, self.reference


def _scored_card(source: Source) -> Card | None:
    """The shipped card of the same named data that says how a policy is scored, if there is one."""
    for card in shipped_cards().values():
        if source.id and card.source.id == source.id and card.source.loader == source.loader:
            return card if card.scored else None
    return None


def _said(card: Card) -> str:
    """What a card's notes begin with, and where to read on."""
    if not card.notes:
        return ""
    return f"; its notes (offrl show {card.command_name}) begin: {one_line(card.notes[:200])}"


def read_card(path: Path, trust: Files = ()) -> Card:
    """The card in a TOML file of the user's own.

    A file without URLs is a path on this machine; a relative one, and one of code, starts at the
    card's folder. Code that the card names runs only where `trust` has the card.
    """
    card = validate(Card, read_toml(path), str(path))
    folder = path.absolute().parent

    def path_of(name: str) -> str:
        try:
            return str(folder / user_path(name))
        except InputError as error:
            raise InputError(f"{path}: source: {error}") from None

    def placed(files: list[File]) -> list[File]:
        return [
            file if file.urls else file.model_copy(update={"name": path_of(file.name)})
            for file in files
        ]

    source = card.source.model_copy(
        update={
            "files": placed(card.source.files),
            "validation": placed(card.source.validation),
        }
    )
    origin = Origin(str(path), trusted(trust))
    return card.model_copy(update={"source": source}).read_from(origin)


def shipped_cards() -> dict[str, Card]:
    """Every card that ships in `datasets/`, by id."""
    cards: dict[str, Card] = {}
    for path in resources("datasets", ".toml"):
        cards |= _cards_of(path, path.stat().st_mtime_ns)
    return cards


@functools.lru_cache(maxsize=64)
def _cards_of(path: Path, changed: int) -> dict[str, Card]:  # noqa: ARG001 (of the cache's key)
    """The cards of a family's file, which is read again where it changed."""
    return {name: validate(Card, table, where) for name, table, where in family_tables(path)}


def simulator_modules() -> set[str]:
    """Modules that a card from anywhere may name before the colon of an environment's id.

    They ship with offrl, are named by cards that do, or register simulators through a plug-in.
    """
    return {*_shipped_simulators(), *modules("datasets").values(), *simulator_plugins()}


@functools.cache
def _shipped_simulators() -> set[str]:
    environments = [card.environment for card in shipped_cards().values() if card.environment]
    return {environment.id.rpartition(":")[0] for environment in environments}


def find_card(name: str) -> Card:
    """The shipped card called `name`. Raises InputError, with the nearest name, for another."""
    cards = shipped_cards()
    if name not in cards:
        raise unknown("data set", name, cards)
    return cards[name]
