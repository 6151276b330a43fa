"""Puts an algorithm of the user's own through the battery."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from offrl import registry
from offrl.errors import InputError
from offrl.learning.battery import Settings, Subject
from offrl.learning.checks import CHECKS, IN_EVERY_WAY, Check, Failed, NotApplicable, title
from offrl.learning.learner import find_algorithm
from offrl.progress import Progress
from offrl.running.faults import AlgorithmError, blaming
from offrl.running.jobs import configure

Outcome = Literal["ok", "failed", "not applicable"]
OK: Outcome = "ok"
FAILED: Outcome = "failed"
NOT_APPLICABLE: Outcome = "not applicable"


@dataclass(frozen=True)
class Finding:
    """What a check says of an algorithm.

    Attributes:
        check: the name of its function.
        title: what it is about, in a sentence.
        detail: of a failure what was seen, what was expected and what to do; or why the check does
            not apply.
    """

    check: str
    title: str
    outcome: Outcome
    detail: str = ""


def check_algorithm(path: str, progress: Progress | None = None) -> Iterator[Finding]:
    """Runs the battery on the algorithm in a Python file, a finding after the other.

    The file's code runs. Its `BATTERY`, a `Settings`, says what the battery needs of it, if
    anything. Work is done on one thread, as a worker does it.

    Raises InputError for a file that has no algorithm or no config, and for a BATTERY that names
    no field of it.
    """
    subject = subject_of(path)
    for number, check in enumerate(CHECKS):
        if progress is not None:
            progress(number, len(CHECKS))
        with _one_thread():
            finding = _finding(check, subject)
        yield finding


def subject_of(path: str) -> Subject:
    """The algorithm in a Python file, with its `BATTERY`."""
    if not path.endswith(".py"):
        raise InputError(
            f"{path}: expected the path of a .py file with an algorithm; give ./NAME.py"
        )
    with contextlib.redirect_stdout(sys.stderr):
        algorithm = find_algorithm(path)
        configure(path, {}, path)
        settings = getattr(registry.load("algorithms", path, "algorithm"), "BATTERY", Settings())
    if not isinstance(settings, Settings):
        raise InputError(
            f"{path}: BATTERY is a {type(settings).__name__}; expected a Settings of "
            "offrl.learning.battery; write BATTERY = Settings(...)"
        )
    return Subject.of(algorithm, settings)


def _finding(check: Check, subject: Subject) -> Finding:
    for way in subject.ways() if check in IN_EVERY_WAY else [subject]:
        try:
            # What the file prints would stand among the findings.
            with (
                contextlib.redirect_stdout(sys.stderr),
                blaming(subject.algorithm, "called by this check"),
            ):
                check(way)
        except NotApplicable as reason:
            return Finding(check.__name__, title(check), NOT_APPLICABLE, str(reason))
        except InputError as error:
            text = str(error)
            if isinstance(error, AlgorithmError):
                text += "; expected no error; correct the line"
            elif not isinstance(error, Failed):
                text = f"{way.algorithm.__name__} does not take this check's data: {text}"
            where = f"with {way}: " if str(way) else ""
            return Finding(check.__name__, title(check), FAILED, where + text)
    return Finding(check.__name__, title(check), OK)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
