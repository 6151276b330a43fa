"""Saves and restores what training changes."""

import copy
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Stateful:
    """Saves and restores every attribute that training changes, so that algorithms need not.

    That is all of `vars(self)`: the names of attributes are the checkpoint's format, and a metric
    that is kept as an attribute is saved too.
    """

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes: networks, optimisers, generators, tensors, counters."""
        state = {}
        for name, value in vars(self).items():
            try:
                captured = _capture(value)
            except TypeError as error:
                raise TypeError(
                    f"{type(self).__name__}.{name}: {error}; override state_dict and "
                    "load_state_dict"
                ) from None
            state[name] = captured
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned; the run then carries on bit for bit."""
        for name, saved in state.items():
            setattr(self, name, _restore(getattr(self, name), saved))


_FIXED = {"fixed": True}  # stands for what training cannot change: functions, configs, devices


def _capture(value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return copy.deepcopy(value.state_dict())
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_capture(item) for item in value]
    if isinstance(value, dict):
        return {key: _capture(item) for key, item in value.items()}
    frozen = getattr(getattr(value, "__dataclass_params__", None), "frozen", False)
    if isinstance(value, (torch.device, torch.dtype, ModuleType)) or callable(value) or frozen:
        return _FIXED
    raise TypeError(f"a {type(value).__name__} cannot be saved")


def _restore(value: Any, saved: Any) -> Any:
    if hasattr(value, "load_state_dict"):
        value.load_state_dict(saved)
        return value
    if isinstance(value, torch.Generator):
        value.set_state(saved.cpu())
        return value
    if isinstance(value, Tensor) and value.shape == saved.shape:
        with torch.no_grad():
            value.copy_(saved)  # in place: an optimiser may hold it
        return value
    if isinstance(value, np.ndarray):
        return saved.numpy()
    if isinstance(value, (list, tuple)):  # training may have made it longer or shorter
        padded = [*value, *[None] * len(saved)]
        return type(value)(_restore(v, s) for v, s in zip(padded, saved, strict=False))
    if isinstance(value, dict):
        return {key: _restore(value.get(key), item) for key, item in saved.items()}
    return value if saved == _FIXED else saved
