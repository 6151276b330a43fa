"""The Dataset: what it holds, and that it maps and pickles."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from sources import card, npz

import offrl
from offrl.data.cache import NotCached
from offrl.data.dataset import Dataset, load_dataset
from offrl.errors import InputError


def test_dataset_has_what_design_promises(tmp_path: Path) -> None:
    data = offrl.load_dataset(card([{"name": str(npz(tmp_path / "a.npz"))}]))
    assert isinstance(data, offrl.Dataset)
    assert len(data) == 20
    for values in (data.observations, data.actions, data.rewards, data.next_observations):
        assert isinstance(values, np.memmap)
        assert values.dtype == np.float32
    assert data.terminations.dtype == data.truncations.dtype == np.bool_
    assert data.episode_starts.tolist() == [0, 5, 10, 15]
    assert data.episode_lengths.tolist() == [5] * 4
    assert data.episode_returns.tolist() == [10.0, 35.0, 60.0, 85.0]
    assert data.normalized(data.episode_returns).tolist() == [0.0, 31.25, 62.5, 93.75]
    assert data.normalized(90) == 100
    assert data.validation is None
    assert repr(data) == (
        "<Dataset tiny v1: 20 transitions in 4 episodes of 5, observations 3, actions 2, "
        "mean return 47.5 (score 46.9)>"
    )


def test_arrays_are_read_only(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match="read-only"):
        data.rewards[0] = 1


def test_a_pickled_dataset_is_a_path(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz", rows=5000))
    sent = pickle.dumps(data)
    assert len(sent) < 4000
    again = pickle.loads(sent)
    assert isinstance(again.observations, np.memmap)
    np.testing.assert_array_equal(again.observations, data.observations)


def test_dataset_of_a_folder_that_went_away_is_loaded_by_load_dataset(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    shutil.rmtree(data.folder)
    with pytest.raises(NotCached):
        Dataset(data.card, "train", data.folder)
    assert len(load_dataset(tmp_path / "a.npz")) == 20


def test_without_references_nothing_is_normalised(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "my data.npz"))
    assert data.card.id == "my-data"
    with pytest.raises(InputError, match=r"my-data: its card has no reference returns"):
        data.normalized(1.0)
    assert "score" not in repr(data)
