"""Sweeps: grids of settings as runs, from the command to the tuning budget."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offrl.errors import InputError
from offrl.results.collect import read_runs
from offrl.results.rows import Status
from offrl.running.runner import train
from offrl.statistics.resampling import Resampling
from offrl.statistics.tuning_budget import online_performance

pytestmark = pytest.mark.usefixtures("pendulum")
SMALL: dict[str, Any] = {"hidden": [8], "batch_size": 16}
BUDGET: dict[str, Any] = {"steps": 20, "evaluate_every": 10, "episodes": 2, "workers": 1}


def sweep(root: Path, **changes: Any) -> list[dict[str, Any]]:
    """The records of the runs of a grid."""
    given = {"config": SMALL, "seeds": [0, 1], **BUDGET, **changes}
    events = train("iql", "pend.toml", root, **given)
    assert {event.status for event in events} == {Status.DONE}
    return [json.loads(path.read_text()) for path in sorted(root.rglob("run.json"))]


def test_numeric_settings_train_as_replicas_and_become_a_column(tmp_path: Path) -> None:
    betas = np.array([1, 3, 10])
    records = sweep(tmp_path / "grid", grid={"beta": betas}, replicas=6)
    assert [len(record["numerics"]) for record in records] == [1] * 6
    assert {r["numerics"][0]["replicas"] for r in records} == {6}
    assert len({r["numerics"][0]["group"] for r in records}) == 1
    assert sorted(r["identity"]["config"]["beta"] for r in records) == [1, 1, 3, 3, 10, 10]
    table = read_runs(tmp_path / "grid")
    assert sorted(set(table.frame["setting"])) == ["beta=1", "beta=10", "beta=3"]
    budget = online_performance(table, resampling=Resampling(100))
    assert budget[["algorithm", "n_settings"]].to_numpy().tolist() == [["iql", 3]] * 3
    # Each as if it had run alone, but for rounding.
    (alone,) = sweep(tmp_path / "alone", config={**SMALL, "beta": 10.0}, seeds=[1])
    rows = table.frame.query("setting == 'beta=10' and seed == 1")
    assert read_runs(tmp_path / "alone").frame["score"].tolist() == pytest.approx(
        rows["score"].tolist(), rel=1e-5
    )
    other = table.frame.query("setting == 'beta=1' and seed == 1")["score"].tolist()
    assert other != pytest.approx(rows["score"].tolist(), rel=1e-5)
    assert alone["identity"] in [record["identity"] for record in records]


def test_a_further_value_joins_the_grid_that_is_there(tmp_path: Path) -> None:
    sweep(tmp_path / "runs", grid={"beta": [1, 3]}, seeds=[0])
    records = sweep(tmp_path / "runs", grid={"beta": [3, 10]}, seeds=[0])
    assert [len(record["sessions"]) for record in records] == [1, 1, 1]
    assert sorted(set(read_runs(tmp_path / "runs").frame["setting"])) == [
        "beta=1",
        "beta=10",
        "beta=3",
    ]


def test_settings_that_change_a_shape_train_apart(tmp_path: Path) -> None:
    grid = {"hidden": [[4], [8]], "reward": ["raw", "minus one"]}
    records = sweep(tmp_path / "runs", config={"batch_size": 16}, grid=grid)
    groups: dict[str, set[str]] = {"[4]": set(), "[8]": set()}
    for record in records:
        hidden = json.dumps(record["identity"]["config"]["hidden"])
        groups[hidden].add(record["numerics"][0]["group"])
    assert len(records) == 8
    assert groups["[4]"].isdisjoint(groups["[8]"])
    table = read_runs(tmp_path / "runs")
    assert set(table.frame["setting"]) == {
        f"reward={reward}, hidden=[{width}]" for reward in ("raw", "minus one") for width in (4, 8)
    }


def test_a_key_that_is_set_has_no_grid(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="beta is set and has a grid"):
        train("iql", "pend.toml", "runs", config={"beta": 1}, grid={"beta": [2]})
    with pytest.raises(InputError, match=r"offrl train: algorithms\.iql\.grid\.beta: .*list"):
        train("iql", "pend.toml", "runs", grid={"beta": "123"})
    assert not (tmp_path / "runs").exists()
