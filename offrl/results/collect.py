"""Score tables from folders of runs and from several sources."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from offrl.errors import InputError
from offrl.results.checks import cell_text, form_notes, run_keys, run_text
from offrl.results.failures import Failure
from offrl.results.files import SUFFIXES, read_logs, read_scores
from offrl.results.provenance import POOLED
from offrl.results.reading import AS_IT_IS, Reading
from offrl.results.settings import settings_of, with_setting
from offrl.results.store import RUN_NAMES, RunFolder, State, StoredRun, run_folders
from offrl.results.table import ScoreTable
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
        sources: one or several of: a folder of runs, a file or folder that `read_scores` reads, a
            frame with such columns, a ScoreTable.
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
        if source.is_dir():
            logs = read_logs(source, scale, complete=False, reading=reading)
            if logs is not None:
                parts.append((str(source), logs))
                continue
            folders = run_folders(source)
            if not folders:
                raise InputError(
                    f"{source}: no run.json in this folder; expected a folder of runs, or a score "
                    f"table ({', '.join(SUFFIXES)})"
                )
            if scale != 100:
                raise InputError(
                    f"{source}: runs are scored on 0-100, but scale {scale:g} is declared; bring "
                    "all scores to 0-100 and declare 100"
                )
            parts.append((str(source), _table_of(source, folders)))
        else:
            table = read_scores(source, scale=scale, complete=False, reading=reading)
            parts.append((str(source), table))
    merged = merge(parts, complete=False)
    if algorithms is not None or datasets is not None or common:
        merged = merged.selected(algorithms=algorithms, datasets=datasets, common=common)
    if complete:
        merged.check_complete(" + ".join(where for where, _ in parts))
    return merged


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
    run is a failure with its cause, and so is one that stopped before its first evaluation, or
    whose folder is damaged. An algorithm that ran on a data set with several configs has a column
    `setting` with the values in which they differ, such as `beta=10`. One that ran under several
    protocols, or versions of its file, appears once for each, with protocol, or protocol and config
    hash, in its name. A data set of which there are several versions is several data sets,
    `ID@VERSION`: a version rises whenever scores would move, so these are not pooled.
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
    labelled, stray = _labelled(stored)
    if not labelled:
        raise InputError(str(stray[0].cause))
    runs, copies = _each_once(labelled)
    runs = _with_ways_to_act(_with_distinct_names(_with_distinct_datasets(runs)))
    partial = _partial_ways(runs)
    runs = [
        replace(
            run,
            ways=tuple(way for way in run.ways if (run.setting, run.named(way)) not in partial),
        )
        for run in runs
    ]
    rows = [row for run in runs for row in _rows(run)]
    return ScoreTable.from_frame(
        pd.DataFrame(rows, columns=list(rows[0]) if rows else COLUMNS),
        str(root),
        failures=[failure for run in runs for failure in _failures(run)],
        notes=[
            *_unfinished_notes(runs),
            *(
                f"{with_setting(way, setting)} is left out: it is not on all data sets of its label"
                for setting, way in partial
            ),
            *_version_notes(runs),
            *_dataset_notes(runs),
            *_simulator_notes(rows),
            *(
                f"{run.path} is left out, as its name is not that of a run: {run.cause}"
                for run in stray
            ),
            *copies,
        ],
        provenance=[entry for run in runs for entry in _provenance(run)],
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


class _Labels(NamedTuple):
    """What tells a run from the others."""

    protocol: str  # id@version
    dataset: str  # id@version
    label: str
    config_hash: str
    seed: int


@dataclass(frozen=True)
class _Run:
    """A stored run, and what its rows are called in the table."""

    stored: StoredRun
    labels: _Labels
    name: str  # the label, with its protocol where one label has several
    setting: str = ""  # what tells its config from others of its label
    versioned: bool = False  # whether runs beside it have another version of its data set
    ways: tuple[str, ...] = ("",)  # to act, of this run and of its other seeds

    @property
    def dataset(self) -> str:
        """The data set's id, with its version where there are several."""
        return self.labels.dataset if self.versioned else self.labels.dataset.partition("@")[0]

    @property
    def last(self) -> int:
        """How many of its last evaluations the run's score is the mean of."""
        return 1 if self.stored.record is None else self.stored.record.identity.last

    @property
    def cell(self) -> tuple[str, str, str]:
        """What the seeds of one algorithm, with one config on one data set, share."""
        return self.labels.label, self.labels.dataset, self.labels.config_hash

    @property
    def is_at_home(self) -> bool:
        """Whether the folder has the name that offrl gives it."""
        of = self.labels
        return _last_parts(self.stored.path)[2:] == [
            f"{of.label}-{of.config_hash}",
            f"seed-{of.seed}",
        ]

    @property
    def shown(self) -> str:
        """How notes name the algorithm of the run."""
        return with_setting(self.name, self.setting)

    def named(self, way: str) -> str:
        """The name of the rows in which the run acts in this way; the main way is empty."""
        return f"{self.name}: {way}" if way else self.name


