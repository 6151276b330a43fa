"""Plays whole episodes with a policy, many environments at a time.

Episode i of a run starts from a seed that depends on the run's seed, the protocol's evaluation seed
and i alone: every evaluation of a run and every algorithm with that seed has the same starts, and
neither the number of environments nor the number of replicas changes a return.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.data.card import Environment
from offrl.data.observations import flatten
from offrl.errors import InputError
from offrl.evaluation.environments import make, make_vector, native, simulator_errors
from offrl.learning.policy import Policy
from offrl.learning.streams import spawn_seed

WIDTH = 20  # environments per replica where each is an object of its own (some 10 MB for a maze)


class Diverged(RuntimeError):
    """A number of training or acting is not finite; the message says which, and where."""


@dataclass(frozen=True)
class Episodes:
    """Undiscounted returns (R, episodes) and lengths (R, episodes) in steps."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @classmethod
    def of_parts(cls, parts: Sequence["Episodes"]) -> "Episodes":
        """All episodes, from those of each part of an evaluation in turn."""
        return cls(
            np.concatenate([part.returns for part in parts], 1),
            np.concatenate([part.lengths for part in parts], 1),
        )


@dataclass(frozen=True)
class Part:
    """One of the parts into which an evaluation is cut, each for a process of its own."""

    number: int = 0
    of: int = 1

    def share(self, count: int) -> range:
        """This part's share of `count` things in a row."""
        return range(count * self.number // self.of, count * (self.number + 1) // self.of)


WHOLE = Part()


class Evaluator:
    """Plays the evaluation episodes of R runs; the environments are made once and used again.

    Args:
        environment: the card's simulator.
        seeds: the seed of each run (replica).
        episodes: E, per run and evaluation.
        seed: the protocol's evaluation seed.
        device: where the policy lives.
        part: which of the episodes to play. The policy is called with rows for all of them, in
            which those of other parts are zeros, so that its numbers are those of a whole
            evaluation. Where environments play several episodes each, the first part has all.
    """

    def __init__(
        self,
        environment: Environment,
        seeds: Sequence[int],
        episodes: int,
        seed: int,
        device: torch.device | str = "cpu",
        part: Part = WHOLE,
    ):
        self.environment = environment
        self.keys = environment.observation_keys
        self.device = device
        self.episodes = episodes
        self.seed = seed
        self.starts = self._starts(seeds)
        with simulator_errors(environment, "closed"):
            make(environment).close()  # imports its module; raises InputError where there is none
        self.width = episodes if native(environment) else min(episodes, WIDTH)
        self.mine = part.share(self.width)  # the environments, of each replica, that step here
        if self.width < episodes:
            self.mine = range(0 if part.number else self.width)
        self.envs = make_vector(environment, len(seeds) * len(self.mine)) if self.mine else None

    def __call__(self, policy: Policy) -> Episodes:
        """Returns and lengths of this part's episodes under `policy`; always the same starts."""
        R, W, E = len(self.starts), self.width, self.episodes
        mine, M = slice(self.mine.start, self.mine.stop), len(self.mine)
        returns, lengths = np.zeros((R, E)), np.zeros((R, E), dtype=np.int64)
        played = mine if W == E else slice(0, E if M else 0)
        if self.envs is None:
            return Episodes(returns[:, played], lengths[:, played])
        playing = np.tile(np.array(self.mine), (R, 1))  # the episode that each environment plays
        upcoming = np.full(R, W)
        # VectorEnv is annotated with one seed; its environments take one each.
        reset: Callable[..., Any] = self.envs.reset
        with simulator_errors(self.environment, "reset"):
            observations, _ = reset(seed=[s for row in self.starts for s in row[mine]])
        totals, steps = np.zeros((R, M)), np.zeros((R, M), dtype=np.int64)
        policy.begin(self._rows(torch.ones(R, M, dtype=torch.bool)))
        while (playing < E).any():
            states = torch.from_numpy(flatten(observations, self.keys)).view(R, M, -1)
            actions = policy.act(self._rows(states))[:, mine].flatten(0, 1).cpu().numpy()
            if not np.isfinite(actions).all():
                seen = "" if torch.isfinite(states).all() else ", nor is an observation before it"
                raise Diverged(f"the policy's action is not finite in evaluation{seen}")
            with simulator_errors(self.environment, "stepped"):
                observations, rewards, terminations, truncations, _ = self.envs.step(actions)
            totals += rewards.reshape(R, M)
            earned = torch.as_tensor(rewards, dtype=torch.float32)
            policy.reward(self._rows(earned.view(R, M)))
            steps += 1
            self._check_lengths(steps[playing < E])
            done = (terminations | truncations).reshape(R, M)
            if not done.any():
                continue
            seeds: list[int | None] = [None] * (R * M)
            for r, m in np.argwhere(done):
                if playing[r, m] < E:
                    returns[r, playing[r, m]] = totals[r, m]
                    lengths[r, playing[r, m]] = steps[r, m]
                # Environments with no episode left keep stepping; what they return is discarded.
                playing[r, m], upcoming[r] = upcoming[r], upcoming[r] + 1
                seeds[r * M + m] = self.starts[r][min(playing[r, m], E - 1)]
            totals[done], steps[done] = 0, 0
            if (playing < E).any():
                with simulator_errors(self.environment, "reset"):
                    observations, _ = reset(seed=seeds, options={"reset_mask": done.ravel()})
                policy.begin(self._rows(torch.as_tensor(done)))
        return Episodes(returns[:, played], lengths[:, played])

    def _rows(self, values: Tensor) -> Tensor:
        """Values (R, M, ...) of this part's environments, in the rows (R, W, ...) of all."""
        if len(self.mine) < self.width:
            rows = values.new_zeros(len(values), self.width, *values.shape[2:])
            rows[:, self.mine.start : self.mine.stop] = values
            values = rows
        return values.to(self.device)

    def of(self, seeds: Sequence[int]) -> "Evaluator":
        """The same for as many other runs, in the same environments."""
        other = copy.copy(self)
        other.starts = self._starts(seeds)
        return other

    def _starts(self, seeds: Sequence[int]) -> list[list[int]]:
        """The seed of each episode, of each run."""
        return [
            [spawn_seed(run, "evaluation episode", self.seed, i) for i in range(self.episodes)]
            for run in seeds
        ]

    def _check_lengths(self, steps: NDArray[np.int64]) -> None:
        """Raises InputError for an episode that goes on beyond the environment's limit."""
        limit = self.environment.max_episode_steps
        if (steps > limit).any():
            raise InputError(
                f"environment {self.environment.id!r} of the data set's card plays on at step "
                f"{steps.max()} of an episode, beyond its max_episode_steps of {limit}; correct "
                "it, so that an episode is truncated there and starts anew when it is reset"
            )

    def close(self) -> None:
        """Closes the environments."""
        if self.envs is not None:
            with simulator_errors(self.environment, "closed"):
                self.envs.close()
