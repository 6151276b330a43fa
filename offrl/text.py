"""Text of others (names, causes, titles) for terminals, pages, figures and cells of a table.

A name may hold what a terminal, an XML reader or a spreadsheet acts on instead of showing it.
"""

import re
import unicodedata
from typing import Any

# Controls (C0, C1), line separators, what turns or hides the text after it, half characters, and
# what XML has no place for. Joiners of letters (U+200C, U+200D) belong to words and stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
# How a spreadsheet's formulas begin, wide signs included; apostrophes before it are text to it.
_FORMULA = re.compile("'*\\s*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def visible(text: str) -> str:
    r"""The text with each character that is not to be seen as its escape, such as `\x1b`.

    Line ends stay, and tabs become spaces.
    """
    text = text.replace("\r\n", "\n").replace("\t", " ")
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The same on one line, every run of white space as one space."""
    return visible(re.sub("[ \t\n\r\v\f]+", " ", text).strip())


def counted(number: Any, noun: str) -> str:
    """A number of things: "1 row", "2,000 rows"."""
    return f"{int(number):,} {noun}{'' if number == 1 else 's'}"


def one_form(name: str) -> str:
    """The name in Unicode's form NFC: letters and their accents may be one sign or two."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def to_cell(text: str) -> str:
    """The text as a cell of a CSV file: an apostrophe keeps a spreadsheet from computing it.

    Numbers stay as they are. `from_cell` is the way back.
    """
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def from_cell(text: str) -> str:
    """The text of a cell of a CSV file, without the apostrophe of `to_cell`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
