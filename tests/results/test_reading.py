"""Tables and logs of others, by their columns and by what the user says of them."""

import gzip
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from offrl.errors import InputError
from offrl.results.collect import collect
from offrl.results.files import read_scores
from offrl.results.reading import Reading, understood
from offrl.results.table import ScoreTable

ROWS = [("bc", "hopper", 0, 10.0), ("bc", "hopper", 1, 12.0), ("iql", "hopper", 0, 30.0)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(table: ScoreTable) -> list[tuple[object, ...]]:
    columns = [c for c in ("algorithm", "dataset", "seed", "step", "score") if c in table.frame]
    return list(table.frame[columns].itertuples(index=False, name=None))


def test_columns_are_found_by_their_names_and_said_so(tmp_path):
    path = write(
        tmp_path / "s.csv",
        "Algo,env_name,Random Seed,eval/Normalized_Score,wall\n"
        + "".join(f"{a},{d},{s},{x},3\n" for a, d, s, x in ROWS),
    )
    table = read_scores(path, complete=False)
    assert rows(table) == ROWS
    (note,) = table.notes
    assert "'Algo' as algorithm, 'env_name' as dataset, 'Random Seed' as seed" in note
    assert "'eval/Normalized_Score' as score" in note


def test_columns_and_names_that_the_user_says_come_first(tmp_path):
    path = write(
        tmp_path / "s.csv",
        "algorithm,env,task,seed,score,reward\n"
        "TD3+BC,a,x,0,1,50\nTD3+BC,b,x,1,1,60\nTD3+BC,c,y,0,1,70\n",
    )
    with pytest.raises(InputError, match=r"'env', 'task' may each be the dataset.*dataset=env"):
        read_scores(path)
    reading = Reading(
        columns={"dataset": "task", "score": "reward"},
        where={"task": ["x"], "env": ["a", "b"]},
        rename={"TD3+BC": "td3_bc", "x": "hopper"},
    )
    table = read_scores(path, reading=reading)
    assert rows(table) == [("td3_bc", "hopper", 0, 50.0), ("td3_bc", "hopper", 1, 60.0)]
    assert any("2 of 3 rows" in note for note in table.notes)


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        (Reading(columns={"score": "rewrd"}), "no column 'rewrd'; did you mean 'reward'"),
        (Reading(where={"phase": ["online"]}), "no column 'phase'"),
        (Reading(where={"algorithm": ["cql"]}), "no row has algorithm 'cql'; it has 'bc'"),
        (Reading(rename={"bcq": "x"}), "rename 'bcq'; did you mean 'bc'"),
        (Reading(fill={"dataset": "x"}), "has a column dataset already"),
        (Reading(normalise=("auto",)), "returns on 'hopper' have no card"),
        (Reading(tolerance=3), "has no steps"),
        (Reading(run_name="{algorithm}"), "no names of runs"),
    ],
)
def test_what_the_table_lacks_is_one_line(reading, says):
    frame = pd.DataFrame(ROWS, columns=["algorithm", "dataset", "seed", "score"])
    with pytest.raises(InputError) as caught:
        understood(frame.assign(reward=1.0), "here", reading)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"columns": {"agent": "a"}}, {"fill": {"x": "y"}}, {"tolerance": -1}]
)
def test_a_reading_knows_its_columns(wrong):
    with pytest.raises(InputError):
        Reading(**wrong)


WIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "algorithms": ("dataset,seed,bc,iql\nhopper,0,10,30\nhopper,1,12,\n", {}),
    "data sets": ("algorithm\tseed\thopper\nbc\t0\t10\nbc\t1\t12\niql\t0\t30\n", {}),
    "seeds": ("algorithm,dataset,seed 0,seed 1\nbc,hopper,10,12\niql,hopper,30,\n", {}),
    "runs": (
        "step,bc-0,bc-1,iql-0\n5,10,12,30\n",
        {"fill": {"dataset": "hopper"}},
    ),
    "decimal commas": ("dataset;seed;bc;iql\nhopper;0;10,0;30,0\nhopper;1;12,0;\n", {}),
    "no seeds": ("dataset,bc,iql\nhopper,10,30\nhopper,12,\n", {}),
    "pandas' index": (",dataset,seed,bc,iql\n0,hopper,0,10,30\n1,hopper,1,12,\n", {}),
}


@pytest.mark.parametrize("kind", WIDE)
def test_a_wide_table_becomes_a_row_per_score(tmp_path, kind):
    text, said = WIDE[kind]
    table = read_scores(write(tmp_path / "w.tsv", text), complete=False, reading=Reading(**said))
    found = [(*row[:3], row[-1]) for row in rows(table)]
    assert found == ROWS
    (note,) = (note for note in table.notes if "column per" in note)
    assert note.endswith("; empty cells, which count as no run: 1") == (
        kind not in ("runs", "data sets")
    )


