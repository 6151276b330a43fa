"""MLP.value_and_input_gradient against torch.autograd, which differentiates twice."""

import pytest
import torch
from torch import Tensor

from offrl.learning.networks import MLP
from offrl.learning.streams import Streams


def network(activation: str, members: int | None, hidden: list[int]) -> MLP:
    return MLP(Streams([0, 1], "x"), [5, *hidden, 1], members=members, activation=activation)


def by_autograd(net: MLP, x: Tensor) -> tuple[Tensor, Tensor]:
    """Values and input gradients as torch finds them, a graph of the parameters' use kept."""
    h = x if net.members is None else x.unsqueeze(1).expand(-1, net.members, -1, -1)
    h = inputs = h.clone().requires_grad_()
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        h = h @ weight + bias
        if i < len(net.weights) - 1:
            h = torch.nn.functional.leaky_relu(h, net.slope)
    (gradient,) = torch.autograd.grad(h.sum(), inputs, create_graph=True)
    return h, gradient


def losses(value: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """On either alone, on both, and on normalised gradients, each uneven over rows."""
    weight = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).view_as(value)
    unit = gradient / gradient.norm(dim=-1, keepdim=True)
    return {
        "value": (weight * value.square()).sum(),
        "gradient": (weight * gradient.square()).sum(),
        "both": (weight * value * gradient.sum(-1, keepdim=True)).sum(),
        "direction": (weight * value.square()).sum() + unit.sum(0).square().sum(),
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("hidden", [[32], [32, 16, 24]])
@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_values_gradients_and_what_trains_on_them_match_autograd(
    activation: str, members: int | None, hidden: list[int], dtype: torch.dtype, tolerance: float
) -> None:
    """float64 takes the batched path, which a GPU takes too; float32 the one of the CPU."""
    net = network(activation, members, hidden).to(dtype)
    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    found, expected = net.value_and_input_gradient(x), by_autograd(net, x)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found[0], net(x), rtol=tolerance, atol=tolerance)
    names, parameters = zip(*net.named_parameters(), strict=True)
    ours, theirs = losses(*found), losses(*expected)
    for case in ours:
        pairs = zip(
            names,
            torch.autograd.grad(ours[case], parameters, retain_graph=True),
            torch.autograd.grad(
                theirs[case], parameters, retain_graph=True, materialize_grads=True
            ),
            strict=True,
        )
        for name, a, b in pairs:
            assert (a - b).norm() <= tolerance * b.norm() + tolerance**2, (case, name)


def test_a_network_with_layer_normalisation_is_refused() -> None:
    net = MLP(Streams([0], "x"), [5, 8, 1], layer_norm=True)
    with pytest.raises(ValueError, match="without layer_norm"):
        net.value_and_input_gradient(torch.zeros(1, 4, 5))
