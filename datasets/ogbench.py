"""Reads OGBench's .npz files (Park et al. 2024, arXiv 2410.20092; seohongpark/ogbench at 1d41409).

A file holds observations, actions and terminals, and the states `qpos`, `qvel` and `button_states`.
A trajectory of T steps has T + 1 rows, the last of which, marked by `terminals`, is the successor
of the one before and has no action that was taken. No trajectory terminates: all are truncated.

A file has no rewards. In the views `task1` to `task5` they are those of one of the five tasks of
the card's environment, which the ogbench package computes from the states, and the rows that solve
it are terminations; a trajectory goes on there, so that it counts as several episodes. In the view
`transitions` every reward is 0.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data import (
    Card,
    Columns,
    Totals,
    actions,
    check_size,
    column,
    disk_usage,
    flags,
    open_archive,
)
from offrl.errors import InputError

SUFFIXES = ()  # D4RL's files have the same names of columns: these are read through cards
VIEWS = ("transitions", "task1", "task2", "task3", "task4", "task5")
VERSION = 1  # raised whenever the same file would be read otherwise
KEYS = ("observations", "actions", "terminals")
STATES = ("qpos", "button_states")  # of which rewards are made


def lacking(path: Path) -> list[str]:
    """The columns that a file lacks."""
    with open_archive(path) as archive:
        return [key for key in KEYS if key not in archive]


def read(path: Path, card: Card) -> Columns:
    """The columns of an OGBench file. Raises InputError where it is not one."""
    task = _task(card)
    missing = lacking(path)
    with open_archive(path) as archive:
        if missing:
            raise InputError(
                f"{path}: lacks {', '.join(missing)}; found {', '.join(archive)}, expected "
                f"OGBench's {', '.join(KEYS)}"
            )
        keys = [*KEYS, *(key for key in STATES if task and key in archive)]
        check_size(path, [archive[key] for key in keys], 2 * disk_usage(path))
        raw = {key: archive[key][()] for key in keys}
    rows = len(raw["observations"]) if raw["observations"].ndim else 0
    ends = flags(raw["terminals"], path, "terminals", rows)
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    if not (rows and ends[-1]):
        raise InputError(f"{path}: its last row ends no trajectory; fetch the file again")
    if lengths.min() < 2:
        row = int(np.flatnonzero(ends)[lengths.argmin()])
        raise InputError(
            f"{path}: the trajectory that ends in row {row} (counted from 0) has one row; expected "
            "two at least, as the last is only a successor"
        )
    observations = column(raw["observations"], path, "observations", rows, 2)
    taken = actions(raw["actions"], path, "actions", rows)
    kept = np.flatnonzero(~ends)
    rewards = np.zeros(len(kept), dtype=np.float32)
    solved = np.zeros(len(kept), dtype=np.bool_)
    notes = [f"left out {int(ends.sum())} rows that are only successors, as OGBench does"]
    if task:
        states = {key: raw[key][kept] for key in STATES if key in raw}
        rewards, solved = _rewards(task, states, path)
        notes.append(
            f"rewards of {task}; {int(solved.sum())} rows solve it and count as terminations, "
            "though their trajectories go on: they are cut into episodes there"
        )
    else:
        notes.append("the file has no rewards: they are 0, and a learner has to be given goals")
    trajectories = int(ends.sum())
    return Columns(
        observations=observations[kept],
        actions=taken[kept],
        rewards=rewards,
        next_observations=observations[kept + 1],
        terminations=solved,
        truncations=ends[kept + 1] & ~solved,
        notes=notes,
        source=Totals(len(kept), trajectories, float(rewards.sum(dtype=np.float64)) / trajectories),
    )


def _task(card: Card) -> str | None:
    """OGBench's name of the task whose rewards a card's view has; None where it has none."""
    if card.view == VIEWS[0]:
        return None
    named = re.fullmatch(
        r"ogbench:([a-z0-9-]+?)(-singletask(-task\d)?)?-v0",
        card.environment.id if card.environment else "",
    )
    if named is None:
        raise InputError(
            f"card {card.id}: view {card.view!r} needs an environment of OGBench, such as "
            "ogbench:antmaze-large-v0"
        )
    if named[3] and named[3] != f"-{card.view}":
        raise InputError(
            f"card {card.id}: view {card.view!r}, but its environment has the task {named[3][1:]}; "
            "use the card of that task"
        )
    return f"{named[1]}-singletask-{card.view}-v0"


def _rewards(
    task: str, states: dict[str, NDArray[Any]], path: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The rewards of a single task in each row, and whether the row solves it."""
    if "qpos" not in states:
        raise InputError(f"{path}: lacks qpos, of which the rewards of {task} are computed")
    try:
        import gymnasium
        from ogbench.relabel_utils import relabel_dataset

        env = gymnasium.make(task)
    except ImportError as error:
        raise InputError(
            f"{path}: the rewards of {task} are computed by the package ogbench, which cannot be "
            f"imported here ({error}); install it (pip install ogbench)"
        ) from None
    numbers = np.random.get_state()  # noqa: NPY002 (OGBench draws from the global generator)
    try:
        relabel_dataset(task, env, states)
    finally:
        np.random.set_state(numbers)  # noqa: NPY002
        env.close()
    solved = np.asarray(states["masks"]) == 0
    return column(states["rewards"], path, "rewards", len(solved), 1), solved
