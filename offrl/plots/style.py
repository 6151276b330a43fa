"""The look of offrl's figures, and files of figures."""

import hashlib
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from offrl import registry
from offrl.text import visible
from offrl.toml import read_toml

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
FONT = "DejaVu Sans"
# Families with the signs of many scripts.
STAND_IN = re.compile("CJK|Noto Sans|Han Sans|WenQuanYi|Gothic|Ming|Hei|Yahei|PingFang|Uni")


@contextmanager
def style(name: str = "offrl", texts: Iterable[str] = ()) -> Iterator[None]:
    """A context with the look of offrl's figures; the ids inside an SVG are made from `name`.

    `texts` is what the figures write: where their font lacks a sign of it, an installed one that
    has it stands in. What no font has is drawn as a box, without a warning: see `lacking_signs`.
    """
    stand_ins, _ = fonts_for(_signs(texts))
    with warnings.catch_warnings(), matplotlib.rc_context(_look(name, stand_ins)):
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def lacking_signs(texts: Iterable[str]) -> str:
    """The signs of these texts that neither the figures' font nor an installed one has."""
    return fonts_for(_signs(texts))[1]


def _signs(texts: Iterable[str]) -> str:
    return "".join(sorted({sign for text in texts for sign in visible(text) if not sign.isspace()}))


@cache
def fonts_for(signs: str) -> tuple[tuple[str, ...], str]:
    """Installed fonts that have what FONT lacks of these signs, and the signs that none has."""
    lacking = set(map(ord, signs)) - _signs_of(font_manager.findfont(FONT))
    fonts = []
    installed = {font.name for font in font_manager.fontManager.ttflist}
    for name in sorted(filter(STAND_IN.search, installed)):
        # The face that figures use: others of its family, such as a light one, have fewer signs.
        held = lacking & _signs_of(font_manager.findfont(name)) if lacking else set()
        if held:
            fonts.append(name)
            lacking -= held
    return tuple(fonts), "".join(map(chr, sorted(lacking)))


def _signs_of(path: str) -> set[int]:
    try:
        return set(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a damaged or vanished font
        return set()


def _look(name: str, stand_ins: Sequence[str]) -> Any:
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": INK,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.facecolor": "white",
        "font.family": [FONT, *stand_ins],
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


def line_style(algorithm: str) -> dict[str, Any]:
    """Colour, dash and marker of an algorithm: keywords for `Axes.plot`, from its name alone.

    The names in `reports/looks.toml` take looks in their order there, so that they differ; any
    other name takes one by its hash. Another way to act ("dt: target 2") has the colour of its
    algorithm, with other dashes.
    """
    label, _, way = algorithm.partition(": ")
    if way:
        look = line_style(label)
        following = (DASHES.index(look["linestyle"]) + 1) % len(DASHES)
        return {**look, "linestyle": DASHES[following]}
    place = _places().get(_key(algorithm))
    if place is not None:
        numbers: Sequence[int] = (place, place // len(COLOURS), place)
    else:
        numbers = hashlib.sha256(algorithm.encode()).digest()
    colour, dash, marker = (
        choices[number % len(choices)]
        for number, choices in zip(numbers, (COLOURS, DASHES, MARKERS), strict=False)
    )
    return {"color": colour, "linestyle": dash, "marker": marker}


def distinct_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The look of each algorithm of one figure.

    Where two have one look the later gets other dashes, or another marker; never a new colour.
    """
    looks: dict[str, dict[str, Any]] = {}
    for name in names:
        own = line_style(name)
        others = (
            {**own, "linestyle": dash, "marker": marker}
            for marker in _rotated(MARKERS, own["marker"])
            for dash in _rotated(DASHES, own["linestyle"])
        )
        looks[name] = next((look for look in others if look not in looks.values()), own)
    return looks


@cache
def _places() -> dict[str, int]:
    """The place of each well-known name, and of its other spellings, in the order of looks."""
    looks = read_toml(registry.folder("reports") / "looks.toml")
    places = {_key(name): place for place, name in enumerate(looks["order"])}
    return places | {_key(other): places[_key(name)] for other, name in looks["aliases"].items()}


def _key(name: str) -> str:
    """The name without case and punctuation, but for the percent sign."""
    return "".join(c for c in name.casefold() if c.isalnum() or c == "%")


def _rotated(choices: Sequence[Any], first: Any) -> Sequence[Any]:
    """The choices in their order, from `first` on and around."""
    start = choices.index(first)
    return [*choices[start:], *choices[:start]]


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


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page: transparent, in the page's text colour."""
    file = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
