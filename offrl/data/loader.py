"""The contract of a loader, and which loader reads what.

A loader reads one format. It is a module of `datasets/`, or of an installed package by an entry
point of the group `offrl.datasets`, and holds

    SUFFIXES    the suffixes of files that, given by their path alone, are of this format
    VIEWS       names of choices of rows; the first, "transitions", is every row
    read        reads one file or folder

and, where the format has more to offer, `card` (see `Describes`), `choices` (see `NamesChoices`),
`lacking` (see `Recognises`), `steps` (see `Replays`), `write` (see `Writes`) and `fetch` with
`stamp` (see `Fetches`). `VERSION`
is a whole number, 1 where there is none, which is raised whenever the same file would be read
otherwise: what is cached is then read again. What a loader raises on foreign bytes becomes one line
in `offrl.data.foreign`, so it catches nothing itself. Nothing else in offrl depends on a format.
All loaders are imported to find the one of a path: a loader imports a slow library inside the
function that needs it.
"""

import functools
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast, runtime_checkable

from offrl import registry
from offrl.data.card import Card
from offrl.data.choices import Choices
from offrl.data.columns import Columns
from offrl.data.foreign import parts, reading
from offrl.data.steps import Steps
from offrl.errors import InputError, unknown

log = logging.getLogger(__name__)


@runtime_checkable
class Loader(Protocol):
    """A module that reads one format."""

    SUFFIXES: Sequence[str]
    VIEWS: Sequence[str]

    def read(self, path: Path, card: Card) -> Columns:
        """The rows of a file or folder in the view `card.view`, checked.

        Raises InputError where something in it is wrong, and anything else where a library does.
        """


@runtime_checkable
class Describes(Protocol):
    """A loader of data that describe themselves, such as folders with metadata."""

    def card(self, source: str | Path) -> dict[str, Any]:
        """Keys of a card for data that have none, such as id, environment and reference.

        `source` is a path, or a name that `fetch` takes. Raises InputError where a folder is not of
        this format.
        """


@runtime_checkable
class NamesChoices(Protocol):
    """A loader of files that have no card, but may say how many discrete actions there are."""

    def choices(self, path: Path) -> Choices | None:
        """The discrete actions of a file; None where it says nothing. Raises InputError for odd."""


@runtime_checkable
class Recognises(Protocol):
    """A loader that finds out whether a file or folder is of its format without reading it whole.

    Loaders that share a suffix are told apart so, and a folder is looked through only then.
    """

    def lacking(self, path: Path) -> list[str]:
        """The names of columns or files that `path` lacks; empty where it is of this format."""


@runtime_checkable
class Replays(Protocol):
    """A loader whose files may hold the states of the simulator that made them."""

    def steps(self, path: Path, card: Card, most: int) -> Steps | None:
        """Up to `most` steps, from all parts of a file or folder; None where it holds no states."""


@runtime_checkable
class Writes(Protocol):
    """A loader that writes its format too, so that `read` gives back each number as it was."""

    WRITES: Sequence[str]  # suffixes of files that it writes; "" is a folder

    def write(self, path: Path, columns: Columns, card: Card) -> None:
        """Writes rows to a new file, which is empty, or to an empty folder.

        Raises InputError for rows that the format cannot hold.
        """


@runtime_checkable
class Fetches(Protocol):
    """A loader that fetches data by name, given as `LOADER:NAME` or as `source.id` of a card."""

    def fetch(self, name: str, folder: Path | None) -> Path:
        """The path of the data called `name`, brought here where they are missing.

        `folder` is a place to take them from instead of the network, where the user gave one.
        Raises InputError where they cannot be had.
        """

    def stamp(self, name: str) -> Any:
        """A value of JSON that changes when the data do; None where they are not here."""


