"""Plays episodes with behaviours of a maker's own, and keeps them as columns."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from offrl.data.card import Environment
from offrl.data.columns import NAMES, Columns
from offrl.data.observations import flatten
from offrl.evaluation.environments import as_batch, make, make_vector
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


class Crew(Protocol):
    """Behaviours of many episodes at once, one a row."""

    def begin(self, row: int, rng: np.random.Generator) -> None:
        """Starts a row's episode, all of whose numbers are drawn from the generator."""

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Actions (N, action_dim) of all rows for flattened observations (N, observation_dim)."""


MOST_ROWS = 64
ACTION_GRID = 1024  # actions are multiples of 1 / 1024: float32 holds them, and no rounding is seen


def collect_rows(
    environment: Environment,
    crew: Callable[[int], Crew],
    transitions: int,
    key: Sequence[int],
    progress: Callable[[int], None] = lambda _: None,
) -> Columns:
    """So many transitions of whole episodes, the last of which is cut there as a truncation.

    Behaviours see observations as the columns hold them, and their actions are rounded to
    multiples of 2^-10 before they are stepped, so that neither the number of rows nor the last
    bits of an exponential decide what is collected.

    Args:
        environment: a card's simulator, of continuous actions.
        crew: makes the behaviours of so many rows.
        transitions: the number of rows of the columns.
        key: of whole numbers, the seed first; episode i starts from a state, and its behaviour
            draws numbers, that depend on this and i alone.
        progress: called with the number of transitions that are there.
    """
    make(environment).close()  # registers it
    rows = min(MOST_ROWS, -(-transitions // environment.max_episode_steps))
    envs, behaviours = make_vector(environment, rows), crew(rows)
    recorder = _Recorder(rows, environment.max_episode_steps, transitions)

    def flat(given: Any) -> NDArray[np.float32]:
        return flatten(given, environment.observation_keys)

    def restart(over: NDArray[np.bool_]) -> NDArray[np.float32]:
        seeds: list[int | None] = [None] * rows
        for row in map(int, np.flatnonzero(over)):
            sequence = np.random.SeedSequence(key[0], spawn_key=(*key[1:], recorder.begin(row)))
            start, own = sequence.spawn(2)
            seeds[row] = int(start.generate_state(1)[0])
            behaviours.begin(row, np.random.default_rng(own))
        given, _ = envs.reset(seed=seeds, options={"reset_mask": over})  # type: ignore[arg-type]
        return flat(given)

    observations = restart(np.ones(rows, np.bool_))
    while not recorder.complete():
        actions = np.rint(behaviours.act(observations) * ACTION_GRID) / ACTION_GRID
        given, rewards, terminations, truncations, _ = envs.step(actions)
        successors = flat(given)
        recorder.step(observations, actions, rewards, successors, terminations, truncations)
        over = terminations | truncations
        if over.any():
            progress(min(recorder.finished, transitions))
            successors = restart(over)
        observations = successors
    envs.close()
    progress(transitions)
    return recorder.columns()


@dataclass
class _Episode:
    """What a row has recorded so far: views of its part of the buffers, then copies."""

    arrays: list[NDArray[Any]]
    length: int = 0
    over: bool = False


class _Recorder:
    """Episodes by number, recorded row by row in lockstep."""

    def __init__(self, rows: int, longest: int, transitions: int) -> None:
        self.rows, self.longest, self.transitions = rows, longest, transitions
        self.episodes: list[_Episode] = []
        self.running = [_Episode([]) for _ in range(rows)]
        self.buffers: list[NDArray[Any]] = []
        self.times = np.zeros(rows, np.int64)
        self.finished = 0  # transitions of episodes that are over

    def begin(self, row: int) -> int:
        """The number of the episode that begins in a row."""
        self.running[row] = _Episode([])
        self.episodes.append(self.running[row])
        self.times[row] = 0
        return len(self.episodes) - 1

    def step(self, *values: NDArray[Any]) -> None:
        """Records what came of a step: observations to truncations, as `Columns` has them."""
        kinds = (np.float32,) * 4 + (np.bool_,) * 2
        if not self.buffers:
            self.buffers = [
                np.zeros((self.rows, self.longest, *value.shape[1:]), kind)
                for value, kind in zip(values, kinds, strict=True)
            ]
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer[np.arange(self.rows), self.times] = value
        self.times += 1
        for row in np.flatnonzero(values[4] | values[5]):
            self._keep(int(row), True)

    def _keep(self, row: int, over: bool) -> None:
        episode = self.running[row]
        episode.length, episode.over = int(self.times[row]), over
        episode.arrays = [buffer[row, : episode.length].copy() for buffer in self.buffers]
        if over:
            self.finished += episode.length

    def complete(self) -> bool:
        """Whether the first episodes, without a gap, have all transitions that are wanted."""
        if self.finished + int(self.times.sum()) < self.transitions:
            return False
        lengths = {id(e): int(t) for e, t in zip(self.running, self.times, strict=True)}
        total = 0
        for episode in self.episodes:
            total += episode.length if episode.over else lengths[id(episode)]
            if total >= self.transitions:
                return True
            if not episode.over:
                return False
        return False

    def columns(self) -> Columns:
        """The transitions, the last of which ends an episode."""
        for row, episode in enumerate(self.running):
            if not episode.over:
                self._keep(row, False)
        needed = int(
            np.searchsorted(np.cumsum([e.length for e in self.episodes]), self.transitions)
        )
        chosen = [e.arrays for e in self.episodes[: needed + 1]]
        parts = [np.concatenate(arrays)[: self.transitions] for arrays in zip(*chosen, strict=True)]
        named: dict[str, Any] = dict(zip(NAMES, parts, strict=True))
        columns = Columns(**named)
        columns.truncations[-1] |= not columns.terminations[-1]
        return columns


def joined(parts: Iterable[Columns]) -> Columns:
    """The columns of several parts, one after another."""
    arrays = [part.arrays() for part in parts]
    joint: dict[str, Any] = {name: np.concatenate([a[name] for a in arrays]) for name in NAMES}
    return Columns(**joint)


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
