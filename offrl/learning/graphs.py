"""Many updates at one launch, by CUDA graphs of a learner's updates.

A graph holds the work of some updates: what the host decided while it was recorded stays decided,
and only what device tensors hold may change. So a learner says after how many updates its work
repeats (`period`), and at which counts it changes for good (`phases`).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from offrl.learning.learner import Learner, Metrics
from offrl.learning.sampler import Sampler
from offrl.learning.spec import Device
from offrl.learning.streams import Streams

log = logging.getLogger(__name__)

UNROLLED = 10  # updates in a graph, rounded down to whole periods

Work = Callable[[], None]


class Recorder(Protocol):
    """Makes something that repeats the device's part of some work."""

    def warm_up(self, work: Work) -> None:
        """Does the work once, so that nothing is made or compiled when it is recorded."""
        ...

    def record(self, work: Work) -> Work:
        """What repeats the work, of which the host's part is done once, here."""
        ...


class CudaRecorder:
    """Records CUDA graphs."""

    def __init__(self, device: torch.device):
        self.device = device

    def warm_up(self, work: Work) -> None:
        """Does the work on a stream of its own, as it is recorded on one."""
        current = torch.cuda.current_stream(self.device)
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            work()
        current.wait_stream(side)

    def record(self, work: Work) -> Work:
        """The graph's launch."""
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
        ):
            work()
        launch: Work = graph.replay
        return launch


@dataclass(frozen=True)
class Graph:
    """Some updates, recorded."""

    replay: Work
    updates: int
    phase: int  # of the learner's phases, those that were over
    metrics: Metrics  # of the last of its updates, which each replay overwrites
    counted: list[tuple[Any, str, int]]  # numbers of the host, and what the updates add to each


class Uncapturable(Exception):
    """Why a learner's updates cannot be replayed."""


