"""The page that sets runs beside a published table: every cell of either side, with its verdict.

DIR/index.html      one page, no network needed
DIR/cells.csv       a row per cell: ours, theirs, the difference, the verdict and its reason
DIR/summary.json    the same, with the tally, the margin and the notes
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from offrl.reporting.findings import KIND
from offrl.reporting.pages import template
from offrl.reporting.values import json_value
from offrl.reporting.words import HTML, Words
from offrl.results.files import write_csv
from offrl.statistics.published import VERDICTS, tally

WIDTH, HEIGHT = 150, 16  # of the drawing of a difference, in pixels
REACH = 3  # margins to either side that it shows
LISTED = 200  # cells of one side alone that the page names; the files have all


def write(
    folder: Path,
    *,
    table: str,
    heading: Mapping[str, str],
    cells: pd.DataFrame,
    margin: float,
    conclusion: str,
    notes: Sequence[str],
    command: str | None,
) -> None:
    """Writes the page into an empty folder.

    Args:
        folder: where the files go.
        table: the published table's id.
        heading: its title and notes.
        cells: what `offrl.statistics.published.compare` returns.
        margin: of the comparison, in points.
        conclusion: the sentence at the top.
        notes: on the scores.
        command: the command line that made it.
    """
    write_csv(cells, folder / "cells.csv")
    record = {
        "kind": KIND,
        "format": 1,
        "command": command,
        "table": table,
        "margin": margin,
        "conclusion": conclusion,
        "tally": tally(cells),
        "notes": list(notes),
        "cells": json_value(cells.to_dict("records")),
        "files": ["cells.csv", "index.html", "summary.json"],
    }
    both = cells[~cells["verdict"].isin(VERDICTS[-2:])]
    alone = {verdict: cells[cells["verdict"] == verdict] for verdict in VERDICTS[-2:]}
    page = template("reproduction.html.j2").render(
        title=heading["title"],
        table=table,
        about=heading["notes"],
        notes=notes,
        conclusion=conclusion,
        margin=margin,
        rows=[_row(row, margin) for row in both.to_dict("records")],
        alone={verdict: list(_listed(part)) for verdict, part in alone.items()},
        counts={verdict: len(part) for verdict, part in alone.items()},
        sources=[source for source in both["source"].unique() if source],
        width=WIDTH,
        height=HEIGHT,
        command=command,
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    written = json.dumps(record, indent=1, allow_nan=False)
    (folder / "summary.json").write_text(written + "\n", encoding="utf-8")


def _listed(cells: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Algorithms of cells, and the data sets of each in one text."""
    for algorithm, rows in cells.head(LISTED).groupby("algorithm", sort=False):
        yield str(algorithm), ", ".join(map(str, rows["dataset"]))


def _row(row: Mapping[Any, Any], margin: float) -> dict[str, Any]:
    """A cell of both sides as texts, and the ends of its difference in pixels."""
    words = Words(HTML, decimals=2)
    values = {name: _place(row[name], margin) for name in ("difference", "low", "high")}
    missing = row["difference"] != row["difference"]
    return {
        "algorithm": row["algorithm"],
        "dataset": row["dataset"],
        "ours": words.spread(row["mean"], row["sd"]),
        "runs": _counts(row["n"], row["step"]),
        "published": words.spread(row["published"], row["published_sd"]),
        "seeds": _counts(row["published_n"], row["published_step"]),
        "difference": "" if missing else words.difference(row["difference"]),
        "interval": "" if row["low"] != row["low"] else words.interval(row["low"], row["high"]),
        "drawn": None if missing else values,
        "verdict": row["verdict"],
        "reason": row["reason"],
        "quoted": row["quoted_from"],
        "note": row["note"],
    }


def _counts(runs: float, steps: float) -> str:
    """Runs and steps, where they are known."""
    counts = {"run" if runs == 1 else "runs": runs, "steps": steps}
    return ", ".join(f"{n:,.0f} {what}" for what, n in counts.items() if n == n)


def _place(value: float, margin: float) -> float:
    """Where a difference stands in its drawing, whose ends stand for all beyond them."""
    if value != value:
        return value
    share = min(max(value / margin, -REACH), REACH)
    return round(WIDTH / 2 + share * (WIDTH / 2 - 6) / REACH, 1)
