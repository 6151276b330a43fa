"""Makes the site of a folder of submissions, whose pages `reports/` writes."""

import json
import os
from pathlib import Path

from offrl import registry
from offrl.errors import InputError
from offrl.files import read_own, replacing_folder
from offrl.reporting.board import Board, read_boards
from offrl.statistics.resampling import Resampling

LARGEST_INDEX = 2**28  # bytes
INDEX, KIND = "index.json", "offrl leaderboard"


def build(folder: Path, output: Path, *, resampling: Resampling = Resampling()) -> list[Board]:
    """Writes the site of the submissions in a folder; an earlier one in `output` is replaced.

    Raises InputError where a submission has faults, and leaves nothing behind then.
    """
    directory = Path(os.path.abspath(output))  # noqa: PTH100 (resolve() would follow a link)
    if directory.is_symlink() or directory.exists():
        check_site(directory)
    boards = read_boards(folder, resampling=resampling)
    renderer = registry.load("reports", "site", "site")
    with replacing_folder(directory, check_site, "give another folder for the site") as temporary:
        renderer.write(boards, temporary)
    return boards


def check_site(directory: Path) -> None:
    """Raises InputError unless the folder is empty or a site that this made."""
    if directory.is_symlink() or not directory.is_dir():
        raise InputError(f"{directory}: not a folder; give a new folder for the site")
    if not any(directory.iterdir()):
        return
    try:
        kind = json.loads(read_own(directory / INDEX, LARGEST_INDEX))["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        kind = None
    if kind != KIND:
        raise InputError(
            f"{directory}: the folder holds something that is no site of offrl; give a new or an "
            "empty folder"
        )
