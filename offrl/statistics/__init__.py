"""Estimates from a score table, their intervals, and comparisons of algorithms."""

from offrl.statistics.adastop import adastop, decide
from offrl.statistics.comparison import Comparison, compare
from offrl.statistics.labels import METHODS
from offrl.statistics.metrics import METRICS, iqm, mean, median, optimality_gap
from offrl.statistics.pairs import probability_of_improvement
from offrl.statistics.profiles import curve, profile
from offrl.statistics.ranks import ranks
from offrl.statistics.remarks import explain
from offrl.statistics.resampling import ENGINES, Resampling
from offrl.statistics.significance import holm, welch
from offrl.statistics.summary import COLUMNS, DEFAULT_METHODS, intervals, per_task, summarise
from offrl.statistics.tuning_budget import expected_maximum, online_performance

__all__ = [
    "COLUMNS",
    "DEFAULT_METHODS",
    "ENGINES",
    "METHODS",
    "METRICS",
    "Comparison",
    "Resampling",
    "adastop",
    "compare",
    "curve",
    "decide",
    "expected_maximum",
    "explain",
    "holm",
    "intervals",
    "iqm",
    "mean",
    "median",
    "online_performance",
    "optimality_gap",
    "per_task",
    "probability_of_improvement",
    "profile",
    "ranks",
    "summarise",
    "welch",
]
