"""The documentation's site, as `tox -e docs` leaves it in the folder that OFFRL_SITE names."""

import functools
import html
import http.server
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import offrl
from offrl import registry
from offrl.data.card import shipped_cards
from offrl.running.protocol import shipped_protocols

PHONE = 375  # CSS pixels


@pytest.fixture(scope="module")
def site() -> Path:
    folder = Path(os.environ.get("OFFRL_SITE", "-"))
    if not (folder / "index.html").is_file():
        absent = f"no site at {folder}: build it by tox -e docs, and set OFFRL_SITE"
        pytest.fail(absent) if os.environ.get("OFFRL_BROWSER") else pytest.skip(absent)
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens a page of the site; it asks no other host, and the browser complains of nothing."""
    contexts = []
    heard: list[str] = []

    def open_(path: str, width: int = 1280, **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url))
        page.goto(address + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [text for text in heard if not text.startswith((address, "data:"))] == []


def test_all_that_ships_has_its_place(site: Path) -> None:
    for card in shipped_cards().values():
        page = (site / "datasets" / card.family / "index.html").read_text(encoding="utf-8")
        assert page.count(f'id="{card.id}"') == 1
    for name in shipped_protocols():
        assert f'id = "{name}"' in text_of(site / "protocols" / name)
    for name in registry.modules("algorithms"):
        page = text_of(site / "algorithms" / name)
        assert "Equations and differences" in page
        assert "class " in page
    api = (site / "api" / "offrl" / "index.html").read_text(encoding="utf-8")
    for name in {*offrl.__all__} - {"__version__"}:
        assert f'.{name}"' in api, name
    # What the comment behind a field says, and what a base class has.
    assert "(R, B), 1 stops bootstrapping; a truncation never does" in api
    assert 'id="offrl.learning.learner.Learner.prepare"' in api


def test_every_block_of_code_is_one(site: Path) -> None:
    """The first line of a block that the site does not understand would leave its fence as text."""
    for page in site.rglob("index.html"):
        text = re.sub(r"<code.*?</code>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "```" not in text, page


def text_of(folder: Path) -> str:
    page = (folder / "index.html").read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<[^>]*>", "", page))


@pytest.mark.parametrize(
    ("path", "width", "scheme"),
    [
        ("", 1280, "light"),
        ("algorithms/double_dqn/", 1280, "dark"),
        ("datasets/neorl2/", PHONE, "dark"),
    ],
)
def test_it_fits_and_axe_finds_nothing_serious(open_page, serious, path, width, scheme) -> None:
    page = open_page(path, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []


def test_data_sets_are_filtered_and_their_cards_unfold(open_page) -> None:
    page = open_page("datasets/d4rl/")
    page.get_by_role("searchbox", name="Filter data sets").fill("hopper full REPLAY v2")
    rows = page.locator(".filtered tbody tr:visible td:first-child").all_text_contents()
    assert rows == ["hopper-full-replay-v2", "hopper-full-replay-v1"]
    card = page.locator("#hopper-full-replay-v2")
    assert not card.is_visible()
    page.get_by_role("link", name="hopper-full-replay-v2").first.click()
    card.wait_for(state="visible")
    assert "max = 3234.3" in card.inner_text()


@pytest.mark.parametrize(
    ("words", "path"),
    [("antmaze-umaze-diverse-v2", "datasets/d4rl"), ("TD3+BC", "algorithms/td3_bc")],
)
def test_the_search_leads_to_what_is_meant(open_page, words, path) -> None:
    page = open_page("")
    page.get_by_text("Type to start searching").wait_for(state="attached")  # the index is read
    box = page.get_by_placeholder("Search")
    box.fill(words)
    box.press("End")  # the theme looks when a key goes up
    result = page.locator(".md-search-result__link").first
    result.wait_for(state="visible")
    assert path in result.get_attribute("href")
