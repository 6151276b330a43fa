"""Runs whose process is lost, or has no memory left, are tried again; those that fail are not."""

import platform
import signal
from pathlib import Path

import pytest
import small_runs

from offrl.data.foreign import free_memory
from offrl.results.rows import RunRecord, Status
from offrl.results.store import run_folders
from offrl.running import costs
from offrl.running.costs import Cost
from offrl.running.events import Event
from offrl.running.executors.local import run_in_processes
from offrl.running.groups import Group
from offrl.running.retries import is_out_of_memory, was_killed
from offrl.running.runner import run

OWN = """
import dataclasses, fcntl, os, signal, time
from pathlib import Path
import torch
import offrl

HERE = Path(__file__).parent

@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 4

class Own(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        self.seed = seed
        self.net = torch.nn.Linear(spec.observation_dim, spec.action_dim)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self.updates = 0

    def update(self, batch):
        self.updates += 1
        if self.updates == 15:
            EVENT
        loss = (self.act(batch.observations) - batch.actions).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"actor/loss": loss}

    def act(self, observations):
        return torch.tanh(self.net(observations))

def first(name):
    try:
        (HERE / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def alone():
    "Memory for one process alone, until it ends; both have come here before one goes on."
    global held
    (HERE / f"here-{os.getpid()}").touch()
    held = open(HERE / "memory", "w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise MemoryError("no room for two") from None
    until = time.monotonic() + 60
    while len([*HERE.glob("here-*")]) < 2 and time.monotonic() < until:
        time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> Path:
    return own_cache


def carried_out(folder: Path, event: str, output: str, workers: int = 1) -> list[Event]:
    """The ends of a run per seed, of an algorithm to which this happens at its 15th step."""
    (folder / "own.py").write_text(OWN.replace("EVENT", event))
    own = [str(folder / "own.py")]
    return run(folder / "small.toml", folder / output, algorithms=own, workers=workers, replicas=1)


def records(root: Path) -> list[RunRecord]:
    return [folder.record() for folder in run_folders(root)]


def rows(root: Path) -> list[object]:
    return [
        row.model_dump(exclude={"wall_time", "config"})
        for folder in run_folders(root)
        for row in folder.rows()
    ]


ENDS = """
            match self.seed:
                case 0 if first('once'): os.kill(os.getpid(), signal.SIGKILL)
                case 1: os.kill(os.getpid(), signal.SIGABRT)
                case 2: os._exit(3)
                case 3: raise RuntimeError('cannot')
                case 4: self.net.weight.data *= torch.nan
"""


def test_a_killed_run_is_tried_again_and_one_that_fails_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_runs.planned(tmp_path, seeds=range(5))
    events = carried_out(tmp_path, ENDS, "runs")
    assert [event.status for event in events] == [Status.DONE, *[Status.FAILED] * 4]
    assert caplog.text.count("worker ended by signal 9 (SIGKILL); it is tried again") == 1
    lost, *failed = records(tmp_path / "runs")
    assert lost.attempts is not None
    (attempt,) = lost.attempts
    assert attempt.cause == "worker ended by signal 9 (SIGKILL)"
    assert attempt.host == platform.node()
    assert (lost.status, lost.cause, len(lost.sessions)) == (Status.DONE, None, 2)
    causes = ("SIGABRT", "exit 3", "cannot", "is nan")
    for record, event, cause in zip(failed, events[1:], causes, strict=True):
        assert cause in str(record.cause)
        assert cause in str(event.cause)
        assert (len(record.sessions), record.attempts) == (1, None)
    # As if nothing had been; and the same command, given again, tries the others again.
    events = carried_out(tmp_path, "pass", "whole")
    assert [event.status for event in events] == [Status.DONE] * 5
    assert rows(tmp_path / "runs")[:4] == rows(tmp_path / "whole")[:4]


@pytest.mark.nightly  # half a minute
def test_a_run_that_is_lost_again_and_again_fails_in_the_end(tmp_path: Path) -> None:
    small_runs.planned(tmp_path)
    events = carried_out(tmp_path, "if self.seed == 0: os.kill(os.getpid(), 9)", "runs")
    assert [event.status for event in events] == [Status.FAILED, Status.DONE]
    assert events[0].cause == "worker ended by signal 9 (SIGKILL), the last of 3 tries"
    record = records(tmp_path / "runs")[0]
    assert (record.status, record.cause) == (Status.FAILED, events[0].cause)
    assert (len(record.sessions), len(record.attempts or [])) == (3, 2)


def test_where_memory_does_for_one_run_alone_they_are_made_one_after_another(
    tmp_path: Path,
) -> None:
    small_runs.planned(tmp_path, seeds=range(3))
    events = carried_out(tmp_path, "alone()", "runs", workers=2)
    assert [event.status for event in events] == [Status.DONE] * 3
    attempts = [a for record in records(tmp_path / "runs") for a in record.attempts or []]
    assert len(attempts) == 1
    assert "no room for two" in attempts[0].cause


def test_workers_are_fewer_where_the_memory_would_not_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = small_runs.planned(tmp_path)
    free = free_memory()
    assert free is not None
    job, root = plan.jobs[0], tmp_path / "runs"
    cost = Cost.of(job, 1, "cpu", update=0.1, updates=1000, episode=None)
    costs.note(root, cost.model_copy(update={"memory": free * 2 // 3}))
    groups = [Group((job,), 1) for job in plan.jobs]
    events = run_in_processes(groups, root, ["cpu", "cpu"], lambda _event: None)
    assert [event.status for event in events] == [Status.DONE, Status.DONE]
    assert "1 of 2 workers are used: each needs up to" in caplog.text


def test_what_counts_as_a_loss_and_as_want_of_memory() -> None:
    assert was_killed(-signal.SIGKILL)
    assert was_killed(-signal.SIGTERM)
    assert not any(map(was_killed, (0, 1, -signal.SIGSEGV, -signal.SIGABRT)))
    import numpy as np
    import torch

    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**60, np.uint8)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(of_numpy.value)
    assert is_out_of_memory(of_torch.value)
    assert not is_out_of_memory(RuntimeError("cannot"))


def test_a_callback_that_raises_where_a_worker_has_ended_is_what_ends_it_all(
    tmp_path: Path,
) -> None:
    small_runs.planned(tmp_path, seeds=range(1))
    (tmp_path / "own.py").write_text(OWN.replace("EVENT", "os._exit(3)"))

    def broken(event: Event) -> None:
        if event.status is Status.FAILED:
            raise LookupError(event.cause)

    with pytest.raises(LookupError, match="worker ended by exit 3"):
        run(
            tmp_path / "small.toml",
            tmp_path / "runs",
            algorithms=[str(tmp_path / "own.py")],
            workers=1,
            on_event=broken,
        )
