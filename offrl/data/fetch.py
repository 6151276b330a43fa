"""Step 2 of loading: the bytes here, from URLs, a folder, a maker, or through the card's loader."""

import json
import logging
import os
import shutil
import traceback
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from offrl import registry
from offrl.data.cache import (
    ADVICE,
    digest,
    download_path,
    earlier_download_paths,
    lock,
    made_folder,
    making_path,
    writing,
)
from offrl.data.card import Card, File
from offrl.data.download import download
from offrl.data.foreign import check_ordinary, reading
from offrl.data.loader import DAMAGED, check_format, fetcher_of
from offrl.errors import InputError, is_interrupt
from offrl.files import below
from offrl.progress import Progress
from offrl.text import one_line

log = logging.getLogger(__name__)


def fetch(
    card: Card, directory_from: Path | None = None, progress: Progress | None = None
) -> list[Path]:
    """The paths of a card's data on this machine, brought here where they are missing.

    Args:
        card: the data set; its training data come first, then the files of its validation split.
        directory_from: a folder to take the files from instead of the network. A file is taken by
            its name, else by its checksum among the folder's files of the same suffix.
        progress: called with bytes done and bytes in all, for each download anew.

    Raises InputError where a file cannot be had or its checksum differs. What came of a download
    that broke off stays for the next attempt where the card has a checksum.
    """
    splits = ["train", "validation"] if card.source.validation else ["train"]
    return [path for split in splits for path in fetch_split(card, split, directory_from, progress)]


