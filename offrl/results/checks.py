"""Checks of score tables; their messages name the row, cell or column that is wrong."""

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offrl.errors import InputError
from offrl.text import one_form

REQUIRED = ("algorithm", "dataset", "seed", "score")
NAMES = ("algorithm", "dataset", "setting")
TOO_LARGE = 2**63  # for a seed or a step
LARGEST = 1e75  # of a score, in size: tests square its variance
# Words in the names of columns that are meant by those that are missing.
MEANT = {
    "algorithm": ("algo", "method", "agent"),
    "dataset": ("dataset", "data_set", "data set", "env", "task"),
    "seed": ("seed",),
    "score": ("score",),
}
LISTED = 1_000  # columns among which a message looks for one that is meant
WIDE = 6  # columns without labels that look like one for each run
# Cells of a column `failure` that say that the run did not fail.
WELL = {
    *("", "false", "f", "0", "0.0", "no", "n", "none", "null", "nan", "na", "n/a", "<na>", "-"),
    *("ok", "success", "succeeded", "done", "finished", "completed", "passed"),
}
T = TypeVar("T")


def _row(frame: pd.DataFrame, position: int) -> str:
    """How messages name a row: `line 7` of a CSV, else `row` and the frame's own index."""
    return f"{frame.index.name or 'row'} {frame.index[position]}"


def label_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that identify a score, as far as the frame has them."""
    return [c for c in ("algorithm", "dataset", "setting", "seed", "step") if c in frame]


def run_keys(frame: pd.DataFrame) -> Iterator[tuple[str, str, str, int]]:
    """The run of each row: algorithm, setting (empty where there is none), data set and seed."""
    settings = frame["setting"] if "setting" in frame else itertools.repeat("", len(frame))
    return zip(frame["algorithm"], settings, frame["dataset"], frame["seed"], strict=True)


def algorithm_text(algorithm: str, setting: str = "") -> str:
    """How messages name an algorithm, with its setting if it has one."""
    return f"{algorithm!r} with setting {setting!r}" if setting else repr(algorithm)


def cell_text(cell: tuple[str, str, str]) -> str:
    """How messages name a cell: (algorithm, setting, data set)."""
    algorithm, setting, dataset = cell
    return f"{algorithm_text(algorithm, setting)} on {dataset!r}"


def run_text(algorithm: str, setting: str, dataset: str, seed: Any, step: Any = None) -> str:
    """How messages name a run, or an evaluation of it."""
    at = "" if step is None or step is pd.NA else f", step {step}"
    return f"{cell_text((algorithm, setting, dataset))}, seed {seed}{at}"


def run_of(row: "pd.Series[Any]") -> str:
    """How messages name a row's run, by its labels."""
    setting, step = row.get("setting", ""), row.get("step")
    return run_text(row["algorithm"], setting, row["dataset"], row["seed"], step)


def first_few(items: Sequence[T], name: Callable[[T], str] = str) -> str:
    """The names of the first few items, and how many more there are."""
    first = ", ".join(map(name, items[:5]))
    return first + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _and_more(frame: pd.DataFrame, positions: Sequence[int]) -> str:
    """How messages name further rows that are wrong in the same way."""
    if not positions:
        return ""
    return f" (and {len(positions)} more: {first_few(positions, lambda k: run_of(frame.iloc[k]))})"


def natural(name: str) -> tuple[list[tuple[bool, int, str, str]], str]:
    """A sort key by which `iql-9` stands before `iql-10`, whatever the case."""
    key = []
    for part in re.findall(r"[0-9]+|[^0-9]+", name.casefold()):
        # Digits in order of length, then of value: `int` takes no more than some thousands.
        number = part.lstrip("0") if part[0] in "0123456789" else None
        if number is None:
            key.append((True, 0, part, part))
        else:
            key.append((False, len(number), number, part))
    return key, name


def label_text(value: Any) -> str:
    """A cell as stripped text in Unicode's form NFC; empty where nothing stands in it."""
    if isinstance(value, str):
        return one_form(value).strip()
    missing = pd.api.types.is_scalar(value) and pd.isna(value)
    return "" if missing else one_form(str(value)).strip()