def test_names_of_runs_say_their_seeds_where_columns_say_the_rest(tmp_path):
    text = "run,algorithm,dataset,score\nbc-7,bc,hopper,10\nbc-3,bc,hopper,12\niql-3,iql,hopper,30"
    table = read_scores(write(tmp_path / "r.csv", text), complete=False)
    assert list(table.frame["seed"]) == [3, 7, 3]


def test_means_with_deviations_are_no_scores(tmp_path):
    path = write(tmp_path / "m.csv", "env,ppo,sac\nhopper,12.5 ± 3.1,20 ± 1\n")
    with pytest.raises(InputError, match=r"means and deviations, as .12\.5 ± 3\.1."):
        read_scores(path)


RUNS = [
    ("IQL-hopper-medium-v2-1a2b3c4d", ("IQL", "hopper-medium-v2")),
    ("my iql_hopper-medium-v2_seed7", ("my iql", "hopper-medium-v2", "7")),
    ("td3/bc hopper-medium-v2 s3", ("td3/bc", "hopper-medium-v2", "3")),
]


def test_names_of_runs_say_their_labels():
    names = [name for name, _ in RUNS[1:]]
    frame = pd.DataFrame({"run": names, "score": 1.0})
    found, notes = understood(frame, "here")
    assert found[["algorithm", "dataset", "seed"]].to_numpy().tolist() == [
        list(labels) for _, labels in RUNS[1:]
    ]
    assert any("my iql_hopper-medium-v2_seed7 is algorithm my iql" in note for note in notes)
    # Without a seed in every name the runs of a cell are numbered, ids such as 1a2b3c4d are none.
    frame = pd.DataFrame({"run": [RUNS[0][0], "IQL-hopper-medium-v2-99999999"], "score": 1.0})
    assert understood(frame, "here")[0]["seed"].tolist() == [0, 1]


def test_a_template_divides_names_at_the_data_set_that_a_card_has():
    frame = pd.DataFrame({"run": ["td3-bc-hopper-medium-v2-3", "a-x-4"], "score": 1.0})
    reading = Reading(run_name="{algorithm}-{dataset}-{seed}")
    found, _ = understood(frame, "here", reading)
    assert found[["algorithm", "dataset", "seed"]].to_numpy().tolist() == [
        ["td3-bc", "hopper-medium-v2", "3"],
        ["a", "x", "4"],
    ]
    with pytest.raises(InputError, match="'b' does not fit"):
        understood(frame.assign(run="b"), "here", reading)
    with pytest.raises(InputError, match=r"do not say their algorithm and dataset.*--run-name"):
        understood(frame.assign(run="what"), "here")


@pytest.mark.parametrize("template", ["{agent}", "{seed}-{seed}", "plain"])
def test_a_template_has_known_fields(template):
    with pytest.raises(InputError, match="run name"):
        Reading(run_name=template)


def test_words_for_steps(tmp_path):
    text = "algorithm,dataset,seed,step,score\na,x,0,final,1\na,x,0,best,9\na,x,1,final,2\n"
    path = write(tmp_path / "s.csv", text)
    table = read_scores(path)
    assert rows(table) == [("a", "x", 0, 1.0), ("a", "x", 1, 2.0)]
    assert "1 rows" in table.notes[0]
    assert "left out" in table.notes[0]
    best = read_scores(path, reading=Reading(where={"step": ["best"]}))
    assert rows(best) == [("a", "x", 0, 9.0)]
    with pytest.raises(InputError, match="step is 'final'"):
        read_scores(write(path, text + "a,x,2,100,3\n"))


def test_returns_are_normalised_by_the_cards(tmp_path):
    """Of hopper-medium-v2: D4RL's random and expert returns, -20.272305 and 3234.3."""
    low, high = -20.272305, 3234.3
    returns = [low, high, (low + high) / 2]
    head = "algorithm,dataset,seed,return\n"
    text = head + "".join(f"a,hopper-medium-v2,{k},{x!r}\n" for k, x in enumerate(returns))
    path = write(tmp_path / "r.csv", text)
    table = read_scores(path)
    assert table.frame["score"].tolist() == pytest.approx([0, 100, 50])
    assert "hopper-medium-v2@" in "".join(table.notes)
    assert read_scores(path, scale=1).frame["score"].tolist() == pytest.approx([0, 1, 0.5])
    other = write(path, text.replace("hopper-medium-v2", "hop"))
    with pytest.raises(InputError, match=r"'hop' have no card .*--rename hop=ID"):
        read_scores(other)
    renamed = read_scores(other, reading=Reading(rename={"hop": "hopper-medium-v2"}))
    assert renamed.frame["score"].tolist() == pytest.approx([0, 100, 50])
    given = read_scores(other, reading=Reading(normalise=("hopper-medium-v2",)))
    assert given.frame["score"].tolist() == pytest.approx([0, 100, 50])
    both = pd.DataFrame(
        {"dataset": "hopper-medium-v2", "algorithm": "a", "seed": 0, "return": high, "score": 7.0},
        index=[0],
    )
    assert understood(both, "here")[0]["score"].tolist() == [7.0]
    said = Reading(normalise=("auto",))
    assert understood(both, "here", said)[0]["score"].tolist() == pytest.approx([100])
    assert understood(both.drop(columns="return").assign(score=low), "here", said)[0][
        "score"
    ].tolist() == pytest.approx([0])
    as_they_are = read_scores(other, reading=Reading(columns={"score": "return"}))
    assert as_they_are.frame["score"].tolist() == returns
    with pytest.raises(InputError, match="line 2"):
        read_scores(write(path, head + "a,hopper-medium-v2,0,good\n"))


