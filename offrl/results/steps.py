"""The steps at which the runs of a table are scored."""

from typing import Any, cast

import pandas as pd

from offrl.errors import InputError
from offrl.results.checks import algorithm_text, first_few
from offrl.results.rows import run_score


def at_last_steps(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of each cell at the greatest step that its runs share, and notes on the others.

    The frame has steps; the rest is that of `ScoreTable.final`.
    """
    parts, notes, last = [], [], dict[str, dict[int, list[str]]]()
    labels = [c for c in ("algorithm", "dataset", "setting") if c in frame]
    for label, cell in frame.groupby(labels, sort=True):
        algorithm, dataset, *setting = cast(tuple[str, ...], label)
        named = algorithm_text(algorithm, *setting)
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
            reached = cell.groupby("seed")["step"].max()
            shown = first_few([f"seed {seed} at {step:,}" for seed, step in reached.items()])
            raise InputError(
                f"{named} on {dataset!r}: its runs share no step (the last of {shown}); evaluate "
                "all seeds at the same steps, or give their last scores the same step"
            )
        step, greatest = int(shared.max()), int(counts.index.max())
        parts.append(_scored(cell, step))
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
            shown = "; ".join(f"{', '.join(steps[s])} at step {s:,}" for s in sorted(steps))
            notes.append(f"unequal steps on {dataset}: {shown}")
    return pd.concat(parts).reset_index(drop=True) if parts else frame, notes


def _scored(cell: pd.DataFrame, step: int) -> pd.DataFrame:
    """The rows of a cell at a step, with the mean score of the last evaluations up to it."""
    rows = cell[cell["step"] == step]
    if "last_evaluations" not in cell:
        return rows
    runs = cell[cell["step"] <= step].sort_values("step").groupby("seed")["score"]
    scores = {seed: of_run.tolist() for seed, of_run in runs}
    last = zip(rows["seed"], rows["last_evaluations"], strict=True)
    means: Any = [run_score(scores[seed], int(number)) for seed, number in last]
    return rows.assign(score=means)
