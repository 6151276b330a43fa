"""Gradient updates per second of offrl's learners on one thread, sampling included.

    python benchmarks/updates.py td3_bc iql                 # ours
    python benchmarks/updates.py td3_bc=139.0 iql=110.0     # beside another program's figures

A figure to compare with has to be taken in turn with this one on the same, otherwise idle machine.
The data are random numbers in D4RL's shape: 17 observations, 6 actions; batch 256, two hidden
layers of 256.
"""

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch

from offrl.batch import Transitions
from offrl.learner import Spec, build, find_algorithm


def updates_per_second(
    name: str, updates: int, repeats: int, changes: dict[str, Any]
) -> list[float]:
    """The rate of each repetition, in updates per second, with `changes` to the defaults."""
    rng = np.random.default_rng(0)
    rows = 100_000
    data = Transitions(
        observations=rng.standard_normal((rows, 17), dtype=np.float32),
        actions=rng.uniform(-1, 1, (rows, 6)).astype(np.float32),
        rewards=rng.standard_normal(rows, dtype=np.float32),
        next_observations=rng.standard_normal((rows, 17), dtype=np.float32),
        terminations=np.zeros(rows, dtype=np.float32),
        truncations=(np.arange(rows) % 1000 == 999).astype(np.float32),
    )
    algorithm = find_algorithm(name)
    config = algorithm.Config(**changes)
    spec = Spec(17, 6, 1.0, 1_000_000, np.zeros(17), np.ones(17))
    learner = build(algorithm, spec, config, seeds=[0])
    sampler = algorithm.sampler(algorithm.prepare(data, config), config, [0], "cpu")
    rates = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(updates):
            learner.update(sampler.sample())
        if repeat:  # the first warms up
            rates.append(updates / (time.perf_counter() - start))
    return rates


def main() -> None:
    """Prints one line per algorithm: the median rate and, where given, its ratio to the other's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", nargs="+", help="NAME, or NAME=UPDATES_PER_SECOND of another")
    parser.add_argument("--updates", type=int, default=300, help="updates per repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", default="{}", help="changes to the defaults, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for item in arguments.algorithm:
        name, _, other = item.partition("=")
        changes = json.loads(arguments.config)
        rates = updates_per_second(name, arguments.updates, arguments.repeats, changes)
        rate = statistics.median(rates)
        ratio = f"  {rate / float(other):.2f}x of {other}" if other else ""
        print(f"{name:12s} {rate:8.1f} updates/s{ratio}")


if __name__ == "__main__":
    main()
