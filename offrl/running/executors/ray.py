"""Runs jobs as tasks of a Ray cluster.

It is the one that RAY_ADDRESS names or that runs here, else a new one on this machine.
"""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from offrl.errors import InputError
from offrl.results.rows import Status
from offrl.running.chunks import Chunk, carry_out, cut, lost
from offrl.running.devices import worker_places
from offrl.running.events import Event, OnEvent
from offrl.running.following import SECONDS, Following
from offrl.running.groups import Group
from offrl.running.jobs import Job
from offrl.running.launchers import Launcher
from offrl.running.retries import Retries

log = logging.getLogger(__name__)

NEEDS = "ray"
CONNECT_SECONDS, ANSWER_SECONDS = 5, 60  # that a cluster has to open its port, and to answer
IN_FLIGHT = 2  # tasks for each that can work at once


class _Ray:
    """The executor of a Ray cluster; each task has one worker and works through a chunk."""

    def __init__(self, launcher: Launcher):
        self.launcher = launcher
        self.address: str | None = None  # of a cluster; None: one is started here
        self.device = "cpu"

    def places(self, device: str, workers: int | None) -> list[str]:
        found = _cluster()
        if found is None:
            places = worker_places(device, workers)
            self.device = "cpu" if places[0] == "cpu" else "cuda"
            return places
        self.address, has = found
        gpus = int(has.get("GPU", 0))
        if device == "auto":
            device = "cuda" if gpus else "cpu"
        if device != "cpu" and not gpus:
            raise InputError(f"device {device!r:.80}: the Ray cluster has no GPU; choose cpu")
        self.device = "cuda" if device != "cpu" else "cpu"  # Ray chooses which one
        count = gpus if self.device == "cuda" else int(has.get("CPU", 0))
        if not count:
            raise InputError(f"the Ray cluster at {self.address:.80} has no CPU for tasks")
        return [self.device] * min(workers or count, count)

    def under_way(self, jobs: Sequence[Job], root: Path) -> list[Job]:
        del jobs, root  # none outlives its command
        return []

    def __call__(
        self, groups: Sequence[Group], root: Path, places: Sequence[str], on_event: OnEvent
    ) -> list[Event]:
        chunks = cut(
            groups,
            root.absolute(),
            device=self.device,
            workers=1,
            tasks=len(places),
            seconds=3600 * self.launcher.chunk_hours,
            allowed=self.launcher.allow_versions,
        )
        gpus = len(set(places)) if self.device != "cpu" else 0
        with _connected(self.address, len(places), gpus):
            flight = _Flight(chunks, root, len(places), on_event)
            try:
                flight.land_all()
            except BaseException:  # Ctrl-C, and what a callback, a version or the disk may raise
                flight.stop()
                raise
        return flight.ended


def executor(launcher: Launcher) -> _Ray:
    """Carries out runs by Ray."""
    return _Ray(launcher)


