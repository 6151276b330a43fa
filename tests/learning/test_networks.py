import pytest
import torch

from offrl.learning.networks import MLP
from offrl.learning.optim import adam, cosine_decay, polyak, set_rate, step, warm_up
from offrl.learning.streams import Streams, spawn_seed


@pytest.mark.parametrize(
    ("members", "member", "activation"),
    [(None, None, "relu"), (3, None, "relu"), (3, 1, "leaky_relu"), (2, None, "leaky_relu")],
)
def test_the_cpu_path_matches_torch_autograd_in_float64(
    members: int | None, member: int | None, activation: str
) -> None:
    def network() -> MLP:
        return MLP(Streams([0, 1], "x"), [5, 32, 32, 3], members=members, activation=activation)

    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    single, double = network(), network().double()
    exact_x = x.detach().double().requires_grad_()
    out, exact = single(x, member), double(exact_x, member)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(out, [x, *single.parameters()], weight)
    expected = torch.autograd.grad(exact, [exact_x, *double.parameters()], weight.double())
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-6)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


def modules(network: MLP, r: int, n: int) -> torch.nn.Sequential:
    """One member of an ensemble with layer normalisation as torch's own modules."""
    layers: list[torch.nn.Module] = []
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        inputs, outputs = weight.shape[-2:]
        linear = torch.nn.Linear(inputs, outputs, dtype=weight.dtype)
        linear.weight.data, linear.bias.data = weight[r, n].T.detach(), bias[r, n, 0].detach()
        layers.append(linear)
        if i < len(network.scales):
            norm = torch.nn.LayerNorm(outputs, eps=1e-6, dtype=weight.dtype)
            norm.weight.data = network.scales[i][r, n, 0].detach()
            norm.bias.data = network.shifts[i][r, n, 0].detach()
            layers += [torch.nn.ReLU(), norm]
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("member", [None, 1])
def test_layer_norm_after_the_activation_is_that_of_torchs_modules(
    dtype: torch.dtype, tolerance: float, member: int | None
) -> None:
    """Outputs and all gradients; the rows' scale of 1e-2 lets the wrong epsilon show."""
    streams = Streams([0, 1], "x")
    network = MLP(streams, [5, 16, 16, 3], members=2, layer_norm=True)
    for parameter in network.parameters():
        parameter.data += 0.1 * streams.normal(*parameter.shape[1:])
    network = network.to(dtype)
    x = (0.01 * streams.normal(7, 5)).to(dtype).requires_grad_()
    out = network(x, member)
    weight = streams.normal(*out.shape[1:]).to(dtype)
    found = torch.autograd.grad(out, [x, *network.parameters()], weight)
    by_name = dict(zip(["x", *(n for n, _ in network.named_parameters())], found, strict=True))

    input_gradient = torch.zeros_like(x)
    for r in range(2):
        for n in range(2) if member is None else [member]:
            module = modules(network, r, n)
            own_out, own_weight = (t[r] if member is not None else t[r, n] for t in (out, weight))
            expected = module(x[r])
            torch.testing.assert_close(own_out, expected, rtol=tolerance, atol=tolerance)
            gradients = torch.autograd.grad(expected, [x, *module.parameters()], own_weight)
            input_gradient += gradients[0]
            names = [
                f"{k}.{i}" for i in range(2) for k in ("weights", "biases", "scales", "shifts")
            ]
            for name, gradient in zip(
                [*names, "weights.2", "biases.2"], gradients[1:], strict=True
            ):
                own = by_name[name][r, n]
                own = own.T if name.startswith("weights") else own[0]
                torch.testing.assert_close(own, gradient, rtol=10 * tolerance, atol=10 * tolerance)
    torch.testing.assert_close(
        by_name["x"], input_gradient, rtol=10 * tolerance, atol=10 * tolerance
    )


def test_a_frozen_network_with_layer_norm_gives_the_inputs_gradient_alone() -> None:
    critic = MLP(Streams([0], "x"), [4, 8, 8, 1], members=2, layer_norm=True)
    x = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(x, frozen=True).sum(), [x])
    (same,) = torch.autograd.grad(critic(x).sum(), [x])
    assert torch.equal(gradient, same)
    assert gradient.any()


def test_members_see_the_same_input_and_differ() -> None:
    critic = MLP(Streams([0], "x"), [4, 8, 1], members=2)
    x = torch.randn(1, 6, 4)
    both = critic(x)
    assert both.shape == (1, 2, 6, 1)
    for n in range(2):
        torch.testing.assert_close(both[:, n], critic(x, member=n))
    assert not torch.allclose(both[:, 0], both[:, 1])


def test_a_frozen_network_passes_gradients_and_takes_none() -> None:
    critic = MLP(Streams([0], "x"), [4, 8, 1])
    x = torch.randn(1, 6, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(x, frozen=True).sum(), [x])
    (same,) = torch.autograd.grad(critic(x).sum(), [x])
    assert torch.equal(gradient, same)
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(critic(x, frozen=True).sum(), list(critic.parameters()))


@pytest.mark.parametrize("initialisation", ["torch", "orthogonal"])
def test_initial_weights_follow_the_seed_and_the_scheme(initialisation: str) -> None:
    def network(seeds: list[int]) -> MLP:
        return MLP(Streams(seeds, "x"), [16, 64, 2], initialisation=initialisation)

    three, one = network([7, 8, 9]), network([9])
    for together, alone in zip(three.parameters(), one.parameters(), strict=True):
        assert torch.equal(together[2], alone[0])
    weight, bias = three.weights[0], three.biases[0]
    if initialisation == "orthogonal":
        gram = weight[0] @ weight[0].T
        torch.testing.assert_close(gram, 2 * torch.eye(16), rtol=1e-4, atol=1e-4)
        assert not bias.any()
    else:
        assert weight.abs().max() <= 0.25  # 1 / sqrt(16)
        assert weight.abs().max() > 0.24
        assert bias.any()


