import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from offrl.errors import InputError
from offrl.scores import Failure, ScoreTable, collect, merge, read_scores

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
        ("algorithm,dataset,seed,normalized_score\nA,x,1,2\n", ["'score'", "'normalized_score'"]),
        ("algorithm;dataset;seed;score\nA;x;1;2\n", ["no column 'algorithm'"]),
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
        ("algorithm,dataset,seed,step,score\nA,x,1,final,2\n", ["line 2", "step is 'final'"]),
        ("algorithm,dataset,seed,step,score\nA,x,1,5,2\nA,x,1,5,3\n", ["step 5"]),
    ],
)
def test_bad_csv_is_one_clear_line(tmp_path, text, expected):
    path = write(tmp_path / "bad.csv", text)
    refused(lambda: read_scores(path), str(path), *expected)


def test_bad_files_are_one_clear_line(tmp_path):
    refused(lambda: read_scores(tmp_path / "no.csv"), "no such file")
    refused(lambda: read_scores(write(tmp_path / "s.xlsx", "")), ".parquet")
    refused(lambda: read_scores(write(tmp_path / "s.parquet", "text")), "not readable as Parquet")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + "Ä,x,1,2".encode("latin-1"))
    refused(lambda: read_scores(tmp_path / "latin.csv"), "UTF-8")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(HEADER.encode() * 99)[:30])
    refused(lambda: read_scores(tmp_path / "torn.csv.gz"), "not readable")


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


def test_finished_curves_need_no_note():
    table = ScoreTable.from_frame(grid(steps=(100, 200)))
    assert table.final().notes == ()
    assert set(table.final().frame["step"]) == {200}


def test_runs_that_share_no_step_are_refused():
    frame = grid(steps=(100,))
    frame["step"] += frame["seed"]
    refused(ScoreTable.from_frame(frame).final, "'A' on 'x'", "share no step")


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


def test_scores_on_two_scales_are_not_merged():
    parts = [
        ("a", ScoreTable.from_frame(grid(("A",)))),
        ("b", ScoreTable.from_frame(grid(("B",)), scale=1)),
    ]
    refused(lambda: merge(parts), "0-1", "0-100")


def test_published_tables_need_only_their_column_renamed(shared):
    path = shared / "scores" / "d3rlpy_benchmarks_curves.csv.gz"
    refused(lambda: read_scores(path), "rename it")
    frame = pd.read_csv(path).rename(columns={"normalized_score": "score"})
    frame = frame[frame["dataset"].str.startswith("hopper-medium") & (frame["algorithm"] != "DT")]
    table = ScoreTable.from_frame(frame)
    assert not table.final().notes
    # Grid settings are not runs: two scores of one seed are refused, not averaged.
    grid_file = shared / "scores" / "neorl2_benchmark_seeds.csv"
    frame = pd.read_csv(grid_file).rename(columns={"normalized_score": "score"})
    message = refused(lambda: ScoreTable.from_frame(frame.drop(columns="step")), "second score")
    assert re.search(r"seed (7|42|210)", message)
