"""Data of others: what their readers raise, what their files are, and how large they grow.

Each of the three ends in one line here, so that a loader names only what it knows of its format.
"""

import contextlib
import errno
import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from offrl.errors import InputError, is_interrupt

MODEST = 512 * 2**20  # bytes that any file may unfold to
DENSEST = 100  # beyond that, bytes in memory per byte on disk: observations compress less
MOST_FILES = 500_000  # and folders below a folder of data: more is no data set, but a disk
_BLOCK = 512  # bytes, the unit in which any system counts those on disk
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK, errno.ENOLCK, errno.ETXTBSY)


@contextlib.contextmanager
def reading(where: str | Path, what: str, advice: str) -> Iterator[None]:
    """Whatever a reader of a foreign format raises inside becomes one InputError.

    Readers stand on zlib, lzma, HDF5, Arrow, JSON, ...: no list of exceptions is whole. An
    InputError passes as it is.

    Args:
        where: the file or name that is read.
        what: the format.
        advice: what to do about a source that is damaged or of another format.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:  # SystemExit, and whatever a reader may raise
        if is_interrupt(error):
            raise
        raise InputError(f"{where}: {_reason(error, what, advice)}") from error


def _reason(error: BaseException, what: str, advice: str) -> str:
    """Why a source could not be read and what to do, by what was raised."""
    text = " ".join(str(error).split())[:160]  # HDF5 and Arrow add lines and dumps
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, MemoryError):
        return (
            f"reading it as {what} takes more memory than is free ({said}); end other programs, "
            f"raise the limit, or split the data"
        )
    if isinstance(error, OSError):
        if error.errno in _HELD:
            return (
                f"is held by another program ({text}); wait until that one has closed it, or copy "
                f"the file and read the copy"
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return "may not be read by this user; allow it, or copy the file"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO):
            return f"cannot be read here ({text}); this is the machine's fault, not the file's"
    return f"cannot be read as {what} ({said}); {advice}"


def check_ordinary(path: Path) -> None:
    """Raises InputError where a path, or one below it, is a pipe, a device, a socket or a hole.

    Reading one may wait for ever, or never end. A hole is a file that is large and hardly there:
    its bytes are zeros that take no place on the disk.
    """
    for part in parts(path):
        try:
            status = part.stat()
        except OSError:  # absent, or a link to nothing: whoever reads it says so
            continue
        mode = status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "pipe" if stat.S_ISFIFO(mode) else "device or socket"
            raise InputError(f"{part}: is a {kind}; expected a file or a folder, so copy its data")
        there = _BLOCK * status.st_blocks  # 0 where a file system does not count them
        if status.st_size > MODEST and 0 < DENSEST * there < status.st_size:
            raise InputError(
                f"{part}: has {_gib(status.st_size)}, of which {_gib(there)} are on disk and the "
                f"others a hole; the file is damaged or hostile, so copy or write it again"
            )


def parts(path: Path) -> Iterator[Path]:
    """A path and, where it is a folder, all that lies below. Raises InputError for too much."""
    yield path
    if path.is_dir():
        for number, part in enumerate(path.rglob("*")):
            if number == MOST_FILES:
                raise InputError(
                    f"{path}: holds more than {MOST_FILES:,} files and folders; expected one data "
                    "set, so give its own folder"
                )
            yield part


def check_size(where: str | Path, arrays: Iterable[Any], stored: int, memory: bool = True) -> None:
    """Raises InputError where arrays are larger than the memory that is free, or a bomb.

    A few bytes may declare any shape, and compression or fill values make it real. So the sizes
    are compared before anything is allocated.

    Args:
        where: the file, for messages.
        arrays: with `shape` and `dtype`, and `chunks` where stored so, not read yet; or the shapes
            of float32 arrays.
        stored: the bytes that the file takes on disk.
        memory: False where they need not lie in memory; see `Room`.
    """
    needed = size_of(arrays)
    if needed > most_bytes(stored):
        raise InputError(
            f"{where}: needs {_gib(needed)} of memory, but holds {_gib(stored)} on disk: more than "
            f"{DENSEST} to 1, as a damaged or hostile file would; if it is right, write it again "
            f"without compression or fill values"
        )
    free = free_memory() if memory else None
    if free is not None and needed > free:
        raise InputError(
            f"{where}: needs at least {_gib(needed)} of memory, but {_gib(free)} are free; end "
            f"other programs, take a larger machine, or split the data"
        )


def most_bytes(stored: int) -> int:
    """The bytes that what a file of so many bytes declares may take."""
    return max(MODEST, DENSEST * stored)


def size_of(arrays: Iterable[Any]) -> int:
    """The bytes that arrays take, as `check_size` takes them."""
    return sum(map(_bytes, arrays))


def _bytes(array: Any) -> int:
    """What an array takes as float32, or as it is where that is more; at least one chunk of it."""
    if isinstance(array, tuple):
        return 4 * math.prod(array)
    size = max(math.prod(array.shape or ()), math.prod(getattr(array, "chunks", None) or ()))
    return int(size) * max(4, int(array.dtype.itemsize))


def _gib(size: int) -> str:
    """A size in GiB, or in MiB where it is small."""
    if size >= 2**30 / 10:
        return f"{size / 2**30:,.1f} GiB"
    return f"{size / 2**20:.3g} MiB"


def disk_usage(path: Path) -> int:
    """The bytes of a file, or of all files of a folder."""
    return sum(part.stat().st_size for part in parts(path) if part.is_file())


def free_memory(root: Path = Path("/")) -> int | None:
    """The bytes that this process may still take, or None where the system does not say.

    The least of what the machine, the container and the process' own limit leave. `root` is where
    the system's files lie.
    """
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        kilobytes = _numbers(root / "proc/meminfo")
        limits.append(1024 * (kilobytes["MemAvailable:"] + kilobytes.get("SwapFree:", 0)))
    container = root / "sys/fs/cgroup"
    groups = [container]  # and those of the process in it, such as a job's
    with contextlib.suppress(OSError, ValueError, IndexError):
        line = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()[-1]
        own = container / line.rpartition(":")[2].lstrip("/")
        groups += [group for group in (own, *own.parents) if container in group.parents]
    new, old = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for group, (limit, used) in [*((group, new) for group in groups), (container / "memory", old)]:
        with contextlib.suppress(OSError, ValueError, IndexError):  # "max" is no number: no limit
            most = int((group / limit).read_text(encoding="ascii"))
            taken = int((group / used).read_text(encoding="ascii"))
            held = _numbers(group / "memory.stat")
            cached = held.get("active_file", 0) + held.get("inactive_file", 0)  # given up at need
            limits.append(max(0, most - max(0, taken - cached)))
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        sizes = Path("/proc/self/statm").read_text(encoding="ascii").split()
        for kind, place in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
            soft, _ = resource.getrlimit(kind)
            if soft != resource.RLIM_INFINITY:
                limits.append(max(0, soft - int(sizes[place]) * os.sysconf("SC_PAGE_SIZE")))
    return min(limits, default=None)


def _numbers(path: Path) -> dict[str, int]:
    """The first number of each line of a file of the system, by the word before it."""
    lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    return {words[0]: int(words[1]) for words in lines}
