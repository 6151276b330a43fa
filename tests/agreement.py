"""The recipe of the agreement tests: what a reference and offrl both start from.

Every number comes from numpy's RandomState (MT19937, whose stream is frozen), seeded by the CRC-32
of a name, so a script that runs a reference elsewhere makes the same weights, batches and noise.
`tests/golden/*.json` hold the figures of such scripts; docs/algorithms/ says which code they ran.
"""

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.learning.batch import Batch, Windows
from offrl.learning.learner import find_algorithm
from offrl.learning.single import build
from offrl.learning.spec import Spec
from offrl.learning.streams import Streams

OBSERVATION_DIM, ACTION_DIM, BATCH_SIZE, UPDATES = 5, 3, 16, 10
WINDOW = 6  # steps of a window, for sequence models
Floats = NDArray[np.float64]


def numbers(name: str, *shape: int) -> Floats:
    """Standard normal numbers that belong to a name."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def uniform(name: str, *shape: int) -> Floats:
    """Numbers from U(0, 1) that belong to a name."""
    return np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape)


def initial(name: str, *shape: int) -> Floats:
    """A parameter's first value, by its name in offrl's learner, such as `critic.weights.0`.

    Matrices (in, out) are N(0, 1/in), with any leading axes; what multiplies (a name with `scale`)
    is N(1, 0.01); the rest is N(0, 0.01).
    """
    values = numbers(name, *shape)
    if "scale" in name:
        return 1 + 0.1 * values
    matrix = len(shape) >= 2 and shape[-2] > 1
    return values / np.sqrt(shape[-2]) if matrix else 0.1 * values


def columns(update: int) -> dict[str, Floats]:
    """The batch of one update, counted from 0: a tenth of its rows are terminations."""
    observations = numbers(f"observations {update}", BATCH_SIZE, OBSERVATION_DIM)
    return {
        "observations": observations,
        "actions": np.tanh(numbers(f"actions {update}", BATCH_SIZE, ACTION_DIM)),
        "rewards": numbers(f"rewards {update}", BATCH_SIZE),
        "next_observations": observations
        + 0.1 * numbers(f"next_observations {update}", BATCH_SIZE, OBSERVATION_DIM),
        "terminations": (uniform(f"terminations {update}", BATCH_SIZE) < 0.1).astype(np.float64),
        "next_actions": np.tanh(numbers(f"next_actions {update}", BATCH_SIZE, ACTION_DIM)),
    }


def windows(update: int, padding: str) -> dict[str, Any]:
    """The windows of one update, for sequence models: about half of them end before WINDOW steps.

    They are padded with zeros on the side that `padding` says, "left" or "right".
    """
    shape = (BATCH_SIZE, WINDOW)
    real = 1 + (2 * WINDOW * uniform(f"lengths {update}", BATCH_SIZE, 1)).astype(np.int64)
    place = np.arange(WINDOW)
    if padding == "left":
        place = place - np.maximum(WINDOW - real, 0)
    mask = (place >= 0) & (place < real)
    first = (10 * uniform(f"first steps {update}", BATCH_SIZE, 1)).astype(np.int64)
    return {
        "observations": numbers(f"observations {update}", *shape, OBSERVATION_DIM)
        * mask[..., None],
        "actions": np.tanh(numbers(f"actions {update}", *shape, ACTION_DIM)) * mask[..., None],
        "rewards": numbers(f"rewards {update}", *shape) * mask,
        "returns_to_go": (5 + numbers(f"returns_to_go {update}", *shape)) * mask,
        "timesteps": (first + place) * mask,
        "mask": mask.astype(np.float64),
    }


MEAN, STD = numbers("observation mean", OBSERVATION_DIM), 1 + uniform("std", OBSERVATION_DIM)


class Recorded:
    """Stands for a Streams: draw k of the attribute `name` is `numbers(f"{name} {k}", *shape)`."""

    def __init__(self, name: str, dtype: torch.dtype):
        self.name, self.dtype, self.draws = name, dtype, 0

    def _next(self, values: Any, *shape: int) -> Tensor:
        drawn = values(f"{self.name} {self.draws}", *shape)
        self.draws += 1
        return torch.as_tensor(drawn, dtype=self.dtype).unsqueeze(0)

    def normal(self, *shape: int, **_: Any) -> Tensor:
        """Standard normal numbers (1, *shape)."""
        return self._next(numbers, *shape)

    def uniform(self, *shape: int, **_: Any) -> Tensor:
        """Numbers (1, *shape) from U(0, 1)."""
        return self._next(uniform, *shape)

    def bernoulli(self, probability: float, *shape: int) -> Tensor:
        """1 where such a number is below `probability`, else 0, of shape (1, *shape)."""
        return (self.uniform(*shape) < probability).to(self.dtype)


def probes(name: str, value: Floats) -> list[float]:
    """A tensor's norm, and its product with fixed numbers over their norm: what is compared."""
    probe = numbers(f"probe {name}", value.size)
    return [
        float(np.linalg.norm(value)),
        float(probe @ value.ravel() / np.linalg.norm(probe)),
    ]


def drawn(update: int, config: Any, dtype: torch.dtype) -> Batch | Windows:
    """What the learner's sampler would draw: windows where the config says how they are padded."""
    if hasattr(config, "padding"):
        arrays = windows(update, config.padding)
        steps = torch.as_tensor(arrays.pop("timesteps"))[None]
        tensors = {k: torch.as_tensor(v, dtype=dtype)[None] for k, v in arrays.items()}
        return Windows(timesteps=steps, **tensors)
    return Batch(**{k: torch.as_tensor(v, dtype=dtype)[None] for k, v in columns(update).items()})


def ours(
    algorithm: str, config: dict[str, Any], dtype: torch.dtype, updates: int = UPDATES
) -> dict[str, Any]:
    """Metrics of every update, and probes of every parameter after the first and the last."""
    kind = find_algorithm(algorithm)
    spec = Spec(OBSERVATION_DIM, ACTION_DIM, 1.0, 100, MEAN, STD)
    learner = build(kind, spec, kind.Config(**config), [0])
    parameters: dict[str, Tensor] = {}
    for name, value in vars(learner).items():
        if isinstance(value, torch.nn.Module):
            value.to(dtype)
            for key, parameter in value.named_parameters():
                first = initial(f"{name.removeprefix('target_')}.{key}", *parameter.shape[1:])
                parameter.data = torch.as_tensor(first, dtype=dtype).unsqueeze(0)
                parameters[f"{name}.{key}"] = parameter
        elif isinstance(value, Streams):
            setattr(learner, name, Recorded(name, dtype))
        elif isinstance(value, Tensor):
            value.data = value.data.to(dtype)
            parameters[name] = value
    result: dict[str, Any] = {"metrics": {}, "parameters": {}}
    for update in range(updates):
        for key, metric in learner.update(drawn(update, kind.Config(**config), dtype)).items():
            result["metrics"].setdefault(key, []).append(float(metric))
        if update + 1 in (1, updates):
            result["parameters"][str(update + 1)] = {
                name: probes(name, parameter.detach().numpy().astype(np.float64))
                for name, parameter in parameters.items()
            }
    return result
