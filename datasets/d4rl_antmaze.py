"""D4RL's antmaze v2: an ant walks through a maze to a goal, in the simulator that D4RL scored with.

Fu et al. 2020 (D4RL, arXiv 2004.07219). Importing this module registers `offrl/AntMazeUMaze-v2`,
`offrl/AntMazeMedium-v2` and `offrl/AntMazeLarge-v2` with Gymnasium. Each serves two data sets,
play and diverse, umaze and umaze-diverse: their evaluation is the same.

Reference: d4rl/locomotion of Farama-Foundation/D4RL at 89141a6, evaluated (eval=True) on MuJoCo
2.1.0. The model is written from these facts:
1. Masses and inertias of capsules are MuJoCo 2.1.0's (`offrl.evaluation.capsules`). MuJoCo 2.1.2
   made them exact, which makes legs up to 7 % heavier and 24 % harder to turn.
2. Only the ant's geoms have a contact margin. D4RL's floor and walls have it too; MuJoCo took the
   larger of both until 3.5, which adds them: so either gives D4RL's contacts.
3. MuJoCo 2.1.0 normalised the ant's quaternion at a reset; newer versions leave that to us.
One step from a stored state is D4RL's to 1e-14 (`tests/datasets/test_d4rl_mazes.py`).

Known differences: D4RL draws goals from numpy's global generator and starts from the environment's;
here both come from the environment's, in the same order. Nothing is rendered.
"""

from math import pi
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.evaluation.capsules import cylinder_moments

Array = NDArray[Any]
Info = dict[str, Any]

# A wall is #, the start R, the goal G. A cell (row, column) measures 4 by 4 metres.
MAPS = {
    "UMaze": ("#####", "#R..#", "###.#", "#G..#", "#####"),
    "Medium": (
        "########",
        "#R.##..#",
        "#..#...#",
        "##...###",
        "#..#...#",
        "#.#..#.#",
        "#...#.G#",
        "########",
    ),
    "Large": (
        "############",
        "#R...#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.G.#",
        "############",
    ),
}
STEPS = {"UMaze": 700, "Medium": 1000, "Large": 1000}
CELL = 4.0  # metres
REACHED = 0.5  # metres between ant and goal
SUBSTEPS = 5  # of 0.02 s each
TORQUE = 30.0  # at action 1
DENSITY = 5.0
TORSO, LEG = 0.25, 0.08  # radii
LEGS = ((1, 1), (-1, 1), (-1, -1), (1, -1))  # where they point
ANKLES = (((-1, 1), (30, 70)), ((1, 1), (-70, -30)), ((-1, 1), (-70, -30)), ((1, 1), (30, 70)))
MOTORS = ("hip4", "ankle4", "hip1", "ankle1", "hip2", "ankle2", "hip3", "ankle3")


def sphere_inertia(radius: float, density: float) -> tuple[float, float]:
    """Mass and inertia of a sphere."""
    mass = density * 4 / 3 * pi * radius**3
    return mass, 0.4 * mass * radius**2


def cell_position(row: int, column: int, maze: str) -> tuple[float, float]:
    """Where the centre of a cell lies, (x, y); the start is the origin."""
    start_row, start_column = find(maze, "R")
    return CELL * (column - start_column), CELL * (row - start_row)


def find(maze: str, mark: str) -> tuple[int, int]:
    """Row and column of the cell of a map that bears a mark."""
    ((row, line),) = ((i, line) for i, line in enumerate(MAPS[maze]) if mark in line)
    return row, line.index(mark)


def _capsule(x: float, y: float) -> str:
    """The geom of a leg's part from its joint to (x, y), and its body's inertia."""
    length = float(np.hypot(x, y))
    mass = DENSITY * pi * LEG**2 * (length + LEG)
    across, _, along = map(float, cylinder_moments(mass, LEG, length / 2))
    half = 0.5**0.5 / length  # a quarter turn takes z to (x, y); MuJoCo 3.1 overlooks `zaxis` here
    return (
        f'<inertial pos="{x / 2} {y / 2} 0" quat="{0.5**0.5} {-half * y} {half * x} 0" '
        f'mass="{mass!r}" diaginertia="{across!r} {across!r} {along!r}"/>'
        f'<geom type="capsule" size="{LEG}" fromto="0 0 0 {x} {y} 0"/>'
    )


