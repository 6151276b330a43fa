"""Makes steps of a data set again from its observations, and computes its rewards again.

A simulator takes part whose state follows from what it observes: one whose `state` is the
observation, as Gymnasium's classic control has, or one on MuJoCo whose observation is its qpos and
qvel, but for up to two positions along which it moves freely (such as a runner's x), or one that
`Shows` its state in other terms. Whether it does is tried, not assumed: from one observation, steps
after different resets and from different places have to agree.

A simulator whose state does not follow may still say what a step pays: see `Pays`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from numpy.typing import NDArray

from offrl.data.card import Environment
from offrl.data.columns import spaced
from offrl.data.dataset import Dataset
from offrl.data.observations import flatten
from offrl.errors import InputError
from offrl.evaluation.environments import as_batch, make, simulator_errors
from offrl.evaluation.replay import TRIED, Errors, differ, errors, rewards_lag, unrounded
from offrl.progress import Progress

ROWS = 250  # steps that are made again, and as many ends of episodes at most
PAID = 100_000  # rows whose rewards are computed again
FREE = 2  # positions that an observation may lack, as nothing depends on them

NO_ROWS = np.zeros(0, np.int64)

Array = NDArray[Any]
Bools = NDArray[np.bool_]


@runtime_checkable
class Pays(Protocol):
    """A simulator that knows from observations alone what steps pay, or between which bounds."""

    def rewards_between(
        self, observations: Array, actions: Array, next_observations: Array
    ) -> tuple[Array, Array]:
        """The least and the largest reward (N,) of each of N steps."""


@runtime_checkable
class Shows(Protocol):
    """A simulator whose flat observation decides its state."""

    def set_observation(self, observation: Array) -> None:
        """Puts it into the state of an observation (observation_dim,)."""


@dataclass(frozen=True)
class Remade:
    """Steps of a data set and those of its simulator.

    Attributes:
        rows: (N,) of the steps.
        compared: (M,), those that end the process neither in the data nor in the simulator: what is
            observed after an end may be anything.
        states: how far the observations after these are apart.
        states_apart: which of these differ by more than rounding explains.
        rewards: how far the rewards are apart; None where the simulator's do not follow from
            observation and action.
        rewards_apart: which of the rows differ by more than rounding explains.
        missing: rows that are no terminations, though the simulator terminates there.
        extra: rows that are terminations, though the simulator goes on there.
    """

    rows: NDArray[np.int64]
    compared: NDArray[np.int64]
    states: Errors
    states_apart: NDArray[np.int64]
    rewards: Errors | None
    rewards_apart: NDArray[np.int64]
    missing: NDArray[np.int64]
    extra: NDArray[np.int64]


@dataclass(frozen=True)
class Paid:
    """Rewards that were computed again: the rows, and those that lie outside their bounds."""

    rows: NDArray[np.int64]
    apart: NDArray[np.int64]
    largest: float  # distance of a reward from its bounds


class _Simulator:
    """A simulator that is set to observations."""

    def __init__(self, environment: Environment):
        self.environment = environment
        self.env: gymnasium.Env[Any, Any] = make(environment)
        self.held: Any = self.env.unwrapped
        first = self.flat(self.env.reset(seed=1)[0])
        self.shift = 0.0
        self.free = 0
        self.by_state = self._is(getattr(self.held, "state", None), first)
        if self.by_state or isinstance(self.held, Shows):
            return
        held: Any = getattr(self.held, "data", None)
        if not callable(getattr(self.held, "set_state", None)) or not hasattr(held, "qpos"):
            raise InputError("it has neither a state that is its observation nor set_state")
        state = np.concatenate([held.qpos, held.qvel])
        self.free = len(state) - len(first)
        if not 0 <= self.free <= FREE or not self._is(state[self.free :], first):
            raise InputError("its observation does not hold its state")

    def flat(self, observation: Any) -> Array:
        """An observation as the data set has it, (observation_dim,)."""
        return np.asarray(flatten(as_batch(observation), self.environment.observation_keys)[0])

    @staticmethod
    def _is(state: Any, observation: Array) -> bool:
        try:
            numbers = np.asarray(state, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            return False
        return numbers.shape == observation.shape and np.allclose(numbers, observation, atol=1e-6)

    def step(self, observation: Array, action: Any, seed: int = 0) -> tuple[Array, float, bool]:
        """What follows on an observation and an action: observation, reward, terminated."""
        self.env.reset(seed=seed)
        numbers = observation.astype(np.float64)
        if self.by_state:
            self.held.state = tuple(numbers.tolist())
        elif isinstance(self.held, Shows):
            self.held.set_observation(numbers)
        else:
            size = self.held.data.qpos.size
            state = np.concatenate([np.full(self.free, self.shift), numbers])
            self.held.set_state(state[:size], state[size:])
        after, reward, terminated, _, _ = self.env.step(action)
        return self.flat(after), float(reward), bool(terminated)

    def steps(self, observations: Array, actions: Array, seed: int = 0) -> tuple[Array, ...]:
        """The same of each of several, stacked."""
        made = [self.step(o, a, seed) for o, a in zip(observations, actions, strict=True)]
        after, rewards, ended = (np.array(part) for part in zip(*made, strict=True))
        return after, rewards, ended


def remake(
    dataset: Dataset, progress: Progress | None = None, suspects: NDArray[np.int64] = NO_ROWS
) -> Remade:
    """Steps of a data set made again in its card's simulator, from its observations.

    Half of the rows are spread over it, the others are ends of episodes; so many of `suspects`, at
    most, are made again besides.

    Raises InputError where the simulator's state does not follow from its observation, and
    Untrusted where it is code that the card may not name.
    """
    environment = dataset.card.environment
    assert environment is not None
    with simulator_errors(environment, "set to observations of the data and stepped"):
        simulator = _Simulator(environment)
        rows = np.union1d(_chosen(dataset), suspects[spaced(len(suspects), ROWS)])
        observations = dataset.observations[rows]
        actions = dataset.actions[rows]
        paid = _decides(simulator, observations, actions)
        calls: list[Callable[[], tuple[Array, ...]]] = [
            lambda: simulator.steps(observations, actions),
            lambda: simulator.steps(unrounded(observations, np.random.default_rng(0)), actions),
        ]
        made = []
        for done, call in enumerate(calls, start=1):
            made.append(call())
            if progress is not None:
                progress(done, len(calls))
        simulator.env.close()
    (after, rewards, ended), (other, other_rewards, _) = made
    terminal = dataset.terminations[rows]
    known = ~terminal & ~ended
    expected = dataset.next_observations[rows]
    size = 1e-4 * np.maximum(1.0, np.abs(expected)) + 10 * np.abs(after - other)
    apart = (np.abs(after - expected) > size).any(1) & known
    differing = differ(rewards, dataset.rewards[rows], np.abs(rewards - other_rewards))
    return Remade(
        rows=rows,
        compared=rows[known],
        states=errors(after[known], expected[known]) if known.any() else Errors(0.0, 0.0, 0.0),
        states_apart=rows[apart],
        rewards=errors(rewards[:, None], dataset.rewards[rows][:, None]) if paid else None,
        rewards_apart=rows[differing] if paid else rows[:0],
        missing=rows[ended & ~terminal],
        extra=rows[~ended & terminal],
    )


def _chosen(dataset: Dataset) -> NDArray[np.int64]:
    """Rows spread over a data set, and ends of episodes.

    Without those that have a column's largest or smallest number where others have it too, if that
    leaves some: simulators clip what they observe there.
    """
    ends = dataset.episode_starts + dataset.episode_lengths - 1
    spread = np.linspace(0, len(dataset) - 1, min(ROWS, len(dataset))).round().astype(np.int64)
    last = ends[np.linspace(0, len(ends) - 1, min(ROWS, len(ends))).round().astype(np.int64)]
    rows = np.union1d(spread, last)
    clipped = np.zeros(len(rows), np.bool_)
    for column in dataset.observations.T:
        for extreme in (column.min(), column.max()):
            if np.count_nonzero(column == extreme) > 1:
                clipped |= column[rows] == extreme
    return rows[~clipped] if (~clipped).sum() >= TRIED else rows


def _decides(simulator: _Simulator, observations: Array, actions: Array) -> bool:
    """Whether observation and action decide the reward too.

    Raises InputError where they do not decide the next observation.
    """
    observations, actions = observations[:TRIED], actions[:TRIED]
    first = simulator.steps(observations, actions)
    again = simulator.steps(observations, actions, seed=2)
    simulator.shift = 3.0
    elsewhere = simulator.steps(observations, actions) if simulator.free else first
    simulator.shift = 0.0
    for other in (again, elsewhere):
        if not np.allclose(first[0], other[0], rtol=1e-5, atol=1e-5):
            raise InputError("from one observation it takes different steps: it has a hidden state")
    if not all(np.allclose(first[1], o[1], rtol=1e-5, atol=1e-5) for o in (again, elsewhere)):
        return False
    return not rewards_lag(
        simulator.env, actions, simulator.flat, lambda o, action: simulator.step(o, action)[1]
    )


def pay(dataset: Dataset) -> Paid | None:
    """The rewards of a data set computed again; None where its simulator is not one that `Pays`."""
    environment = dataset.card.environment
    assert environment is not None
    env = make(environment)
    held = env.unwrapped
    if not isinstance(held, Pays):
        return None
    every = np.flatnonzero(~dataset.terminations)
    rows = every[spaced(len(every), PAID)]
    columns = (dataset.observations, dataset.actions, dataset.next_observations)
    with simulator_errors(environment, "computing rewards of the data"):
        low, high = held.rewards_between(*(column[rows] for column in columns))
    env.close()
    rewards = dataset.rewards[rows].astype(np.float64)
    size = 1e-4 * np.maximum(1.0, np.abs(rewards))
    off = np.maximum(low - rewards, rewards - high)
    return Paid(rows, rows[off > size], float(max(0.0, off.max())))
