"""Reads rliable's dictionary of arrays, kept by numpy: one array per algorithm in an .npz file.

    np.savez("scores.npz", datasets=["hopper", "walker2d"], IQL=iql, CQL=cql)

An array has the shape (runs, data sets), or (runs, data sets, steps) as rliable's curves have.
`datasets` (or `tasks`, `games`) names the second axis, in every array's order; `steps` (or
`frames`) gives the third. Names of Python objects need pickle, and are not read.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offrl.data.archive import open_archive
from offrl.data.foreign import check_size
from offrl.errors import InputError
from offrl.results.arrays import frame_of_arrays

SCORES = "arrays as rliable takes them (.npz, one per algorithm)"
DATASETS, STEPS = ("datasets", "tasks", "games"), ("steps", "frames")


def logs(path: Path) -> pd.DataFrame | None:
    """A row per score; None for a file that is no archive of numpy's."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return None
    with open_archive(path) as archive:
        if archive.others:
            raise InputError(
                f"{path}: holds {archive.others[0]!r:.60}, which is no array (.npy); write it "
                "again by numpy.savez"
            )
        check_size(path, archive.values(), path.stat().st_size)
        arrays: dict[str, Any] = {name: stored[()] for name, stored in archive.items()}
    names = next((arrays.pop(name) for name in DATASETS if name in arrays), None)
    steps = next((arrays.pop(name) for name in STEPS if name in arrays), None)
    if not arrays:
        raise InputError(f"{path}: no array of scores; expected one per algorithm")
    first, array = next(iter(arrays.items()))
    if array.ndim < 2:
        raise InputError(
            f"{path}: {first!r:.60} has shape {array.shape}; expected (runs, data sets)"
        )
    note = ""
    if names is None:
        names = [f"task {k + 1}" for k in range(array.shape[1])]
        note = f"{path} names no data sets (datasets=[...]): they are numbered"
    if steps is None and array.ndim == 3:
        steps = np.arange(1, array.shape[2] + 1)
    frame = frame_of_arrays(
        arrays,
        [str(name) for name in names],
        None,
        None if steps is None else [int(step) for step in np.ravel(steps)],
    )
    return frame.assign(note=note)
