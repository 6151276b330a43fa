"""Reads the run folders of d3rlpy, such as d3rlpy_logs/, by its FileAdapter.

A run's folder is named EXPERIMENT_YYYYMMDDHHMMSS. Evaluations in a simulator stand in a CSV file
that is called as the evaluator was, mostly environment.csv: epoch, step and mean return, without a
header. d3rlpy's own benchmarks name an experiment ALGORITHM_DATASET_SEED; without such a name the
algorithm stands in params.json, and data set and seed are the user's to say.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from offrl.errors import InputError

SCORES = "run folders of d3rlpy (NAME_YYYYMMDDHHMMSS/environment.csv)"
FILES = ("environment.csv", "evaluation.csv")
FOLDER = re.compile(r"(?P<run>.+)_[0-9]{14}")
NAMED = re.compile(r"(?P<algorithm>[^_]+)_(?P<dataset>.+)_(?P<seed>[0-9]+)")
MOST_BYTES = 2**24  # of one file: a million evaluations have some 30


def logs(path: Path) -> pd.DataFrame | None:
    """A row per evaluation of the runs in a folder, or of one run; None for anything else."""
    if not path.is_dir():
        return None
    inside = [path] if FOLDER.fullmatch(path.name) else sorted(path.iterdir())
    runs = [(folder, file) for folder in inside if (file := _evaluations(folder)) is not None]
    if not runs:
        return None
    rows: list[dict[str, Any]] = []
    owners: dict[str, Path] = {}
    for folder, file in runs:
        fit = FOLDER.fullmatch(folder.name)
        name = fit["run"] if fit else folder.name
        named = NAMED.fullmatch(name)
        labels = dict(named.groupdict()) if named else _from_settings(folder)
        if named and owners.setdefault(name, folder) != folder:
            raise InputError(
                f"{folder}: {name} ran in {owners[name].name} too; move one of both folders away"
            )
        rows += [{"run": folder.name, **labels, **row} for row in _rows(file)]
    return pd.DataFrame(rows)


def _evaluations(folder: Path) -> Path | None:
    """The file with a run's evaluations; None where the folder is no run, or has none."""
    if FOLDER.fullmatch(folder.name) is None or not folder.is_dir():
        return None
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _from_settings(folder: Path) -> dict[str, str]:
    """The algorithm by params.json: `algorithm` up to version 1, the type of `config` since."""
    file = folder / "params.json"
    if not file.is_file() or file.stat().st_size > MOST_BYTES:
        return {}
    settings = json.loads(file.read_text(encoding="utf-8"))
    config = settings.get("config", settings)
    name = settings.get("algorithm") or (config.get("type") if isinstance(config, dict) else None)
    return {"algorithm": str(name)} if name else {}


def _rows(file: Path) -> list[dict[str, str]]:
    """Step and mean return of each line."""
    if file.stat().st_size > MOST_BYTES:
        raise InputError(f"{file}: has more than {MOST_BYTES / 2**20:.0f} MiB")
    rows: list[dict[str, str]] = []
    with file.open(encoding="utf-8", newline="") as stream:
        for cells in csv.reader(stream):
            if len(cells) != 3:
                raise InputError(
                    f"{file}, line {len(rows) + 1}: {len(cells)} cells; expected epoch, step and "
                    "mean return"
                )
            rows.append({"step": cells[1], "return": cells[2]})
    return rows
