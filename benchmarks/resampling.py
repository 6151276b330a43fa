"""Speed and memory of the statistics on one core, beside rliable's and scipy's.

    python benchmarks/resampling.py                      # minutes
    python benchmarks/resampling.py --full --repeats 1   # the others in full: more than an hour
    python benchmarks/resampling.py --quick              # whether it runs; its figures say nothing

The programs take turns on the same random scores; every figure is a median over the rounds. Where
the others would take minutes to hours they do the part of the job that the table names, fewer
repetitions or three pairs of algorithms, and `whole s` is scaled from it. `doubling` is that part's
time over its time with half the repetitions: 2 where time is proportional to them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import scipy.stats
from rliable import library, metrics

from offrl import statistics
from offrl.reporting.report import report
from offrl.results.files import write_scores
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.comparison import compare
from offrl.statistics.pair_intervals import resampled_probabilities
from offrl.statistics.pairs import Pair
from offrl.statistics.resampling import Resampling

SOLVED = 100.0
Arrays = Mapping[str, Any]

STEP = """
import resource, sys
from pathlib import Path
from offrl.statistics.comparison import compare
from offrl.results.files import read_scores
from offrl.statistics.resampling import Resampling
from offrl.statistics.summary import summarise
table, resampling = read_scores(Path(sys.argv[1])), Resampling(int(sys.argv[2]))
summarise(table, resampling=resampling)
compare(table, resampling=resampling)
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


@dataclass(frozen=True)
class Job:
    """Something that offrl, in one way or several, and another program do."""

    name: str
    ours: Mapping[str, Callable[[], object]]  # by what is said of it
    other: str
    theirs: Callable[[int], object]  # with a number of repetitions
    reps: int  # of the job
    timed: int  # of the other, where it is timed
    pairs: tuple[int, int] = (1, 1)  # of algorithms: how many the job has, and `theirs` does


def random_scores(algorithms: int, runs: int, tasks: int, *steps: int) -> dict[str, Any]:
    """Arrays (runs, tasks[, steps]) by algorithm; tasks and algorithms differ in level."""
    rng = np.random.default_rng(0)
    level = rng.uniform(10, 90, (tasks, *(1 for _ in steps)))
    return {
        f"algorithm {k}": level + rng.normal(0, 5) + 8 * rng.standard_t(3, (runs, tasks, *steps))
        for k in range(algorithms)
    }


def table_of(scores: Arrays) -> ScoreTable:
    """The arrays as a table."""
    _, tasks, *steps = next(iter(scores.values())).shape
    names = [f"data set {k}" for k in range(tasks)]
    return ScoreTable.from_arrays(scores, names, steps=range(*steps) if steps else None)


def rliable_summary(scores: Arrays, reps: int) -> Any:
    """The four aggregates of each algorithm and their intervals."""

    def aggregates(x: Any) -> Any:
        gap = metrics.aggregate_optimality_gap(x, SOLVED)
        others = (metrics.aggregate_iqm, metrics.aggregate_median, metrics.aggregate_mean)
        return np.array([*(function(x) for function in others), gap])

    return library.get_interval_estimates(scores, aggregates, reps=reps)


def scipy_summary(scores: Arrays, reps: int) -> Any:
    """The same intervals by `scipy.stats.bootstrap`, vectorised, one sample per data set."""

    def aggregates(*samples: Any, axis: int) -> Any:
        assert axis == -1
        x = np.stack(samples, axis=-2)
        pooled = x.reshape(*x.shape[:-2], -1)
        means = x.mean(axis=-1)
        iqm = scipy.stats.trim_mean(pooled, 0.25, axis=-1)
        gap = SOLVED - np.minimum(pooled, SOLVED).mean(axis=-1)
        return np.stack([iqm, np.median(means, axis=-1), means.mean(axis=-1), gap])

    return {
        name: scipy.stats.bootstrap(
            tuple(x.T), aggregates, n_resamples=reps, batch=1_000, method="percentile", rng=0
        ).confidence_interval
        for name, x in scores.items()
    }


def rliable_curve(scores: Arrays, reps: int) -> Any:
    """The IQM of each algorithm at every step and its interval."""

    def iqms(x: Any) -> Any:
        return np.array([metrics.aggregate_iqm(x[..., k]) for k in range(x.shape[-1])])

    return library.get_interval_estimates(scores, iqms, reps=reps)


def rliable_improvement(scores: Arrays, count: int, reps: int) -> Any:
    """P(X > Y) and its interval for the first `count` pairs."""
    pairs = islice(combinations(scores, 2), count)
    return library.get_interval_estimates(
        {f"{x},{y}": (scores[x], scores[y]) for x, y in pairs},
        metrics.probability_of_improvement,
        reps=reps,
    )


def improvement(table: ScoreTable, reps: int) -> list[tuple[float, bootstrap.Interval]]:
    """P(X > Y) and its percentile interval for all pairs, and nothing else of a comparison."""
    pairs = [Pair(x, y) for x, y in combinations(table.cells().values(), 2)]
    estimates = []
    for pair, samples in zip(pairs, resampled_probabilities(pairs, 0, reps, 0), strict=True):
        ordered = np.sort(1 - samples if pair.turned else samples)
        estimates.append((pair.probability, bootstrap.read(ordered, 0.025, pair.probability)))
    return estimates


