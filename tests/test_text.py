"""Text of others as a terminal, a page and a cell show it."""

import pytest

from offrl.text import from_cell, one_line, to_cell, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone\x07", r"\x1b[2Jgone\x07"),
        ("\x9b2J\x85\x7f\x00", r"\x9b2J\x85\x7f\x00"),
        ("\u202egnp.exe\u2066\ufeff", r"\u202egnp.exe\u2066\ufeff"),
        ("\udcff.csv", r"\udcff.csv"),
        ("two\r\nlines\tand a tab", "two\nlines and a tab"),
        ("back\rover", r"back\rover"),
        ("مدل‌ها é [b] 名", "مدل‌ها é [b] 名"),  # the joiner belongs to the word
    ],
)
def test_what_is_not_to_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_one_line_has_no_other() -> None:
    assert one_line("  a \n\t b\v\u2028c ") == r"a b \u2028c"


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", " =1", "＝1", "-1+1|x"])
@pytest.mark.parametrize("quotes", ["", "'", "''"])
def test_a_formula_is_a_text_and_comes_back(text: str, quotes: str) -> None:
    cell = to_cell(quotes + text)
    assert cell == "'" + quotes + text
    assert from_cell(cell) == quotes + text


@pytest.mark.parametrize("text", ["-0.5", "+1e-3", "-inf", "TD3+BC", "a=b", "'tis", "'", ""])
def test_numbers_and_plain_text_stay(text: str) -> None:
    assert to_cell(text) == text
    assert from_cell(text) == text
