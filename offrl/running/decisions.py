"""What a user trusted when a run began, kept in its record for whoever carries it on.

A run folder may come from a stranger, whose decision counts for nothing here. So a record has a
seal, made with a key in this user's cache that nobody else can read; without the key, or with
another, the user is asked again.
"""

import contextlib
import functools
import hashlib
import hmac
import json
import logging
import multiprocessing
import os
import secrets
import stat
from pathlib import Path

from offrl.data.cache import ADVICE, cache_folder, lock
from offrl.errors import InputError
from offrl.files import replacing
from offrl.results.rows import Decision
from offrl.results.store import run_folders

log = logging.getLogger(__name__)

KEY_BYTES = 32


def decide(trust: tuple[str, ...]) -> Decision | None:
    """The record of what is trusted; None where that is nothing."""
    if not trust:
        return None
    return Decision(files=list(trust), seal=_seal(trust, _key() or _new_key()))


def decided(root: Path) -> tuple[str, ...]:
    """What this user trusted in runs below a folder, as far as it is still there."""
    files: dict[str, None] = {}
    key = _key()
    if key is None or not root.is_dir():
        return ()
    for folder in run_folders(root):
        with contextlib.suppress(InputError):  # damaged, or of a newer offrl
            trust = folder.record().trust
            if trust and _sealed(trust, key):
                files |= dict.fromkeys(trust.files)
    return tuple(file for file in files if ":" in file or Path(file).exists())


def _seal(trust: tuple[str, ...], key: bytes | None) -> str:
    """A checksum of the files that only who has the key can make; empty without one."""
    text = json.dumps(list(trust)).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest() if key else ""


def _sealed(decision: Decision, key: bytes) -> bool:
    """Whether a decision is this user's."""
    expected = _seal(tuple(decision.files), key)
    # As bytes: in a stranger's record the seal is any text.
    return hmac.compare_digest(decision.seal.encode(errors="replace"), expected.encode())


def _path() -> Path:
    return cache_folder() / f".trust-{os.getuid()}.key"


def _key() -> bytes | None:
    """This user's key, or None where there is none that only this user can read."""
    try:
        file = os.open(_path(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(file, "rb") as stream:
        found = os.fstat(file)
        private = stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077
        if not private or found.st_uid != os.getuid():
            return None
        key = stream.read(KEY_BYTES + 1)
    return key if len(key) == KEY_BYTES else None


def _new_key() -> bytes | None:
    """This user's key, made if there is none by now; None where none can be kept in the cache.

    What stands in its place and is no key, as a full disk may have left it, is replaced.
    """
    path = _path()
    try:
        with lock(path):
            if (key := _key()) is None:
                key = secrets.token_bytes(KEY_BYTES)
                with replacing(path, ADVICE, mode=0o600) as temporary:
                    temporary.write_bytes(key)
    except InputError as error:
        _warn_once(str(error))
        return None
    return key


@functools.cache
def _warn_once(fault: str) -> None:
    if multiprocessing.parent_process() is None:  # a worker's parent has said so
        log.warning("%s; until then each offrl run of the same runs takes --trust again", fault)
