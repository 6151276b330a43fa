"""The report: one self-contained page, its tables and its figures, from the findings on scores.

DIR/index.html         everything on one page, no network needed
DIR/summary.csv        one row per algorithm, metric and interval method
DIR/summary.json       the same, with seed, reps, scale, failures, notes, versions, provenance
DIR/comparisons.csv    one row per pair of algorithms
DIR/tables/            scores per data set as .csv, .md and .tex; Welch's tests per data set in
                       welch.csv; failures.csv if there are any
DIR/figures/           each figure as .svg, .pdf and .png
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offrl import plots
from offrl.progress import Progress
from offrl.reporting.findings import SAME_RUNS, Findings
from offrl.reporting.origins import origins
from offrl.reporting.tables import scores_latex, scores_markdown
from offrl.reporting.words import HTML, Words
from offrl.results.files import write_csv
from offrl.statistics.bootstrap import MOST_AUTOMATIC, SHARE
from offrl.statistics.frames import CURVE_POINTS, CURVE_REPS
from offrl.statistics.labels import METHOD_COLUMNS, metric_heading, percent
from offrl.statistics.pairs import POWER
from offrl.statistics.resampling import COVERAGE
from offrl.statistics.significance import ALPHA
from offrl.text import one_line, visible

log = logging.getLogger(__name__)
ROWS = 15  # pairs shown one by one: those of six algorithms
INTERIM = ("interim", "unfinished")  # the first words of notes on scores that may still move
LEVEL = percent(COVERAGE)  # of every interval on the page
BANDS = {  # by engine
    "offrl": f"two {LEVEL} bands, the inner one pointwise (expanded percentile), the outer one for "
    "the whole line at once",
    "rliable": f"rliable's pointwise {LEVEL} bands (percentile)",
}
CURVE_RESAMPLES = {  # by engine
    "offrl": f"{CURVE_REPS:,} resamples of whole runs",
    "rliable": f"{CURVE_REPS:,} resamples at each step",
}


def write(
    findings: Findings,
    folder: Path,
    *,
    command: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the files of a report into an empty folder.

    Args:
        findings: the numbers.
        folder: where the files go.
        command: the command line that made the report, to be shown on it.
        progress: called with the number of figures drawn and their number.
    """
    for name in ("figures", "tables"):
        (folder / name).mkdir()
    figures = [
        *_aggregates(findings),
        *_profile(findings),
        *_comparisons(findings),
        *_curves(findings),
    ]
    names = [*findings.table.algorithms, *findings.table.datasets]
    lacking = plots.lacking_signs(names)
    if lacking:
        log.warning(
            "figures show boxes for %s: no font is installed that has them, such as Noto Sans CJK",
            lacking if len(lacking) <= 20 else f"{lacking[:20]} and {len(lacking) - 20} more",
        )
    elements = {}
    for done, figure in enumerate(figures, start=1):
        elements[figure.name] = _draw(figure, folder / "figures", names)
        if progress is not None:
            progress(done, len(figures))
    _write_tables(findings, folder)
    record = findings.record(command)
    page = _render(findings, figures, elements, record)
    (folder / "index.html").write_text(page, encoding="utf-8")
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    record["files"] = sorted([*files, "summary.json"])
    text = json.dumps(record, indent=1, allow_nan=False, default=str)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Figure:
    """A figure of the page: its file name, its title, what it shows in words, how it is drawn."""

    name: str
    title: str
    alt: str
    draw: Callable[[], Axes]
    caption: str = ""
    section: str = "aggregate"


def _aggregates(findings: Findings) -> Iterator[_Figure]:
    """Estimates with their intervals, a figure per metric."""
    summary, scale = findings.summary, findings.table.scale
    words = Words(HTML, scale)
    for metric in dict.fromkeys(summary["metric"]):
        main = (summary["metric"] == metric) & (summary["ci_method"] == findings.main_method)
        values = "; ".join(
            f"{row['algorithm']} {words.score(row['estimate'])}, "
            f"{LEVEL} interval {words.interval(row['ci_low'], row['ci_high'])}"
            for row in summary[main].to_dict("records")
        )
        title = metric_heading(metric)
        yield _Figure(
            metric,
            title,
            f"{title} with intervals: {values}.",
            partial(plots.interval_plot, summary, metric, scale=scale, labels=findings.labels),
            f"A smaller gap is closer to a score of {scale:g} everywhere."
            if metric == "optimality_gap"
            else "",
        )


