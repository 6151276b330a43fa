"""CQL's losses by hand, the layout of its samples, and the sum in blocks against plain autograd."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from battery import Settings
from torch import Tensor

from offrl.algorithms import cql
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning import losses
from offrl.learning.batch import Batch
from offrl.learning.networks import MLP
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams

BATTERY = Settings(
    plain={"cql_alpha": 0.0},
    variants=(
        {"lagrange": "corl", "order": "corl", "policy": "corl", "bc_steps": 0},
        {"order": "offlinerl", "backup": "min then max", "importance_sampling": False},
    ),
)
SPEC = Spec(5, 3, 2.0, 1000, np.full(5, 0.1, np.float32), np.full(5, 1.2, np.float32))
SMALL: dict[str, Any] = {"actor_hidden": (16, 16), "critic_hidden": (16, 16), "batch_size": 32}


KEYS = ("critic/loss", "critic/q", "actor/loss", "actor/entropy", "alpha/loss")


def build(seeds: list[int], **changes: Any) -> cql.CQL:
    return cql.CQL(SPEC, cql.CQLConfig(**{**SMALL, **changes}), seeds)


def batches(seeds: list[int], count: int) -> list[Batch]:
    streams = Streams(seeds, "test")
    return [
        Batch(
            streams.normal(32, 5),
            2 * torch.tanh(streams.normal(32, 3)),
            streams.normal(32),
            streams.normal(32, 5),
            (streams.uniform(32) < 0.1).float(),
        )
        for _ in range(count)
    ]


def trained(seeds: list[int], count: int, **changes: Any) -> cql.CQL:
    learner = build(seeds, **changes)
    for batch in batches(seeds, count):
        learner.update(batch)
    return learner


def test_equal_q_has_a_gap_of_log_n_actions() -> None:
    """Six actions of density 1 with Q = 7; CQL(rho) counts the data's action too."""
    sampled, q, none = torch.full((1, 2, 4, 6), 7.0), torch.full((1, 2, 4), 7.0), torch.zeros(6)
    gap = cql.conservative_gap(sampled, q, none.expand(1, 1, 4, 6))
    torch.testing.assert_close(gap, torch.full((1, 2, 4), math.log(6)))
    gap = cql.conservative_gap(sampled, q, none.expand(1, 1, 4, 6) + 3, importance_sampling=False)
    torch.testing.assert_close(gap, torch.full((1, 2, 4), math.log(7)))


def test_importance_sampling_divides_by_the_density() -> None:
    """1 / 0.5 + 2 / 0.25 = 10; without it 1 + 2 + e^Q(s, a) = 3 + 4."""
    sampled, density = torch.tensor([[1.0, 2.0]]).log(), torch.tensor([[0.5, 0.25]]).log()
    q = torch.tensor([4.0]).log()
    gap = cql.conservative_gap(sampled, q, density)
    torch.testing.assert_close(gap, torch.tensor([math.log(10 / 4)]))
    gap = cql.conservative_gap(sampled, q, density, importance_sampling=False)
    torch.testing.assert_close(gap, torch.tensor([math.log(7 / 4)]))


def test_a_clipped_gap_has_no_gradient() -> None:
    q = torch.tensor([0.0, 5.0], requires_grad=True)
    gap = cql.conservative_gap(torch.zeros(2, 1), q, torch.zeros(2, 1), gap_min=-1.0)
    assert gap.tolist() == [0.0, -1.0]
    gap.sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [-1.0, 0.0]


def test_the_two_forms_of_lagranges_penalty() -> None:
    """With alpha' = 3, a weight of 5 and tau = 1: 3 (5 gap - 1) or 3 * 5 (gap - 1)."""
    gap, multiplier = torch.tensor([[2.0, 4.0]]), torch.tensor([[3.0]])
    assert cql.lagrange_penalty(gap, multiplier, 5.0, 1.0, "authors").tolist() == [[27.0, 57.0]]
    assert cql.lagrange_penalty(gap, multiplier, 5.0, 1.0, "corl").tolist() == [[15.0, 45.0]]


