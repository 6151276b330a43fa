"""The battery by an algorithm's name, with the settings that stand beside its own test."""

import importlib
from pathlib import Path
from typing import Any

from offrl import registry
from offrl.data.transitions import Transitions
from offrl.learning.battery import SPEC as SPEC
from offrl.learning.battery import Settings as Settings
from offrl.learning.battery import Subject
from offrl.learning.battery import chain as chain
from offrl.learning.battery import choices as choices
from offrl.learning.battery import data as data
from offrl.learning.battery import parameters as parameters
from offrl.learning.battery import spec_of as spec_of
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.sampler import Sampler
from offrl.learning.template import TEMPLATE
from offrl.running.checking import subject_of

EXAMPLE = str(TEMPLATE)


def named() -> list[str]:
    """All that the registry finds, entry points included."""
    return sorted(registry.modules("algorithms"))


def subject(name: str) -> Subject:
    """A registered algorithm, or that of a file."""
    if name.endswith(".py"):
        return subject_of(name)
    return Subject.of(find_algorithm(name), settings(name))


def settings(name: str) -> Settings:
    """`BATTERY` of tests/algorithms/test_NAME.py; the defaults where there is none."""
    if not (Path(__file__).parent / "algorithms" / f"test_{name}.py").is_file():
        return Settings()
    stated: Settings = getattr(importlib.import_module(f"test_{name}"), "BATTERY", Settings())
    return stated


def suited(name: str, data: Transitions) -> Transitions:
    """The data with actions that an algorithm takes: discrete where it takes no others."""
    return subject(name).suited(data)


def small(name: str, **changes: Any) -> Any:
    """The algorithm's default config with narrow networks and small batches, and `changes`."""
    return subject(name).config(**changes)


def untrained(
    name: str, transitions: Transitions, seeds: list[int], config: Any = None
) -> tuple[Learner, Sampler]:
    """A learner of the prepared data, and its sampler."""
    return subject(name).untrained(transitions, seeds, config)


def trained(
    name: str, transitions: Transitions, seeds: list[int], updates: int, config: Any = None
) -> tuple[Learner, Sampler]:
    """A learner after some updates, and its sampler."""
    return subject(name).trained(transitions, seeds, updates, config)
