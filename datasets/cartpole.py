"""Makes `cartpole-small`: a mixture of three controllers that balance Gymnasium's CartPole.

A push to the left or to the right moves a cart so that the pole on it stays up; each step pays 1,
and an episode ends when the pole falls or after 500 steps. A controller pushes to the side of the
sign of a weighted sum of the state, and at random in a share of its steps:

    expert   by the pole's angle and angular velocity; a tenth of its steps at random
    medium   by the angle alone, which oscillates until it falls; a fifth at random
    poor     at random
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offrl.data import find_card
from offrl.data.card import Environment
from offrl.evaluation.collecting import Behaviour, collect, mean_return, save
from offrl.progress import Progress

CARD = "cartpole-small"
SEED = 0
BALANCING = (0.0, 0.0, 1.0, 0.3)  # weights of position, velocity, angle and angular velocity
LEANING = (0.0, 0.0, 1.0, 0.0)
EPISODES = {"expert": 20, "medium": 200, "poor": 250}  # some 5,000 to 10,000 steps each


def controller(weights: tuple[float, ...], random: float) -> Behaviour:
    """A controller that acts at random in a share of its steps."""

    def act(observation: NDArray[np.float32], rng: np.random.Generator) -> int:
        if rng.random() < random:
            return int(rng.integers(2))
        return int(np.dot(observation, weights) > 0)

    return act


SKILLS = {
    "expert": controller(BALANCING, 0.1),
    "medium": controller(LEANING, 0.2),
    "poor": controller(LEANING, 1.0),
}


def make(directory: Path, progress: Progress | None = None) -> Path:
    """The file of a new data set in `directory`."""
    behaviours = [SKILLS[name] for name, count in EPISODES.items() for _ in range(count)]
    return save(collect(simulator(), behaviours, SEED, progress), directory / f"{CARD}.npz")


def measure_references(episodes: int, seed: int) -> tuple[float, float]:
    """Mean returns of random pushes and of the expert without noise, from starts of their own."""
    low, high = controller(BALANCING, 1.0), controller(BALANCING, 0.0)
    return (
        mean_return(simulator(), low, episodes, seed),
        mean_return(simulator(), high, episodes, seed),
    )


def simulator() -> Environment:
    """That of the card."""
    environment = find_card(CARD).environment
    assert environment is not None
    return environment
