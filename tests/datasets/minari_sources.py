"""Minari's folders, written by Minari."""

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from numbered import numbers


def episode(
    steps: int,
    start: int = 0,
    terminated: bool = False,
    truncated: bool = True,
    observations: Any = None,
) -> EpisodeBuffer:
    ends = np.arange(steps) == steps - 1
    return EpisodeBuffer(
        observations=numbers(steps + 1, 2, start) if observations is None else observations,
        actions=np.linspace(-1, 1, steps, dtype=np.float32)[:, None],
        rewards=np.full(steps, 0.5),
        terminations=ends & terminated,
        truncations=ends & truncated,
    )


def minari_data(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    episodes: list[EpisodeBuffer],
    space: gymnasium.Space[Any] | None = None,
    minari_id: str = "tests/tiny-v0",
    actions: gymnasium.Space[Any] | None = None,
    **about: Any,
) -> Path:
    """A data set in Minari's own storage, written by Minari."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari's advice on metadata
        minari.create_dataset_from_buffers(
            minari_id,
            episodes,
            observation_space=space or gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            action_space=actions or gymnasium.spaces.Box(-1, 1, (1,), np.float32),
            author="tests",
            author_email="tests@example.org",
            code_permalink="https://example.org",
            algorithm_name="none",
            description="for tests",
            **about,
        )
    return root / minari_id


def change(folder: Path, **keys: Any) -> None:
    """Puts keys into the metadata of a folder."""
    path = folder / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
