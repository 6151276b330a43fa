"""Reads replay buffers of Stable-Baselines3 (Raffin et al. 2021, JMLR 22) as an .npz file.

Its own `save_replay_buffer` writes a pickle, which offrl does not read. The same buffer as arrays:

    names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    arrays = {name: getattr(buffer, name) for name in names}
    space = buffer.action_space
    arrays |= {"low": space.low, "high": space.high} if hasattr(space, "low") else {}
    np.savez("buffer.npz", **arrays, pos=buffer.pos, full=buffer.full)

Stable-Baselines3 keeps actions of a box in [-1, 1], whatever its bounds; `low` and `high` bring
them back to the simulator's. Without these they stay as they are, which a note says.

Arrays are (steps, environments, ...): rows of one environment follow one another here, from the
oldest on, which stands at `pos` where the buffer is `full`. A row that is done and no timeout is a
termination. Where a buffer ends inside an episode, its last row counts as cut off.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
KEYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def lacking(path: Path) -> list[str]:
    """The arrays of a buffer that a file lacks."""
    with open_archive(path) as archive:
        return [key for key in KEYS if key not in archive]


def read(path: Path, card: Card) -> Columns:
    """The columns of a buffer. Raises InputError where it is not one."""
    with open_archive(path) as archive:
        if missing := [key for key in KEYS if key not in archive]:
            raise InputError(f"{path}: lacks {', '.join(missing)} of a Stable-Baselines3 buffer")
        check_size(path, [archive[key] for key in KEYS], disk_usage(path))
        raw = {key: archive[key][()] for key in KEYS}
        shape = raw["rewards"].shape
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{path}: rewards: shape {shape}, expected (steps, environments)")
        for key, values in raw.items():
            if values.shape[:2] != shape:
                raise InputError(
                    f"{path}: {key}: shape {values.shape}, expected {shape} first, as rewards have"
                )
        order = _order(archive, path, shape[0])
        notes: list[str] = []
        if card.action_count is None:
            raw["actions"] = _unscaled(archive, raw["actions"], path, notes)
    steps, environments = len(order), shape[1]
    rows = steps * environments
    raw = {key: _in_sequence(values, order) for key, values in raw.items()}
    dones = flags(raw["dones"], path, "dones", rows)
    timeouts = flags(raw["timeouts"], path, "timeouts", rows)
    ends = np.zeros(rows, dtype=np.bool_)
    ends[steps - 1 :: steps] = True
    terminations = dones & ~timeouts
    truncations = cut_off(ends, terminations, timeouts, notes)

    def observed(name: str) -> NDArray[np.float32]:
        return column(raw[name], path, name, rows, 2, flat=True)

    return Columns(
        observations=observed("observations"),
        actions=actions(raw["actions"], path, "actions", rows, card.action_count),
        rewards=column(raw["rewards"], path, "rewards", rows, 1),
        next_observations=observed("next_observations"),
        terminations=terminations,
        truncations=truncations,
        notes=notes,
    )


def _unscaled(
    archive: Mapping[str, Any], kept: NDArray[Any], path: Path, notes: list[str]
) -> NDArray[Any]:
    """Actions in the simulator's bounds, of those in [-1, 1] that a buffer keeps."""
    if kept.dtype.kind != "f":
        return kept  # `actions` refuses them
    if not {"low", "high"} <= {*archive}:
        notes.append(
            "actions are in [-1, 1], as Stable-Baselines3 keeps them whatever the simulator's "
            "bounds: save low and high with them (datasets/sb3.py) where these are others"
        )
        return kept
    low, high = (np.asarray(archive[key][()], np.float64) for key in ("low", "high"))
    if not low.shape == high.shape == kept.shape[2:] or not np.isfinite([low, high]).all():
        raise InputError(
            f"{path}: low and high: expected finite bounds of shape {kept.shape[2:]}, found "
            f"{low.shape} and {high.shape}"
        )
    return low + (kept + 1) / 2 * (high - low)


def _order(archive: Mapping[str, Any], path: Path, size: int) -> NDArray[np.int64]:
    """The rows that are filled, from the oldest on; all of them without `pos` and `full`."""
    if "pos" not in archive or "full" not in archive:
        return np.arange(size)
    given = {key: archive[key] for key in ("pos", "full")}
    if any(stored.shape != () or stored.dtype.kind not in "iub" for stored in given.values()):
        raise InputError(f"{path}: pos and full: expected a whole number and true or false")
    place, full = int(given["pos"][()]), bool(given["full"][()])
    if not (0 <= place < size if full else 0 < place <= size):
        raise InputError(f"{path}: pos is {place}, but the buffer has {size} rows")
    return np.roll(np.arange(size), -place) if full else np.arange(place)


def _in_sequence(values: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    """The rows of each environment after those of the one before it; numbers of a row in one."""
    sequence = np.swapaxes(values[order], 0, 1)
    rows = sequence.shape[0] * sequence.shape[1]
    return sequence.reshape(rows, -1) if values.ndim > 2 else sequence.reshape(rows)
