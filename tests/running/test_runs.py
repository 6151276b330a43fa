"""Runs as processes: killed, interrupted, failed and held, and the same scores at the end."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import offrl
from offrl.errors import InputError
from offrl.evaluation.rollouts import Diverged, Episodes, Evaluator
from offrl.learning.template import TEMPLATE
from offrl.reporting.findings import compute
from offrl.results.collect import read_runs
from offrl.results.curves import read_curves
from offrl.results.files import read_scores
from offrl.results.rows import ScoreRow, Status
from offrl.results.store import RunFolder, State, run_folders
from offrl.running import runner
from offrl.running.events import Event
from offrl.running.executors import local
from offrl.running.executors.local import run_in_processes
from offrl.running.groups import Group
from offrl.running.jobs import expand
from offrl.running.protocol import find_protocol
from offrl.running.runner import enlist, plan
from offrl.running.training import train_group, train_run
from offrl.statistics.resampling import Resampling

PROTOCOL = """
id = "tiny"
version = 1
title = "A protocol for tests"
source = "offrl"
datasets = ["pointmaze-quickstart"]
seeds = [0, 1]
steps = {steps}

[evaluation]
every = 300
episodes = 4

[algorithms.{algorithm}]
{entry}
"""

PLAIN = '''
"""A plain algorithm outside the repository, fifty lines short of a paper."""

from dataclasses import dataclass

import torch

import offrl


@dataclass(frozen=True)
class Config:
    batch_size: int = 16
    lr: float = 1e-3
    break_at: int = 0


class Regression(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        self.config = config
        self.net = torch.nn.Linear(spec.observation_dim, spec.action_dim)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=config.lr)
        self.updates = 0

    def update(self, batch):
        self.updates += 1
        noise = 0.01 * torch.randn_like(batch.actions)
        loss = (self.act(batch.observations) - batch.actions + noise).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.updates == self.config.break_at:
            loss = loss * torch.nan
        return {"actor/loss": loss}

    def act(self, observations):
        return torch.tanh(self.net(observations))
'''


NARROW = "config = { hidden = [16], batch_size = 16 }"  # of bc


def write_protocol(
    folder: Path, algorithm: str = "bc", steps: int = 1500, entry: str = NARROW
) -> Path:
    path = folder / "tiny.toml"
    path.write_text(PROTOCOL.format(algorithm=algorithm, steps=steps, entry=entry))
    return path


def scores(runs: Path) -> pd.DataFrame:
    return read_runs(runs).tidy()


def start(protocol: Path, runs: Path) -> subprocess.Popen[str]:
    """`offrl run` as a process group of its own, as a terminal starts it.

    A shell that runs the tests in the background has SIGINT ignored, which children inherit.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "offrl", "run", str(protocol), "-o", str(runs), "-j", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(runs: Path, rows: int, process: subprocess.Popen[str]) -> None:
    """Waits until that many evaluations are written."""
    deadline = time.monotonic() + 300
    while sum(len(f.read_text().splitlines()) for f in runs.rglob("evaluations.jsonl")) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no evaluation in five minutes"
        time.sleep(0.02)


def run_here(
    groups: Sequence[Group], root: Path, places: Sequence[str], on_event: Callable[[Event], None]
) -> list[Event]:
    """Carries out jobs in this process, which is faster for small ones."""
    assert places
    ended: list[Event] = []

    def report(event: Event) -> bool:
        on_event(event)
        return False

    for group in groups:
        last = train_group(group.jobs, root, group.replicas, report)
        for event in last:
            on_event(event)
        ended += last
    return ended


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has runs carried out in this process: for tests whose point is no worker."""
    monkeypatch.setattr(local, "run_in_processes", run_here)


def ended_runs(folder: Path, steps: int) -> Path:
    """A folder of the protocol's runs, left alone to their ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run_in_processes", run_here)
        events = offrl.run(str(write_protocol(folder, steps=steps)), folder / "runs", workers=2)
    assert [event.status for event in events] == ["done", "done"]
    return folder / "runs"


@pytest.fixture(scope="module")
def long_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with five evaluations, to be copied."""
    return ended_runs(tmp_path_factory.mktemp("long"), 1500)


@pytest.fixture(scope="module")
def short_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with two evaluations, to be copied."""
    return ended_runs(tmp_path_factory.mktemp("short"), 600)


