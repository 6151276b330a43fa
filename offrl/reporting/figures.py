"""The figures of a report: what each shows, in numbers and in words, and how it is drawn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from offrl import plots
from offrl.reporting.findings import Findings
from offrl.reporting.words import HTML, Words
from offrl.statistics.labels import percent
from offrl.statistics.resampling import COVERAGE

PANEL, ALONE = (3.3, 2.3), (5.2, 3.2)  # inches of a panel among several, and of one or two
LEVEL = percent(COVERAGE)  # of every interval of a report


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: of its files.
        section: where it stands: ranking, profile, curves, budget or legend.
        heading: what it is of, where several stand side by side; may be a name of the table.
        text: what it shows, with its main numbers: its alternative.
        data: its numbers.
        draw: draws it.
    """

    name: str
    section: str
    heading: str
    text: str
    data: pd.DataFrame
    draw: Callable[[], Axes]


def figures(findings: Findings) -> list[Figure]:
    """The figures of a report, in their order on it."""
    lines = [*_profile(findings), *_curves(findings), *_budget(findings)]
    return [*_ranking(findings), *lines, *(_legend(findings) if lines else ())]


def _ranking(findings: Findings) -> Iterator[Figure]:
    """IQMs with their intervals."""
    summary, scale = findings.summary, findings.table.scale
    rows = summary[(summary["metric"] == "iqm") & (summary["ci_method"] == findings.main_method)]
    if rows["estimate"].isna().all():
        return
    data = _in_order(rows, findings.algorithms)
    data.attrs["level"] = COVERAGE
    words = Words(HTML, scale)
    shown = [
        f"{findings.naming.label(row['algorithm'])} "
        + (
            f"{words.score(row['estimate'])} {words.interval(row['ci_low'], row['ci_high'])}"
            if pd.notna(row["estimate"])
            else "not computed"
        )
        for row in data.to_dict("records")
    ]
    yield Figure(
        "iqm",
        "ranking",
        "",
        f"IQM of each algorithm with its {LEVEL} interval: {'; '.join(shown)}.",
        data,
        partial(plots.interval_plot, data, scale=scale, labels=findings.labels),
    )


def _profile(findings: Findings) -> Iterator[Figure]:
    """Performance profiles, where an algorithm has one."""
    data = _in_order(findings.profile, findings.algorithms)
    if not len(data):
        return
    scale = findings.table.scale
    taus = data["tau"].unique()
    tau = taus[np.abs(taus - scale / 2).argmin()]
    words = Words(HTML, scale)
    at_tau = data[data["tau"] == tau]
    shares = [
        f"{findings.naming.label(name)} {words.probability(share)}"
        for name, share in zip(at_tau["algorithm"], at_tau["share"], strict=True)
    ]
    yield Figure(
        "profile",
        "profile",
        "",
        f"Performance profile, a line per algorithm. Share of runs that score more than "
        f"{words.score(tau)}: {', '.join(shares)}.",
        data,
        partial(
            plots.panel_plot,
            data,
            "tau",
            "share",
            x_name=f"threshold τ on the score, 0–{scale:g}",
            y_name="share of runs with score > τ",
            steps=True,
            size=(6.4, 3.6),
        ),
    )


def _curves(findings: Findings) -> Iterator[Figure]:
    """Learning curves of two steps or more, those of all data sets first."""
    words = Words(HTML, findings.table.scale)
    order = [None, *findings.datasets]
    shown = [name for name in order if name in findings.curves]
    size = PANEL if len(shown) > 2 else ALONE
    for number, dataset in enumerate(shown):
        data = _in_order(findings.curves[dataset], findings.algorithms)
        if data["step"].nunique() < 2:
            continue
        everywhere = f"all {len(findings.table.datasets)} data sets"
        heading = everywhere if dataset is None else findings.naming.label(dataset)
        last = data.groupby("algorithm", sort=False)["step"].transform("max") == data["step"]
        ends = [
            f"{findings.naming.label(row['algorithm'])} {words.score(row['iqm'])} at step "
            f"{row['step']:,}"
            for row in data[last].to_dict("records")
        ]
        # Numbered: a data set's name need not be fit for a file's.
        plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in dataset or everywhere)
        yield Figure(
            f"curve-{number:02d}-{plain[:60]}",
            "curves",
            heading,
            f"Learning curves on {heading}, a line per algorithm. IQM at the end: "
            f"{', '.join(ends)}.",
            data,
            partial(
                plots.panel_plot,
                data,
                "step",
                "iqm",
                x_name="gradient steps",
                y_name=f"IQM, 0–{findings.table.scale:g}",
                size=size,
            ),
        )


def _budget(findings: Findings) -> Iterator[Figure]:
    """Expected online performance against the number of settings tried."""
    data = findings.budget
    if data is None:
        return
    words = Words(HTML, findings.table.scale)
    ends = [
        f"{row['algorithm']} {words.score(row['value'])} with {row['budget']}"
        for row in data.drop_duplicates("algorithm", keep="last").to_dict("records")
    ]
    yield Figure(
        "budget",
        "budget",
        "",
        "Expected score of the best of so many settings, a line per algorithm. With all of them: "
        f"{', '.join(ends)}.",
        data,
        partial(plots.online_plot, data, scale=findings.table.scale),
    )


def _legend(findings: Findings) -> Iterator[Figure]:
    """The legend of the profile and the curves."""
    names = findings.algorithms
    yield Figure(
        "legend",
        "legend",
        "",
        "The legend of the other figures.",
        pd.DataFrame({"algorithm": names}),
        partial(plots.legend_plot, names, findings.labels),
    )


def _in_order(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The frame with its algorithms in this order, the rows of each as they were."""
    places = {name: place for place, name in enumerate(names)}
    return frame.iloc[np.argsort(frame["algorithm"].map(places), kind="stable")].reset_index(
        drop=True
    )
