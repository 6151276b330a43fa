"""D4RL's locomotion: Gymnasium's v4 tasks with the bodies of MuJoCo 2.1.0.

Fu et al. 2020 (D4RL, arXiv 2004.07219). Importing this module registers
`offrl/HalfCheetah-D4RL-v2`, `offrl/Hopper-D4RL-v2`, `offrl/Walker2d-D4RL-v2` and
`offrl/Ant-D4RL-v2` with Gymnasium.

Reference: d4rl/gym_mujoco of Farama-Foundation/D4RL at 89141a6, which is gym's v2 tasks in a
wrapper that clips actions. Gymnasium's v4 are the same models, observations, starts, rewards and
ends. But MuJoCo 2.1.2 changed how heavy a capsule is and how it turns
(`offrl.evaluation.capsules`), and these bodies are made of capsules: published scores come from
MuJoCo 2.1.0 and before, so a policy plays with another body in v4. The classes here
1. give the compiled model the masses and inertias of before, half-cheetah scaled to 14 as its file
   says (`settotalmass`);
2. give contacts of hopper and ant the margins of before MuJoCo 3.5 (`offrl.evaluation.margins`);
3. clip actions to [-1, 1] before the reward charges for them, as D4RL does;
4. normalise an ant's quaternion at a reset, as MuJoCo did, and show it contact forces of 0, which
   gym says of mujoco-py after 2.0 and which they were in each recorded step of 2.1.0.

Known differences: none in a step from any of 1,840 states recorded with MuJoCo 2.1.0
(`docs/simulators.md`). D4RL's random numbers were others.
"""

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.evaluation.capsules import restore_bodies
from offrl.evaluation.lockstep import Lockstep
from offrl.evaluation.margins import restore_margins

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Step = tuple[Array, Any, bool, bool, dict[str, Any]]

FORCES = 6 * 14  # numbers of contact forces that an ant observes


class _D4RL(MujocoEnv):
    """What D4RL's robots have in common, put before a class of Gymnasium's."""

    keep_total = False  # whether the model's file gives the robot's total mass

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        restore_margins(self.model)
        restore_bodies(self.model, self.data, keep_total=self.keep_total)

    def step(self, action: Array) -> Step:
        """The next observation and the reward of the clipped action."""
        return super().step(np.asarray(action, np.float64).clip(-1.0, 1.0))


class HalfCheetah(_D4RL, HalfCheetahEnv):
    """Run. Nothing terminates."""

    keep_total = True


class Hopper(_D4RL, HopperEnv):
    """Hop. Terminates where it falls."""


class Walker2d(_D4RL, Walker2dEnv):
    """Walk. Terminates where it falls."""