class Captured:
    """A learner that is advanced by many updates at once: by a CUDA graph where that works.

    Where it does not, updates are made one by one, and one logged line says why. The numbers are
    those of single updates on the same device.

    Args:
        learner: what trains. Its state is to be restored before, not after.
        sampler: draws its batches.
        device: of both.
        made: updates that the learner has made.
        recorder: of graphs; by default that of the device, or none.
    """

    def __init__(
        self,
        learner: Learner,
        sampler: Sampler,
        device: Device,
        made: int = 0,
        recorder: Recorder | None = None,
    ):
        self.learner, self.sampler, self.made = learner, sampler, made
        device = torch.device(device)
        if recorder is None and device.type == "cuda" and learner.period is not None:
            recorder = CudaRecorder(device)
        self.recorder = recorder
        self.graph: Graph | None = None
        self.size = 0  # updates in a graph
        if learner.period is not None:
            self.size = learner.period * max(1, UNROLLED // learner.period)
        self._metrics: Metrics = {}

    @property
    def metrics(self) -> Metrics:
        """Of the last update, as copies; empty before the first."""
        return {name: value.detach().clone() for name, value in self._metrics.items()}

    def advance(self, count: int) -> None:
        """Makes `count` updates.

        A graph starts at whole periods only and is kept within a phase; what is left over is made
        one by one, so that counts are best multiples of 10. Raises torch.OutOfMemoryError, with the
        state as it was before the last updates that worked, and what the learner itself raises.
        """
        end = self.made + count
        while self.made < end:
            room = min([end, *(p for p in self.learner.phases if p > self.made)]) - self.made
            if graph := self._graph(room):
                graph.replay()
                for owner, name, more in graph.counted:
                    setattr(owner, name, getattr(owner, name) + more)
                self._metrics, updates = graph.metrics, graph.updates
            else:
                self._metrics, updates = self.learner.update(self.sampler.sample()), 1
            self.made += updates

    def _graph(self, room: int) -> Graph | None:
        """What can be replayed now, given room for so many updates."""
        period = self.learner.period
        if self.recorder is None or period is None or room < self.size or self.made % period:
            return None
        phase = sum(p <= self.made for p in self.learner.phases)
        if self.graph is None or self.graph.phase != phase:
            self.graph = None  # its memory serves the next
            self.graph = self._captured(self.recorder, phase)
        return self.graph

    def _captured(self, recorder: Recorder, phase: int) -> Graph | None:
        before = self.learner.state_dict(), self.sampler.state_dict()
        metrics: Metrics = {}

        def work() -> None:
            nonlocal metrics
            for _ in range(self.size):
                metrics = self.learner.update(self.sampler.sample())

        try:
            recorder.warm_up(work)
            self._restore(before)
            held, numbers = self._held(), self._numbers()
            replay = recorder.record(work)
            _check_held(held, self._held())
            counted = _counted(numbers, self._numbers())
            graph = Graph(replay, self.size, phase, metrics, counted)
        except torch.OutOfMemoryError:
            self._restore(before)
            raise
        except Exception as error:  # of CUDA, of the compiler, of a learner that cannot be recorded
            self._restore(before)
            self.recorder = None
            cause = error
            while cause.__context__ is not None and isinstance(cause.__context__, Exception):
                cause = cause.__context__
            reason = " ".join(str(cause).split()) or type(cause).__name__
            log.warning(
                "%s: updates are made one by one, which is slower, because they cannot be captured "
                "as a CUDA graph: %.200s",
                type(self.learner).__name__,
                reason,
            )
            return None
        self._restore(before)
        return graph

    def _restore(self, before: tuple[Any, Any]) -> None:
        self.learner.load_state_dict(before[0])
        self.sampler.load_state_dict(before[1])

    def _held(self) -> dict[str, Tensor]:
        """All tensors that stay from update to update, by name."""
        found: dict[str, Tensor] = {}
        for owner in (self.learner, self.sampler):
            for name, value in vars(owner).items():
                where = f"{type(owner).__name__}.{name}"
                found |= {where + key: tensor for key, tensor in _tensors(value)}
        return found

    def _numbers(self) -> dict[tuple[int, str], tuple[Any, str, Any]]:
        """All numbers and texts that the host holds, of both."""
        return {
            (id(owner), name): (owner, name, value)
            for owner in (self.learner, self.sampler)
            for name, value in vars(owner).items()
            if isinstance(value, (bool, int, float, str))
        }


def _tensors(value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in one attribute, each with the rest of its name."""
    if isinstance(value, Tensor):
        yield "", value
    elif isinstance(value, nn.Module):
        for name, tensor in [*value.named_parameters(), *value.named_buffers()]:
            yield f".{name}", tensor
    elif isinstance(value, torch.optim.Optimizer):
        for i, state in enumerate(value.state.values()):
            for name, kept in state.items():
                if isinstance(kept, Tensor):
                    yield f".{i}.{name}", kept
        for group in value.param_groups:
            if isinstance(group["lr"], Tensor):
                yield ".lr", group["lr"]
    elif isinstance(value, Streams):
        for name, tensor in value.held().items():
            yield f".{name}", tensor


def _check_held(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    for name in [*before, *after]:
        if before.get(name) is not after.get(name):
            raise Uncapturable(f"{name} is another tensor after each update; change it in place")


def _counted(
    before: dict[tuple[int, str], tuple[Any, str, Any]],
    after: dict[tuple[int, str], tuple[Any, str, Any]],
) -> list[tuple[Any, str, int]]:
    """Counters of the host and what was added to each; raises Uncapturable for other changes."""
    found: list[tuple[Any, str, int]] = []
    for key, (owner, name, value) in after.items():
        _, _, old = before.get(key, (owner, name, None))
        if value == old:
            continue
        if type(value) is not int or type(old) is not int:
            raise Uncapturable(
                f"{type(owner).__name__}.{name} is a number of the host that changes with updates; "
                "hold it in a tensor on the device"
            )
        found.append((owner, name, value - old))
    return found
