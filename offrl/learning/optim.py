"""Optimiser steps with a replica axis, and schedules of learning rates."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def adam(parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> torch.optim.Adam:
    """Adam in one pass over each parameter; elementwise, so it serves all replicas at once.

    `weight_decay` times the parameter is added to its gradient.
    """
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def step(optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float | None = None) -> None:
    """One gradient step on `loss` of shape (R,) for the optimizer's parameters alone.

    The losses are summed, so each replica's gradient is its own. Gradients of other parameters that
    the loss passes through (a critic under an actor's loss) are not computed. With `max_norm`, each
    replica's gradient is scaled down to that norm where it is longer.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss.sum(), parameters)
    if max_norm is not None:
        clip(gradients, max_norm)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def clip(gradients: Sequence[Tensor], max_norm: float) -> None:
    """Scales each replica's gradients (R, ...) in place, as torch.nn.utils.clip_grad_norm_ does."""
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    factor = (max_norm / (norms + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))


@torch.no_grad()
def polyak(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Moves a target network towards its source: target <- (1 - tau) target + tau source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of the steps to come: a rate times a schedule of the update count."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def cosine_decay(updates: int, steps: int) -> float:
    """A factor that falls from 1 to 0 along half a cosine over `steps` updates, and stays there.

    Args:
        updates: that were made before this one.
        steps: of the whole run.
    """
    return 0.5 * (1 + math.cos(math.pi * min(updates / steps, 1)))


def warm_up(updates: int, steps: int) -> float:
    """A factor that rises linearly to 1 over the first `steps` updates; it is never 0.

    Args:
        updates: that were made before this one.
        steps: of the warm-up; 0 for none.
    """
    return min((updates + 1) / max(steps, 1), 1)
