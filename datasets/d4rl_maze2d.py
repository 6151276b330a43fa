"""D4RL's maze2d v1: a point mass is pushed through a maze, in the simulator that D4RL scored with.

Fu et al. 2020 (D4RL, arXiv 2004.07219). Importing this module registers `offrl/Maze2dUMaze-v1`,
`offrl/Maze2dMedium-v1` and `offrl/Maze2dLarge-v1` with Gymnasium, sparse, and
`offrl/Maze2dUMazeDense-v1`, likewise Medium and Large. It also holds the controller behind D4RL's
data and its reference returns, and makes the data set `maze2d-umaze-waypoints` with it.

Reference: d4rl/pointmaze of Farama-Foundation/D4RL at 89141a6, on MuJoCo 2.1.0. The model is
written from these facts:
1. MuJoCo 3 changed `body_invweight0` of a body that moves along two axes only, by which contacts
   are softened; the particle gets the old value after compiling.
2. Only the particle has a contact margin (`d4rl_antmaze` says why).
3. The particle starts at (1.2, 1.2) and walls are centred at whole numbers from (1, 1) on, so that
   cell (i, j) spans i - 0.7 to i + 0.3 in qpos, and the target, at (i, j), is off its centre.
One step from a stored state is D4RL's to 1e-13 (`tests/datasets/test_d4rl_mazes.py`).

Known differences: random numbers are others. Nothing is rendered. D4RL's generator of data records
the observation before a target was reached once more as the first after it; `make` does not.
"""

from collections import deque
from math import pi
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from mujoco.rollout import rollout
from numpy.typing import NDArray

from offrl.evaluation.lockstep import Lockstep
from offrl.progress import Progress

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Cell = tuple[int, int]
Info = dict[str, Any]

# A wall is #, the target G. Cell (row i, column j) is the place (i, j) in qpos.
MAPS = {
    "UMaze": ("#####", "#G..#", "###.#", "#...#", "#####"),
    "Medium": (
        "########",
        "#..##..#",
        "#..#...#",
        "##...###",
        "#..#...#",
        "#.#..#.#",
        "#...#.G#",
        "########",
    ),
    "Large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.G.#",
        "############",
    ),
}
STEPS = {"UMaze": 300, "Medium": 600, "Large": 800}
REACHED = 0.5  # distance to the target
SPEED = 5.0  # to which each velocity is clipped before a step
RADIUS, DENSITY = 0.1, 1000.0
ORIGIN = 1.2  # where the particle is at qpos 0


def model_text(maze: str) -> str:
    """The model of a particle in a maze, as MJCF."""
    walls = "".join(
        f'\n    <geom type="box" size="0.5 0.5 0.2" pos="{i + 1} {j + 1} 0" margin="0"/>'
        for i, j in cells(maze, "#")
    )
    return f"""<mujoco model="particle in a maze">
  <compiler angle="radian" inertiafromgeom="true"/>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint damping="1" limited="false"/>
    <geom friction="0.5 0.1 0.1" density="{DENSITY}" margin="0.002" condim="1" contype="2"
          conaffinity="1"/>
    <motor ctrllimited="true" ctrlrange="-1 1" gear="100"/>
  </default>
  <worldbody>
    <geom type="plane" size="40 40 0.25" pos="0 0 -0.1" contype="1" conaffinity="0" margin="0"/>
    <body name="particle" pos="{ORIGIN} {ORIGIN} 0">
      <geom type="sphere" size="{RADIUS}" contype="1"/>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
    </body>{walls}
  </worldbody>
  <actuator>
    <motor joint="x"/>
    <motor joint="y"/>
  </actuator>
</mujoco>"""


def cells(maze: str, marks: str) -> list[Cell]:
    """The cells of a map that bear one of some marks, row by row."""
    rows = enumerate(MAPS[maze])
    return [(i, j) for i, row in rows for j, mark in enumerate(row) if mark in marks]


def target(maze: str) -> Array:
    """Where the target is, (2,)."""
    return np.array(cells(maze, "G")[0], np.float64)


def compiled(maze: str) -> mujoco.MjModel:
    """The model of a particle in a maze, with the contacts of MuJoCo 2.1.0."""
    model = mujoco.MjModel.from_xml_string(model_text(maze))
    mass = 4 / 3 * pi * RADIUS**3 * DENSITY
    model.body_invweight0[1, 0] = 2 / 3 / mass  # a mean over three axes, of which two move
    return model


