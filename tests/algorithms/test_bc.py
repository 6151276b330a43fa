"""Cloning of discrete actions against a few lines of plain torch, and its loss by hand."""

import dataclasses
import math
from typing import Any

import battery
import numpy as np
import pytest
import torch
from torch import nn

from offrl.learning import losses
from offrl.learning.battery import Settings
from offrl.learning.learner import find_algorithm

BATTERY = Settings(variants=({"checkpoint": "best validation"},))


def test_the_loss_of_choices_is_the_mean_negative_log_probability() -> None:
    """Odds of 1:1:2 and of 3:1, of which the third and the second were taken."""
    logits = torch.tensor([[[0.0, 0.0, math.log(2)]], [[math.log(3), 0.0, -torch.inf]]])
    loss = losses.choice_loss(logits, torch.tensor([[2], [1]]))
    assert loss.tolist() == pytest.approx([math.log(2), math.log(4)])


@pytest.mark.parametrize("name", ["bc", "percent_bc"])
def test_updates_on_discrete_actions_are_those_of_plain_torch(name: str) -> None:
    """Ten in float64, on the rows that the algorithm keeps, standardised as CORL does."""
    torch.set_default_dtype(torch.float64)
    try:
        config = battery.small(name, actor_lr=1e-2, normalize=True, fraction=0.5)
        learner, sampler = battery.untrained(name, battery.choices(battery.data()), [5], config)
        actor: Any = learner.actor  # type: ignore[attr-defined]
        layers: list[nn.Module] = []
        for weight, bias in zip(actor.weights, actor.biases, strict=True):
            layer = nn.Linear(*weight.shape[1:])
            layer.weight.data, layer.bias.data = weight.detach()[0].T.clone(), bias[0, 0].detach()
            layers += [layer, nn.ReLU()]
        net = nn.Sequential(*layers[:-1])
        for parameter in net.parameters():
            parameter.data = parameter.data.double().clone()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        mean = torch.from_numpy(battery.SPEC.observation_mean).double()
        std = torch.from_numpy(battery.SPEC.observation_std).double()
        for _ in range(10):
            batch = sampler.sample()
            columns = {k: v for k, v in vars(batch).items() if v is not None}
            double = {k: v.double() if v.is_floating_point() else v for k, v in columns.items()}
            loss = learner.update(type(batch)(**double))["actor/loss"]
            states = (double["observations"][0] - mean) / (std + 1e-3)
            expected = nn.CrossEntropyLoss()(net(states), double["actions"][0])
            optimizer.zero_grad()
            expected.backward()
            optimizer.step()
            assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        linear = [layer for layer in net if isinstance(layer, nn.Linear)]
        for weight, layer in zip(actor.weights, linear, strict=True):
            torch.testing.assert_close(weight[0].double(), layer.weight.T, rtol=1e-4, atol=1e-6)
        seen = 10 * double["observations"]
        taken = learner.policy().act(seen)[0]
        assert taken.tolist() == net((seen[0] - mean) / (std + 1e-3)).argmax(-1).tolist()
        assert len(set(taken.tolist())) > 1
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_best_half_keeps_the_discrete_actions_of_its_episodes() -> None:
    """Four episodes of which the second and the last have the highest returns, the last first."""
    data = battery.choices(battery.data(rows=8))
    ends = np.array([0, 1, 0, 0, 1, 1, 0, 1], dtype=np.float32)
    given = dataclasses.replace(
        data,
        actions=np.array([0, 1, 2, 0, 1, 2, 0, 1]),
        rewards=np.array([1, 1, 3, 0, 0, 1, 2, 5], dtype=np.float32),
        terminations=np.zeros(8, dtype=np.float32),
        truncations=ends,
    )
    config = battery.small("percent_bc", fraction=0.5)
    prepared = find_algorithm("percent_bc").prepare(given, config)
    assert prepared.actions.dtype == np.int64
    assert prepared.actions.tolist() == [0, 1, 2, 0, 1]
    assert prepared.rewards.tolist() == [2, 5, 3, 0, 0]
