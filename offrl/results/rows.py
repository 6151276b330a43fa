"""What a run folder holds, as typed records: the run's record and its score rows.

Both are written and read through these models alone. `RunRecord.format` numbers the layout of the
whole folder: it rises whenever a key changes its meaning or goes away. A key that a model does not
have only adds to what is there, so it is kept, and written back. On disk each has a checksum over
the rest of it (`offrl.files.seal`), which folders of earlier versions lack.
"""

from collections.abc import Sequence
from enum import StrEnum
from statistics import fmean
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

FORMAT = 1  # folders written before there was a number have the same layout

Count = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, Field(pattern=r"\S")]
Versioned = Annotated[str, Field(pattern=r"^[^@]*[^@\s][^@]*@")]  # id@version


class Status(StrEnum):
    """How far a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class _Stored(BaseModel):
    """A frozen record on disk, with values of the declared types and any further keys."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, populate_by_name=True)


class Identity(_Stored):
    """Everything that decides a run's scores; a run folder never carries on with another."""

    protocol: Versioned
    dataset: Versioned
    data_sha256: str
    view: str  # which rows of the data set
    environment: dict[str, Any] | None  # as on the data set's card
    reference: dict[str, Any] | None  # as on the data set's card
    label: Name  # the algorithm's name in reports
    algorithm: str  # a registered name, or the name of a file
    config: dict[str, Any]  # complete, defaults included
    code: str | None  # SHA-256 of an algorithm file outside the package
    config_hash: str
    steps: Count
    evaluation: dict[str, Count]
    seed: Count

    @property
    def every(self) -> int:
        """Gradient steps between evaluations; the last step is always evaluated."""
        return self.evaluation.get("every") or max(self.steps, 1)

    @property
    def last(self) -> int:
        """How many of a run's last evaluations its score is the mean of."""
        return self.evaluation.get("last") or 1

    def evaluations(self, step: int) -> int:
        """The number of evaluations that are due up to a step."""
        return step // self.every + (1 if step == self.steps and step % self.every else 0)

    def differing(self, other: "Identity") -> list[str]:
        """The keys in which two identities differ, sorted; a key that one lacks differs."""
        if self == other:
            return []
        ours, theirs = self.model_dump(), other.model_dump()
        return sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))


def run_score(scores: Sequence[float], last: int) -> float | None:
    """A run's score by those of its evaluations so far, None before the first.

    It is the mean of the last ones, as many as `last` says, or all where there are fewer.
    """
    return fmean(scores[-last:]) if scores else None


class Session(_Stored):
    """One process that worked on a run: when it began, and with what."""

    started: str  # ISO 8601, in UTC
    commit: str | None
    versions: dict[str, str]
    hardware: dict[str, Any]


class Numerics(_Stored):
    """What a run's last digits depend on besides its seeds, from a step on."""

    step: Count
    replicas: Annotated[int, Field(ge=1, lt=2**31)]  # R, that train as one batch
    group: str | None  # names the runs that do
    kernel: str  # of matrix products
    dtype: str
    threads: int
    device: str


class Attempt(_Stored):
    """A process that was lost while it worked on a run, which then was tried again."""

    cause: str
    host: str
    ended: str  # when that was noticed: ISO 8601, in UTC


class Decision(_Stored):
    """Files that the user let name code, with a seal that only this user can make."""

    files: list[str]
    seal: str


class RunRecord(_Stored):
    """The content of run.json."""

    format: Annotated[int, Field(ge=1)] = FORMAT
    identity: Identity
    status: Annotated[Status, Field(strict=False)]  # JSON has its text
    cause: str | None = None  # of a failure
    sessions: list[Session] = Field(default_factory=list)
    numerics: list[Numerics] = Field(default_factory=list)  # the last one holds
    ways: list[str] | None = None  # to act, in the order of an evaluation's rows; once known
    traceback: list[str] | None = None  # of a failure; left out of the file where there is none
    trust: Decision | None = None  # likewise left out where there is none
    attempts: list[Attempt] | None = None  # that were lost; likewise left out where there is none

    def due(self, rows: "Sequence[ScoreRow]") -> list[tuple[int, str]]:
        """Step and way to act of each of a run's first rows, as many as these, as they should be.

        Ways that the record does not know are those of the first evaluation. A row more than a run
        can have is due at step -1.
        """
        first = dict.fromkeys(row.policy for row in rows if row.step == rows[0].step)
        ways = self.ways or list(first) or [""]
        every, steps = self.identity.every, self.identity.steps
        last = self.identity.evaluations(steps)
        due = []
        for number in range(len(rows)):
            evaluation, way = divmod(number, len(ways))
            step = min((evaluation + 1) * every, steps) if evaluation < last else -1
            due.append((step, ways[way]))
        return due


class ScoreRow(_Stored):
    """One evaluation of a policy: a score and all that it depends on.

    Of a run on data without a simulator it has the losses alone: no score, no return, no episodes,
    and an empty environment.
    """

    protocol: Versioned
    dataset: Versioned
    environment: str
    simulator: dict[str, str]  # versions by distribution name
    algorithm: Name
    config: str  # its hash
    seed: Count
    step: Count
    score: FiniteFloat | None  # normalised mean return, 0-100
    mean_return: FiniteFloat | None = Field(validation_alias="return", serialization_alias="return")
    returns: list[FiniteFloat]  # undiscounted, one per episode
    lengths: list[Count]  # in steps, one per episode
    policy: str  # the way to act; empty for the one that stands for the run
    action_mode: str
    metrics: dict[str, float]  # of the last update
    wall_time: float  # seconds of training and evaluation so far

    @model_validator(mode="after")
    def _played_or_not(self) -> Self:
        """With a simulator there are a score and a return, without one neither."""
        absent = {self.environment == "", self.score is None, self.mean_return is None}
        if len(absent) > 1:
            raise ValueError("expected environment, score and return together, or none of them")
        return self


def main_scores(rows: Sequence[ScoreRow]) -> list[float]:
    """The scores of a run's evaluations in the way to act that stands for the run.

    Its row is the last one of each evaluation. None where no policy was played.
    """
    main = [row for row in rows if row.policy == rows[-1].policy]
    return [row.score for row in main if row.score is not None]
