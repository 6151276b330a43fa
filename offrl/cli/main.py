"""The command line. It sits on top of everything; nothing imports it."""

import contextlib
import dataclasses
import errno
import json
import logging
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from offrl.errors import InputError, unknown

if TYPE_CHECKING:
    from offrl.results.table import ScoreTable
    from offrl.running.protocol import Protocol
    from offrl.running.runner import Event

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
app.add_typer(data_app, name="data")

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


ADVICE = {  # what to do about errors of the file system
    errno.EACCES: "give a place that you may read and write",
    errno.EPERM: "give a place that you may read and write",
    errno.EROFS: "give a place that you may read and write",
    errno.ENOSPC: "free some space and give the same command again",
    errno.EEXIST: "a file stands where a folder is needed, so give another place",
    errno.ENOTDIR: "a file stands where a folder is needed, so give another place",
    errno.EISDIR: "a folder stands where a file is needed, so give another name",
}


class _Log(logging.Handler):
    """Prints what the library logs, a line each, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command line. Bad input ends in one line on stderr and exit code 2."""
    logger = logging.getLogger("offrl")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Log) for handler in logger.handlers):
        logger.addHandler(_Log())
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except InputError as error:
        message = str(error)
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            raise SystemExit(1) from None
        message = f"{error.filename or 'file system'}: {error.strerror or error}"
        if error.errno in ADVICE:
            message += f"; {ADVICE[error.errno]}"
    else:
        return
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


def _print_json(value: Any) -> None:
    print(json.dumps(_finite(value), indent=2, default=str, allow_nan=False))  # noqa: T201


