"""The cache: a data set's columns as .npy files, which later loads map into memory.

A folder of the cache holds one `.npy` file per column and `meta.json`, which lists each column's
shape, size and SHA-256. It is written under a temporary name and renamed, so it is whole or absent.
A load compares shapes and sizes, which costs nothing; `verify` reads every byte again.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from offrl.errors import InputError
from offrl.files import replacing

log = logging.getLogger(__name__)

FORMAT = 1  # of the folder; another number is another folder name, so old caches are left alone


def cache_folder() -> Path:
    """Where offrl keeps what it can make again: OFFRL_CACHE, else the platform's cache folder."""
    if folder := os.environ.get("OFFRL_CACHE"):
        return Path(folder).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("offrl")


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def writing(target: Path) -> contextlib.AbstractContextManager[Path]:
    """`files.replacing` for a file or folder of the cache."""
    return replacing(target, "free some space, or set OFFRL_CACHE to a folder that can be written")


@contextlib.contextmanager
def lock(target: Path) -> Iterator[None]:
    """Holds the lock of whoever writes `target`, so that two processes do the work once."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        holder = filelock.FileLock(target.with_name(f".{target.name}.lock"))
        holder.acquire()
    except OSError as error:
        raise InputError(
            f"{target.parent}: cannot be written: {error.strerror or error}; set OFFRL_CACHE to a "
            f"folder that can be written"
        ) from error
    try:
        yield
    finally:
        holder.release()


def write_columns(
    folder: Path, columns: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
) -> None:
    """Writes columns and what `meta` says of them to a folder of the cache."""
    with writing(folder) as temporary:
        temporary.mkdir()
        described = {}
        for name, values in columns.items():
            path = temporary / f"{name}.npy"
            with path.open("wb") as file:
                np.save(file, values, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave the right size, all zeros
            described[name] = {
                "shape": list(values.shape),
                "dtype": str(values.dtype),
                "bytes": path.stat().st_size,
                "sha256": digest(path),
            }
        text = json.dumps({"format": FORMAT, **meta, "columns": described}, indent=1)
        with (temporary / "meta.json").open("w", encoding="utf-8") as told:
            told.write(text + "\n")
            told.flush()
            os.fsync(told.fileno())


class NotCached(Exception):
    """A folder of the cache that is absent, torn or damaged; the message says which."""


def read_meta(folder: Path) -> dict[str, Any]:
    """What `meta.json` of a folder of the cache says. Raises NotCached unless it is whole."""
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotCached(f"{path}: {error}") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("columns"), dict):
        raise NotCached(f"{path}: lists no columns")
    return meta


def open_columns(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The memory-mapped columns of a folder and its meta. Raises NotCached unless it is whole."""
    meta = read_meta(folder)
    columns = {}
    for name, told in meta["columns"].items():
        path = folder / f"{name}.npy"
        try:
            if path.stat().st_size != told["bytes"]:
                raise NotCached(f"{path}: {path.stat().st_size} bytes, expected {told['bytes']}")
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise NotCached(f"{path}: {error}") from error
        if list(values.shape) != told.get("shape") or str(values.dtype) != told.get("dtype"):
            raise NotCached(f"{path}: {values.dtype} {values.shape}, expected {told}")
        columns[name] = values
    return columns, meta


def verify(folder: Path) -> dict[str, str]:
    """The SHA-256 of each column of a folder, read again. Raises InputError where one differs."""
    _, meta = open_columns(folder)
    found = {}
    for name, told in meta["columns"].items():
        path = folder / f"{name}.npy"
        found[name] = digest(path)
        if found[name] != told["sha256"]:
            raise InputError(
                f"{path}: SHA-256 {found[name]}, expected {told['sha256']}; the cache is damaged: "
                f"delete that folder and load the data set again"
            )
    return found
