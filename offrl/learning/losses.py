"""Losses, and what targets are made of, that several algorithms share."""

import math
from typing import Any

from torch import Tensor

from offrl.learning.settings import Setting, aligned


def critic_loss(q: Tensor, target_q: Tensor) -> Tensor:
    """Squared errors of all critics of each replica, summed over critics, shape (R,).

    Args:
        q: predictions, shape (R, N, B).
        target_q: shape (R, B).
    """
    return (q - target_q.unsqueeze(1)).square().mean(-1).sum(-1)


def alpha_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """The loss of SAC's temperature, which falls where the entropy exceeds its target, shape (R,).

    Args:
        log_alpha: shape (R, 1).
        log_prob: of the policy's own actions, shape (R, B).
        target_entropy: H_t, in nats.
    """
    return -(log_alpha * (log_prob.detach() + target_entropy)).mean(-1)


def soft_actor_loss(q: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """The loss of SAC's policy: the soft minimum over critics, negated, shape (R,).

    Args:
        q: of the policy's actions, shape (R, N, B).
        log_prob: of the same actions, shape (R, B).
        alpha: temperature, shape (R, 1).
    """
    return (alpha * log_prob - q.min(1).values).mean(-1)


def cloning_loss(policy_actions: Tensor, actions: Tensor) -> Tensor:
    """Mean squared error of each replica over its batch and the action dimensions, shape (R,)."""
    return (policy_actions - actions).square().mean((-2, -1))


def choice_loss(logits: Tensor, actions: Tensor) -> Tensor:
    """Mean negative log probability of discrete actions, the cross-entropy, shape (R,).

    Args:
        logits: of the categorical policy, shape (R, B, action_count).
        actions: int64, shape (R, B).
    """
    return -chosen(logits.log_softmax(-1), actions).mean(-1)


def chosen(values: Tensor, actions: Tensor) -> Tensor:
    """The values of the actions that were taken, shape (R, B).

    Args:
        values: of all discrete actions, shape (R, B, action_count).
        actions: int64, shape (R, B).
    """
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def gaussian_log_prob(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of diagonal Gaussians, summed over action dimensions, shape (R, B)."""
    z = (actions - mean) * (-log_std).exp()
    return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def smoothed(actions: Tensor, noise: Tensor, clip: Setting, max_action: float) -> Tensor:
    """TD3's target actions (Fujimoto et al. 2018, arXiv 1802.09477, eq. 14), in their bounds.

    Args:
        actions: of the target policy, shape (R, B, action_dim).
        noise: of the same shape, in units of `max_action`.
        clip: bound of the noise, in the same units.
        max_action: actions lie in [-max_action, max_action].
    """
    bound: Any = aligned(clip, noise)
    noise = max_action * noise.clamp(-bound, bound)
    return (actions + noise).clamp(-max_action, max_action)
