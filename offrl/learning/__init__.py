"""What algorithms are made of: batches, networks with a replica axis, losses, the contract.

An algorithm file imports all that it needs from here, in one line.
"""

from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning import cloning, losses, rewards
from offrl.learning.batch import Batch, Windows
from offrl.learning.fields import (
    Count,
    Dropout,
    Finite,
    NonNegative,
    Positive,
    Share,
    Steps,
    Widths,
)
from offrl.learning.learner import (
    CONTINUOUS,
    DISCRETE,
    Learner,
    Loss,
    Metrics,
    SingleSeedLearner,
)
from offrl.learning.networks import (
    MLP,
    LayerNorm,
    Linear,
    Network,
    SquashedGaussian,
    Standardise,
    look_up,
)
from offrl.learning.optim import (
    adam,
    adamw,
    copy_every,
    cosine_decay,
    polyak,
    set_rate,
    step,
    steps_made,
    warm_up,
)
from offrl.learning.policy import Policy, StatelessPolicy
from offrl.learning.sampler import Sampler, UniformSampler, WindowSampler
from offrl.learning.settings import Setting, aligned
from offrl.learning.soft_actor_critic import (
    AT_ONCE,
    FAN_IN,
    FAN_OUT,
    IN_TURN,
    Order,
    SoftActorCritic,
    Start,
    Tempered,
    soft_policy,
)
from offrl.learning.spec import Device, Seeds, Spec
from offrl.learning.streams import Streams

__all__ = [
    "AT_ONCE",
    "CONTINUOUS",
    "DISCRETE",
    "FAN_IN",
    "FAN_OUT",
    "IN_TURN",
    "MLP",
    "Batch",
    "Count",
    "Device",
    "Dropout",
    "Finite",
    "InputError",
    "LayerNorm",
    "Learner",
    "Linear",
    "Loss",
    "Metrics",
    "Network",
    "NonNegative",
    "Order",
    "Policy",
    "Positive",
    "Sampler",
    "Seeds",
    "Setting",
    "Share",
    "SingleSeedLearner",
    "SoftActorCritic",
    "Spec",
    "SquashedGaussian",
    "Standardise",
    "Start",
    "StatelessPolicy",
    "Steps",
    "Streams",
    "Tempered",
    "Transitions",
    "UniformSampler",
    "Widths",
    "WindowSampler",
    "Windows",
    "adam",
    "adamw",
    "aligned",
    "cloning",
    "copy_every",
    "cosine_decay",
    "look_up",
    "losses",
    "polyak",
    "rewards",
    "set_rate",
    "soft_policy",
    "step",
    "steps_made",
    "warm_up",
]
