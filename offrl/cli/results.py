"""`offrl results`: runs as one file to pass on, and what differs between two sets of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offrl.cli.console import AsJson, print_json, print_line, show_rows
from offrl.errors import InputError
from offrl.text import counted

if TYPE_CHECKING:
    from offrl.results.differences import Difference

app = typer.Typer(
    no_args_is_help=True,
    help="Pass runs on as one file.\n\nExample: offrl results pack runs -o runs.zip",
)
MOST_SHOWN = 50  # differences of runs
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file of offrl results pack.")]
BundleFile = Annotated[
    Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The file to write, a .zip.")
]


@app.command()
def pack(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="The folder of runs.")],
    output: BundleFile,
    protocol: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Runs of this protocol alone; may be repeated."),
    ] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Runs of this algorithm alone; may be repeated."),
    ] = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Pack the last checkpoints too, which are large.")
    ] = False,
) -> None:
    """Pack runs into one small file: scores, returns, losses, provenance and checksums.

    Example: offrl results pack runs -o runs.zip
    """
    from offrl.results.bundle import pack

    check_suffix(output)
    packed = pack(
        runs, output, protocols=protocol or (), algorithms=algorithm or (), weights=weights
    )
    print_line(f"{counted(len(packed), 'run')}, {output.stat().st_size:,} bytes in {output}")


@app.command()
def unpack(
    bundle: Bundle,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="RUNS", help="The new folder of runs.")
    ],
) -> None:
    """Check a bundle, and unpack it into a folder of runs for report, scores, table, ...

    Example: offrl results unpack runs.zip -o runs
    """
    from offrl.results.unpacking import unpack

    unpacked = unpack(bundle, output)
    print_line(f"{len(unpacked.runs):,} runs in {output}")


@app.command()
def merge(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Files of offrl results pack.")
    ],
    output: BundleFile,
) -> None:
    """Make one bundle of several that do not contradict one another.

    Example: offrl results merge ours.zip theirs.zip -o both.zip
    """
    from offrl.results.merging import merge_bundles

    check_suffix(output)
    print_line(f"{merge_bundles(bundles, output):,} runs in {output}")


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle, or a folder of runs.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    as_json: AsJson = False,
) -> None:
    """Show what differs between two sets of runs, run by run, and their means.

    The exit code is 1 where anything differs.

    Example: offrl results diff runs.zip runs
    """
    from offrl.results.differences import diff

    found = diff(a, b)
    runs = [{**d.cell._asdict(), **d._asdict()} for d in found.runs]
    cells = [{**c.cell._asdict(), **c._asdict()} for c in found.cells]
    for row in (*runs, *cells):
        del row["cell"]
    if as_json:
        print_json({"same": found.same, "runs": runs, "cells": cells})
    else:
        names = {"protocol": "protocol", "data set": "dataset", "algorithm": "algorithm"}
        both = {"runs": lambda row: f"{row['n_a']} / {row['n_b']}"}
        show_rows(
            cells,
            {**names, **both, "A": lambda r: _mean(r["mean_a"]), "B": lambda r: _mean(r["mean_b"])},
            False,
        )
        lines = _lines(found.runs)
        for line in lines[:MOST_SHOWN]:
            print_line(line)
        if len(lines) > MOST_SHOWN:
            print_line(f"and {len(lines) - MOST_SHOWN:,} more lines; --json lists all differences")
        same = f"{counted(found.same, 'run')} {'is' if found.same == 1 else 'are'} the same"
        print_line(f"{same}; {counted(len(runs), 'difference')} in the others")
    raise typer.Exit(1 if found.runs else 0)


def _lines(differences: "Sequence[Difference]") -> list[str]:
    """A line for each difference, with the seeds that have it."""
    seeds: dict[tuple[Any, ...], list[int]] = {}
    for found in differences:
        seeds.setdefault((found.cell, found.what, found.a, found.b), []).append(found.seed)
    return [
        f"{cell.algorithm} on {cell.dataset}, seed {', '.join(map(str, of))}: {what}: {a} / {b}"
        for (cell, what, a, b), of in seeds.items()
    ]


def check_suffix(path: Path) -> None:
    """Raises InputError for the name of a bundle that does not end in .zip."""
    if path.suffix != ".zip":
        raise InputError(f"{path}: expected a name that ends in .zip")


def _mean(value: float | None) -> str:
    return "no score" if value is None else f"{value:.6g}"
