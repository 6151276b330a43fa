"""Reads D4RL's HDF5 files (Fu et al. 2020, arXiv 2004.07219) in one of two views.

A file holds observations, actions, rewards and terminals, one row per step, and mostly `timeouts`
and `next_observations` too. Without `timeouts` a column of the file's own says where episodes end,
such as d3rlpy's `episode_terminals`; without any, an episode is cut at the environment's step
limit. The same columns may lie in an .npz file.

`transitions` is every row. Where the file has no `next_observations`, the successor is the next row
of the episode; the last row of an episode that timed out has none and is left out, and that of an
episode that terminated keeps its own observation, which a termination makes irrelevant.

`qlearning` is what `d4rl.qlearning_dataset` returns (Farama-Foundation/D4RL, d4rl/__init__.py), row
for row, because published scores were trained on it: rows at timeouts and the last row of the file
are left out, and the successor is always the next row of the file, so that of a terminal row is the
first observation of the next episode. The last row kept of an episode that timed out is marked as
truncated, which changes no target: a truncation never stops bootstrapping.

Discrete actions are whole numbers from 0. How many there are and what they are called is no part of
D4RL's format: `write` keeps it as JSON in the attribute `choices` of `actions`.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data import (
    Card,
    Choices,
    Columns,
    Room,
    Steps,
    Totals,
    actions,
    check_size,
    choices_text,
    column,
    disk_usage,
    flags,
    gathered,
    moved,
    open_archive,
    precedes,
    read_choices,
    refuse_links,
)
from offrl.errors import InputError

SUFFIXES = (".hdf5", ".h5", ".npz")
WRITES = (".hdf5", ".h5")
VIEWS = ("transitions", "qlearning")
VERSION = 1  # raised whenever the same file would be read otherwise
STATES = ("infos/qpos", "infos/qvel")
KEYS = ("observations", "actions", "rewards", "terminals")
CHOICES = "choices"  # an attribute of `actions`
D4RL_KEYS = (*KEYS, "timeouts", "next_observations")
# Names of columns that say where episodes begin and end, as other tools spell them.
ENDS = re.compile(r"terminal|(^|_)(is_)?(ends?|last|final|dones?|dones_float)$|truncat|timeout")
BEGINS = re.compile(r"(^|_)(is_)?(starts?|first|begins?)$")
LENGTHS = re.compile(r"(^|_)(lengths?|lens?)$")
STEPS = re.compile(r"(^|_)(time_?)?steps?$")
IDS = re.compile(r"(episode|traj\w*)(_ids?|_ind(ex|ices))?$")
MARKS = re.compile(
    "episod|traj|valids|" + "|".join(p.pattern for p in (ENDS, BEGINS, LENGTHS, STEPS))
)
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


def lacking(path: Path) -> list[str]:
    """D4RL's columns that a file lacks."""
    with _opened(path) as file:
        return _missing(file)


def choices(path: Path) -> Choices | None:
    """The discrete actions by the attribute that `write` gives to those of an HDF5 file."""
    with _opened(path) as file:
        attributes: Any = getattr(file.get("actions"), "attrs", {})
        if CHOICES not in attributes:
            return None
        where = f"{path}: attribute {CHOICES} of actions"
        held = attributes.get_id(CHOICES)
        if held.dtype.kind != "S" or held.shape != ():  # a text of any other kind has no size yet
            raise InputError(
                f"{where}: {held.dtype} of shape {held.shape}, expected one text of fixed length; "
                "write it as numpy.bytes_, or delete it and give a card with actions.count"
            )
        return read_choices(attributes[CHOICES], where)


def read(path: Path, card: Card) -> Columns:
    """The columns of a D4RL file in the card's view. Raises InputError where it is not one."""
    with _opened(path) as file:
        return _read(file, path, card)


def write(path: Path, columns: Columns, card: Card) -> None:
    """Writes rows with D4RL's names; the view `transitions` reads each of them again."""
    import h5py

    values = (
        columns.observations,
        columns.actions,
        columns.rewards,
        columns.terminations,
        columns.truncations,
        columns.next_observations,
    )
    # Attributes of more than 64 KiB, thousands of names, need the format of HDF5 1.8.
    with h5py.File(path, "w", locking=False, libver="v108") as file:
        for key, column_ in zip(D4RL_KEYS, values, strict=True):
            file.create_dataset(key, data=column_)
        if card.actions is not None:
            text = choices_text(card.actions).encode()
            file["actions"].attrs[CHOICES] = np.bytes_(text)


