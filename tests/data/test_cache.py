"""The cache: whole or absent, read again where the source changed."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import card, left_over, npz

from offrl.data import cache
from offrl.data.cache import cache_folder, cached_folder, digest, lock, verify
from offrl.data.card import Card
from offrl.data.columns import NAMES
from offrl.data.dataset import load_dataset
from offrl.data.describe import check
from offrl.data.fetch import fetch, make
from offrl.data.loader import loaders
from offrl.errors import InputError
from offrl.files import CHECKSUM


def test_the_second_load_reads_no_source(tmp_path: Path, own_cache: Path) -> None:
    path = npz(tmp_path / "a.npz")
    first = load_dataset(path)
    text = json.loads((first.folder / "meta.json").read_text())
    assert text["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    stamp = path.stat()
    path.write_bytes(b"x" * stamp.st_size)  # same size and time: only reading shows it
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = load_dataset(path)
    np.testing.assert_array_equal(again.observations, first.observations)
    assert left_over(own_cache) == []


def test_a_changed_source_is_read_again(tmp_path: Path, own_cache: Path) -> None:
    path = npz(tmp_path / "a.npz")
    assert len(load_dataset(path)) == 20
    npz(path, rows=30)
    assert len(load_dataset(path)) == 30
    assert left_over(own_cache) == []


LOADER = """
from offrl.datasets.neorl2 import SUFFIXES, VIEWS
from offrl.datasets import neorl2
{version}
def read(path, card):
    columns = neorl2.read(path, card)
    columns.rewards += {bonus}
    return columns
"""


def own_loader(path: Path, bonus: int, version: str = "") -> Path:
    path.write_text(LOADER.format(bonus=bonus, version=version))
    return path


@pytest.mark.usefixtures("own_cache")
def test_columns_are_read_again_by_a_loader_that_changed(tmp_path: Path) -> None:
    """A file of code in the same session, too: else old code would read what new code is to."""
    files = [{"name": str(npz(tmp_path / "a.npz"))}]
    for bonus in (0, 1000, 20):
        loader = own_loader(tmp_path / "own.py", bonus)
        source = {"loader": str(loader), "files": files}
        assert load_dataset(card([], source=source)).rewards[0] == bonus


@pytest.mark.usefixtures("own_cache")
def test_columns_are_read_again_by_another_version_of_a_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = card([{"name": str(npz(tmp_path / "a.npz"))}])
    first = cached_folder(source)
    assert cached_folder(source) == first
    monkeypatch.setattr(loaders()["neorl2"], "VERSION", 2)
    assert cached_folder(source) != first
    monkeypatch.delattr(loaders()["neorl2"], "VERSION")  # which is 1 then
    assert cached_folder(source) == first
    monkeypatch.setattr(loaders()["neorl2"], "VERSION", "2024-01-01", raising=False)
    with pytest.raises(InputError, match=r"card tiny: loader 'neorl2': VERSION is '2024-01-01', e"):
        load_dataset(source)


def test_every_loader_that_ships_has_a_version() -> None:
    assert all(isinstance(vars(loader).get("VERSION"), int) for loader in loaders().values())


@pytest.mark.usefixtures("own_cache")
def test_columns_of_another_format_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.FORMAT == 2
    before = load_dataset(npz(tmp_path / "a.npz"))
    monkeypatch.setattr(cache, "FORMAT", 3)
    assert load_dataset(tmp_path / "a.npz").folder != before.folder


MAKER = """
import shutil
from pathlib import Path
def make(directory, progress=None):
    return Path(shutil.copy(Path(__file__).with_name("a.npz"), directory / "made.npz"))
