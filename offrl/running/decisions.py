"""What a user trusted when a run began, kept in its record for whoever carries it on.

A run folder may come from a stranger, whose decision counts for nothing here. So a record has a
seal, made with a key in this user's cache that nobody else can read; without the key, or with
another, the user is asked again.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from pathlib import Path

from offrl.data.cache import cache_folder
from offrl.errors import InputError
from offrl.results.rows import Decision
from offrl.results.store import run_folders


def decide(trust: tuple[str, ...]) -> Decision | None:
    """The record of what is trusted; None where that is nothing."""
    if not trust:
        return None
    return Decision(files=list(trust), seal=_seal(trust, _key() or _new_key()))


def decided(root: Path) -> tuple[str, ...]:
    """What this user trusted in runs below a folder, as far as it is still there."""
    files: dict[str, None] = {}
    key = _key()
    for folder in run_folders(root) if key and root.is_dir() else ():
        with contextlib.suppress(InputError):  # damaged, or of a newer offrl
            trust = folder.record().trust
            if trust and hmac.compare_digest(trust.seal, _seal(tuple(trust.files), key)):
                files |= dict.fromkeys(trust.files)
    return tuple(file for file in files if ":" in file or Path(file).exists())


def _seal(trust: tuple[str, ...], key: bytes | None) -> str:
    """A checksum of the files that only who has the key can make; empty without one."""
    text = json.dumps(list(trust)).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest() if key else ""


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
        key = stream.read(32)
    return key if len(key) == 32 else None


def _new_key() -> bytes | None:
    """A new key, kept in the cache; None where it cannot be kept."""
    key = secrets.token_bytes(32)
    try:
        _path().parent.mkdir(parents=True, exist_ok=True)
        file = os.open(_path(), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError:
        return _key()  # another process was faster, or the cache cannot be written
    with os.fdopen(file, "wb") as stream:
        stream.write(key)
    return key
