"""IQL's named choices: each changes what it should, by how much it should."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from battery import SPEC as WIDE
from battery import Settings, data, small

from offrl.algorithms import iql
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.batch import Batch
from offrl.learning.sampler import UniformSampler

BATTERY = Settings(
    plain={"value_lr": 5e-3, "expectile": 0.5},
    variants=({"order": "corl", "dropout": 0.1},),
)
SPEC = dataclasses.replace(WIDE, max_action=1.0)


def learner(seeds: tuple[int, ...] = (0,), **changes: Any) -> iql.IQL:
    return iql.IQL(SPEC, small("iql", **changes), seeds)


def batch(seeds: tuple[int, ...] = (0,), actions: float | None = None) -> Batch:
    drawn: Batch = UniformSampler(data(bound=1.0), 32, seeds).sample()
    if actions is None:
        return drawn
    return dataclasses.replace(drawn, actions=torch.full_like(drawn.actions, actions))


@pytest.mark.parametrize("order", ["authors", "corl"])
def test_the_order_decides_which_v_the_policy_and_the_critics_learn_from(order: str) -> None:
    """V after its step in the authors' order, before it in CORL's; 0.1 is a step that shows."""
    one, b = learner(order=order, value_lr=0.1), batch()
    before = copy.deepcopy(one)
    metrics = one.update(b)
    vf = one.vf if order == "authors" else before.vf
    with torch.no_grad():
        x = torch.cat([b.observations, b.actions], -1)
        q = before.critic(x).squeeze(-1)
        y = b.rewards + 0.99 * (1 - b.terminations) * vf(b.next_observations).squeeze(-1)
        weight = torch.exp(3 * (q.amin(1) - vf(b.observations).squeeze(-1))).clamp(max=100)
        mean = torch.tanh(before.actor(b.observations))
        log_prob = torch.distributions.Normal(mean, 1.0).log_prob(b.actions).sum(-1)
    torch.testing.assert_close(metrics["critic/loss"], (q - y[:, None]).square().mean(-1).sum(-1))
    torch.testing.assert_close(metrics["actor/loss"], -(weight * log_prob).mean(-1))


def test_the_mean_of_the_critics_losses_is_half_their_sum() -> None:
    summed, mean = (learner(critic_loss=which).update(batch()) for which in ("sum", "mean"))
    torch.testing.assert_close(mean["critic/loss"], summed["critic/loss"] / 2, rtol=0, atol=0)
    assert torch.equal(mean["value/loss"], summed["value/loss"])


def test_initialisations() -> None:
    """Orthogonal: W W^T = 2 where W is wide. Torch's: within 1 / sqrt(inputs), biases too."""
    for mlp in (learner().actor, learner().vf, learner().critic):
        weight = mlp.weights[0].detach().flatten(0, -3)
        square = weight @ weight.mT
        torch.testing.assert_close(square, 2 * torch.eye(weight.shape[-2]).expand_as(square))
        assert all(not bias.any() for bias in mlp.biases)
    for mlp in (x := learner(initialisation="torch")).actor, x.vf, x.critic:
        for weight, bias in zip(mlp.weights, mlp.biases, strict=True):
            for parameter in (weight, bias):
                assert parameter.abs().max() <= 1 / weight.shape[-2] ** 0.5
                assert parameter.all()
    assert torch.equal(x.critic.weights[0], x.target_critic.weights[0])


def test_a_deterministic_actor_minimises_the_weighted_squared_distance() -> None:
    """With beta = 0 every weight is 1: the sum over 3 actions of squares, mean over the batch."""
    one, b = learner(deterministic=True, beta=0.0), batch()
    acted = one.policy().act(b.observations)
    loss = one.update(b)["actor/loss"]
    torch.testing.assert_close(loss, (acted - b.actions).square().sum(-1).mean(-1))
    assert not hasattr(one, "log_std")


def test_the_range_of_the_log_standard_deviation() -> None:
    """At -6, the authors' -5 counts and has no gradient; in CORL's range it is -6 itself."""
    for low in (-5.0, -20.0):
        one, b = learner(log_std_range=(low, 2.0), beta=0.0, clip_actions=False), batch()
        one.log_std.data.fill_(-6.0)
        mean = one.policy().act(b.observations)
        std = float(np.exp(max(low, -6.0)))
        expected = -torch.distributions.Normal(mean, std).log_prob(b.actions).sum(-1).mean(-1)
        torch.testing.assert_close(one.update(b)["actor/loss"], expected)
        assert (one.log_std == -6).all() == (low == -5)


