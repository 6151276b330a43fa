"""Saves and restores what training changes."""

import copy
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from offrl.errors import Damaged


class Stateful:
    """Saves and restores every attribute that training changes, so that algorithms need not.

    That is all of `vars(self)`: the names of attributes are the checkpoint's format, and a metric
    that is kept as an attribute is saved too.
    """

    # Attributes that are saved, and that a checkpoint does not set: training leaves them alone.
    not_restored: ClassVar[frozenset[str]] = frozenset()

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
        """Restores what `state_dict` returned; the run then carries on bit for bit.

        Raises Damaged, after which this object is of no use, where the state is another's: it has
        other attributes, or a network's parameter has another shape or type.
        """
        kind, fixed = type(self).__name__, type(self).not_restored
        if not isinstance(state, Mapping):
            raise Damaged(f"{kind}: expected its attributes by name, found {state!r:.40}")
        expected = {name: value for name, value in vars(self).items() if name not in fixed}
        if odd := sorted(expected.keys() ^ (state.keys() - fixed)):
            which = "lacks" if odd[0] in expected else "has"
            raise Damaged(
                f"the state of {kind} {which} {odd[0]!r:.60}; expected the attributes that "
                "__init__ sets"
            )
        for name, value in expected.items():
            setattr(self, name, _restore(value, state[name], f"{kind}.{name}"))


def split(value: Any, replicas: int) -> list[Any]:
    """The state of a learner or sampler of R replicas as R states of one replica each.

    Each is what `state_dict` of that replica alone would return. Of tensors whose first axis has
    the size R each gets its part, everything else is common. What has another layout, such as
    `Streams`, has a method `split_state`.
    """
    if hasattr(value, "split_state"):
        parts: list[Any] = value.split_state()
        return parts
    if isinstance(value, Stateful):
        return _by_key(
            {name: split(item, replicas) for name, item in vars(value).items()}, replicas
        )
    if isinstance(value, (list, tuple)):
        items = [split(item, replicas) for item in value]
        return [[item[r] for item in items] for r in range(replicas)]
    if isinstance(value, dict):
        return _by_key({key: split(item, replicas) for key, item in value.items()}, replicas)
    if hasattr(value, "state_dict"):
        return split(value.state_dict(), replicas)
    saved = _capture(value)
    if not isinstance(saved, Tensor):
        return [saved] * replicas
    if saved.dim() and len(saved) == replicas:
        return [saved[r : r + 1].clone() for r in range(replicas)]
    return [saved.clone() for _ in range(replicas)]  # an optimiser counts its steps in place


def _by_key(parts: dict[Any, list[Any]], replicas: int) -> list[dict[Any, Any]]:
    return [{key: part[r] for key, part in parts.items()} for r in range(replicas)]


def join(values: Sequence[Any]) -> Any:
    """The state of one learner or sampler of R replicas, made of R of one replica each.

    Raises ValueError where what all replicas have in common differs.
    """
    first = values[0]
    if hasattr(first, "join_states"):
        return first.join_states([value.state_dict() for value in values])
    if isinstance(first, Stateful):  # what no checkpoint sets may differ, as statistics of data
        names = [name for name in vars(first) if name not in type(first).not_restored]
        return {name: join([vars(value)[name] for value in values]) for name in names}
    if isinstance(first, (list, tuple)):
        return [join(items) for items in zip(*values, strict=True)]
    if isinstance(first, dict):
        return {key: join([value[key] for value in values]) for key in first}
    if isinstance(first, torch.optim.Optimizer):
        return _joined_optimizers([value.state_dict() for value in values])
    if hasattr(first, "state_dict"):
        return join([value.state_dict() for value in values])
    saved = [_capture(value) for value in values]
    if isinstance(saved[0], Tensor):
        if saved[0].dim() and len(saved[0]) == 1:
            return torch.cat(saved)
        if all(torch.equal(saved[0], other) for other in saved):
            return saved[0]
    elif all(saved[0] == other for other in saved):
        return saved[0]
    raise ValueError(f"replicas differ in what they have in common: {saved!s:.200}")


