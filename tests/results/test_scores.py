import errno
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulated import table, with_another_way

import offrl.results.files
from offrl.errors import InputError
from offrl.results.collect import collect, merge
from offrl.results.failures import Failure
from offrl.results.files import read_scores, write_scores
from offrl.results.table import ScoreTable

HEADER = "algorithm,dataset,seed,score\n"


def grid(algorithms=("A", "B"), datasets=("x", "y"), seeds=(0, 1, 2), steps=None) -> pd.DataFrame:
    rows = [
        {"algorithm": a, "dataset": d, "seed": s, "score": 10.0 * i + 3 * j + s}
        for i, a in enumerate(algorithms)
        for j, d in enumerate(datasets)
        for s in seeds
    ]
    frame = pd.DataFrame(rows)
    if steps is None:
        return frame
    return pd.concat([frame.assign(step=step, score=frame["score"] + step) for step in steps])


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refused(call, *expected: str) -> str:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for text in expected:
        assert text in message
    return message


def write_runs(root: Path, frame: Any) -> Path:
    """A folder of finished runs with these scores, one row per evaluation."""
    for (algorithm, dataset, seed), rows in frame.groupby(["algorithm", "dataset", "seed"]):
        folder = root / "protocol" / str(dataset) / f"{algorithm}-0" / f"seed-{seed}"
        folder.mkdir(parents=True)
        common = {"protocol": "p@1", "dataset": f"{dataset}@1", "seed": int(seed)}
        identity = {
            **common,
            "data_sha256": "",
            "view": "transitions",
            "environment": None,
            "reference": None,
            "label": algorithm,
            "algorithm": algorithm,
            "config": {},
            "code": None,
            "config_hash": "0",
            "steps": 100,
            "evaluation": {},
        }
        record = {"identity": identity, "status": "done", "sessions": []}
        (folder / "run.json").write_text(json.dumps(record))
        row = {
            **common,
            "environment": "E-v1",
            "simulator": {"mujoco": "3.4"},
            "algorithm": algorithm,
            "config": "0",
            "step": 100,
            "return": 0.0,
            "returns": [0.0],
            "lengths": [1],
            "policy": "",
            "action_mode": "deterministic",
            "metrics": {},
            "wall_time": 0.0,
        }
        lines = [json.dumps({**row, "score": score}) + "\n" for score in rows["score"]]
        (folder / "evaluations.jsonl").write_text("".join(lines))
    return root


def on_another_version(root: Path, seeds: Any, version: int, environment: str) -> None:
    """Turns runs into ones on another version of their data set, scored in another simulator."""
    for record in root.rglob("run.json"):
        if int(record.parent.name.removeprefix("seed-")) in seeds:
            for path in (record, record.parent / "evaluations.jsonl"):
                text = path.read_text().replace('@1", "seed"', f'@{version}", "seed"')
                path.write_text(text.replace("E-v1", environment))


def built(kind: str, frame: Any, folder: Path) -> ScoreTable:
    """A table of a kind of source with these rows."""
    path = folder / f"scores.{kind}"
    if kind == "runs":
        return collect([write_runs(path, frame)])
    if kind == "frame":
        return ScoreTable.from_frame(frame)
    if kind == "arrays":
        arrays, names, seeds = {}, {}, {}
        for algorithm, part in frame.groupby("algorithm", sort=False):
            names[algorithm] = [d for d, _ in part.groupby(["dataset"]).size().items()]
            wide = [part[part["dataset"] == name] for name in names[algorithm]]
            seeds[algorithm] = wide[0]["seed"].tolist()
            arrays[algorithm] = np.stack([cell["score"] for cell in wide], axis=1)
        return ScoreTable.from_arrays(arrays, names, seeds=seeds)
    frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False)
    return collect([path])


KINDS = ("csv", "csv.gz", "parquet", "frame", "arrays", "runs")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_table(kind, tmp_path):
    frame = grid()
    frame["score"] = np.random.default_rng(0).normal(size=len(frame)) * np.pi
    table = built(kind, frame, tmp_path)
    columns = ["algorithm", "dataset", "seed", "score"]
    pd.testing.assert_frame_equal(table.frame[columns], frame, check_exact=True)
    assert table.scale == 100


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_is_refused_by_the_names_of_its_cells(kind, tmp_path):
    def source(name: str, change: Any) -> Any:
        (tmp_path / name).mkdir()
        return lambda: built(kind, change(grid()), tmp_path / name)

    missing = source("missing", lambda f: f[(f["algorithm"] != "B") | (f["dataset"] != "y")])
    refused(missing, "'B' has no score on 'y', which 'A' has")
    at = "(algorithm == 'B' and dataset == 'x' and seed in (1, 2))"
    endless = source("infinite", lambda f: f.assign(score=f["score"].where(~f.eval(at), np.inf)))
    twice = source("twice", lambda f: pd.concat([f, f.query("algorithm == 'B' and seed == 1")]))
    if kind == "runs":  # whose folders are damaged one by one, which stops no others
        failed = {(f.algorithm, f.dataset, f.seed) for f in endless().failures}
        assert failed == {("B", "x", 1), ("B", "x", 2)}
        failed = {(f.algorithm, f.dataset, f.seed) for f in twice().failures}
        assert failed == {("B", "x", 1), ("B", "y", 1)}
    else:
        refused(endless, "'B' on 'x', seed 1", "'B' on 'x', seed 2")
        message = refused(twice, "'B'", "1")
    if kind not in (
        "arrays",
        "runs",
    ):  # whose rows are runs: the seed stands there twice, on all data sets
        assert "'B' on 'x', seed 1" in message
        assert "'B' on 'y', seed 1" in message
    single = source("single", lambda f: f[(f["algorithm"] != "B") | (f["seed"] == 0)])().final()
    refused(single.check_several_runs, "fewer than two runs of 'B' on 'x' (1), 'B' on 'y' (1)")


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz", "s.parquet"])
def test_reads_every_kind_of_file_with_every_digit(tmp_path, name):
    frame = grid()
    frame["score"] = np.random.default_rng(0).normal(size=len(frame)) * np.pi
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    table = read_scores(path)
    pd.testing.assert_frame_equal(table.frame, frame, check_exact=True)
    assert table.provenance[0]["source"] == str(path)
    assert len(table.provenance[0]["sha256"]) == 64
    assert table.scale == 100


