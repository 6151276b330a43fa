"""Checkpoints: whole and with their digest, or none."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from offrl.errors import Damaged, InputError
from offrl.learning import checkpoint

STATE: dict[str, Any] = {
    "step": 7,
    "seconds": 1.5,
    "learner": {
        "weights": [torch.arange(6.0).view(2, 3), torch.ones((), dtype=torch.bfloat16)],
        "counts": {0: torch.zeros(0, dtype=torch.int64), 1: True},
        "name": "bc",
    },
}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right) and left.dtype == right.dtype
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def test_a_state_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, STATE)
    assert same(checkpoint.load(path), STATE)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_every_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, STATE)
    data = path.read_bytes()
    noticed = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        try:
            assert same(checkpoint.load(path), STATE), bit
        except Damaged:
            noticed += 1
    assert noticed > 7 * len(data)


def test_a_checkpoint_of_an_earlier_version_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    text = json.dumps({"step": 3, "w": {"$tensor": "0"}})
    save_file({"0": torch.ones(2)}, path, {"state": text})
    assert same(checkpoint.load(path), {"step": 3, "w": torch.ones(2)})


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"x" * 100),
        lambda p: p.write_bytes(p.read_bytes()[:-1]),
        lambda p: save_file({}, p),
        lambda p: save_file({}, p, {"state": "[" * 10**5}),
        lambda p: save_file({}, p, {"state": '{"w": {"$tensor": "9"}}'}),
        lambda p: save_file({}, p, {"state": '{"w": {"$items": [1]}}'}),
    ],
)
def test_anything_else_is_damaged(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, STATE)
    damage(path)
    with pytest.raises(Damaged, match=r"state\.safetensors: expected a checkpoint of offrl, but"):
        checkpoint.load(path)


def test_a_pipe_or_a_link_is_not_opened(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "state", STATE)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("state")
    for name in ("pipe", "link", "none"):
        with pytest.raises(InputError, match=f"{name}: .*; expected a checkpoint") as caught:
            checkpoint.load(tmp_path / name)
        assert not isinstance(caught.value, Damaged)  # nothing to begin anew for


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_checkpoint_follows_the_umask(tmp_path: Path, umask: int) -> None:
    """So that a colleague who shares the folder can carry a run on."""
    before = os.umask(umask)
    try:
        checkpoint.save(tmp_path / "state.safetensors", {"x": torch.ones(2)})
    finally:
        os.umask(before)
    mode = (tmp_path / "state.safetensors").stat().st_mode
    assert stat.S_IMODE(mode) == 0o666 & ~umask
    assert checkpoint.load(tmp_path / "state.safetensors")["x"].tolist() == [1, 1]
