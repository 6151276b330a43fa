"""The commands that make tables and figures of papers, and how all commands read others' scores."""

import io
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import HEAD, Call, write_scores

from offrl.reporting.drawings import FIGURES

LOOK = """
order = ["b", "elsewhere"]
[labels]
b = "Ours"
[colours]
b = "#AA1100"
[groups]
some = ["x", "y"]
"""


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    write_scores(tmp_path / "scores.csv")
    (tmp_path / "look.toml").write_text(LOOK)
    return tmp_path / "scores.csv"


@pytest.mark.parametrize(
    ("name", "begins"),
    [("t.tex", "% \\usepackage{booktabs}"), ("t.md", "| data set |"), ("t.html", "<table>")],
)
def test_a_table_in_the_format_of_its_name(call: Call, scores: Path, name: str, begins: str):
    done = call("table", "scores.csv", "-o", name, "--look", "look.toml")
    assert (done.code, done.stdout) == (0, f"{name}\n")
    text = (scores.parent / name).read_text()
    assert text.startswith(begins)
    assert 0 < text.rindex("Ours") < text.index("39.")  # the first column
    assert "some average" in text


def test_a_table_on_the_terminal(call: Call, scores: Path):
    done = call("table", scores, "--transpose", "--no-averages", "--digits", "0", "--order", "c")
    lines = done.stdout.splitlines()
    assert lines[0] == "| algorithm | x | y | z |"
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| c", "| a", "| b"]
    assert "**60** ± 1" in lines[4]
    frame = pd.read_csv(io.StringIO(call("table", scores, "--format", "csv").stdout))
    assert frame["runs"].tolist()[:3] == [5, 5, 5]
    iqm = call("table", scores, "--show", "iqm", "--dataset", "x").stdout
    assert "IQM [95 % interval] over 5 runs" in iqm


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["table", "scores.csv", "-o", "t.docx"], "t.docx: expected a name that ends in .tex, .md"),
        (["table", "scores.csv", "--format", "word"], "unknown format 'word'"),
        (["table", "scores.csv", "--show", "sd"], "statistic 'sd'; expected mean or iqm"),
        (["table", "scores.csv", "--look", "no.toml"], "no.toml"),
        (["plot", "bars", "scores.csv", "-o", "f.pdf"], "unknown figure 'bars'"),
        (["plot", "profile", "scores.csv", "-o", "f.gif"], "ends in .svg, .pdf, .png"),
        (["plot", "profile", "scores.csv", "-o", "f.pdf", "--size", "big"], "size 'big'"),
        (["plot", "curve", "scores.csv", "-o", "f.pdf"], "no steps, so there is no learning curve"),
        (["plot", "budget", "scores.csv", "-o", "f.pdf"], "setting"),
        (["plot", "interval", "scores.csv", "-o", "f.pdf", "--metric", "sum"], "unknown metric"),
    ],
)
def test_what_cannot_be_made_is_one_line(call: Call, scores: Path, words: list[str], says: str):
    before = {*scores.parent.iterdir()}
    assert says in call(*words).error
    assert {*scores.parent.iterdir()} == before


def test_a_look_with_a_wrong_colour(call: Call, scores: Path):
    (scores.parent / "look.toml").write_text('[colours]\na = "reddish"\n')
    assert "look.toml: colours.a" in call("table", "scores.csv", "--look", "look.toml").error


@pytest.mark.parametrize("kind", [k for k in FIGURES if k not in ("curve", "budget")])
def test_every_figure_of_final_scores(call: Call, scores: Path, kind: str):
    done = call(
        *("plot", kind, "scores.csv", "-o", "f.svg", "--csv", "--size", "icml"),
        *("--look", "look.toml", "--reps", "200"),
    )
    assert (done.code, done.stdout) == (0, "f.svg\nf.csv\n")
    text = (scores.parent / "f.svg").read_text()
    assert 'width="234pt"' in text  # 3.25 inches of 72 points
    assert "Ours" in text
    assert ("#aa1100" in text) == (kind not in ("matrix", "ranks"))
    assert len(pd.read_csv(scores.parent / "f.csv")) >= 3


