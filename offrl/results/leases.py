"""Leases: which process works on a run, on any file system that creates a file exclusively.

A run folder that is held has a file `.lease-<n>` with host and process of its holder, which makes
it by exclusive creation. Its number is one above that of the lease before, whose file the new
holder deletes: the lease is the process's own as long as its file is there and no `.lease-<n+1>`,
which whoever writes looks at right before each write. A lease that was given back says so, and its
file stays, so that no number comes twice.

A lease ends without being given back where its holder

- is gone: it also locks the file (flock), and the system frees that lock with the process. Where
  the lock is free on the machine on which it was taken, the holder has ended, and the lease is
  taken over at once. That holds across containers of one machine; ids of processes play no part.
- does not beat: a thread of each holder sets the time of its leases' files ten times within
  `limit` seconds (five minutes), and a lease without a beat for that long is taken over. That is
  how it ends on other machines, where a file system has no flock, and of a process that was
  stopped, which finds out at its next write. Ages are differences of times that the file system's
  own clock gave, the lease's and that of a file made just now. No clock is believed alone: whoever
  takes a lease over has also seen, by its own clock that never jumps, that no beat came while two
  were due. Where the file system's clock jumped back, no beat within `limit` by that clock does.

A client of a network file system may remember for a minute that a file is or is not there. Who lost
a lease had no beat for five, so what it remembered is out of date when it looks.
"""

import contextlib
import errno
import fcntl
import functools
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offrl.errors import InputError
from offrl.files import open_own
from offrl.text import one_line

log = logging.getLogger(__name__)

SECONDS = "OFFRL_LEASE_SECONDS"  # sets `limit`, the same for all processes that share a folder
BEATS = 10  # within the limit
LARGEST = 4096  # bytes of a lease
NAMES = re.compile(r"\.lease-([1-9][0-9]{0,17})")
LAST = 10**18 - 1
RELEASED = b"released\n"  # how a lease begins that was given back
TAKING = 0.5  # seconds for which a lease may be empty, as its holder is about to write it
QUIET = 1.0  # seconds of waiting after which it is logged for whom


class Holder(BaseModel):
    """Who holds a lease, as its file says."""

    model_config = ConfigDict(frozen=True)

    host: Annotated[str, Field(max_length=255)]
    process: Annotated[int, Field(ge=0, lt=2**63)]
    started: datetime  # when it took the lease, by its own clock
    machine: Annotated[str, Field(max_length=255)]  # the same for containers of one machine
    locked: bool  # whether it holds a lock on the file too


@dataclass(frozen=True)
class OtherLease:
    """A lease of another process."""

    holder: Holder | None  # None where its file does not say
    beat: float | None = None  # seconds since its last beat; None: not looked at
    silent: bool = False  # whether beats are missing, so that it may end before long

    @property
    def name(self) -> str:
        """Of the process, with its host."""
        if self.holder is None:
            return "a process that its lease does not name"
        return f"process {self.holder.process} on host {one_line(self.holder.host)}"

    def __str__(self) -> str:
        if self.holder is None:
            return self.name
        age = "" if self.beat is None else f", last beat {max(0, round(self.beat))} s ago"
        ends = f", it is taken over after {limit():.0f} s without one" if self.silent else ""
        return f"{self.name} (since {self.holder.started:%Y-%m-%d %H:%M:%S %Z}{age}{ends})"


class Occupied(Exception):
    """Another process holds the lease."""

    def __init__(self, lease: OtherLease):
        super().__init__(str(lease))
        self.lease = lease


@dataclass(eq=False)
class Lease:
    """A lease of this process."""

    path: Path
    number: int
    descriptor: int
    device: int = field(init=False)
    inode: int = field(init=False)

    def __post_init__(self) -> None:
        status = os.fstat(self.descriptor)
        self.device, self.inode = status.st_dev, status.st_ino

    def is_mine(self) -> bool:
        """Whether nobody has taken it over."""
        try:
            status = self.path.lstat()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return False
            raise
        same = (status.st_dev, status.st_ino) == (self.device, self.inode)
        return same and not os.path.lexists(_path(self.path.parent, self.number + 1))

    def release(self) -> None:
        """Gives it back."""
        _beats.end(self)
        with contextlib.suppress(OSError):  # without space or disk, the lock's end frees it
            os.pwrite(self.descriptor, RELEASED, 0)
            os.ftruncate(self.descriptor, len(RELEASED))
        os.close(self.descriptor)


