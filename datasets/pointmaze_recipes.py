"""Makes `recipe-pointmaze-{umaze,medium,large}`: three skills in Gymnasium-Robotics' mazes.

A point mass is pushed to a goal that stays where it is and that its observation holds; each step
within 0.45 of it pays 1, nothing terminates. A third of the transitions is each of

    expert   drives fast along the shortest way, with little noise
    medium   drives the same way slowly, with much noise
    poor     drives to places of its own choice and ignores the goal, with much noise

as in `pointmaze-quickstart`, here in three mazes, for longer and many episodes at a time.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.card import Card, Environment
from offrl.errors import unknown
from offrl.evaluation.collecting import collect_rows, joined, returns, save
from offrl.evaluation.environments import make
from offrl.progress import Progress

Array = NDArray[Any]

SEED = 0
REFERENCE_SEED = 1
ROWS = {
    f"recipe-pointmaze-{maze}{end}": rows
    for maze in ("umaze", "medium", "large")
    for end, rows in (("", 1_000_000), ("-small", 100_000))
}
GAIN = 1.0  # full push at a velocity error of 1 m/s
STOPPING = 4.0  # wanted speed per metre left to the target, per second
PATIENCE = 50  # steps after which a wanderer has another target


@dataclass(frozen=True)
class Skill:
    """How a behaviour drives."""

    speed: float  # cruising, metres per second
    noise: float = 0.0  # standard deviation of Gaussian noise on each action
    wanders: bool = False  # chooses its own targets


CLEAN = Skill(4.0)
SKILLS = (Skill(4.0, noise=0.1), Skill(1.5, noise=0.5), Skill(2.5, noise=0.5, wanders=True))


class Maze:
    """The free cells of a simulator's maze and the ways between them.

    Attributes:
        centres: of the cells, (C, 2).
        following: index of the next cell on a shortest way, by target and place, (C, C).
    """

    def __init__(self, environment: Environment) -> None:
        env = make(environment)
        maze: Any = env.unwrapped.maze  # type: ignore[attr-defined]
        rows = enumerate(maze.maze_map)
        cells = [(i, j) for i, row in rows for j, block in enumerate(row) if block != 1]
        self.centres = np.array([maze.cell_rowcol_to_xy(cell) for cell in cells], np.float64)
        env.close()
        number = {cell: index for index, cell in enumerate(cells)}
        self.following = np.zeros((len(cells), len(cells)), np.int64)
        for target in cells:
            queue, seen = deque([target]), {target}
            self.following[number[target], number[target]] = number[target]
            while queue:
                i, j = cell = queue.popleft()
                for near in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if near in number and near not in seen:
                        seen.add(near)
                        self.following[number[target], number[near]] = number[cell]
                        queue.append(near)

    def cell(self, places: Array) -> NDArray[np.int64]:
        """The indices of the cells to whose centres places (N, 2) are nearest."""
        distances = np.square(places[:, None] - self.centres).sum(-1)
        return np.asarray(distances.argmin(1), np.int64)


class Drivers:
    """Rows that drive with a skill, or, without one, act at random."""

    def __init__(self, maze: Maze, skill: Skill | None, rows: int, steps: int) -> None:
        self.maze, self.skill = maze, skill
        self.draws = np.zeros((rows, steps, 2))
        self.whims = np.zeros((rows, steps // PATIENCE + 1, 2))  # a wanderer's targets
        self.times = np.zeros(rows, np.int64)

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Draws the numbers of an episode."""
        shape = self.draws.shape[1:]
        if self.skill is None:
            self.draws[row] = rng.uniform(-1, 1, shape)
        else:
            self.draws[row] = self.skill.noise * rng.standard_normal(shape)
            count = self.whims.shape[1]
            cells = rng.integers(len(self.maze.centres), size=count)
            self.whims[row] = self.maze.centres[cells] + rng.uniform(-0.25, 0.25, (count, 2))
        self.times[row] = 0

    def act(self, observations: NDArray[np.float32]) -> Array:
        """Actions in [-1, 1] for places, velocities and goals, (N, 6)."""
        rows = np.arange(len(self.times))
        draws, whims = self.draws[rows, self.times], self.whims[rows, self.times // PATIENCE]
        self.times += 1
        if self.skill is None:
            return draws
        places, velocities, goals = np.split(observations.astype(np.float64), 3, axis=1)
        targets = whims if self.skill.wanders else goals
        here, there = self.maze.cell(places), self.maze.cell(targets)
        following = self.maze.following[there, here]
        aims = np.where((following == there)[:, None], targets, self.maze.centres[following])
        wanted = aims - places
        distances = np.maximum(np.sqrt(np.square(wanted).sum(1)), 1e-9)
        # Full speed through the cells; slower within the last, to stop at the target.
        speed = self.skill.speed
        speeds = np.where(here == there, np.minimum(speed, STOPPING * distances), speed)
        wanted *= (speeds / distances)[:, None]
        return (GAIN * (wanted - velocities) + draws).clip(-1, 1)


def make_for(card: Card, directory: Path, progress: Progress | None = None) -> Path:
    """The file of a card's data set, made in `directory`."""
    if card.id not in ROWS:
        raise unknown("recipe", card.id, ROWS)
    environment, total = card.environment, ROWS[card.id]
    assert environment is not None
    maze, steps = Maze(environment), environment.max_episode_steps
    ends = [total * (number + 1) // len(SKILLS) for number in range(len(SKILLS))]
    parts, begun = [], 0
    for number, (skill, end) in enumerate(zip(SKILLS, ends, strict=True)):

        def advance(done: int, begun: int = begun) -> None:
            if progress is not None:
                progress(begun + done, total)

        drivers = crew(maze, skill, steps)
        parts.append(collect_rows(environment, drivers, end - begun, (SEED, number), advance))
        begun = end
    return save(joined(parts), directory / f"{card.id}.npz")


def measure_references(environment: Environment, episodes: int = 100) -> tuple[Array, Array]:
    """Returns of random actions and of the clean controller, from starts of their own."""
    maze, steps = Maze(environment), environment.max_episode_steps
    low, high = (
        collect_rows(environment, crew(maze, skill, steps), episodes * steps, (REFERENCE_SEED,))
        for skill in (None, CLEAN)
    )
    return returns(low), returns(high)


def crew(maze: Maze, skill: Skill | None, steps: int) -> Callable[[int], Drivers]:
    """Makes so many rows of a skill, or of random actions."""
    return lambda rows: Drivers(maze, skill, rows, steps)
