"""`offrl data`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offrl.cli.console import AsJson, DataId, bar, data_app, new_table, out, print_json

if TYPE_CHECKING:
    pass


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
    from offrl.data.fetch import fetch
    from offrl.data.resolve import resolve

    with bar(name) as progress:
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
    from offrl.data.fetch import make
    from offrl.data.resolve import resolve

    with bar(name) as progress:
        path = make(resolve(name), progress, again)
    print(path)  # noqa: T201


@data_app.command("check")
def data_check(name: DataId, as_json: AsJson = False) -> None:
    """Read every byte again: checksums, counts and the mean return against the card.

    Example: offrl data check neorl2-dmsd
    """
    from offrl.data.describe import check

    found = check(name)
    if as_json:
        print_json(dataclasses.asdict(found))
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
    from offrl.data.dataset import load_dataset
    from offrl.data.describe import QUANTILES, stats

    with bar(name) as progress:
        found = stats(load_dataset(name, progress=progress))
    if as_json:
        described = dataclasses.asdict(found)
        if found.episodes == 1:
            described["return_std"] = None  # JSON has no NaN
        print_json(described)
        return
    table = new_table(f"{found.id} v{found.version}", "what", "value")
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