def test_names_stay_as_written_and_are_sorted_naturally(tmp_path):
    path = write(
        tmp_path / "s.csv",
        '\ufeffalgorithm, dataset ,seed,score,note\nNA, x ,1,2,"a,\nb"\n\n'
        " iql-10,x,1,3,\niql-9,x,1,4,\n",
    )
    table = read_scores(path)
    assert table.algorithms == ["iql-9", "iql-10", "NA"]
    assert table.datasets == ["x"]
    assert list(table.frame.columns) == ["algorithm", "dataset", "seed", "score", "note"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["empty", "algorithm, dataset, seed, score"]),
        (HEADER, ["no rows"]),
        ("algorithm,dataset,seed,my_score\nA,x,1,2\n", ["'score'", "'my_score' is meant"]),
        ("algorithm,dataset,seed,score,score\nA,x,1,2,2\n", ["'score' stands there twice"]),
        (HEADER + "A,x,1,2\nA,x,2,good\n", ["line 3", "'good'", "expected a number"]),
        (HEADER + "A,x,1,2\n\nA,x,one,3\n", ["line 4", "seed is 'one'"]),
        (HEADER + "A,x,1.5,2\n", ["line 2", "whole number"]),
        (HEADER + "A,x,-1,2\n", ["line 2", "0 or more"]),
        (HEADER + "A,x,,2\n", ["line 2", "seed is empty"]),
        (HEADER + ",x,1,2\n", ["line 2", "algorithm is empty"]),
        (HEADER + "A,x,1\n", ["line 2", "3 cells, not 4"]),
        (HEADER + "A,x,1,nan\n", ["line 2", "'A' on 'x', seed 1", "nan", "failure"]),
        (HEADER + "A,x,1,\n", ["line 2", "empty", "failure"]),
        (HEADER + "A,x,1,inf\nA,x,2,-inf\n", ["inf", "1 more"]),
        (HEADER + "A,x,1,2\nA,x,2,2\nA,x,1,4\n", ["line 4", "line 2", "'A' on 'x', seed 1"]),
        (HEADER + "A,x,1,2\nA,y,1,2\nB,y,1,3\n", ["'B' has no score on 'x', which 'A' has"]),
        ("algorithm,dataset,seed,step,score\nA,x,1,late,2\n", ["line 2", "step is 'late'"]),
        ("algorithm,dataset,seed,step,score\nA,x,1,5,2\nA,x,1,5,3\n", ["step 5"]),
    ],
)
def test_bad_csv_is_one_clear_line(tmp_path, text, expected):
    path = write(tmp_path / "bad.csv", text)
    refused(lambda: read_scores(path), str(path), *expected)


def test_bad_files_are_one_clear_line(tmp_path):
    refused(lambda: read_scores(tmp_path / "no.csv"), "no such file")
    refused(lambda: collect(tmp_path / "no"), "no such file or folder", "folder of runs", ".zip")
    refused(lambda: read_scores(write(tmp_path / "s.xlsx", "")), ".parquet")
    refused(lambda: read_scores(write(tmp_path / "s.parquet", "text")), "cannot be read as Parquet")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + "Ä,x,1,2".encode("latin-1"))
    refused(lambda: read_scores(tmp_path / "latin.csv"), "UTF-8")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(HEADER.encode() * 99)[:30])
    refused(lambda: read_scores(tmp_path / "torn.csv.gz"), "cannot be read", "do so again")


