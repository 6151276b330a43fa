"""What the battery is made of: settings of each algorithm, data, and trained learners."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offrl import registry
from offrl.data.transitions import Transitions
from offrl.learning.learner import CONTINUOUS, Learner, SingleSeedLearner, find_algorithm
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.learning.spec import Spec

EXAMPLE = str(Path(__file__).parents[1] / "docs" / "my_algo.py")
SPEC = Spec(5, 3, 2.0, 1000, np.full(5, 0.1, np.float32), np.full(5, 1.2, np.float32))
CHOICES = 3  # discrete actions of the battery


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the battery needs of an algorithm beyond its defaults: `BATTERY` in its test file.

    Attributes:
        small: what makes a run quick beside narrow `*hidden` fields and small batches.
        imitating: changes with which a data set with one action is imitated; None where nothing in
            the losses pulls towards the data's actions.
        plain: changes with which the critic estimates the plain discounted return of the data's
            actions, so that a chain has a known solution; None where there is no critic.
        variants: changes that take other ways through the learner than its defaults: two replicas
            and two halves of a run have to agree there too.
    """

    small: dict[str, Any] = dataclasses.field(default_factory=dict)
    imitating: dict[str, Any] | None = dataclasses.field(default_factory=dict)
    plain: dict[str, Any] | None = None
    variants: tuple[dict[str, Any], ...] = ()


def settings(name: str) -> Settings:
    """`BATTERY` of tests/algorithms/test_NAME.py; the defaults where there is none."""
    if not (Path(__file__).parent / "algorithms" / f"test_{name}.py").is_file():
        return Settings()
    stated: Settings = getattr(importlib.import_module(f"test_{name}"), "BATTERY", Settings())
    return stated


def data(rows: int = 400, bound: float = 2.0) -> Transitions:
    """Random transitions in episodes of 50, a tenth of them terminations."""
    rng = np.random.default_rng(0)
    return Transitions(
        observations=rng.standard_normal((rows, 5), dtype=np.float32),
        actions=rng.uniform(-bound, bound, (rows, 3)).astype(np.float32),
        rewards=rng.standard_normal(rows, dtype=np.float32),
        next_observations=rng.standard_normal((rows, 5), dtype=np.float32),
        terminations=(rng.random(rows) < 0.1).astype(np.float32),
        truncations=(np.arange(rows) % 50 == 49).astype(np.float32),
    )


def choices(data: Transitions) -> Transitions:
    """The same with discrete actions: the first number of each, in one of three ranges."""
    ranges = np.digitize(data.actions[:, 0], [-2 / 3, 2 / 3])
    return dataclasses.replace(data, actions=ranges.astype(np.int64))


def suited(name: str, data: Transitions) -> Transitions:
    """The data with actions that an algorithm takes: discrete where it takes no others."""
    continuous = CONTINUOUS in find_algorithm(name).actions
    return data if continuous or data.actions.ndim == 1 else choices(data)


def spec_of(data: Transitions, spec: Spec = SPEC) -> Spec:
    """The spec for the actions of the data, with sizes and statistics of another."""
    if data.actions.ndim == 2:
        return spec
    return dataclasses.replace(spec, action_dim=0, max_action=0.0, action_count=CHOICES)


def chain(termination: float) -> Transitions:
    """A two-step chain: s0 -> s1 pays 0, s1 -> s0 pays 1 and ends, or is cut off and goes on."""
    states = np.eye(5, dtype=np.float32)
    rng = np.random.default_rng(1)
    actions = rng.uniform(-2, 2, (400, 3)).astype(np.float32)
    first = np.arange(400) % 2 == 0
    return Transitions(
        observations=np.where(first[:, None], states[0], states[1]),
        actions=actions,
        rewards=np.where(first, 0, 1).astype(np.float32),
        next_observations=np.where(first[:, None], states[1], states[0]),
        terminations=np.where(first, 0, termination).astype(np.float32),
        truncations=np.where(np.arange(400) % 4 == 3, 1 - termination, 0).astype(np.float32),
    )


def small(name: str, **changes: Any) -> Any:
    """The algorithm's default config with narrow networks and small batches, and `changes`."""
    config = find_algorithm(name).Config()
    fields = [field.name for field in dataclasses.fields(config)]
    narrow: dict[str, Any] = {f: (16, 16) for f in fields if f.endswith("hidden")}
    narrow |= {"batch_size": 32, **settings(name).small}
    known = {key: value for key, value in changes.items() if key in fields}
    return dataclasses.replace(config, **{**narrow, **known})


def untrained(
    name: str, transitions: Transitions, seeds: list[int], config: Any = None
) -> tuple[Learner, Sampler]:
    """A learner of the prepared data, and its sampler."""
    algorithm: type[Learner] | type[SingleSeedLearner] = find_algorithm(name)
    config = config or small(name)
    prepared = algorithm.prepare(suited(name, transitions), config)
    learner = build(algorithm, spec_of(prepared), config, seeds)
    return learner, algorithm.sampler(prepared, config, seeds, "cpu")


def trained(
    name: str, transitions: Transitions, seeds: list[int], updates: int, config: Any = None
) -> tuple[Learner, Sampler]:
    """A learner after some updates, and its sampler."""
    learner, sampler = untrained(name, transitions, seeds, config)
    for _ in range(updates):
        learner.update(sampler.sample())
    return learner, sampler


def parameters(learner: Learner) -> list[torch.Tensor]:
    """The trained and target parameters of a learner."""
    tensors: list[torch.Tensor] = []
    for value in vars(learner).values():
        if isinstance(value, torch.nn.Module):
            tensors += list(value.parameters())
        elif isinstance(value, torch.nn.Parameter):
            tensors.append(value)
        elif isinstance(value, list):  # the single-seed learners of an algorithm without the axis
            tensors += [
                p for item in value if isinstance(item, SingleSeedLearner) for p in _plain(item)
            ]
    return tensors


def _plain(learner: SingleSeedLearner) -> list[torch.Tensor]:
    modules = [v for v in vars(learner).values() if isinstance(v, torch.nn.Module)]
    return [parameter for module in modules for parameter in module.parameters()]


def named() -> list[str]:
    """All that the registry finds, entry points included."""
    return sorted(registry.modules("algorithms"))


def algorithms(paths: list[str]) -> list[str]:
    """The named algorithms, the documented example, and `paths`."""
    return [*named(), EXAMPLE, *paths]
