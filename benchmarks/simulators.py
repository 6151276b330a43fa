"""Speed of the evaluation simulators: `python benchmarks/simulators.py`.

Drives each environment with a small numpy policy, since a policy costs something too, and prints
episodes and steps per second of one process. Set OMP_NUM_THREADS=1 for figures of one core.
"""

import time
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv

ENVIRONMENTS = [
    ("offrl.datasets.neorl2_simulators:offrl/DMSD-v0", 1000, 100, True),
    ("offrl.datasets.neorl2_simulators:offrl/SafetyHalfCheetah-v0", 10, 1000, False),
]


def measure(name: str, rows: int, steps: int, vectorised: bool) -> float:
    """Seconds for `rows` episodes in lockstep, resets and a 256-256 policy included."""
    if vectorised:
        env: Any = gymnasium.make_vec(name, rows)
    else:
        env = SyncVectorEnv([lambda: gymnasium.make(name)] * rows, autoreset_mode="Disabled")
    rng = np.random.default_rng(0)
    sizes = [env.single_observation_space.shape[0], 256, 256, env.single_action_space.shape[0]]
    layers = [rng.normal(size=pair).astype(np.float32) / pair[0] for pair in pairwise(sizes)]

    start = time.perf_counter()
    observations, _ = env.reset(seed=list(range(rows)))
    for _ in range(steps):
        hidden = np.asarray(observations, np.float32)
        for layer in layers[:-1]:
            hidden = np.maximum(hidden @ layer, 0)
        observations, _, _, truncations, _ = env.step(np.tanh(hidden @ layers[-1]))
    elapsed = time.perf_counter() - start
    assert truncations.all()
    env.close()
    return elapsed


def main() -> None:
    """Prints one line per environment."""
    for name, rows, steps, vectorised in ENVIRONMENTS:
        seconds = min(measure(name, rows, steps, vectorised) for _ in range(3))
        print(
            f"{name.partition(':')[2]:28} {rows} episodes in {seconds:.2f} s: "
            f"{rows / seconds:.0f} episodes/s, {rows * steps / seconds:.0f} steps/s"
        )


if __name__ == "__main__":
    main()
