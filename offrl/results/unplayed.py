"""Runs on data without a simulator: no policy was played, and what is left are losses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from offrl.results.run_labels import Run, each_once, labelled_runs, with_names
from offrl.results.store import State, StoredRun, run_folders
from offrl.text import one_form

HELD_OUT = "validation/"  # before the name of a loss on the validation split


@dataclass(frozen=True)
class Loss:
    """A loss of an algorithm on a data set at the last step of its runs, over seeds."""

    dataset: str
    algorithm: str
    name: str
    held_out: bool  # on the validation split; else of training batches
    step: int
    runs: int
    mean: float
    sd: float  # NaN for a single run


@dataclass(frozen=True)
class Losses:
    """What runs without a simulator have, and what became of them."""

    losses: list[Loss]
    datasets: list[str]
    algorithms: list[str]
    runs: int
    unfinished: int
    failures: list[str]  # each with its run and cause
    provenance: list[dict[str, Any]]  # of each run
    alone: bool  # whether nothing else was chosen


def is_unplayed(run: StoredRun) -> bool:
    """Whether a run's data have no simulator, so that it has no score."""
    bare = run.record is not None and run.record.identity.environment is None
    return bare and all(row.score is None for row in run.rows)


def read_losses(
    roots: Sequence[Path],
    algorithms: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
) -> Losses | None:
    """The losses of the runs below folders whose data have no simulator; None where none has any.

    Args:
        roots: the folders.
        algorithms: of these alone, by label or "LABEL (SETTING)"; None for all.
        datasets: of these alone, by name or pattern; None for all.
    """
    below = [run_folders(root) if root.is_dir() else [] for root in roots]
    labelled, stray = labelled_runs([folder.read() for folders in below for folder in folders])
    named, _ = with_names(each_once(labelled)[0])
    chosen = [run for run in named if _is_chosen(run, algorithms, datasets)]
    runs = [run for run in chosen if is_unplayed(run.stored)]
    if not any(run.stored.rows for run in runs):
        return None
    done = [run for run in runs if run.stored.rows and run.stored.cause is None]
    cells: dict[tuple[str, str, str, int], list[float]] = {}
    for run in done:
        last = run.stored.rows[-1]
        for name, value in last.metrics.items():
            cells.setdefault((run.dataset, run.shown, name, last.step), []).append(value)
    losses = [
        Loss(
            dataset,
            algorithm,
            name.removeprefix(HELD_OUT),
            name.startswith(HELD_OUT),
            step,
            len(values),
            fmean(values),
            stdev(values) if len(values) > 1 else math.nan,
        )
        for (dataset, algorithm, name, step), values in sorted(cells.items())
    ]
    return Losses(
        losses,
        sorted({run.dataset for run in runs}),
        sorted({run.shown for run in runs}),
        len(runs),
        sum(_is_unfinished(run) for run in runs),
        [
            f"{run.shown} on {run.dataset}, seed {run.labels.seed}: {run.stored.cause}"
            for run in runs
            if run.stored.cause is not None and run.stored.state is not State.UNFINISHED
        ],
        [entry for run in runs for entry in run.provenance],
        all(below) and not stray and len(runs) == len(chosen),
    )


def _is_chosen(run: Run, algorithms: Sequence[str] | None, datasets: Sequence[str] | None) -> bool:
    names = None if algorithms is None else {*map(one_form, algorithms)}
    if names is not None and names.isdisjoint({one_form(run.name), one_form(run.shown)}):
        return False
    return datasets is None or any(
        run.dataset == pattern or fnmatch(run.dataset, pattern)
        for pattern in map(one_form, datasets)
    )


def _is_unfinished(run: Run) -> bool:
    return run.stored.state is State.UNFINISHED


def sentences(losses: Losses) -> Sequence[str]:
    """With what a report on them begins: what the losses do not say."""
    held = any(loss.held_out for loss in losses.losses)
    of = "held-out episodes (the validation split)" if held else "training batches alone"
    return [
        "No policy was evaluated: the data have no simulator, so nothing here says how well an "
        "algorithm acts.",
        "Losses of different algorithms do not compare: each measures something else, and a lower "
        "one does not make a better policy, not even among settings of one algorithm.",
        f"The losses are those of {of}.",
    ]