def test_frames_in_memory_are_checked_alike():
    frame = grid()
    refused(lambda: ScoreTable.from_frame(frame.drop(columns="seed"), "mine"), "mine", "'seed'")
    refused(lambda: ScoreTable.from_frame(frame.assign(score=True)), "row 0", "expected a number")
    refused(lambda: ScoreTable.from_frame(frame.assign(seed=None)), "seed is empty")
    refused(lambda: ScoreTable.from_frame(frame.assign(seed=2**70)), "2^63")
    refused(lambda: ScoreTable.from_frame(frame, scale=10), "scale 10")
    before = frame.copy()
    table = ScoreTable.from_frame(frame.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(table.frame, frame)
    pd.testing.assert_frame_equal(frame, before)


def test_a_doubtful_scale_is_noted_and_a_sound_one_is_not():
    small = grid().assign(score=lambda f: f["score"] / 30)
    assert "declare scale 1" in ScoreTable.from_frame(small).notes[0]
    assert ScoreTable.from_frame(small, scale=1).notes == ()
    assert "declare scale 100" in ScoreTable.from_frame(grid(), scale=1).notes[0]
    assert ScoreTable.from_frame(grid()).notes == ()


def test_final_takes_the_last_step_that_all_runs_of_a_cell_share():
    frame = grid(steps=(100, 200, 300))
    late = (frame["algorithm"] == "A") & (frame["dataset"] == "x") & (frame["seed"] == 2)
    table = ScoreTable.from_frame(frame[~(late & (frame["step"] > 200))])
    final = table.final()
    steps = final.frame.groupby(["algorithm", "dataset"])["step"].unique().map(list).to_dict()
    assert steps == {("A", "x"): [200], ("A", "y"): [300], ("B", "x"): [300], ("B", "y"): [300]}
    interim, unequal = final.notes
    assert interim.startswith("interim: A on x is scored at step 200")
    assert "seed 2 lacks step 300" in interim
    assert unequal == "unequal steps on x: A at step 200; B at step 300"
    assert table.cells()["A"]["x"].tolist() == [200, 201, 202]
    assert final.final().notes == final.notes


def test_a_score_is_the_mean_of_the_last_evaluations_where_the_table_says_so(tmp_path):
    """Of 1, 2, 4, 8 and 16 the last 3 have the mean 28/3, and up to step 20 there are 2."""
    frame = pd.DataFrame(
        {
            "algorithm": "a",
            "dataset": "x",
            "seed": np.repeat([0, 1], 5),
            "step": [10, 20, 30, 40, 50] * 2,
            "score": [1.0, 2, 4, 8, 16, 10, 20, 40, 80, 160],
            "last_evaluations": 3,
        }
    )
    table = ScoreTable.from_frame(frame)
    write_scores(table, tmp_path / "scores.csv")
    for source in (table, read_scores(tmp_path / "scores.csv")):
        final = source.final()
        np.testing.assert_allclose(final.frame["score"], [28 / 3, 280 / 3])
        assert final.frame["step"].tolist() == [50, 50]
        pd.testing.assert_frame_equal(final.final().frame, final.frame)
    early = ScoreTable.from_frame(frame[frame["step"] <= 20]).final()
    assert early.frame["score"].tolist() == [1.5, 15]
    behind = ScoreTable.from_frame(frame.drop(index=9)).final()  # seed 1 is at step 40
    np.testing.assert_allclose(behind.frame["score"], [14 / 3, 140 / 3])
    once = ScoreTable.from_frame(frame.assign(last_evaluations=1))
    assert "last_evaluations" not in once.frame
    assert once.final().frame["score"].tolist() == [16, 160]


def test_finished_curves_need_no_note():
    table = ScoreTable.from_frame(grid(steps=(100, 200)))
    assert table.final().notes == ()
    assert set(table.final().frame["step"]) == {200}


def test_runs_that_share_no_step_are_refused():
    frame = grid(steps=(100,))
    frame["step"] += frame["seed"]
    refused(
        ScoreTable.from_frame(frame).final, "'A' on 'x'", "share no step", "(the last of seed 0 at "
    )


def test_curves_and_final_scores_stand_side_by_side():
    parts = [grid(("A",), steps=(1, 2)), grid(("B",))]
    table = ScoreTable.from_frame(pd.concat(parts))
    assert str(table.frame["step"].dtype) == "Int64"
    assert table.cells()["B"]["x"].tolist() == [0, 1, 2]
    assert table.cells()["A"]["x"].tolist() == [2, 3, 4]
    mixed = table.frame.copy()
    mixed.loc[0, "step"] = pd.NA
    refused(ScoreTable.from_frame(mixed).final, "some rows have a step")


def test_failures_leave_no_score_behind_and_survive_a_file(tmp_path):
    lost = [Failure("A", "x", 1, "NaN in critic/loss"), Failure("A", "y", 0, "killed")]
    table = ScoreTable.from_frame(grid(steps=(1, 2)), failures=[*lost, lost[0]])
    assert table.failures == tuple(lost)
    assert table.cells()["A"]["x"].tolist() == [2, 4]
    for name in ("s.csv", "s.parquet"):
        path = tmp_path / name
        tidy = table.tidy()
        tidy.to_parquet(path) if name.endswith("parquet") else tidy.to_csv(path, index=False)
        again = read_scores(path)
        assert again.failures == table.failures
        pd.testing.assert_frame_equal(again.frame, table.frame)


def test_a_cell_whose_runs_all_failed_is_known_and_not_missing():
    frame = grid().query("not (algorithm == 'A' and dataset == 'x')")
    refused(lambda: ScoreTable.from_frame(frame), "'A' has no score on 'x'")
    table = ScoreTable.from_frame(frame, failures=[Failure("A", "x", 0, "killed")])
    assert list(table.cells()["A"]) == ["y"]
    ScoreTable.from_frame(frame, complete=False)


def test_collect_merges_sources_and_checks_the_whole(tmp_path):
    one = tmp_path / "one.csv"
    two = tmp_path / "two.parquet"
    frame = grid()
    part = (frame["algorithm"] == "A") & (frame["dataset"] == "x")
    frame[part].to_csv(one, index=False)
    frame[~part].to_parquet(two)
    table = collect([one, two])
    pd.testing.assert_frame_equal(table.frame, frame)
    assert [entry["source"] for entry in table.provenance] == [str(one), str(two)]
    frame.to_parquet(two)
    refused(lambda: collect([one, two]), "two.parquet", "'A' on 'x', seed 0", "one.csv")
    frame[~part & (frame["dataset"] == "x")].to_parquet(two)
    frame[part & (frame["seed"] == 0)].replace("x", "z").to_csv(one, index=False)
    refused(lambda: collect([one, two]), "'A' has no score on 'x'", "one.csv", "two.parquet")
    refused(lambda: collect([]), "no source")
    refused(lambda: collect([tmp_path]), "no run.json")


def test_many_wrong_cells_are_counted_and_a_few_named():
    frame = grid(seeds=range(9))
    message = refused(lambda: ScoreTable.from_frame(frame.assign(score=np.nan)), "(and 35 more: ")
    assert message.count("seed") == 6
    assert "and 30 more)" in message
    message = refused(lambda: ScoreTable.from_frame(pd.concat([frame, frame])), "(and 35 more: ")
    assert message.count("seed") == 6
    lone = pd.concat([grid(("A",), [f"d{k}" for k in range(9)]), grid(("B",), ("d0",))])
    message = refused(lambda: ScoreTable.from_frame(lone), "'B' has no score on 'd1', which 'A'")
    assert "(7 more cells are missing: 'B' on 'd2', " in message
    assert "'B' on 'd6' and 2 more)" in message


def test_one_finished_run_is_not_several():
    lost = [Failure("A", "x", seed, "killed") for seed in (0, 1)]
    table = ScoreTable.from_frame(grid(steps=(1, 2)), failures=lost)
    refused(lambda: table.check_several_runs("mine"), "mine: fewer than two runs of 'A' on 'x' (1)")
    lost.append(Failure("A", "x", 2, "killed"))
    table = ScoreTable.from_frame(grid(), failures=lost)
    refused(table.check_several_runs, "'A' on 'x' (none finished);")
    ScoreTable.from_frame(grid(seeds=(4, 7))).check_several_runs()


def test_arrays_are_aligned_by_name_where_their_columns_are_ordered_otherwise():
    # As published: one matrix has its tasks in another order than the other.
    names = {"A": ["x", "y", "z"], "B": ["z", "x", "y"]}
    scores = {
        "A": np.array([[10.0, 200, 3000], [11, 201, 3001]]),
        "B": np.array([[3005.0, 15, 205], [3006, 16, 206], [3007, 17, 207]]),
    }
    table = ScoreTable.from_arrays(scores, names)
    assert table.cells()["A"]["z"].tolist() == [3000, 3001]
    assert {d: cell.tolist() for d, cell in table.cells()["B"].items()} == {
        "x": [15, 16, 17],
        "y": [205, 206, 207],
        "z": [3005, 3006, 3007],
    }
    assert ScoreTable.from_arrays({"A": scores["A"] / 3001}, names, scale=1).scale == 1


def test_arrays_with_steps_and_seeds_keep_every_label():
    scores = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    table = ScoreTable.from_arrays(
        {"A": scores}, ("x", "y", "z"), seeds=[7, 3], steps=[10, 20, 30, 40]
    )
    row = table.frame.query("dataset == 'y' and seed == 3 and step == 30")
    assert row["score"].tolist() == [scores[1, 1, 2]]
    assert table.cells()["A"]["z"].tolist() == [scores[1, 2, 3], scores[0, 2, 3]]  # by seed
    assert ScoreTable.from_arrays({"A": scores[:, :, 0].tolist()}, list("xyz")).datasets == [*"xyz"]


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        (np.ones((3, 10)), {}, ["'A'", "(3, 10)", "(runs, 3)", "(data sets, runs)", "(1, 0)"]),
        (np.ones((10, 4)), {}, ["'A'", "(10, 4)", "3 data sets", "(runs, 3)"]),
        (np.ones(3), {}, ["'A'", "shape (3,)", "(runs, 3)"]),
        (np.ones((10, 3, 5)), {}, ["'A'", "(10, 3, 5)", "give its steps"]),
        (np.ones((10, 3)), {"steps": [1, 2]}, ["'A'", "(10, 3)", "(runs, 3, 2)"]),
        (
            np.ones((3, 2, 10)),
            {"steps": [1, 2]},
            ["(3, 2, 10)", "(data sets, steps, runs)", "transpose(2, 0, 1)"],
        ),
        (np.ones((0, 3)), {}, ["'A'", "(0, 3) is empty"]),
        ([[1, 2, 3], [1, 2]], {}, ["'A'", "no array of numbers"]),
        (np.array([["1", "2", "3"]]), {}, ["'A'", "no array of numbers"]),
        (np.ones((2, 3), dtype=bool), {}, ["'A'", "no array of numbers"]),
        (np.ones((2, 3)), {"seeds": [1]}, ["'A'", "2 runs, but 1 seeds"]),
        (np.ones((2, 3)), {"seeds": [1, 1]}, ["'A'", "seed 1 stands there twice"]),
        (np.ones((2, 3)), {"seeds": {"B": [1, 2]}}, ["'A'", "no seeds"]),
        (np.ones((2, 3)), {"datasets": {"B": [*"xyz"]}}, ["'A'", "no data sets"]),
        (np.ones((2, 3)), {"datasets": [*"xyx"]}, ["'A'", "dataset x stands there twice"]),
        (np.ones((2, 3, 2)), {"steps": [5, 5]}, ["'A'", "step 5 stands there twice"]),
        (np.ones((2, 3)), {"scale": 10}, ["scale 10"]),
    ],
)
def test_arrays_that_do_not_fit_their_names_are_refused(scores, options, expected):
    options = {"datasets": ["x", "y", "z"], **options}
    refused(lambda: ScoreTable.from_arrays({"A": scores}, **options), *expected)


