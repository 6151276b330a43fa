"""The contract between an algorithm and everything around it.

A `Learner` trains R replicas of one network at once: every tensor starts with the replica axis.
A `SingleSeedLearner` is the plain way to write an algorithm; it is run one seed at a time.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from offrl import registry
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.batch import Batch
from offrl.learning.networks import Standardise
from offrl.learning.policy import Policy
from offrl.learning.sampler import Sampler, UniformSampler
from offrl.learning.settings import placed
from offrl.learning.spec import Device, Seeds, Spec
from offrl.learning.state import Stateful

CONTINUOUS = "continuous"  # kinds of actions
DISCRETE = "discrete"
Metrics = Mapping[str, Tensor]
Loss = tuple[Tensor, Metrics]  # of each replica (R,), and what is worth plotting beside it


class Algorithm(Stateful, ABC):
    """What both kinds of learner have: facts about the algorithm, its data and its batches.

    `paper` and `family` have defaults for a file outside offrl; algorithms that ship name both.
    """

    Config: ClassVar[type]  # a frozen dataclass with at least `batch_size`
    paper: ClassVar[str] = "unpublished"  # authors, year, arXiv id
    family: ClassVar[str] = "other"  # what it shares its structure with, such as "actor-critic"
    agreement: ClassVar[str | None] = None  # the code whose updates its own were measured to match
    view: ClassVar[str | None] = None  # of the data, where it needs another than the card's
    actions: ClassVar[frozenset[str]] = frozenset((CONTINUOUS,))  # of the data: kinds that it takes
    accepts_action_free: ClassVar[bool] = False  # rows without an action: NaN, discrete -1
    # Fields of the config in which replicas of one batch may differ: numbers that the learner takes
    # as tensors (R, 1) too; and those that `prepare` alone reads.
    varying: ClassVar[frozenset[str]] = frozenset()
    preparing: ClassVar[frozenset[str]] = frozenset()
    schedule: ClassVar[str] = ""  # what of it depends on `spec.steps`, as messages name it
    samples_many: ClassVar[bool] = False  # whether an own `sampler` takes a data set a replica

    @classmethod
    def prepare(cls, data: Transitions, config: Any) -> Transitions:  # noqa: ARG003
        """The data to train on: reward scaling, clipping and filters of the algorithm go here.

        Raises InputError for data or a config with which the algorithm cannot train.
        """
        return data

    @classmethod
    def sampler(cls, data: Any, config: Any, seeds: Seeds, device: Device) -> Sampler:
        """Draws the batches that `update` takes, from the prepared data.

        Args:
            data: Transitions; or a sequence with those of each replica, which a subclass's own
                `sampler` is given only where `samples_many` is true.
            config: of the learner.
            seeds: one per replica.
            device: where the batches are to be.
        """
        return UniformSampler(data, config.batch_size, seeds, device)


class Learner(Algorithm):
    """R independent replicas of one algorithm, on a leading axis of every parameter.

    A subclass sets `Config`, `paper` and `family`, builds its networks in `__init__`, takes one
    gradient step per `update` and acts through `policy`.
    """

    not_restored = frozenset({"max_action", "standardise"})

    config: Any
    validation_interval: int | None = None  # in gradient steps; None where `validate` is not used
    validation_advice: ClassVar[str] = "choose another data set"  # where there is no such split

    @property
    def period(self) -> int | None:
        """Updates after which their work repeats, for CUDA graphs; None: it may not.

        The work is what the host decides: operations, shapes, Python's numbers. What else changes
        has to be in tensors on the device, such as schedules (`steps_made`), changed in place.
        """
        return None

    @property
    def phases(self) -> tuple[int, ...]:
        """Counts of updates after which their work changes for good, such as a warm start's."""
        return ()

    @abstractmethod
    def __init__(self, spec: Spec, config: Any, seeds: Seeds, device: Device = "cpu"):
        """Keeps what most algorithms use; a subclass calls it before it builds its networks."""
        self.config = placed(config, device)
        self.max_action = spec.max_action
        self.standardise = Standardise(spec, device)

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

    def validate(self, batch: Batch) -> Metrics:
        """Looks at the published validation split, every `validation_interval` steps.

        The batch holds the whole split as published, not changed by `prepare`, with a replica axis
        of 1.
        """
        raise NotImplementedError

    def states(self, observations: Tensor) -> Tensor:
        """What networks see: observations, standardised where the config's `normalize` is true."""
        return self.standardise(observations) if self.config.normalize else observations


class SingleSeedLearner(Algorithm):
    """One seed of one algorithm, written plainly: no tensor has a replica axis.

    Draw from torch's global generator as you like: offrl keeps it apart for each run and saves it
    with the checkpoint. Networks, optimisers and counters that are attributes are saved too.
    """

    mode: ClassVar[str] = "deterministic"  # or "stochastic", where `act` draws; kept with the score

    @abstractmethod
    def __init__(self, spec: Spec, config: Any, seed: int, device: Device = "cpu"): ...

    @abstractmethod
    def update(self, batch: Batch) -> Mapping[str, float | Tensor]:
        """One gradient step on a batch of shape (B, ...); scalar metrics."""

    @abstractmethod
    def act(self, observations: Tensor) -> Tensor:
        """Actions (E, action_dim), or discrete (E,), for observations (E, observation_dim)."""


def find_algorithm(name: str) -> type[Learner] | type[SingleSeedLearner]:
    """The algorithm class of a registered name, or of a path to a Python file."""
    module = registry.load("algorithms", name, "algorithm")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, (Learner, SingleSeedLearner))
        and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        names = f": {', '.join(cls.__name__ for cls in classes)}" if classes else ""
        raise InputError(
            f"{module.__file__}: expected one class derived from offrl.Learner or "
            f"offrl.SingleSeedLearner, found {len(classes)}{names}; "
            + ("give each a file" if classes else "offrl new algorithm NAME writes one")
        )
    if lacking := sorted(getattr(classes[0], "__abstractmethods__", ())):
        raise InputError(
            f"{module.__file__}: class {classes[0].__name__} lacks {', '.join(lacking)}; write them"
        )
    return classes[0]


def taking(kind: str) -> list[str]:
    """The registered algorithms that take actions of a kind, of those that can be read."""
    found = []
    for name in sorted(registry.modules("algorithms")):
        with contextlib.suppress(InputError):
            if kind in find_algorithm(name).actions:
                found.append(name)
    return found
