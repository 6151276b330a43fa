"""The contract between an algorithm and everything around it.

A `Learner` trains R replicas of one network at once: every tensor starts with the replica axis.
A `SingleSeedLearner` is the plain way to write an algorithm; it is run one seed at a time.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from offrl import registry
from offrl.errors import InputError
from offrl.learning.batch import Batch, Transitions
from offrl.learning.sampler import Sampler, UniformSampler
from offrl.learning.streams import spawn_seed

Metrics = Mapping[str, Tensor]


@dataclass(frozen=True)
class Spec:
    """What a learner may know of its task before it sees a batch."""

    observation_dim: int
    action_dim: int
    max_action: float  # actions lie in [-max_action, max_action] in every dimension
    steps: int  # gradient steps of the whole run; schedules decay over them
    observation_mean: np.ndarray  # (observation_dim,), over the prepared training data
    observation_std: np.ndarray  # (observation_dim,), population standard deviation


class Policy(Protocol):
    """Acts for all replicas. Evaluation calls `begin`, then `act` and `reward` at every step."""

    @property
    def mode(self) -> str:
        """How it acts, for the score's record: `deterministic` or `stochastic`."""
        ...

    def act(self, observations: Tensor) -> Tensor:
        """Actions of shape (R, E, action_dim) for observations (R, E, observation_dim)."""
        ...

    def begin(self, starts: Tensor) -> None:
        """Told before `act` where an episode begins: bool of shape (R, E)."""
        ...

    def reward(self, rewards: Tensor) -> None:
        """Told the rewards (R, E) that the last actions earned."""
        ...


@dataclass(frozen=True)
class StatelessPolicy:
    """A policy that is a function of the observation alone."""

    function: Callable[[Tensor], Tensor]
    mode: str = "deterministic"

    def act(self, observations: Tensor) -> Tensor:
        """Actions of shape (R, E, action_dim) for observations (R, E, observation_dim)."""
        with torch.no_grad():
            return self.function(observations)

    def begin(self, starts: Tensor) -> None:
        """Needs no telling."""

    def reward(self, rewards: Tensor) -> None:
        """Needs no telling."""


