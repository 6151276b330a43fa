"""The report: one self-contained page, its tables and its figures, from a score table.

DIR/index.html         everything on one page, no network needed
DIR/summary.csv        one row per algorithm, metric and interval method
DIR/summary.json       the same, with seed, reps, scale, failures, notes, versions, provenance
DIR/comparisons.csv    one row per pair of algorithms
DIR/tables/            scores per data set as .csv, .md and .tex; Welch's tests per data set in
                       welch.csv; failures.csv if there are any
DIR/figures/           each figure as .svg, .pdf and .png
"""

import csv
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offrl import plots, statistics
from offrl.errors import InputError
from offrl.files import replacing
from offrl.progress import Progress
from offrl.reporting.origins import origins
from offrl.reporting.tables import scores_latex, scores_markdown
from offrl.reporting.values import json_value
from offrl.reporting.words import HTML, Words
from offrl.results.table import ScoreTable
from offrl.statistics.comparison import Comparison, compare
from offrl.statistics.resampling import Resampling
from offrl.version import __version__

KIND = "offrl report"  # what summary.json says of itself, so that a later report may replace it
RULE = (
    "One score per run: the evaluation at the last step that all runs of the algorithm on the data "
    "set share; where scores carry no step, the score as given"
)
HEADINGS = {
    "iqm": "Interquartile mean (IQM)",
    "median": "Median",
    "mean": "Mean",
    "optimality_gap": "Optimality gap",
}
KINDS = ("expanded percentile", "percentile", "studentized")  # as columns
BANDS = {
    "offrl": "two 95 % bands, the inner one pointwise (expanded percentile), the outer one for the "
    "whole line at once",
    "rliable": "rliable's pointwise 95 % bands (percentile)",
}
ROWS = 15  # pairs shown one by one: those of six algorithms
INTERIM = (
    "interim",
    "unequal steps",
    "unfinished",
)  # how notes on scores that may still move begin
Draw = Callable[[], Axes | None]
Entry = dict[str, Any]


