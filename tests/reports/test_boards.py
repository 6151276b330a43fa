"""Curves in programs that show them, while runs train: with the real libraries."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import offrl
from offrl.errors import InputError
from offrl.results.rows import Status
from offrl.results.store import run_folders
from offrl.running import boards
from offrl.running.boards import Follower
from offrl.running.events import Event
from offrl.running.opening import Interrupted
from offrl.running.protocol import find_protocol
from offrl.running.runner import plan
from offrl.running.training import train_run

PROTOCOL = """
id = "tiny"
version = 1
title = "Tiny"
source = "offrl"
datasets = ["pointmaze-quickstart"]
seeds = [0]
steps = 300
[evaluation]
every = 150
episodes = 1
[algorithms.bc.config]
hidden = [4]
batch_size = 4
"""


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(PROTOCOL)
    return path


class Kept:
    """A board that keeps what it is given."""

    def __init__(self) -> None:
        self.added: list[tuple[int, Mapping[str, float]]] = []
        self.closed = 0

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self.added.append((step, values))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    board = Kept()

    class Module:
        @staticmethod
        def board(_place: Path, _run: Any) -> Kept:
            return board

    monkeypatch.setattr(boards, "find_board", lambda _name: Module)
    return board


def test_what_is_new_is_passed_on_while_a_run_trains(
    kept: Kept, protocol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "SECONDS", 0.0)
    (job,) = plan(find_protocol(str(protocol))).jobs
    follower = Follower("kept", tmp_path / "runs")
    stopped: list[int] = []

    def stop(event: Event) -> bool:
        follower.follow(event)
        stopped.append(event.step)
        return event.step == 150 and stopped.count(150) == 1

    follower.follow(Event(job, Status.WAITING, 0))
    with pytest.raises(Interrupted):
        train_run(job, tmp_path / "runs", stop)
    assert [step for step, _ in kept.added] == [100, 150]
    train_run(job, tmp_path / "runs", stop)
    follower.follow(Event(job, Status.DONE, 300))
    follower.follow(Event(job, Status.DONE, 300))
    assert [step for step, _ in kept.added] == [100, 150, 200, 300]  # each once
    assert [sorted(values) for _, values in kept.added] == [
        ["actor/loss"],
        ["actor/loss", "eval/return", "eval/score"],
    ] * 2
    (folder,) = run_folders(tmp_path / "runs")
    assert kept.added[-1][1]["eval/score"] == folder.rows()[-1].score
    assert kept.closed == 1


def test_a_board_that_fails_stops_no_run(
    kept: Kept,
    protocol: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_step: int, _values: Mapping[str, float]) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(kept, "add", fail)
    (job,) = plan(find_protocol(str(protocol))).jobs
    train_run(job, tmp_path / "runs")
    follower = Follower("kept", tmp_path / "runs")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            follower.follow(Event(job, Status.DONE, 300))
        follower.close()
    (line,) = caplog.messages
    assert "no more curves of pointmaze-quickstart bc seed 0: no space left" in line


def test_a_place_that_leads_elsewhere_is_not_written(
    kept: Kept, protocol: Path, tmp_path: Path
) -> None:
    (job,) = plan(find_protocol(str(protocol))).jobs
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "kept").symlink_to(tmp_path / "elsewhere")
    Follower("kept", tmp_path / "runs").follow(Event(job, Status.DONE, 300))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert kept.added == []


def test_unknown_boards_and_missing_packages(
    protocol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert boards.boards() == ["tensorboard", "wandb"]
    with pytest.raises(InputError, match="unknown program for curves 'tensorbord'; did you mean"):
        offrl.run(protocol, tmp_path / "runs", log_to="tensorbord")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for name in boards.boards():
        with pytest.raises(InputError, match=rf"not installed; pip install 'offrl\[{name}\]'"):
            boards.find_board(name)
    assert not (tmp_path / "runs").exists()


def test_tensorboard_shows_losses_and_scores(protocol: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = tmp_path / "runs"
    for _ in range(2):  # the second command finds the run done, and its curves there
        (event,) = offrl.run(protocol, runs, workers=1, log_to="tensorboard")
        place = (runs / "tensorboard").joinpath(*event.job.place)
        assert len(list(place.iterdir())) == 1
        events = EventAccumulator(str(place)).Reload()
        assert sorted(events.Tags()["scalars"]) == ["actor/loss", "eval/return", "eval/score"]
    (folder,) = run_folders(runs)
    rows = folder.rows()
    shown = events.Scalars("eval/score")
    assert [one.step for one in shown] == [150, 300]
    assert [one.value for one in shown] == pytest.approx([row.score for row in rows], rel=1e-6)
    assert [one.step for one in events.Scalars("actor/loss")] == [100, 150, 200, 300]
    assert len(offrl.read_runs(runs).frame) == 2


@pytest.mark.nightly  # the package has 62 MB, and is not in the test group
def test_wandb_keeps_runs_offline(protocol: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    runs = tmp_path / "runs"
    (event,) = offrl.run(protocol, runs, workers=1, log_to="wandb")
    assert event.status == "done"
    (file,) = (runs / "wandb").rglob("run-*.wandb")
    assert "offline-run-" in str(file)
    data = file.read_bytes()
    for text in (b"actor/loss", b"eval/score", b"batch_size", b"pointmaze-quickstart bc seed 0"):
        assert text in data
