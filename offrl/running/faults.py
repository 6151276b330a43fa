"""Mistakes in an algorithm of the user's own, named by file, line and step."""

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offrl.errors import InputError, is_interrupt
from offrl.learning.learner import Metrics
from offrl.learning.policy import Policy
from offrl.learning.spec import Spec


class AlgorithmError(InputError):
    """An algorithm of the user's own raised, or returned what cannot be used, at a step if any."""

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


def cause_of(error: Exception) -> str:
    """How a run's record and its last event name the error that ended it."""
    if isinstance(error, AlgorithmError):
        return f"{error} (run.json has the traceback)"
    return f"{type(error).__name__}: {error}"


@contextmanager
def blaming(algorithm: type, method: str, step: int | None = None) -> Iterator[None]:
    """What an algorithm of the user's own raises inside becomes an AlgorithmError with its place.

    What is raised inside of an algorithm that ships passes as it is, and so does an InputError.

    Args:
        algorithm: the class.
        method: what is called; its definition is the place of a call that does not reach it.
        step: the gradient step; None before the first.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:  # SystemExit, and whatever a file may raise
        if is_interrupt(error) or (file := own_file(algorithm)) is None:
            raise
        line = _line(algorithm, method, file, error)
        at = "" if step is None else f" at step {step:,}"
        text = " ".join(str(error).split())[:300]
        said = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise AlgorithmError(f"{file}, {line}{method}{at}: {said}", step) from error


def own_file(algorithm: type) -> str | None:
    """The file of an algorithm's class, None where it ships with offrl."""
    module = sys.modules[algorithm.__module__]
    return None if module.__name__.startswith("offrl.") else module.__file__


def _line(algorithm: type, method: str, file: str, error: BaseException) -> str:
    """The last line of the file that was reached, else that of the method's definition."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    code = getattr(getattr(algorithm, method, None), "__code__", None)
    if not lines and code is not None and code.co_filename == file:
        lines = [code.co_firstlineno]
    return f"line {lines[-1]}, " if lines else ""


def check_metrics(metrics: Any, replicas: int) -> Metrics:
    """What `update` returned. Raises ValueError for all but a tensor (R,) of numbers by name."""
    if not isinstance(metrics, Mapping):
        raise ValueError(f"returned {type(metrics).__name__}; expected metrics by name, or {{}}")
    for name, value in metrics.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"metric {name!r} is a {type(value).__name__}; expected a tensor")
        if value.shape != (replicas,) or value.is_complex():
            kind = "complex, " if value.is_complex() else ""
            raise ValueError(
                f"metric {name!r} is {kind}of shape {tuple(value.shape)}; expected one number per "
                f"replica, shape {(replicas,)}"
            )
    return metrics


def _check_actions(actions: Tensor, count: int | None) -> None:
    """Raises ValueError for an action that is not finite, or none of `count` discrete ones."""
    if count and not ((actions >= 0) & (actions < count)).all():
        raise ValueError(f"returned an action that is not among 0 to {count - 1}")
    if not torch.isfinite(actions).all():
        raise ValueError("returned an action that is not finite")


@dataclass(frozen=True)
class CheckedPolicy:
    """A policy whose actions are checked before a simulator takes them."""

    policy: Policy
    algorithm: type
    method: str  # of the algorithm, for messages
    step: int
    spec: Spec

    @property
    def mode(self) -> str:
        """How it acts."""
        return self.policy.mode

    def act(self, observations: Tensor) -> Tensor:
        """The simulator's actions (R, E, action_dim), or (R, E), for observations.

        Observations have shape (R, E, observation_dim).
        """
        with blaming(self.algorithm, self.method, self.step):
            actions: Any = self.policy.act(observations)
            count = self.spec.action_count
            axes = "episodes" if count else "episodes, action dimensions"
            expected = (*observations.shape[:-1], *([] if count else [self.spec.action_dim]))
            if not isinstance(actions, Tensor):
                raise ValueError(f"returned {type(actions).__name__}; expected a tensor of actions")
            if actions.shape != expected:
                raise ValueError(
                    f"returned actions of shape {tuple(actions.shape[1:])}; expected "
                    f"{expected[1:]}: {axes}"
                )
            if count and (actions.is_floating_point() or actions.dtype == torch.bool):
                raise ValueError(f"returned actions of {actions.dtype}; expected whole numbers")
            if own_file(self.algorithm) is not None:
                _check_actions(actions, count)
        return self.spec.to_simulator(actions)

    def begin(self, starts: Tensor) -> None:
        """Passed on."""
        with blaming(self.algorithm, self.method, self.step):
            self.policy.begin(starts)

    def reward(self, rewards: Tensor) -> None:
        """Passed on."""
        with blaming(self.algorithm, self.method, self.step):
            self.policy.reward(rewards)