def test_step_moves_its_own_parameters_only_and_replicas_alone() -> None:
    actor, critic = MLP(Streams([0, 1], "a"), [3, 8, 2]), MLP(Streams([0, 1], "c"), [2, 8, 1])
    optimizer = adam(actor.parameters(), 1e-2)
    before = [p.detach().clone() for p in (*actor.parameters(), *critic.parameters())]
    loss = critic(actor(torch.randn(2, 5, 3))).mean((1, 2))
    step(optimizer, loss * torch.tensor([1.0, 0.0]))
    after = [*actor.parameters(), *critic.parameters()]
    count = len(list(actor.parameters()))
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(old[1], new[1])  # the second replica's loss was 0
        assert torch.equal(old[0], new[0]) == (i >= count)


def test_polyak_is_a_weighted_mean() -> None:
    target, source = MLP(Streams([0], "t"), [3, 4, 1]), MLP(Streams([0], "s"), [3, 4, 1])
    expected = [
        0.75 * t + 0.25 * s for t, s in zip(target.parameters(), source.parameters(), strict=True)
    ]
    polyak(target, source, 0.25)
    for t, e in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(t, e)


def test_schedules_start_and_end_as_named() -> None:
    assert [cosine_decay(n, 4) for n in (0, 2, 4, 9)] == pytest.approx([1, 0.5, 0, 0])
    assert [warm_up(n, 4) for n in (0, 1, 3, 4)] == [0.25, 0.5, 1, 1]
    assert warm_up(0, 0) == 1
    optimizer = adam([torch.nn.Parameter(torch.zeros(1))], 1e-3)
    set_rate(optimizer, 1e-3 * warm_up(0, 4))
    assert [group["lr"] for group in optimizer.param_groups] == [2.5e-4]


def test_streams_depend_on_seed_and_purpose_alone() -> None:
    three = Streams([1, 2, 3], "noise")
    assert torch.equal(three.normal(4)[1], Streams([2], "noise").normal(4)[0])
    assert not torch.equal(three.normal(4)[1], Streams([2], "batches").normal(4)[0])
    assert spawn_seed(1, "a", 0) != spawn_seed(1, "a", 1)
    state = three.state_dict()
    drawn = three.integers(1000, 5)
    three.load_state_dict(state)
    assert torch.equal(three.integers(1000, 5), drawn)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_minimum_over_members_sends_each_row_its_own_members_gradient(layer_norm: bool) -> None:
    """Rows without a gradient are left out on the way back; so is a whole member here."""

    def network() -> MLP:
        critic = MLP(Streams([0, 1], "x"), [4, 16, 16, 1], members=4, layer_norm=layer_norm)
        critic.biases[-1].data[:, 3] += 100  # never the least
        return critic

    single, double = network(), network().double()
    x = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    exact = x.detach().double().requires_grad_()
    least = single(x, frozen=True).min(1)
    assert len(least.indices.unique()) > 1
    assert 3 not in least.indices
    (found,) = torch.autograd.grad(least.values.square().sum(), [x])
    (expected,) = torch.autograd.grad(double(exact, frozen=True).amin(1).square().sum(), [exact])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(single(x).min(1).values, least.values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_an_input_that_is_not_a_number_shows_in_the_output(
    activation: str, dtype: torch.dtype
) -> None:
    network = MLP(Streams([0], "x"), [4, 8, 8, 1], activation=activation).to(dtype)
    x = torch.zeros(1, 3, 4, dtype=dtype)
    x[0, 1, 2] = torch.nan
    assert network(x).isnan().flatten().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("initialisation", "spread"),
    [("fan in", 16**-0.5 / 3**0.5), ("fan out", 64**-0.5 / 3**0.5), ("normal", 0.5 * 16**-0.5)],
)
def test_ensembles_of_the_references_start_with_weights_of_their_spread(
    initialisation: str, spread: float
) -> None:
    sizes = [16, 64, 1]
    network = MLP(Streams([0], "x"), sizes, members=20, initialisation=initialisation, last=3e-3)
    assert network.weights[0].std().item() == pytest.approx(spread, rel=0.02)
    assert (network.weights[0].abs() > 2 * spread).any() == (initialisation == "normal")
    assert (network.biases[0] == 0.1).all()
    for parameter in (network.weights[1], network.biases[1]):
        assert 2e-3 < parameter.abs().max() <= 3e-3


def test_a_wrong_replica_axis_is_refused() -> None:
    mlp = MLP(Streams([0, 1], "test"), (4, 8, 1), members=3)
    for replicas in (1, 3):
        with pytest.raises(ValueError, match=f"x has {replicas} replicas, the network 2"):
            mlp(torch.ones(replicas, 5, 4))


def test_second_derivatives_of_the_cpu_path_are_refused_not_zero() -> None:
    mlp = MLP(Streams([0], "test"), (4, 8, 1))
    x = torch.ones(1, 5, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(mlp(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"does not require grad|once_differentiable"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.9, 0.999999, 1.0])
def test_bernoulli_draws_have_their_probability(probability: float) -> None:
    drawn = Streams([0, 1], "test").bernoulli(probability, 100, 50)
    assert drawn.shape == (2, 100, 50)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    error = 4 * max(1e-4, (probability * (1 - probability) / 10_000) ** 0.5)
    assert abs(drawn.mean().item() - probability) < error
