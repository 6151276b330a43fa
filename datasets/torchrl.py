"""Reads transitions of TorchRL (Bou et al. 2023, arXiv 2306.00577) as an .npz file.

They are a TensorDict with `observation`, `action` and, under `next`, `observation`, `reward`,
`terminated` and `truncated` or `done`; of a buffer's storage, or of a collector, as arrays:

    flat = buffer[:].flatten_keys(".")
    np.savez("buffer.npz", **{name: tensor.numpy() for name, tensor in flat.items()})

Keys may be joined by `.`, `/` or `_`. Arrays are (steps, ...) or (environments, steps, ...). Where
`collector.traj_ids` changes, where a row does not begin with the observation that the one before it
ended with, and at the end of an environment's steps, an episode is over; without a flag it counts
as cut off.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offrl.data import (
    Card,
    Columns,
    actions,
    check_size,
    column,
    cut_off,
    disk_usage,
    flags,
    open_archive,
)
from offrl.errors import InputError

SUFFIXES = (".npz",)
VIEWS = ("transitions",)
VERSION = 2  # raised whenever the same file would be read otherwise
JOINTS = (".", "/", "_")
ROOT = ("observation", "action")
NEXT = ("observation", "reward", "terminated")


def lacking(path: Path) -> list[str]:
    """The arrays that a file lacks, by the joint of which it has the most."""
    with open_archive(path) as archive:
        return _lacking(archive, _joint(archive))


def _joint(archive: Mapping[str, Any]) -> str:
    return min(JOINTS, key=lambda joint: len(_lacking(archive, joint)))


def _lacking(archive: Mapping[str, Any], joint: str) -> list[str]:
    names = [*ROOT, *(f"next{joint}{name}" for name in NEXT)]
    return [name for name in names if name not in archive]


def read(path: Path, card: Card) -> Columns:
    """The columns of the transitions. Raises InputError where they lack one."""
    with open_archive(path) as archive:
        joint = _joint(archive)
        if missing := _lacking(archive, joint):
            raise InputError(f"{path}: lacks {', '.join(missing)} of TorchRL's transitions")
        names = [*ROOT, *(f"next{joint}{name}" for name in (*NEXT, "truncated", "done"))]
        names.append(f"collector{joint}traj_ids")
        used = [name for name in names if name in archive]
        check_size(path, [archive[name] for name in used], disk_usage(path))
        raw = {name.replace(joint, ".", 1): archive[name][()] for name in used}
    rewards = raw["next.reward"]
    batch = rewards.shape[:-1] if rewards.shape[-1:] == (1,) else rewards.shape
    if len(batch) not in (1, 2) or 0 in batch:
        raise InputError(
            f"{path}: next.reward: shape {rewards.shape}, expected (steps, 1) or "
            "(environments, steps, 1)"
        )
    rows, steps = int(np.prod(batch)), batch[-1]
    for name, values in raw.items():
        if values.shape[: len(batch)] != batch:
            raise InputError(f"{path}: {name}: shape {values.shape}, expected {batch} first")
        raw[name] = values.reshape(rows, -1)
    terminations = flags(raw["next.terminated"], path, "next.terminated", rows)
    truncations = np.zeros(rows, dtype=np.bool_)
    if "next.truncated" in raw:
        truncations |= flags(raw["next.truncated"], path, "next.truncated", rows)
    if "next.done" in raw:
        truncations |= flags(raw["next.done"], path, "next.done", rows) & ~terminations
    ends = np.zeros(rows, dtype=np.bool_)
    ends[steps - 1 :: steps] = True
    # A storage that is full runs on from its newest row into its oldest.
    seen = raw["observation"][1:], raw["next.observation"][:-1]
    if seen[0].shape == seen[1].shape:
        ends[:-1] |= (seen[0] != seen[1]).any(axis=1)
    if "collector.traj_ids" in raw:
        ids = column(raw["collector.traj_ids"], path, "collector.traj_ids", rows, 1)
        ends[:-1] |= ids[1:] != ids[:-1]
    notes: list[str] = []
    truncations = cut_off(ends, terminations, truncations, notes)
    return Columns(
        observations=column(raw["observation"], path, "observation", rows, 2),
        actions=actions(raw["action"], path, "action", rows, card.action_count),
        rewards=column(raw["next.reward"], path, "next.reward", rows, 1),
        next_observations=column(raw["next.observation"], path, "next.observation", rows, 2),
        terminations=terminations,
        truncations=truncations,
        notes=notes,
    )
