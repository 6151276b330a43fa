"""What a learner is built from, besides its config."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offrl.errors import Damaged

Seeds = Sequence[int]  # one per replica
Device = torch.device | str


@dataclass(frozen=True)
class Spec:
    """Sizes, bounds and statistics of a task, for a learner's networks and schedules.

    Where actions are discrete, `action_dim` and `max_action` are 0. Where the simulator's bounds
    are not [-a, a] in every dimension, a learner is given actions in [-1, 1], which stand for
    [`action_low`, `action_high`], and acts in them. Means and deviations are
    (R, 1, observation_dim) where they differ among replicas.
    """

    observation_dim: int
    action_dim: int
    max_action: float  # actions lie in [-max_action, max_action] in every dimension
    steps: int  # gradient steps of the whole run; schedules decay over them
    observation_mean: np.ndarray  # (observation_dim,), over the prepared training data
    observation_std: np.ndarray  # (observation_dim,), population standard deviation
    action_count: int | None = None  # of discrete actions, 0 to action_count - 1
    action_low: tuple[float, ...] | None = None  # of the simulator, where rescaled
    action_high: tuple[float, ...] | None = None

    def to_learner(self, actions: np.ndarray) -> np.ndarray:
        """Actions (N, action_dim) of the data, in the learner's scale."""
        if self.action_low is None or self.action_high is None:
            return actions
        return rescaled(actions, self.action_low, self.action_high)

    def to_simulator(self, actions: Tensor) -> Tensor:
        """A learner's actions (..., action_dim), in the simulator's scale."""
        if self.action_low is None or self.action_high is None:
            return actions
        low, high = actions.new_tensor(self.action_low), actions.new_tensor(self.action_high)
        return low + (actions + 1) / 2 * (high - low)

    def state(self) -> dict[str, Any]:
        """The same as numbers and tensors, for a checkpoint."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def from_state(cls, state: Any) -> "Spec":
        """What `state` returned. Raises Damaged for anything else."""
        names = [field.name for field in fields(cls)]
        needed = [field.name for field in fields(cls) if field.default is MISSING]
        if not isinstance(state, dict) or not {*needed} <= state.keys():
            raise Damaged(f"expected {', '.join(needed)} of the task, found {state!r:.60}")
        values = {name: state[name] for name in names if name in state}
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
        if not isinstance(values.get("action_count"), int | None):
            raise Damaged("action_count of the task: expected a whole number")
        for name in ("action_low", "action_high"):
            if name in values:
                values[name] = _bounds(values[name], values["action_dim"], name)
        return cls(**values)


def rescaled(actions: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Actions (N, action_dim) in units in which [low, high] is [-1, 1], as float32."""
    lowest = np.array(low)
    scaled = 2 * (actions - lowest) / (np.array(high) - lowest) - 1
    return np.asarray(scaled, dtype=np.float32)


def _bounds(value: Any, size: int, name: str) -> tuple[float, ...]:
    """A bound of each dimension of actions. Raises Damaged for anything else."""
    listed = isinstance(value, list | tuple) and len(value) == size
    if not listed or not all(isinstance(number, float) for number in value):
        raise Damaged(f"{name} of the task: expected {size} numbers")
    return tuple(value)


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
