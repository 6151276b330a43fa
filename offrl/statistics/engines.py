"""The engines that compute estimates, side by side; here alone one of them is chosen."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from offrl.progress import Progress
from offrl.statistics import own, rliable
from offrl.statistics.bootstrap import Array
from offrl.statistics.frames import Aggregate, Line, PairEstimate
from offrl.statistics.metrics import Metric, Tasks
from offrl.statistics.pairs import Pair
from offrl.statistics.resampling import ENGINES, Resampling


class Engine(Protocol):
    """What an engine computes of algorithms, whose scores are given by data set."""

    @property
    def METHODS(self) -> tuple[str, ...]:  # noqa: N802
        """The methods of its intervals, of those in `labels`."""

    def aggregates(
        self,
        cells: Mapping[str, Tasks],
        gamma: float,
        metrics: Mapping[str, Metric],
        methods: Sequence[str],
        resampling: Resampling,
        progress: Progress | None,
    ) -> dict[str, dict[str, Aggregate]]:
        """Metrics of each algorithm with their intervals, of which single runs have none.

        They are the METRICS and, after them, the functions `metrics` by name.
        """

    def profile(
        self, cells: Mapping[str, Tasks], thresholds: Array, resampling: Resampling
    ) -> dict[str, Line]:
        """The share of each algorithm's runs above each threshold."""

    def curve(self, cells: Mapping[str, Tasks], resampling: Resampling) -> dict[str, Line]:
        """The IQM of each algorithm at each step, of scores (runs, steps)."""

    def compare_pairs(
        self,
        cells: Mapping[str, Tasks],
        names: Sequence[tuple[str, str]],
        pairs: Sequence[Pair],
        resampling: Resampling,
        progress: Progress | None,
    ) -> list[PairEstimate]:
        """P(X > Y) of each pair, given by names and as `Pair`, and the intervals."""


_ENGINES: dict[str, Engine] = dict(zip(ENGINES, (own, rliable), strict=True))


def engine(resampling: Resampling) -> Engine:
    """The engine that a resampling names."""
    return _ENGINES[resampling.engine]
