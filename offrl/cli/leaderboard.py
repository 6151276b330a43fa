"""`offrl leaderboard`: submissions, checked and shown side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offrl.cli.console import AsJson, print_json, print_line, print_message, progress_bar
from offrl.errors import InputError
from offrl.text import counted

if TYPE_CHECKING:
    from offrl.reporting.replaying import Agreement
    from offrl.reporting.submission_checks import Checked

app = typer.Typer(
    no_args_is_help=True,
    help="Check submissions, and show them as a site.\n\n"
    "Example: offrl leaderboard build leaderboard -o site",
)


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Submissions, each a .zip.")
    ],
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="COMMIT",
            help="Play the weights in new starts, by the commit that merged the file; what they "
            "play is written beside it.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check submissions: each fault is a line. The exit code is 1 where there is one.

    Example: offrl leaderboard check leaderboard/quickstart@4/mine.zip
    """
    from offrl.reporting.replaying import agreements, check_commit, replay_path, write_replay
    from offrl.reporting.replaying import replay as play
    from offrl.reporting.submission_checks import check_submission

    if replay is not None:
        check_commit(replay)
    all_checked = [check_submission(path) for path in files]
    faulty = any(checked.faults for checked in all_checked)
    if not as_json:
        _print_checked(all_checked)
    replayed: dict[Path, list[Agreement]] = {}
    for checked in all_checked if replay is not None and not faulty else ():
        with progress_bar("Playing") as bar:
            played = play(checked.path, str(replay), progress=bar)
        path = replay_path(checked.path)
        write_replay(played, path)
        replayed[checked.path] = agreements(checked, played, str(path))
        for part in () if as_json else replayed[checked.path]:
            print_line(
                f"{checked.path}: {part.dataset}: mean return {part.replayed:.6g}, claimed "
                f"{part.claimed:.6g}: {part.errors:.2g} standard errors apart, "
                f"{'as claimed' if part.holds else 'not as claimed'}"
            )
    if as_json:
        print_json(
            [
                {
                    "file": str(checked.path),
                    "digest": checked.digest,
                    "faults": checked.faults,
                    "warnings": checked.warnings,
                    "replayed": [
                        {**vars(part), "holds": part.holds} for part in replayed[checked.path]
                    ]
                    if checked.path in replayed
                    else None,
                }
                for checked in all_checked
            ]
        )
    differs = any(not part.holds for parts in replayed.values() for part in parts)
    raise typer.Exit(1 if faulty or differs else 0)


def _print_checked(all_checked: "Sequence[Checked]") -> None:
    for checked in all_checked:
        for line in checked.faults:
            print_line(f"{checked.path}: {line}")
        for line in checked.warnings:
            print_line(f"{checked.path}: warning: {line}")
        if not checked.faults:
            print_line(f"{checked.path}: {counted(len(checked.runs), 'run')}, no fault")


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of submissions.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="SITE", help="The folder of the site.")
    ],
) -> None:
    """Write the leaderboards as a site that opens from its folder, without a server.

    Example: offrl leaderboard build leaderboard -o site
    """
    from offrl.reporting.site import build

    boards = build(folder, output)
    entered = [board for board in boards if board.live or board.history]
    for board in entered:
        count = len(board.live)
        print_message(f"{board.name}: {count:,} {'entry' if count == 1 else 'entries'}")
    if quoted := ", ".join(board.name for board in boards if board not in entered):
        print_message(f"published scores alone: {quoted}")
    print_line(output / "index.html")


@app.command()
def submit(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="The folder, or a bundle, of runs.")],
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="The name of the line on the board.")
    ],
    about: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Who, what code, how tuned; a draft is written if it is not there."
        ),
    ] = Path("submission.toml"),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder of submissions.")
    ] = Path("leaderboard"),
    protocol: Annotated[
        str | None, typer.Option(metavar="ID", help="Runs of this protocol alone.")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Runs of this algorithm alone.")
    ] = None,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="Give the last checkpoints too, for a re-evaluation."),
    ] = False,
) -> None:
    """Prepare the files of a pull request, and print the git commands that make it.

    Example: offrl leaderboard submit runs --as 'My method' --algorithm my_algo
    """
    from offrl.reporting.submitting import commands, submit

    try:
        prepared = submit(
            runs,
            name,
            about,
            output,
            protocols=[protocol] if protocol else (),
            algorithms=[algorithm] if algorithm else (),
            weights=weights,
        )
    except InputError as error:
        first, *others = str(error).splitlines()
        for line in [first, *others] if others else ():
            print_message(line)
        if others:
            raise InputError(f"{len(others) + 1} faults; correct them, then submit again") from None
        raise
    for line in prepared.checked.warnings:
        print_message(f"warning: {line}")
    size = prepared.path.stat().st_size
    print_line(f"{counted(len(prepared.checked.runs), 'run')}, {size:,} bytes in {prepared.path}")
    for line in commands(prepared.path, name):
        print_line(line)
