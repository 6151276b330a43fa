"""10% BC: behaviour cloning on the best part of the data.

Chen et al., "Decision Transformer: Reinforcement Learning via Sequence Modeling", NeurIPS 2021,
arXiv 2106.01345, where it is %BC. Reference code: CORL `any_percent_bc.py` for the network, the
loss and one filter; kzl/decision-transformer `gym/experiment.py` for the other.

Trajectories are ranked by R = sum_t gamma^t r_t. With `filter`
    "trajectories"  the best max(1, int(fraction n)) of the n trajectories are kept (CORL, default);
    "timesteps"     the best trajectories are kept, one at least, as long as together they have no
                    more than max(1, int(fraction N)) of the N steps; the first that would exceed
                    this ends it (Decision Transformer).
The two differ where the trajectories' lengths do, as on hopper and walker2d. What is left is
cloned:
    L = mean (pi(s) - a)^2    over the batch and the action dimensions
with observations standardised by the mean and deviation of what is left, as CORL does. Discrete
actions are cloned by a categorical policy, which acts by its most probable action:
    L = -mean log pi(a|s)

Known differences:
1. CORL cuts a trajectory at a termination or when it has 1000 rows, and leaves out what comes after
   the last cut. `d4rl.qlearning_dataset` has dropped the row of every timeout, so an episode of
   1000 steps has 999 rows and the cut comes one row into the next: cuts drift by one row per
   timed-out episode. `split = "corl"` cuts so, which CORL's table needs; the default takes the
   episodes of the data set, of which an unfinished last one is one.
2. Decision Transformer's %BC has another network (the last 20 states, three layers of 128 with
   dropout of 0.1), optimiser (AdamW, weight decay 1e-4, learning rate 1e-4 after 10,000 steps of
   warm-up, batch 64), and standardises with the statistics of all the data and 1e-6. Its filter
   alone is here. Its trajectories keep the rows of timeouts (the data set's view "transitions") and
   leave out an unfinished last episode.
3. Of trajectories with equal returns the later comes first. numpy's default sort, which both
   references use, leaves open which.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from offrl.learning import (
    CONTINUOUS,
    DISCRETE,
    MLP,
    Batch,
    Count,
    Device,
    InputError,
    Learner,
    Loss,
    Metrics,
    Positive,
    Seeds,
    Share,
    Spec,
    StatelessPolicy,
    Streams,
    Transitions,
    Widths,
    adam,
    cloning,
    rewards,
    step,
)


@dataclass(frozen=True)
class PercentBCConfig:
    """Defaults of CORL, but for the split."""

    fraction: float = 0.1  # of the data that is kept
    filter: Literal["trajectories", "timesteps"] = "trajectories"  # what the fraction counts
    split: Literal["episodes", "corl"] = "episodes"  # where trajectories end
    gamma: Share = 1.0  # discount per step of the returns that rank trajectories
    actor_lr: Positive = 3e-4
    normalize: bool = True  # standardise observations
    hidden: Widths = (256, 256)
    batch_size: Count = 256


def best(returns: np.ndarray, lengths: np.ndarray, config: PercentBCConfig) -> np.ndarray:
    """The trajectories that the filter keeps, the best first."""
    order = np.argsort(returns, kind="stable")[::-1]
    if config.filter == "trajectories":
        kept = int(config.fraction * len(order))
    else:
        steps = max(1, int(config.fraction * lengths.sum()))
        kept = int(np.searchsorted(np.cumsum(lengths[order]), steps, side="right"))
    return order[: max(1, kept)]


class PercentBC(Learner):
    """Behaviour cloning of the best trajectories, on the replica axis."""

    Config = PercentBCConfig
    config: PercentBCConfig
    paper = "Chen et al. 2021, arXiv 2106.01345"
    family = "imitation"
    agreement = "corl-team/CORL eeeeef2 any_percent_bc.py"
    actions = frozenset((CONTINUOUS, DISCRETE))
    period = 1
    not_restored = Learner.not_restored | {"discrete"}
    varying = frozenset(("actor_lr",))
    preparing = frozenset(("fraction", "filter", "split", "gamma"))

    def __init__(self, spec: Spec, config: PercentBCConfig, seeds: Seeds, device: Device = "cpu"):
        super().__init__(spec, config, seeds, device)
        self.discrete = spec.action_count is not None
        outputs = spec.action_count or spec.action_dim
        sizes = (spec.observation_dim, *config.hidden, outputs)
        self.actor = MLP(Streams(seeds, "actor", device), sizes)
        self.actor_optimizer = adam(self.actor.parameters(), config.actor_lr)

    @classmethod
    def prepare(cls, data: Transitions, config: PercentBCConfig) -> Transitions:
        """The rows of the best trajectories, the best first."""
        if not 0 < config.fraction <= 1:
            raise InputError(
                f"percent_bc: fraction = {config.fraction}; expected a share of the data above 0 "
                "and at most 1, such as 0.1"
            )
        if config.split == "corl":
            starts, lengths = rewards.cut_episodes(data, rewards.CUT_ROWS)
        else:
            starts, lengths = data.episodes()
        if len(starts) == 0:
            raise InputError(
                f"percent_bc: split = 'corl' finds no whole trajectory: it cuts at a termination "
                f"or after {rewards.CUT_ROWS} rows, and these {len(data.rewards)} rows have "
                "neither; use split = 'episodes'"
            )
        end = starts[-1] + lengths[-1]
        discounts = config.gamma ** (np.arange(end) - np.repeat(starts, lengths))
        returns = np.add.reduceat(data.rewards[:end] * discounts, starts)
        kept = best(returns, lengths, config)
        rows = [np.arange(starts[k], starts[k] + lengths[k]) for k in kept]
        return data.rows(np.concatenate(rows))

    def actor_loss(self, batch: Batch) -> Loss:
        """L, of the data's actions."""
        outputs = self.actor(self.states(batch.observations))
        loss = cloning.imitation_loss(outputs, batch.actions, self.discrete, self.max_action)
        return loss, {"actor/loss": loss.detach()}

    def update(self, batch: Batch) -> Metrics:
        """One step of regression, or of classification."""
        loss, metrics = self.actor_loss(batch)
        step(self.actor_optimizer, loss)
        return metrics

    def policy(self) -> StatelessPolicy:
        """The actor, which is deterministic."""
        return StatelessPolicy(
            lambda o: cloning.acted(self.actor(self.states(o)), self.discrete, self.max_action)
        )
