"""How long a million D4RL-shaped transitions take to convert and to load, and in how much memory.

    python benchmarks/data.py [--transitions 1000000] [--against CHECKOUT] [--rounds 3]

Each figure comes from a process of its own. Memory is the peak above what the process held before
it began (imports included), over the size of the columns. Minari's set has 13,333 episodes of dict
observations, the shape of its pointmaze-umaze-v2; a table of one's own is imported from CSV.
With `--against` each HDF5 file is read by another checkout in turn; the figures are medians.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

STEP = """
import json, sys, time
import h5py, minari  # libraries count as before
from offrl.data.columns import NAMES
from offrl.data.dataset import load_dataset
from offrl.data.loader import loaders
loaders()
def most():
    with open("/proc/self/status") as file:
        return 1024 * int(file.read().split("VmHWM:")[1].split()[0])
before, start = most(), time.perf_counter()
data = load_dataset(sys.argv[1])
seconds = time.perf_counter() - start
peak = most() - before
size = sum(getattr(data, name).nbytes for name in NAMES)
print(json.dumps({"seconds": seconds, "peak": peak / size, "size": size, "rows": len(data)}))
"""


IMPORT = """
import json, sys, time
import numpy, pandas, pyarrow.csv, pyarrow.parquet
from offrl.data.columns import NAMES
from offrl.data.dataset import load_dataset
from offrl.data.deposit import deposit_table
from offrl.data.roles import Roles
from offrl.data.tables import open_table
from pathlib import Path
def most():
    with open("/proc/self/status") as file:
        return 1024 * int(file.read().split("VmHWM:")[1].split()[0])
before, start = most(), time.perf_counter()
roles = Roles(["o_*"], ["a_*"], "r", (), "episode", "t")
card = deposit_table(open_table(Path(sys.argv[1])), roles, sys.argv[1] + ".toml", None, 0)
data = load_dataset(card)
seconds = time.perf_counter() - start
peak = most() - before
size = sum(getattr(data, name).nbytes for name in NAMES)
print(json.dumps({"seconds": seconds, "peak": peak / size, "size": size, "rows": len(data)}))
"""


def csv_file(path: Path, rows: int) -> None:
    """A table like halfcheetah_medium-v2: 17 observations, 6 actions, 1000 steps an episode."""
    import pyarrow
    from pyarrow import csv

    rng = np.random.default_rng(np.random.SeedSequence(0))
    columns = {"episode": np.arange(rows) // 1000, "t": np.arange(rows) % 1000}
    columns |= {f"o_{k}": rng.normal(size=rows).astype(np.float32) for k in range(17)}
    columns |= {f"a_{k}": rng.uniform(-1, 1, rows).astype(np.float32) for k in range(6)}
    csv.write_csv(pyarrow.table(columns | {"r": rng.normal(size=rows).astype(np.float32)}), path)


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


def measure(source: Path, cache: Path, code: Path, step: str = STEP) -> dict[str, float]:
    """The figures of one load in a fresh process, by the offrl of a checkout."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", step, str(source)],
        env=os.environ | {"OFFRL_CACHE": str(cache), "PYTHONPATH": str(code)},
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def row(name: str, figures: list[dict[str, float]], again: list[dict[str, float]]) -> str:
    """A line of the table, of medians."""
    middle = {key: statistics.median(f[key] for f in figures) for key in figures[0]}
    load = statistics.median(f["seconds"] for f in again) if again else math.nan
    rate = middle["rows"] / middle["seconds"]
    return (
        f"{name:34}{middle['rows']:>12,.0f}{middle['size'] / 1e6:>8.0f}{middle['seconds']:>11.2f}"
        f"{rate:>12,.0f}{middle['peak']:>11.2f}{load:>10.4f}"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Time and memory of converting and loading.")
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--against", type=Path, help="another checkout, for HDF5")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    own = Path(__file__).resolve().parents[1]
    checkouts = {"": own} | ({" (other)": arguments.against} if arguments.against else {})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sources = {}
        for name, successors in (("HDF5", False), ("HDF5, next_observations", True)):
            sources[name] = root / f"{successors}.hdf5"
            d4rl_file(sources[name], arguments.transitions, successors)
        print(
            f"{'source':34}{'rows':>12}{'MB':>8}{'seconds':>11}{'rows / s':>12}{'peak / MB':>11}"
            f"{'load s':>10}"
        )
        for name, path in sources.items():
            figures: dict[str, list[dict[str, float]]] = {key: [] for key in checkouts}
            again: dict[str, list[dict[str, float]]] = {key: [] for key in checkouts}
            for _ in range(arguments.rounds):
                for key, code in checkouts.items():
                    with tempfile.TemporaryDirectory(dir=root) as cache:
                        figures[key].append(measure(path, Path(cache), code))
                        again[key].append(measure(path, Path(cache), code))
            for key in checkouts:
                print(row(name + key, figures[key], again[key]), flush=True)
        path = minari_data(root, arguments.transitions)
        first, second = (measure(path, root / "minari cache", own) for _ in range(2))
        print(row("Minari, dict, 75 steps an episode", [first], [second]), flush=True)
        csv_file(root / "own.csv", arguments.transitions)
        imported = measure(root / "own.csv", root / "csv cache", own, IMPORT)
        print(row("CSV, imported and loaded", [imported], []))


if __name__ == "__main__":
    main()
