"""Reads a data set's files once, with the card's loader, into the cache."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from offrl import registry
from offrl.data.cache import (
    FORMAT,
    NotCached,
    cache_folder,
    digest,
    lock,
    open_columns,
    read_meta,
    write_columns,
)
from offrl.data.card import Card, File
from offrl.data.columns import NAMES, Columns, Totals, totals
from offrl.data.fetch import fetch, fetch_file, from_minari
from offrl.errors import InputError
from offrl.progress import Progress
from offrl.version import __version__

log = logging.getLogger(__name__)


def source_files(card: Card, split: str) -> list[File]:
    """The files of one split."""
    return card.source.validation if split == "validation" else card.source.files


def _stamp(path: Path) -> list[Any]:
    """Path, sizes and modification times of a local file or folder: they change when it does."""
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [str(path), *((p.stat().st_size, p.stat().st_mtime_ns) for p in inside)]


def _identity(card: Card, file: File) -> Any:
    """What tells a file from another version of itself without reading it."""
    if checksum := file.sha256 or file.md5:
        return checksum.lower()
    path = Path(file.name)
    if path.is_absolute():
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; {card.id} reads its data from there")
        return _stamp(path)
    return [file.name, *file.urls]


def cached_folder(card: Card, split: str = "train") -> Path:
    """The folder of the cache that holds this data set, or will."""
    key: list[Any] = [FORMAT, card.source.loader, card.view, split]
    key += [_identity(card, file) for file in source_files(card, split)]
    key += [card.source.maker, card.source.minari_id]
    if from_minari(card):
        local = _local_minari(card)
        key.append(_stamp(local) if local is not None else None)
    if card.environment is not None:  # both decide how a loader reads
        key += [card.environment.observation_keys, card.environment.max_episode_steps]
    text = json.dumps(key, sort_keys=True)
    short = hashlib.sha256(text.encode()).hexdigest()[:10]
    middle = "" if split == "train" else f"-{split}"
    return cache_folder() / "datasets" / f"{card.id}-v{card.version}{middle}-{short}"


def _local_minari(card: Card) -> Path | None:
    loader = registry.load("datasets", card.source.loader, "loader")
    folder: Path | None = loader.locate(card.source.minari_id)
    return folder


def kept_conversion(card: Card, split: str) -> Path | None:
    """A conversion of a Minari data set that Minari itself no longer holds here, or None."""
    if not from_minari(card) or _local_minari(card) is not None:
        return None
    folders = (cache_folder() / "datasets").glob(f"{card.id}-v{card.version}-*")
    for folder in sorted(folders, key=lambda f: f.stat().st_mtime, reverse=True):
        with contextlib.suppress(NotCached, KeyError, InputError):
            told = Card.model_validate(read_meta(folder)["card"])
            if told.source == card.source and told.view == card.view and split == "train":
                return folder
    return None


def _loader(card: Card) -> ModuleType:
    try:
        loader = registry.load("datasets", card.source.loader, "loader")
    except InputError as error:
        raise InputError(f"card {card.id}: {error}") from None
    if not hasattr(loader, "read"):
        raise InputError(
            f"card {card.id}: source.loader: {card.source.loader!r} reads no files; expected a "
            "loader such as minari, d4rl or neorl2"
        )
    return loader


def convert(card: Card, split: str, progress: Progress | None) -> Path:
    """The folder of the cache to which the source was read, once, whoever came first."""
    if card.source.files or split == "validation":
        paths = [fetch_file(card, file, None, progress) for file in source_files(card, split)]
    else:
        paths = fetch(card, None, progress)
    loader = _loader(card)
    folder = cached_folder(card, split)
    with lock(folder):
        try:
            open_columns(folder)
            return folder  # another process was faster
        except NotCached as reason:
            if folder.exists():
                log.warning("%s; the data set is converted again", reason)
        log.info("%s: reading %s", card.id, ", ".join(map(str, paths)))
        read = _joined([loader.read(path, card) for path in paths])
        before = read.source or totals(read.rewards, read.terminations, read.truncations)
        check_expected(card, split, before)
        files = [{"path": str(path), "sha256": digest(path)} for path in paths if path.is_file()]
        unchecked = [
            f"{file.name} has no published checksum; its SHA-256 here is {told['sha256']}"
            for file, told in zip(source_files(card, split), files, strict=False)
            if file.urls and not (file.md5 or file.sha256)
        ]
        meta = {
            "offrl": __version__,
            "card": card.model_dump(mode="json"),
            "split": split,
            "files": files,
            "totals": dataclasses.asdict(before),
            "notes": [*unchecked, *read.notes],
        }
        write_columns(folder, read.arrays(), meta)
    return folder


def _joined(parts: list[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    widths = {(p.observations.shape[1], p.actions.shape[1]) for p in parts}
    if len(widths) != 1:
        raise InputError(f"the files of a data set differ in (observation, action) size: {widths}")
    before = [p.source or totals(p.rewards, p.terminations, p.truncations) for p in parts]
    count = sum(t.episodes for t in before)
    return Columns(
        **{name: np.concatenate([getattr(p, name) for p in parts]) for name in NAMES},
        notes=[note for p in parts for note in p.notes],
        source=Totals(
            transitions=sum(t.transitions for t in before),
            episodes=count,
            mean_return=sum(t.mean_return * t.episodes for t in before) / count,
        ),
    )


def check_expected(card: Card, split: str, found: Totals) -> None:
    """Raises InputError where the source holds something else than its card expects.

    Mean returns are compared to 1e-5 of their size, or 0.001: cards give three decimals, and
    published means were summed in float32.
    """
    expected = card.expected
    counts = [
        ("transitions", found.transitions, expected.transitions),
        ("episodes", found.episodes, expected.episodes),
    ]
    if split == "validation":
        counts = [
            ("validation transitions", found.transitions, expected.validation_transitions),
            ("validation episodes", found.episodes, expected.validation_episodes),
        ]
    for what, seen, wanted in counts:
        if wanted is not None and seen != wanted:
            raise InputError(
                f"{card.id}: {seen:,} {what}, expected {wanted:,}; the data are not those of card "
                f"version {card.version}: fetch them again, or correct the card"
            )
    mean = expected.mean_return
    if (
        split == "train"
        and mean is not None
        and not math.isclose(found.mean_return, mean, rel_tol=1e-5, abs_tol=1e-3)
    ):
        raise InputError(
            f"{card.id}: mean return {found.mean_return:.6g}, expected {mean:.6g}; the data are "
            f"not those of card version {card.version}: fetch them again, or correct the card"
        )
