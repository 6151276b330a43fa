"""Commands that read scores: what works, and one clear line for bad tables and places."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import HEAD, Call, fake_run, files, write_scores

from offrl.results.files import read_scores, write_csv


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
    assert "unknown kind of file" in call("scores", "table.txt", "-o", "scores.csv").error
    assert "table.txt: unknown kind of file" in call("report", "table.txt", "-o", "report").error
    error = call("report", "broken.parquet", "-o", "report").error
    assert "broken.parquet: cannot be read as Parquet" in error
    assert files(tmp_path) == before


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


def test_a_report_takes_a_scale_an_engine_and_studentized_intervals(call, tmp_path):
    rows = [f"{a},x,{s},{0.3 + 0.1 * s + (a == 'b') * 0.2}" for a in "ab" for s in range(3)]
    (tmp_path / "scores.csv").write_text(HEAD + "\n".join(rows) + "\n")
    words = ("report", "scores.csv", "-o", "out", "--reps", 200, "--scale", 1)
    result = call(*words, "--studentized")
    assert result.code == 0
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["scale"] == 1
    command = "offrl report scores.csv -o out --reps 200 --scale 1 --studentized"
    assert record["command"] == command
    methods = {row["ci_method"] for row in record["summary"]}
    assert methods == {"percentile", "expanded percentile", "studentized"}
    result = call(*words, "--engine", "rliable")
    assert result.code == 0
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["engine"] == "rliable"
    assert {row["ci_method"] for row in record["summary"]} == {"percentile"}


def test_a_report_takes_a_title_an_order_labels_groups_and_formats(call, tmp_path):
    write_scores(tmp_path / "scores.csv")
    words = ["report", "scores.csv", "-o", "out", "--reps", 200, "--title", "My paper"]
    words += ["--order", "c", "--label", "c=Ours (β=3)", "--group", "xy=[xy]", "--figures", "pdf"]
    assert call(*words).code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h1><bdi>My paper</bdi></h1>" in page
    rows = re.findall(r'<th scope="row"><span class="row keyed">.*?<bdi>(.*?)</bdi>', page)
    assert rows[:3] == ["Ours (β=3)", "b", "a"]  # the order asked for, then by IQM
    assert "<bdi>xy</bdi>: IQM" in page
    assert (tmp_path / "out" / "figures" / "iqm.pdf").exists()
    assert not (tmp_path / "out" / "figures" / "iqm.png").exists()
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (record["title"], record["labels"]) == ("My paper", {"c": "Ours (β=3)"})
    assert call(*words[:6], "--figures", "gif").error.startswith("figures as 'gif'")
    assert call(*words[:6], "--order", "x1").error.startswith("unknown algorithm or data set")


def test_a_report_shows_holes_and_leaves_them_out_when_asked(call, tmp_path):
    write_scores(tmp_path / "scores.csv")
    text = (tmp_path / "scores.csv").read_text()
    (tmp_path / "holes.csv").write_text(re.sub(r"c,z,.*\n", "", text))
    assert call("report", "holes.csv", "-o", "out", "--reps", 200).code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('class="hole"') == 1
    assert "'c' has no score on 'z', which 'a' has" in call("compare", "holes.csv").error
    assert "1 algorithm without an aggregate" in page
    assert call("report", "holes.csv", "-o", "out", "--reps", 200, "--common").code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('class="hole"') == 0
    assert "on 2 data sets" in page


@pytest.mark.parametrize("said", ["", "Unable to allocate 9 GiB"])
def test_memory_that_runs_out_is_one_line(call, tmp_path, monkeypatch, said):
    def all_of_it(*_: object, **__: object) -> None:
        raise MemoryError(said)

    write_scores(tmp_path / "scores.csv")
    monkeypatch.setattr("offrl.statistics.comparison.compare", all_of_it)
    error = call("compare", "scores.csv").error
    assert "more memory than is free" in error
    assert said in error
    assert "--reps" in error


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
    assert (answer["correction"], answer["statistic"]) == (
        "closed",
        "studentized difference of means",
    )
    holm = json.loads(call("compare", "scores.csv", "--correction", "holm", "--json").stdout)
    assert holm["correction"] == "holm"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--baseline", "d"], ["unknown algorithm 'd'", "a, b, c"]),
        (["--algorithm", "a"], ["two algorithms"]),
        (["--margin", "-1"], ["margin -1"]),
        (["--scale", "10"], ["scale 10", "100"]),
        (["--correction", "none"], ["unknown correction 'none'", "closed, holm"]),
        (["--engine", "numpy"], ["unknown engine 'numpy'", "offrl, rliable"]),
        (["-o", "pairs.txt"], ["pairs.txt", ".csv"]),
    ],
)
def test_bad_options_of_compare_end_in_one_line(call, tmp_path, words, parts):
    write_scores(tmp_path / "scores.csv")
    error = call("compare", "scores.csv", *words).error
    for part in parts:
        assert part in error


def test_compare_needs_two_runs_and_names_the_cells_without(call, tmp_path):
    (tmp_path / "scores.csv").write_text(HEAD + "a,x,0,1\na,x,1,2\nb,x,0,3\n")
    assert "'b' on 'x'" in call("compare", "scores.csv").error


def test_budget_gives_the_value_of_tuning(call, tmp_path):
    write_scores(tmp_path / "grid.csv", settings=True)
    result = call("budget", "grid.csv", "-o", "budget.csv", "--figure", "budget.svg")
    assert result.code == 0
    assert "expected score" in result.stdout
    assert len((tmp_path / "budget.csv").read_text().splitlines()) == 1 + 3 * 2
    assert "policies evaluated online" in (tmp_path / "budget.svg").read_text()
    rows = json.loads(call("budget", "grid.csv", "--budget", 3, "--json").stdout)
    assert [row["budget"] for row in rows] == [3, 3, 3]
    # The settings of one algorithm are not runs of one thing.
    assert "a (low)" in call("compare", "grid.csv").stdout
    assert call("report", "grid.csv", "-o", "report", "--reps", 100).code == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<h2>Tuning budget</h2>" in page
    assert "a (low)" in page
    write_scores(tmp_path / "scores.csv")
    assert "expected a column 'setting'" in call("budget", "scores.csv").error
    assert ".png" in call("budget", "grid.csv", "--figure", "budget.gif").error
    assert "budget 0" in call("budget", "grid.csv", "--budget", 0).error


def test_the_former_name_of_budget_is_answered_with_the_new_one(call):
    for words in (["grid.csv", "--figure", "x.png"], ["--help"], []):
        assert call("online", *words).error == "offrl online is now offrl budget"
    assert "│ online" not in call("--help").stdout


def test_adastop_decides_and_names_who_needs_more_runs(call, tmp_path):
    write_scores(tmp_path / "scores.csv")
    plan = ["--size", 5, "--interims", 3]
    rows = json.loads(call("adastop", "scores.csv", "--dataset", "x", *plan, "--json").stdout)
    decisions = {(row["x"], row["y"]): row["decision"] for row in rows}
    assert decisions[("a", "b")] == "smaller"
    assert decisions[("b", "c")] == "larger"
    assert decisions[("a", "c")] == "undecided"
    shown = call("adastop", "scores.csv", "--dataset", "x", *plan).stdout
    assert "Make 5 more runs of each of: a, c" in shown
    assert "choose with --dataset: x, y, z" in call("adastop", "scores.csv", *plan).error
    assert "did you mean" in call("adastop", "scores.csv", "--dataset", "X", *plan).error


def test_adastop_takes_ways_to_act_that_are_named(call, tmp_path):
    rows = [
        f"{name},x,{s},{s + 9 * (way == '')},{way}"
        for name, way in (("a", ""), ("a: fast", "fast"), ("b", ""))
        for s in range(4)
    ]
    (tmp_path / "s.csv").write_text(HEAD.strip() + ",way\n" + "\n".join(rows) + "\n")
    plan = ("adastop", "s.csv", "--size", 4, "--interims", 1)
    default = call(*plan)
    assert "note: a: fast is another way to act in the same runs" in default.stderr
    named = call(*plan, "--algorithm", "a: fast", "--algorithm", "a")
    assert "another way" not in named.stderr
    (row,) = json.loads(call(*plan, "--algorithm", "a: fast", "--algorithm", "a", "--json").stdout)
    assert (row["x"], row["y"], row["decision"]) == ("a", "a: fast", "larger")


def test_names_in_brackets_are_printed_as_they_are(call, tmp_path):
    rows = [f"{a},x,{s},{s + 9 * (a == 'b')}" for a in ("[red]a", "b") for s in range(4)]
    (tmp_path / "scores.csv").write_text(HEAD + "\n".join(rows) + "\n")
    assert "[red]a" in call("compare", "scores.csv").stdout
    assert "[red]a" in call("adastop", "scores.csv", "--size", 4, "--interims", 1).stdout


HOSTILE = ("\x1b[31mred\x1b[0m", "\x9b2J\u202egnp", "[/b][link=x]", "=1+1", "a\nnote: fine")


@pytest.fixture
def hostile(tmp_path):
    """A table whose names and causes hold codes for terminals, markup and formulas."""
    with (tmp_path / "h.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["algorithm", "dataset", "seed", "score", "failure"])
        for k, name in enumerate(HOSTILE):
            rows.writerows([name, "\x1b[2Jd", s, 10 * k + s, ""] for s in range(4))
            rows.writerow([name, "\x1b[2Jd", 9, "", "\x1b]0;owned\x07\nnote: fine"])
    return tmp_path / "h.csv"


def test_a_terminal_is_given_nothing_that_it_obeys(call, hostile):
    done = call("compare", hostile.name, "--reps", 200)
    assert done.code == 0
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout + done.stderr)
    assert r"\x1b[31mred\x1b[0m" in done.stdout
    assert "[/b][link=x]" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.startswith("note: fine")]
    error = call("compare", hostile.name, "--baseline", "\x1b[2J").error
    assert "\x1b" not in error


def test_a_spreadsheet_is_given_nothing_that_it_computes(call, hostile, tmp_path):
    assert call("compare", hostile.name, "--reps", 200, "-o", "pairs.csv").code == 0
    with (tmp_path / "pairs.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=1+1" in cells
    assert all(re.fullmatch(r"-[\d.e-]+", cell) for cell in cells if cell[:1] in set("=+-@"))
    write_csv(read_scores(hostile).tidy(), tmp_path / "again.csv")
    again = read_scores(tmp_path / "again.csv")
    assert again.algorithms == read_scores(hostile).algorithms


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_without_a_character_shows_another(hostile, encoding):
    code = f"{sys.executable} -m offrl reproduce corl p.csv --margin 3"
    (hostile.parent / "p.csv").write_text(
        HEAD + "".join(f"bc,hopper-medium-v2,{s},{50 + s}\n" for s in range(3))
    )
    done = subprocess.run(
        code.split(),
        cwd=hostile.parent,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    sign = "±".encode(encoding, errors="replace")
    assert b"51.00 " + sign + b" 1.00" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_trouble(tmp_path, closed):
    command = f"{shlex.quote(sys.executable)} -m offrl list algorithms {closed}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("iql" in done.stdout) == (">&-" not in closed.split())


def test_algorithms_and_data_sets_are_chosen_before_the_table_must_be_whole(call, tmp_path):
    """C lacks data set z: what does not need the cell is not refused for it."""
    rows = [
        f"{a},{d},{s},{s + 9 * (a == 'B')},{t}"
        for a in "ABC"
        for d in "xyz"
        for s in range(4)
        for t in ("one", "two")
        if (a, d) != ("C", "z")
    ]
    grid, plain = "algorithm,dataset,seed,score,setting\n", tmp_path / "s.csv"
    (tmp_path / "grid.csv").write_text(grid + "\n".join(rows) + "\n")
    one = [row.removesuffix(",one") for row in rows if row.endswith(",one")]
    plain.write_text(HEAD + "\n".join(one) + "\n")
    fast = ("--reps", 100)
    assert "'C' has no score on 'z'" in (whole := call("compare", "s.csv", *fast).error)
    assert "--common" in whole
    two = call("compare", "s.csv", *fast, "--algorithm", "A", "--algorithm", "B", "--json").stdout
    assert json.loads(two)["pairs"][0]["n_tasks"] == 3
    some = call("compare", "s.csv", *fast, "--dataset", "[xy]", "--json").stdout
    assert [pair["n_tasks"] for pair in json.loads(some)["pairs"]] == [2, 2, 2]
    common = call("compare", "s.csv", *fast, "--common")
    assert "3 pairs on 2 data sets" in common.stdout
    assert "common: 2 of 3 data sets" in common.stderr
    assert (
        "--baseline"
        not in call("compare", "s.csv", *fast, "--algorithm", "A", "--baseline", "B").stderr
    )
    assert "unknown algorithm 'D'" in call("compare", "s.csv", "--algorithm", "D").error
    assert "unknown data set 'w'" in call("compare", "s.csv", "--dataset", "w").error
    assert call("adastop", "s.csv", "--dataset", "x", "--size", 4, "--interims", 1).code == 0
    narrowed = call("budget", "grid.csv", "--algorithm", "A", "--dataset", "x", "--json")
    assert {row["algorithm"] for row in json.loads(narrowed.stdout)} == {"A"}
    assert call("budget", "grid.csv", "--common").code == 0
    assert call("report", "s.csv", "-o", "r", *fast, "--common", "--algorithm", "A").code == 0
    page = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    assert "1 algorithm on 3 data sets" in page
    (tmp_path / "p.csv").write_text(
        HEAD
        + "".join(f"{a},hopper-medium-v2,{s},{50 + s}\n" for a in ("bc", "iql") for s in range(3))
    )
    cells = call("reproduce", "corl", "p.csv", "--margin", 3, "--algorithm", "iql", "--json").stdout
    found = json.loads(cells)["cells"]
    assert {cell["algorithm"] for cell in found if cell["n"]} == {"iql"}


@pytest.mark.parametrize(
    "words",
    [
        "compare s.csv --reps 100000000000",
        "compare s.csv --permutations 100000000000",
        "report s.csv -o r --reps 100000000000",
        "budget g.csv --reps 100000000000",
        "budget g.csv --budget 1000000000000000000000",
        "adastop s.csv --dataset x --size 1000000000 --interims 2",
        "adastop s.csv --dataset x --size 5 --interims 1000000000",
        "adastop s.csv --dataset x --size 5000 --interims 2 --reps 1000000",
    ],
)
def test_sizes_beyond_reason_are_refused_with_the_limit(call, tmp_path, words):
    write_scores(tmp_path / "s.csv")
    write_scores(tmp_path / "g.csv", settings=True)
    error = call(*words.split()).error
    assert re.search(r"at most [\d,]+|1 to [\d,]+|product of at most", error)
