"""The command line as its users meet it: the main job, help, names and files that are wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import BROKEN, HEAD, PROTOCOL, Call, fake_run, files, spawn


def test_the_main_job(call: Call, tiny: Path, tmp_path: Path) -> None:
    """A protocol to a table and a report, with a run that fails: told, and kept in both."""
    (tmp_path / "broken.py").write_text(BROKEN)
    tiny.write_text(PROTOCOL + '[algorithms.broken]\nalgorithm = "broken.py"\n')
    first = spawn("run", "tiny.toml", "-o", "runs", "-j", 2, cwd=tmp_path)
    assert first.code == 1
    assert first.stdout == "1 of 2 runs are done in runs\n"
    assert "bc seed 0 at step 20, score " in first.stderr
    assert "broken seed 0 at step 0: RuntimeError: cannot learn" in first.stderr
    assert "The same command tries the others again" in first.stderr
    assert "Traceback" not in first.stderr
    table = call("scores", "runs", "-o", "new/folder/scores.csv")
    assert table.code == 0
    assert table.stdout == "2 rows in new/folder/scores.csv\n"
    assert "without a score: broken on mine, seed 0: RuntimeError: cannot learn" in table.stderr
    rows = (tmp_path / "new" / "folder" / "scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 + 1  # the names, two evaluations and a failure
    report = call("report", "new/folder/scores.csv", "-o", "new/parent/report", "--reps", 100)
    page = tmp_path / "new" / "parent" / "report" / "index.html"
    assert report.code == 0, report.stderr
    assert report.stdout == f"{page}\n"
    assert "cannot learn" in page.read_text()
    again = call("run", "tiny.toml", "-o", "runs", "--algorithm", "bc")  # nothing is left to do
    assert again.code == 0
    assert again.stdout == "1 of 1 runs are done in runs\n"


COMMANDS = ["", "list", "show", "run", "train", "scores", "report", "data"]


COMMANDS += [f"data {name}" for name in ("fetch", "make", "check", "stats")]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_fits_the_terminal(call: Call, command: str) -> None:
    shown = call(*command.split(), "--help")
    assert shown.code == 0
    example = f"Example: offrl {command}".rstrip() + " "
    assert example in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_the_reader_of_the_output_may_leave() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "offrl", "list", "datasets", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 1


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("list algoritms", "unknown kind 'algoritms'; did you mean 'algorithms'?"),
        ("show iqll", "unknown name 'iqll'; did you mean 'iql'?"),
        ("data stats neorl2-dmds", "unknown data set 'neorl2-dmds'; did you mean 'neorl2-dmsd'?"),
        ("data fetch Neorl2-DMSD", "unknown data set 'Neorl2-DMSD'; did you mean 'neorl2-dmsd'?"),
        ("train iql hoper-medium-v2", "'hoper-medium-v2'; did you mean 'hopper-medium-v2'?"),
        ("train td3bc neorl2-dmsd", "unknown algorithm 'td3bc'; did you mean 'td3_bc'?"),
        ("run quikstart -o runs", "unknown protocol 'quikstart'; did you mean 'quickstart'?"),
        ("run quickstart -o runs --algorithm ilq", "algorithm 'ilq'; did you mean 'iql'?"),
        ("run tiny -o runs", "unknown protocol 'tiny'; expected one of: corl, cql-paper, "),
        ("run corl -o runs --dataset pen-human-v0", "'pen-human-v0'; did you mean 'pen-human-v1'?"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(
    call: Call, tmp_path: Path, words: str, near: str
) -> None:
    assert near in call(*words.split()).error
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "data stats {}.npz",
        "data stats {}.hdf5",
        "data check ./{}",
        "train bc {}.toml",
        "run {}.toml -o runs",
        "run quickstart -o runs --algorithm {}.py",
        "show {}.toml",
        "show {}.py",
        "scores {} -o scores.csv",
        "report {} -o report",
        "report {}.csv -o report",
        "data fetch neorl2-safety-halfcheetah --from {}",
    ],
)
def test_a_missing_file_is_named(call: Call, tmp_path: Path, words: str) -> None:
    error = call(*words.format("nowhere").split()).error
    assert "nowhere" in error
    assert "no such f" in error  # file or folder
    assert "; " in error  # and what to do
    assert not files(tmp_path)


def test_paths_that_hold_no_protocol(call: Call, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("folder.toml", "binary.toml"):
        for words in (["run", name, "-o", "runs"], ["show", name], ["train", "bc", name]):
            assert f"{name}: expected a TOML file, but" in call(*words).error


def test_a_file_where_a_folder_goes(call: Call, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "scores.csv").write_text(HEAD + "a,d,0,10\nb,d,0,20\n")
    before = files(tmp_path)
    for command in (["run", tiny], ["train", "bc", "card.toml"]):
        assert "file: is a file; expected the folder of runs" in call(*command, "-o", "file").error
        error = call(*command, "-o", "file/runs").error
        assert "file/runs: " in error
        assert "; " in error
    assert (
        "file: not a folder; give a new folder" in call("report", "scores.csv", "-o", "file").error
    )
    assert call("report", "scores.csv", "-o", "file/report").error
    assert files(tmp_path) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written(
    call: Call, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scores.csv").write_text(HEAD + "a,d,0,10\nb,d,0,20\n")
    fake_run(tmp_path / "runs")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    try:
        for words in (
            ["run", tiny, "-o", "locked/runs"],
            ["train", "bc", "card.toml", "-o", "locked/runs"],
            ["scores", "runs", "-o", "locked/scores.csv"],
            ["report", "scores.csv", "-o", "locked/report"],
        ):
            assert "locked" in call(*words).error
        monkeypatch.setenv("OFFRL_CACHE", str(locked))
        assert "set OFFRL_CACHE to a folder that can be written" in (
            call("data", "stats", "card.toml").error
        )
        assert not list(locked.iterdir())
    finally:
        locked.chmod(0o700)
