"""Published tables in the terminal, and `offrl reproduce`."""

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.cells import cell_len

from offrl.cli.console import (
    GAP,
    Algorithms,
    AsJson,
    Columns,
    Datasets,
    Device,
    Replicas,
    Row,
    Workers,
    out,
    print_json,
    print_line,
    print_message,
    print_notes,
    show_rows,
)
from offrl.cli.options import Seeds, replica_count, seed_numbers
from offrl.cli.running import conclude, run_bars
from offrl.cli.sources import reads_sources
from offrl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from offrl.reporting.reproduction import Plan
    from offrl.results.reading import Reading

FACTS = {
    **{"source": "source", "quoted_from": "quoted from", "protocol": "protocol", "n": "seeds"},
    **{"ddof": "ddof", "episodes": "episodes", "rule": "score", "steps": "steps"},
    **{"data": "data", "simulator": "simulator", "environment": "simulator here"},
}
MOST_SHOWN = 4  # values of a fact in the head of a table's page


def table_rows() -> list[dict[str, Any]]:
    """What `offrl list` says of published tables."""
    from offrl.statistics.published import headings, lacking, tables

    return [
        {
            "id": name,
            "title": headings()[name]["title"],
            "cells": len(cells),
            "algorithms": list(cells["algorithm"].unique()),
            "datasets": list(cells["dataset"].unique()),
            "judged": sum(not lacking(cell) for cell in cast(Iterable[Any], cells.itertuples())),
            "protocols": [name for name in cells["protocol"].unique() if name],
        }
        for name, cells in sorted(tables().items())
    ]


TABLE_COLUMNS: Columns = {
    "id": "id",
    "title": "title",
    "cells": lambda row: str(row["cells"]),
    "judged": lambda row: str(row["judged"]),
    "protocols": lambda row: str(len(row["protocols"]) or ""),  # their names would leave no room
}


def table_values(name: str) -> dict[str, Any]:
    """A published table as JSON has it."""
    from offrl.statistics.published import find_table, headings

    return {"id": name, **headings()[name], "cells": find_table(name).to_dict("records")}


def show_table(name: str) -> None:
    """Prints a published table for a person: its sources, its cells, and what is not known."""
    from offrl.reporting.words import TERMINAL, Words
    from offrl.statistics.published import NEEDED, USEFUL, find_table, headings, lacking

    cells = find_table(name)
    rows = list(cast(Iterable[Any], cells.itertuples()))
    unknown = Counter(word for cell in rows for word in lacking(cell, NEEDED | USEFUL))
    judged = sum(not lacking(cell) for cell in rows)
    head = {
        **headings()[name],
        **{words: _fact(cells[column]) for column, words in FACTS.items()},
        "not known": ", ".join(f"{word} ({_of(count, rows)})" for word, count in unknown.items()),
        "verdicts": f"{_of(judged, rows)} can have one, which takes n, deviation, ddof and score",
    }
    shown = [{"key": key, "value": value} for key, value in head.items() if value]
    show_rows(shown, {"key": "key", "value": "value"}, False, title=f"published table {name}")
    words = Words(TERMINAL, decimals=min(2, max(_decimals(cell.mean) for cell in rows)))
    texts: dict[str, dict[str, str]] = {}
    for cell in rows:
        text = words.spread(cell.mean, cell.printed_sd)
        texts.setdefault(cell.dataset, {})[cell.algorithm] = text
    _print_matrix(texts, list(cells["algorithm"].unique()))
    print_line("± as printed. `offrl show NAME --json` has every cell with what is known of it.")


def _decimals(value: float) -> int:
    return len(str(round(value, 4)).rstrip("0").partition(".")[2])


def _of(count: int, rows: Sequence[Any]) -> str:
    return f"all {len(rows)} cells" if count == len(rows) else f"{count} of {len(rows)} cells"


