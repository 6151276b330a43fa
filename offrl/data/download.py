"""One file from one address, within limits of size, of unfolding and of patience."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from offrl.data.foreign import DENSEST, MODEST
from offrl.progress import Progress
from offrl.text import one_line

log = logging.getLogger(__name__)

LARGEST = 20 * 2**30  # bytes of a file whose card says no `size`
CHUNK = 2**16  # bytes asked for at once; an answer that comes slower is taken as it comes
SILENCE = 30.0  # seconds until a server that says nothing is given up
SLOWEST = 1024  # bytes per second on average, over each period of
PATIENCE = 60.0  # seconds


def download(url: str, path: Path, size: int | None, progress: Progress | None) -> str | None:
    """Downloads to `path`; returns the reason of a failure in a few words, else None.

    An OSError of this disk is raised. The memory that is taken does not depend on the answer.

    Args:
        url: an address of the file.
        path: where it is written, over what another address left there.
        size: its bytes where they are known; a larger answer is a failure.
        progress: called with bytes done and bytes in all.
    """
    import requests

    try:
        with (
            # Packed answers are not asked for; one that comes all the same is unpacked with care.
            requests.get(
                url, stream=True, timeout=SILENCE, headers={"Accept-Encoding": "identity"}
            ) as response,
            path.open("wb") as file,
        ):
            response.raise_for_status()
            return _copy(response, file.write, size, progress)
    except Exception as error:  # of any library below requests: the next address may work
        network = isinstance(error, ConnectionError | TimeoutError)
        if getattr(error, "errno", None) is not None and not network:
            raise  # of this disk
        log.info("%s", one_line(f"{url}: {error}"))
        answer = getattr(error, "response", None)
        return f"HTTP {answer.status_code}" if answer is not None else type(error).__name__


def _copy(
    response: Any, write: Callable[[bytes], object], size: int | None, progress: Progress | None
) -> str | None:
    """Copies the body of an answer; returns the reason of a failure, else None."""
    limit = size or LARGEST
    total = int(response.headers.get("Content-Length", 0))
    if total > limit:
        return f"{total:,} bytes, more than {_allowed(size)}"
    done, since, begun = 0, 0, time.monotonic()
    while block := response.raw.read1(CHUNK, decode_content=True):
        done += len(block)
        if done > MODEST and done > DENSEST * response.raw.tell():
            return f"a packed answer that grows more than {DENSEST} times"
        if done > limit:
            return f"more than {_allowed(size)}"
        write(block)
        if progress and total:
            progress(min(done, total), total)
        now = time.monotonic()
        if now - begun > PATIENCE:
            if done - since < SLOWEST * PATIENCE:
                return f"slower than {SLOWEST} bytes per second for {now - begun:.0f} s"
            since, begun = done, now
    if progress and total:
        progress(total, total)
    return None


def _allowed(size: int | None) -> str:
    """The limit in words."""
    if size:
        return f"the {size:,} of the card's size"
    return f"{LARGEST:,}, the limit for a file whose card gives no size"