def limit() -> float:
    """Seconds without a beat after which a lease is taken over."""
    text = os.environ.get(SECONDS, "300")
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1e6:
            return float(text)
    raise InputError(f"environment variable {SECONDS}: expected seconds, found {text!r:.80}")


def wait(folder: Path, timeout: float, patient: bool = False) -> Lease:
    """The lease of a folder, once nobody else holds it; its `release` gives it back.

    Args:
        folder: of a run.
        timeout: seconds after which Occupied is raised.
        patient: waits on while beats are missing, until they come or the lease is taken over.

    Raises OSError where the folder cannot be written, or a lease in it is no file of its own.
    """
    begun, logged = time.monotonic(), False
    while True:
        try:
            return take(folder)
        except Occupied as error:
            waited = time.monotonic() - begun
            if waited >= timeout and not (patient and error.lease.silent):
                raise
            if waited > QUIET and not logged:
                log.warning("%s: waiting for %s, which holds this run", folder, error)
                logged = True
            time.sleep(min(0.02 + waited / 10, 1.0))


def take(folder: Path) -> Lease:
    """The lease of a folder. Raises Occupied, and OSError, as `wait` does."""
    before = _numbers(folder)
    last = before[-1] if before else 0
    if last == LAST:
        raise OSError(0, "there is no number after it; delete it", str(_path(folder, last)))
    if last:
        with contextlib.suppress(FileNotFoundError):  # deleted by one that has the next: see below
            if other := _look(_path(folder, last), judge=True):
                raise Occupied(other)
    path = _path(folder, last + 1)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:
        raise Occupied(OtherLease(None)) from None  # taken in this moment
    lease = Lease(path, last + 1, descriptor)
    try:
        # Locked before it names its holder, so a lock that is free says that the holder is gone.
        os.write(descriptor, _content(_lock(descriptor)))
        if _numbers(folder)[-1:] != [lease.number]:  # the others went on while this process stood
            path.unlink(missing_ok=True)
            raise Occupied(OtherLease(None))
        _clear(folder, before)
        _beats.begin(lease)
    except BaseException:
        os.close(descriptor)
        raise
    return lease


def holder(folder: Path) -> OtherLease | None:
    """Who holds a folder; None where nobody does. Writes nothing.

    The age of its last beat is by this machine's clock. Raises OSError where it cannot be read.
    """
    numbers = _numbers(folder)
    with contextlib.suppress(FileNotFoundError):
        return _look(_path(folder, numbers[-1]), judge=False) if numbers else None
    return None


def check_locks(root: Path) -> None:
    """Raises InputError unless a file can be created exclusively in a folder, and replaced."""
    first, second = (root / f".test-{secrets.token_hex(4)}.tmp" for _ in range(2))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    works = False
    try:
        for path in (first, second):
            os.close(os.open(path, flags, 0o600))
        try:
            os.close(os.open(first, flags, 0o600))
        except FileExistsError:
            second.replace(first)
            works = first.exists() and not second.exists()
    except OSError as error:
        raise InputError(
            f"{root}: cannot be written: {error.strerror or error}; choose another -o"
        ) from None
    finally:
        for path in (first, second):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    if not works:
        raise InputError(
            f"{root}: its file system has no working locks: it created a file that was there, or "
            "did not replace one; choose another -o, on a local disk or on NFS"
        )


def _path(folder: Path, number: int) -> Path:
    return folder / f".lease-{number}"


def _numbers(folder: Path) -> list[int]:
    """Of all leases of a folder, rising. Raises OSError for one that is no regular file."""
    numbers = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if named := NAMES.fullmatch(entry.name):
                if not entry.is_file(follow_symlinks=False):
                    raise OSError(0, "it is no regular file; delete it", entry.path)
                numbers.append(int(named[1]))
    return sorted(numbers)


