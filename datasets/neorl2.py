"""Reads NeoRL-2's published .npz files (Gao et al. 2025, arXiv 2503.19267).

A file holds obs, action, next_obs, reward, done and truncated, float32, one row per transition;
`next_obs[t]` is `obs[t + 1]` inside an episode. `done` is a termination, `truncated` a time limit.
"""

import zipfile
from pathlib import Path

import numpy as np

from offrl.data import Card, Columns, column, flags
from offrl.errors import InputError

SUFFIXES = (".npz",)
VIEWS = ("transitions",)
KEYS = ("obs", "action", "next_obs", "reward", "done", "truncated")


def read(path: Path, card: Card) -> Columns:  # noqa: ARG001 (every loader is given the card)
    """The columns of a NeoRL-2 file. Raises InputError where it is not one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                raise InputError(
                    f"{path}: lacks {', '.join(missing)}; found {', '.join(archive.files)}, "
                    f"expected NeoRL-2's {', '.join(KEYS)}"
                )
            raw = {key: archive[key] for key in KEYS}
    except InputError:
        raise
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{path}: not a whole .npz file without pickles ({error}); fetch it again"
        ) from None
    rows = len(raw["obs"]) if raw["obs"].ndim else 0
    notes = []
    terminations = flags(raw["done"], path, "done", rows)
    truncations = flags(raw["truncated"], path, "truncated", rows)
    if rows and not (terminations[-1] or truncations[-1]):
        truncations[-1] = True
        notes.append("the last row ends no episode: marked as truncated")
    return Columns(
        observations=column(raw["obs"], path, "obs", rows, 2),
        actions=column(raw["action"], path, "action", rows, 2),
        rewards=column(raw["reward"], path, "reward", rows, 1),
        next_observations=column(raw["next_obs"], path, "next_obs", rows, 2),
        terminations=terminations,
        truncations=truncations,
        notes=notes,
    )
