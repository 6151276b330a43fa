"""What servers do to a download: it is continued, repeated, taken elsewhere, or refused."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Server
from sources import card, kept, left_over

from offrl.data import download
from offrl.data.card import Card
from offrl.data.fetch import fetch
from offrl.errors import InputError

BODY = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OFFRL_MIRROR", raising=False)
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.01))
    with Server().running() as running:
        yield running


def remote(*urls: str, **keys: Any) -> Card:
    return card([{"name": "a.bin", "urls": [*urls], "md5": MD5} | keys])


def fetched(source: Card) -> bytes:
    (path,) = fetch(source)
    return path.read_bytes()


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.usefixtures("own_cache")
def test_an_address_that_refuses_is_asked_once(server: Server, status: int) -> None:
    server.statuses["/a.bin"] = [status] * 9
    with pytest.raises(InputError, match=rf"/a\.bin: HTTP {status}\);"):
        fetch(remote(server.url + "/a.bin"))
    assert server.requests == ["/a.bin"]
    server.files["/mirror/a.bin"] = BODY
    assert fetched(remote(server.url + "/a.bin", server.url + "/mirror/a.bin")) == BODY


@pytest.mark.usefixtures("own_cache")
def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.files["/a.bin"] = BODY
    server.statuses["/a.bin"] = [500, 503]
    assert fetched(remote(server.url + "/a.bin", md5=None)) == BODY
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_left(own_cache: Path, server: Server) -> None:
    server.statuses["/a.bin"] = [500] * 9
    with pytest.raises(InputError, match="HTTP 500"):
        fetch(remote(server.url + "/a.bin"))
    assert len(server.requests) == 3
    assert left_over(own_cache) == []


@pytest.mark.parametrize(("md5", "tag"), [(MD5, None), (None, '"one"')])
@pytest.mark.usefixtures("own_cache")
def test_an_answer_that_breaks_off_is_continued(
    server: Server, md5: str | None, tag: str | None
) -> None:
    """With a checksum that is compared in the end, or where the server names the version."""
    server.files["/a.bin"] = BODY
    server.cut.add("/a.bin")
    server.ranges = True
    server.tags = {"/a.bin": tag} if tag else {}
    reported: list[tuple[int, int]] = []
    (path,) = fetch(
        remote(server.url + "/a.bin", md5=md5), None, lambda *numbers: reported.append(numbers)
    )
    assert path.read_bytes() == BODY
    assert server.asked == [None, f"bytes={len(BODY) // 2}-"]
    assert reported == sorted(reported)
    assert reported[-1] == (len(BODY), len(BODY))


@pytest.mark.usefixtures("own_cache")
def test_without_checksum_and_version_it_begins_anew(server: Server) -> None:
    server.files["/a.bin"] = BODY
    server.cut.add("/a.bin")
    server.ranges = True
    assert fetched(remote(server.url + "/a.bin", md5=None)) == BODY
    assert server.asked == [None, None]


@pytest.mark.usefixtures("own_cache")
def test_a_file_that_changed_meanwhile_is_read_from_its_beginning(server: Server) -> None:
    server.files["/a.bin"] = bytes(400_000)
    server.tags["/a.bin"] = '"one"'
    server.cut.add("/a.bin")
    answer = server.answer

    def changing(request: Any) -> None:
        answer(request)
        server.files["/a.bin"], server.tags["/a.bin"] = BODY, '"two"'

    server.answer = changing  # type: ignore[method-assign]
    assert fetched(remote(server.url + "/a.bin", md5=None)) == BODY
    assert server.asked == [None, "bytes=200000-"]


def test_a_later_process_continues_what_an_earlier_one_began(
    own_cache: Path, server: Server
) -> None:
    server.files |= {"/a.bin": BODY, "/mirror/a.bin": BODY}
    server.cut_always.add("/a.bin")
    with pytest.raises(InputError, match=r"broke off after 150,000 bytes"):
        fetch(remote(server.url + "/a.bin"))  # without parts, each attempt begins anew
    assert kept(own_cache) == []
    assert left_over(own_cache) == [".a.bin.part"]
    server.ranges = True
    assert fetched(remote(server.url + "/mirror/a.bin", server.url + "/a.bin")) == BODY
    assert (server.requests[-1], server.asked[-1]) == ("/mirror/a.bin", "bytes=150000-")
    assert left_over(own_cache) == []


def test_a_beginning_of_another_file_is_thrown_away(own_cache: Path, server: Server) -> None:
    server.files["/a.bin"] = bytes(len(BODY))
    server.ranges = True
    server.cut_always.add("/a.bin")
    source = remote(server.url + "/a.bin")
    with pytest.raises(InputError, match="broke off"):
        fetch(source)
    server.files["/a.bin"] = BODY
    server.cut_always.clear()
    assert fetched(source) == BODY
    assert server.asked[-2:] != [None, None]  # continued, found wrong, and read anew
    assert server.asked[-1] is None
    assert left_over(own_cache) == []


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"size": len(BODY) + 1}, "300,000 bytes, less than the 300,001 of the card's size"),
        ({"size": len(BODY) - 1}, "300,000 bytes, more than the 299,999 of the card's size"),
        ({"md5": "0" * 32}, f"MD5 {MD5}, expected 0"),
    ],
)
def test_a_file_of_another_length_or_checksum_is_refused(
    own_cache: Path, server: Server, keys: dict[str, Any], reason: str
) -> None:
    server.files["/a.bin"] = BODY
    with pytest.raises(InputError, match=reason):
        fetch(remote(server.url + "/a.bin", **keys))
    assert len(server.requests) == 1
    assert kept(own_cache) == []
    assert left_over(own_cache) == []


def test_an_answer_shorter_than_it_says_is_refused(own_cache: Path, server: Server) -> None:
    server.files["/a.bin"] = BODY
    server.lengths["/a.bin"] = len(BODY) + 7
    with pytest.raises(InputError, match="broke off after 300,000 bytes"):
        fetch(remote(server.url + "/a.bin", md5=None))
    assert left_over(own_cache) == []


def test_a_redirect_is_followed_to_other_servers_but_not_to_other_schemes(
    own_cache: Path, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(BODY)
    with Server().running() as other:
        other.files["/deep/b"] = BODY
        server.redirects = {
            "/a.bin": other.url + "/deep/b",
            "/ftp": "ftp://127.0.0.1/x",
            "/file": f"file://{tmp_path}/secret",
            "/round": "/round",
        }
        for path, reason in [
            ("/ftp", "it redirects to an address that is not of https or http"),
            ("/file", "it redirects to an address that is not of https or http"),
            ("/round", "more than 10 redirects"),
        ]:
            with pytest.raises(InputError, match=reason):
                fetch(remote(server.url + path))
        assert len(server.requests) < 20
        assert kept(own_cache) == []
        assert fetched(remote(server.url + "/a.bin")) == BODY
        assert other.requests == ["/deep/b"]


@pytest.mark.parametrize("url", ["ftp://h/a.bin", "file:///a.bin", "data:,x", "S3://h/a.bin"])
def test_other_schemes_are_refused(own_cache: Path, url: str) -> None:
    with pytest.raises(InputError, match="is refused; expected https, http or a plain path"):
        fetch(remote(url))
    assert kept(own_cache) == []


def test_an_address_may_be_a_plain_path(own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(BODY)
    (tmp_path / "long.bin").write_bytes(BODY + b"x")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in [
        ("gone", "No such file"),
        ("", "folder"),
        ("pipe", "pipe"),
        ("long.bin", "300,001 bytes, more than"),
    ]:
        with pytest.raises(InputError, match=reason):
            fetch(remote(str(tmp_path / name), size=len(BODY)))
    assert left_over(own_cache) == []
    assert fetched(remote(str(tmp_path / "a.bin"), size=len(BODY))) == BODY


@pytest.mark.usefixtures("own_cache")
def test_a_mirror_of_ones_own_comes_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files |= {"/mine/a.bin": BODY, "/a.bin": BODY}
    monkeypatch.setenv("OFFRL_MIRROR", server.url + "/mine/")
    assert fetched(remote(server.url + "/a.bin")) == BODY
    assert server.requests == ["/mine/a.bin"]
    (tmp_path / "b.bin").write_bytes(BODY)
    monkeypatch.setenv("OFFRL_MIRROR", str(tmp_path))
    assert fetched(card([{"name": "b.bin", "urls": [server.url + "/b.bin"], "md5": MD5}])) == BODY
    assert server.requests == ["/mine/a.bin"]
    other = {"name": "c.bin", "urls": [server.url + "/a.bin"], "sha256": "0" * 64}
    with pytest.raises(InputError, match=r"c\.bin: No such file.*; http.*SHA256"):
        fetch(card([other]))


@pytest.mark.usefixtures("own_cache")
def test_a_file_is_brought_once_for_all_cards_with_its_addresses(server: Server) -> None:
    server.files["/a.bin"] = BODY
    urls = [server.url + "/a.bin"]
    assert fetched(card([{"name": "a.bin", "urls": urls}])) == BODY
    file = {"name": "a.bin", "urls": [*urls, server.url + "/mirror"]}  # which the card got later
    assert fetched(card([file], id="other")) == BODY
    assert len(server.requests) == 1
    assert fetched(card([file | {"urls": file["urls"][::-1]}])) == BODY
    assert server.requests[1:] == ["/mirror", "/a.bin"]


def fetch_shipped(name: str, server: Server) -> "subprocess.CompletedProcess[str]":
    """`offrl data fetch` of a shipped card; a proxy is what stands for its hosts here."""
    environment = {k: v for k, v in os.environ.items() if k.upper() != "NO_PROXY"}
    return subprocess.run(
        [sys.executable, "-m", "offrl", "data", "fetch", name],
        env=environment | {"http_proxy": server.url, "https_proxy": server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )


LOCOMOTION = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/"


def test_fetch_of_a_shipped_card_needs_nothing_else(own_cache: Path, server: Server) -> None:
    """Its host is busy once, then answers. Of this set no checksum is known."""
    address = f"{LOCOMOTION}hopper_random-v2.hdf5"
    server.files[address] = BODY
    server.statuses[address] = [500]
    done = fetch_shipped("hopper-random-v2", server)
    path = Path(done.stdout.strip())
    assert path.is_relative_to(own_cache)
    assert path.name == "hopper_random-v2.hdf5"
    assert path.read_bytes() == BODY
    assert server.requests == [address] * 2


def test_another_file_than_the_shipped_card_knows_is_refused(
    own_cache: Path, server: Server
) -> None:
    server.files[f"{LOCOMOTION}hopper_medium-v2.hdf5"] = BODY
    done = fetch_shipped("hopper-medium-v2", server)
    assert done.returncode == 2
    size = f"{len(BODY):,} bytes, less than the 152,756,557 of the card's size"
    assert f"{LOCOMOTION}hopper_medium-v2.hdf5: {size}" in done.stderr
    assert left_over(own_cache) == []


PROGRAM = """
import sys
from pathlib import Path
from offrl.data.card import Card
from offrl.data.fetch import fetch
print(fetch(Card.model_validate_json(sys.argv[1]))[0])
"""


def start(source: Card) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, source.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_download_once(own_cache: Path, server: Server) -> None:
    server.files["/a.bin"] = BODY
    server.pause = 0.05
    both = [start(remote(server.url + "/a.bin")) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in both}
    assert server.requests == ["/a.bin"]
    assert [process.returncode for process in both] == [0, 0]
    assert {Path(path).read_bytes() for path in paths} == {BODY}
    assert left_over(own_cache) == []


def test_a_download_that_was_killed_is_continued(own_cache: Path, server: Server) -> None:
    server.files["/a.bin"] = BODY
    server.ranges = True
    server.pause = 0.2
    source = remote(server.url + "/a.bin")
    with start(source) as process:
        end, part = time.monotonic() + 60, None
        while part is None or part.stat().st_size < 2**15:
            assert time.monotonic() < end
            time.sleep(0.01)
            part = next(own_cache.rglob(".a.bin.part"), None)
        os.kill(process.pid, signal.SIGKILL)
    server.pause = 0.0
    held = part.stat().st_size
    assert fetched(source) == BODY
    assert server.asked == [None, f"bytes={held}-"]
    assert left_over(own_cache) == []
