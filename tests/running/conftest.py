"""Runs of a tenth of a second, in this process."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from offrl.running.events import Event, OnEvent
from offrl.running.executors import local
from offrl.running.groups import Group
from offrl.running.training import train_group

CARD = """
id = "pend"
version = 1
title = "Noise on a pendulum"
licence = "none"
citation = "none"
source = { loader = "neorl2", files = [{ name = "pend.npz" }] }
environment = { id = "Pendulum-v1", max_episode_steps = 4 }
reference = { min = -50.0, max = 0.0, source = "made up" }
"""


def run_here(
    groups: Sequence[Group], root: Path, _places: Sequence[str], _on_event: OnEvent
) -> list[Event]:
    """Carries out the groups without worker processes, which take seconds to start."""
    ended = [train_group(g.jobs, root, g.replicas, lambda _event: False) for g in groups]
    return [event for events in ended for event in events]


@pytest.fixture
def pendulum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of twenty rows, pend.toml in the working directory; runs in this process."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(21, 3)).astype(np.float32)
    np.savez(
        tmp_path / "pend.npz",
        obs=observations[:-1],
        action=rng.uniform(-1, 1, (20, 1)).astype(np.float32),
        next_obs=observations[1:],
        reward=np.ones(20, np.float32),
        done=np.zeros(20, np.float32),
        truncated=(np.arange(20) % 5 == 4).astype(np.float32),
    )
    (tmp_path / "pend.toml").write_text(CARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "run_in_processes", run_here)