class _Flight:
    """Chunks that wait, and those that are tasks of the cluster."""

    def __init__(self, chunks: Sequence[Chunk], root: Path, at_once: int, on_event: OnEvent):
        import ray

        # A lost task is tried again here, which notes it and can ask for more memory.
        self.task = ray.remote(max_retries=0)(carry_out)
        self.waiting = deque(chunks)
        self.flying: dict[Any, Chunk] = {}
        self.at_once = at_once
        self.on_event = on_event
        self.following = Following(root, on_event)
        self.retries = Retries(root)
        self.ended: list[Event] = []

    def land_all(self) -> None:
        """Hands out all chunks and waits for their ends."""
        import ray

        while self.waiting or self.flying:
            while self.waiting and len(self.flying) < IN_FLIGHT * self.at_once:
                self._hand_out(self.waiting.popleft())
            ready, _ = ray.wait([*self.flying], timeout=SECONDS)
            for reference in ready:
                self._land(reference)
            self.following.look(job for chunk in self.flying.values() for job in chunk.jobs)

    def _hand_out(self, chunk: Chunk) -> None:
        import ray

        needed = {"num_cpus": chunk.workers, "name": f"offrl {chunk.jobs[0].title}"[:100]}
        if chunk.memory is not None:  # no more than a node has, or the task would wait for ever
            nodes: Any = ray.nodes  # untyped
            has = [node["Resources"].get("memory", 0) for node in nodes() if node["Alive"]]
            needed["memory"] = min(chunk.memory, int(max(has, default=0)))
        if chunk.device != "cpu":
            needed["num_gpus"] = 1
        self.flying[self.task.options(**needed).remote(chunk)] = chunk

    def _land(self, reference: Any) -> None:
        """Takes the ends of a task's runs."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

        chunk = self.flying.pop(reference)
        try:
            ends = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, InputError):  # the machine does not do
                raise InputError(str(error.cause)) from None
            cause = f"{type(error.cause).__name__}: {error.cause}"
            self._lose(chunk, cause, again=False)
        except RayError as error:
            first = str(error).strip().partition("\n")[0]
            cause = f"lost by Ray: {type(error).__name__}: {first:.200}"
            self._lose(chunk, cause, again=True, out_of_memory=isinstance(error, OutOfMemoryError))
        else:
            for number, status, step, score, cause in ends:
                self._end(Event(chunk.jobs[number], Status(status), step, score, cause))
            known = {number for number, *_ in ends}
            for number, job in enumerate(chunk.jobs):  # ended in an earlier try
                if number not in known:
                    self._end(self.following.end(job))

    def _lose(self, chunk: Chunk, cause: str, *, again: bool, out_of_memory: bool = False) -> None:
        log.warning("%s: %s", chunk.jobs[0].title, cause)
        left = lost(chunk, self.retries, cause, self._end, again=again, out_of_memory=out_of_memory)
        if left is not None:
            self.waiting.append(left)

    def _end(self, event: Event) -> None:
        self.ended.append(event)
        self.on_event(event)

    def stop(self) -> None:
        """Asks every task to save and end, and waits until they have."""
        import ray
        from ray.exceptions import RayError

        for reference in self.flying:
            ray.cancel(reference, force=False)
        for reference in self.flying:
            with contextlib.suppress(RayError):
                ray.get(reference)


PROBE = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
print(json.dumps(ray.cluster_resources()))
"""


def _cluster() -> tuple[str, dict[str, float]] | None:
    """Address and resources of the cluster that RAY_ADDRESS names or that runs here.

    None where nothing is named and none runs. Raises InputError where the one that is named does
    not answer.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named == "local":
        return None
    if "://" in named:
        raise InputError(
            f"RAY_ADDRESS is {named!r:.80}; expected HOST:PORT of a cluster whose node this is, or "
            "auto"
        )
    host, _, port = named.rpartition(":")
    try:
        if named not in ("", "auto"):  # Ray tries a port that is closed for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        done = subprocess.run(
            [sys.executable, "-c", PROBE, named or "auto"],
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return named or "auto", json.loads(done.stdout.splitlines()[-1])
        reason = " ".join(done.stderr.strip().splitlines()[-1:])
    except (OSError, ValueError, OverflowError, subprocess.TimeoutExpired) as error:
        reason = str(error)
        if isinstance(error, subprocess.TimeoutExpired):
            reason = f"it has not answered for {ANSWER_SECONDS} s"
    if not named:
        return None
    raise InputError(
        f"RAY_ADDRESS is {named!r:.80}: no Ray cluster answers there ({reason:.200}); start one by "
        "`ray start --head`, or unset RAY_ADDRESS to use this machine alone"
    )


@contextlib.contextmanager
def _connected(address: str | None, cpus: int | None, gpus: int | None) -> Iterator[None]:
    """Connected to a cluster, or to a new one on this machine."""
    import ray

    if ray.is_initialized():  # by the user's own script
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    # Since 2.52 this is what Ray does for tasks without a GPU; earlier it warns.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    new: dict[str, Any] = {} if address else {"num_cpus": cpus, "num_gpus": gpus or None}
    if not address:
        new |= {"include_dashboard": False, "object_store_memory": 2**27}
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **new
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"Ray at {address or 'this machine'}: {reason:.300}") from None
    try:
        yield
    finally:
        ray.shutdown()
