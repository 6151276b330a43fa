"""Adroit's four hand tasks, scored as D4RL scores them, on Gymnasium-Robotics' models.

Rajeswaran et al. 2018 (DAPG, arXiv 1709.10087); Fu et al. 2020 (D4RL, arXiv 2004.07219). Importing
this module registers `offrl/AdroitHandDoor-v0`, and Hammer, Pen and Relocate, with Gymnasium.

Reference: d4rl/hand_manipulation_suite of Farama-Foundation/D4RL at 89141a6. The models, actions,
observations and starts of gymnasium-robotics 1.4.2 are D4RL's: the XML files differ in paths and in
one option that no longer exists. Its `AdroitHand*-v1` are not D4RL's tasks all the same, which the
classes here mend:
1. Since gymnasium-robotics 1.2.1 they pay 0.1 per metre between the palm and the door's handle,
   the hammer or the ball, where D4RL takes it away. Here every reward is computed anew from the
   state, so that a version of the library without the mistake gives the same.
2. D4RL ends an episode in which the pen has been dropped.
D4RL's limits are 200 steps, and 100 for the pen.

Known differences: D4RL ran on mujoco-py, and its random numbers were others.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium_robotics.envs.adroit_hand.adroit_door import AdroitHandDoorEnv
from gymnasium_robotics.envs.adroit_hand.adroit_hammer import AdroitHandHammerEnv
from gymnasium_robotics.envs.adroit_hand.adroit_pen import AdroitHandPenEnv
from gymnasium_robotics.envs.adroit_hand.adroit_relocate import AdroitHandRelocateEnv
from numpy.typing import NDArray

Array = NDArray[Any]
Step = tuple[Array, float, bool, bool, dict[str, Any]]

PEN_DROPPED = 0.075  # metres: the height below which the pen has been dropped


def _distance(a: Array, b: Array) -> Array:
    return np.asarray(np.linalg.norm(a - b, axis=-1))


def door_reward(palm: Array, handle: Array, hinge: Array | float, velocities: Array) -> Array:
    """Reward of states (...): positions (..., 3), the hinge's angle (...), velocities (..., 30).

    Reach the handle, open the door (1.57 is wide open), move gently; three steps of bonus.
    """
    hinge = np.asarray(hinge)
    cost = 0.1 * _distance(palm, handle) + 0.1 * np.square(hinge - 1.57)
    bonus = 2 * (hinge > 0.2) + 8 * (hinge > 1.0) + 10 * (hinge > 1.35)
    return np.asarray(bonus - cost - 1e-5 * np.square(velocities).sum(-1))


def hammer_reward(
    palm: Array, hammer: Array, head: Array, nail: Array, goal: Array, velocities: Array
) -> Array:
    """Reward of states (...): positions (..., 3) and velocities (..., 33).

    Reach the hammer, bring its head to the nail, the nail to its goal, move gently; bonuses for a
    lifted hammer and for a nail within 2 cm and 1 cm of its goal.
    """
    left = _distance(nail, goal)
    cost = 0.1 * _distance(palm, hammer) + _distance(head, nail) + 10 * left
    bonus = 2 * ((hammer[..., 2] > 0.04) & (head[..., 2] > 0.04))
    bonus = bonus + 25 * (left < 0.02) + 75 * (left < 0.01)
    return np.asarray(bonus - cost - 1e-2 * np.linalg.norm(velocities, axis=-1))


def pen_reward(pen: Array, goal: Array, direction: Array, goal_direction: Array) -> Array:
    """Reward of states (...): positions and unit vectors (..., 3).

    Hold the pen in place and turn it; bonuses for a small angle near the place, 5 off if dropped.
    """
    away, similar = _distance(pen, goal), (direction * goal_direction).sum(-1)
    near = away < 0.075
    bonus = 10 * (near & (similar > 0.9)) + 50 * (near & (similar > 0.95))
    return np.asarray(similar - away + bonus - 5 * (pen[..., 2] < PEN_DROPPED))


def relocate_reward(palm: Array, ball: Array, target: Array) -> Array:
    """Reward of states (...): positions (..., 3).

    Reach the ball; once it is off the table, bring palm and ball to the target; bonuses for a ball
    within 10 cm and 5 cm of it.
    """
    left = _distance(ball, target)
    lifted = 1.0 - 0.5 * _distance(palm, target) - 0.5 * left
    bonus = 10 * (left < 0.1) + 20 * (left < 0.05)
    return np.asarray(bonus - 0.1 * _distance(palm, ball) + (ball[..., 2] > 0.04) * lifted)


class Door(AdroitHandDoorEnv):  # type: ignore[misc]
    """Undo the latch and swing the door open. Nothing terminates."""

    def step(self, action: Array) -> Step:
        """The next observation and D4RL's reward."""
        observation, _, terminated, truncated, info = super().step(action)
        sites = self.data.site_xpos
        hinge = self.data.qpos[self.door_hinge_addrs]
        palm, handle = sites[self.grasp_site_id], sites[self.handle_site_id]
        reward = door_reward(palm, handle, hinge, self.data.qvel)
        return observation, float(reward), terminated, truncated, info

    def rewards_between(
        self,
        observations: Array,
        actions: Array,  # noqa: ARG002
        next_observations: Array,
    ) -> tuple[Array, Array]:
        """Bounds of the rewards of steps, by observations (`offrl.evaluation.observed.Pays`).

        They lack one joint, and velocities but for how far the others went in 0.01 s; what these
        cost is between nothing and three times that, or 0.01 where it is less.
        """
        after = next_observations.astype(np.float64)
        palm, handle, hinge = after[:, 29:32], after[:, 32:35], after[:, 28]
        still = door_reward(palm, handle, hinge, np.zeros((len(after), 30)))
        moved = np.square((after[:, :29] - observations[:, :29]) / 0.01).sum(1)
        return still - np.maximum(3e-5 * moved, 0.01), still


