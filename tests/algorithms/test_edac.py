"""EDAC: the diversity of directions in closed form, and what it adds to SAC-N."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from battery import Settings

from offrl.algorithms import edac, sac_n
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.learner import Learner
from offrl.learning.optim import adam, step
from offrl.learning.sampler import UniformSampler, whole
from offrl.learning.spec import Spec

BATTERY = Settings(
    imitating={"eta": 5.0, "critic_lr": 3e-3},
    plain={"eta": 0.0},
    variants=({"order": "corl", "max_q_backup": True}, {"order": "offlinerl-kit"}),
)
NETWORKS = {"actor", "critic", "target_critic"}
SPEC = Spec(5, 3, 1.0, 1000, np.zeros(5, np.float32), np.ones(5, np.float32))
NARROW: dict[str, Any] = {
    "num_critics": 4,
    "actor_hidden": (16, 16),
    "critic_hidden": (16, 16),
    "batch_size": 32,
}


def build(**changes: Any) -> edac.EDAC:
    return edac.EDAC(SPEC, edac.EDACConfig(**{**NARROW, **changes}), [0])


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


def at_angles(*degrees: float) -> torch.Tensor:
    """Vectors in the plane, of lengths 1, 2, ..., as gradients (R=1, N, B=1, 2)."""
    angles = torch.tensor([math.radians(d) for d in degrees], dtype=torch.float64)
    lengths = torch.arange(1, len(degrees) + 1, dtype=torch.float64)
    return (lengths[:, None] * torch.stack([angles.cos(), angles.sin()], -1)).view(1, -1, 1, 2)


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ((30, 30), 2.0),
        ((0, 90), 0.0),
        ((0, 180), -2.0),
        ((0, 120, 240), -1.5),  # they cancel: -N / (N - 1)
        ((0, 0, 0, 0), 4.0),  # all alike: N
        ((0, 60, 90), (1 + math.sqrt(3)) / 2),  # 2 (cos 60 + cos 30 + cos 90) / 2
    ],
)
def test_diversity_loss_of_directions_in_the_plane(
    degrees: tuple[float, ...], expected: float
) -> None:
    assert edac.diversity_loss(at_angles(*degrees)).item() == pytest.approx(expected, abs=1e-8)


def test_diversity_loss_is_the_mean_over_the_batch_and_each_replicas_own() -> None:
    rows = torch.cat([at_angles(0, 0), at_angles(0, 90)], 2)
    both = torch.cat([rows, torch.cat([at_angles(0, 180)] * 2, 2)])
    torch.testing.assert_close(edac.diversity_loss(both), torch.tensor([1.0, -2.0]).double())


def test_diversity_loss_counts_pairs_as_the_paper_writes_them() -> None:
    gradients = torch.randn(2, 5, 7, 3, generator=torch.Generator().manual_seed(0)).double()
    unit = torch.nn.functional.normalize(gradients, dim=-1)
    cosines = torch.einsum("ribd,rjbd->rbij", unit, unit)
    others = cosines.sum((-2, -1)) - cosines.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(edac.diversity_loss(gradients), others.mean(-1) / 4)


def parameters(learner: Learner) -> dict[str, torch.Tensor]:
    modules = {k: v for k, v in vars(learner).items() if isinstance(v, torch.nn.Module)}
    return {
        f"{name}.{key}": value.detach().clone()
        for name, module in modules.items()
        for key, value in module.named_parameters()
    } | {"log_alpha": learner.log_alpha.detach().clone()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("order", ["authors", "corl"])
@pytest.mark.parametrize("max_q_backup", [False, True])
def test_without_the_diversity_loss_it_is_sac_n(order: Any, max_q_backup: bool) -> None:
    choices = NARROW | {"order": order, "max_q_backup": max_q_backup}
    with_none = edac.EDAC(SPEC, edac.EDACConfig(eta=0.0, **choices), [0])
    sac = sac_n.SACN(SPEC, sac_n.SACNConfig(**choices), [0])
    with_some = edac.EDAC(SPEC, edac.EDACConfig(eta=1.0, **choices), [0])
    for learner in (with_none, sac, with_some):
        sampler = UniformSampler(data(), 32, [0])
        for _ in range(5):
            learner.update(sampler.sample())
    some = parameters(with_some)
    for (name, a), b in zip(parameters(with_none).items(), parameters(sac).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        if name == "critic.weights.1":
            assert (a - some[name]).abs().max() > 1e-4


def test_training_on_the_diversity_loss_turns_action_gradients_apart() -> None:
    """Its parameters' gradient is a descent direction; a network of the same size can follow it."""
    learner = build(num_critics=8)
    optimizer = adam(learner.critic.parameters(), 1e-2)
    batch = whole(data())
    pairs = torch.cat([batch.observations, batch.actions], -1)
    seen = []
    for _ in range(60):
        _, gradients = learner.critic.value_and_input_gradient(pairs)
        loss = edac.diversity_loss(gradients[..., 5:])
        seen.append(loss.item())
        step(optimizer, loss)
    assert abs(seen[0]) < 1  # random directions
    assert seen[-1] < -0.9  # the least is -8 / 7


