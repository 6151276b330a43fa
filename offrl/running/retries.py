"""Which runs are tried again, as their process was lost, and which have failed.

An algorithm that raises, or whose numbers are not finite, does so again: its run is recorded as
failed. A machine that goes, a process that is killed and memory that runs out say nothing about the
algorithm: the run is tried again from its last checkpoint, and its record says what happened where.
"""

import platform
import signal
from pathlib import Path

import torch

from offrl.errors import Damaged, InputError
from offrl.results.rows import Status
from offrl.results.store import LOCK_SECONDS, Held, RunFolder, State
from offrl.running.events import Event, ended_before, left_to
from offrl.running.jobs import Job

TRIES = 3  # of a run by one executor
# By these a process ends itself: code has a fault. Any other comes from outside.
FAULTS = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}


def was_killed(code: int) -> bool:
    """Whether a process that ended with this exit code, minus a signal's number, was killed."""
    return code < 0 and -code not in FAULTS


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no memory left: Python's, NumPy's or torch's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Torch raises a RuntimeError where a processor's memory ends.
    if type(error) is RuntimeError and "can't allocate memory" in str(error):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def memory_kills() -> int:
    """How many processes this machine's kernel has killed for want of memory; 0 if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, ValueError):
        return 0


def sessions(job: Job, root: Path) -> int:
    """How many processes have worked on a run."""
    try:
        return len(RunFolder(job.folder(root), root).record().sessions)
    except Damaged:
        return 0


class Retries:
    """The runs of an executor that were lost, each tried again for a limited number of times."""

    def __init__(self, root: Path):
        self.root = root
        self._tries: dict[tuple[str, ...], int] = {}

    def end(
        self, last: Event, cause: str, before: int, *, again: bool, host: str | None = None
    ) -> Event | None:
        """The end of a run whose process is gone, or None where it is to be tried again.

        Its record decides: a run that is done, or has failed, has ended. Any other is noted, as
        lost or else as failed.

        Args:
            last: the latest event of the run.
            cause: how its process ended.
            before: how many processes had worked on the run when that one began; `sessions`.
            again: whether the process was lost.
            host: of the process; None: the one that the run's record has, or this one.
        """
        job = last.job
        tried = self._tries.get(job.place, 0) + 1
        self._tries[job.place] = tried
        if again and tried >= TRIES:
            again, cause = False, f"{cause}, the last of {TRIES} tries"
        folder = RunFolder(job.folder(self.root), self.root)
        try:
            with folder.held(LOCK_SECONDS):  # a worker that lost its parent saves first
                stored = folder.read()
                if stored.state is State.DONE:
                    return ended_before(job, stored)
                record = stored.record
                failed = stored.state is State.FAILED and not last.out_of_memory
                if failed and record is not None and len(record.sessions) > before:
                    return Event(job, Status.FAILED, last.step, last.score, record.cause)
                if again and record is not None and stored.state is not State.DAMAGED:
                    of_session = (
                        record.sessions[-1].hardware.get("host") if record.sessions else None
                    )
                    folder.note_attempt(cause, host or str(of_session or platform.node()))
                    return None
                folder.fail(cause)
        except Held as error:  # by another process, which has taken it meanwhile
            return left_to(last, error)
        except InputError as error:  # the disk may be full
            cause = f"{cause}; {error}"
        return Event(job, Status.FAILED, last.step, last.score, cause)