def test_steps_within_a_tolerance_are_one_step(tmp_path):
    steps = {("a", 0): (1000, 2000), ("a", 1): (1004, 1998), ("b", 0): (997, 2003)}
    text = "algorithm,dataset,seed,step,score\n" + "".join(
        f"{a},x,{s},{step},{step}\n" for (a, s), several in steps.items() for step in several
    )
    path = write(tmp_path / "s.csv", text)
    with pytest.raises(InputError, match="share no step"):
        read_scores(path).final()
    table = read_scores(path, reading=Reading(tolerance=7))
    assert sorted(set(table.frame["step"])) == [1004, 2003]
    assert rows(table.final()) == [
        ("a", "x", 0, 2003, 2000.0),
        ("a", "x", 1, 2003, 1998.0),
        ("b", "x", 0, 2003, 2003.0),
    ]
    assert "4 rows" in table.notes[0]
    with pytest.raises(InputError, match="joins two evaluations of one run"):
        read_scores(path, reading=Reading(tolerance=1100))


def test_a_table_comes_from_a_pipe(monkeypatch):
    text = "algorithm,dataset,seed,score\n" + "".join(f"{a},{d},{s},{x}\n" for a, d, s, x in ROWS)
    stream = io.TextIOWrapper(io.BytesIO(text.encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    table = collect(["-"], complete=False)
    assert rows(table) == ROWS
    assert table.provenance[0]["source"] == "standard input"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    with pytest.raises(InputError, match="standard input"):
        read_scores("-")


PUBLISHED = [  # file, what is said, algorithms, data sets, rows
    ("d3rlpy_benchmarks_final_best.csv", Reading(), 12, 29, 1490),
    ("neorl2_benchmark_seeds.csv", Reading(rename={"TD3+BC": "td3_bc"}), 9, 7, 2058),
    ("corl_finetune_final_best.csv", Reading(where={"phase": ["online"]}), 6, 10, 240),
    (
        "corl_readme_aggregates.csv",
        Reading(columns={"score": "mean"}, where={"kind": ["last"]}),
        *(10, 30, 300),
    ),
    ("clorl_eop_hparam_scores.csv", Reading(columns={"setting": "seed"}), 9, 36, 4956),
    ("neorl1_raw_results.csv", Reading(columns={"score": "raw_return"}), 7, 51, 7650),
    ("neorl2_published.csv", Reading(columns={"score": "score_mean"}), 9, 7, 63),
    (
        "statistics/scores.csv",
        Reading(where={"suite": ["corl_finetune_online_last"]}),
        *(5, 10, 200),
    ),
    ("protocols/ogbench_published.csv", Reading(columns={"score": "mean"}), 6, 85, 510),
]


@pytest.mark.parametrize(("name", "reading", "algorithms", "datasets", "number"), PUBLISHED)
def test_published_tables_are_read(shared, name, reading, algorithms, datasets, number):
    table = read_scores(shared / "scores" / name, complete=False, reading=reading)
    assert (len(table.algorithms), len(table.datasets)) == (algorithms, datasets)
    assert len(table.frame) == number


def test_published_curves_are_read(shared, tmp_path):
    """The first lines of them: what a header says does not depend on how many follow."""
    with gzip.open(shared / "scores" / "d3rlpy_benchmarks_curves.csv.gz", "rt") as file:
        text = "".join(line for line, _ in zip(file, range(1001), strict=False))
    table = read_scores(write(tmp_path / "c.csv", text))
    frame = pd.read_csv(io.StringIO(text), float_precision="round_trip")
    assert sorted(table.frame["score"]) == sorted(frame["normalized_score"])
    assert table.frame["step"].max() == 500_000
    assert table.frame["seed"].dtype == np.int64
