import shutil
import subprocess

import pandas as pd
import pytest

from offrl.reporting.tables import scores_latex, scores_markdown
from offrl.results.failures import Failure
from offrl.results.table import ScoreTable
from offrl.statistics.summary import per_task


@pytest.fixture
def scores() -> pd.DataFrame:
    """Two algorithms on two data sets, one without a finished run, under awkward names."""
    rows = [
        ("td3_bc", "50% of hopper", 0, 10.0),
        ("td3_bc", "50% of hopper", 1, 12.0),
        ("A & B [new]", "50% of hopper", 0, -3.0),
        ("td3_bc", "[v2]*", 0, 70.06),
    ]
    frame = pd.DataFrame(rows, columns=["algorithm", "dataset", "seed", "score"])
    failures = [Failure("A & B [new]", "[v2]*", 0, "killed")]
    return per_task(ScoreTable.from_frame(frame, failures=failures))


def test_markdown(scores):
    assert scores_markdown(scores, 100.0) == (
        "| data set | A \\& B \\[new\\] | td3_bc |\n"
        "| --- | ---: | ---: |\n"
        "| 50% of hopper | −3.0 (n = 1) | 11.0 ± 1.4 (n = 2) |\n"
        "| \\[v2\\]\\* | – (n = 0, 1 failed) | 70.1 (n = 1) |\n"
        "\n"
        "Mean ± standard deviation (ddof 1) over n runs; scores on 0–100.\n"
    )


def test_latex(scores):
    assert scores_latex(scores, 100.0) == (
        "% Mean ± standard deviation (ddof 1) over n runs; scores on 0–100\n"
        "\\begin{tabular}{lrr}\n"
        "\\hline\n"
        "data set & A \\& B {[}new] & td3\\_bc \\\\\n"
        "\\hline\n"
        "50\\% of hopper & $-$3.0 (n = 1) & 11.0 $\\pm$ 1.4 (n = 2) \\\\\n"
        "{[}v2]{*} & -- (n = 0, 1 failed) & 70.1 (n = 1) \\\\\n"
        "\\hline\n"
        "\\end{tabular}\n"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(scores, tmp_path):
    body = scores_latex(scores, 100.0)
    text = "\\documentclass{article}\\begin{document}\n" + body + "\\end{document}\n"
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
