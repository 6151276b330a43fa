"""How far NeoRL-2's simulators are from published files, and how fast they are.

    python benchmarks/neorl2.py FOLDER     # replays what the folder has of NeoRL-2's files
    python benchmarks/neorl2.py            # speed alone

Episode i of a file starts from seed i and takes the file's actions. Upstream draws Pipeline's first
target and the phase of RocketRecovery's wind without a seed: these are taken from the file.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.datasets.neorl2_hopper import RandomFrictionHopperVector
from offrl.datasets.neorl2_pipeline import CHANGE, PipelineVector
from offrl.datasets.neorl2_rocket import RocketRecoveryVector, wind
from offrl.datasets.neorl2_simglucose import SimglucoseVector

Array = NDArray[Any]
Columns = dict[str, Array]


class Kept:
    """A generator of upstream's object, which has a target from the episode before: the file's."""

    def __init__(self, rng: Any, first: float) -> None:
        self.rng, self.first = rng, first
        self.uniform = rng.uniform
        self.changes = False  # whether the last number drawn changes the target

    def random(self) -> float:
        """A number in [0, 1)."""
        number = float(self.rng.random())
        self.changes = number < CHANGE
        return number

    def choice(self, targets: Any) -> float:
        """A new target, or at the start that of the episode before."""
        return float(self.rng.choice(targets)) if self.changes else self.first


def pipeline(columns: Columns, starts: Array, _: Array) -> PipelineVector:
    """Pipes with the first targets of a file."""

    class Pipes(PipelineVector):
        def generator(self, seed: int | None) -> Any:
            return Kept(super().generator(seed), columns["obs"][starts[seed or 0], 1])

    return Pipes(len(starts))


def rocket(columns: Columns, starts: Array, ends: Array) -> RocketRecoveryVector:
    """Rockets with the winds of a file."""
    winds = np.array([wind(step) for step in range(-10_000, 10_600)], np.float32)

    def phase(first: int, last: int) -> int:
        seen = np.append(columns["obs"][first, 6], columns["next_obs"][first : last + 1, 6])
        for start in np.flatnonzero(np.abs(winds[:20_000] - seen[0]) < 1e-5):
            if np.abs(winds[start : start + len(seen)] - seen).max() < 1e-5:
                return int(start) - 10_000
        raise ValueError(f"no phase of the wind in rows {first} to {last}")

    phases = [phase(first, last) for first, last in zip(starts, ends, strict=True)]

    class Rockets(RocketRecoveryVector):
        def generator(self, seed: int | None) -> Any:
            fixed = SimpleNamespace(randint=lambda *_: phases[seed or 0])
            return SimpleNamespace(steps=super().generator(seed).steps, phases=fixed)

    return Rockets(len(starts))


TASKS: dict[str, tuple[type, Callable[[Columns, Array, Array], Any], int]] = {
    "Pipeline": (PipelineVector, pipeline, 40),
    "Simglucose": (SimglucoseVector, lambda _, starts, __: SimglucoseVector(len(starts)), 8),
    "RocketRecovery": (RocketRecoveryVector, rocket, 10),
    "RandomFrictionHopper": (
        RandomFrictionHopperVector,
        lambda _, starts, __: RandomFrictionHopperVector(len(starts)),
        10,
    ),
}


def replay(path: Path, make: Callable[[Columns, Array, Array], Any]) -> None:
    """Prints the largest differences, open loop, over whole episodes."""
    with np.load(path) as archive:
        columns = {key: archive[key] for key in archive}
    done, truncated = columns["done"].ravel() == 1, columns["truncated"].ravel() == 1
    ends = np.flatnonzero(done | truncated)
    starts = np.append(0, ends[:-1] + 1)
    env, count = make(columns, starts, ends), len(starts)
    seeds = list(range(count))
    observations, _ = env.reset(seed=seeds)
    first = np.abs(observations - columns["obs"][starts]).max()
    worst, paid, wrong = np.zeros(count), 0.0, 0
    over = np.zeros(count, np.bool_)
    for step in range((ends - starts).max() + 1):
        if over.any():
            env.reset(seed=seeds, options={"reset_mask": over})
        live = starts + step <= ends
        rows = np.where(live, starts + step, 0)
        observations, rewards, ended, cut, _ = env.step(columns["action"][rows] * live[:, None])
        over = ended | cut
        away = np.abs(observations - columns["next_obs"][rows]).max(1)
        worst = np.maximum(worst, np.where(live, away, 0))
        paid = max(paid, float(np.abs(rewards - columns["reward"].ravel()[rows])[live].max()))
        wrong += int((live & (ended != done[rows])).sum())
    print(
        f"{path.name}: {count} episodes; first observation off by {first:.1e}, later ones by at "
        f"most {worst.max():.1e} (median episode {np.median(worst):.1e}), rewards by {paid:.1e}; "
        f"{wrong} ends differ"
    )


def speed(name: str, kind: type, steps: int) -> None:
    """Prints steps a second of processor time, of 1,000 episodes; the median of three rounds."""
    rates = []
    for _ in range(3):
        env, rng = kind(1000), np.random.default_rng(0)
        env.reset(seed=0)
        start = time.process_time()
        for _ in range(steps):
            *_, ended, cut, _ = env.step(rng.uniform(-1, 1, env.action_space.shape))
            if (ended | cut).any():
                env.reset(options={"reset_mask": ended | cut})
        rates.append(1000 * steps / (time.process_time() - start))
    print(f"{name}: {np.median(rates):,.0f} steps/s ({min(rates):,.0f} to {max(rates):,.0f})")


def main() -> None:
    """Replays the files of folders, or measures speed."""
    for name, (kind, make, steps) in TASKS.items():
        for folder in sys.argv[1:]:
            for path in sorted(Path(folder).glob(f"{name}*.npz")):
                if path.stat().st_size:
                    replay(path, make)
        if len(sys.argv) == 1:
            speed(name, kind, steps)


if __name__ == "__main__":
    main()
