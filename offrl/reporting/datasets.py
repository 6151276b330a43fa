"""Pages on data sets, written by the renderer of `reports/`: whole, or not at all."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from offrl import registry
from offrl.data.coverage import Coverage
from offrl.data.dataset import Dataset
from offrl.evaluation.checkup import Checkup
from offrl.files import replacing_folder
from offrl.progress import Progress
from offrl.reporting.report import check_replaceable


def report_checkup(found: Checkup, output: str | Path, *, command: str | None = None) -> Path:
    """The path of the index.html of a page on a check-up; an earlier page there is replaced.

    Raises InputError where the folder holds anything else.
    """
    renderer = registry.load("reports", "data_pages", "report")
    return _written(output, lambda folder: renderer.write_checkup(found, folder, command=command))


def report_stats(
    datasets: Sequence[Dataset],
    rows: Sequence[dict[str, Any]],
    covered: Coverage | None,
    output: str | Path,
    *,
    labels: Sequence[str],
    remarks: Sequence[str] = (),
    command: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """The path of the index.html of a page on data sets side by side, likewise.

    The arguments are as in `write_stats` of the renderer.
    """
    renderer = registry.load("reports", "data_pages", "report")

    def write(folder: Path) -> None:
        renderer.write_stats(
            datasets,
            rows,
            covered,
            folder,
            labels=labels,
            remarks=remarks,
            command=command,
            progress=progress,
        )

    return _written(output, write)


def _written(output: str | Path, write: Callable[[Path], None]) -> Path:
    directory = Path(os.path.abspath(output))  # noqa: PTH100 (resolve() would follow a link)
    check_replaceable(directory)
    advice = "give another folder for the page"
    with replacing_folder(directory, check_replaceable, advice) as temporary:
        write(temporary)
    return directory / "index.html"