def steps(path: Path, card: Card, most: int) -> Steps | None:
    """Up to `most` steps of a file that holds `infos/qpos` and `infos/qvel`, spread over it.

    Some files hold a row's state before its action, as its observation shows it, others the state
    after it: the observations say which.
    """
    with _opened(path) as file:
        if _missing(file) or any(not hasattr(file.get(key), "shape") for key in STATES):
            return None
        rows = file["observations"].shape[0]
        for key in STATES:
            shape, kind = file[key].shape, file[key].dtype.kind
            if len(shape) != 2 or shape[0] != rows or not shape[1] or kind != "f":
                raise InputError(
                    f"{path}: {key}: {file[key].dtype} of shape {shape}, expected floats of shape "
                    f"({rows}, numbers), a row per step"
                )
        used = [file[key] for key in (*STATES, "observations", "actions")]
        whole_columns = path.suffix == ".npz"  # of HDF5 some rows alone are read
        check_size(path, used, disk_usage(path), memory=whole_columns)
        terminals = flags(file["terminals"][()], path, "terminals", rows)
        ends = terminals | _timeouts(file, path, card, terminals)[0]
        inside = np.flatnonzero(~ends[:-1])
        if not len(inside):
            return None
        count = min(most, len(inside))
        first = inside[np.linspace(0, len(inside) - 1, count).round().astype(np.int64)]
        (qpos, next_qpos), (qvel, next_qvel) = (
            (_at(file[key], first), _at(file[key], first + 1)) for key in STATES
        )
        seen, seen_next = (_at(file["observations"], rows) for rows in (first, first + 1))
        before = precedes(np.concatenate([qpos, qvel], 1), seen, seen_next)
        rows_taken = first if before else first + 1
        actions, rewards = _at(file["actions"], rows_taken), _at(file["rewards"], rows_taken)
    arrays = [qpos, qvel, actions, next_qpos, next_qvel, rewards]
    whole = np.isfinite(np.concatenate(arrays, 1)).all(1)
    qpos, qvel, actions, next_qpos, next_qvel, rewards = (array[whole] for array in arrays)
    note = f"a row holds the state {'before' if before else 'after'} its action"
    ended = terminals[rows_taken][whole]
    return Steps(qpos, qvel, actions, next_qpos, next_qvel, note, rewards[:, 0], ended)


def _at(stored: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Some rows of a column, read alone where HDF5 can, of one axis more where it has one only."""
    chosen = stored[rows] if hasattr(stored, "file") else stored[()][rows]
    return np.asarray(chosen).reshape(len(rows), -1)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of a file by name, not read yet: each has `shape`, `dtype` and `[()]`."""
    if path.suffix == ".npz":
        with open_archive(path) as archive:
            yield archive
    else:
        import h5py

        refuse_links(path)
        with h5py.File(path, "r") as file:
            yield file


def _missing(file: Mapping[str, Any]) -> list[str]:
    return [key for key in KEYS if not hasattr(file.get(key), "shape")]  # a group has none


def _read(file: Mapping[str, Any], path: Path, card: Card) -> Columns:
    if missing := _missing(file):
        here = ", ".join(list(file)[:8])
        hint = "; Minari's, so give its folder" if "episode_0" in file else ""
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; found {here}{hint}, expected D4RL's "
            f"{', '.join(KEYS)}; add or rename columns, or give a card (TOML) with a loader of "
            "your own"
        )
    shape = file["observations"].shape
    rows = shape[0] if shape else 0
    used = [key for key in (*D4RL_KEYS, *_marks(file)) if key in file]
    for key in D4RL_KEYS:  # before they are read: one text may stand in every row
        if key in file and not _is_numeric(file[key]):
            raise InputError(f"{path}: {key}: expected numbers, found {file[key].dtype}")
    room = Room(path, [file[key] for key in used if _is_numeric(file[key])], disk_usage(path))

    def numbers(key: str, axes: int) -> Floats:
        return column(_stored(file[key]), path, key, rows, axes, room.empty, flat=axes == 2)

    said: Any = file.get("discrete_action")  # of d3rlpy
    discrete = getattr(said, "shape", None) == () and _is_numeric(said) and np.any(said[()])
    if discrete and card.actions is None:
        raise InputError(
            f"{path}: discrete_action says that its actions are discrete, and its card does not "
            f"say how many there are; give a card with actions.count"
        )
    terminals = flags(file["terminals"][()], path, "terminals", rows)
    notes = []
    timeouts, note = _timeouts(file, path, card, terminals)
    if note:
        notes.append(note)
    rewards = numbers("rewards", 1)
    totals = _totals(rewards, terminals | timeouts)
    observations = numbers("observations", 2)
    if len(shape) > 2:
        notes.append(f"observations of shape {shape[1:]} flattened")
    taken = actions(_stored(file["actions"]), path, "actions", rows, card.action_count, room.empty)
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
    if successors is None:
        successors = _successors(observations, terminals, keep, card.view, room)
    else:
        successors = moved(successors, keep)
    return Columns(
        observations=moved(observations, keep),
        actions=moved(taken, keep),
        rewards=moved(rewards, keep),
        next_observations=successors,
        terminations=terminals[keep],
        truncations=truncations[keep],
        notes=notes,
        source=totals,
    )


