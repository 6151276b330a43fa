"""Optimiser steps with a replica axis, and schedules of learning rates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from offrl.errors import Damaged
from offrl.learning.settings import Setting, aligned

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def adam(
    parameters: Iterable[Tensor], lr: Setting, weight_decay: Setting = 0.0
) -> torch.optim.Optimizer:
    """Adam; elementwise, so it serves all replicas at once.

    `weight_decay` times the parameter is added to its gradient.
    """
    trained = [*parameters]
    if not isinstance(weight_decay, Tensor) and _is_plain(trained, lr):
        return torch.optim.Adam(trained, lr=lr, weight_decay=weight_decay, fused=True)
    return Adam(trained, lr, weight_decay)


def adamw(
    parameters: Iterable[Tensor], lr: Setting, weight_decay: Setting
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), for all replicas at once.

    Each step takes the rate times `weight_decay` times the parameter from it.
    """
    trained = [*parameters]
    if not isinstance(weight_decay, Tensor) and _is_plain(trained, lr):
        return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True)
    return Adam(trained, lr, weight_decay, decoupled=True)


def _is_plain(parameters: Sequence[Tensor], lr: Setting) -> bool:
    """Whether torch's own optimiser serves: on a CPU, with one rate for all replicas."""
    return not isinstance(lr, Tensor) and all(p.device.type == "cpu" for p in parameters)


class Adam(torch.optim.Optimizer):
    """Adam whose count of steps and rates are tensors on the device of its parameters.

    A CUDA graph that holds a step reads them anew at each replay. Its state has the names and
    shapes of torch's own Adam, and is restored in place.

    Args:
        parameters: of shapes (R, ...).
        lr: learning rate; of each replica where it is a tensor (R, 1).
        weight_decay: likewise.
        decoupled: AdamW's weight decay; else it is added to the gradient.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        lr: Setting,
        weight_decay: Setting = 0.0,
        decoupled: bool = False,
    ):
        device = parameters[0].device
        rate = torch.as_tensor(lr, dtype=torch.float64).to(device).clone()
        if isinstance(weight_decay, Tensor):
            weight_decay = weight_decay.to(device)
        super().__init__(parameters, {"lr": rate, "weight_decay": weight_decay})
        self.decoupled = decoupled
        self.count = torch.zeros((), dtype=torch.float32, device=device)  # of steps made

    @property
    def rate(self) -> Tensor:
        """The learning rate of the next step: float64, without axes or (R, 1)."""
        rate: Tensor = self.param_groups[0]["lr"]
        return rate

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients that the parameters hold."""
        del closure
        parameters: list[Tensor] = self.param_groups[0]["params"]
        gradients: list[Any] = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            self._state_of(parameter)
        means = [self.state[parameter]["exp_avg"] for parameter in parameters]
        squares = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
        self.count += 1
        decay = self.param_groups[0]["weight_decay"]
        alike = self.rate.dim() == 0 and not isinstance(decay, Tensor)
        advance = fused if alike and self.count.device.type == "cuda" else elementwise
        advance(parameters, gradients, means, squares, self.count, self.rate, decay, self.decoupled)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores, in place, what `state_dict` returned, or that of torch's own Adam.

        Raises Damaged where it is another's.
        """
        parameters: list[Tensor] = self.param_groups[0]["params"]
        try:
            (group,) = state_dict["param_groups"]
            saved = [state_dict["state"].get(key, {}) for key in group["params"]]
            for parameter, kept in zip(parameters, saved, strict=True):
                own = self._state_of(parameter)
                for name in ("exp_avg", "exp_avg_sq"):
                    _fill(own[name], kept.get(name, 0.0), name)
                _fill(self.count, kept.get("step", 0.0), "step")
            _fill(self.rate, group["lr"], "lr")
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise Damaged(f"no state of an Adam of {len(parameters)} tensors: {error!s:.80}") from (
                None
            )

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = self.count
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def _fill(target: Tensor, saved: Any, name: str) -> None:
    """Sets a tensor, in place, to a number or to a tensor of its shape."""
    if isinstance(saved, Tensor) and saved.shape != target.shape and saved.dim():
        raise ValueError(f"{name}: expected {list(target.shape)}, found {list(saved.shape)}")
    with torch.no_grad():
        target.copy_(torch.as_tensor(saved))


def fused(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    count: Tensor,
    rate: Tensor,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Adam's step by torch's one kernel, for a rate and a weight decay that all replicas share.

    Args:
        parameters: changed in place.
        gradients: of each.
        means: running means of the gradients, changed in place.
        squares: running means of their squares, changed in place.
        count: of steps, this one included, float32 without axes.
        rate: without axes.
        weight_decay: of all.
        decoupled: AdamW's weight decay.
    """
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
    kernel(
        list(parameters),
        list(gradients),
        list(means),
        list(squares),
        [],
        [count] * len(parameters),
        lr=rate.to(torch.float32),
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=weight_decay,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )


