"""What the runs of a folder are called in a table: names, settings, data sets, ways to act."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from offrl.errors import InputError
from offrl.results.settings import settings_of, with_setting
from offrl.results.store import RUN_NAMES, State, StoredRun
from offrl.text import one_form


class Labels(NamedTuple):
    """What tells a run from the others."""

    protocol: str  # id@version
    dataset: str  # id@version
    label: str
    config_hash: str
    seed: int


@dataclass(frozen=True)
class Run:
    """A stored run, and what its rows are called in the table."""

    stored: StoredRun
    labels: Labels
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

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """What its scores depend on, as one entry; none where it has no record."""
        record = self.stored.record
        if record is None:
            return []
        sessions = [session.model_dump() for session in record.sessions]
        for session in sessions:  # whose names are nobody's business where a report is read
            session["hardware"].pop("host", None)
        entry = {**record.identity.model_dump(), "label": one_form(self.name)}
        if self.setting:
            entry["setting"] = self.setting
        return [{**entry, "sessions": sessions}]

    def named(self, way: str) -> str:
        """The name of the rows in which the run acts in this way; the main way is empty."""
        return f"{self.name}: {way}" if way else self.name


def labelled_runs(stored: Sequence[StoredRun]) -> tuple[list[Run], list[StoredRun]]:
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
            runs.append(Run(run, labels, labels.label))
    return runs, stray


def each_once(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Each run once, and notes on the folders that are left out as copies of others.

    A copy is in a folder of another name than its run's, or is damaged where another is not. Raises
    InputError for two whole folders of a run's name: nobody can tell which of them counts.
    """
    folders: dict[Labels, list[Run]] = {}
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
) -> Labels | None:
    """The labels of a run by its record, else by its path; None where neither gives them."""
    if run.record is not None:
        of = run.record.identity
        return Labels(of.protocol, of.dataset, of.label, of.config_hash, of.seed)
    protocol, dataset, algorithm, seed = _last_parts(run.path)
    match = RUN_NAMES.fullmatch(f"{algorithm}/{seed}")
    if match is None:
        return None
    protocol, dataset = protocols.get(protocol, protocol), datasets.get(dataset, dataset)
    return Labels(protocol, dataset, match[1], match[2], int(match[3]))


def _last_parts(path: Path) -> list[str]:
    """The names of a run folder's path: protocol, data set, algorithm with config hash, seed."""
    return ["", "", "", *path.absolute().parts][-4:]


def with_names(runs: Sequence[Run]) -> tuple[list[Run], list[tuple[str, str]]]:
    """The runs with the names of their rows, and settings and names of ways that are left out."""
    named = _with_ways_to_act(_with_distinct_names(_with_distinct_datasets(runs)))
    partial = _partial_ways(named)
    whole = [
        replace(
            run,
            ways=tuple(way for way in run.ways if (run.setting, run.named(way)) not in partial),
        )
        for run in named
    ]
    return whole, partial


def _with_distinct_datasets(runs: Sequence[Run]) -> list[Run]:
    """The runs, those on a data set of which there are several versions named after theirs."""
    versions: dict[str, set[str]] = {}
    for run in runs:
        versions.setdefault(run.dataset, set()).add(run.labels.dataset)
    return [replace(run, versioned=len(versions[run.dataset]) > 1) for run in runs]


def _with_distinct_names(runs: Sequence[Run]) -> list[Run]:
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


def _with_ways_to_act(runs: Sequence[Run]) -> list[Run]:
    """The runs, each with the ways to act of all runs that differ from it in their seed alone."""
    ways: dict[tuple[str, str, str], dict[str, None]] = {}
    for run in runs:
        of_cell = ways.setdefault(run.cell, {"": None})
        of_cell.update(dict.fromkeys(row.policy for row in run.stored.rows))
    return [replace(run, ways=tuple(ways[run.cell])) for run in runs]


def _partial_ways(runs: Sequence[Run]) -> list[tuple[str, str]]:
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
