"""NeoRL-2's files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered import numbers

from offrl.data.dataset import load_dataset
from offrl.errors import InputError


def neorl2_file(path: Path, **replaced: Any) -> Path:
    observations = numbers(6, 3)
    data: dict[str, Any] = {
        "obs": observations,
        "action": numbers(6, 2),
        "next_obs": observations + 100,
        "reward": np.arange(6, dtype=np.float32),
        "done": np.array([0, 0, 1, 0, 0, 0], dtype=np.float32),
        "truncated": np.array([0, 0, 0, 0, 0, 1], dtype=np.float32),
    }
    data |= replaced
    np.savez(path, **{key: values for key, values in data.items() if values is not None})
    return path


def test_neorl2_keeps_done_and_truncated_apart(tmp_path: Path) -> None:
    dataset = load_dataset(neorl2_file(tmp_path / "a.npz"))
    assert dataset.terminations.tolist() == [False, False, True, False, False, False]
    assert dataset.truncations.tolist() == [False, False, False, False, False, True]
    assert dataset.episode_starts.tolist() == [0, 3]
    assert dataset.episode_returns.tolist() == [3.0, 12.0]
    assert dataset.notes == []
    np.testing.assert_array_equal(dataset.next_observations, numbers(6, 3) + 100)


def test_neorl2_unfinished_last_episode_is_noted(tmp_path: Path) -> None:
    dataset = load_dataset(neorl2_file(tmp_path / "a.npz", truncated=np.zeros(6)))
    assert dataset.truncations.tolist() == [False] * 5 + [True]
    assert dataset.notes == ["the last row ends no episode: marked as truncated"]


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"reward": None}, r"lacks reward; found obs, action, next_obs, done, truncated"),
        ({"action": np.ones((5, 2))}, r"action: 5 rows, but the first column has 6"),
        ({"reward": np.array([0, 1, np.nan, 0, np.nan, 0])}, r"reward: nan in row 2"),
        ({"done": np.full(6, 2.0)}, r"done: 2\.0 in row 0; expected 0 or 1"),
        (
            {"obs": np.array([{}] * 6, dtype=object)},
            r"cannot be read as neorl2 data \(ValueError: Object arrays cannot",
        ),
    ],
)
def test_odd_neorl2_files_are_refused(
    tmp_path: Path, replaced: dict[str, Any], message: str
) -> None:
    path = neorl2_file(tmp_path / "a.npz", **replaced)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)


def test_truncated_npz_is_refused(tmp_path: Path) -> None:
    path = neorl2_file(tmp_path / "a.npz")
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"<!DOCTYPE html>"):
        path.write_bytes(part)
        with pytest.raises(
            InputError, match=r"a\.npz: cannot be read as d4rl or neorl2 or sb3 or torchrl data"
        ):
            load_dataset(path)
