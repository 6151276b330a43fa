"""How runs end: what their records and their last events say, and that no process is left over."""

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_runs
import torch

from offrl.data.cache import cache_folder
from offrl.errors import InputError
from offrl.evaluation.rollouts import Diverged, Evaluator
from offrl.learning import checkpoint
from offrl.results.collect import read_runs
from offrl.results.rows import Status
from offrl.results.store import RunFolder, State, run_folders
from offrl.running.events import Event
from offrl.running.executors.local import run_in_processes
from offrl.running.groups import Group
from offrl.running.jobs import Job
from offrl.running.opening import Interrupted
from offrl.running.runner import Plan, run
from offrl.running.training import train_run


@pytest.fixture
def plan(tmp_path: Path, own_cache: Path) -> Plan:
    assert own_cache
    return small_runs.planned(tmp_path)


@pytest.fixture(autouse=True)
def no_process_outlives_a_test() -> Iterator[None]:
    yield
    for child in multiprocessing.active_children():
        child.kill()


def interrupted(job: Job, root: Path) -> RunFolder:
    with pytest.raises(Interrupted):
        train_run(job, root, small_runs.stop_after(10))
    return RunFolder(job.folder(root), root)


def test_a_run_whose_data_cannot_be_read_any_more_counts_as_failed(
    plan: Plan, tmp_path: Path
) -> None:
    folder = interrupted(plan.jobs[0], tmp_path / "runs")
    assert not read_runs(tmp_path / "runs").failures  # its score so far counts
    (tmp_path / "pend.npz").unlink()
    (column,) = cache_folder().rglob("rewards.npy")
    column.write_bytes(column.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"pend\.npz"):
        train_run(plan.jobs[0], tmp_path / "runs")
    (failure,) = read_runs(tmp_path / "runs").failures
    assert "pend.npz" in failure.cause
    assert folder.record().traceback


@pytest.mark.parametrize("part", ["commit", "versions", "hardware"])
def test_a_run_that_fails_while_it_begins_counts_as_failed(
    part: str, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking() -> None:
        raise RuntimeError("no such package")

    folder = interrupted(plan.jobs[0], tmp_path / "runs")
    monkeypatch.setattr(f"offrl.results.store.{part}", lacking)
    with pytest.raises(RuntimeError):
        train_run(plan.jobs[0], tmp_path / "runs")
    assert folder.read().cause == "RuntimeError: no such package"


def test_a_failure_is_not_noted_with_another_run_or_one_that_is_done(
    plan: Plan, tmp_path: Path
) -> None:
    job, root = plan.jobs[0], tmp_path / "runs"
    folder = interrupted(job, root)
    before = folder.record_file.read_bytes()
    with pytest.raises(InputError, match="holds a run with"):
        train_run(replace(job, steps=job.steps + 1), root)
    assert folder.record_file.read_bytes() == before
    train_run(job, root)
    with folder.held():
        assert folder.fail("worker ended by signal 9 (SIGKILL)").state is State.DONE
    assert not read_runs(root).failures


OWN = """
import dataclasses, multiprocessing, os, signal
import torch
import offrl
from offrl.results.store import RunFolder

@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 4

class Own(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        self.size = spec.action_dim

    def update(self, batch):
        return {}

    def act(self, observations):
        return torch.zeros(len(observations), self.size)

def set_status(folder, status, cause=None, traceback=None, noted=RunFolder.set_status):
    noted(folder, status, cause, traceback)
    os.kill(os.getpid(), signal.SIGKILL)

if multiprocessing.parent_process():
    RunFolder.set_status = set_status
"""


def test_a_run_that_is_done_is_not_noted_as_failed_where_its_worker_dies(
    plan: Plan, tmp_path: Path
) -> None:
    assert plan.jobs
    (tmp_path / "own.py").write_text(OWN)
    protocol, root = tmp_path / "small.toml", tmp_path / "runs"
    own = [str(tmp_path / "own.py")]
    events = run(str(protocol), root, algorithms=own, workers=2)
    assert [event.status for event in events] == [Status.DONE, Status.DONE]
    for event, folder in zip(events, run_folders(root), strict=True):
        last = folder.rows()[-1]
        assert (event.step, event.score) == (35, last.score)
        assert json.loads(folder.record_file.read_text())["status"] == "done"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_callback_that_raises_leaves_no_process(
    error: type[BaseException], plan: Plan, tmp_path: Path
) -> None:
    calls: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise error("a broken callback")

    jobs = [replace(job, steps=10_000_000) for job in plan.jobs]
    with pytest.raises(error, match="a broken callback"):
        run_in_processes(
            [Group((job,), 1) for job in jobs], tmp_path / "runs", ["cpu", "cpu"], broken
        )
    assert multiprocessing.active_children() == []
    assert len(calls) == 1
    stored = [folder.record() for folder in run_folders(tmp_path / "runs")]
    assert {record.status for record in stored} <= {Status.INTERRUPTED, Status.WAITING}


def test_the_simulator_is_closed_however_a_run_ends(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Evaluator] = []
    close = Evaluator.close

    def counted(self: Evaluator) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(Evaluator, "close", counted)
    job, other = plan.jobs
    interrupted(job, tmp_path / "runs")
    train_run(job, tmp_path / "runs")

    def diverge(_self: Evaluator, _policy: object) -> None:
        raise Diverged("no number")

    monkeypatch.setattr(Evaluator, "__call__", diverge)
    with pytest.raises(Diverged):
        train_run(other, tmp_path / "runs")
    assert len(closed) == 3


def rescaled(state: dict[str, Any]) -> None:
    state["learner"]["max_action"] = 0.5
    state["learner"]["standardise"]["mean"] += 1


def reshaped(state: dict[str, Any]) -> None:
    state["learner"]["actor"] = {name: torch.zeros(7) for name in state["learner"]["actor"]}


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        (rescaled, False),
        (reshaped, True),
        (lambda state: state["learner"].pop("actor_optimizer"), True),
        (lambda state: state.pop("learner"), True),
        (lambda state: state.update(sampler={}), True),
        (lambda state: state.update(seconds="x"), True),
    ],
)
def test_a_checkpoint_that_another_wrote_changes_no_score(
    change: Any, anew: bool, plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = plan.jobs[0]
    train_run(job, tmp_path / "whole")
    folder = interrupted(job, tmp_path / "runs")
    state = checkpoint.load(folder.checkpoint)
    change(state)
    checkpoint.save(folder.checkpoint, state)
    train_run(job, tmp_path / "runs")
    assert ("the run starts anew" in caplog.text) == anew
    assert small_runs.rows(job, tmp_path / "runs") == small_runs.rows(job, tmp_path / "whole")