def test_the_best_of_the_actions_before_or_after_the_lesser_critic() -> None:
    """Critics of (1, 5) and (4, 2): least of the maxima is 4, greatest of the minima 2."""
    q = torch.tensor([[1.0, 5.0], [4.0, 2.0]]).view(1, 2, 2, 1)
    log_prob, alpha = torch.tensor([10.0, 20.0]).view(1, 2, 1), torch.tensor([[0.1]])
    assert cql.next_value(q, log_prob, alpha, "max then min").item() == 4
    assert cql.next_value(q, log_prob, alpha, "min then max").item() == 2 - 0.1 * 20
    assert cql.next_value(q[:, :, :1], log_prob[:, :1], alpha, "min").item() == 1 - 0.1 * 10


def test_the_temperature_falls_above_the_target_entropy() -> None:
    log_alpha = torch.tensor([[2.0]], requires_grad=True)
    loss = losses.alpha_loss(log_alpha, torch.tensor([[-4.0, -6.0]]), -3.0)
    assert loss.tolist() == [16.0]  # -2 (-5 - 3)
    loss.sum().backward()
    assert log_alpha.grad is not None
    assert log_alpha.grad.item() == 8


def test_samples_stand_beside_their_states_and_densities() -> None:
    """N random actions, N of pi(s), N of pi(s'), all at s, in bounds of +-2."""
    learner, (batch,) = build([0, 1], n_actions=6, policy="corl"), batches([0, 1], 1)
    seen: list[Tensor] = []

    def spy(loss: Callable[..., Tensor], x: Tensor, *others: Tensor, dtype: Any) -> Tensor:
        seen.extend((x, *others))
        total: Tensor = blocks(loss, x, *others, dtype=dtype)
        return total

    blocks = learner.critic.sum_in_blocks
    learner.critic.sum_in_blocks = spy  # type: ignore[method-assign, assignment]
    actor = {k: v.clone() for k, v in learner.actor.state_dict().items()}
    learner.update(batch)
    learner.actor.load_state_dict(actor)  # the policy that drew
    x, q, log_density = seen
    assert x.shape == (2, 32, 18, 8)
    assert q.shape == (2, 2, 32)
    assert log_density.shape == (2, 1, 32, 18)
    assert torch.equal(x[..., :5], batch.observations.unsqueeze(2).expand(-1, -1, 18, -1))
    random, density = x[:, :, :6, 5:], log_density[:, 0]
    assert random.abs().max() < 2
    assert random.min() < -1.9
    assert random.max() > 1.9
    torch.testing.assert_close(density[..., :6], torch.full((2, 32, 6), math.log(0.5**3)))
    for first, states in ((6, batch.observations), (12, batch.next_observations)):
        for j in range(first, first + 6):
            expected = learner.actor.log_prob(states, x[:, :, j, 5:]).detach()
            torch.testing.assert_close(density[..., j], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"importance_sampling": False},
        {"lagrange": "authors"},
        {"lagrange": "corl"},
        {"gap_min": 6.0},
        {"backup": "max then min"},
        {"backup": "min then max"},
        {"backup_entropy": True},
        {"bc_steps": 2},
        {"order": "corl"},
        {"order": "offlinerl"},
        {"policy": "corl"},
        {"initialisation": "corl"},
        {"initialisation": "offlinerl"},
        {"normalize": True},
        {"n_actions": 4},
    ],
    ids=str,
)
def test_every_choice_makes_a_difference(changes: dict[str, Any]) -> None:
    batch = batches([1], 1)[0]
    plain, other = trained([0], 3, bc_steps=0), trained([0], 3, **{"bc_steps": 0, **changes})
    one, two = (torch.cat([x.update(batch)[key] for key in KEYS]) for x in (plain, other))
    assert not torch.allclose(one, two, rtol=1e-6, atol=0)


