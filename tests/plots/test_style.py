"""An algorithm's look: from its name alone, and its own among well-known names."""

import itertools
import re
import sys

import matplotlib
import pytest

from offrl import registry
from offrl.plots.style import COLOURS, distinct_styles, fonts_for, lacking_signs, line_style, style
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
