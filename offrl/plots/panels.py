"""Small figures of lines that stand side by side on a page, and the one legend of all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from offrl.plots.layout import label, legend_below, legend_height, new_axes
from offrl.plots.style import REST, line_style

BANDS = 6  # algorithms with whose lines the pointwise bands are drawn, at most
MARKS = 6  # markers on a line, about
WRAP_LEGEND = 32  # characters of an algorithm's name on a line of the legend


def panel_plot(
    data: pd.DataFrame,
    x: str,
    y: str,
    *,
    x_name: str,
    y_name: str,
    steps: bool = False,
    size: tuple[float, float] = (3.3, 2.3),
) -> Axes:
    """A line per algorithm, and the pointwise bands of few algorithms; returns the Axes.

    Algorithms whose colour is REST are thin lines without markers, behind the others.

    Args:
        data: columns algorithm, `x`, `y`, ci_low and ci_high; the algorithms in order.
        x: the column along the axis, such as "step".
        y: the column of the estimates.
        x_name: the name of the x axis.
        y_name: the name of the y axis.
        steps: whether lines are steps.
        size: width and height in inches.
    """
    width, height = size
    figure = Figure(figsize=size)
    ax = figure.add_axes((0.62 / width, 0.44 / height, 1 - 0.72 / width, 1 - 0.54 / height))
    names = list(dict.fromkeys(data["algorithm"]))
    parts = dict(iter(data.groupby("algorithm", sort=False)))
    for place, name in enumerate(names):
        look, part = line_style(name), parts[name]
        xs, ys, low, high = part[[x, y, "ci_low", "ci_high"]].to_numpy(np.float64).T
        behind = look["color"] == REST
        if behind:
            options: dict[str, Any] = {"color": REST, "lw": 0.7, "zorder": 1.5}
        else:
            every = max(1, len(xs) // MARKS)
            options = {**look, "lw": 1.4, "ms": 3.5, "markevery": (place % every, every)}
        ax.plot(xs, ys, drawstyle="steps-post" if steps else "default", **options)
        if len(names) <= BANDS:
            band: dict[str, Any] = {"color": options["color"], "alpha": 0.18, "lw": 0}
            ax.fill_between(xs, low, high, step="post" if steps else None, **band)
    if x == "step":
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=x == "budget"))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(x_name)
    ax.set_ylabel(y_name)
    return ax


def legend_plot(names: Sequence[str], labels: Mapping[str, str] | None = None) -> Axes:
    """The legend of the panels of a page, which have none; returns its Axes.

    Args:
        names: the algorithms in order.
        labels: what to write in place of an algorithm's name.
    """
    texts = [label(name, labels, WRAP_LEGEND) for name in names]
    ax = new_axes(6.4, 0.3 + legend_height(texts, 6.4))
    ax.set_axis_off()
    handles = [Line2D([], [], lw=1.4, ms=3.5, **line_style(name)) for name in names]
    legend_below(ax, handles, texts, gap=-10)
    return ax
