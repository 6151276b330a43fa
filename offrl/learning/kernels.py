"""Passes through a network, forward and back, arranged for float32 on a CPU.

Products go one member of an ensemble at a time, so that activations stay in cache: through
oneDNN, which uses AVX-512 on any CPU that has it, or through the library behind torch.mm, MKL,
which does so on Intel's alone. `networks` calls these where they apply. Elsewhere, and where narrow
networks make it faster, it does the same by one batched product a layer. Which is fastest depends
on processor and shapes (`benchmarks/README.md` has figures); results differ by rounding alone.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from offrl.errors import InputError

LAYER_NORM_EPSILON = 1e-6  # flax's; torch's own default is 1e-5
BLOCK_ROWS = 512  # whose activations stay in cache: half a megabyte a layer of 256


def _onednn_works(dtype: torch.dtype) -> bool:
    try:
        one = torch.ones(1, 1, dtype=dtype)
        return bool(torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], "") == 1)
    except (AttributeError, RuntimeError):
        return False


# Of what: not every processor multiplies bfloat16.
ONEDNN = frozenset(dtype for dtype in (torch.float32, torch.bfloat16) if _onednn_works(dtype))
KERNELS = ("onednn", "blas", "batched") if torch.float32 in ONEDNN else ("blas", "batched")
_current = KERNELS[0]


def current() -> str:
    """The kernel of this process, one of KERNELS."""
    return _current


def use(name: str) -> None:
    """Sets the kernel of all that this process computes from now on."""
    global _current
    if name not in KERNELS:
        raise InputError(f"kernel {name!r:.80} is not here; expected one of {', '.join(KERNELS)}")
    _current = name


@contextmanager
def using(name: str) -> Iterator[None]:
    """Has what is computed inside done by a kernel, where it is here."""
    before = _current
    use(name if name in KERNELS else before)
    try:
        yield
    finally:
        use(before)


def applies(x: Tensor) -> bool:
    """Whether inputs `x` go through a network matrix by matrix; a graph for export has products."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return plain and _current != "batched" and not torch.onnx.is_in_onnx_export()


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """The product a b plus a bias, of matrices or batches of them, and then ReLU or not."""
    # ReLU comes after oneDNN's product, because its own turns NaN into 0, which would hide it.
    if _current == "onednn" and a.dim() == 2 and a.dtype in ONEDNN:
        flat = None if bias is None else bias.flatten()
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.mT, flat, "none", [], "")
    else:
        out = a @ b
        if bias is not None:
            out += bias
    return out.relu_() if relu else out


def put_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Writes the product of two matrices into `out`."""
    if _current == "onednn":
        out.copy_(product(a, b))
    else:
        torch.mm(a, b, out=out)


def times_slope(delta: Tensor, out: Tensor, slope: float) -> Tensor:
    """`delta` back through an activation, whose derivative can be read off its output's sign."""
    if slope:
        return torch.ops.aten.leaky_relu_backward(delta, out, slope, True)  # type: ignore[no-any-return]
    return torch.ops.aten.threshold_backward(delta, out, 0)  # type: ignore[no-any-return]


def scale_by_slope(delta: Tensor, out: Tensor, slope: float) -> None:
    """The same in place."""
    if slope:
        backward = torch.ops.aten.leaky_relu_backward.grad_input
        backward(delta, out, slope, True, grad_input=delta)
    else:
        torch.ops.aten.threshold_backward.grad_input(delta, out, 0, grad_input=delta)


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
        """Gradients with respect to the arguments of `forward`."""
        x, weight, out = ctx.saved_tensors
        # A strided operand, such as the gradient of a stack, makes oneDNN fifty times slower.
        delta = gradients[0].contiguous()
        delta = delta if out is None else times_slope(delta, out, 0.0)
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = _stacked([product(delta[r], weight[r].mT) for r in range(len(x))])
        of_weight = _stacked([product(x[r].mT, delta[r]) for r in range(len(x))])
        return of_input, of_weight, delta.sum(1, keepdim=True), None


