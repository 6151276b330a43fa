"""Tables of papers: what stands in a cell, what is bold, and whether a paper takes it."""

import html.parser
import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from offrl.errors import InputError
from offrl.reporting.looks import Look, naming_of, size_of
from offrl.reporting.tables import PaperTable, paper_table
from offrl.reporting.typeset import numbers, written
from offrl.results.failures import Failure
from offrl.results.files import write_csv
from offrl.results.naming import Naming, naming
from offrl.results.table import ScoreTable
from offrl.statistics.resampling import Resampling
from offrl.statistics.summary import summarise


def table(cells: dict[tuple[str, str], list[float]], **options: Any) -> ScoreTable:
    rows = [
        (algorithm, dataset, seed, score)
        for (algorithm, dataset), scores in cells.items()
        for seed, score in enumerate(scores)
    ]
    frame = pd.DataFrame(rows, columns=["algorithm", "dataset", "seed", "score"])
    return ScoreTable.from_frame(frame, complete=False, **options)


AWKWARD = table(
    {
        ("td3_bc", "50% of hopper"): [10.0, 12.0],
        ("A & B [new]", "50% of hopper"): [-3.0],
        ("td3_bc", "[v2]*"): [70.06],
    },
    failures=[Failure("A & B [new]", "[v2]*", 0, "killed")],
)


def test_markdown():
    assert written(paper_table(AWKWARD, averages=False), "markdown").split("\n\n")[0] == (
        "| data set | A \\& B \\[new\\] | td3_bc |\n"
        "| --- | ---: | ---: |\n"
        "| 50% of hopper | −3.0 (n = 1) | **11.0** ± 1.4 (n = 2) |\n"
        "| \\[v2\\]\\* | – (1 failed) | **70.1** (n = 1) |"
    )


