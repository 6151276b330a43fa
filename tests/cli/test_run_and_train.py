"""`offrl run` and `offrl train`: what works, and one clear line for bad input."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import BROKEN, CARD, PROTOCOL, Call, files, neorl2

from offrl.running import runner
from offrl.running.jobs import expand
from offrl.running.protocol import find_protocol


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


def test_actions_out_of_bounds_are_counted_and_named(call: Call, tiny: Path) -> None:
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


def test_data_sets_without_reference_returns_are_named_before_anything_starts(
    call: Call, tiny: Path, tmp_path: Path, unscored: Callable[..., None]
) -> None:
    mazes = ["antmaze-umaze-v2", "antmaze-large-play-v2", "maze2d-large-v1"]
    unscored(*mazes, lacking="reference")
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
    assert error.startswith("data set antmaze-umaze-v2: its card has no [reference], so a policy ")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["mine.py: ", "give the path of a Python file"]),  # a folder
        ("def (", ["mine.py: cannot be imported: SyntaxError: "]),
        ("\x00\x01", ["mine.py: cannot be imported: SyntaxError: "]),
        ("raise MemoryError", ["mine.py, line 1: cannot be imported: MemoryError"]),
        ("raise SystemExit(0)", ["mine.py, line 1: cannot be imported: SystemExit: 0"]),
        ("raise GeneratorExit", ["mine.py, line 1: cannot be imported: GeneratorExit"]),
        ("def f(): f()\nf()", ["mine.py, line 1: cannot be imported: RecursionError: "]),
        ("\nimport nowhere", ["mine.py, line 2: cannot be imported: ModuleNotFoundError: "]),
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


def test_an_interrupt_is_one_line_in_every_command(call: Call, tiny: Path) -> None:
    tiny.with_name("mine.py").write_text("raise KeyboardInterrupt")
    for command in (
        ["show", "mine.py"],
        ["run", "tiny.toml", "-o", "runs", "--algorithm", "mine.py"],
    ):
        result = call(*command)
        assert result.code == 130
        assert result.stderr.splitlines() == [
            "Interrupted; what was saved stays, and the same command carries on."
        ]


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
        ("hidden=" + "[" * 5000, ["--set hidden=[[[", "not a value: it is nested more than 50"]),
        ("hidden=" + "[" * 300 + "]" * 300, ["--set hidden=[[[", "nested more than 50"]),
        ("beta=" + "9" * 5000, ["--set beta=9999", "not a value: Exceeds the limit"]),
        ("beta=1\nreward=2", ["beta: ", "valid number"]),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_a_bad_setting(call: Call, tmp_path: Path, setting: str, words: list[str]) -> None:
    error = call("train", "iql", "card.toml", "--set", setting).error
    for word in words:
        assert word in error
    assert len(error) < 400
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--steps 0", ["offrl train: steps: ", "greater than 0, found 0"]),
        ("--every 0", ["evaluation.every: ", "greater than 0, found 0"]),
        ("--episodes -1", ["evaluation.episodes: ", "greater than 0, found -1"]),
        (f"--seed {2**63}", ["seeds.0: ", f"less than {2**63}"]),
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


def test_a_run_that_another_process_holds(
    call: Call, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LOCK_SECONDS", 0.2)  # instead of ten
    tiny.write_text(PROTOCOL.replace("[0]", "[0, 1]"))
    job, _ = expand(find_protocol(str(tiny)))
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
        result = call("run", tiny, "-o", tmp_path / "runs")
        holder.communicate("")
    assert result.code == 1
    assert result.stdout == f"1 of 2 runs are done in {tmp_path / 'runs'}\n"
    assert "done mine bc seed 1 at step 20" in result.stderr
    named = f"process {holder.pid} on host"
    assert f"1 run is being made elsewhere: 1 by {named} " in result.stderr
    assert f"(the first: {held}: another process holds this run: {named} " in result.stderr
    assert not [path for path in files(held) if path.is_file()]
    result = call("run", tiny, "-o", tmp_path / "runs")
    assert (result.code, result.stdout) == (0, f"2 of 2 runs are done in {tmp_path / 'runs'}\n")


@pytest.mark.parametrize("value", ["[" * 2000 + "]" * 2000, "9" * 5000, "{a=" * 2000 + "}" * 2000])
def test_a_setting_nested_or_long_beyond_reason_is_one_line(call: Call, value: str) -> None:
    error = call("train", "bc", "pointmaze-quickstart", "--set", f"hidden={value}").error
    assert "--set hidden=" in error
    assert len(error) < 400


def test_a_grid_and_a_range_of_seeds(call: Call, tiny: Path, tmp_path: Path) -> None:
    small = ["--steps", 4, "--every", 4, "--episodes", 1, "--set", "batch_size=4", "-j", 1]
    grid = ["--grid", "hidden=[4],[2,2]", "--grid", "output=linear,tanh", "--seed", "0..1,5"]
    done = call("train", "bc", tiny.with_name("card.toml"), *small, *grid)
    assert done.code == 0, done.stderr
    assert done.stdout == "12 of 12 runs are done in runs\n"
    assert "done mine bc (hidden=[2,2], output=linear) seed 5 at step 4" in done.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "runs").rglob("run.json")]
    configs = {(str(r["identity"]["config"]["hidden"]), r["identity"]["seed"]) for r in records}
    assert configs == {(hidden, seed) for hidden in ("[4]", "[2, 2]") for seed in (0, 1, 5)}
    table = call("scores", "runs", "-o", "scores.csv")
    assert table.code == 0
    header, *rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert header.split(",")[:4] == ["algorithm", "dataset", "setting", "seed"]
    assert sum('"hidden=[4], output=tanh"' in row for row in rows) == 3
    for command in ("budget", "compare"):
        shown = call(command, "scores.csv", "--json", "--reps", 200)
        assert shown.code == 0, shown.stderr
    pairs = json.loads(shown.stdout)["pairs"]
    assert {pair["x"] for pair in pairs} | {pair["y"] for pair in pairs} == {
        f"bc (hidden={hidden}, output={output})"
        for hidden in ("[4]", "[2,2]")
        for output in ("linear", "tanh")
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--grid", "beta"], "--grid beta: expected KEY=VALUE,VALUE,..., for example"),
        (["--grid", "beta= "], "--grid beta= : expected KEY=VALUE,VALUE"),
        (["--grid", "beta=1", "--grid", "beta=2"], "--grid beta is given twice"),
        (["--set", "beta=1", "--set", "beta=2"], "--set beta is given twice"),
        (["--set", "beta=1", "--grid", "beta=2,3"], "beta is set and has a grid"),
        (["--grid", "beta=1,2,1"], "beta has the value 1 twice"),
        (["--grid", "bata=1,2"], "unknown config key 'bata'; did you mean 'beta'?"),
        (["--grid", "beta=1,ten"], "valid number, found 'ten'"),
        (["--grid", "beta=1\nreward=2"], "valid number, found '1\\nreward=2'"),
        (["--grid", "beta=" + "[" * 500], "--grid beta=[[["),
        (["--grid", f"beta={','.join(map(str, range(60_000)))}"], "makes 60,000 runs"),
        (["--seed", "4..0"], "--seed 4..0: expected a whole number, several as 0,1,2, or"),
        (["--seed", "one"], "--seed one: expected a whole number"),
        (["--seed", "0..99999999999"], "expected at most 50,000 seeds"),
        (["--seed", "0..2,1"], "seeds: 1 stands there twice"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_a_bad_sweep(call: Call, tmp_path: Path, options: list[str], words: str) -> None:
    error = call("train", "iql", "card.toml", *options).error
    assert words in error
    assert len(error) < 400
    assert not (tmp_path / "runs").exists()


def test_options_make_another_protocol(call: Call, tiny: Path, tmp_path: Path) -> None:
    options = ["--steps", 4, "--every", 2, "--episodes", 1, "--set", "bc.hidden=[3,2]"]
    name = "tiny+steps=4+every=2+episodes=1+bc.hidden=3x2"
    shown = call("show", tiny, *options, "--toml")
    assert shown.code == 0
    assert shown.stdout.startswith(f'id = "{name}"\n')
    (tmp_path / "again.toml").write_text(shown.stdout)
    for command in ([tiny, *options], [tiny, "--seed", 1], [tiny], ["again.toml"]):
        done = call("run", *command, "-o", "runs", "-j", 1)
        assert (done.code, done.stdout) == (0, "1 of 1 runs are done in runs\n"), done.stderr
    folders = {path.name for path in (tmp_path / "runs").glob("tiny*")}
    assert folders == {name, "tiny", "tiny+seeds=1"}
    (record,) = (tmp_path / "runs" / name).rglob("run.json")
    identity = json.loads(record.read_text())["identity"]
    assert (identity["protocol"], identity["steps"]) == (f"{name}@1", 4)
    assert len(json.loads(record.read_text())["sessions"]) == 1  # again.toml is the same protocol
    assert call("scores", "runs", "-o", "scores.csv").code == 0
    names = {row.split(",")[0] for row in (tmp_path / "scores.csv").read_text().splitlines()[1:]}
    assert names == {f"bc ({protocol}@1)" for protocol in (name, "tiny", "tiny+seeds=1")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "iql", "--toml"], "iql: is no protocol, which --toml and changes are for"),
        (["show", "pointmaze-quickstart", "--steps", "5"], "pointmaze-quickstart: is no protocol"),
        (["run", "quickstart", "-o", "runs", "--set", "batch=3"], "did you mean 'batch_size'?"),
        (["run", "quickstart", "-o", "runs", "--seed", "1..x"], "--seed 1..x: expected"),
        (["run", "quickstart", "-o", "runs", "--steps", "0"], "protocol quickstart: steps: "),
    ],
)
def test_a_bad_change_of_a_protocol(
    call: Call, tmp_path: Path, words: list[str], message: str
) -> None:
    assert message in call(*words).error
    assert not (tmp_path / "runs").exists()
