"""Commands that make what goes into a paper: tables and figures."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offrl.cli.console import (
    Algorithms,
    Baseline,
    Common,
    Datasets,
    Engine,
    Groups,
    Labels,
    Order,
    Reps,
    Scale,
    Seed,
    Sources,
    print_line,
    print_notes,
    progress_bar,
)
from offrl.cli.sources import reads_sources
from offrl.errors import InputError, unknown

if TYPE_CHECKING:
    from offrl.results.reading import Reading

LookFile = Annotated[
    Path | None,
    typer.Option(
        "--look",
        metavar="FILE",
        help="A TOML file with order, labels, colours and groups, for tables and figures.",
    ),
]


@reads_sources
def table(
    source: Sources,
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="latex, markdown, csv or html; by default that of the output's name, or markdown.",
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; by default here."),
    ] = None,
    algorithm: Algorithms = None,
    dataset: Datasets = None,
    common: Common = False,
    show: Annotated[
        str, typer.Option(metavar="mean|iqm", help="mean ± sd, or IQM [95 % interval].")
    ] = "mean",
    digits: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=10, help="Decimals of scores; by default 1, or 3."),
    ] = None,
    transpose: Annotated[
        bool, typer.Option("--transpose", help="A row per algorithm, a column per data set.")
    ] = False,
    averages: Annotated[
        bool, typer.Option(help="Averages per group of data sets and over all of them.")
    ] = True,
    order: Order = None,
    label: Labels = None,
    group: Groups = None,
    look: LookFile = None,
    seed: Seed = 0,
    scale: Scale = 100,
    *,
    reading: "Reading",
) -> None:
    """Write the scores as a table of a paper: LaTeX (booktabs), Markdown, HTML or CSV.

    Bold is the best and what is not told apart from it, by the tests
    per data set (Welch, Holm) and, in averages, by offrl compare.

    Example: offrl table runs -o scores.tex --label iql=IQL --group 'mazes=*maze*'
    """
    from offrl.files import replacing
    from offrl.reporting.looks import naming_of, read_look
    from offrl.reporting.tables import paper_table
    from offrl.reporting.typeset import FORMATS, numbers, written
    from offrl.results.collect import collect
    from offrl.results.files import write_csv
    from offrl.statistics.resampling import Resampling

    kinds = {suffix: name for name, suffix in FORMATS.items()}
    kind = kind or (kinds.get(output.suffix, "") if output else "markdown")
    if not kind:
        raise InputError(
            f"{output}: expected a name that ends in {', '.join(kinds)}, or --format with one of "
            f"{', '.join(FORMATS)}"
        )
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    statistic: Any = show
    scores = collect(
        source,
        scale=scale,
        complete=False,
        algorithms=algorithm or None,
        datasets=dataset or None,
        common=common,
        reading=reading,
    ).by_setting()
    naming = naming_of(scores, read_look(look), order or (), label or (), group or ())
    made = paper_table(
        scores, naming, statistic=statistic, averages=averages, resampling=Resampling(seed=seed)
    )
    if transpose:
        made = made.transposed()
    if output is None:
        if kind == "csv":
            write_csv(numbers(made), sys.stdout)
        else:
            sys.stdout.write(written(made, kind, digits))
    else:
        with replacing(output) as temporary:
            if kind == "csv":
                write_csv(numbers(made), temporary)
            else:
                temporary.write_text(written(made, kind, digits), encoding="utf-8")
        print_line(output)
    print_notes(scores.final())


@reads_sources
def plot(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="interval, profile, improvement, matrix, ranks, critical-difference, curve or "
            "budget.",
        ),
    ],
    source: Sources,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A .pdf, .svg or .png file.")
    ],
    size: Annotated[
        str,
        typer.Option(
            metavar="NAME|WxH",
            help="The width of a venue's text: neurips, iclr (5.5 inches), icml (a column, 3.25), "
            "icml-wide (6.75); or inches.",
        ),
    ] = "",
    metric: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of intervals: iqm, mean, median or optimality_gap."),
    ] = "iqm",
    baseline: Baseline = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write the numbers beside it, as .csv.")
    ] = False,
    algorithm: Algorithms = None,
    dataset: Datasets = None,
    common: Common = False,
    order: Order = None,
    label: Labels = None,
    look: LookFile = None,
    reps: Reps = None,
    seed: Seed = 0,
    scale: Scale = 100,
    engine: Engine = "offrl",
    *,
    reading: "Reading",
) -> None:
    """Draw one figure for a paper.

    Example: offrl plot profile runs -o profile.pdf --size neurips --look paper.toml
    """
    from offrl import plots
    from offrl.files import replacing
    from offrl.plots.style import KINDS
    from offrl.reporting.drawings import FIGURES, Asked, sized
    from offrl.reporting.looks import naming_of, read_look, size_of
    from offrl.results.collect import collect
    from offrl.results.files import write_csv
    from offrl.statistics.resampling import Resampling

    if kind not in FIGURES:
        raise unknown("figure", kind, FIGURES)
    if output.suffix[1:] not in KINDS:
        names = ", ".join(f".{name}" for name in KINDS)
        raise InputError(f"{output}: expected a name that ends in {names}")
    wanted = size_of(size) if size else None
    of_look = read_look(look)
    scores = collect(
        source,
        scale=scale,
        complete=False,
        algorithms=[*algorithm, *([baseline] if baseline else [])] if algorithm else None,
        datasets=dataset or None,
        common=common,
        reading=reading,
    )
    if kind != "budget":
        scores = scores.by_setting()
    naming = naming_of(scores, of_look, order or (), label or ())
    with progress_bar(kind) as progress:
        drawing = FIGURES[kind](
            Asked(
                scores,
                naming,
                Resampling(reps, seed, engine=engine),
                {name: colour.lower() for name, colour in of_look.colours.items()},
                metric,
                baseline,
                progress,
            )
        )
    ways = scores.ways
    looks = plots.assigned_styles(naming.ordered(scores.algorithms), ways)
    texts = [naming.label(name) for name in (*scores.algorithms, *scores.datasets)]
    with plots.style(kind, texts, looks), replacing(output) as temporary:
        drawn = sized(drawing, wanted).get_figure(root=True)
        assert drawn is not None
        plots.save_as(drawn, temporary, output.suffix[1:])
    print_line(output)
    if csv:
        with replacing(output.with_suffix(".csv")) as temporary:
            write_csv(drawing.numbers, temporary)
        print_line(output.with_suffix(".csv"))
    print_notes(scores.final())
