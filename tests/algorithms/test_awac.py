"""AWAC: its weights and losses by hand, and that each named choice changes what it names."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from battery import Settings

from offrl.algorithms import awac
from offrl.data.transitions import Transitions
from offrl.learning import losses
from offrl.learning.sampler import UniformSampler
from offrl.learning.spec import Spec

BATTERY = Settings(
    plain={},
    variants=({"weights": "softmax", "log_std": "sigmoid", "advantage": "before"},),
)
MEAN, STD = np.full(5, 0.1, np.float32), np.full(5, 2.0, np.float32)
SMALL = awac.AWACConfig(actor_hidden=(16, 16), critic_hidden=(16, 16), batch_size=32)


def build(max_action: float = 1.0, **changes: Any) -> awac.AWAC:
    spec = Spec(5, 3, max_action, 1000, MEAN, STD)
    return awac.AWAC(spec, replace(SMALL, **changes), [0])


def data(rows: int = 100) -> Transitions:
    rng = np.random.default_rng(0)
    return Transitions(
        observations=rng.standard_normal((rows, 5), dtype=np.float32),
        actions=rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        rewards=rng.standard_normal(rows, dtype=np.float32),
        next_observations=rng.standard_normal((rows, 5), dtype=np.float32),
        terminations=(rng.random(rows) < 0.1).astype(np.float32),
        truncations=np.zeros(rows, np.float32),
    )


def trained(updates: int, **changes: Any) -> awac.AWAC:
    learner, sampler = build(**changes), UniformSampler(data(), 32, [0])
    for _ in range(updates):
        learner.update(sampler.sample())
    return learner


def values(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_exponential_weights_are_capped_at_100() -> None:
    """At a temperature of 0.5, an advantage of 0.5 log 3 weighs 3; log 100 = 4.6."""
    advantages = torch.tensor([[0.0, 0.5 * math.log(3), 2.4, -0.5 * math.log(4)]])
    found = awac.exponential_weights(advantages, 0.5)
    torch.testing.assert_close(found, torch.tensor([[1.0, 3.0, 100.0, 0.25]]))


def test_softmax_weights_have_a_mean_of_1_in_each_replica_and_no_cap() -> None:
    """exp of 0 and log 3 at a temperature of 2 are 1 and 3: of 4 shares, times B = 2."""
    advantages = torch.tensor([[0.0, 2 * math.log(3)], [100.0, 100.0]])
    found = awac.softmax_weights(advantages, 2.0)
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.5], [1.0, 1.0]]))
    steep = torch.cat([torch.full((1, 1), 50.0), torch.zeros(1, 999)], 1)
    assert awac.softmax_weights(steep, 1.0).max() == pytest.approx(1000)


def test_log_prob_is_that_of_torchs_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    actions, mean = torch.randn(2, 3, 4, 3, generator=generator)
    log_std = torch.tensor([[[-2.0, 0.0, 1.0]]])
    normal = torch.distributions.Normal(mean, log_std.exp())
    expected = normal.log_prob(actions).sum(-1)
    torch.testing.assert_close(losses.gaussian_log_prob(actions, mean, log_std), expected)


def test_critic_loss_sums_over_critics() -> None:
    q = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    assert losses.critic_loss(q, torch.tensor([[1.0, 1.0]])).item() == (0 + 1) / 2 + (4 + 16) / 2


def test_the_mean_is_bounded_only_through_tanh() -> None:
    states = 1000 * torch.ones(1, 4, 5)
    linear, tanh = (build(2.0, mean=mean).policy().act(states) for mean in ("linear", "tanh"))
    assert linear.abs().max() > 2
    assert tanh.abs().max() <= 2
    torch.testing.assert_close(tanh, 2 * torch.tanh(linear))


def test_log_std_starts_and_ends_as_named() -> None:
    clamp, sigmoid = build(log_std="clamp"), build(log_std="sigmoid")
    assert (clamp._log_std() == 0).all()
    assert (sigmoid._log_std() == -3).all()
    for learner, low, high in ((clamp, -20, 2), (sigmoid, -6, 0)):
        for parameter, bound in ((-1e3, low), (1e3, high)):
            learner.log_std.data.fill_(parameter)
            torch.testing.assert_close(
                learner._log_std(), torch.full((1, 1, 3), float(bound)), rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("clip_samples", [True, False])
def test_samples_are_clipped_to_the_bounds_where_asked(clip_samples: bool) -> None:
    learner = build(0.5, clip_samples=clip_samples)
    sampled = learner._sample(torch.zeros(1, 1000, 3), learner.noise)
    assert (sampled.abs().max() <= 0.5) == clip_samples
    assert sampled.std().item() == pytest.approx(0.5 * 0.88 if clip_samples else 1, abs=0.1)


def test_rlkits_initial_layers() -> None:
    learner = build(initialisation="rlkit", critic_hidden=(64, 16))
    for network, last in ((learner.actor, 1e-3), (learner.critic, 3e-3)):
        assert not values(network.biases).any()
        assert 0.8 * last < network.weights[-1].abs().max() <= last
    assert 0.12 < learner.critic.weights[0].abs().max() <= 1 / math.sqrt(64)  # fan out
    assert 0.24 < learner.critic.weights[1].abs().max() <= 1 / math.sqrt(16)
    assert build().critic.biases[0].any()


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "softmax"},
        {"mean": "tanh"},
        {"log_std": "sigmoid"},
        {"advantage": "before"},
        {"weight_decay": 0.1},
        {"temperature": 2.0},
    ],
    ids=str,
)
def test_each_choice_of_the_policy_changes_it(change: dict[str, Any]) -> None:
    assert not torch.equal(values(trained(3, **change).actor), values(trained(3).actor))


def test_the_advantage_is_of_the_critics_before_or_after_their_step() -> None:
    """A critic that does not learn makes no difference."""
    changes = {"critic_lr": 0.0}
    before, after = (
        values(trained(3, advantage=advantage, **changes).actor)
        for advantage in ("before", "after")
    )
    torch.testing.assert_close(before, after)


def test_weight_decay_acts_on_the_policy_alone() -> None:
    """With rewards, actions and noise as they are, the critics' first step does not see it."""
    assert torch.equal(values(trained(1, weight_decay=0.1).critic), values(trained(1).critic))


def test_observations_are_standardised_unless_the_config_says_otherwise() -> None:
    states = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))
    standardised = (states - 0.1) / (2.0 + 1e-3)
    torch.testing.assert_close(
        build().policy().act(states), build(normalize=False).policy().act(standardised)
    )


def test_rewards_lose_1_where_asked() -> None:
    prepared = awac.AWAC.prepare(data(), replace(SMALL, reward="minus one"))
    np.testing.assert_array_equal(prepared.rewards, data().rewards - 1)
    np.testing.assert_array_equal(awac.AWAC.prepare(data(), SMALL).rewards, data().rewards)
