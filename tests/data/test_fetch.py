"""Bringing data here: downloads, files from a folder, and data that offrl makes."""

import errno
import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from servers import Hostile, Server
from sources import card, kept, left_over, npz

from offrl.data import download
from offrl.data.card import Card, find_card
from offrl.data.dataset import load_dataset
from offrl.data.fetch import fetch, make
from offrl.data.resolve import resolve
from offrl.errors import InputError
from offrl.text import one_line
from offrl.toml import to_toml

# --- downloads ---


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", (0.01,))
    with Server().running() as running:
        yield running


def remote(server: Server, data: bytes, *paths: str, md5: bool = True) -> Card:
    file: dict[str, Any] = {"name": "a.npz", "urls": [server.url + path for path in paths]}
    if md5:
        file["md5"] = hashlib.md5(data).hexdigest()
    return card([file])


def test_a_mirror_serves_what_the_first_address_lacks(
    tmp_path: Path, own_cache: Path, server: Server
) -> None:
    data = npz(tmp_path / "a.npz", rows=100).read_bytes()
    server.files["/mirror/a.npz"] = data
    reported: list[tuple[int, int]] = []
    loaded = load_dataset(
        remote(server, data, "/first/a.npz", "/mirror/a.npz"),
        progress=lambda done, total: reported.append((done, total)),
    )
    assert len(loaded) == 100
    assert server.requests == ["/first/a.npz", "/mirror/a.npz"]
    assert reported[-1] == (len(data), len(data))
    assert [path.read_bytes() for path in kept(own_cache)] == [data]
    assert left_over(own_cache) == []
    load_dataset(remote(server, data, "/first/a.npz", "/mirror/a.npz"))
    assert len(server.requests) == 2


def test_a_wrong_checksum_leads_to_the_mirror_and_then_to_an_error(
    tmp_path: Path, own_cache: Path, server: Server
) -> None:
    data = npz(tmp_path / "a.npz").read_bytes()
    server.files["/first/a.npz"] = data[:-1] + b"x"
    wrong = hashlib.md5(data[:-1] + b"x").hexdigest()
    source = remote(server, data, "/first/a.npz")
    with pytest.raises(InputError) as caught:
        load_dataset(source)
    message = str(caught.value)
    assert f"MD5 {wrong}, expected {hashlib.md5(data).hexdigest()}" in message
    assert "`offrl data fetch tiny`" in message
    assert "`offrl data fetch tiny --from DIR`" in message
    assert "\n" not in message
    assert kept(own_cache) == []
    assert left_over(own_cache) == []
    server.files["/mirror/a.npz"] = data
    assert len(load_dataset(remote(server, data, "/first/a.npz", "/mirror/a.npz"))) == 20


def test_an_answer_that_breaks_off_is_not_kept(
    tmp_path: Path, own_cache: Path, server: Server
) -> None:
    data = npz(tmp_path / "a.npz", rows=1000).read_bytes()
    server.files["/a.npz"] = data
    server.cut_always.add("/a.npz")
    with pytest.raises(InputError, match=r"a\.npz is not on this machine and could not be down"):
        load_dataset(remote(server, data, "/a.npz", md5=False))
    assert kept(own_cache) == []
    assert left_over(own_cache) == []


