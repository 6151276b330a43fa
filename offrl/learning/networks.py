"""Networks with a replica axis: every parameter starts with R, so R seeds train as one batch."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from offrl.learning.initialisers import INITIALISERS, uniform
from offrl.learning.kernels import (
    LAYER_NORM_EPSILON,
    Affine,
    MatrixByMatrix,
    Parameters,
    SumInBlocks,
    ValueAndInputGradient,
    applies,
    outputs,
)
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams

SLOPES = {"relu": 0.0, "leaky_relu": 0.1}  # of the negative part, by activation


class Network(nn.Module):
    """A module whose call returns one tensor, where torch leaves the type open."""

    __call__: Callable[..., Tensor]


class Linear(Network):
    """One layer of R replicas, all zeros until an algorithm draws its weights.

    The weight has shape (R, in, out) and the bias (R, 1, out).
    """

    products: torch.dtype | None = None  # of the operands; None: those of the inputs

    def __init__(self, replicas: int, inputs: int, outputs: int, device: torch.device | str):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(replicas, inputs, outputs, device=device))
        self.bias = nn.Parameter(torch.zeros(replicas, 1, outputs, device=device))

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """Shape (R, ..., out) for x of shape (R, ..., in), with ReLU or without."""
        rows = x.flatten(1, -2).contiguous()
        dtype = self.products or x.dtype
        if applies(x) and dtype == torch.float32:
            out: Tensor = Affine.apply(rows, self.weight, self.bias, relu)  # type: ignore[no-untyped-call]
        else:
            out = torch.baddbmm(self.bias.to(dtype), rows.to(dtype), self.weight.to(dtype))
            out = (torch.relu(out) if relu else out).to(x.dtype)
        return out.view(*x.shape[:-1], -1)


def look_up(table: Tensor, rows: Tensor) -> Tensor:
    """Each replica's rows of its own table, (R, ..., width).

    Args:
        table: shape (R, height, width).
        rows: int64, shape (R, ...).
    """
    if table.device.type != "cpu":
        found: Tensor = LookUp.apply(table, rows)  # type: ignore[no-untyped-call]
        return found
    return nn.functional.embedding(_flat_rows(table, rows), table.flatten(0, 1))


def _flat_rows(table: Tensor, rows: Tensor) -> Tensor:
    """The rows in a table of all replicas."""
    first = torch.arange(len(table), device=rows.device) * table.shape[1]
    return rows + first.view(-1, *[1] * (rows.dim() - 1))


class LookUp(torch.autograd.Function):
    """`look_up` with a gradient by one product, which does not depend on an order of additions.

    torch's own, for more than 3,072 rows on a GPU, sorts them and waits for the number of distinct
    ones, which no CUDA graph can hold.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        """Rows (R, ..., width) of a table (R, height, width)."""
        ctx.save_for_backward(rows)
        ctx.height = table.shape[1]
        flat = table.flatten(0, 1).index_select(0, _flat_rows(table, rows).flatten())
        return flat.view(*rows.shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient with respect to the table."""
        (rows,) = ctx.saved_tensors
        heights = torch.arange(ctx.height, device=rows.device).view(1, -1, 1)
        chosen = (heights == rows.flatten(1).unsqueeze(1)).to(gradients[0].dtype)
        return chosen @ gradients[0].flatten(1, -2), None


class LayerNorm(Network):
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


class MLP(Network):
    """Multi-layer perceptrons of R replicas and, for an ensemble, N members each.

    Args:
        streams: whose generators draw the initial weights, which then go to its device.
        sizes: input, hidden and output widths.
        members: N, the members of an ensemble; None for a single network.
        activation: between layers, a key of SLOPES; the output is linear.
        initialisation: of every layer, a key of INITIALISERS.
        last: the bound of the output layer's uniform weights and biases, where it differs.
        layer_norm: normalises every hidden layer after its activation (Ba et al. 2016, arXiv
            1607.06450), with a learned scale from 1 and shift from 0.

    Weights have shape (R, [N,] in, out); biases, scales and shifts (R, [N,] 1, out).
    """

    products: torch.dtype | None = None  # of hidden layers; None: that of the inputs

    def __init__(
        self,
        streams: Streams,
        sizes: Sequence[int],
        *,
        members: int | None = None,
        activation: str = "relu",
        initialisation: str = "torch",
        last: float | None = None,
        layer_norm: bool = False,
    ):
        super().__init__()
        self.members = members
        self.slope = SLOPES[activation]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        lead = (len(streams.generators),) if members is None else (len(streams.generators), members)
        initialisers = [INITIALISERS[initialisation]] * (len(sizes) - 1)
        if last is not None:
            initialisers[-1] = uniform(last)
        for fans, initialise in zip(itertools.pairwise(sizes), initialisers, strict=True):
            weight, bias = torch.empty(*lead, *fans), torch.empty(*lead, 1, fans[1])
            for r, generator in enumerate(streams.generators):
                for n in range(members or 1):
                    index = (r,) if members is None else (r, n)
                    initialise(weight[index], bias[index], *fans, generator)
            self.weights.append(nn.Parameter(weight.to(streams.device)))
            self.biases.append(nn.Parameter(bias.to(streams.device)))
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
        if len(x) != len(self.weights[0]):
            raise ValueError(f"x has {len(x)} replicas, the network {len(self.weights[0])}")
        parameters = self._matrices(member, torch.is_grad_enabled() and not frozen)
        stacked = self.members is not None and member is None
        dtype = self.products or x.dtype
        out: Tensor
        if applies(x) and dtype == torch.float32 and not torch.is_grad_enabled():
            out = outputs(x, self.slope, parameters)
        elif applies(x) and dtype == torch.float32:
            layers = len(self.weights)
            out = MatrixByMatrix.apply(x, self.slope, layers, *parameters.flat)  # type: ignore[no-untyped-call]
        else:
            out = self._batched(x, parameters, dtype)
        return out.view(len(x), -1, *out.shape[1:]) if stacked else out

    def value_and_input_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The one output, (R, [N,] B, 1), and its gradient with respect to `x`, (R, [N,] B, in).

        Both can be differentiated with respect to the parameters, but not with respect to `x`.
        """
        if self.scales:
            raise ValueError("value_and_input_gradient serves networks without layer_norm")
        lead, layers = self.weights[0].shape[:-2], len(self.weights)
        parameters = self._matrices(None, trained=True)
        value, gradient = ValueAndInputGradient.apply(  # type: ignore[no-untyped-call]
            x.detach(), self.slope, layers, *parameters.flat
        )
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
            dtype: of all products but the last layer's; as elsewhere if None.
        """
        if self.scales or self.slope:
            raise ValueError("sum_in_blocks serves ReLU networks without layer_norm")
        dtype = dtype or self.products or x.dtype
        if applies(x):
            tensors = (*self.weights, *self.biases, *others)
            total: Tensor = SumInBlocks.apply(x, loss, dtype, len(self.weights), *tensors)  # type: ignore[no-untyped-call]
            return total
        out = self._batched(x.flatten(1, 2), self._matrices(None, trained=True), dtype)
        return loss(out.view(len(x), -1, *x.shape[1:3]), *others)

    def _matrices(self, member: int | None, trained: bool) -> Parameters:
        """As matrices of one axis, of one member or all; without their graph if not trained."""

        def matrices(parameter: Tensor) -> Tensor:
            parameter = parameter if trained else parameter.detach()
            if self.members is None:
                return parameter
            return parameter.flatten(0, 1) if member is None else parameter[:, member]

        kinds = (self.weights, self.biases, self.scales, self.shifts)
        return Parameters(*(tuple(map(matrices, kind)) for kind in kinds))

    def _batched(self, x: Tensor, parameters: Parameters, dtype: torch.dtype) -> Tensor:
        """The same network as one batched product a layer, for a GPU and for float64.

        Hidden layers are of `dtype`, the last of that of `x`, so that outputs keep their digits.
        """
        exact = x.dtype
        weights, biases, scales, shifts = parameters
        if copies := len(weights[0]) // len(x) - 1:
            x = x.repeat_interleave(copies + 1, 0)
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            here = dtype if i < len(weights) - 1 else exact
            x = torch.baddbmm(bias.to(here), x.to(here), weight.to(here))
            if i < len(weights) - 1:
                x = nn.functional.leaky_relu(x, self.slope) if self.slope else torch.relu(x)
            if i < len(scales):
                x = nn.functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON)
                x = torch.addcmul(shifts[i].to(here), x, scales[i].to(here))
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


class Standardise(Network):
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
        between = [1] * (observations.dim() - 2)
        mean, scale = (
            of.view(len(of), *between, -1) if of.dim() > 1 else of  # of each replica
            for of in (self.mean, self.scale)
        )
        return (observations - mean) * scale
