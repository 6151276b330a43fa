import pytest
import torch

from offrl.networks import MLP, adam, polyak, step
from offrl.streams import Streams, spawn_seed


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
        return MLP(Streams(seeds, "x"), [16, 64, 2], initialisation=initialisation)  # type: ignore[arg-type]

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


def test_streams_depend_on_seed_and_purpose_alone() -> None:
    three = Streams([1, 2, 3], "noise")
    assert torch.equal(three.normal(4)[1], Streams([2], "noise").normal(4)[0])
    assert not torch.equal(three.normal(4)[1], Streams([2], "batches").normal(4)[0])
    assert spawn_seed(1, "a", 0) != spawn_seed(1, "a", 1)
    state = three.state_dict()
    drawn = three.integers(1000, 5)
    three.load_state_dict(state)
    assert torch.equal(three.integers(1000, 5), drawn)
