"""Score tables from folders of runs and from several sources."""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from offrl.errors import InputError
from offrl.results.checks import cell_text, form_notes, run_keys, run_text
from offrl.results.failures import UNFINISHED, Failure
from offrl.results.files import PIPE, SUFFIXES, read_logs, read_scores
from offrl.results.provenance import POOLED
from offrl.results.reading import AS_IT_IS, Reading
from offrl.results.run_labels import Run, each_once, labelled_runs, with_names
from offrl.results.settings import with_setting
from offrl.results.store import RunFolder, State, run_folders
from offrl.results.table import ScoreTable
from offrl.results.unpacking import opened
from offrl.results.unplayed import is_unplayed
from offrl.text import one_form

COLUMNS = ["protocol", "dataset", "algorithm", "config", "seed", "step", "score"]  # without rows


Source = str | Path | pd.DataFrame | ScoreTable


def collect(
    sources: Source | Sequence[Source],
    *,
    scale: float = 100.0,
    complete: bool = True,
    algorithms: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    common: bool = False,
    reading: Reading = AS_IT_IS,
) -> ScoreTable:
    """One table from several sources: score tables, and folders of runs (which hold `run.json`).

    Args:
        sources: one or several of: a folder of runs, a bundle of runs, a file or folder that
            `read_scores` reads, a frame with such columns, a ScoreTable.
        scale: that of files and frames; runs are scored on 0-100, and another scale beside them is
            an InputError.
        complete: as in `ScoreTable.from_frame`, of what is selected.
        algorithms: as in `ScoreTable.selected`, as are the others.
        datasets: the data sets.
        common: whether to leave out data sets that one of the algorithms lacks.
        reading: how tables and logs of others are to be read.
    """
    if isinstance(sources, Source):
        sources = [sources]
    if not len(sources):
        raise InputError("no source given; expected score tables or folders of runs")
    parts: list[tuple[str, ScoreTable]] = []
    for number, source in enumerate(sources, start=1):
        if isinstance(source, pd.DataFrame | ScoreTable):
            table = read_scores(source, scale=scale, complete=False, reading=reading)
            parts.append((f"table {number}", table))
            continue
        source = Path(source)
        if not source.exists() and str(source) != PIPE:
            raise InputError(
                f"{source}: no such file or folder; expected a folder of runs, a bundle (.zip) or "
                f"a score table ({', '.join(SUFFIXES)})"
            )
        if source.is_dir():
            logs = read_logs(source, scale, complete=False, reading=reading)
            if logs is not None:
                parts.append((str(source), logs))
                continue
            parts.append((str(source), _runs_below(source, source, scale)))
        elif source.suffix == ".zip":
            with opened(source) as bundle:
                parts.append((str(source), _runs_below(bundle.folder, source, scale)))
        else:
            table = read_scores(source, scale=scale, complete=False, reading=reading)
            parts.append((str(source), table))
    merged = merge(parts, complete=False)
    if algorithms is not None or datasets is not None or common:
        merged = merged.selected(algorithms=algorithms, datasets=datasets, common=common)
    if complete:
        merged.check_complete(" + ".join(where for where, _ in parts))
    return merged


def _runs_below(folder: Path, where: Path, scale: float) -> ScoreTable:
    """The table of the runs in a folder, which came from a source of another name or of its own."""
    folders = run_folders(folder)
    if not folders:
        raise InputError(
            f"{where}: no run.json in this folder; expected a folder of runs, or a score "
            f"table ({', '.join(SUFFIXES)})"
        )
    if scale != 100:
        raise InputError(
            f"{where}: runs are scored on 0-100, but scale {scale:g} is declared; bring "
            "all scores to 0-100 and declare 100"
        )
    return _table_of(folder, folders)


