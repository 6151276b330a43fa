"""Runs that take a tenth of a second each, and what their store holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offrl.results.collect import read_runs
from offrl.results.store import RunFolder
from offrl.running.events import Event
from offrl.running.groups import group
from offrl.running.jobs import Job
from offrl.running.protocol import find_protocol
from offrl.running.runner import Plan, enlist, plan
from offrl.running.training import train_group, train_run

CARD = """
id = "pend"
version = 1
title = "Noise on a pendulum"
licence = "none"
citation = "none"
[source]
loader = "neorl2"
files = [{ name = "pend.npz" }]
[environment]
id = "Pendulum-v1"
max_episode_steps = 4
[reference]
min = -50.0
max = 0.0
source = "made up"
"""

PROTOCOL = """
id = "small"
version = 1
title = "Small"
source = "offrl"
datasets = ["pend.toml"]
seeds = {seeds}
steps = 35
[evaluation]
every = 10
episodes = 2
[algorithms.bc.config]
hidden = [2]
batch_size = 2
"""


def planned(folder: Path, seeds: Sequence[int] = (0, 1), rows: int = 20) -> Plan:
    """A run per seed, with their data and protocol in a folder."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    np.savez(
        folder / "pend.npz",
        obs=observations[:-1],
        action=rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        next_obs=observations[1:],
        reward=np.ones(rows, np.float32),
        done=np.zeros(rows, np.float32),
        truncated=(np.arange(rows) % 5 == 4).astype(np.float32),
    )
    (folder / "pend.toml").write_text(CARD)
    (folder / "small.toml").write_text(PROTOCOL.format(seeds=list(seeds)))
    return plan(find_protocol(str(folder / "small.toml")))


def stop_after(step: int) -> Any:
    """Has a run save and end at the first evaluation from `step` on."""
    return lambda event: event.step >= step


def carry_out(runs: Plan, root: Path, replicas: int = 1) -> list[Event]:
    """Runs what waits, in this process; the last events of what does not wait.

    A run that fails is noted in its folder, as always; the others go on.
    """
    waiting, ended = enlist(runs, root, lambda _event: None)
    if replicas > 1:
        for some in group(waiting, root, replicas, ["cpu"], runs.kind):
            ended += train_group(some.jobs, root, some.replicas, lambda _event: False)
        return ended
    for job in waiting:
        try:
            train_run(job, root)
        except Exception as error:
            ended.append(Event(job, "failed", 0, cause=str(error)))  # type: ignore[arg-type]
    return ended


def scores(root: Path) -> str:
    """All scores as text; a failure is a line too."""
    table = read_runs(root)
    failures = [f"{f.dataset} {f.algorithm} {f.seed} failed" for f in table.failures]
    return "\n".join([table.frame.to_csv(index=False), *failures])


def rows(job: Job, root: Path) -> list[dict[str, Any]]:
    """The rows of a run, without times."""
    read = RunFolder(job.folder(root)).rows()
    return [row.model_dump(exclude={"wall_time"}) for row in read]


def curves(root: Path) -> dict[str, bytes]:
    """The losses of all runs, as their files hold them."""
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("metrics.csv")}


def left_over(root: Path) -> list[Path]:
    """What is neither a run's nor a lease, nor of the costs that runs measure."""
    hidden = [p for p in root.rglob(".*") if ".costs" not in p.parts]
    return [p for p in hidden if not p.name.startswith(".lease-")]
