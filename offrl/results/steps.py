"""The steps at which the runs of a table are scored."""

from typing import Any, cast

import numpy as np
import pandas as pd

from offrl.errors import InputError
from offrl.results.checks import algorithm_text, first_few, label_text
from offrl.results.rows import run_score

LAST, BEST = ("final", "last", "end"), ("best", "max", "maximum")  # words for steps
OF_BEST = "the scores of {} are those of each run's best evaluation, not of its last"


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


def without_words(frame: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows at the last step, where steps are words: "final", and "best", which is left out."""
    if "step" not in frame or pd.api.types.is_numeric_dtype(frame["step"].dtype):
        return frame, []
    cells = list(frame["step"])
    if not all(isinstance(cell, str) for cell in cells):
        return frame, []
    words = frame["step"].map(label_text).str.casefold()
    if not {*words} & {*LAST, *BEST} or not {*words} <= {*LAST, *BEST, ""}:
        return frame, []  # numbers, or what the check of steps names
    best = words.isin(BEST)
    last = ~best
    if not last.any():
        return frame.drop(columns="step"), [OF_BEST.format(where)]
    notes = []
    if best.any():
        notes.append(
            f"{best.sum():,} rows of {where} are left out: of a run's best evaluation, not its last"
        )
    return frame[last].drop(columns="step"), notes


def at_shared_steps(
    frame: pd.DataFrame, where: str, tolerance: int
) -> tuple[pd.DataFrame, list[str]]:
    """The rows with steps that differ by `tolerance` at most, on a data set, made one step."""
    if "step" not in frame:
        raise InputError(f"{where}: has no steps, so leave --tolerance out")
    steps = pd.to_numeric(frame["step"], errors="coerce").to_numpy(np.float64)
    shared = steps.copy()
    moved, most = 0, 0.0
    for rows in frame.groupby("dataset", sort=False).indices.values():
        own = np.unique(steps[rows][np.isfinite(steps[rows])])
        first, ends = 0, dict[float, float]()
        while first < len(own):
            last = int(np.searchsorted(own, own[first] + tolerance, side="right")) - 1
            ends |= dict.fromkeys(own[first : last + 1].tolist(), float(own[last]))
            first = last + 1
        to = np.array([ends.get(step, step) for step in steps[rows].tolist()])
        moved += int((to > steps[rows]).sum())
        most = max([most, *np.abs(to - steps[rows])[np.isfinite(to)].tolist()])
        shared[rows] = to
    labels = [c for c in ("algorithm", "dataset", "setting", "seed") if c in frame]
    keys = frame[labels].astype(str).assign(step=shared)
    twice = keys[np.isfinite(shared)].duplicated()
    if twice.any():
        row = keys[np.isfinite(shared)][twice].iloc[0]
        raise InputError(
            f"{where}: a tolerance of {tolerance:,} steps joins two evaluations of one run "
            f"({row['algorithm']!r:.60} on {row['dataset']!r:.60}, seed {row['seed']}); give less"
        )
    exact: Any = [
        cell if np.isnan(step) else int(step)
        for cell, step in zip(frame["step"], shared.tolist(), strict=True)
    ]
    note = (
        f"steps that differ by at most {tolerance:,} count as one: {moved:,} rows of {where} are "
        f"moved, by {most:,.0f} at most"
    )
    return frame.assign(step=pd.Series(exact, index=frame.index, dtype=object)), [note]
