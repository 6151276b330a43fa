"""Where workers compute: the cores of this machine, or its GPUs."""

import os
import re
from collections.abc import Sequence

from offrl.errors import InputError


def worker_places(device: str, workers: int | None) -> list[str]:
    """The device of each worker: one per core, or one per GPU.

    Args:
        device: `auto` for GPUs where there are any, `cpu`, `cuda` for all GPUs, or `cuda:N`.
        workers: how many; None: one per core or per GPU.

    Raises InputError for a device that there is not.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise InputError(f"device {device!r:.80}; expected auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not count):
        return ["cpu"] * (workers or cores())
    if not count:
        raise InputError(
            f"device {device!r}: torch {torch.__version__} finds no GPU here; install its build "
            "for CUDA and a driver, or choose cpu"
        )
    _, _, number = device.partition(":")
    if number and int(number) >= count:
        raise InputError(f"device {device!r}: there are {count} GPUs here, cuda:0 being the first")
    gpus = [device] if number else [f"cuda:{n}" for n in range(count)]
    return [gpus[n % len(gpus)] for n in range(workers or len(gpus))]


def players_each(places: Sequence[str], groups: int) -> int:
    """How many processes of each worker play evaluations while it goes on to train.

    Beside GPUs these are the cores, and else the workers for which there is no group.

    Args:
        places: the device of each worker.
        groups: what there is to train.
    """
    if places[0] != "cpu":
        return max(1, cores() // len(places))
    return max(0, len(places) - groups) // max(1, groups)


def cores() -> int:
    """The cores that this process may use."""
    # Of this process, which a container or `taskset` may hold to fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
