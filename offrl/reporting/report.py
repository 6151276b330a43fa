"""Makes a report of scores: collects them, computes the findings, has `reports/` draw the page."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from offrl import registry
from offrl.errors import InputError
from offrl.files import read_own, replacing_folder
from offrl.progress import Progress, stage
from offrl.reporting.findings import KIND, compute
from offrl.results.collect import Source, collect
from offrl.results.naming import Patterns, Texts, naming
from offrl.results.reading import AS_IT_IS, Reading
from offrl.results.table import ScoreTable
from offrl.results.unplayed import Losses, read_losses
from offrl.statistics.resampling import Resampling

LARGEST_SUMMARY = 2**30  # bytes; a report of a million estimates has a third


def report(
    sources: Source | Sequence[Source],
    output: str | Path,
    *,
    algorithms: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    common: bool = False,
    title: str = "",
    order: Sequence[str] = (),
    labels: Texts = (),
    groups: Patterns = (),
    formats: Sequence[str] = (),
    resampling: Resampling = Resampling(),
    scale: float = 100.0,
    studentized: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
    reading: Reading = AS_IT_IS,
) -> Path:
    """The path of the index.html of a new report; an earlier one in `output` is replaced.

    Args:
        sources: one or several of: folders of runs, score tables as files (CSV or Parquet with the
            columns algorithm, dataset, seed, score and optionally step), as frames, or as
            ScoreTable; tables and logs of others (`offrl.results.reading`).
        output: the folder of the report.
        algorithms: report these alone.
        datasets: report these alone, by name or pattern.
        common: whether to leave out data sets that one of the algorithms lacks; holes are shown
            otherwise, and an algorithm that has some has no aggregate.
        title: the heading of the page.
        order: algorithms and data sets that come first, as in `results.naming`; the other
            algorithms stand by their IQM.
        labels: what is written in place of names.
        groups: data sets with aggregates of their own.
        formats: of figures besides SVG: "pdf" and "png".
        resampling: of all estimates; by default as many resamples as their precision needs.
        scale: 100 or 1, what the scores of tables are on; those of runs are on 0-100.
        studentized: whether to show studentized intervals too.
        command: what the page names as the command that made it.
        progress: called with what is done and the total.
        reading: how tables and logs of others are to be read.

    Where no policy was evaluated, as no data set has a simulator, it is one of losses, and says
    first what they do not tell. Losses of runs without a simulator beside others have a section.

    Raises InputError for scores that cannot be compared, and leaves nothing behind then.
    """
    given = [sources] if isinstance(sources, Source) else list(sources)
    paths = [Path(source) for source in given if isinstance(source, str | Path)]
    losses = read_losses(paths, algorithms, datasets)
    if losses and losses.alone and len(paths) == len(given):
        return _report_losses(losses, output, title, command)
    table = collect(
        given,
        scale=scale,
        complete=False,
        algorithms=algorithms,
        datasets=datasets,
        common=common,
        reading=reading,
    )
    return report_table(
        table,
        output,
        title=title,
        order=order,
        labels=labels,
        groups=groups,
        formats=formats,
        resampling=resampling,
        studentized=studentized,
        command=command,
        progress=progress,
        losses=losses,
    )


def _report_losses(losses: Losses, output: str | Path, title: str, command: str | None) -> Path:
    """The path of the index.html of a new report of losses alone."""
    directory = Path(os.path.abspath(output))  # noqa: PTH100 (resolve() would follow a link)
    check_replaceable(directory)
    page = registry.load("reports", "html", "report")
    advice = "give another folder for the report"
    with replacing_folder(directory, check_replaceable, advice) as temporary:
        page.write_losses(losses, temporary, title=title, command=command)
    return directory / "index.html"


def report_table(
    table: ScoreTable,
    output: str | Path,
    *,
    title: str = "",
    order: Sequence[str] = (),
    labels: Texts = (),
    groups: Patterns = (),
    formats: Sequence[str] = (),
    resampling: Resampling = Resampling(),
    studentized: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
    losses: Losses | None = None,
) -> Path:
    """The path of the index.html of a new report of a table; the arguments are as in `report`.

    `losses` are those of runs whose data have no simulator. An earlier report in that folder is
    replaced; InputError if the folder holds anything else. All files are written beside it first
    and moved in at the end, so a report is whole or absent.
    """
    directory = Path(os.path.abspath(output))  # noqa: PTH100 (resolve() would follow a link)
    check_replaceable(directory)
    page = registry.load("reports", "html", "report")
    page.check_formats(formats)
    findings = compute(
        table,
        resampling=resampling,
        studentized=studentized,
        naming=naming(table.by_setting(), order=order, labels=labels, groups=groups),
        title=title,
        progress=stage(progress, 0, 60),
    )
    advice = "give another folder for the report"
    with replacing_folder(directory, check_replaceable, advice) as temporary:
        page.write(
            findings,
            temporary,
            command=command,
            formats=formats,
            progress=stage(progress, 60, 100),
            losses=losses,
        )
    return directory / "index.html"


def check_replaceable(directory: Path) -> None:
    """Raises InputError unless the folder is absent, empty or a report with nothing added."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise InputError(f"{directory}: not a folder; give a new folder for the report")
    if not directory.exists() or not any(directory.iterdir()):
        return
    try:
        text = read_own(directory / "summary.json", LARGEST_SUMMARY).decode()
        record = json.loads(text)
        listed = set(record["files"]) if record["kind"] == KIND else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        listed = set()
    if not listed:
        raise InputError(
            f"{directory}: the folder holds something that is no report of offrl; "
            "give a new or an empty folder"
        )
    files = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if not p.is_dir()}
    added = sorted(files - listed)
    if added:
        raise InputError(
            f"{directory}: {added[0]} does not belong to the report that would be replaced; "
            "move it away, or give a new folder"
        )
