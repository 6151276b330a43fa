"""How far observations are from where a step would lead: episodes that run into one show as jumps.

A step is predicted as a linear function of observation and action, by least squares. Where two
episodes run into one without a mark, the next observation is the first of another episode: several
columns miss their prediction at once, or one does and all columns are as at known beginnings. How
many boundaries would be seen so is measured on those that are marked; a jump that is smaller than
nearly all of these is no sign of a boundary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.columns import spaced
from offrl.data.dataset import Dataset
from offrl.progress import Progress

SAMPLE = 50_000  # rows by which predictions and their usual errors are read
NUMBERS = 2**23  # of that sample: the wider the rows, the fewer
COLUMNS = 512  # of observations, at most, that are looked at; and of actions
USUAL = 0.99  # the quantile of a column's errors that is the unit of its scores
SHARE = 0.25  # of the columns: so many, and two at least, miss their prediction in a jump
HIGH = 4.0  # a score above it is a jump
FEW = 0.05  # a boundary without a mark scores half of this quantile of the marked ones, or more
OFTEN = 0.05  # of the steps: a column that moves in fewer, such as a goal, is not predicted
AROUND = 1.0  # widths of the range of first observations, beyond it, where one may lie too
BLOCK = 2**20  # numbers of a block of rows

Array = NDArray[Any]


@dataclass(frozen=True)
class Jumps:
    """Scores of a data set's steps: errors of predictions, in units of their 99 % quantile.

    Attributes:
        steps: float32 (rows,), of each row's step to its successor.
        resets: float32 (episodes - 1,), from the last observation of an episode to the first of the
            next; the step over a boundary that is not marked would have such a score.
        suspects: int64, the rows inside episodes whose step may be one over a boundary: to where
            episodes begin, and with a score as marked boundaries have. None of them where marked
            boundaries are no jumps.
        columns: the number of columns of observations that move often; 0 where none does. Of more
            than COLUMNS those at equal distances are looked at.
    """

    steps: NDArray[np.float32]
    resets: NDArray[np.float32]
    suspects: NDArray[np.int64]
    columns: int

    @property
    def seen(self) -> float:
        """The share of the marked boundaries that would be seen as jumps; NaN without any."""
        return float(np.mean(self.resets > HIGH)) if len(self.resets) else float("nan")


class _Steps:
    """What a step is predicted to do, and how far off that usually is."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        # The successor of a termination may be anything, such as the next episode's beginning.
        steps = np.flatnonzero(~dataset.terminations)
        steps = steps if len(steps) else np.arange(len(dataset))
        self.columns = spaced(dataset.observations.shape[1], COLUMNS)
        width = len(self.columns) + self._acting
        rows = steps[spaced(len(steps), min(SAMPLE, NUMBERS // width))]
        before = self._some(dataset.observations, rows)
        self.mean = before.mean(0)
        given = self._given(before, rows)
        moved = self._some(dataset.next_observations, rows) - before
        self.weights = np.linalg.lstsq(given, moved, rcond=1e-6)[0]
        usual = np.quantile(np.abs(moved - given @ self.weights), USUAL, axis=0)
        moving = (moved != 0).mean(0) >= OFTEN
        self.moving = np.flatnonzero(moving & (usual > 0))
        self.unit = usual[self.moving]
        low, high = np.full(len(self.moving), np.inf), np.full(len(self.moving), -np.inf)
        for part in self._blocks(len(dataset.episode_starts)):
            first = self._some(dataset.observations, dataset.episode_starts[part])[:, self.moving]
            low, high = np.minimum(low, first.min(0)), np.maximum(high, first.max(0))
        room = np.maximum(AROUND * (high - low), self.unit)
        self.low, self.high = low - room, high + room

    @property
    def _acting(self) -> int:
        """The number of columns of actions that predict; 0 where there are too many."""
        width = self.dataset.action_count or self.dataset.actions[0].size
        return width if width <= COLUMNS else 0

    def _blocks(self, count: int) -> list[slice]:
        rows = max(1, BLOCK // (len(self.columns) + 8))
        return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]

    def _some(self, observations: Array, rows: Array) -> Array:
        """Rows of observations, in float64, of the columns that are looked at."""
        if len(self.columns) == observations.shape[1]:
            return np.asarray(observations[rows], dtype=np.float64)
        return np.asarray(observations[np.ix_(rows, self.columns)], dtype=np.float64)

    def _given(self, observations: Array, rows: Array) -> Array:
        """What predicts the step of some rows, of which observations count from their mean."""
        parts = [observations - self.mean, np.ones((len(rows), 1))]
        if self._acting and self.dataset.action_count is not None:
            parts.insert(1, np.eye(self._acting)[self.dataset.actions[rows]])
        elif self._acting:
            parts.insert(1, self.dataset.actions[rows])
        return np.concatenate(parts, axis=1)

    def scores(
        self, rows: Array, after: Array, places: Array, progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scores of steps from rows to rows `places`, and which lead to where episodes begin."""
        moving, count = self.moving, len(self.moving)
        scores, begins = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.bool_)
        if not count:
            return scores, begins
        several = min(count, max(2, round(SHARE * count)))
        for part in self._blocks(len(rows)):
            here = self._some(self.dataset.observations, rows[part])
            there = self._some(after, places[part])[:, moving]
            expected = self._given(here, rows[part]) @ self.weights[:, moving]
            off = np.abs(there - here[:, moving] - expected) / self.unit
            scores[part] = np.partition(off, count - several, axis=1)[:, count - several]
            begins[part] = ((there >= self.low) & (there <= self.high)).all(1)
            scores[part] = np.where(begins[part], off.max(1), scores[part])
            if progress is not None:
                progress(part.stop, len(rows))
        return scores, begins


def jumps(dataset: Dataset, progress: Progress | None = None) -> Jumps:
    """The scores of a data set's steps, a block of rows at a time."""
    steps = _Steps(dataset)
    ends = dataset.episode_starts[1:] - 1
    rows = np.arange(len(dataset))
    scores, begins = steps.scores(rows, dataset.next_observations, rows, progress)
    resets, _ = steps.scores(ends, dataset.observations, ends + 1)
    suspects = _suspects(dataset, scores, begins, resets)
    return Jumps(scores, resets, suspects, len(steps.moving))


def _suspects(
    dataset: Dataset,
    scores: NDArray[np.float32],
    begins: NDArray[np.bool_],
    resets: NDArray[np.float32],
) -> NDArray[np.int64]:
    """`Jumps.suspects`."""
    usual = float(np.quantile(resets, FEW)) if len(resets) else HIGH
    if usual < HIGH:
        return np.zeros(0, np.int64)
    least = max(HIGH, usual / 2)
    inside = ~(dataset.terminations | dataset.truncations)
    return np.flatnonzero(inside & begins & (scores > least))
