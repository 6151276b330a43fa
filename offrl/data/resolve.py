"""Step 1 of loading: what a user means by an id, a path, a name or a card, as a card."""

import re
import shlex
from pathlib import Path
from typing import Any

from offrl.data.altered import KINDS, is_altered, joined, parted
from offrl.data.cache import cached_folder, kept_card
from offrl.data.card import Card, File, Source, read_card, shipped_cards
from offrl.data.foreign import check_ordinary, reading
from offrl.data.loader import (
    DAMAGED,
    Describes,
    Fetches,
    Loader,
    NamesChoices,
    Recognises,
    loader_and_name,
    loader_of,
    loaders,
)
from offrl.errors import InputError, unknown
from offrl.files import user_path
from offrl.toml import validate
from offrl.trust import Files, Origin, trusted

_BY_PATH = "Given by its path, without a card: no checks and no reference returns."


def resolve(source: str | Path | Card, view: str | None = None, trust: Files = ()) -> Card:
    """The card that `source` names (see `load_dataset`), with its view replaced by `view`.

    Raises InputError where there is none, or where its loader has no such view, and Untrusted where
    its loader is code that it may not name.
    """
    files = trusted(trust)
    if (isinstance(source, Card) and source.clean) or (
        isinstance(source, str) and is_altered(source)
    ):
        name = source.id if isinstance(source, Card) else source
        raise InputError(
            f"{name}: is made of {parted(name)[0]} when it is loaded, and has no source of its "
            f"own; give the latter, or export it: offrl data export {shlex.quote(name)} --to FILE"
        )
    if isinstance(source, Card):
        origin = source.origin
        card = source.read_from(Origin(origin.file, (*origin.trust, *files))) if files else source
    else:
        card = _card(source, files)
    if view is not None:
        card = card.model_copy(update={"view": view})
    loader_of(card)  # raises unless it is a loader with this view
    return card


def is_path(source: str) -> bool:
    """Whether a text is a path by its looks, rather than an id or `LOADER:NAME`."""
    if loader_and_name(source):
        return False
    suffix = Path(source).suffix
    return "/" in source or "\\" in source or suffix == ".toml" or bool(_readers(suffix))


def id_of(source: str) -> str:
    """The id of the card that a text names; the text where it is no path, or holds no card."""
    name, transforms = parted(source)
    if not is_path(name):
        return source
    try:
        return joined(resolve(name).id, transforms)
    except InputError:  # whoever loads it says what is wrong
        return source


def _card(source: str | Path, trust: tuple[str, ...]) -> Card:
    if isinstance(source, str):
        if named := loader_and_name(source):
            return _named(*named).read_from(Origin(source, trust))
        if not is_path(source) and source in (cards := shipped_cards()):
            return cards[source]
    path = user_path(source)
    if not path.exists():
        of = str(source).rpartition("+")[0]
        if of and (of in shipped_cards() or user_path(of).exists()):
            raise InputError(
                f"{source}: a transform behind {of} is written as KIND[...], such as "
                f"{shlex.quote(f'{of}+noise[rewards,scale=0.1]')}; the kinds are "
                f"{', '.join(sorted(KINDS))}"
            )
        if isinstance(source, Path) or is_path(source):
            raise InputError(f"{path}: no such file or folder; give a path that exists, or an id")
        names = [f"{name}:ID" for name, loader in loaders().items() if isinstance(loader, Fetches)]
        raise unknown("data set", source, shipped_cards(), ", or ".join(["or give a path", *names]))
    path = path.absolute()
    if not path.is_dir():  # a folder's files are looked at when they are read
        check_ordinary(path)
    if path.suffix == ".toml":
        return read_card(path, trust)
    card = _folder(path) if path.is_dir() else _file(path)
    return card.read_from(Origin(str(path), trust))


def _named(loader: str, name: str) -> Card:
    """A card for data given as `LOADER:NAME`; that of the cache where the data are gone."""
    card = Card(
        id=_slug(f"{loader}-{name}"),
        version=1,
        title=f"{loader}:{name}",
        source=Source(loader=loader, id=name),
        licence="unknown",
        citation="",
        notes="Given by its name, without a card: no checks of its numbers.",
    )
    if kept := kept_card(card):
        return kept
    return card.model_copy(update=_description(loader, name) | {"id": card.id})


