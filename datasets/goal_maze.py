"""A point in OGBench's medium maze, and `recipe-pointmaze-{navigate,stitch}` made in it.

Park et al. 2024 (OGBench, arXiv 2410.20092). Importing this module registers
`offrl/PointMazeNavigate-v0` and `offrl/PointMazeStitch-v0` with Gymnasium. Observations (4,) are
the point's place and the goal, so that any algorithm sees where it is to go; actions (2,) move the
point by 0.2 of them. Each step that ends within 1 of the goal pays 1, a cell being 4 wide. Nothing
terminates.

    navigate   1,000 steps; the goal is a random cell, no corridor, and another one on arrival
    stitch     200 steps; the goal is a random cell four cells away, and stays

The data are OGBench's recipe: the behaviour takes the direction of the next cell on the shortest
way, a unit vector, and adds noise of deviation 0.5 to each coordinate. In the goal's cell it goes
for the goal itself.

Reference: data_gen_scripts/generate_locomaze.py and ogbench/locomaze of seohongpark/ogbench at
1d41409. Known differences: the point is a square of half-width 0.5 that walls stop along each axis,
where OGBench's MuJoCo pushes a sphere out of them; goals are drawn within 1 of a cell's centre by
the simulator, in evaluations too; rewards are paid where OGBench has none.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.data.card import Card, Environment
from offrl.errors import unknown
from offrl.evaluation.collecting import collect_rows, returns, save
from offrl.evaluation.lockstep import Lockstep, Row
from offrl.progress import Progress

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Cell = tuple[int, int]

MAP = (
    "########",
    "#..##..#",
    "#..#...#",
    "##...###",
    "#..#...#",
    "#.#..#.#",
    "#...#..#",
    "########",
)
UNIT = 4.0  # the width of a cell; that in row 1 and column 1 is centred at (0, 0)
HALF = 0.5  # of the width of the point
STEP = 0.2
REACHED = 1.0
SCATTER = 1.0  # of goals and starts around the centre of their cell, in each direction
APART = 4  # cells between start and goal of `stitch`

WALL = np.array([[mark == "#" for mark in row] for row in MAP])
CELLS: list[Cell] = [(int(i), int(j)) for i, j in np.argwhere(~WALL)]


def centre(cell: Cell) -> Array:
    """The place (2,) of a cell's centre; columns count along x, rows along y."""
    return UNIT * (np.array(cell[::-1], np.float64) - 1)


def is_corridor(cell: Cell) -> bool:
    """Whether a cell has two free neighbours, opposite each other."""
    i, j = cell
    across, along = (WALL[i - 1, j], WALL[i + 1, j]), (WALL[i, j - 1], WALL[i, j + 1])
    return {(any(across), all(across)), (any(along), all(along))} == {(False, False), (True, True)}


def ways(goal: Cell) -> tuple[dict[Cell, Cell], dict[Cell, int]]:
    """From each cell the next one on a shortest way to a goal, and how many there are to go."""
    following, left = {goal: goal}, {goal: 0}
    queue = deque([goal])
    while queue:
        i, j = cell = queue.popleft()
        for near in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if not WALL[near] and near not in left:
                following[near], left[near] = cell, left[cell] + 1
                queue.append(near)
    return following, left


OPEN = [cell for cell in CELLS if not is_corridor(cell)]
WAYS = {cell: ways(cell) for cell in CELLS}
FOUR_AWAY = {
    start: [goal for goal in CELLS if WAYS[goal][1][start] == APART] or OPEN for start in CELLS
}
# The centre (2,) of the next cell, by the rows and columns of the goal's cell and of the point's.
NEXT = np.zeros((*WALL.shape, *WALL.shape, 2))
for _goal, (_following, _) in WAYS.items():
    for _cell, _near in _following.items():
        NEXT[(*_goal, *_cell)] = centre(_near)


