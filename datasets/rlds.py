"""Reads episodes of RLDS (Ramos et al. 2021, arXiv 2111.02767) as a folder of .npz files.

A file holds the steps of an episode, or of several: `observation`, `action`, `reward`, `is_last`
and `is_terminal`, as `tfds.as_numpy` gives them, and `is_first` where there are several. A step's
reward is that of its own action. The last step holds the last observation alone: its action and
reward are fillings. It terminates the episode where it `is_terminal`, else the episode was cut off.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from offrl.data import (
    Card,
    Columns,
    check_size,
    disk_usage,
    episode_columns,
    flags,
    open_archive,
)
from offrl.errors import InputError

SUFFIXES = ()  # a data set is a folder
VIEWS = ("transitions",)
VERSION = 1  # raised whenever the same files would be read otherwise
KEYS = ("observation", "action", "reward", "is_last", "is_terminal")


def card(source: str | Path) -> dict[str, Any]:
    """Nothing, for a folder of episodes. Raises InputError for another."""
    if missing := lacking(Path(source)):
        raise InputError(f"{source}: lacks {', '.join(missing)} of a folder of RLDS episodes")
    return {}


def lacking(path: Path) -> list[str]:
    """What a folder lacks, by the first of its files."""
    first = next(iter(_files(path)), None)
    if first is None:
        return ["*.npz"]
    with open_archive(first) as archive:
        return [key for key in KEYS if key not in archive]


def read(path: Path, card: Card) -> Columns:
    """The columns of a folder, files in the order of their names."""
    arrays: list[Any] = []
    for file in _files(path):
        with open_archive(file) as archive:
            if missing := [key for key in KEYS if key not in archive]:
                raise InputError(f"{file}: lacks {', '.join(missing)} of RLDS' steps")
            arrays += [archive[key] for key in (*KEYS, "is_first") if key in archive]
    check_size(path, arrays, disk_usage(path))
    return episode_columns(_episodes(path), path, card.action_count)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.npz")) if path.is_dir() else []


def _episodes(path: Path) -> Iterator[dict[str, Any]]:
    for file in _files(path):
        with open_archive(file) as archive:
            names = [*KEYS, *(["is_first"] if "is_first" in archive else [])]
            raw = {name: archive[name][()] for name in names}
        steps = len(raw["reward"]) if raw["reward"].ndim else 0
        if odd := [name for name, values in raw.items() if values.shape[:1] != (steps,)]:
            raise InputError(f"{file}: {odd[0]} and reward differ in length; write it again")
        last = flags(raw["is_last"], file, "is_last", steps)
        terminal = flags(raw["is_terminal"], file, "is_terminal", steps)
        begins = np.zeros(steps, dtype=np.bool_)
        begins[0] = True
        if "is_first" in raw:
            begins |= flags(raw["is_first"], file, "is_first", steps)
        firsts = np.flatnonzero(begins)
        for first, end in zip(firsts, [*firsts[1:], steps], strict=True):
            inside = last[first : end - 1] | terminal[first : end - 1]
            if inside.any() or end - first < 2:
                raise InputError(
                    f"{file}: the episode of steps {first} to {end - 1} (counted from 0) "
                    f"{'goes on after its last step' if inside.any() else 'has one step alone'}; "
                    "expected an action at least, and is_last in the last step"
                )
            yield {
                "observations": raw["observation"][first:end],
                "actions": raw["action"][first : end - 1],
                "rewards": raw["reward"][first : end - 1],
                "terminated": bool(terminal[end - 1]),
            }
