"""Reads the runs that openrlbenchmark's rlops keeps: folders with run.json and run_df.csv.

Of a run, run.json has the settings as W&B holds them (env_id or env, exp_name, seed) and run_df.csv
the history. A run's score is the mean of its last 100 returns, as rlops prints by default
(`metric_last_n_average_window`), so there are no learning curves. rlops' own table (compare.csv)
has means and deviations alone, from which nothing can be compared.
"""

import csv
import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from offrl.errors import InputError

SCORES = "runs that openrlbenchmark's rlops keeps (ENTITY/PROJECT/RUN/run_df.csv)"
HISTORY, RECORD = "run_df.csv", "run.json"
METRICS = ("charts/episodic_return", "eval/episodic_return", "rollout/ep_rew_mean")
KEYS = {
    "algorithm": ("exp_name", "algo", "algorithm"),
    "dataset": ("env_id", "env", "env_name"),
    "seed": ("seed",),
}
LAST = 100  # returns
MOST_BYTES = 2**30  # of one history
MOST_RECORD = 2**24


def logs(path: Path) -> pd.DataFrame | None:
    """A row per run below a folder; None where there is none."""
    if not path.is_dir():
        return None
    files = [file for depth in range(4) for file in sorted(path.glob(f"{'*/' * depth}{HISTORY}"))]
    rows = [_row(file) for file in files if file.with_name(RECORD).is_file()]
    if not rows:
        return None
    note = f"a run's score is the mean of its last {LAST} returns, as rlops has it"
    return pd.DataFrame(rows).assign(note=note)


def _row(history: Path) -> dict[str, Any]:
    """A run's labels and its mean return."""
    record = history.with_name(RECORD)
    if record.stat().st_size > MOST_RECORD or history.stat().st_size > MOST_BYTES:
        raise InputError(f"{history.parent}: its files are larger than those of a run")
    values = json.loads(record.read_text(encoding="utf-8"))
    inner = values.get("_attrs", values)
    config = inner.get("config") or {}
    labels = {}
    for label, keys in KEYS.items():
        found = [config[key] for key in keys if key in config]
        if found:
            value = found[0]
            labels[label] = value.get("value") if isinstance(value, Mapping) else value
    with history.open(encoding="utf-8", newline="") as stream:
        lines = csv.DictReader(stream)
        names = lines.fieldnames or []
        metric = next((name for name in METRICS if name in names), None)
        if metric is None:
            raise InputError(
                f"{history}: no column {METRICS[0]!r}; expected a history with returns"
            )
        last: deque[float] = deque(maxlen=LAST)
        last.extend(float(line[metric]) for line in lines if line[metric] not in ("", None, "nan"))
    if not last:
        return {
            "run": history.parent.name,
            **labels,
            "return": "",
            "failure": "no return is logged",
        }
    return {"run": history.parent.name, **labels, "return": sum(last) / len(last), "failure": ""}
