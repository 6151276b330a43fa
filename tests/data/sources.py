"""Small sources of data, and what a cache may not hold."""

from pathlib import Path
from typing import Any

import numpy as np

from offrl.data.card import Card


def npz(path: Path, seed: int = 0, rows: int = 20, length: int = 5) -> Path:
    """A small file in NeoRL-2's layout: episodes of `length` steps, cut by the time limit."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    observations = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    np.savez(
        path,
        obs=observations[:-1],
        action=rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        next_obs=observations[1:],
        reward=np.arange(rows, dtype=np.float32),
        done=np.zeros(rows, dtype=np.float32),
        truncated=(np.arange(rows) % length == length - 1).astype(np.float32),
    )
    return path


def card(files: list[dict[str, Any]], **keys: Any) -> Card:
    return Card.model_validate(
        {
            "id": "tiny",
            "version": 1,
            "title": "tiny",
            "source": {"loader": "neorl2", "files": files},
            "reference": {"min": 10.0, "max": 90.0, "source": "made up"},
            "licence": "none",
            "citation": "none",
        }
        | keys
    )


def kept(cache: Path, kind: str = "downloads") -> list[Path]:
    """The files that a cache holds of those that were downloaded, or "made"."""
    return [p for p in (cache / kind).rglob("*") if p.is_file() and not p.name.startswith(".")]


def left_over(folder: Path) -> list[str]:
    """Files and folders that are neither data nor locks: nothing half-written may stay."""
    return [p.name for p in folder.rglob(".*") if not p.name.endswith(".lock")]
