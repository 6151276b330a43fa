"""What the tests of the command line share: its inputs, and what a call leaves behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CARD = """
id = "mine"
version = 1
title = "mine"
licence = "none"
citation = "none"
[source]
loader = "neorl2"
files = [{ name = "good.npz" }]
[environment]
id = "gymnasium_robotics:PointMaze_UMaze-v3"
max_episode_steps = 20
observation_keys = ["observation", "desired_goal"]
[reference]
min = 0
max = 20
source = "counted"
"""


PROTOCOL = """
id = "tiny"
version = 1
title = "A protocol for tests"
source = "offrl"
datasets = ["card.toml"]
seeds = [0]
steps = 20
[evaluation]
every = 10
episodes = 2
[algorithms.bc.config]
hidden = [8]
batch_size = 4
"""


BROKEN = """
import dataclasses
import torch
import offrl

@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 4

class Broken(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        self.actions = spec.action_dim

    def update(self, batch):
        raise RuntimeError("cannot learn")

    def act(self, observations):
        return torch.zeros(len(observations), self.actions)
"""


HEAD = "algorithm,dataset,seed,score\n"


Columns = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that bad input leaves on stderr; the library may say what it reads."""
        assert self.code == 2, self
        assert self.stdout == ""
        (line,) = (line for line in self.stderr.splitlines() if ": reading /" not in line)
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


Call = Callable[..., Result]


def spawn(*words: object, cwd: Path) -> Result:
    """Calls the command line as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "offrl", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def files(*folders: Path) -> set[Path]:
    """Every file and folder below; locks and leases stay where they are."""
    every = (path for f in folders for path in f.rglob("*"))
    return {p for p in every if not p.name.endswith(".lock") and ".lease-" not in p.name}


def neorl2(rows: int = 20) -> Columns:
    """Two episodes of ten steps in NeoRL-2's format."""
    random = np.random.default_rng(0)
    observations = random.normal(size=(rows + 1, 6)).astype(np.float32)
    return {
        "obs": observations[:-1],
        "action": random.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "next_obs": observations[1:],
        "reward": np.ones(rows, np.float32),
        "done": np.zeros(rows, np.float32),
        "truncated": (np.arange(rows) % 10 == 9).astype(np.float32),
    }


def fake_run(folder: Path) -> None:
    """What one finished run leaves."""
    path = folder / "tiny" / "d" / "bc-00000000" / "seed-0"
    path.mkdir(parents=True)
    common = {"protocol": "tiny@1", "dataset": "d@1", "algorithm": "bc", "seed": 0}
    identity = {**common, "label": "bc", "config": {}, "config_hash": "00000000", "steps": 1}
    identity |= {"view": "transitions", "environment": None, "reference": None, "code": None}
    identity |= {"data_sha256": "", "evaluation": {}}
    record = {"identity": identity, "status": "done", "sessions": []}
    (path / "run.json").write_text(json.dumps(record))
    row = {**common, "config": "00000000", "step": 1, "score": 7.0, "return": 1.0}
    row |= {"returns": [1.0], "lengths": [1], "environment": "e", "simulator": {"mujoco": "3"}}
    row |= {"policy": "", "action_mode": "deterministic", "metrics": {}, "wall_time": 0.0}
    (path / "evaluations.jsonl").write_text(json.dumps(row) + "\n")


def write_scores(path: Path, *, settings: bool = False) -> None:
    """Three algorithms on three data sets with five seeds: b is far better than a, c is near a."""
    rng = np.random.default_rng(0)
    rows = []
    for name, level in (("a", 40), ("b", 60), ("c", 40.1)):
        for setting in ("low", "high") if settings else ("",):
            for dataset in ("x", "y", "z"):
                for seed in range(5):
                    score = rng.normal(level, 1)
                    rows.append(f"{name},{dataset},{seed},{score}" + f",{setting}" * settings)
    head = HEAD.strip() + ",setting" * settings
    path.write_text("\n".join([head, *rows]) + "\n")