@pytest.fixture(scope="module")
def alone(long_runs: Path) -> pd.DataFrame:
    """The scores of runs that were left alone."""
    return scores(long_runs)


@pytest.mark.parametrize(
    "how",
    ["kill -9 everything", pytest.param("kill -9 the parent", marks=pytest.mark.nightly), "Ctrl-C"],
)
def test_the_same_command_ends_with_the_same_scores(
    how: str, alone: pd.DataFrame, long_runs: Path, tmp_path: Path
) -> None:
    protocol, runs = write_protocol(tmp_path), tmp_path / "runs"
    process = start(protocol, runs)
    wait_for(runs, 3, process)  # so that one run at least has a checkpoint and a row after it
    if how == "kill -9 everything":
        os.killpg(process.pid, signal.SIGKILL)
    elif how == "kill -9 the parent":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    if how == "Ctrl-C":
        assert process.returncode == 130, stderr
        assert "the same command carries on" in stderr
    assert len(scores(runs)) < len(alone)
    # Times tell what was kept: a run that began again at step 0 would write new ones.
    folders = {f: f.rows() for f in run_folders(runs)}
    checkpointed = {f: rows[0] for f, rows in folders.items() if len(rows) > 1}
    again = start(protocol, runs)
    stdout, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    assert "2 of 2 runs are done" in stdout
    for folder, row in checkpointed.items():
        assert folder.rows()[0] == row
    pd.testing.assert_frame_equal(scores(runs), alone)
    assert curves(runs) == curves(long_runs)


def curves(runs: Path) -> dict[str, bytes]:
    """The losses of all runs, as their files hold them."""
    return {str(file.relative_to(runs)): file.read_bytes() for file in runs.rglob("metrics.csv")}


def test_losses_are_kept_every_hundred_steps_and_at_evaluations(long_runs: Path) -> None:
    first, _ = map(RunFolder, sorted(long_runs.rglob("seed-*")))
    text = first.metrics_file.read_text()
    assert text.splitlines()[0] == "step,actor/loss"
    lines = read_curves(first.metrics_file)
    assert [step for step, _ in lines] == list(range(100, 1501, 100))
    of_rows = {row.step: row.metrics for row in first.rows()}
    for step, values in lines:
        if step in of_rows:
            assert values == pytest.approx(of_rows[step], rel=1e-6)
    assert not read_runs(long_runs).notes  # which sees the runs alone


