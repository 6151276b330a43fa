"""NeoRL-2's RandomFrictionHopper (Gao et al. 2025, arXiv 2503.19267), written from its equations.

Importing this module registers `offrl/RandomFrictionHopper-v0` with Gymnasium: Gymnasium's hopper,
whose foot slips otherwise in every episode. Episode i of a NeoRL-2 file is `reset(seed=i)` and the
file's actions.

Reference: polixir/NeoRL2 at b50d91d0a65916a89342a4f6978188b17cb2d97a. Known differences:
1. Upstream draws the friction from Python's global generator, which its forked workers share; here
   it comes from one with the episode's seed, so that episodes are independent.
2. Upstream writes the friction into the model's file, here the compiled model gets it.
3. Contact margins are those of before MuJoCo 3.5, which made the data.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.evaluation.lockstep import Lockstep
from offrl.evaluation.margins import restore_margins

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Info = dict[str, Any]

FRICTIONS = (1.5, 2.5)  # of the foot, uniform
CONTROL_COST = 1e-3  # of the raw action; MuJoCo clamps the controls
FASTEST = 10.0  # velocities are observed up to this
SPREAD = 5e-3  # of the first state, uniform


def draw_start(frictions: Random, states: np.random.Generator) -> tuple[float, Array, Array]:
    """A friction, and what is added to the first positions (6,) and velocities (6,)."""
    friction = frictions.uniform(*FRICTIONS)
    return friction, states.uniform(-SPREAD, SPREAD, 6), states.uniform(-SPREAD, SPREAD, 6)


def observed(qpos: Array, qvel: Array, friction: Array | float) -> Array:
    """Observations (..., 13): positions with the way travelled, velocities, the foot's friction."""
    friction = np.broadcast_to(np.asarray(friction)[..., None], (*qpos.shape[:-1], 1))
    return np.concatenate([qpos, qvel.clip(-FASTEST, FASTEST), friction], -1)


def fallen(observations: Array) -> Bools:
    """Which of the observations (..., 13) end an episode: low, slanted or broken hoppers."""
    upright = (observations[..., 1] > 0.7) & (np.abs(observations[..., 2]) < 0.2)
    return np.asarray(~(upright & (np.abs(observations[..., 3:]) < 100).all(-1)))


def hopper_reward(speed: Array | float, action: Array) -> Array:
    """Reward of forward speeds (...) reached by actions (..., 3); none for being upright."""
    return np.asarray(speed - CONTROL_COST * np.square(action, dtype=np.float64).sum(-1))


def set_friction(model: mujoco.MjModel, friction: float) -> None:
    """Gives the foot a friction, of two decimals."""
    model.geom_friction[model.geom("foot_geom").id, 0] = round(friction, 2)


class RandomFrictionHopper(MujocoEnv):
    """Hop; observations are float64 (13,). Terminates where it falls."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": 125,
    }

    def __init__(self, **kwargs: Any) -> None:
        space = Box(-np.inf, np.inf, (13,), np.float64)
        super().__init__("hopper.xml", frame_skip=4, observation_space=space, **kwargs)
        restore_margins(self.model)
        self._frictions = Random()
        self._friction = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, Info]:
        """The first observation."""
        if seed is not None:
            self._frictions.seed(seed)
        started: tuple[Array, Info] = super().reset(seed=seed, options=options)
        return started

    def reset_model(self) -> Array:
        """The first observation, of a new friction."""
        self._friction, qpos, qvel = draw_start(self._frictions, self.np_random)
        set_friction(self.model, self._friction)
        self.set_state(self.init_qpos + qpos, self.init_qvel + qvel)  # type: ignore[no-untyped-call]
        return observed(self.data.qpos, self.data.qvel, self._friction)

    def step(self, action: Array) -> tuple[Array, np.float64, bool, bool, Info]:
        """The next observation, its reward, and whether the hopper fell."""
        before = self.data.qpos[0]
        self.do_simulation(action, self.frame_skip)
        speed = (self.data.qpos[0] - before) / self.dt
        observation = observed(self.data.qpos, self.data.qvel, self._friction)
        reward = np.float64(hopper_reward(speed, action))
        if self.render_mode == "human":
            self.render()  # type: ignore[no-untyped-call]
        return observation, reward, bool(fallen(observation)), False, {"x_velocity": speed}


@dataclass(frozen=True)
class _Draws:
    """A row's generators."""

    frictions: Random
    states: np.random.Generator


class RandomFrictionHopperVector(Lockstep):
    """Many episodes of the hopper, for `gymnasium.make_vec`; a row equals one alone bit for bit."""

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = None) -> None:
        self._alone = alone = RandomFrictionHopper()
        space = alone.observation_space
        super().__init__(num_envs, space, alone.action_space, max_episode_steps)  # type: ignore[arg-type]
        self._rows = [mujoco.MjData(alone.model) for _ in range(num_envs)]
        self._frictions = np.zeros(num_envs)
        self._qpos = np.zeros((num_envs, alone.model.nq))
        self._qvel = np.zeros((num_envs, alone.model.nv))

    def generator(self, seed: int | None) -> _Draws:
        """Those of the hopper alone."""
        return _Draws(Random(seed), super().generator(seed))

    def begin(self, row: int, rng: _Draws) -> None:
        """Starts a row as the hopper alone starts."""
        alone, data = self._alone, self._rows[row]
        self._frictions[row], qpos, qvel = draw_start(rng.frictions, rng.states)
        set_friction(alone.model, self._frictions[row])
        mujoco.mj_resetData(alone.model, data)
        data.qpos[:], data.qvel[:] = alone.init_qpos + qpos, alone.init_qvel + qvel
        mujoco.mj_forward(alone.model, data)
        self._read(row)

    def observe(self) -> Array:
        """Positions, velocities and frictions."""
        return observed(self._qpos, self._qvel, self._frictions)

    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """One step of every row."""
        alone = self._alone
        before = self._qpos[:, 0].copy()
        for row, data in enumerate(self._rows):
            set_friction(alone.model, self._frictions[row])
            data.ctrl[:] = actions[row]
            mujoco.mj_step(alone.model, data, alone.frame_skip)
            self._read(row)
        observations = self.observe()
        rewards = hopper_reward((self._qpos[:, 0] - before) / alone.dt, actions)
        return observations, rewards, fallen(observations)

    def _read(self, row: int) -> None:
        self._qpos[row], self._qvel[row] = self._rows[row].qpos, self._rows[row].qvel


if "offrl/RandomFrictionHopper-v0" not in gymnasium.registry:  # a reload
    gymnasium.register(
        "offrl/RandomFrictionHopper-v0",
        entry_point=f"{__name__}:RandomFrictionHopper",
        vector_entry_point=f"{__name__}:RandomFrictionHopperVector",
        max_episode_steps=1000,
    )
