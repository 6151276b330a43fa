"""The contract between an algorithm and everything around it.

A `Learner` trains R replicas of one network at once: every tensor starts with the replica axis.
A `SingleSeedLearner` is the plain way to write an algorithm; it is run one seed at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from offrl import registry
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.batch import Batch
from offrl.learning.policy import Policy
from offrl.learning.sampler import Sampler, UniformSampler
from offrl.learning.spec import Spec
from offrl.learning.state import Stateful

Metrics = Mapping[str, Tensor]


class Learner(Stateful, ABC):
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


class SingleSeedLearner(Stateful, ABC):
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
