"""Checkpoints as files."""

import os
import stat
from pathlib import Path

import pytest
import torch

from offrl.learning import checkpoint


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
