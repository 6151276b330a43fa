"""The report in a real browser: what a reader can see, reach and do."""

import re
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest

NAMES = ("quickstart", "many", "holes", "hostile")
PHONE = 375  # CSS pixels


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_from_a_file_without_a_request_a_message_or_a_dialog(visit, name):
    seen = visit(name)
    seen.page.wait_for_timeout(100)
    assert seen.heard == []
    assert seen.page.locator("main h2").count() > 4
    assert seen.path.stat().st_size < 3_000_000
    assert seen.page.evaluate("document.querySelectorAll('script').length") == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(visit, name):
    seen = visit(name)
    links = seen.page.eval_on_selector_all(
        "a", "links => links.map(link => [link.getAttribute('href'), link.textContent.trim()])"
    )
    assert len(links) > 15
    for target, text in links:
        assert text
        if target.startswith("#"):
            assert seen.page.locator(target).count() == 1, target
        else:
            assert (seen.path.parent / unquote(target)).is_file(), target


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [PHONE, 1280])
def test_nothing_scrolls_sideways_but_regions_made_for_it(visit, name, width):
    page = visit(name, width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        """width => [...document.querySelectorAll("main *")]
          .filter(element => !element.closest(".scroll"))
          .filter(element => element.getBoundingClientRect().right > width + 1)
          .map(element => element.outerHTML.slice(0, 80))""",
        width,
    )
    assert wide == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (PHONE, "light")], ids=str
)
def test_axe_finds_nothing_serious(visit, serious, name, width, scheme):
    page = visit(name, width, color_scheme=scheme).page
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert serious(page) == []


def column(page: Any, region: str, number: int) -> list[str]:
    """The texts of a column of the table in a region, by bodies that are sorted."""
    cells = f'[aria-label="{region}"] tbody:not(.sums) tr:not(.group) > :nth-child({number})'
    return [text.strip() for text in page.locator(cells).all_text_contents()]


def heading(page: Any, region: str, number: int) -> Any:
    return page.locator(f'[aria-label="{region}"] thead th:nth-child({number})')


def test_tables_are_sorted_by_pointer_and_by_keyboard(visit):
    page = visit("quickstart").page
    by_score = column(page, "Ranking", 1)
    assert heading(page, "Ranking", 2).get_attribute("aria-sort") == "descending"
    heading(page, "Ranking", 1).get_by_role("button").click()
    assert heading(page, "Ranking", 1).get_attribute("aria-sort") == "ascending"
    assert heading(page, "Ranking", 2).get_attribute("aria-sort") is None
    names = [re.sub(r"^\W+", "", text) for text in column(page, "Ranking", 1)]
    assert names == ["bc", "cql", "dt", "iql", "td3_bc"]
    heading(page, "Ranking", 2).get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert column(page, "Ranking", 1) == by_score
    page.keyboard.press("Space")
    assert heading(page, "Ranking", 2).get_attribute("aria-sort") == "ascending"
    assert column(page, "Ranking", 1) == by_score[::-1]


def test_rows_are_sorted_inside_their_group_and_holes_are_last(visit):
    page = visit("many").page
    region = '[aria-label="Scores per data set"]'
    bodies = page.locator(f"{region} tbody:not(.sums)")
    groups = page.locator(f"{region} tr.group").all_text_contents()
    assert [text.strip() for text in groups] == ["antmaze", "locomotion", "others"]
    members = [sorted(bodies.nth(k).locator("th").all_text_contents()) for k in range(3)]
    heading(page, "Scores per data set", 2).get_by_role("button").click()
    for k in range(3):
        body = bodies.nth(k)
        values = body.locator("td:nth-child(2)").evaluate_all(
            "cells => cells.map(c => +c.dataset.v)"
        )
        assert values == sorted(values, reverse=True)
        assert sorted(body.locator("th").all_text_contents()) == members[k]
        assert "group" in body.locator("tr").first.get_attribute("class")
    page = visit("holes").page
    heading(page, "Scores per data set", 13).get_by_role("button").click()
    held = [text != "–no run" for text in column(page, "Scores per data set", 13)]
    assert 0 < sum(held) < len(held)
    assert held == sorted(held, reverse=True)


