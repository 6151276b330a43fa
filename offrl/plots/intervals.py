"""The figure of point estimates with their intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from offrl.plots.layout import (
    LINE,
    in_order,
    label,
    legend_below,
    legend_height,
    name_rows,
    new_axes,
    not_computed,
    point,
    row_places,
    text_width,
)
from offrl.plots.style import HOLLOW, INK, INTERVALS, NO_INTERVAL, line_style
from offrl.statistics.labels import METHODS, level_of, metric_name, percent


def interval_plot(
    summary: pd.DataFrame,
    metric: str = "iqm",
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Point estimate and all intervals of one metric, a row per algorithm; returns the Axes.

    An end at infinity, which a studentized interval may have, is an arrow at the edge.

    Args:
        summary: what `statistics.summarise` gives; the methods that it has are drawn.
        metric: one of the metrics that it has.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        order: algorithms that come first, in this order.
        palette: colours by algorithm, as matplotlib takes them.
        ax: where to draw; by default a new figure of fitting size.
    """
    rows = in_order(summary[summary["metric"] == metric], order, "algorithm")
    names = list(dict.fromkeys(rows["algorithm"]))
    texts = [label(name, labels) for name in names]
    methods = [method for method in METHODS if (rows["ci_method"] == method).any()]
    below = {"studentized": 0.65}  # lines of text under the others
    ys, bottom = row_places(texts, 1.2 if below.keys() & set(methods) else 0.8)
    legend = {}
    if rows["ci_low"].notna().any():
        level = percent(level_of(summary))
        legend = {f"{level} {m}": Line2D([], [], color=INK, **INTERVALS[m]) for m in methods}
    if rows["ci_low"].isna().any():
        legend[NO_INTERVAL] = Line2D([], [], color=INK, **HOLLOW)
    beside = text_width(texts)
    width = max(4.8, 3.2 + beside)
    height = 0.8 + LINE * max(3.0, bottom) + legend_height(legend, width - beside)
    ax = ax or new_axes(width, height)
    unbounded = []
    at = rows.set_index(["algorithm", "ci_method"])[["estimate", "ci_low", "ci_high"]].T
    for y, name in zip(ys, names, strict=True):
        colour = line_style(name, palette)["color"]
        hollow = True
        for method in methods:
            estimate, *ends = at[name, method].astype(float)
            place = y + below.get(method, 0)
            finite = [end for end in ends if np.isfinite(end)]
            ax.plot(finite, [place] * len(finite), color=colour, **INTERVALS[method])
            if np.isinf(ends).any():
                unbounded.append((ends, place, colour))
            hollow = hollow and bool(np.isnan(ends).any())
        if np.isnan(estimate):
            not_computed(ax, y)
        else:
            point(ax, estimate, y, colour, hollow=hollow)
    name_rows(ax, ys, bottom, texts)
    ax.set_ylabel("algorithm")
    ax.set_xlabel(f"{metric_name(metric)} of the score, 0–{scale:g}")
    ax.margins(x=0.08)
    edges = ax.get_xlim()
    for ends, y, colour in unbounded:
        ax.plot(np.clip(ends, *edges), [y, y], color=colour, lw=0.9)
        for end, edge, arrow in zip(ends, edges, "<>", strict=True):
            if np.isinf(end):
                ax.plot(edge, y, color=colour, marker=arrow, ms=4, clip_on=False)
    ax.set_xlim(edges)
    legend_below(ax, legend.values(), legend, beside=beside)
    return ax
