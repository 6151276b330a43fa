"""Networks with a replica axis: every parameter starts with R, so R seeds train as one batch."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offrl.learner import Spec
from offrl.streams import Streams

Initialisation = Literal["torch", "orthogonal", "fan in", "fan out", "normal"]

SLOPES = {"relu": 0.0, "leaky_relu": 0.1}  # of the negative part, by activation
LAYER_NORM_EPSILON = 1e-6  # flax's; torch's own default is 1e-5
BLOCK_ROWS = 512  # whose activations stay in cache: half a megabyte a layer of 256


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
    # ReLU comes after it, because oneDNN's own makes 0 of NaN, which then nobody sees.
    if ONEDNN and a.dim() == 2:
        flat = None if bias is None else bias.flatten()
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.mT, flat, "none", [], "")
    else:
        out = a @ b if bias is None else a @ b + bias
    return out.relu_() if relu else out


def _times_slope(delta: Tensor, out: Tensor, slope: float) -> Tensor:
    # Back through an activation: both derivatives can be read off the output's sign.
    if slope:
        return torch.ops.aten.leaky_relu_backward(delta, out, slope, True)  # type: ignore[no-any-return]
    return torch.ops.aten.threshold_backward(delta, out, 0)  # type: ignore[no-any-return]


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
        outs = []
        norms: list[list[tuple[Tensor, Tensor, Tensor]]] = []  # input, mean and 1 / deviation
        for m in range(matrices):
            hidden, normalised = [x[m * len(x) // matrices]], []
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
                    normalised.append((active, mean, rstd))
                hidden.append(out)
            outs.append(out)
            if any(ctx.needs_input_grad):  # or each member's activations take the last one's place
                layers.append(hidden)
                norms.append(normalised)
        ctx.layers, ctx.norms, ctx.slope, ctx.shape = layers, norms, slope, x.shape
        ctx.linear = linear
        ctx.save_for_backward(*weights, *scales, *shifts)
        return torch.stack(outs)

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
        for m, (hidden, norms) in enumerate(zip(ctx.layers, ctx.norms, strict=True)):
            delta = gradients[0][m]
            rows: Tensor | slice = slice(None)
            if not wants_weights:
                # Under a minimum over members, most rows have a gradient in another member.
                rows = delta.any(-1).nonzero().squeeze(-1)
                delta, hidden = delta[rows], [h[rows] for h in hidden]
                norms = [[t[rows] for t in norm] for norm in norms]
            for i in range(last, -1, -1):
                if i < last:
                    active = hidden[i + 1]
                    if scales:
                        active, mean, rstd = norms[i]
                        size, scale, shift = active.shape[1:], scales[i][m, 0], shifts[i][m, 0]
                        wanted = [True, wants_weights, wants_weights]
                        delta, *affine = torch.ops.aten.native_layer_norm_backward(
                            delta, active, size, mean, rstd, scale, shift, wanted
                        )
                        for k, gradient in enumerate(affine):
                            into = found[2 * len(weights) + 2 * i + k]
                            if into is not None:
                                into[m, 0] = gradient
                    delta = _times_slope(delta, active, ctx.slope)
                weight_gradient, bias_gradient = found[2 * i], found[2 * i + 1]
                if weight_gradient is not None and bias_gradient is not None:
                    weight_gradient[m] = _product(hidden[i].T, delta)
                    torch.sum(delta, 0, out=bias_gradient[m, 0])
                if i > 0 or wants_input:
                    delta = _product(delta, weights[i][m].T)
            if input_gradient is not None:
                input_gradient[m * len(input_gradient) // matrices, rows] += delta
        return input_gradient, None, None, *found


class _ValueAndInputGradient(torch.autograd.Function):
    """An MLP with one output Q, and g = dQ/dx, in one pass; its parameters can train on both.

    The slopes of the activations are constant almost everywhere, which leaves g linear in every
    matrix. For each row, with h_0 = x, weights W_0 ... W_L, slopes D_i at h_i and e_L = 1:
        h_{i+1} = (h_i W_i + b_i) D_{i+1},  Q = h_L W_L + b_L
        e_{i-1} = (e_i W_i^T) D_i,          g = e_0 W_0^T
    and given the gradients q' and g' of a loss with respect to Q and g, with t_0 = g':
        t_{i+1} = (t_i W_i) D_{i+1}
        dW_i = (q' h_i + t_i)^T e_i,  db_i = q'^T e_i
    so that training on both takes four products a matrix, where training on Q alone takes three.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        # As in _MatrixByMatrix: x (R, B, in), weights (M, in, out), biases (M, 1, out), M = R N.
        weights, biases = parameters[::2], parameters[1::2]
        matrices, last = len(weights[0]), len(weights) - 1
        indices: list[int | slice] = [slice(None)]
        inputs = [x.repeat_interleave(matrices // len(x), 0)]
        if x.device.type == "cpu" and x.dtype == torch.float32:
            indices = [*range(matrices)]
            inputs = [x[m * len(x) // matrices] for m in range(matrices)]
        values, input_gradients, ctx.layers = [], [], []
        for m, h in zip(indices, inputs, strict=True):
            hidden = [h]
            for i in range(last + 1):
                relu = i < last and slope == 0
                out = _product(hidden[i], weights[i][m], biases[i][m], relu)
                if i < last and slope:
                    nn.functional.leaky_relu_(out, slope)
                hidden.append(out)
            values.append(hidden.pop())
            deltas = [torch.ones_like(values[-1])]
            for i in range(last, -1, -1):
                delta = _product(deltas[-1], weights[i][m].mT)
                deltas.append(_times_slope(delta, hidden[i], slope) if i else delta)
            input_gradients.append(deltas.pop())
            ctx.layers.append((m, hidden, deltas[::-1]))
        ctx.slope = slope
        ctx.save_for_backward(*weights)
        rows = (matrices, x.shape[1])
        return (
            torch.stack(values).view(*rows, 1),
            torch.stack(input_gradients).view(*rows, x.shape[2]),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights: tuple[Tensor, ...] = ctx.saved_tensors
        last = len(weights) - 1
        found = [
            torch.empty_like(weight[:, :rows])
            for weight in weights
            for rows in (weight.shape[1], 1)
        ]
        for m, hidden, deltas in ctx.layers:
            of_value, tangent = gradients[0][m], gradients[1][m]
            for i in range(last + 1):
                left = torch.addcmul(tangent, of_value, hidden[i])
                found[2 * i][m] = _product(left.mT, deltas[i])
                found[2 * i + 1][m] = _product(of_value.mT, deltas[i])
                if i < last:
                    tangent = _product(tangent, weights[i][m])
                    tangent = _times_slope(tangent, hidden[i + 1], ctx.slope)
        return None, None, *found


class _SumInBlocks(torch.autograd.Function):
    """An MLP with a loss on top, on the CPU: forward and back for a few states at a time.

    The loss is a sum over states, so all gradients are found on the way forward, while a block's
    activations are in cache, and are only scaled on the way back.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        loss: Callable[..., Tensor],
        dtype: torch.dtype,
        layers: int,
        *tensors: Tensor,
    ) -> Tensor:
        # x: (R, B, K, in); weights (R, N, in, out) and biases (R, N, 1, out) of each layer in turn;
        # then what else the loss takes, (R, N or 1, B, ...).
        low = [p.to(dtype) for p in tensors[: 2 * layers - 2]]
        last_weight, last_bias = tensors[2 * layers - 2 : 2 * layers]  # outputs keep their digits
        others = tensors[2 * layers :]
        wanted = [i for i in range(len(others)) if ctx.needs_input_grad[4 + 2 * layers + i]]
        found = [torch.zeros_like(tensor) for tensor in tensors]
        members, (size, inputs) = last_weight.shape[1], x.shape[2:]
        total = torch.zeros(len(x), members)
        states = max(1, BLOCK_ROWS // size)
        for r, start in itertools.product(range(len(x)), range(0, x.shape[1], states)):
            rows = slice(start, start + states)
            block = x[r, rows].reshape(-1, inputs).to(dtype)
            hidden, outs = [[block] for _ in range(members)], []
            for n, layer in enumerate(hidden):
                for weight, bias in zip(low[::2], low[1::2], strict=True):
                    layer.append(_product(layer[-1], weight[r, n], bias[r, n], relu=True))
                layer.append(layer[-1].to(x.dtype))
                outs.append(torch.addmm(last_bias[r, n], layer[-1], last_weight[r, n]))
            out = torch.stack(outs).view(members, -1, size)
            here = [other[r, :, rows] for other in others]
            needed = [out, *(here[i] for i in wanted)]
            with torch.enable_grad():
                for tensor in needed:
                    tensor.requires_grad_()
                value = loss(out, *here)
                deltas, *of_others = torch.autograd.grad(value.sum(), needed)
            total[r] += value.detach()
            for i, gradient in zip(wanted, of_others, strict=True):
                found[2 * layers + i][r, :, rows] = gradient
            for n, layer in enumerate(hidden):
                delta = deltas[n].reshape(-1, 1)
                found[2 * layers - 2][r, n] += layer.pop().T @ delta
                found[2 * layers - 1][r, n] += delta.sum()
                delta = delta.to(dtype) * last_weight[r, n].T.to(dtype)
                for i in range(len(low) - 2, -1, -2):
                    active, below = layer.pop(), layer[-1].T
                    torch.ops.aten.threshold_backward.grad_input(delta, active, 0, grad_input=delta)
                    # torch's own product spares the copy of a transposed bfloat16 matrix.
                    exact = dtype == torch.float32
                    found[i][r, n] += _product(below, delta) if exact else below @ delta
                    found[i + 1][r, n] += delta.sum(0)
                    if i:
                        delta = _product(delta, low[i][r, n].T)
        ctx.save_for_backward(*found)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0]
        found = [
            tensor * scale.view(*scale.shape, *[1] * (tensor.dim() - 2)) if needed else None
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[4:], strict=True)
        ]
        return None, None, None, None, *found


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)) if len(parts) > 1 else parts[0].unsqueeze(0)  # not a copy


class _Affine(torch.autograd.Function):
    """One layer on the CPU, one replica at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        # x: (R, N, in), weight (R, in, out), bias (R, 1, out).
        out = _stacked([_product(x[r], weight[r], bias[r, 0], relu) for r in range(len(x))])
        ctx.save_for_backward(x, weight, out if relu else None)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out = ctx.saved_tensors
        # A strided operand, such as the gradient of a stack, makes oneDNN fifty times slower.
        delta = gradients[0].contiguous()
        delta = delta if out is None else _times_slope(delta, out, 0.0)
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = _stacked([_product(delta[r], weight[r].mT) for r in range(len(x))])
        of_weight = _stacked([_product(x[r].mT, delta[r]) for r in range(len(x))])
        return of_input, of_weight, delta.sum(1, keepdim=True), None


class Linear(nn.Module):
    """One layer of R replicas, all zeros until an algorithm draws its weights.

    The weight has shape (R, in, out) and the bias (R, 1, out).
    """

    def __init__(self, replicas: int, inputs: int, outputs: int, device: torch.device | str):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(replicas, inputs, outputs, device=device))
        self.bias = nn.Parameter(torch.zeros(replicas, 1, outputs, device=device))

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """Shape (R, ..., out) for x of shape (R, ..., in), with ReLU or without."""
        rows = x.flatten(1, -2).contiguous()
        if x.device.type == "cpu" and x.dtype == torch.float32:
            out: Tensor = _Affine.apply(rows, self.weight, self.bias, relu)  # type: ignore[no-untyped-call]
        else:
            out = torch.baddbmm(self.bias, rows, self.weight)
            out = torch.relu(out) if relu else out
        return out.view(*x.shape[:-1], -1)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, with a scale and a shift (R, width)."""

    def __init__(self, replicas: int, width: int, device: torch.device | str):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(replicas, width, device=device))
        self.shift = nn.Parameter(torch.zeros(replicas, width, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape (R, ..., width)."""
        shape = (len(x), *[1] * (x.dim() - 2), -1)
        normal = nn.functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.shift.view(shape), normal, self.scale.view(shape))


class MLP(nn.Module):
    """Multi-layer perceptrons of R replicas and, for an ensemble, N members each.

    Args:
        streams: one generator per replica; draws the initial weights.
        sizes: input, hidden and output widths.
        members: N, the members of an ensemble; None for a single network.
        activation: between layers, a key of SLOPES; the output is linear.
        initialisation: "torch" is nn.Linear's U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and
            biases; "orthogonal" has gain sqrt(2) in every layer and zero biases; "fan in" and "fan
            out" have U(-1/sqrt(fan), 1/sqrt(fan)) weights and biases of 0.1 (rlkit takes fan out);
            "normal" has N(0, 1/(4 fan_in)) weights and biases of 0.1 (OfflineRL-Kit's ensembles).
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
                    elif initialisation == "normal":
                        weight[index].normal_(0, 0.5 / math.sqrt(inputs), generator=generator)
                        bias[index].fill_(0.1)
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
        parameters, trained = [], torch.is_grad_enabled() and not frozen
        pairs = [*zip(self.weights, self.biases, strict=True)]
        pairs += [*zip(self.scales, self.shifts, strict=True)]
        for pair in pairs:
            for p in pair:
                parameter = p if trained else p.detach()
                if self.members is not None:
                    parameter = parameter.flatten(0, 1) if member is None else parameter[:, member]
                parameters.append(parameter)
        stacked = self.members is not None and member is None
        if x.device.type == "cpu" and x.dtype == torch.float32:
            out: Tensor = _MatrixByMatrix.apply(x, self.slope, len(self.weights), *parameters)  # type: ignore[no-untyped-call]
        else:
            out = self._batched(x, parameters)
        return out.view(len(x), -1, *out.shape[1:]) if stacked else out

    def value_and_input_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The one output, (R, [N,] B, 1), and its gradient with respect to `x`, (R, [N,] B, in).

        Both can be differentiated with respect to the parameters, but not with respect to `x`.
        """
        if self.scales:
            raise ValueError("value_and_input_gradient serves networks without layer_norm")
        lead = self.weights[0].shape[:-2]
        parameters = [
            p.flatten(0, len(lead) - 1)
            for layer in zip(self.weights, self.biases, strict=True)
            for p in layer
        ]
        value, gradient = _ValueAndInputGradient.apply(x.detach(), self.slope, *parameters)  # type: ignore[no-untyped-call]
        return value.view(*lead, *value.shape[1:]), gradient.view(*lead, *gradient.shape[1:])

    def sum_in_blocks(
        self,
        loss: Callable[..., Tensor],
        x: Tensor,
        *others: Tensor,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The sum over states of a loss on this ensemble's one output for K inputs a state, (R, N).

        The same as `loss(outputs, *others)`, without keeping all states' activations. It can be
        differentiated with respect to the parameters and `others`, but not with respect to `x`.

        Args:
            loss: takes outputs (..., B, K) and the others' (..., B, ...) for any B states and gives
                sums over them (...).
            x: shape (R, B, K, in); every member sees the same.
            others: shapes (R, N, B, ...); or (R, 1, B, ...) for all members, without gradients.
            dtype: of all products but the last layer's; that of `x` if None.
        """
        if self.scales or self.slope:
            raise ValueError("sum_in_blocks serves ReLU networks without layer_norm")
        dtype = dtype or x.dtype
        pairs = [*zip(self.weights, self.biases, strict=True)]
        if x.device.type == "cpu" and x.dtype == torch.float32:
            parameters = [p for pair in pairs for p in pair]
            total: Tensor = _SumInBlocks.apply(x, loss, dtype, len(pairs), *parameters, *others)  # type: ignore[no-untyped-call]
            return total
        out = x.flatten(1, 2).unsqueeze(1).to(dtype)
        for weight, bias in pairs[:-1]:
            out = torch.relu(out @ weight.to(dtype) + bias.to(dtype))
        out = out.to(x.dtype) @ self.weights[-1] + self.biases[-1]
        return loss(out.view(len(x), -1, *x.shape[1:3]), *others)

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
    rlkit and its descendants take log(1 - tanh(u)^2 + 1e-6), which matters where actions saturate:
    their densities stay bounded. `epsilon` says which.

    Args:
        mlp: from observations to 2 action_dim numbers.
        max_action: actions lie in (-max_action, max_action).
        log_std_range: the log standard deviation is clamped to it.
        epsilon: added to 1 - tanh(u)^2 in densities; 0 is exact.
    """

    def __init__(
        self,
        mlp: MLP,
        max_action: float,
        log_std_range: tuple[float, float],
        epsilon: float = 0.0,
    ):
        super().__init__()
        self.mlp, self.max_action, self.log_std_range = mlp, max_action, log_std_range
        self.epsilon = epsilon

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
        log_prob = (-0.5 * noise.square() - log_std - self._log_slope(u)).sum(-1)
        log_prob = log_prob - 0.5 * math.log(2 * math.pi) * mean.shape[-1]
        return self.max_action * torch.tanh(u), log_prob

    def log_prob(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log densities (R, B) of given actions, which are kept 1e-6 inside the bounds."""
        mean, log_std = self.gaussian(states)
        u = torch.atanh((actions / self.max_action).clamp(-1 + 1e-6, 1 - 1e-6))
        z = (u - mean) * torch.exp(-log_std)
        log_prob = -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi) - self._log_slope(u)
        return log_prob.sum(-1)

    def mode(self, states: Tensor) -> Tensor:
        """The tanh of the mean, (R, B, action_dim): how all references act in evaluation."""
        return self.max_action * torch.tanh(self.gaussian(states)[0])

    def _log_slope(self, u: Tensor) -> Tensor:
        # log(1 - tanh(u)^2 + epsilon), without the cancellation.
        exact = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))
        if not self.epsilon:
            return exact
        return torch.logaddexp(exact, exact.new_full((), math.log(self.epsilon)))


class Standardise(nn.Module):
    """Observations minus the data's mean, over its standard deviation plus `eps`.

    The default is CORL's for all algorithms but Decision Transformer, which has 1e-6.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: Spec, device: torch.device | str = "cpu", eps: float = 1e-3):
        super().__init__()
        std = torch.as_tensor(spec.observation_std, dtype=torch.float32, device=device)
        mean = torch.as_tensor(spec.observation_mean, dtype=torch.float32, device=device)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / (std + eps))

    def forward(self, observations: Tensor) -> Tensor:
        """Standardised observations, of the same shape (..., observation_dim)."""
        return (observations - self.mean) * self.scale


def adam(parameters: Iterable[Tensor], lr: float) -> torch.optim.Adam:
    """Adam in one pass over each parameter; elementwise, so it serves all replicas at once."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


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
