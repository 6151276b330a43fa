"""Runs without a score."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Failure:
    """A run without a score: it failed, or it never came to its first evaluation."""

    algorithm: str
    dataset: str
    seed: int
    cause: str
    setting: str = ""
    way: str = ""  # to act, where it is not the first one and `algorithm` ends with it


def rows_of(failures: Iterable[Failure]) -> pd.DataFrame:
    """A row per failure, as a table is exported."""
    return pd.DataFrame(
        [
            {
                "algorithm": f.algorithm,
                "dataset": f.dataset,
                "setting": f.setting,
                "way": f.way,
                "seed": f.seed,
                "failure": f.cause,
            }
            for f in failures
        ]
    )
