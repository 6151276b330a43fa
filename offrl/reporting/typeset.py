"""Tables of papers as text: LaTeX, Markdown and HTML, and their numbers as a frame."""

import html
import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace

import pandas as pd

from offrl.errors import InputError
from offrl.reporting.tables import Cell, Heading, PaperTable
from offrl.reporting.words import HTML, LATEX, MARKDOWN, Words
from offrl.text import one_line

FORMATS = {"latex": ".tex", "markdown": ".md", "csv": ".csv", "html": ".html"}


def written(table: PaperTable, kind: str, decimals: int | None = None) -> str:
    """The table as text in one of FORMATS; `decimals` are those of scores, all of them in CSV."""
    writers: Mapping[str, Callable[[PaperTable, int | None], str]] = {
        "latex": _latex,
        "markdown": _markdown,
        "html": _html,
    }
    if kind not in writers:
        raise InputError(f"format {kind!r:.40}; expected one of {', '.join(FORMATS)}")
    return writers[kind](table, decimals)


def numbers(table: PaperTable) -> pd.DataFrame:
    """A row per cell with its numbers, as CSV has them."""
    dataset_rows = table.corner == "data set"
    rows = []
    for row, cells in zip(table.rows, table.cells, strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            task, name = (row, column) if dataset_rows else (column, row)
            rows.append(
                {
                    "dataset": task.text,
                    "group": task.group,
                    "average": task.average,
                    "algorithm": name.text,
                    table.statistic: cell.value,
                    **(
                        {"sd": cell.sd}
                        if table.statistic == "mean"
                        else {"ci_low": cell.low, "ci_high": cell.high}
                    ),
                    "runs": cell.runs,
                    "failed": cell.failed,
                    "best": cell.best,
                }
            )
    return pd.DataFrame(rows)


def _text(table: PaperTable, cell: Cell, words: Words, bold: Callable[[str], str]) -> str:
    """A cell: its value, in bold where it is among the best, and what stands beside it."""
    value = words.score(cell.value)
    text = bold(value) if cell.best else value
    if table.statistic == "mean" and not math.isnan(cell.sd):
        text += f" {words.target.plus_minus} {words.score(cell.sd)}"
    elif table.statistic == "iqm" and not math.isnan(cell.low):
        text += f" {words.interval(cell.low, cell.high)}"
    counts = [cell.runs for row in table.cells for cell in row if cell.runs]
    remarks = []
    if cell.runs and len({*counts}) > 1:
        remarks.append(f"n = {cell.runs}")
    if cell.failed:
        remarks.append(f"{cell.failed} failed")
    return f"{text} ({', '.join(remarks)})" if remarks else text


def _grid(
    table: PaperTable, words: Words, bold: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows as escaped text."""
    escape = words.target.escape
    header = [table.corner, *(escape(column.text) for column in table.columns)]
    rows = [
        [escape(row.text), *(_text(table, cell, words, bold) for cell in cells)]
        for row, cells in zip(table.rows, table.cells, strict=True)
    ]
    return header, rows


def _markdown(table: PaperTable, decimals: int | None) -> str:
    """A GFM table and its caption."""
    words = Words(MARKDOWN, table.scale, decimals)
    header, rows = _grid(table, words, lambda text: f"**{text}**")
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]
    return "\n".join([*lines, "", table.caption, ""])


def _latex(table: PaperTable, decimals: int | None) -> str:
    r"""A `tabular` with the rules of booktabs, and comments that say what it needs and holds."""
    words = Words(replace(LATEX, escape=_latex_text), table.scale, decimals)
    header, rows = _grid(table, words, lambda text: rf"\textbf{{{text}}}")
    head, *body = (" & ".join(row) + r" \\" for row in (header, *rows))
    lines = []
    for k, text in enumerate(body):
        if k and _parted(table.rows[k - 1], table.rows[k]):
            lines.append(r"\midrule")
        lines.append(text)
    names = [one_line(heading.text) for heading in (*table.rows, *table.columns)]
    strange = sorted({sign for name in names for sign in name if not _is_typeset(sign)})
    needs = [f"% needs XeLaTeX or LuaLaTeX and a font for: {' '.join(strange)}"] if strange else []
    kinds = "l" + "".join(
        ("@{\\hskip 1.5em}" if k and _parted(table.columns[k - 1], column) else "") + "r"
        for k, column in enumerate(table.columns)
    )
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            *needs,
            f"% {table.caption}",
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            head,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _parted(before: Heading, after: Heading) -> bool:
    """Whether a line stands between two rows."""
    return before.group != after.group or before.average != after.average


GREEK = {
    chr(code): f"\\ensuremath{{\\{name}}}"
    for name, code in (
        *(("alpha", 0x3B1), ("beta", 0x3B2), ("gamma", 0x3B3), ("delta", 0x3B4)),
        *(("epsilon", 0x3B5), ("zeta", 0x3B6), ("eta", 0x3B7), ("theta", 0x3B8)),
        *(("iota", 0x3B9), ("kappa", 0x3BA), ("lambda", 0x3BB), ("mu", 0x3BC)),
        *(("nu", 0x3BD), ("xi", 0x3BE), ("pi", 0x3C0), ("rho", 0x3C1)),
        *(("sigma", 0x3C3), ("tau", 0x3C4), ("upsilon", 0x3C5), ("phi", 0x3C6)),
        *(("chi", 0x3C7), ("psi", 0x3C8), ("omega", 0x3C9), ("mu", 0xB5)),
        *(("Gamma", 0x393), ("Delta", 0x394), ("Theta", 0x398), ("Lambda", 0x39B)),
        *(("Xi", 0x39E), ("Pi", 0x3A0), ("Sigma", 0x3A3), ("Phi", 0x3A6)),
        *(("Psi", 0x3A8), ("Omega", 0x3A9)),
    )
}
SIGNS = {
    sign: f"\\ensuremath{{{text}}}"
    for sign, text in (
        *(("±", r"\pm"), ("−", "-"), ("×", r"\times"), ("·", r"\cdot"), ("∞", r"\infty")),
        *(("≤", r"\leq"), ("≥", r"\geq"), ("≠", r"\neq"), ("≈", r"\approx"), ("→", r"\to")),
        *(("²", "^2"), ("³", "^3"), ("°", r"^\circ"), ("★", r"\star"), ("†", r"\dagger")),
    )
}
PLAIN = "–—‘’“”…ßæœøłÆŒØŁı§¶©£¿¡"  # which any LaTeX typesets as they are


def _latex_text(text: str) -> str:
    """A name for LaTeX: what pdflatex cannot typeset stays as it is."""
    escaped = LATEX.escape(text)
    return "".join(GREEK.get(sign) or SIGNS.get(sign) or sign for sign in escaped)


def _is_typeset(sign: str) -> bool:
    """Whether pdflatex typesets a sign of a name: ASCII, accents on Latin letters, some others."""
    if sign.isascii() or sign in PLAIN or sign in GREEK or sign in SIGNS:
        return True
    base = unicodedata.normalize("NFD", sign)
    accents = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327\u0328"
    return len(base) == 2 and base[0].isascii() and base[1] in accents


def _html(table: PaperTable, decimals: int | None) -> str:
    """A `table` element."""
    words = Words(replace(HTML, escape=_html_text), table.scale, decimals)
    header, rows = _grid(table, words, lambda text: f"<strong>{text}</strong>")
    head = "".join(f'<th scope="col">{text}</th>' for text in header)
    lines = []
    for heading, row in zip(table.rows, rows, strict=True):
        kind = ' class="average"' if heading.average else ""
        cells = "".join(f"<td>{text}</td>" for text in row[1:])
        lines.append(f'<tr{kind}><th scope="row">{row[0]}</th>{cells}</tr>')
    return "\n".join(
        [
            "<table>",
            f"<caption>{html.escape(table.caption)}</caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *lines,
            "</tbody>",
            "</table>",
            "",
        ]
    )


def _html_text(text: str) -> str:
    return f"<bdi>{html.escape(one_line(text))}</bdi>"
