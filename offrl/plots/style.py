"""The look of offrl's figures, and files of figures."""

import hashlib
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

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
# How the interval of each method is drawn, and a point without one.
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
NO_INTERVAL = "no interval"
LEGEND_SIZE = 8  # points


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


def distinct_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
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
