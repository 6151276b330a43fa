"""Named precisions: products in bfloat16 from float32 weights."""

import battery
import pytest
import torch

from offrl.errors import InputError
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.networks import MLP, Linear
from offrl.learning.precision import check_precision, multiply_in, set_precision
from offrl.learning.streams import Streams


@pytest.mark.parametrize(
    ("precision", "says"),
    [("tf32", "'tf32' is for GPUs"), ("bfloat16", "'bfloat16' is for GPUs"), ("fp8", "one of")],
)
def test_a_cpu_has_float32_alone(precision: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_precision(precision, "cpu")
    check_precision("float32", "cpu")
    if precision != "fp8":
        check_precision(precision, "cuda:1")


def test_on_a_cpu_nothing_of_the_process_is_set() -> None:
    learner, _ = battery.untrained("bc", battery.data(), [0])
    before = torch.get_float32_matmul_precision()
    set_precision(learner, "float32", "cpu")
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("layer_norm", [False, True])
def test_hidden_layers_are_of_bfloat16_and_weights_are_not(layer_norm: bool) -> None:
    """Against the same steps by hand, bit for bit, and float32 to bfloat16's 3 digits."""
    mlp = MLP(Streams([0, 1], "a"), (5, 16, 16, 2), members=3, layer_norm=layer_norm)
    x = torch.randn(2, 32, 5, generator=torch.Generator().manual_seed(0))
    exact = mlp(x)
    mlp.products = torch.bfloat16
    found = mlp(x)
    assert found.dtype == torch.float32
    h = x.bfloat16().repeat_interleave(3, 0)
    for i in range(2):
        weight, bias = (p[i].flatten(0, 1).bfloat16() for p in (mlp.weights, mlp.biases))
        h = torch.relu(torch.baddbmm(bias, h, weight))
        if layer_norm:
            h = torch.nn.functional.layer_norm(h, h.shape[-1:], eps=1e-6)
    out = torch.baddbmm(mlp.biases[2].flatten(0, 1), h.float(), mlp.weights[2].flatten(0, 1))
    assert torch.equal(found, out.view(2, 3, 32, 2))
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05)
    gradients = torch.autograd.grad(found.square().mean(), list(mlp.parameters()))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_a_layer_alone_gives_float32_again() -> None:
    layer = Linear(2, 4, 3, "cpu")
    layer.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    layer.products = torch.bfloat16
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1))
    expected = torch.relu(x.bfloat16() @ layer.weight.bfloat16()).float()
    torch.testing.assert_close(layer(x, relu=True), expected, rtol=0.01, atol=0.01)
    assert layer(x).dtype == torch.float32


ON_AXIS = [name for name in battery.named() if issubclass(find_algorithm(name), Learner)]


@pytest.mark.parametrize("name", ON_AXIS)
def test_every_learner_trains_so(name: str) -> None:
    """EDAC's critics, whose value and gradient come in one pass, and dropout keep float32."""
    exact, _ = battery.trained(name, battery.data(), [0, 1], 3)
    learner, sampler = battery.untrained(name, battery.data(), [0, 1])
    multiply_in(learner, torch.bfloat16)
    for _ in range(3):
        metrics = learner.update(sampler.sample())
    assert all(value.isfinite().all() for value in metrics.values())
    pairs = [*zip(battery.parameters(exact), battery.parameters(learner), strict=True)]
    assert all(b.dtype == torch.float32 for _, b in pairs)
    assert any(not torch.equal(a, b) for a, b in pairs)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.02)