class Hammer(AdroitHandHammerEnv):  # type: ignore[misc]
    """Pick up a hammer and drive a nail into a board. Nothing terminates."""

    def step(self, action: Array) -> Step:
        """The next observation and D4RL's reward."""
        observation, _, terminated, truncated, info = super().step(action)
        sites = self.data.site_xpos
        reward = hammer_reward(
            palm=sites[self.S_grasp_site_id],
            hammer=self.data.xpos[self.obj_body_id],
            head=sites[self.tool_site_id],
            nail=sites[self.target_obj_site_id],
            goal=sites[self.goal_site_id],
            velocities=self.data.qvel,
        )
        return observation, float(reward), terminated, truncated, info


class Pen(AdroitHandPenEnv):  # type: ignore[misc]
    """Turn a pen in the hand to a given direction. Terminates where the pen is dropped."""

    def step(self, action: Array) -> Step:
        """The next observation and D4RL's reward and termination."""
        observation, _, _, truncated, info = super().step(action)
        sites = self.data.site_xpos
        pen = self.data.xpos[self.obj_body_id]
        direction = sites[self.obj_t_site_id] - sites[self.obj_b_site_id]
        goal_direction = sites[self.tar_t_site_id] - sites[self.tar_b_site_id]
        reward = pen_reward(
            pen,
            sites[self.eps_ball_site_id],
            direction / self.pen_length,
            goal_direction / self.tar_length,
        )
        return observation, float(reward), bool(pen[2] < PEN_DROPPED), truncated, info


class Relocate(AdroitHandRelocateEnv):  # type: ignore[misc]
    """Carry a ball to a target in the air. Nothing terminates."""

    def step(self, action: Array) -> Step:
        """The next observation and D4RL's reward."""
        observation, _, terminated, truncated, info = super().step(action)
        sites = self.data.site_xpos
        ball = self.data.xpos[self.obj_body_id]
        palm, target = sites[self.S_grasp_site_id], sites[self.target_obj_site_id]
        reward = relocate_reward(palm, ball, target)
        return observation, float(reward), terminated, truncated, info


for _task, _steps in ((Door, 200), (Hammer, 200), (Pen, 100), (Relocate, 200)):
    if (_id := f"offrl/AdroitHand{_task.__name__}-v0") not in gymnasium.registry:  # a reload
        gymnasium.register(
            _id, entry_point=f"{__name__}:{_task.__name__}", max_episode_steps=_steps
        )
