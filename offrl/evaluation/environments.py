"""Simulators as their cards describe them."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from offrl.data.card import Environment
from offrl.errors import InputError


def make(environment: Environment) -> gymnasium.Env[Any, Any]:
    """One environment of a card. Raises InputError where Gymnasium cannot make it.

    Raises Untrusted where it is code that the card may not name.
    """
    environment.check_code()
    module, _, _ = environment.id.rpartition(":")
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            # gymnasium-robotics prints a notice on the rewards of Adroit tasks when imported.
            importlib.import_module(module or "gymnasium")
        with warnings.catch_warnings():
            # D4RL's scores need the v4 tasks; Gymnasium warns of each that v5 is out.
            warnings.filterwarnings("ignore", message=r".*is out of date.*")
            env: gymnasium.Env[Any, Any] = gymnasium.make(
                environment.id,
                max_episode_steps=environment.max_episode_steps,
                disable_env_checker=True,
                **environment.kwargs,
            )
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise InputError(
            f"environment {environment.id!r} of the data set's card cannot be made: {error}"
        ) from None
    # gymnasium-robotics 1.4 never removes the file that it writes for a maze.
    if maze_file := getattr(env.unwrapped, "tmp_xml_file_path", None):
        Path(maze_file).unlink(missing_ok=True)
    return env


def make_vector(environment: Environment, count: int) -> VectorEnv[Any, Any, Any]:
    """`count` environments of a card behind Gymnasium's vector interface."""
    if native(environment):
        return gymnasium.make_vec(
            environment.id.rpartition(":")[2],
            count,
            "vector_entry_point",
            wrappers=(),
            max_episode_steps=environment.max_episode_steps,
            **environment.kwargs,
        )
    return SyncVectorEnv(
        [lambda: make(environment)] * count, copy=False, autoreset_mode=AutoresetMode.DISABLED
    )


def native(environment: Environment) -> bool:
    """Whether the environment simulates many episodes by itself; `make` must have run before."""
    return gymnasium.spec(environment.id.rpartition(":")[2]).vector_entry_point is not None


def spaces(environment: Environment) -> tuple[int, int, float]:
    """The sizes of observations (flattened) and of actions, and the bound of every action.

    Raises InputError unless actions lie in [-bound, bound] in every dimension.
    """
    env = make(environment)
    observation, _ = env.reset(seed=0)
    space = env.action_space
    env.close()
    one = (
        {key: np.asarray(value)[None] for key, value in observation.items()}
        if isinstance(observation, dict)
        else np.asarray(observation)[None]
    )
    lacking = set(environment.observation_keys) - set(one) if isinstance(one, dict) else set()
    if lacking:
        raise InputError(
            f"environment {environment.id!r}: its observations hold {', '.join(sorted(one))}, but "
            f"observation_keys of the data set's card names {', '.join(sorted(lacking))}"
        )
    if not isinstance(space, gymnasium.spaces.Box):
        raise InputError(
            f"environment {environment.id!r} has {space}; offrl's algorithms act in a Box"
        )
    bound = float(np.max(space.high))
    if not (np.all(space.high == bound) and np.all(space.low == -bound) and np.isfinite(bound)):
        raise InputError(
            f"environment {environment.id!r} has actions in [{space.low}, {space.high}]; expected "
            "the same symmetric bounds in every dimension, so wrap it in RescaleAction"
        )
    return flatten(one, environment.observation_keys).shape[1], int(space.shape[0]), bound


def flatten(observations: Any, keys: Sequence[str]) -> NDArray[np.float32]:
    """Float32 observations (n, dimensions); a dict's entries in the card's order, or sorted."""
    if isinstance(observations, dict):
        entries = [observations[key] for key in keys or sorted(observations)]
        parts = [np.reshape(entry, (len(entry), -1)) for entry in entries]
        return np.concatenate(parts, 1).astype(np.float32)
    # A copy: simulators reuse their buffers, and a policy may keep its input.
    return np.array(observations, dtype=np.float32).reshape(len(observations), -1)
