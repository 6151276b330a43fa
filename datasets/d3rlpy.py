"""Reads d3rlpy's replay buffers (Seno and Imai 2022, arXiv 2111.03788), as its `dump` writes them.

An HDF5 file holds `num_episodes` and, for episode i of T steps, `observations_i`, `actions_i`,
`rewards_i` and `terminated_i`. Observations are T, so that after the last step of an episode that
did not terminate is not there: the last row of such an episode is left out, as d3rlpy does.
Files of d3rlpy's version 1 have D4RL's columns, which another loader reads.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from offrl.data import Card, Columns, check_size, disk_usage, episode_columns, refuse_links
from offrl.errors import InputError

SUFFIXES = (".h5",)
VIEWS = ("transitions",)
VERSION = 1  # raised whenever the same file would be read otherwise
COUNT = "num_episodes"
KEYS = ("observations", "actions", "rewards", "terminated")


def lacking(path: Path) -> list[str]:
    """What a file lacks of a buffer with an episode at least."""
    import h5py

    refuse_links(path)
    with h5py.File(path, "r") as file:
        return [name for name in (COUNT, *(f"{key}_0" for key in KEYS)) if name not in file]


def read(path: Path, card: Card) -> Columns:
    """The columns of a buffer. Raises InputError where it is none, or an episode of it is odd."""
    import h5py

    refuse_links(path)
    with h5py.File(path, "r") as file:
        if getattr(file.get(COUNT), "shape", None) != () or file[COUNT].dtype.kind not in "iu":
            raise InputError(f"{path}: has no {COUNT}; expected a buffer that d3rlpy wrote")
        count = int(file[COUNT][()])
        if not 0 < count <= len(file):
            raise InputError(
                f"{path}: {COUNT} is {count:,}, but it holds {len(file):,} arrays; it is damaged, "
                "so write it again"
            )
        parts = [_parts(file, k, path) for k in range(count)]
        check_size(path, [part for arrays in parts for part in arrays.values()], disk_usage(path))
        return episode_columns(_episodes(parts), path, card.action_count)


def _parts(file: Any, number: int, path: Path) -> dict[str, Any]:
    """The arrays of an episode, not read yet."""
    arrays = {}
    for key in KEYS:
        stored = file.get(f"{key}_{number}")
        if f"{key}_{number}_0" in file:
            raise InputError(
                f"{path}: the {key} of episode {number} have several parts; offrl reads one array, "
                "so join them"
            )
        if getattr(stored, "shape", None) is None or stored.dtype.kind not in "fiub":
            raise InputError(
                f"{path}: {key}_{number} is no array of numbers; it is damaged, so write it again"
            )
        arrays[key] = stored
    return arrays


def _episodes(parts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for arrays in parts:
        read = {key: stored[()] for key, stored in arrays.items()}
        if read["rewards"].ndim == 2 and read["rewards"].shape[1] == 1:
            read["rewards"] = read["rewards"][:, 0]
        yield read
