"""Checkpoints: one safetensors file, so a state is either wholly there or not at all.

Tensors are stored as they are; everything else of a state dict is JSON in the file's header, beside
a SHA-256 of all of it, which `load` compares (about a second per GB). No pickle is written or read.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from offrl.errors import Damaged, InputError
from offrl.files import open_own, replacing


def save(path: Path, state: dict[str, Any], check: Callable[[], None] = lambda: None) -> None:
    """Writes a nested dict of tensors and JSON values, atomically.

    `check` raises where `path` may not be written; see `offrl.files.replacing`.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_pack(state, tensors))
    header = {"state": text, "sha256": _digest(text, tensors)}
    # Not safetensors' own writer: its files are 0600, and its errors hide that a disk is full.
    with replacing(path, "free some space, or choose another -o", check=check) as temporary:
        temporary.write_bytes(serialised(tensors, header))


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save` wrote; a checkpoint of an earlier version, without a digest, as it is.

    Raises Damaged where the file is not a whole checkpoint, and InputError where it may not be
    read, or is no regular file.
    """
    try:
        os.close(open_own(path))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}; expected a checkpoint of offrl"
        ) from None
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata()
        text = header["state"]
        if "sha256" in header and header["sha256"] != _digest(text, tensors):
            raise ValueError("its content has another SHA-256 than its header says")
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        unpacked: dict[str, Any] = _unpack(json.loads(text), tensors)
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        reason = str(error)[:200]  # safetensors quotes what it finds, however long
        raise Damaged(f"{path}: expected a checkpoint of offrl, but {reason}") from None
    return unpacked


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a state's text and of its tensors: names, types, shapes and bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
