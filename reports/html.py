"""The report: one self-contained page, its tables and its figures, from the findings on scores.

DIR/index.html         everything on one page, no network needed
DIR/summary.csv        one row per algorithm, metric and interval method
DIR/summary.json       the same, with seed, reps, scale, failures, notes, versions, provenance
DIR/comparisons.csv    one row per pair of algorithms
DIR/losses.csv         losses of runs whose data have no simulator, where there are some
DIR/tables/            scores per data set as .csv, .md and .tex; the ranking; aggregates of groups;
                       altered data sets beside the clean ones;
                       how often each takes each rank; Welch's tests per data set; failures
DIR/figures/           each figure as .svg with its numbers as .csv, and as .pdf or .png on request
"""

import base64
import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from offrl import plots
from offrl.errors import InputError
from offrl.plots.layout import figure_of
from offrl.plots.style import (
    COLOURS,
    DARK,
    MARKERS,
    REST,
    Look,
    drawn_svg,
    file_svg,
)
from offrl.progress import Progress
from offrl.reporting.conclusion import Name, conclusion, text
from offrl.reporting.figures import LEVEL, Figure, figures
from offrl.reporting.findings import KIND, SAME_RUNS, TOLD, Findings, versions_here
from offrl.reporting.origins import origins
from offrl.reporting.pages import element, template
from offrl.reporting.tables import paper_table
from offrl.reporting.typeset import written
from offrl.reporting.values import json_value
from offrl.reporting.words import HTML, Words, turned
from offrl.results.files import write_csv
from offrl.results.unplayed import Loss, Losses, sentences
from offrl.statistics.bootstrap import MOST_AUTOMATIC, SHARE
from offrl.statistics.frames import CURVE_POINTS, CURVE_REPS
from offrl.statistics.labels import percent
from offrl.statistics.pairs import POWER
from offrl.statistics.resampling import COVERAGE
from offrl.statistics.significance import ALPHA

log = logging.getLogger(__name__)
FORMATS = ("pdf", "png")  # of figures, beside SVG
MATRIX = 60  # algorithms in the matrix of pairs, at most
LISTED = 66  # pairs listed one by one: those of twelve algorithms
GLYPHS = dict(zip(MARKERS, "●■▲◆▼✚✖◀▶★", strict=True))
AS_TEXT = "\ufe0e"  # asks for a glyph, not for a picture


def write(
    findings: Findings,
    folder: Path,
    *,
    command: str | None = None,
    formats: Sequence[str] = (),
    progress: Progress | None = None,
    losses: Losses | None = None,
) -> None:
    """Write the files of a report into an empty folder.

    Args:
        findings: the numbers.
        folder: where the files go.
        command: the command line that made the report, to be shown on it.
        formats: of figures, some of FORMATS beside SVG; InputError for another.
        progress: called with the number of figures drawn and their number.
        losses: of runs whose data have no simulator.
    """
    check_formats(formats)
    for name in ("figures", "tables"):
        (folder / name).mkdir()
    shown = figures(findings)
    names = [*findings.labels.values(), *map(findings.naming.label, findings.datasets)]
    lacking = plots.lacking_signs(names)
    if lacking:
        log.warning(
            "figures show boxes for %s: no font is installed that has them, such as Noto Sans CJK",
            lacking if len(lacking) <= 20 else f"{lacking[:20]} and {len(lacking) - 20} more",
        )
    looks = plots.assigned_styles(findings.algorithms, findings.table.ways)
    elements = {}
    for done, figure in enumerate(shown, start=1):
        with plots.style(figure.name, names, looks):
            elements[figure.name] = _draw(figure, folder / "figures", formats)
        write_csv(figure.data, folder / "figures" / f"{figure.name}.csv")
        if progress is not None:
            progress(done, len(shown))
    _write_tables(findings, folder)
    sentence = conclusion(findings)
    record = {**findings.record(command), "conclusion": text(sentence)}
    if losses is not None:
        record |= _record_of(losses, folder)
    page = _Page(findings, shown, elements, looks, formats, losses)
    (folder / "index.html").write_text(page.render(sentence, record), encoding="utf-8")
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    record["files"] = sorted([*files, "summary.json"])
    written = json.dumps(record, indent=1, allow_nan=False, default=str)
    (folder / "summary.json").write_text(written + "\n", encoding="utf-8")


