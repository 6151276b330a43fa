"""NeoRL-2's Pipeline (Gao et al. 2025, arXiv 2503.19267), written from its equations.

Importing this module registers `offrl/Pipeline-v0` with Gymnasium: a gate lets water into a long
pipe, at whose end it arrives 19 steps later, where another flow is wanted from time to time.

Reference: polixir/NeoRL2 at b50d91d0a65916a89342a4f6978188b17cb2d97a. Known differences:
1. Upstream's target survives a reset: an episode begins with the last one of the episode before,
   all of an evaluation with the same. Here each episode draws its own, as a new object of upstream
   does, so that episodes are independent. The draws that follow are those of upstream's object.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.evaluation.lockstep import Lockstep, Row

Array = NDArray[Any]
Bools = NDArray[np.bool_]

STEPS = 1000
TARGETS = (50.0, 80.0, 110.0, 140.0)
CHANGE = 0.003  # probability of a new target, which may be the old one, in a step
MOST = 200.0  # flow; the least is 0
SLOTS = 20  # of the pipe, the gate's and the end's included
PAST = 25  # flows and actions that are observed


def pipeline_reward(flow: Array | float, target: Array | float) -> Array:
    """Reward of a flow at the end where another is wanted: ((200 - |difference|) / 100)^2 - 3."""
    off = np.abs(np.asarray(flow, np.float64) - target)
    return np.asarray(np.square((MOST - off) / 100) - 3)


class PipelineVector(Lockstep):
    """`num_envs` pipes in lockstep; `offrl/Pipeline-v0` for `gymnasium.make_vec`.

    Observations (num_envs, 52), float32, are the flow at the end, the target, the flows of the 25
    steps before and the last 25 actions, the latest first. Actions (num_envs, 1) change the gate's
    flow and are clipped to [-1, 1]. Nothing terminates.
    """

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = STEPS) -> None:
        space = Box(-np.inf, np.inf, (2 + 2 * PAST,), np.float32)
        super().__init__(num_envs, space, Box(-1.0, 1.0, (1,), np.float32), max_episode_steps)
        self._line = np.zeros((num_envs, SLOTS), np.float32)  # from the gate to the end
        self._target = np.zeros(num_envs, np.float32)
        self._flows = np.zeros((num_envs, PAST + 1), np.float32)  # at the end, the latest first
        self._actions = np.zeros((num_envs, PAST), np.float32)

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Fills a pipe evenly, with a target."""
        self._line[row] = self._flows[row] = rng.uniform(80, 120)
        self._actions[row] = 0
        rng.random()  # upstream asks whether the target changes, also where there is none yet
        self._target[row] = rng.choice(TARGETS)

    def observe(self) -> Array:
        """Flow, target, earlier flows and actions."""
        flow, target = self._flows[:, :1], self._target[:, None]
        return np.concatenate([flow, target, self._flows[:, 1:], self._actions], 1)

    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """One step: a target may change, the gate moves, and all water flows on by a slot."""
        change = actions.clip(-1.0, 1.0).astype(np.float32)
        for row, rng in enumerate(self._rngs):
            if rng.random() < CHANGE:
                self._target[row] = rng.choice(TARGETS)
        gate = (self._line[:, :1] + change).clip(0, MOST)
        self._line = np.concatenate([gate, self._line[:, :-1]], 1)
        self._flows = np.concatenate([self._line[:, -1:], self._flows[:, :-1]], 1)
        self._actions = np.concatenate([change, self._actions[:, :-1]], 1)
        rewards = pipeline_reward(self._flows[:, 0], self._target)
        return self.observe(), rewards, np.zeros(self.num_envs, np.bool_)


class Pipeline(Row):
    """The pipe."""

    rows = PipelineVector


if "offrl/Pipeline-v0" not in gymnasium.registry:  # a reload
    gymnasium.register(
        "offrl/Pipeline-v0",
        entry_point=f"{__name__}:Pipeline",
        vector_entry_point=f"{__name__}:PipelineVector",
        max_episode_steps=STEPS,
    )
