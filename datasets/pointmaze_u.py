"""Gymnasium-Robotics' PointMaze, one episode or many at a time, for `pointmaze-quickstart`.

Known differences: MuJoCo's solver starts each step afresh, not from the forces of the step before,
so that a row of many episodes equals an episode alone, bit for bit; and velocities are clipped
without computing the forces that follow from them, which the next step does.
"""

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector.utils import batch_space
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv
from mujoco.rollout import rollout
from numpy.typing import NDArray

from offrl.evaluation.lockstep import Lockstep

Array = NDArray[Any]
Observation = dict[str, Array]
SPEED = 5.0  # metres per second, of each axis


class PointMaze(PointMazeEnv):  # type: ignore[misc]
    """Push a point mass to a goal in the U-shaped maze, in steps of 0.01 s."""

    def step(self, action: Array) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """The next observation, and whether it is at the goal."""
        model, data = self.point_env.model, self.point_env.data
        data.qvel[:] = data.qvel.clip(-SPEED, SPEED)
        data.qacc_warmstart[:] = 0
        data.ctrl[:] = np.asarray(action, np.float64).clip(-1, 1)
        mujoco.mj_step(model, data)
        observation = self._get_obs(np.concatenate([data.qpos, data.qvel]))
        place = observation["achieved_goal"]
        reward = self.compute_reward(place, self.goal, {})
        terminated = self.compute_terminated(place, self.goal, {})
        self.update_goal(place)
        return observation, reward, terminated, False, {}

    def set_observation(self, observation: Array) -> None:
        """Puts the mass and its goal where an observation (6,) has them: place, velocity, goal."""
        self.point_env.set_state(observation[:2], observation[2:4])
        self.goal = observation[4:].copy()


class PointMazeVector(Lockstep):
    """`num_envs` point masses, stepped in one call of MuJoCo's; for `gymnasium.make_vec`.

    Goals stay where they are, as in a task whose `reset_target` is false.
    """

    def __init__(
        self, num_envs: int = 1, max_episode_steps: int | None = None, **kwargs: Any
    ) -> None:
        self._alone = alone = PointMaze(**kwargs)
        if alone.reset_target:
            raise ValueError("reset_target is true; expected false, or one episode at a time")
        space: Any = alone.observation_space
        super().__init__(num_envs, space, alone.action_space, max_episode_steps)
        self.observation_space = batch_space(space, num_envs)
        self._states = np.zeros((num_envs, 5))  # time, qpos, qvel: MuJoCo's full physics state
        self._goals = np.zeros((num_envs, 2))

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Starts a row as the task alone starts."""
        alone = self._alone
        alone.np_random = rng
        alone.goal = alone.add_xy_position_noise(alone.generate_target_goal())
        start = alone.add_xy_position_noise(alone.generate_reset_pos())
        self._goals[row] = alone.goal
        self._states[row] = [0, *start, *alone.point_env.init_qvel]

    def observe(self) -> Any:
        """Places, velocities and goals."""
        numbers = self._states[:, 1:].copy()
        return {
            "observation": numbers,
            "achieved_goal": numbers[:, :2],
            "desired_goal": self._goals.copy(),
        }

    def advance(self, actions: Array) -> tuple[Any, Array, Array]:
        """One step of every row."""
        alone = self._alone
        self._states[:, 3:] = self._states[:, 3:].clip(-SPEED, SPEED)
        forces = actions.clip(-1, 1)[:, None]  # of one step
        model, data = alone.point_env.model, alone.point_env.data
        states, _ = rollout(model, data, self._states, forces)
        self._states = states[:, 0].copy()
        observation = self.observe()
        place, goal = observation["achieved_goal"], observation["desired_goal"]
        rewards = np.asarray(alone.compute_reward(place, goal, {}), np.float64)
        ended = np.zeros(self.num_envs, np.bool_)
        if not alone.continuing_task:
            ended = np.linalg.norm(place - goal, axis=-1) <= 0.45
        return observation, rewards, ended

    def close_extras(self, **_: Any) -> None:
        """Closes the task."""
        self._alone.close()


if "offrl/PointMaze-UMaze-v3" not in gymnasium.registry:  # a reload
    gymnasium.register(
        "offrl/PointMaze-UMaze-v3",
        entry_point=f"{__name__}:PointMaze",
        vector_entry_point=f"{__name__}:PointMazeVector",
        max_episode_steps=300,
    )
