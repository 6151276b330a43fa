"""How commands read what other programs wrote: options, and what a dry run shows."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offrl.cli.console import print_notes, show_rows
from offrl.errors import InputError

if TYPE_CHECKING:
    from offrl.results.reading import Reading

PANEL = "Tables and logs of others"
_SPLIT = re.compile(r",(?=(?:algorithm|dataset|seed|step|score|return|setting|failure|run)=)")


def _options(
    *,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS,...",
            help="Which column is what: algorithm=algo,score=reward. Ours are algorithm, dataset, "
            "seed, step, score, return, setting, failure and run (its name). Repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    fill: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=TEXT",
            help="What all rows share, such as dataset=maze. Repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=TEXT",
            help="Only rows with this text; several of a column add up. Repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Another name of an algorithm or a data set. Repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    run_name: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help="How names of runs are made: '{algorithm}-{dataset}-{seed}', {} for other parts.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    normalise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|CARD",
            help="Normalise raw returns: by the card of each data set's name, or this one (an id "
            "or a .toml). Repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    tolerance: Annotated[
        int,
        typer.Option(
            metavar="STEPS",
            min=0,
            help="Steps of different runs that are no further apart count as one.",
            rich_help_panel=PANEL,
        ),
    ] = 0,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what is read of the sources, and stop.", rich_help_panel=PANEL
        ),
    ] = False,
) -> None:
    """The options that `reads_sources` adds."""


def reads_sources(command: Callable[..., None]) -> Callable[..., None]:
    """The command with options for tables of others, which it takes as one argument `reading`.

    It has an argument `source` and, where scores may be on either scale, `scale`.
    """
    own = inspect.signature(command)
    added = inspect.signature(_options).parameters

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        given = {name: values.pop(name) for name in added}
        dry_run = given.pop("dry_run")
        reading = _reading(**given)
        if dry_run:
            if not values["source"]:
                raise InputError("--dry-run: give the scores to read")
            _show(values["source"], values.get("scale", 100), reading)
        else:
            command(**values, reading=reading)

    kept = [parameter for name, parameter in own.parameters.items() if name != "reading"]
    every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*kept, *added.values())]
    vars(with_options).pop("__wrapped__")  # Typer would read the command's own options there
    with_options.__annotations__ = {p.name: p.annotation for p in every}
    vars(with_options)["__signature__"] = inspect.Signature(every)
    return with_options


def _reading(
    columns: Sequence[str] | None,
    fill: Sequence[str] | None,
    where: Sequence[str] | None,
    rename: Sequence[str] | None,
    run_name: str | None,
    normalise: Sequence[str] | None,
    tolerance: int,
) -> "Reading":
    from offrl.results.reading import Reading

    kept: dict[str, list[str]] = {}
    for text in where or ():
        column, value = _pair(text, "--where COLUMN=TEXT")
        kept.setdefault(column, []).append(value)
    named = [part for text in columns or () for part in _SPLIT.split(text)]
    return Reading(
        columns=dict(_pair(text, "--columns OURS=THEIRS") for text in named),
        fill=dict(_pair(text, "--fill OURS=TEXT") for text in fill or ()),
        where=kept,
        rename=dict(_pair(text, "--rename OLD=NEW", last=True) for text in rename or ()),
        run_name=run_name,
        normalise=tuple(normalise or ()),
        tolerance=tolerance,
    )


def _pair(text: str, form: str, *, last: bool = False) -> tuple[str, str]:
    """The texts before and after the first sign of equality, or the last one."""
    name, sign, value = text.rpartition("=") if last else text.partition("=")
    if not (sign and name.strip() and value.strip()):
        raise InputError(f"{text!r:.80}: expected {form}")
    return name.strip(), value.strip()


def _show(sources: Sequence[Path], scale: float, reading: "Reading") -> None:
    """Prints what is read of the sources."""
    from offrl.reporting.words import TERMINAL, Words
    from offrl.results.collect import collect

    table = collect(sources, scale=scale, complete=False, reading=reading)
    words = Words(TERMINAL, scale)

    def steps(part: Any) -> str:
        if "step" not in part or part["step"].isna().all():
            return "the last alone"
        several = part["step"].nunique()
        low, high = part["step"].min(), part["step"].max()
        return f"{low:,}" if several == 1 else f"{several:,} of {low:,} to {high:,}"

    rows: list[Mapping[str, str]] = []
    for name, part in table.frame.groupby("algorithm", sort=False):
        runs = part.groupby("dataset")["seed"].nunique()
        rows.append(
            {
                "algorithm": str(name),
                "datasets": str(part["dataset"].nunique()),
                "runs": "–".join(map(str, sorted({int(runs.min()), int(runs.max())}))),
                "settings": str(part["setting"].nunique()) if "setting" in part else "1",
                "steps": steps(part),
                "scores": " to ".join(map(words.score, (part["score"].min(), part["score"].max()))),
            }
        )
    show_rows(
        rows,
        {
            "algorithm": "algorithm",
            "data sets": "datasets",
            "runs of each": "runs",
            "settings": "settings",
            "steps": "steps",
            "scores": "scores",
        },
        False,
        title=f"{table!r}\n{_listed('data sets', table.datasets)}",
    )
    print_notes(table)


def _listed(what: str, names: Sequence[str]) -> str:
    shown = [name[:60] for name in names[:40]]
    return f"{what}: {', '.join(shown)}{' ...' if len(names) > 40 else ''}"
