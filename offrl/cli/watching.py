"""`offrl status` and `offrl log`: how runs stand, and what became of one."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offrl.cli.console import AsJson, print_json, print_line, print_message, show_rows
from offrl.errors import InputError

if TYPE_CHECKING:
    from offrl.running.status import GridStatus, RunStatus

MOST_FAILURES = 20  # that are listed
MOST_LINES = 200  # of a traceback
Runs = Annotated[Path, typer.Argument(metavar="RUNS", help="The folder of runs.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of one run.")]


def status(runs: Runs, as_json: AsJson = False) -> None:
    """Show how runs stand: done, running, failed, stale or waiting, where, and the time to go.

    Example: offrl status runs
    """
    from offrl.running.status import Stand, read_status

    grid = read_status(runs)
    cells: dict[tuple[str, str, str], Counter[str]] = {}
    hosts: dict[str, Counter[str]] = {}
    for run in grid.runs:
        cells.setdefault((run.protocol, run.dataset, run.algorithm), Counter())[run.stand] += 1
        if run.host is not None:
            hosts.setdefault(run.host, Counter())[run.stand] += 1
    stands = [stand.value for stand in Stand]
    if as_json:
        print_json(_as_json(grid))
        return
    rows: list[dict[str, Any]] = [
        {"protocol": protocol, "data set": dataset, "algorithm": algorithm, **_counts(of, stands)}
        for (protocol, dataset, algorithm), of in cells.items()
    ]
    shown = {name: name for name in ("protocol", "data set", "algorithm", *stands)}
    show_rows(rows, shown, False)
    if hosts:
        by_host = [{"host": host, **_counts(of, stands)} for host, of in sorted(hosts.items())]
        show_rows(by_host, {name: name for name in ("host", *stands)}, False)
    for line in _conclusion(grid):
        print_line(line)
    failed = [run for run in grid.runs if run.stand is Stand.FAILED]
    for run in failed[:MOST_FAILURES]:
        print_line(f"failed: {run.title}: {run.cause}; offrl log {shlex.quote(str(run.path))}")
    if len(failed) > MOST_FAILURES:
        print_line(f"and {len(failed) - MOST_FAILURES:,} more have failed; --json lists them all")


def _counts(of: Counter[str], stands: Sequence[str]) -> dict[str, Any]:
    return {stand: f"{of[stand]:,}" if of[stand] else "" for stand in stands}


def _conclusion(grid: "GridStatus") -> list[str]:
    """How many runs stand how, and the time to go."""
    from offrl.running.status import Stand
    from offrl.running.tally import duration

    counts = [f"{grid.count(Stand.DONE):,} of {len(grid.runs):,} runs are done"]
    others = [stand for stand in Stand if stand is not Stand.DONE]
    counts += [f"{grid.count(stand):,} {stand}" for stand in others if grid.count(stand)]
    lines = [", ".join(counts)]
    if grid.count(Stand.STALE) or grid.count(Stand.WAITING):
        lines.append("stale and waiting runs are held by no process: give their offrl run again")
    if grid.left:
        work = grid.work
        unknown = f"; not counted: {grid.unknown:,} runs whose cost is not known yet"
        lacking = unknown if grid.unknown else ""
        if work is None:
            lines.append("time to go: not known before the first runs have measured their cost")
        elif grid.workers:
            to_go = f"{duration(work / grid.workers)} with the {grid.workers} processes at work"
            lines.append(f"time to go: about {to_go}{lacking}")
        else:
            lines.append(f"time to go: about {duration(work)} of one process{lacking}")
    return lines


def _as_json(grid: "GridStatus") -> dict[str, Any]:
    from offrl.running.status import Stand

    return {
        **{stand.value: grid.count(stand) for stand in Stand},
        "workers": grid.workers,
        "work_seconds": grid.work,
        "runs_of_unknown_cost": grid.unknown,
        "runs": [_run_as_json(run) for run in grid.runs],
    }


def _run_as_json(run: "RunStatus") -> dict[str, Any]:
    return {**vars(run), "path": str(run.path), "stand": run.stand.value}


def log(run: Run) -> None:
    """Show what became of one run: its cause, traceback, last losses and the machines it was on.

    Example: offrl log runs/quickstart/pointmaze-quickstart/bc-3c1f0a52/seed-0
    """
    from offrl.results.curves import read_curves
    from offrl.results.store import RunFolder, State

    if not (run / "run.json").is_file():
        what = "no run.json in this folder" if run.is_dir() else "no such folder"
        raise InputError(f"{run}: {what}; expected the folder of one run; see offrl status RUNS")
    folder = RunFolder(run)
    stored = folder.read()
    record = stored.record
    if record is None:
        raise InputError(str(stored.cause))
    of = record.identity
    step = stored.rows[-1].step if stored.rows else 0
    print_line(f"{of.dataset} {of.label} seed {of.seed}, {of.protocol}: {record.status}")
    print_line(f"scored up to step {step:,} of {of.steps:,}")
    if stored.cause and stored.state is not State.UNFINISHED:
        print_line(f"cause: {stored.cause}")
    for session in record.sessions:
        hardware, versions = session.hardware, session.versions
        print_line(
            f"session: {session.started} on {hardware.get('host', 'a host that is not noted')}, "
            f"offrl {versions.get('offrl', '?')} {session.commit or ''}".rstrip()
        )
    for attempt in record.attempts or []:
        print_line(f"lost: {attempt.ended} on {attempt.host}: {attempt.cause}")
    try:
        lines = read_curves(folder.metrics_file)
    except OSError:
        lines = []
    if lines:
        last, values = lines[-1]
        shown = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
        print_line(f"losses at step {last:,}: {shown}")
    for line in (record.traceback or [])[-MOST_LINES:]:
        print_line(line)
    if not record.traceback:
        print_message("No traceback is noted.")
