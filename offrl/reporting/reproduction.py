"""What it takes to reproduce a published table, and the page that sets runs beside it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from offrl import registry
from offrl.errors import InputError, unknown
from offrl.files import replacing_folder
from offrl.reporting.report import check_replaceable
from offrl.results.store import RunFolder, State
from offrl.running.changes import Changes, changed
from offrl.running.costs import Costs
from offrl.running.jobs import Job, expand
from offrl.running.protocol import Protocol, find_protocol
from offrl.statistics.published import (
    VERDICTS,
    check_margin,
    find_table,
    headings,
    lacking,
    runs_needed,
    tally,
)

ANY = ""  # stands for all algorithms among rates


@dataclass(frozen=True)
class PlannedCell:
    """A published cell, and the runs of offrl's protocol that would be set beside it."""

    algorithm: str
    dataset: str
    protocol: str  # empty where none has the published settings, the rule of its score included
    published: float
    published_sd: float  # of a sample; NaN where it is not known
    published_n: float  # likewise
    lacking: list[str]  # what a verdict takes and the source does not give
    runs: int
    done: int
    steps: int | None  # of each run
    hours: float | None  # of one worker for the runs that are left; None: not known
    needed: int | None  # the fewest runs that can show it reproduced; None: none, or no margin


@dataclass(frozen=True)
class Part:
    """The runs of one protocol: those of its algorithms on its data sets."""

    protocol: str
    algorithms: list[str]
    datasets: list[str]


@dataclass(frozen=True)
class Plan:
    """The runs for a published table."""

    table: str
    cells: list[PlannedCell]
    parts: list[Part]
    margin: float | None

    @property
    def runs(self) -> int:
        """How many runs there are in all."""
        return sum(cell.runs for cell in self.cells)

    @property
    def done(self) -> int:
        """How many of them are done."""
        return sum(cell.done for cell in self.cells)

    @property
    def hours(self) -> float:
        """Of one worker, for the runs that are left and whose cost is known."""
        return sum(cell.hours or 0.0 for cell in self.cells)

    @property
    def uncounted(self) -> int:
        """The runs that are left and whose cost is not known."""
        return sum(cell.runs - cell.done for cell in self.cells if cell.hours is None)


def plan(
    table: str,
    *,
    algorithms: Sequence[str] = (),
    datasets: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    margin: float | None = None,
    rates: Mapping[str, float] | None = None,
    root: Path | None = None,
    device: str = "cpu",
) -> Plan:
    """The runs for the cells of a published table; no data are loaded, and nothing is started.

    Args:
        table: its id.
        algorithms: only these of its algorithms; empty: all.
        datasets: only these of its data sets; empty: all.
        seeds: in place of the protocols' own.
        margin: the largest difference of means that counts as none, in points.
        rates: gradient steps per second of a worker by algorithm, or by `ANY`, in place of what
            was measured; evaluations are not counted then.
        root: the folder of runs: it says what is done, and what its runs have cost.
        device: whose costs are looked up, cpu or cuda.

    Raises InputError for names that there are not, and a margin or a rate that is not positive.
    """
    published = find_table(table, algorithms, datasets)
    if margin is not None:
        check_margin(margin)
    rates = dict(rates or {})
    for label, given in rates.items():
        if label != ANY and label not in (known := list(find_table(table)["algorithm"].unique())):
            raise unknown(f"algorithm of the published table {table}", label, known, "in --rate")
        if not 0 < given < float("inf"):
            of = f"{label}=" if label else ""
            raise InputError(f"--rate {of}{given:g}: expected a positive number of steps")
    costs = Costs() if root is None else Costs.read(root)
    parts: list[Part] = []
    jobs: dict[tuple[str, str, str], list[Job]] = {}
    for name, cells in published[published["protocol"] != ""].groupby("protocol", sort=False):
        protocol = find_protocol(str(name))
        cells = cells[cells["rule"].isin(["", _rule(protocol)])]
        part = Part(
            protocol.id,
            [label for label in cells["algorithm"].unique() if label in protocol.algorithms],
            [dataset for dataset in cells["dataset"].unique() if dataset in protocol.datasets],
        )
        if part.algorithms and part.datasets:
            parts.append(part)
            for job in expand(_with_seeds(protocol, seeds), part.algorithms, part.datasets):
                jobs.setdefault((protocol.id, job.label, job.dataset), []).append(job)
    planned = []
    for cell in cast(Iterable[Any], published.itertuples()):
        mine = jobs.get((cell.protocol, cell.algorithm, cell.dataset), [])
        left = [job for job in mine if root is None or not _is_done(job, root)]
        rate = rates.get(cell.algorithm, rates.get(ANY))
        seconds = [job.steps / rate if rate else costs.seconds(job, device=device) for job in left]
        counted = [value for value in seconds if value is not None]
        planned.append(
            PlannedCell(
                algorithm=cell.algorithm,
                dataset=cell.dataset,
                protocol=cell.protocol if mine else "",
                published=cell.mean,
                published_sd=cell.sd,
                published_n=cell.n,
                lacking=lacking(cell),
                runs=len(mine),
                done=len(mine) - len(left),
                steps=mine[0].steps if mine else None,
                hours=sum(counted) / 3600 if len(counted) == len(left) else None,
                needed=None if margin is None else runs_needed(cell.sd, cell.n, margin),
            )
        )
    return Plan(table, planned, parts, margin)


def _rule(protocol: Protocol) -> str:
    """How a protocol's score comes from a run's evaluations, as published tables name it."""
    last = protocol.evaluation.last
    return "final" if last == 1 else f"last-{last}"


def _with_seeds(protocol: Protocol, seeds: Sequence[int] | None) -> Protocol:
    return protocol if seeds is None else changed(protocol, Changes(seeds=seeds))


def _is_done(job: Job, root: Path) -> bool:
    folder = RunFolder(job.folder(root), root)
    return folder.path.is_dir() and folder.read().state is State.DONE


def sentence(cells: pd.DataFrame, margin: float) -> str:
    """What a comparison comes to, in one sentence."""
    counts = {verdict: count for verdict, count in tally(cells).items() if count}
    both = cells[~cells["verdict"].isin(VERDICTS[-2:])]
    texts = [f"{count} {verdict}" for verdict, count in counts.items()]
    return (
        f"Of {counts_of(len(cells) - counts.get(VERDICTS[-1], 0), 'published cell')} "
        f"{len(both)} {'has' if len(both) == 1 else 'have'} runs here; at a margin of {margin:g} "
        f"points: {', '.join(texts)}."
    )


def counts_of(count: int, thing: str) -> str:
    """A number of things."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def write_page(
    table: str,
    cells: pd.DataFrame,
    margin: float,
    output: str | Path,
    *,
    notes: Sequence[str] = (),
    command: str | None = None,
) -> Path:
    """The path of the index.html of a new page; an earlier page or report in `output` is replaced.

    Args:
        table: the published table's id.
        cells: of `compare`.
        margin: of the comparison.
        output: the folder of the page; it is whole, or as it was.
        notes: on the scores.
        command: the command line that made it.
    """
    directory = Path(os.path.abspath(output))  # noqa: PTH100 (resolve() would follow a link)
    check_replaceable(directory)
    page = registry.load("reports", "reproduction", "page")
    with replacing_folder(directory, check_replaceable, "give another folder") as temporary:
        page.write(
            temporary,
            table=table,
            heading=headings()[table],
            cells=cells,
            margin=margin,
            conclusion=sentence(cells, margin),
            notes=list(notes),
            command=command,
        )
    return directory / "index.html"
