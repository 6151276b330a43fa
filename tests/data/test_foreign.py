"""Bytes of others: whatever their readers raise, and however large they say they are."""

import errno
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sources import card, npz

from offrl.data import foreign
from offrl.data.archive import open_archive
from offrl.data.dataset import load_dataset
from offrl.data.describe import check
from offrl.data.fetch import fetch
from offrl.data.foreign import check_ordinary, check_size, free_memory, reading
from offrl.errors import InputError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (zipfile.BadZipFile("no zip"), r"^f: cannot be read as x \(BadZipFile: no zip\); do that$"),
        (RecursionError(), r"^f: cannot be read as x \(RecursionError\); do that$"),
        (KeyError("a\nb"), r"^f: cannot be read as x \(KeyError: 'a\\nb'\); do that$"),
        (OSError("two\nlines"), r"^f: cannot be read as x \(OSError: two lines\); do that$"),
        (MemoryError("8 GiB"), r"^f: reading it as x takes more memory than is free \(Mem.*split"),
        (BlockingIOError(errno.EAGAIN, "lock"), r"^f: is held by another program .*closed it"),
        (PermissionError(errno.EACCES, "no"), r"^f: may not be read by this user; allow it"),
        (OSError(errno.ENOSPC, "full"), r"^f: cannot be read here .*the machine's fault"),
        (InputError("as it is"), r"^as it is$"),
    ],
)
def test_whatever_a_reader_raises_is_one_line(error: Exception, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught, reading("f", "x", "do that"):
        raise error
    assert "\n" not in str(caught.value)


def test_a_locked_file_is_not_to_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    code = (
        "import h5py, sys\n"
        f"file = h5py.File({str(path)!r}, 'w')\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            with pytest.raises(InputError, match=r"a\.hdf5: is held by another program") as caught:
                load_dataset(path)
        finally:
            assert holder.stdin is not None
            holder.stdin.close()
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".hdf5", ".toml"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    pipe = tmp_path / f"a{suffix}"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=r"is a pipe; expected a file or a folder"):
        load_dataset(pipe)
    if suffix == ".npz":
        for extra in ({}, {"sha256": "0" * 64}):
            with pytest.raises(InputError, match=r"is a pipe; expected"):
                load_dataset(card([{"name": str(pipe), **extra}]))


def test_devices_links_to_them_and_sockets_are_refused_in_folders_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    check_ordinary(tmp_path)
    link = tmp_path / "data" / "main"
    link.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"data/main: is a device or socket"):
        check_ordinary(tmp_path)
    link.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(link))
        with pytest.raises(InputError, match=r"data/main: is a device or socket"):
            check_ordinary(tmp_path)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("loader", ["d4rl", "neorl2", "minari"])
@pytest.mark.parametrize("checksum", [{}, {"sha256": "0" * 64}])
def test_a_folder_that_is_no_data_is_not_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: str, checksum: dict[str, str]
) -> None:
    """Such as "/": the loader says so first."""

    def walk(*_: Any) -> None:
        raise AssertionError("walked")

    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "rglob", walk)
    source = {"loader": loader, "files": [{"name": str(tmp_path / "disk"), **checksum}]}
    for act in (load_dataset, fetch, check):
        with pytest.raises(InputError, match=r"/disk: (lacks|cannot be read as)") as caught:
            act(card([], source=source))
        assert "\n" not in str(caught.value)


FOLDERS = """
from offrl.datasets.neorl2 import VIEWS, read as read_file
SUFFIXES = ()
def read(path, card):
    return read_file(path / "a.npz", card)
"""


@pytest.mark.usefixtures("own_cache")
def test_a_loader_that_recognises_no_folder_gets_one_of_limited_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folders.py").write_text(FOLDERS)
    (tmp_path / "disk").mkdir()
    npz(tmp_path / "disk" / "a.npz")
    files = [{"name": str(tmp_path / "disk")}]
    source = card([], source={"loader": str(tmp_path / "folders.py"), "files": files})
    assert len(load_dataset(source)) == 20
    monkeypatch.setattr(foreign, "MOST_FILES", 3)
    for name in "bcd":
        (tmp_path / "disk" / name).touch()
    for act in (load_dataset, fetch, check):
        with pytest.raises(InputError, match=r"/disk: holds more than 3 files and folders; exp"):
            act(source)


def test_a_folder_that_may_not_be_looked_through_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/proc/1/cwd")

    (tmp_path / "folders.py").write_text(FOLDERS)
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "rglob", closed)
    files = [{"name": str(tmp_path / "disk")}]
    source = card([], source={"loader": str(tmp_path / "folders.py"), "files": files})
    for act in (load_dataset, fetch, check):
        with pytest.raises(InputError, match=r"/disk: may not be read by this user; allow it"):
            act(source)


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_a_file_that_is_a_hole_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    npz(tmp_path / "a.npz").rename(path)
    with path.open("r+b") as file:
        file.truncate(2**42)  # a checksum of it would take hours
    for source in (path, card([{"name": str(path)}]), card([{"name": str(path), "md5": "0" * 32}])):
        with pytest.raises(InputError, match=r"has 4,096\.0 GiB, of which \S+ MiB are on disk and"):
            load_dataset(source)


