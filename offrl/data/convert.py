"""Step 3 of loading: the loader reads the source, once; checks, then the cache is written."""

import dataclasses
import logging
import math
from pathlib import Path

import numpy as np

from offrl import machine
from offrl.data.cache import (
    NotCached,
    cache_folder,
    cached_folder,
    digest,
    loader_key,
    lock,
    open_columns,
    write_columns,
)
from offrl.data.card import Card
from offrl.data.columns import NAMES, Columns, Totals, check_columns, totals
from offrl.data.foreign import check_ordinary, reading
from offrl.data.loader import DAMAGED, check_format, loader_of
from offrl.errors import InputError
from offrl.version import __version__

log = logging.getLogger(__name__)


def convert(card: Card, split: str, paths: list[Path], *, check: bool = False) -> Path:
    """The folder of the cache to which the files of a split were read, by whichever process.

    With `check` a folder whose checksums differ is read again; see `open_columns`.
    """
    folder = cached_folder(card, split)
    with lock(folder):
        try:
            open_columns(folder, check=check)
            return folder  # another process was faster
        except NotCached as reason:
            if folder.exists():
                log.warning("%s; the data set is converted again", reason)
        log.info("%s: reading %s", card.id, ", ".join(map(str, paths)))
        columns = _joined([_read(card, path) for path in paths])
        source = _source_totals(columns)
        check_expected(card, split, source)
        unseen = check_made(card, columns)
        files = [
            {"path": str(path), "sha256": digest(path) if path.is_file() else None}
            for path in paths  # a folder keeps its place, so that the others keep theirs
        ]
        unchecked = [
            f"{file.name} has no published checksum; its SHA-256 here is {entry['sha256']}"
            for file, entry in zip(card.source.of_split(split), files, strict=False)
            if file.urls and not (file.md5 or file.sha256)
        ]
        meta = {
            "offrl": __version__,
            "card": card.model_dump(mode="json"),
            "origin": card.origin.file,
            "loader_key": loader_key(card, split),
            "split": split,
            "files": files,
            "totals": dataclasses.asdict(source),
            "notes": [*unchecked, *unseen, *columns.notes],
        }
        write_columns(folder, columns.arrays(), meta)
    return folder


def _read(card: Card, path: Path) -> Columns:
    """The columns of one file or folder."""
    loader = loader_of(card)
    advice = DAMAGED
    if cache_folder() in path.parents:
        advice = f"the copy here is damaged: delete it, then `offrl data fetch {card.command_name}`"
        if card.source.maker:
            advice = f"make it again: `offrl data make {card.command_name} --again`"
    with reading(path, f"{card.source.loader} data", advice):
        check_format(card, path)
        check_ordinary(path)
        columns = loader.read(path, card)
        check_columns(columns, path, card.action_count)
    return columns


def _source_totals(columns: Columns) -> Totals:
    """Totals of what a loader read, before a view left rows out."""
    return columns.source or totals(columns.rewards, columns.terminations, columns.truncations)


def _joined(parts: list[Columns]) -> Columns:
    """The columns of a split's files, one after another."""
    if len(parts) == 1:
        return parts[0]
    widths = {(p.observations.shape[1], *p.actions.shape[1:]) for p in parts}
    if len(widths) != 1:
        raise InputError(f"the files of a data set differ in (observation, action) size: {widths}")
    sources = [_source_totals(part) for part in parts]
    count = sum(source.episodes for source in sources)
    return Columns(
        **{name: np.concatenate([getattr(p, name) for p in parts]) for name in NAMES},
        notes=[note for p in parts for note in p.notes],
        source=Totals(
            transitions=sum(source.transitions for source in sources),
            episodes=count,
            mean_return=sum(source.mean_return * source.episodes for source in sources) / count,
        ),
    )


def check_made(card: Card, columns: Columns) -> list[str]:
    """What there is to say of columns that a maker made: nothing where all bits are the card's.

    Raises InputError where they are not, on a machine like one on which they were seen.
    """
    made = card.expected.made
    if made is None or (found := columns.digest()) == made.sha256:
        return []
    if any(seen.here for seen in made.seen):
        raise InputError(
            f"{card.id}: the digest of the columns is {found}, but {made.sha256} was seen on "
            f"{machine.processor()} with {machine.mathematics()} and these versions; make it "
            f"again (offrl data make {card.command_name} --again), or correct the card"
        )
    return [
        f"other bits than the card's, which were seen with another processor, C library or version "
        f"of a package: digest of the columns {found}, made on "
        f"{machine.processor() or 'an unknown processor'} with {machine.mathematics()}; counts and "
        f"mean return are the card's within {made.tolerance:.2%}"
    ]


class Unexpected(InputError):
    """The source holds something else than its card expects."""


def differences(card: Card, split: str, source: Totals) -> list[str]:
    """What a source holds that its card expects otherwise, in words.

    Mean returns are compared to 1e-5 of their size, or 0.001: cards give three decimals, and
    published means were summed in float32. Where a maker makes them, the card gives a tolerance
    for mean returns and numbers of episodes.
    """
    expected = card.expected
    tolerance = expected.made.tolerance if expected.made else 0.0
    counts = [
        ("transitions", source.transitions, expected.transitions),
        ("episodes", source.episodes, expected.episodes),
    ]
    if split == "validation":
        counts = [
            ("validation transitions", source.transitions, expected.validation_transitions),
            ("validation episodes", source.episodes, expected.validation_episodes),
        ]
    differing = []
    for what, seen, wanted in counts:
        allowed = tolerance * wanted if wanted and what == "episodes" else 0
        if wanted is not None and abs(seen - wanted) > allowed:
            differing.append(f"{seen:,} {what}, expected {wanted:,}")
    mean = expected.mean_return
    if (
        split == "train"
        and mean is not None
        and not math.isclose(source.mean_return, mean, rel_tol=max(1e-5, tolerance), abs_tol=1e-3)
    ):
        differing.append(f"mean return {source.mean_return:.6g}, expected {mean:.6g}")
    return differing


def check_expected(card: Card, split: str, source: Totals) -> None:
    """Raises Unexpected where the source holds something else than its card expects."""
    if differing := differences(card, split, source):
        raise Unexpected(
            f"{card.id}: {differing[0]}; the data are not those of card version {card.version}: "
            f"fetch them again, or correct the card"
        )
