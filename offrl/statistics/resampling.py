"""How often and from which seed runs are resampled, and by which engine."""

from dataclasses import dataclass
from typing import Any

from offrl.errors import InputError, unknown

ENGINES = ("offrl", "rliable")
COVERAGE = 0.95  # of an interval, by default
DEFAULT_REPS = 10_000  # resamples where their number does not follow from precision
FEWEST_REPS = 100  # that have quantiles to speak of
MOST_REPS = 1_000_000  # which are kept in memory for each algorithm


@dataclass(frozen=True)
class Resampling:
    """What all resampling of an analysis has in common; InputError for a value out of range.

    Attributes:
        reps: number of resamples; None is each function's own default: as many as the precision of
            the intervals needs, or a number that its docstring gives.
        seed: of all draws, 0 or more.
        level: nominal coverage of the intervals, from 0.5 to below 1.
        engine: "offrl", or "rliable" where the library of that name is to compute what it can:
            percentile intervals of aggregates, profiles, curves and P(X > Y).
    """

    reps: int | None = None
    seed: int = 0
    level: float = COVERAGE
    engine: str = "offrl"

    def __post_init__(self) -> None:
        if not 0.5 <= self.level < 1:
            raise InputError(
                f"level {self.level:g}: expected a coverage from 0.5 to 1, such as 0.95"
            )
        if self.reps is not None and self.reps < FEWEST_REPS:
            raise InputError(
                f"reps {self.reps}: too few resamples for an interval; give {FEWEST_REPS} or more"
            )
        if self.reps is not None and self.reps > MOST_REPS:
            raise InputError(f"reps {self.reps:,}: expected at most {MOST_REPS:,} resamples")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: expected a whole number, 0 or more")
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)

    def record(self) -> dict[str, Any]:
        """The four values by name, for a file that says how its numbers were computed."""
        return {
            "seed": self.seed,
            "engine": self.engine,
            "reps": self.reps,
            "level": self.level,
        }
