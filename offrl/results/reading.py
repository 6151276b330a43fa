"""How a table that others wrote becomes rows of a score table.

A table with the columns algorithm, dataset, seed and score is taken as it is. Of another one the
columns are found by their names, or by what the user says of them, and a wide table becomes a row
per score. Every such choice is a note, so that a reader of the scores sees what was understood.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from offrl.errors import InputError, unknown
from offrl.results import formats, run_names
from offrl.results.checks import (
    REQUIRED,
    check_columns,
    first_few,
    label_text,
    with_labels_of_index,
)
from offrl.results.returns import AUTO, normalised
from offrl.results.steps import BEST, LAST, OF_BEST, at_shared_steps, without_words
from offrl.text import one_form

RUN, RETURN = "run", "return"  # columns of a table that is not read yet
OURS = ("algorithm", "dataset", "seed", "step", "score", RETURN, "setting", "failure", RUN)
# Names that mean a column, without case, spaces and underscores; an exact name comes before these.
SYNONYMS: Mapping[str, Sequence[str]] = {
    "algorithm": ("algorithm", "algo", "algorithmname", "method", "agent"),
    "dataset": ("dataset", "datasetname", "env", "envname", "envid", "environment", "task", "game"),
    "seed": ("seed", "randomseed", "run", "trial"),
    "step": (
        *("step", "steps", "globalstep", "timestep", "timesteps"),
        *("gradientstep", "gradientsteps", "trainingstep", "trainingsteps"),
    ),
    "score": (),
    RETURN: ("return", "rawreturn", "meanreturn", "episodereturn", "episodicreturn", "evalreturn"),
    "setting": ("setting", "hyperparameters", "hparams"),
}
# Names such as eval/normalized_score and normalised_score_mean, without spaces and underscores.
_SCORE = re.compile(r"score|[a-z0-9.]*normali[sz]ed(?:score|return)(?:mean)?")
_SPREAD = re.compile(r"\s*[-+]?[0-9.]+(?:e[-+]?[0-9]+)?\s*(?:±|\+/?-|\+-)\s*[0-9.]+.*", re.DOTALL)
_SEEDS = re.compile(r"(?:seed|run)?[ _-]?([0-9]+)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?(?:inf|nan)|")


@dataclass(frozen=True)
class Reading:
    """What the user says of a table of others; nothing by default, as most tables need nothing.

    Attributes:
        columns: the table's columns by what they are, one of OURS: `{"algorithm": "algo"}`.
        fill: labels that all rows share: `{"dataset": "hopper-medium-v2"}`.
        where: the rows that count, by the texts that a column may have: `{"step": ("final",)}`.
        rename: new names of algorithms and data sets: `{"TD3+BC": "td3_bc"}`.
        run_name: how the names of runs are made: "{algorithm}-{dataset}-{seed}".
        normalise: cards whose reference returns bring raw returns to the scale of scores: paths or
            ids, and "auto" for the shipped card of each data set's name. They are those of the
            column `return`, or of `score` where there is none.
        tolerance: evaluations of different runs on a data set whose steps differ by so much at most
            count as made at one step, the greatest of them.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    fill: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    run_name: str | None = None
    normalise: Sequence[str] = ()
    tolerance: int = 0

    def __post_init__(self) -> None:
        for name in [*self.columns, *self.fill]:
            if name not in OURS:
                raise unknown("column", name, OURS)
        if self.tolerance < 0:
            raise InputError(f"tolerance {self.tolerance}: expected a number of steps, 0 or more")
        if self.run_name is not None:
            run_names.pattern_of(self.run_name)


AS_IT_IS = Reading()


