"""The figures of a paper, each from a score table alone, and in the sizes of venues."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from offrl import plots
from offrl.errors import InputError, unknown
from offrl.plots.layout import axes_size, figure_of, new_axes, wrap_names
from offrl.progress import Progress
from offrl.results.naming import Naming
from offrl.results.table import ScoreTable
from offrl.statistics.comparison import Comparison, compare
from offrl.statistics.profiles import curve, profile
from offrl.statistics.ranks import ranks
from offrl.statistics.resampling import Resampling
from offrl.statistics.summary import summarise
from offrl.statistics.tuning_budget import online_performance

SHAPE = 0.5  # height of the axes of lines in a venue's width, by that


@dataclass(frozen=True)
class Drawing:
    """A figure's numbers, and how it is drawn: on an Axes, or on one of its own for None.

    `rows` is whether its height follows from the number of its rows.
    """

    numbers: pd.DataFrame
    draw: Callable[[Axes | None], Axes]
    rows: bool = False


def sized(drawing: Drawing, size: tuple[float, float | None] | None) -> Axes:
    """The figure in a size, in inches; of a height None, with what its parts take in that width.

    By default in the size that the figure has by itself.
    """
    natural = drawing.draw(None)
    if size is None:
        return natural
    width, height = size
    if height is None:
        wanted = axes_size(natural)[1] if drawing.rows else SHAPE * width
        height = figure_of(natural).get_figheight()
        for _ in range(2):  # a legend takes more lines in a narrow figure
            ax = drawing.draw(new_axes(width, height))
            wrap_names(ax)
            height = max(1.0, height + wanted - axes_size(ax)[1])
    ax = drawing.draw(new_axes(width, height))
    wrap_names(ax)
    return ax


@dataclass(frozen=True)
class Asked:
    """What a figure is made from.

    Attributes:
        scores: the table; of several settings only "budget" makes one figure.
        naming: labels and order.
        resampling: of estimates.
        palette: colours by algorithm.
        metric: of the figure "interval".
        baseline: the algorithm with which pairs are compared, None for all pairs.
        progress: called with what is done and the total.
    """

    scores: ScoreTable
    naming: Naming
    resampling: Resampling
    palette: Mapping[str, str]
    metric: str
    baseline: str | None
    progress: Progress | None

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of every plot."""
        return {"labels": {name: self.naming.label(name) for name in self.scores.algorithms}}

    @property
    def of_scores(self) -> dict[str, Any]:
        """Keywords of the plots of scores."""
        styled = {"scale": self.scores.scale, "order": self.order, "palette": self.palette}
        return {**styled, **self.options}

    @property
    def order(self) -> list[str]:
        """All algorithms in order."""
        return self.naming.ordered(self.scores.algorithms)

    def compared(self) -> Comparison:
        """The comparison of all pairs, or with the baseline."""
        final = self.scores.final()
        final.check_complete()
        return compare(
            final, baseline=self.baseline, resampling=self.resampling, progress=self.progress
        )


def _interval(asked: Asked) -> Drawing:
    data = summarise(
        asked.scores.final(), resampling=asked.resampling, partial=True, progress=asked.progress
    )
    known = list(dict.fromkeys(data["metric"]))
    if asked.metric not in known:
        raise unknown("metric", asked.metric, known)
    data = data[data["metric"] == asked.metric]
    order = asked.naming.ordered(
        data.drop_duplicates("algorithm").sort_values("estimate", ascending=False)["algorithm"]
    )
    return Drawing(
        data,
        lambda ax: plots.interval_plot(
            data, asked.metric, ax=ax, **{**asked.of_scores, "order": order}
        ),
        rows=True,
    )


def _profile(asked: Asked) -> Drawing:
    data = profile(asked.scores.final(), resampling=asked.resampling)
    if not len(data):
        raise InputError("no algorithm has all data sets, so there is no profile; see --common")
    return Drawing(
        data,
        lambda ax: plots.profile_plot(data, ax=ax, **asked.of_scores),
    )


def _improvement(asked: Asked) -> Drawing:
    data = asked.compared().pairs
    return Drawing(
        data,
        lambda ax: plots.improvement_plot(
            data, order=asked.order, palette=asked.palette, ax=ax, **asked.options
        ),
        rows=True,
    )


def _matrix(asked: Asked) -> Drawing:
    compared = asked.compared()
    return Drawing(
        compared.pairs,
        lambda ax: plots.improvement_matrix_plot(
            compared.pairs,
            alpha=compared.alpha,
            order=asked.naming.order,
            ax=ax,
            **asked.options,
        ),
        rows=True,
    )


def _ranks(asked: Asked) -> Drawing:
    final = asked.scores.final()
    final.check_complete()
    data = ranks(final.only(final.main_algorithms), resampling=asked.resampling)
    return Drawing(data, lambda ax: plots.rank_plot(data, ax=ax, **asked.options), rows=True)


def _critical_difference(asked: Asked) -> Drawing:
    compared = asked.compared()
    final = asked.scores.final()
    data = ranks(final.only(final.main_algorithms), resampling=asked.resampling)
    return Drawing(
        data,
        lambda ax: plots.critical_difference_plot(
            data,
            compared.pairs,
            alpha=compared.alpha,
            palette=asked.palette,
            ax=ax,
            **asked.options,
        ),
        rows=True,
    )


def _curve(asked: Asked) -> Drawing:
    datasets = asked.scores.datasets
    if "step" not in asked.scores.frame:
        raise InputError("these scores have no steps, so there is no learning curve")
    data = curve(
        asked.scores, datasets[0] if len(datasets) == 1 else None, resampling=asked.resampling
    )
    title = asked.naming.label(datasets[0]) if len(datasets) == 1 else f"{len(datasets)} data sets"
    return Drawing(
        data,
        lambda ax: plots.curve_plot(data, title=title, ax=ax, **asked.of_scores),
    )


def _budget(asked: Asked) -> Drawing:
    asked.scores.check_complete()
    data = online_performance(asked.scores, None, resampling=asked.resampling)
    return Drawing(
        data,
        lambda ax: plots.online_plot(data, ax=ax, **asked.of_scores),
    )


FIGURES: Mapping[str, Callable[[Asked], Drawing]] = {
    "interval": _interval,
    "profile": _profile,
    "improvement": _improvement,
    "matrix": _matrix,
    "ranks": _ranks,
    "critical-difference": _critical_difference,
    "curve": _curve,
    "budget": _budget,
}
