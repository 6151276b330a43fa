"""D4RL's half-cheetah, hopper and walker: Gymnasium's v4 tasks with the bodies of MuJoCo 2.1.0.

Fu et al. 2020 (D4RL, arXiv 2004.07219). Importing this module registers
`offrl/HalfCheetah-D4RL-v2`, `offrl/Hopper-D4RL-v2` and `offrl/Walker2d-D4RL-v2` with Gymnasium.

Reference: d4rl/gym_mujoco of Farama-Foundation/D4RL at 89141a6, which is gym's v2 tasks in a
wrapper that clips actions. Gymnasium's v4 are the same models, observations, starts, rewards and
ends. But MuJoCo 2.1.2 changed how heavy a capsule is and how it turns
(`offrl.evaluation.capsules`), and these bodies are made of capsules: published scores come from
MuJoCo 2.1.0 and before, so a policy plays with another body in v4. The classes here
1. give the compiled model the masses and inertias of before, half-cheetah scaled to 14 as its file
   says (`settotalmass`);
2. clip actions to [-1, 1] before the reward charges for them, as D4RL does.

Known differences: none in a step from any of 1,800 states recorded with MuJoCo 2.1.0
(`docs/simulators.md`). D4RL's random numbers were others.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv
from numpy.typing import NDArray

from offrl.evaluation.capsules import restore_bodies

Array = NDArray[Any]
Step = tuple[Array, Any, bool, bool, dict[str, Any]]


class _D4RL(MujocoEnv):
    """What D4RL's robots have in common, put before a class of Gymnasium's."""

    keep_total = False  # whether the model's file gives the robot's total mass

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        restore_bodies(self.model, self.data, keep_total=self.keep_total)

    def step(self, action: Array) -> Step:
        """The next observation and the reward of the clipped action."""
        return super().step(np.clip(action, -1.0, 1.0))


class HalfCheetah(_D4RL, HalfCheetahEnv):
    """Run. Nothing terminates."""

    keep_total = True


class Hopper(_D4RL, HopperEnv):
    """Hop. Terminates where it falls."""


class Walker2d(_D4RL, Walker2dEnv):
    """Walk. Terminates where it falls."""


for _robot in (HalfCheetah, Hopper, Walker2d):
    if (_id := f"offrl/{_robot.__name__}-D4RL-v2") not in gymnasium.registry:  # a reload
        gymnasium.register(_id, entry_point=f"{__name__}:{_robot.__name__}", max_episode_steps=1000)
