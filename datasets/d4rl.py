"""Reads D4RL's HDF5 files (Fu et al. 2020, arXiv 2004.07219) in one of two views.

A file holds observations, actions, rewards and terminals, one row per step, and mostly `timeouts`
and `next_observations` too. Without `timeouts` an episode is cut at the environment's step limit.
The same columns may lie in an .npz file.

`transitions` is every row. Where the file has no `next_observations`, the successor is the next row
of the episode; the last row of an episode that timed out has none and is left out, and that of an
episode that terminated keeps its own observation, which a termination makes irrelevant.

`qlearning` is what `d4rl.qlearning_dataset` returns (Farama-Foundation/D4RL, d4rl/__init__.py), row
for row, because published scores were trained on it: rows at timeouts and the last row of the file
are left out, and the successor is always the next row of the file, so that of a terminal row is the
first observation of the next episode. The last row kept of an episode that timed out is marked as
truncated, which changes no target: a truncation never stops bootstrapping.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from offrl.data import Card, Columns, Totals, column, flags, refuse_links
from offrl.errors import InputError

SUFFIXES = (".hdf5", ".h5")
VIEWS = ("transitions", "qlearning")
KEYS = ("observations", "actions", "rewards", "terminals")
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


def read(path: Path, card: Card) -> Columns:
    """The columns of a D4RL file in the card's view. Raises InputError where it is not one."""
    import h5py

    kind = ".npz" if path.suffix == ".npz" else "HDF5"
    try:
        if kind == ".npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return _read(dict(archive), path, card)
        refuse_links(path)
        with h5py.File(path, "r") as file:
            return _read(file, path, card)
    except InputError:
        raise
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: not a whole {kind} file ({reason}); delete it and fetch it again"
        ) from None


def _read(file: Mapping[str, Any], path: Path, card: Card) -> Columns:
    missing = [key for key in KEYS if not hasattr(file.get(key), "shape")]  # a group has none
    if missing:
        here = ", ".join(list(file)[:8])
        hint = "; Minari's, so give its folder" if "episode_0" in file else ""
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; found {here}{hint}, expected D4RL's "
            f"{', '.join(KEYS)}"
        )
    shape = file["observations"].shape
    rows = shape[0] if shape else 0

    def numbers(key: str, axes: int) -> Floats:
        stored = file[key]
        values = stored.astype(np.float32)[()] if stored.dtype.kind == "f" else stored[()]
        return column(values, path, key, rows, axes)

    terminals = flags(file["terminals"][()], path, "terminals", rows)
    notes = []
    if "timeouts" in file:
        timeouts = flags(file["timeouts"][()], path, "timeouts", rows)
    else:
        timeouts = _timeouts(path, card, terminals)
        notes.append(
            f"no timeouts in the file: episodes cut at {int(timeouts.sum())} rows by the step limit"
        )
    rewards = numbers("rewards", 1)
    totals = _totals(rewards, terminals | timeouts)
    observations = numbers("observations", 2)
    actions = numbers("actions", 2)
    if card.view == "qlearning":
        keep = ~timeouts
        keep[-1] = False
        successors = None
        truncations = np.zeros(rows, dtype=np.bool_)
        truncations[:-1] = keep[:-1] & ~keep[1:] & ~terminals[:-1]
        notes.append(
            f"qlearning view: left out {int(timeouts[:-1].sum())} rows at timeouts and the last "
            f"row, as d4rl.qlearning_dataset does"
        )
    else:
        keep = np.ones(rows, dtype=np.bool_)
        truncations = timeouts
        if not (terminals[-1] or timeouts[-1]):
            truncations[-1] = True
            notes.append("the last episode is unfinished: marked as truncated")
        successors = numbers("next_observations", 2) if "next_observations" in file else None
        if successors is not None and successors.shape != observations.shape:
            raise InputError(
                f"{path}: next_observations: shape {successors.shape}, expected "
                f"{observations.shape} like observations"
            )
        if successors is None:
            keep = terminals | ~truncations
            ends = terminals | truncations
            truncations[:-1] |= ~keep[1:] & ~ends[:-1]  # the last kept row of such an episode
            notes.append(
                f"no next_observations in the file: left out {int((~keep).sum())} rows at the end "
                f"of episodes without a termination, whose successor is unknown, and gave "
                f"{int(terminals.sum())} terminal rows their own observation as successor"
            )
    if not keep.any():
        raise InputError(f"{path}: the {card.view} view keeps none of its {rows} rows")
    kept = slice(None) if keep.all() else np.flatnonzero(keep)
    if successors is None:
        after = np.minimum(np.arange(1, rows + 1), rows - 1)
        if card.view == "transitions":
            after[terminals] = np.flatnonzero(terminals)
        successors = observations[after[kept]]
    else:
        successors = successors[kept]
    return Columns(
        observations=observations[kept],
        actions=actions[kept],
        rewards=rewards[kept],
        next_observations=successors,
        terminations=terminals[kept],
        truncations=truncations[kept],
        notes=notes,
        source=totals,
    )


def _totals(rewards: Floats, ends: Bools) -> Totals:
    """Totals of a file; an episode that the file's end cuts off is no episode."""
    last = np.flatnonzero(ends)
    if len(last) == 0:
        return Totals(len(rewards), 1, float(rewards.sum(dtype=np.float64)))
    returned = float(rewards[: last[-1] + 1].sum(dtype=np.float64))
    return Totals(len(rewards), len(last), returned / len(last))


def _timeouts(path: Path, card: Card, terminals: Bools) -> Bools:
    """Where the step limit ends an episode of a file that does not say so itself."""
    if card.environment is None:
        raise InputError(
            f"{path}: has no timeouts, so the step limit decides where episodes end; load it "
            f"through a card that gives environment.max_episode_steps"
        )
    limit = card.environment.max_episode_steps
    timeouts = np.zeros(len(terminals), dtype=np.bool_)
    step = 0
    for row, terminal in enumerate(terminals.tolist()):
        if step == limit - 1:
            timeouts[row] = True
            step = 0
        elif terminal:
            # d4rl counts the first step after a terminal as the second; its view keeps to that
            step = 1 if card.view == "qlearning" else 0
        else:
            step += 1
    return timeouts