def test_losses_up_to_a_failure_are_kept(plain: Path, tmp_path: Path) -> None:
    entry = f'algorithm = "{plain}"\n[algorithms.broken.config]\nbreak_at = 400'
    protocol = write_protocol(tmp_path, "broken", 600, entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run_in_processes", run_here)
        offrl.run(str(protocol), tmp_path / "runs", workers=2, trust=[protocol])
    (one, _) = (tmp_path / "runs").rglob("metrics.csv")
    lines = read_curves(one)
    assert [step for step, _ in lines] == [100, 200, 300, 400]
    assert np.isfinite([values["actor/loss"] for _, values in lines]).tolist() == [1, 1, 1, 0]


@pytest.mark.usefixtures("here")
def test_a_torn_line_and_rows_after_the_checkpoint_are_written_again(
    alone: pd.DataFrame, long_runs: Path, tmp_path: Path
) -> None:
    """What a power cut leaves: rows past the checkpoint, the last of them half there."""
    protocol, runs = write_protocol(tmp_path), tmp_path / "runs"
    shutil.copytree(long_runs, runs)
    folder = RunFolder(next(runs.rglob("seed-1")))
    folder.checkpoint.unlink()
    with folder.held():
        folder.set_status(Status.RUNNING)
    with (folder.path / "evaluations.jsonl").open("a") as file:
        file.write('{"step": 1200, "sco')
    offrl.run(str(protocol), runs, workers=1)
    pd.testing.assert_frame_equal(scores(runs), alone)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "my_algo.py"
    path.write_text(PLAIN)
    return path


def test_the_documented_example_runs_beside_the_others(tmp_path: Path) -> None:
    example = tmp_path / "my_algo.py"
    example.write_text(TEMPLATE.read_text())
    assert len(example.read_text().splitlines()) < 70
    protocol, runs = str(write_protocol(tmp_path, steps=4)), tmp_path / "runs"
    offrl.run(protocol, runs, workers=1)
    offrl.run(protocol, runs, algorithms=[str(example)], workers=1)
    page = offrl.report([runs], tmp_path / "report", resampling=Resampling(200)).read_text()
    assert "my_algo" in page
    assert set(scores(runs)["algorithm"]) == {"bc", "my_algo"}


def test_an_algorithm_from_a_file_runs_and_a_changed_file_is_another(
    plain: Path, tmp_path: Path
) -> None:
    protocol, runs = str(write_protocol(tmp_path, steps=4)), tmp_path / "runs"
    events = offrl.run(protocol, runs, algorithms=[str(plain)], workers=1)
    assert {event.status for event in events} == {"done"}
    assert set(scores(runs)["algorithm"]) == {"my_algo"}
    plain.write_text(PLAIN.replace("0.01 *", "0.02 *"))
    events = offrl.run(protocol, runs, algorithms=[str(plain)], workers=1)
    names = set(scores(runs)["algorithm"])
    assert len(names) == 2
    assert all(name.startswith("my_algo (") for name in names)


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(plain: Path, tmp_path: Path) -> None:
    entry = f'algorithm = "{plain}"\n[algorithms.broken.config]\nbreak_at = 400'
    protocol = write_protocol(tmp_path, "broken", 600, entry)
    protocol.write_text(protocol.read_text() + f"\n[algorithms.bc]\n{NARROW}\n")
    runs = tmp_path / "runs"
    events = offrl.run(str(protocol), runs, workers=2, trust=[protocol])
    statuses = {(e.job.label, e.status) for e in events}
    assert statuses == {("broken", "failed"), ("bc", "done")}
    table = read_runs(runs)
    assert [(f.algorithm, f.seed) for f in table.failures] == [("broken", 0), ("broken", 1)]
    assert "actor/loss is nan at step 400" in table.failures[0].cause
    assert "Traceback" in next(runs.glob("**/broken-*/seed-0/run.json")).read_text()
    assert set(table.frame["algorithm"]) == {"bc"}


TWO_WAYS = """
from dataclasses import dataclass

import torch

import offrl
from offrl.learning.policy import StatelessPolicy


@dataclass(frozen=True)
class Config:
    batch_size: int = 16
    break_at: int = 0


class TwoWays(offrl.Learner):
    Config, paper, family = Config, "none", "other"

    def __init__(self, spec, config, seeds, device="cpu"):
        self.config, self.updates = config, 0

    def update(self, batch):
        self.updates += 1
        broken = torch.nan if self.updates == self.config.break_at else 1
        return {"actor/loss": torch.ones(1) * broken}

    def policy(self):
        # Straight to the goal, which some starts allow: position, velocity, goal.
        return StatelessPolicy(lambda o: (9 * (o[..., 4:6] - o[..., :2]) - o[..., 2:4]).clip(-1, 1))

    def policies(self):
        return {"": self.policy(), "still": StatelessPolicy(lambda o: torch.zeros_like(o[..., :2]))}
"""


@pytest.mark.usefixtures("here")
def test_every_way_to_act_is_scored_under_its_own_name(tmp_path: Path) -> None:
    """The first stands for the run; the others carry their name after the label, and its fate."""
    (tmp_path / "two_ways.py").write_text(TWO_WAYS)
    protocol = write_protocol(tmp_path, "two", 600, "algorithm = 'two_ways.py'")
    ended = offrl.run(protocol, tmp_path / "runs", trust=[protocol])
    table = read_runs(tmp_path / "runs")
    assert table.algorithms == ["two", "two: still"]
    found = table.frame.set_index(["algorithm", "seed", "step"])["score"]
    assert len(found) == 2 * 2 * 2
    for event in ended:
        seed = event.job.seed
        assert event.score == found["two", seed, 600] > found["two: still", seed, 600]

    for folder in run_folders(tmp_path / "runs"):  # as if on another data set too
        dataset = "elsewhere@1"
        identity = folder.record().identity.model_copy(update={"dataset": dataset})
        other = RunFolder(tmp_path / "runs" / "elsewhere" / folder.path.name)
        with other.held():
            other.begin(identity)
            other.carry_on([""], 0)
            for row in folder.rows():
                if row.policy == "":
                    other.append(row.model_copy(update={"dataset": dataset}))
            other.set_status(Status.DONE)
    table = read_runs(tmp_path / "runs")
    assert table.algorithms == ["two"]
    assert "two: still is left out: it is not on all data sets of its label" in table.notes

    config = "algorithm = 'two_ways.py'\nconfig = { break_at = 400 }"
    protocol = write_protocol(tmp_path, "two", 600, config)
    offrl.run(protocol, tmp_path / "broken", trust=[protocol])
    table = read_runs(tmp_path / "broken")
    assert len(table.frame) == 0
    assert {f.algorithm for f in table.failures} == {"two", "two: still"}


def test_a_plan_writes_nothing_and_enlisting_makes_runs_that_wait(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    planned = plan(find_protocol(str(write_protocol(tmp_path))))
    assert [job.seed for job in planned.jobs] == [0, 1]
    assert not runs.exists()
    seen: list[Event] = []
    waiting, ended = enlist(planned, runs, seen.append)
    assert (waiting, ended) == (planned.jobs, [])
    assert [(event.job, event.status, event.step) for event in seen] == [
        (job, Status.WAITING, 0) for job in planned.jobs
    ]
    assert {folder.read().state for folder in run_folders(runs)} == {State.UNFINISHED}
    table = read_runs(runs)
    assert {failure.cause for failure in table.failures} == {"unfinished: not begun"}
    assert table.notes == ("unfinished: bc on pointmaze-quickstart, seed 0, 1: not begun",)
    with pytest.raises(InputError, match="none of 2 runs has come to its first; `offrl status RU"):
        compute(table)


def test_a_return_that_is_not_finite_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Episodes(np.full((1, 4), np.nan), np.ones((1, 4), np.int64))
    monkeypatch.setattr(Evaluator, "__call__", lambda _self, _policy: nothing)
    (job, _) = expand(find_protocol(str(write_protocol(tmp_path, steps=300))))
    with pytest.raises(Diverged, match=r"return of an episode is not finite .* at step 300"):
        train_run(job, tmp_path / "runs")
    (failure,) = read_runs(tmp_path / "runs").failures
    assert "not finite" in failure.cause


def hold(run: Path) -> "subprocess.Popen[str]":
    """A process that holds a run, until its input ends."""
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import sys
                from pathlib import Path
                from offrl.results.store import RunFolder
                with RunFolder(Path(sys.argv[1])).held():
                    print("held", flush=True)
                    sys.stdin.read()
                """
            ),
            str(run),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.mark.parametrize("free", ["never", "when the other has ended", "soon"])
def test_a_held_run_is_left_to_its_holder_and_the_others_go_on(
    free: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    protocol, runs = str(write_protocol(tmp_path, steps=4)), tmp_path / "runs"
    monkeypatch.setattr(local, "run_in_processes", run_here)
    monkeypatch.setattr(runner, "LOCK_SECONDS", 60.0 if free == "soon" else 0.0)
    held = next(job for job in expand(find_protocol(protocol)) if job.seed == 0).folder(runs)
    holder = hold(held)
    if free == "soon":
        threading.Timer(0.1, lambda: holder.communicate("")).start()

    def let_go(event: Event) -> None:
        if free == "when the other has ended" and event.status is Status.DONE:
            holder.communicate("")

    first, second = offrl.run(protocol, runs, on_event=let_go)
    assert second.status is Status.DONE
    if free == "never":
        assert first.status is Status.WAITING
        assert f"{held}: another process holds this run" in str(first.cause)
        assert f"1 run is being made elsewhere: 1 by process {holder.pid} on host" in caplog.text
        assert not (held / "run.json").exists()
        holder.communicate("")
        first, second = offrl.run(protocol, runs)
    else:
        assert "the same command looks at them again" not in caplog.text
    assert (first.status, second.status) == (Status.DONE, Status.DONE)


def test_a_run_that_another_takes_before_its_worker_starts_is_no_failure(tmp_path: Path) -> None:
    protocol, runs = str(write_protocol(tmp_path, steps=4)), tmp_path / "runs"
    (job, *_), _ = enlist(plan(find_protocol(protocol)), runs, lambda _event: None)
    holder = hold(job.folder(runs))
    (event,) = run_in_processes([Group((job,), 1)], runs, ["cpu"], lambda _event: None)
    assert event.status is Status.WAITING
    assert "another process holds this run" in str(event.cause)
    assert RunFolder(job.folder(runs)).read().state is State.UNFINISHED
    holder.communicate("")


def test_a_record_of_a_newer_offrl_fails_alone_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, runs = str(write_protocol(tmp_path, steps=4)), tmp_path / "runs"
    monkeypatch.setattr(local, "run_in_processes", run_here)
    newer = next(job for job in expand(find_protocol(protocol)) if job.seed == 0).folder(runs)
    newer.mkdir(parents=True)
    text = '{"format": 99, "identity": "elsewhere"}'
    (newer / "run.json").write_text(text)
    first, second = offrl.run(protocol, runs)
    assert (first.status, second.status) == (Status.FAILED, Status.DONE)
    assert str(first.cause).startswith(f"{newer / 'run.json'}: format 99, but offrl ")
    assert str(first.cause).endswith("; update offrl")
    assert (newer / "run.json").read_text() == text
    assert [failure.cause for failure in read_runs(runs).failures] == [first.cause]


@pytest.mark.usefixtures("here")
def test_a_damaged_record_fails_alone_and_stays_as_it_is(short_runs: Path, tmp_path: Path) -> None:
    protocol, runs = str(write_protocol(tmp_path, steps=600)), tmp_path / "runs"
    shutil.copytree(short_runs, runs)
    whole = scores(runs)
    damaged, other = (next(runs.rglob(f"seed-{seed}")) for seed in (0, 1))
    torn = "?" + (damaged / "run.json").read_text()
    (damaged / "run.json").write_text(torn)
    shutil.rmtree(other)
    seen: list[Event] = []
    first, second = offrl.run(protocol, runs, workers=1, on_event=seen.append)
    assert (first.job.seed, first.status) == (0, "failed")
    assert f"{damaged / 'run.json'}: " in str(first.cause)
    assert "delete the folder and run it again" in str(first.cause)
    assert first in seen
    assert (second.job.seed, second.status) == (1, "done")
    assert (damaged / "run.json").read_text() == torn
    assert [failure.cause for failure in read_runs(runs).failures] == [first.cause]
    shutil.rmtree(damaged)
    assert {event.status for event in offrl.run(protocol, runs, workers=1)} == {"done"}
    pd.testing.assert_frame_equal(scores(runs), whole)


@pytest.mark.usefixtures("here")
def test_a_run_that_lacks_rows_is_run_again_and_says_so(
    short_runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    protocol, runs = str(write_protocol(tmp_path, steps=600)), tmp_path / "runs"
    shutil.copytree(short_runs, runs)
    whole = scores(runs)
    rows = next(runs.rglob("seed-0")) / "evaluations.jsonl"
    rows.write_bytes(rows.read_bytes()[:-1])
    (failure,) = read_runs(runs).failures
    assert "the run is done, so expected 2 scores up to step 600, found 1" in failure.cause
    events = offrl.run(protocol, runs, workers=1)
    assert [event.status for event in events] == ["done", "done"]
    assert failure.cause in caplog.text
    pd.testing.assert_frame_equal(scores(runs), whole)


def test_a_folder_that_cannot_be_held_fails_alone(tmp_path: Path) -> None:
    protocol, runs = find_protocol(str(write_protocol(tmp_path, steps=300))), tmp_path / "runs"
    planned = plan(protocol)
    first, second = planned.jobs
    first.folder(runs).parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    first.folder(runs).symlink_to(tmp_path / "elsewhere")
    waiting, (failed,) = enlist(planned, runs, lambda _event: None)
    assert waiting == [second]
    assert (failed.job, failed.status) == (first, "failed")
    assert f"{first.folder(runs)}: it is a link or a file" in str(failed.cause)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.usefixtures("here")
def test_a_run_killed_after_its_last_checkpoint_ends_with_step_and_score(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    protocol = str(write_protocol(tmp_path, steps=300))
    ended = offrl.run(protocol, runs, workers=2)
    for folder in run_folders(runs):
        with folder.held():
            folder.set_status(Status.RUNNING)
    assert offrl.run(protocol, runs, workers=2) == ended
    assert {event.step for event in ended} == {300}


def test_a_full_disk_says_to_free_some_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first cause is the run's, though its record cannot be written either."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (job, _) = expand(find_protocol(str(write_protocol(tmp_path, steps=300))))
    train_run(job, tmp_path / "whole")
    append = RunFolder.append

    def fill(folder: RunFolder, row: ScoreRow) -> None:
        append(folder, row)
        monkeypatch.setattr(os, "fsync", full)

    monkeypatch.setattr(RunFolder, "append", fill)
    with pytest.raises(InputError, match=r"metrics\.csv: cannot be written: No space.*free some"):
        train_run(job, tmp_path / "checkpoint")
    monkeypatch.undo()
    train_run(job, tmp_path / "checkpoint")  # once there is room
    pd.testing.assert_frame_equal(scores(tmp_path / "checkpoint"), scores(tmp_path / "whole"))


@pytest.mark.usefixtures("here")
def test_another_protocol_of_the_same_name_does_not_carry_on(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    offrl.run(str(write_protocol(tmp_path, steps=600)), runs, workers=2)
    with pytest.raises(InputError, match=r'holds a run with \{"steps": 600\}, but .* 300'):
        offrl.run(str(write_protocol(tmp_path, steps=300)), runs, workers=2)


@pytest.mark.usefixtures("here")
def test_every_row_carries_its_provenance(alone: pd.DataFrame, tmp_path: Path) -> None:
    offrl.run(str(write_protocol(tmp_path, steps=300)), tmp_path / "runs", workers=2)
    rows = RunFolder(next((tmp_path / "runs").rglob("seed-1"))).rows()
    row = rows[-1]
    assert row.protocol == "tiny@1"
    assert row.dataset == "pointmaze-quickstart@1"
    assert row.environment == "offrl.datasets.pointmaze_u:offrl/PointMaze-UMaze-v3"
    assert row.simulator["mujoco"]
    assert (row.algorithm, row.seed, row.step) == ("bc", 1, 300)
    assert len(row.returns) == len(row.lengths) == 4
    assert row.action_mode == "deterministic"
    assert row.wall_time > 0
    mean = sum(row.returns) / 4
    card = offrl.load_dataset("pointmaze-quickstart")
    assert row.score == pytest.approx(float(card.normalized(mean)))
    first = alone[(alone["seed"] == 1) & (alone["step"] == 300)]["score"].item()
    assert row.score == first  # steps to come do not change a cloner's first score


def test_unfinished_and_empty_folders_are_told(short_runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run\.json in this folder"):
        read_runs(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_runs(tmp_path / "nowhere")
    shutil.copytree(short_runs, tmp_path / "runs")
    folder = RunFolder(next((tmp_path / "runs").rglob("seed-0")))
    folder.checkpoint.unlink()
    with folder.held():
        folder.carry_on([""], 300)
        folder.set_status(Status.INTERRUPTED)
    table = read_runs(tmp_path / "runs")
    assert any("seed 0: step 300 of 600" in note for note in table.notes)
    with folder.held():
        folder.carry_on([""], 0)
    table = read_runs(tmp_path / "runs")
    (waits,) = table.failures
    assert waits.unfinished
    assert "stopped before its first evaluation; the same command carries on" in waits.cause
    assert any(note.endswith("seed 0: " + waits.cause.partition(": ")[2]) for note in table.notes)
    findings = compute(table)
    assert (findings.failures, findings.failed, findings.runs) == ((), {"bc": 0}, 1)
    assert findings.per_task["n_failed"].tolist() == [0]
    assert len(findings.interim) == 1
    (again,) = read_scores(table.tidy()).failures
    assert again.unfinished
    with folder.held():
        folder.fail("unfinished: says whoever wrote this exception")
    (failed,) = read_runs(tmp_path / "runs").failures
    assert failed.cause == "failed: unfinished: says whoever wrote this exception"


@pytest.mark.parametrize("seconds", [0.3, 0.9, 1.5])
def test_ctrl_c_while_workers_start_is_no_failure(seconds: float, tmp_path: Path) -> None:
    """SIGINT reaches a worker (and what it starts) while it imports, before it can listen."""
    protocol, runs = write_protocol(tmp_path), tmp_path / "runs"
    process = start(protocol, runs)
    while len(list(runs.rglob("run.json"))) < 2:  # noted just before the workers start
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "failed" not in stderr
    statuses = {json.loads(path.read_text())["status"] for path in runs.rglob("run.json")}
    assert statuses <= {"waiting", "interrupted"}
