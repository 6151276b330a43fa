"""One file from one address: continued where it broke off, and within limits.

The limits are of size, of unfolding and of patience. An address is of https or http, redirects
included, or the plain path of a file here.
"""

import contextlib
import logging
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin

from offrl.data.foreign import DENSEST, MODEST, check_ordinary
from offrl.errors import InputError
from offrl.files import user_path
from offrl.progress import Progress
from offrl.text import one_line

log = logging.getLogger(__name__)

LARGEST = 20 * 2**30  # bytes of a file whose card says no `size`
CHUNK = 2**16  # bytes asked for at once; an answer that comes slower is taken as it comes
SILENCE = 30.0  # seconds until a server that says nothing is given up
SLOWEST = 1024  # bytes per second on average, over each period of
PATIENCE = 60.0  # seconds
PAUSES = (
    1.0,
    3.0,
    9.0,
)  # seconds before a busy server or one whose answer broke off is asked again
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses of HTTP that may pass
REDIRECTS = 10  # that are followed
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*:")


class _Failure(Exception):
    """Why an address gave no file, in a few words, and whether to ask it again."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again


def download(
    url: str, path: Path, size: int | None, progress: Progress | None, *, resume: bool = False
) -> str | None:
    """Brings the file of an address to `path`; returns the reason of a failure, else None.

    An answer that breaks off is continued: from the same server where it names the file's version,
    and from any where `resume` allows it. What came of it stays at `path` then; what is refused
    does not. An OSError of this disk is raised. The memory that is taken does not depend on the
    answer.

    Args:
        url: an address of https or http, or the path of a file.
        path: where it is written.
        size: its bytes where they are known; an answer of other length is a failure.
        progress: called with bytes done and bytes in all.
        resume: whether `path` may hold its beginning, since a checksum is compared in the end.
    """
    scheme = _SCHEME.match(url)
    transfer = _Transfer(path, size, progress, resume)
    try:
        if scheme is None:
            transfer.copy(url)
        elif scheme[0].lower() in ("https:", "http:"):
            transfer.ask(url)
        else:
            return f"{one_line(scheme[0]):.40} is refused; expected https, http or a plain path"
    except _Failure as failure:
        return failure.reason
    return None


@dataclass
class _Transfer:
    """A file on its way here."""

    path: Path
    size: int | None
    progress: Progress | None
    resume: bool
    tag: str | None = None  # by which the server named the version of what `path` holds

    def copy(self, name: str) -> None:
        """Copies a file of this machine. Raises _Failure."""
        with contextlib.ExitStack() as stack:
            try:
                source = user_path(name)
                check_ordinary(source)
                original = stack.enter_context(source.open("rb"))
                total = os.fstat(original.fileno()).st_size
            except (OSError, InputError) as error:
                raise _Failure(getattr(error, "strerror", None) or one_line(str(error))) from None
            self._check_total(total)
            self.path.unlink(missing_ok=True)
            file = stack.enter_context(self._opened(0))
            done = 0
            while block := original.read(CHUNK):
                done += len(block)
                self._check_done(done)
                file.write(block)
                self._report(done, total)
        self._end(done)

    def ask(self, url: str) -> None:
        """Downloads from a server, which is asked again where that may help. Raises _Failure."""
        import requests

        with requests.Session() as session:
            # Redirects are followed by `_attempt`: requests reads their bodies, however long.
            setattr(session, "get_redirect_target", lambda _response: None)  # noqa: B010
            for pause in (*PAUSES, None):
                try:
                    self._attempt(session, url)
                    return
                except _Failure as failure:
                    if pause is None or not failure.again:
                        raise
                    log.info("%s: %s; asked again in %g s", one_line(url), failure.reason, pause)
                    time.sleep(pause)

    def _attempt(self, session: Any, url: str) -> None:
        """One request and its answer."""
        import requests
        import urllib3

        held = self._held()
        # Packed answers are not asked for; one that comes all the same is unpacked with care.
        headers = {"Accept-Encoding": "identity"}
        if held:
            headers["Range"] = f"bytes={held}-"
            headers |= {"If-Range": self.tag} if self.tag else {}
        try:
            for _ in range(REDIRECTS + 1):
                with session.get(url, stream=True, timeout=SILENCE, headers=headers) as response:
                    onward = requests.Session.get_redirect_target(session, response)
                    if onward is None:
                        self._receive(response, held)
                        return
                    url = urljoin(url, onward)
            raise _Failure(f"more than {REDIRECTS} redirects")
        except _Failure:
            raise
        except requests.exceptions.InvalidSchema:
            raise _Failure("it redirects to an address that is not of https or http") from None
        except Exception as error:  # of any library below requests: the next address may work
            network = isinstance(error, ConnectionError | TimeoutError)
            if getattr(error, "errno", None) is not None and not network:
                raise  # of this disk
            if isinstance(error, urllib3.exceptions.HTTPError):  # of the body
                came = self.path.stat().st_size if self.path.exists() else 0
                reason = f"broke off after {came:,} bytes ({type(error).__name__})"
                raise _Failure(reason, again=True) from None
            log.debug("%s", one_line(f"{url}: {error}"))
            raise _Failure(type(error).__name__) from None

    def _held(self) -> int:
        """The bytes at `path` that may be continued; 0 where there are none."""
        with contextlib.suppress(FileNotFoundError):
            kind = self.path.lstat()
            if stat.S_ISREG(kind.st_mode) and (self.resume or self.tag):
                return kind.st_size
            self.path.unlink()
        return 0

    def _receive(self, response: Any, held: int) -> None:
        """Writes the body of an answer behind the first `held` bytes, or in their place."""
        status, headers = response.status_code, response.headers
        if status in BUSY:
            raise _Failure(f"HTTP {status}", again=True)
        packed = headers.get("Content-Encoding", "identity") != "identity"
        span = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
        fits = held and status == 206 and span and int(span[1]) == held and not packed
        if held and status in (206, 416) and not fits:  # another file than what is here
            self.path.unlink()
            raise _Failure(f"HTTP {status}", again=True)
        if not (fits or status == 200):
            raise _Failure(f"HTTP {status}")
        self.tag = None if packed else _version(headers)
        start = held if fits else 0
        if start:
            log.info("%s: goes on after %s bytes", one_line(response.url), f"{start:,}")
        try:
            self._write(response, start, packed)
        except BaseException:
            if packed:  # its bytes are not those that a server counts
                self.path.unlink(missing_ok=True)
            raise

    def _write(self, response: Any, start: int, packed: bool) -> None:
        length = 0 if packed else int(response.headers.get("Content-Length", 0))
        total = start + length if length else 0
        self._check_total(total)
        done, since, begun = start, start, time.monotonic()
        with self._opened(start) as file:
            while block := response.raw.read1(CHUNK, decode_content=True):
                done += len(block)
                if done > MODEST and done - start > DENSEST * response.raw.tell():
                    self._refuse(f"a packed answer that grows more than {DENSEST} times")
                self._check_done(done)
                file.write(block)
                self._report(done, total)
                now = time.monotonic()
                if now - begun > PATIENCE:
                    if done - since < SLOWEST * PATIENCE:
                        slow = f"slower than {SLOWEST} bytes per second for {now - begun:.0f} s"
                        raise _Failure(slow)
                    since, begun = done, now
        self._end(done)

    def _opened(self, start: int) -> BinaryIO:
        """The file at `path`, cut to its first `start` bytes, to be written behind them."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        file = os.fdopen(os.open(self.path, flags, 0o666), "wb")
        file.truncate(start)
        file.seek(start)
        return file

    def _report(self, done: int, total: int) -> None:
        if self.progress and total:
            self.progress(min(done, total), total)

    def _check_total(self, total: int) -> None:
        """Refuses a file that is announced with another length than it may have."""
        if total > (self.size or LARGEST):
            self._refuse(f"{total:,} bytes, more than {self._allowed()}")
        if self.size and total and total < self.size:
            self._refuse(f"{total:,} bytes, less than {self._allowed()}")

    def _check_done(self, done: int) -> None:
        if done > (self.size or LARGEST):
            self._refuse(f"more than {self._allowed()}")

    def _end(self, done: int) -> None:
        """Reports that all came, or refuses what is too short."""
        if self.size and done != self.size:
            self._refuse(f"{done:,} bytes, less than {self._allowed()}")
        self._report(done, done)

    def _refuse(self, reason: str) -> None:
        """Raises _Failure, and removes what came."""
        self.path.unlink(missing_ok=True)
        raise _Failure(reason)

    def _allowed(self) -> str:
        """The limit in words."""
        if self.size:
            return f"the {self.size:,} of the card's size"
        return f"{LARGEST:,}, the limit for a file whose card gives no size"


def _version(headers: Any) -> str | None:
    """What a server calls the version of a file byte by byte; None where it does not."""
    tag: str = headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    dated: str | None = headers.get("Last-Modified")
    return dated