def loader_of(card: Card) -> Loader:
    """The loader that a card names. Raises InputError unless it is one, with the card's view.

    Raises Untrusted where it is a file of code that the card may not name.
    """
    name = card.module("loader")
    assert name is not None
    try:
        module = registry.load("datasets", name, "loader")
    except InputError as error:
        raise InputError(f"card {card.id}: {error}") from None
    if not isinstance(module, Loader):
        lacking = [part for part in ("SUFFIXES", "VIEWS", "read") if not hasattr(module, part)]
        raise InputError(
            f"card {card.id}: source.loader: {name!r} is no loader (it has no "
            f"{', '.join(lacking)}); expected a loader such as {', '.join(loaders())}"
        )
    if card.view not in module.VIEWS:
        raise InputError(
            f"card {card.id}, loader {name!r}: {unknown('view', card.view, module.VIEWS)}"
        )
    return module


DAMAGED = "it is no such data, or damaged: copy it from its source or write it again"


def check_format(card: Card, path: Path, *, files: bool = False) -> None:
    """Raises InputError where a folder is not of the format of a card's loader, if that can say.

    So no folder is looked through that holds other things, such as a whole disk. With `files` it
    looks into a file too, which may be none, or broken off.
    """
    loader = loader_of(card)
    if isinstance(loader, Recognises) and (files or path.is_dir()):
        with reading(path, f"{card.source.loader} data", DAMAGED):
            if lacking := loader.lacking(path):
                raise InputError(f"{path}: lacks {', '.join(lacking)}; {DAMAGED}")


def fetcher_of(card: Card) -> Fetches:
    """The loader that fetches a card's data by `source.id`. Raises InputError where none does."""
    loader = loader_of(card)
    if not isinstance(loader, Fetches):
        raise InputError(
            f"card {card.id}: loader {card.source.loader!r} fetches nothing by source.id "
            f"({card.source.id!r}); give source.files"
        )
    return loader


def loader_and_name(source: str) -> tuple[str, str] | None:
    """The two parts of `LOADER:NAME`, where that loader fetches by name; None for another text."""
    loader, colon, name = source.partition(":")
    if not colon or loader not in registry.modules("datasets"):
        return None
    module = registry.load("datasets", loader, "loader")
    return (loader, name) if isinstance(module, Fetches) else None


def writer_of(path: Path) -> tuple[str, Writes]:
    """The loader that writes files of a name, and its name; raises InputError where none does."""
    writers = {name: loader for name, loader in loaders().items() if isinstance(loader, Writes)}
    for name, loader in writers.items():
        if path.suffix in loader.WRITES:
            return name, loader
    formats = [
        f"{suffix or 'a name without a suffix, for a folder'} ({name})"
        for name, loader in writers.items()
        for suffix in loader.WRITES
    ]
    raise InputError(f"{path}: no loader writes such files; expected {', '.join(formats)}")


def loaders() -> dict[str, Loader]:
    """Every loader by name; one that cannot be imported is left out, with a warning.

    The folder holds makers and simulators too, which take long to import: a module whose source
    assigns no SUFFIXES is no loader and is not imported.
    """
    every: dict[str, Loader] = {}
    for name, module_name in registry.modules("datasets").items():
        try:
            module = registry.load("datasets", name, "loader") if _reads(module_name) else None
        except (Exception, SystemExit) as error:  # of whatever an installed package does
            text = " ".join(str(error).split()) or type(error).__name__
            _warn(f"the plug-in {name!r} reads no data: {text}")
            continue
        if module is not None and _is_loader(module):
            every[name] = cast(Loader, module)
    return every


@functools.cache  # it looks for every attribute of the protocol
def _is_loader(module: ModuleType) -> bool:
    return isinstance(module, Loader)


@functools.cache
def _reads(module_name: str) -> bool:
    """Whether the source of a module assigns SUFFIXES, as loaders do; it is not imported."""
    spec = importlib.util.find_spec(module_name)  # imports the packages above it
    if spec is None or spec.origin is None or not spec.has_location:
        return False
    lines = Path(spec.origin).read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.startswith("SUFFIXES") for line in lines)


@functools.cache
def _warn(text: str) -> None:
    """Logs a warning once per process."""
    log.warning("%s", text)


def path_stamp(path: Path) -> list[Any]:
    """Path, sizes and modification times of a file or folder here: they change when it does."""
    inside = sorted(p for p in parts(path) if p.is_file()) if path.is_dir() else [path]
    return [str(path), *((p.stat().st_size, p.stat().st_mtime_ns) for p in inside)]
