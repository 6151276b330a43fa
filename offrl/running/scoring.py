"""Scores policies: here, or in processes of their own while the learner goes on."""

import contextlib
import logging
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from offrl.data.card import Environment
from offrl.data.dataset import load_dataset
from offrl.evaluation.rollouts import WHOLE, Episodes, Evaluator, Part
from offrl.learning import kernels
from offrl.learning.learner import Learner, SingleSeedLearner, find_algorithm
from offrl.learning.policy import Policy
from offrl.learning.single import build
from offrl.learning.spec import Spec
from offrl.running.faults import CheckedPolicy, blaming
from offrl.running.jobs import Job, configure

log = logging.getLogger(__name__)

SMALLEST_PART = 5  # episodes of an evaluation that a process of its own plays


@dataclass(frozen=True)
class Played:
    """The episodes that a learner played in one way to act."""

    way: str
    mode: str
    episodes: Episodes


class Stage:
    """Plays the evaluations of runs, in environments that are made once; `close` closes them."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._evaluators: dict[tuple[str, int, Part], Evaluator] = {}  # by data set and episodes

    def play(
        self,
        job: Job,
        environment: Environment,
        spec: Spec,
        learner: Learner,
        ways: Sequence[str],
        step: int,
        part: Part = WHOLE,
    ) -> list[Played]:
        """The episodes of an evaluation at a step, in each way to act.

        Args:
            job: the run.
            environment: its simulator.
            spec: of the learner.
            learner: of one replica.
            ways: to act, in the order of the result.
            step: of the learner.
            part: of the evaluation.
        """
        kind = find_algorithm(job.algorithm)
        acting = "act" if issubclass(kind, SingleSeedLearner) else "policy"
        with blaming(kind, acting, step):
            policies = _policies(learner, ways, step)
        evaluator = self._evaluator(job, environment, step, part)
        played = []
        for way, policy in policies.items():
            checked = CheckedPolicy(policy, kind, acting, step, spec)
            played.append(Played(way, checked.mode, evaluator(checked)))
        return played

    def _evaluator(self, job: Job, environment: Environment, step: int, part: Part) -> Evaluator:
        episodes = job.evaluation.episodes_at(step, job.steps)
        key = (job.dataset, episodes, part)
        if key not in self._evaluators:
            made = Evaluator(environment, [job.seed], episodes, job.evaluation.seed, part=part)
            self._evaluators[key] = self._opened.enter_context(closing(made))
        return self._evaluators[key].of([job.seed])

    def close(self) -> None:
        """Closes the environments."""
        self._opened.close()


def _policies(learner: Learner, ways: Sequence[str], step: int) -> dict[str, Policy]:
    """The ways to act, in this order. Raises ValueError where the learner has others by now."""
    policies = learner.policies()
    if sorted(policies) != sorted(ways) or list(policies)[::-1] != list(ways):
        raise ValueError(
            f"policies() are {list(policies)} at step {step}, but were {list(ways)[::-1]} before "
            "training; expected the same names throughout"
        )
    return {way: policies[way] for way in ways}


@dataclass(frozen=True)
class Task:
    """An evaluation that another process plays."""

    job: Job
    spec: Spec
    ways: Sequence[str]
    step: int
    state: Any  # of the learner of this replica
    kernel: str
    part: Part = WHOLE


class Players:
    """Processes that play evaluations while this one goes on; `close` ends them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: dict[Connection, BaseProcess] = {}
        self._waiting: deque[tuple[int, Task]] = deque()
        self._playing: dict[Connection, int] = {}  # the number of the task
        self._played: dict[int, list[Played] | Exception] = {}
        self._due = 0
        self._parts = 1  # tasks in a row that are one evaluation

    def begin(self, tasks: Sequence[Task]) -> None:
        """Has the tasks played, in parts where there are processes enough.

        Those before must have been collected.
        """
        assert not self._due
        episodes = min((_episodes(task) for task in tasks), default=1)
        self._parts = max(1, min(self._count // max(1, len(tasks)), episodes // SMALLEST_PART))
        parts = [Part(number, self._parts) for number in range(self._parts)]
        cut = [replace(task, part=part) for task in tasks for part in parts]
        context = multiprocessing.get_context("spawn")
        for pipe, process in [*self._processes.items()]:
            if not process.is_alive():
                del self._processes[pipe]
        while len(self._processes) < min(self._count, len(cut)):
            ours, theirs = context.Pipe()
            started = context.Process(target=_player, args=(theirs,), daemon=True)
            started.start()
            theirs.close()
            self._processes[ours] = started
        self._due = len(cut)
        self._waiting.extend(enumerate(cut))
        self._hand_out()

    def finished(self) -> bool:
        """Whether all tasks are played."""
        self._take(0)
        return len(self._played) == self._due

    def collect(self) -> list[list[Played] | Exception]:
        """What was played, in the order of the tasks, or what was raised; waits for it."""
        while len(self._played) < self._due:
            self._take(None)
        played = [self._played[number] for number in range(self._due)]
        self._played, self._due = {}, 0
        return [
            _joined(played[first : first + self._parts])
            for first in range(0, len(played), self._parts)
        ]

    def _hand_out(self) -> None:
        for pipe in self._processes:
            if self._waiting and pipe not in self._playing:
                number, task = self._waiting.popleft()
                self._playing[pipe] = number
                with contextlib.suppress(OSError):  # it has died, which `_take` notices
                    pipe.send(task)

    def _take(self, timeout: float | None) -> None:
        for ready in wait(list(self._playing), timeout):
            pipe: Any = ready
            number = self._playing.pop(pipe)
            try:
                self._played[number] = pipe.recv()
            except (EOFError, OSError):
                process = self._processes.pop(pipe)
                process.join()
                self._played[number] = RuntimeError(
                    f"the process that plays its episodes ended with code {process.exitcode}"
                )
        self._hand_out()
        while self._waiting and not self._processes:
            number, _ = self._waiting.popleft()
            self._played[number] = RuntimeError("no process is left that plays episodes")

    def close(self) -> None:
        """Ends the processes."""
        for pipe, process in self._processes.items():
            pipe.close()
            process.kill()
            process.join()
        self._processes = {}


def _episodes(task: Task) -> int:
    return task.job.evaluation.episodes_at(task.step, task.job.steps)


def _joined(parts: Sequence[list[Played] | Exception]) -> list[Played] | Exception:
    """An evaluation of its parts, or the first error among them."""
    played: list[list[Played]] = []
    for part in parts:
        if isinstance(part, Exception):
            return part
        played.append(part)
    return [
        replace(ways[0], episodes=Episodes.of_parts([way.episodes for way in ways]))
        for ways in zip(*played, strict=True)
    ]


def _player(pipe: Connection) -> None:
    """The work of one process: plays what it is sent, until nobody is there to send."""
    # Of a terminal or a cluster, which send them to every process; its parent handles them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    stage = Stage()
    while True:
        try:
            task: Task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Any = _played(stage, task)
            pickle.dumps(answer)
        except Exception as error:  # of a simulator or an algorithm: its run fails
            answer = (
                error if _can_be_sent(error) else RuntimeError(f"{type(error).__name__}: {error}")
            )
        try:
            pipe.send(answer)
        except OSError:
            return


def _can_be_sent(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # made here
    except Exception:  # whatever its class raises
        return False
    return True


def _played(stage: Stage, task: Task) -> list[Played]:
    job = task.job
    kernels.use(task.kernel)
    card = load_dataset(job.dataset, view=job.view, trust=job.trust).card
    environment, _ = card.scoring()
    kind = find_algorithm(job.algorithm)
    config = configure(job.algorithm, job.config, f"algorithm {job.label}")
    learner = build(kind, task.spec, config, [job.seed])
    with blaming(kind, "load_state_dict", task.step):
        learner.load_state_dict(task.state)
    return stage.play(job, environment, task.spec, learner, task.ways, task.step, task.part)
