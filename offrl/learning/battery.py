"""What algorithms are checked with: data, a chain of known value, settings, and learners of them.

The checks themselves are in `offrl.learning.checks`.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from offrl.data.transitions import Transitions
from offrl.errors import unknown
from offrl.learning.learner import CONTINUOUS, DISCRETE, Learner, SingleSeedLearner
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.learning.spec import Spec

SPEC = Spec(5, 3, 2.0, 1000, np.full(5, 0.1, np.float32), np.full(5, 1.2, np.float32))
CHOICES = 3  # discrete actions of the battery

# What makes an update quick, of the fields that an algorithm has.
SMALL = {"batch_size": 32, "num_critics": 3}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the battery needs of an algorithm beyond its defaults: `BATTERY` in its file.

    Attributes:
        small: what makes a run quick beside narrow `*hidden` fields and small batches.
        imitating: changes with which a data set with one action is imitated; None where nothing in
            the losses pulls towards the data's actions.
        plain: changes with which the critic estimates the plain discounted return of the data's
            actions, so that a chain has a known solution; None where there is no critic.
        variants: changes that take other ways through the learner than its defaults: two replicas
            and two halves of a run have to agree there too.
    """

    small: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    imitating: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    plain: Mapping[str, Any] | None = None
    variants: Sequence[Mapping[str, Any]] = ()

    def fields(self) -> Iterator[str]:
        """The fields of a config that they set."""
        for changes in (self.small, self.imitating or {}, self.plain or {}, *self.variants):
            yield from changes


@dataclasses.dataclass(frozen=True)
class Subject:
    """An algorithm in one of the ways that it can be trained.

    Attributes:
        algorithm: the class.
        settings: of the battery.
        changes: of the config, which every config below has unless it is given another value.
        discrete: whether the data's actions are discrete where they are not said to be.
    """

    algorithm: type[Learner] | type[SingleSeedLearner]
    settings: Settings = Settings()
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    discrete: bool = False

    @classmethod
    def of(
        cls, algorithm: type[Learner] | type[SingleSeedLearner], settings: Settings
    ) -> "Subject":
        """The algorithm with its defaults. Raises InputError for settings of no field of it."""
        fields = {field.name for field in dataclasses.fields(algorithm.Config)}
        for name in settings.fields():
            if name not in fields:
                raise unknown(f"field of {algorithm.Config.__name__} in BATTERY", name, fields)
        return cls(algorithm, settings, discrete=CONTINUOUS not in algorithm.actions)

    def ways(self) -> list["Subject"]:
        """The algorithm with its defaults, in its variants, and with the other kind of actions."""
        changed = [dataclasses.replace(self, changes=each) for each in self.settings.variants]
        if {CONTINUOUS, DISCRETE} <= self.algorithm.actions:
            changed.append(dataclasses.replace(self, discrete=not self.discrete))
        return [self, *changed]

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.changes.items()]
        if self.discrete and CONTINUOUS in self.algorithm.actions:
            words.append("discrete actions")
        return ", ".join(words)

    def config(self, **changes: Any) -> Any:
        """The default config with narrow networks and small batches, and `changes` of it."""
        config = self.algorithm.Config()
        fields = [field.name for field in dataclasses.fields(config)]
        narrow: dict[str, Any] = {f: (16, 16) for f in fields if f.endswith("hidden")}
        narrow |= {name: value for name, value in SMALL.items() if name in fields}
        known = {key: value for key, value in changes.items() if key in fields}
        return dataclasses.replace(
            config, **{**narrow, **self.settings.small, **self.changes, **known}
        )

    def suited(self, data: Transitions) -> Transitions:
        """The data with actions of the kind in question."""
        return choices(data) if self.discrete and data.actions.ndim == 2 else data

    def untrained(
        self,
        data: Transitions,
        seeds: Sequence[int],
        config: Any = None,
        device: torch.device | str = "cpu",
    ) -> tuple[Learner, Sampler]:
        """A learner of the prepared data, and its sampler."""
        config = config or self.config()
        prepared = self.algorithm.prepare(self.suited(data), config)
        learner = build(self.algorithm, spec_of(prepared), config, seeds, device)
        return learner, self.algorithm.sampler(prepared, config, list(seeds), device)

    def trained(
        self, data: Transitions, seeds: Sequence[int], updates: int, config: Any = None
    ) -> tuple[Learner, Sampler]:
        """A learner after some updates, and its sampler."""
        learner, sampler = self.untrained(data, seeds, config)
        for _ in range(updates):
            learner.update(sampler.sample())
        return learner, sampler


def watched(config: Any, read: set[str]) -> Any:
    """A copy of a config that adds the name of each attribute that is read to a set."""

    class Watched(type(config)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    other = copy.copy(config)
    object.__setattr__(other, "__class__", Watched)
    return other


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


def named_parameters(learner: Learner) -> dict[str, torch.Tensor]:
    """The trained and target parameters of a learner, by the attribute that holds them."""
    found: dict[str, torch.Tensor] = {}
    for name, value in vars(learner).items():
        found |= _parameters_in(value, name)
    return found


def _parameters_in(value: Any, name: str) -> dict[str, torch.Tensor]:
    if isinstance(value, torch.nn.Module):
        return {f"{name}.{key}": each for key, each in value.named_parameters()}
    if isinstance(value, torch.nn.Parameter):
        return {name: value}
    inside: dict[str, Any] = {}
    if isinstance(value, SingleSeedLearner):  # of an algorithm without the replica axis
        inside = {f"{name}.{key}": each for key, each in vars(value).items()}
    elif isinstance(value, (list, tuple)):
        inside = {f"{name}[{position}]": each for position, each in enumerate(value)}
    found: dict[str, torch.Tensor] = {}
    for key, each in inside.items():
        found |= _parameters_in(each, key)
    return found


def parameters(learner: Learner) -> list[torch.Tensor]:
    """The trained and target parameters of a learner."""
    return list(named_parameters(learner).values())
