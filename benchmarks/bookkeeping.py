"""What a run costs beside sampling, updates and episodes: checks, events, files.

    python benchmarks/bookkeeping.py                    # BC, 20,000 steps
    python benchmarks/bookkeeping.py --steps 5000 --every 500

Trains BC with its defaults on random numbers in the shape of half-cheetah's data, as `offrl train`
does, with its evaluations in the simulator. Sampling, updates and episodes are timed where they
are called; the rest of the run's time, reading the data included, is the bookkeeping. The kernel is
chosen before, as for all runs of a shape on a machine but the first: its time is printed too.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from updates import processor, random_data

from offrl.algorithms.bc import BC
from offrl.evaluation.rollouts import Evaluator
from offrl.learning.sampler import UniformSampler
from offrl.running.kernel_choice import choose
from offrl.running.protocol import find_protocol
from offrl.running.runner import plan
from offrl.running.task import prepare
from offrl.running.training import train_run

CARD = """
id = "random"
version = 1
title = "Random numbers in half-cheetah's shape"
licence = "none"
citation = "none"
[source]
loader = "neorl2"
files = [{ name = "random.npz" }]
[environment]
id = "HalfCheetah-v4"
max_episode_steps = 1000
[reference]
min = 0
max = 1
source = "none"
"""
PROTOCOL = """
id = "bookkeeping"
version = 1
title = "A run"
source = "offrl"
datasets = ["random.toml"]
seeds = [0]
steps = {steps}
[evaluation]
every = {every}
episodes = 10
[algorithms.bc]
"""

spent = {"sampling": 0.0, "updates": 0.0, "episodes": 0.0}


def timed(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with its time added up."""

    def timing(*args: Any, **keys: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **keys)
        finally:
            spent[kind] += time.perf_counter() - start

    return timing


def write_inputs(folder: Path, steps: int, every: int) -> None:
    """The data, their card and the protocol."""
    data = random_data()
    truncated = (np.arange(len(data["rewards"])) % 1000 == 999).astype(np.float32)
    np.savez(
        folder / "random.npz",
        obs=data["observations"],
        action=data["actions"],
        next_obs=data["next_observations"],
        reward=data["rewards"],
        done=data["terminals"],
        truncated=truncated,
    )
    (folder / "random.toml").write_text(CARD)
    (folder / "protocol.toml").write_text(PROTOCOL.format(steps=steps, every=every))


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=5_000, help="steps between evaluations")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for kind, owner, name in (
        ("sampling", UniformSampler, "sample"),
        ("updates", BC, "update"),
        ("episodes", Evaluator, "__call__"),
    ):
        setattr(owner, name, timed(kind, getattr(owner, name)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, arguments.steps, arguments.every)
        os.environ["OFFRL_CACHE"] = str(folder / "cache")  # nothing is remembered there
        planned = plan(find_protocol(str(folder / "protocol.toml")))
        (job,) = planned.jobs
        work = prepare(job, planned.dataset(job))
        start = time.perf_counter()
        choose(job, work, 1)
        chosen = time.perf_counter() - start
        spent.update(dict.fromkeys(spent, 0.0))
        start = time.perf_counter()
        train_run(job, folder / "runs")
        total = time.perf_counter() - start
    shown = ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in spent.items())
    rest = total - sum(spent.values())
    print(
        f"{processor()}: {arguments.steps:,} steps of BC in {total:.2f} s: {shown}, the rest "
        f"{rest:.2f} ({rest / total:.1%}); before, {chosen:.2f} to choose a kernel"
    )


if __name__ == "__main__":
    main()
