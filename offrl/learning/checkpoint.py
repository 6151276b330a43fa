"""Checkpoints: one safetensors file, so a state is either wholly there or not at all.

Tensors are stored as they are; everything else of a state dict is JSON in the file's header. No
pickle is written or read.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from offrl.errors import InputError
from offrl.files import replacing


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a nested dict of tensors and JSON values, atomically."""
    tensors: dict[str, Tensor] = {}
    header = {"state": json.dumps(_pack(state, tensors))}
    with replacing(path) as temporary:
        save_file(tensors, temporary, header)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save` wrote. Raises InputError where the file is not a whole checkpoint."""
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state = json.loads(file.metadata()["state"])
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: expected a checkpoint of offrl, but {error}; delete it to start the run anew"
        ) from None
    unpacked: dict[str, Any] = _unpack(state, tensors)
    return unpacked


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().contiguous().clone()
        return {"$tensor": name}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _pack(item, tensors) for key, item in value.items()}
        return {"$items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        if "$items" in value:
            return {key: _unpack(item, tensors) for key, item in value["$items"]}
        return {key: _unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value