def understood(
    rows: pd.DataFrame | formats.Rows,
    where: str,
    reading: Reading = AS_IT_IS,
    scale: float = 100.0,
) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a table, with the columns that `ScoreTable.from_frame` takes, and notes.

    Args:
        rows: cells as a file or a program has them, or rows of a reader of others' scores.
        where: the file or object that messages name.
        reading: what the user says of it.
        scale: 100 or 1, that of scores which are made from returns.
    """
    frame = rows.frame if isinstance(rows, formats.Rows) else rows
    frame = with_labels_of_index(frame).rename(columns=str)
    is_ours = {*REQUIRED} <= {*frame.columns} and frame.columns.is_unique
    if is_ours and reading == AS_IT_IS and not isinstance(rows, formats.Rows):
        return without_words(frame, where)
    table = _Table(frame, where, reading)
    if isinstance(rows, formats.Rows):
        table.take(rows)
    else:
        table.take_format()
    table.name_columns()
    table.filter()
    table.find_columns()
    table.lengthen()
    table.read_run_names()
    table.fill()
    table.number_seeds()
    check_columns(table.frame.assign(**dict.fromkeys({"score"} & table.to_come, 0)), where)
    table.rename()
    frame, notes = without_words(table.frame, where)
    notes = [*table.notes, *notes]
    if RETURN in table.to_come:
        frame, note = normalised(frame, where, reading.normalise or (AUTO,), scale)
        notes.append(note)
    if reading.tolerance:
        frame, more = at_shared_steps(frame, where, reading.tolerance)
        notes += more
    return frame, notes


class _Table:
    """A table on its way to rows: `frame`, and `notes` on what was done."""

    def __init__(self, frame: pd.DataFrame, where: str, reading: Reading) -> None:
        self.frame, self.where, self.reading = frame, where, reading
        self.notes: list[str] = []
        self._check_once()

    @property
    def to_come(self) -> set[str]:
        """The score, and the column from which it is made, where the table has returns alone."""
        has = {*self.frame.columns}
        return {"score", RETURN} if RETURN in has and "score" not in has else set()

    def take_format(self) -> None:
        """Takes the rows that a reader of another program's tables makes of it, if one does."""
        if {*REQUIRED} <= {*self.frame.columns}:
            return
        if rows := formats.rows_of_table(self.frame, self.where):
            self.take(rows)
        self._check_once()

    def take(self, rows: formats.Rows) -> None:
        """Takes the rows of a reader."""
        frame = rows.frame
        self.notes.append(f"{self.where} is read as {rows.what}")
        if "note" in frame:
            self.notes += dict.fromkeys(note for note in frame["note"] if note)
            frame = frame.drop(columns="note")
        self.frame = frame

    def name_columns(self) -> None:
        """Gives columns the names that the user says."""
        said = self.reading.columns
        for theirs in said.values():
            if theirs not in self.frame:
                raise _unknown_column(self.where, theirs, list(self.frame.columns))
        named = {ours: self.frame[theirs] for ours, theirs in said.items()}
        gone = [name for name in self.frame if name in said or name in said.values()]
        self.frame = self.frame.drop(columns=gone).assign(**named)

    def filter(self) -> None:
        """Leaves the rows that count."""
        for column, values in self.reading.where.items():
            name = column
            if name not in self.frame:
                name = self.reading.columns.get(column) or _meant(column, self.frame) or column
            name = next((o for o, t in self.reading.columns.items() if t == column), name)
            if name not in self.frame:
                raise _unknown_column(self.where, column, list(self.frame.columns))
            cells = self.frame[name].map(label_text)
            wanted = {one_form(value).strip() for value in values}
            kept = cells.isin(wanted)
            if not kept.any():
                seen = first_few([repr(cell)[:60] for cell in dict.fromkeys(cells)])
                raise InputError(
                    f"{self.where}: no row has {column} {' or '.join(map(repr, sorted(wanted)))}; "
                    f"it has {seen}"
                )
            if not kept.all():
                self.notes.append(
                    f"{kept.sum():,} of {len(kept):,} rows of {self.where} count: those with "
                    f"{column} {' or '.join(sorted(wanted))}"
                )
            self.frame = self.frame[kept].copy()
            if len(wanted) == 1 and name == "step" and wanted <= {*LAST, *BEST}:
                self.frame = self.frame.drop(columns=name)
                if wanted <= {*BEST}:
                    self.notes.append(OF_BEST.format(self.where))

    def find_columns(self) -> None:
        """Names the columns that are missing by what the table has in their place."""
        read: dict[str, str] = {}
        for ours in SYNONYMS:
            if ours in self.frame or ours in self.reading.fill:
                continue
            if ours == RETURN and "score" in self.frame and not self.reading.normalise:
                continue
            if theirs := _meant(ours, self.frame, self.where):
                read[ours] = theirs
                self.frame = self.frame.rename(columns={theirs: ours})
        has = {*self.frame.columns}
        if self.reading.normalise and RETURN in has:
            self.frame = self.frame.drop(columns="score", errors="ignore")
        elif self.reading.normalise and "score" in has:
            self.frame = self.frame.rename(columns={"score": RETURN})
        if read:
            pairs = ", ".join(f"{theirs!r} as {ours}" for ours, theirs in read.items())
            self.notes.append(f"columns of {self.where} are read by their names: {pairs}")

    def lengthen(self) -> None:
        """Makes a wide table a row per score."""
        has = {*self.frame.columns}
        if {"score", RETURN} & has:
            return
        missing = [n for n in ("algorithm", "dataset") if n not in has | {*self.reading.fill}]
        # A column without a name is pandas' index.
        others = [str(name) for name in self.frame if name and name not in OURS]
        seeds = {name: fit[1] for name in others if (fit := _SEEDS.fullmatch(name))}
        if not missing and RUN not in has:
            others = [] if "seed" in has else list(seeds)
        values = [name for name in others if self._is_of_numbers(name)]
        if not values:
            return  # `check_columns` says what is missing
        if RUN in has:
            if len(values) == 1:
                self.notes.append(f"the scores of {self.where} are {values[0]!r:.80}")
                self.frame = self.frame.rename(columns={values[0]: "score"})
            return
        if len(missing) == 2 and "seed" in has:
            return
        each = "seed" if not missing else missing[0] if len(missing) == 1 else RUN
        if each == "algorithm" and "seed" not in has and all(map(run_names.has_seed, values)):
            each = RUN
        kept = [name for name in self.frame if name in OURS]
        left = [name for name in self.frame if name not in kept and name not in values]
        long = self.frame.melt(kept, values, each, "score", ignore_index=False)
        empty = long["score"].map(label_text) == ""
        long = long[~empty].copy()
        if each == "seed":
            long["seed"] = long["seed"].map(seeds)
        what = "data set" if each == "dataset" else each
        note = f"{self.where} has a column per {what}: {first_few([repr(v)[:60] for v in values])}"
        if left := [name for name in left if name]:
            note += f"; left out: {first_few([repr(name)[:60] for name in left])}"
        if count := int(empty.sum()):
            note += f"; empty cells, which count as no run: {count:,}"
        self.notes.append(note)
        self.frame = long

    def read_run_names(self) -> None:
        """Reads the labels that are missing from the names of runs."""
        if RUN not in self.frame:
            if self.reading.run_name is not None:
                raise InputError(
                    f"{self.where}: has no names of runs for --run-name; say which column holds "
                    "them, as in --columns run=NAME"
                )
            return
        names = self.frame[RUN].map(label_text)
        self.frame = self.frame.drop(columns=RUN)
        filled = self.reading.fill
        wanted = [n for n in ("algorithm", "dataset") if n not in self.frame and n not in filled]
        every = list(dict.fromkeys(names))
        if self.reading.run_name is not None:
            read = run_names.labels_by_template(every, self.reading.run_name, self.where)
        else:
            guess = run_names.labels_by_cards(every, wanted)
            if guess is None:
                raise run_names.no_labels(every, wanted, self.where)
            read = guess
        labels = dict(zip(every, read, strict=True))
        taken = []
        for column in run_names.FIELDS:
            if column in self.frame or not any(column in label for label in read):
                continue
            if column == "seed" and not all(column in label for label in read):
                continue
            taken.append(column)
            self.frame[column] = [labels[name][column] for name in names]
        if "seed" not in self.frame and "seed" not in filled:
            self._number(names)
        if taken:
            first = every[0]
            example = ", ".join(f"{column} {labels[first][column]:.80}" for column in taken)
            self.notes.append(f"labels are read from the names of runs: {first:.80} is {example}")

    def _number(self, names: "pd.Series[str]") -> None:
        """Numbers runs without a seed in the order in which the table has them."""
        labels = [c for c in ("algorithm", "dataset", "setting") if c in self.frame]
        runs = pd.DataFrame({**{c: self.frame[c].map(label_text) for c in labels}, RUN: names})
        runs.index = pd.RangeIndex(len(runs))
        first = runs.drop_duplicates()
        number = first.groupby(labels).cumcount() if labels else pd.Series(range(len(first)))
        numbered = first.assign(number=np.asarray(number))
        self.frame["seed"] = runs.merge(numbered, how="left")["number"].to_numpy()
        self.notes.append(f"runs of {self.where} have no seeds: they are numbered in their order")

    def fill(self) -> None:
        """Gives all rows the labels that they share by the user's word."""
        for column, value in self.reading.fill.items():
            if column in self.frame:
                raise InputError(
                    f"{self.where}: has a column {column} already, which --fill does not change; "
                    "leave that out"
                )
            self.frame[column] = value

    def number_seeds(self) -> None:
        """Numbers the rows of a cell where the table has no seeds."""
        if "seed" in self.frame or not {"algorithm", "dataset"} <= {*self.frame.columns}:
            return
        if not {"score", RETURN} & {*self.frame.columns}:
            return
        labels = [c for c in ("algorithm", "dataset", "setting") if c in self.frame]
        cells = self.frame[labels].map(label_text)
        if "step" in self.frame and self.frame["step"].map(label_text).nunique() > 1:
            steps = cells.assign(step=self.frame["step"].map(label_text))
            if steps.duplicated().any():
                return  # from_frame says that there is no column seed
            self.frame["seed"] = 0
        else:
            self.frame["seed"] = cells.groupby(labels).cumcount().to_numpy()
        self.notes.append(
            f"{self.where} has no seeds: the rows of an algorithm on a data set are numbered"
        )

    def rename(self) -> None:
        """Gives algorithms and data sets other names."""
        if not self.reading.rename:
            return
        new = {one_form(old).strip(): name for old, name in self.reading.rename.items()}
        seen: dict[str, None] = {}
        for column in ("algorithm", "dataset"):
            if column in self.frame:
                names = self.frame[column].map(label_text)
                seen |= dict.fromkeys(names)
                self.frame[column] = names.map(lambda name: new.get(name, name))
        for old in new:
            if old not in seen:
                raise unknown("algorithm or data set to rename", old, list(seen))

    def _is_of_numbers(self, name: str) -> bool:
        """Whether a column holds numbers and empty cells alone; InputError for means with ±."""
        column = self.frame[name]
        if pd.api.types.is_bool_dtype(column.dtype):
            return False
        if pd.api.types.is_numeric_dtype(column.dtype):
            return bool(column.notna().any())
        cells = [text for text in map(label_text, column) if text]
        if cells and all(map(_SPREAD.fullmatch, cells)):
            raise InputError(
                f"{self.where}: {name!r:.80} holds means and deviations, as {cells[0]!r:.40}; "
                "expected one score per run"
            )
        return bool(cells) and all(map(_NUMBER.fullmatch, cells))

    def _check_once(self) -> None:
        """Raises InputError for a column that is there twice."""
        if not self.frame.columns.is_unique:
            check_columns(self.frame, self.where)


