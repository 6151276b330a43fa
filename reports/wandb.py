"""Weights & Biases: reads its CSV, a panel of lines or the table of runs, and shows curves there.

A panel has a column for the step and three for each run and metric: "RUN - METRIC", and the same
with __MIN and __MAX, which hold the range of what W&B put into one cell and are left out. The table
of runs has W&B's own columns (Name, State, Created, ...) beside the runs' settings and their last
metrics; a run that crashed or failed has no score.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from offrl.errors import InputError

if TYPE_CHECKING:
    from offrl.running.boards import Shown

BOARD = "Weights & Biases"
NEEDS = "wandb"
SCORES = "an export of Weights & Biases (CSV of a panel or of the table of runs)"
AXES = ("step", "epoch", "iteration", "time")  # words in the name of a panel's x axis
ENDS = ("__MIN", "__MAX")
OWN = ("State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep")  # beside Name
OTHERS = ("ID", "Group", "Job Type", "Updated", "End Time", "Hostname", "Description", "Commit")
CLOCKS = ("_step", "_runtime", "_timestamp", "Step")  # of a run's end, in the table of runs
EMPTY = ("", "NaN", None)
FAILED = ("crashed", "failed", "killed")


def table(frame: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of either export; None for another table."""
    names = list(frame.columns)
    lines = [name for name in names[1:] if not name.endswith(ENDS)]
    is_axis = any(word in "".join(names[:1]).casefold() for word in AXES)
    if lines and is_axis and all(" - " in name for name in lines):
        return _panel(frame, lines)
    if "Name" in names and len({*OWN} & {*names}) > 1:
        return _runs(frame)
    return None


def _panel(frame: pd.DataFrame, lines: list[str]) -> pd.DataFrame:
    """A row per run and step, with a column for each metric."""
    axis = frame.columns[0]
    if "time" in axis.casefold() and "timestep" not in axis.casefold():
        raise InputError(
            f"a panel over {axis!r:.60}; set the panel's x axis to Step and export it again"
        )
    cells = dict(zip(frame.columns, frame.to_numpy(object).T.tolist(), strict=True))
    runs: dict[str, dict[str, list[object]]] = {}
    for name in lines:
        run, _, metric = name.rpartition(" - ")
        runs.setdefault(run, {})[metric] = cells[name]
    metrics = list(dict.fromkeys(metric for held in runs.values() for metric in held))
    nothing = [""] * len(frame)
    rows = [
        (step, run, *values)
        for run, held in runs.items()
        for step, *values in zip(
            cells[axis], *(held.get(metric, nothing) for metric in metrics), strict=True
        )
        if not all(value in EMPTY for value in values)
    ]
    whole = pd.DataFrame(rows, columns=["step", "run", *metrics])
    ends = [(name, f"{name}{end}") for name in lines for end in ENDS if f"{name}{end}" in cells]
    if any(cells[name] != cells[end] for name, end in ends):
        whole["note"] = (
            "cells of the panel stand for several values (smoothed, binned or grouped runs): "
            "export single runs without smoothing where that is not meant"
        )
    return whole


def _runs(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per run, with its settings and last metrics."""
    state = frame.get("State", pd.Series("", index=frame.index)).astype(str).str.casefold()
    bad = state.isin(FAILED)
    kept = [c for c in frame if c not in ("Name", *OWN, *OTHERS, *CLOCKS)]
    whole = frame[kept].assign(run=frame["Name"])
    if bad.any():
        whole["failure"] = ("it " + state).where(bad, "")
    if (state == "running").any():
        whole["note"] = f"unfinished: {int((state == 'running').sum())} runs were still running"
    return whole


class _Run:
    """A run of W&B, without an account or a network unless WANDB_MODE says otherwise."""

    def __init__(self, place: Path, run: "Shown"):
        import wandb

        self.run: Any = wandb.init(
            mode=os.environ.get("WANDB_MODE") or "offline",
            dir=str(place),
            id=hashlib.sha256(run.key.encode()).hexdigest()[:16],
            project=f"offrl-{run.protocol.partition('@')[0]}",
            group=f"{run.dataset} {run.algorithm}"[:128],
            name=run.title[:128],
            config={
                **run.config,
                "algorithm": run.algorithm,
                "dataset": run.dataset,
                "seed": run.seed,
            },
            resume="allow",
            reinit="create_new",  # many at once
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, x_disable_stats=True
            ),
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values at a step."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Ends the run."""
        self.run.finish()


def board(place: Path, run: "Shown") -> _Run:
    """An offline run of W&B below `place`, which `wandb sync` can send."""
    return _Run(place, run)
