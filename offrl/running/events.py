"""What happens to runs, and the interface of what carries them out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from offrl.results.rows import Status, main_scores, run_score
from offrl.results.store import Held, StoredRun
from offrl.running.groups import Group
from offrl.running.jobs import Job


@dataclass(frozen=True)
class Event:
    """What happened to a run, at which step and with which latest score."""

    job: Job
    status: Status
    step: int
    score: float | None = None
    cause: str | None = None  # of a failure, or why another process is left to run it
    holder: str | None = None  # the process, and its host, that is left to run it
    out_of_memory: bool = False  # the failure is that there was none left


def ended_before(job: Job, stored: StoredRun) -> Event:
    """The last event of a run that is done, by what is stored."""
    step = stored.rows[-1].step if stored.rows else 0
    score = run_score(main_scores(stored.rows), job.evaluation.last)
    return Event(job, Status.DONE, step, score)


def left_to(last: Event, error: Held) -> Event:
    """The last event of a run that another process holds, from the one before it."""
    return replace(last, status=Status.WAITING, cause=str(error), holder=error.holder)


OnEvent = Callable[[Event], None]


class Executor(Protocol):
    """Carries out groups of jobs, each job in its own folder of the run store `root`."""

    def places(self, device: str, workers: int | None) -> list[str]:
        """The device of each worker that there may be at once, such as `cpu`.

        Args:
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            workers: see `offrl.run`; None: as many as there is room for.

        Raises InputError for a device or a cluster that there is not.
        """
        ...

    def under_way(self, jobs: Sequence[Job], root: Path) -> list[Job]:
        """Those of the jobs that an earlier command of this executor has handed out.

        They go on by themselves, and the executor takes part in them.
        """
        ...

    def __call__(
        self, groups: Sequence[Group], root: Path, places: Sequence[str], on_event: OnEvent
    ) -> list[Event]:
        """The last event of each job, in the order in which they ended.

        Calls `on_event` in the caller's process with every event. A run that fails is noted in its
        folder and does not stop the others. One whose process or machine is lost, or has no memory
        left, is tried again, a few times. An exception, KeyboardInterrupt and those of `on_event`
        included, leaves no run going that ends with this process: each is asked to save and end
        before it is raised.
        """
        ...