def test_a_transposed_array_as_advised_is_accepted():
    scores = np.arange(60.0).reshape(3, 2, 10)  # data sets, steps, runs
    table = ScoreTable.from_arrays({"A": scores.transpose(2, 0, 1)}, ["x", "y", "z"], steps=[1, 2])
    row = table.frame.query("dataset == 'y' and seed == 4 and step == 2")
    assert row["score"].item() == scores[1, 1, 4]


def test_arrays_that_are_not_finite_or_lack_a_data_set_are_refused_by_name():
    scores = np.ones((3, 2))
    scores[2, 1] = np.nan
    bad = {"A": np.ones((2, 2)), "B": scores}
    message = refused(lambda: ScoreTable.from_arrays(bad, ["x", "y"]), "'B' on 'y', seed 2;")
    assert "'A'" not in message
    refused(
        lambda: ScoreTable.from_arrays(bad, ["x", "y"], seeds={"A": [1, 2], "B": [4, 5, 9]}),
        "'B' on 'y', seed 9",
    )
    many = {"A": np.full((30, 2), np.inf)}
    refused(lambda: ScoreTable.from_arrays(many, ["x", "y"]), "'A' on 'x', seed 0", "and 55 more")
    unlike = {"A": ["x", "y"], "B": ["x", "z"]}
    good = {"A": np.ones((2, 2)), "B": np.ones((2, 2))}
    refused(lambda: ScoreTable.from_arrays(good, unlike), "'A' has no score on 'z', which 'B' has")
    refused(lambda: ScoreTable.from_arrays({}, ["x"]), "no algorithm")


def with_settings(steps=None) -> Any:
    parts = [grid(steps=steps).assign(setting=s) for s in ("lr=1", "lr=2")]
    parts[1]["score"] += 1000
    return pd.concat(parts)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_settings_are_labels_and_survive_a_file(kind, tmp_path):
    lost = [Failure("B", "y", 2, "killed", "lr=2")]
    table = ScoreTable.from_frame(with_settings().sample(frac=1, random_state=0), failures=lost)
    assert list(table.frame.columns) == ["algorithm", "dataset", "setting", "seed", "score"]
    assert len(table.frame) == 2 * 2 * 2 * 3 - 1  # the other setting's seed 2 stays
    path = tmp_path / f"s.{kind}"
    write_scores(table, path)
    again = read_scores(path)
    pd.testing.assert_frame_equal(again.frame, table.frame)
    assert again.failures == table.failures == tuple(lost)


def test_versions_of_a_data_set_are_never_pooled(tmp_path):
    root = write_runs(tmp_path / "runs", grid(seeds=range(4)))
    assert collect(root).notes == ()
    on_another_version(root, (2, 3), 2, "other/E-v2")
    table = collect(root)
    assert list(table.datasets) == ["x@1", "x@2", "y@1", "y@2"]
    assert sorted(table.frame[table.frame["dataset"] == "x@2"]["seed"].unique()) == [2, 3]
    assert table.notes == (
        "versions of a data set are not pooled: x@1 (E-v1), x@2 (other/E-v2), y@1 (E-v1), "
        "y@2 (other/E-v2)",
    )
    old = collect(root, datasets=["*@1"])
    assert {entry["dataset"] for entry in old.provenance} == {"x@1", "y@1"}
    assert sorted(old.frame["seed"].unique()) == [0, 1]


def test_several_simulators_of_a_data_set_have_a_note(tmp_path):
    one = write_runs(tmp_path / "one", grid(("A",)))
    other = write_runs(tmp_path / "other", grid(("B",)))
    assert collect([one, other]).notes == ()
    on_another_version(other, range(3), 2, "other/E-v2")
    note = (
        "scores from several simulators are pooled or compared: x (E-v1, other/E-v2), "
        "y (E-v1, other/E-v2)"
    )
    assert collect([one, other]).notes == (note,)
    read = collect([collect(one).frame, collect(other).frame, grid(("C",))])
    assert read.notes == (note,)


