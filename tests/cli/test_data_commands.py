"""`offrl data`: what works, and one clear line for data that cannot be read."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command_line import CARD, Call, Columns, files, neorl2


def write_npz(folder: Path, **changes: Any) -> Path:
    columns = {key: value for key, value in {**neorl2(), **changes}.items() if value is not None}
    np.savez(folder / "data.npz", **columns)
    return folder / "data.npz"


def write_hdf5(folder: Path, **changes: Any) -> Path:
    columns = neorl2()
    columns_of_d4rl = {
        "observations": columns["obs"],
        "actions": columns["action"],
        "rewards": columns["reward"],
        "terminals": columns["done"].astype(bool),
        "timeouts": columns["truncated"].astype(bool),
        **changes,
    }
    with h5py.File(folder / "data.hdf5", "w") as file:
        for key, value in columns_of_d4rl.items():
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
    assert "does not know" not in checked.stdout
    values = json.loads(call("data", "check", "neorl2-dmsd", "--json").stdout)
    assert values["totals"]["validation"]["transitions"] == 20_000
    values = json.loads(call("data", "stats", "neorl2-dmsd", "--json").stdout)
    assert values["score_mean"] == pytest.approx(56.64, abs=5e-3)  # of the published file
    assert "56.6" in call("data", "stats", "neorl2-dmsd").stdout


def test_data_sets_side_by_side(call: Call, tiny: Path) -> None:
    """Their numbers, what they share, and a page; two sets of one task, and one of another."""
    card, other = tiny.with_name("card.toml"), write_npz(tiny.parent)
    shown = call("data", "stats", card, other, "--reference", other, "-o", "page")
    assert shown.code == 0, shown.stderr
    assert "2 episodes of mine v1 and 2 of data v1 are the same, bit by bit\n" in shown.stdout
    assert shown.stdout.endswith(f"{tiny.with_name('page') / 'index.html'}\n")
    one, two = json.loads(call("data", "stats", card, other, "--reference", card, "--json").stdout)
    assert (one["trajectory_quality"], two["trajectory_quality"]) == (0.5, None)
    assert one["distinct_pairs"] == 20
    assert one["saco"] == two["saco"] == 1
    assert one["positive_sided_variance"] == 0
    narrow = {key: value[:, :2] for key, value in neorl2().items() if key in ("obs", "next_obs")}
    np.savez(other, **(neorl2() | narrow))  # type: ignore[arg-type]
    shown = call("data", "stats", card, other)
    assert shown.code == 0
    assert "note: mine, data: their observations or actions differ in size" in shown.stderr
    checked = call("data", "check", card, "-o", "page")
    assert checked.stdout.endswith("page/index.html\n")
    assert "Findings" in (tiny.with_name("page") / "index.html").read_text()


def test_data_of_ones_own(call: Call, tiny: Path) -> None:
    card = tiny.with_name("card.toml")
    checked = call("data", "check", card)
    assert "the card does not know: transitions, episodes, mean return\n" in checked.stdout
    values = json.loads(call("data", "stats", card, "--json").stdout)
    assert (values["transitions"], values["episodes"], values["score_mean"]) == (20, 2, 50)
    one = write_npz(tiny.parent, truncated=np.zeros(20, np.float32))
    strict: dict[str, Any] = {"parse_constant": lambda text: pytest.fail(f"{text} is not JSON")}
    values = json.loads(call("data", "stats", one, "--json").stdout, **strict)
    assert (values["episodes"], values["return_std"]) == (1, None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: cut(write_npz(f)), ["cannot be read as", "write it again"]),
        (lambda f: write_npz(f, reward=None), ["lacks reward", "expected NeoRL-2's obs, action"]),
        (lambda f: write_npz(f, reward=np.ones(7)), ["reward: 7 rows", "has 20", "same length"]),
        (lambda f: write_npz(f, **bad("obs", np.nan)), ["obs: nan in row 3", "expected finite"]),
        (lambda f: write_npz(f, **bad("reward", np.inf)), ["reward: inf in row 3", "repair or"]),
        (lambda f: write_npz(f, **bad("done", 0.5)), ["done: 0.5 in row 3", "expected 0 or 1"]),
        (lambda f: write_npz(f, **neorl2(0)), ["no rows", "expected at least one transition"]),
        (lambda f: cut(write_hdf5(f)), ["cannot be read as", "write it again"]),
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


SIMULATED = CARD.replace('loader = "neorl2"', 'loader = "d4rl"').replace("good.npz", "data.hdf5")


def test_states_are_made_again_in_the_simulator(call: Call, tmp_path: Path) -> None:
    states = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    held = {"infos/qpos": states, "infos/qvel": states}
    write_hdf5(tmp_path, **held)
    card = tmp_path / "card.toml"
    card.write_text(SIMULATED)
    checked = call("data", "check", card)
    assert checked.code == 0
    assert "data.hdf5 holds states that were not replayed: environment" in checked.stdout
    simulator = "offrl.datasets.d4rl_locomotion:offrl/Hopper-D4RL-v2"
    observations = np.concatenate([states[:, 1:], states], 1)
    write_hdf5(tmp_path, observations=observations, actions=np.tanh(states[:, :3]), **held)
    card.write_text(re.sub('(?m)^id = ".*:.*"$', f'id = "{simulator}"', SIMULATED))
    checked = call("data", "check", card)
    line = "18 steps of data.hdf5 made again in offrl/Hopper-D4RL-v2 (a row holds the state "
    assert line in checked.stdout
    assert "  velocities off by median " in checked.stdout
    assert " (by the file's rounding alone: median " in checked.stdout
    (replay,) = json.loads(call("data", "check", card, "--json").stdout)["replays"]
    assert replay["steps"] == 18
    assert replay["positions"]["maximum"] > 0.01


def test_data_that_changed_since_they_were_read(call: Call, tiny: Path) -> None:
    card, data = tiny.with_name("card.toml"), tiny.with_name("good.npz")
    card.write_text(CARD + "[expected]\ntransitions = 20\n")
    assert call("data", "check", card).code == 0
    np.savez(data, **neorl2(30))  # type: ignore[arg-type]
    checked = call("data", "check", card)
    assert checked.code == 1
    assert "fault: card: mine: 30 transitions, expected 20: the data are not" in checked.stdout
    assert checked.stdout.endswith(" that cannot be checked\n")
    findings = json.loads(call("data", "check", card, "--json").stdout)["findings"]
    (fault,) = (finding for finding in findings if finding["verdict"] == "fault")
    assert fault["subject"] == "card"
    assert "30 transitions, expected 20" in call("data", "stats", card).error


def test_a_table_of_ones_own(call: Call, tmp_path: Path) -> None:
    """A table is imported, checked, described, exported and made smaller."""
    lines = [
        "id,t,x,y,u,r,end",
        *(f"{k // 4},{k % 4},{k},{-k},0.5,{k},{k % 4 // 3}" for k in range(12)),
    ]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    mapping = ("--observation", "[xy]", "--action", "u", "--reward", "r", "--terminal", "end")
    made = call("data", "import", "log.csv", *mapping, "--episode", "id", "--time", "t")
    assert made.code == 0, made.stderr
    assert "observation: x, y; action: u; reward: r" in made.stdout
    assert "3 of 3 episodes terminated, by end" in made.stdout
    assert "12 transitions in 3 episodes of 4" in made.stdout
    named = {path.name for path in files(tmp_path)}
    assert named == {"log.csv", "log.toml", "log.transitions.parquet"}
    checked = call("data", "check", "log.toml")
    assert "12 transitions, 3 episodes, mean return 22" in checked.stdout
    assert call("data", "stats", "log.toml").code == 0
    for name in ("out.parquet", "out.hdf5", "out"):
        assert call("data", "export", "log.toml", "--to", name).stdout == f"{name}\n"
        again = call("data", "check", name)
        assert "12 transitions, 3 episodes, mean return 22" in again.stdout, again.stderr
    some = call("data", "subset", "log.toml", "--episodes", 1, "--by", "top", "-o", "best.toml")
    assert "Made by: subset[episodes=1,by=top] of log version 1" in some.stdout
    assert "4 transitions in 1 episode of 4" in some.stdout
    again = call("data", "import", "log.csv", *mapping, "--episode", "id", "--time", "t")
    assert (again.code, again.stdout) == (2, "")
    assert "log.toml: is there already" in again.stderr
