"""From runs to a line on the local board with three commands, and what stops one."""

import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
from command_line import Call
from made_runs import write_runs

FILLED = {
    "authors = []": 'authors = ["A. Author"]',
    'contact = ""': 'contact = "a@host.org"',
    'code = ""': 'code = "https://github.com/a/code"',
    'licence = ""': 'licence = "MIT"',
    'kind = ""': 'kind = "none"',
}


def test_runs_become_a_line_on_the_local_board(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs")
    words = ("leaderboard", "submit", "runs", "--as", "My method")
    drafted = call(*words)
    assert drafted.code == 2
    assert "submission.toml: a draft was written, with what the runs say" in drafted.error
    about = tmp_path / "submission.toml"
    faulty = call(*words)
    assert faulty.code == 2
    assert "submission.toml: authors: List should have at least 1 item" in faulty.stderr
    assert faulty.stderr.splitlines()[-1] == "error: 5 faults; correct them, then submit again"
    text = about.read_text()
    for empty, filled in FILLED.items():
        text = text.replace(empty, filled)
    about.write_text(text)

    submitted = call(*words)
    assert submitted.code == 0, submitted.stderr
    first, *commands = submitted.stdout.splitlines()
    match = re.fullmatch(r"5 runs, [\d,]+ bytes in (leaderboard/quickstart@4/my-method-.*)", first)
    assert match
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "config", "user.email", "a@host.org"], check=True)
    subprocess.run(["git", "config", "user.name", "A"], check=True)
    assert commands[-1].startswith("git push")
    for command in commands[:-1]:
        subprocess.run(command, shell=True, check=True, capture_output=True)
    checked = call("leaderboard", "check", match[1])
    assert (checked.code, checked.stdout) == (0, f"{match[1]}: 5 runs, no fault\n")
    built = call("leaderboard", "build", "leaderboard", "-o", "site")
    assert (built.code, built.stdout) == (0, "site/index.html\n")
    assert "My method" in (tmp_path / "site" / "protocols" / "quickstart-4.html").read_text()
    assert call("results", "pack", "runs", "-o", "runs.zip").code == 0
    again = call("leaderboard", "submit", "runs.zip", "--as", "My method", "-o", "packed")
    assert again.stdout.splitlines()[0] == first.replace("leaderboard/", "packed/")
    lacking = call("leaderboard", "submit", "runs.zip", "--as", "My method", "--weights")
    assert lacking.error.startswith("runs.zip/quickstart@4/pointmaze-quickstart@1/td3_bc-")


def test_a_fault_is_a_line_and_an_exit_code(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", seeds=[0])
    assert call("results", "pack", "runs", "-o", "mine.zip").code == 0
    (tmp_path / "empty.zip").touch()
    checked = call("leaderboard", "check", "mine.zip", "empty.zip")
    assert checked.code == 1
    lines = checked.stdout.splitlines()
    assert lines[0].startswith("mine.zip: submission.toml: there is none")
    assert lines[1] == (
        "mine.zip: pointmaze-quickstart: lacks the seeds 1, 2, 3, 4 of quickstart; run them"
    )
    assert lines[2].startswith("empty.zip: expected a bundle of offrl results pack, but")
    listed = json.loads(call("leaderboard", "check", "mine.zip", "--json").stdout)
    assert len(listed[0]["faults"]) == 2
    early = call("leaderboard", "submit", "runs", "--as", "mine")  # before a draft is filled in
    assert "lacks the seeds 1, 2, 3, 4 of quickstart; run them" in early.stderr
    assert not (tmp_path / "submission.toml").exists()
    replayed = call("leaderboard", "check", "mine.zip", "--replay", "main")
    assert replayed.error.endswith("--replay 'main': expected a commit, 7 to 64 hexadecimal digits")
    assert call("leaderboard", "build", "none", "-o", "site").code == 2


def test_what_ships_stands_on_the_board(call: Call) -> None:
    folder = Path(__file__).parents[2] / "leaderboard"
    if not folder.is_dir():
        pytest.skip("the submissions lie in the repository, not in the package")
    files = sorted(folder.rglob("*.zip"))
    for path in files:
        with zipfile.ZipFile(path) as bundle:
            names = bundle.namelist()
            rows = [bundle.read(n).splitlines() for n in names if n.endswith("evaluations.jsonl")]
        returns = sum(len(json.loads(row)["returns"]) for run in rows for row in run)
        # No weights, and little for each run or return: the repository stays small.
        assert not [name for name in names if name.endswith(".safetensors")], path
        assert path.stat().st_size < max(10_000 * len(rows), returns), path
    checked = call("leaderboard", "check", *files)
    assert checked.code == 0, checked.stdout
    assert "warning" not in checked.stdout