def _fact(values: "pd.Series[Any]") -> str:
    """The distinct values of a column, with their numbers where there are several."""
    counts = Counter(value for value in values.tolist() if value == value and value != "")
    texts = {
        value: f"{round(value):,}" if isinstance(value, float) else str(value) for value in counts
    }
    if len(counts) == 1 and counts.total() == len(values):
        return next(iter(texts.values()))
    shown = [f"{texts[value]} ({count})" for value, count in counts.most_common(MOST_SHOWN)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")


def _print_matrix(texts: dict[str, dict[str, str]], algorithms: Sequence[str]) -> None:
    """Prints a row per data set, as many columns of algorithms at a time as the terminal has."""
    room = out.width - max(map(cell_len, [*texts, "data set"])) - GAP
    part: list[str] = []
    taken = 0
    parts = [part]
    for algorithm in algorithms:
        width = max(cell_len(row.get(algorithm, "")) for row in texts.values())
        width = max(width, cell_len(algorithm)) + GAP
        if part and taken + width > room:
            part, taken = [], 0
            parts.append(part)
        part.append(algorithm)
        taken += width
    for names in parts:
        rows = [
            {"data set": dataset, **{name: cells.get(name, "") for name in names}}
            for dataset, cells in texts.items()
            if any(name in cells for name in names)
        ]
        show_rows(rows, {name: name for name in ("data set", *names)}, False)


@reads_sources
def reproduce(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="A published table: neorl2, corl, ...")
    ],
    source: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folders of runs, or scores in any other form. None: what it takes is shown.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="The largest difference of means that counts as none, in points.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="The folder of the page; without a source, the folder of runs.",
        ),
    ] = None,
    algorithm: Algorithms = None,
    dataset: Datasets = None,
    seed: Seeds = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]N",
            help="Gradient steps a second of a worker, for the cost: of an algorithm, or of all. "
            "Repeatable.",
        ),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Carry out the runs that are shown, in the folder -o.")
    ] = False,
    workers: Workers = None,
    replicas: Replicas = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
    *,
    reading: "Reading",
) -> None:
    """Reproduce a published table: what it takes, the runs, and a verdict on every cell.

    Without a source the runs and their cost are shown; with --run they are carried out.

    Example: offrl reproduce neorl2 runs --margin 3 -o page
    """
    if source:
        if run or seed or rate:
            raise InputError("--run, --seed and --rate are for runs to make: give no source")
        if margin is None:
            raise InputError(
                "no --margin: give the largest difference of means that counts as none, in "
                "points, such as --margin 3"
            )
        _show_comparison(table, source, margin, output, algorithm, dataset, as_json, reading)
        return
    from offrl.reporting.reproduction import plan

    if run and output is None:
        raise InputError("--run: give the folder of runs with -o")
    numbers = seed_numbers(seed) if seed else None
    planned = plan(
        table,
        algorithms=algorithm or (),
        datasets=dataset or (),
        seeds=numbers,
        margin=margin,
        rates=_rates(rate or ()),
        root=output,
        device="cuda" if device.startswith("cuda") else "cpu",
    )
    if run and not planned.parts:
        raise InputError(f"{table}: no protocol of offrl has the settings of these cells")
    _show_plan(planned, as_json, command="" if run else _again(output))
    if not run or output is None:
        return
    from offrl.running import runner

    events = []
    with run_bars(output) as bars:
        for part in planned.parts:
            events += runner.run(
                part.protocol,
                output,
                algorithms=part.algorithms,
                datasets=part.datasets,
                seeds=numbers,
                workers=workers,
                replicas=replica_count(replicas),
                device=device,
                on_event=bars.show_event,
                progress=bars.show_data,
            )
    if margin is not None and any(event.status == "done" for event in events):
        _show_comparison(table, [output], margin, None, algorithm, dataset, as_json, reading)
    conclude(events, output)


def _rates(texts: Sequence[str]) -> dict[str, float]:
    """Steps a second by algorithm, of `NAME=N`, or of all, of `N`."""
    rates = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            rates[name] = float(number)
        except ValueError:
            raise InputError(f"--rate {text!r:.80}: expected a number, or NAME=NUMBER") from None
    return rates


def _again(output: Path | None) -> str:
    given = shlex.join(sys.argv[1:])
    return f"offrl {given} --run" if output else f"offrl {given} -o runs --run"


