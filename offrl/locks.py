"""Locks between processes, and who holds one."""

import contextlib
import datetime
import logging
from pathlib import Path

import filelock

from offrl.files import check_lock

log = logging.getLogger(__name__)


class HeldElsewhere(Exception):
    """Another process has held a lock for too long; the message says which, as far as is known."""


def take(
    path: Path, what: str, doing: str, *, quiet: float, longest: float | None = None
) -> filelock.BaseFileLock:
    """The lock at `path`, once this process has it; its `release` gives it back.

    Args:
        path: of the lock's file, which is created.
        what: what is locked, for messages.
        doing: what the other process does with it, for messages.
        quiet: seconds of waiting after which it is logged for whom.
        longest: seconds of waiting after which HeldElsewhere is raised; 0 is at once, None never.
    """
    check_lock(path)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=quiet)
    except filelock.Timeout:
        named = _holder(path)
        if longest == 0:
            raise HeldElsewhere(named or "") from None
        log.warning(
            "%s: waiting for %s, which %s and holds %s; go on waiting, or end it, or stop with "
            "Ctrl-C",
            what,
            named or "another process",
            doing,
            path,
        )
        try:
            lock.acquire(timeout=-1 if longest is None else longest)
        except filelock.Timeout:
            raise HeldElsewhere(_holder(path) or named or "") from None
        log.info("%s: the other process is done, goes on", what)
    return lock


def _holder(path: Path) -> str | None:
    """The process that holds a lock, with the time at which it started, where the system says."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                process = Path("/proc") / words[4]
                started = datetime.datetime.fromtimestamp(process.stat().st_ctime)
                return f"process {words[4]} (started {started:%Y-%m-%d %H:%M:%S})"
    return None
