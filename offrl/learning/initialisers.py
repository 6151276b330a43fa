"""How the weights and biases of one layer start, by name.

A bound is that of a uniform distribution around 0. Whatever an initialiser draws comes from the
replica's own generator, weights first.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# Fills a weight (in, out) and a bias (1, out) in place, given fan_in and fan_out.
Initialiser = Callable[[Tensor, Tensor, int, int, torch.Generator], None]

FILLED_BIAS = 0.1


def uniform(bound: float) -> Initialiser:
    """Weights and biases within one bound, whatever the layer's widths."""

    def fill(weight: Tensor, bias: Tensor, _in: int, _out: int, generator: torch.Generator) -> None:
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)

    return fill


def default(
    weight: Tensor, bias: Tensor, fan_in: int, fan_out: int, generator: torch.Generator
) -> None:
    """Weights and biases within 1/sqrt(fan_in), as nn.Linear's."""
    uniform(1 / math.sqrt(fan_in))(weight, bias, fan_in, fan_out, generator)


def orthogonal(
    weight: Tensor, bias: Tensor, _in: int, _out: int, generator: torch.Generator
) -> None:
    """Orthogonal weights with gain sqrt(2), zero biases."""
    nn.init.orthogonal_(weight, math.sqrt(2), generator=generator)
    bias.zero_()


def by_fan_in(
    weight: Tensor, bias: Tensor, fan_in: int, _out: int, generator: torch.Generator
) -> None:
    """Weights within 1/sqrt(fan_in), biases of 0.1."""
    bound = 1 / math.sqrt(fan_in)
    weight.uniform_(-bound, bound, generator=generator)
    bias.fill_(FILLED_BIAS)


def by_fan_out(
    weight: Tensor, bias: Tensor, _in: int, fan_out: int, generator: torch.Generator
) -> None:
    """Weights within 1/sqrt(fan_out), biases of 0.1 (rlkit's)."""
    by_fan_in(weight, bias, fan_out, fan_out, generator)


def normal(
    weight: Tensor, bias: Tensor, fan_in: int, _out: int, generator: torch.Generator
) -> None:
    """Weights from N(0, 1/(4 fan_in)), biases of 0.1 (OfflineRL-Kit's ensembles)."""
    weight.normal_(0, 0.5 / math.sqrt(fan_in), generator=generator)
    bias.fill_(FILLED_BIAS)


INITIALISERS: dict[str, Initialiser] = {
    "torch": default,
    "orthogonal": orthogonal,
    "fan in": by_fan_in,
    "fan out": by_fan_out,
    "normal": normal,
}
