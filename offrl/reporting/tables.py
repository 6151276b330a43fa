"""Tables of a report as Markdown and as LaTeX."""

from collections.abc import Collection

import pandas as pd

from offrl.reporting.findings import SAME_RUNS
from offrl.reporting.words import LATEX, MARKDOWN, Words


def scores_markdown(per_task: pd.DataFrame, scale: float, ways: Collection[str] = ()) -> str:
    """The scores per data set, a row for each and a column per algorithm, as a GFM table.

    Args:
        per_task: what `statistics.per_task` gives.
        scale: upper end of the scores, 100 or 1.
        ways: names that are other ways to act in the runs of another algorithm.
    """
    header, rows = _cells(per_task, Words(MARKDOWN, scale), ways)
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]
    return "\n".join([*lines, "", f"{_caption(scale)}.", ""])


def scores_latex(per_task: pd.DataFrame, scale: float, ways: Collection[str] = ()) -> str:
    """The same as a plain `tabular`, which needs no package."""
    header, rows = _cells(per_task, Words(LATEX, scale), ways)
    head, *body = (" & ".join(row) + r" \\" for row in (header, *rows))
    return "\n".join(
        [
            f"% {_caption(scale)}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\hline",
            head,
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def _caption(scale: float) -> str:
    return f"Mean ± standard deviation (ddof 1) over n runs; scores on 0–{scale:g}"


def _cells(
    per_task: pd.DataFrame, words: Words, ways: Collection[str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows as escaped text; algorithms and data sets in the order of `per_task`."""
    cells = {(row["dataset"], row["algorithm"]): row for row in per_task.to_dict("records")}
    algorithms = list(dict.fromkeys(per_task["algorithm"]))
    rows = []
    for dataset in dict.fromkeys(per_task["dataset"]):
        row = [words.target.escape(dataset)]
        for algorithm in algorithms:
            cell = cells[dataset, algorithm]
            row.append(words.spread(cell["mean"], cell["std"], cell["n"], cell["n_failed"]))
        rows.append(row)
    names = [f"{name} ({SAME_RUNS})" if name in ways else name for name in algorithms]
    return ["data set", *map(words.target.escape, names)], rows