def _profile(findings: Findings) -> Iterator[_Figure]:
    """Performance profiles, where an algorithm has one."""
    if not len(findings.profile):
        return
    yield _Figure(
        "profile",
        "Performance profile",
        f"Performance profile. Share of runs above each threshold, with {LEVEL} bands, for "
        f"{', '.join(findings.table.algorithms)}.",
        partial(
            plots.profile_plot,
            findings.profile,
            scale=findings.table.scale,
            labels=findings.labels,
        ),
        "The share of runs that score above each threshold, averaged over data sets, with "
        f"{BANDS[findings.resampling.engine]}. Where a line is above another everywhere in its "
        "range, more of its runs passed each threshold.",
        "profile",
    )


def _comparisons(findings: Findings) -> Iterator[_Figure]:
    """Probabilities of improvement, a row per pair while they are few, else a matrix; ranks."""
    if findings.comparison is None or findings.ranks is None:
        return
    pairs, alpha = findings.comparison.pairs, findings.comparison.alpha
    labels, ranks = findings.labels, findings.ranks
    names = ", ".join(findings.compared)

    def figure(name: str, title: str, draw: Callable[[], Axes], caption: str) -> _Figure:
        alt = f"{title}. The numbers stand in the table of comparisons, for {names}."
        return _Figure(name, title, alt, draw, caption, "comparison")

    title = "Probability of improvement"
    if len(pairs) <= ROWS:
        rliable = findings.resampling.engine == "rliable"
        yield figure(
            "improvement",
            title,
            partial(plots.improvement_plot, pairs, labels=labels),
            "Above one half the first does better more often than not; intervals are "
            f"{LEVEL} "
            + ("percentile ones, by rliable." if rliable else "expanded percentile ones."),
        )
    else:
        yield figure(
            "improvement",
            title,
            partial(plots.improvement_matrix_plot, pairs, alpha=alpha, labels=labels),
            "Rows against columns. Marked: told apart by the test (a difference may go with P "
            "near one half).",
        )
    if len(findings.compared) > 2:
        yield figure(
            "critical-difference",
            "Mean ranks, and what the tests do not tell apart",
            partial(plots.critical_difference_plot, ranks, pairs, alpha=alpha, labels=labels),
            "After Demšar 2006: a bar joins algorithms of which no two are told apart.",
        )
    yield figure(
        "ranks",
        "How often each takes each rank",
        partial(plots.rank_plot, ranks, labels=labels),
        "Over resamples of the runs and data sets; 1 is best.",
    )


def _curves(findings: Findings) -> Iterator[_Figure]:
    """Learning curves of two steps or more."""
    table = findings.table
    for number, (dataset, curve) in enumerate(findings.curves.items()):
        if curve["step"].nunique() < 2:
            continue
        what = dataset or f"all {len(table.datasets)} data sets"
        title = f"Learning curve: {what}"
        # Numbered: a data set's name need not be fit for a file's.
        plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in what)
        yield _Figure(
            f"curve-{number:02d}-{plain[:60]}",
            title,
            f"{title}. IQM against gradient steps, with {LEVEL} bands, for "
            f"{', '.join(table.algorithms)}.",
            partial(plots.curve_plot, curve, scale=table.scale, labels=findings.labels, title=what),
            section="curve",
        )


def _draw(figure: _Figure, folder: Path, names: Sequence[str]) -> Markup:
    """Draw and save a figure, which writes these names; the element for the page."""
    with plots.style(figure.name, names):
        drawn = figure.draw().get_figure(root=True)
        assert isinstance(drawn, Figure)
        plots.save(drawn, folder / figure.name)
        element = plots.svg(drawn)
    # The width as designed, in CSS pixels; on a narrower screen the figure shrinks.
    width = round(96 * drawn.get_figwidth())
    size = 72 * drawn.get_size_inches()
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'viewBox="0 0 {:g} {:g}" style="max-width:{}px" role="img" aria-label="{}">'
    ).format(size[0], size[1], width, one_line(figure.alt))
    return head + Markup(element[element.index(">") + 1 :])


def _write_tables(findings: Findings, folder: Path) -> None:
    frames = {"summary.csv": findings.summary, "tables/scores.csv": findings.per_task}
    if findings.comparison is not None:
        frames["comparisons.csv"] = findings.comparison.pairs
        frames["tables/welch.csv"] = findings.comparison.tasks
    if findings.table.failures:
        failures = pd.DataFrame(map(vars, findings.table.failures))
        columns = ["algorithm", "dataset", "seed", "cause"]
        frames["tables/failures.csv"] = failures[columns]
    for name, frame in frames.items():
        write_csv(frame, folder / name)
    scale = findings.table.scale
    for suffix, table in (("md", scores_markdown), ("tex", scores_latex)):
        text = table(findings.per_task, scale, findings.table.ways)
        (folder / "tables" / f"scores.{suffix}").write_text(text, encoding="utf-8")