def _successors(
    observations: Floats, terminals: Bools, keep: Bools, view: str, room: Room
) -> Floats:
    """The observations of the rows after those that are kept."""
    kept = np.flatnonzero(keep)
    after = np.minimum(kept + 1, len(observations) - 1)
    if view == "transitions":
        after[terminals[keep]] = kept[terminals[keep]]
    found = room.empty((len(kept), observations.shape[1]), np.float32)
    return gathered(observations, after, found)


def _totals(rewards: Floats, ends: Bools) -> Totals:
    """Totals of a file; an episode that the file's end cuts off is no episode."""
    last = np.flatnonzero(ends)
    if len(last) == 0:
        return Totals(len(rewards), 1, float(rewards.sum(dtype=np.float64)))
    returned = float(rewards[: last[-1] + 1].sum(dtype=np.float64))
    return Totals(len(rewards), len(last), returned / len(last))


def _is_numeric(stored: Any) -> bool:
    return stored.dtype.kind in "fiub"


def _stored(array: Any) -> Any:
    """A column, which `column` reads in blocks where HDF5 can, else whole."""
    return array if hasattr(array, "chunks") else array[()]


def _marks(file: Mapping[str, Any]) -> list[str]:
    """Columns of a file's own, not of D4RL's, that speak of episodes."""
    return [
        key
        for key in file
        if key not in D4RL_KEYS
        and getattr(file.get(key), "shape", None)
        and MARKS.search(key.lower())
    ]


def _timeouts(
    file: Mapping[str, Any], path: Path, card: Card, terminals: Bools
) -> tuple[Bools, str | None]:
    """Rows at which an episode ends without a termination, and a note on how they were found.

    They are the file's `timeouts`, else what another column of the file says of the ends of
    episodes, else the step limit. Raises InputError where two columns contradict each other.
    """
    rows = len(terminals)
    names = _marks(file)
    marks = {
        key: _ends(np.asarray(file[key][()]), key.lower(), rows) if _is_numeric(file[key]) else None
        for key in names
    }
    known = {key: ends for key, ends in marks.items() if ends is not None}
    note = None
    if "timeouts" in file:
        source = "timeouts"
        timeouts = flags(file["timeouts"][()], path, source, rows)
    elif known:
        source = max(known, key=lambda key: int(known[key].sum()))
        timeouts = known[source] & ~terminals
        note = (
            f"no timeouts in the file: its {source} ends {int(timeouts.sum())} episodes without a "
            f"termination, which count as truncated"
        )
    elif names:
        raise InputError(
            f"{path}: has no timeouts, and {', '.join(names)} may speak of episodes in a way that "
            f"offrl does not read; write timeouts: 1 in each row that ends an episode without a "
            f"termination, else 0"
        )
    else:
        timeouts = _step_limit(path, card, terminals)
        note = (
            f"no timeouts in the file: episodes cut at {int(timeouts.sum())} rows by the step limit"
        )
    for key, ends in known.items():
        if (apart := np.flatnonzero((ends & ~(timeouts | terminals))[:-1])).size:
            raise InputError(
                f"{path}: {key} ends an episode in row {apart[0]} (counted from 0), but {source} "
                f"and terminals do not; correct or remove one of them"
            )
    return timeouts, note


def _ends(raw: NDArray[Any], name: str, rows: int) -> Bools | None:
    """The rows that end an episode by a column of a file's own; None where it does not say.

    Such a column is a flag per row where episodes end or begin, a number per row that names the
    episode or counts its steps, or a number per episode: its length, its first row, or the row
    after its last.
    """
    values = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
    if values.ndim != 1 or values.dtype.kind not in "fiub" or not values.size:
        return None
    numbers = values.astype(np.float64)
    if not np.array_equal(numbers, np.round(numbers)):
        return None
    ends = np.zeros(rows, dtype=np.bool_)
    ends[-1:] = True
    flagged = len(numbers) == rows and bool(np.isin(numbers, (0, 1)).all())
    per_row, rising = len(numbers) == rows, bool((np.diff(numbers) > 0).all())
    if IDS.search(name) and per_row:
        ends[:-1] = numbers[1:] != numbers[:-1]
    elif STEPS.search(name) and per_row:
        ends[:-1] = numbers[1:] <= numbers[:-1]
    elif LENGTHS.search(name) and numbers.min() >= 1 and numbers.sum() == rows:
        ends[np.cumsum(numbers).astype(np.int64) - 1] = True
    elif BEGINS.search(name) and flagged:
        ends[:-1] = numbers[1:] == 1
    elif BEGINS.search(name) and rising and numbers[0] == 0 and numbers[-1] < rows:
        ends[numbers[1:].astype(np.int64) - 1] = True
    elif ENDS.search(name) and flagged:
        return np.asarray(numbers == 1)
    elif ENDS.search(name) and rising and numbers[0] >= 1 and numbers[-1] == rows:
        ends[numbers.astype(np.int64) - 1] = True
    else:
        return None
    return ends


def _step_limit(path: Path, card: Card, terminals: Bools) -> Bools:
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
