"""How policies act in evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Policy(Protocol):
    """Acts for all replicas. Evaluation calls `begin`, then `act` and `reward` at every step."""

    @property
    def mode(self) -> str:
        """How it acts, for the score's record: `deterministic` or `stochastic`."""
        ...

    def act(self, observations: Tensor) -> Tensor:
        """Actions of shape (R, E, action_dim) for observations (R, E, observation_dim).

        Discrete ones are int64 (R, E).
        """
        ...

    def begin(self, starts: Tensor) -> None:
        """Called before `act` with the environments where an episode begins, bool (R, E)."""
        ...

    def reward(self, rewards: Tensor) -> None:
        """Called with the rewards (R, E) of the last actions."""
        ...


@dataclass(frozen=True)
class StatelessPolicy:
    """A policy that is a function of the observation alone."""

    function: Callable[[Tensor], Tensor]
    mode: str = "deterministic"

    def act(self, observations: Tensor) -> Tensor:
        """Actions of shape (R, E, action_dim) for observations (R, E, observation_dim)."""
        with torch.no_grad():
            return self.function(observations)

    def begin(self, starts: Tensor) -> None:
        """No memory: does nothing."""

    def reward(self, rewards: Tensor) -> None:
        """No memory: does nothing."""
