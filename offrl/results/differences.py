"""What differs between two sets of runs, run by run and cell by cell."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from offrl.errors import InputError
from offrl.results.rows import Identity, RunRecord, ScoreRow, main_scores, run_score
from offrl.results.store import StoredRun, run_folders
from offrl.results.unpacking import opened

ABSENT = "no such run"


class Cell(NamedTuple):
    """One algorithm on one data set under one protocol; the hash where it has several configs."""

    protocol: str
    dataset: str
    algorithm: str
    config: str


class Difference(NamedTuple):
    """Something of a run that is not the same on both sides, in words."""

    cell: Cell
    seed: int
    what: str
    a: str
    b: str


class CellDifference(NamedTuple):
    """The scores of a cell on both sides: how many runs, and their mean; None without a score."""

    cell: Cell
    n_a: int
    n_b: int
    mean_a: float | None
    mean_b: float | None


@dataclass(frozen=True)
class Differences:
    """What differs, and the number of runs that both sides have with all the same."""

    runs: tuple[Difference, ...]
    cells: tuple[CellDifference, ...]
    same: int


def diff(a: Path, b: Path) -> Differences:
    """What differs between two bundles or folders of runs.

    A run is found again by its protocol's id, data set's id, algorithm and seed, whatever their
    versions; by its config too where a side has several of one algorithm.
    """
    with _runs(a) as ours, _runs(b) as theirs:
        several = _several(ours) | _several(theirs)
        sides = [_by_key(side, several) for side in (ours, theirs)]
    found: list[Difference] = []
    same = 0
    scores: dict[Cell, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for key in sorted({*sides[0], *sides[1]}):
        pair = [side.get(key) for side in sides]
        cell, seed = key
        for run, values in zip(pair, scores[cell], strict=True):
            score = None if run is None else _score(run)
            values += [] if score is None else [score]
        differing = _differing(pair[0], pair[1])
        found += [Difference(cell, seed, *what) for what in differing]
        same += not differing
    cells = [
        CellDifference(cell, len(x), len(y), _mean(x), _mean(y))
        for cell, (x, y) in sorted(scores.items())
    ]
    return Differences(tuple(found), tuple(cells), same)


@contextmanager
def _runs(source: Path) -> Iterator[Sequence[StoredRun]]:
    """The runs of a bundle or of a folder. Raises InputError for one that cannot be read."""
    if not source.is_dir():
        with opened(source) as bundle:
            yield bundle.runs
        return
    runs = [folder.read() for folder in run_folders(source)]
    if not runs:
        raise InputError(f"{source}: no run.json in this folder; expected runs, or a bundle")
    for run in runs:
        if run.record is None:
            raise InputError(f"{run.cause}")
    yield runs


def _record(run: StoredRun) -> RunRecord:
    assert run.record is not None, "runs without one are not compared"
    return run.record


def _cell(of: Identity, config: str) -> Cell:
    return Cell(of.protocol.split("@")[0], of.dataset.split("@")[0], of.label, config)


def _several(runs: Sequence[StoredRun]) -> set[Cell]:
    """The cells of which there are several configs, with an empty one."""
    configs: dict[Cell, set[str]] = defaultdict(set)
    for of in (_record(run).identity for run in runs):
        configs[_cell(of, "")].add(f"{of.protocol} {of.dataset} {of.config_hash}")
    return {cell for cell, hashes in configs.items() if len(hashes) > 1}


def _by_key(runs: Sequence[StoredRun], several: set[Cell]) -> dict[tuple[Cell, int], StoredRun]:
    keyed: dict[tuple[Cell, int], StoredRun] = {}
    for run in runs:
        of = _record(run).identity
        cell = _cell(of, "")
        if cell in several:
            cell = Cell(of.protocol, of.dataset, of.label, of.config_hash)
        if (key := (cell, of.seed)) in keyed:
            raise InputError(f"{run.path}: is also in {keyed[key].path}; leave one of them out")
        keyed[key] = run
    return keyed


def _score(run: StoredRun) -> float | None:
    return run_score(main_scores(run.rows), _record(run).identity.last)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _differing(a: StoredRun | None, b: StoredRun | None) -> list[tuple[str, str, str]]:
    """What differs between two runs of one key, and what each has of it."""
    if a is None or b is None:
        here, there = (ABSENT if run is None else str(_record(run).status) for run in (a, b))
        return [("run", here, there)]
    ours, theirs = _record(a), _record(b)
    found = []
    for key in ours.identity.differing(theirs.identity):
        values = [record.identity.model_dump().get(key) for record in (ours, theirs)]
        found += _of_values(key, *values)
    if ours.status != theirs.status:
        found.append(("status", str(ours.status), str(theirs.status)))
    for name in sorted({*_versions(ours), *_versions(theirs)}):
        found += _of_values(
            f"version of {name}", _versions(ours).get(name), _versions(theirs).get(name)
        )
    if len(a.rows) != len(b.rows):
        found.append(("evaluations", str(len(a.rows)), str(len(b.rows))))
    for x, y in zip(a.rows, b.rows, strict=False):
        if x.returns != y.returns:
            found.append((f"returns from step {x.step:,} on", _returns(x), _returns(y)))
            break
    return [*found, *_of_values("score", _score(a), _score(b))]


def _of_values(key: str, a: Any, b: Any) -> list[tuple[str, str, str]]:
    """The innermost values that differ, with the keys that lead to them."""
    if a == b:
        return []
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted({*a, *b})
        return [line for k in keys for line in _of_values(f"{key}.{k}", a.get(k), b.get(k))]
    x, y = ("none" if value is None else f"{value!s:.200}" for value in (a, b))
    return [(key, x, y)]


def _versions(record: RunRecord) -> dict[str, str]:
    return record.sessions[-1].versions if record.sessions else {}


def _returns(row: ScoreRow) -> str:
    mean = f", mean {row.mean_return:.6g}" if row.mean_return is not None else ""
    return f"{len(row.returns)} episodes{mean}"
