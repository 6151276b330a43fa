"""Minari folders that are small on disk and large in memory: one line, before memory is taken.

Each is read in a process of its own with little memory, so that a reader that takes it dies here.
"""

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pyarrow as pa
import pytest
from minari_sources import change, episode, minari_data
from PIL import Image
from pyarrow import parquet

from offrl.data.dataset import load_dataset

READ = """
import resource, sys
import h5py, minari, numpy, PIL.Image, pyarrow.dataset, pyarrow.parquet
from offrl.data.dataset import load_dataset
from offrl.data import foreign, unfolded
from offrl.errors import InputError
foreign.free_memory = lambda: None  # so that only the file itself gives it away
foreign.MODEST = unfolded.MODEST = 2**25  # and small files do
PIL.Image.MAX_IMAGE_PIXELS = 10**6
def most():  # kilobytes, of this process alone: ru_maxrss begins with those of its parent
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = most()
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 2**32, used + 2**32))
for folder in sys.argv[1:]:
    try:
        print(len(load_dataset(folder)), "rows")
    except InputError as error:
        print(error)
print(most() - before)
"""
KILOBYTES = 2**18


def refused(messages: dict[Path, str]) -> None:
    """Reads folders, and looks for what is said of each and for the memory taken."""
    words = [sys.executable, "-c", READ, *map(str, messages)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *said, memory = done.stdout.splitlines()
    for (folder, message), line in zip(messages.items(), said, strict=True):
        assert str(folder) in line or message == "3 rows"
        assert message in line
    assert int(memory) < KILOBYTES, memory


SPACE = {"type": "Box", "dtype": "float32", "low": [-1, -1], "high": [1, 1], "shape": [2]}
PICTURES = gymnasium.spaces.Box(0, 255, (40, 50, 3), np.uint8)


def pictures(steps: int) -> Any:
    random = np.random.default_rng(0)
    return random.integers(0, 255, (steps + 1, 40, 50, 3)).astype(np.uint8)


def encoded(width: int, height: int, form: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, form)
    return file.getvalue()


def arrow(path: Path, columns: dict[str, Any], compression: str | None = "zstd") -> None:
    """One block of rows in place of an episode's."""
    rows = pa.RecordBatch.from_pydict(columns)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(path, rows.schema, options=options) as file:
        file.write_batch(rows)


def columns_of(rows: int, **others: Any) -> dict[str, Any]:
    """The columns of an episode in a table."""
    lists = pa.FixedSizeListArray.from_arrays
    return {
        "observations": lists(np.zeros(2 * rows, np.float32), 2),
        "actions": lists(np.zeros(rows, np.float32), 1),
        "rewards": np.zeros(rows),
        "terminations": np.zeros(rows, bool),
        "truncations": np.zeros(rows, bool),
    } | others


def in_main(folder: Path, change: Callable[[Any], None]) -> None:
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        change(file)


def empty_values(name: str, shape: tuple[int, ...]) -> Callable[[Any], None]:
    """An array that is a fill value alone."""

    def change(file: Any) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, shape, "f4", fillvalue=1, chunks=(1000,) + (1,) * len(shape[1:]))

    return change


def one_value_for_many(name: str, text: bool = False) -> Callable[[Any], None]:
    """Two thousand rows that all refer to one value, of 4 MiB."""

    def change(file: Any) -> None:
        if name in file:
            del file[name]
        kind = h5py.string_dtype() if text else h5py.vlen_dtype(np.uint8)
        items = file.create_dataset(name, (2000,), kind)
        items[0] = 2**22 * "o" if text else np.ones(2**22, np.uint8)
        place, path = items.id.get_offset(), file.filename
        file.close()
        with Path(path).open("r+b") as raw:
            raw.seek(place)
            reference = raw.read(16)
            raw.seek(place)
            raw.write(2000 * reference)

    return change