"""


@pytest.mark.usefixtures("own_cache")
def test_data_made_again_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "maker.py").write_text(MAKER)
    source = card([], source={"loader": "neorl2", "maker": str(tmp_path / "maker.py")})
    npz(tmp_path / "a.npz")
    assert len(load_dataset(source)) == 20
    npz(tmp_path / "a.npz", rows=30)
    assert len(load_dataset(source)) == 20
    path = make(source, again=True)
    made_again = load_dataset(source)
    assert len(made_again) == 30
    shutil.rmtree(path.parent)  # what was read of it stays
    assert load_dataset(source).folder == made_again.folder


@pytest.mark.usefixtures("own_cache")
def test_a_file_without_checksum_that_is_fetched_again_is_read_again(tmp_path: Path) -> None:
    source = card([{"name": "a.npz", "urls": ["http://x"]}])
    for folder, rows in (("one", 20), ("two", 30)):
        (tmp_path / folder).mkdir()
        npz(tmp_path / folder / "a.npz", rows=rows)
        (path,) = fetch(source, tmp_path / folder)
        assert len(load_dataset(source)) == rows
    path.unlink()  # what was read of it stays, for whoever reads alike
    assert len(load_dataset(source)) == 30
    limit = {"id": "Pendulum-v1", "max_episode_steps": 3}
    with pytest.raises(InputError, match="could not be downloaded"):
        load_dataset(card([{"name": "a.npz", "urls": ["http://x"]}], environment=limit))
    with pytest.raises(InputError, match="could not be downloaded"):
        load_dataset(card([{"name": "a.npz", "urls": ["http://y"]}]))


@pytest.mark.parametrize("harm", ["shorten", "remove", "meta", "retype", "empty", "columns"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    path = npz(tmp_path / "a.npz")
    first = load_dataset(path)
    expected = np.array(first.actions)
    column, meta = first.folder / "actions.npy", first.folder / "meta.json"
    if harm == "shorten":
        column.write_bytes(column.read_bytes()[:-8])
    elif harm == "remove":
        column.unlink()
    elif harm == "retype":  # the right size, another header
        data = column.read_bytes()
        column.write_bytes(data.replace(b"(20, 2)", b"(40, 1)"))
    elif harm == "empty":
        column.write_bytes(b"")
    elif harm == "columns":
        meta.write_text("[]")
    else:
        meta.write_text(meta.read_text()[:-20])
    with caplog.at_level(logging.WARNING):
        again = load_dataset(path)
    np.testing.assert_array_equal(again.actions, expected)
    assert "converted again" in caplog.text
    assert left_over(own_cache) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"transitions": 20', '"transitions": "twenty"'),
        ('"mean_return": 47.5', '"mean_return": 47.0'),
        ('"notes": []', '"notes": 7'),
        ('"notes"', '"nodes"'),
        ('"totals"', '"totems"'),
        ('"sha256": "', '"sha256": "0'),
        ('"rewards"', '"awards"'),
    ],
)
def test_a_damaged_inner_key_of_the_meta_heals(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture, old: str, new: str
) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    meta = data.folder / "meta.json"
    before = meta.read_text()
    assert old in before
    meta.write_text(before.replace(old, new))
    with caplog.at_level(logging.WARNING):
        assert load_dataset(tmp_path / "a.npz").source == data.source
    assert "meta.json: " in caplog.text
    assert "converted again" in caplog.text
    assert json.loads(meta.read_text())["columns"] == json.loads(before)["columns"]
    assert left_over(own_cache) == []


@pytest.mark.usefixtures("own_cache")
def test_a_meta_without_checksum_is_still_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    meta = data.folder / "meta.json"
    values = json.loads(meta.read_text())
    del values[CHECKSUM]
    meta.write_text(json.dumps(values))
    assert load_dataset(tmp_path / "a.npz").checksum == data.checksum
    assert "converted again" not in caplog.text


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", NAMES)
def test_a_checked_load_heals_a_flipped_bit(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"), check=True)
    expected = np.array(getattr(data, name))
    flip_last_bit(data.folder / f"{name}.npy")
    again = load_dataset(tmp_path / "a.npz", check=True)
    np.testing.assert_array_equal(getattr(again, name), expected)
    assert f"{name}.npy: SHA-256 " in caplog.text
    assert "converted again" in caplog.text
    assert verify(again.folder)
    assert left_over(own_cache) == []


@pytest.mark.usefixtures("own_cache")
def test_a_flipped_bit_ends_in_one_line_where_the_source_is_gone(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    own = Card.model_validate(
        {
            "id": "a",
            "version": 1,
            "title": "a",
            "source": {"loader": "neorl2", "files": [{"name": str(path), "sha256": digest(path)}]},
            "licence": "none",
            "citation": "none",
        }
    )
    data = load_dataset(own)
    flip_last_bit(data.folder / "rewards.npy")
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        load_dataset(own, check=True)


@pytest.mark.usefixtures("own_cache")
def test_columns_are_checked_once_per_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset(npz(tmp_path / "a.npz"))
    seen: list[str] = []

    def counted(path: Path) -> str:
        seen.append(path.name)
        return digest(path)

    monkeypatch.setattr(cache, "digest", counted)
    for _ in range(3):
        load_dataset(tmp_path / "a.npz", check=True)
    assert sorted(seen) == sorted(f"{name}.npy" for name in NAMES)
    load_dataset(tmp_path / "a.npz")
    assert len(seen) == len(NAMES)


@pytest.mark.usefixtures("own_cache")
def test_verify_finds_a_flipped_bit_that_a_load_does_not(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    flip_last_bit(data.folder / "rewards.npy")
    load_dataset(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"rewards\.npy: SHA-256 \w{64}, expected \w{64}"):
        verify(data.folder)
    with pytest.raises(InputError, match=r"rewards\.npy: SHA-256"):
        check(tmp_path / "a.npz")


def test_a_full_or_closed_cache_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path / "a.npz")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written: .*; set OFFRL_CACHE to a folder"):
        load_dataset(path)


def test_cache_folder_is_the_platforms_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRL_CACHE", "~/x")
    assert cache_folder() == Path.home() / "x"
    monkeypatch.delenv("OFFRL_CACHE")
    assert cache_folder().name == "offrl"


@pytest.mark.parametrize("length", [100, 200, 220, 221, 222, 235, 250])
def test_long_names_are_shortened_where_a_file_system_needs_it(
    tmp_path: Path, own_cache: Path, length: int
) -> None:
    path = npz(tmp_path / f"{'x' * (length - 4)}.npz")
    data = load_dataset(path)
    assert len(load_dataset(path)) == 20
    assert [folder.name for folder in (own_cache / "datasets").glob("x*")] == [data.folder.name]
    as_ever = f"{data.card.id}-v1-{data.folder.name[-cache.SHORT :]}"
    assert (data.folder.name == as_ever) == (len(as_ever) <= 241)
    other = npz(path.with_name(f"{'x' * (length - 5)}y.npz"))
    assert load_dataset(other).folder != data.folder


def test_a_full_disk_says_so_where_numpy_names_no_number(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("119880000 requested and 5119968 written")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match=r"cannot be written: 119880000 requested .*; free some"):
        load_dataset(npz(tmp_path / "a.npz"))
    assert left_over(own_cache) == []


HOLD = """
import sys
from pathlib import Path
from offrl.data.cache import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_wait_for_another_process_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "data"
    monkeypatch.setattr(cache, "WAIT", 0.2)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        threading.Timer(1.0, holder.stdin.close).start()
        with caplog.at_level(logging.INFO), lock(target):
            pass
    waited, went_on = caplog.messages
    assert "data: waiting for" in waited
    assert f"{tmp_path}/.data.lock" in waited
    assert "stop with Ctrl-C" in waited
    assert "goes on" in went_on
    if Path("/proc/locks").exists():
        assert f"process {holder.pid} (started 2" in waited