class Parameters(NamedTuple):
    """The parameters of an MLP, or their gradients, by kind: a tensor per layer.

    Each holds M = R N matrices, those of one replica's N members side by side.
    """

    weights: tuple[Tensor, ...]  # (M, in, out)
    biases: tuple[Tensor, ...]  # (M, 1, out)
    scales: tuple[Tensor, ...]  # (M, 1, out), of the hidden layers; () without layer normalisation
    shifts: tuple[Tensor, ...]  # (M, 1, out), likewise

    @classmethod
    def unpacked(cls, flat: Sequence[Tensor], layers: int) -> "Parameters":
        """From the one row of tensors that autograd passes on, for `layers` products."""
        norms = (len(flat) - 2 * layers) // 2
        ends = itertools.accumulate((0, layers, layers, norms, norms))
        return cls(*(tuple(flat[start:end]) for start, end in itertools.pairwise(ends)))

    @property
    def flat(self) -> tuple[Tensor, ...]:
        """All of them in one row, for autograd."""
        return (*self.weights, *self.biases, *self.scales, *self.shifts)

    def empty(self) -> "Parameters":
        """Uninitialised tensors of the same shapes, for gradients."""
        return Parameters(*(tuple(torch.empty_like(p) for p in kind) for kind in self))

    def apart(self) -> list["Parameters"]:
        """The parameters of each matrix: weights (in, out), all others (out,); views of these."""
        weights = [weight.unbind() for weight in self.weights]
        others = [[row.squeeze(1).unbind() for row in kind] for kind in self[1:]]
        kinds = (weights, *others)
        return [
            Parameters(*(tuple(layer[m] for layer in kind) for kind in kinds))
            for m in range(len(self.weights[0]))
        ]


def replica_of(m: int, matrices: int, replicas: int) -> int:
    """The replica to which matrix m of all replicas' members belongs."""
    return m * replicas // matrices


class Pass(NamedTuple):
    """What one matrix's way forward leaves for its way back."""

    hidden: list[Tensor]  # the input and each layer's output
    norms: list[list[Tensor]]  # of each hidden layer: the normalised input, mean, 1 / deviation


def _forward(x: Tensor, parameters: Parameters, slope: float) -> Pass:
    hidden, norms = [x], []
    last = len(parameters.weights) - 1
    for i, (weight, bias) in enumerate(zip(parameters.weights, parameters.biases, strict=True)):
        out = product(hidden[-1], weight, bias, relu=i < last and slope == 0)
        if i < last and slope:
            nn.functional.leaky_relu_(out, slope)
        if i < last and parameters.scales:
            active = out
            out, mean, rstd = torch.native_layer_norm(
                active,
                active.shape[1:],
                parameters.scales[i],
                parameters.shifts[i],
                LAYER_NORM_EPSILON,
            )
            norms.append([active, mean, rstd])
        hidden.append(out)
    return Pass(hidden, norms)


def _backward(
    delta: Tensor,
    kept: Pass,
    parameters: Parameters,
    slope: float,
    into: Parameters | None,
    wants_input: bool,
) -> Tensor:
    """Takes the outputs' gradient back to the input; puts the parameters' into `into`, if given.

    Parameters and gradients are those of one matrix.
    """
    last = len(parameters.weights) - 1
    for i in range(last, -1, -1):
        if i < last:  # delta is a tensor made here
            active = kept.hidden[i + 1]
            if parameters.scales:
                active = kept.norms[i][0]
                delta = _norm_backward(delta, kept.norms[i], parameters, i, into)
            scale_by_slope(delta, active, slope)
        if into is not None:
            put_product(into.weights[i], kept.hidden[i].T, delta)
            torch.sum(delta, 0, out=into.biases[i])
        if i > 0 or wants_input:
            delta = product(delta, parameters.weights[i].T)
    return delta


def _norm_backward(
    delta: Tensor, norm: list[Tensor], parameters: Parameters, i: int, into: Parameters | None
) -> Tensor:
    active, mean, rstd = norm
    wanted = [True, into is not None, into is not None]
    delta, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
        delta,
        active,
        active.shape[1:],
        mean,
        rstd,
        parameters.scales[i],
        parameters.shifts[i],
        wanted,
    )
    if into is not None:
        into.scales[i].copy_(of_scale)
        into.shifts[i].copy_(of_shift)
    return delta


