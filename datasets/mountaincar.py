"""Makes `mountaincar-small`: a mixture of three drivers of Gymnasium's MountainCar.

A car whose engine is too weak for the hill has to swing up; each step costs 1, and an episode ends
at the top or after 200 steps. A driver pushes by a rule, and at random in a share of its steps:

    expert   by a rule in closed form, which often needs two swings only; a fifth at random
    medium   always the way that the car moves, which pumps it up; half at random
    poor     at random, which never reaches the top

The expert's rule pushes right where min(-0.09 (x + 0.25)^2 + 0.03, 0.3 (x + 0.9)^4 - 0.008) <= v
<= -0.07 (x + 0.38)^2 + 0.07, for position x and velocity v, and else left; it is known from
Gymnasium's leaderboard (Z. Xiao).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offrl.data import find_card
from offrl.data.card import Environment
from offrl.evaluation.collecting import Behaviour, collect, mean_return, save
from offrl.progress import Progress

CARD = "mountaincar-small"
SEED = 0
LEFT, RIGHT = 0, 2  # 1 does not push
EPISODES = {"expert": 70, "medium": 60, "poor": 50}  # some 10,000 steps each


def swing(position: float, velocity: float) -> int:
    """The expert's rule."""
    low = min(-0.09 * (position + 0.25) ** 2 + 0.03, 0.3 * (position + 0.9) ** 4 - 0.008)
    return RIGHT if low <= velocity <= -0.07 * (position + 0.38) ** 2 + 0.07 else LEFT


def pump(position: float, velocity: float) -> int:  # noqa: ARG001 (rules take the whole state)
    """The medium driver's rule."""
    return RIGHT if velocity >= 0 else LEFT


def driver(rule: Callable[[float, float], int], random: float) -> Behaviour:
    """A driver that pushes at random in a share of its steps."""

    def act(observation: NDArray[np.float32], rng: np.random.Generator) -> int:
        if rng.random() < random:
            return int(rng.integers(3))
        return rule(float(observation[0]), float(observation[1]))

    return act


SKILLS = {"expert": driver(swing, 0.2), "medium": driver(pump, 0.5), "poor": driver(pump, 1.0)}


def make(directory: Path, progress: Progress | None = None) -> Path:
    """The file of a new data set in `directory`."""
    behaviours = [SKILLS[name] for name, count in EPISODES.items() for _ in range(count)]
    return save(collect(simulator(), behaviours, SEED, progress), directory / f"{CARD}.npz")


def measure_references(episodes: int, seed: int) -> tuple[float, float]:
    """Mean returns of random pushes and of the expert without noise, from starts of their own."""
    low, high = driver(swing, 1.0), driver(swing, 0.0)
    return (
        mean_return(simulator(), low, episodes, seed),
        mean_return(simulator(), high, episodes, seed),
    )


def simulator() -> Environment:
    """That of the card."""
    environment = find_card(CARD).environment
    assert environment is not None
    return environment
