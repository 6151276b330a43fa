"""SAC-N: its losses by hand, the value of the next state, and that each named choice is one."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from battery import Settings

from offrl.algorithms import sac_n
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning import losses
from offrl.learning.sampler import UniformSampler, whole
from offrl.learning.spec import Spec

BATTERY = Settings(
    imitating=None,  # where its critics agree, any action is as good as the data's
    plain={},
    variants=({"order": "corl", "max_q_backup": True},),
)
NETWORKS = {"actor", "critic", "target_critic"}
SPEC = Spec(5, 3, 1.0, 1000, np.zeros(5, np.float32), np.ones(5, np.float32))
SMALL = sac_n.SACNConfig(
    num_critics=3, actor_hidden=(16, 16), critic_hidden=(16, 16), batch_size=32
)


def build(**changes: Any) -> sac_n.SACN:
    return sac_n.SACN(SPEC, replace(SMALL, **changes), [0])


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


def parameters(learner: sac_n.SACN) -> dict[str, torch.Tensor]:
    modules = {k: v for k, v in vars(learner).items() if isinstance(v, torch.nn.Module)}
    return {
        f"{name}.{key}": value.detach().clone()
        for name, module in modules.items()
        for key, value in module.named_parameters()
    } | {"log_alpha": learner.log_alpha.detach().clone()}


def test_alpha_loss_by_hand() -> None:
    """Entropies of 1 and 2 nats, where -3 is wanted: the gradient in log alpha is 1.5 + 3."""
    log_alpha = torch.tensor([[0.5], [-1.0]], requires_grad=True)
    log_prob = torch.tensor([[-1.0, -2.0], [4.0, 2.0]], requires_grad=True)
    loss = losses.alpha_loss(log_alpha, log_prob, target_entropy=-3)
    torch.testing.assert_close(loss, torch.tensor([0.5 * 4.5, -1.0 * 0.0]))
    (gradient,) = torch.autograd.grad(loss.sum(), [log_alpha])
    torch.testing.assert_close(gradient, torch.tensor([[4.5], [0.0]]))


def test_actor_loss_takes_the_least_critic_of_each_row() -> None:
    q = torch.tensor([[[1.0, 7.0], [3.0, 5.0]]])
    log_prob = torch.tensor([[-1.0, 2.0]])
    loss = losses.soft_actor_loss(q, log_prob, torch.tensor([[0.5]]))
    assert loss.item() == pytest.approx(((-0.5 - 1) + (1 - 5)) / 2)


def test_critic_loss_is_the_mean_over_the_batch_and_the_sum_over_critics() -> None:
    q = torch.tensor([[[1.0, 2.0], [0.0, 4.0]]])
    loss = losses.critic_loss(q, torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx((0 + 4) / 2 + (1 + 16) / 2)


@pytest.mark.parametrize("order", ["authors", "corl"])
@pytest.mark.parametrize("max_q_backup", [False, True])
def test_the_value_of_the_next_state(order: str, max_q_backup: bool) -> None:
    """Constant critics 1, 2, 3 and targets 7, 5, 6; without entropy where alpha is 0.

    `max_q_backup` takes the least critic, not the least target, whatever alpha is.
    """
    learner = build(order=order, max_q_backup=max_q_backup, gamma=0.5)
    for network, values in ((learner.critic, (1, 2, 3)), (learner.target_critic, (7, 5, 6))):
        network.weights[-1].data.zero_()
        network.biases[-1].data = torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
    if not max_q_backup:
        learner.log_alpha.data.fill_(-100)
    batch = whole(data())
    value = 1 if max_q_backup else 5
    target = batch.rewards + 0.5 * (1 - batch.terminations) * value
    expected = sum((i - target).square().mean().item() for i in (1, 2, 3))
    metrics = learner.update(batch)
    assert metrics["critic/loss"].item() == pytest.approx(expected, rel=1e-5)
    assert metrics["critic/q"].item() == pytest.approx(2)
    assert metrics["critic/disagreement"].item() == pytest.approx(math.sqrt(2 / 3))


def test_the_entropy_is_in_the_backup() -> None:
    """With alpha 1 and a policy of entropy h at every state, a constant Q has the target r + h."""
    learner = build(gamma=1.0)
    for network in (learner.critic, learner.target_critic, learner.actor.mlp):
        network.weights[-1].data.zero_()
        network.biases[-1].data.zero_()
    learner.actor.mlp.biases[-1].data[..., 3:] = -4.0  # narrow: near the Gaussian's own entropy
    still = replace(data(1000), rewards=np.zeros(1000, np.float32))
    batch = whole(replace(still, terminations=np.zeros(1000, np.float32)))
    metrics = learner.update(batch)
    entropy = 3 * (-4 + 0.5 * math.log(2 * math.pi * math.e))
    assert metrics["actor/entropy"].item() == pytest.approx(entropy, abs=0.15)
    # log densities vary by 3/2 around their mean, in each of 3 critics
    assert metrics["critic/loss"].item() == pytest.approx(3 * (entropy**2 + 1.5), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"order": "corl"}, set(), {"actor", "critic", "log_alpha"}),
        ({"targets": "copy"}, {"target_critic"}, {"critic"}),
        ({"initialisation": "corl"}, NETWORKS, {"actor", "critic", "log_alpha"}),
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


def test_targets_start_as_copies_or_on_their_own() -> None:
    for targets, equal in (("copy", True), ("independent", False)):
        learner = build(targets=targets)
        pairs = zip(learner.critic.weights, learner.target_critic.weights, strict=True)
        assert all(torch.equal(a, b) == equal for a, b in pairs)


@pytest.mark.parametrize(
    ("initialisation", "actor", "critic"),
    [("authors", 16**-0.5, 8**-0.5), ("corl", 5**-0.5, 16**-0.5)],
)
def test_first_layers_are_bounded_by_the_width_that_the_choice_names(
    initialisation: str, actor: float, critic: float
) -> None:
    learner = build(initialisation=initialisation, num_critics=20)
    assert 0.9 * actor < learner.actor.mlp.weights[0].abs().max() <= actor
    assert 0.9 * critic < learner.critic.weights[0].abs().max() <= critic
    for network, last in ((learner.actor.mlp, 1e-3), (learner.critic, 3e-3)):
        assert (network.biases[0] == 0.1).all()
        assert 0.9 * last < network.weights[-1].abs().max() <= last


def test_rewards_are_standardised_where_asked() -> None:
    prepared = sac_n.SACN.prepare(data(), replace(SMALL, reward="standardised"))
    assert prepared.rewards.mean() == pytest.approx(0, abs=1e-6)
    assert prepared.rewards.std() == pytest.approx(1, abs=1e-6)
    assert prepared.rewards.dtype == np.float32
    assert sac_n.SACN.prepare(data(), SMALL).rewards.std() < 0.99
    flat = replace(data(), rewards=np.full(100, 0.1, np.float32))
    with pytest.raises(InputError, match="standard deviation"):
        sac_n.SACN.prepare(flat, replace(SMALL, reward="standardised"))


def test_hundreds_of_critics_train() -> None:
    """As hopper needs them; each has its own weights and all of them move."""
    learner, sampler = build(num_critics=300), UniformSampler(data(), 32, [0])
    before = [weight.detach().clone() for weight in learner.critic.weights]
    for _ in range(2):
        learner.update(sampler.sample())
    for old, new in zip(before, learner.critic.weights, strict=True):
        assert len(old[0].flatten(1).unique(dim=0)) == 300
        assert (old != new).flatten(2).any(-1).all()
