"""Rliable's arrays of scores as a frame with labels."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from offrl.errors import InputError
from offrl.results.checks import first_few, run_of


def frame_of_arrays(
    scores: Mapping[str, ArrayLike],
    datasets: Sequence[str] | Mapping[str, Sequence[str]],
    seeds: Sequence[int] | Mapping[str, Sequence[int]] | None,
    steps: Sequence[int] | None,
) -> pd.DataFrame:
    """A row per score; arguments and errors are those of `ScoreTable.from_arrays`."""
    parts = []
    for algorithm, values in scores.items():
        tasks = labels_of(datasets, algorithm, "data set")
        array = score_array(algorithm, values, len(tasks), None if steps is None else len(steps))
        runs = range(len(array)) if seeds is None else labels_of(seeds, algorithm, "seed")
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
                    f"scores of {algorithm!r}: {name} {first_few(twice)} stands there twice; "
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
            f"scores: not finite: {first_few(bad, lambda k: run_of(frame.iloc[k]))}; arrays "
            "may differ in runs and need no padding, and runs that failed are given with their "
            "cause (ScoreTable.from_frame)"
        )
    return frame


def labels_of(labels: Any, algorithm: str, what: str) -> Sequence[Any]:
    """An algorithm's labels: its own where labels are a mapping, else those of all."""
    if not isinstance(labels, Mapping):
        return list(labels)
    if algorithm not in labels:
        raise InputError(f"scores of {algorithm!r}: no {what}s are given for this algorithm")
    return list(labels[algorithm])


def score_array(
    algorithm: str, values: ArrayLike, tasks: int, steps: int | None
) -> NDArray[np.float64]:
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
        seen = f"shape {array.shape}" if array.dtype.kind in "iuf" else "no array of numbers"
        hint = "; give its steps" if array.ndim == 3 and steps is None else ""
        raise InputError(f"scores of {algorithm!r}: {seen}; expected {shape}{hint}")
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
