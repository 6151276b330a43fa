"""Figures of estimates: functions that take and return a matplotlib Axes.

Nothing here touches pyplot or changes matplotlib's settings for others. Draw inside `style()` to
get the look of offrl's reports. An algorithm's colour and line depend on its name alone, so they
are the same in every figure.
"""

import hashlib
import io
import itertools
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import offset_copy

from offrl.errors import InputError

# Okabe and Ito's colours for colour-blind readers ("Color universal design", 2008); their black and
# yellow, each lost on one of the two page backgrounds, give way to grey and Tol's wine.
COLOURS = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # green
    "#CC79A7",  # purple
    "#E69F00",  # orange
    "#56B4E9",  # sky
    "#882255",  # wine
    "#7F7F7F",  # grey
)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
# Well-known names get colours that differ; any other name gets one by its hash.
KNOWN = (
    *("td3bc", "iql", "cql", "edac", "dt", "rebrac", "awac", "bc"),
    *("mopo", "combo", "rambo", "mobile", "mcq", "sacn", "calql", "%bc"),
    *("bcq", "bear", "crr", "plas", "spot", "td3", "xql", "sac"),
)
ALIASES = {"decisiontransformer": "dt", "percentbc": "%bc", "10%bc": "%bc"}
INK = "#1f2630"  # text and axes; `svg` turns it into the colour of the text around the figure
NAMES = {
    "iqm": "IQM",
    "median": "median",
    "mean": "mean",
    "optimality_gap": "optimality gap",
}
# How each kind of interval is drawn, and a point without one.
EXPANDED: dict[str, Any] = {"lw": 1.6, "marker": "|", "ms": 7, "mew": 1.6}
INTERVALS: dict[str, dict[str, Any]] = {
    "percentile": {"lw": 7, "alpha": 0.35, "solid_capstyle": "butt"},
    "expanded percentile": EXPANDED,
    "studentized": {"lw": 0.9, "marker": "|", "ms": 4, "mew": 0.9},
}
HOLLOW: dict[str, Any] = {"lw": 0, "marker": "o", "ms": 5.5, "mfc": "none"}
DOT: dict[str, Any] = {"lw": 0, "marker": "o", "ms": 2.6}
JOINED: dict[str, Any] = {"color": INK, "lw": 3.5, "solid_capstyle": "butt"}
NO_DIFFERENCE: dict[str, Any] = {"color": INK, "lw": 1, "linestyle": (0, (4, 3))}
POINTWISE = "95 % pointwise"
SIMULTANEOUS = "95 % simultaneous"
NO_INTERVAL = "no interval"
LEGEND_SIZE = 8  # points
LINE = 0.16  # inches a line of text takes: the unit of height of figures made of rows
WRAP = 22  # characters of an algorithm's name on one line beside an axis
WRAP_LEGEND = 32  # and in a legend


def style(name: str = "offrl") -> AbstractContextManager[None]:
    """A context with the look of offrl's figures; `name` makes the ids inside an SVG its own."""
    return matplotlib.rc_context(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": INK,
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.linewidth": 0.8,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 10,
            "figure.facecolor": "white",
            "font.family": ["DejaVu Sans"],
            "font.size": 9,
            "grid.alpha": 0.3,
            "grid.color": "#8a929c",
            "grid.linewidth": 0.6,
            "legend.fontsize": LEGEND_SIZE,
            "legend.frameon": False,
            "legend.labelcolor": INK,
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )


def line_style(algorithm: str) -> dict[str, Any]:
    """Colour, dash and marker of an algorithm: keywords for `Axes.plot`, from its name alone.

    Another way to act ("dt: target 2") has the colour of its algorithm, with other dashes.
    """
    label, _, way = algorithm.partition(": ")
    if way:
        look = line_style(label)
        following = (DASHES.index(look["linestyle"]) + 1) % len(DASHES)
        return {**look, "linestyle": DASHES[following]}
    key = "".join(c for c in algorithm.casefold() if c.isalnum() or c == "%")
    key = ALIASES.get(key, key)
    if key in KNOWN:
        index = KNOWN.index(key)
        colour, dash, marker = index % len(COLOURS), index // len(COLOURS), index % len(MARKERS)
    else:
        digest = hashlib.sha256(algorithm.encode()).digest()
        colour, dash, marker = (
            byte % len(choices)
            for byte, choices in zip(digest, (COLOURS, DASHES, MARKERS), strict=False)
        )
    return {"color": COLOURS[colour], "linestyle": DASHES[dash], "marker": MARKERS[marker]}


def interval_plot(
    summary: pd.DataFrame,
    metric: str = "iqm",
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Point estimate and all intervals of one metric, a row per algorithm; returns the Axes.

    An end at infinity, which a studentized interval may have, is an arrow at the edge.

    Args:
        summary: what `statistics.summarise` gives; the methods that it has are drawn.
        metric: one of `statistics.METRICS`.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        ax: where to draw; by default a new figure of fitting size.
    """
    rows = summary[summary["metric"] == metric]
    names = list(dict.fromkeys(rows["algorithm"]))
    texts = [_label(name, labels) for name in names]
    methods = [method for method in INTERVALS if (rows["ci_method"] == method).any()]
    below = {"studentized": 0.65}  # lines of text under the others
    ys, bottom = _rows(texts, 1.2 if below.keys() & set(methods) else 0.8)
    legend = {}
    if rows["ci_low"].notna().any():
        legend = {f"95 % {m}": Line2D([], [], color=INK, **INTERVALS[m]) for m in methods}
    if rows["ci_low"].isna().any():
        legend[NO_INTERVAL] = Line2D([], [], color=INK, **HOLLOW)
    beside = _width(texts)
    width = max(4.8, 3.2 + beside)
    height = 0.8 + LINE * max(3.0, bottom) + _legend_height(legend, width - beside)
    ax = ax or _new_axes(width, height)
    endless = []
    at = rows.set_index(["algorithm", "ci_method"])[["estimate", "ci_low", "ci_high"]].T
    for y, name in zip(ys, names, strict=True):
        colour = line_style(name)["color"]
        hollow = True
        for method in methods:
            estimate, *ends = at[name, method].astype(float)
            place = y + below.get(method, 0)
            finite = [end for end in ends if np.isfinite(end)]
            ax.plot(finite, [place] * len(finite), color=colour, **INTERVALS[method])
            if np.isinf(ends).any():
                endless.append((ends, place, colour))
            hollow = hollow and bool(np.isnan(ends).any())
        if np.isnan(estimate):
            _not_computed(ax, y)
        else:
            _point(ax, estimate, y, colour, hollow=hollow)
    _name_rows(ax, ys, bottom, texts)
    ax.set_ylabel("algorithm")
    ax.set_xlabel(f"{NAMES[metric]} of the score, 0–{scale:g}")
    ax.margins(x=0.08)
    edges = ax.get_xlim()
    for ends, y, colour in endless:
        ax.plot(np.clip(ends, *edges), [y, y], color=colour, lw=0.9)
        for end, edge, arrow in zip(ends, edges, "<>", strict=True):
            if np.isinf(end):
                ax.plot(edge, y, color=colour, marker=arrow, ms=4, clip_on=False)
    ax.set_xlim(edges)
    _legend_below(ax, legend.values(), legend, beside=beside)
    return ax


def profile_plot(
    profile: pd.DataFrame,
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Performance profiles with both bands, a line per algorithm; returns the Axes.

    Args:
        profile: what `statistics.profile` gives.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        ax: where to draw; by default a new figure of fitting size.
    """
    ax = ax or _new_axes(6.4, 3.4 + _legend_height(_legend_texts(profile, labels)))
    _lines(ax, profile, labels, x="tau", y="share", steps=True)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel(f"threshold τ on the score, 0–{scale:g}")
    ax.set_ylabel("share of runs with score > τ")
    return ax


def curve_plot(
    curve: pd.DataFrame,
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Learning curves with both bands, a line per algorithm; returns the Axes.

    Args:
        curve: what `statistics.curve` gives.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        title: what the curves are on.
        ax: where to draw; by default a new figure of fitting size.
    """
    ax = ax or _new_axes(4.8, 2.9 + _legend_height(_legend_texts(curve, labels), 4.8))
    _lines(ax, curve, labels, x="step", y="iqm")
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
    ax.set_title(_plain(title), loc="left")
    return ax


def online_plot(
    online: pd.DataFrame,
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Expected online performance against the tuning budget, a line per algorithm; the Axes.

    Args:
        online: columns algorithm, budget (policies evaluated online), value, ci_low, ci_high.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        ax: where to draw; by default a new figure of fitting size.
    """
    ax = ax or _new_axes(4.8, 2.9 + _legend_height(_legend_texts(online, labels), 4.8))
    _lines(ax, online, labels, x="budget", y="value")
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


def improvement_plot(
    pairs: pd.DataFrame,
    *,
    baseline: str | None = None,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Probability of improvement P(X > Y) with its interval, a row per pair; returns the Axes.

    Beyond some 6 algorithms give a baseline, or see `improvement_matrix_plot`.

    Args:
        pairs: the pairs of `comparison.compare`.
        baseline: draw only this algorithm's pairs, with it as Y; InputError if it has none.
        labels: what to write in place of an algorithm's name.
        ax: where to draw; by default a new figure of fitting size.
    """
    if baseline is not None:
        both = pd.concat([pairs, _turned(pairs)])
        pairs = both[both["y"] == baseline]
        if not len(pairs):
            names = ", ".join(dict.fromkeys(both["x"]))
            raise InputError(f"no pair with baseline {baseline!r}; expected one of {names}")
    left, right = ([_label(name, labels) for name in pairs[side]] for side in ("x", "y"))
    ys, bottom = _rows([max(two, key=_height) for two in zip(left, right, strict=True)])
    ax = ax or _new_axes(3.8 + _width(left) + _width(right), 1.2 + LINE * max(3.0, bottom))
    values = pairs[["probability", "probability_low", "probability_high"]].to_numpy(np.float64)
    ax.axvline(0.5, **NO_DIFFERENCE)
    for y, name, (value, low, high) in zip(ys, pairs["x"], values.tolist(), strict=True):
        if np.isnan(value):
            _not_computed(ax, y)
            continue
        colour = line_style(name)["color"]
        ax.plot([low, high], [y, y], color=colour, **EXPANDED)
        _point(ax, value, y, colour, hollow=bool(np.isnan(low)))
    _name_rows(ax, ys, bottom, left)
    ax.set_ylabel("algorithm X")
    other = ax.twinx()
    _name_rows(other, ys, bottom, right)
    other.set_ylabel("algorithm Y", labelpad=8)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("probability of improvement P(X > Y), 0–1")
    legend = {"no difference": Line2D([], [], **NO_DIFFERENCE)}
    if not np.isnan(values[:, 1]).all():
        legend["95 % interval"] = Line2D([], [], color=INK, **EXPANDED)
    if np.isnan(values[:, 1]).any():
        legend[NO_INTERVAL] = Line2D([], [], color=INK, **HOLLOW)
    _legend_below(ax, legend.values(), legend, beside=_width(left) + _width(right))
    return ax


def improvement_matrix_plot(
    pairs: pd.DataFrame,
    *,
    alpha: float = 0.05,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Probabilities of improvement P(X > Y), X in rows and Y in columns; returns the Axes.

    Algorithms stand in the order of their mean probability, best first. A dot marks the pairs whose
    IQMs the tests tell apart: p at most alpha after Holm's correction.

    Args:
        pairs: the pairs of `comparison.compare`; a pair that they lack is left empty.
        alpha: level of the test.
        labels: what to write in place of an algorithm's name.
        ax: where to draw (its colour bar takes some of the room); by default a new figure of
            fitting size.
    """
    both = pd.concat([pairs, _turned(pairs)])
    means = both.groupby("x", sort=False)["probability"].mean()
    names = list(means.sort_values(ascending=False, kind="stable").index)
    texts = [_label(name, labels) for name in names]
    lines = max((*map(_height, texts), 1.7))
    size = _width(texts) + max(2.4, len(names) * (0.08 + LINE * lines))
    ax = ax or _new_axes(size + 1.5, size + 0.9)
    # White is no difference, grey no value.
    colours = matplotlib.colormaps["PuOr"].with_extremes(bad="#d5d8dc")
    grid = both.pivot(index="x", columns="y", values="probability").loc[names, names]
    cells = grid.to_numpy(np.float64)
    image = ax.pcolormesh(cells, cmap=colours, vmin=0, vmax=1, edgecolors="white", lw=0.8)
    place = {name: k + 0.5 for k, name in enumerate(names)}
    for x, y, chance, p in zip(
        *(both[c] for c in ("x", "y", "probability", "p_holm")), strict=True
    ):
        if np.isnan(chance):
            continue
        # Not INK, which takes the page's text colour: cells are as bright on a dark page.
        ink = "black" if np.dot(colours(chance)[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
        at = place[y], place[x]
        ax.text(*at, f"{chance:.2f}", color=ink, fontsize=7, ha="center", va="center_baseline")
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
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, fraction=0.06, pad=0.03, aspect=30)
    bar.set_label("probability of improvement\nP(X > Y), 0–1")
    bar.outline.set_visible(False)
    told = f"IQMs told apart:\np ≤ {alpha:g} after Holm's correction"
    _legend_below(ax, [Line2D([], [], color=INK, **DOT)], [told], gap=8)
    return ax


def critical_difference_plot(
    ranks: pd.DataFrame,
    pairs: pd.DataFrame,
    *,
    alpha: float = 0.05,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The critical-difference diagram of Demšar (2006, figure 1): mean ranks; returns the Axes.

    A bar joins neighbours in mean rank no two of whose IQMs the tests tell apart: p
    above alpha after Holm's correction. Two that are not told apart, but have between them one that
    is told apart from either, get no bar.

    Args:
        ranks: what `statistics.ranks` gives.
        pairs: the pairs of `comparison.compare`; InputError where two algorithms have none.
        alpha: level of the test.
        labels: what to write in place of an algorithm's name.
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
    sides = [[_label(name, labels) for name in side] for side in halves]
    places = [_rows(texts) for texts in sides]
    top = 1.2 + 0.7 * len(ends)
    bottom = top + max(below for _, below in places)
    ax = ax or _new_axes(5.2 + sum(map(_width, sides)), 0.9 + LINE * bottom)
    for low, high, y in bars:
        # Square ends, so that a bar of no length, between ties, is seen too.
        ax.plot([low, high], [y, y], **JOINED, marker="s", ms=3, mew=0, zorder=3)
    beside = ax.get_yaxis_transform()
    for side, texts, (ys, _), edge, sign in zip(
        halves, sides, places, (0, 1), (-1, 1), strict=True
    ):
        align = "left" if edge else "right"
        for name, text, y in zip(side, texts, ys, strict=True):
            x, end, colour = means[name], (1, last)[edge], line_style(name)["color"]
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
    told = f"no two IQMs told apart:\np > {alpha:g} after Holm's correction"
    _legend_below(ax, [Line2D([], [], **JOINED)], [told], gap=6)
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
    texts = [_label(name, labels) for name in ranks["algorithm"]]
    # Viridis is ordered in lightness, for colour-blind readers too.
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(texts)))
    legend = {f"rank {k + 1}": Patch(facecolor=colour) for k, colour in enumerate(colours)}
    beside = _width(texts)
    ys, bottom = _rows(texts)
    height = 0.8 + LINE * max(3.0, bottom) + _legend_height(legend, 4.4)
    ax = ax or _new_axes(4.4 + beside, height)
    start = np.zeros(len(texts))
    for k, colour in enumerate(colours):
        chance = ranks[f"rank_{k + 1}"].to_numpy(np.float64)
        ax.barh(ys, chance, 1.2, start, color=colour, edgecolor="white", lw=0.25)
        start += chance
    _name_rows(ax, ys, bottom, texts)
    ax.set_ylabel("algorithm")
    ax.set_xlim(0, 1)
    ax.set_xlabel("probability of the rank on a data set (1 is best), 0–1")
    _legend_below(ax, legend.values(), legend, beside=beside)
    return ax


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page: transparent, in the page's text colour."""
    file = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as .svg, .pdf and .png (200 dpi) and return the paths; no dates inside."""
    kinds: dict[str, dict[str, Any]] = {
        "svg": {"metadata": {"Date": None}},
        "pdf": {"metadata": {"CreationDate": None}},
        "png": {"dpi": 200},
    }
    paths = []
    for kind, options in kinds.items():
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        figure.savefig(paths[-1], **options)
    return paths


def _new_axes(width: float, height: float) -> Axes:
    """The Axes of a new figure, in inches, whose margins fit its labels and legend."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def _plain(text: str) -> str:
    """The text with dollar signs that matplotlib takes for dollar signs."""
    return text.replace("$", r"\$")


def _label(name: str, labels: Mapping[str, str] | None, width: int = WRAP) -> str:
    """An algorithm's label, wrapped (breaking long words) and with at most four lines."""
    text = (labels or {}).get(name, name)
    return _plain("\n".join(textwrap.wrap(text, width, max_lines=4, placeholder=" …")) or text)


def _height(text: str) -> int:
    """Its lines."""
    return text.count("\n") + 1


def _width(texts: Collection[str]) -> float:
    """Inches that the longest line takes, in the font of labels."""
    lines = {line for text in texts for line in text.split("\n")}
    size = matplotlib.rcParams["font.size"]
    return max(
        (TextPath((0, 0), line, size=size).get_extents().x1 / 72 for line in lines), default=0
    )


def _rows(texts: Sequence[str], space: float = 0.8) -> tuple[list[float], float]:
    """Where rows with such labels are, downwards in lines of text, and where the last one ends.

    A row is as high as its label and some space, so that labels never touch.
    """
    heights = np.array([space + _height(text) for text in texts])
    return (heights.cumsum() - heights / 2).tolist(), float(heights.sum())


def _name_rows(ax: Axes, ys: Sequence[float], bottom: float, texts: Sequence[str]) -> None:
    """The labels of rows."""
    ax.set_yticks(ys, texts)
    ax.set_ylim(bottom, 0)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")


def _point(ax: Axes, x: float, y: float, colour: str, *, hollow: bool) -> None:
    """An estimate; hollow where it has no interval."""
    face = "none" if hollow else colour
    ax.plot(x, y, marker="o", ms=5.5, mfc=face, mec=colour, mew=1.4, zorder=3)


def _not_computed(ax: Axes, y: float) -> None:
    """Says in its row that there is no estimate."""
    where: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center"}
    ax.text(0.02, y, "not computed", style="italic", fontsize=8, **where)


def _turned(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with X and Y exchanged: P(Y > X) is 1 - P(X > Y), ties counting half to each."""
    return pd.DataFrame(
        {
            "x": pairs["y"],
            "y": pairs["x"],
            "probability": 1 - pairs["probability"],
            "probability_low": 1 - pairs["probability_high"],
            "probability_high": 1 - pairs["probability_low"],
            "p_holm": pairs["p_holm"],
        }
    )


def _joined(
    means: "pd.Series[float]", pairs: pd.DataFrame, alpha: float
) -> Iterator[tuple[float, float]]:
    """The widest ranges of mean ranks in which no two algorithms are told apart, best first.

    Algorithms of equal mean rank are all in a range or none is, as no reader could tell otherwise.
    """
    told = {
        frozenset((x, y)): p <= alpha
        for x, y, p in zip(pairs["x"], pairs["y"], pairs["p_holm"], strict=True)
    }
    for two in itertools.combinations(means.index, 2):
        if frozenset(two) not in told:
            raise InputError(
                f"no pair of {two[0]!r} and {two[1]!r}; compare all pairs, not a baseline's"
            )
    places = [(rank, list(same.index)) for rank, same in means.groupby(means)]
    reached = -np.inf
    for first, (low, _) in enumerate(places):
        inside: list[str] = []
        high = -np.inf
        for rank, same in places[first:]:
            if any(told[frozenset(two)] for two in itertools.combinations(inside + same, 2)):
                break
            inside += same
            high = rank
        if len(inside) > 1 and high > reached:
            yield low, high
            reached = high


def _columns(texts: Collection[str], width: float) -> int:
    """How many legend columns of like height fit into so many inches."""
    letters = _width(texts) * LEGEND_SIZE / matplotlib.rcParams["font.size"]
    rows = -(-len(texts) // max(1, int(width / (0.6 + letters))))
    return -(-len(texts) // max(1, rows))


def _legend_height(texts: Collection[str], width: float = 6.4) -> float:
    """Inches that a legend below axes in a figure of such a width takes."""
    rows = -(-len(texts) // _columns(texts, width - 0.8)) if texts else 0
    return 0.1 + rows * LINE * max(map(_height, texts), default=1)


def _legend_below(
    ax: Axes,
    handles: Collection[Any],
    texts: Collection[str],
    *,
    gap: float = 34,
    beside: float = 0,
) -> None:
    """A legend under the axis' name, where it hides nothing.

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
        # In points: the height of tick labels does not scale.
        bbox_to_anchor=(0, 0),
        bbox_transform=offset_copy(ax.transAxes, figure, x=0, y=-gap, units="points"),
        borderaxespad=0,
        borderpad=0,
        handlelength=2.6,
        columnspacing=1.2,
        ncols=_columns(texts, width),
    )


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The look of each algorithm of one figure.

    Where two share a hash the later one gets other dashes, or another marker; never a new colour.
    """
    looks: dict[str, dict[str, Any]] = {}
    for name in names:
        own = line_style(name)
        others = (
            {**own, "linestyle": dash, "marker": marker}
            for marker in _from(MARKERS, own["marker"])
            for dash in _from(DASHES, own["linestyle"])
        )
        looks[name] = next((look for look in others if look not in looks.values()), own)
    return looks


def _from(choices: Sequence[Any], first: Any) -> Sequence[Any]:
    """The choices in their order, beginning with `first`."""
    start = choices.index(first)
    return [*choices[start:], *choices[:start]]


def _legend_texts(data: pd.DataFrame, labels: Mapping[str, str] | None) -> list[str]:
    """What the legend of lines says: the algorithms, then the kinds of band that there are."""
    texts = [_label(name, labels, WRAP_LEGEND) for name in dict.fromkeys(data["algorithm"])]
    for kind, column in ((POINTWISE, "ci_low"), (SIMULTANEOUS, "band_low")):
        if column in data and data[column].notna().any():
            texts += [kind]
    if data["ci_low"].isna().any():
        texts += [NO_INTERVAL]
    return texts


def _lines(
    ax: Axes,
    data: pd.DataFrame,
    labels: Mapping[str, str] | None,
    *,
    x: str,
    y: str,
    steps: bool = False,
) -> None:
    """A line with its bands per algorithm, and the legend."""
    looks = _looks(list(dict.fromkeys(data["algorithm"])))
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
    texts = _legend_texts(data, labels)
    keys = {
        POINTWISE: Patch(color=INK, alpha=0.3, lw=0),
        SIMULTANEOUS: Patch(color=INK, alpha=0.12, lw=0),
        NO_INTERVAL: Line2D([], [], color=INK, **HOLLOW),
    }
    handles += [keys[text] for text in texts[len(looks) :]]
    _legend_below(ax, handles, texts)