def test_the_gradient_is_taken_with_respect_to_the_action() -> None:
    """Linear critics that differ only in what they make of the state all point the same way."""
    learner = build(num_critics=3)
    for i, (weight, bias) in enumerate(
        zip(learner.critic.weights, learner.critic.biases, strict=True)
    ):
        weight.data[:] = weight.data[:, :1]
        bias.data[:] = 10.0 ** (i + 1)  # all units are active
    learner.critic.weights[0].data[0, 1, :5] *= -1
    metrics = learner.update(whole(data()))
    assert metrics["critic/diversity"].item() == pytest.approx(3, abs=1e-5)


def test_eta_weighs_the_diversity_loss() -> None:
    with_none, with_some = (build(eta=eta).update(whole(data())) for eta in (0.0, 7.0))
    added = with_some["critic/loss"] - with_none["critic/loss"]
    assert added.item() == pytest.approx(7 * with_some["critic/diversity"].item(), rel=1e-4)
    assert abs(added.item()) > 0.1


@pytest.mark.parametrize(
    ("order", "used", "kept"), [("authors", math.e**2, math.e**2), ("offlinerl-kit", 1.0, 1.0)]
)
def test_offlinerl_kit_never_lets_alpha_exceed_one(order: str, used: float, kept: float) -> None:
    learner = build(order=order)
    learner.log_alpha.data.fill_(2.0)
    learner.critic.weights[-1].data.zero_()
    learner.critic.biases[-1].data.zero_()
    metrics = learner.update(whole(data()))
    assert metrics["alpha/value"].item() == pytest.approx(kept, rel=1e-3)
    ratio = metrics["actor/loss"] / -metrics["actor/entropy"]
    assert ratio.item() == pytest.approx(used, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"order": "corl"}, set(), {"actor", "critic", "log_alpha"}),
        ({"order": "offlinerl-kit"}, set(), {"critic"}),
        ({"targets": "copy"}, {"target_critic"}, {"critic"}),
        ({"initialisation": "corl"}, NETWORKS, {"actor", "critic", "log_alpha"}),
        ({"initialisation": "offlinerl-kit"}, NETWORKS, {"actor", "critic", "log_alpha"}),
        ({"max_q_backup": True}, set(), {"critic"}),
    ],
)
def test_each_named_choice_changes_what_it_names(
    changes: dict[str, Any], before: set[str], after: set[str]
) -> None:
    """Before the first update and, of what is trained, after it."""
    ours, theirs = build(), build(**changes)

    def differing() -> set[str]:
        pairs = zip(parameters(ours).items(), parameters(theirs).values(), strict=True)
        return {name.split(".")[0] for (name, a), b in pairs if not torch.equal(a, b)}

    assert differing() == before
    for learner in (ours, theirs):
        learner.update(whole(data()))
    assert differing() - {"target_critic"} == after


@pytest.mark.parametrize(
    ("initialisation", "first", "last", "critic", "bias"),
    [
        ("authors", 16**-0.5, 1e-3, 8**-0.5, 0.1),
        ("corl", 5**-0.5, 1e-3, 16**-0.5, 0.1),
        ("offlinerl-kit", 5**-0.5, 16**-0.5, 3 * 0.5 * 8**-0.5, None),
    ],
)
def test_layers_start_within_the_bounds_that_the_choice_names(
    initialisation: str, first: float, last: float, critic: float, bias: float | None
) -> None:
    """The normal weights of OfflineRL-Kit's critics reach three deviations."""
    learner = build(initialisation=initialisation, num_critics=20)
    mlp = learner.actor.mlp
    assert 0.9 * first < mlp.weights[0].abs().max() <= first
    assert 0.9 * last < mlp.weights[-1].abs().max() <= last
    assert (mlp.biases[0] == 0.1).all() == (bias is not None)
    largest = learner.critic.weights[0].abs().max()
    assert largest > 0.9 * critic
    assert (largest <= critic) == (initialisation != "offlinerl-kit")
    assert (learner.critic.biases[0] == 0.1).all()
    assert 0.9 * 3e-3 < learner.critic.weights[-1].abs().max() <= 3e-3


def test_one_critic_and_constant_rewards_are_refused() -> None:
    config = edac.EDACConfig()
    with pytest.raises(InputError, match="num_critics = 1"):
        edac.EDAC.prepare(data(), replace(config, num_critics=1))
    flat = replace(data(), rewards=np.full(100, 0.1, np.float32))
    with pytest.raises(InputError, match="standard deviation"):
        edac.EDAC.prepare(flat, replace(config, reward="standardised"))
    prepared = edac.EDAC.prepare(data(), replace(config, reward="standardised"))
    assert prepared.rewards.std() == pytest.approx(1, abs=1e-6)
