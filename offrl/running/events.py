"""What happens to a run."""

from dataclasses import dataclass
from pathlib import Path

from offrl.results.rows import Status
from offrl.running.jobs import Job


@dataclass(frozen=True)
class Event:
    """What happened to a run, at which step and with which latest score."""

    job: Job
    status: Status
    step: int
    score: float | None = None
    cause: str | None = None  # of a failure


def key(job: Job) -> str:
    """The run's folder below the store, which tells it from all others."""
    return str(job.folder(Path()))
