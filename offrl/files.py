"""Files and folders that are whole or absent, and names that never leave their folder."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offrl.errors import InputError

ADVICE = "choose another place"
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of most file systems


def plain(name: str, where: str) -> str:
    """`name`, as part of a path. Raises InputError, which begins with `where`, where it is none.

    A plain name has no separator and no control character, and is neither empty nor `.` or `..`.
    """
    if name in ("", ".", "..") or any(c in "/\\" or ord(c) < 32 or ord(c) == 127 for c in name):
        raise InputError(
            f"{where}: expected a plain name, without separators, '..' or control characters, "
            f"found {name!r:.80}"
        )
    return name


def below(folder: Path, *names: str) -> Path:
    """The path of `names` below a folder.

    Every name that was read from a file passes here before it is joined to a folder. Raises
    InputError where one is no plain name, or where a folder among them is a link that leads out of
    `folder`. The last may be a link to a file: `replacing` replaces it and `open_own` refuses it.
    """
    for name in names:
        plain(name, str(folder))
    path = folder
    for name in names:
        path = path / name
        leads_out = path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())
        if leads_out and (path.is_dir() or name is not names[-1]):
            raise InputError(f"{path}: is a link that leads out of {folder}; put a folder there")
    return path


@contextmanager
def replacing(
    path: Path,
    advice: str = ADVICE,
    mode: int = 0o666,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Yields a new empty file beside `path`, which the caller fills and which then replaces it.

    The file is created under a random name, exclusively and through no link; on success it is
    fsynced, has `mode` as far as the umask allows and is renamed to `path`. On failure `path` is
    untouched. What killed writers of `path` left is removed. An OSError of these steps, or of what
    the caller writes, becomes an InputError that ends in `advice`; one about another file passes as
    it is.
    `check` raises where `path` may not be written; it is called before all and right before the
    file is renamed.
    The file is locked meanwhile: a library that locks what it writes needs `replacing_folder`.
    """
    with _explained(path, advice):
        check()
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        temporary, holder = _begun(path, functools.partial(_new_file, mode=mode))
    try:
        allowed = stat.S_IMODE(os.fstat(holder).st_mode)
        with _explained(path, advice, temporary):
            yield temporary
        with _explained(path, advice):
            _sync(temporary, allowed)
            check()
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        os.close(holder)


@contextmanager
def replacing_folder(
    path: Path, check: Callable[[Path], None], advice: str = ADVICE
) -> Iterator[Path]:
    """Yields a new folder beside `path`, which the caller fills and which then replaces it.

    As `replacing`, but that what stands at `path` is removed once the new folder stands.

    Args:
        path: where the folder goes.
        check: called with `path` where something is there; raises InputError unless that may be
            removed.
        advice: how an error of the disk ends.
    """

    def checked() -> None:
        if path.is_symlink() or path.exists():
            check(path)

    with _explained(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        checked()
        temporary, holder = _begun(path, _new_folder)
    try:
        with _explained(path, advice, temporary):
            yield temporary
        with _explained(path, advice):
            checked()
            _move_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(holder)


# What a disk says of whatever is written to it; the name that comes with it may be the source's.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


@contextmanager
def _explained(path: Path, advice: str, temporary: Path | None = None) -> Iterator[None]:
    """An OSError becomes an InputError about `path`.

    Where the caller's steps are inside, it has to be about `temporary` or the disk.
    """
    try:
        yield
    except OSError as error:
        if temporary is not None and not _concerns(error, temporary):
            raise
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}; {advice}"
        ) from error


def _concerns(error: OSError, temporary: Path) -> bool:
    """Whether an error is about what is being written."""
    if error.errno in _OF_THE_DISK:
        return True
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | Path)]
    return any(Path(name).is_relative_to(temporary) for name in names)


def sweep(path: Path) -> None:
    """Removes the temporary files and folders that killed writers of `path` left beside it.

    A writer holds a lock on what it writes, which ends with its process, so what another process is
    writing stays. A folder that was moved aside and never replaced is moved back.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.(tmp|old)")
    try:
        left = [
            path.with_name(e.name) for e in os.scandir(path.parent) if pattern.fullmatch(e.name)
        ]
    except OSError:
        return  # no folder, or none that may be read: nothing of ours is in it
    for each in left:
        with contextlib.suppress(OSError), _idle(each):
            if each.suffix == ".old" and not (path.is_symlink() or path.exists()):
                each.rename(path)
            elif each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink()


@contextmanager
def _idle(path: Path) -> Iterator[None]:
    """Holds a file or folder of this user's own. Raises OSError where a process writes it."""
    holder = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(holder)
        if found.st_uid != os.geteuid() or not (
            stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
        ):
            raise OSError(errno.EPERM, "not made by a writer of this user", str(path))
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(holder)


