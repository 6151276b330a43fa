"""Modes in which operations raise: one that a GPU would wait for, or one that takes much memory."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@contextlib.contextmanager
def staying_on(device: str) -> Iterator[None]:
    """Raises AssertionError where work leaves a device, such as torch's `meta`.

    That is where a tensor is made of Python's numbers, or is on another device. On `meta` torch
    itself raises where a number is read.
    """
    with _FromHost(), _OneDevice(device):
        yield


@contextlib.contextmanager
def making_at_most(size: int) -> Iterator[None]:
    """Raises MemoryError once operations have made tensors of more bytes in all.

    On torch's `meta` device they take none. Each counts as LEAST at least, so that a loop that
    makes small ones comes to an end.
    """
    with _Counted(size):
        yield


LEAST = 512  # bytes that a tensor counts


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where operations have made more bytes than they may."""

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and _storage(leaf) not in given:  # else a view, or in place
                self.left -= max(leaf.untyped_storage().nbytes(), LEAST)
        if self.left < 0:
            raise MemoryError
        return out


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class _FromHost(TorchFunctionMode):
    """Raises where a device's tensor is made of Python's numbers, which operations do not show."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        index = args[1] if func is Tensor.__getitem__ else ()
        listed = any(isinstance(part, list) for part in (index, *tree_leaves(index, _is_list)))
        if listed or func in (torch.tensor, torch.as_tensor):
            raise AssertionError(f"{func}: a tensor of numbers of the host")
        return func(*args, **(kwargs or {}))


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


class _OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where an operation takes or makes a tensor with axes on another device."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, Tensor) and leaf.dim() and leaf.device.type != self.device:
                raise AssertionError(f"{func}: a tensor {list(leaf.shape)} on {leaf.device}")
        return out