def test_curves_and_budgets(call: Call, tmp_path: Path):
    rows = [
        f"{a},x,{s},{step},{setting},{10 * s + step}\n"
        for a in "ab"
        for s in (0, 1)
        for step in (5, 9)
        for setting in ("low", "high")
    ]
    (tmp_path / "grid.csv").write_text(
        "algorithm,dataset,seed,step,setting,score\n" + "".join(rows)
    )
    for kind in ("curve", "budget"):
        done = call("plot", kind, "grid.csv", "-o", f"{kind}.pdf", "--size", "4x3")
        assert done.code == 0, done
        assert (tmp_path / f"{kind}.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_is_the_same_at_the_same_input(call: Call, scores: Path):
    for name in ("a.pdf", "b.pdf"):
        call("plot", "interval", "scores.csv", "-o", name, "--reps", "200")
    assert (scores.parent / "a.pdf").read_bytes() == (scores.parent / "b.pdf").read_bytes()


def export(path: Path) -> None:
    """What W&B exports of a panel of four runs, of two algorithms on two steps."""
    runs = [
        f"{name}-hopper-medium-v2-{ident}"
        for name, idents in (
            ("IQL", ("0a1b2c3d", "5e6f7a8b")),
            ("TD3-BC", ("aaaa1111", "bbbb2222")),
        )
        for ident in idents
    ]
    head = [f'"{run} - eval/d4rl_normalized_score{end}"' for run in runs for end in ("", "__MIN")]
    lines = [
        ",".join([f'"{step}"', *(f'"{10 * k + step}"' for k in range(4) for _ in range(2))])
        for step in (1, 2)
    ]
    path.write_text("\n".join([",".join(['"Step"', *head]), *lines]) + "\n")


def test_an_export_of_wandb_becomes_a_report_with_one_command(call: Call, tmp_path: Path):
    export(tmp_path / "wandb.csv")
    done = call("report", "wandb.csv", "-o", "report", "--rename", "TD3-BC=TD3+BC", "--reps", "200")
    assert done.code == 0, done
    page = (tmp_path / "report" / "index.html").read_text()
    assert "TD3+BC" in page
    assert "IQL" in page
    assert "Weights &amp; Biases" in page


def test_a_dry_run_shows_what_is_read_and_does_nothing(call: Call, tmp_path: Path):
    export(tmp_path / "wandb.csv")
    done = call("report", "wandb.csv", "-o", "report", "--dry-run", "--rename", "TD3-BC=TD3+BC")
    assert done.code == 0
    assert "2 algorithms, 1 data sets, 8 rows" in done.stdout
    assert "hopper-medium-v2" in done.stdout
    assert [line.split()[:3] for line in done.stdout.splitlines() if "TD3+BC" in line] == [
        ["TD3+BC", "1", "2"]
    ]
    assert "labels are read from the names of runs" in done.stderr
    assert not (tmp_path / "report").exists()


def test_options_say_what_a_table_holds(call: Call, tmp_path: Path):
    (tmp_path / "s.tsv").write_text(
        "algo\tenv\tdata=set\tid\treturn, mean\tphase\n"
        "TD3=BC\th\tx\t0\t5\ta\nTD3=BC\th\tx\t1\t7\tb\nTD3=BC\th\tx\t2\t9\tc\n"
    )
    words = ("s.tsv", "--columns", "dataset=data=set,seed=id,score=return, mean")
    more = ("--where", "phase=a", "--where", "phase=c", "--rename", "TD3=BC=mine")
    assert call("scores", *words, *more, "-o", "out.csv").code == 0
    frame = pd.read_csv(tmp_path / "out.csv")
    assert frame[["algorithm", "dataset", "seed", "score"]].to_numpy().tolist() == [
        ["mine", "x", 0, 5],
        ["mine", "x", 2, 9],
    ]
    assert "expected --where COLUMN=TEXT" in call("table", "s.tsv", "--where", "a").error
    assert "unknown column 'agent'" in call("table", "s.tsv", "--columns", "agent=a").error


def test_a_table_from_a_pipe(call: Call, monkeypatch: pytest.MonkeyPatch):
    text = HEAD + "a,x,0,1\na,x,1,2\nb,x,0,5\nb,x,1,6\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert "| x | 1.5 ± 0.7 | **5.5** ± 0.7 |" in call("table", "-").stdout
