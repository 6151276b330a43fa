"""Curves while runs train, in a program that shows them: the contract of such a program's module.

A board is a module of `reports/`, or of an installed package by an entry point of the group
`offrl.reports`, with

    BOARD             a text that says what it is
    NEEDS             the package that it imports, whose extra of offrl has the board's name
    board(place, run) what takes one run's curves, a `Board`; `place` is a folder of its own

The process that hands out runs reads their folders now and then and passes on what is new. So a
board sees whatever executor works, costs the training nothing, and none of its faults stops a run.
"""

import contextlib
import importlib.util
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from offrl import registry
from offrl.errors import Damaged, InputError, unknown
from offrl.files import below
from offrl.results.curves import read_curves
from offrl.results.formats import assigns
from offrl.results.rows import Status
from offrl.results.store import RunFolder
from offrl.running.events import Event, OnEvent
from offrl.running.following import when_changed

log = logging.getLogger(__name__)

SECONDS = 10.0  # between two looks at one run
MARK = "BOARD"
LAST = 2**63


@dataclass(frozen=True)
class Shown:
    """What a board may say of a run."""

    key: str  # the same for the same run, and for no other of its folder of runs
    title: str
    protocol: str
    dataset: str
    algorithm: str
    seed: int
    config: Mapping[str, Any]


class Board(Protocol):
    """Takes the curves of one run."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Takes values by name at a gradient step; steps rise."""
        ...

    def close(self) -> None:
        """Ends the curves."""
        ...


def boards() -> list[str]:
    """The names of all boards."""
    return sorted(n for n, module in registry.modules("reports").items() if assigns(module, MARK))


def find_board(name: str) -> ModuleType:
    """The module of a board. Raises InputError where there is none, or its package is missing."""
    if name not in boards():
        raise unknown("program for curves", name, boards())
    module = registry.load("reports", name, "program for curves")
    if importlib.util.find_spec(module.NEEDS) is None:
        raise InputError(
            f"{name} needs the package {module.NEEDS}, which is not installed; "
            f"pip install 'offrl[{name}]'"
        )
    return module


@contextlib.contextmanager
def following(name: str | None, root: Path, on_event: OnEvent) -> Iterator[OnEvent]:
    """What to call with events, so that a board has the curves; `on_event` itself for None."""
    if name is None:
        yield on_event
        return
    follower = Follower(name, root)

    def both(event: Event) -> None:
        follower.follow(event)
        on_event(event)

    try:
        yield both
    finally:
        follower.close()


@dataclass
class _Followed:
    """A run whose curves are passed on."""

    folder: RunFolder
    board: Board
    looked: float = 0.0  # when
    step: int = 0  # up to which everything is passed on
    changed: tuple[int, ...] = ()  # when the run's files were, at the last look


class Follower:
    """Passes the losses and scores of runs on to a board; pass its `follow` every event.

    Args:
        name: of the board.
        root: the folder of runs, in which the board has a folder of its name.
    """

    def __init__(self, name: str, root: Path):
        self.module = find_board(name)
        self.root, self.place = root, root / name
        self._runs: dict[tuple[str, ...], _Followed | None] = {}  # None: not to be followed

    def follow(self, event: Event) -> None:
        """Passes on what is new of a run, if it is time to look, and all of it at its end."""
        ended = event.status not in (Status.RUNNING, Status.WAITING)
        if event.status is Status.WAITING:
            return
        key = event.job.place
        if key not in self._runs:
            self._runs[key] = self._opened(event)
        followed = self._runs[key]
        if followed is None or not (ended or time.monotonic() - followed.looked > SECONDS):
            return
        followed.looked = time.monotonic()
        try:
            self._pass_on(followed, ended=ended)
            if ended:
                followed.board.close()
        except Exception as error:  # of a library, on any disk; the run goes on
            log.warning("%s: no more curves of %s: %s", self.place, event.job.title, error)
            ended = True
        if ended:
            self._runs[key] = None

    def close(self) -> None:
        """Ends all curves, of runs that go on too."""
        for key, followed in self._runs.items():
            if followed is not None:
                try:
                    followed.board.close()
                except Exception as error:
                    log.warning("%s: %s", self.place, error)
            self._runs[key] = None

    def _opened(self, event: Event) -> _Followed | None:
        job = event.job
        shown = Shown(
            key="/".join(job.place),
            title=job.title,
            protocol=job.protocol,
            dataset=job.dataset_id or job.dataset,
            algorithm=job.label,
            seed=job.seed,
            config=job.config,
        )
        try:
            place = below(self.root, self.place.name, *job.place)
            if event.status is Status.DONE and place.exists():
                return None  # it was done before, and so were its curves
            place.mkdir(parents=True, exist_ok=True)
            board = self.module.board(place, shown)
        except Exception as error:
            log.warning("%s: no curves of %s: %s", self.place, job.title, error)
            return None
        return _Followed(RunFolder(job.folder(self.root), self.root), board)

    def _pass_on(self, run: _Followed, *, ended: bool) -> None:
        """Hands on what is new, by steps.

        A row may be written before the losses up to it, so while the run goes on rows wait for
        these.
        """
        files = (run.folder.metrics_file, run.folder.rows_file)
        changed = tuple(when_changed(path) for path in files)
        if changed == run.changed and not ended:
            return
        run.changed = changed
        try:
            lines = read_curves(run.folder.metrics_file)
        except OSError:
            lines = []
        try:
            rows = run.folder.rows()
        except Damaged:
            rows = []
        values: dict[int, dict[str, float]] = {step: dict(of) for step, of in lines}
        for row in rows:
            way = f"{row.policy}/" if row.policy else ""
            if row.score is not None and row.mean_return is not None:
                of = {f"eval/{way}score": row.score, f"eval/{way}return": row.mean_return}
                values.setdefault(row.step, {}).update(of)
        until = LAST if ended else max((step for step, _ in lines), default=0)
        for step in sorted(step for step in values if run.step < step <= until):
            run.board.add(step, values[step])
            run.step = step
