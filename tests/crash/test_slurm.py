"""Runs that a Slurm of one node carries out, which interrupts them."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clusters
import one_node
import pytest

from offrl.errors import InputError
from offrl.results.rows import Status
from offrl.results.store import run_folders
from offrl.running.chunks import cut
from offrl.running.executors import slurm as executor
from offrl.running.groups import group
from offrl.running.launchers import Launcher, find_executor
from offrl.running.protocol import find_protocol
from offrl.running.runner import enlist, plan

submitit = pytest.importorskip("submitit")

STEPS = 12_000
QUEUE = ("squeue", "--noheader", "--partition=low", "--format=%A %T")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protocol, and in `local` what this machine makes of it."""
    folder = tmp_path_factory.mktemp("slurm")
    clusters.write_protocol(folder, STEPS)
    assert clusters.end(clusters.start(folder, "local", "-j", "2")).code == 0
    return folder


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a Slurm of this test's own."""
    if why := one_node.lacking():
        pytest.skip(why)
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as place,
        one_node.running(Path(place)) as environment,
    ):
        yield environment


def called(slurm: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **slurm}, check=True
    )
    return done.stdout


def test_a_job_that_is_preempted_is_queued_again_and_carries_on(
    folder: Path, slurm: dict[str, str]
) -> None:
    root = folder / "preempted"
    words = ("--launcher", "slurm", "-j", "2")
    running = clusters.start(folder, "preempted", *words, **slurm)
    clusters.wait_for(lambda: bool(clusters.under_way(root)), running)
    # One that must have all cores, and ends as soon as it has them.
    called(slurm, "sbatch", "-p", "high", "-n", "2", "-o", "/dev/null", "--wrap", "true")
    clusters.wait_for(lambda: " PENDING" in called(slurm, *QUEUE), running)
    statuses = {run.record().status for run in run_folders(root)}
    assert Status.INTERRUPTED in statuses
    assert Status.RUNNING not in statuses
    # The command ends as by Ctrl-C; the job goes on, and the same command takes part in it.
    running.send_signal(signal.SIGINT)
    left = clusters.end(running)
    assert left.code == 130
    assert "goes on: the same command looks at it again, and `scancel" in left.stderr
    again = clusters.start(folder, "preempted", *words, **slurm)
    assert again.stderr is not None
    assert any(" in Slurm's queue by an earlier command" in line for line in again.stderr)
    (job,) = called(slurm, *QUEUE).splitlines()
    called(slurm, "scontrol", "update", f"JobId={job.split()[0]}", "StartTime=now")
    ended = clusters.end(again)
    assert ended.code == 0, ended
    assert "4 of 4 runs are done" in ended.stdout
    sessions = [len(run.record().sessions) for run in run_folders(root)]
    assert max(sessions) == 2
    assert clusters.scores(folder, "preempted") == clusters.scores(folder, "local")


def test_what_slurm_or_its_nodes_lack_is_one_line(folder: Path, slurm: dict[str, str]) -> None:
    words = ("--launcher", "slurm", "--partition", "nope")
    ended = clusters.end(clusters.start(folder, "refused", *words, **slurm))
    assert "--partition nope: Slurm has none of this name; expected one of high, low" in ended.error
    words = ("--launcher", "slurm", "--slurm", "constraint=nope")
    ended = clusters.end(clusters.start(folder, "refused", *words, **slurm))
    assert "Slurm does not take the runs: sbatch: error: " in ended.error
    assert not (folder / "refused" / ".slurm").exists()

    faked = clusters.fake_version(folder, "mujoco", "9.9")["PYTHONPATH"]
    words = ("--launcher", "slurm", "--slurm", f"setup=export PYTHONPATH={faked}")
    ended = clusters.end(clusters.start(folder, "refused", *words, **slurm))
    assert ended.code == 2
    error = ended.stderr.splitlines()[-1]
    assert "mujoco 9.9 for" in error
    assert "--allow-versions mujoco" in error
    assert {run.record().status for run in run_folders(folder / "refused")} == {Status.WAITING}


def test_without_slurm_it_is_one_line(folder: Path) -> None:
    ended = clusters.end(clusters.start(folder, "none", "--launcher", "slurm", PATH="/nowhere"))
    assert "launcher slurm: there is no command sinfo" in ended.error
    assert not (folder / "none").exists()


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "NEEDS", "no_such_package")
    with pytest.raises(InputError, match=r"pip install 'offrl\[slurm\]'"):
        find_executor(Launcher("slurm"))


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


@pytest.mark.nightly  # a job of a real Slurm is, in the test before
def test_submitit_has_a_chunk_saved_and_carried_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its executor for one machine, whose tasks take Slurm's signal as on a cluster."""
    monkeypatch.setenv("OFFRL_CACHE", str(folder / "cache"))
    monkeypatch.setenv("OFFRL_KERNEL", "batched")
    planned, root = plan(find_protocol(str(folder / "small.toml"))), folder / "submitit"
    jobs, _ = enlist(planned, root, lambda _event: None)
    groups = group(jobs, root, 2, ["cpu"] * 2, planned.kind)
    (chunk,) = cut(groups, root, device="cpu", workers=2, tasks=1, seconds=3600)
    executor_here = submitit.LocalExecutor(tmp_path)
    executor_here.update_parameters(timeout_min=60)
    job = executor_here.submit(executor.ChunkTask(tmp_path), chunk)
    controller: Any = job._process
    clusters.wait_for(lambda: bool(clusters.under_way(root)), controller)
    (task,) = children(controller.pid)
    os.kill(task, signal.SIGUSR2)
    job.result()
    controller.wait(timeout=clusters.SECONDS)
    records = [run.record() for run in run_folders(root)]
    assert [record.status for record in records] == [Status.DONE] * 4
    assert max(len(record.sessions) for record in records) == 2
    assert clusters.scores(folder, "submitit") == clusters.scores(folder, "local")


def test_a_list_of_tasks_that_is_none_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "array.json"
    file.write_text(json.dumps({"12_0; rm": [["a"]], "12_1": [["b", "c"]]}))
    assert executor.read_tasks(file) == {"12_1": [("b", "c")]}
    file.write_text("[")
    assert executor.read_tasks(file) == {}
    assert "is no list of tasks that offrl wrote" in caplog.text
