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
    """Make a data set that needs no download.

    Example: offrl data make pointmaze-quickstart
    """
    from offrl.data.fetch import make
    from offrl.data.resolve import resolve

    with progress_bar(name) as progress:
        path = make(resolve(name, trust=trust or ()), progress, again)
    print_line(path)


@app.command("check")
def check_data(name: DataId, trust: Trusted = None, as_json: AsJson = False) -> None:
    """Read every byte again and compare checksums, counts and the mean return with the card.

    Where the file holds states of its simulator, up to 1,000 of its steps are made again in the
    card's.

    Example: offrl data check neorl2-dmsd
    """
    from offrl.data.describe import check
    from offrl.data.resolve import resolve
    from offrl.evaluation.replay import check_steps

    checked = check(name, trust=trust or ())
    replays, unreplayed = check_steps(resolve(name, trust=trust or ()), checked.files)
    if as_json:
        replayed = [dataclasses.asdict(replay) for replay in replays]
        notes = [*checked.notes, *unreplayed]
        print_json({**dataclasses.asdict(checked), "notes": notes, "replays": replayed})
        return
    for split, totals in checked.totals.items():
        print_line(
            f"{checked.id} v{checked.version} {split}: {totals.transitions:,} transitions, "
            f"{totals.episodes:,} episodes, mean return {totals.mean_return:.6g}"
        )
    print_line(f"compared with: {', '.join(checked.compared)}")
    for replay in replays:
        print_line(
            f"{replay.steps:,} steps of {Path(replay.file).name} made again in "
            f"{replay.environment} ({replay.note}):"
        )
        rounding = replay.rounding or (None, None)
        for name, errors, rounded in (
            ("positions", replay.positions, rounding[0]),
            ("velocities", replay.velocities, rounding[1]),
        ):
            expected = f" (by the file's rounding alone: {_errors(rounded)})" if rounded else ""
            print_line(f"  {name} off by {_errors(errors)}{expected}")
    for note in (*checked.notes, *unreplayed):
        print_line(f"note: {note}")


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