@pytest.mark.usefixtures("own_cache")
def test_without_a_published_checksum_the_one_found_is_noted(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    data = npz(tmp_path / "a.npz").read_bytes()
    server.files["/a.npz"] = data
    source = remote(server, data, "/a.npz", md5=False)
    note = (
        f"a.npz has no published checksum; its SHA-256 here is {hashlib.sha256(data).hexdigest()}"
    )
    for _ in range(2):  # on the first load and on every later one
        caplog.clear()
        with caplog.at_level(logging.INFO):
            loaded = load_dataset(source)
        assert loaded.notes == [note]
        assert note in caplog.text
    assert "1 note>" in repr(loaded)


def test_a_server_that_is_not_there_is_one_line(own_cache: Path, server: Server) -> None:
    server.http.server_close()
    with pytest.raises(InputError, match=r"could not be downloaded \(http://127") as caught:
        load_dataset(remote(server, b"", "/a.npz"))
    assert "\n" not in str(caught.value)
    assert left_over(own_cache) == []


@pytest.mark.usefixtures("own_cache")
def test_advice_names_the_card_by_its_file(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "my cards" / "mine.toml"
    path.parent.mkdir()
    values = card([{"name": "a.npz", "urls": [server.url + "/a.npz"]}]).model_dump(
        mode="json", exclude_none=True
    )
    path.write_text(to_toml(values))
    with pytest.raises(InputError, match="could not be downloaded") as caught:
        load_dataset(path)
    assert str(caught.value).count(f"`offrl data fetch '{path}'") == 2
    server.files["/a.npz"] = b"no archive"
    with pytest.raises(InputError, match="the copy here is damaged") as caught:
        load_dataset(path)
    assert f"`offrl data fetch '{path}'`" in str(caught.value)
    with pytest.raises(InputError, match="is published, not made here") as caught:
        make(resolve(path))
    assert f"`offrl data fetch '{path}'`" in str(caught.value)


@pytest.mark.usefixtures("own_cache")
def test_no_card_brings_a_file_for_another_with_its_id(tmp_path: Path, server: Server) -> None:
    data = npz(tmp_path / "a.npz").read_bytes()
    server.files["/a.npz"] = data
    planted = server.files["/planted.npz"] = npz(tmp_path / "p.npz", rows=30).read_bytes()
    urls = [server.url + "/planted.npz"]
    assert len(load_dataset(card([{"name": "a.npz", "urls": urls}]))) == 30
    sha256 = hashlib.sha256(planted).hexdigest()
    assert len(load_dataset(card([{"name": "a.npz", "urls": urls, "sha256": sha256}]))) == 30
    for md5 in (False, True):
        theirs = remote(server, data, "/a.npz", md5=md5)
        assert [path.read_bytes() for path in fetch(theirs)] == [data]
        assert len(load_dataset(theirs)) == 20
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a.npz").write_bytes(planted)
    fetch(card([{"name": "a.npz", "urls": ["http://x"]}]), tmp_path / "from")
    assert [path.read_bytes() for path in fetch(remote(server, data, "/a.npz"))] == [data]


def test_a_file_of_an_earlier_version_is_used_where_its_checksum_verifies_it(
    tmp_path: Path, own_cache: Path, server: Server
) -> None:
    data = npz(tmp_path / "a.npz").read_bytes()
    server.files["/a.npz"] = data
    earlier = own_cache / "downloads" / "tiny-v1" / "a.npz"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(data)
    assert fetch(remote(server, data, "/a.npz")) == [earlier]
    assert server.requests == []
    server.files["/b.npz"] = other = npz(tmp_path / "b.npz", seed=1).read_bytes()
    (before,) = fetch(remote(server, other, "/b.npz", md5=False))
    assert fetch(remote(server, other, "/b.npz")) == [before]  # once the card has a checksum
    assert server.requests == ["/b.npz"]
    earlier.write_bytes(npz(tmp_path / "planted.npz", rows=30).read_bytes())
    for md5 in (True, False):
        (path,) = fetch(remote(server, data, "/a.npz", md5=md5))
        assert path != earlier
        assert path.read_bytes() == data


@pytest.mark.parametrize("path", ["\n/x", "/\x1b[2J\r\nerror: all is well", "/a\u202eb"])
def test_an_address_is_shown_as_text_on_one_line(
    path: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    source = card([{"name": "a.npz", "urls": [server.url + path]}])
    with caplog.at_level(logging.INFO), pytest.raises(InputError) as caught:
        fetch(source)
    assert len(caplog.messages) == 2
    for line in [*caplog.messages, str(caught.value)]:
        assert one_line(line) == line
        assert server.url in line


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "LARGEST", 2**21)
    monkeypatch.setattr(download, "MODEST", 2**16)
    monkeypatch.setattr(download, "PATIENCE", 0.5)
    with Hostile().running() as running:
        yield running


@pytest.mark.parametrize(
    ("path", "size", "reason"),
    [
        ("/endless", None, "more than 2,097,152, the limit for a file whose card gives no size"),
        ("/endless", 500_000, "more than the 500,000 of the card's size"),
        ("/long", None, "1,000,000,000,000,000 bytes, more than 2,097,152, the limit"),
        ("/onward", None, "more than 2,097,152"),  # whose own body has no end either
        ("/packed", None, "a packed answer that grows more than 100 times"),
        ("/slow", None, "slower than 1024 bytes per second for [01] s"),
    ],
)
def test_a_download_has_limits(
    own_cache: Path, hostile: Hostile, path: str, size: int | None, reason: str
) -> None:
    file = {"name": "a.npz", "urls": [hostile.url + path], "size": size}
    with pytest.raises(InputError, match=r"could not be downloaded \(http://127.*: " + reason):
        load_dataset(card([file]))
    assert hostile.sent < 2**24
    assert left_over(own_cache) == []
    assert kept(own_cache) == []


def test_a_packed_answer_may_have_another_length_than_the_file(
    tmp_path: Path, own_cache: Path, server: Server
) -> None:
    """Its announced length is that of the packed bytes; the card's size is the file's."""
    data = npz(tmp_path / "a.npz", rows=100).read_bytes()
    server.files["/a.npz"] = data
    server.packed = True
    file = {"name": "a.npz", "urls": [f"{server.url}/a.npz"], "size": len(data)}
    assert len(load_dataset(card([file]))) == 100
    (path,) = kept(own_cache)
    assert path.read_bytes() == data


def test_a_download_that_is_stopped_in_its_last_rename_is_not_lost(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = npz(tmp_path / "a.npz", rows=100)
    checksum = hashlib.sha256(original.read_bytes()).hexdigest()
    source = card([{"name": "a.npz", "urls": [str(original)], "sha256": checksum}])
    rename = Path.replace

    def stopped(path: Path, target: Path) -> Path:
        if Path(target).name == "a.npz":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch(source)
    original.unlink()
    assert fetch(source) == kept(own_cache)
    assert left_over(own_cache) == []


# --- files from a folder ---


def test_files_are_taken_from_a_folder_by_name_or_checksum(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    data = npz(folder / "other name.npz").read_bytes()
    npz(folder / "decoy.npz", seed=1)
    source = card([{"name": "a.npz", "md5": hashlib.md5(data).hexdigest(), "urls": ["http://x"]}])
    paths = fetch(source, folder)
    assert paths == kept(own_cache)
    assert paths[0].read_bytes() == data
    assert fetch(source) == paths  # now it is here: no network is used
    assert len(load_dataset(source)) == 20


def test_a_file_without_a_checksum_is_looked_into(tmp_path: Path, own_cache: Path) -> None:
    """One that broke off would be kept, as nothing says that it is another."""
    folder = tmp_path / "here"
    folder.mkdir()
    with h5py.File(folder / "a.hdf5", "w") as file:
        file["rewards"] = np.zeros(1000)
    npz(folder / "whole.npz")
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for name, loader in (("a.hdf5", "d4rl"), ("whole.npz", "neorl2"), ("whole.npz", "ogbench")):
        bare = {"loader": loader, "files": [{"name": name, "urls": ["http://x"]}]}
        source = card([], source=bare)
        (folder / name).write_bytes(whole[folder / name][:-600])
        with pytest.raises(InputError, match=rf"{name}: cannot be read as {loader} data"):
            fetch(source, folder)
        (folder / name).write_bytes(whole[folder / name])
        if loader != "neorl2":
            with pytest.raises(InputError, match=rf"{name}: lacks .*; it is no such data"):
                fetch(source, folder)
        assert left_over(own_cache) == []
        assert kept(own_cache) == []
    assert fetch(card([], source=bare | {"loader": "neorl2"}), folder) == kept(own_cache)


def test_a_folder_without_the_file_is_named(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    npz(folder / "decoy.npz")
    source = card([{"name": "a.npz", "md5": "0" * 32, "urls": ["http://x"]}])
    with pytest.raises(InputError, match=r"no a\.npz by name or by MD5 0+ among its 1 \.npz files"):
        fetch(source, folder)
    with pytest.raises(InputError, match=r"gone: no such folder; --from takes the folder"):
        fetch(source, tmp_path / "gone")
    bare = card([{"name": "a.npz", "urls": ["http://x"]}])
    with pytest.raises(InputError, match=r"no a\.npz by name \(the card has no checksum\)"):
        fetch(bare, folder)
    npz(folder / "a.npz")
    with pytest.raises(InputError, match=r"here/a\.npz: MD5 \w{32}, expected 0{32}"):
        fetch(source, folder)
    assert left_over(own_cache) == []
    assert kept(own_cache) == []


def test_an_original_that_cannot_be_read_is_named(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(original: Path, _target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(original))

    npz(tmp_path / "a.npz")
    monkeypatch.setattr(shutil, "copyfile", closed)
    with pytest.raises(InputError, match=r"/a\.npz: may not be read by this user") as caught:
        fetch(card([{"name": "a.npz", "urls": ["http://x"]}]), tmp_path)
    assert str(own_cache) not in str(caught.value).replace(str(tmp_path / "a.npz"), "")
    assert left_over(own_cache) == []


@pytest.mark.usefixtures("own_cache")
def test_a_download_that_went_bad_is_refused(tmp_path: Path) -> None:
    data = npz(tmp_path / "a.npz").read_bytes()
    source = card([{"name": "a.npz", "md5": hashlib.md5(data).hexdigest(), "urls": ["http://x"]}])
    target = fetch(source, tmp_path)[0]
    target.write_bytes(b"bad")
    with pytest.raises(InputError, match=r"MD5 \w+, expected \w+; .*delete it and fetch a\.npz"):
        load_dataset(source)


def test_a_file_of_the_users_own_is_not_to_be_deleted(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz: SHA256 .*: copy it again, or") as caught:
        load_dataset(card([{"name": str(path), "sha256": "0" * 64}]))
    assert "delete" not in str(caught.value)


# --- data that offrl makes ---


MAKER = """
from pathlib import Path
import numpy as np

def make(directory, progress=None):
    calls = Path(__file__).with_name("calls.txt")
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    if progress:
        progress(1, 1)
    rows = 4
    path = directory / "sub" / "made.npz"
    path.parent.mkdir()
    np.savez(path, obs=np.ones((rows, 2)), action=np.ones((rows, 1)), next_obs=np.ones((rows, 2)),
             reward=np.ones(rows), done=np.array([0, 0, 0, 1]), truncated=np.zeros(rows))
    return path
"""


def test_what_offrl_makes_is_made_once_and_kept(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = tmp_path / "maker.py"
    maker.write_text(MAKER)
    source = card([], source={"loader": "neorl2", "maker": str(maker)})
    reported: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO):
        data = load_dataset(source, progress=lambda done, total: reported.append((done, total)))
    assert "tiny: making the data set (once" in caplog.text
    assert reported == [(1, 1)]
    assert data.episode_returns.tolist() == [4.0]
    path = make(source)
    assert path in kept(own_cache, "made")
    assert path.parts[-2:] == ("sub", "made.npz")
    assert (tmp_path / "calls.txt").read_text() == "x"
    assert make(source, again=True) == path
    assert (tmp_path / "calls.txt").read_text() == "xx"
    assert left_over(own_cache) == []


@pytest.mark.usefixtures("own_cache")
def test_what_one_maker_made_is_not_what_another_makes(tmp_path: Path) -> None:
    made = {}
    for name in ("one", "two"):
        maker = tmp_path / f"{name}.py"
        maker.write_text(MAKER.replace("rows = 4", f"rows, name = 4, {name!r}"))
        made[name] = make(card([], source={"loader": "neorl2", "maker": str(maker)}))
    assert made["one"] != made["two"]
    assert (tmp_path / "calls.txt").read_text() == "xx"


def test_a_maker_that_lacks_its_input_names_it(tmp_path: Path, own_cache: Path) -> None:
    maker = tmp_path / "maker.py"
    maker.write_text("def make(directory, progress=None):\n    open('/gone/my input')\n")
    source = card([], source={"loader": "neorl2", "maker": str(maker)})
    with pytest.raises(InputError, match=r"maker: .*maker\.py.*No such file.*'/gone/my input'"):
        make(source)
    assert left_over(own_cache) == []


@pytest.mark.parametrize("error", ["SystemExit", "ValueError('no\\nspace')"])
def test_a_maker_that_fails_is_named_and_leaves_nothing(
    error: str, tmp_path: Path, own_cache: Path
) -> None:
    maker = tmp_path / "bad_maker.py"
    maker.write_text(
        "def make(directory, progress=None):\n    (directory / 'half').write_text('')\n"
        f"    raise {error}\n"
    )
    source = card([], source={"loader": "neorl2", "maker": str(maker)})
    with pytest.raises(InputError, match=rf"bad_maker\.py', line 3, raised {error[:9]}"):
        make(source)
    assert kept(own_cache, "made") == []
    assert left_over(own_cache) == []


def test_a_maker_that_makes_nothing_is_named() -> None:
    source = card([], source={"loader": "neorl2", "maker": "neorl2"})
    with pytest.raises(
        InputError, match=r"source\.maker: 'neorl2' is no maker: it has no function make"
    ):
        make(source)


def test_published_data_are_not_made() -> None:
    with pytest.raises(InputError, match="neorl2-dmsd: is published, not made here"):
        make(find_card("neorl2-dmsd"))
