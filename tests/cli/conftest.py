"""Fixtures of the tests of the command line."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import CARD, PROTOCOL, Call, Result, neorl2

from offrl.cli import console
from offrl.cli.main import main
from offrl.data import card as cards
from offrl.data import resolve


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """Calls the command line in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    # It stays what COLUMNS was when Rich was first asked, where that was set: under xdist it is.
    monkeypatch.setattr(console.out, "_width", None)
    for name in ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    logger = logging.getLogger("offrl")
    handlers, level = list(logger.handlers), logger.level

    def offrl(*words: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["offrl", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        stdout, stderr = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return Result(code, stdout, stderr)

    yield offrl
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A protocol on a data set of twenty rows."""
    np.savez(tmp_path / "good.npz", **neorl2())  # type: ignore[arg-type]
    (tmp_path / "card.toml").write_text(CARD)
    (tmp_path / "tiny.toml").write_text(PROTOCOL)
    return tmp_path / "tiny.toml"


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Takes the simulators, or else, of some shipped cards away."""
    shipped = cards.shipped_cards

    def take(*names: str, lacking: str = "environment") -> None:
        def without() -> dict[str, cards.Card]:
            found = shipped()
            bare = {name: found[name].model_copy(update={lacking: None}) for name in names}
            return {**found, **bare}

        for module in (cards, resolve):
            monkeypatch.setattr(module, "shipped_cards", without)

    return take
