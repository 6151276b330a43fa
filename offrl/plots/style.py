"""The look of offrl's figures, and files of figures."""

import hashlib
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from offrl import registry
from offrl.text import visible
from offrl.toml import read_toml

# After Okabe and Ito's colours for colour-blind readers ("Color universal design", 2008), each made
# dark enough for a white page and, in DARK, light enough for a dark one: a contrast of 3 to 1 or
# more (WCAG 2.2, criterion 1.4.11). Their black and yellow give way to wine and slate.
COLOURS = (
    "#2353b5",  # blue
    "#c94f00",  # vermillion
    "#008a63",  # green
    "#c0579a",  # purple
    "#a97800",  # amber
    "#3796c4",  # sky
    "#75184a",  # wine
    "#59636f",  # slate
)
DARK = ("#6e9dff", "#f0823c", "#2dc498", "#f0a5d0", "#e9b432", "#7fd7f5", "#c7578c", "#aeb6bf")
REST = "#868e98"  # of algorithms beyond the number of colours, on either page
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
_COLOUR = re.compile("#[0-9a-f]{6}")
LEGEND_SIZE = 8  # points
FONT = "DejaVu Sans"
# Families with the signs of many scripts.
STAND_IN = re.compile("CJK|Noto Sans|Han Sans|WenQuanYi|Gothic|Ming|Hei|Yahei|PingFang|Uni")


KINDS: dict[str, dict[str, Any]] = {  # of files, with their options
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
    "png": {"dpi": 200},
}
Look = dict[str, Any]  # colour, dashes and marker: keywords for `Axes.plot`
_looks: ContextVar[Mapping[str, Look]] = ContextVar("looks", default=MappingProxyType({}))


@contextmanager
def style(
    name: str = "offrl", texts: Iterable[str] = (), looks: Mapping[str, Look] | None = None
) -> Iterator[None]:
    """A context with the look of offrl's figures.

    Args:
        name: what the ids inside an SVG are made from.
        texts: what the figures write: where their font lacks a sign of it, an installed one that
            has it stands in. What no font has is drawn as a box, without a warning: see
            `lacking_signs`.
        looks: of algorithms, such as those of `assigned_styles`; by default each name has its own.
    """
    stand_ins, _ = fonts_for(_signs(texts))
    token = _looks.set(looks or {})
    try:
        with warnings.catch_warnings(), matplotlib.rc_context(_look(name, stand_ins)):
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            yield
    finally:
        _looks.reset(token)


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


def line_style(algorithm: str, palette: Mapping[str, str] | None = None) -> Look:
    """Colour, dash and marker of an algorithm, as `style` has them, else from its name alone.

    A colour that `palette` has for the name comes first.

    The names in `reports/looks.toml` take looks in their order there, so that they differ; any
    other name takes one by its hash. Another way to act ("dt: target 2") has the colour of its
    algorithm, with other dashes and another marker.
    """
    look = _looks.get().get(algorithm) or _own_style(algorithm)
    colour = (palette or {}).get(algorithm)
    return {**look, "color": colour} if colour else look


def _own_style(algorithm: str) -> Look:
    label, _, way = algorithm.partition(": ")
    if way:
        return _in_another_way(_own_style(label))
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


def _in_another_way(look: Look) -> Look:
    """The look of an algorithm that acts in another way: in its colour, the rest the next one."""
    dashes, markers = _rotated(DASHES, look["linestyle"]), _rotated(MARKERS, look["marker"])
    return {**look, "linestyle": dashes[1], "marker": markers[1]}


def assigned_styles(names: Sequence[str], ways: Mapping[str, str]) -> dict[str, Look]:
    """The looks of the algorithms of one page, no two of which have one colour.

    An algorithm keeps its own colour, unless one before it has that too: then it takes a free one.
    Those beyond the number of colours are grey.

    Args:
        names: the most important first.
        ways: other ways to act with their algorithm, whose colour they have.
    """
    looks: dict[str, Look] = {}
    own = {name: _own_style(name) for name in names if name not in ways}
    first = list(own)[: len(COLOURS)]
    free = list(COLOURS)
    for name in first:
        if own[name]["color"] in free:
            free.remove(own[name]["color"])
            looks[name] = own[name]
    for name in own:
        if name not in looks:
            looks[name] = {**own[name], "color": free.pop(0) if name in first else REST}
    for name in names:
        if name in ways:
            looks[name] = _in_another_way(looks.get(ways[name]) or _own_style(name))
    return looks


def distinct_styles(
    names: Sequence[str], palette: Mapping[str, str] | None = None
) -> dict[str, Look]:
    """The look of each algorithm of one figure.

    Where two have one look the later gets other dashes, or another marker; never a new colour.
    """
    looks: dict[str, Look] = {}
    for name in names:
        own = line_style(name, palette)
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


def save(figure: Figure, stem: Path, kinds: Sequence[str] = ("svg", "pdf", "png")) -> list[Path]:
    """Write the figure as .svg, .pdf and .png (200 dpi) and return the paths; no dates inside."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]
    for path, kind in zip(paths, kinds, strict=True):
        save_as(figure, path, kind)
    return paths


def save_as(figure: Figure, path: Path, kind: str) -> None:
    """Writes the figure as "svg", "pdf" or "png" (200 dpi), without a date inside."""
    figure.savefig(path, format=kind, **KINDS[kind])


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page: see `page_svg`."""
    return page_svg(drawn_svg(figure))


def drawn_svg(figure: Figure) -> str:
    """The figure as a transparent `<svg>` element, with points to a hundredth of their unit."""
    file = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    # Names are escaped in it, so that only tags begin with this sign.
    text = re.sub("<(?:path|use) [^>]*>", _with_short_numbers, text[text.index("<svg") :])
    return re.sub('<g id="[^"]*"', "<g", text)


def _with_short_numbers(tag: re.Match[str]) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0])


def page_svg(drawn: str) -> str:
    """A drawn element for a page: in the page's text colour, lines as its variables have them.

    The variables are --c0, --c1, ... in the order of COLOURS, and by default these.
    """
    paints = {colour: f"var(--c{k},{colour})" for k, colour in enumerate(COLOURS)}
    paints[INK] = "currentColor"

    def painted(tag: re.Match[str]) -> str:
        return _COLOUR.sub(lambda match: paints.get(match[0], match[0]), tag[0])

    return re.sub("<[^>]+>", painted, drawn)


def file_svg(drawn: str) -> str:
    """A drawn element as a file of its own, on white."""
    place = drawn.index(">") + 1
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{drawn[:place]}{white}{drawn[place:]}'
