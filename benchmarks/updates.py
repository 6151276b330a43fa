"""Gradient updates per second of offrl's learners on one thread, sampling included.

    python benchmarks/updates.py td3_bc iql                     # ours
    python benchmarks/updates.py td3_bc=139.0 iql=110.0         # beside another program's figures
    python benchmarks/updates.py cql --config '{"n_actions": 4}'

A figure to compare with has to be taken in turn with this one on the same, otherwise idle machine.
The data are random numbers in D4RL's shape: 17 observations, 6 actions. The last column is the
share of the matrix-multiply limit: the floating-point operations of an update's matrix products,
counted by torch in the plain batched path, times the rate, over the speed of 256 x 256 products in
float32.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from offrl.data.transitions import Transitions
from offrl.learning.kernels import ONEDNN, product
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.learning.spec import Spec


def prepared(name: str, changes: dict[str, Any]) -> tuple[Learner, Sampler]:
    """A learner with `changes` to its defaults, and its sampler."""
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
    return learner, algorithm.sampler(algorithm.prepare(data, config), config, [0], "cpu")


def updates_per_second(
    name: str, updates: int, repeats: int, changes: dict[str, Any]
) -> list[float]:
    """The rate of each repetition, in updates per second."""
    learner, sampler = prepared(name, changes)
    rates = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(updates):
            learner.update(sampler.sample())
        if repeat:  # the first warms up
            rates.append(updates / (time.perf_counter() - start))
    return rates


def operations(name: str, changes: dict[str, Any]) -> float:
    """Floating-point operations in an update's matrix products, the mean of four updates.

    In float64, which takes the path without operations of our own, so that torch counts them all.
    """
    torch.set_default_dtype(torch.float64)
    try:
        learner, sampler = prepared(name, changes)
        batches = []
        for _ in range(4):
            columns = vars(sampler.sample()).items()
            batch = {
                k: v.double() if v is not None and v.is_floating_point() else v for k, v in columns
            }
            batches.append(type(sampler.sample())(**batch))
        for value in vars(learner).values():
            if isinstance(value, torch.nn.Module):
                value.double()
        with FlopCounterMode(display=False) as counter:
            for batch in batches:
                learner.update(batch)
    finally:
        torch.set_default_dtype(torch.float32)
    return float(counter.get_total_flops()) / 4


def product_speed() -> float:
    """Floating-point operations per second of 256 x 256 products, by the faster library."""
    a, b = torch.randn(2, 256, 256)
    speeds = []
    for multiply in (torch.mm, product) if ONEDNN else (torch.mm,):
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(400):
                multiply(a, b)
            speeds.append(400 * 2 * 256**3 / (time.perf_counter() - start))
    return max(speeds)


def main() -> None:
    """Prints one line per algorithm: rate, ratio to the other's where given, share of the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", nargs="+", help="NAME, or NAME=UPDATES_PER_SECOND of another")
    parser.add_argument("--updates", type=int, default=300, help="updates per repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", default="{}", help="changes to the defaults, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    changes = json.loads(arguments.config)
    for item in arguments.algorithm:
        name, _, other = item.partition("=")
        rates = updates_per_second(name, arguments.updates, arguments.repeats, changes)
        rate = float(np.median(rates))
        ratio = f"{rate / float(other):6.2f}x of {other}" if other else ""
        count = operations(name, changes)
        share = count * rate / product_speed()
        print(
            f"{name:22s} {rate:8.1f} updates/s {ratio} {count / 1e9:7.3f} GFLOP an update, "
            f"{share:4.0%} of the limit"
        )


if __name__ == "__main__":
    main()
