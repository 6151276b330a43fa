"""Plays episodes with behaviours of a maker's own, and keeps them as columns."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.card import Environment
from offrl.data.columns import Columns
from offrl.data.observations import flatten
from offrl.evaluation.environments import as_batch, make
from offrl.progress import Progress

# An action for a flattened observation (observation_dim,), with the episode's generator.
Behaviour = Callable[[NDArray[np.float32], np.random.Generator], Any]


def collect(
    environment: Environment,
    behaviours: Sequence[Behaviour],
    seed: int,
    progress: Progress | None = None,
) -> Columns:
    """One episode for each of the behaviours, in their order.

    Args:
        environment: a card's simulator.
        behaviours: one for each episode.
        seed: episode i starts from a state, and its behaviour draws numbers, that depend on this
            and i alone.
        progress: called with the episodes done and all.
    """
    env = make(environment)
    rows: list[tuple[Any, ...]] = []

    def flat(observation: Any) -> NDArray[np.float32]:
        batch = flatten(as_batch(observation), environment.observation_keys)
        return batch.reshape(-1)

    for number, behaviour in enumerate(behaviours):
        start, own = np.random.SeedSequence(seed, spawn_key=(number,)).spawn(2)
        rng = np.random.default_rng(own)
        given, _ = env.reset(seed=int(start.generate_state(1)[0]))
        observation, over = flat(given), False
        while not over:
            action = behaviour(observation, rng)
            given, reward, terminated, truncated, _ = env.step(action)
            successor = flat(given)
            rows.append((observation, action, reward, successor, terminated, truncated))
            observation, over = successor, terminated or truncated
        if progress is not None:
            progress(number + 1, len(behaviours))
    env.close()
    observations, actions, rewards, successors, terminations, truncations = zip(*rows, strict=True)
    dtype: Any = np.int64 if np.asarray(actions[0]).dtype.kind in "iu" else np.float32
    return Columns(
        observations=np.array(observations, np.float32),
        actions=np.array(actions, dtype),
        rewards=np.array(rewards, np.float32),
        next_observations=np.array(successors, np.float32),
        terminations=np.array(terminations, np.bool_),
        truncations=np.array(truncations, np.bool_),
    )


def save(made: Columns, path: Path) -> Path:
    """Writes columns as .npz under the names that the cards of made data sets read; its path."""
    np.savez(
        path,
        obs=made.observations,
        action=made.actions,
        reward=made.rewards,
        next_obs=made.next_observations,
        done=made.terminations,
        truncated=made.truncations,
    )
    return path


def mean_return(environment: Environment, behaviour: Behaviour, episodes: int, seed: int) -> float:
    """The mean return of a behaviour over episodes from starts of their own."""
    return float(returns(collect(environment, [behaviour] * episodes, seed + 1)).mean())


def returns(columns: Columns) -> NDArray[np.float64]:
    """The undiscounted return of each episode."""
    ends = np.flatnonzero(columns.terminations | columns.truncations)
    totals = np.cumsum(columns.rewards, dtype=np.float64)[ends]
    return np.diff(totals, prepend=0.0)
