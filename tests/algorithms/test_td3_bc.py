"""TD3+BC's actor loss by hand."""

import pytest
import torch
from battery import Settings

from offrl.algorithms import td3_bc

BATTERY = Settings(
    imitating={"alpha": 0.1},  # at its default a Q fitted at one action pulls to the corners
    plain={},
)


def test_policy_loss_of_td3_bc_scales_q_to_alpha() -> None:
    """With Q = 2 everywhere the Q term is -alpha; cloning is the mean square over B and actions."""
    q = torch.full((1, 4), 2.0)
    actions = torch.zeros(1, 4, 2)
    loss = td3_bc.policy_loss(q, actions + torch.tensor([1.0, 3.0]), actions, alpha=2.5)
    assert loss.item() == pytest.approx(-2.5 + (1 + 9) / 2)