@pytest.mark.parametrize("kind", ["pipe", "link", "another file"])
def test_a_lock_is_an_empty_file_of_its_own(tmp_path: Path, kind: str) -> None:
    """Else locking would empty, or follow, what another put there in a shared cache."""
    mine, lock_file = tmp_path / "mine", tmp_path / ".data.lock"
    mine.write_text("mine")
    match kind:
        case "pipe":
            os.mkfifo(lock_file)
        case "link":
            lock_file.symlink_to(mine)
        case _:
            os.link(mine, lock_file)
    with (
        pytest.raises(InputError, match=r"\.data\.lock: cannot be written"),
        lock(tmp_path / "data"),
    ):
        pass
    assert mine.read_text() == "mine"


def torn_header(folder: Path) -> None:
    """As many bytes as before, of which no header can be made."""
    path = folder / "rewards.npy"
    data = path.read_bytes()
    path.write_bytes(data[:10] + b"{'descr': (".ljust(118) + data[128:])


def endless(folder: Path) -> None:
    (folder / "meta.json").unlink()
    (folder / "meta.json").symlink_to("/dev/zero")


def silent(folder: Path) -> None:
    (folder / "meta.json").unlink()
    os.mkfifo(folder / "meta.json")


@pytest.mark.parametrize("damage", [torn_header, endless, silent])
@pytest.mark.usefixtures("own_cache")
def test_what_stands_in_the_cache_and_is_no_file_of_offrl_is_made_again(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = npz(tmp_path / "a.npz")
    rewards = load_dataset(path).rewards.copy()
    (meta,) = cache.cache_folder().rglob("meta.json")
    damage(meta.parent)
    np.testing.assert_array_equal(load_dataset(path).rewards, rewards)
    assert "converted again" in caplog.text
