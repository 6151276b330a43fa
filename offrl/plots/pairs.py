"""Figures of pairs of algorithms: probabilities of improvement."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from offrl.errors import InputError
from offrl.plots.layout import (
    LINE,
    in_order,
    label,
    legend_below,
    line_count,
    name_rows,
    new_axes,
    not_computed,
    point,
    row_places,
    text_width,
)
from offrl.plots.style import DOT, EXPANDED, HOLLOW, INK, NO_DIFFERENCE, NO_INTERVAL, line_style
from offrl.statistics.labels import level_of, percent
from offrl.statistics.significance import ALPHA


def improvement_plot(
    pairs: pd.DataFrame,
    *,
    baseline: str | None = None,
    labels: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Probability of improvement P(X > Y) with its interval, a row per pair; returns the Axes.

    Beyond some 6 algorithms give a baseline, or see `improvement_matrix_plot`.

    Args:
        pairs: the pairs of `comparison.compare`.
        baseline: draw only this algorithm's pairs, with it as Y; InputError if it has none.
        labels: what to write in place of an algorithm's name.
        order: algorithms that come first, in this order.
        palette: colours by algorithm, as matplotlib takes them.
        ax: where to draw; by default a new figure of fitting size.
    """
    level = percent(level_of(pairs))
    if baseline is not None:
        both = pd.concat([pairs, _turned(pairs)])
        pairs = both[both["y"] == baseline]
        if not len(pairs):
            names = ", ".join(dict.fromkeys(both["x"]))
            raise InputError(f"no pair with baseline {baseline!r}; expected one of {names}")
    pairs = in_order(in_order(pairs, order, "y"), order, "x")
    left, right = ([label(name, labels) for name in pairs[side]] for side in ("x", "y"))
    ys, bottom = row_places([max(two, key=line_count) for two in zip(left, right, strict=True)])
    ax = ax or new_axes(3.8 + text_width(left) + text_width(right), 1.2 + LINE * max(3.0, bottom))
    values = pairs[["probability", "probability_low", "probability_high"]].to_numpy(np.float64)
    ax.axvline(0.5, **NO_DIFFERENCE)
    for y, name, (value, low, high) in zip(ys, pairs["x"], values.tolist(), strict=True):
        if np.isnan(value):
            not_computed(ax, y)
            continue
        colour = line_style(name, palette)["color"]
        ax.plot([low, high], [y, y], color=colour, **EXPANDED)
        point(ax, value, y, colour, hollow=bool(np.isnan(low)))
    name_rows(ax, ys, bottom, left)
    ax.set_ylabel("algorithm X")
    other = ax.twinx()
    name_rows(other, ys, bottom, right)
    other.set_ylabel("algorithm Y", labelpad=8)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("probability of improvement P(X > Y), 0–1")
    legend = {"no difference": Line2D([], [], **NO_DIFFERENCE)}
    if not np.isnan(values[:, 1]).all():
        legend[f"{level} interval"] = Line2D([], [], color=INK, **EXPANDED)
    if np.isnan(values[:, 1]).any():
        legend[NO_INTERVAL] = Line2D([], [], color=INK, **HOLLOW)
    legend_below(ax, legend.values(), legend, beside=text_width(left) + text_width(right))
    return ax


def improvement_matrix_plot(
    pairs: pd.DataFrame,
    *,
    alpha: float = ALPHA,
    labels: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Probabilities of improvement P(X > Y), X in rows and Y in columns; returns the Axes.

    Algorithms stand in the order of their mean probability, best first. A dot marks the pairs whose
    the tests tell apart: adjusted p at most alpha.

    Args:
        pairs: the pairs of `comparison.compare`; a pair that they lack is left empty.
        alpha: level of the test.
        labels: what to write in place of an algorithm's name.
        order: algorithms that come first, in this order.
        ax: where to draw (its colour bar takes some of the room, and is left out of a narrow
            figure); by default a new figure of fitting size.
    """
    both = pd.concat([pairs, _turned(pairs)])
    means = both.groupby("x", sort=False)["probability"].mean()
    names = list(means.sort_values(ascending=False, kind="stable").index)
    names = [*(n for n in order or () if n in names), *(n for n in names if n not in (order or ()))]
    texts = [label(name, labels) for name in names]
    lines = max((*map(line_count, texts), 1.7))
    size = text_width(texts) + max(2.4, len(names) * (0.08 + LINE * lines))
    ax = ax or new_axes(size + 1.5, size + 0.9)
    figure = ax.get_figure()
    assert figure is not None
    inches = figure.get_figure(root=True).get_figwidth()
    narrow = inches < size + 1.4
    room = (inches - 0.6 - text_width(texts)) / len(names)  # of a cell where the figure is narrow
    # White is no difference, grey no value.
    colours = matplotlib.colormaps["PuOr"].with_extremes(bad="#d5d8dc")
    grid = both.pivot(index="x", columns="y", values="probability").loc[names, names]
    cells = grid.to_numpy(np.float64)
    image = ax.pcolormesh(cells, cmap=colours, vmin=0, vmax=1, edgecolors="white", lw=0.8)
    place = {name: k + 0.5 for k, name in enumerate(names)}
    for x, y, chance, p in zip(
        *(both[c] for c in ("x", "y", "probability", "p_adjusted")), strict=True
    ):
        if np.isnan(chance):
            continue
        # Not INK, which takes the page's text colour: cells are as bright on a dark page.
        ink = "black" if np.dot(colours(chance)[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
        at = place[y], place[x]
        points = min(7.0, 32 * room) if narrow else 7
        ax.text(*at, f"{chance:.2f}", color=ink, fontsize=points, ha="center", va="center_baseline")
        if p <= alpha:
            ax.plot(at[0], at[1] + 0.33, color=ink, **DOT)
    for axis, name in ((ax.xaxis, "algorithm Y"), (ax.yaxis, "algorithm X")):
        axis.set_ticks(np.arange(len(names)) + 0.5, texts)
        axis.set_tick_params(length=0)
        axis.set_label_text(name)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.tick_params(axis="x", length=0, rotation=90)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    if not narrow:  # the cells have the numbers
        bar = figure.colorbar(image, ax=ax, fraction=0.06, pad=0.03, aspect=30)
        bar.set_label("probability of improvement\nP(X > Y), 0–1")
        bar.outline.set_visible(False)
    text = f"told apart:\nadjusted p ≤ {alpha:g}"
    legend_below(ax, [Line2D([], [], color=INK, **DOT)], [text], gap=8)
    return ax


def _turned(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with X and Y exchanged: P(Y > X) is 1 - P(X > Y), ties counting half to each."""
    return pd.DataFrame(
        {
            "x": pairs["y"],
            "y": pairs["x"],
            "probability": 1 - pairs["probability"],
            "probability_low": 1 - pairs["probability_high"],
            "probability_high": 1 - pairs["probability_low"],
            "p_adjusted": pairs["p_adjusted"],
        }
    )