def _file(path: Path) -> Card:
    readers = _readers(path.suffix)
    if not readers:
        formats = [
            f"{' or '.join(loader.SUFFIXES)} ({name})"
            for name, loader in loaders().items()
            if loader.SUFFIXES
        ]
        folders = [name for name, loader in loaders().items() if isinstance(loader, Describes)]
        raise InputError(
            f"{path}: cannot tell its format from {path.suffix or 'a name without a suffix'!r}; "
            f"expected .toml (a card), {', '.join(formats)} or a folder ({', '.join(folders)}); a "
            "table of your own comes in by offrl data import"
        )
    reader = readers[0] if len(readers) == 1 else _recognised(path, readers)
    return _path_card(path, reader, _description(reader, path))


def _recognised(path: Path, readers: list[str]) -> str:
    """The one of several loaders of a suffix that finds its columns in a file."""
    for name in readers:  # a later load reads no source
        if cached_folder(_path_card(path, name, {})).is_dir():
            return name
    every = loaders()
    lacking: dict[str, list[str]] = {name: [] for name in readers}
    recognising = {
        name: loader for name in readers if isinstance(loader := every[name], Recognises)
    }
    if len(recognising) == len(readers):
        with reading(path, f"{' or '.join(readers)} data", DAMAGED):
            lacking = {name: loader.lacking(path) for name, loader in recognising.items()}
    found = [name for name, columns in lacking.items() if not columns]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{path}: loaders {' and '.join(found)} read {path.suffix} files; give a card (TOML) "
            "whose source.loader names one of them"
        )
    nearest = sorted(lacking.items(), key=lambda pair: len(pair[1]))
    if len(nearest[0][1]) == 1 < len(nearest[1][1]):  # it says itself what is amiss
        return nearest[0][0]
    reasons = [f"{name} needs {', '.join(columns)} too" for name, columns in nearest]
    raise InputError(
        f"{path}: no loader reads its columns: {'; '.join(reasons)}; rename them, or give a card "
        f"(TOML) with a loader of your own"
    )


def _folder(path: Path) -> Card:
    """A card for a folder, of the first loader that finds its format in it."""
    reasons = []
    for name, loader in loaders().items():
        if isinstance(loader, Describes):
            try:
                return _path_card(path, name, _description(name, path))
            except InputError as error:
                if _is_of(name, loader, path):
                    raise
                reasons.append(str(error))
    raise InputError("; ".join(reasons) or f"{path}: is a folder, and no loader reads folders")


def _is_of(name: str, loader: Loader, path: Path) -> bool:
    """Whether a folder is of a loader's format, whatever is wrong with it."""
    if not isinstance(loader, Recognises):
        return False
    try:
        with reading(path, f"{name} data", DAMAGED):
            return not loader.lacking(path)
    except InputError:
        return False


def _description(name: str, source: str | Path) -> dict[str, Any]:
    """What a loader finds in the data for their card."""
    loader = loaders()[name]
    with reading(source, f"{name} data", DAMAGED):
        if isinstance(loader, Describes):
            return loader.card(source)
        if isinstance(loader, NamesChoices) and isinstance(source, Path):
            return {"actions": choices} if (choices := loader.choices(source)) else {}
    return {}


def _readers(suffix: str) -> list[str]:
    """The loaders of files with a suffix, given by their path."""
    if not suffix:
        return []
    return [name for name, loader in loaders().items() if suffix in loader.SUFFIXES]


def _path_card(path: Path, loader: str, about: dict[str, Any]) -> Card:
    """A card for data given by path: no checks, no references but those of the data themselves."""
    name = path.name if path.is_dir() else path.stem
    keys: dict[str, Any] = {
        "id": name,
        "version": 1,
        "title": str(path),
        "source": Source(loader=loader, files=[File(name=str(path))]),
        "licence": "unknown",
        "citation": "",
    } | about
    keys["notes"] = " ".join(filter(None, [_BY_PATH, about.get("notes")]))
    return validate(Card, keys | {"id": _slug(keys["id"])}, str(path))


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "data"
