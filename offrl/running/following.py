"""Events of runs that other processes carry out, by what stands in their folders."""

import time
from collections.abc import Iterable
from pathlib import Path

from offrl.results.rows import Status, main_scores, run_score
from offrl.results.store import RunFolder, State
from offrl.running.events import Event, OnEvent
from offrl.running.jobs import Job

SECONDS = 2.0  # between two looks


class Following:
    """Calls `on_event` with what is new of runs."""

    def __init__(self, root: Path, on_event: OnEvent):
        self.root, self.on_event = root, on_event
        self._looked = 0.0
        self._seen: dict[tuple[str, ...], tuple[int, ...]] = {}  # times of each run's files

    def look(self, jobs: Iterable[Job]) -> None:
        """Reads the folders that have changed, if the last look is long enough ago."""
        if time.monotonic() - self._looked < SECONDS:
            return
        for job in jobs:
            folder = RunFolder(job.folder(self.root), self.root)
            files = (folder.record_file, folder.rows_file, folder.checkpoint)
            times = tuple(when_changed(path) for path in files)
            if self._seen.get(job.place) == times:
                continue
            self._seen[job.place] = times
            event = stands(job, folder)
            if event.status is Status.RUNNING:
                self.on_event(event)
        self._looked = time.monotonic()

    def end(self, job: Job) -> Event:
        """The last event of a run that nobody carries out any more."""
        return stands(job, RunFolder(job.folder(self.root), self.root))


def stands(job: Job, folder: RunFolder) -> Event:
    """How far a run is, by its folder."""
    stored = folder.read()
    step = stored.rows[-1].step if stored.rows else 0
    score = run_score(main_scores(stored.rows), job.evaluation.last)
    if stored.record is None or stored.state is State.DAMAGED:
        return Event(job, Status.FAILED, step, score, stored.cause)
    status = stored.record.status
    if stored.state is State.LACKING:
        status = Status.FAILED
    cause = stored.cause if status is Status.FAILED else None
    return Event(job, status, step, score, cause)


def when_changed(path: Path) -> int:
    """The time at which a file was changed last, in nanoseconds; 0 where there is none."""
    try:
        return path.stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0