def _plain(name: str) -> str:
    """The last part of a column's name such as eval/score, without case, spaces, _ and -."""
    return re.sub(r"[\s_-]+", "", name.rpartition("/")[2]).casefold()


def _meant(ours: str, frame: pd.DataFrame, where: str | None = None) -> str | None:
    """The one column that means `ours`, None for none; InputError for several, if `where` is given.

    A column without any content means nothing.
    """
    if ours not in SYNONYMS:
        return None
    plain = {name: _plain(name) for name in frame.columns if name not in OURS or name == RUN}
    if ours == "score":
        near = [name for name, text in plain.items() if _SCORE.fullmatch(text)]
    else:
        near = [name for name, text in plain.items() if text in SYNONYMS[ours]]
    near = [name for name in near if any(map(label_text, frame[name]))]
    if ours == "seed":
        digits = re.compile(r"[0-9]+(?:\.0*)?")
        near = [n for n in near if n != RUN or all(map(digits.fullmatch, frame[n].map(label_text)))]
    if len(near) > 1 and where is not None:
        exact = [name for name in near if plain[name] == ours]
        if len(exact) == 1:
            return exact[0]
        raise InputError(
            f"{where}: {first_few([repr(name)[:60] for name in near])} may each be the {ours}; say "
            f"which, as in --columns {ours}={near[0]}"
        )
    return near[0] if near else None


def _unknown_column(where: str, name: str, columns: Sequence[str]) -> InputError:
    near = difflib.get_close_matches(name, columns[:1_000], n=1)
    hint = f"; did you mean {near[0]!r:.80}?" if near else ""
    return InputError(
        f"{where}: no column {name!r:.80}{hint} It has {first_few([repr(c)[:60] for c in columns])}"
        if hint
        else f"{where}: no column {name!r:.80}; it has {first_few([repr(c)[:60] for c in columns])}"
    )