def outputs(x: Tensor, slope: float, parameters: Parameters) -> Tensor:
    """Those of MatrixByMatrix, where nothing goes back."""
    matrices, inputs = len(parameters.weights[0]), x.unbind()
    return _stacked(
        [
            # Each matrix's activations reuse the memory of those of the one before.
            _forward(inputs[replica_of(m, matrices, len(x))], own, slope).hidden[-1]
            for m, own in enumerate(parameters.apart())
        ]
    )


class MatrixByMatrix(torch.autograd.Function):
    """An MLP on the CPU, one replica and member at a time: its activations stay in cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, layers: int, *flat: Tensor) -> Tensor:
        """Outputs (M, B, out), with M = R N, for x (R, B, in) and a flat row of Parameters."""
        parameters = Parameters.unpacked(flat, layers)
        matrices, outs = len(flat[0]), []
        ctx.passes = []
        inputs = x.unbind()
        for m, own in enumerate(parameters.apart()):
            kept = _forward(inputs[replica_of(m, matrices, len(x))], own, slope)
            outs.append(kept.hidden[-1])
            ctx.passes.append(kept)
        ctx.slope, ctx.layers, ctx.shape = slope, layers, x.shape
        ctx.save_for_backward(*flat)
        return torch.stack(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to the arguments of `forward`."""
        parameters = Parameters.unpacked(ctx.saved_tensors, ctx.layers)
        wants_input, wants_parameters = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
        of_input = torch.zeros(ctx.shape) if wants_input else None
        of_parameters = parameters.empty() if wants_parameters else None
        into = [None] * len(ctx.passes) if of_parameters is None else of_parameters.apart()
        deltas = gradients[0].unbind()
        for m, own in enumerate(parameters.apart()):
            delta, kept = deltas[m], ctx.passes[m]
            rows: Tensor | slice = slice(None)
            if of_parameters is None:
                # Under a minimum over members, most rows have a gradient in another member.
                rows = delta.any(-1).nonzero().squeeze(-1)
                hidden, norms = kept
                delta, hidden = delta[rows], [h[rows] for h in hidden]
                kept = Pass(hidden, [[t[rows] for t in norm] for norm in norms])
            delta = _backward(delta, kept, own, ctx.slope, into[m], wants_input)
            if of_input is not None:
                of_input[replica_of(m, len(ctx.passes), len(of_input)), rows] += delta
        found = [None] * len(ctx.saved_tensors) if of_parameters is None else of_parameters.flat
        return of_input, None, None, *found


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
    def forward(
        ctx: Any, x: Tensor, slope: float, layers: int, *flat: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Q (M, B, 1) and g (M, B, in), with the arguments of MatrixByMatrix."""
        weights, biases, *_ = Parameters.unpacked(flat, layers)
        matrices, last = len(weights[0]), layers - 1
        indices: list[int | slice] = [slice(None)]
        inputs = [x.repeat_interleave(matrices // len(x), 0)]
        if applies(x):
            indices = [*range(matrices)]
            inputs = [x[replica_of(m, matrices, len(x))] for m in range(matrices)]
        values, input_gradients, ctx.passes = [], [], []
        for m, h in zip(indices, inputs, strict=True):
            hidden = [h]
            for i in range(layers):
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
            ctx.passes.append((m, hidden, deltas[::-1]))
        ctx.slope, ctx.layers = slope, layers
        ctx.save_for_backward(*flat)
        rows = (matrices, x.shape[1])
        return (
            torch.stack(values).view(*rows, 1),
            torch.stack(input_gradients).view(*rows, x.shape[2]),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to the arguments of `forward`."""
        parameters = Parameters.unpacked(ctx.saved_tensors, ctx.layers)
        of_parameters = parameters.empty()
        for m, hidden, deltas in ctx.passes:
            of_value, tangent = gradients[0][m], gradients[1][m]
            for i, weight in enumerate(parameters.weights):
                left = torch.addcmul(tangent, of_value, hidden[i])
                of_parameters.weights[i][m] = product(left.mT, deltas[i])
                of_parameters.biases[i][m] = product(of_value.mT, deltas[i])
                if i < ctx.layers - 1:
                    tangent = product(tangent, weight[m])
                    tangent = times_slope(tangent, hidden[i + 1], ctx.slope)
        return None, None, None, *of_parameters.flat


class SumInBlocks(torch.autograd.Function):
    """An MLP with a loss on top, on the CPU: forward and back for a few states at a time.

    The loss is a sum over states, so each block of states has its own way back. Autograd would keep
    the activations of all blocks until `backward`, when none is in cache; here `forward` goes back
    through a block at once, and `backward` only scales the gradients. `forward` therefore needs the
    loss as a function, where autograd would be given its value.
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

        Tensors are the weights (R, N, in, out) of all layers, then their biases (R, N, 1, out),
        then what else the loss takes, (R, N or 1, B, ...).
        """
        weights, biases = tensors[:layers], tensors[layers : 2 * layers]
        others = tensors[2 * layers :]
        low_weights = [weight.to(dtype) for weight in weights[:-1]]  # outputs keep their digits
        low_biases = [bias.to(dtype) for bias in biases[:-1]]
        wanted = [i for i in range(len(others)) if ctx.needs_input_grad[4 + 2 * layers + i]]
        found = [torch.zeros_like(tensor) for tensor in tensors]
        of_weights, of_biases = found[:layers], found[layers : 2 * layers]
        of_others = found[2 * layers :]
        members, (size, inputs) = weights[-1].shape[1], x.shape[2:]
        total = torch.zeros(len(x), members)
        states = max(1, BLOCK_ROWS // size)
        for r, start in itertools.product(range(len(x)), range(0, x.shape[1], states)):
            rows = slice(start, start + states)
            block = x[r, rows].reshape(-1, inputs).to(dtype)
            hidden, outs = [[block] for _ in range(members)], []
            for n, layer in enumerate(hidden):
                for weight, bias in zip(low_weights, low_biases, strict=True):
                    layer.append(product(layer[-1], weight[r, n], bias[r, n], relu=True))
                layer.append(layer[-1].to(x.dtype))
                outs.append(torch.addmm(biases[-1][r, n], layer[-1], weights[-1][r, n]))
            out = torch.stack(outs).view(members, -1, size)
            here = [other[r, :, rows] for other in others]
            needed = [out, *(here[i] for i in wanted)]
            with torch.enable_grad():
                for tensor in needed:
                    tensor.requires_grad_()
                value = loss(out, *here)
                deltas, *of_here = torch.autograd.grad(value.sum(), needed)
            total[r] += value.detach()
            for i, gradient in zip(wanted, of_here, strict=True):
                of_others[i][r, :, rows] = gradient
            for n, layer in enumerate(hidden):
                delta = deltas[n].reshape(-1, 1)
                of_weights[-1][r, n] += layer.pop().T @ delta
                of_biases[-1][r, n] += delta.sum()
                delta = delta.to(dtype) * weights[-1][r, n].T.to(dtype)
                for i in range(layers - 2, -1, -1):
                    active, below = layer.pop(), layer[-1].T
                    torch.ops.aten.threshold_backward.grad_input(delta, active, 0, grad_input=delta)
                    # torch's own product spares the copy of a transposed bfloat16 matrix.
                    exact = dtype == torch.float32
                    of_weights[i][r, n] += product(below, delta) if exact else below @ delta
                    of_biases[i][r, n] += delta.sum(0)
                    if i:
                        delta = product(delta, low_weights[i][r, n].T)
        ctx.save_for_backward(*found)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to the arguments of `forward`."""
        scale = gradients[0]
        found = [
            tensor * scale.view(*scale.shape, *[1] * (tensor.dim() - 2)) if needed else None
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[4:], strict=True)
        ]
        return None, None, None, None, *found
