"""Arithmetic of figures: how much room labels and legends take, and where rows lie."""

import textwrap
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.transforms import offset_copy

from offrl.errors import InputError
from offrl.plots.style import LEGEND_SIZE
from offrl.text import one_line, visible

LINE = 0.16  # inches a line of text takes: the unit of height of figures made of rows
GAP = 34.0  # points from the axes down to the legend, for tick labels and the axis' name
WRAP = 22  # characters of an algorithm's name on a line beside an axis


def new_axes(width: float, height: float) -> Axes:
    """The Axes of a new figure, in inches, whose margins fit its labels and legend."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def plain(text: str) -> str:
    """The text with its dollar signs escaped, which open formulas in matplotlib."""
    return visible(text).replace("$", r"\$")


def label(name: str, labels: Mapping[str, str] | None, width: int = WRAP) -> str:
    """An algorithm's label, wrapped (breaking long words) and with at most four lines."""
    text = one_line((labels or {}).get(name, name))
    return plain("\n".join(textwrap.wrap(text, width, max_lines=4, placeholder=" …")) or text)


def in_order(frame: pd.DataFrame, order: Sequence[str] | None, column: str) -> pd.DataFrame:
    """The frame with the rows of these names first, in this order; those of each as they were."""
    if not order:
        return frame
    places = {name: place for place, name in enumerate(order)}
    place = frame[column].map(lambda name: places.get(name, len(places)))
    return frame.iloc[np.argsort(place.to_numpy(), kind="stable")]


def line_count(text: str) -> int:
    """Number of lines of a text."""
    return text.count("\n") + 1


def text_width(texts: Collection[str]) -> float:
    """Inches that the longest line takes, in the font of labels."""
    lines = {line for text in texts for line in text.split("\n")}
    size = matplotlib.rcParams["font.size"]
    return max(
        (TextPath((0, 0), line, size=size).get_extents().x1 / 72 for line in lines), default=0
    )


def figure_of(ax: Axes) -> Figure:
    """The figure of an Axes."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def axes_size(ax: Axes) -> tuple[float, float]:
    """Width and height of an Axes in inches, as the figure is laid out.

    Raises InputError where the figure has no room for its texts.
    """
    figure = figure_of(ax)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            figure.draw_without_rendering()
        except UserWarning:
            width, height = figure.get_size_inches()
            raise InputError(
                f"a figure of {width:g} x {height:g} inches has no room for its texts; make it "
                "larger, or give shorter labels"
            ) from None
    place = ax.get_position()
    return place.width * figure.get_figwidth(), place.height * figure.get_figheight()


def wrap_names(ax: Axes) -> None:
    """Breaks the names of the axes where they are longer than these, above the legend."""
    for axis, inches in zip((ax.xaxis, ax.yaxis), axes_size(ax), strict=True):
        text = axis.get_label_text()
        share = inches / text_width([text]) if text else 1
        if share < 1:
            axis.set_label_text("\n".join(textwrap.wrap(text, max(12, int(len(text) * share)))))
    lines, legend = line_count(ax.get_xlabel()), ax.get_legend()
    if lines > 1 and legend is not None and ax.xaxis.get_label_position() == "bottom":
        legend.set_bbox_to_anchor((0, 0), _below(ax, GAP + 72 * LINE * (lines - 1)))


def row_places(texts: Sequence[str], space: float = 0.8) -> tuple[list[float], float]:
    """Where rows with such labels are, downwards in lines of text, and where the last one ends.

    A row is as high as its label and some space, so that labels never touch.
    """
    heights = np.array([space + line_count(text) for text in texts])
    return (heights.cumsum() - heights / 2).tolist(), float(heights.sum())


def name_rows(ax: Axes, ys: Sequence[float], bottom: float, texts: Sequence[str]) -> None:
    """Labels the rows of a figure, and removes ticks and grid lines across them."""
    ax.set_yticks(ys, texts)
    ax.set_ylim(bottom, 0)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")


def point(ax: Axes, x: float, y: float, colour: str, *, hollow: bool) -> None:
    """Draws an estimate; hollow where it has no interval."""
    face = "none" if hollow else colour
    ax.plot(x, y, marker="o", ms=5.5, mfc=face, mec=colour, mew=1.4, zorder=3)


def not_computed(ax: Axes, y: float) -> None:
    """Writes into a row that there is no estimate."""
    where: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center"}
    ax.text(0.02, y, "not computed", style="italic", fontsize=8, **where)


def _columns(texts: Collection[str], width: float) -> int:
    """How many columns a legend of this width in inches has, filled as evenly as they can be."""
    letters = text_width(texts) * LEGEND_SIZE / matplotlib.rcParams["font.size"]
    rows = -(-len(texts) // max(1, int(width / (0.6 + letters))))
    return -(-len(texts) // max(1, rows))


def legend_height(texts: Collection[str], width: float = 6.4) -> float:
    """Height in inches of a legend below the axes of a figure of this width."""
    rows = -(-len(texts) // _columns(texts, width - 0.8)) if texts else 0
    return 0.1 + rows * LINE * max(map(line_count, texts), default=1)


def _below(ax: Axes, points: float) -> Any:
    """The corner so far below the axes, in points: the height of tick labels does not scale."""
    figure = ax.get_figure(root=True)
    return offset_copy(ax.transAxes, figure, x=0, y=-points, units="points")


def legend_below(
    ax: Axes,
    handles: Collection[Any],
    texts: Collection[str],
    *,
    gap: float = GAP,
    beside: float = 0,
) -> None:
    """Draws a legend under the axis' name, where it hides nothing.

    Args:
        ax: where to draw.
        handles: what stands before each text.
        texts: what the legend says.
        gap: points from the axes down to the legend, for tick labels and the axis' name.
        beside: inches that labels take beside the axes.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    # A lone Axes is 0.775 of its figure wide before its margins are fitted.
    width = figure.get_figwidth() * ax.get_position().width / 0.775 - 0.8 - beside
    ax.legend(
        list(handles),
        list(texts),
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=_below(ax, gap),
        borderaxespad=0,
        borderpad=0,
        handlelength=2.6,
        columnspacing=1.2,
        ncols=_columns(texts, width),
    )
