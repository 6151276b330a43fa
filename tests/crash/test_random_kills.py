"""Groups whose every process is killed at random moments end with the scores of groups let be."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_runs

from offrl.results.collect import read_runs

KILLS = 40
PROTOCOL = """
id = "killed"
version = 1
title = "Killed"
source = "offrl"
datasets = ["pend.toml"]
seeds = [0, 1, 2]
steps = {steps}
[evaluation]
every = 20
episodes = 2
[algorithms.bc.config]
hidden = [64]
[algorithms.td3_bc.config]
actor_hidden = [64]
critic_hidden = [64]
"""


@pytest.mark.nightly  # some ten minutes
def test_groups_may_be_killed_at_random_moments(tmp_path: Path) -> None:
    small_runs.planned(tmp_path)  # writes the data and their card
    (tmp_path / "killed.toml").write_text(PROTOCOL.format(steps=40_000))
    rng, rows = random.Random(0), [0]
    for _ in range(KILLS):
        process = _started(tmp_path, "killed")
        _wait_for_evaluations(process, tmp_path / "killed")
        time.sleep(rng.uniform(0, 3))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "ended before; give the runs more steps"
        rows.append(_rows(tmp_path / "killed"))
    assert rows == sorted(rows)
    assert len(set(rows)) > KILLS // 2, rows  # most kills came after further evaluations
    assert _started(tmp_path, "killed").wait() == 0
    assert _started(tmp_path, "alone").wait() == 0
    assert small_runs.scores(tmp_path / "killed") == small_runs.scores(tmp_path / "alone")
    assert small_runs.curves(tmp_path / "killed") == small_runs.curves(tmp_path / "alone")
    assert not small_runs.left_over(tmp_path / "killed")


def _started(folder: Path, runs: str) -> "subprocess.Popen[str]":
    """`offrl run` in a process group of its own, two groups of three replicas at once."""
    options = ["--output", runs, "--replicas", "3", "--workers", "2"]
    with (folder / f"{runs}.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "offrl", "run", "killed.toml", *options],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OFFRL_KERNEL": "blas"},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
        )


def _wait_for_evaluations(process: "subprocess.Popen[str]", root: Path) -> None:
    """Returns once the runs have been evaluated again, or have ended."""
    before = _size(root)
    while process.poll() is None and _size(root) <= before:
        time.sleep(0.01)


def _size(root: Path) -> int:
    """Bytes of all rows; a row that was cut short is taken away when its run goes on."""
    return sum(path.stat().st_size for path in root.rglob("evaluations.jsonl"))


def _rows(root: Path) -> int:
    """The evaluations of all runs."""
    return len(read_runs(root).frame) if any(root.rglob("evaluations.jsonl")) else 0
