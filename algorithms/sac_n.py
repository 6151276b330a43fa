"""SAC-N: soft actor-critic with the minimum over N critics.

An, Moon, Kim & Song, "Uncertainty-Based Offline Reinforcement Learning with Diversified
Q-Ensemble", NeurIPS 2021, arXiv 2110.01548. Reference code: snu-mllab/EDAC with eta < 0
(lifelong_rl/trainers/q_learning/sac.py); CORL's sac_n.py.

The minimum over many critics is low where they disagree, which is away from the data: a pessimism
that needs neither a model of the behaviour policy nor a weight. With a~ ~ pi(s), a'~ ~ pi(s'):

    L_alpha = -mean log(alpha) (log pi(a~|s) + H_t),  H_t = -action_dim
    L_pi    = mean (alpha log pi(a~|s) - min_i Q_i(s, a~))
    y       = r + gamma (1 - termination) (min_i Q_i'(s', a'~) - alpha log pi(a'~|s'))
    L_Q     = sum_i mean (Q_i(s, a) - y)^2

The targets of Q then move by tau. The policy is a Gaussian through tanh with a log standard
deviation in [-5, 2]; it acts by its mean. Neither the authors nor CORL standardise observations.

Known differences. The defaults are the authors'; CORL's algorithm is `order = "corl"`,
`targets = "copy"`, `initialisation = "corl"`.
1. `order`: the authors' code builds all three losses before it steps alpha, the policy and the
   critics. CORL (sac_n.py) steps alpha; then the policy, with actions drawn anew and that alpha;
   then the critics, whose targets use the new policy and alpha.
2. `targets`: the authors' code draws the target critics' initial weights independently of the
   critics', and they approach one another by tau alone. CORL copies them.
3. `initialisation`: hidden layers have biases of 0.1 and weights from U(-1/sqrt(n), 1/sqrt(n)). In
   the authors' code n is a layer's inputs in the critics and its outputs in the policy, since one
   function reads matrices that are stored transposed to one another; in CORL it is the other way
   round, for a like reason. In the first layer, of 23 inputs and 256 outputs for halfcheetah, that
   is a factor of 3.3. Last layers are alike: weights and biases within 3e-3 for the critics, 1e-3
   for the policy.
4. Both add 1e-6 to 1 - tanh(u)^2 in log densities, and so does this file, though the change of
   variables has no such term. It bounds the density of saturated actions. Theirs cancels digits in
   float32; here it is computed from u.
5. `max_q_backup`, which the authors' code has and CORL has not: the value of s' is the minimum over
   the critics, not over their targets, of each one's largest Q among 10 actions of the policy; no
   entropy is added. The authors use it for pen-cloned.
6. `reward`: on Adroit the authors standardise rewards, and CORL does not. CORL's own reward options
   are off in all its settings of this algorithm and are not offered.
7. The authors' `--deterministic_backup`, which leaves out the entropy and keeps alpha at 1, is in
   none of their published commands and is not offered.
"""

from dataclasses import dataclass
from typing import Literal

from offrl.learning import (
    AT_ONCE,
    FAN_IN,
    FAN_OUT,
    IN_TURN,
    Count,
    Positive,
    Share,
    SoftActorCritic,
    Widths,
)


@dataclass(frozen=True)
class SACNConfig:
    """Defaults of the authors' code; CORL's for halfcheetah but for the three named choices."""

    num_critics: Count = 10  # N; hopper needs 200 to 500, walker2d 20
    actor_lr: Positive = 3e-4  # of the policy and of alpha; the authors take 3e-5 on Adroit
    critic_lr: Positive = 3e-4
    gamma: Share = 0.99  # discount per step
    tau: Share = 0.005  # target update rate per gradient step
    order: Literal["authors", "corl"] = "authors"  # of the updates
    targets: Literal["independent", "copy"] = "independent"  # how target critics start
    initialisation: Literal["authors", "corl"] = "authors"
    max_q_backup: bool = False  # the authors' for pen-cloned
    reward: Literal["raw", "standardised"] = "raw"  # the latter the authors' for Adroit
    actor_hidden: Widths = (256, 256, 256)
    critic_hidden: Widths = (256, 256, 256)
    batch_size: Count = 256


class SACN(SoftActorCritic):
    """SAC-N on the replica axis."""

    Config = SACNConfig
    config: SACNConfig
    paper = "An, Moon, Kim & Song 2021, arXiv 2110.01548"
    family = "critic ensemble"
    agreement = "snu-mllab/EDAC 198d570 sac.py; corl-team/CORL eeeeef2 sac_n.py"
    varying = frozenset(("actor_lr", "critic_lr", "gamma", "tau"))
    preparing = frozenset(("reward",))
    orders = {"authors": AT_ONCE, "corl": IN_TURN}  # noqa: RUF012
    starts = {"authors": FAN_OUT, "corl": FAN_IN}  # noqa: RUF012
