"""The labelled score table, from which every estimate, figure and report is made.

One row per run (or per evaluation of a run): `algorithm, dataset, seed, score` and optionally
`step`, and `setting` where an algorithm was run with several hyperparameter settings. Labels travel
with the numbers, so that tasks are aligned by name and never by position.
"""

import csv
import difflib
import gzip
import hashlib
import itertools
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from offrl.errors import InputError
from offrl.files import replacing

REQUIRED = ("algorithm", "dataset", "seed", "score")
SUFFIXES = (".csv", ".csv.gz", ".parquet")

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """A run without a score: it failed, or it never came to its first evaluation."""

    algorithm: str
    dataset: str
    seed: int
    cause: str
    setting: str = ""


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores with their labels, checked once; make one with `from_frame` or `from_arrays`.

    `frame` has the columns algorithm, dataset, setting (text; only where settings are told apart),
    seed (integer), step (nullable integer, where there are steps), score (float) and whatever else
    the source carried, sorted by the labels. It belongs to the table: copy it before changing it.
    """

    frame: pd.DataFrame
    scale: float = 100.0  # what a score of "solved" is: 100 or 1; the optimality gap's gamma
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader must know: interim scores, unequal steps, ...
    provenance: tuple[Mapping[str, Any], ...] = ()  # one per run, or one per score file

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        where: str = "scores",
        *,
        scale: float = 100.0,
        failures: Iterable[Failure] = (),
        notes: Iterable[str] = (),
        provenance: Iterable[Mapping[str, Any]] = (),
        complete: bool = True,
    ) -> "ScoreTable":
        """A checked table; raises InputError with the row, cell or column that is wrong.

        Args:
            frame: columns algorithm, dataset, seed, score, and optionally step (an empty step is a
                run's only score), setting (the hyperparameter setting of the algorithm, any text),
                failure (a cause: the run failed and its score is ignored) and others, which are
                carried along.
            where: the file or object that messages name.
            scale: 100 or 1, the score that stands for the reference's upper end.
            failures: runs without a score. Rows of such a run leave the table: part of a run is
                not a score.
            notes: lines for the reader.
            provenance: where the scores come from, one mapping per run or per file.
            complete: whether every algorithm, with every setting it has, must have every data set
                that another has. Pass False for a part that is merged later (`merge` checks the
                whole).
        """
        if scale not in (1, 100):
            raise InputError(f"{where}: scale {scale:g}; expected 100 (scores 0-100) or 1 (0-1)")
        _check_columns(frame, where)
        frame = frame.copy()
        for column in ("algorithm", "dataset"):
            frame[column] = _names(frame, column, where)
        if "setting" in frame:
            frame["setting"] = ["" if pd.isna(s) else str(s).strip() for s in frame["setting"]]
        frame["seed"] = _whole_numbers(frame, "seed", where)
        failed = list(failures)
        if "failure" in frame:
            causes = frame.pop("failure").fillna("").astype(str).str.strip()
            bad = frame[causes != ""]
            failed += [
                Failure(algorithm, dataset, int(seed), cause, setting)
                for (algorithm, setting, dataset, seed), cause in zip(
                    _runs(bad), causes[causes != ""], strict=True
                )
            ]
            frame = frame[causes == ""].copy()
        failed = sorted(
            dict.fromkeys(failed),
            key=lambda f: (f.algorithm, f.dataset, f.setting, f.seed, f.cause),
        )
        gone = {(f.algorithm, f.setting, f.dataset, f.seed) for f in failed}
        if gone:
            kept = np.array([run not in gone for run in _runs(frame)], dtype=bool)
            frame = frame[kept].copy()
        if "setting" in frame and (frame["setting"] == "").all():
            del frame["setting"]
        if "step" in frame:
            frame["step"] = _whole_numbers(frame, "step", where, optional=True)
            if frame["step"].isna().all():
                del frame["step"]
        frame["score"] = _scores(frame, where)
        if not len(frame) and not failed:
            raise InputError(f"{where}: no rows; expected one row per run: {', '.join(REQUIRED)}")
        _check_unique(frame, where)
        labels = _label_columns(frame)
        rest = [c for c in frame.columns if c not in (*labels, "score")]
        frame = frame[[*labels, "score", *rest]].sort_values(labels).reset_index(drop=True)
        frame.index.name = None
        found = [str(note) for note in notes]
        found += _scale_notes(frame, where, scale)
        table = cls(
            frame, float(scale), tuple(failed), tuple(dict.fromkeys(found)), tuple(provenance)
        )
        if complete:
            table.check_complete(where)
        return table

    @classmethod
    def from_arrays(
        cls,
        scores: Mapping[str, ArrayLike],
        datasets: Sequence[str] | Mapping[str, Sequence[str]],
        *,
        seeds: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        steps: Sequence[int] | None = None,
        scale: float = 100.0,
    ) -> "ScoreTable":
        """A checked table from rliable's arrays by algorithm, of shape (runs, tasks[, steps]).

        Numbers of runs may differ between algorithms. Raises InputError that names the cell, or
        the axis. Axes that are swapped are noticed by their lengths; where there are as many runs
        as data sets nothing can tell.

        Args:
            scores: one array per algorithm, all finite.
            datasets: the names of the columns; a mapping from algorithm to names where the orders
                of columns differ.
            seeds: of the runs, or a mapping from algorithm to seeds; 0, 1, ... by default.
            steps: of the third axis; None for arrays without one.
            scale: as in `from_frame`.
        """
        parts = []
        for algorithm, values in scores.items():
            tasks = _of(datasets, algorithm, "data set")
            array = _array(algorithm, values, len(tasks), None if steps is None else len(steps))
            runs = range(len(array)) if seeds is None else _of(seeds, algorithm, "seed")
            if len(runs) != len(array):
                raise InputError(
                    f"scores of {algorithm!r}: {len(array)} runs, but {len(runs)} seeds; expected "
                    "one seed per run"
                )
            labels: dict[str, Sequence[Any]] = {"seed": runs, "dataset": tasks}
            if steps is not None:
                labels["step"] = steps
            for name, given in labels.items():
                twice = sorted({str(label) for label in given if list(given).count(label) > 1})
                if twice:
                    raise InputError(
                        f"scores of {algorithm!r}: {name} {_some(twice)} stands there twice; "
                        "expected each once"
                    )
            index = pd.MultiIndex.from_product(cast(Any, labels.values()), names=list(labels))
            part = pd.DataFrame({"score": array.ravel()}, index=index).reset_index()
            parts.append(part.assign(algorithm=algorithm))
        if not parts:
            raise InputError("scores: no algorithm; expected algorithm -> array (runs, tasks)")
        frame = pd.concat(parts, ignore_index=True)
        bad = np.flatnonzero(~np.isfinite(frame["score"])).tolist()
        if bad:
            raise InputError(
                f"scores: not finite: {_some(bad, lambda k: _run_of(frame.iloc[k]))}; arrays may "
                "differ in runs and need no padding, and runs that failed are given with their "
                "cause (ScoreTable.from_frame)"
            )
        return cls.from_frame(frame, scale=scale)

    @property
    def algorithms(self) -> list[str]:
        """Names of all algorithms in natural order; those whose every run failed included."""
        names = {*self.frame["algorithm"], *(f.algorithm for f in self.failures)}
        return sorted(names, key=_natural)

    @property
    def datasets(self) -> list[str]:
        """Names of all data sets in natural order."""
        return sorted({*self.frame["dataset"], *(f.dataset for f in self.failures)}, key=_natural)

    def check_complete(self, where: str = "scores") -> None:
        """Raise InputError if an algorithm, or one of its settings, lacks another's data set.

        A cell whose runs failed is not missing: it is known, and the report shows it.
        """
        runs = self._runs_by_cell()
        rows = sorted({(a, s) for a, s, _ in runs}, key=lambda row: [*map(_natural, row)])
        missing = [(a, s, d) for a, s in rows for d in self.datasets if (a, s, d) not in runs]
        if missing:
            (algorithm, setting, dataset), *rest = missing
            other = next(_named(a, s) for a, s in rows if (a, s, dataset) in runs)
            more = f" ({len(rest)} more cells are missing: {_some(rest, _cell)})"
            raise InputError(
                f"{where}: {_named(algorithm, setting)} has no score on {dataset!r}, which {other} "
                f"has{more if rest else ''}; add its runs, leave the data set out for all, or give "
                "one protocol's folder of runs (such as runs/quickstart)"
            )

    def only(self, algorithms: Iterable[str]) -> "ScoreTable":
        """A table of these algorithms alone."""
        names = set(algorithms)
        return replace(
            self,
            frame=self.frame[self.frame["algorithm"].isin(list(names))].reset_index(drop=True),
            failures=tuple(failure for failure in self.failures if failure.algorithm in names),
        )

    def check_several_runs(self, where: str = "scores") -> None:
        """Raise InputError if a cell has fewer than two finished runs, as no spread is known then.

        A cell is an algorithm on a data set, with one setting where there are several.
        """
        few = [
            f"{_cell(cell)} ({seeds if seeds else 'none finished'})"
            for cell, seeds in sorted(self._runs_by_cell().items())
            if seeds < 2
        ]
        if few:
            raise InputError(
                f"{where}: fewer than two runs of {_some(few)}; an interval or a comparison needs "
                "two runs or more of every cell: add seeds, or leave these cells out for all"
            )

    def check_one_setting(self, where: str = "scores") -> None:
        """Raise InputError if an algorithm has several settings: they are not runs of one thing."""
        settings: dict[str, dict[str, None]] = {}
        for algorithm, setting, _ in sorted(self._runs_by_cell()):
            settings.setdefault(algorithm, {})[setting] = None
        for algorithm, found in settings.items():
            if len(found) > 1:
                raise InputError(
                    f"{where}: {algorithm!r} has {len(found)} settings, which are not pooled: "
                    f"{_some(list(found), repr)}; estimate its expected online performance "
                    "(offrl online), keep one setting, or tell them apart in the algorithm's name"
                )

    def _runs_by_cell(self) -> dict[tuple[str, str, str], int]:
        """Numbers of finished runs by (algorithm, setting, data set); 0 where all of them failed.

        The setting is empty where none is told.
        """
        runs = {(f.algorithm, f.setting, f.dataset): 0 for f in self.failures}
        columns = [c for c in _label_columns(self.frame) if c != "step"]
        for algorithm, setting, dataset, _ in _runs(self.frame.drop_duplicates(columns)):
            cell = (algorithm, setting, dataset)
            runs[cell] = runs.get(cell, 0) + 1
        return runs

    def final(self) -> "ScoreTable":
        """A table with one score per run: each cell at the greatest step that its runs share.

        A cell (algorithm, data set and setting) where some run lacks the greatest step seen is
        interim, and a note says so. Raises InputError where the runs of a cell share no step.
        """
        if "step" not in self.frame:
            return self
        parts, notes, last = [], [], dict[str, dict[int, list[str]]]()
        labels = [c for c in ("algorithm", "dataset", "setting") if c in self.frame]
        for label, cell in self.frame.groupby(labels, sort=True):
            algorithm, dataset, *setting = cast(tuple[str, ...], label)
            named = _named(algorithm, *setting)
            algorithm += f" ({setting[0]})" if setting and setting[0] else ""
            if cell["step"].isna().all():
                parts.append(cell)
                continue
            if cell["step"].isna().any():
                raise InputError(
                    f"{named} on {dataset!r}: some rows have a step and some have none; "
                    "give every row of this cell its step, or none"
                )
            counts = cell["step"].value_counts()
            shared = counts.index[counts == cell["seed"].nunique()]
            if not len(shared):
                raise InputError(
                    f"{named} on {dataset!r}: its runs share no step; "
                    "evaluate all seeds at the same steps"
                )
            step, greatest = int(shared.max()), int(counts.index.max())
            part = cell[cell["step"] == step]
            parts.append(part)
            last.setdefault(dataset, {}).setdefault(step, []).append(algorithm)
            if step < greatest:
                reached = cell.groupby("seed")["step"].max()
                late = ", ".join(str(seed) for seed in reached.index[reached < greatest])
                cause = f"seed {late} lacks" if late else "not every seed was evaluated at"
                notes.append(
                    f"interim: {algorithm} on {dataset} is scored at step {step:,}, "
                    f"the last that all its runs share; {cause} step {greatest:,}"
                )
        for dataset, steps in last.items():
            if len(steps) > 1:
                shown = "; ".join(f"{_listed(steps[s])} at step {s:,}" for s in sorted(steps))
                notes.append(f"unequal steps on {dataset}: {shown}")
        frame = pd.concat(parts).reset_index(drop=True) if parts else self.frame
        return replace(self, frame=frame, notes=tuple(dict.fromkeys([*self.notes, *notes])))

    def cells(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Final scores as algorithm -> data set -> one score per run, in order of seeds.

        Raises InputError where an algorithm has several settings.
        """
        self.check_one_setting()
        cells: dict[str, dict[str, NDArray[np.float64]]] = {a: {} for a in self.algorithms}
        groups = dict(iter(self.final().frame.groupby(["algorithm", "dataset"])["score"]))
        for algorithm in self.algorithms:
            for dataset in self.datasets:
                if (algorithm, dataset) in groups:
                    cells[algorithm][dataset] = groups[algorithm, dataset].to_numpy(np.float64)
        return cells

    def tidy(self) -> pd.DataFrame:
        """The rows to export: `frame`, and one row with its cause in `failure` per failed run.

        `from_frame` and `read_scores` read it back, so that an exported table keeps its failures.
        """
        if not self.failures:
            return self.frame.copy()
        failed = pd.DataFrame(
            [
                {
                    "algorithm": f.algorithm,
                    "dataset": f.dataset,
                    "setting": f.setting,
                    "seed": f.seed,
                    "failure": f.cause,
                }
                for f in self.failures
            ]
        )
        if "setting" not in self.frame and (failed["setting"] == "").all():
            del failed["setting"]
        return pd.concat([self.frame.assign(failure=""), failed], ignore_index=True)


def read_scores(path: Path, *, scale: float = 100.0, complete: bool = True) -> ScoreTable:
    """The table in a CSV (also .csv.gz) or Parquet file; columns as in `from_frame`."""
    path = Path(path)
    name = path.name.lower()
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a score table ({', '.join(SUFFIXES)})")
    if not name.endswith(SUFFIXES):
        raise InputError(f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}")
    frame = _read_parquet(path) if name.endswith(".parquet") else _read_csv(path)
    source = {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": len(frame),
    }
    return ScoreTable.from_frame(
        frame, str(path), scale=scale, provenance=[source], complete=complete
    )


def collect(sources: Sequence[Path], *, scale: float = 100.0, complete: bool = True) -> ScoreTable:
    """One table from several sources: score files, and folders of runs (which hold `run.json`).

    `scale` is that of the score files; runs are scored on 0-100, and another scale beside them is
    an InputError. `complete` is as in `ScoreTable.from_frame`.
    """
    if not sources:
        raise InputError("no source given; expected score tables or folders of runs")
    parts = []
    for source in map(Path, sources):
        if source.is_dir():
            if next(source.rglob("run.json"), None) is None:
                raise InputError(
                    f"{source}: no run.json in this folder; expected a folder of runs, or a score "
                    f"table ({', '.join(SUFFIXES)})"
                )
            if scale != 100:
                raise InputError(
                    f"{source}: runs are scored on 0-100, but scale {scale:g} is declared; bring "
                    "all scores to 0-100 and declare 100"
                )
            from offrl.results.store import read_runs

            parts.append((str(source), read_runs(source)))
        else:
            parts.append((str(source), read_scores(source, scale=scale, complete=False)))
    return merge(parts, complete=complete)


def merge(parts: Sequence[tuple[str, ScoreTable]], *, complete: bool = True) -> ScoreTable:
    """One table from several, given with names; raises InputError where they clash."""
    owner: dict[tuple[Any, ...], str] = {}
    for where, table in parts:
        if table.scale != parts[0][1].scale:
            raise InputError(
                f"{where}: scores on 0-{table.scale:g}, but {parts[0][0]} is on "
                f"0-{parts[0][1].scale:g}; bring them to one scale first"
            )
        failed = {(f.algorithm, f.setting, f.dataset, f.seed) for f in table.failures}
        for run in sorted({*_runs(table.frame)} | failed):
            if run in owner:
                raise InputError(
                    f"{where}: {_run(*run)} is also in {owner[run]}; give each run once, "
                    "or rename the algorithm of one source"
                )
            owner[run] = where
    name = " + ".join(where for where, _ in parts)
    return ScoreTable.from_frame(
        pd.concat([table.frame for _, table in parts], ignore_index=True),
        name,
        scale=parts[0][1].scale,
        failures=[failure for _, table in parts for failure in table.failures],
        notes=[note for _, table in parts for note in table.notes],
        provenance=[entry for _, table in parts for entry in table.provenance],
        complete=complete,
    )


def _read_csv(path: Path) -> pd.DataFrame:
    """The cells of a CSV file as text, indexed by line number; blank lines are left out."""
    rows, lines = [], []
    opener: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row)} cells, not {len(header)} "
                        "as in the first line"
                    )
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as CSV in UTF-8: {error}") from error
    if not header:
        raise InputError(f"{path}: the file is empty; expected columns {', '.join(REQUIRED)}")
    return pd.DataFrame(rows, columns=header, index=pd.Index(lines, name="line"), dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not readable as Parquet: {text}") from error


def _row(frame: pd.DataFrame, position: int) -> str:
    """How messages name a row: `line 7` of a CSV, else `row` and the frame's own index."""
    return f"{frame.index.name or 'row'} {frame.index[position]}"


def _label_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that tell scores apart, as far as the frame has them."""
    return [c for c in ("algorithm", "dataset", "setting", "seed", "step") if c in frame]


def _runs(frame: pd.DataFrame) -> Iterator[tuple[str, str, str, int]]:
    """The run of each row: algorithm, setting (empty where none is told), data set and seed."""
    settings = frame["setting"] if "setting" in frame else itertools.repeat("", len(frame))
    return zip(frame["algorithm"], settings, frame["dataset"], frame["seed"], strict=True)


def _named(algorithm: str, setting: str = "") -> str:
    return f"{algorithm!r} with setting {setting!r}" if setting else repr(algorithm)


def _cell(cell: tuple[str, str, str]) -> str:
    algorithm, setting, dataset = cell
    return f"{_named(algorithm, setting)} on {dataset!r}"


def _run(algorithm: str, setting: str, dataset: str, seed: Any, step: Any = None) -> str:
    at = "" if step is None or step is pd.NA else f", step {step}"
    return f"{_cell((algorithm, setting, dataset))}, seed {seed}{at}"


def _run_of(row: "pd.Series[Any]") -> str:
    """How messages name a row's run, by its labels."""
    setting, step = row.get("setting", ""), row.get("step")
    return _run(row["algorithm"], setting, row["dataset"], row["seed"], step)


def _some(items: Sequence[T], name: Callable[[T], str] = str) -> str:
    """The names of the first few items, and how many more there are."""
    first = ", ".join(map(name, items[:5]))
    return first + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _and_more(frame: pd.DataFrame, positions: Sequence[int]) -> str:
    """How messages name further rows that are wrong in the same way."""
    if not positions:
        return ""
    return f" (and {len(positions)} more: {_some(positions, lambda k: _run_of(frame.iloc[k]))})"


def _natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sort key by which `iql-9` stands before `iql-10`, whatever the case."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    key = [(p[0] not in "0123456789", int(p) if p[0] in "0123456789" else 0, p) for p in parts]
    return key, name


def _of(labels: Any, algorithm: str, what: str) -> Sequence[Any]:
    """An algorithm's labels: its own, or those that all share."""
    if not isinstance(labels, Mapping):
        return list(labels)
    if algorithm not in labels:
        raise InputError(f"scores of {algorithm!r}: no {what}s are given for this algorithm")
    return list(labels[algorithm])


def _array(algorithm: str, values: ArrayLike, tasks: int, steps: int | None) -> NDArray[np.float64]:
    """The scores as (runs, tasks), or (runs, tasks, steps); InputError for another shape."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal lengths
        array = np.array(None)
    axes, wanted = ["runs", "data sets"], [tasks]
    if steps is not None:
        axes, wanted = [*axes, "steps"], [*wanted, steps]
    shape = f"(runs, {', '.join(map(str, wanted))})"
    if array.dtype.kind not in "iuf" or array.ndim != len(axes):
        found = f"shape {array.shape}" if array.dtype.kind in "iuf" else "no array of numbers"
        hint = "; give its steps" if array.ndim == 3 and steps is None else ""
        raise InputError(f"scores of {algorithm!r}: {found}; expected {shape}{hint}")
    if list(array.shape[1:]) != wanted:
        hint = ""
        for order in itertools.permutations(range(array.ndim)):
            if [array.shape[k] for k in order[1:]] == wanted:
                seen = ", ".join(axes[order.index(k)] for k in range(array.ndim))
                hint = f"; its axes seem to be ({seen}): pass array.transpose{order}"
                break
        named = f"{tasks} data sets" + ("" if steps is None else f" and {steps} steps")
        raise InputError(
            f"scores of {algorithm!r}: shape {array.shape}, but {named} named; expected "
            f"{shape}{hint}"
        )
    if not array.size:
        raise InputError(f"scores of {algorithm!r}: shape {array.shape} is empty; expected {shape}")
    return array.astype(np.float64)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _check_columns(frame: pd.DataFrame, where: str) -> None:
    columns = [str(column) for column in frame.columns]
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(f"{where}: column {column!r} stands there twice; rename one")
    for column in REQUIRED:
        if column not in columns:
            others = [name for name in columns if name not in REQUIRED]
            near = [name for name in others if column in name.lower()]
            near = near or difflib.get_close_matches(column, others, n=1)
            hint = f"; if {near[0]!r} is meant, rename it" if near else ""
            raise InputError(
                f"{where}: no column {column!r}; expected {', '.join(REQUIRED)} "
                f"(and step, where there are several), found {', '.join(columns) or 'none'}{hint}"
            )


def _names(frame: pd.DataFrame, column: str, where: str) -> list[str]:
    names = ["" if pd.isna(value) else str(value).strip() for value in frame[column]]
    if "" in names:
        raise InputError(
            f"{where}, {_row(frame, names.index(''))}: the {column} is empty; expected its name"
        )
    return names


def _whole_numbers(
    frame: pd.DataFrame, column: str, where: str, *, optional: bool = False
) -> "pd.Series[Any]":
    """A column of whole numbers (nullable integers where it may be empty)."""

    def whole(value: Any) -> int | None:
        if optional and (value is None or value is pd.NA or value == "" or value != value):
            return None
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                value = float(value)
        if isinstance(value, bool | np.bool_) or value != int(value) or value < 0:
            raise ValueError(value)
        return int(value)

    numbers: list[int | None] = []
    for position, value in enumerate(frame[column]):
        try:
            numbers.append(whole(value))
        except (ValueError, TypeError, OverflowError):
            shown = "empty" if str(value).strip() in ("", "nan", "<NA>", "None") else repr(value)
            raise InputError(
                f"{where}, {_row(frame, position)}: {column} is {shown}; "
                f"expected a whole number, 0 or more"
            ) from None
    dtype = "Int64" if optional else "int64"
    try:
        return pd.Series(numbers, index=frame.index, dtype=dtype)
    except OverflowError:
        raise InputError(f"{where}: a {column} is above 2^63; expected smaller numbers") from None


def _scores(frame: pd.DataFrame, where: str) -> NDArray[np.float64]:
    scores = np.empty(len(frame))
    for position, value in enumerate(frame["score"]):
        try:
            if isinstance(value, bool | np.bool_):
                raise ValueError
            scores[position] = np.nan if value is pd.NA or value == "" else float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{where}, {_row(frame, position)}: score is {value!r}; expected a number"
            ) from None
    bad = np.flatnonzero(~np.isfinite(scores)).tolist()
    if bad:
        row = frame.iloc[bad[0]]
        value = "empty" if row["score"] is pd.NA or row["score"] == "" else scores[bad[0]]
        raise InputError(
            f"{where}, {_row(frame, bad[0])}: score of {_run_of(row)} is {value}"
            f"{_and_more(frame, bad[1:])}; expected a finite number (a run that failed gives its "
            "cause in a column 'failure' instead)"
        )
    return scores


def _check_unique(frame: pd.DataFrame, where: str) -> None:
    labels = _label_columns(frame)
    twice = np.flatnonzero(frame.duplicated(cast(list[Hashable], labels))).tolist()
    if twice:
        later = twice[0]
        key = frame.iloc[later]
        same = np.logical_and.reduce(
            [
                (frame[c] == key[c]).fillna(False) if not pd.isna(key[c]) else frame[c].isna()
                for c in labels
            ]
        )
        first = int(np.flatnonzero(same)[0])
        raise InputError(
            f"{where}, {_row(frame, later)}: a second score for {_run_of(key)} (the first: "
            f"{_row(frame, first)}){_and_more(frame, twice[1:])}; keep one, or tell settings apart "
            "in a column 'setting' or in the algorithm's name"
        )


def _scale_notes(frame: pd.DataFrame, where: str, scale: float) -> list[str]:
    """A doubt about the declared scale: a factor of 100 changes the optimality gap in silence."""
    if not len(frame):
        return []
    largest = float(frame["score"].abs().max())
    if scale == 100 and largest <= 1.5:
        doubt = "declare scale 1 if 1 is the reference's upper end"
    elif scale == 1 and largest > 10:
        doubt = "declare scale 100 if 100 is the reference's upper end"
    else:
        return []
    return [
        f"scale: the largest score of {where} is {largest:.4g} in size, though 0-{scale:g} is "
        f"declared; {doubt}"
    ]


def write_scores(table: ScoreTable, path: Path) -> None:
    """Writes a table's rows and failures to a .csv or .parquet file that `read_scores` reads."""
    frame = table.tidy()
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: expected a name that ends in .csv or .parquet")
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_parquet(temporary, index=False)