def test_settings_are_never_pooled():
    table = ScoreTable.from_frame(with_settings())
    message = refused(table.cells, "'A' has 2 settings", "'lr=1', 'lr=2'")
    assert "expected online performance" in message
    assert "algorithm's name" in message
    refused(lambda: table.check_one_setting("mine"), "mine: 'A' has 2 settings")
    # A setting whose runs all failed is a setting still; an unnamed one too.
    one = with_settings().query("setting == 'lr=1'")
    lost = [Failure(a, d, 0, "killed", "lr=2") for a in "AB" for d in "xy"]
    refused(ScoreTable.from_frame(one, failures=lost).cells, "'A' has 2 settings")
    unnamed = with_settings().replace({"setting": {"lr=1": None}})
    refused(ScoreTable.from_frame(unnamed).cells, "'', 'lr=2'")


def test_one_setting_each_is_as_none():
    own = grid().assign(setting=lambda f: f["algorithm"].map({"A": "lr=1", "B": 0.5}))
    table = ScoreTable.from_frame(own)
    assert table.frame["setting"].unique().tolist() == ["lr=1", "0.5"]
    want = ScoreTable.from_frame(grid()).cells()
    for algorithm, cells in table.cells().items():
        assert {d: c.tolist() for d, c in cells.items()} == {
            d: c.tolist() for d, c in want[algorithm].items()
        }
    empty = ScoreTable.from_frame(grid().assign(setting=" "))
    pd.testing.assert_frame_equal(empty.frame, grid())


def test_settings_are_checked_as_cells():
    frame = with_settings()
    refused(
        lambda: ScoreTable.from_frame(pd.concat([frame, frame.query("seed == 1")])),
        "a second score for 'A' with setting 'lr=1' on 'x', seed 1",
    )
    cell = (frame["algorithm"] == "B") & (frame["dataset"] == "y") & (frame["setting"] == "lr=2")
    refused(
        lambda: ScoreTable.from_frame(frame[~cell]),
        "'B' with setting 'lr=2' has no score on 'y', which 'A' with setting 'lr=1' has",
    )
    few = ScoreTable.from_frame(frame[~cell | (frame["seed"] == 0)])
    refused(few.check_several_runs, "of 'B' with setting 'lr=2' on 'y' (1);")
    parts = [(s, ScoreTable.from_frame(frame[frame["setting"] == s])) for s in ("lr=1", "lr=2")]
    pd.testing.assert_frame_equal(
        merge(parts).frame, ScoreTable.from_frame(frame).frame, check_exact=True
    )
    refused(lambda: merge([*parts, parts[0]]), "'A' with setting 'lr=1' on 'x', seed 0 is also")


def test_final_takes_each_settings_own_last_step():
    frame = with_settings(steps=(100, 200))
    late = (frame["setting"] == "lr=2") & (frame["dataset"] == "x") & (frame["algorithm"] == "B")
    final = ScoreTable.from_frame(frame[~(late & (frame["step"] > 100))]).final()
    steps = final.frame.set_index(["algorithm", "dataset", "setting", "seed"])["step"]
    assert len(steps) == 2 * 2 * 2 * 3
    assert set(steps["B", "x", "lr=2"]) == {100}
    assert set(steps.drop(("B", "x", "lr=2"))) == {200}
    assert final.notes == (
        "unequal steps on x: B (lr=2) at step 100; A (lr=1), A (lr=2), B (lr=1) at step 200",
    )


def test_runs_are_scored_on_0_to_100(tmp_path):
    runs = write_runs(tmp_path / "runs", grid(("A",)))
    assert collect([runs]).scale == 100
    refused(lambda: collect([runs], scale=1), str(runs), "0-100", "scale 1")
    grid(("B",)).assign(score=0.5).to_csv(tmp_path / "b.csv", index=False)
    refused(lambda: collect([tmp_path / "b.csv", runs], scale=1), str(runs), "scale 1")
    assert collect([tmp_path / "b.csv"], scale=1).scale == 1


def test_scores_on_two_scales_are_not_merged():
    parts = [
        ("a", ScoreTable.from_frame(grid(("A",)))),
        ("b", ScoreTable.from_frame(grid(("B",)), scale=1)),
    ]
    refused(lambda: merge(parts), "0-1", "0-100")


def test_published_tables_need_only_their_column_renamed(shared):
    path = shared / "scores" / "d3rlpy_benchmarks_curves.csv.gz"
    frame = pd.read_csv(path).rename(columns={"normalized_score": "score"})
    frame = frame[frame["dataset"].str.startswith("hopper-medium") & (frame["algorithm"] != "DT")]
    table = ScoreTable.from_frame(frame)
    assert not table.final().notes
    # Grid settings are not runs: two scores of one seed are refused, not averaged.
    grid_file = shared / "scores" / "neorl2_benchmark_seeds.csv"
    frame = pd.read_csv(grid_file).rename(columns={"normalized_score": "score"})
    message = refused(lambda: ScoreTable.from_frame(frame.drop(columns="step")), "second score")
    assert re.search(r"seed (7|42|210)", message)


@pytest.mark.parametrize("kind", ["s.csv", "s.parquet"])
def test_another_way_to_act_is_no_algorithm_and_survives_a_file(tmp_path, kind):
    failures = [
        Failure("BC", "task-0", 9, "boom"),
        Failure("BC: fast", "task-0", 9, "boom", way="fast"),
        Failure("IQL", "task-0", 9, "boom"),
        Failure("IQL: slow", "task-0", 9, "boom", way="slow"),
    ]
    found = with_another_way(table(("BC", "IQL")), "BC", "fast", failures=failures, complete=False)
    write_scores(found, tmp_path / kind)
    for scores in (found, read_scores(tmp_path / kind, complete=False)):
        assert scores.algorithms == ["BC", "BC: fast", "IQL", "IQL: slow"]
        assert scores.ways == {"BC: fast": "BC", "IQL: slow": "IQL"}
        assert scores.main_algorithms == ["BC", "IQL"]
        assert scores.failures == found.failures
    alone = found.only(["BC: fast", "IQL"])  # where only the other way is kept it stands for BC
    assert alone.main_algorithms == ["BC: fast", "IQL"]


