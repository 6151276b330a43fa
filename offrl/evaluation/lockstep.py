"""Simulators of many episodes at once: what Gymnasium's vector interface asks of all of them.

Rows are reset by the caller, as in `SyncVectorEnv(autoreset_mode=DISABLED)`:
`reset(seed=[...], options={"reset_mask": rows})`.
"""

from abc import abstractmethod
from typing import Any, ClassVar, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Info = dict[str, Any]


class Lockstep(VectorEnv[Array, Array, Array]):
    """`num_envs` episodes, one a row, whose dynamics a derived class computes for all rows at once.

    Args:
        num_envs: N, the number of rows.
        observation_space: of one row.
        action_space: of one row.
        max_episode_steps: after which an episode is truncated; None: never.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        observation_space: Box,
        action_space: Box,
        max_episode_steps: int | None,
    ) -> None:
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.steps = np.zeros(num_envs, np.int64)  # taken in each row's episode
        self._rngs: list[Any] = [None] * num_envs
        self._over = np.ones(num_envs, np.bool_)  # rows that wait for a reset

    @abstractmethod
    def begin(self, row: int, rng: Any) -> None:
        """Puts a row into the first state of an episode, drawn from the row's generator."""

    @abstractmethod
    def observe(self) -> Array:
        """The observations (N, ...) of all rows."""

    @abstractmethod
    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """Observations (N, ...), rewards (N,) and terminations (N,) after a step of all rows.

        `actions` (N, ...) are float64 and not clipped; `self.steps` counts this step already.
        """

    def generator(self, seed: int | None) -> Any:
        """A row's generator: by default Gymnasium's, so that a row may draw what `Env` would."""
        return seeding.np_random(seed)[0]

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, Info]:
        """Observations after new episodes start in all rows, or in those of `reset_mask`.

        Args:
            seed: of each row, of which those outside the mask are ignored; an integer s stands for
                s, s + 1, ...; None carries on with the row's generator.
            options: `reset_mask` is a boolean array of shape (N,) with a True in it.
        """
        if isinstance(seed, int):
            seed = [seed + row for row in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, one per row, found {len(seeds)}")
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask: expected a boolean numpy array, found {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask: expected shape ({self.num_envs},) and a True, found {mask!r}"
            )
        for row in map(int, np.flatnonzero(mask)):
            if self._rngs[row] is None or seeds[row] is not None:
                self._rngs[row] = self.generator(seeds[row])
            self.begin(row, self._rngs[row])
        self.steps[mask] = 0
        self._over[mask] = False
        return self.observe(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Bools, Bools, Info]:
        """Advances every row; raises ResetNeeded if the episode of one is over."""
        if self._over.any():
            rows = np.flatnonzero(self._over)[:5].tolist()
            raise ResetNeeded(f"rows {rows} have no running episode; reset them before step()")
        actions = np.asarray(actions, np.float64)
        shape = (self.num_envs, *(self.single_action_space.shape or ()))
        if actions.shape != shape:
            raise ValueError(f"actions: expected shape {shape}, found {actions.shape}")
        self.steps += 1
        observations, rewards, terminations = self.advance(actions)
        truncations = np.zeros(self.num_envs, np.bool_)
        if self.max_episode_steps is not None:
            truncations = self.steps >= self.max_episode_steps
        self._over = terminations | truncations
        return observations, rewards, terminations, truncations, {}


class Row(gymnasium.Env[Array, Array]):
    """One episode of a lockstep simulator, for `gymnasium.make`, whose wrapper limits its time."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012
    rows: ClassVar[type[Lockstep]]

    def __init__(self, **kwargs: Any) -> None:
        self._row: Lockstep = self.rows(1, max_episode_steps=None, **kwargs)
        self.observation_space = self._row.single_observation_space
        self.action_space = self._row.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, Info]:
        """The first observation."""
        super().reset(seed=seed, options=options)
        observations, _ = self._row.reset(seed=[seed])
        return observations[0], {}

    def step(self, action: Array) -> tuple[Array, SupportsFloat, bool, bool, Info]:
        """The next observation, its reward, and whether the episode terminated there."""
        observations, rewards, terminations, _, _ = self._row.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), bool(terminations[0]), False, {}