def write(
    table: ScoreTable,
    directory: Path,
    *,
    resampling: Resampling = Resampling(),
    studentized: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a table into a folder and return the path of its index.html.

    An earlier report in that folder is replaced; InputError if the folder holds anything else. All
    files are written beside it first and moved in at the end, so a report is whole or absent.

    Args:
        table: the scores; its failures, notes and provenance are shown.
        directory: where the report goes.
        resampling: of all estimates; by default as many resamples as their precision needs.
        studentized: whether to show studentized intervals too.
        command: the command line that made the report, to be shown on it.
        progress: called with the number of parts done and their total.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 (resolve() would follow a link)
    _check_replaceable(directory)
    if not len(table.frame):
        first = table.failures[0]
        raise InputError(
            f"no finished run to report: all {len(table.failures)} runs failed, the first "
            f"({first.algorithm} on {first.dataset}, seed {first.seed}) by: {first.cause}"
        )
    final = table.final()
    with replacing(directory, "give another folder for the report") as temporary:
        for folder in ("figures", "tables"):
            (temporary / folder).mkdir(parents=True)
        page = _Page(table, final, resampling, studentized, progress)
        drawn = [page.draw(temporary / "figures", *part) for part in page.plan]
        figures = [figure for figure in drawn if figure is not None]
        _write_tables(temporary, page)
        record = _record(page, command)
        html = _render(page, figures, record)
        (temporary / "index.html").write_text(html, encoding="utf-8")
        files = [p.relative_to(temporary).as_posix() for p in temporary.rglob("*") if p.is_file()]
        record["files"] = sorted([*files, "summary.json"])
        text = json.dumps(record, indent=1, allow_nan=False, default=str)
        (temporary / "summary.json").write_text(text + "\n", encoding="utf-8")
    return directory / "index.html"


class _Page:
    """The numbers of a report, and the plan of its figures."""

    def __init__(
        self,
        table: ScoreTable,
        final: ScoreTable,
        resampling: Resampling,
        studentized: bool,
        progress: Progress | None,
    ):
        self.table, self.final = table, final
        self.resampling, self.progress = resampling, progress
        self.words = Words(HTML, table.scale)
        self.main = "percentile" if resampling.engine == "rliable" else "expanded percentile"
        # (file name, section, title, drawing function), in the page's order.
        self.plan: list[tuple[str, str, str, Draw]] = [
            (metric, "aggregate", HEADINGS[metric], self._interval(metric))
            for metric in statistics.METRICS
        ]
        self.plan += [("profile", "profile", "Performance profile", self._profile)]
        self.compared = self._comparable()
        count = len(self.compared)
        if count > 1:
            self.plan += [("improvement", "comparison", "Probability of improvement", self._pairs)]
            if count > 2:
                title = "Mean ranks, and what the tests do not tell apart"
                self.plan += [("critical-difference", "comparison", title, self._ranks)]
            self.plan += [("ranks", "comparison", "How often each takes each rank", self._ranking)]
        self.plan += self._curves()
        self.done, self.total = 0, 2 * len(table.algorithms) + len(self.plan)
        self.summary = statistics.summarise(
            final,
            resampling=resampling,
            studentized=studentized,
            partial=True,
            progress=lambda done, _: self.tell(done),
        )
        self.per_task = statistics.per_task(final)
        few = replace(resampling, reps=min(resampling.reps or 10_000, 10_000))
        self.profile = statistics.profile(final, resampling=few)
        self.notes = [*final.notes, *statistics.explain(final, self.summary)]
        self.comparison: Comparison | None = None
        if count > 1:
            self.comparison = compare(
                final,
                algorithms=self.compared,
                resampling=resampling,
                progress=lambda done, all_: self.tell(
                    len(table.algorithms) + len(table.algorithms) * done // all_
                ),
            )
            self.ranks = statistics.ranks(final.only(self.compared), resampling=few)
            self.notes += self.comparison.notes
        self.done = 2 * len(table.algorithms)
        self.labels = {}
        for name in table.algorithms:
            failed = sum(f.algorithm == name for f in table.failures)
            self.labels[name] = f"{name} ({failed} failed)" if failed else name

    def tell(self, done: int) -> None:
        self.done = done
        if self.progress is not None:
            self.progress(done, self.total)

    def _interval(self, metric: str) -> Callable[[], Axes]:
        return lambda: plots.interval_plot(
            self.summary, metric, scale=self.table.scale, labels=self.labels
        )

    def _profile(self) -> Axes | None:
        if not len(self.profile):
            return None
        return plots.profile_plot(self.profile, scale=self.table.scale, labels=self.labels)

    def _comparable(self) -> list[str]:
        """The algorithms that can be compared: with two runs or more on every data set."""
        return [
            name
            for name, tasks in self.final.cells().items()
            if len(tasks) == len(self.table.datasets) and min(map(len, tasks.values())) > 1
        ]

    def _pairs(self) -> Axes:
        """A row per pair while they are few, else a matrix."""
        assert self.comparison is not None
        pairs, labels = self.comparison.pairs, self.labels
        if len(pairs) <= ROWS:
            return plots.improvement_plot(pairs, labels=labels)
        return plots.improvement_matrix_plot(pairs, alpha=self.comparison.alpha, labels=labels)

    def _ranks(self) -> Axes:
        assert self.comparison is not None
        return plots.critical_difference_plot(
            self.ranks, self.comparison.pairs, alpha=self.comparison.alpha, labels=self.labels
        )

    def _ranking(self) -> Axes:
        return plots.rank_plot(self.ranks, labels=self.labels)

    def _curves(self) -> list[tuple[str, str, str, Draw]]:
        """A learning curve over all data sets if there are several, and one for each."""
        frame = self.table.frame
        if "step" not in frame:
            return []
        datasets: list[str | None] = [
            dataset
            for dataset in self.table.datasets
            if frame.loc[frame["dataset"] == dataset, "step"].nunique() > 1
        ]
        if len(self.table.datasets) > 1 and datasets:
            datasets.insert(0, None)
        plan: list[tuple[str, str, str, Draw]] = []
        for number, dataset in enumerate(datasets):
            title = dataset or f"all {len(self.table.datasets)} data sets"

            def draw(dataset: str | None = dataset, title: str = title) -> Axes | None:
                curve = statistics.curve(
                    self.table, dataset, resampling=replace(self.resampling, reps=None)
                )
                if curve["step"].nunique() < 2:
                    return None
                return plots.curve_plot(
                    curve, scale=self.table.scale, labels=self.labels, title=title
                )

            # Numbered: a data set's name need not be fit for a file's.
            plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in title)
            name = f"curve-{number:02d}-{plain[:60]}"
            plan.append((name, "curve", f"Learning curve: {title}", draw))
        return plan

    def draw(self, folder: Path, name: str, section: str, title: str, make: Draw) -> Entry | None:
        """Draw and save one figure; its entry for the template, or None if there is nothing."""
        with plots.style(name):
            ax = make()
            self.tell(self.done + 1)
            if ax is None:
                return None
            figure = ax.get_figure(root=True)
            assert isinstance(figure, Figure)
            plots.save(figure, folder / name)
            element = plots.svg(figure)
        # The width as designed, in CSS pixels; on a narrower screen the figure shrinks.
        width = round(96 * figure.get_figwidth())
        element = element[element.index(">") + 1 :]
        size = 72 * figure.get_size_inches()
        head = Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            'viewBox="0 0 {:g} {:g}" style="max-width:{}px" role="img" aria-label="{}">'
        ).format(size[0], size[1], width, self._alt(name, section, title))
        return {
            "section": section,
            "title": title,
            "name": name,
            "svg": head + Markup(element),
        }

    def _alt(self, name: str, section: str, title: str) -> str:
        """What a figure shows, in words."""
        if section != "aggregate":
            names = ", ".join(self.table.algorithms)
            kinds = {
                "profile": "Share of runs above each threshold, with 95 % bands,",
                "curve": "IQM against gradient steps, with 95 % bands,",
                "comparison": "The numbers stand in the table of comparisons,",
            }
            return f"{title}. {kinds[section]} for {names}."
        rows = self.summary[
            (self.summary["metric"] == name) & (self.summary["ci_method"] == self.main)
        ]
        values = "; ".join(
            f"{a} {self.words.score(e)}, 95 % interval {self.words.interval(low, high)}"
            for a, e, low, high in zip(
                rows["algorithm"], rows["estimate"], rows["ci_low"], rows["ci_high"], strict=True
            )
        )
        return f"{title} with intervals: {values}."


