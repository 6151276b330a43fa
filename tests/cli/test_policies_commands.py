"""`offrl evaluate` and `offrl export`."""

import json
from pathlib import Path

import pytest
from command_line import Call, files

from offrl.running.jobs import expand
from offrl.running.protocol import find_protocol
from offrl.running.training import train_run


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Path:
    """A finished run."""
    (job,) = expand(find_protocol(str(tiny)))
    train_run(job, tmp_path / "runs")
    return job.folder(tmp_path / "runs")


def test_a_run_is_evaluated_again_and_stays_as_it_is(call: Call, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in files(run)}
    done = call("evaluate", run, "--episodes", 3, "--json")
    assert done.code == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["algorithm"], row["seed"], row["step"], row["episodes"]) == ("bc", 0, 20, 3)
    assert {"mean_return", "standard_error", "score", "median", "first_quartile"} <= row.keys()
    assert row["shortest"] == row["longest"] == row["mean_length"] == 20
    shown = call("evaluate", run, run, "--episodes", 2, "--seed", 5)
    assert shown.stdout.count("20 of 20") == 2
    assert {path: path.stat().st_mtime_ns for path in files(run)} == before


def test_bad_input_of_both_is_one_line(call: Call, run: Path, tmp_path: Path) -> None:
    assert "expected at least 1" in call("evaluate", run, "--episodes", 0).error
    assert "no run.json in this folder" in call("evaluate", tmp_path).error
    assert "unknown way to act 'fast'" in call("evaluate", run, "--way", "fast").error
    assert "draws one run, but 2" in call("evaluate", run, run, "--video", "a.gif").error
    assert "ends in .mp4 or .gif" in call("evaluate", run, "--video", "a.txt").error
    assert "ends in .onnx" in call("export", run, "policy.pt").error
    assert not (tmp_path / "policy.pt").exists()


# MuJoCo's own, where it has found no display.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_episode_is_drawn_or_the_line_says_what_that_needs(
    call: Call, run: Path, tmp_path: Path
) -> None:
    done = call("evaluate", run, "--episodes", 1, "--video", "out.gif")
    if done.code:
        message = done.error
        assert "cannot be drawn here" in message
        assert "set MUJOCO_GL=egl" in message
        assert not (tmp_path / "out.gif").exists()
        pytest.skip(message)
    from PIL import Image, ImageSequence

    with Image.open(tmp_path / "out.gif") as image:
        assert len(list(ImageSequence.Iterator(image))) > 1