def write_losses(
    losses: Losses, folder: Path, *, title: str = "", command: str | None = None
) -> None:
    """Writes a report of runs in which no policy was evaluated into an empty folder.

    Args:
        losses: of the runs.
        folder: where the files go.
        title: the heading of the page.
        command: the command line that made the report.
    """
    record = {
        "kind": KIND,
        "format": 1,
        "command": command,
        "title": title,
        "conclusion": " ".join(sentences(losses)),
        "datasets": losses.datasets,
        "algorithms": losses.algorithms,
        **_record_of(losses, folder),
        "failures": losses.failures,
        "versions": versions_here(),
        "provenance": json_value(losses.provenance),
        "files": ["index.html", "losses.csv", "summary.json"],
    }
    page = template("losses.html.j2").render(
        losses=losses,
        title=title or "Losses",
        sentences=sentences(losses),
        record=record,
        provenance=list(origins(losses.provenance)),
        entries=len(losses.provenance),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    written = json.dumps(record, indent=1, allow_nan=False, default=str)
    (folder / "summary.json").write_text(written + "\n", encoding="utf-8")


def _record_of(losses: Losses, folder: Path) -> dict[str, Any]:
    """What summary.json has of losses, which are written as losses.csv too."""
    rows = [vars(loss) for loss in losses.losses]
    write_csv(pd.DataFrame(rows, columns=[f.name for f in fields(Loss)]), folder / "losses.csv")
    return {"losses": json_value(rows)}


def check_formats(formats: Sequence[str]) -> None:
    """Raises InputError for a format that figures are not written in."""
    for name in formats:
        if name not in FORMATS:
            raise InputError(
                f"figures as {name!r}: expected {' or '.join(FORMATS)} (SVG is always there)"
            )


def _draw(figure: Figure, folder: Path, formats: Sequence[str]) -> Markup:
    """Draw and save a figure; the element for the page."""
    ax = figure.draw()
    drawn = drawn_svg(figure_of(ax))
    path = folder / f"{figure.name}.svg"
    path.write_text(file_svg(drawn), encoding="utf-8")
    plots.save(figure_of(ax), folder / figure.name, formats)
    return element(ax, figure.text, drawn)


def _write_tables(findings: Findings, folder: Path) -> None:
    frames = {
        "summary.csv": findings.summary,
        "tables/ranking.csv": findings.ranking,
        "tables/scores.csv": findings.per_task,
    }
    if len(findings.robustness):
        frames["tables/robustness.csv"] = findings.robustness
    if len(findings.groups):
        frames["tables/groups.csv"] = findings.groups
    if findings.comparison is not None and findings.ranks is not None:
        frames["comparisons.csv"] = findings.comparison.pairs
        frames["tables/welch.csv"] = findings.comparison.tasks
        frames["tables/ranks.csv"] = findings.ranks
    if failed := [failure for failure in findings.table.failures if not failure.unfinished]:
        failures = pd.DataFrame(map(vars, failed))
        columns = ["algorithm", "dataset", "seed", "cause"]
        frames["tables/failures.csv"] = failures[columns]
    for name, frame in frames.items():
        write_csv(frame, folder / name)
    table = paper_table(
        findings.final, findings.naming, algorithms=findings.algorithms, averages=False
    )
    for suffix, kind in (("md", "markdown"), ("tex", "latex")):
        (folder / "tables" / f"scores.{suffix}").write_text(written(table, kind), encoding="utf-8")


class _Page:
    """The page, from its numbers as text."""

    def __init__(
        self,
        findings: Findings,
        shown: Sequence[Figure],
        elements: Mapping[str, Markup],
        looks: Mapping[str, Look],
        formats: Sequence[str],
        losses: Losses | None,
    ):
        self.findings, self.elements, self.looks = findings, elements, looks
        self.losses = losses
        self.figures = {
            section: [figure for figure in shown if figure.section == section]
            for section in ("ranking", "profile", "curves", "budget", "legend")
        }
        self.kinds = ("svg", *formats, "csv")
        self.words = Words(HTML, findings.table.scale)
        self.several = len(set(findings.runs_each)) > 1

    def render(self, sentence: Sequence[str], record: Mapping[str, Any]) -> str:
        """The page as HTML."""
        script = (Path(__file__).parent / "report.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        findings = self.findings
        table, comparison = findings.table, findings.comparison
        error = float(findings.summary["mc_error"].max())
        notes = [note.rstrip(".") for note in findings.notes if note not in findings.interim]
        return template("report.html.j2").render(
            script=Markup(script),
            digest=digest,
            page=self,
            sentence=sentence,
            title=findings.title or self._title(),
            findings=findings,
            table=table,
            comparison=comparison,
            figures=self.figures,
            elements=self.elements,
            kinds=self.kinds,
            colours=list(enumerate(zip(COLOURS, DARK, strict=True))),
            rest=REST,
            ways=list(map(self.name, table.ways)),
            same_runs=SAME_RUNS,
            scale=f"{table.scale:g}",
            runs_each="–".join(map(str, sorted(set(findings.runs_each)))),
            unranked=int(findings.ranking["iqm"].isna().sum()),
            left_out=[
                self.name(name) for name in table.main_algorithms if name not in findings.compared
            ],
            notes=notes,
            interim=[note.rstrip(".") for note in findings.interim],
            ranking=list(self._ranking()),
            holes=bool((findings.per_task["n"] + findings.per_task["n_failed"] == 0).any()),
            groups=list(self._groups()),
            robustness=list(self._robustness()),
            matrix=list(self._matrix()),
            pairs=self._pairs(),
            legend=[name for name in findings.algorithms if self.looks[name]["color"] != REST],
            resamples=_resamples(findings),
            level=LEVEL,
            quantiles=[percent((1 - COVERAGE) / 2), percent((1 + COVERAGE) / 2)],
            alpha=f"{comparison.alpha if comparison else ALPHA:g}",
            power=f"{POWER:g}",
            curve_reps=f"{CURVE_REPS:,}",
            curve_points=CURVE_POINTS,
            share=percent(SHARE),
            most_resamples=f"{MOST_AUTOMATIC:,}",
            largest_error=None if math.isnan(error) else self.words.error(error),
            record=record,
            losses=self.losses,
            sentences=sentences(self.losses) if self.losses else [],
            provenance=list(origins(table.provenance)),
            entries=len(table.provenance),
        )

    def name(self, name: str) -> Name:
        """An algorithm or a data set as the page calls it."""
        return Name(self.findings.naming.label(name))

    def key(self, name: str) -> Markup:
        """The marker of an algorithm in its colour."""
        look = self.looks[name]
        colour = look["color"]
        place = COLOURS.index(colour) if colour in COLOURS else "r"
        glyph = "–" if colour == REST else GLYPHS[look["marker"]] + AS_TEXT
        return Markup('<i class="c{}" data-glyph="{}"></i>').format(place, glyph)

    def _title(self) -> str:
        """What the page is called by default."""
        of = self.findings.table
        algorithms, datasets = len(of.main_algorithms), of.datasets
        where = f"{len(datasets)} data sets" if len(datasets) > 1 else datasets[0]
        return f"{algorithms} algorithm{'s' if algorithms > 1 else ''} on {where}"

    def _ranking(self) -> Iterator[dict[str, Any]]:
        """The rows of the first table."""
        records = self.findings.ranking.to_dict("records")
        rows: dict[str, dict[Any, Any]] = {row["algorithm"]: row for row in records}
        words = self.words
        for name in self.findings.algorithms:
            row = rows[name]
            yield {
                **{str(column): value for column, value in row.items()},
                "name": self.name(name),
                "key": self.key(name),
                "way": name in self.findings.table.ways,
                "interval": words.interval(row["ci_low"], row["ci_high"]),
                "iqm_text": words.score(row["iqm"]),
                "best_text": words.probability(row["best"]),
                **{
                    f"{metric}_text": words.score(row[metric])
                    for metric in ("median", "mean", "optimality_gap")
                },
            }

    def _groups(self) -> Iterator[dict[str, Any]]:
        """Data sets group by group, with the cells of each and the aggregates of the group."""
        findings = self.findings
        cells = {(r["dataset"], r["algorithm"]): r for r in findings.per_task.to_dict("records")}
        aggregates = {
            (row["group"], row["algorithm"]): row for row in findings.groups.to_dict("records")
        }
        for group, datasets in findings.naming.grouped(findings.table.datasets):
            rows = [
                {
                    "name": self.name(dataset),
                    "cells": self._cells([cells[dataset, a] for a in findings.algorithms]),
                }
                for dataset in datasets
            ]
            of = [aggregates.get((group, name)) for name in findings.algorithms] if group else []
            sums = [
                {
                    "name": heading,
                    "cells": [self._sum(row[metric]) for row in of if row is not None],
                }
                for metric, heading in (("mean", "mean"), ("iqm", "IQM"))
                if of
            ]
            yield {"name": Name(group) if group else "", "rows": rows, "sums": sums}

    def _robustness(self) -> Iterator[dict[str, Any]]:
        """The rows of the table of altered data sets, by data set."""
        places = {name: place for place, name in enumerate(self.findings.algorithms)}
        datasets = {name: place for place, name in enumerate(self.findings.datasets)}
        rows = self.findings.robustness.to_dict("records")
        words = self.words
        for row in sorted(rows, key=lambda r: (datasets[r["dataset"]], places[r["algorithm"]])):
            yield {
                "dataset": self.name(row["dataset"]),
                "algorithm": self.name(row["algorithm"]),
                "clean": words.score(row["clean_mean"]),
                "altered": words.score(row["altered_mean"]),
                "difference": words.difference(row["difference"]),
                "interval": words.interval(row["ci_low"], row["ci_high"]),
                "ratio": words.probability(row["ratio"]),
                "runs": f"{row['n_clean']} / {row['n_altered']}",
            }

    def _sum(self, value: float) -> dict[str, Any]:
        return {"text": self.words.score(value), "value": None if math.isnan(value) else value}

    def _cells(self, row: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
        """The cells of a data set's row, shaded from its lowest mean to its highest."""
        means = np.array([cell["mean"] for cell in row], dtype=np.float64)
        known = means[~np.isnan(means)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
        spread = high - low
        cells = []
        for cell, mean in zip(row, means, strict=True):
            n, failed = cell["n"], cell["n_failed"]
            details = [f"n = {n}"] if self.several and n else []
            details += [f"{failed} failed"] if failed else []
            share = (mean - low) / spread if spread > 0 else 0.0
            cells.append(
                {
                    "value": None if math.isnan(mean) else f"{mean:.6g}",
                    "text": self.words.score(mean),
                    "sd": "" if math.isnan(cell["std"]) else f"± {self.words.score(cell['std'])}",
                    "details": details,
                    "hole": not n and not failed,
                    "best": n > 0 and mean == high and len(known) > 1,
                    "shade": 0 if math.isnan(mean) else round(24 * share),
                }
            )
        return cells

    def _matrix(self) -> Iterator[dict[str, Any]]:
        """The rows of the matrix of pairs: X in rows, Y in columns."""
        comparison = self.findings.comparison
        if comparison is None:
            return
        both: dict[tuple[str, str], dict[str, Any]] = {}
        for pair in comparison.pairs.to_dict("records"):
            for row in (pair, turned(pair)):
                both[row["x"], row["y"]] = self._pair(row)
        names = [name for name in self.findings.algorithms if name in self.findings.compared]
        for x in names[:MATRIX]:
            yield {
                "name": self.name(x),
                "key": self.key(x),
                "cells": [both.get((x, y)) for y in names[:MATRIX]],
            }

    def _pair(self, pair: Mapping[Any, Any]) -> dict[str, str]:
        """A cell of the matrix."""
        verdict = pair["verdict"]
        return {
            "difference": self.words.difference(pair["difference"]),
            "probability": self.words.probability(pair["probability"]),
            "verdict": verdict,
            "sign": {"better": "▲", "worse": "▼"}.get(verdict, ""),
        }

    def _pairs(self) -> list[dict[str, Any]]:
        """The rows of the table of pairs in the order of algorithms; none where they are many."""
        comparison = self.findings.comparison
        if comparison is None or len(comparison.pairs) > LISTED:
            return []
        places = {name: place for place, name in enumerate(self.findings.algorithms)}
        pairs = [
            pair if places[pair["x"]] < places[pair["y"]] else turned(pair)
            for pair in comparison.pairs.to_dict("records")
        ]
        pairs.sort(key=lambda pair: (places[pair["x"]], places[pair["y"]]))
        return [
            {
                **self.words.pair(pair),
                "x": self.name(pair["x"]),
                "y": self.name(pair["y"]),
                "told": pair["verdict"] in TOLD,
            }
            for pair in pairs
        ]


def _resamples(findings: Findings) -> str:
    """The numbers of resamples behind the aggregates, in words."""
    if findings.resamples is None:
        return "no resamples"
    low, high = findings.resamples
    return f"{low:,} resamples" if low == high else f"{low:,} to {high:,} resamples"
