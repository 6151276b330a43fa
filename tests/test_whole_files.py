"""Files that are whole or absent, and names that never leave their folder."""

import errno
import json
import multiprocessing
import os
import secrets
import signal
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from offrl.errors import InputError
from offrl.files import (
    below,
    open_own,
    replacing,
    replacing_folder,
    seal,
    sweep,
    unseal,
    unsealed_text,
)


def anything(_folder: Path) -> None:
    """Whatever stands there may be removed."""


def nothing(folder: Path) -> None:
    raise InputError(f"{folder}: is not ours")


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "a/b", "/etc/passwd", "..\\x", "a\\b", "a\0b", "a\nb", "../../x", "\x7f"],
)
def test_a_name_that_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected a plain name"):
        below(tmp_path, name)
    with pytest.raises(InputError, match="expected a plain name"):
        below(tmp_path, "sub", name)


def test_plain_names_are_joined(tmp_path: Path) -> None:
    assert below(tmp_path, "...toml", "a b", "é", ".x") == tmp_path / "...toml" / "a b" / "é" / ".x"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")  # which stays below
    assert below(tmp_path, "link", "x") == tmp_path / "link" / "x"
    (tmp_path / "top").symlink_to("real")  # a folder of one's own may be a link itself
    assert below(tmp_path / "top", "x") == tmp_path / "top" / "x"


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to("../outside")
    for names in [("link",), ("link", "x"), ("link", "x", "y")]:
        with pytest.raises(InputError, match=r"inside/link: is a link that leads out of \S+inside"):
            below(inside, *names)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    with os.fdopen(open_own(tmp_path / "file"), "rb") as stream:
        assert stream.read() == b"bytes"
    os.mkfifo(tmp_path / "pipe")  # a plain open would wait for a writer
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in [tmp_path, *map(tmp_path.joinpath, ("pipe", "link", "zero")), Path("/dev/zero")]:
        with pytest.raises(OSError, match=r"it is a (link|folder, pipe or device); expected"):
            open_own(path)


def writers(path: Path) -> list[AbstractContextManager[Path]]:
    return [replacing(path, "free some"), replacing_folder(path, anything, "free some")]


@pytest.mark.parametrize("folder", [0, 1])
def test_an_error_of_another_file_keeps_its_name(tmp_path: Path, folder: int) -> None:
    with (
        pytest.raises(FileNotFoundError, match="my input") as caught,
        writers(tmp_path / "out")[folder],
    ):
        (tmp_path / "my input").read_bytes()
    assert caught.value.filename == str(tmp_path / "my input")
    with pytest.raises(ConnectionResetError), writers(tmp_path / "out")[folder]:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [0, 1])
def test_an_error_of_what_is_written_names_the_target(tmp_path: Path, folder: int) -> None:
    with (
        pytest.raises(InputError, match=r"/out: cannot be written: .*; free some") as caught,
        writers(tmp_path / "out")[folder] as temporary,
    ):
        (temporary / "a" / "b").write_text("")
    assert ".tmp" not in str(caught.value)
    with (  # as `shutil.copyfile`, which gives the name of the source
        pytest.raises(InputError, match=r"/out: cannot be written: full; free some"),
        writers(tmp_path / "out")[folder],
    ):
        raise OSError(errno.ENOSPC, "full", str(tmp_path / "my input"))
    assert list(tmp_path.iterdir()) == []


def test_a_planted_name_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["deadbeef", "0badcafe", "deadbeef", "0badcafe"])
    monkeypatch.setattr(secrets, "token_hex", lambda _n: next(names))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    planted = tmp_path / ".o.csv.deadbeef.tmp"
    planted.symlink_to(victim)
    with replacing(tmp_path / "o.csv") as temporary:
        assert temporary.name == ".o.csv.0badcafe.tmp"
        temporary.write_text("new")
    assert victim.read_text() == "mine"
    assert planted.is_symlink()
    assert (tmp_path / "o.csv").read_text() == "new"
    planted.rename(tmp_path / ".o.deadbeef.tmp")
    with replacing_folder(tmp_path / "o", nothing) as temporary:
        assert temporary.name == ".o.0badcafe.tmp"
    assert (tmp_path / "o").is_dir()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_what_is_written_follows_the_umask(tmp_path: Path, umask: int) -> None:
    """Even where a library puts a file of its own in the place of the temporary one."""
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a") as temporary:
            (tmp_path / "other").write_text("x")
            (tmp_path / "other").chmod(0o600)
            (tmp_path / "other").rename(temporary)
        with replacing_folder(tmp_path / "f", nothing):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o777 & ~umask


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")

    def write() -> None:
        with replacing(tmp_path / "o") as temporary:
            temporary.unlink()
            temporary.symlink_to(victim)

    with pytest.raises(InputError, match="o: cannot be written"):
        write()
    assert victim.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["victim"]


def write_and_hang(path: Path, folder: bool, ready: Any) -> None:
    writing = replacing_folder(path, anything) if folder else replacing(path)
    with writing as temporary:
        (temporary / "big" if folder else temporary).write_text("half")
        ready.set()
        time.sleep(60)


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_writer_left_is_swept_and_what_lives_stays(
    tmp_path: Path, folder: bool
) -> None:
    path = tmp_path / "out"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=write_and_hang, args=(path, folder, ready))
    process.start()
    assert ready.wait(60)
    (left,) = tmp_path.iterdir()
    other = tmp_path / ".out.csv.deadbeef.tmp"  # of another target
    other.write_text("")
    sweep(path)
    assert left.exists()  # it is being written
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with replacing_folder(path, anything) if folder else replacing(path) as _:
        assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


def test_a_sweep_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis").write_text("mine")
    (tmp_path / ".out.deadbeef.tmp").symlink_to("documents")
    sweep(tmp_path / "out")
    assert (tmp_path / "documents" / "thesis").read_text() == "mine"


def test_a_folder_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    old = tmp_path / ".rep.deadbeef.old"
    old.mkdir()
    (old / "page").write_text("old")
    sweep(tmp_path / "rep")
    assert (tmp_path / "rep" / "page").read_text() == "old"


@pytest.mark.parametrize("stands", [Path.mkdir, Path.touch])
def test_what_is_not_ours_is_not_replaced(tmp_path: Path, stands: Callable[[Path], None]) -> None:
    path = tmp_path / "out"
    stands(path)
    with pytest.raises(InputError, match="out: is not ours"), replacing_folder(path, nothing):
        raise AssertionError
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_seal_holds_values_and_its_own_name() -> None:
    values = {"a": 1.5, "b": ["x"]}
    sealed = seal(values)
    assert unseal(sealed) == values
    assert unseal(values) == values  # of an earlier version
    assert unseal({}) == {}
    name = next(reversed(sealed))
    renamed = {**values, "chucksum": sealed[name]}
    with pytest.raises(ValueError, match="its checksum is called 'chucksum'; expected 'checksum'"):
        unseal(renamed)
    with pytest.raises(ValueError, match="that of its content"):
        unseal({**sealed, "a": 2.5})
    text = json.dumps(sealed).encode()
    content = unsealed_text(text)
    assert content is not None
    assert json.loads(content) == values
    for other in (text[:-1], text + b" ", text.replace(b"a", b"b", 1), b"{}", b"", content):
        assert unsealed_text(other) is None