def merge(parts: Sequence[tuple[str, ScoreTable]], *, complete: bool = True) -> ScoreTable:
    """One table from several, given with names; raises InputError where they clash."""
    owner: dict[tuple[Any, ...], str] = {}
    protocols: dict[tuple[str, str, str], tuple[str, str]] = {}  # by cell, each with its source
    for where, table in parts:
        if table.scale != parts[0][1].scale:
            raise InputError(
                f"{where}: scores on 0-{table.scale:g}, but {parts[0][0]} is on "
                f"0-{parts[0][1].scale:g}; bring them to one scale first"
            )
        failed = {(f.algorithm, f.setting, f.dataset, f.seed) for f in table.failures}
        for run in sorted({*run_keys(table.frame)} | failed):
            if run in owner:
                raise InputError(
                    f"{where}: {run_text(*run)} is also in {owner[run]}; give each run once, "
                    "or rename the algorithm of one source"
                )
            owner[run] = where
        for cell, protocol in sorted(_protocols(table.frame)) if len(parts) > 1 else ():
            other, there = protocols.setdefault(cell, (protocol, where))
            if other != protocol and where != there:
                raise InputError(
                    f"{where}: {cell_text(cell)} ran under protocol {protocol}, but under {other} "
                    f"in {there}; their scores are not pooled, so rename the algorithm of one"
                )
    name = " + ".join(where for where, _ in parts)
    frame = pd.concat([table.frame for _, table in parts], ignore_index=True)
    notes = [
        note
        for _, table in parts
        for note in table.notes
        if note not in form_notes(table.written)  # the whole has its own
    ]
    written = frozenset[tuple[str, str]]().union(*(table.written for _, table in parts))
    return ScoreTable.from_frame(
        frame,
        name,
        scale=parts[0][1].scale,
        failures=[failure for _, table in parts for failure in table.failures],
        notes=[*notes, *_environment_notes(frame)],
        provenance=[entry for _, table in parts for entry in table.provenance],
        written=written,
        complete=complete,
    )


def _protocols(frame: pd.DataFrame) -> set[tuple[tuple[str, str, str], str]]:
    """The protocols of runs by cell, where the frame has them."""
    if "protocol" not in frame:
        return set()
    keys = zip(run_keys(frame), frame["protocol"], strict=True)
    return {(run[:3], p) for run, p in keys if isinstance(p, str) and p}


def read_runs(root: str | Path) -> ScoreTable:
    """The score table of all runs below a folder, with failures, notes and provenance.

    The table has a row per evaluation, and no times: the same scores give the same table. A failed
    run is a failure with its cause, and so is one whose folder is damaged; one that has not come to
    its first evaluation is listed beside them as `unfinished`. An algorithm that ran on a data set
    with several configs has a column `setting` with the values in which they differ, such as
    `beta=10`. One that ran under several protocols, or versions of its file, appears once for each,
    with protocol, or protocol and config hash, in its name. A data set of which there are several
    versions is several data sets, `ID@VERSION`: a version rises whenever scores would move, so
    these are not pooled.
    """
    root = Path(root)
    folders = run_folders(root)
    if not folders:
        raise InputError(
            f"{root}: {'no run.json in this folder' if root.is_dir() else 'no such folder'}; "
            "expected a folder that offrl run has filled"
        )
    return _table_of(root, folders)


