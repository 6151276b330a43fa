"""Two simulators of NeoRL-2 (Gao et al. 2025, arXiv 2503.19267), written from their equations.

Importing this module registers `offrl/DMSD-v0` and `offrl/SafetyHalfCheetah-v0` with Gymnasium.
Both replay the published trajectories from their seeds (`tests/datasets/test_simulators.py`):
episode i of a NeoRL-2 file is `reset(seed=i)` and the file's actions; of SafetyHalfCheetah only
some i were kept.

Reference: polixir/NeoRL2 at b50d91d0a65916a89342a4f6978188b17cb2d97a. Known differences:
1. DMSD is written for many rows at once; the single environment is one row of it.
2. The files hold rounded actions, and MuJoCo's versions differ in rounding: open loop, DMSD stays
   within 2.4e-7 of the file over a whole episode, while SafetyHalfCheetah, which is chaotic, leaves
   it after some 50 to 100 steps. Single steps agree (one published row of 18,000 errs by 1.25e-3).
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.evaluation.lockstep import Lockstep, Row

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Info = dict[str, Any]

# --- DMSD: two masses between two walls, joined by springs and dampers ---

DMSD_STEPS = 100
DT = 0.2  # seconds per step, explicit Euler
MASS = 20.0  # of each body; upstream's "train" mode, which made the data and the scores
STIFFNESS = 2.0  # of each of the three springs
DAMPING = 4.0  # of each of the three dampers
FORCE = 30.0  # at action 1
NEAR = 0.01  # floor of the distance in the reward


def dmsd_reward(next_observations: Array) -> Array:
    """Reward of arriving at each observation of shape (..., 6): -sum_i ln(|p_i - target_i| + 0.01).

    At most 2 ln 100 = 9.21. The target is the one of the observation arrived at, so the step that
    crosses a switch is paid against a target that the agent had not seen.
    """
    distance = np.abs(next_observations[..., 0:2] - next_observations[..., 4:6])
    return np.asarray(-np.log(distance + NEAR).sum(-1))


def dmsd_start(rng: np.random.RandomState) -> tuple[Array, Array, Array]:
    """One episode's targets (100, 2), positions (2,) and velocities (2,), in upstream's draw order.

    Each mass has one target throughout, or one until step 49 and another from step 50 on.
    """
    rng.uniform(size=8)  # upstream draws its (constant) task parameters here
    targets = np.empty((DMSD_STEPS, 2))
    for mass in range(2):
        segments = rng.randint(1, 3)
        levels = [rng.uniform(-1.5, 1.5) for _ in range(segments)]
        targets[:, mass] = np.repeat(levels, DMSD_STEPS // segments)
    return targets, rng.uniform(-0.25, 0.25, 2), rng.uniform(-0.1, 0.1, 2)


class DMSDVector(Lockstep):
    """`num_envs` double mass-spring-dampers in lockstep; `offrl/DMSD-v0` for `gymnasium.make_vec`.

    Observations (num_envs, 6) are p1, p2, v1, v2 and the two targets, float32; actions (num_envs,
    2) are forces, clipped to [-1, 1]. Nothing terminates; an episode is truncated after
    `max_episode_steps` steps (None: never). The row with seed s equals the single environment after
    `reset(seed=s)`.
    """

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = DMSD_STEPS) -> None:
        space = Box(-np.inf, np.inf, (6,), np.float32)
        super().__init__(num_envs, space, Box(-1.0, 1.0, (2,), np.float32), max_episode_steps)
        self._targets = np.zeros((num_envs, DMSD_STEPS, 2))
        self._positions = np.zeros((num_envs, 2))
        self._velocities = np.zeros((num_envs, 2))

    def generator(self, seed: int | None) -> np.random.RandomState:
        """Upstream's generator."""
        return np.random.RandomState(seed)

    def begin(self, row: int, rng: np.random.RandomState) -> None:
        """Starts a row as upstream does."""
        self._targets[row], self._positions[row], self._velocities[row] = dmsd_start(rng)

    def observe(self) -> Array:
        """Positions, velocities and targets, float32."""
        index = np.minimum(self.steps, DMSD_STEPS - 1)
        targets = self._targets[np.arange(self.num_envs), index]
        return np.concatenate([self._positions, self._velocities, targets], 1, dtype=np.float32)

    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """One Euler step of the equations."""
        p, v = self._positions, self._velocities
        other = slice(None, None, -1)  # each mass's neighbour
        force = FORCE * actions.clip(-1.0, 1.0)
        force += STIFFNESS * (p[:, other] - 2 * p) + DAMPING * (v[:, other] - 2 * v)
        self._positions = p + DT * v
        self._velocities = v + DT / MASS * force
        observations = self.observe()
        # From the float32 observations, as in the published data.
        rewards = dmsd_reward(observations).astype(np.float64)
        return observations, rewards, np.zeros(self.num_envs, np.bool_)


