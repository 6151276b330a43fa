"""Files and folders that are whole or absent, whatever happens while they are written."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offrl.errors import InputError


@contextmanager
def replacing(path: Path, advice: str = "choose another place") -> Iterator[Path]:
    """Yields a temporary path beside `path`, at which the caller makes a file or a folder.

    On success a file is fsynced, and the temporary path is renamed to `path`; what stood there is
    removed afterwards. On failure `path` is untouched. An OSError becomes an InputError that ends
    in `advice`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if temporary.is_dir():
                _move_folder(temporary, path)
            else:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):  # its folder may be a file
                _remove(temporary)
    except OSError as error:
        if error.errno is None:  # of a library, such as a broken download: not about this disk
            raise
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}; {advice}"
        ) from error


def _move_folder(temporary: Path, path: Path) -> None:
    """Puts a new folder in its place; the old one is removed when the new one stands."""
    old = temporary.with_suffix(".old")
    if path.exists():
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