def links(file: Any) -> None:
    """Two thousand names of one array."""
    data = file.create_dataset("episode_0/infos/a", (2**17,), "f8", compression="gzip")
    data[:] = 1
    for k in range(2000):
        file[f"episode_0/infos/b{k}"] = h5py.SoftLink(data.name) if k % 2 else data


def many_arrays(file: Any) -> None:
    """None is large, all of an episode are."""
    for k in range(64):
        file.create_dataset(f"episode_0/infos/{k}", (2**21,), "f4", fillvalue=1, chunks=(1000,))


def test_arrays_that_are_larger_than_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = {
        "a-v0": (empty_values("episode_0/infos/x", (2**26, 4)), "needs 1.0 GiB of memory, but"),
        "b-v0": (empty_values("episode_0/observations", (2**26, 4)), "needs 1.0 GiB of memory"),
        "c-v0": (links, "is a second name of what another leads to"),
        "d-v0": (many_arrays, "needs 0.5 GiB of memory, but holds"),
        "e-v0": (one_value_for_many("episode_0/infos/x"), "longer than the file"),
        "f-v0": (one_value_for_many("episode_0/observations"), "longer than the file"),
    }
    plain = {"b-v0": "needs 1.0 GiB of memory", "f-v0": "cannot be read as minari data"}
    messages: dict[Path, str] = {}
    for name, (damage, message) in cases.items():
        shown = episode(3, observations=pictures(3))
        seen = minari_data(monkeypatch, tmp_path, [shown], PICTURES, minari_id=f"seen/{name}")
        folder = minari_data(monkeypatch, tmp_path, [episode(3)], minari_id=name)
        in_main(seen, damage)
        in_main(folder, damage)
        messages |= {seen: message, folder: plain.get(name, "3 rows")}  # infos are not looked at
    refused(messages)


