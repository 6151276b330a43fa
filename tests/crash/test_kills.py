"""A run that is killed at any file operation ends, once carried on, with the same scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def kills(folder: Path, times: int, replicas: int) -> dict[str, int]:
    script = Path(__file__).with_name("kills.py")
    result = subprocess.run(
        [sys.executable, script, folder, str(times), str(replicas)],
        capture_output=True,
        text=True,
        timeout=3600,
        # Python's safe path leaves out a script's own folder, where small_runs.py is.
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parent)},
    )
    assert result.returncode == 0, result.stderr
    sys.stdout.write(result.stdout)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def test_a_run_may_be_killed_around_and_amid_each_file_operation(tmp_path: Path) -> None:
    counts = kills(tmp_path, 1, 1)
    assert counts["operations"] >= 45
    assert counts["kills"] >= counts["operations"] + counts["kills amid a write"]
    assert counts["kills amid a write"] >= 12


@pytest.mark.nightly  # some 250 groups
def test_a_group_may_be_killed_around_and_amid_each_file_operation(tmp_path: Path) -> None:
    assert kills(tmp_path, 1, 3)["kills"] > 150


@pytest.mark.nightly  # some 600 runs
def test_a_run_may_be_killed_three_times_over(tmp_path: Path) -> None:
    assert kills(tmp_path, 3, 1)["kills"] > 200
