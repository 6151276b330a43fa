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
LAYER_NORM_EPSILON = 1e-6  # flax's; torch's own default is 1e-5


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
    def forward(ctx: Any, x: Tensor, slope: float, linear: int, *parameters: Tensor) -> Tensor:
        # x: (R, B, in); weights (M, in, out) and biases (M, 1, out) in turn, M = R N, for `linear`
        # layers; then scales and shifts (M, 1, out) in turn, where there is layer normalisation.
        weights, biases = parameters[: 2 * linear : 2], parameters[1 : 2 * linear : 2]
        scales, shifts = parameters[2 * linear :: 2], parameters[2 * linear + 1 :: 2]
        matrices, last = len(weights[0]), linear - 1
        layers: list[list[Tensor]] = []
        norms: list[list[tuple[Tensor, Tensor, Tensor]]] = []  # input, mean and 1 / deviation
        for m in range(matrices):
            hidden = [x[m * len(x) // matrices]]
            norms.append([])
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                relu = i < last and slope == 0
                out = _product(hidden[-1], weight[m], bias[m, 0], relu)
                if i < last and slope:
                    nn.functional.leaky_relu_(out, slope)
                if i < last and scales:
                    size, scale, shift = out.shape[1:], scales[i][m, 0], shifts[i][m, 0]
                    active = out
                    out, mean, rstd = torch.native_layer_norm(
                        active, size, scale, shift, LAYER_NORM_EPSILON
                    )
                    norms[m].append((active, mean, rstd))
                hidden.append(out)
            layers.append(hidden)
        ctx.layers, ctx.norms, ctx.slope, ctx.shape = layers, norms, slope, x.shape
        ctx.linear = linear
        ctx.save_for_backward(*weights, *scales, *shifts)
        return torch.stack([hidden[-1] for hidden in layers])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, last = ctx.saved_tensors[: ctx.linear], ctx.linear - 1
        scales = ctx.saved_tensors[ctx.linear : ctx.linear + last]
        shifts = ctx.saved_tensors[ctx.linear + last :]
        wants_input, wants_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
        matrices = len(weights[0])
        input_gradient = torch.zeros(ctx.shape) if wants_input else None
        found: list[Tensor | None] = [None] * (2 * len(weights) + 2 * len(scales))
        if wants_weights:
            for i, weight in enumerate(weights):
                found[2 * i] = torch.empty_like(weight)
                found[2 * i + 1] = torch.empty(matrices, 1, weight.shape[-1])
            for i, scale in enumerate(scales):
                for k in range(2):
                    found[2 * len(weights) + 2 * i + k] = torch.empty_like(scale)
        for m, hidden in enumerate(ctx.layers):
            delta = gradients[0][m]
            for i in range(last, -1, -1):
                if i < last:
                    active = hidden[i + 1]
                    if scales:
                        active, mean, rstd = ctx.norms[m][i]
                        size, scale, shift = active.shape[1:], scales[i][m, 0], shifts[i][m, 0]
                        wanted = [True, wants_weights, wants_weights]
                        delta, *affine = torch.ops.aten.native_layer_norm_backward(
                            delta, active, size, mean, rstd, scale, shift, wanted
                        )
                        for k, gradient in enumerate(affine):
                            into = found[2 * len(weights) + 2 * i + k]
                            if into is not None:
                                into[m, 0] = gradient
                    # Both derivatives can be read off the output, whose sign is the input's.
                    delta = (
                        torch.ops.aten.leaky_relu_backward(delta, active, ctx.slope, True)
                        if ctx.slope
                        else torch.ops.aten.threshold_backward(delta, active, 0)
                    )
                weight_gradient, bias_gradient = found[2 * i], found[2 * i + 1]
                if weight_gradient is not None and bias_gradient is not None:
                    weight_gradient[m] = _product(hidden[i].T, delta)
                    torch.sum(delta, 0, out=bias_gradient[m, 0])
                if i > 0 or wants_input:
                    delta = _product(delta, weights[i][m].T)
            if input_gradient is not None:
                input_gradient[m * len(input_gradient) // matrices] += delta
        return input_gradient, None, None, *found


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
        layer_norm: normalises every hidden layer after its activation (Ba et al. 2016, arXiv
            1607.06450), with a learned scale from 1 and shift from 0.

    Weights have shape (R, [N,] in, out); biases, scales and shifts (R, [N,] 1, out).
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
        layer_norm: bool = False,
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
        self.scales = nn.ParameterList()
        self.shifts = nn.ParameterList()
        for bias in self.biases[:-1] if layer_norm else []:
            self.scales.append(nn.Parameter(torch.ones_like(bias)))
            self.shifts.append(nn.Parameter(torch.zeros_like(bias)))

    def forward(self, x: Tensor, member: int | None = None, frozen: bool = False) -> Tensor:
        """Outputs of shape (R, B, out), or (R, N, B, out) for an ensemble.

        Args:
            x: inputs of shape (R, B, in); every member sees the same.
            member: evaluates this member of an ensemble alone, shape (R, B, out).
            frozen: lets gradients through to `x` but computes none for the parameters.
        """
        parameters = []
        pairs = [*zip(self.weights, self.biases, strict=True)]
        pairs += [*zip(self.scales, self.shifts, strict=True)]
        for pair in pairs:
            for p in pair:
                parameter = p.detach() if frozen else p
                if self.members is not None:
                    parameter = parameter.flatten(0, 1) if member is None else parameter[:, member]
                parameters.append(parameter)
        stacked = self.members is not None and member is None
        if x.device.type == "cpu" and x.dtype == torch.float32:
            out: Tensor = _MatrixByMatrix.apply(x, self.slope, len(self.weights), *parameters)  # type: ignore[no-untyped-call]
        else:
            out = self._batched(x, parameters)
        return out.view(len(x), -1, *out.shape[1:]) if stacked else out

    def _batched(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The same network as one batched product a layer, for a GPU and for float64."""
        if copies := len(parameters[0]) // len(x) - 1:
            x = x.repeat_interleave(copies + 1, 0)
        linear, norms = 2 * len(self.weights), 2 * len(self.scales)
        for i in range(0, linear, 2):
            x = torch.baddbmm(parameters[i + 1], x, parameters[i])
            if i < linear - 2:
                x = nn.functional.leaky_relu(x, self.slope) if self.slope else torch.relu(x)
            if i < norms:
                scale, shift = parameters[linear + i], parameters[linear + i + 1]
                x = nn.functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON)
                x = torch.addcmul(shift, x, scale)
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
