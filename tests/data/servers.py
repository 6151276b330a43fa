"""Web servers on this machine, good ones and hostile ones."""

import contextlib
import gzip
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class _Handler(BaseHTTPRequestHandler):
    server: "_Http"

    def do_GET(self) -> None:
        self.server.owner.answer(self)

    def log_message(self, *_: Any) -> None:
        pass


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    owner: "Server"


class Server:
    """The body of each path, and how it is served; it lists the requests it gets."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()  # whose first answer breaks off half-way
        self.cut_always: set[str] = set()
        self.statuses: dict[str, list[int]] = {}  # of the first answers
        self.redirects: dict[str, str] = {}
        self.lengths: dict[str, int] = {}  # that are announced in place of the true ones
        self.tags: dict[str, str] = {}  # the ETag; with one, or `ranges`, parts are served
        self.ranges = False
        self.packed = False  # whether bodies are sent by gzip, asked for or not
        self.pause = 0.0  # seconds between the blocks of a body
        self.requests: list[str] = []
        self.asked: list[str | None] = []  # the Range of each request
        self.http = _Http(("127.0.0.1", 0), _Handler)
        self.http.owner = self
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield self
        self.http.shutdown()
        self.http.server_close()
        thread.join()

    def answer(self, request: _Handler) -> None:
        path = request.path
        self.requests.append(path)
        self.asked.append(request.headers.get("Range"))
        if path in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[path])
            request.end_headers()
            return
        if self.statuses.get(path):
            request.send_error(self.statuses[path].pop(0))
            return
        body = self.files.get(path)
        if body is None:
            request.send_error(404)
            return
        tag = self.tags.get(path)
        span = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(span[1]) if span and (tag or self.ranges) else 0
        if request.headers.get("If-Range", tag) != tag:
            start = 0  # the file changed
        if start >= len(body):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if tag:
            request.send_header("ETag", tag)
        rest = body[start:]
        if self.packed:
            rest = gzip.compress(rest)
            request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(self.lengths.get(path, len(rest))))
        request.end_headers()
        if path in self.cut | self.cut_always:
            self.cut.discard(path)
            rest = rest[: len(rest) // 2]
        with contextlib.suppress(OSError):  # a client that went away
            for block in range(0, len(rest), 2**14):
                request.wfile.write(rest[block : block + 2**14])
                time.sleep(self.pause)


class Hostile(Server):
    """Answers without end, packed or slow; what it sent is counted."""

    sent = 0

    def answer(self, request: _Handler) -> None:
        path = request.path
        request.send_response(302 if path == "/onward" else 200)
        if path == "/onward":
            request.send_header("Location", "/gone")
        if path == "/packed":
            request.send_header("Content-Encoding", "gzip")
        if path == "/long":
            request.send_header("Content-Length", str(10**15))
        request.end_headers()
        block = {"/packed": gzip.compress(bytes(2**24)), "/slow": b"x"}.get(path, bytes(2**16))
        with contextlib.suppress(OSError):
            # A packed block alone: how much of several is read at once depends on time.
            for _ in range(1 if path == "/packed" else 1000):
                request.wfile.write(block)
                self.sent += len(block)
                if path == "/slow":
                    time.sleep(0.05)
