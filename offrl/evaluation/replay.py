"""Replays steps that a source holds in the simulator of its card, and compares.

It shows whether data were made by the simulator that scores policies trained on them. A simulator
takes part that has, as Gymnasium's on MuJoCo have, `set_state(qpos, qvel)` and `data` with `qpos`
and `qvel`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from offrl.data.card import Card, Environment
from offrl.data.foreign import reading
from offrl.data.loader import Replays, loader_of
from offrl.data.steps import Steps
from offrl.errors import InputError
from offrl.evaluation.environments import make, simulator_errors

ROWS = 1000  # of each file
TRIED = 10  # steps, to see what rewards depend on

Array = NDArray[Any]


@dataclass(frozen=True)
class Errors:
    """The largest difference of a number of the state after a step, over steps."""

    median: float
    quantile_99: float
    maximum: float


@dataclass(frozen=True)
class Replay:
    """How far a simulator's steps are from those that a file holds.

    `rounding` is how far data of this very simulator would be, of positions and of velocities,
    because the file rounds states: its steps from the stored states, against those from states that
    round to them. None where the file holds double precision. `rewards` are the differences from
    the file's, of which `rewards_apart` are more than rounding explains, and `endings_apart` steps
    end the process in one of the two alone; None where the source has no rewards, those of rewards
    also where the simulator's depend on steps before.
    """

    file: str
    environment: str
    steps: int
    positions: Errors
    velocities: Errors
    rounding: tuple[Errors, Errors] | None
    note: str  # how the file's rows were read
    rewards: Errors | None = None
    rewards_apart: int | None = None
    endings_apart: int | None = None


def check_steps(card: Card, paths: Iterable[str | Path]) -> tuple[list[Replay], list[str]]:
    """Replays of those files of a card that hold steps, and notes on what cannot be replayed."""
    if card.environment is None:
        return [], []
    replays, notes = [], []
    for path in paths:
        steps = read_steps(card, Path(path))
        if steps is None:
            continue
        try:
            replays.append(replay(card.environment, steps, str(path)))
        except InputError as reason:  # the data are as they should be all the same
            notes.append(f"{path} holds states that were not replayed: {reason}")
    return replays, notes


def read_steps(card: Card, path: Path, most: int = ROWS) -> Steps | None:
    """Up to `most` steps of a file of a card; None where it holds no states."""
    loader = loader_of(card)
    if not isinstance(loader, Replays):
        return None
    with reading(path, f"{card.source.loader} data", "copy it again"):
        return loader.steps(path, card, most)


def replay(environment: Environment, steps: Steps, file: str = "") -> Replay:
    """The errors of a simulator's steps from the states of a source.

    Raises InputError where the simulator cannot be set to them, and Untrusted where it is code that
    the card may not name.
    """
    env = make(environment)
    simulator: Any = env.unwrapped
    where = f"environment {environment.id!r} of the data set's card"
    held = getattr(simulator, "data", None)
    if not callable(getattr(simulator, "set_state", None)) or not hasattr(held, "qpos"):
        raise InputError(f"{where} cannot be set to a state: it has no set_state, or no data.qpos")
    for name, stored in (("qpos", steps.qpos), ("qvel", steps.qvel)):
        if stored.shape[1] != getattr(simulator.data, name).size:
            raise InputError(
                f"{where} has {getattr(simulator.data, name).size} numbers of {name}, and the file "
                f"{stored.shape[1]}: they are of another model"
            )

    def step(qpos: Array, qvel: Array, action: Array) -> _After:
        env.reset(seed=0)
        simulator.set_state(qpos.astype(np.float64), qvel.astype(np.float64))
        _, reward, terminated, _, _ = env.step(action)
        return simulator.data.qpos.copy(), simulator.data.qvel.copy(), reward, terminated

    with simulator_errors(environment, "set to states of the data and stepped"):
        found = _steps(step, steps.qpos, steps.qvel, steps.actions)
        lagging = rewards_lag(
            env,
            steps.actions,
            lambda _: (simulator.data.qpos.copy(), simulator.data.qvel.copy()),
            lambda state, action: float(step(state[0], state[1], action)[2]),
        )
        rounding = None
        if steps.qpos.dtype.itemsize < 8:
            rng = np.random.default_rng(0)
            qpos, qvel = unrounded(steps.qpos, rng), unrounded(steps.qvel, rng)
            other = _steps(step, qpos, qvel, steps.actions)
            rounding = (
                errors(found[0], other[0].astype(steps.qpos.dtype)),
                errors(found[1], other[1].astype(steps.qvel.dtype)),
            )
    env.close()
    paid: dict[str, Any] = {}
    if steps.rewards is not None and steps.terminations is not None:
        paid["endings_apart"] = int((found[3] != steps.terminations).sum())
        if not lagging:
            rounded = np.abs(found[2] - other[2]) if rounding else 0.0
            paid["rewards"] = errors(found[2][:, None], steps.rewards[:, None])
            paid["rewards_apart"] = int(differ(found[2], steps.rewards, rounded).sum())
    return Replay(
        file=file,
        environment=environment.id.rpartition(":")[2],
        steps=len(steps),
        positions=errors(found[0], steps.next_qpos),
        velocities=errors(found[1], steps.next_qvel),
        rounding=rounding,
        note=steps.note,
        **paid,
    )


_After = tuple[Array, Array, Any, Any]  # positions, velocities, reward, whether it terminated


def _steps(
    step: Callable[[Array, Array, Array], _After], qpos: Array, qvel: Array, actions: Array
) -> tuple[Array, Array, Array, Array]:
    """The states after every step, its rewards, and whether it ended the process."""
    after = [step(*row) for row in zip(qpos, qvel, actions, strict=True)]
    positions, velocities, rewards, ended = (np.array(part) for part in zip(*after, strict=True))
    return positions, velocities, rewards, ended


def rewards_lag(
    env: gymnasium.Env[Any, Any],
    actions: Array,
    state: Callable[[Any], Any],
    reward: Callable[[Any, Any], float],
) -> bool:
    """Whether a simulator's rewards depend on steps before the state that it is set to.

    Gymnasium's ants are paid from where MuJoCo last computed the torso, which was in the course of
    the step before.

    Args:
        env: the simulator, which is played on from a reset.
        actions: (N, ...), of which the first are taken.
        state: the state in which the simulator is; it gets the last observation.
        reward: that of an action in such a state, to which the simulator is set.
    """
    observation, _ = env.reset(seed=0)
    states, rewards = [], []
    for action in actions[:TRIED]:
        states.append(state(observation))
        observation, paid, terminated, truncated, _ = env.step(action)
        rewards.append(float(paid))
        if terminated or truncated:
            break
    alone = [reward(*begun) for begun in zip(states, actions, strict=False)]
    return bool(differ(np.array(alone), np.array(rewards), 0.0).any())


def differ(rewards: Array, expected: Array, rounded: Array | float) -> NDArray[np.bool_]:
    """Which rewards differ by more than rounding explains.

    Args:
        rewards: (N,), as computed again.
        expected: (N,), as stored in float32.
        rounded: by how much rounding of states moved them, (N,) or one for all.
    """
    size = 1e-4 * np.maximum(1.0, np.abs(expected))
    return np.asarray(np.abs(rewards - expected) > size + 10 * rounded)


def unrounded(stored: Array, rng: np.random.Generator) -> Array:
    """Numbers that would be stored as these are."""
    half = np.spacing(np.abs(stored)).astype(np.float64) / 2
    return stored.astype(np.float64) + half * rng.uniform(-1.0, 1.0, stored.shape)


def errors(found: Array, expected: Array) -> Errors:
    """The errors of steps (N, numbers)."""
    apart = np.abs(found - expected).max(1)
    return Errors(
        median=float(np.median(apart)),
        quantile_99=float(np.quantile(apart, 0.99)),
        maximum=float(apart.max()),
    )