def test_the_warm_start_clones_the_datas_actions_and_then_ends() -> None:
    """While it lasts the policy knows nothing of Q: other rewards leave it as it is."""
    for steps, same in ((3, True), (2, False)):
        found = []
        for scale in (1, 100):
            learner = build([0], bc_steps=steps, critic_lr=1e-2, actor_lr=1e-2)
            for batch in batches([0], 3):
                learner.update(replace(batch, rewards=scale * batch.rewards))
            found.append(learner.actor.mlp.weights[0].detach())
        assert torch.equal(*found) == same
    learner, (batch,) = build([0], bc_steps=1), batches([0], 1)
    with torch.no_grad():
        expected = -learner.actor.log_prob(learner.states(batch.observations), batch.actions)
    metrics = learner.update(batch)
    expected = expected.mean(-1) - metrics["alpha/value"] * metrics["actor/entropy"]
    torch.testing.assert_close(metrics["actor/loss"], expected)


@pytest.mark.parametrize("form", ["authors", "corl"])
def test_the_multiplier_grows_while_the_gap_exceeds_its_target(form: Any) -> None:
    for target, sign in ((-50.0, 1), (500.0, -1)):
        learner = trained([0, 1], 3, lagrange=form, target_gap=target)
        start = 0.0 if form == "authors" else 1.0
        assert (sign * (learner.log_multiplier - start) > 0).all()


def test_replicas_with_every_extra_match_separate_learners() -> None:
    extras: dict[str, Any] = {
        "lagrange": "corl",
        "gap_min": 4.0,
        "backup": "min then max",
        "backup_entropy": True,
        "policy": "corl",
        "bc_steps": 3,
    }
    seeds = [3, 0, 11]
    together = trained(seeds, 6, **extras)
    for r, seed in enumerate(seeds):
        alone = trained([seed], 6, **extras)
        for a, b in (
            (together.log_alpha, alone.log_alpha),
            (together.log_multiplier, alone.log_multiplier),
            *zip(together.critic.parameters(), alone.critic.parameters(), strict=True),
            *zip(together.actor.parameters(), alone.actor.parameters(), strict=True),
        ):
            torch.testing.assert_close(a[r], b[0], rtol=1e-4, atol=1e-6)


def test_initial_networks_are_those_named() -> None:
    authors, corl = build([0]), build([0], initialisation="corl", policy="corl")
    for mlp, last in ((authors.critic, 3e-3), (authors.actor.mlp, 1e-3)):
        assert (mlp.biases[0] == 0.1).all()
        assert 0.24 < mlp.weights[0].abs().max() <= 0.25  # 1 / sqrt(16), by fan out
        assert 0.8 * last < mlp.weights[-1].abs().max() <= last
    for mlp in (own := build([0], initialisation="offlinerl")).critic, own.actor.mlp:
        assert 0.24 < mlp.weights[-1].abs().max() <= 0.25  # 1 / sqrt(16), by fan in
        assert 0.2 < mlp.biases[1].abs().max() <= 0.25
    bound = 0.01 * math.sqrt(6 / (16 + 6))  # Xavier's, in CORL's policy alone
    assert 0.8 * bound < corl.actor.mlp.weights[-1].abs().max() <= bound
    assert not corl.actor.mlp.biases[-1].any()
    assert torch.equal(corl.critic.weights[0], corl.target_critic.weights[0])
    assert not torch.equal(authors.critic.weights[0], authors.target_critic.weights[0])
    for mlp, width in ((corl.critic, 1),):
        last_weight = mlp.weights[-1].detach().flatten(0, -3)[0]
        gram = last_weight.T @ last_weight
        torch.testing.assert_close(gram, 1e-4 * torch.eye(width), rtol=1e-4, atol=1e-8)
        first = mlp.weights[0].detach().flatten(0, -3)[0]
        torch.testing.assert_close(first @ first.T, 2 * torch.eye(len(first)), rtol=1e-4, atol=1e-4)
        assert not mlp.biases[0].any()


def test_corls_policy_scales_and_shifts_its_log_standard_deviation() -> None:
    learner = build([0], policy="corl")
    states, (mean, raw) = torch.ones(1, 4, 5), learner.actor.mlp(torch.ones(1, 4, 5)).chunk(2, -1)
    torch.testing.assert_close(learner.actor.gaussian(states), (mean, raw - 1))
    with torch.no_grad():
        learner.actor.get_parameter("log_std_scale").fill_(2.0)
        learner.actor.get_parameter("log_std_offset").fill_(0.5)
    torch.testing.assert_close(learner.actor.gaussian(states), (mean, 2 * raw + 0.5))