class Ant(_D4RL, AntEnv):
    """Walk. Terminates where the torso is low or high.

    Observations (111,) are positions but for x and y (13), velocities (14) and contact forces of
    14 bodies (84), which are 0. As in gym's v2 a reward counts from where MuJoCo last computed the
    torso, which lags behind the state by a part of a substep.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = Box(-np.inf, np.inf, (13 + 14 + FORCES,), np.float64)

    def set_state(self, qpos: Array, qvel: Array) -> None:
        """Puts the ant into a state, its quaternion normalised."""
        qpos = np.array(qpos)
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
        super().set_state(qpos, qvel)  # type: ignore[no-untyped-call]

    def set_observation(self, observation: Array) -> None:
        """Puts the ant, at x and y of 0, into the state of an observation (111,)."""
        self.set_state(np.concatenate([np.zeros(2), observation[:13]]), observation[13:27])

    def _get_obs(self) -> Array:
        state = super()._get_obs()  # type: ignore[no-untyped-call]
        return np.concatenate([state, np.zeros(FORCES)])


class RobotVector(Lockstep):
    """Many episodes of a robot; for `gymnasium.make_vec`.

    A row equals the robot alone, bit for bit. MuJoCo steps one row after another; the rest is
    computed for all rows at once. A step of half-cheetah, hopper or walker takes 0.6 to 0.7 of the
    time of single ones; the ant's was not measured.
    """

    single: type[_D4RL]
    cost: float  # of a squared action
    alive = 0.0  # reward of a step
    fastest = np.inf  # velocities are observed up to this

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = None) -> None:
        self._alone = alone = self.single()
        space = alone.observation_space
        super().__init__(num_envs, space, alone.action_space, max_episode_steps)  # type: ignore[arg-type]
        self._rows = [mujoco.MjData(alone.model) for _ in range(num_envs)]
        self._qpos = np.zeros((num_envs, alone.model.nq))
        self._qvel = np.zeros((num_envs, alone.model.nv))

    def fallen(self, qpos: Array, qvel: Array) -> Bools:  # noqa: ARG002
        """Which of the states (N, ...) end an episode."""
        return np.zeros(len(qpos), np.bool_)

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Starts a row as the robot alone starts."""
        alone = self._alone
        alone.np_random = rng
        alone.data = self._rows[row]
        mujoco.mj_resetData(alone.model, alone.data)
        alone.reset_model()
        self._read(row)

    def places(self) -> Array:
        """How far each row (N,) has travelled, in metres."""
        return self._qpos[:, 0].copy()

    def observe(self) -> Array:
        """Positions but for the way travelled, and velocities."""
        velocities = self._qvel.clip(-self.fastest, self.fastest)
        return np.concatenate([self._qpos[:, 1:], velocities], 1)

    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """One step of every row."""
        alone = self._alone
        actions = actions.clip(-1.0, 1.0)
        before = self.places()
        for row, data in enumerate(self._rows):
            data.ctrl[:] = actions[row]
            mujoco.mj_step(alone.model, data, alone.frame_skip)
            self._read(row)
        speeds = (self.places() - before) / alone.dt
        rewards = speeds + self.alive - self.cost * np.square(actions).sum(1)
        return self.observe(), rewards, self.fallen(self._qpos, self._qvel)

    def _read(self, row: int) -> None:
        self._qpos[row], self._qvel[row] = self._rows[row].qpos, self._rows[row].qvel


class HalfCheetahVector(RobotVector):
    """Half-cheetahs."""

    single = HalfCheetah
    cost = 0.1


class HopperVector(RobotVector):
    """Hoppers."""

    single = Hopper
    cost = 1e-3
    alive = 1.0
    fastest = 10.0

    def fallen(self, qpos: Array, qvel: Array) -> Bools:
        """Those that are low, slanted or broken."""
        numbers = np.abs(np.concatenate([qpos[:, 2:], qvel], 1))
        upright = (qpos[:, 1] > 0.7) & (np.abs(qpos[:, 2]) < 0.2)
        return np.asarray(~(upright & (numbers < 100).all(1)))


class Walker2dVector(RobotVector):
    """Walkers."""

    single = Walker2d
    cost = 1e-3
    alive = 1.0
    fastest = 10.0

    def fallen(self, qpos: Array, qvel: Array) -> Bools:  # noqa: ARG002
        """Those that are low, high or slanted."""
        height, angle = qpos[:, 1], qpos[:, 2]
        return np.asarray(~((height > 0.8) & (height < 2.0) & (np.abs(angle) < 1.0)))


class AntVector(RobotVector):
    """Ants."""

    single = Ant
    cost = 0.5
    alive = 1.0

    def places(self) -> Array:
        """Where the torsos are, as MuJoCo last computed it: before a step's last change."""
        return np.array([data.xpos[1, 0] for data in self._rows])

    def observe(self) -> Array:
        """Positions but for x and y, velocities, and contact forces of 0."""
        forces = np.zeros((self.num_envs, FORCES))
        return np.concatenate([self._qpos[:, 2:], self._qvel, forces], 1)

    def fallen(self, qpos: Array, qvel: Array) -> Bools:
        """Those that are low or high, or have a number that is none."""
        finite = np.isfinite(np.concatenate([qpos, qvel], 1)).all(1)
        return np.asarray(~(finite & (qpos[:, 2] >= 0.2) & (qpos[:, 2] <= 1.0)))


for _robot in (HalfCheetah, Hopper, Walker2d, Ant):
    if (_id := f"offrl/{_robot.__name__}-D4RL-v2") not in gymnasium.registry:  # a reload
        gymnasium.register(
            _id,
            entry_point=f"{__name__}:{_robot.__name__}",
            vector_entry_point=f"{__name__}:{_robot.__name__}Vector",
            max_episode_steps=1000,
        )