class _Stateful:
    """Saves and restores every attribute that training changes, so that algorithms need not."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes: networks, optimisers, generators, tensors, counters."""
        state = {}
        for name, value in vars(self).items():
            try:
                captured = _capture(value)
            except TypeError as error:
                raise TypeError(
                    f"{type(self).__name__}.{name}: {error}; override state_dict and "
                    "load_state_dict"
                ) from None
            state[name] = captured
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave; the run then carries on bit for bit."""
        for name, saved in state.items():
            setattr(self, name, _restore(getattr(self, name), saved))


_FIXED = {"fixed": True}  # stands for what training cannot change: functions, configs, devices


def _capture(value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return copy.deepcopy(value.state_dict())
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_capture(item) for item in value]
    if isinstance(value, dict):
        return {key: _capture(item) for key, item in value.items()}
    frozen = getattr(getattr(value, "__dataclass_params__", None), "frozen", False)
    if isinstance(value, (torch.device, torch.dtype, ModuleType)) or callable(value) or frozen:
        return _FIXED
    raise TypeError(f"does not know how to save a {type(value).__name__}")


def _restore(value: Any, saved: Any) -> Any:
    if hasattr(value, "load_state_dict"):
        value.load_state_dict(saved)
        return value
    if isinstance(value, torch.Generator):
        value.set_state(saved.cpu())
        return value
    if isinstance(value, Tensor) and value.shape == saved.shape:
        with torch.no_grad():
            value.copy_(saved)  # in place: an optimiser may hold it
        return value
    if isinstance(value, np.ndarray):
        return saved.numpy()
    if isinstance(value, (list, tuple)):  # training may have made it longer or shorter
        padded = [*value, *[None] * len(saved)]
        return type(value)(_restore(v, s) for v, s in zip(padded, saved, strict=False))
    if isinstance(value, dict):
        return {key: _restore(value.get(key), item) for key, item in saved.items()}
    return value if saved == _FIXED else saved


class Learner(_Stateful, ABC):
    """R independent replicas of one algorithm, on a leading axis of every parameter.

    A subclass sets `Config` and the three facts below it, builds its networks in `__init__(spec,
    config, seeds, device)`, takes one gradient step per `update` and acts through `policy`.
    """

    Config: ClassVar[type]  # a frozen dataclass with at least `batch_size`
    paper: ClassVar[str]  # authors, year, arXiv id
    family: ClassVar[str]  # what it shares its structure with, for example "actor-critic"
    agreement: ClassVar[str | None] = None  # the code whose updates its own were measured to match
    view: ClassVar[str | None] = None  # of D4RL files, where it needs another than the card's

    @abstractmethod
    def __init__(
        self, spec: Spec, config: Any, seeds: Sequence[int], device: torch.device | str = "cpu"
    ): ...

    @classmethod
    def prepare(cls, data: Transitions, config: Any) -> Transitions:  # noqa: ARG003
        """The data to train on: reward scaling, clipping and filters of the algorithm go here.

        Raises InputError for data that the algorithm cannot serve.
        """
        return data

    @classmethod
    def sampler(
        cls, data: Transitions, config: Any, seeds: Sequence[int], device: torch.device | str
    ) -> Sampler:
        """Draws the batches that `update` takes, from the prepared data."""
        return UniformSampler(data, config.batch_size, seeds, device)

    @abstractmethod
    def update(self, batch: Any) -> Metrics:
        """One gradient step on what `sampler` draws; metrics (R,), named like `critic/loss`."""

    @abstractmethod
    def policy(self) -> Policy:
        """The policy as it is now, for evaluation."""

    def policies(self) -> Mapping[str, Policy]:
        """All the ways to act that are scored; the first is the one that stands for the run.

        The others appear in reports under the label of the run followed by their name.
        """
        return {"": self.policy()}

    validation_interval: int | None = None  # in gradient steps; None where `validate` is not used

    def validate(self, batch: Batch) -> Metrics:
        """Looks at the published validation split, every `validation_interval` steps.

        The batch holds the whole split as published, which `prepare` has not seen, with a replica
        axis of 1.
        """
        raise NotImplementedError


class SingleSeedLearner(_Stateful, ABC):
    """One seed of one algorithm, written plainly: no tensor has a replica axis.

    Draw from torch's global generator as you like: offrl keeps it apart for each run and saves it
    with the checkpoint. Networks, optimisers and counters that are attributes are saved too.
    """

    Config: ClassVar[type]
    paper: ClassVar[str] = "unpublished"
    family: ClassVar[str] = "other"
    agreement: ClassVar[str | None] = None
    view: ClassVar[str | None] = None
    mode: ClassVar[str] = "deterministic"  # or "stochastic", where `act` draws; kept with the score

    @abstractmethod
    def __init__(self, spec: Spec, config: Any, seed: int, device: torch.device | str = "cpu"): ...

    @classmethod
    def prepare(cls, data: Transitions, config: Any) -> Transitions:  # noqa: ARG003
        """The data to train on: reward scaling, clipping and filters of the algorithm go here."""
        return data

    @classmethod
    def sampler(
        cls, data: Transitions, config: Any, seeds: Sequence[int], device: torch.device | str
    ) -> Sampler:
        """Draws the batches that `update` takes, from the prepared data."""
        return UniformSampler(data, config.batch_size, seeds, device)

    @abstractmethod
    def update(self, batch: Batch) -> Mapping[str, float | Tensor]:
        """One gradient step on a batch of shape (B, ...); scalar metrics."""

    @abstractmethod
    def act(self, observations: Tensor) -> Tensor:
        """Actions of shape (E, action_dim) for observations of shape (E, observation_dim)."""


class _Replicated(Learner):
    """Runs single-seed learners side by side under the Learner contract."""

    def __init__(
        self,
        algorithm: type[SingleSeedLearner],
        spec: Spec,
        config: Any,
        seeds: Sequence[int],
        device: torch.device | str,
    ):
        self.learners: list[SingleSeedLearner] = []
        self.generator_states: list[Tensor] = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(spawn_seed(seed, "global"))
                self.learners.append(algorithm(spec, config, seed, device))
                self.generator_states.append(torch.get_rng_state())

    def update(self, batch: Batch) -> Metrics:
        rows: list[dict[str, Tensor]] = []
        for r, learner in enumerate(self.learners):
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self.generator_states[r])
                metrics = learner.update(batch.replica(r))
                self.generator_states[r] = torch.get_rng_state()
            rows.append({name: torch.as_tensor(value).detach() for name, value in metrics.items()})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def policy(self) -> Policy:
        # Acting draws on from where training is, and training does not notice.
        states = list(self.generator_states)

        def act(observations: Tensor) -> Tensor:
            actions = []
            for r, learner in enumerate(self.learners):
                with torch.random.fork_rng(devices=[]):
                    torch.set_rng_state(states[r])
                    actions.append(learner.act(observations[r]))
                    states[r] = torch.get_rng_state()
            return torch.stack(actions)

        return StatelessPolicy(act, self.learners[0].mode)


def find_algorithm(name: str) -> type[Learner] | type[SingleSeedLearner]:
    """The algorithm class of a registered name, or of a path to a Python file."""
    module = registry.load("algorithms", name, "algorithm")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, (Learner, SingleSeedLearner))
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found)
        raise InputError(
            f"{module.__file__}: expected one class derived from offrl.Learner or "
            f"offrl.SingleSeedLearner, found {len(found)}{': ' * bool(names)}{names}"
        )
    if lacking := sorted(getattr(found[0], "__abstractmethods__", ())):
        raise InputError(
            f"{module.__file__}: class {found[0].__name__} lacks {', '.join(lacking)}; write them"
        )
    return found[0]


def build(
    algorithm: type[Learner] | type[SingleSeedLearner],
    spec: Spec,
    config: Any,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
) -> Learner:
    """A Learner with one replica per seed, whichever way the algorithm is written."""
    if issubclass(algorithm, Learner):
        return algorithm(spec, config, seeds, device)
    return _Replicated(algorithm, spec, config, seeds, device)
