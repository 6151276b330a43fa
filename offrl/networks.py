"""Networks with a replica axis: every parameter starts with R, so R seeds train as one batch."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offrl.learner import Spec
from offrl.streams import Streams

Initialisation = Literal["torch", "orthogonal", "fan in", "fan out"]

SLOPES = {"relu": 0.0, "leaky_relu": 0.1}  # of the negative part, by activation


def _onednn_works() -> bool:
    try:
        one = torch.ones(1, 1)
        return bool(torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], "") == 1)
    except (AttributeError, RuntimeError):
        return False


ONEDNN = _onednn_works()


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    # a @ b through oneDNN, which uses AVX-512 on any CPU that has it; torch.mm's MKL does so on
    # Intel's alone (benchmarks/README.md has figures).
    if ONEDNN:
        activation = "relu" if relu else "none"
        return torch.ops.mkldnn._linear_pointwise(a, b.T, bias, activation, [], "")  # type: ignore[no-any-return]
    out = a @ b if bias is None else torch.addmm(bias, a, b)
    return out.relu_() if relu else out


class _MatrixByMatrix(torch.autograd.Function):
    """An MLP on the CPU, one replica and member at a time: its activations stay in cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, *parameters: Tensor) -> Tensor:
        # x: (R, B, in); weights (M, in, out) and biases (M, 1, out) in turn, M = R N.
        weights, biases = parameters[::2], parameters[1::2]
        matrices, last = len(weights[0]), len(weights) - 1
        layers: list[list[Tensor]] = []
        for m in range(matrices):
            hidden = [x[m * len(x) // matrices]]
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                relu = i < last and slope == 0
                out = _product(hidden[-1], weight[m], bias[m, 0], relu)
                if i < last and slope:
                    nn.functional.leaky_relu_(out, slope)
                hidden.append(out)
            layers.append(hidden)
        ctx.layers, ctx.slope, ctx.shape = layers, slope, x.shape
        ctx.save_for_backward(*weights)
        return torch.stack([hidden[-1] for hidden in layers])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights: tuple[Tensor, ...] = ctx.saved_tensors
        wants_input, wants_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        matrices, last = len(weights[0]), len(weights) - 1
        input_gradient = torch.zeros(ctx.shape) if wants_input else None
        found: list[Tensor | None] = [None] * (2 * len(weights))
        if wants_weights:
            for i, weight in enumerate(weights):
                found[2 * i] = torch.empty_like(weight)
                found[2 * i + 1] = torch.empty(matrices, 1, weight.shape[-1])
        for m, hidden in enumerate(ctx.layers):
            delta = gradients[0][m]
            for i in range(last, -1, -1):
                if i < last:
                    # Both derivatives can be read off the output, whose sign is the input's.
                    delta = (
                        torch.ops.aten.leaky_relu_backward(delta, hidden[i + 1], ctx.slope, True)
                        if ctx.slope
                        else torch.ops.aten.threshold_backward(delta, hidden[i + 1], 0)
                    )
                weight_gradient, bias_gradient = found[2 * i], found[2 * i + 1]
                if weight_gradient is not None and bias_gradient is not None:
                    weight_gradient[m] = _product(hidden[i].T, delta)
                    torch.sum(delta, 0, out=bias_gradient[m, 0])
                if i > 0 or wants_input:
                    delta = _product(delta, weights[i][m].T)
            if input_gradient is not None:
                input_gradient[m * len(input_gradient) // matrices] += delta
        return input_gradient, None, *found


class MLP(nn.Module):
    """Multi-layer perceptrons of R replicas and, for an ensemble, N members each.

    Args:
        streams: one generator per replica; draws the initial weights.
        sizes: input, hidden and output widths.
        members: N, the members of an ensemble; None for a single network.
        activation: between layers, a key of SLOPES; the output is linear.
        initialisation: "torch" is nn.Linear's U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and
            biases; "orthogonal" has gain sqrt(2) in every layer and zero biases; "fan in" and "fan
            out" have U(-1/sqrt(fan), 1/sqrt(fan)) weights and biases of 0.1 (rlkit takes fan out).
        last: the bound of the output layer's uniform weights and biases, where it differs.

    Weights have shape (R, [N,] in, out) and biases (R, [N,] 1, out).
    """

    def __init__(
        self,
        streams: Streams,
        sizes: Sequence[int],
        *,
        members: int | None = None,
        activation: str = "relu",
        initialisation: Initialisation = "torch",
        last: float | None = None,
    ):
        super().__init__()
        self.members = members
        self.slope = SLOPES[activation]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        lead = (len(streams.generators),) if members is None else (len(streams.generators), members)
        for inputs, outputs in itertools.pairwise(sizes):
            weight = torch.empty(*lead, inputs, outputs, device=streams.device)
            bias = torch.zeros(*lead, 1, outputs, device=streams.device)
            for r, generator in enumerate(streams.generators):
                for n in range(members or 1):
                    index = (r,) if members is None else (r, n)
                    if last is not None and len(self.weights) == len(sizes) - 2:
                        weight[index].uniform_(-last, last, generator=generator)
                        bias[index].uniform_(-last, last, generator=generator)
                    elif initialisation == "orthogonal":
                        nn.init.orthogonal_(weight[index], math.sqrt(2), generator=generator)
                    elif initialisation == "torch":
                        bound = 1 / math.sqrt(inputs)
                        weight[index].uniform_(-bound, bound, generator=generator)
                        bias[index].uniform_(-bound, bound, generator=generator)
                    else:
                        bound = 1 / math.sqrt(inputs if initialisation == "fan in" else outputs)
                        weight[index].uniform_(-bound, bound, generator=generator)
                        bias[index].fill_(0.1)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))

    def forward(self, x: Tensor, member: int | None = None, frozen: bool = False) -> Tensor:
        """Outputs of shape (R, B, out), or (R, N, B, out) for an ensemble.

        Args:
            x: inputs of shape (R, B, in); every member sees the same.
            member: evaluates this member of an ensemble alone, shape (R, B, out).
            frozen: lets gradients through to `x` but computes none for the parameters.
        """
        parameters = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            for p in (weight, bias):
                parameter = p.detach() if frozen else p
                if self.members is not None:
                    parameter = parameter.flatten(0, 1) if member is None else parameter[:, member]
                parameters.append(parameter)
        stacked = self.members is not None and member is None
        if x.device.type == "cpu" and x.dtype == torch.float32:
            out: Tensor = _MatrixByMatrix.apply(x, self.slope, *parameters)  # type: ignore[no-untyped-call]
        else:
            out = self._batched(x, parameters)
        return out.view(len(x), -1, *out.shape[1:]) if stacked else out

    def _batched(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The same network as one batched product a layer, for a GPU and for float64."""
        if copies := len(parameters[0]) // len(x) - 1:
            x = x.repeat_interleave(copies + 1, 0)
        last = len(parameters) - 2
        for i in range(0, len(parameters), 2):
            x = torch.baddbmm(parameters[i + 1], x, parameters[i])
            if i < last:
                x = nn.functional.leaky_relu(x, self.slope) if self.slope else torch.relu(x)
        return x


class SquashedGaussian(nn.Module):
    """SAC's policy: a diagonal Gaussian whose sample goes through tanh.

    The network's output is a mean and a log standard deviation, side by side, for each action
    dimension. Densities are those of tanh(u) in (-1, 1), by the change of variables in closed form,
    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)); scaling to `max_action` leaves them alone.

    Args:
        mlp: from observations to 2 action_dim numbers.
        max_action: actions lie in (-max_action, max_action).
        log_std_range: the log standard deviation is clamped to it.
    """

    def __init__(self, mlp: MLP, max_action: float, log_std_range: tuple[float, float]):
        super().__init__()
        self.mlp, self.max_action, self.log_std_range = mlp, max_action, log_std_range

    def gaussian(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the tanh, each (R, B, action_dim)."""
        mean, log_std = self.mlp(states).chunk(2, -1)
        return mean, log_std.clamp(*self.log_std_range)

    def sample(self, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (R, B, action_dim) and their log densities (R, B), reparameterised.

        Args:
            states: shape (R, B, observation_dim).
            noise: standard normal, (R, B, action_dim); or (R, n, B, action_dim) for n samples a
                state, which gives actions and log densities with that axis too.
        """
        mean, log_std = self.gaussian(states)
        if noise.dim() > mean.dim():
            mean, log_std = mean.unsqueeze(1), log_std.unsqueeze(1)
        u = mean + noise * log_std.exp()
        log_prob = (-0.5 * noise.square() - log_std - _log_slope(u)).sum(-1)
        log_prob = log_prob - 0.5 * math.log(2 * math.pi) * mean.shape[-1]
        return self.max_action * torch.tanh(u), log_prob

    def log_prob(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log densities (R, B) of given actions, which are kept 1e-6 inside the bounds."""
        mean, log_std = self.gaussian(states)
        u = torch.atanh((actions / self.max_action).clamp(-1 + 1e-6, 1 - 1e-6))
        z = (u - mean) * torch.exp(-log_std)
        log_prob = -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi) - _log_slope(u)
        return log_prob.sum(-1)

    def mode(self, states: Tensor) -> Tensor:
        """The tanh of the mean, (R, B, action_dim): how all references act in evaluation."""
        return self.max_action * torch.tanh(self.gaussian(states)[0])


