"""Scores that other programs wrote: the contract of their readers, and which one reads what.

A reader is a module of `reports/`, or of an installed package by an entry point of the group
`offrl.reports`, with the text `SCORES`, which says what it reads, and one of these functions or
both:

    table(frame)   rows of a table whose cells are text, as it stands in a file
    logs(path)     rows of a file that is no table, or of a folder

Either gives None where the source is of another format, and a frame of rows otherwise, with columns
among algorithm, dataset, seed, step, score, return, setting, failure and `run`, the run's name,
from which labels that are missing are read (`offrl.results.run_names`). A column `note` is left
out of the rows: its texts are for the reader of the scores. Both look at little of a source that is
of another format. What they raise on a stranger's bytes becomes one line in `offrl.data.foreign`.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from offrl import registry
from offrl.data.foreign import reading
from offrl.errors import InputError

MARK = "SCORES"  # a module of reports/ that does not assign it reads nothing, and is not imported


class Rows(NamedTuple):
    """The rows that a reader of others' scores gives, and what it reads, in words."""

    frame: pd.DataFrame
    what: str


def rows_of_table(frame: pd.DataFrame, where: str) -> Rows | None:
    """The rows of a table of some other program; None where no reader knows its columns."""
    for name, what, read in _readers("table"):
        with _named(where), reading(where, f"a table of {name}", "write it again"):
            if (rows := read(frame)) is not None:
                return Rows(rows, what)
    return None


def rows_of_logs(path: Path) -> Rows | None:
    """The rows of a file that is no table, or of a folder; None where no reader knows it."""
    for name, what, read in _readers("logs"):
        advice = "copy it from its source again"
        with _named(str(path)), reading(path, f"logs of {name}", advice):
            if (rows := read(path)) is not None:
                return Rows(rows, what)
    return None


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """An InputError raised inside begins with the source, if it does not name it."""
    try:
        yield
    except InputError as error:
        if where in str(error):
            raise
        raise InputError(f"{where}: {error}") from error


def known() -> list[str]:
    """What the readers read, in words, in order of their names."""
    return list(dict.fromkeys(what for kind in ("table", "logs") for _, what, _ in _readers(kind)))


def _readers(kind: str) -> Iterator[tuple[str, str, Callable[..., pd.DataFrame | None]]]:
    """The readers of tables or of logs: name, what each reads, and its function."""
    for name, module_name in sorted(registry.modules("reports").items()):
        if assigns(module_name, MARK):
            module = registry.load("reports", name, "reader of scores")
            if (read := getattr(module, kind, None)) is not None:
                yield name, module.SCORES, read


@functools.cache
def assigns(module_name: str, mark: str) -> bool:
    """Whether the source of a module assigns a name; it is not imported."""
    spec = importlib.util.find_spec(module_name)  # imports the packages above it
    if spec is None or spec.origin is None or not spec.has_location:
        return False
    lines: Sequence[str] = Path(spec.origin).read_text("utf-8", errors="replace").splitlines()
    return any(line.startswith(f"{mark} =") for line in lines)
