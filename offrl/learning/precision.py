"""How precisely a GPU multiplies: a choice by name, which changes what is learned.

float32    all digits
tf32       operands of products keep 10 bits of their fraction, on the tensor cores
bfloat16   hidden layers are computed in bfloat16, which keeps 7, from float32 weights; other
           products are in tf32, and last layers, losses and optimisers as they are
"""

import torch
from torch import nn

from offrl.errors import InputError
from offrl.learning.learner import Learner
from offrl.learning.networks import MLP, Linear
from offrl.learning.spec import Device

PRECISIONS = ("float32", "tf32", "bfloat16")


def check_precision(precision: str, device: Device) -> None:
    """Raises InputError for a precision that there is not, or not on this device."""
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision != "float32" and torch.device(device).type == "cpu":
        raise InputError(
            f"precision {precision!r} is for GPUs, but the device is a CPU; use 'float32'"
        )


def set_precision(learner: Learner, precision: str, device: Device) -> None:
    """Sets how a learner's products are taken, and for a GPU those of the whole process.

    To be called before the first update. Raises InputError as `check_precision` does.
    """
    check_precision(precision, device)
    if torch.device(device).type != "cpu":
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    multiply_in(learner, torch.bfloat16 if precision == "bfloat16" else None)


def multiply_in(learner: Learner, dtype: torch.dtype | None) -> None:
    """Has a learner's networks take the products of hidden layers in this dtype; None: as they are.

    Weights stay in float32.
    """
    for value in vars(learner).values():
        if isinstance(value, nn.Module):
            for module in value.modules():
                if isinstance(module, (MLP, Linear)):
                    module.products = dtype
