"""Several `offrl run` on one folder: each run is made once, whoever is killed or stopped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import small_runs

from offrl.results import leases
from offrl.results.rows import Status
from offrl.results.store import RunFolder, run_folders
from offrl.running.runner import enlist

PROTOCOL = """
id = "shared"
version = 1
title = "Shared"
source = "offrl"
datasets = ["pend.toml"]
seeds = [0, 1, 2, 3, 4]
steps = 1000
[evaluation]
every = 200
episodes = 2
[algorithms.td3_bc.config]
actor_hidden = [7]
critic_hidden = [9]
batch_size = 3
"""

Processes = list["subprocess.Popen[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    small_runs.planned(folder)  # writes the data and their card
    (folder / "shared.toml").write_text(PROTOCOL)
    return folder


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Starts `offrl run` as a process group of its own, with groups of two; its folder by name.

    Leases are taken over after four seconds without a beat, unless `limit` says otherwise.
    """
    processes: Processes = []

    def started(runs: str, limit: float = 4) -> "subprocess.Popen[str]":
        options = ["--output", runs, "--replicas", "2", "--workers", "1"]
        environment = {"OMP_NUM_THREADS": "1", "OFFRL_KERNEL": "blas", leases.SECONDS: f"{limit}"}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "offrl", "run", "shared.toml", *options],
                cwd=place,
                env={**os.environ, **environment},
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield started
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def alone(place: Path) -> str:
    """The scores of a folder on which one process worked."""
    command = [sys.executable, "-m", "offrl", "run", "shared.toml", "--output", "alone"]
    subprocess.run(
        [*command, "--replicas", "2", "--workers", "1"],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OFFRL_KERNEL": "blas"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    return small_runs.scores(place / "alone")


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit status, and all that was printed."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def wait_for_rows(root: Path, processes: Processes) -> None:
    """Returns once there is an evaluation, while every process goes on."""
    while not any(file.stat().st_size for file in root.rglob("evaluations.jsonl")):
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def holders(root: Path) -> set[int]:
    """The processes that hold a run."""
    found = [folder.holder() for folder in run_folders(root)]
    return {lease.holder.process for lease in found if lease and lease.holder}


def wait_for_worker(root: Path, others: set[int], process: "subprocess.Popen[str]") -> None:
    """Returns once a worker of a process has a run of its own."""
    while not holders(root) - others - {process.pid}:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def content(root: Path) -> dict[str, bytes]:
    """Every file of the runs but their leases."""
    files = [path for run in run_folders(root) for path in run.path.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files if ".lease-" not in path.name}


def sessions(root: Path) -> list[int]:
    return [len(folder.record().sessions) for folder in run_folders(root)]


@pytest.mark.parametrize("how", ["and both go on", "and one is killed"])
def test_two_on_one_folder_make_each_run_once(
    how: str, place: Path, start: Start, alone: str
) -> None:
    """The first stands still while the second begins, so that both have something to do."""
    root = place / how
    first = start(how, limit=100)
    wait_for_rows(root, [first])
    os.killpg(first.pid, signal.SIGSTOP)
    (worker,) = holders(root) - {first.pid}
    second = start(how, limit=100)
    wait_for_worker(root, {worker}, second)
    killed = how == "and one is killed"
    os.killpg(first.pid, signal.SIGKILL if killed else signal.SIGCONT)
    status, printed = end(second)
    assert f"2 runs are being made elsewhere: 2 by process {worker} on host " in printed
    assert "failed" not in printed
    if killed:
        assert (status, "5 of 5 runs are done" in printed) == (0, True), printed
    elif status == 1:
        assert "the same command looks at them again" in printed
    else:
        assert "5 of 5 runs are done" in printed
    status, printed = end(first)
    if not killed:
        assert "failed" not in printed
        assert "5 of 5 runs are done" in printed or "are being made elsewhere: " in printed
    assert sorted(sessions(root)) == ([1, 1, 1, 2, 2] if killed else [1] * 5)
    assert small_runs.scores(root) == alone
    assert not small_runs.left_over(root)


@pytest.mark.parametrize(
    "who", ["all processes", pytest.param("the worker", marks=pytest.mark.nightly)]
)
def test_where_one_is_stopped_the_other_takes_over_and_the_first_writes_nothing(
    who: str, place: Path, start: Start, alone: str
) -> None:
    root = place / f"stopped {who}"
    first = start(root.name)
    wait_for_rows(root, [first])
    (worker,) = holders(root) - {first.pid}
    os.killpg(first.pid, signal.SIGSTOP) if who == "all processes" else os.kill(
        worker, signal.SIGSTOP
    )
    taken = [f.path for f in run_folders(root) if (lease := f.holder()) and lease.holder]
    before = {path: number(path) for path in taken}
    assert len(before) == 2
    status, printed = end(start(root.name))
    assert (status, "5 of 5 runs are done" in printed) == (0, True), printed
    assert f"2 runs are being made elsewhere: 2 by process {worker} on host " in printed
    assert all(number(path) > before[path] for path in before)
    assert small_runs.scores(root) == alone
    written = content(root)
    os.killpg(first.pid, signal.SIGCONT)
    status, printed = end(first)
    assert "has taken this run over while this one was stopped; nothing more is" in printed
    assert "Traceback" not in printed
    assert "failed" not in printed
    assert (status, "5 of 5 runs are done" in printed) == (0, True), printed
    assert content(root) == written
    assert {folder.record().status for folder in run_folders(root)} == {Status.DONE}


def number(run: Path) -> int:
    """Of the lease of a run, which rises each time that it is taken."""
    return max(int(path.name.removeprefix(".lease-")) for path in run.glob(".lease-*"))


def test_runs_of_another_host_are_left_while_it_beats_and_waited_for_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(leases.SECONDS, "1")
    plan, root = small_runs.planned(tmp_path), tmp_path / "runs"
    first, second = plan.jobs
    first.folder(root).mkdir(parents=True)
    lease = first.folder(root) / ".lease-9"
    values = {"host": "away", "process": 5, "started": "2026-01-01", "machine": "x"}
    lease.write_text(json.dumps({**values, "locked": False}))
    waiting, (left,) = enlist(plan, root, lambda _event: None)
    assert waiting == [second]
    assert (left.job, left.status, left.holder) == (first, Status.WAITING, "process 5 on host away")
    assert not RunFolder(first.folder(root)).record_file.exists()

    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(lease)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        begun = time.monotonic()
        alone = replace(plan, jobs=[first])
        assert enlist(alone, root, lambda _event: None, seconds=1.5)[0] == []
        assert time.monotonic() - begun >= 1.5
    finally:
        ended.set()
        thread.join()
    time.sleep(0.3)  # two beats are missing
    assert enlist(alone, root, lambda _event: None, seconds=0) == ([first], [])
    assert number(first.folder(root)) == 10
