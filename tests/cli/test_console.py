"""How rows are shown: whole numbers in tables, and records where a terminal is too narrow."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from offrl import cli
from offrl.cli import console

ROWS = [
    {"name": "[red]a", "value": 1234.5, "low": -1000.25, "high": 2000.75, "note": "a few words"},
    {"name": "decision_transformer", "value": float("nan"), "low": 0.0, "high": 1.0, "note": ":x:"},
    {"name": "離線強化學習的各種方法", "value": 1.0, "low": 0.0, "high": 1.0, "note": "兩格寬的字"},
]
COLUMNS: console.Columns = {
    "name": "name",
    "value": lambda row: f"{row['value']:+.1f}",
    "interval": lambda row: f"[{row['low']:.2f}, {row['high']:.2f}]",
    "what is said": "note",
}
Show = Callable[..., str]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    def printed(width: int, *, as_json: bool = False, **options: Any) -> str:
        monkeypatch.setattr(console.out, "_width", width)
        console.show_rows(ROWS, COLUMNS, as_json, **options)
        return capsys.readouterr().out

    return printed


@pytest.mark.parametrize("width", range(20, 100))
def test_no_number_and_no_name_is_cut(show: Show, width: int) -> None:
    text = show(width, title="Rows")
    words = text.split()
    names = [row["name"] for row in ROWS]
    for word in (*names, "+1234.5", "[-1000.25,", "2000.75]", "[0.00,"):
        assert word in words or width < 40
    assert max(map(cell_len, text.splitlines())) <= width
    assert text.startswith("Rows\n")


def test_a_wide_terminal_has_a_table_and_a_narrow_one_a_line_per_value(show: Show) -> None:
    wide = [line.split() for line in show(100).splitlines()]
    assert ["name", "value", "interval", "what", "is", "said"] in wide
    assert ["[red]a", "+1234.5", "[-1000.25,", "2000.75]", "a", "few", "words"] in wide
    narrow = [line.split() for line in show(45).splitlines()]
    assert ["name", "[red]a"] in narrow
    assert ["interval", "[-1000.25,", "2000.75]"] in narrow
    assert ["what", "is", "said", ":x:"] in narrow


def test_json_has_every_value_and_null_for_nan(show: Show) -> None:
    rows = json.loads(show(40, as_json=True))
    assert rows[0] == ROWS[0]
    assert rows[1]["value"] is None
    assert json.loads(show(40, as_json=True, whole={"rows": 2})) == {"rows": 2}


def test_no_rows_are_a_table_without_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console.out, "_width", 80)
    console.show_rows([], COLUMNS, as_json=False)
    assert "interval" in capsys.readouterr().out


def test_scores_have_one_formatter() -> None:
    """`Words`: a score that two commands show is one text."""
    for path in Path(cli.__file__).parent.glob("*.py"):
        found = re.findall(r"\{[^{}]*:[-+]?,?\.\df\}", path.read_text())
        assert not found, f"{path}: {found}"