def _leg(number: int) -> str:
    (x, y), (axis, span) = LEGS[number - 1], ANKLES[number - 1]
    upper, lower = _capsule(0.2 * x, 0.2 * y), _capsule(0.4 * x, 0.4 * y)
    place = f"{0.2 * x} {0.2 * y} 0"
    return f"""
      <body>{upper}
        <body pos="{place}">{upper}
          <joint name="hip{number}" type="hinge" axis="0 0 1" range="-30 30"/>
          <body pos="{place}">{lower}
            <joint name="ankle{number}" type="hinge" axis="{axis[0]} {axis[1]} 0"
                   range="{span[0]} {span[1]}"/>
          </body>
        </body>
      </body>"""


def model_text(maze: str) -> str:
    """The model of an ant in a maze, as MJCF."""
    walls = "".join(
        '\n    <geom type="box" size="2 2 1" pos="{} {} 1" conaffinity="1" margin="0"/>'.format(
            *cell_position(i, j, maze)
        )
        for i, line in enumerate(MAPS[maze])
        for j, mark in enumerate(line)
        if mark == "#"
    )
    mass, inertia = sphere_inertia(TORSO, DENSITY)
    motors = "".join(f'\n    <motor joint="{name}" gear="1"/>' for name in MOTORS)
    return f"""<mujoco model="ant in a maze">
  <compiler angle="degree" inertiafromgeom="auto"/>
  <option timestep="0.02" integrator="RK4"/>
  <default>
    <joint limited="true" armature="1" damping="1"/>
    <geom condim="3" contype="1" conaffinity="0" margin="0.01" friction="1 0.5 0.5"
          solref="0.02 1" solimp="0.8 0.8 0.01" density="{DENSITY}"/>
    <motor ctrllimited="true" ctrlrange="{-TORQUE} {TORQUE}"/>
  </default>
  <worldbody>
    <geom type="plane" size="40 40 40" conaffinity="1" margin="0"/>{walls}
    <body name="torso" pos="0 0 0.75">
      <inertial pos="0 0 0" mass="{mass!r}" diaginertia="{inertia!r} {inertia!r} {inertia!r}"/>
      <geom type="sphere" size="{TORSO}"/>
      <joint type="free" limited="false" armature="0" damping="0" margin="0.01"/>
      {"".join(_leg(number) for number in (1, 2, 3, 4))}
    </body>
  </worldbody>
  <actuator>{motors}
  </actuator>
</mujoco>"""


class AntMaze(gymnasium.Env[Array, Array]):
    """Walk from the start to a goal that is drawn for every episode, in the cell of the map's G.

    Observations (29,) are qpos (15, x and y first) and qvel (14), without the goal; actions (8,)
    are torques in units of 30. Each step lasts 0.1 s. The reward is 1 within 0.5 m of the goal,
    where the episode terminates, else 0. An ant that lies on its back goes on.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, maze: str) -> None:
        self.maze = maze
        self.model = mujoco.MjModel.from_xml_string(model_text(maze))
        self.data = mujoco.MjData(self.model)
        self.goal = np.zeros(2)
        self.observation_space = Box(-np.inf, np.inf, (29,), np.float64)
        self.action_space = Box(-1.0, 1.0, (8,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, Info]:
        """The first observation, after a goal and then a state are drawn."""
        super().reset(seed=seed, options=options)
        self.goal = draw_goal(self.maze, self.np_random)
        mujoco.mj_resetData(self.model, self.data)
        qpos = self.model.qpos0 + self.np_random.uniform(-0.1, 0.1, 15)
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
        self.set_state(qpos, 0.1 * self.np_random.standard_normal(14))
        return self._observation(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, Info]:
        """The next observation, its reward, and whether the ant is at the goal."""
        torques = -TORQUE + (np.asarray(action, np.float64) + 1) * 0.5 * (2 * TORQUE)
        self.data.ctrl[:] = torques.clip(-TORQUE, TORQUE)
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        reached = bool(np.linalg.norm(self.data.qpos[:2] - self.goal) <= REACHED)
        return self._observation(), float(reached), reached, False, {}

    def set_state(self, qpos: Array, qvel: Array) -> None:
        """Puts the ant into a state."""
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)

    def _observation(self) -> Array:
        return np.concatenate([self.data.qpos, self.data.qvel])


def draw_goal(maze: str, rng: np.random.Generator) -> Array:
    """A goal (2,): the centre of its cell and two uniform noises, of up to 1 and 0.5 metres."""
    centre = np.array(cell_position(*find(maze, "G"), maze))
    return np.maximum(centre + rng.uniform(0, 1, 2) + rng.uniform(0, 0.5, 2), 0)


for _maze, _steps in STEPS.items():
    if (_id := f"offrl/AntMaze{_maze}-v2") not in gymnasium.registry:  # a reload must not warn
        gymnasium.register(
            _id,
            entry_point=f"{__name__}:AntMaze",
            kwargs={"maze": _maze},
            max_episode_steps=_steps,
        )