def _finite(value: Any) -> Any:
    """The same with null for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(title: str | None, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=i == 0)
    return table


def _algorithm(name: str) -> dict[str, Any]:
    from offrl.learning.learner import find_algorithm

    found = find_algorithm(name)
    summary = (sys.modules[found.__module__].__doc__ or found.__doc__ or name).strip()
    return {
        "id": name,
        "title": summary.split("\n")[0].rstrip("."),
        "family": found.family,
        "paper": found.paper,
        "agreement": found.agreement,
    }


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="datasets, algorithms or protocols.")],
    as_json: AsJson = False,
) -> None:
    """List data sets, algorithms or protocols.

    Example: offrl list algorithms
    """
    from offrl import registry
    from offrl.data.card import shipped_cards
    from offrl.running.protocol import find_protocol, shipped_protocols

    rows: list[dict[str, Any]] = []
    columns = {"id": "id", "version": "v", "title": "title"}  # of the table, where JSON has all
    if what == "datasets":
        rows = [
            {
                "id": card.id,
                "version": card.version,
                "title": card.title,
                "scored": card.environment is not None and card.reference is not None,
            }
            for card in shipped_cards().values()
        ]
        columns["scored"] = "scored"
    elif what == "algorithms":
        rows = [_algorithm(name) for name in sorted(registry.modules("algorithms"))]
        columns = {name: name for name in ("id", "title", "paper", "agreement")}
    elif what == "protocols":
        for name in sorted(shipped_protocols()):
            protocol = find_protocol(name)
            rows.append(
                {
                    "id": name,
                    "version": protocol.version,
                    "title": protocol.title,
                    "datasets": protocol.datasets,
                    "algorithms": list(protocol.algorithms),
                    "seeds": len(protocol.seeds),
                    "steps": protocol.steps,
                }
            )
        columns |= {"datasets": "sets", "algorithms": "algorithms", "seeds": "seeds"}
    else:
        raise unknown("kind", what, ["datasets", "algorithms", "protocols"])
    if as_json:
        _print_json(rows)
        return
    table = _table(None, *columns.values())
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    out.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return str(len(value))
    return "not measured" if value is None else str(value)  # None: an algorithm's agreement


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="An id, or the path of a .toml or .py file.")],
    as_json: AsJson = False,
) -> None:
    """Show a data set's card, an algorithm's defaults or a protocol's settings.

    Example: offrl show neorl2-dmsd
    """
    from offrl import registry
    from offrl.data.card import read_card, shipped_cards
    from offrl.running.protocol import configure, find_protocol, shipped_protocols
    from offrl.toml import read_toml

    shown: dict[str, Any] = {}
    cards, algorithms = shipped_cards(), registry.modules("algorithms")
    protocols = shipped_protocols()
    if name in protocols:
        shown["protocol"] = find_protocol(name)
    if name in cards:
        shown["dataset"] = cards[name].model_dump()
    if name in algorithms or name.endswith(".py"):
        from offrl.learning.learner import find_algorithm

        found = find_algorithm(name)
        defaults = dataclasses.asdict(configure(name, {}, name))
        about = {**_algorithm(name), "config": defaults}
        about["documentation"] = (sys.modules[found.__module__].__doc__ or "").strip()
        shown["algorithm"] = about
    if name.endswith(".toml") and "algorithms" in read_toml(Path(name)):
        shown["protocol"] = find_protocol(name)
    elif name.endswith(".toml"):
        shown["dataset"] = read_card(Path(name)).model_dump()
    if not shown:
        raise unknown("name", name, {*cards, *algorithms, *protocols})
    if as_json:
        if "protocol" in shown:
            shown["protocol"] = shown["protocol"].model_dump()
        _print_json(shown)
        return
    if "protocol" in shown:
        _show_protocol(shown.pop("protocol"))
    for kind, values in shown.items():
        documentation = values.pop("documentation", "")
        if kind == "algorithm":
            values["agreement"] = _cell(values["agreement"])
        table = _table(f"{kind} {name}", "key", "value")
        for key, value in _flat(values):
            table.add_row(key, value)
        out.print(table)
        if documentation:  # as it is written: it holds equations and lists
            out.print(documentation, markup=False, highlight=False, soft_wrap=True)


def _show_protocol(protocol: "Protocol") -> None:
    """Prints what a paper's appendix does: what all data sets share, and what they do not."""
    from offrl.data.card import shipped_cards
    from offrl.running.protocol import expand, patterns

    jobs = expand(protocol)
    cards = shipped_cards()
    unscored = [n for n in protocol.datasets if n in cards and cards[n].environment is None]
    head = {
        "title": protocol.title,
        "version": str(protocol.version),
        "source": protocol.source,
        "notes": protocol.notes.strip(),
        "data sets": ", ".join(protocol.datasets),
        "without a simulator": ", ".join(patterns(unscored, protocol.datasets)),
        "seeds": ", ".join(map(str, protocol.seeds)),
        "evaluation seed": str(protocol.evaluation.seed),
        "runs": f"{len(jobs):,}",
    }
    table = _table(f"protocol {protocol.id}", "key", "value")
    for key, text in head.items():
        if text:
            table.add_row(key, Text(text))
    out.print(table)

    for label, entry in protocol.algorithms.items():
        settings: dict[str, dict[str, str]] = {}
        for job in jobs:
            if (job.label, job.seed) == (label, protocol.seeds[0]):
                budget = {name: job.evaluation[name] for name in ("every", "episodes")}
                values = {"steps": job.steps, **budget, **job.config}
                settings[job.dataset] = {k: _setting_text(value) for k, value in values.items()}
        of = "" if entry.algorithm is None else f" ({Path(entry.algorithm).name})"
        whole = 1 < len(settings) == len(protocol.datasets)
        on = "all data sets" if whole else ", ".join(patterns(list(settings), protocol.datasets))
        out.print(Text.assemble((label, "bold"), f"{of} on {on}"))
        _show_settings(settings)


def _show_settings(settings: dict[str, dict[str, str]]) -> None:
    """Prints what all data sets share, then a row for each distinct setting.

    Where the terminal is too narrow for a column per key that varies, a row says what differs from
    the values that half of the data sets have.
    """
    from offrl.running.protocol import patterns

    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, values in settings.items():
        groups.setdefault(tuple(values.items()), []).append(name)
    shared, usual, varying = [], [], []
    for key in next(iter(settings.values())):
        found = Counter(values[key] for values in settings.values())
        value, count = found.most_common(1)[0]
        if count == len(settings):
            shared.append((key, value))
            continue
        varying.append(key)
        if 2 * count >= len(settings):
            usual.append((key, value))
    out.print(Padding(Text(_pairs(shared)), (0, 0, 0, 2)))
    if not varying:
        out.print()
        return
    wide, narrow = _table(None, "data sets", *varying), _table(None, "data sets", "setting")
    wide.columns[0].min_width = 24
    for column in wide.columns[1:]:
        column.no_wrap = True
    for setting, group in groups.items():
        names = ", ".join(patterns(group, list(settings)))
        wide.add_row(names, *(Text(dict(setting)[key]) for key in varying))
        others = [pair for pair in setting if pair not in shared + usual]
        narrow.add_row(names, Text(_pairs(others) or "as above"))
    if out.measure(wide, options=out.options.update(max_width=1000)).minimum <= out.width:
        out.print(wide)
        return
    if usual:
        out.print(Padding(Text(f"and, unless said below, {_pairs(usual)}"), (0, 0, 0, 2)))
    out.print(narrow)


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)


