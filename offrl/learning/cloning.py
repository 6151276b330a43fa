"""What behaviour cloning does with the outputs of a network, by the kind of actions."""

import torch
from torch import Tensor

from offrl.learning.losses import choice_loss, cloning_loss


def acted(outputs: Tensor, discrete: bool, max_action: float | None) -> Tensor:
    """The actions that a cloned policy takes.

    Args:
        outputs: of the network, shape (..., dim): logits where actions are discrete.
        discrete: the most probable action is taken, shape (...).
        max_action: of tanh actions in [-max_action, max_action]; None: the outputs themselves.
    """
    if discrete:
        return outputs.argmax(-1)
    return outputs if max_action is None else max_action * torch.tanh(outputs)


def imitation_loss(
    outputs: Tensor, actions: Tensor, discrete: bool, max_action: float | None
) -> Tensor:
    """`choice_loss` of logits, or `cloning_loss` of the actions that `acted` takes, shape (R,).

    Args:
        outputs: of the network, shape (R, B, dim).
        actions: of the data, shape (R, B, action_dim), or (R, B) where they are discrete.
        discrete: whether they are.
        max_action: as `acted` takes it.
    """
    if discrete:
        return choice_loss(outputs, actions)
    return cloning_loss(acted(outputs, False, max_action), actions)