def test_a_name_with_a_colon_and_a_column_of_ones_own_are_no_way_to_act():
    frame = table(("a: b", "a")).frame
    assert ScoreTable.from_frame(frame).ways == {}
    assert ScoreTable.from_frame(frame.assign(way="left")).ways == {}


LINES = [f"{a},{d},{s},{10 * s + len(a)}.5" for a in ("A", "BB") for d in "xy" for s in range(3)]


@pytest.mark.parametrize(
    ("false", "true"),
    [
        ("False", "True"),
        ("0", "1"),
        ("0.0", "1.0"),
        ("", "yes"),
        (False, True),
        ("n/a", "Y"),
        ("ok", "t"),
    ],
)
@pytest.mark.parametrize("name", ["s.csv", "s.parquet", None])
def test_a_column_of_truth_values_says_which_runs_failed(tmp_path, false, true, name):
    frame = grid().assign(failure=false)
    frame.loc[0, "failure"] = true
    if name is None:
        found = ScoreTable.from_frame(frame)
    else:
        path = tmp_path / name
        frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
        found = read_scores(path)
    assert found.failures == (Failure("A", "x", 0, "no cause is given"),)
    assert len(found.frame) == len(frame) - 1


def test_labels_may_stand_in_an_index(tmp_path):
    frame = grid()
    for labels in (["algorithm"], ["algorithm", "dataset", "seed"]):
        frame.set_index(labels).to_parquet(tmp_path / "s.parquet")
        found = read_scores(tmp_path / "s.parquet").frame
        pd.testing.assert_frame_equal(found, ScoreTable.from_frame(frame).frame)
        in_memory = ScoreTable.from_frame(frame.set_index(labels)).frame
        pd.testing.assert_frame_equal(in_memory, found)


def test_a_name_in_two_unicode_forms_is_one_and_a_note_says_so(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    rows = [f"{composed if s else apart},x,{s},{s}" for s in range(3)]
    found = read_scores(write(tmp_path / "s.csv", HEADER + "\n".join(rows)))
    assert found.algorithms == [composed]
    assert any("several Unicode forms" in note for note in found.notes)
    once = read_scores(write(tmp_path / "s.csv", HEADER + "\n".join(rows[1:])))
    assert not any("Unicode" in note for note in once.notes)
    assert once.only([apart]).algorithms == [composed]
    assert once.selected(algorithms=[apart]).algorithms == [composed]


def test_names_in_two_unicode_forms_are_noted_once_wherever_tables_are_joined(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"

    def table(name, label, seeds=(0, 1)):
        rows = [f"{label},x,{seed},{seed}" for seed in seeds]
        return write(tmp_path / name, HEADER + "\n".join(rows))

    def forms(*sources):
        return [note for note in collect(list(sources)).notes if "Unicode" in note]

    two = table("a.csv", composed), table("b.csv", apart, (2, 3))
    assert collect(list(two)).algorithms == [composed]
    assert forms(*two) == [
        "the algorithm 'caf\u00e9' is written in several Unicode forms, which are taken as one name"
    ]
    assert forms(*two, table("c.csv", "bc")) == forms(*two)
    assert forms(table("d.csv", apart), table("e.csv", apart, (4,))) == []
    assert forms(table("f.csv", composed), table("g.csv", "cafe", (4,))) == []
    both = write(tmp_path / "h.csv", HEADER + f"{composed},x,5,1\n{apart},x,6,1\n")
    assert forms(both, *two) == forms(*two)
    failed = Failure(apart, "x", 7, "disk full")
    with_failed = ScoreTable.from_frame(pd.read_csv(two[0]), failures=[failed])
    assert with_failed.algorithms == [composed]
    assert sum("Unicode" in note for note in with_failed.notes) == 1


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("comma", [False, True])
def test_other_separators_and_decimal_commas_are_read(tmp_path, separator, comma):
    lines = [line.replace(",", separator) for line in (HEADER.strip(), *LINES)]
    if comma:
        lines = [line.replace(".", ",") for line in lines]
    found = read_scores(write(tmp_path / "s.csv", "\n".join(lines)))
    plain = read_scores(write(tmp_path / "p.csv", HEADER + "\n".join(LINES)))
    pd.testing.assert_frame_equal(found.frame, plain.frame)
    assert any("decimal points" in note for note in found.notes) == comma


def test_decimal_commas_beside_points_are_refused(tmp_path):
    text = "algorithm;dataset;seed;score\na;x;0;1,5\na;x;1;2.5\n"
    refused(lambda: read_scores(write(tmp_path / "s.csv", text)), "'1,5'", "decimal point")
    text = HEADER + 'a,x,0,"1,5"\n'
    refused(lambda: read_scores(write(tmp_path / "s.csv", text)), "'1,5'", "decimal point")


def test_a_run_that_failed_by_several_causes_is_one_failure():
    frame = grid(("A",), ("x",)).assign(setting="lr=1", failure="")
    again = frame.assign(setting="lr=2")
    frame.loc[0, "score"] = np.nan
    frame.loc[0, "failure"] = "killed"
    lost = [
        Failure("A", "x", 0, "NaN loss", "lr=1"),
        Failure("A", "x", 0, "killed", "lr=1"),
        Failure("A", "x", 0, "killed", "lr=2"),
        Failure("A", "x", 1, "killed", "lr=1"),
    ]
    table = ScoreTable.from_frame(pd.concat([frame, again]), failures=lost)
    assert table.failures == (
        Failure("A", "x", 0, "NaN loss; killed", "lr=1"),
        Failure("A", "x", 1, "killed", "lr=1"),
        Failure("A", "x", 0, "killed", "lr=2"),
    )
    assert ScoreTable.from_frame(table.tidy()).failures == table.failures


@pytest.mark.parametrize("score", [1e76, -1e201, 1.7e308])
def test_scores_whose_squares_are_no_numbers_are_refused(score):
    frame = grid()
    frame.loc[3, "score"] = score
    message = refused(lambda: ScoreTable.from_frame(frame), "1e+75", "'A' on 'y', seed 0")
    assert "\n" not in message
    frame.loc[3, "score"] = 1e75
    ScoreTable.from_frame(frame)


@pytest.mark.parametrize("column", ["seed", "step"])
def test_whole_numbers_have_an_end(tmp_path, column):
    frame = grid(steps=(10, 20)).reset_index(drop=True)
    frame.loc[3, "step"] = None
    largest = frame.assign(**{column: frame[column].astype(object)})
    largest.loc[5, column] = 2**63 - 1
    assert (ScoreTable.from_frame(largest).frame[column] == 2**63 - 1).sum() == 1
    for odd in (np.uint64(2**63), np.float64(2**63), "9223372036854775808", 2**70, "1e30"):
        large = largest.copy()
        large.loc[5, column] = odd
        refused(lambda large=large: ScoreTable.from_frame(large), "row 5", column, "below 2^63")
    whole = frame.assign(**{column: np.full(len(frame), 2**63, np.uint64)})
    whole.to_parquet(tmp_path / "s.parquet")
    refused(lambda: read_scores(tmp_path / "s.parquet"), "row 0", column, "below 2^63")


@pytest.mark.parametrize("column", ["seed", "step", "score"])
@pytest.mark.parametrize("odd", ["\x1e1", "1\x1f", "\x001"])
def test_control_characters_in_a_number_are_refused(column, odd):
    """Python takes some of them for spaces."""
    frame = grid(steps=(10, 20)).reset_index(drop=True).astype({column: object})
    frame.loc[5, column] = odd
    refused(lambda: ScoreTable.from_frame(frame), "row 5", column)


@pytest.mark.parametrize("name", [{"a": 1}, [1, 2]])
@pytest.mark.parametrize("column", ["algorithm", "dataset"])
def test_a_name_is_no_list_and_no_mapping(tmp_path, name, column):
    frame = grid().assign(**{column: [name] * 12})
    refused(lambda: ScoreTable.from_frame(frame), "row 0", f"the {column} is a ", "its name")
    frame.to_parquet(tmp_path / "s.parquet")
    refused(lambda: read_scores(tmp_path / "s.parquet"), f"'{column}' holds lists or records; exp")


def test_names_of_many_digits_are_sorted_by_value(tmp_path):
    names = ["a" + "1" * 4301, "a" + "0" * 9 + "2" * 4300, "a9", "a10", "a010"]
    found = ScoreTable.from_frame(grid(names))
    assert found.algorithms == ["a9", "a010", "a10", names[1], names[0]]
    text = HEADER + f"a,x,{'9' * 5000},1\n"
    message = refused(lambda: read_scores(write(tmp_path / "s.csv", text)), "seed is '999")
    assert len(message) < 400


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "takes more memory than is free"),
        (PermissionError(errno.EACCES, "Permission denied"), "may not be read by this user"),
        (OSError(errno.EIO, "Input/output error"), "the machine's fault"),
        (BlockingIOError(errno.EAGAIN, "locked"), "held by another program"),
    ],
)
@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz", "s.parquet"])
def test_a_file_that_cannot_be_read_here_is_not_called_damaged(
    tmp_path, monkeypatch, name, error, text
):
    grid().to_csv(tmp_path / name)

    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(hashlib, "file_digest", broken)
    message = refused(lambda: read_scores(tmp_path / name), name, text)
    assert "do so again" not in message