def _begun(path: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """A new file or folder beside `path` and a descriptor that holds its lock."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            holder = create(temporary)
        except FileExistsError:
            continue  # by chance, or planted
        _lock(holder)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(holder), temporary.lstat()):
                return temporary, holder
        os.close(holder)  # swept between its creation and its lock


def _lock(holder: int) -> None:
    """Locks a file or folder until `holder` is closed, where the file system has locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(holder, fcntl.LOCK_EX)


def _new_file(path: Path, mode: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)


def _new_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _sync(path: Path, mode: int) -> None:
    """Syncs a file to the disk, and gives it `mode` where its writer put another in its place."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if stat.S_IMODE(os.fstat(file).st_mode) != mode:
            os.fchmod(file, mode)
        os.fsync(file)
    finally:
        os.close(file)


def _move_folder(temporary: Path, path: Path) -> None:
    """Puts a new folder in its place; the old one is removed when the new one stands."""
    if not path.exists():
        temporary.rename(path)
        return
    old = temporary.with_suffix(".old")
    holder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _lock(holder)  # so that nobody sweeps it between the two renames
        path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(holder)


CHECKSUM = "checksum"  # the key of JSON values under which `seal` puts their checksum
CHECKSUM_DIGITS = 32  # hexadecimal


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values and, under a last key of its own, a checksum over them."""
    return {**values, CHECKSUM: _checksum(values)}


def unseal(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that `seal` was given, once their checksum is compared.

    Values without a checksum, which files of earlier versions hold, are taken as they are. Raises
    ValueError where the checksum is another's, or has another name.
    """
    *keys, last = values or [CHECKSUM]
    if last != CHECKSUM and values[last] == _checksum({key: values[key] for key in keys}):
        raise ValueError(f"its checksum is called {last!r:.40}; expected {CHECKSUM!r}")
    content = {key: value for key, value in values.items() if key != CHECKSUM}
    if CHECKSUM in values and values[CHECKSUM] != (actual := _checksum(content)):
        raise ValueError(
            f"its checksum is {values[CHECKSUM]!r:.40}, but that of its content {actual}"
        )
    return content


def unsealed_text(text: bytes) -> bytes | None:
    """The JSON of sealed values without their checksum, by the very text that was sealed.

    None where the text is not `json.dumps` of sealed values, or its checksum another: `unseal` of
    the values then says what is wrong, if anything is.
    """
    content, mark, end = text.rpartition(b', "%s": "' % CHECKSUM.encode())
    if not mark or not content.isascii() or len(end) != CHECKSUM_DIGITS + 2 or end[-2:] != b'"}':
        return None
    content += b"}"
    digest = hashlib.sha256(content).hexdigest()[:CHECKSUM_DIGITS]
    return content if end[:-2] == digest.encode() else None


def _checksum(values: Mapping[str, Any]) -> str:
    """Half a SHA-256 of the values as JSON, which is the same for values read back from JSON."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:CHECKSUM_DIGITS]


def open_own(path: Path) -> int:
    """A descriptor to read a regular file of offrl's own.

    Raises OSError, at once, for everything else: for links, which it does not follow, for pipes and
    devices.
    """
    if path.is_symlink():
        raise OSError(0, "it is a link; expected a file of its own", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it is a folder, pipe or device; expected a regular file", str(path))


def check_lock(path: Path) -> None:
    """Raises OSError unless a lock file is absent, or empty and a file of its own.

    Locking may empty it, and one that holds something is another file's second name.
    """
    if not os.path.lexists(path):
        return
    descriptor = open_own(path)
    size = os.fstat(descriptor).st_size
    os.close(descriptor)
    if size:
        fault = f"it has {size:,} bytes; expected an empty lock file, so move it away"
        raise OSError(0, fault, str(path))


def read_own(path: Path, largest: int) -> bytes:
    """The bytes of a file of offrl's own.

    Raises OSError where `open_own` does, and for a file of more than `largest` bytes.
    """
    with os.fdopen(open_own(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= largest else b""  # reading takes that much at once
    if max(size, len(data)) > largest:
        raise OSError(errno.EFBIG, f"it has more than {largest:,} bytes", str(path))
    return data


def user_path(path: str | Path) -> Path:
    """A path that a user or a file gives, its `~` expanded.

    Raises InputError where no system could open it: with a NUL, too long, or in the home of nobody.
    """
    if "\0" in str(path):
        raise InputError(
            f"{str(path)!r:.80}: holds a NUL character; no path has one, so correct it"
        )
    parts = map(os.fsencode, Path(path).parts)
    if len(os.fsencode(path)) > LONGEST_PATH or max(map(len, parts), default=0) > LONGEST_NAME:
        raise InputError(
            f"{str(path)!r:.80}: a path has at most {LONGEST_PATH} bytes, {LONGEST_NAME} in each "
            "name; correct it"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{path}: there is no such user's home folder; write the whole path"
        ) from None
