"""Steps 4 and 5 of loading: columns as .npy files in the cache, which later loads map into memory.

A folder of the cache holds one `.npy` file per column and `meta.json`, which lists each column's
shape, size and SHA-256. It is written under a temporary name and renamed, so it is whole or absent.
A load compares shapes and sizes, which costs nothing; a run compares checksums too, once per
process (about a second per GB); `verify` reads every byte again.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from offrl.data.card import Card, File
from offrl.data.columns import NAMES, Totals
from offrl.data.foreign import reading
from offrl.data.loader import DAMAGED, check_format, fetcher_of, loader_of, path_stamp
from offrl.errors import InputError
from offrl.files import (
    below,
    read_own,
    replacing,
    replacing_folder,
    seal,
    sweep,
    unseal,
    user_path,
)
from offrl.locks import take

WAIT = 5.0  # seconds before a wait for another process is spoken of
LONGEST = 241  # bytes of a name, to which `files.replacing` adds 14 while it writes
LARGEST_META = 2**26  # bytes of a folder's record, which has some kilobytes
FORMAT = 2  # of the folder; another number is another folder name, so old caches are left alone
SHORT = 20  # hexadecimal digits of a hash in a name: so many that nobody finds another text for it


def cache_folder() -> Path:
    """Where offrl keeps what it can make again: OFFRL_CACHE, else the platform's cache folder."""
    if folder := os.environ.get("OFFRL_CACHE"):
        return user_path(folder).absolute()
    import platformdirs

    return platformdirs.user_cache_path("offrl")


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


ADVICE = "free some space, or set OFFRL_CACHE to a folder that can be written"


def writing(target: Path) -> contextlib.AbstractContextManager[Path]:
    """`files.replacing` for a file of the cache."""
    return replacing(target, ADVICE)


def made_folder(target: Path) -> contextlib.AbstractContextManager[Path]:
    """`files.replacing_folder` for what a maker makes; an earlier one is replaced."""
    return replacing_folder(target, lambda folder: _check_own(folder, "made.json"), ADVICE)


def _check_own(folder: Path, mark: str, others: Collection[str] = ()) -> None:
    """Raises InputError unless offrl wrote a folder of the cache, which may thus be removed.

    It holds `mark`, or nothing but `others`.
    """
    if not folder.is_symlink() and folder.is_dir():
        inside = {path.name for path in folder.iterdir()}
        if mark in inside or inside <= set(others):
            return
    raise InputError(
        f"{folder}: stands in the cache where offrl would write, but has no {mark}, so offrl did "
        "not make it; move it away"
    )


@contextlib.contextmanager
def lock(target: Path) -> Iterator[None]:
    """Holds the lock of whoever writes `target`, so that two processes do the work once.

    Removes what writers that were killed left beside it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path = target.with_name(f".{target.name}.lock")
        held = take(path, target.name, "reads or writes the same data", quiet=WAIT)
    except OSError as error:
        raise InputError(
            f"{error.filename or target.parent}: cannot be written: {error.strerror or error}; set "
            f"OFFRL_CACHE to a folder that can be written"
        ) from error
    try:
        sweep(target)
        yield
    finally:
        held.release()


def folder_name(card: Card, end: str = "") -> str:
    """The name of a folder for a card's data: id, version and `end`, as long as names may be.

    A file system takes 255 bytes, of which temporary names need some.
    """
    end = f"-v{card.version}{end}"
    if len(card.id) + len(end) <= LONGEST:
        return f"{card.id}{end}"
    short = hashlib.sha256(card.id.encode()).hexdigest()[:10]
    return f"{card.id[: LONGEST - len(end) - len(short) - 1]}-{short}{end}"


def _short(value: Any) -> str:
    """A hash of a value of JSON, as part of a name."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]


def download_path(card: Card, file: File) -> Path:
    """Where a file that is downloaded lies, or will.

    The name holds its checksums, else its addresses, so that no card brings a file for another
    that only has the same id. Where another card brought this very file, it is that one's; so is
    one that was brought before the card had its last mirrors.
    """
    downloads = cache_folder() / "downloads"
    checksums, urls = _checksums(file), file.urls
    known = [checksums] if checksums else [urls[:count] for count in range(len(urls), 0, -1)]
    ends = [f"-{_short(source)}" for source in known] or [f"-{_short([])}"]
    own = below(downloads / folder_name(card, ends[0]), file.name)
    if own.exists():
        return own
    others = (folder for end in ends for folder in sorted(downloads.glob(f"*{end}")))
    found = (path for folder in others if (path := below(folder, file.name)).is_file())
    return next(found, own)


