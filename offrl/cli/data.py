"""`offrl data`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offrl.cli.console import (
    AsJson,
    DataId,
    Trusted,
    print_json,
    print_line,
    progress_bar,
    show_rows,
)

if TYPE_CHECKING:
    from offrl.evaluation.checkup import Checkup
    from offrl.evaluation.replay import Errors

app = typer.Typer(
    no_args_is_help=True,
    help="Fetch, check, make and describe data sets.\n\nExample: offrl data stats neorl2-dmsd",
)


@app.command("fetch")
def fetch_data(
    name: DataId,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FOLDER", help="Take the files from here, not from the network."
        ),
    ] = None,
    trust: Trusted = None,
) -> None:
    """Bring a data set's files here, checksum verified.

    Example: offrl data fetch neorl2-dmsd --from ~/Downloads
    """
    from offrl.data.fetch import fetch
    from offrl.data.resolve import resolve

    with progress_bar(name) as progress:
        paths = fetch(resolve(name, trust=trust or ()), directory, progress)
    for path in paths:
        print_line(path)


@app.command("make")
def make_data(
    name: DataId,
    again: Annotated[bool, typer.Option("--again", help="Make it anew if it is there.")] = False,
    trust: Trusted = None,
) -> None:
    """Make a data set that needs no download, or one that transforms alter.

    Example: offrl data make pointmaze-quickstart
    """
    from offrl.data.altered import is_altered
    from offrl.data.dataset import load_dataset
    from offrl.data.fetch import make
    from offrl.data.resolve import resolve
    from offrl.running.attacks import attacked

    if is_altered(name):
        data = load_dataset(name, trust=trust or (), attack=attacked)
        for line in (*data.notes, data, data.folder):
            print_line(line)
        return
    with progress_bar(name) as progress:
        path = make(resolve(name, trust=trust or ()), progress, again)
    print_line(path)


@app.command("check")
def check_data(name: DataId, trust: Trusted = None, as_json: AsJson = False) -> None:
    """Read every byte again and look for faults; exit code 1 where there is one.

    Checksums, counts and the mean return are compared with the card; ends of episodes, actions and
    repetitions are looked at; up to 1,000 steps are made again in the simulator of the card, where
    it can be set to states that a file holds or to observations.

    Example: offrl data check neorl2-dmsd
    """
    from offrl.evaluation.checkup import checkup

    with progress_bar(name) as progress:
        found = checkup(name, trust=trust or (), progress=progress)
    read = found.read
    if as_json:
        print_json(
            {
                **dataclasses.asdict(read),
                "notes": [*read.notes, *found.notes],
                "replays": [dataclasses.asdict(replay) for replay in found.replays],
                "findings": [dataclasses.asdict(finding) for finding in found.findings],
            }
        )
    else:
        _show_checkup(found)
    if found.of_verdict("fault"):
        raise typer.Exit(1)


def _show_checkup(found: "Checkup") -> None:
    read = found.read
    for split, totals in read.totals.items():
        print_line(
            f"{read.id} v{read.version} {split}: {totals.transitions:,} transitions, "
            f"{totals.episodes:,} episodes, mean return {totals.mean_return:.6g}"
        )
    print_line(f"compared with: {', '.join(read.compared)}")
    if read.unknown:
        print_line(f"the card does not know: {', '.join(read.unknown)}")
    for replay in found.replays:
        print_line(
            f"{replay.steps:,} steps of {Path(replay.file).name} made again in "
            f"{replay.environment} ({replay.note}):"
        )
        rounding = replay.rounding or (None, None)
        for name, errors, rounded in (
            ("positions", replay.positions, rounding[0]),
            ("velocities", replay.velocities, rounding[1]),
            ("rewards", replay.rewards, None),
        ):
            expected = f" (by the file's rounding alone: {_errors(rounded)})" if rounded else ""
            if errors is not None:
                print_line(f"  {name} off by {_errors(errors)}{expected}")
    for finding in found.findings:
        split = "" if finding.split == "train" else f"{finding.split}: "
        print_line(f"{finding.verdict}: {split}{finding.subject}: {finding.text}")
    for note in (*read.notes, *found.notes):
        print_line(f"note: {note}")
    print_line(found.summary)


def _errors(errors: "Errors") -> str:
    return f"median {errors.median:.1g}, 99 % {errors.quantile_99:.1g}, most {errors.maximum:.1g}"


@app.command("stats")
def stats_data(name: DataId, trust: Trusted = None, as_json: AsJson = False) -> None:
    """Describe a data set: counts, lengths, returns and actions.

    Example: offrl data stats pointmaze-quickstart
    """
    from offrl.data.dataset import load_dataset
    from offrl.data.describe import stats
    from offrl.evaluation.environments import known_actions

    with progress_bar(name) as progress:
        data = load_dataset(name, progress=progress, trust=trust or ())
    known = known_actions(data.card.environment)
    if known is not None and len(known.low) != data.actions[0].size:
        known = None  # the card names another simulator: a run says so
    described = stats(data, known.bounds if known else 1.0)
    values = dataclasses.asdict(described)
    bound = described.action_bound
    limits = f"[-{bound:g}, {bound:g}]" if isinstance(bound, float) else "the simulator's bounds"
    limits += "" if known else " (the simulator's bound is not known here)"
    rows = [
        {"what": key.replace("_", " "), "value": text}
        for key, value in values.items()
        if key not in ("id", "version", "action_bound") and (text := _stat_text(key, value, limits))
    ]
    title = f"{described.id} v{described.version}"
    show_rows(rows, {"what": "what", "value": "value"}, as_json, title=title, whole=values)


def _stat_text(key: str, value: Any, limits: str) -> str:
    from offrl.data.describe import QUANTILES

    if value is None and key.startswith("action"):
        return ""  # of the other kind of actions
    if key == "action_shares":
        return ", ".join(f"{name}: {share:.2%}" for name, share in value.items())
    if key == "return_quantiles":
        return ", ".join(f"{q:.0%}: {v:.5g}" for q, v in zip(QUANTILES, value, strict=True))
    if key == "actions_outside":
        return f"{value:.2%} of entries lie outside {limits}" if value else f"none of {limits}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    return "\n".join(value) if isinstance(value, list) else str(value)


@app.command("import")
def import_data(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A .csv, .tsv or .parquet file.")],
    observation: Annotated[
        list[str],
        typer.Option(metavar="COLUMN", help="What was seen: a name or a pattern; repeat for more."),
    ],
    action: Annotated[list[str], typer.Option(metavar="COLUMN", help="What was done, likewise.")],
    reward: Annotated[str, typer.Option(metavar="COLUMN", help="What it brought.")],
    next_observation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="What was seen after it; by default in the episode's next row."
        ),
    ] = None,
    episode: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="A value that the rows of an episode share."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Numbers or dates by which its rows are sorted."),
    ] = None,
    terminal: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="1 where the process ended, else 0.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="1 where an episode was cut off, else 0.")
    ] = None,
    discrete: Annotated[
        bool,
        typer.Option(
            "--discrete",
            help="Actions are choices, texts or whole numbers; of several columns, combinations.",
        ),
    ] = False,
    impute: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="What a missing observation becomes: forward (the last one of its episode, else "
            "the mean), mean or zero. By default it is an error.",
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the episodes, held out at random.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="CARD", help="The card; by default TABLE's name with .toml."
        ),
    ] = None,
) -> None:
    """Make a card and a file of transitions of a table of your own: one row per step.

    Says which columns were taken, in which order, and what was changed; the card's notes keep it.

    Example: offrl data import log.csv --observation 'obs_*' --action dose --reward r
    --episode patient --time t --terminal died
    """
    from offrl.data.dataset import load_dataset
    from offrl.data.deposit import deposit_table
    from offrl.data.roles import Roles
    from offrl.data.tables import open_table

    roles = Roles(
        observation,
        action,
        reward,
        next_observation or (),
        episode,
        time,
        terminal,
        timeout,
        discrete,
    )
    opened = open_table(table)
    path = output or Path(table.with_suffix(".toml").name)
    card = deposit_table(opened, roles, path, impute, validation)
    for line in card.notes.splitlines():
        print_line(line)
    print_line(load_dataset(card))
    print_line(path)


@app.command("export")
def export_data(
    name: DataId,
    to: Annotated[
        Path,
        typer.Option(
            "--to", metavar="FILE", help="A new file, whose suffix says the format, or a folder."
        ),
    ],
    trust: Trusted = None,
) -> None:
    """Write the transitions of a data set to a file of another format, without loss.

    It may be Parquet or D4RL's HDF5; a name without a suffix becomes a Minari data set's folder.

    Example: offrl data export pointmaze-quickstart --to pointmaze.hdf5
    """
    from offrl.data.dataset import load_dataset
    from offrl.data.deposit import write_rows
    from offrl.data.loader import writer_of

    _, writer = writer_of(to)
    with progress_bar(name) as progress:
        data = load_dataset(name, progress=progress, trust=trust or ())
    write_rows(to, data.columns(), data.card, writer)
    print_line(to)


@app.command("subset")
def subset_data(
    name: DataId,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="CARD", help="The new card, NAME.toml.")
    ],
    episodes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="So many episodes.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the episodes, in (0, 1].")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Episodes of at most N rows together.")
    ] = None,
    from_returns: Annotated[
        str | None,
        typer.Option(
            metavar="LOW..HIGH", help="Only episodes whose return is between these quantiles."
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="ORDER", help="Which come first: random, top or bottom (by return), first."
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the random order.")] = 0,
    trust: Trusted = None,
) -> None:
    """Make a card and a file of some whole episodes of a data set; its notes say of which.

    A smaller subset of one order and seed lies inside a larger one.

    Example: offrl data subset pointmaze-quickstart --share 0.1 --by top -o best.toml
    """
    from offrl.data.choosing import Subset
    from offrl.data.dataset import load_dataset
    from offrl.data.deposit import deposit_derived
    from offrl.toml import validate

    given = {"episodes": episodes, "share": share, "rows": rows, "by": by, "seed": seed}
    values: dict[str, Any] = {**given, "from_returns": from_returns}
    chosen = validate(Subset, values, "subset")
    with progress_bar(name) as progress:
        data = load_dataset(name, progress=progress, trust=trust or ())
    card = deposit_derived(chosen.made(data.columns()), data.card, data.checksum, chosen, output)
    for line in card.notes.splitlines()[-1:]:
        print_line(line)
    print_line(load_dataset(card))
    print_line(output)
