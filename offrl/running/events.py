"""What happens to a run."""

from dataclasses import dataclass
from pathlib import Path

from offrl.running.jobs import Job


@dataclass(frozen=True)
class Event:
    """What happened to a run. `status`: waiting, running, done, failed or interrupted."""

    job: Job
    status: str
    step: int
    score: float | None = None
    cause: str | None = None


def key(job: Job) -> str:
    """The run's folder below the store, which tells it from all others."""
    return str(job.folder(Path()))
