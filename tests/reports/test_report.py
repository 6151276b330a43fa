"""The page of a report: what stands on it, and that its numbers are the computed ones."""

import base64
import hashlib
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
        if not {"style", "script"} & {*self.open}:
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
    tables = ["ranking.csv", "scores.csv", "scores.md", "scores.tex"]
    tables += ["ranks.csv", "welch.csv", "failures.csv"]
    assert {name for name in files if name.startswith("tables/")} == {f"tables/{n}" for n in tables}
    curves = [f"curve-0{k + 1}-task-{k}" for k in range(3)]
    names = ("iqm", "profile", "curve-00-all_3_data_sets", *curves, "legend")
    drawn = {f"figures/{name}.{kind}" for name in names for kind in ("svg", "csv")}
    assert {name for name in files if name.startswith("figures/")} == drawn
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


def test_the_page_answers_first_and_then_shows_where_from(report):
    runs, path, _ = report
    html, text = path.read_text(), Page(path).text
    first = re.search(r'<p class="conclusion">(.*?)</p>', html, flags=re.DOTALL)
    assert first is not None
    body = html[html.index("<body>") :]
    assert body.index("conclusion") < min(body.index(tag) for tag in ("<ul", "<table", "<svg"))
    assert first[1].startswith("Over finished runs alone, <bdi>TD3+BC</bdi> leads with an IQM of")
    record = json.loads((path.parent / "summary.json").read_text())
    assert re.sub("</?bdi>", "", first[1]) == record["conclusion"]
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Ranking",
        "Scores per data set",
        "Performance profile",
        "Pairs",
        "Learning curves",
        "Failures",
        "Notes",
        "Provenance",
    ]
    assert "1 of 27 runs has no score" in text
    assert "NaN in critic/loss at step 4,120" in text
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


def rows_of(path: Path, name: str) -> list[list[str]]:
    """The rows of the bodies of the table in a region, each cell as text."""
    html = path.read_text()
    region = html[html.index(f'aria-label="{name}"') :]
    rows = re.findall(r"<tr.*?</tr>", region[: region.index("</table>")], flags=re.DOTALL)[1:]
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, flags=re.DOTALL) for row in rows]
    return [[" ".join(re.sub("<[^>]*>", " ", c).split()) for c in row] for row in cells]


def test_the_ranking_has_the_numbers_of_its_file(report):
    path = report[1]
    rows = rows_of(path, "Ranking")
    ranking = pd.read_csv(path.parent / "tables" / "ranking.csv")
    assert list(ranking["iqm"]) == sorted(ranking["iqm"], reverse=True)
    for row, known in zip(rows, ranking.to_dict("records"), strict=True):
        name, iqm, interval, letters, best, runs, failed, *others = row
        assert name.endswith(known["algorithm"])
        assert iqm == f"{known['iqm']:.1f}"
        assert interval == f"[{known['ci_low']:.1f}, {known['ci_high']:.1f}]"
        assert (letters, best) == (known["letters"], f"{known['best']:.2f}")
        assert int(runs) == known["runs"]
        assert failed == (f"{known['failed']} failed" if known["failed"] else "0")
        metrics = ("median", "mean", "optimality_gap")
        assert others == [f"{known[metric]:.1f}" for metric in metrics]


def test_the_matrix_of_pairs_has_the_numbers_of_its_file_both_ways(report):
    path = report[1]
    rows = rows_of(path, "Pairs")
    names = [row[0].split()[-1] for row in rows]
    pairs = pd.read_csv(path.parent / "comparisons.csv").to_dict("records")
    for pair in pairs:
        x, y = names.index(pair["x"]), names.index(pair["y"])
        for row, column, sign, chance in (
            (x, y, 1, pair["probability"]),
            (y, x, -1, 1 - pair["probability"]),
        ):
            difference, probability, *verdict = rows[row][1 + column].split()
            assert float(difference.replace("−", "-")) == round(sign * pair["difference"], 1)
            assert float(probability.rstrip("▲▼")) == round(chance, 2)
            turned = {"better": "worse", "worse": "better"}
            expected = pair["verdict"]
            expected = turned.get(expected, expected) if sign < 0 else expected
            assert " ".join(verdict) == expected
            mark = {"better": "▲", "worse": "▼"}.get(expected, "")
            assert probability.lstrip("0123456789.") == mark


