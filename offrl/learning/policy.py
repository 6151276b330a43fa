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
        """Actions of shape (R, E, action_dim) for observations (R, E, observation_dim)."""
        ...

    def begin(self, starts: Tensor) -> None:
        """Told before `act` where an episode begins: bool of shape (R, E)."""
        ...

    def reward(self, rewards: Tensor) -> None:
        """Told the rewards (R, E) that the last actions earned."""
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
        """Needs no telling."""

    def reward(self, rewards: Tensor) -> None:
        """Needs no telling."""