def _write_tables(folder: Path, page: _Page) -> None:
    page.summary.to_csv(folder / "summary.csv", index=False, lineterminator="\n")
    page.per_task.to_csv(folder / "tables" / "scores.csv", index=False, lineterminator="\n")
    if page.comparison is not None:
        pairs, tasks = page.comparison.pairs, page.comparison.tasks
        pairs.to_csv(folder / "comparisons.csv", index=False, lineterminator="\n")
        tasks.to_csv(folder / "tables" / "welch.csv", index=False, lineterminator="\n")
    for suffix, scores in (("md", scores_markdown), ("tex", scores_latex)):
        text = scores(page.per_task, page.table.scale)
        (folder / "tables" / f"scores.{suffix}").write_text(text, encoding="utf-8")
    if page.table.failures:
        with (folder / "tables" / "failures.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["algorithm", "dataset", "seed", "cause"])
            for f in page.table.failures:
                writer.writerow([f.algorithm, f.dataset, f.seed, f.cause])


def _cells(page: _Page) -> dict[tuple[str, str], dict[str, Any]]:
    """Cells of the table per data set as text, by data set and algorithm."""
    cells = {}
    for row in page.per_task.to_dict("records"):
        cells[row["dataset"], row["algorithm"]] = {
            "text": page.words.spread(row["mean"], row["std"]),
            "n": row["n"],
            "failed": row["n_failed"],
        }
    return cells


def _record(page: _Page, command: str | None) -> dict[str, Any]:
    """The content of summary.json."""
    return {
        "kind": KIND,
        "format": 1,
        "command": command,
        **page.resampling.record(),
        "scale": page.table.scale,
        "score_rule": RULE,
        "algorithms": page.table.algorithms,
        "datasets": page.table.datasets,
        "summary": _rows(page.summary),
        "comparisons": [] if page.comparison is None else _rows(page.comparison.pairs),
        "failures": [vars(failure) for failure in page.table.failures],
        "notes": page.notes,
        "versions": {
            "offrl": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "pandas", "matplotlib")},
        },
        "provenance": json_value(page.table.provenance),
    }


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame for JSON, with None for what is missing or infinite."""
    return [
        {str(key): None if pd.isna(value) else json_value(value) for key, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]


def _compared(page: _Page) -> list[dict[str, Any]]:
    """The rows of the table of comparisons, as text."""
    if page.comparison is None:
        return []
    rows = []
    for pair in page.comparison.pairs.to_dict("records"):
        row = page.words.pair(pair)
        if pair["verdict"] != "cannot tell":
            row["verdict"] = f"{row['x']} is {row['verdict']}"
        rows.append(row)
    return rows


def _render(page: _Page, figures: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = page.table
    notes = [note.rstrip(".") for note in page.notes]
    sizes = page.per_task.loc[page.per_task["n"] > 0, "n"]
    counts = {int(sizes.min()), int(sizes.max())}
    runs = len(page.final.frame) + len({(f.algorithm, f.dataset, f.seed) for f in table.failures})
    aggregates = {
        metric: [
            {
                "name": name,
                "estimate": page.words.score(rows["estimate"].iloc[0]),
                **{
                    row["ci_method"]: page.words.interval(row["ci_low"], row["ci_high"])
                    for row in rows.to_dict("records")
                },
                "error": _error(rows["mc_error"].max()),
            }
            for name, rows in page.summary[page.summary["metric"] == metric].groupby(
                "algorithm", sort=False
            )
        ]
        for metric in statistics.METRICS
    }
    return environment.get_template("report.html.j2").render(
        algorithms=table.algorithms,
        datasets=table.datasets,
        labels=page.labels,
        colours={name: plots.line_style(name)["color"] for name in table.algorithms},
        scale=f"{table.scale:g}",
        runs=runs,
        runs_each="–".join(map(str, sorted(counts))),
        failures=table.failures,
        interim=[note for note in notes if note.startswith(INTERIM)],
        notes=[note for note in notes if not note.startswith(INTERIM)],
        figures={
            section: [figure for figure in figures if figure["section"] == section]
            for section in ("aggregate", "profile", "comparison", "curve")
        },
        aggregates=aggregates,
        kinds=[k for k in KINDS if k in set(page.summary["ci_method"])],
        pairs=_compared(page),
        few_pairs=ROWS,
        left_out=[name for name in table.algorithms if name not in page.compared],
        studentized="studentized" in set(page.summary["ci_method"]),
        resamples=_reps(page),
        bands=BANDS[page.resampling.engine],
        cells=_cells(page),
        worst_error=_error(page.summary["mc_error"].max()),
        record=record,
        provenance=list(origins(table.provenance)),
        entries=len(table.provenance),
    )


def _reps(page: _Page) -> str:
    """The numbers of resamples behind the aggregates, in words."""
    used = page.summary.loc[page.summary["ci_low"].notna(), "reps"]
    if not len(used):
        return "no resamples"
    low, high = int(used.min()), int(used.max())
    return f"{low:,} resamples" if low == high else f"{low:,} to {high:,} resamples"


def _error(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2g}"


def _check_replaceable(directory: Path) -> None:
    """Raise InputError unless the folder is absent, empty or a report with nothing added."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise InputError(f"{directory}: not a folder; give a new folder for the report")
    if not directory.exists() or not any(directory.iterdir()):
        return
    try:
        record = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        listed = set(record["files"]) if record["kind"] == KIND else set()
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    if not listed:
        raise InputError(
            f"{directory}: the folder holds something that is no report of offrl; "
            "give a new or an empty folder"
        )
    files = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if not p.is_dir()}
    added = sorted(files - listed)
    if added:
        raise InputError(
            f"{directory}: {added[0]} does not belong to the report that would be replaced; "
            "move it away, or give a new folder"
        )