def _look(path: Path, judge: bool) -> OtherLease | None:
    """Who holds a lease; None where nobody does.

    With `judge` the lease's time is compared with the file system's clock, which takes writing a
    file, and a lease that is silent for too long counts as held by nobody.
    """
    with os.fdopen(open_own(path), "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise OSError(errno.EFBIG, f"it has more than {LARGEST:,} bytes; delete it", str(path))
        if data.startswith(RELEASED):
            return None
        if not data:
            late = not judge or _unchanged(path, status) >= TAKING
            return None if late else OtherLease(None)
        holder = _holder(data)
        if holder and holder.locked and holder.machine == _machine() and _is_free(file.fileno()):
            return None
    if not judge:
        return OtherLease(holder, time.time() - status.st_mtime)
    due = 2 * limit() / BEATS
    unchanged = _unchanged(path, status)
    age = _clock(path.parent) - status.st_mtime
    if unchanged >= limit() or (age >= limit() and unchanged >= due):
        return None
    return OtherLease(holder, max(age, unchanged), silent=abs(age) >= due or unchanged >= due)


def _holder(data: bytes) -> Holder | None:
    with contextlib.suppress(ValidationError):
        return Holder.model_validate_json(data)
    return None


def _is_free(descriptor: int) -> bool:
    """Whether nobody has locked the file; looking at it keeps nobody else from looking."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock(descriptor: int) -> bool:
    """Locks a new lease until its process ends, where the file system has such locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _content(locked: bool) -> bytes:
    values = {
        "host": socket.gethostname()[:255],
        "process": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "locked": locked,
    }
    return json.dumps(values).encode()


@functools.cache
def _machine() -> str:
    """The running system, which containers share and a reboot ends; else the host's name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()[:255]


_seen: dict[Path, tuple[tuple[int, int], float]] = {}  # of leases: inode and time, and since when


def _unchanged(path: Path, status: os.stat_result) -> float:
    """Seconds, by a clock that never jumps, for which this process has seen no beat."""
    state, now = (status.st_ino, status.st_mtime_ns), time.monotonic()
    if path not in _seen or _seen[path][0] != state:
        _seen[path] = state, now
    return now - _seen[path][1]


def _clock(folder: Path) -> float:
    """The time by the clock of the folder's file system."""
    path = folder / f".clock.{secrets.token_hex(4)}.tmp"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def _clear(folder: Path, before: list[int]) -> None:
    """Deletes the leases before one's own, the oldest first.

    Where one of them was not given back, what its holder began to write goes first: should it go on
    after all, there is nothing left to put in place.
    """
    paths = [_path(folder, number) for number in before]
    for path in paths:
        _seen.pop(path, None)
    if any(_is_kept(path) for path in paths):
        for left in [*folder.glob(".*.tmp"), *folder.glob("checkpoint/.*.tmp")]:
            left.unlink(missing_ok=True)
    for path in paths:
        path.unlink(missing_ok=True)


def _is_kept(path: Path) -> bool:
    """Whether a lease was not given back."""
    try:
        with os.fdopen(open_own(path), "rb") as file:
            return file.read(len(RELEASED)) != RELEASED
    except FileNotFoundError:
        return False


class _Beats:
    """The leases of this process, and the thread that beats for them while there are any."""

    def __init__(self) -> None:
        self.leases: set[Lease] = set()
        self.guard = threading.Lock()  # a descriptor that is closed may be another file's next
        self.beating = False

    def begin(self, lease: Lease) -> None:
        with self.guard:
            self.leases.add(lease)
            if not self.beating:
                every = limit() / BEATS
                self.beating = True
                threading.Thread(target=self._beat, args=(every,), daemon=True).start()

    def end(self, lease: Lease) -> None:
        with self.guard:
            self.leases.discard(lease)

    def _beat(self, every: float) -> None:
        while True:
            time.sleep(every)
            with self.guard:
                if not self.leases:
                    self.beating = False
                    return
                for lease in self.leases:
                    with contextlib.suppress(OSError):  # the next beat may succeed
                        os.utime(lease.descriptor)


_beats = _Beats()
os.register_at_fork(after_in_child=_beats.__init__)  # type: ignore[misc]
