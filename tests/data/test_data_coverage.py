"""What data sets cover, by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import card, npz

from offrl.data.coverage import coverage, positive_sided_variance, trajectory_quality
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.fingerprints import distinct
from offrl.errors import InputError

pytestmark = pytest.mark.usefixtures("own_cache")


def data(path: Path, observations: Any, actions: Any, count: int | None = None) -> Dataset:
    """A set of one episode."""
    observations = np.asarray(observations, np.float32)
    rows = len(observations)
    zeros = np.zeros(rows, np.float32)
    columns = {"obs": observations, "next_obs": observations, "reward": zeros, "done": zeros}
    truncated = (np.arange(rows) == rows - 1).astype(np.float32)
    np.savez(path, **columns, action=np.asarray(actions), truncated=truncated)
    keys = {} if count is None else {"actions": {"count": count}}
    return load_dataset(card([{"name": str(path)}], **keys))


def test_positive_sided_variance_by_hand() -> None:
    assert positive_sided_variance(np.array([0.0, 0.0, 0.0, 8.0])) == 6**2 / 4
    assert positive_sided_variance(np.array([0.0, 8.0, 8.0, 8.0])) == 3 * 2**2 / 4
    assert positive_sided_variance(np.array([5.0])) == 0


def test_trajectory_quality_is_a_share_of_the_references(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    assert trajectory_quality(load_dataset(card([{"name": str(path)}]))) == pytest.approx(37.5 / 80)
    assert trajectory_quality(load_dataset(path)) is None


def test_pairs_fall_into_99_bins_of_the_reference(tmp_path: Path) -> None:
    """As numpy.digitize with 100 edges has them, in the code of the authors."""
    rng = np.random.default_rng(0)
    replay = rng.uniform(-2, 2, (3000, 1)), rng.choice([0.0, 0.25, 1.0], (3000, 1))
    some = replay[0][:500], replay[1][:500]
    sets = [
        data(tmp_path / f"{k}.npz", o, a.astype(np.float32))
        for k, (o, a) in enumerate((replay, some))
    ]
    edges = [np.linspace(sets[0].observations.min(), sets[0].observations.max(), 100)]
    edges += [np.linspace(0, 1, 100)]

    def digitized(dataset: Dataset) -> int:
        columns = (dataset.observations[:, 0], dataset.actions[:, 0])
        return len(set(zip(*map(np.digitize, columns, edges), strict=True)))

    found = coverage(sets, sets[0])
    assert abs(found.pairs[0] - digitized(sets[0])) <= 1  # its largest number is a bin of its own
    assert found.pairs[1] == pytest.approx(digitized(sets[1]), abs=1)
    assert found.saco == [1.0, found.pairs[1] / found.pairs[0]]
    assert coverage(sets).saco is None


def test_discrete_actions_are_their_own_bins(tmp_path: Path) -> None:
    found = coverage([data(tmp_path / "a.npz", np.zeros((300, 1)), np.arange(300), count=500)])
    assert found.pairs == [300]
    assert found.explained == 1.0


def test_the_plane_holds_the_directions_of_most_variance(tmp_path: Path) -> None:
    """Three columns are one number, the fourth another of half its spread in all."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 2000, 1))
    first = data(tmp_path / "a.npz", np.hstack([one, one, -one, other]), 0.0 * one)
    far = data(tmp_path / "b.npz", np.hstack([one, one, -one, other]) + 50, 0.0 * one)
    found = coverage([first])
    assert found.explained == pytest.approx(1)
    assert found.densities[0].sum() == pytest.approx(1)
    across = found.densities[0].sum(1)  # along the first axis, which is normal
    assert across.argmax() == pytest.approx(32, abs=8)
    both = coverage([first, far])
    overlap = np.minimum(*both.densities).sum()
    assert overlap < 0.01
    assert both.shared == [[1, 0], [0, 1]]


def test_constant_columns_are_no_direction(tmp_path: Path) -> None:
    moving = np.random.default_rng(0).normal(size=(1000, 3))
    constant = np.tile(np.linspace(0.1, 0.9, 9), (1000, 1))
    actions = np.zeros((1000, 1))
    found = [
        coverage([data(tmp_path / f"{k}.npz", observations, actions)])
        for k, observations in enumerate((moving, np.hstack([moving, constant])))
    ]
    assert found[1].explained == pytest.approx(found[0].explained, abs=1e-6)
    assert found[1].densities[0] == pytest.approx(found[0].densities[0])


def test_sets_of_other_tasks_do_not_compare(tmp_path: Path) -> None:
    one = data(tmp_path / "a.npz", np.zeros((5, 1)), np.zeros((5, 1), np.float32))
    two = data(tmp_path / "b.npz", np.zeros((5, 2)), np.zeros((5, 1), np.float32))
    with pytest.raises(InputError, match="tiny, tiny: their observations or actions differ in"):
        coverage([one, two])


def test_prints_that_differ_are_counted() -> None:
    for numbers in ([], [7], [7, 7], [3, 1, 3, 2]):
        assert distinct(np.array(numbers, np.uint64)) == len({*numbers})
