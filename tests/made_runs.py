"""Whole run folders of a shipped protocol, with returns drawn at random, in milliseconds."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offrl.data.card import find_card
from offrl.results.record_files import record_text, row_line
from offrl.results.rows import Identity, RunRecord, ScoreRow, Session, Status
from offrl.running.jobs import expand
from offrl.running.protocol import find_protocol

Change = Callable[[dict[str, Any], list[dict[str, Any]]], object]


def config_hash(algorithm: str, config: dict[str, Any], code: str | None = None) -> str:
    values: dict[str, Any] = {"algorithm": algorithm.removesuffix(".py"), "config": config}
    text = json.dumps(values | ({"code": code} if code else {}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_runs(
    root: Path,
    label: str = "td3_bc",
    *,
    protocol: str = "quickstart",
    dataset: str = "pointmaze-quickstart",
    seeds: Sequence[int] | None = None,
    mean: float = 60.0,
    draw: int = 0,
    change: Change | None = None,
) -> list[Path]:
    """Runs that are done; `mean` is that of their scores, `draw` the seed of their returns.

    `change` is called with the identity and the rows of each before they are written.
    """
    of, card = find_protocol(protocol), find_card(dataset)
    entry = of.algorithms[label].on_dataset(dataset, of.datasets)
    budget = entry.model_dump(include={"every", "episodes"}, exclude_none=True)
    evaluation = of.evaluation.model_copy(update=budget)
    steps, every = entry.steps or of.steps, evaluation.every
    environment, reference = card.environment, card.reference
    assert environment is not None
    assert reference is not None
    job = expand(of, [label], [dataset])[0]
    paths = []
    for seed in of.seeds if seeds is None else seeds:
        random = np.random.default_rng([draw, seed])
        config = json.loads(json.dumps(job.config))
        identity: dict[str, Any] = {
            "protocol": f"{of.id}@{of.version}",
            "dataset": f"{card.id}@{card.version}",
            "data_sha256": "0" * 64,
            "view": job.view or card.view,
            "environment": environment.model_dump(exclude={"entry_point"}),
            "reference": reference.model_dump(),
            "label": label,
            "algorithm": job.algorithm,
            "config": config,
            "code": None,
            "config_hash": config_hash(job.algorithm, config),
            "steps": steps,
            "evaluation": evaluation.record(),
            "seed": seed,
        }
        level = random.normal(mean, 6)
        rows = []
        for number, step in enumerate(range(every, steps + 1, every), start=1):
            count = evaluation.episodes_at(step, steps)
            scores = random.normal(level, 40, size=count)
            returns = np.round(reference.min + scores / 100 * (reference.max - reference.min), 3)
            mean_return = float(returns.mean())
            low, high = reference.min, reference.max
            rows.append(
                {
                    "protocol": identity["protocol"],
                    "dataset": identity["dataset"],
                    "environment": environment.id,
                    "simulator": {
                        "gymnasium": "1.2.0",
                        "gymnasium-robotics": "1.4.2",
                        "mujoco": "3.4.0",
                        "offrl": "0.1.0",
                    },
                    "algorithm": label,
                    "config": identity["config_hash"],
                    "seed": seed,
                    "step": step,
                    "score": 100 * (mean_return - low) / (high - low),
                    "return": mean_return,
                    "returns": returns.tolist(),
                    "lengths": [200] * count,
                    "policy": "",
                    "action_mode": "deterministic",
                    "metrics": {"actor/loss": 1 / number},
                    "wall_time": 10.0 * number,
                }
            )
        if change is not None:
            change(identity, rows)
        paths.append(write_run(root, identity, rows))
    return paths


def write_run(root: Path, identity: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Path:
    """A run that is done, of the content of its identity and of its rows."""
    hardware = {"machine": "x86_64", "cpus": 2, "system": "Linux", "host": "a-name-of-mine"}
    versions = {"offrl": "0.1.0", "torch": "2.6.0", "mujoco": "3.4.0"}
    session = Session(
        started="2026-01-02T03:04:05+00:00", commit="0" * 40, versions=versions, hardware=hardware
    )
    record = RunRecord(
        identity=Identity(**identity), status=Status.DONE, sessions=[session], ways=[""]
    )
    names = (identity["protocol"].split("@")[0], identity["dataset"].split("@")[0])
    run = f"{identity['label']}-{identity['config_hash']}"
    path = root.joinpath(*names, run, f"seed-{identity['seed']}")
    path.mkdir(parents=True)
    (path / "run.json").write_text(record_text(record))
    lines = [row_line(ScoreRow.model_validate(row)) for row in rows]
    (path / "evaluations.jsonl").write_text("".join(lines))
    losses = [f"{row['step']},{row['metrics']['actor/loss']:.7g}\n" for row in rows]
    (path / "metrics.csv").write_text("".join(["step,actor/loss\n", *losses]))
    return path
