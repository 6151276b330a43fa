"""From what a user names, an id, a path or a card, to a card."""

import re
from pathlib import Path
from typing import Any

from offrl import registry
from offrl.data.cache import (
    read_meta,
)
from offrl.data.card import Card, File, Source, find_card, read_card, shipped_cards
from offrl.data.convert import kept_conversion
from offrl.errors import InputError, unknown

LOADERS = {".hdf5": "d4rl", ".h5": "d4rl", ".npz": "neorl2"}  # of a data file given by its path


def resolve(source: str | Path | Card, view: str | None = None) -> Card:
    """The card that `source` names (see `load_dataset`), with its view replaced by `view`."""
    card = source if isinstance(source, Card) else _card(source)
    if view is not None and view != card.view:
        known = ("transitions", "qlearning")
        if view not in known:
            raise unknown("view", view, known)
        card = card.model_copy(update={"view": view})
    if card.view != "transitions" and card.source.loader != "d4rl":
        raise InputError(
            f"{card.id}: view {card.view!r} is for D4RL files; leave it out, or use 'transitions'"
        )
    return card


def _card(source: str | Path) -> Card:
    if isinstance(source, str):
        if source.startswith("minari:"):
            return _minari_card(source.removeprefix("minari:"))
        cards = shipped_cards()
        if source in cards:
            return cards[source]
    path = Path(source).expanduser()
    looks_like_path = isinstance(source, Path) or "/" in source or "\\" in source
    if not path.exists():
        if looks_like_path or path.suffix in {*LOADERS, ".toml"}:
            raise InputError(f"{path}: no such file or folder; give a path that exists, or an id")
        return find_card(str(source))  # raises, and suggests the nearest id
    path = path.absolute()
    if path.suffix == ".toml":
        return read_card(path)
    if path.is_dir():
        data = path if (path / "metadata.json").is_file() else path / "data"
        if not (data / "metadata.json").is_file():
            raise InputError(
                f"{path}: holds no data/metadata.json; expected the folder of a Minari data set"
            )
        about = registry.load("datasets", "minari", "loader").describe(data)
        name = about.pop("id", None) or path.name
        return _path_card(path, name, "minari", **about)
    if path.suffix not in LOADERS:
        raise InputError(
            f"{path}: cannot tell its format from {path.suffix or 'a name without a suffix'!r}; "
            f"expected .toml (a card), .hdf5 or .h5 (D4RL), .npz (NeoRL-2) or a Minari folder"
        )
    return _path_card(path, path.stem, LOADERS[path.suffix])


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "data"


def _path_card(path: Path, name: str, loader: str, **about: Any) -> Card:
    """The card of data given by their path: all we know of them is what they hold."""
    return Card(
        id=_slug(name),
        version=1,
        title=str(path),
        source=Source(loader=loader, files=[File(name=str(path))]),
        licence="unknown",
        citation="",
        notes="Given by its path, without a card: no checks and no reference returns.",
        **about,
    )


def _minari_card(minari_id: str) -> Card:
    loader = registry.load("datasets", "minari", "loader")
    card = Card(
        id=_slug(f"minari-{minari_id}"),
        version=1,
        title=f"Minari {minari_id}",
        source=Source(loader="minari", minari_id=minari_id),
        licence="see the data set's page at https://minari.farama.org",
        citation="",
        notes="Named by its Minari id, without a card of ours.",
    )
    if kept := kept_conversion(card, "train"):
        return Card.model_validate(read_meta(kept)["card"])
    about = loader.describe(loader.fetch(minari_id))
    about.pop("id", None)
    return card.model_copy(update=about)
