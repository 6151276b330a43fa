"""Commands that read scores."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from offrl.cli.console import (
    AsJson,
    Engine,
    Reps,
    Scale,
    Seed,
    Tables,
    app,
    bar,
    err,
    new_table,
    out,
    print_json,
    print_notes,
)
from offrl.errors import InputError

if TYPE_CHECKING:
    pass


@app.command()
def scores(
    runs: Annotated[Path, typer.Argument(help="The folder of runs.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .csv or .parquet file to write.")
    ],
) -> None:
    """Write the tidy table of all evaluations of all runs.

    Example: offrl scores runs -o scores.csv
    """
    from offrl.results.collect import read_runs
    from offrl.results.files import write_scores

    table = read_runs(runs)
    write_scores(table, output)
    print(f"{len(table.frame):,} rows in {output}")  # noqa: T201
    print_notes(table)


@app.command()
def report(
    source: Tables,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the report.")],
    reps: Reps = None,
    seed: Seed = 0,
    scale: Scale = 100,
    studentized: Annotated[
        bool, typer.Option("--studentized", help="Show studentized intervals too.")
    ] = False,
    engine: Engine = "offrl",
) -> None:
    """Write a report page with IQM, confidence intervals, comparisons and figures.

    Example: offrl report runs -o report
    """
    from offrl.reporting.report import report as make_report
    from offrl.statistics.resampling import Resampling

    words = ["offrl", "report", *map(str, source), "-o", str(output)]
    words += ["--reps", str(reps)] * (reps is not None) + ["--seed", str(seed)] * (seed != 0)
    words += ["--scale", f"{scale:g}"] * (scale != 100) + ["--studentized"] * studentized
    words += ["--engine", engine] * (engine != "offrl")
    with bar("report") as progress:
        path = make_report(
            source,
            output,
            resampling=Resampling(reps, seed, engine=engine),
            scale=scale,
            studentized=studentized,
            command=shlex.join(words),
            progress=progress,
        )
    print(path)  # noqa: T201


@app.command()
def compare(
    source: Tables,
    baseline: Annotated[
        str | None, typer.Option(help="Compare every algorithm with this one alone.")
    ] = None,
    algorithm: Annotated[
        list[str] | None, typer.Option(help="Compare these alone; may be repeated.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="The largest difference of IQMs that counts as none, in points."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Error rate of the tests over all pairs.")] = 0.05,
    reps: Reps = None,
    permutations: Annotated[int, typer.Option(min=100, help="Of the permutation test.")] = 10_000,
    seed: Seed = 0,
    scale: Scale = 100,
    engine: Engine = "offrl",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv file to write the pairs to.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare algorithms two at a time: P(X > Y), difference of IQMs, permutation test, verdict.

    Example: offrl compare runs --baseline bc --margin 3
    """
    from offrl.files import replacing
    from offrl.reporting.words import verdict
    from offrl.results.collect import collect
    from offrl.statistics.comparison import compare as make_comparison
    from offrl.statistics.resampling import Resampling

    if output is not None and output.suffix != ".csv":
        raise InputError(f"{output}: expected a name that ends in .csv")
    scores = collect(source, scale=scale).final()
    with bar("compare") as progress:
        found = make_comparison(
            scores,
            baseline=baseline,
            algorithms=algorithm or None,
            margin=margin,
            alpha=alpha,
            permutations=permutations,
            resampling=Resampling(reps, seed, engine=engine),
            progress=progress,
        )
    if output is not None:
        with replacing(output) as temporary:
            found.pairs.to_csv(temporary, index=False)
    pairs = found.pairs.astype(object).to_dict("records")  # a missing number of seeds is None
    if as_json:
        print_json(
            {
                "pairs": pairs,
                "tasks": found.tasks.to_dict("records"),
                "notes": [*scores.notes, *found.notes],
            }
        )
        return
    digits = 1 if scale == 100 else 3
    columns = ("X", "Y", "P(X > Y)", "IQM, X - Y", "p", "p, Holm", "verdict on X")
    count = f"{len(found.pairs)} pair{'s' if len(found.pairs) > 1 else ''}"
    sets = len(scores.datasets)
    title = f"{count} on {sets} data set{'s' if sets > 1 else ''}, 95 % intervals"
    shown = new_table(title, *columns)
    for column in shown.columns[2:4]:
        column.no_wrap = True
    for row in pairs:
        ends = row["probability_low"], row["probability_high"]
        low, high = row["difference_low"], row["difference_high"]
        shown.add_row(
            escape(row["x"]),
            escape(row["y"]),
            f"{row['probability']:.2f}\n[{ends[0]:.2f}, {ends[1]:.2f}]",
            f"{row['difference']:+.{digits}f}\n[{low:.{digits}f}, {high:.{digits}f}]",
            f"{max(row['p_permutation'], row['p_t']):.4f}",
            f"{row['p_holm']:.4f}",
            verdict(row, margin),
        )
    out.print(shown)
    print_notes(scores)
    for note in found.notes:
        err.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def budget(
    source: Tables,
    budgets: Annotated[
        list[int] | None, typer.Option("--budget", help="Settings tried online; may be repeated.")
    ] = None,
    reps: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = 10_000,
    seed: Seed = 0,
    scale: Scale = 100,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv file to write.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="A .png, .svg or .pdf file to draw the curves in.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Expected online performance under a tuning budget, from scores with a column `setting`.

    Example: offrl budget grid.csv --budget 1 --budget 5 --figure budget.png
    """
    from offrl.files import replacing
    from offrl.results.collect import collect
    from offrl.statistics.resampling import Resampling
    from offrl.statistics.tuning_budget import online_performance

    for path, kinds in ((output, (".csv",)), (figure, (".png", ".svg", ".pdf"))):
        if path is not None and path.suffix not in kinds:
            raise InputError(f"{path}: expected a name that ends in {' or '.join(kinds)}")
    scores = collect(source, scale=scale)
    found = online_performance(scores, budgets or None, resampling=Resampling(reps, seed))
    if output is not None:
        with replacing(output) as temporary:
            found.to_csv(temporary, index=False)
    if figure is not None:
        from offrl import plots

        with plots.style(), replacing(figure) as temporary:
            drawn = plots.online_plot(found, scale=scale).get_figure(root=True)
            assert drawn is not None
            drawn.savefig(temporary, format=figure.suffix[1:], dpi=200)
    if as_json:
        print_json(found.to_dict("records"))
        return
    digits = 1 if scale == 100 else 3
    shown = new_table(
        "Expected score of the best of so many settings, tried online; 95 % intervals over seeds",
        *("algorithm", "settings", "tried", "expected score", "interval"),
    )
    for row in found.to_dict("records"):
        shown.add_row(
            escape(row["algorithm"]),
            str(row["n_settings"]),
            str(row["budget"]),
            f"{row['value']:.{digits}f}",
            f"[{row['ci_low']:.{digits}f}, {row['ci_high']:.{digits}f}]",
        )
    out.print(shown)
    print_notes(scores.final())


@app.command(
    hidden=True,
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)
def online() -> None:
    """The former name of `offrl budget`."""
    raise InputError("offrl online is now offrl budget")


@app.command()
def adastop(
    source: Tables,
    size: Annotated[int, typer.Option(help="Runs of each algorithm per interim.")],
    interims: Annotated[int, typer.Option(help="The greatest number of interims.")],
    dataset: Annotated[
        str | None, typer.Option(help="Which data set, where there are several.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Compare every algorithm with this one alone.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Bound of the family-wise error.")] = 0.05,
    reps: Annotated[int, typer.Option(min=100, help="Deals drawn per interim.")] = 10_000,
    seed: Seed = 0,
    scale: Scale = 100,
    as_json: AsJson = False,
) -> None:
    """Decide in stages which algorithms differ on a data set, and which need more seeds (AdaStop).

    Example: offrl adastop scores.csv --dataset hopper --size 5 --interims 4
    """
    from offrl.results.collect import collect
    from offrl.statistics.adastop import decide
    from offrl.statistics.resampling import Resampling

    scores = collect(source, scale=scale).final()
    if dataset is None:
        if len(scores.datasets) > 1:
            raise InputError(
                "AdaStop looks at one data set; choose with --dataset: "
                + ", ".join(scores.datasets)
            )
        (dataset,) = scores.datasets
    found = decide(
        scores,
        dataset,
        size=size,
        interims=interims,
        alpha=alpha,
        baseline=baseline,
        resampling=Resampling(reps, seed),
    )
    rows = found.to_dict("records")
    if as_json:
        print_json(rows)
        return
    shown = new_table(
        f"AdaStop on {escape(dataset)}: {size} runs an interim, at most {interims} interims",
        *("X", "Y", "X is", "interim", "runs", "difference of means", "boundary"),
    )
    digits = 1 if scale == 100 else 3
    for row in rows:
        numbers = (f"{row[name]:.{digits}f}" for name in ("statistic", "boundary"))
        shown.add_row(
            escape(row["x"]),
            escape(row["y"]),
            row["decision"],
            str(row["interim"]),
            str(row["n_x"]),
            *numbers,
        )
    out.print(shown)
    open_pairs = found[found["decision"] == "undecided"]
    if len(open_pairs):
        names = sorted({*open_pairs["x"], *open_pairs["y"]})
        out.print(f"Make {size} more runs of each of: {', '.join(names)}", markup=False)
    print_notes(scores)


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="A published table: neorl2, corl, ...")],
    source: Tables,
    margin: Annotated[
        float, typer.Option(help="The largest difference of means that counts as none, in points.")
    ],
    as_json: AsJson = False,
) -> None:
    """Set scores beside a published table: reproduced, differs or underpowered, cell by cell.

    Example: offrl reproduce neorl2 runs --margin 3
    """
    from offrl.results.collect import collect
    from offrl.statistics.published import compare

    scores = collect(source, complete=False)
    rows = compare(scores, table, margin).to_dict("records")
    if as_json:
        print_json(rows)
        return
    columns = ("algorithm", "data set", "ours (n)", "published (n)", "difference", "verdict")
    shown = new_table(f"{table}, margin {margin:g}; differences with 95 % intervals", *columns)
    for row in rows:
        verdict = row["verdict"]
        if verdict == "unfinished":
            verdict += f": {row['step']:,} of {row['published_step']:,} steps"
        interval = "" if math.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
        shown.add_row(
            escape(row["algorithm"]),
            escape(row["dataset"]),
            _spread(row["mean"], row["sd"], row["n"]),
            _spread(row["published"], row["published_sd"], row["published_n"]),
            f"{row['difference']:+.2f}{interval}",
            verdict,
        )
    out.print(shown)
    print_notes(scores.final())


def _spread(mean: float, sd: float, n: float) -> str:
    spread = "" if math.isnan(sd) else f" ± {sd:.2f}"
    return f"{mean:.2f}{spread}" + ("" if math.isnan(n) else f" ({n:.0f})")
