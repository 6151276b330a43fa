"""What a learner may know of its task before it sees a batch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spec:
    """What a learner may know of its task before it sees a batch."""

    observation_dim: int
    action_dim: int
    max_action: float  # actions lie in [-max_action, max_action] in every dimension
    steps: int  # gradient steps of the whole run; schedules decay over them
    observation_mean: np.ndarray  # (observation_dim,), over the prepared training data
    observation_std: np.ndarray  # (observation_dim,), population standard deviation
