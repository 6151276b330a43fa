"""Makes a report of scores: collects them, and hands them to the page that `reports/` holds."""

from collections.abc import Sequence
from pathlib import Path

from offrl import registry
from offrl.progress import Progress
from offrl.results.collect import collect
from offrl.statistics.resampling import Resampling


def report(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    resampling: Resampling = Resampling(),
    scale: float = 100.0,
    studentized: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """The path of the index.html of a new report; an earlier one in `output` is replaced.

    Args:
        sources: folders of runs and score tables (CSV or Parquet with the columns algorithm,
            dataset, seed, score and optionally step).
        output: the folder of the report.
        resampling: of all estimates; by default as many resamples as their precision needs.
        scale: 100 or 1, what the scores of tables are on; those of runs are on 0-100.
        studentized: whether to show studentized intervals too.
        command: what the page names as the command that made it.
        progress: called with the number of parts done and their total.

    Raises InputError for scores that cannot be compared, and leaves nothing behind then.
    """
    table = collect([Path(source) for source in sources], scale=scale)
    write = registry.load("reports", "html", "report").write
    path: Path = write(
        table,
        Path(output),
        resampling=resampling,
        studentized=studentized,
        command=command,
        progress=progress,
    )
    return path
