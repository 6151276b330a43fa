"""Checks of what a loader reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sources import card, npz

from offrl.data.columns import Columns, actions, check_columns, column
from offrl.data.dataset import load_dataset
from offrl.data.describe import stats
from offrl.errors import InputError


def test_column_counts_rows_and_axes() -> None:
    where = Path("x.npz")
    assert column([1, 2], where, "action", 2, 2).shape == (2, 1)
    with pytest.raises(InputError, match=r"x\.npz: reward: shape \(2, 3\), expected \(rows,\)"):
        column(np.ones((2, 3)), where, "reward", 2, 1)


@pytest.mark.parametrize(
    "values", [np.array([0, 2, 1]), np.array([[0.0], [2.0], [1.0]], np.float32), [0, 2, 1]]
)
def test_discrete_actions_are_whole_numbers_from_zero(values: Any) -> None:
    found = actions(values, Path("x.npz"), "action", 3, count=3)
    assert found.dtype == np.int64
    assert found.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0, 3, 1]), r"action: 3 in row 1 \(counted from 0\); the card has 3 discrete"),
        (np.array([0, 1, -1]), r"action: -1 in row 2 .* whole number from 0 to 2"),
        (np.array([0.0, 0.5, 1.0]), r"action: 0\.5 in row 1"),
        (np.array([0.0, 1.0, np.nan]), r"action: nan in row 2"),
        (np.zeros((3, 2), int), r"action: shape \(3, 2\), expected \(3,\): one of the card's 3"),
        (np.array(["a", "b", "c"]), r"action: expected whole numbers, found <U1"),
    ],
)
def test_what_is_no_discrete_action_is_refused(values: NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        actions(values, Path("x.npz"), "action", 3, count=3)


def choices(tmp_path: Path, **keys: Any) -> Any:
    """A card of a file with three discrete actions."""
    path = npz(tmp_path / "a.npz")
    with np.load(path) as archive:
        columns = dict(archive)
    np.savez(path, **{**columns, "action": np.arange(20) % 3})
    return card([{"name": str(path)}], **keys)


def test_a_set_with_discrete_actions_is_read_and_described(tmp_path: Path) -> None:
    names = ["left", "stay", "right"]
    data = load_dataset(choices(tmp_path, actions={"count": 3, "names": names}))
    assert data.actions.tolist() == [0, 1, 2] * 6 + [0, 1]
    assert data.action_count == 3
    assert "observations 3, 3 discrete actions, mean return" in repr(data)
    found = stats(data)
    assert found.action_shares == {"left": 0.35, "stay": 0.35, "right": 0.3}
    assert (found.action_count, found.action_size, found.actions_outside) == (3, None, None)
    for count in (2, 4):  # the number decides what is read: no cache of another serves
        given = choices(tmp_path, actions={"count": count})
        if count == 2:
            with pytest.raises(InputError, match=r"action: 2 in row 2 .* card has 2 discrete"):
                load_dataset(given)
        else:
            assert stats(load_dataset(given)).action_shares["3"] == 0
    with pytest.raises(InputError, match="action are int64, so discrete, and its card does not"):
        load_dataset(choices(tmp_path))


def test_names_of_actions_are_one_for_each() -> None:
    for names in (["a", "b"], ["a", "b", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(ValueError, match=rf"names: {len(names)} names, .* for 3 actions"):
            card([], actions={"count": 3, "names": names})
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        card([], actions={"count": 1})


def test_what_a_loader_returns_has_the_actions_of_its_card(tmp_path: Path) -> None:
    rows = np.zeros((2, 1), np.float32)
    ends = np.array([False, True])
    made = Columns(rows, np.array([0, 1]), rows[:, 0], rows, ends, ~ends & False)
    check_columns(made, tmp_path, count=2)
    with pytest.raises(InputError, match="actions: int64, expected an array of float32"):
        check_columns(made, tmp_path)
    made.actions = np.array([0, 2])
    with pytest.raises(InputError, match="actions: 2 in row 1"):
        check_columns(made, tmp_path, count=2)
    made.actions = rows
    with pytest.raises(InputError, match="actions: float32, expected an array of int64"):
        check_columns(made, tmp_path, count=2)
