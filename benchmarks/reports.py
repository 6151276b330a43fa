"""Processor time of a report: reading the scores, the statistics, and the page with its files.

    python benchmarks/reports.py                            # 20 algorithms x 10 runs x 26 data sets
    python benchmarks/reports.py --against OTHER_CHECKOUT   # beside another version, in turn
    python benchmarks/reports.py --size 50x10x10 --steps 1

Every figure is a median over the rounds, of processes of their own on one core. Scores are random;
with several steps there are learning curves.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

PARTS = ("reading", "statistics", "page")
PROGRAM = """
import json, sys, tempfile, time
from pathlib import Path
import matplotlib.figure, jinja2, scipy.stats  # whose import is no part of the work
from offrl import plots, registry
from offrl.reporting.findings import compute
from offrl.reporting.report import report
from offrl.results.collect import collect
times = [time.process_time()]
table = collect(sys.argv[1])
times.append(time.process_time())
findings = compute(table)
times.append(time.process_time())
with tempfile.TemporaryDirectory() as folder:
    registry.load("reports", "html", "report").write(findings, Path(folder))
    times.append(time.process_time())
    size = (Path(folder) / "index.html").stat().st_size
print(json.dumps([*(b - a for a, b in zip(times, times[1:])), size]))
"""


def scores(algorithms: int, runs: int, datasets: int, steps: int) -> pd.DataFrame:
    """Random scores whose algorithms, data sets, cells, runs and steps differ."""
    random = np.random.default_rng(0)
    shape = (algorithms, datasets, runs, steps)
    places = [part.ravel() for part in np.indices(shape)]
    values = 30 + 2 * np.arange(algorithms)[:, None, None, None] + np.linspace(0, 10, steps)
    values = values + 20 * random.normal(size=(1, datasets, 1, 1))
    values = values + 5 * random.normal(size=(algorithms, datasets, 1, 1))
    values = values + 6 * random.normal(size=(*shape[:3], 1)) + 2 * random.normal(size=shape)
    frame = pd.DataFrame(
        {
            "algorithm": [f"algorithm-{k}" for k in places[0]],
            "dataset": [f"task-{k}" for k in places[1]],
            "seed": places[2],
            "step": 1000 * places[3],
            "score": values.ravel(),
        }
    )
    return frame if steps > 1 else frame.drop(columns="step")


def measured(checkout: Path, table: Path) -> list[float]:
    """Seconds of PARTS by one version, and the bytes of its page."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(table)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    values: list[float] = json.loads(done.stdout.splitlines()[-1])
    return values


def main() -> None:
    """Prints a line per version and part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", default="20x10x26", help="algorithms x runs x data sets")
    parser.add_argument("--steps", type=int, default=1, help="evaluations of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout of offrl")
    options = parser.parse_args()
    algorithms, runs, datasets = map(int, options.size.split("x"))
    checkouts = [Path(__file__).parents[1], *([options.against] if options.against else [])]
    seen: dict[Path, list[list[float]]] = {checkout: [] for checkout in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "scores.csv"
        scores(algorithms, runs, datasets, options.steps).to_csv(table, index=False)
        for _ in range(options.rounds):
            for checkout in checkouts:
                seen[checkout].append(measured(checkout.resolve(), table))
    print(f"{options.size}, {options.steps} steps, {options.rounds} rounds; seconds of processor")
    for checkout, rounds in seen.items():
        *seconds, size = map(statistics.median, zip(*rounds, strict=True))
        parts = ", ".join(f"{n} {s:.2f}" for n, s in zip(PARTS, seconds, strict=True))
        print(f"{checkout}: {parts}, in all {sum(seconds):.2f}; page {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
