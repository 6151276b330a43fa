"""What runs cost: measured while they train, kept below the runs, and what is made of it."""

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offrl.files import seal
from offrl.results.collect import read_runs
from offrl.results.provenance import processor
from offrl.results.store import run_folders
from offrl.running import costs
from offrl.running.costs import FOLDER, Cost, Costs, Meter, note
from offrl.running.jobs import Job
from offrl.running.protocol import find_protocol
from offrl.running.runner import plan
from offrl.running.training import train_group, train_run

PROTOCOL = """
id = "tiny"
version = 1
title = "Tiny"
source = "offrl"
datasets = ["pointmaze-quickstart"]
seeds = [0, 1]
steps = 40
[evaluation]
every = 20
episodes = 2
final_episodes = 3
[algorithms.bc.config]
hidden = [4]
batch_size = 4
"""


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    file = tmp_path / "tiny.toml"
    file.write_text(PROTOCOL)
    return plan(find_protocol(str(file))).jobs


def cost(job: Job, replicas: int = 1, **values: Any) -> Cost:
    measured = Cost.of(job, replicas, "cpu", update=0.5, updates=100, episode=2.0)
    return measured.model_copy(update=values)


def files(root: Path) -> list[Path]:
    return sorted((root / FOLDER).iterdir())


def test_a_run_leaves_what_it_cost(jobs: list[Job], tmp_path: Path) -> None:
    root = tmp_path / "runs"
    train_run(jobs[0], root)
    known = Costs.read(root)
    (file,) = files(root)
    values = json.loads(file.read_text())
    assert values["updates"] == 39  # but the first
    assert 0 < values["update"] < 0.1
    assert 0 < values["episode"] < 10
    assert 50e6 < values["memory"] < 50e9
    assert known.memory(jobs[0]) == values["memory"]
    expected = 40 * values["update"] + 5 * values["episode"]  # 2 episodes, then 3
    assert known.seconds(jobs[0]) == pytest.approx(expected)
    (folder,) = run_folders(root)
    record = folder.read().record
    assert record is not None
    assert known.seconds(record.identity) == known.seconds(jobs[0])  # by what is stored alike
    assert len(read_runs(root).frame) == 2  # and no run is seen in the folder of costs


