"""Runs without a score."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from offrl.results.checks import cause_of, label_text, run_keys

UNFINISHED = "unfinished: "  # how the cause of a run begins that may still come to a score


@dataclass(frozen=True)
class Failure:
    """A run without a score: it failed, or has not come to its first evaluation so far."""

    algorithm: str
    dataset: str
    seed: int
    cause: str
    setting: str = ""
    way: str = ""  # to act, where it is not the first one and `algorithm` ends with it

    @property
    def unfinished(self) -> bool:
        """Whether the run did not fail: it waits, runs or was interrupted."""
        return self.cause.startswith(UNFINISHED)


def with_names_in_one_form(failure: Failure) -> Failure:
    """The failure with its names as a table has them."""
    return replace(
        failure,
        algorithm=label_text(failure.algorithm),
        dataset=label_text(failure.dataset),
        setting=label_text(failure.setting),
        way=label_text(failure.way),
    )


def without_failed_rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Failure]]:
    """The rows that have a score, and the failures that the others give in a column `failure`."""
    if "failure" not in frame:
        return frame, []
    causes = pd.Series(map(cause_of, frame["failure"]), index=frame.index, dtype=object)
    frame = frame.drop(columns="failure")
    failed = causes != ""
    bad = frame[failed]
    ways = bad["way"] if "way" in bad else [""] * len(bad)
    failures = [
        Failure(algorithm, dataset, int(seed), cause, setting, way)
        for (algorithm, setting, dataset, seed), cause, way in zip(
            run_keys(bad), causes[failed], ways, strict=True
        )
    ]
    return frame[~failed].copy(), failures


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