def fetch_split(
    card: Card,
    split: str,
    directory_from: Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """The paths of one split, "train" or "validation"; see `fetch`."""
    if directory_from is not None and not directory_from.is_dir():
        raise InputError(f"{directory_from}: no such folder; --from takes the folder of the files")
    if files := card.source.of_split(split):
        return [_fetch_file(card, file, directory_from, progress) for file in files]
    if card.source.maker:
        return [make(card, progress)]
    if name := card.source.fetched_id:
        with reading(name, f"{card.source.loader} data", "try again, or give it by its path"):
            return [fetcher_of(card).fetch(name, directory_from)]
    raise InputError(f"card {card.id}: source: expected files, a maker or an id; it has none")


def _fetch_file(
    card: Card, file: File, directory_from: Path | None, progress: Progress | None
) -> Path:
    """The path of one file of a card, brought here where it is missing and checked either way."""
    what = f"{card.source.loader} data"
    if Path(file.name).is_absolute():  # a user's own card, or a path: it stays where it is
        path = Path(file.name)
        with reading(path, what, DAMAGED):
            if not path.exists():
                raise InputError(
                    f"{path}: no such file or folder; {card.id} reads its data from there"
                )
            check_format(card, path)
            check_ordinary(path)
            check_file(path, file, given=True)
        return path
    target = download_path(card, file)
    unverifiable = not (file.md5 or file.sha256)  # so a wrong file would stay for ever
    if not (unverifiable or target.exists()):
        for earlier in earlier_download_paths(card, file):
            if earlier.is_file() and not _mismatch(earlier, file):
                return earlier
    with lock(target):
        if target.is_file() and not (directory_from is not None and unverifiable):
            check_file(target, file)
        elif directory_from is not None:
            original = _find(file, directory_from)
            check_ordinary(original)
            if unverifiable:
                check_format(card, original, files=True)
            with reading(original, what, DAMAGED), writing(target) as temporary:
                shutil.copyfile(original, temporary)
                check_file(temporary, file, name=str(original), given=True)
            log.info("%s: took %s", card.id, original)
        else:
            _download(card, file, target, progress)
    return target


def check_file(path: Path, file: File, name: str | None = None, given: bool = False) -> None:
    """Raises InputError where a file's checksum differs from its card's; silent without one.

    A file that the user has `given` is theirs: they are not to delete it.
    """
    if wrong := _mismatch(path, file):
        todo = (
            "copy it again, or correct the card"
            if given
            else f"delete it and fetch {file.name} again"
        )
        raise InputError(f"{name or path}: {wrong}; the file is damaged or another version: {todo}")


def _mismatch(path: Path, file: File) -> str | None:
    """How a file differs from its card's checksums, or None where it does not."""
    for algorithm, expected in (("md5", file.md5), ("sha256", file.sha256)):
        if expected and (measured := digest(path, algorithm)) != expected.lower():
            return f"{algorithm.upper()} {measured}, expected {expected}"
    return None


def _find(file: File, folder: Path) -> Path:
    """The path of a file in a folder, by its name or its checksum."""
    if (named := below(folder, file.name)).is_file():
        return named
    suffix = Path(file.name).suffix
    candidates = sorted(path for path in folder.glob(f"*{suffix}") if path.is_file())
    algorithm, expected = ("md5", file.md5) if file.md5 else ("sha256", file.sha256)
    if expected is None:
        how = "by name (the card has no checksum)"
    else:
        how = f"by name or by {algorithm.upper()} {expected}"
        for path in candidates:
            if digest(path, algorithm) == expected.lower():
                return path
    raise InputError(
        f"{folder}: no {file.name} {how} among its {len(candidates)} {suffix} files; "
        f"give the folder that holds the file"
    )


def _download(card: Card, file: File, target: Path, progress: Progress | None) -> None:
    """Downloads a file to `target` from the first of its addresses that has it.

    What came of an answer that broke off is kept beside `target` where the card has a checksum, and
    the next attempt, of this process or another, continues it.
    """
    part = target.with_name(f".{target.name}.part")
    verified = bool(file.md5 or file.sha256)
    failures = []
    try:
        if verified and part.is_file() and not _mismatch(part, file):
            _place(part, target)  # its process ended just before it did this
            return
        for url in _addresses(file):
            shown = one_line(url)
            log.info("%s: downloading %s", card.id, shown)
            begun = verified and part.exists()
            reason = _attempt(url, part, file, progress)
            if reason and begun and not part.exists():  # what was there may have been another file
                reason = _attempt(url, part, file, progress)
            if reason is None:
                _place(part, target)
                return
            log.info("%s: %s", shown, reason)
            failures.append(f"{shown}: {reason}")
            if not verified:
                part.unlink(missing_ok=True)
    except OSError as error:
        said = error.strerror or error
        raise InputError(f"{part}: cannot be written: {said}; {ADVICE}") from error
    tried = "; ".join(failures) or "the card gives no URL"
    raise InputError(
        f"{card.id}: {file.name} is not on this machine and could not be downloaded ({tried}); "
        f"try again with `offrl data fetch {card.command_name}`, or, where a folder DIR holds the "
        f"file, `offrl data fetch {card.command_name} --from DIR`"
    )


def _place(part: Path, target: Path) -> None:
    """Puts a whole file in its place by one rename: whoever stops it has the one or the other."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _addresses(file: File) -> list[str]:
    """The addresses of a file: below OFFRL_MIRROR, where that is set, then the card's."""
    mirror = os.environ.get("OFFRL_MIRROR", "").rstrip("/")
    return [f"{mirror}/{file.name}", *file.urls] if mirror else file.urls


def _attempt(url: str, part: Path, file: File, progress: Progress | None) -> str | None:
    """Downloads to `part` and compares the checksum; returns the reason of a failure, else None."""
    verified = bool(file.md5 or file.sha256)
    reason = download(url, part, file.size, progress, resume=verified)
    if reason is None and (reason := _mismatch(part, file)):
        part.unlink()
    return reason


def make(card: Card, progress: Progress | None = None, again: bool = False) -> Path:
    """The path of a data set that its card's maker makes; made on the first call, or `again`.

    Raises InputError where the card names no maker, and Untrusted where its maker is code that it
    may not name.
    """
    name = card.module("maker")
    if name is None:
        raise InputError(
            f"{card.id}: is published, not made here; use `offrl data fetch {card.command_name}`"
        )
    folder = making_path(card)
    with lock(folder):
        path = _made(folder)
        if path is None or not path.exists() or again:
            log.info("%s: making the data set (once; it is kept in %s)", card.id, folder)
            maker = registry.load("datasets", name, "maker")
            if not any(callable(getattr(maker, key, None)) for key in ("make_for", "make")):
                raise InputError(
                    f"card {card.id}: source.maker: {name!r} is no maker: it has no function make "
                    "or make_for"
                )
            try:
                with made_folder(folder) as temporary:
                    made = _call(maker, card, name, temporary, progress)
                    if not (isinstance(made, Path) and made.is_relative_to(temporary)):
                        raise InputError(
                            f"card {card.id}: source.maker: {name!r} made {made}, which is not in "
                            "the folder that it was given; correct the maker"
                        )
                    relative = made.relative_to(temporary)
                    text = json.dumps({"path": relative.as_posix()})
                    (temporary / "made.json").write_text(text + "\n")
            except OSError as error:  # of what the maker needs
                raise InputError(f"card {card.id}: source.maker: {name!r}: {error}") from error
            path = folder / relative
    return path


def _call(maker: ModuleType, card: Card, name: str, folder: Path, progress: Progress | None) -> Any:
    """What a maker returns.

    Raises InputError, with the line, where it raises anything but an OSError: that may be of the
    disk.
    """
    try:
        if callable(make_for := getattr(maker, "make_for", None)):
            return make_for(card, folder, progress)
        return maker.make(folder, progress)
    except (InputError, OSError):
        raise
    except BaseException as error:  # SystemExit, and whatever a file may raise
        if is_interrupt(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == maker.__file__]
        at = f", line {lines[-1]}," if lines else ""
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300].removesuffix(":")
        raise InputError(
            f"card {card.id}: source.maker: {name!r}{at} raised {text}; correct the maker"
        ) from error


def _made(folder: Path) -> Path | None:
    """The path in a maker's folder that the loader reads, or None where nothing was made."""
    try:
        relative: str = json.loads((folder / "made.json").read_text(encoding="utf-8"))["path"]
        return below(folder, *PurePosixPath(relative).parts)
    except (OSError, ValueError, KeyError, TypeError):  # an InputError is a ValueError
        return None