def _show_plan(planned: "Plan", as_json: bool, command: str) -> None:
    from dataclasses import asdict

    from offrl.reporting.reproduction import counts_of
    from offrl.reporting.words import TERMINAL, Words
    from offrl.running.tally import duration

    if as_json:
        cells = [asdict(cell) for cell in planned.cells]
        totals = {name: getattr(planned, name) for name in ("runs", "done", "hours", "uncounted")}
        print_json({"table": planned.table, **totals, "cells": cells})
        return
    words = Words(TERMINAL, decimals=2)
    show_rows(
        [vars(cell) for cell in planned.cells],
        {
            "data set": "dataset",
            "algorithm": "algorithm",
            "published": lambda row: words.spread(
                row["published"], row["published_sd"], row["published_n"]
            ),
            "protocol": lambda row: row["protocol"] or "none",
            "runs": _to_make,
            "steps": lambda row: "" if row["steps"] is None else f"{row['steps']:,}",
            "hours": _hours,
            "verdict": lambda row: _can_have(row, planned.margin),
        },
        False,
        title=f"{planned.table}: runs to make, and the time of one worker for them",
    )
    left = planned.runs - planned.done
    cost = f"about {duration(3600 * planned.hours)} of one worker" if planned.hours else ""
    unknown = f"{planned.uncounted:,} of unknown cost (see --rate)" if planned.uncounted else ""
    costs = ", ".join(filter(None, [cost, unknown]))
    print_line(
        f"{counts_of(left, 'run')} to make, {planned.done:,} done{': ' if costs else ''}{costs}"
    )
    without = sum(not cell.protocol for cell in planned.cells)
    if without:
        print_line(f"{counts_of(without, 'cell')} with settings that no protocol of offrl has")
    if command and left:
        print_line(f"nothing was started; {command}")


def _to_make(row: Row) -> str:
    return f"{row['runs'] - row['done']} of {row['runs']}" if row["runs"] else ""


def _hours(row: Row) -> str:
    if row["runs"] == row["done"]:
        return ""
    return "unknown" if row["hours"] is None else f"{round(row['hours'], 1):,}"


def _can_have(row: Row, margin: float | None) -> str:
    """What it takes to show a cell reproduced, as far as that is known beforehand."""
    if row["lacking"]:
        return f"none: no {', '.join(row['lacking'])}"
    if margin is None:
        return ""
    if row["needed"] is None:
        return "never: its mean is too uncertain"
    return f"with {row['needed']} runs or more"


def _show_comparison(
    table: str,
    source: Sequence[Path],
    margin: float,
    output: Path | None,
    algorithm: Sequence[str] | None,
    dataset: Sequence[str] | None,
    as_json: bool,
    reading: "Reading",
) -> None:
    from offrl.reporting.reproduction import sentence, write_page
    from offrl.reporting.words import TERMINAL, Words
    from offrl.results.collect import collect
    from offrl.running.protocol import find_protocol, shipped_protocols
    from offrl.statistics.labels import level_of, percent
    from offrl.statistics.published import VERDICTS, compare, tally

    scores = collect(
        source,
        complete=False,
        algorithms=algorithm or None,
        datasets=dataset or None,
        reading=reading,
    )
    protocols = {name: find_protocol(name).version for name in shipped_protocols()}
    chosen: dict[str, Sequence[str]] = {"algorithms": algorithm or (), "datasets": dataset or ()}
    cells = compare(scores, table, margin, **chosen, versions=protocols)
    notes = scores.final().notes
    words = Words(TERMINAL, decimals=2)  # as many as published tables have
    if output is not None:
        command = shlex.join(["offrl", *sys.argv[1:]])
        page = write_page(table, cells, margin, output, notes=notes, command=command)
        print_message(f"wrote {page}")
    both = cells[~cells["verdict"].isin(VERDICTS[-2:])]
    show_rows(
        both.to_dict("records"),
        {
            "algorithm": "algorithm",
            "data set": "dataset",
            "ours": lambda row: words.spread(row["mean"], row["sd"], row["n"]),
            "published": lambda row: words.spread(
                row["published"], row["published_sd"], row["published_n"]
            ),
            "difference": lambda row: (
                f"{words.difference(row['difference'])}\n{words.interval(row['low'], row['high'])}"
            ),
            "verdict": lambda row: "\n".join(filter(None, [row["verdict"], row["reason"]])),
        },
        as_json,
        title=(
            f"{table}, margin {margin:g}; ± with ddof 1, differences with "
            f"{percent(level_of(cells))} intervals"
        ),
        whole={
            "table": table,
            "margin": margin,
            "tally": tally(cells),
            "cells": cells.to_dict("records"),
            "notes": notes,
        },
    )
    if not as_json:
        print_line(sentence(cells, margin))
    print_notes(scores.final())