def draw_start(maze: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Positions and velocities (2,) at a reset: a cell, noise on its place, velocities."""
    starts = [*cells(maze, "."), *cells(maze, "G")]
    place = np.array(starts[rng.integers(len(starts))], np.float64)
    return place + rng.uniform(-0.1, 0.1, 2), 0.1 * rng.standard_normal(2)


def sparse_reward(positions: Array, goal: Array) -> Array:
    """1 for each position (..., 2) within 0.5 of a goal, else 0."""
    return np.asarray(np.linalg.norm(positions - goal, axis=-1) <= REACHED, np.float64)


def dense_reward(positions: Array, goal: Array) -> Array:
    """exp(-distance) of each position (..., 2) from a goal."""
    return np.asarray(np.exp(-np.linalg.norm(positions - goal, axis=-1)))


class Maze2d(gymnasium.Env[Array, Array]):
    """Push a particle to the map's target, and keep it there; nothing terminates.

    Observations (4,) are qpos and qvel, actions (2,) forces in units of 100. A step lasts 0.01 s;
    it pays for where it ends, 1 within 0.5 of the target or, if `dense`, exp(-distance). An episode
    starts in a cell drawn from all free ones, the target's included.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, maze: str, dense: bool = False) -> None:
        self.maze = maze
        self.target = target(maze)
        self.model = compiled(maze)
        self.data = mujoco.MjData(self.model)
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self._reward = dense_reward if dense else sparse_reward

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, Info]:
        """The first observation."""
        super().reset(seed=seed, options=options)
        mujoco.mj_resetData(self.model, self.data)
        self.set_state(*draw_start(self.maze, self.np_random))
        return self._observation(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, Info]:
        """The next observation and its reward; neither terminates nor truncates."""
        data = self.data
        data.ctrl[:] = np.asarray(action, np.float64).clip(-1, 1)
        data.qvel[:] = data.qvel.clip(-SPEED, SPEED)
        data.qacc_warmstart[:] = 0  # as a rollout has it, so that a row of many steps the same
        mujoco.mj_step(self.model, data)
        return self._observation(), float(self._reward(data.qpos, self.target)), False, False, {}

    def set_state(self, qpos: Array, qvel: Array) -> None:
        """Puts the particle into a state."""
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)

    def _observation(self) -> Array:
        return np.concatenate([self.data.qpos, self.data.qvel])