def test_every_figure_has_its_numbers_beside_it_and_says_the_main_ones(report):
    runs, path, _ = report
    html = path.read_text()
    summary = statistics.summarise(runs, resampling=Resampling(50_000, seed=7))
    known = {
        "iqm": summary[(summary["metric"] == "iqm") & (summary["mc_error"] >= 0)],
        "profile": statistics.profile(runs, resampling=Resampling(10_000, seed=7)),
        "curve-02-task-1": statistics.curve(runs, "task-1", resampling=Resampling(seed=7)),
    }
    for name, expected in known.items():
        assert f'href="figures/{name}.csv"' in html
        got = pd.read_csv(path.parent / "figures" / f"{name}.csv", float_precision="round_trip")
        if name == "iqm":
            expected = expected[expected["ci_method"] == "expanded percentile"]
        keys = [c for c in ("algorithm", "tau", "step") if c in got]
        one, two = (f.sort_values(keys, ignore_index=True) for f in (got, expected))
        pd.testing.assert_frame_equal(one, two, check_exact=True, check_dtype=False)
    curve = known["curve-02-task-1"]
    last = curve[(curve["algorithm"] == "IQL") & (curve["step"] == 10_000)]["iqm"].iloc[0]
    assert f"IQL {last:.1f} at step 10,000" in html
    share = known["profile"].query("algorithm == 'BC'").set_index("tau")["share"]
    middle = min(share.index, key=lambda tau: abs(tau - 50))
    assert f"more than {middle:.1f}: " in html
    assert f"BC {share[middle]:.2f}" in html


def test_the_page_calls_nothing_better_but_what_a_corrected_test_tells_apart(report):
    runs, path, _ = report
    expected = compare(runs, resampling=Resampling(50_000, seed=7))
    got = pd.read_csv(path.parent / "comparisons.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(
        got, expected.pairs, check_exact=True, check_dtype=False, check_index_type=False
    )
    text = Page(path).text
    told = expected.pairs[expected.pairs["verdict"].isin(["better", "worse"])]
    assert len(told) > 0
    assert path.read_text().count('<td class="better">') == len(told)
    assert path.read_text().count('<td class="worse">') == len(told)
    assert not re.findall(
        r"\b(outperforms?|beats?|wins?|superior|significant(ly)?)\b", text.lower()
    )


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
    path = write(ScoreTable.from_frame(frame), tmp_path / "out")
    text = Page(path).text
    assert re.search(r"cannot tell with 4 seeds; some [\d,]+ would", text)
    assert re.search("(A and B|B and A) are not told apart", text)
    assert not re.search('class="(better|worse)"', path.read_text())
    assert {row[3] for row in rows_of(tmp_path / "out" / "index.html", "Ranking")} == {"a"}


def test_algorithms_that_cannot_be_compared_are_left_out_and_named(tmp_path):
    whole = table(steps=(0,)).frame
    single = whole[(whole["algorithm"] != "BC") | (whole["seed"] == 0)]
    page = Page(write(ScoreTable.from_frame(single), tmp_path / "single"))
    assert "Left out, for want of two finished runs on every data set: BC" in page.text
    # Three that can be compared have their ranks without the fourth.
    four = table(("A", "B", "C", "D"), steps=(0,)).frame
    four = four[(four["algorithm"] != "D") | (four["seed"] == 0)]
    path = write(ScoreTable.from_frame(four), tmp_path / "four")
    assert len(pd.read_csv(path.parent / "tables" / "ranks.csv")) == 3
    assert len(pd.read_csv(path.parent / "comparisons.csv")) == 3
    alone = whole[whole["algorithm"] == "BC"]
    path = write(ScoreTable.from_frame(alone), tmp_path / "alone")
    assert "Pairs" not in Page(path).text
    assert not (path.parent / "comparisons.csv").exists()


def test_studentized_intervals_and_the_engine_of_rliable_stand_on_the_page(tmp_path):
    scores = table(tasks=2, steps=(0,))
    path = write(scores, tmp_path / "studentized", studentized=True)
    assert "the studentized one" in Page(path).text
    path = write(scores, tmp_path / "rliable", resampling=Resampling(100, engine="rliable"))
    summary = pd.read_csv(path.parent / "summary.csv")
    assert set(summary["ci_method"]) == {"percentile"}
    assert "computed by rliable" in Page(path).text


