"""Figures of estimates: functions that take and return a matplotlib Axes.

Nothing here touches pyplot or changes matplotlib's settings for others. Draw inside `style()` to
get the look of offrl's reports. An algorithm's colour and line depend on its name alone, so they
are the same in every figure.
"""

import hashlib
import io
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from matplotlib.transforms import offset_copy

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
            "legend.fontsize": 8,
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
    """Point estimate and both intervals of one metric, a row per algorithm; returns the Axes.

    Args:
        summary: what `statistics.summarise` gives.
        metric: one of `statistics.METRICS`.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        ax: where to draw; by default a new figure of fitting size.
    """
    rows = summary[summary["metric"] == metric]
    names = list(dict.fromkeys(rows["algorithm"]))
    texts = [_label(name, labels) for name in names]
    # A row is as high as its label, so that labels never touch.
    heights = np.array([0.8 + text.count("\n") + 1 for text in texts])
    ys = heights.cumsum() - heights / 2
    ax = ax or _new_axes(4.8, 1.2 + 0.16 * max(3.0, heights.sum()))
    at = rows.set_index(["ci_method", "algorithm"])
    for y, name in zip(ys.tolist(), names, strict=True):
        look = line_style(name)
        wide, plain = (
            at.loc[(method, name), ["estimate", "ci_low", "ci_high"]].astype(float).to_numpy()
            for method in ("expanded percentile", "percentile")
        )
        if np.isnan(wide[0]):
            ax.text(
                0.02,
                y,
                "not computed",
                transform=ax.get_yaxis_transform(),
                va="center",
                style="italic",
                fontsize=8,
            )
            continue
        colour = look["color"]
        if not np.isnan(wide[1]):
            ax.plot(plain[1:], [y, y], color=colour, lw=7, alpha=0.35, solid_capstyle="butt")
            ax.plot(wide[1:], [y, y], color=colour, lw=1.6, marker="|", ms=7, mew=1.6)
        filled = colour if not np.isnan(wide[1]) else "none"
        ax.plot(wide[0], y, marker="o", ms=5.5, mfc=filled, mec=colour, mew=1.4, zorder=3)
    ax.set_yticks(ys, texts)
    ax.set_ylim(heights.sum(), 0)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_ylabel("algorithm")
    ax.set_xlabel(f"{NAMES[metric]} of the score, 0–{scale:g}")
    ax.margins(x=0.08)
    legend = {}
    if rows["ci_low"].notna().any():
        legend["95 % expanded percentile"] = Line2D(
            [], [], color=INK, lw=1.6, marker="|", ms=7, mew=1.6
        )
        legend["95 % percentile"] = Line2D(
            [], [], color=INK, lw=7, alpha=0.35, solid_capstyle="butt"
        )
    if rows["ci_low"].isna().any():
        legend["no interval"] = Line2D([], [], color=INK, marker="o", ms=5.5, mfc="none", lw=0)
    _legend_below(ax, list(legend.values()), list(legend))
    return ax


def profile_plot(
    profile: pd.DataFrame,
    *,
    scale: float = 100.0,
    labels: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Performance profiles with pointwise bands, a line per algorithm; returns the Axes.

    Args:
        profile: what `statistics.profile` gives.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        ax: where to draw; by default a new figure of fitting size.
    """
    names = list(dict.fromkeys(profile["algorithm"]))
    ax = ax or _new_axes(6.4, 3.4 + _legend_height(names, labels))
    _lines(ax, profile, names, labels, x="tau", y="share", steps="post")
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
    """Learning curves with pointwise bands, a line per algorithm; returns the Axes.

    Args:
        curve: what `statistics.curve` gives.
        scale: upper end of the score scale, for the axis' name.
        labels: what to write in place of an algorithm's name.
        title: what the curves are on.
        ax: where to draw; by default a new figure of fitting size.
    """
    names = list(dict.fromkeys(curve["algorithm"]))
    ax = ax or _new_axes(4.8, 2.9 + _legend_height(names, labels, 4.8))
    _lines(ax, curve, names, labels, x="step", y="iqm")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("gradient steps")
    ax.set_ylabel(f"IQM of the score, 0–{scale:g}")
    ax.set_title(_plain(title), loc="left")
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


def _columns(texts: Sequence[str], width: float) -> int:
    """How many legend columns fit into so many inches: some 0.068 inch a letter at 8 points."""
    longest = max((len(line) for text in texts for line in text.split("\n")), default=1)
    return max(1, min(len(texts), int(width / (0.5 + 0.068 * longest))))


def _legend_height(
    names: Sequence[str], labels: Mapping[str, str] | None, width: float = 6.4
) -> float:
    """Inches that a legend below the axes takes."""
    texts = [_label(name, labels, WRAP_LEGEND) for name in names]
    rows = -(-len(texts) // _columns(texts, width - 0.8)) if texts else 0
    return 0.1 + rows * 0.16 * max((t.count("\n") + 1 for t in texts), default=1)


def _legend_below(ax: Axes, handles: Sequence[Any], texts: Sequence[str]) -> None:
    """A legend under the axis' name, where it hides nothing."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    ax.legend(
        handles,
        texts,
        loc="upper left",
        # Below the tick labels and the axis' name, in points: their height does not scale.
        bbox_to_anchor=(0, 0),
        bbox_transform=offset_copy(ax.transAxes, figure, x=0, y=-34, units="points"),
        borderaxespad=0,
        borderpad=0,
        handlelength=2.6,
        columnspacing=1.2,
        # A lone Axes is 0.775 of its figure wide before its margins are fitted.
        ncols=_columns(texts, figure.get_figwidth() * ax.get_position().width / 0.775 - 0.8),
    )


def _lines(
    ax: Axes,
    data: pd.DataFrame,
    names: Sequence[str],
    labels: Mapping[str, str] | None,
    *,
    x: str,
    y: str,
    steps: str | None = None,
) -> None:
    """A line with its band per algorithm, and the legend."""
    taken: set[tuple[str, str, str]] = set()
    handles, texts = [], []
    band = 0.18 if len(names) <= 4 else 0.7 / len(names)
    for name in names:
        part = data[data["algorithm"] == name]
        look = line_style(name)
        # Two names may share a hash: the later one takes the next marker, and keeps its colour.
        while (key := (look["color"], str(look["linestyle"]), look["marker"])) in taken:
            if len(taken) >= len(MARKERS):
                break
            look["marker"] = MARKERS[(MARKERS.index(look["marker"]) + 1) % len(MARKERS)]
        taken.add(key)
        values = {c: part[c].to_numpy(np.float64) for c in (x, y, "ci_low", "ci_high")}
        options: dict[str, Any] = {"drawstyle": f"steps-{steps}"} if steps else {}
        every = max(1, len(part) // 8)
        (line,) = ax.plot(values[x], values[y], lw=1.6, ms=4, markevery=every, **look, **options)
        ax.fill_between(
            values[x],
            values["ci_low"],
            values["ci_high"],
            color=look["color"],
            alpha=band,
            lw=0,
            step=cast(Any, steps),
        )
        handles.append(line)
        texts.append(_label(name, labels, WRAP_LEGEND))
    _legend_below(ax, handles, texts)
