"""`offrl new` and `offrl check`: an algorithm of the user's own."""

from pathlib import Path
from typing import Annotated

import typer

from offrl.cli.console import AsJson, print_json, print_line, progress_bar

new = typer.Typer(
    no_args_is_help=True,
    help="Begin something of your own.\n\nExample: offrl new algorithm my_algo",
)
check = typer.Typer(
    no_args_is_help=True,
    help="Check something of your own.\n\nExample: offrl check algorithm ./my_algo.py",
)


@new.callback()
@check.callback()
def _group() -> None:
    """Keeps the name of a group's one command."""


@new.command("algorithm")
def new_algorithm(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the algorithm, a Python identifier.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write it; by default ./NAME.py."
        ),
    ] = None,
) -> None:
    """Write a file with a whole, plain algorithm for one seed, to be changed into yours.

    Example: offrl new algorithm my_algo
    """
    from offrl.learning import template

    print_line(template.new_algorithm(name, output))


@check.command("algorithm")
def check_algorithm(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The path of a .py file, whose code runs.")
    ],
    as_json: AsJson = False,
) -> None:
    """Put an algorithm through the battery; the exit code is 1 where a check fails.

    Example: offrl check algorithm ./my_algo.py
    """
    import dataclasses
    from collections import Counter

    from offrl.running import checking

    findings = []
    with progress_bar(Path(file).name) as bar:
        for finding in checking.check_algorithm(file, bar):
            findings.append(finding)
            if not as_json:
                end = f": {finding.detail}" if finding.detail else ""
                print_line(f"{finding.outcome:<14}  {finding.title}{end}")
    counts = Counter(finding.outcome for finding in findings)
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        print_line(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    raise typer.Exit(1 if counts[checking.FAILED] else 0)
