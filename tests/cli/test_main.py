"""The command line as its users meet it: the main job, help, names and files that are wrong."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import BROKEN, HEAD, PROTOCOL, Call, Result, fake_run, files, spawn

import offrl
from offrl.cli.main import app
from offrl.statistics.resampling import DEFAULT_REPS
from offrl.statistics.significance import ALPHA, PERMUTATIONS


def test_the_main_job(call: Call, tiny: Path, tmp_path: Path) -> None:
    """A protocol to a table and a report, with a run that fails, shown in both."""
    (tmp_path / "broken.py").write_text(BROKEN)
    tiny.write_text(PROTOCOL + '[algorithms.broken]\nalgorithm = "broken.py"\n')
    first = spawn("run", "tiny.toml", "-o", "runs", "-j", 2, "--trust", "tiny.toml", cwd=tmp_path)
    assert first.code == 1
    assert first.stdout == "1 of 2 runs are done in runs\n"
    assert "bc seed 0 at step 20, score " in first.stderr
    assert "failed mine broken seed 0 at step 1: " in first.stderr
    assert "RuntimeError: cannot learn" in first.stderr
    assert "The same command tries the others again" in first.stderr
    assert "Traceback" not in first.stderr
    table = call("scores", "runs", "-o", "new/folder/scores.csv")
    assert table.code == 0
    assert table.stdout == "2 rows in new/folder/scores.csv\n"
    assert "without a score: broken on mine, seed 0: " in table.stderr
    assert "RuntimeError: cannot learn" in table.stderr
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


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The paths of a command and of all below it, with the commands themselves."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from commands(below, f"{path} {name}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_command_is_listed() -> None:
    names = [
        "list",
        "show",
        "data",
        "leaderboard",
        "new",
        "check",
        "results",
        "run",
        "train",
        "status",
        "log",
        "evaluate",
        "export",
        "scores",
        "report",
        "compare",
        "budget",
        "adastop",
        "reproduce",
        "table",
        "plot",
    ]
    below = [
        f"data {name}" for name in ("fetch", "make", "check", "stats", "import", "export", "subset")
    ]
    below += ["new algorithm", "check algorithm"]
    below += [f"results {name}" for name in ("pack", "unpack", "merge", "diff")]
    below += [f"leaderboard {name}" for name in ("check", "build", "submit")]
    assert set(COMMANDS) == {"", *names, *below}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_fits_the_terminal(call: Call, command: str) -> None:
    shown = call(*command.split(), "--help")
    assert shown.code == 0
    assert call(*command.split(), "-h") == shown
    example = f"Example: offrl {command}".rstrip() + " "
    assert example in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown.stdout
    words = shown.stdout.split()
    for parameter in COMMANDS[command].params:
        for option in parameter.opts if parameter.opts[0].startswith("-") else ():
            assert option in words  # on one line
        assert parameter.metavar is None or parameter.metavar in shown.stdout


def test_defaults_are_those_of_the_library() -> None:
    """Help prints them, so that options hold them as numbers."""
    defaults = {
        (command, parameter.name): parameter.default
        for command in ("compare", "budget", "adastop")
        for parameter in COMMANDS[command].params
    }
    for command in ("compare", "adastop"):
        assert defaults[command, "alpha"] == ALPHA
    for command in ("budget", "adastop"):
        assert defaults[command, "reps"] == DEFAULT_REPS
    assert defaults["compare", "permutations"] == PERMUTATIONS


def test_version(call: Call) -> None:
    assert call("--version") == Result(0, f"offrl {offrl.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("show", "Missing argument 'NAME'. See offrl show --help."),
        ("report scores.csv", "Missing option '--output' / '-o'. See offrl report --help."),
        ("shwo iql", "No such command 'shwo'. Did you mean 'show'? See offrl --help."),
        ("data chek neorl2-dmsd", "No such command 'chek'. Did you mean 'check'? See offrl data "),
        ("run quickstart --what", "No such option: --what. See offrl run --help."),
        ("compare x --reps 5", "Invalid value for '--reps': "),
        ("compare x --reps many", "Invalid value for '--reps': "),
        ("list datasets bc", "unexpected extra argument"),
    ],
)
def test_words_that_make_no_command_end_in_one_line(call: Call, words: str, line: str) -> None:
    assert line in call(*words.split()).error


@pytest.mark.parametrize("words", [[], ["data"]])
def test_a_group_of_commands_alone_prints_its_help(call: Call, words: list[str]) -> None:
    shown = call(*words)
    assert shown.code == 2
    assert shown.stdout.split() == call(*words, "--help").stdout.split()
    assert shown.stderr == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("re", {"report", "reproduce", "results"}),
        ("show iq", {"iql", "iql-paper"}),
        ("run quick", {"quickstart"}),
        ("train td3_bc hopper-expert-v", {f"hopper-expert-v{k}" for k in (0, 1, 2)}),
        ("list p", {"protocols"}),
        ("data stats pointmaze-q", {"pointmaze-quickstart"}),
    ],
)
def test_a_shell_completes_commands_and_names_and_nothing_is_written(
    tmp_path: Path, words: str, expected: set[str]
) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "_OFFRL_COMPLETE": "complete_bash",
        "COMP_WORDS": f"offrl {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    done = subprocess.run(
        [sys.executable, "-m", "offrl"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert set(done.stdout.split()) == expected
    assert done.stderr == ""
    assert not files(tmp_path)


def test_a_report_of_a_table_imports_neither_torch_nor_mujoco(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(HEAD + "a,d,0,10\na,d,1,11\nb,d,0,20\nb,d,1,22\n")
    code = (
        "import sys\n"
        "from offrl.cli.main import main\n"
        "sys.argv = 'offrl report scores.csv -o report --reps 100'.split()\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = ('torch', 'mujoco', 'gymnasium', 'minari', 'h5py')\n"
        "    print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == [str(tmp_path / "report" / "index.html"), "[]"]


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


def test_an_interrupt_that_passed_an_exec_ends_by_the_exit_code(tmp_path: Path) -> None:
    """As one does in the import of a dataclass, after which CPython would end by the signal."""
    (tmp_path / "late.py").write_text("exec('raise KeyboardInterrupt')")
    ended = spawn("show", "late.py", cwd=tmp_path)
    assert ended.code == 130
    assert "Interrupted; what was saved stays" in ended.stderr
