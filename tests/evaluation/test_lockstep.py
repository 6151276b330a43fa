"""What all simulators of many episodes share; tests/datasets holds those of DMSD and maze2d."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.evaluation.lockstep import Lockstep

Array = NDArray[Any]


class Counter(Lockstep):
    """Adds each action to a random start; an episode terminates beyond 10."""

    def __init__(self, num_envs: int, max_episode_steps: int | None) -> None:
        space = Box(-np.inf, np.inf, (1,), np.float64)
        super().__init__(num_envs, space, Box(-1.0, 1.0, (1,), np.float32), max_episode_steps)
        self.values = np.zeros((num_envs, 1))

    def begin(self, row: int, rng: np.random.Generator) -> None:
        self.values[row] = rng.uniform(0, 5)

    def observe(self) -> Array:
        return self.values.copy()

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        self.values += actions
        return self.observe(), actions[:, 0], self.values[:, 0] > 10


def test_rows_terminate_truncate_and_are_reset_by_themselves() -> None:
    env = Counter(3, max_episode_steps=4)
    env.reset(seed=[1, 2, 3])
    env.values[:, 0] = [0, 9.5, 0]
    _, rewards, terminations, truncations, _ = env.step(np.ones((3, 1), np.float32))
    assert rewards.tolist() == [1, 1, 1]
    assert terminations.tolist() == [False, True, False]
    assert not truncations.any()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"rows \[1\]"):
        env.step(np.ones((3, 1)))
    env.reset(seed=[None, 7, None], options={"reset_mask": np.array([False, True, False])})
    for _ in range(3):
        _, _, terminations, truncations, _ = env.step(np.zeros((3, 1)))
    assert env.steps.tolist() == [4, 3, 4]
    assert truncations.tolist() == [True, False, True]
    assert not terminations.any()


def test_a_row_draws_what_a_single_environment_would() -> None:
    env = Counter(2, None)
    observations, _ = env.reset(seed=5)
    for row, seed in enumerate((5, 6)):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        assert observations[row] == rng.uniform(0, 5)
    again, _ = env.reset()  # goes on with the same generators
    assert (again != observations).all()
    env.reset(seed=5)
    np.testing.assert_array_equal(env.reset()[0], again)


def test_actions_of_another_shape_are_refused() -> None:
    env = Counter(2, None)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected shape \(2, 1\), found \(2,\)"):
        env.step(np.zeros(2))