def test_a_group_leaves_one_file_and_a_later_one_replaces_it(
    jobs: list[Job], tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    train_group(jobs, root, 2, lambda _event: False)
    (file,) = files(root)
    assert json.loads(file.read_text())["replicas"] == 2
    note(root, cost(jobs[0], 2, updates=30))  # fewer updates than are known
    assert json.loads(file.read_text())["update"] != 0.5
    note(root, cost(jobs[0], 2, updates=costs.ENOUGH))
    assert json.loads(file.read_text())["update"] == 0.5
    assert files(root) == [file]


def test_costs_are_noted_after_the_first_minute(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(1, "cpu")
    meter.add_updates(1, 9.0)
    meter.add_updates(4, 2.0)
    meter.note(jobs, tmp_path)
    assert not (tmp_path / FOLDER).exists()
    monkeypatch.setattr(costs, "FIRST_NOTE", 0.0)
    meter.note(jobs, tmp_path)
    (file,) = files(tmp_path)
    assert json.loads(file.read_text())["update"] == 0.5
    assert json.loads(file.read_text())["episode"] is None
    meter.add_updates(4, 6.0)
    meter.note(jobs, tmp_path)  # once
    assert json.loads(file.read_text())["update"] == 0.5
    meter.note(jobs, tmp_path, ended=True)
    assert json.loads(file.read_text())["update"] == 1.0


def test_seconds_of_a_run(jobs: list[Job]) -> None:
    job = jobs[0]
    assert Costs().seconds(job) is None
    assert Costs().memory(job) is None
    one = Costs([cost(job)])
    assert one.seconds(job) == 40 * 0.5 + 5 * 2
    assert one.seconds(job, since=20) == 20 * 0.5 + 3 * 2
    assert one.seconds(job, since=40) == 0
    assert one.seconds(job, 10) == 40 * 0.5 + 5 * 2  # a batch of ten takes ten times as long
    assert one.seconds(job, device="cuda:0") is None
    alone = Costs([cost(job, episode=None)])
    assert alone.seconds(job) == 40 * 0.5
    ten = Costs([cost(job), cost(job, 10, update=1.0)])
    assert ten.seconds(job, 10) == 40 * 0.1 + 5 * 2
    assert ten.seconds(job, 7) == 40 * 0.1 + 5 * 2  # of ten, the nearer


def test_a_gpu_takes_as_long_for_more_replicas(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "processor", lambda _device: "a GPU")
    known = Costs([cost(jobs[0], 10, device="cuda", episode=None)])
    assert known.seconds(jobs[0], 100, "cuda:1") == 40 * 0.5 / 100
    assert known.seconds(jobs[0], 100) is None


def test_the_nearest_measurement_counts(jobs: list[Job]) -> None:
    job = jobs[0]
    other = replace(job, dataset_id="other")
    slower = cost(job, processor="an old one", update=5.0)
    assert Costs([slower]).seconds(job) == 40 * 5 + 5 * 2  # better than none
    assert Costs([slower, cost(job)]).seconds(job) == 40 * 0.5 + 5 * 2
    elsewhere = cost(other, update=7.0)
    assert Costs([elsewhere]).seconds(job) == 40 * 7 + 5 * 2
    assert Costs([elsewhere, slower]).seconds(job) == 40 * 5 + 5 * 2
    config = dict(job.config)
    swept = replace(job, config={**config, "actor_lr": 0.5})
    assert Costs([cost(job)]).seconds(swept) == 40 * 0.5 + 5 * 2
    wide = replace(job, config={**config, "hidden": [256]})
    assert Costs([cost(job)]).seconds(wide) is None


def test_damaged_and_planted_files_are_left_out(
    jobs: list[Job], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note(tmp_path, cost(jobs[0]))
    (good,) = files(tmp_path)
    folder = good.parent
    text = good.read_text()
    (folder / "a.json").write_text(text)  # under another name
    (folder / "b.json").write_text(text[:-9])
    (folder / "c.json").write_text(text.replace("0.5", "0.1"))  # a wrong checksum
    (folder / "d.json").symlink_to(good)
    (folder / "e.json").mkdir()
    os.mkfifo(folder / "f.json")
    (folder / "g.json").write_bytes(b"{" * 3_000_000)
    wrong: dict[str, dict[str, object]] = {
        "h": {"update": -1.0},
        "i": {"update": 1e300},
        "j": {"replicas": 0},
        "k": {"algorithm": "x" * 5000},
        "l": {"memory": "much"},
    }
    for name, values in wrong.items():
        planted = seal({**json.loads(cost(jobs[0]).model_dump_json()), **values})
        (folder / f"{name}.json").write_text(json.dumps(planted))
    (folder / "m.json").write_text("[" * 4000)
    (folder / "n.json").write_text("[1]")
    with caplog.at_level(logging.WARNING):
        known = Costs.read(tmp_path)
    assert known.seconds(jobs[0]) == 40 * 0.5 + 5 * 2
    (line,) = caplog.messages
    assert "14 files are no costs that offrl wrote (the first: a.json)" in line
    good.write_text("{}")
    note(tmp_path, cost(jobs[0], update=3.0))  # a damaged one is replaced
    assert json.loads(good.read_text())["update"] == 3.0


def test_costs_go_nowhere_else(
    jobs: list[Job], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "runs"
    root.mkdir()
    (root / FOLDER).symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.INFO):
        note(root, cost(jobs[0]))
    assert "no costs are noted" in caplog.text
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (root / FOLDER).unlink()
    (root / FOLDER).write_text("a file")
    note(root, cost(jobs[0]))
    assert (root / FOLDER).read_text() == "a file"
    assert Costs.read(root).seconds(jobs[0]) is None


def test_the_processor_has_a_name() -> None:
    assert processor()
    if sys.platform == "linux":
        assert "model name" not in processor()