def test_many_columns_are_read_or_named_in_short(tmp_path):
    wide = [f"run{k} - eval/normalized_score" for k in range(20_000)]
    head = ",".join(["algorithm", "dataset", "seed", "score", *wide])
    row = "a,x,0,1" + ",2" * len(wide)
    assert len(read_scores(write(tmp_path / "s.csv", f"{head}\n{row}\n")).frame.columns) > 20_000
    panel = write(tmp_path / "p.csv", ",".join(["Step", *wide]) + "\n" + "1" + ",2" * len(wide))
    message = refused(lambda: read_scores(panel), "names of runs", "--run-name", "19995 more")
    assert len(message) < 800
    frame = pd.DataFrame(columns=["algo", "env", "seed", "eval/score"])
    hint = "if 'algo' is meant, rename it, and 'env' to dataset, and 'eval/score' to score"
    say = "(or give --columns algorithm=algo,dataset=env,score=eval/score)"
    missing = "no column 'algorithm' (nor dataset, score)"
    refused(lambda: ScoreTable.from_frame(frame), missing, f"{hint} {say}")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("dataset,BC,IQL", "column per algorithm .*melt(['dataset'], var_name='algorithm', "),
        ("algorithm,seed,hop,walk", "column per dataset .*melt(['algorithm', 'seed'], var_name='d"),
        ("Step,a,b", "a column per run these .*melt(['Step'], .* each run's name becomes"),
        ("algorithm,dataset,s0,s1", "column per seed .*melt(['algorithm', 'dataset'], "),
        (
            "algorithm,dataset,mean,std",
            "a mean is not enough for a comparison .*columns score=mean)",
        ),
    ],
)
def test_a_wide_table_is_told_how_it_becomes_rows(tmp_path, head, says):
    path = write(tmp_path / "w.csv", head + "\n")
    message = refused(lambda: read_scores(path), *says.split(" .*"))
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["csv.gz", "parquet", "parquet without checksums"])
def test_damaged_files_are_one_line_or_what_they_were(tmp_path, kind):
    """Without checksums, as others write Parquet, damage may change values: nothing shows it."""
    table = ScoreTable.from_frame(grid(datasets=[f"task-{k}" for k in range(9)]))
    name = f"s.{kind.split()[0]}"
    path = tmp_path / name
    if kind == "parquet":
        write_scores(table, path)
    elif kind == "csv.gz":
        table.frame.to_csv(path, index=False)
    else:
        table.frame.to_parquet(path)
    pd.testing.assert_frame_equal(read_scores(path).frame, table.frame)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for case in range(150):
        damaged = bytearray(whole[: random.integers(len(whole))] if case % 5 == 0 else whole)
        for place in random.integers(0, max(1, len(damaged)), case % 4) if damaged else ():
            damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(bytes(damaged))
        message = ""
        try:
            found = read_scores(path, complete=False).frame
        except InputError as error:
            message = str(error)
        if message:
            assert name in message
            assert "\n" not in message
        elif kind == "parquet without checksums":
            assert list(found) == list(table.frame)
            assert len(found) == len(table.frame)
        else:
            pd.testing.assert_frame_equal(found, table.frame)


def test_a_parquet_file_whose_column_is_described_wrongly_ends_in_one_line(tmp_path):
    """Asked for the column's description alone, pyarrow aborts the process."""
    path = tmp_path / "s.parquet"
    grid().to_parquet(path)
    # In the footer's schema: a text, which may be missing, becomes a number.
    whole = path.read_bytes()
    assert b"\x15\x0c\x25\x02\x18" in whole
    path.write_bytes(whole.replace(b"\x15\x0c\x25\x02\x18", b"\x15\x08\x25\x02\x18"))
    code = "import sys; from offrl.results.files import read_scores; read_scores(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be read as Parquet" in done.stderr