def _labelled(stored: Sequence[StoredRun]) -> tuple[list[_Run], list[StoredRun]]:
    """Runs by their labels, and damaged folders whose path does not give any.

    Where run.json is damaged, the path has the labels; other runs below folders of the same names
    give the versions of protocol and data set.
    """
    protocols, datasets = {}, {}
    for run in stored:
        if run.record is not None:
            protocol, dataset, _, _ = _last_parts(run.path)
            protocols[protocol] = run.record.identity.protocol
            datasets[dataset] = run.record.identity.dataset
    runs, stray = [], []
    for run in stored:
        labels = _labels(run, protocols, datasets)
        if labels is None:
            stray.append(run)
        else:
            runs.append(_Run(run, labels, labels.label))
    return runs, stray


def _each_once(runs: Sequence[_Run]) -> tuple[list[_Run], list[str]]:
    """Each run once, and notes on the folders that are left out as copies of others.

    A copy is in a folder of another name than its run's, or is damaged where another is not. Raises
    InputError for two whole folders of a run's name: nobody can tell which of them counts.
    """
    folders: dict[_Labels, list[_Run]] = {}
    for run in runs:
        folders.setdefault(run.labels, []).append(run)
    kept, notes = [], []
    for same in folders.values():
        named = [run for run in same if run.is_at_home] or same
        whole = [run for run in named if run.stored.state not in (State.LACKING, State.DAMAGED)]
        if len(whole) > 1:
            raise InputError(
                f"{whole[0].stored.path} and {whole[1].stored.path} hold the same run; move one of "
                "them elsewhere"
            )
        chosen = (whole or named)[0]
        kept.append(chosen)
        notes += [
            f"{run.stored.path} is left out, as {chosen.stored.path} holds the same run"
            for run in same
            if run is not chosen
        ]
    return kept, notes


def _labels(
    run: StoredRun, protocols: Mapping[str, str], datasets: Mapping[str, str]
) -> _Labels | None:
    """The labels of a run by its record, else by its path; None where neither gives them."""
    if run.record is not None:
        of = run.record.identity
        return _Labels(of.protocol, of.dataset, of.label, of.config_hash, of.seed)
    protocol, dataset, algorithm, seed = _last_parts(run.path)
    match = RUN_NAMES.fullmatch(f"{algorithm}/{seed}")
    if match is None:
        return None
    protocol, dataset = protocols.get(protocol, protocol), datasets.get(dataset, dataset)
    return _Labels(protocol, dataset, match[1], match[2], int(match[3]))


def _last_parts(path: Path) -> list[str]:
    """The names of a run folder's path: protocol, data set, algorithm with config hash, seed."""
    return ["", "", "", *path.absolute().parts][-4:]


def _with_distinct_datasets(runs: Sequence[_Run]) -> list[_Run]:
    """The runs, those on a data set of which there are several versions named after theirs."""
    versions: dict[str, set[str]] = {}
    for run in runs:
        versions.setdefault(run.dataset, set()).add(run.labels.dataset)
    return [replace(run, versioned=len(versions[run.dataset]) > 1) for run in runs]


