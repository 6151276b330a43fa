"""Reports opened in Chromium, as a reader opens them: from a file."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from offrl.reporting.report import report_table
from offrl.results.failures import Failure
from offrl.results.table import ScoreTable
from offrl.statistics.resampling import Resampling

REQUIRED = "OFFRL_BROWSER"  # set where a missing browser is a failure, and no reason to skip
HOSTILE = (
    "<script>alert(1)</script>",
    "long_" * 30,
    "\u05d0\u05dc\u05d2\u05d5\u05e8\u05d9\u05ea\u05dd (1)",  # right to left
    "\u202egnp.exe",  # turns what follows
    "empty",  # by its label
)


def scores(algorithms: Any, datasets: Any, runs: int, steps: Any = (0,)) -> pd.DataFrame:
    """Scores of which the first algorithm has the highest."""
    random = np.random.default_rng(0)
    rows = [
        (a, d, seed, step, 80 - 3 * i + 5 * (k % 7) + step / 100 + random.normal(0, 3))
        for i, a in enumerate(algorithms)
        for k, d in enumerate(datasets)
        for seed in range(runs)
        for step in steps
    ]
    return pd.DataFrame(rows, columns=["algorithm", "dataset", "seed", "step", "score"])


def quickstart() -> ScoreTable:
    frame = scores(("iql", "td3_bc", "cql", "bc", "dt"), ["pointmaze"], 5, range(0, 2001, 500))
    failure = Failure("bc", "pointmaze", 9, "NaN in actor/loss at step 700")
    return ScoreTable.from_frame(frame, failures=[failure])


def many() -> ScoreTable:
    kinds = ("random", "medium", "medium-replay", "medium-expert", "expert")
    datasets = [f"{body}-{kind}-v2" for body in ("hopper", "walker2d") for kind in kinds]
    datasets += [f"antmaze-{kind}-v2" for kind in ("umaze", "large-play", "large-diverse")]
    datasets += [f"a-data-set-of-ours-{k}" for k in range(13)]
    algorithms = [f"an_algorithm_{k}" for k in range(20)]
    return ScoreTable.from_frame(scores(algorithms, datasets, 2))


def holes() -> ScoreTable:
    frame = scores([f"algorithm {k}" for k in range(12)], [f"set-{k}" for k in range(29)], 2)
    filled = frame["dataset"].str[4:].astype(int) % 12 <= frame["algorithm"].str[10:].astype(int)
    return ScoreTable.from_frame(frame[filled], complete=False)


def hostile() -> ScoreTable:
    datasets = ["<img src=x onerror=alert(2)>", "very-long-" * 20, "\u05de\u05d1\u05d5\u05da"]
    frame = scores(HOSTILE, datasets, 2, (0, 100))
    failure = Failure(HOSTILE[0], datasets[0], 7, '"><b onclick=alert(3)>boom</b>\nline two')
    return ScoreTable.from_frame(frame, failures=[failure])


TABLES = {"quickstart": quickstart, "many": many, "holes": holes, "hostile": hostile}


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the report of a table, once, and gives its page."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = report_table(
                TABLES[name](),
                tmp_path_factory.mktemp(name) / "report",
                title="<script>alert(4)</script>" if name == "hostile" else "",
                labels={"empty": ""} if name == "hostile" else {},
                resampling=Resampling(200),
                command="offrl report scores.csv -o report",
            )
        return made[name]

    return make


def missing(reason: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed (dependency group browser)")
    if path is None:
        missing("Chromium is not installed; on Debian: apt-get install chromium")
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=alone)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serious() -> Callable[..., list[tuple[str, str, str]]]:
    """What axe finds serious on a page, of which at least so many rules hold."""

    def find(page: Any, least: int = 20) -> list[tuple[str, str, str]]:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(page).response
        assert len(found["passes"]) > least
        return [
            (violation["id"], node["html"][:200], node["failureSummary"])
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    return find


class Visit:
    """A page in the browser, and what happened on it besides."""

    def __init__(self, page: Any, path: Path):
        self.page, self.path = page, path
        self.heard: list[str] = []
        page.on("console", lambda message: self.heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.heard.append(f"error: {error}"))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self.heard.append(f"request: {request.url}"))
        page.goto(path.as_uri())
        assert self.heard.pop(0) == f"request: {path.as_uri()}"

    def _dismiss(self, dialog: Any) -> None:
        self.heard.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Opens a page by its path, at 1280 x 900 by default."""
    contexts = []

    def open_(path: Path, width: int = 1280, **options: Any) -> Visit:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        return Visit(contexts[-1].new_page(), path)

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def visit(look: Callable[..., Visit], report: Callable[[str], Path]) -> Callable[..., Visit]:
    """Opens a report by the name of its table."""
    return lambda name, *args, **options: look(report(name), *args, **options)
