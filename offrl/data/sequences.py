"""Whole episodes as columns, where a source says what was seen before each step alone.

The observation after a row is that of the next row of its episode. After the last row nothing was
seen: a terminal row keeps its own observation as successor, which a termination makes irrelevant,
and a last row that is not terminal is left out, so that the row before it is where the episode was
cut off. Nothing of this is silent: every change is a note.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.columns import Columns, actions, column, flags, moved
from offrl.data.foreign import reading
from offrl.errors import InputError
from offrl.text import counted

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]


def episode_columns(
    episodes: Iterable[Mapping[str, Any]],
    where: str | Path = "episodes",
    count: int | None = None,
) -> Columns:
    """The columns of episodes in memory, one after another.

    Args:
        episodes: each with `observations` (T + 1, ...) or (T, ...), `actions` (T, ...), `rewards`
            (T,) and `terminated`: whether the process ended with its last step, or `terminations`
            (T,), of which only the last may be true. With T observations the one after the last
            step is unknown: see the top of this file.
        where: the file that holds them, for messages.
        count: of discrete actions, where they are whole numbers (T,) from 0.

    Raises InputError, with the episode's number from 0, where one is not of this form.
    """
    parts = []
    for k, episode in enumerate(episodes):
        with reading(f"{where}: episode {k}", "an episode", "correct it"):
            parts.append(_episode(episode, f"{where}: episode {k}", count))
    if not parts:
        raise InputError(f"{where}: no episodes; expected at least one")
    joined: dict[str, Any] = {}
    for key in list(parts[0]):
        values = [part.pop(key) for part in parts]
        shapes = sorted({value.shape[1:] for value in values})
        if len(shapes) > 1:
            raise InputError(f"{where}: {key} have {shapes[0]} and {shapes[1]} numbers a step")
        joined[key] = np.concatenate(values)
    terminated = int(joined["terminals"].sum())
    notes = [f"{terminated:,} of {counted(len(parts), 'episode')} terminated"]
    return Ordered(**joined).columns(str(where), notes)


def _episode(episode: Mapping[str, Any], where: str, count: int | None) -> dict[str, NDArray[Any]]:
    """The rows of an episode, by the attributes of `Ordered`."""
    for key in ("observations", "actions", "rewards"):
        if key not in episode:
            raise InputError(f"{where}: has no {key}; expected observations, actions and rewards")
    rewards = np.asarray(episode["rewards"])
    steps = len(rewards) if rewards.ndim else 0
    observations = np.asarray(episode["observations"])
    seen = len(observations) if observations.ndim else 0
    if not steps or seen not in (steps, steps + 1):
        raise InputError(
            f"{where}: {steps} rewards and {seen} observations; expected at least one reward, and "
            "as many observations or one more"
        )
    file = Path(where)  # for messages
    observations = column(observations.reshape(seen, -1), file, "observations", seen, 2)
    terminals = np.zeros(steps, dtype=np.bool_)
    if "terminations" in episode:
        terminals = flags(episode["terminations"], file, "terminations", steps)
        if terminals[:-1].any():
            step = int(np.argmax(terminals))
            raise InputError(
                f"{where}: terminates in step {step} of {steps} (counted from 0); expected the "
                "last step alone, so part it"
            )
    elif "terminated" in episode:
        terminals[-1:] = flags([episode["terminated"]], file, "terminated", 1)
    else:
        raise InputError(f"{where}: has no terminated, which says whether the process ended")
    ends = np.zeros(steps, dtype=np.bool_)
    ends[-1] = True
    unknown = np.zeros(steps, dtype=np.bool_)
    unknown[-1] = seen == steps
    after = np.minimum(np.arange(1, steps + 1), seen - 1)
    return {
        "observations": observations[:steps],
        "actions": actions(episode["actions"], file, "actions", steps, count),
        "rewards": column(rewards, file, "rewards", steps, 1),
        "terminals": terminals,
        "ends": ends,
        "successors": observations[after],
        "unknown": unknown,
    }


@dataclass
class Ordered:
    """Rows in the order of their episodes, before it is settled what follows the last of each.

    Attributes:
        observations: (N, dimensions).
        actions: (N, dimensions), discrete ones (N,).
        rewards: (N,).
        terminals: (N,), the rows that ended the process.
        ends: (N,), the last rows of episodes, these included.
        successors: the observations after the rows; None: those of the next rows.
        unknown: (N,), rows at ends of which that is not known; None: all where there are no
            successors, else none. See the top of this file.
    """

    observations: Floats
    actions: Floats | Rows
    rewards: Floats
    terminals: Bools
    ends: Bools
    successors: Floats | None = None
    unknown: Bools | None = None

    def columns(self, where: str, notes: list[str]) -> Columns:
        """The rows as columns, in the place of these, which are worth nothing afterwards.

        Args:
            where: what they are, for messages.
            notes: on what was done so far.

        Raises InputError where no row is left.
        """
        terminals, ends, unknown = self.terminals, self.ends, self.unknown
        if unknown is None:
            unknown = ends if self.successors is None else np.zeros_like(ends)
        lost = unknown & ~terminals
        if lost.all():
            raise InputError(
                f"{where}: nothing is known of what follows any row: each of the episodes "
                f"({int(ends.sum()):,}) has one row and none is terminal; say which are, or what "
                "was observed next"
            )
        if lost.any():
            total = float(np.sum(self.rewards[lost], dtype=np.float64))
            notes.append(
                f"left out the last row of {counted(lost.sum(), 'episode')} that did not "
                f"terminate, as what was observed after it is unknown (rewards of {total:.6g} in "
                "all); the row before it counts as cut off, by a timeout"
            )
        if own := int((terminals & unknown).sum()):
            notes.append(
                f"{counted(own, 'terminal row')} without a next observation: its own stands for "
                "it, which no algorithm uses"
            )
        cut = ends & ~terminals
        cut[:-1] |= lost[1:] & ~ends[:-1]
        if self.successors is None:
            after = np.minimum(np.arange(1, len(ends) + 1), len(ends) - 1)
            after[terminals] = np.flatnonzero(terminals)
            successors = self.observations[after[~lost]]
        else:
            successors = moved(self.successors, ~lost)
        return Columns(
            observations=moved(self.observations, ~lost),
            actions=moved(self.actions, ~lost),
            rewards=moved(self.rewards, ~lost),
            next_observations=successors,
            terminations=moved(terminals, ~lost),
            truncations=moved(cut, ~lost),
            notes=notes,
        )
