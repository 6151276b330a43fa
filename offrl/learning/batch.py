"""What a learner updates on: batches of tensors with a replica axis, as samplers draw them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Transitions of every replica: leading axes (R, B) for a Learner, (B,) for a single seed.

    Discrete actions are int64 (R, B).
    """

    observations: Tensor  # (R, B, observation_dim)
    actions: Tensor  # (R, B, action_dim); discrete (R, B)
    rewards: Tensor  # (R, B)
    next_observations: Tensor  # (R, B, observation_dim)
    terminations: Tensor  # (R, B), 1 stops bootstrapping; a truncation never does
    next_actions: Tensor | None = None  # as actions, where `prepare` makes them

    def replica(self, r: int) -> "Batch":
        """The batch of one replica, without the replica axis."""
        columns: dict[str, Any] = {k: v if v is None else v[r] for k, v in vars(self).items()}
        return Batch(**columns)


@dataclass(frozen=True)
class Windows:
    """Stretches of K consecutive steps of one episode each, for sequence models.

    A stretch that runs over the end of its episode is padded with zeros, where `mask` is 0.
    """

    observations: Tensor  # (R, B, K, observation_dim)
    actions: Tensor  # (R, B, K, action_dim)
    rewards: Tensor  # (R, B, K)
    returns_to_go: Tensor  # (R, B, K), undiscounted sum of the rewards from this step to the end
    timesteps: Tensor  # (R, B, K), int64, steps since the episode began
    mask: Tensor  # (R, B, K), 1 where the step is real

    def replica(self, r: int) -> "Windows":
        """The windows of one replica, without the replica axis."""
        return Windows(**{name: value[r] for name, value in vars(self).items()})
