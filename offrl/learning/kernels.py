"""Passes through a network, forward and back, arranged for float32 on a CPU.

Products go through oneDNN, one member of an ensemble at a time, so that activations stay in cache.
`networks` calls these where they apply and does the same by batched products elsewhere.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LAYER_NORM_EPSILON = 1e-6  # flax's; torch's own default is 1e-5
BLOCK_ROWS = 512  # whose activations stay in cache: half a megabyte a layer of 256


def _onednn_works() -> bool:
    try:
        one = torch.ones(1, 1)
        return bool(torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], "") == 1)
    except (AttributeError, RuntimeError):
        return False


ONEDNN = _onednn_works()


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """The product a b plus a bias, of matrices or batches of them, and then ReLU or not."""
    # Through oneDNN, which uses AVX-512 on any CPU that has it; torch.mm's MKL does so on
    # Intel's alone (benchmarks/README.md has figures).
    # ReLU comes after it, because oneDNN's own makes 0 of NaN, which then nobody sees.
    if ONEDNN and a.dim() == 2:
        flat = None if bias is None else bias.flatten()
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.mT, flat, "none", [], "")
    else:
        out = a @ b if bias is None else a @ b + bias
    return out.relu_() if relu else out


def times_slope(delta: Tensor, out: Tensor, slope: float) -> Tensor:
    """`delta` back through an activation, whose derivative can be read off its output's sign."""
    if slope:
        return torch.ops.aten.leaky_relu_backward(delta, out, slope, True)  # type: ignore[no-any-return]
    return torch.ops.aten.threshold_backward(delta, out, 0)  # type: ignore[no-any-return]


class MatrixByMatrix(torch.autograd.Function):
    """An MLP on the CPU, one replica and member at a time: its activations stay in cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, linear: int, *parameters: Tensor) -> Tensor:
        """Outputs (M, B, out), with M = R N, for x (R, B, in).

        Parameters are weights (M, in, out) and biases (M, 1, out) in turn, for `linear` layers;
        then scales and shifts (M, 1, out) in turn, where there is layer normalisation.
        """
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
                out = product(hidden[-1], weight[m], bias[m, 0], relu)
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
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` took."""
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
                    delta = times_slope(delta, active, ctx.slope)
                weight_gradient, bias_gradient = found[2 * i], found[2 * i + 1]
                if weight_gradient is not None and bias_gradient is not None:
                    weight_gradient[m] = product(hidden[i].T, delta)
                    torch.sum(delta, 0, out=bias_gradient[m, 0])
                if i > 0 or wants_input:
                    delta = product(delta, weights[i][m].T)
            if input_gradient is not None:
                input_gradient[m * len(input_gradient) // matrices, rows] += delta
        return input_gradient, None, None, *found


class ValueAndInputGradient(torch.autograd.Function):
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
        """Q (M, B, 1) and g (M, B, in), for x and parameters as MatrixByMatrix takes them."""
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
                out = product(hidden[i], weights[i][m], biases[i][m], relu)
                if i < last and slope:
                    nn.functional.leaky_relu_(out, slope)
                hidden.append(out)
            values.append(hidden.pop())
            deltas = [torch.ones_like(values[-1])]
            for i in range(last, -1, -1):
                delta = product(deltas[-1], weights[i][m].mT)
                deltas.append(times_slope(delta, hidden[i], slope) if i else delta)
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
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` took."""
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
                found[2 * i][m] = product(left.mT, deltas[i])
                found[2 * i + 1][m] = product(of_value.mT, deltas[i])
                if i < last:
                    tangent = product(tangent, weights[i][m])
                    tangent = times_slope(tangent, hidden[i + 1], ctx.slope)
        return None, None, *found


class SumInBlocks(torch.autograd.Function):
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
        """The loss (R, N), summed over states, for x (R, B, K, in).

        Tensors are weights (R, N, in, out) and biases (R, N, 1, out) of each layer in turn, then
        what else the loss takes, (R, N or 1, B, ...).
        """
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
                    layer.append(product(layer[-1], weight[r, n], bias[r, n], relu=True))
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
                    found[i][r, n] += product(below, delta) if exact else below @ delta
                    found[i + 1][r, n] += delta.sum(0)
                    if i:
                        delta = product(delta, low[i][r, n].T)
        ctx.save_for_backward(*found)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` took."""
        scale = gradients[0]
        found = [
            tensor * scale.view(*scale.shape, *[1] * (tensor.dim() - 2)) if needed else None
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[4:], strict=True)
        ]
        return None, None, None, None, *found


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)) if len(parts) > 1 else parts[0].unsqueeze(0)  # not a copy


class Affine(torch.autograd.Function):
    """One layer on the CPU, one replica at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        """Outputs (R, N, out) for x (R, N, in), weight (R, in, out) and bias (R, 1, out)."""
        out = _stacked([product(x[r], weight[r], bias[r, 0], relu) for r in range(len(x))])
        ctx.save_for_backward(x, weight, out if relu else None)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` took."""
        x, weight, out = ctx.saved_tensors
        # A strided operand, such as the gradient of a stack, makes oneDNN fifty times slower.
        delta = gradients[0].contiguous()
        delta = delta if out is None else times_slope(delta, out, 0.0)
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = _stacked([product(delta[r], weight[r].mT) for r in range(len(x))])
        of_weight = _stacked([product(x[r].mT, delta[r]) for r in range(len(x))])
        return of_input, of_weight, delta.sum(1, keepdim=True), None
