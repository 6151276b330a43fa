"""The labelled score table, from which every estimate, figure and report is made.

One row per run (or per evaluation of a run): `algorithm, dataset, seed, score` and optionally
`step`, and `setting` where an algorithm was run with several hyperparameter settings. Labels travel
with the numbers, so that tasks are aligned by name and never by position.
"""

import fnmatch
import functools
import itertools
import operator
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from offrl.errors import InputError, unknown
from offrl.results.arrays import frame_of_arrays
from offrl.results.checks import (
    REQUIRED,
    algorithm_text,
    cell_text,
    check_columns,
    check_unique,
    first_few,
    form_notes,
    label_column,
    label_columns,
    label_text,
    natural,
    run_keys,
    scale_notes,
    score_column,
    whole_numbers,
    with_labels_of_index,
    written_names,
)
from offrl.results.failures import Failure, rows_of, with_names_in_one_form, without_failed_rows
from offrl.results.settings import chosen_settings, names_by_setting, with_setting
from offrl.results.steps import at_last_steps
from offrl.text import one_form


def _is_of(
    entry: Mapping[str, Any], pairs: Collection[tuple[str, str]], datasets: Collection[str]
) -> bool:
    """Whether a provenance entry is of one of these runs, or of a file.

    Args:
        entry: of a table's provenance.
        pairs: algorithms, each with a setting.
        datasets: names of data sets.
    """
    dataset = str(entry.get("dataset", ""))
    named = {dataset, dataset.partition("@")[0]}  # with its version where there are several
    pair = entry.get("label"), entry.get("setting", "")
    return "label" not in entry or (pair in pairs and not named.isdisjoint(datasets))


def _by_setting(
    entry: Mapping[str, Any], names: Mapping[tuple[str, str], str]
) -> Mapping[str, Any]:
    """A provenance entry whose label has the setting."""
    pair = (entry.get("label", ""), entry.get("setting", ""))
    if pair not in names:
        return entry
    return {**{k: v for k, v in entry.items() if k != "setting"}, "label": names[pair]}


