"""How long a finished grid takes to be recognised, and to be read as scores.

    python benchmarks/grid.py make GRID                  # 5,000 run folders, 20 evaluations each
    python benchmarks/grid.py measure GRID               # with this offrl
    python benchmarks/grid.py measure GRID --checkout DIR --rounds 3    # and with another, in turn

`make` trains one run on random numbers and copies its folder, with the identity of each run of a
protocol of 10 algorithms, 10 data sets and 50 seeds. `measure` gives `offrl run` on the finished
grid until it says that all is done, `offrl status` and `offrl scores`, each as a process of its
own, with its wall time, processor time and the most memory that it held.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from updates import processor

from offrl.data.dataset import load_dataset
from offrl.files import seal, unseal
from offrl.results.store import RunFolder
from offrl.running.jobs import Job, identity
from offrl.running.protocol import find_protocol
from offrl.running.runner import plan
from offrl.running.training import train_run

CARD = """
id = "noise-{number}"
version = 1
title = "Noise on a pendulum"
licence = "none"
citation = "none"
[source]
loader = "neorl2"
files = [{{ name = "noise.npz" }}]
[environment]
id = "Pendulum-v1"
max_episode_steps = 4
[reference]
min = -50.0
max = 0.0
source = "made up"
"""
PROTOCOL = """
id = "grid"
version = 1
title = "A grid"
source = "offrl"
datasets = {datasets}
seeds = {seeds}
steps = 200
[evaluation]
every = 10
episodes = 10
"""
ENTRY = """
[algorithms.bc-{number}]
algorithm = "bc"
config = {{ hidden = [2], batch_size = 2, actor_lr = {rate} }}
"""


def write_inputs(folder: Path, seeds: int) -> Path:
    """The data, their cards and the protocol, whose path is returned."""
    rng, rows = np.random.default_rng(0), 20
    observations = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    np.savez(
        folder / "noise.npz",
        obs=observations[:-1],
        action=rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        next_obs=observations[1:],
        reward=np.ones(rows, np.float32),
        done=np.zeros(rows, np.float32),
        truncated=(np.arange(rows) % 5 == 4).astype(np.float32),
    )
    for number in range(10):
        (folder / f"noise-{number}.toml").write_text(CARD.format(number=number))
    cards = [f"noise-{number}.toml" for number in range(10)]
    text = PROTOCOL.format(datasets=json.dumps(cards), seeds=list(range(seeds)))
    text += "".join(ENTRY.format(number=n, rate=1e-3 * (n + 1)) for n in range(10))
    path = folder / "grid.toml"
    path.write_text(text)
    return path


def copy(origin: RunFolder, job: Job, root: Path, checksums: dict[str, object]) -> None:
    """A run folder as `job` would leave it, with the numbers of another run."""
    folder = job.folder(root)
    shutil.copytree(origin.path, folder, ignore=shutil.ignore_patterns(".*"))
    record = unseal(json.loads(origin.record_file.read_text()))
    record["identity"] = checksums
    (folder / "run.json").write_text(json.dumps(seal(record), indent=2) + "\n")
    labels = {
        "dataset": checksums["dataset"],
        "algorithm": job.label,
        "config": job.config_hash,
        "seed": job.seed,
    }
    rows = []
    for line in origin.rows_file.read_text().splitlines():
        row = {**unseal(json.loads(line)), **labels}
        rows.append(json.dumps(seal(row)) + "\n")
    (folder / "evaluations.jsonl").write_text("".join(rows))


def make(folder: Path, seeds: int) -> None:
    """Makes the grid."""
    folder.mkdir(parents=True)
    jobs = plan(find_protocol(str(write_inputs(folder, seeds)))).jobs
    root = folder / "runs"
    train_run(jobs[0], root)
    origin = RunFolder(jobs[0].folder(root))
    datasets = {job.dataset: load_dataset(job.dataset, view=job.view) for job in jobs}
    for job in jobs[1:]:
        values = identity(job, datasets[job.dataset]).model_dump()
        copy(origin, job, root, values)
    print(f"{len(jobs):,} runs in {root}")


def measured(words: list[str], folder: Path, checkout: Path) -> tuple[float, float, float, str]:
    """Wall seconds, processor seconds, MiB and the last line of a command of a checkout's offrl."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    script = (
        "import sys, resource, runpy\n"
        f"sys.argv = ['offrl', *{words!r}]\n"
        "try:\n    runpy.run_module('offrl', run_name='__main__')\n"
        "finally:\n"
        "    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    print('PEAK', peak, file=sys.stderr)\n"
    )
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = int(done.stderr.rsplit("PEAK", 1)[1].split()[0]) / 1024
    return wall, spent, peak, (done.stdout.strip().splitlines() or [""])[-1]


def measure(folder: Path, checkouts: list[Path], rounds: int, commands: list[str]) -> None:
    """Prints a line for each command and checkout: medians over the rounds."""
    all_words = {
        "run": ["run", "grid.toml", "-o", "runs"],
        "status": ["status", "runs"],
        "scores": ["scores", "runs", "-o", "scores.csv"],
    }
    for name in commands:
        have = [c for c in checkouts if name != "status" or (c / "offrl/cli/watching.py").exists()]
        found: dict[Path, list[tuple[float, float, float, str]]] = {c: [] for c in have}
        for _ in range(rounds):
            for checkout in have:
                found[checkout].append(measured(all_words[name], folder, checkout))
        for checkout, each in found.items():
            wall = statistics.median(r[0] for r in each)
            spent = statistics.median(r[1] for r in each)
            peak = statistics.median(r[2] for r in each)
            print(
                f"{processor()}: {checkout}: offrl {name}: {wall:.2f} s ({spent:.2f} s of "
                f"processor), {peak:.0f} MiB; {each[-1][3]}",
                flush=True,
            )


def main() -> None:
    """Makes or measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--checkout", type=Path, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--command", action="append", choices=["run", "status", "scores"])
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.folder, arguments.seeds)
    else:
        here = Path(__file__).parents[1]
        commands = arguments.command or ["run", "status", "scores"]
        measure(arguments.folder, [here, *arguments.checkout], arguments.rounds, commands)


if __name__ == "__main__":
    main()