def _with_distinct_names(runs: Sequence[_Run]) -> list[_Run]:
    """The runs, named after their protocol where a label has several, and with their settings.

    Where no values tell the configs of a label apart, their hashes stand in its names. A protocol
    that was changed is another one, on whichever data sets it ran.
    """
    protocols: dict[tuple[str, str], set[str]] = {}
    changed: dict[tuple[str, str], set[str]] = {}  # by the protocol that options changed
    configs: dict[tuple[str, str], dict[str, Mapping[str, Any] | None]] = {}
    hashes: dict[tuple[str, str], dict[str, set[str]]] = {}  # by data set
    for run in runs:
        protocol, dataset, label, config_hash, _ = run.labels
        protocols.setdefault((label, dataset), set()).add(protocol)
        changed.setdefault((label, protocol.split("@")[0].split("+")[0]), set()).add(protocol)
        of_label = configs.setdefault((label, protocol), {})
        if run.stored.record is not None:
            of_label[config_hash] = run.stored.record.identity.config
        of_label.setdefault(config_hash, None)
        cells = hashes.setdefault((label, protocol), {})
        cells.setdefault(dataset, set()).add(config_hash)
    settings = {key: settings_of(configs[key], cells.values()) for key, cells in hashes.items()}
    many_protocols = {label for (label, _), several in protocols.items() if len(several) > 1}
    many_protocols |= {
        label
        for (label, _), several in changed.items()
        if len(several) > 1 and any("+" in protocol for protocol in several)
    }
    many_configs = {label for (label, _), texts in settings.items() if texts is None}
    named = []
    for run in runs:
        label, suffixes = run.labels.label, []
        if label in many_protocols or label in many_configs:
            suffixes.append(run.labels.protocol)
        if label in many_configs:
            suffixes.append(run.labels.config_hash)
        name = f"{label} ({' '.join(suffixes)})" if suffixes else label
        texts = None if label in many_configs else settings[label, run.labels.protocol]
        setting = texts[run.labels.config_hash] if texts else ""
        named.append(replace(run, name=name, setting=setting))
    return named


def _with_ways_to_act(runs: Sequence[_Run]) -> list[_Run]:
    """The runs, each with the ways to act of all runs that differ from it in their seed alone."""
    ways: dict[tuple[str, str, str], dict[str, None]] = {}
    for run in runs:
        of_cell = ways.setdefault(run.cell, {"": None})
        of_cell.update(dict.fromkeys(row.policy for row in run.stored.rows))
    return [replace(run, ways=tuple(ways[run.cell])) for run in runs]


def _partial_ways(runs: Sequence[_Run]) -> list[tuple[str, str]]:
    """Settings and names of ways to act that some data sets of their label lack.

    Such a one could not be compared as a whole.
    """
    datasets: dict[tuple[str, str], dict[str, set[str]]] = {}  # by setting and name, and by way
    for run in runs:
        of_name = datasets.setdefault((run.setting, run.name), {})
        for way in run.ways:
            of_name.setdefault(run.named(way), set()).add(run.dataset)
    return sorted(
        (setting, way)
        for (setting, name), of_name in datasets.items()
        for way in of_name
        if of_name[way] < of_name[name]
    )


def _rows(run: _Run) -> list[dict[str, Any]]:
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
        if row.policy in run.ways
    ]


def _failures(run: _Run) -> list[Failure]:
    """One failure per way to act, where the run counts as failed."""
    cause = run.stored.cause
    if cause is None:
        return []
    return [
        Failure(run.named(way), run.dataset, run.labels.seed, cause, run.setting, way)
        for way in run.ways
    ]


def _provenance(run: _Run) -> list[dict[str, Any]]:
    """What a run's scores depend on; nothing where it has no record."""
    if run.stored.record is None:
        return []
    record = run.stored.record
    sessions = [session.model_dump() for session in record.sessions]
    for session in sessions:  # whose names are nobody's business where a report is read
        session["hardware"].pop("host", None)
    named = {"label": one_form(run.name), **({"setting": run.setting} if run.setting else {})}
    return [{**record.identity.model_dump(), **named, "sessions": sessions}]


def _unfinished_notes(runs: Sequence[_Run]) -> list[str]:
    """One note per algorithm, data set and step at which runs stand that are not done."""
    seeds: dict[tuple[str, str, int, int], list[int]] = {}
    for run in runs:
        record, rows = run.stored.record, run.stored.rows
        if run.stored.state is State.UNFINISHED and record is not None and rows:
            key = (one_form(run.shown), run.dataset, rows[-1].step, record.identity.steps)
            seeds.setdefault(key, []).append(run.labels.seed)
    return [
        f"unfinished: {name} on {dataset}, seed {', '.join(map(str, sorted(of_step)))}: "
        f"step {step:,} of {steps:,}"
        for (name, dataset, step, steps), of_step in sorted(seeds.items())
    ]


def _version_notes(runs: Sequence[_Run]) -> list[str]:
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


def _dataset_notes(runs: Sequence[_Run]) -> list[str]:
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