def written_names(frame: pd.DataFrame) -> set[tuple[str, str]]:
    """Names as a frame has them that was not yet checked, by column, where they are not ASCII."""
    return {
        (column, name.strip())
        for column in NAMES
        for name in frame.get(column, ())  # of any kind, unhashable ones too
        if isinstance(name, str) and not name.isascii()
    }


def form_notes(written: Collection[tuple[str, str]]) -> list[str]:
    """Which names stand in several Unicode forms, among names by column as they were written."""
    notes = []
    for column in NAMES:
        names = Counter(one_form(name) for of, name in sorted(written) if of == column)
        if several := [name for name, forms in names.items() if forms > 1]:
            notes.append(
                f"the {column} {first_few(several, repr)} is written in several Unicode forms, "
                "which are taken as one name"
            )
    return notes


def cause_of(value: Any) -> str:
    """The cause in a cell of a column `failure`; empty where the run did not fail.

    A column of truth values (or 0 and 1, or words for them) says whether, and no cause.
    """
    text = label_text(value)
    if text.lower() in WELL:
        return ""
    return "no cause is given" if text.lower() in ("true", "t", "1", "1.0", "yes", "y") else text


def with_labels_of_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with labels as columns that stand in its index."""
    labels = [*REQUIRED, "step", "setting", "failure", "way"]
    moved = [name for name in frame.index.names if name in labels and name not in frame.columns]
    return frame.reset_index(level=moved) if moved else frame


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:60]}..."


def check_columns(frame: pd.DataFrame, where: str) -> None:
    """Raises InputError for a column that is missing or there twice."""
    columns = [str(column) for column in frame.columns]
    twice = [column for column, number in Counter(columns).items() if number > 1]
    if twice:
        raise InputError(f"{where}: column {twice[0]!r:.80} stands there twice; rename one")
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        nor = f" (nor {', '.join(missing[1:])})" if missing[1:] else ""
        raise InputError(
            f"{where}: no column {missing[0]!r}{nor}; expected {', '.join(REQUIRED)} (and step, "
            f"where there are several), found {first_few(columns, _short) or 'none'}"
            f"{_column_hint(columns, missing)}"
        )


def _column_hint(columns: Sequence[str], missing: Sequence[str]) -> str:
    """What to do about columns that are missing, where something can be guessed."""
    others = [name for name in columns[:LISTED] if name not in REQUIRED]
    if "score" in missing and (mean := next((n for n in others if n.lower() == "mean"), None)):
        return (
            "; a mean is not enough for a comparison: give one row with its score per run, or a "
            f"table of means as it is (--columns score={mean})"
        )
    meant: dict[str, str] = {}
    for column in missing:
        left = [name for name in others if name not in meant.values()]
        near = [name for name in left for word in MEANT[column] if word in name.lower()]
        near = near or difflib.get_close_matches(column, left, n=1)
        if near:
            meant[column] = near[0]
    a_run_each = not {"algorithm", "dataset", "score"} & {*columns} and len(columns) > WIDE
    if a_run_each or ("score" in missing and "score" not in meant and len(others) > 1):
        kept = [name for name in columns if name in REQUIRED or name.lower() in ("step", "setting")]
        each = [name for name in ("algorithm", "dataset") if name in missing]
        what, then = (each or ["seed"])[0], ""
        if len(each) == 2:
            what, then = "run", ", and each run's name becomes algorithm, dataset and seed"
        return (
            f"; in a table with a column per {what} these become rows, as by pandas' "
            f"frame.melt({kept or [_short(columns[0])]}, var_name={what!r}, value_name='score')"
            f"{then}"
        )
    if not meant:
        return ""
    (column, first), *rest = meant.items()
    renamed = "".join(f", and {name!r:.80} to {other}" for other, name in rest)
    say = ",".join(f"{other}={_short(name)}" for other, name in [(column, first), *rest])
    return f"; if {first!r:.80} is meant, rename it{renamed} (or give --columns {say})"


def label_column(frame: pd.DataFrame, column: str, where: str) -> list[str]:
    """A column of names as stripped text in Unicode's form NFC; InputError for an empty one.

    InputError for lists and mappings too, of which a text is only a part.
    """
    for position, value in enumerate(frame[column]):
        if not pd.api.types.is_scalar(value):
            raise InputError(
                f"{where}, {_row(frame, position)}: the {column} is a {type(value).__name__}; "
                "expected its name"
            )
    names = [label_text(value) for value in frame[column]]
    if "" in names:
        raise InputError(
            f"{where}, {_row(frame, names.index(''))}: the {column} is empty; expected its name"
        )
    return names


def whole_numbers(
    frame: pd.DataFrame, column: str, where: str, *, optional: bool = False
) -> "pd.Series[Any]":
    """A column of whole numbers (nullable integers where it may be empty)."""
    if frame[column].dtype == np.int64 and (frame[column] >= 0).all():
        return frame[column].astype("Int64" if optional else "int64")

    def whole(value: Any) -> int | None:
        if optional and (value is None or value is pd.NA or value == "" or value != value):
            return None
        if isinstance(value, str):
            _check_printable(value)
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
            empty = str(value).strip() in ("", "nan", "<NA>", "None")
            shown = "empty" if empty else f"{value!r:.80}"
            raise InputError(
                f"{where}, {_row(frame, position)}: {column} is {shown}; "
                f"expected a whole number, 0 or more"
            ) from None
    large = [k for k, number in enumerate(numbers) if number is not None and number >= TOO_LARGE]
    if large:
        raise InputError(
            f"{where}, {_row(frame, large[0])}: {column} is {frame[column].iloc[large[0]]!r:.80}; "
            "expected a whole number below 2^63"
        )
    if optional:
        return pd.Series(pd.array(numbers, dtype="Int64"), index=frame.index)
    return pd.Series(numbers, index=frame.index, dtype="int64")


def _check_printable(cell: str) -> None:
    """Raises ValueError where a number has control characters, which Python takes for spaces."""
    if not cell.strip().isprintable() or set(cell) & set("\x1c\x1d\x1e\x1f"):
        raise ValueError(cell)


def score_column(frame: pd.DataFrame, where: str) -> NDArray[np.float64]:
    """The scores as floats; InputError for what is no finite number."""
    scores = np.empty(len(frame))
    for position, value in enumerate(frame["score"]):
        try:
            if isinstance(value, bool | np.bool_):
                raise ValueError
            if isinstance(value, str):
                _check_printable(value)
            scores[position] = np.nan if value is pd.NA or value == "" else float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{where}, {_row(frame, position)}: score is {value!r:.80}; expected a number"
                + (" (with a decimal point)" if "," in str(value) else "")
            ) from None
    bad = np.flatnonzero(~np.isfinite(scores)).tolist()
    if bad:
        row = frame.iloc[bad[0]]
        value = "empty" if row["score"] is pd.NA or row["score"] == "" else scores[bad[0]]
        raise InputError(
            f"{where}, {_row(frame, bad[0])}: score of {run_of(row)} is {value}"
            f"{_and_more(frame, bad[1:])}; expected a finite number (a run that failed gives its "
            "cause in a column 'failure' instead)"
        )
    large = np.flatnonzero(np.abs(scores) > LARGEST).tolist()
    if large:
        raise InputError(
            f"{where}, {_row(frame, large[0])}: score of {run_of(frame.iloc[large[0]])} is "
            f"{scores[large[0]]:g}{_and_more(frame, large[1:])}; expected at most {LARGEST:g} in "
            "size, as variances of larger ones have no squares"
        )
    return scores


def check_unique(frame: pd.DataFrame, where: str) -> None:
    """Raises InputError where two rows have the same labels."""
    labels = label_columns(frame)
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
            f"{where}, {_row(frame, later)}: a second score for {run_of(key)} (the first: "
            f"{_row(frame, first)}){_and_more(frame, twice[1:])}; keep one, or tell settings apart "
            "in a column 'setting' or in the algorithm's name"
        )


def scale_notes(frame: pd.DataFrame, where: str, scale: float) -> list[str]:
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
