"""Runs that a real Ray carries out, of which a worker is killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import clusters
import pytest

from offrl.errors import InputError
from offrl.results.rows import Status
from offrl.results.store import run_folders
from offrl.running.executors import ray as executor
from offrl.running.launchers import Launcher, find_executor

pytest.importorskip("ray")

STEPS = 6_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protocol, and in `local` what this machine makes of it."""
    folder = tmp_path_factory.mktemp("ray")
    clusters.write_protocol(folder, STEPS)
    assert clusters.end(clusters.start(folder, "local", "-j", "2")).code == 0
    return folder


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """A folder for Ray's files with a short name, as its sockets need."""
    place = tempfile.mkdtemp(prefix="ray-")
    yield place
    shutil.rmtree(place, ignore_errors=True)


def tasks(place: str) -> list[int]:
    """The processes of a Ray's workers that carry out a task of offrl."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::offrl") and f"RAY_TMPDIR={place}".encode() in environment:
            found.append(int(process.name))
    return sorted(found)


def test_a_worker_that_is_killed_changes_no_score(folder: Path, place: str) -> None:
    root = folder / "killed"
    here = {"RAY_TMPDIR": place, "RAY_ADDRESS": "local"}
    running = clusters.start(folder, "killed", "--launcher", "ray", "-j", "2", **here)
    clusters.wait_for(lambda: len(tasks(place)) == 2 and bool(clusters.under_way(root)), running)
    os.kill(tasks(place)[0], signal.SIGKILL)
    ended = clusters.end(running)
    assert ended.code == 0, ended
    assert "4 of 4 runs are done" in ended.stdout
    records = [run.record() for run in run_folders(root)]
    attempts = [attempt for record in records for attempt in record.attempts or []]
    assert attempts
    assert all("lost by Ray" in attempt.cause for attempt in attempts)
    assert clusters.scores(folder, "killed") == clusters.scores(folder, "local")


@pytest.fixture(scope="module")
def cluster(folder: Path, place: str) -> Iterator[str]:
    """The address of a cluster, on which torch says that it is of another version."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    faked = clusters.fake_version(folder, "torch", "9.9")
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    ray += ["--num-cpus=2", "--include-dashboard=false", "--object-store-memory=80000000"]
    ray += ["--node-ip-address=127.0.0.1", f"--port={port}", "--disable-usage-stats"]
    ray += ["--min-worker-port=0", "--max-worker-port=0"]
    environment = clusters.environment(folder, RAY_TMPDIR=place, **faked)
    process = subprocess.Popen(
        ray, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ray runtime started" in line:
            break
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.nightly
def test_versions_that_differ_are_refused_unless_they_are_allowed(
    folder: Path, cluster: str
) -> None:
    more = {"RAY_ADDRESS": cluster}
    refused = clusters.end(clusters.start(folder, "cluster", "--launcher", "ray", **more))
    assert "torch 9.9 for" in refused.error
    assert "--allow-versions torch" in refused.error
    assert {run.record().status for run in run_folders(folder / "cluster")} == {Status.WAITING}

    words = ("--launcher", "ray", "--allow-versions", "torch")
    running = clusters.start(folder, "cluster", *words, **more)
    clusters.wait_for(lambda: bool(clusters.under_way(folder / "cluster")), running)
    running.send_signal(signal.SIGINT)
    assert clusters.end(running).code == 130
    statuses = {run.record().status for run in run_folders(folder / "cluster")}
    assert Status.INTERRUPTED in statuses
    assert Status.RUNNING not in statuses

    ended = clusters.end(clusters.start(folder, "cluster", *words, **more))
    assert ended.code == 0, ended
    assert clusters.scores(folder, "cluster") == clusters.scores(folder, "local")


def test_an_address_without_a_cluster_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:  # bound, but not listening
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        ended = clusters.end(
            clusters.start(folder, "none", "--launcher", "ray", RAY_ADDRESS=address)
        )
    assert f"RAY_ADDRESS is '{address}': no Ray cluster answers there" in ended.error
    assert not (folder / "none").exists()
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    with pytest.raises(InputError, match="expected HOST:PORT"):
        find_executor("ray").places("cpu", None)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "NEEDS", "no_such_package")
    with pytest.raises(InputError, match=r"pip install 'offrl\[ray\]'"):
        find_executor(Launcher("ray"))
