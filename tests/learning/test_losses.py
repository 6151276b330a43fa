"""Closed forms of the losses of BC and IQL."""

import math

import numpy as np
import pytest
import torch
from battery import data, small, trained

from offrl.algorithms import bc, iql
from offrl.data.transitions import Transitions
from offrl.learning import losses
from offrl.learning.sampler import whole


def test_expectile_loss() -> None:
    """Expectile 0.5 is half the squared error; 0.7 weighs an error of +2 with 0.7, -1 with 0.3."""
    diff = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    torch.testing.assert_close(iql.expectile_loss(diff, 0.5), diff.square().mean(-1) / 2)
    expected = torch.tensor([(0.7 * 4 + 0.3 * 1) / 2, 0.7 * 9 / 2])
    torch.testing.assert_close(iql.expectile_loss(diff, 0.7), expected)


def test_gaussian_log_prob() -> None:
    mean, log_std = torch.zeros(1, 1, 2), torch.tensor([[[0.0, math.log(2.0)]]])
    actions = torch.tensor([[[1.0, 2.0]]])
    expected = -0.5 - 0.5 - math.log(2) - math.log(2 * math.pi)
    assert losses.gaussian_log_prob(actions, mean, log_std).item() == pytest.approx(expected)


def test_return_range_splits_where_the_next_observation_is_not_the_next_row() -> None:
    observations = np.array([[0], [1], [5], [6], [9]], np.float32)
    transitions = Transitions(
        observations,
        np.zeros((5, 1), np.float32),
        np.array([1, 2, 10, 20, -4], np.float32),
        np.array([[1], [2], [6], [9], [10]], np.float32),
        np.array([0, 0, 0, 1, 0], np.float32),
        np.array([0, 1, 0, 0, 1], np.float32),
    )
    assert iql.return_range(transitions) == 30 - -4  # episodes of return 3, 30 and -4


def test_bc_keeps_the_parameters_with_the_lowest_validation_error() -> None:
    learner, sampler = trained("bc", data(), [0, 1], 0, small("bc", checkpoint="best validation"))
    assert isinstance(learner, bc.BC)
    target = whole(data())
    errors = [learner.validate(target)["validation/loss"]]
    acted = [learner.policy().act(target.observations.expand(2, -1, -1))]
    for _ in range(6):
        for _ in range(5):
            learner.update(sampler.sample())
        with torch.no_grad():  # a jump that makes one replica much worse, then lets it recover
            learner.actor.biases[-1][0] += 0.5
        errors.append(learner.validate(target)["validation/loss"])
        acted.append(learner.policy().act(target.observations.expand(2, -1, -1)))
    best = torch.stack(errors).argmin(0)
    assert best[0] != best[1]
    for r in range(2):
        assert torch.equal(acted[-1][r], acted[int(best[r])][r])
