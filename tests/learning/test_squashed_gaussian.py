"""SAC's squashed Gaussian against torch.distributions and by integration."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from offrl.learning.networks import MLP, SquashedGaussian
from offrl.learning.streams import Streams


@pytest.fixture
def policy() -> SquashedGaussian:
    mlp = MLP(Streams([0, 1], "test"), (4, 8, 6)).double()
    return SquashedGaussian(mlp, max_action=2.0, log_std_range=(-5.0, 2.0))


def reference(policy: SquashedGaussian, states: Tensor) -> TransformedDistribution:
    mean, log_std = policy.gaussian(states)
    normal = Independent(Normal(mean, log_std.exp()), 1)
    return TransformedDistribution(normal, [TanhTransform()])


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_densities_are_those_of_torch_distributions(policy: SquashedGaussian) -> None:
    states, noise = drawn(2, 5, 4), drawn(2, 5, 3)
    actions, log_prob = policy.sample(states, noise)
    expected = reference(policy, states).log_prob(actions / 2)
    torch.testing.assert_close(log_prob, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(policy.log_prob(states, actions), expected, rtol=1e-9, atol=1e-9)


def test_the_density_integrates_to_one() -> None:
    one = MLP(Streams([3], "test"), (4, 8, 2)).double()
    single = SquashedGaussian(one, max_action=1.0, log_std_range=(-5.0, 2.0))
    states = drawn(1, 1, 4)

    def density(action: float) -> float:
        log_prob = single.log_prob(states, torch.tensor([[[action]]], dtype=torch.float64))
        return math.exp(log_prob.item())

    total, _ = integrate.quad(density, -1, 1, limit=200)
    assert total == pytest.approx(1, abs=1e-5)


def test_many_samples_a_state_are_the_samples_one_by_one(policy: SquashedGaussian) -> None:
    states, noise = drawn(2, 5, 4), drawn(2, 7, 5, 3)
    actions, log_prob = policy.sample(states, noise)
    assert actions.shape == (2, 7, 5, 3)
    for n in range(7):
        one, density = policy.sample(states, noise[:, n])
        torch.testing.assert_close(actions[:, n], one)
        torch.testing.assert_close(log_prob[:, n], density)


def test_a_sample_far_out_has_a_finite_density_and_gradient(policy: SquashedGaussian) -> None:
    """tanh(u) rounds to 1 there; the closed form of its slope does not round to 0."""
    states = drawn(2, 5, 4)
    actions, log_prob = policy.sample(states, torch.full((2, 5, 3), 400.0, dtype=torch.float64))
    assert (actions.abs() == 2).any()
    assert torch.isfinite(log_prob).all()
    gradients = torch.autograd.grad(log_prob.sum(), list(policy.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("edge", [2.0, -2.0, 2.5])
def test_an_action_at_or_beyond_the_bound_has_a_finite_density(
    policy: SquashedGaussian, edge: float
) -> None:
    log_prob = policy.log_prob(drawn(2, 5, 4), torch.full((2, 5, 3), edge, dtype=torch.float64))
    assert torch.isfinite(log_prob).all()
    gradients = torch.autograd.grad(log_prob.sum(), list(policy.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_mode_is_the_squashed_mean_and_the_spread_is_clamped(policy: SquashedGaussian) -> None:
    states = drawn(2, 5, 4)
    mean, _ = policy.gaussian(states)
    torch.testing.assert_close(policy.mode(states), 2 * torch.tanh(mean))
    narrow = SquashedGaussian(policy.mlp, 2.0, (0.5, 0.75))
    _, log_std = narrow.gaussian(100 * states)
    assert np.isin([0.5, 0.75], log_std.detach().numpy()).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_epsilon_bounds_the_density_of_saturated_actions(dtype: torch.dtype) -> None:
    """log(1 - tanh(u)^2 + 1e-6) is log 1e-6 far out; float64 can tell it near by plainly."""
    mlp = MLP(Streams([0], "test"), (4, 8, 2))
    exact = SquashedGaussian(mlp, 1.0, (-5.0, 2.0))
    bounded = SquashedGaussian(mlp, 1.0, (-5.0, 2.0), epsilon=1e-6)
    mlp.to(dtype)
    states, noise = drawn(1, 60, 4).to(dtype), torch.linspace(-30, 30, 60).to(dtype)[None, :, None]
    mean, log_std = exact.gaussian(states)
    u = (mean + noise * log_std.exp()).squeeze(-1).double()
    normal = Normal(mean, log_std.exp()).log_prob(mean + noise * log_std.exp()).squeeze(-1)
    near = u.abs() < 7
    plain = normal.double() - torch.log(1 - torch.tanh(u).square() + 1e-6)
    found = bounded.sample(states, noise)[1].double()
    assert near.any()
    torch.testing.assert_close(found[near], plain[near], rtol=1e-5, atol=1e-5)
    far = u.abs() > 20
    assert far.any()
    limit = normal.double() - math.log(1e-6)
    torch.testing.assert_close(found[far], limit[far], rtol=1e-5, atol=1e-5)
    assert (exact.sample(states, noise)[1].double() - found)[far].min() > 20