def indices(places: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the cells that hold places (..., 2)."""
    found = np.floor(places / UNIT + 1.5).astype(np.int64)
    return found[..., 1], found[..., 0]


def moved(places: Array, moves: Array) -> Array:
    """Places (N, 2) after moves (N, 2) shorter than a cell, along x and then along y."""
    places = places.copy()
    for axis in (0, 1):
        places[:, axis] += moves[:, axis]
        sign = np.sign(moves[:, axis])
        front = places[:, axis] + HALF * sign
        hit = np.zeros(len(places), np.bool_)
        for side in (-1, 1):
            corner = places + side * (HALF - 1e-6)
            corner[:, axis] = front
            hit |= WALL[indices(corner)]
        border = UNIT * np.round(front / UNIT - 0.5) + UNIT / 2  # the edge nearest to the front
        places[:, axis] = np.where(hit, border - HALF * sign, places[:, axis])
    return places


class GoalMazeVector(Lockstep):
    """Many points, stepped at once; for `gymnasium.make_vec`."""

    def __init__(
        self, num_envs: int = 1, max_episode_steps: int | None = None, *, stitch: bool = False
    ) -> None:
        space = Box(-np.inf, np.inf, (4,), np.float64)
        super().__init__(num_envs, space, Box(-1.0, 1.0, (2,), np.float32), max_episode_steps)
        self.stitch = stitch
        self._places, self._goals = np.zeros((num_envs, 2)), np.zeros((num_envs, 2))

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Puts a row's point into a random cell, and draws its goal."""
        cell = _choice(CELLS, rng)
        self._places[row] = _scattered(cell, rng)
        self._goals[row] = _scattered(_choice(FOUR_AWAY[cell] if self.stitch else OPEN, rng), rng)

    def observe(self) -> Array:
        """Places and goals."""
        return np.concatenate([self._places, self._goals], 1)

    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """One step of every point."""
        self._places = moved(self._places, STEP * actions.clip(-1, 1))
        arrived = np.square(self._places - self._goals).sum(1) <= REACHED**2
        if not self.stitch:
            for row in map(int, np.flatnonzero(arrived)):
                self._goals[row] = _scattered(_choice(OPEN, self._rngs[row]), self._rngs[row])
        return self.observe(), arrived.astype(np.float64), np.zeros(self.num_envs, np.bool_)


def _choice(cells: Sequence[Cell], rng: np.random.Generator) -> Cell:
    return cells[int(rng.integers(len(cells)))]


def _scattered(cell: Cell, rng: np.random.Generator) -> Array:
    return centre(cell) + rng.uniform(-SCATTER, SCATTER, 2)


class GoalMaze(Row):
    """One point."""

    rows = GoalMazeVector


# --- the data ---

SEED = 0
REFERENCE_SEED = 1
NOISE = 0.5
ROWS = {
    f"recipe-pointmaze-{kind}{end}": rows
    for kind in ("navigate", "stitch")
    for end, rows in (("", 1_000_000), ("-small", 100_000))
}


class Directed:
    """Rows that go for the next cell on the shortest way, or act at random."""

    def __init__(self, rows: int, steps: int, noise: float = NOISE, random: bool = False) -> None:
        self.noise, self.random = noise, random
        self.draws = np.zeros((rows, steps, 2))
        self.times = np.zeros(rows, np.int64)

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Draws the noise of an episode, or its actions."""
        shape = self.draws.shape[1:]
        self.draws[row] = rng.uniform(-1, 1, shape) if self.random else rng.standard_normal(shape)
        self.times[row] = 0

    def act(self, observations: NDArray[np.float32]) -> Array:
        """Actions in [-1, 1]."""
        draws = self.draws[np.arange(len(self.times)), self.times]
        self.times += 1
        if self.random:
            return draws
        places, goals = np.split(observations.astype(np.float64), 2, axis=1)
        here, there = indices(places), indices(goals)
        arrives = (np.stack(here) == np.stack(there)).all(0)
        ways = np.where(arrives[:, None], goals, NEXT[(*there, *here)]) - places
        directions = ways / np.maximum(np.sqrt(np.square(ways).sum(1)), 1e-9)[:, None]
        return np.asarray((directions + self.noise * draws).clip(-1, 1))


def make_for(card: Card, directory: Path, progress: Progress | None = None) -> Path:
    """The file of a card's data set, made in `directory`."""
    if card.id not in ROWS:
        raise unknown("recipe", card.id, ROWS)
    rows, environment = ROWS[card.id], card.environment
    assert environment is not None

    def advance(done: int) -> None:
        if progress is not None:
            progress(done, rows)

    steps = environment.max_episode_steps
    made = collect_rows(environment, lambda n: Directed(n, steps), rows, (SEED,), advance)
    return save(made, directory / f"{card.id}.npz")


def measure_references(environment: Environment, episodes: int = 100) -> tuple[Array, Array]:
    """Returns of random actions and of the behaviour without noise, from starts of their own."""
    steps = environment.max_episode_steps
    found = []
    for random in (True, False):
        made = collect_rows(
            environment,
            lambda n, random=random: Directed(n, steps, noise=0.0, random=random),  # type: ignore[misc]
            episodes * steps,
            (REFERENCE_SEED,),
        )
        found.append(returns(made))
    return found[0], found[1]


for _name, _steps, _stitch in (("Navigate", 1000, False), ("Stitch", 200, True)):
    if (_id := f"offrl/PointMaze{_name}-v0") not in gymnasium.registry:  # a reload
        gymnasium.register(
            _id,
            entry_point=f"{__name__}:GoalMaze",
            vector_entry_point=f"{__name__}:GoalMazeVector",
            kwargs={"stitch": _stitch},
            max_episode_steps=_steps,
        )
