"""Settings of a config that differ among the replicas of a batch: tensors (R, 1) for numbers."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

Setting = float | Tensor  # a number for all replicas, or one for each, of shape (R, 1)


def aligned(setting: Setting, values: Tensor) -> Setting:
    """A setting in the form that multiplies `values` of shape (R, ...): a number, or (R, 1, ...).

    A tensor has the dtype of `values` if that is a real one.
    """
    if not isinstance(setting, Tensor):
        return setting
    dtype = values.dtype if values.is_floating_point() else setting.dtype
    return setting.to(dtype).view(-1, *[1] * (values.dim() - 1))


def placed(config: Any, device: torch.device | str) -> Any:
    """The config with its tensors on a device; itself where it has none."""
    tensors = {k: v.to(device) for k, v in vars(config).items() if isinstance(v, Tensor)}
    return dataclasses.replace(config, **tensors) if tensors else config
