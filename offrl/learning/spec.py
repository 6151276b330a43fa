"""What a learner is built from, besides its config."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from offrl.errors import Damaged

Seeds = Sequence[int]  # one per replica
Device = torch.device | str


@dataclass(frozen=True)
class Spec:
    """Sizes, bounds and statistics of a task, for a learner's networks and schedules.

    Means and deviations are (R, 1, observation_dim) where they differ among replicas.
    """

    observation_dim: int
    action_dim: int
    max_action: float  # actions lie in [-max_action, max_action] in every dimension
    steps: int  # gradient steps of the whole run; schedules decay over them
    observation_mean: np.ndarray  # (observation_dim,), over the prepared training data
    observation_std: np.ndarray  # (observation_dim,), population standard deviation

    def state(self) -> dict[str, Any]:
        """The same as numbers and tensors, for a checkpoint."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }

    @classmethod
    def from_state(cls, state: Any) -> "Spec":
        """What `state` returned. Raises Damaged for anything else."""
        names = [field.name for field in fields(cls)]
        if not isinstance(state, dict) or not {*names} <= state.keys():
            raise Damaged(f"expected {', '.join(names)} of the task, found {state!r:.60}")
        values = {name: state[name] for name in names}
        size = values["observation_dim"]
        for name in ("observation_mean", "observation_std"):
            value = values[name]
            if not isinstance(value, torch.Tensor) or list(value.shape) != [size]:
                raise Damaged(f"{name} of the task: expected a tensor of {size} numbers")
            values[name] = value.cpu().numpy()
        whole = [values[name] for name in ("observation_dim", "action_dim", "steps")]
        if any(type(value) is not int for value in whole) or type(values["max_action"]) not in (
            int,
            float,
        ):
            raise Damaged("the sizes of the task: expected numbers")
        return cls(**values)


class WatchedSpec(Spec):
    """A spec that notes whether its number of steps was read."""

    @classmethod
    def of(cls, spec: Spec) -> "WatchedSpec":
        """One with the values of another."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(spec)})

    def __getattribute__(self, name: str) -> Any:
        if name == "steps":
            object.__setattr__(self, "_read", True)
        return super().__getattribute__(name)

    def decides(self, kept: Iterable[Any]) -> bool:
        """Whether the steps were read, or may be later, as this spec is among what is kept."""
        return "_read" in vars(self) or any(value is self for value in kept)