class Maze2dVector(Lockstep):
    """`num_envs` particles, stepped in one call of MuJoCo's; for `gymnasium.make_vec`.

    The row with seed s equals `Maze2d` after `reset(seed=s)`.
    """

    def __init__(
        self, num_envs: int, maze: str, dense: bool = False, max_episode_steps: int | None = None
    ) -> None:
        space = Box(-np.inf, np.inf, (4,), np.float64)
        super().__init__(num_envs, space, Box(-1.0, 1.0, (2,), np.float32), max_episode_steps)
        self.maze = maze
        self.target = target(maze)
        self.model = compiled(maze)
        self.data = mujoco.MjData(self.model)
        self._reward = dense_reward if dense else sparse_reward
        self._states = np.zeros((num_envs, 5))  # time, qpos, qvel: MuJoCo's full physics state

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Starts a row as the single environment starts."""
        self._states[row] = np.concatenate([[0.0], *draw_start(self.maze, rng)])

    def observe(self) -> Array:
        """Positions and velocities."""
        return self._states[:, 1:].copy()

    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """One step of every particle."""
        self._states[:, 3:] = self._states[:, 3:].clip(-SPEED, SPEED)
        forces = actions.clip(-1, 1)[:, None]  # of one step
        states, _ = rollout(self.model, self.data, self._states, forces)
        self._states = states[:, 0].copy()
        observations = self.observe()
        rewards = self._reward(observations[:, :2], self.target)
        return observations, rewards, np.zeros(self.num_envs, np.bool_)


# --- the controller behind D4RL's data and reference returns ---

GAIN, DAMPING = 10.0, 1.0  # of the distance to a waypoint and of the velocity
NEAR = 0.1  # a waypoint is passed within this distance; also that of a target to be reached
SHIFT = 0.2  # waypoints but the last lie up to this far from their cell, towards smaller numbers
MOVES = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))  # in the order in which D4RL prefers them


def shortest_way(maze: str, start: Cell, end: Cell) -> list[Cell]:
    """The cells after `start` up to `end`, which is returned alone where both are one.

    Among ways of one length it is the one that D4RL's Q-iteration takes. A position beside a wall
    may be rounded to a start in it, which leads to a free cell near it.
    """
    free = {*cells(maze, ".G")}
    left = {end: 0}  # steps from each cell to the end
    queue = deque([end])
    while queue:
        i, j = cell = queue.popleft()
        for di, dj in MOVES[1:]:
            if (near := (i + di, j + dj)) in free and near not in left:
                left[near] = left[cell] + 1
                queue.append(near)
    way = [start]
    while len(way) == 1 or way[-1] != end:
        i, j = way[-1]
        beside = [cell for di, dj in MOVES if (cell := (i + di, j + dj)) in left]
        around = [cell for cell in left if max(abs(cell[0] - i), abs(cell[1] - j)) == 1]
        way.append(min(beside or around, key=left.__getitem__))
    return way[1:]


class WaypointController:
    """D4RL's controller: it drives along waypoints, one in each cell of the shortest way.

    It plans when it is given a target in another cell than before, and never because an episode
    begins. Where the target stays, as in an evaluation, a controller that is kept for many episodes
    goes straight for it in all but the first, walls or not. So D4RL measured its reference returns;
    a new controller for every episode returns 1.2 to 2.1 times as much (docs/simulators.md).
    """

    def __init__(self, maze: str, rng: np.random.Generator) -> None:
        self.maze = maze
        self.rng = rng
        self.goal: Cell | None = None
        self.waypoints: list[Array] = []
        self.before = np.zeros(2)  # where the particle was

    def __call__(self, observation: Array, target: Array) -> tuple[Array, bool]:
        """An action (2,) in [-1, 1], and whether the particle has come to rest at the target."""
        position, velocity = observation[:2], observation[2:]
        goal = nearest_cell(target)
        if goal != self.goal:
            self._plan(position, goal)
        slow = np.linalg.norm(self.before - position) < NEAR
        arrived = bool(np.linalg.norm(position - goal) < NEAR and slow)
        waypoint = np.array(goal) if arrived else self.waypoints[0]
        passed = slow and np.linalg.norm(position - waypoint) < NEAR
        if passed and not arrived and len(self.waypoints) > 1:
            self.waypoints.pop(0)
        self.before = position
        action: Array = GAIN * (waypoint - position) - DAMPING * velocity
        return action.clip(-1, 1), arrived

    def _plan(self, position: Array, goal: Cell) -> None:
        start = nearest_cell(position)
        *between, end = shortest_way(self.maze, start, goal)
        shifted = [cell - SHIFT * self.rng.uniform(size=2) for cell in between]
        self.waypoints = [*shifted, np.array(end, np.float64)]
        self.goal, self.before = goal, np.array(start, np.float64)


def nearest_cell(position: Array) -> Cell:
    """The cell to whose place a position (2,) is nearest."""
    return round(float(position[0])), round(float(position[1]))


# --- a data set made as D4RL made its own ---

ROWS = 100_000
NOISE = 0.5  # standard deviation on actions


def make(
    directory: Path, progress: Progress | None = None, *, rows: int = ROWS, seed: int = 0
) -> Path:
    """The path of a new file of D4RL's columns in `directory`, of the noisy controller in UMaze.

    One particle runs all the time. Whenever it has come to rest at a target, or after 300 steps, a
    new one is drawn like a start; these runs are the episodes. Each row pays for its observation,
    before the step, by the one target of an evaluation; the controller's own are not recorded.
    """
    maze, rng = "UMaze", np.random.default_rng(seed)
    env, controller = Maze2d(maze), WaypointController(maze, rng)
    observation, _ = env.reset(seed=seed)
    goal, _ = draw_start(maze, rng)
    observations, actions, timeouts = np.zeros((rows, 4)), np.zeros((rows, 2)), np.zeros(rows, bool)
    steps = 0
    for row in range(rows):
        action, arrived = controller(observation, goal)
        observations[row] = observation
        actions[row] = (action + NOISE * rng.standard_normal(2)).clip(-1, 1)
        observation, *_ = env.step(actions[row])
        steps += 1
        if arrived or steps == STEPS[maze]:
            timeouts[row], steps = True, 0
            goal, _ = draw_start(maze, rng)
        if progress is not None and (row + 1) % 10_000 == 0:
            progress(row + 1, rows)
    path = directory / "maze2d-umaze-waypoints.npz"
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=sparse_reward(observations[:, :2], env.target).astype(np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=timeouts,
    )
    return path


for _maze, _steps in STEPS.items():
    for _dense in (False, True):
        _id = f"offrl/Maze2d{_maze}{'Dense' if _dense else ''}-v1"
        if _id not in gymnasium.registry:  # a reload must not warn
            gymnasium.register(
                _id,
                entry_point=f"{__name__}:Maze2d",
                vector_entry_point=f"{__name__}:Maze2dVector",
                kwargs={"maze": _maze, "dense": _dense},
                max_episode_steps=_steps,
            )