def elementwise(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    count: Tensor,
    rate: Tensor,
    weight_decay: Setting,
    decoupled: bool,
) -> None:
    """The same by elementary operations; rate and weight decay may differ by replica, (R, 1)."""
    made = count.to(torch.float64)
    corrections = [1 - beta**made for beta in BETAS]
    size = rate / corrections[0]  # in float64, as is the next
    root = corrections[1].sqrt()
    decays = isinstance(weight_decay, Tensor) or weight_decay != 0
    for parameter, gradient, mean, square in zip(
        parameters, gradients, means, squares, strict=True
    ):
        if decays and decoupled:
            parameter.mul_(_of(1 - rate * weight_decay, parameter))
        elif decays:
            gradient = torch.addcmul(gradient, _tensor(weight_decay, parameter), parameter)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        divisor = (square.sqrt() / _of(root, parameter)).add_(EPSILON)
        parameter.addcmul_(_of(size, parameter), mean / divisor, value=-1)


def _of(setting: Tensor, parameter: Tensor) -> Tensor:
    """A setting without axes or (R, 1), for one parameter (R, ...) and in its dtype."""
    if setting.dim() == 0:
        return setting.to(parameter.dtype)
    value = aligned(setting, parameter)
    assert isinstance(value, Tensor)
    return value


def _tensor(setting: Setting, parameter: Tensor) -> Tensor:
    if isinstance(setting, Tensor):
        return _of(setting, parameter)
    return parameter.new_full((), setting)


def step(optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: Setting | None = None) -> None:
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


def clip(gradients: Sequence[Tensor], max_norm: Setting) -> None:
    """Scales each replica's gradients (R, ...) in place, as torch.nn.utils.clip_grad_norm_ does."""
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    factor = (aligned(max_norm, norms) / (norms + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))


@torch.no_grad()
def polyak(target: nn.Module, source: nn.Module, tau: Setting) -> None:
    """Moves a target network towards its source: target <- (1 - tau) target + tau source."""
    targets: list[Tensor] = [*target.parameters()]
    weight: Any = [_of(tau, t) for t in targets] if isinstance(tau, Tensor) else tau
    torch._foreach_lerp_(targets, [*source.parameters()], weight)


@torch.no_grad()
def copy_every(target: nn.Module, source: nn.Module, interval: int, made: int | Tensor) -> None:
    """Sets a target network to its source once in `interval` steps, when that many were made.

    Args:
        target: changed in place.
        source: of the same shapes.
        interval: in steps.
        made: steps so far; as a tensor without axes, as `steps_made` gives it after a step, it
            decides on its device.
    """
    if isinstance(made, Tensor):
        due = (made % interval == 0).to(torch.float32)
        polyak(target, source, due)  # a weight of 0 or 1 leaves or copies every bit
    elif made % interval == 0:
        polyak(target, source, 1.0)


def steps_made(optimizer: torch.optim.Optimizer, updates: int) -> int | Tensor:
    """The steps that an optimiser has made, for schedules: `updates`, if it makes one in each.

    On another device than the CPU it is the optimiser's own count there, which goes on at each
    replay of a CUDA graph.
    """
    return optimizer.count if isinstance(optimizer, Adam) else updates


def set_rate(optimizer: torch.optim.Optimizer, rate: Setting) -> None:
    """Sets the learning rate of the steps to come: a rate times a schedule of the update count."""
    if isinstance(optimizer, Adam):
        optimizer.rate.copy_(rate) if isinstance(rate, Tensor) else optimizer.rate.fill_(rate)
        return
    for group in optimizer.param_groups:
        group["lr"] = rate


def cosine_decay(updates: int | Tensor, steps: int) -> Setting:
    """A factor that falls from 1 to 0 along half a cosine over `steps` updates, and stays there.

    Args:
        updates: that were made before this one; as a tensor without axes, the factor is one too.
        steps: of the whole run.
    """
    if isinstance(updates, Tensor):
        share = (updates.to(torch.float64) / steps).clamp(max=1)
        return 0.5 * (1 + torch.cos(math.pi * share))
    return 0.5 * (1 + math.cos(math.pi * min(updates / steps, 1)))


def warm_up(updates: int | Tensor, steps: int) -> Setting:
    """A factor that rises linearly to 1 over the first `steps` updates; it is never 0.

    Args:
        updates: that were made before this one; as a tensor without axes, the factor is one too.
        steps: of the warm-up; 0 for none.
    """
    if isinstance(updates, Tensor):
        return ((updates.to(torch.float64) + 1) / max(steps, 1)).clamp(max=1)
    return min((updates + 1) / max(steps, 1), 1)
