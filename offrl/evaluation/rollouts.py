"""Plays whole episodes with a policy, many environments at a time.

Episode i of a run starts from a seed that depends on the run's seed, the protocol's evaluation seed
and i alone: every evaluation of a run and every algorithm with that seed meets the same starts, and
neither the number of environments nor the number of replicas changes a return.
"""

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from offrl.data.card import Environment
from offrl.errors import InputError
from offrl.learning.learner import Policy
from offrl.learning.streams import spawn_seed

WIDTH = 20  # environments per replica where each is an object of its own (some 10 MB for a maze)


class Diverged(RuntimeError):
    """Training or acting met a number that is not finite; the message says which and when."""


@dataclass(frozen=True)
class Episodes:
    """Undiscounted returns (R, episodes) and lengths (R, episodes) in steps."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]


def make(environment: Environment) -> gymnasium.Env[Any, Any]:
    """One environment of a card. Raises InputError where Gymnasium does not know it."""
    module, _, _ = environment.id.rpartition(":")
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            # gymnasium-robotics tells everyone who imports it about the rewards of Adroit tasks.
            importlib.import_module(module or "gymnasium")
        with warnings.catch_warnings():
            # D4RL's scores need the v4 tasks, and Gymnasium says of each that v5 is out.
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
    # gymnasium-robotics 1.4 leaves the file of each maze behind for ever.
    if maze_file := getattr(env.unwrapped, "tmp_xml_file_path", None):
        Path(maze_file).unlink(missing_ok=True)
    return env


def _native(environment: Environment) -> bool:
    """Whether the environment simulates many episodes by itself. It has been made once before."""
    return gymnasium.spec(environment.id.rpartition(":")[2]).vector_entry_point is not None


def _make_vector(environment: Environment, count: int) -> VectorEnv[Any, Any, Any]:
    if _native(environment):
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
            f"observation_keys of the data set's card asks for {', '.join(sorted(lacking))}"
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
    # A copy, since simulators use their buffer again and a policy may keep what it was given.
    return np.array(observations, dtype=np.float32).reshape(len(observations), -1)


class Evaluator:
    """Plays the evaluation episodes of R runs; the environments are made once and used again.

    Args:
        environment: the card's simulator.
        seeds: the seed of each run (replica).
        episodes: E, per run and evaluation.
        seed: the protocol's evaluation seed.
        device: where the policy lives.
    """

    def __init__(
        self,
        environment: Environment,
        seeds: Sequence[int],
        episodes: int,
        seed: int,
        device: torch.device | str = "cpu",
    ):
        self.keys = environment.observation_keys
        self.device = device
        self.starts = [
            [spawn_seed(run, "evaluation episode", seed, i) for i in range(episodes)]
            for run in seeds
        ]
        self.episodes = episodes
        make(environment).close()  # imports its module, and says so where it is unknown
        self.width = episodes if _native(environment) else min(episodes, WIDTH)
        self.envs = _make_vector(environment, len(seeds) * self.width)

    def __call__(self, policy: Policy) -> Episodes:
        """Returns and lengths of the episodes that `policy` plays; the same starts every time."""
        R, W, E = len(self.starts), self.width, self.episodes
        returns, lengths = np.zeros((R, E)), np.zeros((R, E), dtype=np.int64)
        playing = np.tile(np.arange(W), (R, 1))  # the episode that each environment plays
        upcoming = np.full(R, W)
        # VectorEnv's annotations know one seed only; its environments take one each.
        reset: Callable[..., Any] = self.envs.reset
        observations, _ = reset(seed=[s for row in self.starts for s in row[:W]])
        totals, steps = np.zeros((R, W)), np.zeros((R, W), dtype=np.int64)
        policy.begin(torch.ones(R, W, dtype=torch.bool, device=self.device))
        while (playing < E).any():
            states = torch.from_numpy(flatten(observations, self.keys)).to(self.device)
            actions = policy.act(states.view(R, W, -1)).flatten(0, 1).cpu().numpy()
            if not np.isfinite(actions).all():
                raise Diverged("the policy's action is not finite in evaluation")
            observations, rewards, terminations, truncations, _ = self.envs.step(actions)
            totals += rewards.reshape(R, W)
            earned = torch.as_tensor(rewards, dtype=torch.float32, device=self.device)
            policy.reward(earned.view(R, W))
            steps += 1
            done = (terminations | truncations).reshape(R, W)
            if not done.any():
                continue
            seeds: list[int | None] = [None] * (R * W)
            for r, w in np.argwhere(done):
                if playing[r, w] < E:
                    returns[r, playing[r, w]] = totals[r, w]
                    lengths[r, playing[r, w]] = steps[r, w]
                # An environment without an episode left idles on from a start that does not count.
                playing[r, w], upcoming[r] = upcoming[r], upcoming[r] + 1
                seeds[r * W + w] = self.starts[r][min(playing[r, w], E - 1)]
            totals[done], steps[done] = 0, 0
            if (playing < E).any():
                observations, _ = reset(seed=seeds, options={"reset_mask": done.ravel()})
                policy.begin(torch.as_tensor(done, device=self.device))
        return Episodes(returns, lengths)

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()
