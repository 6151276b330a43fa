"""The cache: whole or absent, read again where the source changed."""

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from sources import left_over, npz

from offrl.data.cache import cache_folder, verify
from offrl.data.dataset import load_dataset
from offrl.data.describe import check
from offrl.errors import InputError


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


@pytest.mark.usefixtures("own_cache")
def test_verify_finds_a_flipped_bit_that_a_load_does_not(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    column = data.folder / "rewards.npy"
    content = bytearray(column.read_bytes())
    content[-1] ^= 1
    column.write_bytes(bytes(content))
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