@dataclass(frozen=True, eq=False, repr=False)
class ScoreTable:
    """Scores with their labels, checked once; make one with `from_frame` or `from_arrays`.

    `frame` has the columns algorithm, dataset, setting (text; only where there are several),
    seed (integer), step (nullable integer, where there are steps), score (float) and whatever else
    the source has, sorted by the labels. It belongs to the table: copy it before changing it.

    An algorithm may act in several ways, each scored under a name of its own, "NAME: WAY", and with
    the column way (text, empty for the first one). All are of the same runs: see `ways`.
    """

    frame: pd.DataFrame
    scale: float = 100.0  # what a score of "solved" is: 100 or 1; the optimality gap's gamma
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()  # for the reader: interim scores, unequal steps, ...
    provenance: tuple[Mapping[str, Any], ...] = ()  # one per run, or one per score file
    written: frozenset[tuple[str, str]] = frozenset()  # see `from_frame`

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
        written: Collection[tuple[str, str]] | None = None,
        complete: bool = True,
    ) -> "ScoreTable":
        """A checked table; raises InputError with the row, cell or column that is wrong.

        Args:
            frame: columns (or levels of its index) algorithm, dataset, seed, score, and optionally
                step (an empty step is a run's only score), setting (the hyperparameter setting of
                the algorithm, any text), failure (a cause, or whether the run failed: its score is
                ignored then), way (see above), last_evaluations (how many of a run's last
                evaluations its score is the mean of; 1 where there is none) and others, which are
                carried along.
            where: the file or object that messages name.
            scale: 100 or 1, the score that stands for the reference's upper end.
            failures: runs without a score. Rows of such a run leave the table: part of a run is
                not a score. Several causes of a run are joined.
            notes: lines for the reader.
            provenance: where the scores come from, one mapping per run or per file.
            written: pairs of a column and a name in it that is not ASCII, in each Unicode form in
                which the sources have it (the table has one, and a note says so); by default those
                of the frame and the failures.
            complete: whether every algorithm, with every setting it has, must have every data set
                that another has. Pass False for a part that is merged later (`merge` checks the
                whole).
        """
        if scale not in (1, 100):
            raise InputError(f"{where}: scale {scale:g}; expected 100 (scores 0-100) or 1 (0-1)")
        frame = with_labels_of_index(frame)
        check_columns(frame, where)
        failed = list(failures)
        if written is None:
            written = written_names(frame) | written_names(rows_of(failed))
        frame = frame.copy()
        for column in ("algorithm", "dataset"):
            frame[column] = label_column(frame, column, where)
        if "setting" in frame:
            frame["setting"] = list(map(label_text, frame["setting"]))
        if "way" in frame:
            frame["way"] = list(map(label_text, frame["way"]))
        frame["seed"] = whole_numbers(frame, "seed", where)
        frame, own = without_failed_rows(frame)
        failed = [*map(with_names_in_one_form, failed), *own]
        run = operator.attrgetter("algorithm", "dataset", "setting", "seed")
        failed = [  # one for each run
            replace(first, cause="; ".join(dict.fromkeys(f.cause for f in (first, *others))))
            for _, (first, *others) in itertools.groupby(
                sorted(failed, key=lambda f: (run(f), f.cause)), run
            )
        ]
        gone = {(f.algorithm, f.setting, f.dataset, f.seed) for f in failed}
        if gone:
            kept = np.array([run not in gone for run in run_keys(frame)], dtype=bool)
            frame = frame[kept].copy()
        for column in ("setting", "way"):
            if column in frame and (frame[column] == "").all():
                del frame[column]
        if "step" in frame:
            frame["step"] = whole_numbers(frame, "step", where, optional=True)
            if frame["step"].isna().all():
                del frame["step"]
        if "last_evaluations" in frame:
            last = whole_numbers(frame, "last_evaluations", where, optional=True)
            frame["last_evaluations"] = last.fillna(1).clip(lower=1).astype("int64")
            if (frame["last_evaluations"] == 1).all() or "step" not in frame:
                del frame["last_evaluations"]
        frame["score"] = score_column(frame, where)
        if not len(frame) and not failed:
            raise InputError(f"{where}: no rows; expected one row per run: {', '.join(REQUIRED)}")
        check_unique(frame, where)
        labels = label_columns(frame)
        rest = [c for c in frame.columns if c not in (*labels, "score")]
        frame = frame[[*labels, "score", *rest]].sort_values(labels).reset_index(drop=True)
        frame.index.name = None
        more = [*form_notes(written), *scale_notes(frame, where, scale)]
        table = cls(
            frame,
            float(scale),
            tuple(failed),
            tuple(dict.fromkeys([*map(str, notes), *more])),
            tuple(provenance),
            frozenset(written),
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
        the axis. Swapped axes are noticed by their lengths, so not where there are as many runs
        as data sets.

        Args:
            scores: one array per algorithm, all finite.
            datasets: the names of the columns; a mapping from algorithm to names where the orders
                of columns differ.
            seeds: of the runs, or a mapping from algorithm to seeds; 0, 1, ... by default.
            steps: of the third axis; None for arrays without one.
            scale: as in `from_frame`.
        """
        return cls.from_frame(frame_of_arrays(scores, datasets, seeds, steps), scale=scale)

    def __repr__(self) -> str:
        """What the table holds, in a line."""
        number = sum(not failure.unfinished for failure in self.failures)
        failed = f", {number:,} failures" if number else ""
        return (
            f"ScoreTable({len(self.algorithms):,} algorithms, {len(self.datasets):,} data sets, "
            f"{len(self.frame):,} rows{failed}, scores on 0-{self.scale:g})"
        )

    def _repr_html_(self) -> str:
        """The same and the first rows, as notebooks show it."""
        return f"<p>{self!r}</p>{self.frame.head(10).to_html(notebook=True)}"

    @property
    def algorithms(self) -> list[str]:
        """Names of all algorithms in natural order; those whose every run failed included.

        Other ways to act have names of their own among them: see `main_algorithms`.
        """
        names = {*self.frame["algorithm"], *(f.algorithm for f in self.failures)}
        return sorted(names, key=natural)

    @property
    def ways(self) -> dict[str, str]:
        """Names under which an algorithm acts in another way, each with the algorithm's own name.

        Their scores are of the algorithm's own runs, so that they are neither algorithms nor runs
        of their own. Where the table lacks the algorithm's own name they stand for it.
        """
        pairs = {(failure.algorithm, failure.way) for failure in self.failures}
        if "way" in self.frame:
            pairs |= {*zip(self.frame["algorithm"], self.frame["way"], strict=True)}
        own = {name: name.removesuffix(f": {way}") for name, way in sorted(pairs) if way}
        names = set(self.algorithms)
        return {name: main for name, main in own.items() if main != name and main in names}

    @property
    def main_algorithms(self) -> list[str]:
        """Names of all algorithms without other ways to act: each algorithm once."""
        ways = self.ways
        return [name for name in self.algorithms if name not in ways]

    @property
    def datasets(self) -> list[str]:
        """Names of all data sets in natural order."""
        return sorted({*self.frame["dataset"], *(f.dataset for f in self.failures)}, key=natural)

    def check_complete(self, where: str = "scores") -> None:
        """Raises InputError if an algorithm, or one of its settings, lacks another's data set.

        A cell whose runs all failed is not missing: the report shows it.
        """
        runs = self._runs_by_cell()
        rows = sorted({(a, s) for a, s, _ in runs}, key=lambda row: [*map(natural, row)])
        missing = [(a, s, d) for a, s in rows for d in self.datasets if (a, s, d) not in runs]
        if missing:
            (algorithm, setting, dataset), *rest = missing
            other = next(algorithm_text(a, s) for a, s in rows if (a, s, dataset) in runs)
            more = f" ({len(rest)} more cells are missing: {first_few(rest, cell_text)})"
            raise InputError(
                f"{where}: {algorithm_text(algorithm, setting)} has no score on {dataset!r}, "
                f"which {other} has{more if rest else ''}; add its runs, leave the data set out "
                "for all (--common does), or give one protocol's folder of runs (such as "
                "runs/quickstart)"
            )

    def only(self, algorithms: Iterable[str]) -> "ScoreTable":
        """A table of these algorithms alone."""
        names = set(map(one_form, algorithms))
        return replace(
            self,
            frame=self.frame[self.frame["algorithm"].isin(list(names))].reset_index(drop=True),
            failures=tuple(failure for failure in self.failures if failure.algorithm in names),
        )

    def selected(
        self,
        *,
        algorithms: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        common: bool = False,
        where: str = "scores",
    ) -> "ScoreTable":
        """A table of some algorithms on some data sets; InputError where nothing is left.

        Args:
            algorithms: names, or "ALGORITHM (SETTING)"; the other ways to act of each come with it.
                None for all.
            datasets: names, or patterns such as "hopper-*". None for all.
            common: whether to leave out data sets that one of these algorithms lacks; a note then
                says which.
            where: what messages name.
        """
        wanted = self.algorithms if algorithms is None else algorithms
        pairs = chosen_settings(wanted, self._names_by_setting, self.ways)
        kept: set[str] = set()
        for pattern in self.datasets if datasets is None else map(one_form, datasets):
            matching = {pattern} & {*self.datasets} or set(fnmatch.filter(self.datasets, pattern))
            if not matching:
                raise unknown("data set", pattern, self.datasets)
            kept |= matching
        notes = list(self.notes)
        cells = [(a, s, d) for a, s, d in self._runs_by_cell() if (a, s) in pairs and d in kept]
        if common:
            every = {(algorithm, setting) for algorithm, setting, _ in cells}
            having = Counter(dataset for _, _, dataset in cells)
            lacking = sorted((d for d in having if having[d] < len(every)), key=natural)
            kept -= {*lacking}
            if not kept:
                raise InputError(
                    f"{where}: no data set that all of these algorithms have; choose some of them"
                )
            if lacking:
                notes.append(
                    f"common: {len(kept)} of {len(having)} data sets, as the others lack an "
                    f"algorithm: {first_few(lacking)}"
                )
        starts = tuple(
            f"unfinished: {with_setting(*pair)} on {dataset}, "
            for pair in self._names_by_setting
            for dataset in self.datasets
            if pair not in pairs or dataset not in kept
        )
        rows = self.frame["dataset"].isin(kept).to_numpy(dtype=bool)
        rows &= [(a, s) in pairs for a, s, _, _ in run_keys(self.frame)]
        table = replace(
            self,
            frame=self.frame[rows].reset_index(drop=True),
            failures=tuple(
                f for f in self.failures if (f.algorithm, f.setting) in pairs and f.dataset in kept
            ),
            notes=tuple(note for note in notes if not note.startswith(starts)),
            provenance=tuple(e for e in self.provenance if _is_of(e, pairs, kept)),
        )
        if not len(table.frame) and not table.failures:
            raise InputError(f"{where}: none of these algorithms has one of these data sets")
        return table

    def check_several_runs(self, where: str = "scores") -> None:
        """Raises InputError if a cell has fewer than two finished runs, as no spread is known then.

        A cell is an algorithm on a data set, with one setting where there are several.
        """
        few = [
            f"{cell_text(cell)} ({seeds if seeds else 'none finished'})"
            for cell, seeds in sorted(self._runs_by_cell().items())
            if seeds < 2
        ]
        if few:
            raise InputError(
                f"{where}: fewer than two runs of {first_few(few)}; an interval or a comparison "
                "needs two runs or more of every cell: add seeds, or leave these cells out for all"
            )

    def check_one_setting(self, where: str = "scores") -> None:
        """Raises InputError if an algorithm has several settings, which are not pooled."""
        settings: dict[str, dict[str, None]] = {}
        for algorithm, setting, _ in sorted(self._runs_by_cell()):
            settings.setdefault(algorithm, {})[setting] = None
        for algorithm, several in settings.items():
            if len(several) > 1:
                raise InputError(
                    f"{where}: {algorithm!r} has {len(several)} settings, which are not pooled: "
                    f"{first_few(list(several), repr)}; estimate its expected online performance "
                    "(offrl budget), keep one setting, or tell them apart in the algorithm's name"
                )

    def by_setting(self) -> "ScoreTable":
        """A table in which each setting of an algorithm that has several is one of its own.

        Its name is "ALGORITHM (SETTING)", or "ALGORITHM (SETTING): WAY"; InputError where another
        algorithm is called so.
        """
        names = self._names_by_setting
        if len({*names.values()}) < len(names):
            twice = next(name for name, n in Counter(names.values()).items() if n > 1)
            raise InputError(f"two settings are called {twice!r}; rename an algorithm or a setting")
        if "setting" not in self.frame and not any(f.setting for f in self.failures):
            return self
        columns = [self.frame["algorithm"], self.frame.get("setting", [""] * len(self.frame))]
        frame = self.frame.assign(algorithm=[names[key] for key in zip(*columns, strict=True)])
        return ScoreTable.from_frame(
            frame.drop(columns="setting", errors="ignore"),
            scale=self.scale,
            failures=[
                replace(f, algorithm=names[f.algorithm, f.setting], setting="")
                for f in self.failures
            ],
            notes=self.notes,
            provenance=[_by_setting(entry, names) for entry in self.provenance],
            written=self.written,
            complete=False,
        )

    def names_by_setting(self, algorithm: str) -> list[str]:
        """What `by_setting` calls an algorithm of this table; the name itself if it has none."""
        names = [name for (of, _), name in self._names_by_setting.items() if of == algorithm]
        return names or [algorithm]

    @functools.cached_property
    def _names_by_setting(self) -> dict[tuple[str, str], str]:
        """The names that `by_setting` gives, by algorithm and setting."""
        cells = sorted(self._runs_by_cell())
        return names_by_setting(
            [(algorithm, setting) for algorithm, setting, _ in cells], self.ways
        )

    def _runs_by_cell(self) -> dict[tuple[str, str, str], int]:
        """Numbers of finished runs by (algorithm, setting, data set); 0 where all of them failed.

        The setting is empty where there is none.
        """
        runs = {(f.algorithm, f.setting, f.dataset): 0 for f in self.failures}
        columns = [c for c in label_columns(self.frame) if c != "step"]
        for algorithm, setting, dataset, _ in run_keys(self.frame.drop_duplicates(columns)):
            cell = (algorithm, setting, dataset)
            runs[cell] = runs.get(cell, 0) + 1
        return runs

    def final(self) -> "ScoreTable":
        """A table with one score per run: each cell at the greatest step that its runs share.

        A run's score is that of its evaluation at this step or, where the table has
        `last_evaluations`, the mean score of so many up to it, or of all where there are fewer; the
        other columns are those of the evaluation at this step.

        A cell (algorithm, data set and setting) where some run lacks the greatest step seen is
        interim, and a note says so. Raises InputError where the runs of a cell share no step.
        """
        return self if "step" not in self.frame else self._at_last_steps

    @functools.cached_property
    def _at_last_steps(self) -> "ScoreTable":
        """What `final` returns, computed once: every estimate begins with it."""
        frame, notes = at_last_steps(self.frame)
        table = replace(self, frame=frame, notes=tuple(dict.fromkeys([*self.notes, *notes])))
        table.__dict__["_at_last_steps"] = table  # which has one step per cell
        return table

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
        failed = rows_of(self.failures)
        for column in ("setting", "way"):
            if column not in self.frame and (failed[column] == "").all():
                del failed[column]
        return pd.concat([self.frame.assign(failure=""), failed], ignore_index=True)