def jobs(shape: tuple[int, int, int], full: bool, quick: bool) -> Iterator[Job]:
    """The jobs of (algorithms, runs, data sets); `full` times the others on the whole of them."""
    many, reps = (400, 200) if quick else (50_000, 2_000)
    scores, size = random_scores(*shape), " x ".join(map(str, shape))
    table, tau = table_of(scores), np.linspace(0, SOLVED, 101)
    count = shape[0] * (shape[0] - 1) // 2
    some = count if full else 3

    def part(whole: int, timed: int) -> int:
        return whole if full else min(timed, whole // 2)

    name = f"summarise {size}, 4 metrics, {many:,} reps"
    ours = {"": partial(statistics.summarise, table, resampling=Resampling(many))}
    for other, theirs in (("rliable", rliable_summary), ("scipy", scipy_summary)):
        yield Job(name, ours, other, partial(theirs, scores), many, part(many, 4_000))
    yield Job(
        f"profile {size}, {len(tau)} thresholds, {reps:,} reps",
        {"": partial(statistics.profile, table, tau, resampling=Resampling(reps))},
        "rliable",
        lambda n: library.create_performance_profile(scores, tau, reps=n),
        reps,
        reps,
    )
    yield Job(
        f"P(X > Y) {size}, {count} pairs, {reps:,} reps",
        {
            "": partial(improvement, table, reps),
            "; ours: all of compare": partial(compare, table, resampling=Resampling(reps)),
        },
        "rliable",
        partial(rliable_improvement, scores, some),
        reps,
        part(reps, 200),
        (count, some),
    )


def curve_job(shape: tuple[int, int, int], full: bool, quick: bool) -> Job:
    """The job of learning curves of (algorithms, runs, data sets)."""
    points, reps = (5, 200) if quick else (50, 2_000)
    scores, size = random_scores(*shape, points), " x ".join(map(str, shape))
    return Job(
        f"curve {size}, {points} steps, {reps:,} reps",
        {"": partial(statistics.curve, table_of(scores), resampling=Resampling(reps))},
        "rliable",
        partial(rliable_curve, scores),
        reps,
        reps if full else reps // 5,
    )


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def lines(job: Job, repeats: int) -> Iterator[str]:
    """Rows of the table: the job, timed in turns."""
    whole = job.timed == job.reps
    share = job.timed / job.reps * job.pairs[1] / job.pairs[0]
    rounds = []
    for function in job.ours.values():
        function()  # warms up
    for _ in range(repeats):
        ours = [seconds(function) for function in job.ours.values()]
        half = np.nan if whole else seconds(lambda: job.theirs(job.timed // 2))
        theirs = seconds(lambda: job.theirs(job.timed))
        rounds.append([theirs, theirs / half, theirs / share, *ours])
    theirs, doubling, scaled, *ours = np.median(rounds, axis=0).tolist()
    timed = f"{job.timed:,} reps"
    if job.pairs[1] < job.pairs[0]:
        timed += f", {job.pairs[1]} pairs"
    for what, mine, each in zip(job.ours, ours, np.transpose(rounds)[3:], strict=True):
        ratio = np.median(np.array(rounds)[:, 2] / each)
        yield (
            f"{job.name + what:64}{mine:>9.3f}  {job.other:9}{timed:21}{theirs:>8.2f}"
            f"{'' if whole else f'{doubling:.2f}':>10}{scaled:>10.1f}{ratio:>8.0f}"
        )


def main() -> None:
    """Prints the peak memory, the report's time and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="rounds of which to take medians")
    parser.add_argument("--full", action="store_true", help="time the others on whole jobs")
    parser.add_argument("--quick", action="store_true", help="tiny jobs, to see that it runs")
    arguments = parser.parse_args()
    full, quick = arguments.full, arguments.quick
    small, large = ((3, 4, 3), (4, 3, 4)) if quick else ((4, 10, 9), (20, 10, 26))
    size, reps = " x ".join(map(str, large)), 400 if quick else 50_000
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "scores.csv"
        write_scores(table_of(random_scores(*large)), csv)
        # First, since Linux counts what this process has held by now as the new one's.
        code = [sys.executable, "-P", "-c", STEP, str(csv), str(reps)]
        peak = int(subprocess.run(code, stdout=subprocess.PIPE, check=True).stdout)
        print(f"summarise and compare {size}, {reps:,} reps: peak memory {peak / 1e9:.2f} GB")
        rounds = [
            seconds(lambda: report([csv], Path(folder) / "report"))
            for _ in range(arguments.repeats)
        ]
        print(f"the complete report of {size}, all pairs: {np.median(rounds):.1f} s\n")
    print(
        f"{'job':64}{'offrl s':>9}  {'other':9}{'of which timed':21}{'s':>8}{'doubling':>10}"
        f"{'whole s':>10}{'ratio':>8}"
    )
    every = [*jobs(small, full, quick), curve_job(small, full, quick), *jobs(large, full, quick)]
    for job in every:
        for line in lines(job, arguments.repeats):
            print(line, flush=True)


if __name__ == "__main__":
    main()