def test_the_page_needs_no_network_and_speaks_of_every_picture(report):
    path = report[1]
    page = Page(path)
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(pictures) == 6
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 30 for attrs in pictures)
    assert not [tag for tag, _ in page.tags if tag in ("img", "link", "iframe")]
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]
    for tag, attrs in page.tags:
        for name in ("href", "src", "xlink:href"):
            target = attrs.get(name, "#")
            assert target.startswith("#") or (tag == "a" and (path.parent / target).is_file())
    text = path.read_text()
    assert not re.search(r"@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert INK not in text[text.index("<main>") :]
    script = re.search("<script>(.*)</script>", text, flags=re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


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
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert text_of_tags(path, "b").isdisjoint({"boom"})


def text_of_tags(path: Path, tag: str) -> set[str]:
    return set(re.findall(f"<{tag}>(.*?)</{tag}>", path.read_text()))


def test_one_run_says_that_no_interval_can_be_computed(tmp_path):
    path = write(table(("IQL",), tasks=1, runs=1, steps=(5,)), tmp_path / "out")
    text = Page(path).text
    assert "IQL has a single run on task-0: no interval can be computed" in text
    assert "1 algorithm on task-0" in text
    assert "there is no other algorithm to compare it with" in text
    record = json.loads((path.parent / "summary.json").read_text())
    assert all(row["ci_low"] is None and row["mc_error"] is None for row in record["summary"])
    assert "Learning curves" not in text


def test_interim_scores_are_one_line_on_top_and_are_listed_below(tmp_path):
    whole = table()
    late = whole.frame.query("not (algorithm == 'IQL' and seed == 1 and step > 5000)")
    text = Page(write(ScoreTable.from_frame(late), tmp_path / "out")).text
    assert "So far, " in text
    _, interim, rest = text.split("Interim scores: 3 cells")
    assert interim.startswith(" may still move")
    interim, rest = rest.split("notes on these scores")
    assert "interim: IQL on task-0 is scored at step 5,000" in interim
    assert "unequal steps on task-2" in rest


def test_an_algorithm_without_a_finished_run_on_a_task_is_shown_without_aggregate(tmp_path):
    lost = [Failure("IQL", "task-1", seed, "killed") for seed in range(3)]
    path = write(table(failures=lost), tmp_path / "out")
    text = Page(path).text
    assert "3 of 27 runs have no score" in text
    assert "IQL has no finished run on task-1" in text
    assert "1 algorithm without an aggregate" in text
    assert 'class="hole"' not in path.read_text()  # these runs are known: they failed
    assert "| – (3 failed) |" in (path.parent / "tables" / "scores.md").read_text()


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
    assert f"learning curves: {CURVE_REPS:,} resamples of whole runs" in text
    assert "Monte-Carlo error is" in text


def test_a_page_by_rliable_describes_what_rliable_computes(tmp_path):
    resampling = Resampling(100, engine="rliable")
    path = write(table(tasks=2, steps=(0, 9)), tmp_path / "out", resampling=resampling)
    text = Page(path).text
    for other in ("expanded", "whole runs", "Monte-Carlo"):
        assert other not in text.replace("Expanded", "expanded")
    assert f"{CURVE_REPS:,} resamples at each step" in text
    assert "the interval of the difference is offrl's: quantiles further out" in text
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


def test_the_page_counts_an_algorithm_once_however_many_ways_it_acts(tmp_path):
    both = with_another_way(table(("BC", "IQL"), tasks=1, steps=(9,)), "BC", "fast")
    path = write(both, tmp_path / "out", resampling=Resampling(100))
    text = Page(path).text
    assert "2 algorithms on 1 data set; 6 runs" in text
    assert "Other ways to act in the same runs" in text
    assert "BC: fast same runs" in text
    assert "over 1 pair;" in text
    (way,) = [row for row in rows_of(path, "Ranking") if "fast" in row[0]]
    assert way[3:5] == ["–", "–"]


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
