"""How every command shows what it has: rows, plain lines, notes, progress; options they share."""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from offrl import progress, registry
from offrl.text import one_form, one_line, visible

if TYPE_CHECKING:
    from offrl.results.table import ScoreTable


class _PlainConsole(Console):
    """A console that shows text as it is: names may hold markup, and codes that terminals obey."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(markup=False, highlight=False, emoji=False, stderr=stderr)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text, whose escapes count in the widths of columns."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The segments of anything printed; control codes are those of Rich itself alone."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


out = _PlainConsole()
err = _PlainConsole(stderr=True)

NUMBER = re.compile(r"\[?[-+]?[\d.,]+%?\]?,?")  # or an end of an interval
GAP = 2  # characters between the columns of a table

Row = Mapping[Any, Any]
Columns = Mapping[str, str | Callable[[Row], str]]


def print_line(text: object) -> None:
    """Prints a plain line on stdout."""
    print(visible(str(text)).replace("\n", r"\n"))  # noqa: T201


def print_message(text: str) -> None:
    """Prints a plain line on stderr, above the progress bars."""
    err.print(one_line(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """Prints a value as JSON, with null for numbers that are not finite."""
    from offrl.reporting.values import json_value

    print(json.dumps(json_value(value), indent=2, allow_nan=False))  # noqa: T201 (in ASCII)


def show_rows(
    rows: Iterable[Row],
    columns: Columns,
    as_json: bool,
    *,
    title: str | None = None,
    whole: Any = None,
) -> None:
    """Prints rows as a table, or as JSON with every value that they hold.

    Args:
        rows: what is shown, one mapping per row.
        columns: headings of the table, with the key of a row or a function of it that gives text.
        as_json: whether to print JSON.
        title: stands above the table.
        whole: what JSON has in place of the rows.
    """
    if as_json:
        print_json(list(rows) if whole is None else whole)
        return
    cells = [
        [visible(str(row[c]) if isinstance(c, str) else c(row)) for c in columns.values()]
        for row in rows
    ]
    if title is not None:
        out.print(title)
    widths = _widths([list(texts) for texts in zip(columns, *cells, strict=True)])
    if widths is None:
        _print_records(list(columns), cells)
        return
    table = new_table(*columns)
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    for texts in cells:
        table.add_row(*texts)
    out.print(table)


def new_table(*columns: str) -> Table:
    """A table without rows, in the look of all commands."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _widths(columns: Sequence[Sequence[str]]) -> list[int] | None:
    """Widths of a table's columns on this terminal, None where it has no room for them.

    The first column and every number are kept whole; other words break after 12 cells of it.
    """
    widths = [
        max(cell_len(line) for text in texts for line in text.split("\n")) for texts in columns
    ]
    least = [
        max(
            cell_len(w) if NUMBER.fullmatch(w) else min(cell_len(w), 12)
            for w in " ".join(texts).split()
        )
        for texts in columns
    ]
    least[0] = widths[0]
    room = out.width - GAP * len(columns)
    while sum(widths) > room:
        wider = [i for i, width in enumerate(widths) if width > least[i]]
        if not wider:
            return None
        widths[max(wider, key=widths.__getitem__)] -= 1
    return widths


def _print_records(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows below each other, a line per value, where a table would break numbers."""
    for row in rows:
        out.print()
        grid = Table.grid(padding=(0, 2))
        for heading, text in zip(headings, row, strict=True):
            grid.add_row(heading, text)
        out.print(grid)
    out.print()


def print_notes(table: "ScoreTable", notes: Iterable[str] = ()) -> None:
    """Prints what a reader of scores needs besides: notes, and the runs without a score."""
    for note in (*table.notes, *notes):
        print_message(f"note: {note}")
    for failure in table.failures:
        if failure.unfinished:
            continue  # a note says so
        print_message(
            f"without a score: {failure.algorithm} on {failure.dataset}, seed {failure.seed}: "
            f"{failure.cause}"
        )


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[progress.Progress]:
    """A progress bar with time to go, as the callback that library functions take."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def names_of(*groups: str) -> Callable[[str], list[str]]:
    """Completes a word in the shell by the names that content folders hold."""

    def complete(incomplete: str) -> list[str]:
        from offrl.data.card import shipped_cards

        names: set[str] = set()
        for group in groups:
            if group == "datasets":
                names |= shipped_cards().keys()
            elif group == "algorithms":
                names |= registry.modules(group).keys()
            else:
                names |= {path.stem for path in registry.resources(group, ".toml")}
        return sorted(name for name in names if name.startswith(incomplete))

    return complete


DataId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="An id, minari:ID, or the path of a card or of data.",
        autocompletion=names_of("datasets"),
    ),
]
DataIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID",
        help="Ids, minari:ID, or the paths of cards or of data; several stand side by side.",
        autocompletion=names_of("datasets"),
    ),
]
Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE",
        help="Folders of runs, bundles, tables (algorithm,dataset,seed,score[,step]; - from a "
        "pipe), or what other programs wrote.",
    ),
]
Algorithms = Annotated[
    list[str] | None,
    typer.Option("--algorithm", metavar="NAME", help="Only this algorithm. Repeatable."),
]
Datasets = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset", metavar="NAME", help="Only this data set: a name or a pattern. Repeatable."
    ),
]
Common = Annotated[
    bool,
    typer.Option("--common", help="Leave out data sets that one of the algorithms lacks."),
]
Title = Annotated[str, typer.Option(metavar="TEXT", help="The heading of the page.")]
Order = Annotated[
    list[str] | None,
    typer.Option(
        "--order",
        metavar="NAME",
        help="An algorithm or data set that comes first, in the order given. Repeatable.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME=TEXT",
        help="What is written in place of an algorithm's or data set's name. Repeatable.",
    ),
]
Groups = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        metavar="NAME=PATTERN",
        help="Data sets with an aggregate of their own: 'maze=*maze*'; by default, the groups of "
        "their cards. Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder of runs.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-j", metavar="N", help="Processes; by default one per core or GPU."),
]
Replicas = Annotated[
    str,
    typer.Option(
        metavar="auto|N",
        help="Runs of one algorithm that train as one batch.",
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="NAME", help="auto (GPUs where there are any), cpu, cuda or cuda:N."),
]
Trusted = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="FILE",
        help="Let code run that this card, protocol or folder of data names. Repeatable.",
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Compare every algorithm with this one alone.",
        callback=lambda name: name and one_form(name),
    ),
]
CsvFile = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="A .csv file to write.")
]
Reps = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=100, help="Bootstrap resamples; by default as many as precision needs."
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of all resampling.")]
Scale = Annotated[
    float, typer.Option(metavar="1|100", help="Upper end of the scores of tables: 100 or 1.")
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="offrl, or rliable for what that library computes: intervals, P(X > Y).",
    ),
]
