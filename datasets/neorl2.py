"""Reads NeoRL-2's published .npz files (Gao et al. 2025, arXiv 2503.19267).

A file holds obs, action, next_obs, reward, done and truncated, float32, one row per transition;
`next_obs[t]` is `obs[t + 1]` inside an episode. `done` is a termination, `truncated` a time limit.
"""

from pathlib import Path

from offrl.data import Card, Columns, actions, check_size, column, disk_usage, flags, open_archive
from offrl.errors import InputError

SUFFIXES = (".npz",)
VIEWS = ("transitions",)
VERSION = 1  # raised whenever the same file would be read otherwise
KEYS = ("obs", "action", "next_obs", "reward", "done", "truncated")


def lacking(path: Path) -> list[str]:
    """NeoRL-2's columns that a file lacks."""
    with open_archive(path) as archive:
        return [key for key in KEYS if key not in archive]


def read(path: Path, card: Card) -> Columns:
    """The columns of a NeoRL-2 file. Raises InputError where it is not one."""
    with open_archive(path) as archive:
        missing = [key for key in KEYS if key not in archive]
        if missing:
            raise InputError(
                f"{path}: lacks {', '.join(missing)}; found {', '.join(archive)}, expected "
                f"NeoRL-2's {', '.join(KEYS)}"
            )
        check_size(path, [archive[key] for key in KEYS], disk_usage(path))
        raw = {key: archive[key][()] for key in KEYS}
    rows = len(raw["obs"]) if raw["obs"].ndim else 0
    notes = []
    terminations = flags(raw["done"], path, "done", rows)
    truncations = flags(raw["truncated"], path, "truncated", rows)
    if rows and not (terminations[-1] or truncations[-1]):
        truncations[-1] = True
        notes.append("the last row ends no episode: marked as truncated")
    return Columns(
        observations=column(raw["obs"], path, "obs", rows, 2),
        actions=actions(raw["action"], path, "action", rows, card.action_count),
        rewards=column(raw["reward"], path, "reward", rows, 1),
        next_observations=column(raw["next_obs"], path, "next_obs", rows, 2),
        terminations=terminations,
        truncations=truncations,
        notes=notes,
    )
