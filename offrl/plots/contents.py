"""Figures of what data sets hold: distributions, values along a set, densities on a plane."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from offrl.plots.layout import label, new_axes
from offrl.plots.style import COLOURS, INK, REST

BINS = 40
NAMED = 6  # choices that are written by name
WIDTH = 36  # characters side by side below an axis
POINTS = 500  # along a data set: of more rows, the extremes of each stretch

Array = NDArray[Any]


def _colour(place: int) -> str:
    return COLOURS[place] if place < len(COLOURS) else REST


def histogram_plot(
    values: Mapping[str, Array],
    *,
    x_name: str,
    lines: Mapping[str, float] | None = None,
    size: tuple[float, float] = (4.4, 2.6),
) -> Axes:
    """Shares of the values of each of some data sets, as steps in the order of COLOURS.

    Args:
        values: by a name that is not written: the page has the legend.
        x_name: what they are.
        lines: of reference, by what is written beside them.
        size: width and height in inches.
    """
    ax = new_axes(*size)
    every = np.concatenate([np.asarray(part, np.float64) for part in values.values()])
    marks = list((lines or {}).values())
    low, high = min([every.min(), *marks]), max([every.max(), *marks])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    for place, part in enumerate(values.values()):
        shares = np.histogram(part, edges)[0] / len(part)
        ax.stairs(shares, edges, color=_colour(place), lw=1.5, fill=len(values) == 1, alpha=0.9)
    for text, value in (lines or {}).items():
        ax.axvline(value, color=INK, lw=0.9, ls=(0, (4, 3)))
        ax.annotate(
            text,
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -1),
            textcoords="offset points",
            va="top",
            fontsize=8,
            rotation=90,
        )
    ax.set_ylim(0)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel(x_name)
    ax.set_ylabel("share of episodes")
    return ax


def course_plot(
    values: Array,
    *,
    x_name: str,
    y_name: str,
    line: float | None = None,
    log: bool = False,
    size: tuple[float, float] = (4.4, 2.6),
) -> Axes:
    """Values along a data set; of many, the range of each stretch and its middle.

    Args:
        values: (N,), in the order of the data.
        x_name: what they are counted by.
        y_name: what they are.
        line: a value of reference.
        log: whether the axis of values is logarithmic, from the smallest positive one.
        size: width and height in inches.
    """
    ax = new_axes(*size)
    numbers = np.asarray(values, np.float64)
    if log:
        positive = numbers[numbers > 0]
        numbers = np.maximum(numbers, positive.min() if len(positive) else 1)
    parts = np.array_split(numbers, min(POINTS, len(numbers)))
    places = np.cumsum([0, *map(len, parts[:-1])])
    low, middle, high = (np.array([f(part) for part in parts]) for f in (np.min, np.median, np.max))
    if len(parts) < len(numbers):
        ax.fill_between(places, low, high, color=COLOURS[0], alpha=0.35, lw=0, step="post")
        ax.step(places, high, color=COLOURS[0], lw=0.6, where="post")
    ax.plot(places, middle, color=COLOURS[0], lw=1, marker="." if len(parts) < 60 else "")
    if line is not None:
        ax.axhline(line, color=COLOURS[1], lw=1, ls=(0, (4, 3)))
    if log:
        ax.set_yscale("log")
    else:
        ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel(x_name)
    ax.set_ylabel(y_name)
    return ax


def density_plot(
    density: Array,
    edges: tuple[Array, Array],
    *,
    x_name: str,
    y_name: str,
    place: int = 0,
    size: tuple[float, float] = (3.3, 2.9),
) -> Axes:
    """A density over two axes as shades of a colour, by the root of each cell's share.

    Args:
        density: shares (cells, cells), the first axis along x.
        edges: of the cells, along both axes.
        x_name: what the first axis is.
        y_name: what the second axis is.
        place: of the colour in COLOURS.
        size: width and height in inches.
    """
    ax = new_axes(*size)
    ax.grid(visible=False)
    image = np.zeros((*density.T.shape, 4))
    image[..., :3] = to_rgb(_colour(place))
    top = density.max()
    if top > 0:
        filled = density.T > 0  # so that one row in a million is seen
        image[..., 3] = np.where(filled, 0.12 + 0.88 * np.sqrt(density.T / top), 0)
    (left, *_, right), (bottom, *_, upper) = edges
    ax.imshow(
        image,
        extent=(left, right, bottom, upper),
        origin="lower",
        aspect="auto",
        interpolation="none",
    )
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(x_name)
    ax.set_ylabel(y_name)
    return ax


def action_plot(
    actions: Array,
    *,
    names: Sequence[str] = (),
    place: int = 0,
    size: tuple[float, float] = (4.4, 2.6),
) -> Axes:
    """How often each action is taken: values along y for each column, or shares of choices.

    Args:
        actions: float (N, columns), or whole numbers (N,) of discrete ones.
        names: of the choices; of more than NAMED their numbers are written.
        place: of the colour in COLOURS.
        size: width and height in inches.
    """
    if actions.ndim == 1:
        ax = new_axes(*size)
        counts = np.bincount(actions, minlength=len(names))
        ax.stairs(
            counts / len(actions), np.arange(len(counts) + 1) - 0.5, color=_colour(place), fill=True
        )
        if 0 < len(names) <= NAMED:
            texts = [label(name, None, WIDTH // len(names)) for name in names]
            ax.set_xticks(range(len(names)), texts)
        else:
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_xlabel("action")
        ax.set_ylabel("share of rows")
        return ax
    columns = actions.shape[1]
    low, high = float(actions.min()), float(actions.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    cells = np.stack([np.histogram(actions[:, k], edges)[0] for k in range(columns)])
    shares = cells / cells.max(1, keepdims=True)
    bounds = (np.arange(columns + 1) - 0.5, edges)
    ax = density_plot(
        shares, bounds, x_name="dimension of the action", y_name="value", place=place, size=size
    )
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    return ax
