"""An algorithm's look: from its name alone, and its own among well-known names."""

import itertools
import re
import sys
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from offrl import registry
from offrl.plots.style import (
    COLOURS,
    DARK,
    INK,
    REST,
    assigned_styles,
    distinct_styles,
    drawn_svg,
    file_svg,
    fonts_for,
    lacking_signs,
    line_style,
    page_svg,
    style,
)
from offrl.toml import read_toml

KNOWN = read_toml(registry.folder("reports") / "looks.toml")["order"]


@pytest.mark.parametrize("names", [KNOWN, sorted(registry.modules("algorithms"))])
def test_well_known_and_shipped_algorithms_have_looks_of_their_own(names):
    assert len(names) >= 10
    for one, two in itertools.combinations(names, 2):
        assert line_style(one) != line_style(two), f"{one} and {two}; see reports/looks.toml"


def test_the_first_names_have_colours_of_their_own():
    first = ("TD3+BC", "IQL", "CQL", "EDAC", "DT", "ReBRAC", "AWAC", "BC")
    assert {line_style(name)["color"] for name in first} == set(COLOURS)


def test_spellings_of_a_name_share_a_look():
    assert line_style("td3_bc") == line_style("TD3+BC")
    assert line_style("sac_n") == line_style("SAC-N")
    assert line_style("decision_transformer") == line_style("DT")
    assert line_style("percent_bc") == line_style("10% BC") == line_style("%bc") != line_style("bc")


def test_another_way_to_act_has_the_colour_of_its_algorithm_and_other_dashes():
    other = line_style("dt: target 2")
    assert other["color"] == line_style("dt")["color"]
    assert other["linestyle"] != line_style("dt")["linestyle"]


def test_any_other_name_has_a_look_that_does_not_depend_on_the_figure():
    assert line_style("mine") == line_style("mine") != line_style("other")
    looks = distinct_styles(["IQL", "mine", "other"])
    assert looks == {name: line_style(name) for name in ("IQL", "mine", "other")}


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    darker, lighter = sorted(map(luminance, (one, two)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # WCAG's known example


def test_every_colour_of_a_line_has_contrast_on_both_pages():
    css = (registry.folder("reports") / "report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r"--bg: (#[0-9a-f]{6});", css)
    assert luminance(light) > luminance(dark)
    for page, colours in ((light, COLOURS), (dark, DARK)):
        for colour in (*colours, REST):
            assert contrast(colour, page) >= 3, f"{colour} on {page}"
        assert len({*colours, REST}) == 9
    for page, names in ((light, css), (dark, css[css.index("prefers-color-scheme") :])):
        for name in ("fg", "muted", "warn", "link"):
            match = re.search(rf"--{name}: (#[0-9a-f]{{6}});", names)
            assert match is not None
            assert contrast(match[1], page) >= (3 if name == "warn" else 4.5), f"{name} on {page}"


def test_no_two_algorithms_of_a_page_have_one_colour():
    names = [f"iql-b{k}" for k in range(8)]
    assert len({line_style(name)["color"] for name in names}) < 8  # by name alone they collide
    looks = assigned_styles(names, {})
    assert {look["color"] for look in looks.values()} == {*COLOURS}
    assert looks[names[0]] == line_style(names[0])
    more = assigned_styles([*names, "IQL", "BC"], {})
    assert {name: more[name] for name in names} == looks
    assert {more[name]["color"] for name in ("IQL", "BC")} == {REST}
    few = assigned_styles(["IQL", "IQL: fast", "BC"], {"IQL: fast": "IQL"})
    assert few["IQL"] == line_style("IQL")
    assert few["IQL: fast"]["color"] == few["IQL"]["color"]
    assert few["IQL: fast"]["linestyle"] != few["IQL"]["linestyle"]


def test_looks_hold_inside_their_context_alone():
    own, other = line_style("IQL"), {**line_style("BC"), "color": REST}
    with style("x", looks={"IQL": other}):
        assert line_style("IQL") == other
        assert line_style("CQL")["color"] in COLOURS
    assert line_style("IQL") == own


def test_a_page_takes_the_colours_of_tags_and_leaves_names_alone():
    name = f'{COLOURS[0]} d="1.23456" <path d="2.34567"/>'
    with style("x"):
        figure = Figure(figsize=(2, 2))
        ax = figure.add_axes((0.2, 0.2, 0.7, 0.7))
        ax.plot([0.123456, 1], [0, 1], color=COLOURS[0])
        ax.set_title(name, color=INK)
        drawn = drawn_svg(figure)
    on_page, in_file = page_svg(drawn), file_svg(drawn)
    assert f"stroke: var(--c0,{COLOURS[0]})" in on_page
    for text in (on_page, in_file):
        title = [node.text for node in ElementTree.fromstring(text).iter() if node.text]
        assert name in title
        assert re.search(r'<path[^>]* d="[^"]*\d\.\d{3}', text) is None
    assert INK not in on_page
    assert "currentColor" in on_page
    assert "var(" not in in_file
    assert 'fill="#ffffff"' in in_file


def test_an_installed_font_stands_in_for_signs_that_ours_lacks(monkeypatch):
    aleph = "\u2135"  # which DejaVu Sans has
    assert lacking_signs([aleph, "a b"]) == ""
    monkeypatch.setattr(sys.modules["offrl.plots.style"], "FONT", "cmr10")
    monkeypatch.setattr(sys.modules["offrl.plots.style"], "STAND_IN", re.compile("^DejaVu Sans$"))
    fonts_for.cache_clear()
    assert lacking_signs([aleph, "\U000f1234"]) == "\U000f1234"
    with style("x", [aleph]):
        assert matplotlib.rcParams["font.family"] == ["cmr10", "DejaVu Sans"]
    with style("x", ["a"]):
        assert matplotlib.rcParams["font.family"] == ["cmr10"]
    fonts_for.cache_clear()
