"""Runs jobs as arrays of Slurm, each task of which works through a chunk; submitted by submitit.

`RUNS/.slurm/<random>/` has what submitit needs, the tasks' logs, and in `array.json` which runs
each task has. The jobs go on where this process ends; the same command then looks at them again.
"""

import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from offrl.errors import InputError
from offrl.files import below, read_own, replacing
from offrl.results.rows import Status
from offrl.results.store import Held, RunFolder
from offrl.running.chunks import Chunk, carry_out, cut, lost
from offrl.running.events import Event, OnEvent, left_to
from offrl.running.following import Following
from offrl.running.groups import Group
from offrl.running.jobs import Job
from offrl.running.launchers import Launcher
from offrl.running.retries import Retries

log = logging.getLogger(__name__)

NEEDS = "submitit"
FOLDER = ".slurm"
LARGEST = 2**26  # bytes of an array.json
ANSWER_SECONDS = 20  # that Slurm has to answer
LIMIT = 1.5  # wall-clock limit of a task, by what it should take
LEAST_MINUTES = 30  # of that limit; submitit takes the last ten for a time-out
MOST_TASKS = 1000  # of an array, which is Slurm's default
TIMEOUTS = 20  # after which a task that was out of time is not queued again by itself
SLOWEST = 15.0  # seconds between two looks at the queue
# States in which a task ended without a fault of its own.
LOSSES = {"BOOT_FAIL", "DEADLINE", "LOST", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
# States in which a task has not ended.
GOING = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"}
# Options that submitit itself uses; any other is one of sbatch.
LINES = {"setup", "srun_args", "teardown"}
NUMBERS = {"cpus_per_task", "signal_delay_s", "time"}  # the last in minutes
TASK = re.compile(r"[1-9]\d{0,17}(_\d{1,9})?")


class ChunkTask:
    """What a task of an array does. Interrupted by Slurm, it saves and is queued again.

    Args:
        folder: shared, for what no run's record can hold.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, chunk: Chunk) -> None:
        """Carries out a chunk."""
        import submitit

        try:
            carry_out(chunk)
        except InputError as error:
            file = self.folder / f"{submitit.JobEnvironment().job_id}.txt"
            with replacing(file) as temporary:
                temporary.write_text(str(error), encoding="utf-8")
            raise

    def checkpoint(self, chunk: Chunk) -> Any:
        """The same, to be submitted again, once all workers have saved as after Ctrl-C."""
        import submitit

        children = active_children()
        for child in children:
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, signal.SIGTERM)
        for child in children:
            child.join()
        return submitit.helpers.DelayedSubmission(self, chunk)


@dataclass
class _Array:
    """Tasks that were submitted together, and those of them that have not ended."""

    folder: Path  # of submitit
    tasks: dict[str, Chunk | list[Job]]  # by Slurm's id; only the runs of an earlier command's
    own: bool = True  # submitted by this process
    clean: bool = True  # no log is worth keeping
    number: str = field(init=False)  # Slurm's id of the array

    def __post_init__(self) -> None:
        self.number = next(iter(self.tasks)).partition("_")[0]


class _Slurm:
    """The executor of a Slurm cluster."""

    def __init__(self, launcher: Launcher):
        self.launcher = launcher
        self.device, self.workers = "cpu", 1

    def places(self, device: str, workers: int | None) -> list[str]:
        if not re.fullmatch(r"auto|cpu|cuda", device):
            raise InputError(f"device {device!r:.80}: by Slurm, expected auto, cpu or cuda")
        self.device = "cpu" if device == "auto" else device
        self.workers = workers or 1
        partitions = _partitions()
        if self.launcher.partition is not None and self.launcher.partition not in partitions:
            raise InputError(
                f"--partition {self.launcher.partition:.80}: Slurm has none of this name; expected "
                f"one of {', '.join(partitions):.500}"
            )
        return [self.device] * (self.launcher.array_parallelism * self.workers)

    def under_way(self, jobs: Sequence[Job], root: Path) -> list[Job]:
        queue = _Queue(root.absolute(), self, lambda _event: None)
        queue.find_earlier(jobs)
        queued = queue.places
        return [job for job in jobs if job.place in queued]

    def __call__(
        self, groups: Sequence[Group], root: Path, places: Sequence[str], on_event: OnEvent
    ) -> list[Event]:
        queue = _Queue(root.absolute(), self, on_event)
        queue.find_earlier([job for group in groups for job in group.jobs])
        if queued := queue.places:
            log.info("%d runs are in Slurm's queue by an earlier command", len(queued))
        left = [
            replace(group, jobs=tuple(job for job in group.jobs if job.place not in queued))
            for group in groups
        ]
        chunks = cut(
            [group for group in left if group.jobs],
            root.absolute(),
            device=self.device,
            workers=self.workers,
            tasks=len(places) // self.workers,
            seconds=3600 * self.launcher.chunk_hours,
            allowed=self.launcher.allow_versions,
        )
        try:
            queue.submit([self.sized(chunk) for chunk in chunks])
            queue.watch()
        except InputError:
            queue.cancel()
            raise
        except BaseException:
            queue.leave()
            raise
        return queue.ended

    def parameters(self, memory: int | None) -> dict[str, Any]:
        """What submitit takes for an array whose tasks need so many bytes of memory."""
        known: dict[str, Any] = {
            "job_name": "offrl",
            "time": max(LEAST_MINUTES, int(60 * LIMIT * self.launcher.chunk_hours)),
            "cpus_per_task": self.workers,
            "array_parallelism": self.launcher.array_parallelism,
        }
        if self.launcher.partition is not None:
            known["partition"] = self.launcher.partition
        if self.device == "cuda" and "gres" not in self.launcher.slurm:
            known["gpus_per_node"] = 1
        more: dict[str, Any] = {}
        for name, text in self.launcher.slurm.items():
            key = name.replace("-", "_")
            if key in LINES:
                known[key] = [text]
            elif key in NUMBERS:
                if not text.isdecimal():
                    raise InputError(f"--slurm {name}={text:.80}: expected a whole number")
                known[key] = int(text)
            elif key != "mem":
                more[name.replace("_", "-")] = True if text == "true" else text
        if memory is not None:
            known["mem"] = f"{-(-memory // 2**20)}M"
        return {**known, "additional_parameters": more} if more else known

    def sized(self, chunk: Chunk) -> Chunk:
        """The chunk with the memory that the user's option mem gives it, if there is one."""
        text = self.launcher.slurm.get("mem")
        if text is None:
            return chunk
        parsed = re.fullmatch(r"(\d{1,15})([KMGT]?)B?", text)
        if not parsed:
            raise InputError(f"--slurm mem={text:.80}: expected a number such as 8G, or 8000 (MiB)")
        number, unit = parsed.groups()
        return replace(
            chunk, memory=int(number) * 2 ** {"K": 10, "": 20, "M": 20, "G": 30, "T": 40}[unit]
        )


def executor(launcher: Launcher) -> _Slurm:
    """Carries out runs by Slurm."""
    return _Slurm(launcher)


class _Queue:
    """Arrays of which tasks wait or work."""

    def __init__(self, root: Path, slurm: _Slurm, on_event: OnEvent):
        self.root, self.slurm, self.on_event = root, slurm, on_event
        self.arrays: list[_Array] = []
        self.retries = Retries(root)
        self.following = Following(root, on_event)
        self.ended: list[Event] = []

    @property
    def places(self) -> set[tuple[str, ...]]:
        """The places of all runs that are in the queue."""
        chunks = [chunk for array in self.arrays for chunk in array.tasks.values()]
        return {job.place for chunk in chunks for job in _jobs(chunk)}

    def find_earlier(self, jobs: Sequence[Job]) -> None:
        """Takes on the tasks of an earlier command that are still in the queue, with their runs."""
        by_place = {job.place: job for job in jobs}
        for file in sorted(self.root.glob(f"{FOLDER}/*/array.json")):
            tasks = {
                task: [by_place[place] for place in places if place in by_place]
                for task, places in read_tasks(file).items()
            }
            states = _states([*tasks])
            if here := {t: found for t, found in tasks.items() if t in states and found}:
                self.arrays.append(_Array(file.parent, dict(here), own=False, clean=False))

    def submit(self, chunks: Sequence[Chunk]) -> None:
        """Submits chunks as arrays. Raises InputError where Slurm does not take them."""
        import submitit

        errors = (submitit.core.utils.FailedJobError, OSError, ValueError, RuntimeError)
        for first in range(0, len(chunks), MOST_TASKS):
            some = chunks[first : first + MOST_TASKS]
            below(self.root, FOLDER).mkdir(parents=True, exist_ok=True)
            # Its name cannot be foreseen and no other may write there: pickles are read from it.
            folder = Path(tempfile.mkdtemp(dir=below(self.root, FOLDER)))
            memory = max((c.memory for c in some if c.memory is not None), default=None)
            try:
                submitter = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
                submitter.update_parameters(**self.slurm.parameters(memory))
                with contextlib.redirect_stderr(io.StringIO()):  # the error has what sbatch says
                    made = submitter.map_array(ChunkTask(folder), some)
            except errors as error:
                self._remove(folder)
                reason = " ".join(str(error).split())
                raise InputError(f"Slurm does not take the runs: {reason:.400}") from None
            array = _Array(folder, {j.job_id: c for j, c in zip(made, some, strict=True)})
            values = {task: [job.place for job in _jobs(c)] for task, c in array.tasks.items()}
            self.arrays.append(array)  # first: whatever ends this, the array is known to it
            with replacing(folder / "array.json") as temporary:
                temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
            log.info("%d tasks are in Slurm's queue, as job %s", len(some), array.number)

    def _submit_again(self, chunks: Sequence[Chunk]) -> None:
        """Submits chunks that were lost; where Slurm does not take them, their runs have failed."""
        try:
            self.submit(chunks)
        except InputError as error:
            for chunk in chunks:
                lost(chunk, self.retries, str(error), self._end, again=False)

    def watch(self) -> None:
        """Waits for the ends of all tasks."""
        begun = time.monotonic()
        while self.arrays:
            if (states := self._look()) is None:
                time.sleep(SLOWEST)
                continue
            self.following.look(
                job
                for array in self.arrays
                for task, chunk in array.tasks.items()
                if states.get(task, "") != "PENDING"
                for job in _jobs(chunk)
            )
            again: list[Chunk] = []
            for array in self.arrays:
                for task in [task for task in array.tasks if task not in states]:
                    again += self._take(array, task)
            for array in [array for array in self.arrays if not array.tasks]:
                self.arrays.remove(array)
                if array.clean:
                    self._remove(array.folder)
            self._submit_again(again)
            if not self.arrays:
                break
            time.sleep(min(SLOWEST, 1 + (time.monotonic() - begun) / 20))

    def _remove(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another array's is in it
            below(self.root, FOLDER).rmdir()

    def _look(self) -> dict[str, str] | None:
        """The states of all tasks that are in the queue; None where Slurm does not say."""
        try:
            return _states([task for array in self.arrays for task in array.tasks])
        except InputError as error:
            log.warning("%s; this goes on waiting", error)
            return None

    def _take(self, array: _Array, task: str) -> list[Chunk]:
        """Notes the ends of the runs of a task that has left the queue; what to submit again."""
        state, host = _ended_as(task)
        if state in GOING:  # not in the queue's answer yet
            return []
        chunk = array.tasks.pop(task)
        if message := _message(array.folder / f"{task}.txt"):
            raise InputError(message)
        lasts = [self._stands(job) for job in _jobs(chunk)]
        ended = (Status.DONE, Status.FAILED)
        array.clean &= all(last.status in ended for last in lasts)
        if not isinstance(chunk, Chunk) or state in ("COMPLETED", "CANCELLED"):
            for last in lasts:
                self._end(last)
            return []
        cause = f"task {task} of Slurm on {host} ended as {state}; logs are in {array.folder}"
        left = lost(
            chunk,
            self.retries,
            cause,
            self._end,
            again=state in LOSSES,
            host=host,
            out_of_memory=state == "OUT_OF_MEMORY",
        )
        return [] if left is None else [left]

    def _stands(self, job: Job) -> Event:
        """The last event of a run whose task has left the queue."""
        event = self.following.end(job)
        if event.status in (Status.DONE, Status.FAILED):
            return event
        try:
            with RunFolder(job.folder(self.root), self.root).held(0):
                return replace(event, status=Status.INTERRUPTED)
        except Held as error:
            return left_to(event, error)
        except InputError as error:
            return replace(event, status=Status.FAILED, cause=str(error))

    def _end(self, event: Event) -> None:
        self.ended.append(event)
        self.on_event(event)

    def leave(self) -> None:
        """Says which tasks go on without this process."""
        for array in self.arrays:
            log.warning(
                "Slurm's job %s goes on: the same command looks at it again, and `scancel %s` ends "
                "it",
                array.number,
                array.number,
            )

    def cancel(self) -> None:
        """Has Slurm end all tasks that this process has submitted."""
        for array in [array for array in self.arrays if array.own]:
            with contextlib.suppress(InputError):
                _slurm("scancel", array.number)


def _jobs(chunk: Chunk | list[Job]) -> list[Job]:
    return chunk.jobs if isinstance(chunk, Chunk) else chunk


def read_tasks(file: Path) -> dict[str, list[tuple[str, ...]]]:
    """The places of the runs of each task; none where the file is not what offrl writes."""
    try:
        values = json.loads(read_own(file, LARGEST))
        return {
            task: [tuple(map(str, place)) for place in places]
            for task, places in values.items()
            if TASK.fullmatch(task)
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s: is no list of tasks that offrl wrote (%s) and is left out", file, error)
        return {}


def _message(file: Path) -> str:
    """What a task left for this process; empty where it left nothing."""
    try:
        return read_own(file, 2**16).decode(errors="replace")
    except OSError:
        return ""


def _partitions() -> list[str]:
    return sorted(set(_slurm("sinfo", "--noheader", "--format=%R").split()))


def _states(tasks: Sequence[str]) -> dict[str, str]:
    """The states of those of the tasks that are in the queue."""
    if not tasks:
        return {}
    jobs = ",".join(sorted({task.partition("_")[0] for task in tasks}))
    try:
        listed = _slurm("squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={jobs}")
    except InputError as error:
        if "Invalid job id" in str(error):  # the only one is gone
            return {}
        raise
    states = dict(line.split(None, 1) for line in listed.splitlines() if " " in line)
    return {task: states[task].strip() for task in tasks if task in states}


def _ended_as(task: str) -> tuple[str, str]:
    """The state in which a task ended, and its node; LOST where Slurm has forgotten it."""
    try:
        shown = _slurm("scontrol", "show", "job", "--oneliner", task)
    except InputError:
        return "LOST", "an unknown host"
    values = dict(word.split("=", 1) for word in shown.split() if "=" in word)
    return values.get("JobState", "LOST"), values.get("BatchHost", "an unknown host")


def _slurm(*command: str) -> str:
    """What a command of Slurm prints. Raises InputError where it is not there or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except FileNotFoundError:
        raise InputError(
            f"launcher slurm: there is no command {command[0]}; give this on a machine that "
            "submits to Slurm"
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(
            f"launcher slurm: {command[0]} has not answered for {ANSWER_SECONDS} s"
        ) from None
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise InputError(f"launcher slurm: {reason or command[0] + ' failed':.300}")
    return done.stdout