def _toml(value: Any) -> str:
    """A value as `--set` and a protocol take it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _setting_text(value: Any) -> str:
    """A value as TOML has it, but for the commas of large whole numbers."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_setting_text, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, item in enumerate(value):
                yield from _flat(item, f"{prefix}{key}[{i}].")
        elif value not in (None, [], {}, ""):
            yield f"{prefix}{key}", value.strip() if isinstance(value, str) else _toml(value)
        elif value is None and prefix == "config.":
            yield f"{prefix}{key}", "none"


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with time to go, as the callback that library functions take."""
    columns = (TextColumn("{task.description}"), BarColumn(), "{task.percentage:3.0f}%")
    with Progress(
        *columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal
    ) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@data_app.command("fetch")
def data_fetch(
    name: DataId,
    directory: Annotated[
        Path | None,
        typer.Option("--from", help="Take the files from this folder instead of the network."),
    ] = None,
) -> None:
    """Bring a data set's files here, checksum verified.

    Example: offrl data fetch neorl2-dmsd --from ~/Downloads
    """
    from offrl.data.dataset import resolve
    from offrl.data.fetch import fetch

    with _bar(name) as progress:
        paths = fetch(resolve(name), directory, progress)
    for path in paths:
        print(path)  # noqa: T201


@data_app.command("make")
def data_make(
    name: DataId,
    again: Annotated[bool, typer.Option(help="Make it anew if it is there.")] = False,
) -> None:
    """Make a data set that needs no download.

    Example: offrl data make pointmaze-quickstart
    """
    from offrl.data.dataset import resolve
    from offrl.data.fetch import make

    with _bar(name) as progress:
        path = make(resolve(name), progress, again)
    print(path)  # noqa: T201


@data_app.command("check")
def data_check(name: DataId, as_json: AsJson = False) -> None:
    """Read every byte again: checksums, counts and the mean return against the card.

    Example: offrl data check neorl2-dmsd
    """
    from offrl.data.dataset import check

    found = check(name)
    if as_json:
        _print_json(dataclasses.asdict(found))
        return
    for split, totals in found.totals.items():
        out.print(
            f"{found.id} v{found.version} {split}: {totals.transitions:,} transitions, "
            f"{totals.episodes:,} episodes, mean return {totals.mean_return:.6g}",
            soft_wrap=True,
        )
    out.print(f"compared with: {', '.join(found.compared)}", soft_wrap=True)
    for note in found.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)


@data_app.command("stats")
def data_stats(name: DataId, as_json: AsJson = False) -> None:
    """Describe a data set: counts, lengths, returns and actions.

    Example: offrl data stats pointmaze-quickstart
    """
    from offrl.data.dataset import QUANTILES, load_dataset, stats

    with _bar(name) as progress:
        found = stats(load_dataset(name, progress=progress))
    if as_json:
        described = dataclasses.asdict(found)
        if found.episodes == 1:
            described["return_std"] = None  # JSON has no NaN
        _print_json(described)
        return
    table = _table(f"{found.id} v{found.version}", "what", "value")
    for key, value in dataclasses.asdict(found).items():
        if key == "return_quantiles":
            shares = zip(QUANTILES, value, strict=True)
            text = ", ".join(f"{q:.0%}: {v:.5g}" for q, v in shares)
        elif key == "actions_outside":
            text = f"{value:.2%} of entries lie outside [-1, 1]" if value else "none"
        elif isinstance(value, float):
            text = f"{value:.6g}"
        elif isinstance(value, int):
            text = f"{value:,}"
        else:
            text = "\n".join(value) if isinstance(value, list) else str(value)
        if text and key not in ("id", "version"):
            table.add_row(key.replace("_", " "), text)
    out.print(table)


class _Display:
    """Shows runs as they go: bars with time to go on a terminal, a line per end elsewhere."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self.preparing = self.bars.add_task("data", total=None, visible=False)
        self.whole = self.bars.add_task("all runs", visible=False)
        self.tasks: dict[str, TaskID] = {}
        self.steps: dict[str, tuple[int, int]] = {}  # of each run: done and in all

    def data(self, done: int, total: int) -> None:
        """Shows bytes or episodes of data being brought here."""
        visible = done < total
        self.bars.update(self.preparing, completed=done, total=total, visible=visible)

    def __call__(self, event: "Event") -> None:
        name = f"{event.job.dataset} {event.job.label} seed {event.job.seed}"
        self.steps[name] = (event.step, event.job.steps)
        done, total = (sum(counts) for counts in zip(*self.steps.values(), strict=True))
        self.bars.update(self.whole, completed=done, total=total, visible=True)
        if event.status == "waiting":
            return
        score = "" if event.score is None else f" [bold]{event.score:.1f}[/]"
        if event.status == "running":
            if name not in self.tasks:
                self.tasks[name] = self.bars.add_task(name, total=event.job.steps)
            self.bars.update(self.tasks[name], completed=event.step, description=f"{name}{score}")
            return
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))
        cause = f": {event.cause}" if event.cause else ""
        self.bars.console.print(
            f"{event.status} {name} at step {event.step:,}"
            f"{'' if event.score is None else f', score {event.score:.2f}'}{cause}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _watch(output: Path, start: Callable[["_Display"], list["Event"]]) -> None:
    """Shows the runs that `start` begins; exits with 1 for a failed run and 130 for Ctrl-C."""
    display = _Display()
    try:
        with display.bars:
            events = start(display)
    except KeyboardInterrupt:
        err.print("Interrupted; every run is saved, and the same command carries on.")
        raise typer.Exit(130) from None
    failed = [event for event in events if event.status != "done"]
    print(f"{len(events) - len(failed)} of {len(events)} runs are done in {output}")  # noqa: T201
    if failed:
        err.print("The same command tries the others again from where they stopped.")
        raise typer.Exit(1)


@app.command()
def run(
    protocol: Annotated[str, typer.Argument(help="A protocol's id, or the path of a .toml file.")],
    output: Output,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(help="Only this: a name, or the path of a .py file of yours. Repeatable."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Only this of its data sets: an id, or a pattern. Repeatable."),
    ] = None,
    workers: Workers = None,
) -> None:
    """Run a protocol; interrupted anywhere, the same command carries on.

    Example: offrl run quickstart -o runs --algorithm ./my_algo.py
    """
    from offrl.running import runner

    _watch(
        output,
        lambda display: runner.run(
            protocol,
            output,
            algorithms=algorithm or (),
            datasets=dataset or (),
            workers=workers,
            on_event=display,
            progress=display.data,
        ),
    )


@app.command()
def train(
    algorithm: Annotated[str, typer.Argument(help="A name, or the path of a .py file of yours.")],
    dataset: Annotated[str, typer.Argument(help="An id, or the path of a card (.toml).")],
    output: Output = Path("runs"),
    steps: Annotated[int, typer.Option(help="Gradient steps.")] = 100_000,
    seed: Annotated[list[int] | None, typer.Option(help="One run each. Repeatable.")] = None,
    every: Annotated[int, typer.Option(help="Gradient steps between evaluations.")] = 10_000,
    episodes: Annotated[int, typer.Option(help="Episodes per evaluation.")] = 10,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A config value; `offrl show` names them. Repeatable.",
        ),
    ] = None,
    workers: Workers = None,
) -> None:
    """Train one algorithm on one data set.

    Example: offrl train iql pointmaze-quickstart --steps 5000 --set beta=10
    """
    from offrl.running import runner

    _watch(
        output,
        lambda display: runner.train(
            algorithm,
            dataset,
            output,
            config=dict(_setting(item) for item in setting or ()),
            steps=steps,
            seeds=seed or [0],
            evaluate_every=every,
            episodes=episodes,
            workers=workers,
            on_event=display,
            progress=display.data,
        ),
    )