def test_it_says_the_same_without_scripts(visit):
    def text(**options: Any) -> str:
        return re.sub(r"\s+", " ", visit("quickstart", **options).page.inner_text("main"))

    assert text(java_script_enabled=False) == text()


@pytest.mark.parametrize("name", ["quickstart", "many"])
def test_what_a_figure_says_is_what_its_file_holds(visit, name):
    seen = visit(name)
    label = seen.page.locator('[aria-label="Figure iqm"] svg').get_attribute("aria-label")
    frame = pd.read_csv(seen.path.parent / "figures" / "iqm.csv")
    for row in frame.to_dict("records"):
        ends = f"[{row['ci_low']:.1f}, {row['ci_high']:.1f}]"
        assert f"{row['algorithm']} {row['estimate']:.1f} {ends}" in label
    pictures = seen.page.locator("svg[role=img]")
    for k in range(pictures.count()):
        assert len(pictures.nth(k).get_attribute("aria-label")) > 40


def test_names_of_any_kind_are_shown_and_do_nothing(visit):
    seen = visit("hostile")
    shown = seen.page.locator('[aria-label="Ranking"] bdi').all_text_contents()
    names = (
        "<script>alert(1)</script>",
        "long_" * 30,
        "\u05d0\u05dc\u05d2\u05d5\u05e8\u05d9\u05ea\u05dd (1)",
    )
    for name in (*names, "\\u202egnp.exe", "(no name)"):
        assert name in shown
    assert "<img src=x onerror=alert(2)>" in seen.page.inner_text("#scores")
    assert "<b onclick=alert(3)>boom</b>" in seen.page.inner_text("#failures")
    assert seen.page.inner_text("h1") == "<script>alert(4)</script>"
    assert seen.page.locator("img, [onerror], [onclick]").count() == 0
    for button in seen.page.locator("thead button").all():
        button.click()
    assert seen.heard == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_have_contrast_to_the_page_and_colours_of_their_own(visit, scheme):
    page = visit("many", color_scheme=scheme).page
    colours = page.evaluate(
        """() => {
          const lines = document.querySelectorAll('[aria-label="Figure profile"] path');
          const strokes = [...lines].map(line => getComputedStyle(line).stroke);
          return [getComputedStyle(document.body).backgroundColor, strokes];
        }"""
    )
    background, strokes = colours[0], [c for c in colours[1] if c.startswith("rgb")]

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    legend = page.locator("#profile .legend i").evaluate_all(
        "glyphs => glyphs.map(glyph => getComputedStyle(glyph).color)"
    )
    assert len(legend) == len({*legend}) == 9
    assert {*legend} <= {*strokes}
    for colour in legend:
        one, two = sorted((luminance(colour), luminance(background)))
        assert (two + 0.05) / (one + 0.05) >= 3, colour


def test_the_keyboard_reaches_the_results_first_and_every_region(visit):
    page = visit("quickstart").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the ranking"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#ranking"
    for region in page.locator(".scroll").all():
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("role") == "region"
    names = page.locator(".scroll").evaluate_all("all => all.map(one => one.ariaLabel)")
    assert len(names) == len({*names}) > 4


def test_text_in_figures_can_be_read_on_a_phone(visit):
    page = visit("quickstart", PHONE).page
    heights = page.locator("svg text").evaluate_all(
        """texts => texts.map(text => {
          const { a, b } = text.getScreenCTM();  // a turned text has its scale in b
          return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
        })"""
    )
    assert len(heights) > 20
    assert min(heights) >= 8


def test_print_opens_what_is_folded_and_drops_what_cannot_be_used(visit):
    page = visit("quickstart").page
    method = page.locator("#method dl")
    assert not method.is_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert method.is_visible()
    assert not page.locator("nav").is_visible()
    for region in page.locator(".scroll").all():
        assert region.evaluate("one => getComputedStyle(one).overflowX") == "visible"
    document = page.pdf(format="A4")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", document)) <= 6