def earlier_download_paths(card: Card, file: File) -> list[Path]:
    """Where it may lie from before, to be used if it verifies.

    Earlier versions kept it under the card's name alone, whichever card had brought it, and a card
    that had no checksum under its addresses.
    """
    downloads, urls = cache_folder() / "downloads", file.urls
    ends = ["", *(f"-{_short(urls[:count])}" for count in range(len(urls), 0, -1))]
    return [below(downloads / folder_name(card, end), file.name) for end in ends]


def making_path(card: Card) -> Path:
    """The folder of what a card's maker makes: another's than what another maker makes."""
    return cache_folder() / "made" / folder_name(card, f"-{_short(card.module('maker'))}")


def _checksums(file: File) -> list[str]:
    return [checksum.lower() for checksum in (file.md5, file.sha256) if checksum]


def cached_folder(card: Card, split: str = "train") -> Path:
    """The folder that holds a data set's columns, or will.

    Its name holds a hash of all that decides what is read, so that a source or a loader that
    changed is read again. For data that were read once and are gone, it is the newest folder that
    was read from them.
    """
    source = _source(card, split)
    if any(stamp is None for _, stamp in source):
        for folder, _, other in _kept(card, split):
            if _heeded(other) == _heeded(card):
                return folder
    short = _short([loader_key(card, split), source, _heeded(card)])
    middle = "" if split == "train" else f"-{split}"
    return cache_folder() / "datasets" / folder_name(card, f"{middle}-{short}")


def kept_card(card: Card) -> Card | None:
    """The card, from the cache, of data named `LOADER:NAME` that are not here any more."""
    if (name := card.source.fetched_id) and fetcher_of(card).stamp(name) is None:
        for _, meta, other in _kept(card, "train"):
            if meta.get("origin") == f"{card.source.loader}:{name}":  # not of a file with its id
                return other
    return None


def loader_key(card: Card, split: str) -> str:
    """A hash of who reads a data set, and how: it differs where the same source is read anew."""
    name = card.module("loader")
    assert name is not None
    version = getattr(loader_of(card), "VERSION", 1)
    if not isinstance(version, int):
        raise InputError(
            f"card {card.id}: loader {name!r}: VERSION is {version!r:.40}, expected a whole number"
        )
    code = path_stamp(Path(name)) if name.endswith(".py") else name
    return _short([FORMAT, code, version, card.view, split])


def _heeded(card: Card) -> list[Any]:
    """What of a card's simulator and actions decides how a loader reads."""
    environment = card.environment
    heeded: list[Any] = []
    if environment:
        heeded += [environment.observation_keys, environment.max_episode_steps]
    if card.actions:
        heeded.append({"actions": card.actions.count})
    return heeded


def _source(card: Card, split: str) -> list[tuple[Any, Any]]:
    """What a split is read from: names, and stamps that change with it, None for what is gone."""
    if files := card.source.of_split(split):
        return [_file_stamp(card, file) for file in files]
    if maker := card.module("maker"):
        folder = making_path(card)
        return [(maker, path_stamp(folder)[1:] if (folder / "made.json").is_file() else None)]
    if name := card.source.fetched_id:
        return [(name, fetcher_of(card).stamp(name))]
    return []


def _file_stamp(card: Card, file: File) -> tuple[Any, Any]:
    """The name and the stamp of a file, found without reading it."""
    if checksums := _checksums(file):
        return checksums, True
    path = Path(file.name)
    if not path.is_absolute():
        path = download_path(card, file)
        return [file.name, *file.urls], path_stamp(path)[1:] if path.is_file() else None
    with reading(path, f"{card.source.loader} data", DAMAGED):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; {card.id} reads its data from there")
        check_format(card, path)
        return file.name, path_stamp(path)


def _kept(card: Card, split: str) -> Iterator[tuple[Path, dict[str, Any], Card]]:
    """Folders that were read from the source of `card`, with meta and card, the newest first."""
    middle = "" if split == "train" else f"-{split}"
    pattern = folder_name(card, f"{middle}-{'?' * SHORT}")
    folders = (cache_folder() / "datasets").glob(pattern)
    key = loader_key(card, split)
    for folder in sorted(folders, key=lambda f: f.stat().st_mtime, reverse=True):
        with contextlib.suppress(NotCached, KeyError, ValueError):
            meta = read_meta(folder)
            other = Card.model_validate(meta["card"])
            if other.source == card.source and meta["loader_key"] == key:
                yield folder, meta, other


