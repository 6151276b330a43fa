"""Pages on data sets: what `offrl data check` found, and what several hold side by side.

DIR/index.html    everything on one page, no network needed
DIR/summary.json  the same numbers and sentences
DIR/figures/      each figure as .svg
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from offrl import plots
from offrl.data.columns import spaced
from offrl.data.coverage import Coverage
from offrl.data.dataset import Dataset
from offrl.data.jumps import HIGH
from offrl.data.transforms import has_action
from offrl.evaluation.checkup import Checkup
from offrl.plots.contents import action_plot, course_plot, density_plot, histogram_plot
from offrl.plots.layout import figure_of
from offrl.plots.style import COLOURS, DARK, REST, drawn_svg, file_svg
from offrl.progress import Progress
from offrl.reporting.conclusion import Name
from offrl.reporting.findings import KIND
from offrl.reporting.pages import element, template
from offrl.reporting.values import json_value
from offrl.version import __version__

MARKS = {"ok": "✓", "warning": "!", "fault": "✗", "cannot be checked": "?"}
ACTIONS = 200_000  # rows whose actions are drawn


class _Figures:
    """Figures as they are drawn: saved, and as elements of the page with captions."""

    def __init__(self, folder: Path):
        self.folder = folder / "figures"
        self.folder.mkdir()
        self.shown: list[dict[str, Any]] = []

    def add(self, name: str, ax: Axes, caption: str, of: Name | None = None) -> None:
        """Saves a figure as NAME.svg; `of` is the data set, where it shows one of several."""
        drawn = drawn_svg(figure_of(ax))
        (self.folder / f"{name}.svg").write_text(file_svg(drawn), encoding="utf-8")
        text = caption if of is None else f"{of}: {caption}"
        self.shown.append(
            {"name": name, "element": element(ax, text, drawn), "caption": caption, "of": of}
        )


def write_checkup(found: Checkup, folder: Path, *, command: str | None = None) -> None:
    """Writes the page of a check-up into an empty folder.

    Args:
        found: what was found.
        folder: where the files go.
        command: the command line that made it, to be shown.
    """
    figures = _Figures(folder)
    with plots.style("check", _names(found.dataset)):
        _draw_checkup(found, figures)
    card = found.dataset.card
    counts = [
        f"{split}: {totals.transitions:,} transitions in {totals.episodes:,} episodes, mean "
        f"return {totals.mean_return:.6g}"
        for split, totals in found.read.totals.items()
    ]
    order = ("fault", "warning", "cannot be checked", "ok")
    page = template("check.html.j2").render(
        title=f"{card.id} v{card.version}",
        about=card.title,
        summary=found.summary,
        counts=counts,
        findings=sorted(found.findings, key=lambda finding: order.index(finding.verdict)),
        marks=MARKS,
        figures=figures.shown,
        notes=[*found.read.notes, *found.notes],
        faults=card.faults,
        **_common(command),
    )
    record = {
        "summary": found.summary,
        "check": dataclasses.asdict(found.read),
        "findings": [dataclasses.asdict(finding) for finding in found.findings],
        "replays": [dataclasses.asdict(replay) for replay in found.replays],
    }
    _write(page, record, folder, command)


def _draw_checkup(found: Checkup, figures: _Figures) -> None:
    data = found.dataset
    environment = data.card.environment
    course = course_plot(data.episode_returns, x_name="episode", y_name="return")
    figures.add("returns", course, "The return of each episode, in the order of the data")
    limit = environment.max_episode_steps if environment else None
    lengths = course_plot(data.episode_lengths, x_name="episode", y_name="steps", line=limit)
    text = "The length of each episode"
    figures.add("lengths", lengths, f"{text}; dashed: the step limit" if limit else text)
    if found.jumps.columns:
        inside = np.where(data.terminations | data.truncations, 0, found.jumps.steps)
        jumps = course_plot(inside, x_name="row", y_name="score of a step", line=HIGH, log=True)
        seen = ""
        if len(found.jumps.resets):
            middle = np.median(found.jumps.resets)
            seen = f"; steps over the marked ends would score {middle:.3g} in the median"
        figures.add(
            "jumps",
            jumps,
            f"How far each step inside an episode is from its prediction, in units of what 99 % of "
            f"the steps keep to; above the dashed line it is a jump{seen}",
        )
    figures.add(
        "actions",
        action_plot(_actions(data), names=_names(data)),
        "How often each value of each action occurs; the darkest cell of a column is its most "
        "frequent one"
        if data.action_count is None
        else "How often each action is taken",
    )


def write_stats(
    datasets: Sequence[Dataset],
    rows: Sequence[dict[str, Any]],
    covered: Coverage | None,
    folder: Path,
    *,
    labels: Sequence[str],
    remarks: Sequence[str] = (),
    command: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes the page on data sets side by side into an empty folder.

    Args:
        datasets: in order.
        rows: of the table: `what`, and `values` as text, one of each data set.
        covered: their coverage; None where they do not compare.
        folder: where the files go.
        labels: what the data sets are called.
        remarks: sentences on how numbers were computed.
        command: the command line that made it, to be shown.
        progress: called with the number of figures drawn and their number.
    """
    figures = _Figures(folder)
    names = [Name(label) for label in labels]
    with plots.style("stats", [*labels, *(text for data in datasets for text in _names(data))]):
        lines = {}
        references = {d.card.reference for d in datasets if d.scored}
        if len({(r.min, r.max) for r in references if r}) == 1:
            (reference, *_) = (r for r in references if r)
            lines = {"0": reference.min, "100": reference.max}
        returns = {str(k): data.episode_returns for k, data in enumerate(datasets)}
        text = "Returns of episodes"
        figures.add(
            "returns",
            histogram_plot(returns, x_name="return", lines=lines),
            f"{text}; dashed: those that count as a score of 0 and 100" if lines else text,
        )
        lengths = {str(k): data.episode_lengths for k, data in enumerate(datasets)}
        figures.add("lengths", histogram_plot(lengths, x_name="steps"), "Lengths of episodes")
        every = 2 + 2 * len(datasets)
        for k, (data, name) in enumerate(zip(datasets, names, strict=True)):
            of = name if len(datasets) > 1 else None
            if covered is not None:
                ax = density_plot(
                    covered.densities[k],
                    covered.edges,
                    x_name="first direction",
                    y_name="second direction",
                    place=k,
                )
                figures.add(f"coverage-{k}", ax, "Where its observations lie", of)
            ax = action_plot(_actions(data), names=_names(data), place=k, size=(3.3, 2.9))
            kind = "by dimension" if data.action_count is None else "by choice"
            figures.add(f"actions-{k}", ax, f"How often actions occur, {kind}", of)
            if progress is not None:
                progress(4 + 2 * k, every)
    shared = []
    if covered is not None:
        counts = [len(data.episode_lengths) for data in datasets]
        shared = [
            (names[i], covered.shared[i][j], counts[i], names[j], covered.shared[j][i], counts[j])
            for i, j in itertools.combinations(range(len(datasets)), 2)
            if covered.shared[i][j]
        ]
    keys = [Markup('<i class="c{}" data-glyph="■"></i>').format(_key(k)) for k in range(len(names))]
    page = template("stats.html.j2").render(
        title=", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else ""),
        names=list(zip(keys, names, strict=True)),
        rows=rows,
        figures=figures.shown,
        explained=None if covered is None else f"{covered.explained:.0%}",
        shared=shared,
        remarks=remarks,
        notes=[(name, note) for name, d in zip(names, datasets, strict=True) for note in d.notes],
        **_common(command),
    )
    record = {
        "datasets": list(labels),
        "rows": list(rows),
        "remarks": list(remarks),
        "shared_episodes": None if covered is None else covered.shared,
    }
    _write(page, record, folder, command)


def _names(data: Dataset) -> list[str]:
    """The names of its choices; none where the card has none, or actions are continuous."""
    return data.card.actions.names if data.card.actions else []


def _actions(data: Dataset) -> NDArray[Any]:
    """The known actions that are drawn, spread evenly over the rows."""
    known = np.flatnonzero(has_action(data.actions))
    return np.asarray(data.actions[known[spaced(len(known), ACTIONS)]])


def _key(place: int) -> str:
    return str(place) if place < len(COLOURS) else "r"


def _common(command: str | None) -> dict[str, Any]:
    return {
        "command": command,
        "version": __version__,
        "colours": list(enumerate(zip(COLOURS, DARK, strict=True))),
        "rest": REST,
    }


def _write(page: str, record: dict[str, Any], folder: Path, command: str | None) -> None:
    """Writes the page and its record, which lists the files so that the folder may be replaced."""
    (folder / "index.html").write_text(page, encoding="utf-8")
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    head = {"kind": KIND, "format": 1, "command": command}
    whole = {**head, **json_value(record), "files": sorted([*files, "summary.json"])}
    text = json.dumps(whole, indent=1, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
