"""Commands that read scores."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offrl.cli.console import (
    Algorithms,
    AsJson,
    Baseline,
    Common,
    CsvFile,
    Datasets,
    Engine,
    Groups,
    Labels,
    Order,
    Reps,
    Scale,
    Seed,
    Sources,
    Title,
    print_line,
    print_message,
    print_notes,
    progress_bar,
    show_rows,
)
from offrl.cli.sources import reads_sources
from offrl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from offrl.results.reading import Reading


@reads_sources
def scores(
    source: Sources,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="A .csv or .parquet file to write."),
    ],
    scale: Scale = 100,
    *,
    reading: "Reading",
) -> None:
    """Write the tidy table of all evaluations of all runs, or of tables and logs of others.

    Example: offrl scores runs -o scores.csv
    """
    from offrl.results.collect import collect
    from offrl.results.files import write_scores

    table = collect(source, scale=scale, complete=False, reading=reading)
    write_scores(table, output)
    print_line(f"{len(table.frame):,} rows in {output}")
    print_notes(table)


@reads_sources
def report(
    source: Sources,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder of the report.")
    ],
    algorithm: Algorithms = None,
    dataset: Datasets = None,
    common: Common = False,
    title: Title = "",
    order: Order = None,
    label: Labels = None,
    group: Groups = None,
    figures: Annotated[
        str,
        typer.Option(
            metavar="pdf,png", help="Further formats of figures: pdf, png or both. SVG is there."
        ),
    ] = "",
    reps: Reps = None,
    seed: Seed = 0,
    scale: Scale = 100,
    studentized: Annotated[
        bool, typer.Option("--studentized", help="Show studentized intervals too.")
    ] = False,
    engine: Engine = "offrl",
    *,
    reading: "Reading",
) -> None:
    """Write a report page: IQM, confidence intervals, comparisons, figures.

    Example: offrl report runs -o report
    """
    from offrl.reporting.report import report as make_report
    from offrl.statistics.resampling import Resampling

    with progress_bar("report") as progress:
        path = make_report(
            source,
            output,
            algorithms=algorithm or None,
            datasets=dataset or None,
            common=common,
            title=title,
            order=order or (),
            labels=label or (),
            groups=group or (),
            formats=[part.strip() for part in figures.split(",") if part.strip()],
            resampling=Resampling(reps, seed, engine=engine),
            scale=scale,
            studentized=studentized,
            command=shlex.join(["offrl", *sys.argv[1:]]),
            progress=progress,
            reading=reading,
        )
    print_line(path)


@reads_sources
def compare(
    source: Sources,
    baseline: Baseline = None,
    algorithm: Algorithms = None,
    dataset: Datasets = None,
    common: Common = False,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS", help="The largest difference of means that counts as none, in points."
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(metavar="RATE", help="Error rate of the tests over all pairs.")
    ] = 0.05,
    correction: Annotated[
        str, typer.Option(metavar="NAME", help="Of p for all pairs: closed or holm.")
    ] = "closed",
    reps: Reps = None,
    permutations: Annotated[
        int, typer.Option(metavar="N", min=100, help="Of the permutation test.")
    ] = 10_000,
    seed: Seed = 0,
    scale: Scale = 100,
    engine: Engine = "offrl",
    output: CsvFile = None,
    as_json: AsJson = False,
    *,
    reading: "Reading",
) -> None:
    """Compare algorithms two at a time: P(X > Y), difference of IQMs, tests, verdict.

    Example: offrl compare runs --baseline bc --margin 3
    """
    from offrl.reporting.words import TERMINAL, Words
    from offrl.results.collect import collect
    from offrl.statistics.comparison import compare as make_comparison
    from offrl.statistics.labels import level_of, percent
    from offrl.statistics.resampling import Resampling

    _check_suffix(output, ".csv")
    scores = collect(
        source,
        scale=scale,
        algorithms=[*algorithm, *([baseline] if baseline else [])] if algorithm else None,
        datasets=dataset or None,
        common=common,
        reading=reading,
    ).final()
    with progress_bar("compare") as progress:
        comparison = make_comparison(
            scores,
            baseline=baseline,
            algorithms=algorithm or None,
            margin=margin,
            alpha=alpha,
            correction=correction,
            permutations=permutations,
            resampling=Resampling(reps, seed, engine=engine),
            progress=progress,
        )
    if output is not None:
        _write(comparison.pairs, output)
    words = Words(TERMINAL, scale)
    pairs = comparison.pairs.astype(object).to_dict("records")  # a missing number of seeds is None
    show_rows(
        [words.pair(pair, margin) for pair in pairs],
        {
            "X": "x",
            "Y": "y",
            "P(X > Y)": lambda row: f"{row['probability']}\n{row['probability_interval']}",
            "IQM, X - Y": lambda row: f"{row['difference']}\n{row['difference_interval']}",
            "p": "p",
            "p, adjusted": "p_adjusted",
            "verdict on X": "verdict",
        },
        as_json,
        title=(
            f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} on {len(scores.datasets)} "
            f"data set{'s' if len(scores.datasets) > 1 else ''}, "
            f"{percent(level_of(comparison.pairs))} intervals; "
            f"p of the {comparison.statistic}, correction: {comparison.correction}"
        ),
        whole={
            "correction": comparison.correction,
            "statistic": comparison.statistic,
            "pairs": pairs,
            "tasks": comparison.tasks.to_dict("records"),
            "notes": [*scores.notes, *comparison.notes],
        },
    )
    print_notes(scores, comparison.notes)


@reads_sources
def budget(
    source: Sources,
    budgets: Annotated[
        list[int] | None,
        typer.Option("--budget", metavar="N", help="Settings tried online. Repeatable."),
    ] = None,
    algorithm: Algorithms = None,
    dataset: Datasets = None,
    common: Common = False,
    reps: Annotated[int, typer.Option(metavar="N", min=100, help="Bootstrap resamples.")] = 10_000,
    seed: Seed = 0,
    scale: Scale = 100,
    output: CsvFile = None,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .png, .svg or .pdf file to draw the curves in."),
    ] = None,
    as_json: AsJson = False,
    *,
    reading: "Reading",
) -> None:
    """Expected performance under a tuning budget, from runs of a grid or a column `setting`.

    Example: offrl budget runs --budget 1 --budget 5 --figure budget.png
    """
    from offrl.reporting.words import TERMINAL, Words
    from offrl.results.collect import collect
    from offrl.statistics.labels import level_of, percent
    from offrl.statistics.resampling import Resampling
    from offrl.statistics.tuning_budget import online_performance

    _check_suffix(output, ".csv")
    _check_suffix(figure, ".png", ".svg", ".pdf")
    scores = collect(
        source,
        scale=scale,
        algorithms=algorithm or None,
        datasets=dataset or None,
        common=common,
        reading=reading,
    )
    curves = online_performance(scores, budgets or None, resampling=Resampling(reps, seed))
    if output is not None:
        _write(curves, output)
    if figure is not None:
        from offrl import plots
        from offrl.files import replacing

        with plots.style(), replacing(figure) as temporary:
            drawn = plots.online_plot(curves, scale=scale).get_figure(root=True)
            assert drawn is not None
            drawn.savefig(temporary, format=figure.suffix[1:], dpi=200)
    words = Words(TERMINAL, scale)
    show_rows(
        curves.to_dict("records"),
        {
            "algorithm": "algorithm",
            "settings": "n_settings",
            "tried": "budget",
            "expected score": lambda row: words.score(row["value"]),
            "interval": lambda row: words.interval(row["ci_low"], row["ci_high"]),
        },
        as_json,
        title="Expected score of the best of so many settings, tried online; "
        f"{percent(level_of(curves))} intervals over seeds",
    )
    print_notes(scores.final())


@reads_sources
def adastop(
    source: Sources,
    size: Annotated[int, typer.Option(metavar="N", help="Runs of each algorithm per interim.")],
    interims: Annotated[int, typer.Option(metavar="N", help="The greatest number of interims.")],
    dataset: Annotated[
        str | None, typer.Option(metavar="ID", help="Which data set, where there are several.")
    ] = None,
    algorithm: Algorithms = None,
    baseline: Baseline = None,
    alpha: Annotated[
        float, typer.Option(metavar="RATE", help="Bound of the family-wise error.")
    ] = 0.05,
    reps: Annotated[
        int, typer.Option(metavar="N", min=100, help="Deals drawn per interim.")
    ] = 10_000,
    seed: Seed = 0,
    scale: Scale = 100,
    as_json: AsJson = False,
    *,
    reading: "Reading",
) -> None:
    """Decide in stages which algorithms differ, and which need more seeds (AdaStop).

    Example: offrl adastop scores.csv --dataset hopper --size 5 --interims 4
    """
    from offrl.reporting.words import TERMINAL, Words
    from offrl.results.collect import collect
    from offrl.statistics.adastop import decide
    from offrl.statistics.remarks import way_notes
    from offrl.statistics.resampling import Resampling

    scores = collect(
        source,
        scale=scale,
        algorithms=[*algorithm, *([baseline] if baseline else [])] if algorithm else None,
        datasets=None if dataset is None else [dataset],
        reading=reading,
    )
    algorithm = [name for given in algorithm or () for name in scores.names_by_setting(given)]
    scores = scores.by_setting().final()
    if len(scores.datasets) > 1:
        raise InputError(
            "AdaStop looks at one data set; choose with --dataset: " + ", ".join(scores.datasets)
        )
    (dataset,) = scores.datasets
    decisions = decide(
        scores,
        dataset,
        size=size,
        interims=interims,
        alpha=alpha,
        baseline=baseline,
        algorithms=algorithm or None,
        resampling=Resampling(reps, seed),
    )
    words = Words(TERMINAL, scale)
    show_rows(
        decisions.to_dict("records"),
        {
            "X": "x",
            "Y": "y",
            "X is": "decision",
            "interim": "interim",
            "runs": "n_x",
            "difference of means": lambda row: words.score(row["statistic"]),
            "boundary": lambda row: words.score(row["boundary"]),
        },
        as_json,
        title=f"AdaStop on {dataset}: {size} runs an interim, at most {interims} interims",
    )
    if not algorithm:
        for note in way_notes(scores, [*decisions["x"], *decisions["y"]]):
            print_message(f"note: {note}")
    undecided = decisions[decisions["decision"] == "undecided"]
    if len(undecided) and not as_json:
        names = sorted({*undecided["x"], *undecided["y"]})
        print_line(f"Make {size} more runs of each of: {', '.join(names)}")
    print_notes(scores)


def _check_suffix(path: Path | None, *suffixes: str) -> None:
    if path is not None and path.suffix not in suffixes:
        raise InputError(f"{path}: expected a name that ends in {' or '.join(suffixes)}")


def _write(frame: "pd.DataFrame", path: Path) -> None:
    from offrl.files import replacing
    from offrl.results.files import write_csv

    with replacing(path) as temporary:
        write_csv(frame, temporary)