def write_columns(
    folder: Path, columns: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
) -> None:
    """Writes columns, and `meta` with their shapes and checksums, to a folder of the cache."""
    names = [f"{name}.npy" for name in NAMES]
    check = functools.partial(_check_own, mark="meta.json", others=names)
    with replacing_folder(folder, check, ADVICE) as temporary:
        column_meta = {}
        for name, values in columns.items():
            path = temporary / f"{name}.npy"
            with path.open("wb") as array:
                try:
                    np.save(array, values, allow_pickle=False)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    # numpy names no number where the disk is full or a file may not be so large
                    raise OSError(errno.ENOSPC, str(error)) from error
                array.flush()
                os.fsync(array.fileno())  # else a power cut may leave the right size, all zeros
            column_meta[name] = {
                "shape": list(values.shape),
                "dtype": str(values.dtype),
                "bytes": path.stat().st_size,
                "sha256": digest(path),
            }
        text = json.dumps(seal({"format": FORMAT, **meta, "columns": column_meta}), indent=1)
        with (temporary / "meta.json").open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())


class NotCached(Exception):
    """A folder of the cache that is absent, torn or damaged; the message says which."""


class _Column(BaseModel):
    model_config = ConfigDict(strict=True)

    shape: list[int]
    dtype: str
    bytes: int
    sha256: str


class _Meta(BaseModel):
    """What of `meta.json` is read."""

    model_config = ConfigDict(extra="allow")

    columns: dict[str, _Column]
    totals: Totals
    notes: list[str]
    card: dict[str, Any] = {}
    split: str = ""
    files: list[dict[str, Any]] = []


def read_meta(folder: Path) -> dict[str, Any]:
    """The contents of a folder's `meta.json`. Raises NotCached unless it is whole."""
    path = folder / "meta.json"
    try:
        content = json.loads(read_own(path, LARGEST_META).decode())
        if not isinstance(content, dict):
            raise ValueError("expected a JSON object")
        meta = _Meta.model_validate(unseal(content))
    except ValidationError as error:
        first = error.errors()[0]
        raise NotCached(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise NotCached(f"{path}: {error}") from error
    if missing := set(NAMES) - set(meta.columns):
        raise NotCached(f"{path}: lists no column {min(missing)}")
    return meta.model_dump()


def open_columns(
    folder: Path, *, check: bool = False
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The memory-mapped columns of a folder and its meta. Raises NotCached unless it is whole.

    With `check` the checksums of its columns are compared, each once per process.
    """
    meta = read_meta(folder)
    columns = {}
    for name, column_meta in meta["columns"].items():
        path = folder / f"{name}.npy"
        try:
            size, expected = path.stat().st_size, column_meta["bytes"]
            if size != expected:
                raise NotCached(f"{path}: {size} bytes, expected {expected}")
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            if check and (checksum := _digest_once(path)) != column_meta["sha256"]:
                raise NotCached(f"{path}: SHA-256 {checksum}, expected {column_meta['sha256']}")
        except NotCached:
            raise
        except Exception as error:  # numpy's reader of headers raises its tokenizer's errors too
            raise NotCached(f"{path}: {error}") from error
        layout = {"shape": list(values.shape), "dtype": str(values.dtype)}
        if layout != {key: column_meta.get(key) for key in layout}:
            raise NotCached(f"{path}: {layout}, expected {column_meta}")
        columns[name] = values
    return columns, meta


def _digest_once(path: Path) -> str:
    """The SHA-256 of a column, computed once per process unless the file is another by then."""
    status = path.stat()
    return _digest_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.cache
def _digest_of(path: Path, *_file: int) -> str:
    return digest(path)


def verify(folder: Path) -> dict[str, str]:
    """The SHA-256 of each column of a folder, read again. Raises InputError where one differs."""
    _, meta = open_columns(folder)
    checksums = {}
    for name, column_meta in meta["columns"].items():
        path = folder / f"{name}.npy"
        checksums[name] = digest(path)
        if checksums[name] != column_meta["sha256"]:
            raise InputError(
                f"{path}: SHA-256 {checksums[name]}, expected {column_meta['sha256']}; the cache "
                f"is damaged: delete that folder and load the data set again"
            )
    return checksums