def _log_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), exact far out too."""
    return 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))


class Standardise(nn.Module):
    """Observations minus the data's mean, over its standard deviation plus 1e-3, as CORL does."""

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: Spec, device: torch.device | str = "cpu"):
        super().__init__()
        std = torch.as_tensor(spec.observation_std, dtype=torch.float32, device=device)
        mean = torch.as_tensor(spec.observation_mean, dtype=torch.float32, device=device)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / (std + 1e-3))

    def forward(self, observations: Tensor) -> Tensor:
        """Standardised observations, of the same shape (..., observation_dim)."""
        return (observations - self.mean) * self.scale


def adam(parameters: Iterable[Tensor], lr: float) -> torch.optim.Adam:
    """Adam in one pass over each parameter; elementwise, so it serves all replicas at once."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One gradient step on `loss` of shape (R,) for the optimizer's parameters alone.

    The losses are summed, so each replica's gradient is its own. Gradients of other parameters that
    the loss passes through (a critic under an actor's loss) are not computed.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, gradient in zip(
        parameters, torch.autograd.grad(loss.sum(), parameters), strict=True
    ):
        parameter.grad = gradient
    optimizer.step()


@torch.no_grad()
def polyak(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Moves a target network towards its source: target <- (1 - tau) target + tau source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
