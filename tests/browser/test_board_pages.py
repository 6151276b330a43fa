"""The site of leaderboards in a real browser."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from made_runs import write_runs

from offrl.reporting.site import build
from offrl.reporting.submission import Submission, submission_text
from offrl.results.bundle import pack
from offrl.statistics.resampling import Resampling

HOSTILE = "<script>alert(1)</script>"
NAMES = {
    "td3_bc": ("Method", "none", 0),
    "iql": (HOSTILE, "online-selection", 90),
    "bc": ("=HYPERLINK(0)", "offline", 0),
}
BOARD, INDEX = "protocols/quickstart-4.html", "index.html"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    for draw, (label, (name, kind, played)) in enumerate(NAMES.items()):
        write_runs(root / label, label, mean=40 + 30 * draw, draw=draw)
        values: dict[str, Any] = {
            "name": name,
            "authors": ['"><img src=x onerror=alert(2)>', "\u05d0\u05dc\u05d2\u05d5"],
            "contact": "us@host.org",
            "code": "https://github.com/us/code",
            "commit": "0123abcd",
            "licence": "MIT",
            "tuning": {"kind": kind, "settings_tried": 1 + draw, "online_episodes": played},
            "compute": {"hours": 0.5, "hardware": "{{ 7 * 7 }} ${7*7}"},
        }
        text = submission_text(Submission.model_validate(values))
        pack(root / label, root / "board" / f"{label}.zip", submission=text)
    build(root / "board", root / "site", resampling=Resampling(200))
    return root / "site"


def pages(site: Path) -> list[Path]:
    """One of each kind, the submission with the hostile name among them."""
    found = [site / INDEX, site / BOARD, site / "protocols" / "corl-2.html"]
    found += [sorted((site / name).iterdir())[0] for name in ("algorithms", "datasets")]
    hostile = "&lt;script&gt;alert(1)"
    submissions = sorted((site / "submissions").iterdir())
    return [*found, next(path for path in submissions if f"<h1><bdi>{hostile}" in path.read_text())]


def test_pages_open_from_a_folder_and_every_link_leads_somewhere(look, site):
    for path in pages(site):
        seen = look(path)
        seen.page.wait_for_timeout(50)
        assert seen.heard == []
        assert seen.page.locator("img, [onerror], [onclick]").count() == 0
        assert seen.page.evaluate("document.querySelectorAll('script').length") == 1
        links = seen.page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
        assert links
        for target in links:
            if target.startswith("#"):
                assert seen.page.locator(target).count() == 1
            elif not target.startswith("https://"):
                assert (path.parent / unquote(target)).resolve().is_file(), (path, target)


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (375, "light")], ids=str
)
def test_pages_fit_and_axe_finds_nothing_serious(look, serious, site, width, scheme):
    for path in pages(site):
        page = look(path, width, color_scheme=scheme).page
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert serious(page, least=10) == [], path


def test_a_board_is_filtered_by_tuning_and_sorted_by_keyboard(look, site):
    page = look(site / BOARD).page
    rows = page.locator('[aria-label="Ranking"] tbody tr')
    assert rows.count() == 3
    assert page.locator("[role=status]").inner_text() == "3 of 3 lines"
    page.get_by_label("online-selection").uncheck()
    assert page.locator("[role=status]").inner_text() == "2 of 3 lines"
    visible = [row.locator("th").inner_text() for row in rows.all() if row.is_visible()]
    assert HOSTILE not in visible
    assert "Method" in visible
    page.get_by_label("online-selection").check()
    head = page.locator('[aria-label="Ranking"] thead th').nth(3)
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    names = page.locator('[aria-label="Ranking"] tbody th').all_inner_texts()
    assert names == ["=HYPERLINK(0)", HOSTILE, "Method"]
    page = look(site / "datasets" / "pointmaze-quickstart@1.html").page
    page.get_by_label("offline", exact=True).uncheck()
    assert page.locator("[role=status]").inner_text() == "2 of 3 lines"
    visible = [
        row.locator("th").inner_text() for row in page.locator("tbody tr").all() if row.is_visible()
    ]
    assert visible == [HOSTILE, "Method"]


def test_without_scripts_a_board_says_the_same(look, site):
    plain = look(site / BOARD, java_script_enabled=False).page
    full = look(site / BOARD).page
    table = '[aria-label="Ranking"] tbody'
    assert plain.inner_text(table) == full.inner_text(table)
    assert not plain.locator("form.filter").is_visible()
