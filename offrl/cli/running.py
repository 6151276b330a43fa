"""`offrl run` and `offrl train`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from offrl.cli.console import Output, Workers, app, err
from offrl.errors import InputError

if TYPE_CHECKING:
    from offrl.running.events import Event


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