def _render(
    findings: Findings,
    figures: Sequence[_Figure],
    elements: Mapping[str, Markup],
    record: Mapping[str, Any],
) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table, methods = findings.table, set(findings.summary["ci_method"])
    notes = [note.rstrip(".") for note in findings.notes]
    error = float(findings.summary["mc_error"].max())
    return environment.get_template("report.html.j2").render(
        algorithms=table.algorithms,
        main=table.main_algorithms,
        ways=list(table.ways),
        same_runs=SAME_RUNS,
        datasets=table.datasets,
        failed=findings.failed,
        colours={name: plots.line_style(name)["color"] for name in table.algorithms},
        scale=f"{table.scale:g}",
        runs=findings.runs,
        runs_each="–".join(map(str, sorted(set(findings.runs_each)))),
        failures=findings.failures,
        interim=[note for note in notes if note.startswith(INTERIM)],
        notes=[note for note in notes if not note.startswith(INTERIM)],
        figures={
            section: [figure for figure in figures if figure.section == section]
            for section in ("aggregate", "profile", "comparison", "curve")
        },
        elements=elements,
        aggregates=_aggregate_rows(findings),
        methods=[method for method in METHOD_COLUMNS if method in methods],
        pairs=_pair_rows(findings),
        few_pairs=ROWS,
        left_out=[name for name in table.main_algorithms if name not in findings.compared],
        resamples=_resamples(findings),
        level=LEVEL,
        quantiles=[percent((1 - COVERAGE) / 2), percent((1 + COVERAGE) / 2)],
        alpha=f"{findings.comparison.alpha if findings.comparison else ALPHA:g}",
        power=f"{POWER:g}",
        bands=BANDS[findings.resampling.engine],
        curve_resamples=CURVE_RESAMPLES[findings.resampling.engine],
        curve_points=CURVE_POINTS,
        share=percent(SHARE),
        most_resamples=f"{MOST_AUTOMATIC:,}",
        cells=_cells(findings),
        largest_error=None if math.isnan(error) else Words(HTML).error(error),
        record=record,
        provenance=list(origins(table.provenance)),
        entries=len(table.provenance),
    )


def _shown(value: Any) -> Any:
    """A value of the template: text of others without the characters that are not to be seen."""
    return visible(value) if type(value) is str else value


def _aggregate_rows(findings: Findings) -> dict[str, list[dict[str, str]]]:
    """The rows of the table of each metric, as text."""
    words = Words(HTML, findings.table.scale)
    tables: dict[str, list[dict[str, str]]] = {}
    for labels, rows in findings.summary.groupby(["metric", "algorithm"], sort=False):
        metric, name = map(str, cast(tuple[Any, ...], labels))
        row = {
            "name": name,
            "estimate": words.score(rows["estimate"].iloc[0]),
            "error": words.error(rows["mc_error"].max()),
        }
        for method, low, high in zip(
            rows["ci_method"], rows["ci_low"], rows["ci_high"], strict=True
        ):
            row[method] = words.interval(low, high)
        tables.setdefault(metric, []).append(row)
    return tables


def _pair_rows(findings: Findings) -> list[dict[str, str]]:
    """The rows of the table of comparisons, as text."""
    if findings.comparison is None:
        return []
    words, rows = Words(HTML, findings.table.scale), []
    for pair in findings.comparison.pairs.to_dict("records"):
        row = words.pair(pair)
        if pair["verdict"] != "cannot tell":
            row["verdict"] = f"{row['x']} is {row['verdict']}"
        rows.append(row)
    return rows


def _cells(findings: Findings) -> dict[tuple[str, str], dict[str, Any]]:
    """Cells of the table per data set, by data set and algorithm."""
    words = Words(HTML, findings.table.scale)
    return {
        (row["dataset"], row["algorithm"]): {
            "text": words.spread(row["mean"], row["std"]),
            "n": row["n"],
            "failed": row["n_failed"],
        }
        for row in findings.per_task.to_dict("records")
    }


def _resamples(findings: Findings) -> str:
    """The numbers of resamples behind the aggregates, in words."""
    if findings.resamples is None:
        return "no resamples"
    low, high = findings.resamples
    return f"{low:,} resamples" if low == high else f"{low:,} to {high:,} resamples"
