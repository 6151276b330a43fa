"""EDAC: an ensemble-diversified actor-critic.

An, Moon, Kim & Song, "Uncertainty-Based Offline Reinforcement Learning with Diversified
Q-Ensemble", NeurIPS 2021, arXiv 2110.01548. Reference code: snu-mllab/EDAC
(lifelong_rl/trainers/q_learning/sac.py); CORL's edac.py; OfflineRL-Kit's edac.py, whose update
offlinerl 0.0.2 has too.

The minimum over N critics is pessimistic only as far as the critics disagree. EDAC keeps the
directions in which their values rise with the action apart, so that far fewer will do. With
a~ ~ pi(s), a'~ ~ pi(s'), and g_i the gradient of Q_i(s, a) with respect to the data's action a,
scaled to length 1:

    L_alpha = -mean log(alpha) (log pi(a~|s) + H_t),  H_t = -action_dim
    L_pi    = mean (alpha log pi(a~|s) - min_i Q_i(s, a~))
    y       = r + gamma (1 - termination) (min_i Q_i'(s', a'~) - alpha log pi(a'~|s'))
    L_ES    = 1/(N-1) mean sum_{i != j} <g_i, g_j> = 1/(N-1) mean (|sum_i g_i|^2 - sum_i |g_i|^2)
    L_Q     = sum_i mean (Q_i(s, a) - y)^2 + eta L_ES

The targets of Q then move by tau. The policy is a Gaussian through tanh with a log standard
deviation in [-5, 2]; it acts by its mean. No reference standardises observations.

Known differences. The defaults are the authors'; CORL's algorithm is `order = "corl"`,
`targets = "copy"`, `initialisation = "corl"`; that of OfflineRL-Kit and NeoRL-2 is
`order = "offlinerl-kit"`, `targets = "copy"`, `initialisation = "offlinerl-kit"`,
`actor_lr = 1e-4`.
1. `order`: the authors' code builds all three losses before it steps alpha, the policy and the
   critics. CORL (edac.py) steps alpha; then the policy, with actions drawn anew and that alpha;
   then the critics, whose targets use the new policy and alpha. OfflineRL-Kit, and offlinerl, with
   which NeoRL-2 was measured, step the policy, then alpha, then the critics with both new, and
   never let alpha exceed 1.
2. `targets`: the authors' code draws the target critics' initial weights independently of the
   critics', and they approach one another by tau alone. The others copy them.
3. `initialisation`: hidden layers have biases of 0.1 and weights from U(-1/sqrt(n), 1/sqrt(n)). In
   the authors' code n is a layer's inputs in the critics and its outputs in the policy, since one
   function reads matrices that are stored transposed to one another; in CORL it is the other way
   round, for a like reason. Last layers are alike: weights and biases within 3e-3 for the critics,
   1e-3 for the policy. In OfflineRL-Kit all of the policy starts as torch's layers do, and the
   critics' hidden weights come from N(0, 1/(4 inputs)).
4. All of them add 1e-6 to 1 - tanh(u)^2 in log densities, and so does this file, though the change
   of variables has no such term. It bounds the density of saturated actions. Theirs cancels digits
   in float32; here it is computed from u.
5. `max_q_backup`, which CORL has not: the value of s' is the minimum over the critics, not over
   their targets, of each one's largest Q among 10 actions of the policy; no entropy is added. The
   authors use it for pen-cloned. OfflineRL-Kit takes the target critics there.
6. `reward`: on Adroit the authors standardise rewards, and CORL does not. CORL's own reward options
   are off in all its settings of this algorithm and are not offered.
7. The authors' `--deterministic_backup`, which leaves out the entropy and keeps alpha at 1, is in
   none of their published commands and is not offered.
8. All references run a second pass through the critics for g_i and differentiate it twice. Here Q_i
   and g_i come from one pass and are differentiated in closed form (`ValueAndInputGradient` in
   `offrl.learning.kernels`): the numbers are the same, for less than half of the products.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from offrl.learning import (
    AT_ONCE,
    FAN_IN,
    FAN_OUT,
    IN_TURN,
    Batch,
    Count,
    InputError,
    Loss,
    NonNegative,
    Order,
    Positive,
    Share,
    SoftActorCritic,
    Start,
    Transitions,
    Widths,
    aligned,
    losses,
)


@dataclass(frozen=True)
class EDACConfig:
    """Defaults of the authors' code; eta is CORL's for halfcheetah-medium."""

    num_critics: Count = 10  # N, two at least
    eta: NonNegative = 1.0  # weight of the diversity loss
    actor_lr: Positive = 3e-4  # of the policy and of alpha; the authors take 3e-5 on Adroit
    critic_lr: Positive = 3e-4
    gamma: Share = 0.99  # discount per step
    tau: Share = 0.005  # target update rate per gradient step
    order: Literal["authors", "corl", "offlinerl-kit"] = "authors"  # of the updates
    targets: Literal["independent", "copy"] = "independent"  # how target critics start
    initialisation: Literal["authors", "corl", "offlinerl-kit"] = "authors"
    max_q_backup: bool = False  # the authors' for pen-cloned
    reward: Literal["raw", "standardised"] = "raw"  # the latter the authors' for Adroit
    actor_hidden: Widths = (256, 256, 256)
    critic_hidden: Widths = (256, 256, 256)
    batch_size: Count = 256


def diversity_loss(gradients: Tensor) -> Tensor:
    """How far the critics' action gradients point the same way (L_ES), shape (R,).

    It is N where all do, 0 on average where each points anywhere and -N/(N-1) where they cancel.

    Args:
        gradients: of Q_i(s, a) with respect to a, shape (R, N, B, action_dim).
    """
    unit = gradients / (gradients.norm(dim=-1, keepdim=True) + 1e-10)
    pairs: Tensor = unit.sum(1).square().sum(-1) - unit.square().sum((1, -1))
    return pairs.mean(-1) / (gradients.shape[1] - 1)


class EDAC(SoftActorCritic):
    """EDAC on the replica axis."""

    Config = EDACConfig
    config: EDACConfig
    paper = "An, Moon, Kim & Song 2021, arXiv 2110.01548"
    family = "critic ensemble"
    agreement = (
        "snu-mllab/EDAC 198d570 sac.py; corl-team/CORL eeeeef2 edac.py; offlinerl 0.0.2 edac.py"
    )
    varying = frozenset(("eta", "actor_lr", "critic_lr", "gamma", "tau"))
    preparing = frozenset(("reward",))
    orders = {  # noqa: RUF012
        "authors": AT_ONCE,
        "corl": IN_TURN,
        "offlinerl-kit": Order(targets_first=False, own_sample=False),
    }
    starts = {  # noqa: RUF012
        "authors": FAN_OUT,
        "corl": FAN_IN,
        "offlinerl-kit": Start("torch", None, "normal"),
    }

    @classmethod
    def prepare(cls, data: Transitions, config: EDACConfig) -> Transitions:
        """Rewards as the config says; nothing else changes."""
        if config.num_critics < 2:
            raise InputError(
                f"edac: num_critics = {config.num_critics}, but diversity takes two or more; "
                "use 2 or more, or the algorithm sac_n"
            )
        return super().prepare(data, config)

    def critic_loss(self, batch: Batch, target_q: Tensor) -> Loss:
        """L_Q, with L_ES in it, for targets (R, B)."""
        pairs = torch.cat([batch.observations, batch.actions], -1)
        q, gradients = self.critic.value_and_input_gradient(pairs)
        q, diversity = q.squeeze(-1), diversity_loss(gradients[..., -batch.actions.shape[-1] :])
        loss = losses.critic_loss(q, target_q) + aligned(self.config.eta, diversity) * diversity
        return loss, {
            "critic/loss": loss.detach(),
            "critic/diversity": diversity.detach(),
            "critic/q": q.detach().mean((1, 2)),
        }

    # --- Variants ---

    def alpha(self) -> Tensor:
        """The temperature as it is now, (R, 1), which OfflineRL-Kit never lets exceed 1."""
        alpha = super().alpha()
        return alpha.clamp(max=1) if self.config.order == "offlinerl-kit" else alpha
