"""`offrl data`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from offrl.cli import checking
from offrl.cli.console import DataId, Trusted, print_line, progress_bar

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


app.command("check")(checking.check_data)
app.command("stats")(checking.stats_data)


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
    for line in filter(None, card.notes.splitlines()):
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

    sizes = {"episodes": episodes, "share": share, "rows": rows, "from_returns": from_returns}
    given: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
    chosen = validate(Subset, {**given, "by": by, "seed": seed}, "subset")
    with progress_bar(name) as progress:
        data = load_dataset(name, progress=progress, trust=trust or ())
    card = deposit_derived(chosen.made(data.columns()), data.card, data.checksum, chosen, output)
    for line in card.notes.splitlines()[-1:]:
        print_line(line)
    print_line(load_dataset(card))
    print_line(output)
