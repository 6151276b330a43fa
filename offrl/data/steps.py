"""Steps of a simulator that a source holds: states, actions taken in them, and what followed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Steps:
    """N steps from states that a simulator can be set to, as stored.

    Attributes:
        qpos: positions (N, nq) before the action.
        qvel: velocities (N, nv) before the action.
        actions: (N, dimensions).
        next_qpos: positions (N, nq) after the action.
        next_qvel: velocities (N, nv) after the action.
        note: how the source's rows were read.
        rewards: (N,) of these steps, where the source has them.
        terminations: bool (N,), whether they ended the process, likewise.
    """

    qpos: Array
    qvel: Array
    actions: Array
    next_qpos: Array
    next_qvel: Array
    note: str = ""
    rewards: Array | None = None
    terminations: Array | None = None

    def __len__(self) -> int:
        return len(self.actions)


def precedes(states: Array, observations: Array, next_observations: Array) -> bool:
    """Whether states (N, S) are those that observations (N, D) show, and not the next ones.

    An observation holds most numbers of its state, some with noise or clipped, in whatever order:
    each number is compared with the column that is nearest to it. One that no column shows is about
    as far from either.
    """
    return _distance(states, observations) <= _distance(states, next_observations)


def _distance(states: Array, observations: Array) -> float:
    """How far numbers of the states are from the columns that show them, on average."""
    nearest = [
        np.median(np.abs(observations - number[:, None]), axis=0).min()
        for number in states.T.astype(np.float64)
    ]
    return float(np.mean(nearest))
