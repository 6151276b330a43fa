"""Makes `pointmaze-quickstart`: a mixture of skills in Gymnasium-Robotics' U-shaped maze.

A point mass is pushed to a goal that stays where it is; each step within 0.45 of it pays 1. An
episode never terminates and lasts 200 steps, so a return counts the steps at the goal, and speed
pays. Three behaviours take turns, a third of the episodes each:

    expert   drives fast along the shortest way, with little noise
    medium   drives the same way slowly, on observations 5 steps old, with much noise
    poor     drives to places of its own choice and ignores the goal, with much noise

Cloning imitates the average of the three. The parts of a better policy are all in the data: which
way to go, and that going fast pays; telling them apart takes the reward.

The controller is not that of D4RL's maze2d, a planner with waypoints: it follows cells found by
breadth-first search.
"""

import os
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray

from offrl.data import find_card
from offrl.evaluation import environments
from offrl.progress import Progress

Array = NDArray[Any]
Observation = Mapping[str, Array]
Act = Callable[[Observation], Array]

CARD = "pointmaze-quickstart"
EPISODES = 240  # of 200 steps: 48,000 transitions
SEED = 0
CLEAN_SPEED = 4.0  # of the expert and of the reference controller; the simulator allows 5
GAIN = 1.0  # full push at a velocity error of 1 m/s
STOPPING = 4.0  # wanted speed per metre left to the target, per second


@dataclass(frozen=True)
class Skill:
    """How one behaviour drives."""

    speed: float  # cruising, metres per second
    noise: float = 0.0  # standard deviation of Gaussian noise on each action
    delay: int = 0  # steps by which its observations are old
    wanders: bool = False  # chooses its own targets


CLEAN = Skill(CLEAN_SPEED)
SKILLS = {
    "expert": Skill(CLEAN_SPEED, noise=0.1),
    "medium": Skill(1.5, noise=0.5, delay=5),
    "poor": Skill(2.5, noise=0.5, wanders=True),
}


class Maze:
    """Which cell comes next on the shortest way to another, from an environment's map."""

    def __init__(self, maze: Any) -> None:
        self.maze = maze
        rows = enumerate(maze.maze_map)
        self.cells = [(i, j) for i, row in rows for j, block in enumerate(row) if block != 1]
        self.next_cell: dict[tuple[int, int], dict[tuple[int, int], tuple[int, int]]] = {}
        for target in self.cells:
            towards = self.next_cell[target] = {target: target}
            queue = deque([target])
            while queue:
                i, j = cell = queue.popleft()
                for neighbour in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if neighbour in self.cells and neighbour not in towards:
                        towards[neighbour] = cell
                        queue.append(neighbour)

    def cell(self, position: Array) -> tuple[int, int]:
        """The cell (row, column) that holds a position."""
        row, column = self.maze.cell_xy_to_rowcol(position)
        return int(row), int(column)

    def centre(self, cell: tuple[int, int]) -> Array:
        """The position of a cell's centre."""
        return np.asarray(self.maze.cell_rowcol_to_xy(cell))

    def somewhere(self, rng: np.random.Generator) -> Array:
        """A random position, within 0.25 of a cell's centre in each direction, as goals are."""
        cell = self.cells[rng.integers(len(self.cells))]
        return self.centre(cell) + rng.uniform(-0.25, 0.25, 2)


class Driver:
    """Acts for one episode with a given skill; call it with each observation."""

    def __init__(self, maze: Maze, skill: Skill, rng: np.random.Generator) -> None:
        self.maze = maze
        self.skill = skill
        self.rng = rng
        self.seen: deque[Observation] = deque(maxlen=skill.delay + 1)
        self.patience = 0  # steps until a wanderer's next target
        self.whim = np.zeros(2)

    def __call__(self, observation: Observation) -> Array:
        """An action of shape (2,) in [-1, 1]."""
        self.seen.append(observation)
        observation = self.seen[0]
        position, velocity = np.split(observation["observation"], 2)

        target = observation["desired_goal"]
        if self.skill.wanders:
            if self.patience == 0:
                self.patience = int(self.rng.integers(20, 80))
                self.whim = self.maze.somewhere(self.rng)
            self.patience -= 1
            target = self.whim

        here, there = self.maze.cell(position), self.maze.cell(target)
        following = self.maze.next_cell[there][here]
        aim = target if following == there else self.maze.centre(following)
        wanted = aim - position
        distance = max(float(np.linalg.norm(wanted)), 1e-9)
        # Full speed through the cells; slower within the last, to stop at the target.
        limit = min(self.skill.speed, STOPPING * distance) if here == there else self.skill.speed
        wanted *= limit / distance

        action: Array = GAIN * (wanted - velocity)
        action += self.skill.noise * self.rng.standard_normal(2)
        return action.clip(-1, 1).astype(np.float32)