def test_nested_columns_of_parquet_are_left_out_with_a_note(tmp_path):
    nested: dict[str, Any] = {"returns": [[1.0, 2.0]] * 12, "versions": [{"mujoco": "3.4"}] * 12}
    frame = grid().assign(**nested)
    frame.to_parquet(tmp_path / "s.parquet")
    found = read_scores(tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(found.frame, ScoreTable.from_frame(grid()).frame)
    assert [note.split(" of ")[0] for note in found.notes] == ["'returns'", "'versions'"]
    frame.head(0).to_parquet(tmp_path / "s.parquet")
    refused(lambda: read_scores(tmp_path / "s.parquet"), "no rows")


BOMBS = """
import gzip, resource, sys
import numpy, pandas
from offrl.errors import InputError
from offrl.results.files import read_scores
kind, path = sys.argv[1:]
head = b"algorithm,dataset,seed,score\\n"
if kind == "parquet":
    import pyarrow, pyarrow.parquet
    column = pyarrow.DictionaryArray.from_arrays(numpy.zeros(30_000_000, "int8"), ["x" * 999])
    names = head.decode().strip().split(",")
    pyarrow.parquet.write_table(pyarrow.table(dict.fromkeys(names, column)), path)
    del column
else:
    block = {"line": b"x" * 2**20, "rows": b"a,d,0,1\\n" * 2**17, "field": b"a,d,0," + b" " * 2**20}
    with gzip.open(path, "wb", 1) as file:
        file.write(head)
        for _ in range(1024):
            file.write(block[kind])
def most():  # kilobytes, of this process alone: ru_maxrss begins with those of its parent
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = most()
try:
    read_scores(path)
except InputError as error:
    print(error)
    print(most() - before)
"""


@pytest.mark.parametrize(
    "kind", ["line", pytest.param("rows", marks=pytest.mark.nightly), "field", "parquet"]
)
def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, kind):
    path = tmp_path / ("s.parquet" if kind == "parquet" else "s.csv.gz")
    words = [sys.executable, "-c", BOMBS, kind, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    message, memory = done.stdout.splitlines()
    assert message.startswith(f"{path}: ")
    assert "give fewer columns" in message
    assert int(memory) < 2**21  # kilobytes


def test_a_table_has_no_more_cells_than_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(offrl.results.files, "MOST_CELLS", 48)
    assert len(read_scores(write(tmp_path / "s.csv", HEADER + "\n".join(LINES))).frame) == 12
    lines = [*LINES, "A,x,9,1"]
    refused(lambda: read_scores(write(tmp_path / "s.csv", HEADER + "\n".join(lines))), "48 cells")
    grid(seeds=range(4)).to_parquet(tmp_path / "s.parquet")
    refused(lambda: read_scores(tmp_path / "s.parquet"), "48 cells")


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz", "s.parquet"])
def test_a_file_of_any_size_is_refused_at_once(tmp_path, name):
    path = write(tmp_path / name, HEADER)
    os.truncate(path, 2**43)  # a hole
    refused(lambda: read_scores(path), f"{path}: has more than 1024 MiB; give fewer columns")


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "s.csv")
    refused(lambda: read_scores(tmp_path / "s.csv"), "no file, but something else")


def test_collect_takes_frames_and_tables_beside_files(tmp_path):
    frame = grid(("A", "B", "C"))
    frame[frame["algorithm"] == "A"].to_csv(tmp_path / "a.csv", index=False)
    one = ScoreTable.from_frame(frame[frame["algorithm"] == "C"])
    together = collect([str(tmp_path / "a.csv"), frame[frame["algorithm"] == "B"], one])
    pd.testing.assert_frame_equal(together.frame, ScoreTable.from_frame(frame).frame)
    pd.testing.assert_frame_equal(collect(frame).frame, together.frame)
    pd.testing.assert_frame_equal(read_scores(frame).frame, together.frame)
    assert read_scores(one) is one
    assert len(collect(str(tmp_path / "a.csv")).frame) == 6
    refused(lambda: collect([one, one]), "table 2", "is also in table 1")
    refused(lambda: collect([frame.assign(score=0.5), one], scale=1), "0-100", "table 2")


def test_a_selection_takes_the_rest_along():
    failures = [Failure("A", "z", 0, "boom"), Failure("B", "x", 9, "boom")]
    notes = ["unfinished: A on x, seed 1: step 1 of 2", "unfinished: B on y, seed 1: step 1 of 2"]
    runs = [{"label": a, "dataset": f"{d}@1"} for a in "AB" for d in "xyz"]
    whole = ScoreTable.from_frame(
        with_another_way(ScoreTable.from_frame(grid()), "A", "fast").frame,
        failures=failures,
        notes=notes,
        provenance=[*runs, {"source": "s.csv"}],
        complete=False,
    )
    some = whole.selected(algorithms=["A"], datasets=["[xy]"])
    assert (some.algorithms, some.datasets) == (["A", "A: fast"], ["x", "y"])
    assert some.failures == ()
    assert some.notes == (notes[0],)
    assert some.provenance == (runs[0], runs[1], {"source": "s.csv"})
    shared_by_all = whole.selected(common=True)  # A has z, where it failed, and B does not
    assert shared_by_all.datasets == ["x", "y"]
    assert "common: 2 of 3 data sets, as the others lack an algorithm: z" in shared_by_all.notes
    refused(lambda: whole.selected(algorithms=["a"]), "unknown algorithm 'a'")
    refused(lambda: whole.selected(algorithms=["B"], datasets=["z"]), "none of these")
    apart = ScoreTable.from_frame(
        pd.concat([grid(("A",), ("x",)), grid(("B",), ("y",))]), complete=False
    )
    refused(lambda: apart.selected(common=True), "no data set that all")


def test_a_table_is_shown_in_a_line_and_its_first_rows():
    whole = ScoreTable.from_frame(grid(("<b>",)), provenance=[{"long": "x" * 9999}])
    assert repr(whole) == "ScoreTable(1 algorithms, 2 data sets, 6 rows, scores on 0-100)"
    assert "<b>" not in whole._repr_html_()
    assert len(whole._repr_html_()) < 3000
