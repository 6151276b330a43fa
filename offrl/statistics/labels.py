"""Words, orders and digits with which plots, pages and the command line show estimates."""

from collections.abc import Iterable

import pandas as pd

from offrl.statistics.resampling import COVERAGE

METRIC_NAMES = {
    "iqm": "IQM",
    "median": "median",
    "mean": "mean",
    "optimality_gap": "optimality gap",
}
METRIC_HEADINGS = {
    "iqm": "Interquartile mean (IQM)",
    "median": "Median",
    "mean": "Mean",
    "optimality_gap": "Optimality gap",
}
# In the order of the rows of a summary, and in which figures draw them over each other.
METHODS = ("percentile", "expanded percentile", "studentized")
MAIN_METHOD = "expanded percentile"
# In the order of columns, the main one first.
METHOD_COLUMNS = (MAIN_METHOD, *(method for method in METHODS if method != MAIN_METHOD))


def percent(share: float) -> str:
    """A level or an error rate as text: `95 %` of 0.95."""
    return f"{100 * share:g} %"


def level_of(frame: pd.DataFrame) -> float:
    """The nominal coverage of a frame's intervals: its `attrs["level"]`, or the default.

    Every frame of estimates has it; one that is read from a file has lost it.
    """
    return float(frame.attrs.get("level", COVERAGE))


def main_method(computed: Iterable[str]) -> str:
    """The method that a sentence quotes: the main one, where it was computed."""
    return MAIN_METHOD if MAIN_METHOD in set(computed) else METHODS[0]


def metric_name(metric: str) -> str:
    """A metric inside a sentence; one that is not built in has its own name."""
    return METRIC_NAMES.get(metric, metric)


def metric_heading(metric: str) -> str:
    """A metric as a heading; one that is not built in has its own name."""
    return METRIC_HEADINGS.get(metric, metric)


def digits(scale: float) -> int:
    """Decimals that show a score to a tenth of a percent of its scale, 100 or 1."""
    return 1 if scale == 100 else 3
