"""Readers of what other programs wrote, in the layouts that these programs write."""

import csv
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from offrl.errors import InputError
from offrl.results import formats
from offrl.results.files import read_scores
from offrl.results.reading import Reading
from offrl.results.table import ScoreTable


def rows(table: ScoreTable) -> list[tuple[object, ...]]:
    columns = [c for c in ("algorithm", "dataset", "seed", "step", "score") if c in table.frame]
    return list(table.frame[columns].itertuples(index=False, name=None))


def write_csv(path: Path, lines: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(lines)
    return path


NAMES = ("IQL-hopper-medium-v2-0a1b2c3d", "IQL-hopper-medium-v2-44444444", "BC-hopper-medium-v2-f")
METRIC = "eval/d4rl_normalized_score"


def panel(path: Path, metrics: tuple[str, ...] = (METRIC,)) -> Path:
    """Three runs and two steps, as W&B exports a panel; the last run lacks the last step."""
    ends = ("", "__MIN", "__MAX")
    head = [f"{name} - {m}{end}" for name in NAMES for m in metrics for end in ends]
    lines: list[list[object]] = [["Step", *head]]
    for step in (100, 200):
        cells: list[object] = []
        for k in range(len(NAMES)):
            value = "" if (k, step) == (2, 200) else 10 * k + step / 100
            cells += [value] * (3 * len(metrics))
        lines.append([step, *cells])
    return write_csv(path, lines)


def test_a_panel_of_wandb(tmp_path):
    table = read_scores(panel(tmp_path / "wandb_export.csv"))
    assert rows(table) == [
        ("BC", "hopper-medium-v2", 0, 100, 21.0),
        ("IQL", "hopper-medium-v2", 0, 100, 1.0),
        ("IQL", "hopper-medium-v2", 0, 200, 2.0),
        ("IQL", "hopper-medium-v2", 1, 100, 11.0),
        ("IQL", "hopper-medium-v2", 1, 200, 12.0),
    ]
    assert "Weights & Biases" in table.notes[0]
    assert not any("several values" in note for note in table.notes)


def test_a_panel_of_several_metrics(tmp_path):
    path = panel(tmp_path / "p.csv", ("eval/a", "eval/b"))
    with pytest.raises(InputError, match="no column 'score'"):
        read_scores(path)
    assert len(read_scores(path, reading=Reading(columns={"score": "eval/b"})).frame) == 5
    assert len(read_scores(panel(path, ("eval/what",))).frame) == 5


def test_a_panel_over_time_and_one_of_groups(tmp_path):
    path = write_csv(tmp_path / "p.csv", [["Relative Time (Process)", "a - score"], [1.5, 2]])
    with pytest.raises(InputError, match="set the panel's x axis to Step"):
        read_scores(path)
    head = ["Step", "bc hopper-medium-v2 - s", "bc hopper-medium-v2 - s__MIN"]
    table = read_scores(write_csv(path, [head, [1, 2.0, 1.0]]))
    assert any("several values" in note for note in table.notes)


def test_the_table_of_runs_of_wandb(tmp_path):
    head = ["Name", "State", "Notes", "User", "Created", "Runtime", "env", "seed", METRIC, "_step"]
    lines: list[list[object]] = [
        ["TD3 + BC-1", "finished", "-", "me", "2024", 9, "hopper-medium-v2", 1, 40.5, 99],
        ["TD3 + BC-2", "crashed", "-", "me", "2024", 9, "hopper-medium-v2", 2, "", 12],
        ["TD3 + BC-3", "running", "-", "me", "2024", 9, "hopper-medium-v2", 3, 41.5, 50],
    ]
    table = read_scores(write_csv(tmp_path / "runs.csv", [head, *lines]))
    assert rows(table) == [
        ("TD3 + BC", "hopper-medium-v2", 1, 40.5),
        ("TD3 + BC", "hopper-medium-v2", 3, 41.5),
    ]
    (failure,) = table.failures
    assert (failure.seed, failure.cause) == (2, "it crashed")
    assert any(note.startswith("unfinished") for note in table.notes)


def d3rlpy_run(folder: Path, name: str, value: float) -> None:
    run = folder / name
    run.mkdir(parents=True)
    lines = [f"{k},{1000 * k},{value + k}" for k in (1, 2)]
    (run / "environment.csv").write_text("\n".join(lines) + "\n")
    (run / "loss.csv").write_text("1,1000,0.1\n")
    (run / "params.json").write_text(json.dumps({"algorithm": "AWAC", "gamma": 0.99}))


def test_run_folders_of_d3rlpy(tmp_path):
    d3rlpy_run(tmp_path, "AWAC_hopper-medium-v0_1_20220415133751", 10)
    d3rlpy_run(tmp_path, "AWAC_hopper-medium-v0_2_20220415133751", 20)
    raw = Reading(columns={"score": "return"})
    assert rows(read_scores(tmp_path, reading=raw)) == [
        ("AWAC", "hopper-medium-v0", 1, 1000, 11.0),
        ("AWAC", "hopper-medium-v0", 1, 2000, 12.0),
        ("AWAC", "hopper-medium-v0", 2, 1000, 21.0),
        ("AWAC", "hopper-medium-v0", 2, 2000, 22.0),
    ]
    card = read_scores(tmp_path, reading=Reading(rename={"hopper-medium-v0": "hopper-medium-v2"}))
    assert card.frame["score"].iloc[0] == pytest.approx(100 * (11 + 20.272305) / 3254.572305)
    d3rlpy_run(tmp_path, "AWAC_hopper-medium-v0_2_20230101000000", 20)
    with pytest.raises(InputError, match="ran in AWAC_hopper-medium-v0_2_20220415133751 too"):
        read_scores(tmp_path)


def test_one_run_of_d3rlpy_with_its_own_name(tmp_path):
    d3rlpy_run(tmp_path, "CQL_20220415133751", 10)
    said = Reading(columns={"score": "return"}, fill={"dataset": "mine"})
    table = read_scores(tmp_path / "CQL_20220415133751", reading=said)
    assert [row[:3] for row in rows(table)] == [("AWAC", "mine", 0)] * 2
    (tmp_path / "CQL_20220415133751" / "environment.csv").write_text("1,1000\n")
    with pytest.raises(InputError, match="line 1: 2 cells"):
        read_scores(tmp_path)


def test_what_corl_prints(tmp_path):
    text = "".join(
        f"Training IQL, Env: hopper-medium-v2, Seed: {seed}\nloss 3\n"
        + "".join(
            f"Time steps: {step}\n-----\nEvaluation over 10 episodes: 1432.100 , D4RL score: "
            f"{40 + seed}.500\n"
            for step in (5000, 10000)
        )
        for seed in (0, 1)
    )
    (tmp_path / "slurm-1.out").write_text(text)
    table = read_scores(tmp_path)
    assert rows(table) == [
        ("IQL", "hopper-medium-v2", seed, step, 40.5 + seed)
        for seed in (0, 1)
        for step in (5000, 10000)
    ]
    assert rows(read_scores(tmp_path / "slurm-1.out")) == rows(table)
    (tmp_path / "slurm-1.out").write_text(text[text.index("Evaluation") :])
    with pytest.raises(InputError, match=r"line 1: a score before the line .*Training NAME"):
        read_scores(tmp_path)


def test_runs_that_rlops_keeps(tmp_path):
    for seed in (1, 2):
        run = tmp_path / "openrlbenchmark" / "cleanrl" / f"id{seed}"
        run.mkdir(parents=True)
        config = {"env_id": {"value": "Hopper-v4"}, "exp_name": "ppo", "seed": seed}
        (run / "run.json").write_text(json.dumps({"_attrs": {"config": config}, "id": "x"}))
        history = "".join(f"{k},{10 * k},{k}\n,5,\n" for k in range(1, 151))
        (run / "run_df.csv").write_text(",global_step,charts/episodic_return\n" + history)
    table = read_scores(tmp_path, reading=Reading(columns={"score": "return"}))
    # The last 100 returns are 51 to 150.
    assert rows(table) == [("ppo", "Hopper-v4", 1, 100.5), ("ppo", "Hopper-v4", 2, 100.5)]
    assert any("last 100 returns" in note for note in table.notes)
    (run / "run_df.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column 'charts/episodic_return'"):
        read_scores(tmp_path)


def test_arrays_of_rliable(tmp_path):
    path = tmp_path / "scores.npz"
    iql, bc = np.arange(6.0).reshape(3, 2), np.ones((2, 2))
    np.savez(path, datasets=["hopper", "walker"], IQL=iql, BC=bc)
    table = read_scores(path)
    assert [len(part) for _, part in table.frame.groupby("algorithm")] == [4, 6]
    cell = table.frame[(table.frame["algorithm"] == "IQL") & (table.frame["dataset"] == "walker")]
    assert cell["score"].tolist() == [1.0, 3.0, 5.0]
    np.savez(path, IQL=iql)
    unnamed = read_scores(path)
    assert unnamed.datasets == ["task 1", "task 2"]
    assert any("names no data sets" in note for note in unnamed.notes)
    np.savez(path, IQL=np.zeros((2, 3, 4)), frames=[1, 2, 5, 9], tasks=list("abc"))
    assert sorted(set(read_scores(path).frame["step"])) == [1, 2, 5, 9]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"datasets": ["a"]}, "no array of scores"),
        ({"IQL": [1.0, 2.0]}, "shape (2,)"),
        ({"IQL": np.zeros((2, 3)), "datasets": ["a"]}, "1 data sets named"),
        ({"IQL": np.array([[None]])}, "Object arrays cannot be loaded"),
        ({"IQL": np.array([["a"]])}, "no array of numbers"),
    ],
)
def test_arrays_that_are_no_scores(tmp_path, arrays, says):
    path = tmp_path / "s.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError) as caught:
        read_scores(path)
    assert says in str(caught.value)


def test_a_damaged_source_is_one_line(tmp_path):
    (tmp_path / "s.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"s\.npz: cannot be read as logs of rliable"):
        read_scores(tmp_path / "s.npz")
    d3rlpy_run(tmp_path, "CQL_20220415133751", 10)
    (tmp_path / "CQL_20220415133751" / "params.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as logs of d3rlpy"):
        read_scores(tmp_path)


def test_a_member_that_is_no_array_is_not_passed_over(tmp_path: Path) -> None:
    """It may be the names of the data sets, after damage."""
    path = tmp_path / "s.npz"
    np.savez(path, IQL=np.zeros((2, 3)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("datasets.np", b"")
    with pytest.raises(InputError, match=r"s\.npz: holds 'datasets\.np', which is no array"):
        read_scores(path)


def test_a_source_that_nobody_knows(tmp_path):
    (tmp_path / "s.xyz").write_text("what")
    with pytest.raises(InputError, match=r"unknown kind of file.*d3rlpy") as caught:
        read_scores(tmp_path / "s.xyz")
    assert all(what in str(caught.value) for what in formats.known())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file, but something else"):
        read_scores(tmp_path / "empty")