def data(rewards: list[float], terminations: list[int]) -> Transitions:
    zeros, flags = np.zeros((len(rewards), 3), np.float32), np.zeros(len(rewards), np.float32)
    flags[terminations] = 1
    return Transitions(zeros, zeros, np.array(rewards, np.float32), zeros, flags, 0 * flags)


def test_rewards_are_ranged_then_scaled_then_shifted() -> None:
    """Returns of 3 and 8, with a tail that ends in nothing, range over 5: times 1000 / 5."""
    config = cql.CQLConfig(reward="corl return range", reward_scale=4.0, reward_bias=-2.0)
    prepared = cql.CQL.prepare(data([1, 2, 3, 5, 100], [1, 3]), config)
    np.testing.assert_allclose(prepared.rewards, [798, 1598, 2398, 3998, 79998])
    raw = cql.CQL.prepare(data([1, 2, 3, 5], [3]), replace(config, reward="raw"))
    np.testing.assert_allclose(raw.rewards, [2, 6, 10, 18])


def test_what_cannot_be_served_is_refused() -> None:
    with pytest.raises(InputError, match="spread of returns, which is 0"):
        cql.CQL.prepare(data([1, 2, 2, 1], [1, 3]), cql.CQLConfig(reward="corl return range"))
    with pytest.raises(InputError, match="no one density"):
        cql.CQL.prepare(data([1, 2], []), cql.CQLConfig(backup="max then min", backup_entropy=True))


def some_loss(outputs: Tensor, weights: Tensor, shifts: Tensor) -> Tensor:
    """Takes gradients for its first companion, which has a member's axis; the second has none."""
    return (weights * torch.logsumexp(outputs - shifts, -1)).sum(-1)


def test_the_sum_in_blocks_is_that_of_the_whole() -> None:
    """Of 150 states with 9 inputs each: two blocks of 56 and one of 38. Float64 has no blocks."""
    streams = Streams([0, 1], "x")
    single, double = (MLP(Streams([0, 1], "x"), [5, 32, 32, 1], members=2) for _ in range(2))
    double = double.double()
    x, shifts = streams.normal(150, 9, 5), streams.normal(1, 150, 9)
    weights, scale = streams.normal(2, 150).requires_grad_(), streams.normal(2)
    exact_weights = weights.detach().double().requires_grad_()
    total = single.sum_in_blocks(some_loss, x, weights, shifts)
    exact = double.sum_in_blocks(some_loss, x.double(), exact_weights, shifts.double())
    outputs = double(x.double().flatten(1, 2)).view(2, 2, 150, 9)
    torch.testing.assert_close(exact, some_loss(outputs, exact_weights, shifts.double()))
    torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-4)
    found = torch.autograd.grad(total, [weights, *single.parameters()], scale)
    expected = torch.autograd.grad(exact, [exact_weights, *double.parameters()], scale.double())
    for a, b in zip(found, expected, strict=True):
        assert (a.double() - b).norm() < 1e-5 * b.norm()


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no bfloat16 products"
)
def test_bfloat16_changes_the_sampled_gap_and_its_gradient_by_rounding_alone() -> None:
    """Eight bits of mantissa: within 2 % of float32, and not equal to it."""
    learners = [build([0, 1], sampled_dtype=dtype) for dtype in ("float32", "bfloat16")]
    (batch,) = batches([0, 1], 1)
    gaps, gradients = [], []
    for learner in learners:
        learner.critic.weights[-1].data *= 100
        gaps.append(learner.update(batch)["critic/gap"])
        found = [p.grad for p in learner.critic.parameters() if p.grad is not None]
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    assert not torch.equal(*gaps)
    torch.testing.assert_close(*gaps, rtol=1e-2, atol=1e-2)
    assert 1e-5 < (gradients[0] - gradients[1]).norm() / gradients[0].norm() < 2e-2


def test_networks_with_layer_norm_are_not_summed_in_blocks() -> None:
    critic = MLP(Streams([0], "x"), [5, 8, 1], members=2, layer_norm=True)
    with pytest.raises(ValueError, match="without layer_norm"):
        critic.sum_in_blocks(some_loss, torch.ones(1, 4, 3, 5))
