"""How commands show rows, progress and notes."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from offrl import progress

if TYPE_CHECKING:
    from offrl.results.table import ScoreTable

app = typer.Typer(
    name="offrl",
    help="Measure offline reinforcement learning.\n\nExample: offrl run quickstart -o runs",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(
    no_args_is_help=True,
    help="Fetch, check, make and describe data sets.\n\nExample: offrl data stats neorl2-dmsd",
)
out = Console()
err = Console(stderr=True)
DataId = Annotated[
    str, typer.Argument(metavar="ID", help="An id, minari:ID, or the path of a card or of data.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The folder of runs.")]
Workers = Annotated[
    int | None, typer.Option("--workers", "-j", help="Processes; by default one per core.")
]


def print_json(value: Any) -> None:
    """Prints a value as JSON, with null for NaN."""
    print(json.dumps(_finite(value), indent=2, default=str, allow_nan=False))  # noqa: T201


def _finite(value: Any) -> Any:
    """The same with null for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def new_table(title: str | None, *columns: str) -> Table:
    """A table without rows, in the look of all commands."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=i == 0)
    return table


def cell(value: Any) -> str:
    """A value of a listed row as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return str(len(value))
    return "not measured" if value is None else str(value)  # None: an algorithm's agreement


def toml(value: Any) -> str:
    """A value as `--set` and a protocol take it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextlib.contextmanager
def bar(what: str) -> Iterator[progress.Progress]:
    """A progress bar with time to go, as the callback that library functions take."""
    columns = (TextColumn("{task.description}"), BarColumn(), "{task.percentage:3.0f}%")
    with Progress(
        *columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal
    ) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def print_notes(table: "ScoreTable") -> None:
    """What a reader of scores must know besides: notes, and the runs that have none."""
    for note in table.notes:
        err.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    for failure in table.failures:
        err.print(
            f"without a score: {failure.algorithm} on {failure.dataset}, seed {failure.seed}: "
            f"{failure.cause}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


Tables = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE",
        help="Folders of runs, or tables: algorithm,dataset,seed,score[,step].",
    ),
]
Reps = Annotated[
    int | None,
    typer.Option(min=100, help="Bootstrap resamples; by default as many as precision needs."),
]
Seed = Annotated[int, typer.Option(min=0, help="Of all resampling.")]
Scale = Annotated[float, typer.Option(help="Upper end of the scores of tables: 100 or 1.")]
Engine = Annotated[
    str, typer.Option(help="offrl, or rliable for what that library computes: intervals, P(X > Y).")
]