def _joined_optimizers(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of an optimiser of R replicas; settings that differ become tensors (R, 1)."""
    groups = []
    for of_all in zip(*(state["param_groups"] for state in states), strict=True):
        group = dict(of_all[0])
        for name, value in group.items():
            if any(_is_another(value, other[name]) for other in of_all):
                group[name] = torch.tensor([[float(other[name])] for other in of_all])
        groups.append(group)
    return {"state": join([state["state"] for state in states]), "param_groups": groups}


def _is_another(value: Any, other: Any) -> bool:
    return bool(torch.ne(value, other).any()) if isinstance(value, Tensor) else value != other


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
    if _is_fixed(value):
        return _FIXED
    raise TypeError(f"a {type(value).__name__} cannot be saved")


def _is_fixed(value: Any) -> bool:
    frozen = getattr(getattr(value, "__dataclass_params__", None), "frozen", False)
    kinds = (torch.device, torch.dtype, ModuleType)
    return isinstance(value, kinds) or callable(value) or bool(frozen)


def _restore(value: Any, saved: Any, where: str) -> Any:
    if isinstance(value, Stateful):
        value.load_state_dict(saved)
        return value
    if hasattr(value, "load_state_dict") or isinstance(value, torch.Generator):
        try:
            if isinstance(value, torch.Generator):
                value.set_state(saved.cpu())
            elif isinstance(value, (torch.optim.Adam, torch.optim.AdamW)):
                value.load_state_dict(_for_torch(value, saved))
            else:
                value.load_state_dict(saved)
        except Exception as error:  # torch has no one kind for states that do not fit
            raise _unfit(where, " ".join(str(error).split())) from error
        if isinstance(value, torch.optim.Optimizer):
            _check_moments(value, where)
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        return _restore_array(value, saved, where)
    if isinstance(value, (list, tuple)):  # training may have made it longer or shorter
        if not isinstance(saved, list) or (any(map(_is_live, value)) and len(saved) != len(value)):
            raise _unfit(where, f"expected a list of {len(value)}")
        padded = [*value, *[None] * len(saved)]
        return type(value)(_restore(v, s, where) for v, s in zip(padded, saved, strict=False))
    if isinstance(value, dict):
        live = {key for key, item in value.items() if _is_live(item)}
        if not isinstance(saved, dict) or not live <= saved.keys():
            raise _unfit(where, f"expected a dict with {sorted(map(str, live))}")
        return {key: _restore(value.get(key), item, where) for key, item in saved.items()}
    if _is_fixed(value) or saved == _FIXED:
        return value
    if isinstance(value, (bool, int, float)) and isinstance(saved, (str, list, dict)):
        raise _unfit(where, f"expected a number, found {saved!r:.40}")
    return saved


def _for_torch(optimizer: torch.optim.Optimizer, saved: Any) -> dict[str, Any]:
    """The state of an Adam, offrl's own or torch's, as torch's takes it: rates are numbers."""
    groups = []
    for own, other in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        numbers = {k: v.item() if isinstance(v, Tensor) else v for k, v in other.items()}
        groups.append({**{k: v for k, v in own.items() if k != "params"}, **numbers})
    return {**saved, "param_groups": groups}


def _restore_array(value: Any, saved: Any, where: str) -> Any:
    """A tensor or array; training may have given it another shape, unless it is a parameter."""
    if not isinstance(saved, Tensor):
        raise _unfit(where, f"expected a tensor, found {saved!r:.40}")
    dtype = torch.from_numpy(value).dtype if isinstance(value, np.ndarray) else value.dtype
    if saved.dtype != dtype or (_is_live(value) and saved.shape != value.shape):
        raise _unfit(where, f"expected {dtype} {list(value.shape)}, found {_layout(saved)}")
    if isinstance(value, np.ndarray):
        return saved.numpy()
    if value.shape != saved.shape:
        return saved
    with torch.no_grad():
        value.copy_(saved)  # in place: an optimiser may hold it
    return value


def _is_live(value: Any) -> bool:
    """Whether others hold on to a value, so that another may not take its place."""
    kinds = (torch.Generator, nn.Parameter)
    return isinstance(value, kinds) or hasattr(value, "load_state_dict")


def _check_moments(optimizer: torch.optim.Optimizer, where: str) -> None:
    """Raises Damaged where what an optimiser keeps of a parameter has another shape than it."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise _unfit(
                    where, f"{name}: expected {list(parameter.shape)}, found {_layout(value)}"
                )


def _layout(value: Tensor) -> str:
    return f"{value.dtype} {list(value.shape)}"


def _unfit(where: str, reason: str) -> Damaged:
    return Damaged(f"the state of {where} does not fit: {reason:.200}")
