"""Data sets that are larger than the memory: read through files, and trained on in place."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from offrl.data import foreign, room
from offrl.data.columns import moments, moved
from offrl.data.room import Room
from offrl.errors import InputError

ROWS, WIDTH = 100_000, 60  # 53 MB of columns

SMALL = """
import os, resource, sys
import h5py, numpy as np, torch
torch.set_num_threads(1)
from offrl.algorithms import bc
from offrl.data import load_dataset
from offrl.data.transitions import Transitions, transitions
from offrl.evaluation.environments import Actions
from offrl.running.task import learner_spec
config = bc.BCConfig(hidden=(8,), batch_size=64)
few = Transitions(*(np.ones((9, n), "f4") for n in (60, 2, 1, 60, 1, 1)))
learner = bc.BC(learner_spec(few, Actions.within(1.0, 2), 1000), config, [0])  # imports much
used = int(open("/proc/self/statm").read().split()[5]) * 4096
if sys.argv[2] == "little":
    resource.setrlimit(resource.RLIMIT_DATA, (used + 40 * 2**20,) * 2)
data = load_dataset(sys.argv[1], check=True)
rows = transitions(data)
spec = learner_spec(rows, Actions.within(1.0, 2), 1000)
learner = bc.BC(spec, config, [0])
sampler = learner.sampler(rows, config, [0], "cpu")
for _ in range(20):
    losses = learner.update(sampler.sample())
print(data.checksum, {key: float(value) for key, value in losses.items()})
"""


@pytest.mark.parametrize("successors", [pytest.param(True, marks=pytest.mark.nightly), False])
def test_a_set_larger_than_the_memory_is_read_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, successors: bool
) -> None:
    rng = np.random.default_rng(0)
    ends = np.arange(ROWS) % 1000 == 999
    with h5py.File(tmp_path / "large.hdf5", "w") as file:
        file["observations"] = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
        if successors:
            file["next_observations"] = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32)
        file["rewards"] = rng.normal(size=ROWS).astype(np.float32)
        file["terminals"], file["timeouts"] = np.zeros(ROWS, bool), ends
    said = []
    for memory in ("much", "little"):
        monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / memory))
        words = [sys.executable, "-c", SMALL, str(tmp_path / "large.hdf5"), memory]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout)
    assert said[0] == said[1]
    left = [path.name for path in (tmp_path / "little").iterdir()]
    assert left == ["datasets"]


@pytest.mark.parametrize("shape", [(5, 4), (70_000, 1), (200_000, 17)])
def test_moments_in_blocks_are_those_of_numpy_to_the_last_bit(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    scale, place = rng.uniform(0.1, 50, shape[1]), rng.normal(size=shape[1])
    values = (rng.normal(size=shape) * scale + 10 * place).astype(np.float32)
    mean, deviation = moments(values)
    assert np.array_equal(mean, values.mean(0, dtype=np.float64))
    assert np.array_equal(deviation, values.std(0, dtype=np.float64))


def test_columns_lie_in_a_file_where_they_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path))
    monkeypatch.setattr(room, "free_memory", lambda: 3000)
    assert not isinstance(Room("x", [(250,)], 10**6).empty((250,), np.float32), np.memmap)
    paged = Room("x", [(251,)], 10**6)
    values = paged.empty((251,), np.float32)
    assert isinstance(values, np.memmap)
    assert list(tmp_path.iterdir()) == []  # it has no name
    values[:] = np.arange(251)
    assert moved(values, np.arange(251) % 2 == 1).tolist() == list(range(1, 251, 2))
    with pytest.raises(InputError, match=r"x: its columns would fill the memory that is free, and"):
        paged.empty((2**50,), np.float32)


@pytest.mark.parametrize("period", [2, 3, 500])
def test_rows_are_moved_in_place(period: int) -> None:
    values = np.arange(200_000, dtype=np.float32).reshape(-1, 2)
    kept = np.arange(100_000) % period != 1
    expected = values[kept]
    assert np.array_equal(moved(values, kept), expected)


def test_a_file_that_declares_much_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MODEST", 2**10)
    with pytest.raises(InputError, match=r"needs .* of memory, but holds"):
        Room("x", [(2**20,)], 100)
