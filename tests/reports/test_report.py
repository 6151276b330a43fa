"""The page of a report: what stands on it, and that its numbers are the computed ones."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from simulated import table, with_another_way

from offrl import registry, statistics
from offrl.plots.style import INK
from offrl.reporting.report import report_table
from offrl.results.collect import collect
from offrl.results.failures import Failure
from offrl.results.table import ScoreTable
from offrl.statistics.bootstrap import MOST_AUTOMATIC, SHARE
from offrl.statistics.comparison import compare
from offrl.statistics.frames import CURVE_POINTS, CURVE_REPS
from offrl.statistics.labels import percent
from offrl.statistics.pairs import POWER
from offrl.statistics.resampling import COVERAGE, Resampling
from offrl.statistics.significance import ALPHA

VOID = {"meta", "br", "link", "img", "hr", "input"}


def write(*args: Any, **options: Any) -> Path:
    """A report with few resamples."""
    return report_table(*args, **{"resampling": Resampling(500), **options})


class Page(HTMLParser):
    """A page's text, links and pictures; fails on tags that do not nest."""

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r" ([,;.])", r"\1", re.sub(r"\s+", " ", " ".join(self.words)))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of 3 algorithms x 3 data sets x 3 runs with one failed run, and how long it took."""
    folder = tmp_path_factory.mktemp("report") / "out"
    seen: list[tuple[int, int]] = []
    runs = table(
        failures=[Failure("TD3+BC", "task-0", 2, "NaN in critic/loss at step 4,120")],
        provenance=[
            {
                "algorithm": name,
                "dataset": "task-0@1",
                "seed": seed,
                "protocol": "quickstart@1",
                "config": {"lr": rate, "hidden": [8, 8]},
                "code": None,
                "sessions": [
                    {"started": "09:00", "commit": "ab12", "versions": {"mujoco": "3.4.0"}},
                    {"started": "10:00", "commit": "ab12", "versions": {"mujoco": "3.4.0"}},
                ],
            }
            for name, rate in (("BC", 1e-3), ("IQL", 3e-4))
            for seed in (7, 8)
        ],
    )
    path = write(
        runs,
        folder,
        resampling=Resampling(50_000, seed=7),
        command="offrl report runs -o out",
        progress=lambda done, total: seen.append((done, total)),
    )
    return runs, path, seen


def test_the_report_is_complete_and_counts_its_progress(report):
    runs, path, seen = report
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    files = {p.relative_to(path.parent).as_posix() for p in path.parent.rglob("*") if p.is_file()}
    assert {"index.html", "summary.csv", "summary.json", "comparisons.csv"} <= files
    tables = ("scores.csv", "scores.md", "scores.tex", "welch.csv", "failures.csv")
    assert {f"tables/{name}" for name in tables} <= files
    assert "figures/critical-difference.svg" in files
    for name in (*statistics.METRICS, "profile", "curve-00-all_3_data_sets", "curve-01-task-0"):
        assert {f"figures/{name}.{kind}" for kind in ("svg", "pdf", "png")} <= files
    assert not [p for p in path.parent.parent.iterdir() if p.name != path.parent.name]
    record = json.loads((path.parent / "summary.json").read_text())
    assert set(record["files"]) == files
    assert (record["seed"], record["reps"], record["scale"]) == (7, 50_000, 100)
    assert record["failures"] == [vars(failure) for failure in runs.failures]
    assert record["provenance"][2]["config"]["lr"] == 3e-4
    assert set(record["versions"]) >= {"offrl", "python", "numpy", "scipy"}


def test_the_summary_holds_the_estimates_bit_for_bit(report):
    runs, path, _ = report
    expected = statistics.summarise(runs, resampling=Resampling(50_000, seed=7))
    got = pd.read_csv(path.parent / "summary.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(got, expected, check_exact=True)
    record = json.loads((path.parent / "summary.json").read_text())
    pd.testing.assert_frame_equal(
        pd.DataFrame(record["summary"]), expected, check_exact=True, check_dtype=False
    )


def test_the_page_shows_failures_numbers_method_and_provenance(report):
    runs, path, _ = report
    text = Page(path).text
    assert "1 of 27 runs has no score" in text
    assert "NaN in critic/loss at step 4,120" in text
    sections = re.findall(r"<h2>(.*?)</h2>", path.read_text())
    assert sections == [
        "1 of 27 runs has no score",
        "Before you read on",
        "Aggregates over all data sets",
        "Performance profile",
        "Comparisons",
        "Learning curves",
        "Scores per data set",
        "How to read it",
        "Provenance",
    ]
    cell = runs.cells()["IQL"]["task-1"]
    assert f"{cell.mean():.1f} ± {cell.std(ddof=1):.1f}" in text
    assert "ddof 1" in text
    assert "n = 2" in text
    assert "Seed 7, 50,000 resamples" in text
    for part in (
        "Protocol quickstart@1",
        "Data sets task-0@1",
        "Seeds 7, 8",
        "IQL: lr = 0.0003, hidden = [8, 8]",
        "Commit ab12 Versions mujoco = 3.4.0",
    ):
        assert part in text
    assert "Code" not in text
    assert "offrl report runs -o out" in text


def test_the_page_calls_nothing_better_but_what_a_corrected_test_tells_apart(report):
    runs, path, _ = report
    expected = compare(runs, resampling=Resampling(50_000, seed=7))
    got = pd.read_csv(path.parent / "comparisons.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(
        got, expected.pairs, check_exact=True, check_dtype=False, check_index_type=False
    )
    text = Page(path).text
    verdicts = re.findall(r"(\S+) is (better|worse)", text)
    told = expected.pairs[expected.pairs["p_adjusted"] <= 0.05]
    assert verdicts == list(zip(told["x"], told["verdict"], strict=True))
    assert len(verdicts) > 0
    assert not re.findall(
        r"\b(outperforms?|beats?|wins?|superior|significant(ly)?)\b", text.lower()
    )


@pytest.mark.usefixtures("drawn_once")
def test_equal_algorithms_are_not_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            {"algorithm": a, "dataset": d, "seed": s, "score": rng.normal(50, 5)}
            for a in "AB"
            for d in ("x", "y", "z")
            for s in range(4)
        ]
    )
    text = Page(write(ScoreTable.from_frame(frame), tmp_path / "out")).text
    assert re.search(r"cannot tell with 4 seeds; some [\d,]+ would", text)
    assert "is better" not in text
    assert "is worse" not in text


@pytest.mark.usefixtures("drawn_once")
def test_algorithms_that_cannot_be_compared_are_left_out_and_named(tmp_path):
    whole = table(steps=(0,)).frame
    single = whole[(whole["algorithm"] != "BC") | (whole["seed"] == 0)]
    page = Page(write(ScoreTable.from_frame(single), tmp_path / "single"))
    assert "Left out, for want of two finished runs on every data set: BC" in page.text
    # Three that can be compared have their diagram and ranks without the fourth.
    four = table(("A", "B", "C", "D"), steps=(0,)).frame
    four = four[(four["algorithm"] != "D") | (four["seed"] == 0)]
    path = write(ScoreTable.from_frame(four), tmp_path / "four")
    assert (path.parent / "figures" / "critical-difference.svg").exists()
    assert len(pd.read_csv(path.parent / "comparisons.csv")) == 3
    alone = whole[whole["algorithm"] == "BC"]
    path = write(ScoreTable.from_frame(alone), tmp_path / "alone")
    assert "Comparisons" not in Page(path).text
    assert not (path.parent / "comparisons.csv").exists()


@pytest.mark.usefixtures("drawn_once")
def test_many_pairs_are_folded_away_and_shown_as_a_matrix(tmp_path):
    names = [f"algorithm {k}" for k in range(7)]
    path = write(table(names, tasks=2, steps=(0,)), tmp_path / "out", resampling=Resampling(100))
    html = path.read_text()
    assert html.count("<details>") == 1
    assert "All 21 pairs" in html
    assert "Rows against columns" in html


@pytest.mark.usefixtures("drawn_once")
def test_studentized_intervals_and_the_engine_of_rliable_stand_on_the_page(tmp_path):
    scores = table(tasks=2, steps=(0,))
    path = write(scores, tmp_path / "studentized", studentized=True)
    assert "95 % studentized" in Page(path).text
    path = write(scores, tmp_path / "rliable", resampling=Resampling(100, engine="rliable"))
    summary = pd.read_csv(path.parent / "summary.csv")
    assert set(summary["ci_method"]) == {"percentile"}
    assert "computed by rliable" in Page(path).text


def test_the_page_needs_no_network_and_speaks_of_every_picture(report):
    path = report[1]
    page = Page(path)
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(pictures) == 12
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 30 for attrs in pictures)
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "link", "iframe")]
    for tag, attrs in page.tags:
        for name in ("href", "src", "xlink:href"):
            target = attrs.get(name, "#")
            assert target.startswith("#") or (tag == "a" and (path.parent / target).is_file())
    text = path.read_text()
    assert not re.search(r"@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert INK not in text[text.index("<main>") :]


def test_names_are_text_and_never_markup(tmp_path):
    evil = '<script>alert(1)</script> & $\\alpha "x" | {{ 7 * 7 }}'
    cause = "<b>boom</b>\nline two"
    path = write(
        table((evil, "IQL"), steps=(0, 9), failures=[Failure(evil, "task-0", 0, cause)]),
        tmp_path / "out",
    )
    page = Page(path)
    assert evil in page.text
    assert "<b>boom</b>" in page.text
    assert not [tag for tag, _ in page.tags if tag in ("script", "b")]


@pytest.mark.usefixtures("drawn_once")
def test_one_run_says_that_no_interval_can_be_computed(tmp_path):
    path = write(table(("IQL",), tasks=1, runs=1, steps=(5,)), tmp_path / "out")
    text = Page(path).text
    assert "IQL has a single run on task-0: no interval can be computed" in text
    assert "1 algorithm on 1 data set" in text
    record = json.loads((path.parent / "summary.json").read_text())
    assert all(row["ci_low"] is None and row["mc_error"] is None for row in record["summary"])
    assert "Learning curves" not in text


@pytest.mark.usefixtures("drawn_once")
def test_interim_scores_stand_in_a_banner(tmp_path):
    whole = table()
    late = whole.frame.query("not (algorithm == 'IQL' and seed == 1 and step > 5000)")
    text = Page(write(ScoreTable.from_frame(late), tmp_path / "out")).text
    interim, rest = text.split("Interim scores")[1].split("Before you read on")
    assert "interim: IQL on task-0 is scored at step 5,000" in interim
    assert "unequal steps on task-2" in rest


@pytest.mark.usefixtures("drawn_once")
def test_an_algorithm_without_a_finished_run_on_a_task_is_shown_without_aggregate(tmp_path):
    lost = [Failure("IQL", "task-1", seed, "killed") for seed in range(3)]
    path = write(table(failures=lost), tmp_path / "out")
    text = Page(path).text
    assert "3 of 27 runs have no score" in text
    assert "IQL has no finished run on task-1" in text
    assert "| – (n = 0, 3 failed) |" in (path.parent / "tables" / "scores.md").read_text()


@pytest.mark.usefixtures("drawn_once")
def test_published_scores_make_a_report(shared, tmp_path):
    frame = pd.read_csv(shared / "scores" / "d3rlpy_benchmarks_final_best.csv")
    frame = frame[(frame["step"] == "final") & frame["dataset"].str.fullmatch(r"hopper-.*-v0")]
    frame = frame.rename(columns={"normalized_score": "score"}).drop(columns="step")
    frame = frame[frame["algorithm"] != "DT"]
    frame.to_csv(tmp_path / "d3rlpy.csv", index=False)
    source = collect([tmp_path / "d3rlpy.csv"])
    text = Page(write(source, tmp_path / "out")).text
    # Published with ddof 0 as 41.1; the sample standard deviation is a little more.
    cell = source.cells()["TD3+BC"]["hopper-medium-v0"]
    assert f"{cell.mean():.1f} ± {cell.std(ddof=1):.1f}" in text
    assert "d3rlpy.csv" in text


@pytest.mark.usefixtures("drawn_once")
def test_limits_and_levels_on_the_page_are_those_of_the_library(report, tmp_path):
    limits = [f"{CURVE_REPS:,}", f"{ALPHA:g}", f"{POWER:g}", percent(COVERAGE)]
    limits += [f"at most {CURVE_POINTS} of"]
    automatic = [percent(SHARE), f"{MOST_AUTOMATIC:,}"]
    text = Page(report[1]).text
    other = write(table(("IQL",), tasks=1, steps=(0,)), tmp_path / "out", resampling=Resampling())
    assert all(limit in text for limit in limits)
    assert all(limit in Page(other).text for limit in automatic)
    template = (registry.folder("reports") / "report.html.j2").read_text(encoding="utf-8")
    for limit in (*limits, *automatic):
        assert limit not in re.sub("{%.*?%}", "", template.partition("</style>")[2])
    assert "Expanded percentile: quantiles further out" in text
    assert f"from {CURVE_REPS:,} resamples of whole runs" in text
    assert "Monte-Carlo error is" in text


@pytest.mark.usefixtures("drawn_once")
def test_a_page_by_rliable_describes_what_rliable_computes(tmp_path):
    resampling = Resampling(100, engine="rliable")
    path = write(table(tasks=2, steps=(0, 9)), tmp_path / "out", resampling=resampling)
    text = Page(path).text
    for other in ("expanded", "whole runs", "Monte-Carlo", "MC error", "whole line at once"):
        assert other not in text.replace("Expanded", "expanded")
    assert f"from {CURVE_REPS:,} resamples at each step" in text
    assert "the interval of the difference is offrl's" in text
    assert "Of differences of IQMs: quantiles further out" in text
    alone = write(table(("IQL",), tasks=1, steps=(0,)), tmp_path / "one", resampling=resampling)
    assert "further out" not in Page(alone).text


def test_names_with_controls_and_formulas_leave_every_file_whole(tmp_path):
    names = ("\x1b[2Jred\ufffe", "=cmd|x", "\u202egnp")
    failures = [Failure(names[0], "task-0", 9, "@SUM(A1)\x07")]
    path = write(
        table(names, tasks=1, runs=3, steps=(0, 9), failures=failures),
        tmp_path / "out",
        resampling=Resampling(100),
        command="offrl report \udcff.csv",
    )
    page = path.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ufffe]", page)
    assert r"<bdi>\x1b[2Jred\ufffe</bdi>" in page
    for drawing in (tmp_path / "out").rglob("*.svg"):
        ElementTree.parse(drawing)
    for element in re.findall("<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(element)
    for name in (tmp_path / "out").rglob("*.csv"):
        for cell in pd.read_csv(name, dtype=str, header=None).stack():
            assert re.fullmatch(r"[^=+\-@].*|-?[\d.e-]+", str(cell)), (name, cell)
    for kind in ("md", "tex"):
        text = (tmp_path / "out" / "tables" / f"scores.{kind}").read_text(encoding="utf-8")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


@pytest.mark.usefixtures("drawn_once")
def test_the_page_counts_an_algorithm_once_however_many_ways_it_acts(tmp_path):
    both = with_another_way(table(("BC", "IQL"), tasks=1, steps=(9,)), "BC", "fast")
    text = Page(write(both, tmp_path / "out", resampling=Resampling(100))).text
    assert "2 algorithms on 1 data set" in text
    assert "BC, IQL; 6 runs" in text
    assert "Other ways to act in the same runs" in text
    assert "BC: fast same runs" in text
    assert "1 pair:" in text


@pytest.mark.usefixtures("drawn_once")
def test_unequal_budgets_are_noted_and_nothing_interim(tmp_path):
    frame = table(("BC", "IQL"), tasks=1, steps=(5, 9)).frame
    frame = frame[(frame["algorithm"] == "BC") | (frame["step"] == 5)]
    path = write(ScoreTable.from_frame(frame), tmp_path / "out", resampling=Resampling(100))
    text = Page(path).text
    assert "unequal steps on task-0: IQL at step 5; BC at step 9" in text
    assert "Interim" not in text


def test_signs_that_no_font_has_are_noted_once_and_no_warning_each(tmp_path, caplog):
    scores = table(("\u540d\U000f1234", "IQL"), tasks=1, runs=2, steps=(0, 9))
    path = write(scores, tmp_path / "out", resampling=Resampling(100))  # warnings are errors
    (note,) = (record.getMessage() for record in caplog.records)
    assert "\U000f1234" in note
    assert "Noto Sans CJK" in note
    assert "\u540d" in Page(path).text
