"""Scores drawn at random, for tests of statistics, figures and reports."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from offrl.results.table import ScoreTable

POPULATIONS: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape),
    "2 t2": lambda rng, shape: 2 * rng.standard_t(2, shape),
    # One seed in five collapses.
    "collapse": lambda rng, shape: rng.normal(size=shape) - 6 * (rng.random(shape) < 0.2),
    "lognormal": lambda rng, shape: rng.lognormal(size=shape),
}
MEANS = {"collapse": -1.2, "lognormal": float(np.exp(0.5))}  # of the others 0


def table(
    algorithms: Any = ("BC", "IQL", "TD3+BC"),
    tasks: int = 3,
    runs: int = 3,
    steps: Any = (0, 5_000, 10_000),
    **options: Any,
) -> ScoreTable:
    rng = np.random.default_rng(0)
    rows = [
        {
            "algorithm": name,
            "dataset": f"task-{k}",
            "seed": seed,
            "step": step,
            "score": 30 + 8 * i + 5 * k + step / 500 + rng.normal(),
        }
        for i, name in enumerate(algorithms)
        for k in range(tasks)
        for seed in range(runs)
        for step in steps
    ]
    return ScoreTable.from_frame(pd.DataFrame(rows), **options)


def with_another_way(table: ScoreTable, name: str, way: str, **options: Any) -> ScoreTable:
    """The table, with an algorithm's runs scored in another way to act too, ten points lower."""
    main = table.frame[table.frame["algorithm"] == name]
    other = main.assign(algorithm=f"{name}: {way}", way=way, score=main["score"] - 10)
    return ScoreTable.from_frame(pd.concat([table.frame, other]), **options)