def test_texts_that_are_longer_than_others_or_than_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an array each text would be as long as the longest, at four bytes a character."""
    box = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    space = gymnasium.spaces.Dict(x=box, mission=gymnasium.spaces.Text(9))
    seen = {"x": np.zeros((4, 2), np.float32), "mission": ["go", 2**24 * "o", "", ""]}
    folder, other = (
        minari_data(monkeypatch, tmp_path, [episode(3, observations=seen)], space, minari_id=name)
        for name in ("a-v0", "b-v0")
    )
    in_main(other, one_value_for_many("episode_0/observations/mission", text=True))
    refused({folder: "3 rows", other: "longer than the file"})


ROWS = 400_000
LISTS = pa.FixedSizeListArray.from_arrays


def test_tables_that_are_larger_than_they_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = "of memory, but holds"
    repeated = pa.DictionaryArray.from_arrays(np.zeros(9, "i1"), ["x" * 2**20])
    runs = pa.RunEndEncodedArray.from_arrays(np.array([50], "i4"), ["xy"])
    cases = {
        "arrow/a-v0": (pa.nulls(ROWS), large),
        "arrow/b-v0": (LISTS(np.zeros(64 * ROWS, np.float32), 64), large),
        "arrow/c-v0": (pa.array(["x" * 2**20] + [""] * 5000), large),
        "arrow/d-v0": (repeated, "'infos' is dictionary<values=string"),
        "arrow/e-v0": (runs, "'infos' is run_end_encoded<"),
        "parquet/a-v0": (pa.nulls(ROWS), large),
        "parquet/b-v0": (LISTS(np.zeros(64 * ROWS, np.float32), 64), large),
        "parquet/c-v0": (pa.array([b"x" * 2**20] + [b""] * 5000), large),
        "parquet/d-v0": (repeated, "'infos' is dictionary<values=string"),
        "parquet/e-v0": (pa.array(["x" * 2**12] * 2**15), large),
        "parquet/f-v0": (pa.array([None] * 1000, pa.list_(pa.float64(), 2**13)), large),
    }
    messages: dict[Path, str] = {}
    for name, (infos, message) in cases.items():
        form, _ = name.split("/")
        folder = minari_data(monkeypatch, tmp_path, [episode(3)], minari_id=name, data_format=form)
        (path,) = folder.glob("data/0/part-0.*")
        rows = columns_of(len(infos)) | {"infos": infos}
        if form == "arrow":
            arrow(path, rows)
        else:
            parquet.write_table(pa.table(rows), path, compression="zstd")
        messages[folder] = message
    refused(messages)


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_tables_are_read_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    infos = {"a": ["x", "yy", "", "z"]}
    one = dataclasses.replace(episode(3), infos=infos)
    stored = minari_data(monkeypatch, tmp_path, [one, episode(2)], data_format=form)
    arrays = minari_data(monkeypatch, tmp_path, [one, episode(2)], minari_id="arrays-v0")
    assert load_dataset(stored).checksum == load_dataset(arrays).checksum


FORMATS = ["hdf5", "arrow", "parquet"]


@pytest.mark.parametrize("form", FORMATS)
def test_encoded_images_are_read_where_they_have_the_declared_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    frames = pictures(3)
    space = gymnasium.spaces.Dict({"camera": PICTURES, "t": gymnasium.spaces.Tuple((PICTURES,))})
    observations = {"camera": frames, "t": (frames,)}
    one = episode(3, observations=observations)
    folder = minari_data(monkeypatch, tmp_path, [one], space, data_format=form)
    found = load_dataset(folder).observations
    assert found.shape == (3, 12000)
    np.testing.assert_array_equal(found[:, :6000], found[:, 6000:])


@pytest.mark.parametrize("form", FORMATS)
def test_an_image_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    cases = {
        "a-v0": (encoded(900, 800, "PNG"), "an image is 800 x 900, but the declared space"),
        "b-v0": (encoded(1500, 1000, "JPEG"), "DecompressionBombWarning"),
        "c-v0": (encoded(2000, 2000, "PNG"), "DecompressionBombError"),
        "d-v0": (encoded(50, 40, "GIF"), "cannot identify image"),
    }
    messages: dict[Path, str] = {}
    for name, (image, message) in cases.items():
        one = episode(3, observations=pictures(3))
        folder = minari_data(
            monkeypatch, tmp_path, [one], PICTURES, minari_id=name, data_format=form
        )
        images = [encoded(50, 40, "JPEG")] * 3 + [image]
        rows = columns_of(4, observations=pa.array(images, pa.binary()))
        if form == "hdf5":
            in_main(folder, with_frames(images))
        elif form == "arrow":
            arrow(folder / "data" / "0" / "part-0.arrow", rows)
        else:
            parquet.write_table(pa.table(rows), folder / "data" / "0" / "part-0.parquet")
        messages[folder] = message
    refused(messages)


def with_frames(images: list[bytes]) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file["episode_0"]["observations"]
        kind = h5py.vlen_dtype(np.uint8)
        items = file["episode_0"].create_dataset("observations", (len(images),), kind)
        for k, image in enumerate(images):
            items[k] = np.frombuffer(image, np.uint8)

    return change


def test_metadata_that_promise_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "a-v0": ({"total_episodes": 10**10}, "of memory, but holds"),
        "b-v0": ({"total_steps": 10**10}, "of memory, but holds"),
        "c-v0": ({"observation_space": json.dumps(SPACE | {"shape": [10**6, 10**6]})}, "memory"),
        "d-v0": ({"observation_space": json.dumps(SPACE | {"dtype": "S2000000000"})}, "S20000"),
        "e-v0": ({"total_steps": 4}, "episode 1: 5 steps up to here, but 4 by the metadata"),
        "f-v0": ({}, "it has more than 67,108,864 bytes"),
    }
    messages: dict[Path, str] = {}
    for name, (keys, message) in cases.items():
        folder = minari_data(monkeypatch, tmp_path, [episode(3), episode(2)], minari_id=name)
        change(folder, **keys)
        messages[folder] = message
    with (folder / "data" / "metadata.json").open("a") as file:
        file.truncate(2**40)  # all but the beginning is a hole
    refused(messages)
