"""Figures of ranks: the critical-difference diagram, and how often each rank is taken."""

import itertools
from collections.abc import Iterator, Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from offrl.errors import InputError
from offrl.plots.layout import (
    LINE,
    label,
    legend_below,
    legend_height,
    name_rows,
    new_axes,
    row_places,
    text_width,
)
from offrl.plots.style import JOINED, line_style
from offrl.statistics.significance import ALPHA


def critical_difference_plot(
    ranks: pd.DataFrame,
    pairs: pd.DataFrame,
    *,
    alpha: float = ALPHA,
    labels: Mapping[str, str] | None = None,
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The critical-difference diagram of Demšar (2006, figure 1): mean ranks; returns the Axes.

    A bar joins neighbours in mean rank of which no two are told apart: adjusted p above
    alpha. Two that are not told apart, but have between them one that is told apart
    from either, get no bar.

    Args:
        ranks: what `statistics.ranks` gives.
        pairs: the pairs of `comparison.compare`; InputError where two algorithms have none.
        alpha: level of the test.
        labels: what to write in place of an algorithm's name.
        palette: colours by algorithm, as matplotlib takes them.
        ax: where to draw; by default a new figure of fitting size.
    """
    # Rounded: equal ranks summed in another order are one place on the axis.
    means = ranks.set_index("algorithm")["mean_rank"].sort_values(kind="stable").round(9)
    names = list(means.index)
    last = max(2, len(names))
    bars, ends = [], list[float]()
    for low, high in _joined(means, pairs, alpha):
        # The first level where it comes near no other bar.
        level = next((k for k, end in enumerate(ends) if end < low - 0.03 * last), len(ends))
        ends[level : level + 1] = [high]
        bars.append((low, high, 1.2 + 0.7 * level))
    # Half of the names at each side, the outermost on top: so no two leader lines cross.
    half = (len(names) + 1) // 2
    halves = names[:half], names[: half - 1 : -1]
    sides = [[label(name, labels) for name in side] for side in halves]
    places = [row_places(texts) for texts in sides]
    top = 1.2 + 0.7 * len(ends)
    bottom = top + max(below for _, below in places)
    ax = ax or new_axes(5.2 + sum(map(text_width, sides)), 0.9 + LINE * bottom)
    for low, high, y in bars:
        # Square ends, so that a bar of no length, between ties, is seen too.
        ax.plot([low, high], [y, y], **JOINED, marker="s", ms=3, mew=0, zorder=3)
    beside = ax.get_yaxis_transform()
    for side, texts, (ys, _), edge, sign in zip(
        halves, sides, places, (0, 1), (-1, 1), strict=True
    ):
        align = "left" if edge else "right"
        for name, text, y in zip(side, texts, ys, strict=True):
            x, end, colour = means[name], (1, last)[edge], line_style(name, palette)["color"]
            ax.plot([x, x, end], [0, top + y, top + y], color=colour, lw=1.2)
            ax.plot(x, 0, marker="o", ms=4.5, color=colour, clip_on=False, zorder=3)
            for points, words in ((4, f"{x:.2f}"), (34, text)):
                ax.annotate(
                    words,
                    (edge, top + y),
                    xycoords=beside,
                    xytext=(sign * points, 0),
                    textcoords="offset points",
                    ha=align,
                    va="center",
                )
    ax.set_xlim(1, last)
    ax.set_ylim(bottom, 0)
    ax.set_xticks(range(1, last + 1, 1 + (last - 1) // 20))
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("mean rank over data sets (1 is best)")
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.spines["top"].set_visible(True)
    text = f"no two told apart:\nadjusted p > {alpha:g}"
    legend_below(ax, [Line2D([], [], **JOINED)], [text], gap=6)
    return ax


def rank_plot(
    ranks: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Distribution of the ranks, a stacked bar per algorithm, best mean rank first; the Axes.

    Args:
        ranks: what `statistics.ranks` gives.
        labels: what to write in place of an algorithm's name.
        ax: where to draw; by default a new figure of fitting size.
    """
    ranks = ranks.sort_values("mean_rank", kind="stable")
    texts = [label(name, labels) for name in ranks["algorithm"]]
    # Viridis is ordered in lightness, for colour-blind readers too.
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(texts)))
    legend = {f"rank {k + 1}": Patch(facecolor=colour) for k, colour in enumerate(colours)}
    beside = text_width(texts)
    ys, bottom = row_places(texts)
    height = 0.8 + LINE * max(3.0, bottom) + legend_height(legend, 4.4)
    ax = ax or new_axes(4.4 + beside, height)
    start = np.zeros(len(texts))
    for k, colour in enumerate(colours):
        chance = ranks[f"rank_{k + 1}"].to_numpy(np.float64)
        ax.barh(ys, chance, 1.2, start, color=colour, edgecolor="white", lw=0.25)
        start += chance
    name_rows(ax, ys, bottom, texts)
    ax.set_ylabel("algorithm")
    ax.set_xlim(0, 1)
    ax.set_xlabel("probability of the rank on a data set (1 is best), 0–1")
    legend_below(ax, legend.values(), legend, beside=beside)
    return ax


def _joined(
    means: "pd.Series[float]", pairs: pd.DataFrame, alpha: float
) -> Iterator[tuple[float, float]]:
    """The widest ranges of mean ranks in which no two algorithms are told apart, best first.

    Algorithms of equal mean rank are all in a range or none is: on the axis they are one place.
    """
    apart = {
        frozenset((x, y)): p <= alpha
        for x, y, p in zip(pairs["x"], pairs["y"], pairs["p_adjusted"], strict=True)
    }
    for two in itertools.combinations(means.index, 2):
        if frozenset(two) not in apart:
            raise InputError(
                f"no pair of {two[0]!r} and {two[1]!r}; compare all pairs, not a baseline's"
            )
    places = [(rank, list(same.index)) for rank, same in means.groupby(means)]
    reached = -np.inf
    for first, (low, _) in enumerate(places):
        inside: list[str] = []
        high = -np.inf
        for rank, same in places[first:]:
            if any(apart[frozenset(two)] for two in itertools.combinations(inside + same, 2)):
                break
            inside += same
            high = rank
        if len(inside) > 1 and high > reached:
            yield low, high
            reached = high
