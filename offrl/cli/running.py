"""`offrl run` and `offrl train`."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

from offrl.cli.console import (
    Device,
    Output,
    Replicas,
    Trusted,
    Workers,
    err,
    names_of,
    print_line,
    print_message,
)
from offrl.cli.options import (
    AllowedVersions,
    ChunkHours,
    Episodes,
    Every,
    LauncherName,
    Parallelism,
    Partition,
    Seeds,
    Settings,
    SlurmOptions,
    Steps,
    config_values,
    grid_values,
    replica_count,
    seed_numbers,
    slurm_options,
)

if TYPE_CHECKING:
    from offrl.reporting.words import Words
    from offrl.running.events import Event

LogTo = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Show curves while runs train: tensorboard or wandb (offline)."
    ),
]


def run(
    protocol: Annotated[
        str,
        typer.Argument(
            metavar="PROTOCOL",
            help="A protocol's id, or the path of a .toml file.",
            autocompletion=names_of("protocols"),
        ),
    ],
    output: Output,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this: a name, or the path of a .py file of yours. Repeatable.",
            autocompletion=names_of("algorithms"),
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Only this of its data sets: an id, or a pattern. Repeatable.",
            autocompletion=names_of("datasets"),
        ),
    ] = None,
    steps: Steps = None,
    seed: Seeds = None,
    every: Every = None,
    episodes: Episodes = None,
    settings: Settings = None,
    workers: Workers = None,
    replicas: Replicas = "auto",
    device: Device = "auto",
    launcher: LauncherName = "local",
    partition: Partition = None,
    chunk_hours: ChunkHours = 1.0,
    array_parallelism: Parallelism = 256,
    slurm: SlurmOptions = None,
    allow_versions: AllowedVersions = None,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Run those alone that failed before.")
    ] = False,
    log_to: LogTo = None,
    trust: Trusted = None,
) -> None:
    """Run a protocol; interrupted anywhere, the same command carries on.

    With --steps, --seed, --every, --episodes or --set it is another protocol, such as
    quickstart+steps=1000, whose scores are never pooled with the published one's.

    Example: offrl run quickstart -o runs --algorithm ./my_algo.py
    """
    from offrl.running import runner
    from offrl.running.launchers import Launcher

    with run_bars(output) as bars:
        events = runner.run(
            protocol,
            output,
            algorithms=algorithm or (),
            datasets=dataset or (),
            steps=steps,
            seeds=seed_numbers(seed) if seed else None,
            evaluate_every=every,
            episodes=episodes,
            config=config_values(settings or ()),
            workers=workers,
            replicas=replica_count(replicas),
            device=device,
            launcher=Launcher(
                launcher,
                allow_versions=tuple(allow_versions or ()),
                chunk_hours=chunk_hours,
                partition=partition,
                array_parallelism=array_parallelism,
                slurm=slurm_options(slurm or ()),
            ),
            only_failed=only_failed,
            log_to=log_to,
            on_event=bars.show_event,
            progress=bars.show_data,
            trust=trust or (),
        )
    conclude(events, output)


def train(
    algorithm: Annotated[
        str,
        typer.Argument(
            metavar="ALGORITHM",
            help="A name, or the path of a .py file of yours.",
            autocompletion=names_of("algorithms"),
        ),
    ],
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="An id, or the path of a card (.toml).",
            autocompletion=names_of("datasets"),
        ),
    ],
    output: Output = Path("runs"),
    steps: Annotated[int, typer.Option(metavar="N", help="Gradient steps.")] = 100_000,
    seed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N",
            help="A run each: a number, several as 0,1,2, or all of 0..4. Repeatable.",
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(metavar="N", help="Gradient steps between evaluations.")
    ] = 10_000,
    episodes: Annotated[int, typer.Option(metavar="N", help="Episodes per evaluation.")] = 10,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A config value; `offrl show ALGORITHM` names them. Repeatable.",
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Config values to try, each with each seed. Repeatable: all combinations.",
        ),
    ] = None,
    workers: Workers = None,
    replicas: Replicas = "auto",
    device: Device = "auto",
    launcher: LauncherName = "local",
    partition: Partition = None,
    chunk_hours: ChunkHours = 1.0,
    array_parallelism: Parallelism = 256,
    slurm: SlurmOptions = None,
    allow_versions: AllowedVersions = None,
    log_to: LogTo = None,
    trust: Trusted = None,
) -> None:
    """Train one algorithm on one data set, with one setting or with a grid of them.

    Example: offrl train iql pointmaze-quickstart --steps 5000 --grid beta=1,3,10 --seed 0..4
    """
    from offrl.running import runner
    from offrl.running.launchers import Launcher

    with run_bars(output) as bars:
        events = runner.train(
            algorithm,
            dataset,
            output,
            config=config_values(settings or ()),
            grid=grid_values(grid or ()),
            steps=steps,
            seeds=seed_numbers(seed or ["0"]),
            evaluate_every=every,
            episodes=episodes,
            workers=workers,
            replicas=replica_count(replicas),
            device=device,
            launcher=Launcher(
                launcher,
                allow_versions=tuple(allow_versions or ()),
                chunk_hours=chunk_hours,
                partition=partition,
                array_parallelism=array_parallelism,
                slurm=slurm_options(slurm or ()),
            ),
            log_to=log_to,
            on_event=bars.show_event,
            progress=bars.show_data,
            trust=trust or (),
        )
    conclude(events, output)


class RunBars:
    """Shows runs as they go, with a line where a run ends.

    On a terminal bars with time to go, elsewhere a line on all runs now and then.
    """

    def __init__(self, root: Path) -> None:
        from offrl.running.tally import Tally

        self.tally = Tally(print_message, root)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self.data_bar = self.bars.add_task("data", total=None, visible=False)
        self.total_bar = self.bars.add_task("all runs", visible=False)
        self.run_bars: dict[tuple[str, ...], TaskID] = {}
        self.steps: dict[tuple[str, ...], int] = {}  # of each run, those that are made
        self.made = self.total = 0  # the sums of these, and of all

    @functools.cached_property
    def words(self) -> "Words":
        """Writes scores; a second of imports, which a finished grid does without."""
        from offrl.reporting.words import Words

        return Words()

    def show_data(self, done: int, total: int) -> None:
        """Shows bytes or episodes of data that are brought here."""
        visible = done < total
        self.bars.update(self.data_bar, completed=done, total=total, visible=visible)

    def show_event(self, event: "Event") -> None:
        """Shows how far a run is, or how it ended."""
        job = event.job
        name, run = job.title, job.place
        was_done = run not in self.steps and event.status == "done"  # when the command was given
        self.total += 0 if run in self.steps else job.steps
        self.made += event.step - self.steps.get(run, 0)
        self.steps[run] = event.step
        if was_done or not err.is_terminal:
            self.tally.add(event) if was_done else self.tally(event)
        else:
            self.tally.add(event)
            of_all = f"all runs: {self.tally.counts()}"
            self.bars.update(
                self.total_bar,
                completed=self.made,
                total=self.total,
                description=of_all,
                visible=True,
            )
        if was_done or event.status == "waiting":
            return
        if event.status == "running":
            if run not in self.run_bars:
                self.run_bars[run] = self.bars.add_task(name, total=job.steps)
            score = "" if event.score is None else f" {self.words.score(event.score)}"
            self.bars.update(self.run_bars[run], completed=event.step, description=f"{name}{score}")
            return
        if run in self.run_bars:
            self.bars.remove_task(self.run_bars.pop(run))
        score = "" if event.score is None else f", score {self.words.score(event.score)}"
        cause = f": {event.cause}" if event.cause else ""
        print_message(f"{event.status} {name} at step {event.step:,}{score}{cause}")


@contextlib.contextmanager
def run_bars(root: Path) -> Iterator[RunBars]:
    """Bars for the runs that are carried out inside, in a folder of runs."""
    bars = RunBars(root)
    with bars.bars:
        yield bars


def conclude(events: Sequence["Event"], output: Path) -> None:
    """Prints how many runs are done; exits with 1 where one is not."""
    if not events:
        print_line(f"no run in {output} has failed")
        return
    done = sum(event.status == "done" for event in events)
    print_line(f"{done} of {len(events)} runs are done in {output}")
    if done < len(events):
        print_message("The same command tries the others again from where they stopped.")
        raise typer.Exit(1)