def _setting(item: str) -> tuple[str, Any]:
    import tomllib

    key, equals, text = item.partition("=")
    if not equals or not key:
        raise InputError(f"--set {item}: expected KEY=VALUE, for example --set beta=10")
    try:
        return key, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key, text  # a bare word is a string


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
    from offrl.results.store import read_runs
    from offrl.results.table import write_scores

    table = read_runs(runs)
    write_scores(table, output)
    print(f"{len(table.frame):,} rows in {output}")  # noqa: T201
    _print_notes(table)


def _print_notes(table: "ScoreTable") -> None:
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

    words = ["offrl", "report", *map(str, source), "-o", str(output)]
    words += ["--reps", str(reps)] * (reps is not None) + ["--seed", str(seed)] * (seed != 0)
    words += ["--scale", f"{scale:g}"] * (scale != 100) + ["--studentized"] * studentized
    words += ["--engine", engine] * (engine != "offrl")
    with _bar("report") as progress:
        path = make_report(
            source,
            output,
            reps=reps,
            seed=seed,
            scale=scale,
            studentized=studentized,
            engine=engine,
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
    from offrl.results.table import collect
    from offrl.statistics.comparison import compare as make_comparison
    from offrl.statistics.comparison import words

    if output is not None and output.suffix != ".csv":
        raise InputError(f"{output}: expected a name that ends in .csv")
    scores = collect(source, scale=scale).final()
    with _bar("compare") as progress:
        found = make_comparison(
            scores,
            baseline=baseline,
            algorithms=algorithm or None,
            margin=margin,
            alpha=alpha,
            reps=reps,
            permutations=permutations,
            seed=seed,
            engine=engine,
            progress=progress,
        )
    if output is not None:
        with replacing(output) as temporary:
            found.pairs.to_csv(temporary, index=False)
    pairs = found.pairs.astype(object).to_dict("records")  # a missing number of seeds is None
    if as_json:
        _print_json(
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
    shown = _table(title, *columns)
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
            words(row, margin),
        )
    out.print(shown)
    _print_notes(scores)
    for note in found.notes:
        err.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def online(
    source: Tables,
    budget: Annotated[
        list[int] | None, typer.Option(help="Settings tried online; may be repeated.")
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

    Example: offrl online grid.csv --budget 1 --budget 5 --figure online.png
    """
    from offrl.files import replacing
    from offrl.results.table import collect
    from offrl.statistics.tuning_budget import online_performance

    for path, kinds in ((output, (".csv",)), (figure, (".png", ".svg", ".pdf"))):
        if path is not None and path.suffix not in kinds:
            raise InputError(f"{path}: expected a name that ends in {' or '.join(kinds)}")
    scores = collect(source, scale=scale)
    found = online_performance(scores, budget or None, reps=reps, seed=seed)
    if output is not None:
        with replacing(output) as temporary:
            found.to_csv(temporary, index=False)
    if figure is not None:
        from offrl.plots import layout as plots

        with plots.style(), replacing(figure) as temporary:
            drawn = plots.online_plot(found, scale=scale).get_figure(root=True)
            assert drawn is not None
            drawn.savefig(temporary, format=figure.suffix[1:], dpi=200)
    if as_json:
        _print_json(found.to_dict("records"))
        return
    digits = 1 if scale == 100 else 3
    shown = _table(
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
    _print_notes(scores.final())


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
    from offrl.results.table import collect
    from offrl.statistics.adastop import decide

    scores = collect(source, scale=scale).final()
    if dataset is None:
        if len(scores.datasets) > 1:
            raise InputError(
                "AdaStop looks at one data set; choose with --dataset: "
                + ", ".join(scores.datasets)
            )
        (dataset,) = scores.datasets
    plan = {"size": size, "interims": interims, "reps": reps, "seed": seed}
    found = decide(scores, dataset, alpha=alpha, baseline=baseline, **plan)
    rows = found.to_dict("records")
    if as_json:
        _print_json(rows)
        return
    shown = _table(
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
    _print_notes(scores)


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
    from offrl.results.table import collect
    from offrl.statistics.published import compare

    scores = collect(source, complete=False)
    rows = compare(scores, table, margin).to_dict("records")
    if as_json:
        _print_json(rows)
        return
    columns = ("algorithm", "data set", "ours (n)", "published (n)", "difference", "verdict")
    shown = _table(f"{table}, margin {margin:g}; differences with 95 % intervals", *columns)
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
    _print_notes(scores.final())


def _spread(mean: float, sd: float, n: float) -> str:
    spread = "" if math.isnan(sd) else f" ± {sd:.2f}"
    return f"{mean:.2f}{spread}" + ("" if math.isnan(n) else f" ({n:.0f})")


if __name__ == "__main__":
    main()
