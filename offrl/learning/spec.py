"""What a learner is built from, besides its config."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

Seeds = Sequence[int]  # one per replica
Device = torch.device | str


@dataclass(frozen=True)
class Spec:
    """Sizes, bounds and statistics of a task, for a learner's networks and schedules."""

    observation_dim: int
    action_dim: int
    max_action: float  # actions lie in [-max_action, max_action] in every dimension
    steps: int  # gradient steps of the whole run; schedules decay over them
    observation_mean: np.ndarray  # (observation_dim,), over the prepared training data
    observation_std: np.ndarray  # (observation_dim,), population standard deviation
