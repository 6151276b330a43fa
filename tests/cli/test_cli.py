"""The command line as its users meet it: what works, and one clear line for what cannot."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from offrl.cli import console
from offrl.cli.main import main
from offrl.learning.learner import find_algorithm
from offrl.results.store import RunFolder
from offrl.running.jobs import expand
from offrl.running.protocol import find_protocol

CARD = """
id = "mine"
version = 1
title = "mine"
licence = "none"
citation = "none"
[source]
loader = "neorl2"
files = [{ name = "good.npz" }]
[environment]
id = "gymnasium_robotics:PointMaze_UMaze-v3"
max_episode_steps = 20
observation_keys = ["observation", "desired_goal"]
[reference]
min = 0
max = 20
source = "counted"
"""

PROTOCOL = """
id = "tiny"
version = 1
title = "A protocol for tests"
source = "offrl"
datasets = ["card.toml"]
seeds = [0]
steps = 20
[evaluation]
every = 10
episodes = 2
[algorithms.bc.config]
hidden = [8]
batch_size = 4
"""

BROKEN = """
import dataclasses
import torch
import offrl

@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 4

class Broken(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        self.actions = spec.action_dim

    def update(self, batch):
        raise RuntimeError("cannot learn")

    def act(self, observations):
        return torch.zeros(len(observations), self.actions)
"""

HEAD = "algorithm,dataset,seed,score\n"
Columns = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that bad input leaves on stderr; the library may say what it reads."""
        assert self.code == 2, self
        assert self.stdout == ""
        (line,) = (line for line in self.stderr.splitlines() if ": reading /" not in line)
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


Call = Callable[..., Result]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """Calls the command line in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    # It stays what COLUMNS was when Rich was first asked, where that was set: under xdist it is.
    monkeypatch.setattr(console.out, "_width", None)
    for name in ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    logger = logging.getLogger("offrl")
    handlers, level = list(logger.handlers), logger.level

    def offrl(*words: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["offrl", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        stdout, stderr = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return Result(code, stdout, stderr)

    yield offrl
    logger.handlers[:] = handlers
    logger.setLevel(level)


def spawn(*words: object, cwd: Path) -> Result:
    """Calls the command line as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "offrl", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def files(*folders: Path) -> set[Path]:
    """Every file and folder below; a lock is empty and stays where it is."""
    return {path for f in folders for path in f.rglob("*") if not path.name.endswith(".lock")}


def neorl2(rows: int = 20) -> Columns:
    """Two episodes of ten steps in NeoRL-2's format."""
    random = np.random.default_rng(0)
    observations = random.normal(size=(rows + 1, 6)).astype(np.float32)
    return {
        "obs": observations[:-1],
        "action": random.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "next_obs": observations[1:],
        "reward": np.ones(rows, np.float32),
        "done": np.zeros(rows, np.float32),
        "truncated": (np.arange(rows) % 10 == 9).astype(np.float32),
    }


def write_npz(folder: Path, **changes: Any) -> Path:
    columns = {key: value for key, value in {**neorl2(), **changes}.items() if value is not None}
    np.savez(folder / "data.npz", **columns)
    return folder / "data.npz"


def write_hdf5(folder: Path, **changes: Any) -> Path:
    columns = neorl2()
    told = {
        "observations": columns["obs"],
        "actions": columns["action"],
        "rewards": columns["reward"],
        "terminals": columns["done"].astype(bool),
        "timeouts": columns["truncated"].astype(bool),
        **changes,
    }
    with h5py.File(folder / "data.hdf5", "w") as file:
        for key, value in told.items():
            if value is not None:
                file[key] = value
    return folder / "data.hdf5"


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def bad(column: str, value: float) -> Columns:
    values = neorl2()[column].copy()
    values[3] = value
    return {column: values}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A protocol on a data set of twenty rows."""
    np.savez(tmp_path / "good.npz", **neorl2())  # type: ignore[arg-type]
    (tmp_path / "card.toml").write_text(CARD)
    (tmp_path / "tiny.toml").write_text(PROTOCOL)
    return tmp_path / "tiny.toml"


# What works


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


def test_train_sets_the_config(call: Call, tiny: Path, tmp_path: Path) -> None:
    small = ["--steps", 4, "--every", 2, "--episodes", 1, "--set", "batch_size=4", "-j", 1]
    settings = ["--set", "hidden=[4]", "--set", "output=linear", "--set", "actor_lr=1"]
    done = call("train", "bc", tiny.with_name("card.toml"), "--seed", 5, *small, *settings)
    assert done.code == 0
    assert done.stdout == "1 of 1 runs are done in runs\n"
    assert "bc seed 5 at step 4, score" in done.stderr
    (record,) = (tmp_path / "runs" / "train" / "card").rglob("seed-5/run.json")
    config = json.loads(record.read_text())["identity"]["config"]
    assert config["hidden"] == [4]
    assert config["output"] == "linear"  # a bare word is a string
    assert config["actor_lr"] == 1
    assert config["activation"] == "relu"  # a default


def test_actions_out_of_bounds_are_counted_and_told(call: Call, tiny: Path) -> None:
    actions = np.full((20, 2), 0.5, np.float32)
    actions[:5, 1] = -1.25
    columns: Any = {**neorl2(), "action": actions}
    np.savez(tiny.with_name("good.npz"), **columns)
    done = call("run", tiny, "-o", "runs", "-j", 1)
    assert done.code == 0
    assert "mine: 12.5 % of action entries lie outside [-1, 1]; they stay as they " in done.stderr
    described = call("data", "stats", tiny.with_name("card.toml"))
    assert "12.50% of entries lie outside [-1, 1]" in described.stdout
    np.savez(tiny.with_name("good.npz"), **neorl2())  # type: ignore[arg-type]
    assert "action entries" not in call("run", tiny, "-o", "others", "-j", 1).stderr


@pytest.mark.parametrize("what", ["datasets", "algorithms", "protocols"])
def test_list(call: Call, what: str) -> None:
    rows = json.loads(call("list", what, "--json").stdout)
    shown = call("list", what)
    assert shown.code == 0
    for row in rows:
        assert row["id"] in shown.stdout
    known = {
        "datasets": {"neorl2-dmsd", "pointmaze-quickstart", "hopper-medium-v2"},
        "algorithms": {"bc", "td3_bc", "iql"},
        "protocols": {"quickstart", "neorl2-dmsd"},
    }
    assert known[what] <= {row["id"] for row in rows}
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_list_tells_what_is_scored_and_what_was_measured(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_algorithm("bc"), "agreement", None)
    monkeypatch.setattr(find_algorithm("iql"), "agreement", "authors 09d7002")
    lines = call("list", "algorithms").stdout.splitlines()
    (bc,) = (line for line in lines if line.startswith(" bc "))
    (iql,) = (line for line in lines if line.startswith(" iql "))
    assert "not measured" in bc
    assert "authors 09d7002" in iql
    assert "not measured" in call("show", "bc").stdout
    told = {row["id"]: row for row in json.loads(call("list", "datasets", "--json").stdout)}
    assert told["door-human-v1"]["scored"] is True
    assert told["antmaze-umaze-v2"]["scored"] is False
    lines = call("list", "datasets").stdout.splitlines()
    (maze,) = (line for line in lines if line.startswith(" antmaze-umaze-v2 "))
    assert maze.split()[-1] == "no"


VARIED = """
id = "varied"
version = 1
title = "Two settings"
source = "offrl"
datasets = ["hopper-medium-v2", "hopper-expert-v2", "pen-human-v1", "antmaze-umaze-v2"]
seeds = [3, 1]
steps = 1000
[evaluation]
every = 100
episodes = 10
[algorithms.slow]
algorithm = "td3_bc"
[[algorithms.slow.on]]
datasets = ["hopper-*"]
config = { alpha = 1.25 }
[[algorithms.slow.on]]
datasets = ["pen-*"]
episodes = 7
config = { alpha = 3.0, actor_hidden = [16, 16] }
[algorithms.bc]
datasets = ["pen-*"]
"""


def test_show_prints_what_data_sets_share_and_a_row_per_distinct_setting(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "varied.toml").write_text(VARIED)
    monkeypatch.setenv("COLUMNS", "140")
    wide = call("show", "varied.toml").stdout
    words = [line.split() for line in wide.splitlines()]
    assert "slow (td3_bc) on all data sets" in wide
    assert "steps 1,000, every 100, actor_lr 0.0003" in wide
    assert ["data", "sets", "episodes", "alpha", "actor_hidden"] in words
    assert ["hopper-*", "10", "1.25", "[256,", "256]"] in words
    assert ["pen-human-v1", "7", "3", "[16,", "16]"] in words
    assert ["antmaze-umaze-v2", "10", "2.5", "[256,", "256]"] in words
    assert "bc on pen-human-v1" in wide
    assert ["without", "a", "simulator", "antmaze-umaze-v2"] in words
    assert ["seeds", "3,", "1"] in words
    assert ["runs", "10"] in words  # four sets and one, two seeds each
    monkeypatch.setenv("COLUMNS", "50")
    narrow = call("show", "varied.toml").stdout
    assert max(map(len, narrow.splitlines())) <= 50
    words = [line.split() for line in narrow.splitlines()]
    usual = "unless said below, episodes 10, alpha 1.25, actor_hidden [256, 256]"
    assert usual in " ".join(narrow.split())
    assert ["hopper-*", "as", "above"] in words
    assert ["antmaze-umaze-v2", "alpha", "2.5"] in words


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("iql", {"algorithm"}, ["config.expectile", "0.7", "    L_V  = mean L2_tau("]),
        ("quickstart", {"protocol"}, ["bc on pointmaze-quickstart", "episodes 100", "alpha 2.5"]),
        ("hopper-medium-v2", {"dataset"}, ["reference.max", "3234.3"]),
        ("neorl2-dmsd", {"protocol", "dataset"}, ["7, 42, 210", "849.51"]),
        ("tiny.toml", {"protocol"}, ["batch_size 4"]),
        ("card.toml", {"dataset"}, ["environment.max_episode_steps"]),
        ("broken.py", {"algorithm"}, ["config.batch_size"]),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_show(call: Call, tmp_path: Path, name: str, kinds: set[str], words: list[str]) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    assert set(json.loads(call("show", name, "--json").stdout)) == kinds
    shown = call("show", name)
    assert shown.code == 0
    for word in words:
        assert word in shown.stdout


def test_data_of_neorl2(call: Call, shared: Path, cache: Path) -> None:
    folder = shared / "data" / "neorl2"
    fetched = call("data", "fetch", "neorl2-dmsd", "--from", folder)
    assert fetched.code == 0
    paths = [Path(line) for line in fetched.stdout.splitlines()]
    assert [path.name for path in paths] == ["DMSD-train.npz", "DMSD-val.npz"]
    assert all(path.is_file() and path.is_relative_to(cache) for path in paths)
    checked = call("data", "check", "neorl2-dmsd")
    assert checked.code == 0
    line = "neorl2-dmsd v1 train: 100,000 transitions, 1,000 episodes, mean return 494.453"
    assert line in checked.stdout
    assert "the published checksum of DMSD-train.npz" in checked.stdout
    found = json.loads(call("data", "check", "neorl2-dmsd", "--json").stdout)
    assert found["totals"]["validation"]["transitions"] == 20_000
    found = json.loads(call("data", "stats", "neorl2-dmsd", "--json").stdout)
    assert found["score_mean"] == pytest.approx(56.64, abs=5e-3)  # of the published file
    assert "56.6" in call("data", "stats", "neorl2-dmsd").stdout


def test_data_of_ones_own(call: Call, tiny: Path) -> None:
    card = tiny.with_name("card.toml")
    found = json.loads(call("data", "stats", card, "--json").stdout)
    assert (found["transitions"], found["episodes"], found["score_mean"]) == (20, 2, 50)
    one = write_npz(tiny.parent, truncated=np.zeros(20, np.float32))
    strict: dict[str, Any] = {"parse_constant": lambda text: pytest.fail(f"{text} is not JSON")}
    found = json.loads(call("data", "stats", one, "--json").stdout, **strict)
    assert (found["episodes"], found["return_std"]) == (1, None)


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


# Names


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


# Data


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: cut(write_npz(f)), ["not a whole .npz file", "fetch it again"]),
        (lambda f: write_npz(f, reward=None), ["lacks reward", "expected NeoRL-2's obs, action"]),
        (lambda f: write_npz(f, reward=np.ones(7)), ["reward: 7 rows", "has 20", "same length"]),
        (lambda f: write_npz(f, **bad("obs", np.nan)), ["obs: nan in row 3", "expected finite"]),
        (lambda f: write_npz(f, **bad("reward", np.inf)), ["reward: inf in row 3", "repair or"]),
        (lambda f: write_npz(f, **bad("done", 0.5)), ["done: 0.5 in row 3", "expected 0 or 1"]),
        (lambda f: write_npz(f, **neorl2(0)), ["no rows", "expected at least one transition"]),
        (lambda f: cut(write_hdf5(f)), ["not a whole HDF5 file", "fetch it again"]),
        (lambda f: write_hdf5(f, rewards=None), ["lacks rewards", "expected D4RL's observations"]),
        (lambda f: write_hdf5(f, actions=np.ones((5, 2))), ["actions: 5 rows", "has 20"]),
        (lambda f: write_hdf5(f, rewards=np.full(20, np.nan)), ["rewards: nan in row 0"]),
        (lambda f: write_hdf5(f, rewards=np.full(20, -np.inf)), ["rewards: -inf in row 0"]),
    ],
)
def test_bad_data_are_named(
    call: Call, tmp_path: Path, cache: Path, make: Callable[[Path], Path], words: list[str]
) -> None:
    path = make(tmp_path)
    before = files(tmp_path, cache)
    error = call("data", "stats", path.name).error
    assert error.startswith(f"{path}: ")
    for word in words:
        assert word in error
    assert files(tmp_path, cache) - before <= {cache / "datasets"}


def test_a_checksum_that_differs(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
    write_npz(tmp_path).rename(tmp_path / "SafetyHalfCheetah-train.npz")
    error = call("data", "fetch", "neorl2-safety-halfcheetah", "--from", ".").error
    assert "SafetyHalfCheetah-train.npz: MD5 " in error
    assert "expected c35efec4a25fb45837487ba00f74e1ed; the file is damaged or" in error
    assert not [path for path in files(tmp_path / "cache") if path.is_file()]


def test_a_checksum_of_a_card_of_ones_own(call: Call, tiny: Path) -> None:
    card = tiny.with_name("card.toml")
    card.write_text(CARD.replace('"good.npz"', f'"good.npz", sha256 = "{"0" * 64}"'))
    for words in (["data", "check", card], ["run", tiny, "-o", "runs"]):
        error = call(*words).error
        assert f"{tiny.with_name('good.npz')}: SHA256 " in error
        assert f"expected {'0' * 64}" in error
    assert not tiny.with_name("runs").exists()


def test_data_that_changed_since_they_were_read(call: Call, tiny: Path) -> None:
    card, data = tiny.with_name("card.toml"), tiny.with_name("good.npz")
    card.write_text(CARD + "[expected]\ntransitions = 20\n")
    assert call("data", "check", card).code == 0
    np.savez(data, **neorl2(30))  # type: ignore[arg-type]
    assert "mine: 30 transitions, expected 20" in call("data", "check", card).error


# Cards and protocols


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("version = 1", 'version = "1"', ["card.toml: version: ", "valid integer, found '1'"]),
        ("min = 0", "min = 0\nmax_ = 1", ["card.toml: reference.max_: "]),
        ("max = 20\n", "max = 'x'\n", ["card.toml: reference.max: ", "valid number, found 'x'"]),
        ("licence = ", "lisence = ", ["card.toml: ", "licence"]),
        ('"neorl2"', '"neorl3"', ["unknown loader 'neorl3'; did you mean 'neorl2'?"]),
        ("[source]", "[source", ["card.toml: expected a TOML file, but"]),
        ('"good.npz"', '"gone.npz"', ["gone.npz: no such file", "mine reads its data from there"]),
    ],
)
def test_a_bad_card(call: Call, tiny: Path, before: str, after: str, words: list[str]) -> None:
    assert before in CARD
    tiny.with_name("card.toml").write_text(CARD.replace(before, after))
    error = call("train", "bc", "card.toml").error
    for word in words:
        assert word in error
    assert not tiny.with_name("runs").exists()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("version = 1", 'version = "1"', ["tiny.toml: version: ", "valid integer, found '1'"]),
        ("every = 10", "every = 10\nepochs = 1", ["tiny.toml: evaluation.epochs: "]),
        ("steps = 20", "stepz = 20", ["tiny.toml: ", "step"]),
        ("seeds = [0]", "seeds = [0, 0]", ["tiny.toml: seeds: 0 stands there twice"]),
        ("seeds = [0]", "seeds = [-1]", ["tiny.toml: seeds.0: ", "found -1"]),
        ("every = 10", "every = 0", ["tiny.toml: evaluation.every: ", "greater than 0, found 0"]),
        ("algorithms.bc.", "algorithms.bcc.", ["unknown algorithm 'bcc'; did you mean 'bc'?"]),
        ("hidden", "hiden", ["tiny, algorithm bc: unknown config key 'hiden'; did you mean 'hid"]),
        ("[8]", '["8"]', ["tiny, algorithm bc: hidden.0: ", "valid integer, found '8'"]),
        (
            "batch_size = 4",
            "batch_size = 0",
            ["batch_size: ", "or equal to 1, found 0"],
        ),
        ('"card.toml"', '"good.npz"', ["good: its card has no [environment]", "give a card"]),
        ('"card.toml"', '"bad.toml"', ["bad.toml: no such file"]),
        ("title", "\x00", ["tiny.toml: expected a TOML file, but"]),
    ],
)
def test_a_bad_protocol(call: Call, tiny: Path, before: str, after: str, words: list[str]) -> None:
    assert before in PROTOCOL
    tiny.write_text(PROTOCOL.replace(before, after))
    error = call("run", "tiny.toml", "-o", "runs").error
    for word in words:
        assert word in error
    assert not tiny.with_name("runs").exists()


def test_data_sets_without_a_simulator_are_named_before_anything_starts(
    call: Call, tiny: Path, tmp_path: Path
) -> None:
    mazes = ["antmaze-umaze-v2", "antmaze-large-play-v2", "maze2d-large-v1"]
    names = json.dumps(["card.toml", "pen-human-v1", *mazes])
    tiny.write_text(PROTOCOL.replace('["card.toml"]', names))
    before = files(tmp_path)
    words = ["run", tiny, "-o", "runs"]
    error = call(*words).error
    assert "protocol tiny: policies cannot be scored on 3 of its 5 data sets" in error
    assert "(antmaze-*, maze2d-large-v1)" in error
    assert "--dataset pen-human-v1" in error
    assert "offrl show antmaze-umaze-v2" in error
    error = call(*words, "--dataset", "antmaze-*").error
    assert error.startswith(
        "data set antmaze-umaze-v2: its card has no [environment], so a policy "
    )
    assert files(tmp_path) == before


def test_paths_that_hold_no_protocol(call: Call, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("folder.toml", "binary.toml"):
        for words in (["run", name, "-o", "runs"], ["show", name], ["train", "bc", name]):
            assert f"{name}: expected a TOML file, but" in call(*words).error


# Algorithms


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["mine.py: ", "give the path of a Python file"]),  # a folder
        ("def (", ["mine.py: cannot be imported: SyntaxError: "]),
        ("\x00\x01", ["mine.py: cannot be imported: SyntaxError: "]),
        ("import nowhere", ["mine.py: cannot be imported: ModuleNotFoundError: "]),
        ("x = 1", ["mine.py: expected one class derived from offrl.Learner or", "found 0"]),
        (BROKEN + "\nclass Twin(Broken):\n    pass\n", ["mine.py: expected one class", "found 2"]),
        (BROKEN.replace("    Config = Config", ""), ["class Broken has no Config"]),
        (BROKEN.replace("batch_size", "size"), ["batch_size: ", "found None"]),
    ],
)
def test_a_bad_algorithm(call: Call, tiny: Path, text: str | None, words: list[str]) -> None:
    mine = tiny.with_name("mine.py")
    if text is None:
        mine.mkdir()
    else:
        mine.write_text(text)
    for command in (
        ["run", "tiny.toml", "-o", "runs", "--algorithm", "mine.py"],
        ["train", "./mine.py", "card.toml", "-o", "runs"],
        ["show", "mine.py"],
    ):
        error = call(*command).error
        for word in words:
            assert word in error
    assert not tiny.with_name("runs").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("beta", ["--set beta: expected KEY=VALUE, for example --set beta=10"]),
        ("=10", ["--set =10: expected KEY=VALUE"]),
        ("bata=10", ["unknown config key 'bata'; did you mean 'beta'?"]),
        ("beta=ten", ["beta: ", "valid number, found 'ten'"]),
        ("beta=", ["beta: ", "valid number, found ''"]),
        ("beta=nan", ["beta: Input should be a finite number, found nan"]),
        ("batch_size=2.5", ["batch_size: ", "valid integer, found 2.5"]),
        ("hidden=[1", ["hidden: ", "found '[1'"]),
        ("reward=raws", ["reward: ", "'raw'", "found 'raws'"]),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_a_bad_setting(call: Call, tmp_path: Path, setting: str, words: list[str]) -> None:
    error = call("train", "iql", "card.toml", "--set", setting).error
    for word in words:
        assert word in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--steps 0", ["offrl train: steps: ", "greater than 0, found 0"]),
        ("--every 0", ["evaluation.every: ", "greater than 0, found 0"]),
        ("--episodes -1", ["evaluation.episodes: ", "greater than 0, found -1"]),
        ("--seed -1", ["seeds.0: ", "greater than or equal to 0, found -1"]),
        ("--seed 1 --seed 1", ["seeds: 1 stands there twice"]),
        ("--workers 0", ["workers is 0; expected at least 1"]),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_a_bad_number(call: Call, tmp_path: Path, option: str, words: list[str]) -> None:
    error = call("train", "bc", "card.toml", *option.split()).error
    for word in words:
        assert word in error
    assert not (tmp_path / "runs").exists()


# Scores and reports


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["the file is empty; expected columns algorithm, dataset, seed, score"]),
        (HEAD, ["no rows; expected one row per run"]),
        ("algorithm,dataset,seed\na,d,0\n", ["no column 'score'; expected", "found algorithm, "]),
        (HEAD + "a,d,0,1\na,d,0,2\n", ["line 3: a second score for 'a' on 'd', seed 0", "line 2"]),
        (HEAD + "a,d,0,1\na,d,1,high\n", ["line 3: score is 'high'; expected a number"]),
        (HEAD + "a,d,first,1\n", ["line 2: seed is 'first'; expected a whole number"]),
        (HEAD + "a,d,0,nan\n", ["line 2: score of 'a' on 'd', seed 0 is nan", "finite"]),
        (HEAD + "a,d,0\n", ["line 2: 3 cells, not 4"]),
        (HEAD + "a,d,0,1\na,e,0,1\nb,d,0,1\n", ["'b' has no score on 'e', which 'a' has"]),
    ],
)
def test_bad_scores(call: Call, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "scores.csv").write_text(text)
    error = call("report", "scores.csv", "-o", "report").error
    assert error.startswith("scores.csv")
    for word in words:
        assert word in error
    assert files(tmp_path) == {tmp_path / "scores.csv"}


def test_folders_without_runs(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("notes")
    (tmp_path / "table.txt").write_text(HEAD)
    (tmp_path / "broken.parquet").write_text("PAR1")
    before = files(tmp_path)
    for folder in ("empty", "other"):
        message = f"{folder}: no run.json in this folder; expected a folder"
        assert message in call("report", folder, "-o", "report").error
        assert message in call("scores", folder, "-o", "scores.csv").error
    assert "no such folder" in call("scores", "table.txt", "-o", "scores.csv").error
    assert "table.txt: unknown kind of file" in call("report", "table.txt", "-o", "report").error
    error = call("report", "broken.parquet", "-o", "report").error
    assert "broken.parquet: not readable as Parquet" in error
    assert files(tmp_path) == before


def fake_run(folder: Path) -> None:
    """What one finished run leaves."""
    path = folder / "tiny" / "d" / "bc-00000000" / "seed-0"
    path.mkdir(parents=True)
    common = {"protocol": "tiny@1", "dataset": "d@1", "algorithm": "bc", "seed": 0}
    identity = {**common, "label": "bc", "config": {}, "config_hash": "00000000", "steps": 1}
    identity |= {"view": "transitions", "environment": None, "reference": None, "code": None}
    identity |= {"data_sha256": "", "evaluation": {}}
    record = {"identity": identity, "status": "done", "sessions": []}
    (path / "run.json").write_text(json.dumps(record))
    row = {**common, "config": "00000000", "step": 1, "score": 7.0, "return": 1.0}
    row |= {"returns": [1.0], "lengths": [1], "environment": "e", "simulator": {"mujoco": "3"}}
    row |= {"policy": "", "action_mode": "deterministic", "metrics": {}, "wall_time": 0.0}
    (path / "evaluations.jsonl").write_text(json.dumps(row) + "\n")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("scores.txt", ["scores.txt: expected a name that ends in .csv or .parquet"]),
        ("runs", ["runs: expected a name that ends in .csv or .parquet"]),
        (".", [".: expected a name that ends in .csv or .parquet"]),
        ("folder.csv", ["folder.csv: cannot be written: "]),
        ("file/scores.csv", ["file/"]),
        ("file/sub/scores.csv", ["file/sub/"]),
    ],
)
def test_a_bad_place_for_scores(call: Call, tmp_path: Path, output: str, words: list[str]) -> None:
    fake_run(tmp_path / "runs")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    before = files(tmp_path)
    error = call("scores", "runs", "-o", output).error
    for word in words:
        assert word in error
    assert files(tmp_path) == before
    assert call("scores", "runs", "-o", "sub/scores.parquet").stdout == (
        "1 rows in sub/scores.parquet\n"
    )


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


# Runs


def test_a_run_that_another_process_holds(
    call: Call, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = vars(RunFolder.held)["__wrapped__"]
    monkeypatch.setattr(wait, "__defaults__", (0.2,))  # seconds, instead of ten
    (job,) = expand(find_protocol(str(tiny)))
    held = job.folder(tmp_path / "runs")
    hold = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from offrl.results.store import RunFolder
        with RunFolder(Path(sys.argv[1])).held():
            print("held", flush=True)
            sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        error = call("run", tiny, "-o", tmp_path / "runs").error
        holder.communicate("")
    assert error.startswith(f"{held}: another process holds this run; wait for it, or")
    assert not [path for path in files(held) if path.is_file()]


def write_scores(path: Path, *, settings: bool = False) -> None:
    """Three algorithms on three data sets with five seeds: b is far better than a, c is near a."""
    rng = np.random.default_rng(0)
    rows = []
    for name, level in (("a", 40), ("b", 60), ("c", 40.1)):
        for setting in ("low", "high") if settings else ("",):
            for dataset in ("x", "y", "z"):
                for seed in range(5):
                    score = rng.normal(level, 1)
                    rows.append(f"{name},{dataset},{seed},{score}" + f",{setting}" * settings)
    head = HEAD.strip() + ",setting" * settings
    path.write_text("\n".join([head, *rows]) + "\n")


def test_compare_prints_pairs_with_verdicts(call, tmp_path):
    write_scores(tmp_path / "scores.csv")
    result = call("compare", "scores.csv", "--margin", 4, "-o", "pairs.csv")
    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert any(line.startswith("a b 0.00") and line.endswith("worse") for line in lines)
    assert any(line.startswith("b c 1.00") and line.endswith("better") for line in lines)
    assert any(line.startswith("a c") and "equivalent" in line for line in lines)
    assert "single point" in result.stderr  # P(X > Y) is 0 in every resample
    table = (tmp_path / "pairs.csv").read_text().splitlines()
    assert table[0].startswith("x,y,probability,probability_low,probability_high,difference")
    assert len(table) == 4
    answer = json.loads(call("compare", "scores.csv", "--baseline", "c", "--json").stdout)
    assert [(pair["x"], pair["y"]) for pair in answer["pairs"]] == [("a", "c"), ("b", "c")]
    assert answer["pairs"][0]["verdict"] == "cannot tell"
    assert isinstance(answer["pairs"][0]["seeds"], int)
    assert len(answer["tasks"]) == 6


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--baseline", "d"], ["unknown algorithm 'd'", "a, b, c"]),
        (["--algorithm", "a"], ["two algorithms"]),
        (["--margin", "-1"], ["margin -1"]),
        (["--scale", "10"], ["scale 10", "100"]),
        (["--engine", "numpy"], ["unknown engine 'numpy'", "offrl, rliable"]),
        (["-o", "pairs.txt"], ["pairs.txt", ".csv"]),
    ],
)
def test_compare_refuses_in_one_line(call, tmp_path, words, parts):
    write_scores(tmp_path / "scores.csv")
    error = call("compare", "scores.csv", *words).error
    for part in parts:
        assert part in error


def test_compare_needs_two_runs_and_names_the_cells_without(call, tmp_path):
    (tmp_path / "scores.csv").write_text(HEAD + "a,x,0,1\na,x,1,2\nb,x,0,3\n")
    assert "'b' on 'x'" in call("compare", "scores.csv").error


def test_online_tells_the_value_of_tuning(call, tmp_path):
    write_scores(tmp_path / "grid.csv", settings=True)
    result = call("online", "grid.csv", "-o", "online.csv", "--figure", "online.svg")
    assert result.code == 0
    assert "expected score" in result.stdout
    assert len((tmp_path / "online.csv").read_text().splitlines()) == 1 + 3 * 2
    assert "policies evaluated online" in (tmp_path / "online.svg").read_text()
    rows = json.loads(call("online", "grid.csv", "--budget", 3, "--json").stdout)
    assert [row["budget"] for row in rows] == [3, 3, 3]
    # The settings of one algorithm are not runs of one thing.
    assert "settings" in call("compare", "grid.csv").error
    assert "settings" in call("report", "grid.csv", "-o", "report").error
    write_scores(tmp_path / "scores.csv")
    assert "expected a column 'setting'" in call("online", "scores.csv").error
    assert ".png" in call("online", "grid.csv", "--figure", "online.gif").error
    assert "budget 0" in call("online", "grid.csv", "--budget", 0).error


def test_adastop_decides_and_asks_for_more(call, tmp_path):
    write_scores(tmp_path / "scores.csv")
    plan = ["--size", 5, "--interims", 3]
    rows = json.loads(call("adastop", "scores.csv", "--dataset", "x", *plan, "--json").stdout)
    found = {(row["x"], row["y"]): row["decision"] for row in rows}
    assert found[("a", "b")] == "smaller"
    assert found[("b", "c")] == "larger"
    assert found[("a", "c")] == "undecided"
    shown = call("adastop", "scores.csv", "--dataset", "x", *plan).stdout
    assert "Make 5 more runs of each of: a, c" in shown
    assert "choose with --dataset: x, y, z" in call("adastop", "scores.csv", *plan).error
    assert "did you mean" in call("adastop", "scores.csv", "--dataset", "X", *plan).error


def test_a_report_takes_a_scale_an_engine_and_studentized_intervals(call, tmp_path):
    rows = [f"{a},x,{s},{0.3 + 0.1 * s + (a == 'b') * 0.2}" for a in "ab" for s in range(3)]
    (tmp_path / "scores.csv").write_text(HEAD + "\n".join(rows) + "\n")
    result = call("report", "scores.csv", "-o", "out", "--scale", 1, "--studentized")
    assert result.code == 0
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["scale"] == 1
    assert record["command"] == "offrl report scores.csv -o out --scale 1 --studentized"
    methods = {row["ci_method"] for row in record["summary"]}
    assert methods == {"percentile", "expanded percentile", "studentized"}
    result = call("report", "scores.csv", "-o", "out", "--scale", 1, "--engine", "rliable")
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["engine"] == "rliable"
    assert {row["ci_method"] for row in record["summary"]} == {"percentile"}


def test_names_in_brackets_are_printed_as_they_are(call, tmp_path):
    rows = [f"{a},x,{s},{s + 9 * (a == 'b')}" for a in ("[red]a", "b") for s in range(4)]
    (tmp_path / "scores.csv").write_text(HEAD + "\n".join(rows) + "\n")
    assert "[red]a" in call("compare", "scores.csv").stdout
    assert "[red]a" in call("adastop", "scores.csv", "--size", 4, "--interims", 1).stdout