class DMSD(Row):
    """The double mass-spring-damper."""

    rows = DMSDVector

    def rewards_between(
        self,
        observations: Array,  # noqa: ARG002
        actions: Array,  # noqa: ARG002
        next_observations: Array,
    ) -> tuple[Array, Array]:
        """The rewards of steps, which next observations show (`offrl.evaluation.observed.Pays`)."""
        rewards = dmsd_reward(next_observations).astype(np.float64)
        # Near a target the logarithm multiplies what float32 rounds by up to 1 / NEAR.
        return rewards - 1e-4, rewards + 1e-4


# --- SafetyHalfCheetah: run, but not faster than a limit ---

SPEED_LIMIT = 3.2096
CONTROL_COST = 0.1
VIOLATION = -100.0  # the reward of a step above the limit, in place of everything else


def cheetah_reward(speed: Array | float, action: Array) -> Array:
    """Reward of forward speeds (...) reached by actions (..., 6): -100 above the speed limit.

    The cost is of the raw action; MuJoCo clamps the controls, so |a| > 1 costs and does nothing.
    """
    cost = CONTROL_COST * np.square(action, dtype=np.float64).sum(-1)
    return np.where(np.asarray(speed) > SPEED_LIMIT, VIOLATION, speed - cost)


class SafetyHalfCheetah(MujocoEnv):
    """Gymnasium's half-cheetah with its full state as observation and a penalty on speed.

    Observations are qpos (9, x first) and qvel (9), float64, not clipped. Nothing terminates.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": 20,
    }

    def __init__(self, **kwargs: Any) -> None:
        space = Box(-np.inf, np.inf, (18,), np.float64)
        super().__init__("half_cheetah.xml", frame_skip=5, observation_space=space, **kwargs)

    def step(self, action: Array) -> tuple[Array, np.float64, bool, bool, Info]:
        """The next observation and its reward; neither terminates nor truncates."""
        before = self.data.qpos[0]
        self.do_simulation(action, self.frame_skip)
        speed = (self.data.qpos[0] - before) / self.dt
        reward = np.float64(cheetah_reward(speed, action))
        if self.render_mode == "human":
            self.render()  # type: ignore[no-untyped-call]
        return self.state_vector(), reward, False, False, {"x_velocity": speed}

    def reset_model(self) -> Array:
        """The first observation; joint positions are drawn before velocities."""
        qpos = self.init_qpos + self.np_random.uniform(-0.1, 0.1, self.model.nq)
        qvel = self.init_qvel + 0.1 * self.np_random.standard_normal(self.model.nv)
        self.set_state(qpos, qvel)  # type: ignore[no-untyped-call]
        return self.state_vector()


def _register(name: str, single: type, steps: int, vector: type | None = None) -> None:
    if name not in gymnasium.registry:  # a second import (reload) must not warn
        gymnasium.register(
            name,
            entry_point=f"{__name__}:{single.__name__}",
            vector_entry_point=f"{__name__}:{vector.__name__}" if vector else None,
            max_episode_steps=steps,
        )


_register("offrl/DMSD-v0", DMSD, DMSD_STEPS, DMSDVector)
_register("offrl/SafetyHalfCheetah-v0", SafetyHalfCheetah, 1000)