def test_sizes_are_compared_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    check_size("f", [(1000, 1000)], 1)  # 4 MB: modest
    with pytest.raises(InputError, match=r"^f: needs 1\.5 GiB of memory, but holds 0\.00391 MiB"):
        check_size("f", [(400_000_000,)], 4096)
    monkeypatch.setattr(foreign, "free_memory", lambda: 2**30)
    check_size("f", [(200_000_000,)], 800_000_000)
    with pytest.raises(InputError, match=r"^f: needs at least 1\.5 GiB of memory, but 1\.0 GiB ar"):
        check_size("f", [(400_000_000,)], 1_600_000_000)


def test_free_memory_heeds_the_limit_of_the_process() -> None:
    code = (
        "import resource; from offrl.data.foreign import free_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); print(free_memory() < 2**30)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def system(root: Path, available: int, **group: str) -> Path:
    """A machine's files that say how much memory there is; times 1 KiB, and a container's files."""
    for name, text in {
        "proc/meminfo": f"MemTotal: {2**40} kB\nMemAvailable: {available} kB\n",
        **{f"sys/fs/cgroup/{name.replace('__', '/')}": text for name, text in group.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("limited", [True, False])
def test_free_memory_is_what_a_container_has_left(tmp_path: Path, limited: bool) -> None:
    """Of its limit, without what is used; what only caches files is given up at need."""
    most = "1000000" if limited else "max"
    expected = 1000000 - (700000 - 300000) if limited else 2**20
    stat = "anon 400000\ninactive_file 200000\nactive_file 100000\n"
    new = {"memory.max": most, "memory.current": "700000", "memory.stat": stat}
    assert free_memory(system(tmp_path / "new", 1024, **new)) == expected
    most = most.replace("max", str(2**63 - 4096))
    old = {"limit_in_bytes": most, "usage_in_bytes": "700000", "stat": stat}
    old = {f"memory__memory.{name}": text for name, text in old.items()}
    assert free_memory(system(tmp_path / "old", 1024, **old)) == expected
    full = new | {"memory.current": "1300001"}
    assert free_memory(system(tmp_path / "full", 1024, **full)) == (0 if limited else 2**20)


def test_free_memory_is_what_the_group_of_a_job_has_left(tmp_path: Path) -> None:
    """A scheduler's limit is that of a group above the one in which the process is."""
    job = {"max": "500000", "current": "200000", "stat": "inactive_file 50000\n"}
    root = system(tmp_path, 1024, **{f"job__memory.{name}": text for name, text in job.items()})
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text("0::/job/step\n")
    assert free_memory(root) == 500000 - (200000 - 50000)
    (root / "proc/self/cgroup").write_text("0::/../other\n")
    assert free_memory(root) == 2**20


def test_free_memory_without_a_container_is_the_machines(tmp_path: Path) -> None:
    assert free_memory(system(tmp_path, 3)) == 3072


def test_fill_values_and_chunks_are_no_way_to_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    keys = {"observations": 3, "actions": 1, "rewards": 0, "terminals": 0, "timeouts": 0}
    for rows, chunk in ((10**11, 1000), (10, 10**8)):
        with h5py.File(path, "w") as file:
            for key, size in keys.items():
                shape, chunks = ((rows, size), (chunk, size)) if size else ((rows,), (chunk,))
                file.create_dataset(
                    key, shape, "f4", chunks=chunks, maxshape=(None, *shape[1:]), fillvalue=0.5
                )
        with pytest.raises(InputError, match=r"GiB of memory, but holds .* on disk"):
            load_dataset(path)


def test_an_archive_that_unfolds_or_lies_is_refused(tmp_path: Path) -> None:
    columns: Any = dict.fromkeys(("action", "next_obs", "reward", "done", "truncated"), np.ones(3))
    np.savez_compressed(tmp_path / "bomb.npz", obs=np.zeros((2**20, 8)), **columns)
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "MODEST", 2**20)
        with pytest.raises(InputError, match=r"bomb\.npz: needs 64 MiB of memory, but holds"):
            load_dataset(tmp_path / "bomb.npz")
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        for name, values in {"obs": np.zeros((3, 2)), **columns}.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.save(stream, values)
    with pytest.raises(InputError, match=r"is compressed by method 14 of zip; write the file by"):
        load_dataset(tmp_path / "lzma.npz")
    path = npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes().replace(b"(20, 3)", b"(9**9,)"))  # and no checksum fits
    with pytest.raises(InputError, match=r"a\.npz: cannot be read as neorl2 data"):
        load_dataset(path)
    with zipfile.ZipFile(path, "w") as archive, archive.open("obs.npy", "w") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(b"\0" * 16)
    with (
        pytest.raises(
            InputError, match=r"obs\.npy: has 144 bytes, but shape \(10+, 3\) of float32"
        ),
        open_archive(path) as arrays,
    ):
        _ = arrays["obs"]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_any_flipped_byte_of_an_archive_is_one_line_or_the_right_data(
    tmp_path: Path, own_cache: Path, method: int
) -> None:
    """Of whichever compression: no exception of its library gets through."""
    plain = npz(tmp_path / "plain.npz")
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", method) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    whole = path.read_bytes()
    expected = load_dataset(plain).checksum
    assert own_cache.is_dir()
    lines = []
    for place in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(bytes(damaged))
        try:
            assert load_dataset(path).checksum == expected
        except InputError as error:
            lines.append(str(error))
    assert len(lines) > 5
    assert not [line for line in lines if "\n" in line]
