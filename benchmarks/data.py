"""How long a million D4RL-shaped transitions take to convert and to load, and in how much memory.

    python benchmarks/data.py [--transitions 1000000] [--minari]

Each figure comes from a process of its own. Memory is the peak above what the process held before
it began (imports included), over the size of the columns. `--minari` adds 13,210 episodes of dict
observations, the shape of Minari's pointmaze-umaze-v2.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

STEP = """
import json, resource, sys, time
import h5py, minari  # libraries count as before
from offrl.data.columns import NAMES
from offrl.data.dataset import load_dataset
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
before, start = resident(), time.perf_counter()
data = load_dataset(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
size = sum(getattr(data, name).nbytes for name in NAMES)
print(json.dumps({"seconds": seconds, "peak": peak / size, "size": size, "rows": len(data)}))
"""


def d4rl_file(path: Path, rows: int, successors: bool) -> None:
    """A file shaped like halfcheetah_medium-v2: 17 observations, 6 actions, 1000 steps each."""
    import h5py

    rng = np.random.default_rng(np.random.SeedSequence(0))
    ends = np.arange(rows) % 1000 == 999
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(rows, 17)).astype(np.float32)
        if successors:
            file["next_observations"] = rng.normal(size=(rows, 17)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (rows, 6)).astype(np.float32)
        file["rewards"] = rng.normal(size=rows).astype(np.float32)
        file["terminals"] = np.zeros(rows, dtype=np.bool_)
        file["timeouts"] = ends


def minari_data(root: Path, rows: int) -> Path:
    """A local Minari data set shaped like pointmaze-umaze-v2, infos included."""
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    os.environ["MINARI_DATASETS_PATH"] = str(root)
    rng = np.random.default_rng(np.random.SeedSequence(0))
    sizes = {"observation": 4, "achieved_goal": 2, "desired_goal": 2}
    steps = 75
    episodes = [
        EpisodeBuffer(
            observations={key: rng.normal(size=(steps + 1, size)) for key, size in sizes.items()},
            actions=rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
            rewards=rng.normal(size=steps),
            terminations=np.zeros(steps, dtype=np.bool_),
            truncations=np.arange(steps) == steps - 1,
            infos={
                key: rng.normal(size=(steps + 1, 2)) for key in ("qpos", "qvel", "goal", "success")
            },
        )
        for _ in range(rows // steps)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "benchmark/maze-v0",
            episodes,
            observation_space=gymnasium.spaces.Dict(
                {
                    key: gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
                    for key, size in sizes.items()
                }
            ),
            action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        )
    return root / "benchmark" / "maze-v0"


def measure(source: Path, cache: Path) -> dict[str, float]:
    """The figures of one load in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(source)],
        env=os.environ | {"OFFRL_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Time and memory of converting and loading.")
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--minari", action="store_true", help="also a Minari data set")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sources = {}
        for name, successors in (("HDF5", False), ("HDF5, next_observations", True)):
            sources[name] = root / f"{successors}.hdf5"
            d4rl_file(sources[name], arguments.transitions, successors)
        if arguments.minari:
            sources["Minari, dict"] = minari_data(root, arguments.transitions)
        print(f"{'source':26}{'rows':>12}{'MB':>8}{'convert s':>12}{'peak / MB':>12}{'load s':>10}")
        for name, path in sources.items():
            first = measure(path, root / "cache")
            second = measure(path, root / "cache")
            print(
                f"{name:26}{first['rows']:>12,}{first['size'] / 1e6:>8.0f}{first['seconds']:>12.2f}"
                f"{first['peak']:>12.2f}{second['seconds']:>10.3f}"
            )


if __name__ == "__main__":
    main()
