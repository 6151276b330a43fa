"""Figures of lines with bands: performance profiles, learning curves, tuning budgets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from offrl.plots.layout import in_order, label, legend_below, legend_height, new_axes, plain
from offrl.plots.style import HOLLOW, INK, NO_INTERVAL, distinct_styles
from offrl.statistics.labels import level_of, percent

WRAP_LEGEND = 32  # characters of an algorithm's name on a line of a legend


def profile_plot(
    profile: pd.DataFrame,
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Performance profiles with both bands, a line per algorithm; returns the Axes.

    Args:
        profile: what `statistics.profile` gives.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        order: algorithms that come first, in this order.
        palette: colours by algorithm, as matplotlib takes them.
        ax: where to draw; by default a new figure of fitting size.
    """
    profile = in_order(profile, order, "algorithm")
    ax = ax or new_axes(6.4, 3.4 + legend_height(_legend_texts(profile, labels)))
    _lines(ax, profile, labels, palette, x="tau", y="share", steps=True)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel(f"threshold τ on the score, 0–{scale:g}")
    ax.set_ylabel("share of runs with score > τ")
    return ax


def curve_plot(
    curve: pd.DataFrame,
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    palette: Mapping[str, str] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Learning curves with both bands, a line per algorithm; returns the Axes.

    Args:
        curve: what `statistics.curve` gives.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        order: algorithms that come first, in this order.
        palette: colours by algorithm, as matplotlib takes them.
        title: what the curves are on.
        ax: where to draw; by default a new figure of fitting size.
    """
    curve = in_order(curve, order, "algorithm")
    ax = ax or new_axes(4.8, 2.9 + legend_height(_legend_texts(curve, labels), 4.8))
    _lines(ax, curve, labels, palette, x="step", y="iqm")
    # The simultaneous band of few runs may be many times as wide as all else: it is cut then.
    inner = curve[["iqm", "ci_low", "ci_high"]].to_numpy(np.float64)
    if np.isfinite(inner).any():
        low, high = float(np.nanmin(inner)), float(np.nanmax(inner))
        bottom, top = ax.get_ylim()
        room = 0.25 * (high - low) or 1.0
        ax.set_ylim(max(bottom, low - room), min(top, high + room))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("gradient steps")
    ax.set_ylabel(f"IQM of the score, 0–{scale:g}")
    ax.set_title(plain(title), loc="left")
    return ax


def online_plot(
    online: pd.DataFrame,
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Expected online performance against the tuning budget, a line per algorithm; the Axes.

    Args:
        online: columns algorithm, budget (policies evaluated online), value, ci_low, ci_high.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        order: algorithms that come first, in this order.
        palette: colours by algorithm, as matplotlib takes them.
        ax: where to draw; by default a new figure of fitting size.
    """
    online = in_order(online, order, "algorithm")
    ax = ax or new_axes(4.8, 2.9 + legend_height(_legend_texts(online, labels), 4.8))
    _lines(ax, online, labels, palette, x="budget", y="value")
    if online["budget"].max() > 30 * online["budget"].min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda budget, _: f"{budget:,.0f}"))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("policies evaluated online")
    ax.set_ylabel(f"expected online performance, 0–{scale:g}")
    return ax


def _legend_texts(data: pd.DataFrame, labels: Mapping[str, str] | None) -> list[str]:
    """Texts of the legend: the algorithms, then the kinds of band that the data have."""
    texts = [label(name, labels, WRAP_LEGEND) for name in dict.fromkeys(data["algorithm"])]
    return [*texts, *_bands(data)]


def _bands(data: pd.DataFrame) -> dict[str, Any]:
    """The kinds of band that the data have, at their level, and how the legend shows each."""
    level, bands = percent(level_of(data)), dict[str, Any]()
    for kind, column, alpha in (("pointwise", "ci_low", 0.3), ("simultaneous", "band_low", 0.12)):
        if column in data and data[column].notna().any():
            bands[f"{level} {kind}"] = Patch(color=INK, alpha=alpha, lw=0)
    if data["ci_low"].isna().any():
        bands[NO_INTERVAL] = Line2D([], [], color=INK, **HOLLOW)
    return bands


def _lines(
    ax: Axes,
    data: pd.DataFrame,
    labels: Mapping[str, str] | None,
    palette: Mapping[str, str] | None,
    *,
    x: str,
    y: str,
    steps: bool = False,
) -> None:
    """Draws a line with its bands per algorithm, and the legend."""
    looks = distinct_styles(list(dict.fromkeys(data["algorithm"])), palette)
    alpha = 0.2 if len(looks) <= 4 else 0.8 / len(looks)
    bands = [("ci_low", "ci_high", alpha)]
    if "band_low" in data:
        bands.append(("band_low", "band_high", alpha / 2))
    handles: list[Any] = []
    for name, look in looks.items():
        part = data[data["algorithm"] == name]
        xs, ys = part[x].to_numpy(np.float64), part[y].to_numpy(np.float64)
        marked = np.arange(0, len(xs), max(1, len(xs) // 8))
        bare = part["ci_low"].isna().to_numpy()[marked]
        (line,) = ax.plot(xs, ys, lw=1.6, ms=4, markevery=marked[~bare].tolist(), **look)
        line.set_drawstyle("steps-post" if steps else "default")
        if bare.any():
            hollow = {**look, "linestyle": "", "mfc": "none", "ms": 5}
            ax.plot(xs[marked[bare]], ys[marked[bare]], **hollow)
        if bare.all():
            line.set_markerfacecolor("none")  # in the legend
        for low, high, strength in bands:
            ends = part[low].to_numpy(np.float64), part[high].to_numpy(np.float64)
            options: dict[str, Any] = {"color": look["color"], "alpha": strength, "lw": 0}
            ax.fill_between(xs, *ends, step="post" if steps else None, **options)
        handles.append(line)
    handles += _bands(data).values()
    legend_below(ax, handles, _legend_texts(data, labels))
