"""Makes `recipe-*`: D4RL's locomotion sets anew, from small trained policies and seeds.

D4RL (Fu et al. 2020, arXiv 2004.07219) published what policies of several strengths did. Here are
policies of our own, trained by PPO in D4RL's bodies (`benchmarks/behaviours.py`) and shipped in
`recipes.npz`, with what is needed to have their data again:

    random          uniform actions
    medium          a policy stopped early
    expert          the best policy of the training
    medium-expert   as many transitions of medium, then of expert
    medium-replay   as many of each of ten snapshots, up to medium or little more. This is a mixture
                    of policies and no replay buffer: D4RL's holds each step of one training once

A policy has two layers of 64 units; its action is tanh(mean + noise) with a fixed deviation.
Products are sums of numpy's, term after term, in float64: no BLAS chooses their order, so that the
policy itself computes the same on every processor but for the last bit of a tanh, which rounding
to multiples of 2^-10 hides. MuJoCo may differ in last bits from one processor to another, and
locomotion is chaotic; the cards say where their checksums were seen.

Known differences from D4RL: the training (PPO, not SAC), hence the returns, which the cards give;
sizes are round; the last episode of a part is cut where its transitions are complete.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.card import Card, Environment
from offrl.errors import unknown
from offrl.evaluation.collecting import Crew, collect_rows, joined, returns, save
from offrl.progress import Progress

Array = NDArray[np.float64]

SEED = 0
REFERENCE_SEED = 1
BODIES = {"hopper": 402_000, "halfcheetah": 202_000, "walker2d": 302_000}  # rows of medium-replay
SNAPSHOTS = 10
SMALL = 100_000
MILLION = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """What a data set is made of.

    Attributes:
        body: hopper, halfcheetah or walker2d.
        parts: names of policies, or "random", each with its number of transitions.
    """

    body: str
    parts: tuple[tuple[str, int], ...]


def recipes() -> dict[str, Recipe]:
    """Every recipe by the id of its card."""
    replay = tuple(f"replay-{number}" for number in range(SNAPSHOTS))
    levels = {"random": ("random",), "medium": ("medium",), "medium-replay": replay}
    levels |= {"expert": ("expert",), "medium-expert": ("medium", "expert")}
    found = {}
    for body, of_replay in BODIES.items():
        for level, names in levels.items():
            size = of_replay if level == "medium-replay" else len(names) * MILLION
            for end, rows in (("", size), ("-small", SMALL)):
                share = rows // len(names)
                found[f"recipe-{body}-{level}{end}"] = Recipe(
                    body, tuple((name, share) for name in names)
                )
    return found


@dataclass(frozen=True)
class Policy:
    """A Gaussian of fixed deviation before a tanh, whose mean two layers of units compute.

    Attributes:
        layers: weights (in, out) and biases (out,) of each layer.
        deviation: of the noise on each action before the tanh, (action_dim,).
    """

    layers: tuple[tuple[Array, Array], ...]
    deviation: Array

    def means(self, observations: NDArray[Any]) -> Array:
        """Means (N, action_dim) before the tanh, of observations (N, observation_dim)."""
        values = observations.astype(np.float64)
        for number, (weights, biases) in enumerate(self.layers):
            sums = np.tile(biases, (len(values), 1))
            term = np.empty_like(sums)
            for column, row in zip(values.T, weights, strict=True):
                np.multiply(column[:, None], row, out=term)
                sums += term
            values = np.maximum(sums, 0.0) if number + 1 < len(self.layers) else sums
        return values


@functools.cache
def policies() -> dict[str, Policy]:
    """The policies that ship, by body and name: `hopper/medium`."""
    with np.load(Path(__file__).with_suffix(".npz")) as archive:
        arrays = {key: archive[key].astype(np.float64) for key in archive.files}
    found = {}
    for name in dict.fromkeys(key.rpartition("/")[0] for key in arrays):
        layers = tuple(
            (arrays[f"{name}/{layer}.weight"], arrays[f"{name}/{layer}.bias"])
            for layer in ("first", "second", "mean")
        )
        found[name] = Policy(layers, arrays[f"{name}/deviation"])
    return found


class Trained:
    """Rows that act by a policy, with `noise` times its deviation."""

    def __init__(self, policy: Policy, rows: int, steps: int, noise: float = 1.0) -> None:
        self.policy = policy
        self.noise = noise * policy.deviation
        self.draws = np.zeros((rows, steps, len(policy.deviation)))
        self.times = np.zeros(rows, np.int64)

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Draws the noise of an episode."""
        self.draws[row] = rng.standard_normal(self.draws.shape[1:])
        self.times[row] = 0

    def act(self, observations: NDArray[np.float32]) -> Array:
        """Actions in (-1, 1)."""
        draws = self.draws[np.arange(len(self.times)), self.times]
        self.times += 1
        return np.tanh(self.policy.means(observations) + self.noise * draws)


class Uniform:
    """Rows that act at random."""

    def __init__(self, rows: int, steps: int, size: int) -> None:
        self.draws = np.zeros((rows, steps, size))
        self.times = np.zeros(rows, np.int64)

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Draws all actions of an episode."""
        self.draws[row] = rng.uniform(-1, 1, self.draws.shape[1:])
        self.times[row] = 0

    def act(self, observations: NDArray[np.float32]) -> Array:  # noqa: ARG002
        """Actions in [-1, 1]."""
        draws = self.draws[np.arange(len(self.times)), self.times]
        self.times += 1
        return draws


SIZES = {"hopper": 3, "halfcheetah": 6, "walker2d": 6}  # of actions


def crew(body: str, name: str, steps: int, noise: float = 1.0) -> Callable[[int], Crew]:
    """Makes the rows of a policy, or of "random"."""
    if name == "random":
        return lambda rows: Uniform(rows, steps, SIZES[body])
    return lambda rows: Trained(policies()[f"{body}/{name}"], rows, steps, noise)


def make_for(card: Card, directory: Path, progress: Progress | None = None) -> Path:
    """The file of a card's data set, made in `directory`."""
    if card.id not in recipes():
        raise unknown("recipe", card.id, recipes())
    recipe, environment = recipes()[card.id], card.environment
    assert environment is not None
    total = sum(rows for _, rows in recipe.parts)
    parts = []
    for number, (name, rows) in enumerate(recipe.parts):
        before = sum(rows for _, rows in recipe.parts[:number])

        def advance(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        behaviours = crew(recipe.body, name, environment.max_episode_steps)
        parts.append(collect_rows(environment, behaviours, rows, (SEED, number), advance))
    return save(joined(parts), directory / f"{card.id}.npz")


def measure_references(
    environment: Environment, body: str, episodes: int = 100
) -> tuple[Array, Array]:
    """Returns of random actions and of the expert without noise, from starts of their own."""
    steps = environment.max_episode_steps
    random = play(environment, crew(body, "random", steps), episodes)
    return random, play(environment, crew(body, "expert", steps, noise=0.0), episodes)


def play(environment: Environment, behaviours: Callable[[int], Crew], episodes: int) -> Array:
    """Returns of the first episodes of a behaviour, whose starts are none of a data set's."""
    rows = episodes * environment.max_episode_steps
    made = collect_rows(environment, behaviours, rows, (REFERENCE_SEED, 0))
    return returns(made)[:episodes]
