"""Closed forms of the losses of BC and IQL."""

import math

import pytest
import torch
from battery import data, small, trained

from offrl.algorithms import bc, iql
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


def test_cloning_loss_is_the_mean_over_the_batch_and_the_action_dimensions() -> None:
    actions = torch.zeros(2, 2, 2)
    policy_actions = torch.tensor([[[1.0, 3.0], [0.0, 2.0]], [[2.0, 2.0], [2.0, 2.0]]])
    assert losses.cloning_loss(policy_actions, actions).tolist() == [(1 + 9 + 0 + 4) / 4, 4.0]


def test_target_actions_are_smoothed_by_clipped_noise_and_stay_in_bounds() -> None:
    """At a bound of 2, noise of 0.3 and 0.9 clipped to 0.5 is 0.6 and 1; 1.5 + 1 exceeds it."""
    actions, noise = torch.tensor([[[1.0, 0.0, 1.5]]]), torch.tensor([[[0.3, -0.9, 0.9]]])
    smoothed = losses.smoothed(actions, noise, clip=0.5, max_action=2.0)
    torch.testing.assert_close(smoothed, torch.tensor([[[1.6, -1.0, 2.0]]]))


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
