"""Double DQN against ten lines of plain torch, its loss by hand, and when targets are copied."""

import copy
from typing import Any

import battery
import numpy as np
import pytest
import torch
from battery import Settings
from torch import Tensor, nn

from offrl.algorithms import double_dqn
from offrl.algorithms.double_dqn import DoubleDQN, DoubleDQNConfig
from offrl.learning.batch import Batch
from offrl.learning.optim import copy_every

BATTERY = Settings(
    small={"target_interval": 3},
    imitating=None,  # nothing in its loss pulls towards the data's actions
    plain={"target_interval": 5},
    variants=({"normalize": True},),
)


def test_huber_is_a_square_near_zero_and_a_line_beyond() -> None:
    """Errors of 1/2, 1 and -3: 1/8, 1/2 and 5/2."""
    q = torch.tensor([[0.5, 1.0, -3.0]])
    loss = double_dqn.huber_loss(q, torch.zeros(1, 3))
    assert loss.item() == pytest.approx((1 / 8 + 1 / 2 + 5 / 2) / 3)


def test_a_target_values_the_action_that_the_critic_prefers() -> None:
    """The critic prefers action 1, the target network 0: y = 1 + gamma * 5, and not gamma * 9."""
    spec = battery.spec_of(battery.choices(battery.data()))
    learner = DoubleDQN(spec, DoubleDQNConfig(gamma=0.5, hidden=()), [0])
    for network, bias in ((learner.critic, [1.0, 2.0, 0.0]), (learner.target_critic, [9, 5, 7])):
        network.weights[0].data.zero_()
        network.biases[0].data[...] = torch.tensor(bias)
    zeros = torch.zeros(1, 2, 5)
    batch = Batch(
        zeros, torch.zeros(1, 2).long(), torch.ones(1, 2), zeros, torch.tensor([[0.0, 1]])
    )
    assert learner.target_q(batch).tolist() == [[1 + 0.5 * 5, 1.0]]


class Plain:
    """The same algorithm with modules, loss and optimiser of torch alone, for one seed."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor]):
        layers: list[nn.Module] = []
        for weight, bias in zip(weights, biases, strict=True):
            layer = nn.Linear(weight.shape[0], weight.shape[1], dtype=torch.float64)
            layer.weight.data, layer.bias.data = weight.T.clone(), bias[0].clone()
            layers += [layer, nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])
        self.target = copy.deepcopy(self.net)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.updates = 0

    def update(self, batch: Batch) -> float:
        with torch.no_grad():
            best = self.net(batch.next_observations).argmax(1)
            rows = torch.arange(len(best))
            bootstrap = self.target(batch.next_observations)[rows, best]
            y = batch.rewards + 0.9 * torch.where(batch.terminations > 0, 0.0, bootstrap)
        loss = nn.HuberLoss()(self.net(batch.observations)[rows, batch.actions], y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        if self.updates % 4 == 0:
            self.target.load_state_dict(self.net.state_dict())
        return float(loss.item())


def test_updates_are_those_of_plain_torch() -> None:
    """Ten in float64, with targets copied after the fourth and the eighth."""
    torch.set_default_dtype(torch.float64)
    try:
        config = DoubleDQNConfig(
            critic_lr=1e-3, gamma=0.9, target_interval=4, hidden=(16, 12), batch_size=32
        )
        data = battery.choices(battery.data())
        learner = DoubleDQN(battery.spec_of(data), config, [5])
        sampler = DoubleDQN.sampler(data, config, [5], "cpu")
        plain = Plain(
            [w.detach()[0] for w in learner.critic.weights],
            [b.detach()[0] for b in learner.critic.biases],
        )
        for _ in range(10):
            batch = sampler.sample()
            batch = Batch(
                **{
                    k: v.double() if v.is_floating_point() else v
                    for k, v in vars(batch).items()
                    if v is not None
                }
            )
            loss = learner.update(batch)["critic/loss"]
            assert loss.item() == pytest.approx(plain.update(batch.replica(0)), rel=1e-12)
        for network, other in ((learner.critic, plain.net), (learner.target_critic, plain.target)):
            linear = [layer for layer in other if isinstance(layer, nn.Linear)]
            for weight, bias, layer in zip(network.weights, network.biases, linear, strict=True):
                torch.testing.assert_close(weight[0], layer.weight.T, rtol=1e-10, atol=1e-12)
                torch.testing.assert_close(bias[0, 0], layer.bias, rtol=1e-10, atol=1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("counted", [int, lambda made: torch.tensor(float(made))])
def test_a_target_is_copied_bit_for_bit_after_as_many_steps(counted: Any) -> None:
    source, target, later = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    before = target.weight.detach().clone()
    for made in (1, 2):
        copy_every(target, source, 3, counted(made))
        assert torch.equal(target.weight, before)
    copy_every(target, source, 3, counted(3))
    assert torch.equal(target.weight, source.weight)
    copy_every(target, later, 3, counted(4))
    assert torch.equal(target.weight, source.weight)


def test_a_set_of_one_action_is_valued_at_its_return() -> None:
    """Each row ends and pays 2: Q of the action taken is 2, whatever the others are."""
    rows = 64
    data = battery.choices(battery.data(rows))
    ones = np.ones(rows, np.float32)
    single = type(data)(
        data.observations, np.ones(rows, np.int64), 2 * ones, data.next_observations, ones, 0 * ones
    )
    config = battery.small("double_dqn", critic_lr=1e-2)
    learner, sampler = battery.trained("double_dqn", single, [0], 400, config)
    assert learner.update(sampler.sample())["critic/q"].item() == pytest.approx(2, abs=0.05)