def _table_of(root: Path, folders: Sequence[RunFolder]) -> ScoreTable:
    """The score table of runs below a folder."""
    with _uncollected():
        stored = [folder.read() for folder in folders]
    labelled, stray = labelled_runs(stored)
    if not labelled:
        raise InputError(str(stray[0].cause))
    runs, copies = each_once(labelled)
    runs, partial = with_names(runs)
    rows = [row for run in runs for row in _rows(run)]
    failures = [failure for run in runs for failure in _failures(run)]
    if not rows and not failures and any(is_unplayed(run.stored) for run in runs):
        raise InputError(
            f"{root}: has no scores: its data have no simulator, so no policy was evaluated; "
            "offrl report shows the losses"
        )
    return ScoreTable.from_frame(
        pd.DataFrame(rows, columns=list(rows[0]) if rows else COLUMNS),
        str(root),
        failures=failures,
        notes=[
            *_unfinished_notes(runs),
            *(
                f"{with_setting(way, setting)} is left out: it is not on all data sets of its label"
                for setting, way in partial
            ),
            *_version_notes(runs),
            *_dataset_notes(runs),
            *_simulator_notes(rows),
            *_unplayed_notes(runs),
            *(
                f"{run.path} is left out, as its name is not that of a run: {run.cause}"
                for run in stray
            ),
            *copies,
        ],
        provenance=[entry for run in runs for entry in run.provenance],
        complete=False,
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leaves out the garbage collector, which would go through all rows so far, over and over.

    They hold no cycles.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _rows(run: Run) -> list[dict[str, Any]]:
    """The table's rows of a run."""
    return [
        {
            "protocol": row.protocol,
            "dataset": run.dataset,
            "algorithm": run.named(row.policy),
            "setting": run.setting,
            "way": row.policy,
            "config": row.config,
            "seed": row.seed,
            "step": row.step,
            "score": row.score,
            "return": row.mean_return,
            "episodes": len(row.returns),
            "last_evaluations": run.last,
            "environment": row.environment,
            **{name: row.simulator.get(name, "") for name in POOLED},
        }
        for row in run.stored.rows
        if row.policy in run.ways and row.score is not None
    ]


def _failures(run: Run) -> list[Failure]:
    """One failure per way to act, where the run has no score."""
    cause = run.stored.cause
    if cause is None:
        return []
    if run.stored.state is not State.UNFINISHED and cause.startswith(UNFINISHED):
        cause = f"failed: {cause}"  # an exception may say anything
    return [
        Failure(run.named(way), run.dataset, run.labels.seed, cause, run.setting, way)
        for way in run.ways
    ]


def _unfinished_notes(runs: Sequence[Run]) -> list[str]:
    """One note per algorithm, data set and step at which runs stand that are not done."""
    seeds: dict[tuple[str, str, int, str], list[int]] = {}
    for run in runs:
        record, rows = run.stored.record, run.stored.rows
        if run.stored.state is State.UNFINISHED and record is not None:
            step = rows[-1].step if rows else 0
            stands = f"step {step:,} of {record.identity.steps:,}"
            if run.stored.cause is not None:
                stands = run.stored.cause.removeprefix(UNFINISHED)
            key = (one_form(run.shown), run.dataset, step, stands)
            seeds.setdefault(key, []).append(run.labels.seed)
    return [
        f"{UNFINISHED}{name} on {dataset}, seed {', '.join(map(str, sorted(of_step)))}: {stands}"
        for (name, dataset, _, stands), of_step in sorted(seeds.items())
    ]


def _unplayed_notes(runs: Sequence[Run]) -> list[str]:
    """A note on the runs in which no policy was played, as their data have no simulator."""
    counts = Counter(run.dataset for run in runs if is_unplayed(run.stored))
    named = [f"{dataset} ({count} runs)" for dataset, count in sorted(counts.items())]
    return [f"no policy was evaluated on {', '.join(named)}: no simulator"] if named else []


def _version_notes(runs: Sequence[Run]) -> list[str]:
    """One note per run whose sessions had several versions of offrl or torch."""
    notes = []
    for run in runs:
        sessions = run.stored.record.sessions if run.stored.record else []
        versions = {
            (session.commit, session.versions.get("offrl"), session.versions.get("torch"))
            for session in sessions
        }
        if len(versions) > 1:
            notes.append(
                f"{run.shown} on {run.labels.dataset}, seed {run.labels.seed}, was interrupted and "
                "carried on with another version of offrl or torch"
            )
    return notes


def _dataset_notes(runs: Sequence[Run]) -> list[str]:
    """A note on the data sets of which there are several versions, with their simulators."""
    simulators: dict[str, set[str]] = {}
    for run in runs:
        if run.versioned:
            names = simulators.setdefault(run.dataset, set())
            names.update(row.environment for row in run.stored.rows)
    named = [
        f"{dataset} ({', '.join(sorted(names)) or 'no scores'})"
        for dataset, names in sorted(simulators.items())
    ]
    return [f"versions of a data set are not pooled: {', '.join(named)}"] if named else []


def _environment_notes(frame: pd.DataFrame) -> list[str]:
    """A note on the data sets whose scores come from several simulators."""
    if "environment" not in frame:
        return []
    known = frame[frame["environment"].map(lambda name: isinstance(name, str) and name != "")]
    several = [
        f"{dataset} ({', '.join(sorted(names))})"
        for dataset, names in known.groupby("dataset")["environment"].unique().items()
        if len(names) > 1
    ]
    if not several:
        return []
    return [f"scores from several simulators are pooled or compared: {', '.join(several)}"]


def _simulator_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A note for each simulator of which the rows have several versions that differ."""
    notes = []
    for package, (name, why) in POOLED.items():
        versions = sorted({row[package] for row in rows} - {""})
        if len(versions) > 1:
            pooled = ", ".join(versions)
            notes.append(f"scores from several versions of {name} are pooled: {pooled}; {why}")
    return notes