def test_dropout_is_of_the_actors_hidden_units_in_training_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[torch.Tensor]] = []
    plain = iql.dropped_out

    def spy(mlp: Any, states: torch.Tensor, masks: Any) -> torch.Tensor:
        seen.append(list(masks))
        return plain(mlp, states, masks)

    monkeypatch.setattr(iql, "dropped_out", spy)
    both, b = learner((0, 3), dropout=0.3, hidden=(64, 64)), batch((0, 3))
    for _ in range(20):
        both.update(b)
    masks = torch.stack([mask for step in seen for mask in step], 1)  # (R, 40, 32, 64)
    assert set(masks.unique().tolist()) == {0.0, float(torch.ones(()) / 0.7)}
    share = (masks == 0).float().mean((1, 2, 3))
    assert (share - 0.3).abs().max() < 5 * (0.3 * 0.7 / masks[0].numel()) ** 0.5
    assert len(masks[0].unique(dim=0)) == len(masks[0])  # new ones for each layer and update
    assert not torch.equal(masks[0], masks[1])
    seen.clear()
    learner((3,), dropout=0.3, hidden=(64, 64)).update(batch((3,)))
    assert torch.equal(seen[0][0][0], masks[1, 0])  # seed 3 alone draws what it drew beside seed 0
    seen.clear()
    observations = torch.ones(2, 4, 5)
    assert torch.equal(both.policy().act(observations), torch.tanh(both.actor(observations)))
    assert not seen


def test_a_mask_multiplies_the_hidden_units() -> None:
    """All ones change nothing; zeros in the last hidden layer leave the output's bias."""
    actor, states = learner(initialisation="torch").actor, batch().observations
    ones = [torch.ones(1, 32, 16)] * 2
    torch.testing.assert_close(iql.dropped_out(actor, states, ones), actor(states))
    shut = iql.dropped_out(actor, states, [ones[0], 0 * ones[1]])
    torch.testing.assert_close(shut, actor.biases[-1].expand(1, 32, 3))
    doubled = iql.dropped_out(actor, states, [ones[0], 2 * ones[1]]) - actor.biases[-1]
    torch.testing.assert_close(doubled, 2 * (actor(states) - actor.biases[-1]))


def test_actions_are_clipped_only_where_the_config_says() -> None:
    def critic(clip: bool, action: float) -> torch.Tensor:
        one = learner(clip_actions=clip)
        one.update(batch(actions=action))
        weights: torch.Tensor = one.critic.weights[0].detach()
        return weights

    assert torch.equal(critic(True, 1.0), critic(True, 1.5))
    assert not torch.equal(critic(False, 1.0), critic(False, 1.5))


def rewarded(rewards: np.ndarray, terminations: list[int], length: int) -> Transitions:
    """Data in episodes of `length` rows, where alone the next observation is not the next row's."""
    rows = len(rewards)
    numbers = np.arange(rows, dtype=np.float32)[:, None]
    cut = (np.arange(rows) % length == length - 1)[:, None]
    flags = np.zeros(rows, np.float32)
    flags[terminations] = 1
    none = np.zeros(rows, np.float32)
    return Transitions(numbers, numbers, rewards.astype(np.float32), numbers + 1 + cut, flags, none)


def test_the_two_ranges_of_returns_split_trajectories_each_in_its_way() -> None:
    """Four episodes of 999 rows with returns 5, 7, 2 and 100, the last of which terminates.

    The authors' returns range over 98. CORL's first thousand rows have two of the payments, 12, and
    its third have none, as 100 is paid after them: its returns range over 100.
    """
    rewards = np.zeros(3996)
    rewards[[0, 999, 1998, 3000]] = [5, 7, 2, 100]
    data = rewarded(rewards, [3995], 999)
    for reward, factor in (("return range", 1000 / 98), ("corl return range", 10)):
        config = iql.IQLConfig(reward=reward)  # type: ignore[arg-type]
        scaled = iql.IQL.prepare(data, config).rewards
        np.testing.assert_allclose(scaled, factor * rewards, rtol=1e-6)


def test_a_spread_of_zero_is_refused() -> None:
    """Where every return is the same, and where CORL finds no whole trajectory."""
    for transitions in (rewarded(np.ones(2000), [999, 1999], 1000), rewarded(np.ones(9), [], 9)):
        with pytest.raises(InputError, match="'corl return range' divides by the spread"):
            iql.IQL.prepare(transitions, iql.IQLConfig(reward="corl return range"))


def test_a_range_upside_down_is_refused() -> None:
    with pytest.raises(InputError, match=r"log_std_range = \[2.0, -5.0\]; expected the lower"):
        iql.IQL.prepare(data(), small("iql", log_std_range=(2.0, -5.0)))