def make(
    directory: Path,
    progress: Progress | None = None,
    *,
    episodes: int = EPISODES,
) -> Path:
    """The folder of a new Minari data set in `directory`, which Minari can also load by its id.

    Args:
        directory: may serve as MINARI_DATASETS_PATH afterwards. A data set of the same name in it
            is replaced once the new one is complete.
        progress: called with the number of episodes made and of all.
        episodes: fewer than the card's give its first ones.
    """
    name = f"{CARD}-v{find_card(CARD).version}"
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=directory) as staging:
        with _minari_root(Path(staging)):
            _collect(name, episodes, progress)
        final = directory / name
        if final.exists():
            final.rename(Path(staging, "replaced"))
        return Path(staging, name).rename(final)


def measure_references(episodes: int, seed: int) -> tuple[Array, Array]:
    """Returns of uniformly random actions and of the clean controller, (episodes,) each.

    Both start from the same states, which are none of the data set's. The card's figures are the
    means of `measure_references(1000, 0)`.
    """
    env, maze = _environment()
    returns = np.zeros((2, episodes))
    for episode in range(episodes):
        start, rng = _streams(seed, 1, episode)
        policies: tuple[Act, Act] = (_uniform(rng), Driver(maze, CLEAN, rng))
        returns[:, episode] = [sum(_run(env, act, start).rewards) for act in policies]
    env.close()
    return returns[0], returns[1]


def _collect(name: str, episodes: int, progress: Progress | None) -> None:
    env, maze = _environment()
    buffers = []
    for episode in range(episodes):
        start, rng = _streams(SEED, 0, episode)
        skill = list(SKILLS.values())[episode % len(SKILLS)]
        buffers.append(_run(env, Driver(maze, skill, rng), start))
        if progress is not None:
            progress(episode + 1, episodes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`author_email` is set to None")  # there is none
        # Not minari.DataCollector: its steps need JAX, which nothing else here does.
        minari.create_dataset_from_buffers(
            name,
            buffers,
            env=env,
            eval_env=env.spec,
            algorithm_name="waypoint controllers of three skills",
            author="The offrl developers",
            code_permalink=__name__,
            description=find_card(CARD).title,
            requirements=[f"{p}=={version(p)}" for p in ("gymnasium-robotics", "mujoco")],
        )
    env.close()


def _environment() -> tuple[gymnasium.Env[Any, Any], Maze]:
    card = find_card(CARD).environment
    assert card is not None
    env = environments.make(card)
    unwrapped: Any = env.unwrapped
    return env, Maze(unwrapped.maze)


def _uniform(rng: np.random.Generator) -> Act:
    return lambda _: rng.uniform(-1, 1, 2).astype(np.float32)


def _streams(seed: int, purpose: int, episode: int) -> tuple[int, np.random.Generator]:
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, episode))
    return int(sequence.generate_state(1)[0]), np.random.default_rng(sequence.spawn(1)[0])


def _run(env: gymnasium.Env[Any, Any], act: Act, seed: int) -> EpisodeBuffer:
    observation, _ = env.reset(seed=seed)
    observations, steps = [observation], []
    over = False
    while not over:
        action = act(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        steps.append((action, float(reward), terminated, truncated))
        over = terminated or truncated
    actions, rewards, terminations, truncations = map(list, zip(*steps, strict=True))
    return EpisodeBuffer(
        seed=seed,
        observations={key: [o[key] for o in observations] for key in observation},
        actions=actions,
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
    )


@contextmanager
def _minari_root(root: Path) -> Iterator[None]:
    """Minari's local storage is an environment variable; it is given back as it was."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