def test_latex():
    text = written(paper_table(AWKWARD, averages=False), "latex", decimals=2)
    assert text.split("\n", 2)[2] == (
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "data set & A \\& B {[}new] & td3\\_bc \\\\\n"
        "\\midrule\n"
        "50\\% of hopper & $-$3.00 (n = 1) & \\textbf{11.00} $\\pm$ 1.41 (n = 2) \\\\\n"
        "{[}v2]{*} & -- (1 failed) & \\textbf{70.06} (n = 1) \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def suite(seeds: int = 5) -> ScoreTable:
    """c is far behind; a and b differ on "far" alone, and what b gains there it loses on "off"."""
    rng = np.random.default_rng(3)
    levels = {"near": (60, 60, 20), "far": (50, 70, 20), "off": (70, 50, 20)}
    return table(
        {
            (name, dataset): rng.normal(level, 1, seeds).tolist()
            for dataset, of_all in levels.items()
            for name, level in zip("abc", of_all, strict=True)
        }
    )


def bold(made: PaperTable) -> dict[str, set[str]]:
    return {
        row.text: {
            column.text for column, cell in zip(made.columns, cells, strict=True) if cell.best
        }
        for row, cells in zip(made.rows, made.cells, strict=True)
    }


def test_bold_is_the_best_and_what_is_not_told_apart_from_it():
    made = paper_table(suite())
    assert bold(made) == {
        "near": {"a", "b"},
        "far": {"b"},
        "off": {"a"},
        "average": {"a", "b"},
    }
    assert bold(paper_table(suite(), statistic="iqm"))["near"] == {"a", "b"}
    # Without a spread, or with a single run, nothing is told apart but by its value.
    single = table({("a", "x"): [1.0], ("b", "x"): [2.0], ("c", "x"): [2.0]})
    assert bold(paper_table(single)) == {"x": {"b", "c"}}
    assert paper_table(single).caption.startswith("Scores of one run each, on 0–100.")
    constant = table({("a", "x"): [1.0, 1.0], ("b", "x"): [2.0, 2.0]})
    assert bold(paper_table(constant)) == {"x": {"b"}}
    tenth = 0.1 + 0.2 - 0.2  # another mean of equal runs, by rounding
    same = table({("a", "x"): [0.1] * 3, ("b", "x"): [tenth] * 5})
    assert tenth != 0.1
    assert bold(paper_table(same)) == {"x": {"a", "b"}}
    some = table({("a", "x"): [5.0, 1.0], ("b", "x"): [6.0]})
    assert bold(paper_table(some)) == {"x": {"b"}}
    assert "a row's pairs; single runs are not tested)" in paper_table(some).caption


def test_averages_per_group_and_their_places():
    scores = suite()
    named = naming(scores, order=["off"], groups=["mine=*f*"], labels=["off=Off!"])
    made = paper_table(scores, named)
    assert [row.text for row in made.rows] == ["Off!", "far", "mine average", "near", "average"]
    means = scores.frame.groupby(["algorithm", "dataset"])["score"].mean()
    for column, cells in zip(made.columns, zip(*made.cells, strict=True), strict=True):
        of = means[column.text]
        values = [of["off"], of["far"], of[["off", "far"]].mean(), of["near"], of.mean()]
        assert [cell.value for cell in cells] == pytest.approx(values)
    text = written(made, "latex")
    assert text.count(r"\midrule") == 4
    assert "average" not in written(paper_table(scores, named, averages=False), "markdown")


def test_an_average_needs_every_data_set():
    cells = {("a", "x"): [1.0, 2.0], ("a", "y"): [3.0, 4.0], ("b", "x"): [9.0, 9.5]}
    made = paper_table(table(cells))
    *_, average = made.cells
    assert [cell.value for cell in average] == pytest.approx([2.5, np.nan], nan_ok=True)
    assert [cell.best for cell in average] == [True, False]
    assert "–" in written(made, "markdown")


def test_iqm_with_the_interval_of_the_summary():
    scores, resampling = suite(), Resampling(500, 1)
    made = paper_table(scores, statistic="iqm", resampling=resampling)
    summary = summarise(scores, resampling=resampling)
    rows = summary[
        (summary["metric"] == "iqm") & (summary["ci_method"] == "expanded percentile")
    ].set_index("algorithm")
    for column, cell in zip(made.columns, made.cells[-1], strict=True):
        row = rows.loc[column.text]
        assert (cell.value, cell.low, cell.high) == (row["estimate"], row["ci_low"], row["ci_high"])
    with pytest.raises(InputError, match="statistic 'median'"):
        paper_table(scores, statistic="median")  # type: ignore[arg-type]


def test_rows_and_columns_change_places():
    made = paper_table(suite())
    turned = made.transposed()
    assert turned.corner == "algorithm"
    assert bold(turned)["a"] == {"near", "off", "average"}
    assert turned.transposed() == made
    frame, other = numbers(made), numbers(turned)
    keys = ["dataset", "algorithm"]
    pd.testing.assert_frame_equal(
        frame.sort_values(keys, ignore_index=True), other.sort_values(keys, ignore_index=True)
    )


def test_csv_has_every_digit():
    stream = io.StringIO()
    frame = numbers(paper_table(suite()))
    write_csv(frame, stream)
    back = pd.read_csv(io.StringIO(stream.getvalue()), float_precision="round_trip")
    assert back["mean"].tolist() == frame["mean"].tolist()
    assert back.loc[back["average"], "dataset"].unique().tolist() == ["average"]


NAMES = {
    "a": "α-BC & 50%_#1 $x$ {y} \\z ~^ <é> [Größe] *",
    "b": "“Łódź” – naïve…",
    "c": "C ≥ 3 × 10²",
    "near": "*[near]",
    "far": "x_1^2 | y",
}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.parametrize("turned", [False, True])
def test_latex_compiles_with_booktabs(tmp_path: Path, turned: bool):
    """With every sign that LaTeX reads as its own, in text, at the start of a row and in bold."""
    scores = suite()
    made = paper_table(scores, naming(scores, labels=NAMES, groups=["Ä & Ö=*a*"]))
    text = written(made.transposed() if turned else made, "latex")
    assert "needs XeLaTeX" not in text
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        "\\begin{table}\\input{table.tex}\\end{table}\n\\end{document}\n",
        encoding="utf-8",
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    output = done.stdout.decode("utf-8", errors="replace")
    if "booktabs.sty' not found" in output:
        pytest.skip("needs LaTeX's booktabs")
    assert done.returncode == 0, output
    assert "Missing character" not in output


def test_signs_that_pdflatex_lacks_are_named():
    scores = table({("算法", "x"): [1.0]})
    text = written(paper_table(scores), "latex")
    assert "% needs XeLaTeX or LuaLaTeX and a font for: 法 算" in text


class Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_shows_names_and_runs_nothing():
    hostile = "<script>alert(1)</script> & \u202eright"
    scores = table({(hostile, "x"): [1.0], ("b", "x"): [2.0]})
    reader = Reader()
    text = written(paper_table(scores), "html")
    reader.feed(text)
    assert "script" not in reader.tags
    assert "<script>alert(1)</script> & \\u202eright" in reader.text
    assert "\u202e" not in text


def test_a_look_names_what_a_table_has():
    scores = suite()
    look = Look(
        order=["c", "nobody", "a"],
        labels={"a": "A", "none": "x"},
        groups={"fs": ["*f*", "none*"], "empty": ["none*"]},
    )
    assert naming_of(scores, look) == Naming(("c", "a"), {"a": "A"}, {"fs": ("far", "off")})
    said = naming_of(scores, look, ["b"], ["a=B!"], ["n=near"])
    assert said.order == ("b", "c", "a")
    assert said.labels == {"a": "B!"}
    assert said.groups == {"n": ("near",)}
    with pytest.raises(InputError, match="'a' and 'b' would both be called 'A'"):
        naming_of(scores, look, labels=["b=A"])


@pytest.mark.parametrize(
    ("text", "size"), [("neurips", (5.5, None)), ("icml", (3.25, None)), ("4x2.5", (4, 2.5))]
)
def test_sizes(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "nips", "4", "0x3", "3x1000", "nanx3"])
def test_sizes_that_are_none(text):
    with pytest.raises(InputError, match="expected neurips, iclr, icml"):
        size_of(text)
