"""The line that says how far a set of runs is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offrl.results.rows import Status
from offrl.running.costs import Cost, note
from offrl.running.events import Event
from offrl.running.jobs import Job
from offrl.running.protocol import Evaluation
from offrl.running.tally import Tally, duration

JOB = Job(
    protocol="tiny@1",
    dataset="maze",
    label="bc",
    algorithm="bc",
    config={"batch_size": 4},
    code=None,
    view=None,
    steps=100,
    evaluation=Evaluation(every=100, episodes=1),
    seed=0,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("offrl.running.tally.time.monotonic", lambda: now[0])
    return now


def event(seed: int, status: str, step: int = 0, **values: Any) -> Event:
    return Event(replace(JOB, seed=seed), Status(status), step, **values)


def test_lines_come_at_most_every_thirty_seconds(clock: list[float]) -> None:
    lines: list[str] = []
    tally = Tally(lines.append)
    for seed in range(4):
        tally(event(seed, "waiting"))
    tally(event(4, "done", 100))  # when the command was given
    tally(event(3, "waiting", holder="process 7 on host other"))
    for second in range(0, 100):
        clock[0] = float(second)
        tally(event(0, "running", second))
        if second == 50:
            tally(event(1, "failed", 20, cause="nan"))
    others = "1 of 5 runs done, 1 failed, 1 running, 1 made elsewhere"
    assert lines == [
        "1 of 5 runs done, 1 running, 1 made elsewhere; 26% of the steps, 4 min 30 s to go",
        f"{others}; 36% of the steps, 1 min 45 s to go",
        f"{others}; 42% of the steps, 1 min 30 s to go",
    ]


def test_steps_count_by_what_they_cost(clock: list[float], tmp_path: Path) -> None:
    slow = replace(JOB, label="slow", algorithm="slow")
    for job, update in ((JOB, 0.1), (slow, 0.9)):
        note(tmp_path, Cost.of(job, 1, "cpu", update=update, updates=9, episode=None))
    for root, expected in ((tmp_path, 190.0), (None, 30.0)):
        tally = Tally(lambda _line: None, root)
        clock[0] = 0.0
        assert tally.seconds_to_go() is None
        tally(Event(slow, Status.WAITING, 0))
        tally(event(0, "running", 0))
        clock[0] = 10.0
        tally(event(0, "running", 50))
        assert tally.seconds_to_go() == pytest.approx(expected)


def test_a_run_that_carries_on_counts_from_where_it_was(clock: list[float]) -> None:
    tally = Tally(lambda _line: None)
    tally(event(0, "waiting", 80))
    tally(event(0, "running", 80))
    clock[0] = 10.0
    tally(event(0, "running", 90))
    assert tally.seconds_to_go() == pytest.approx(10.0)


def test_steps_before_the_first_event_took_no_time_that_was_seen(clock: list[float]) -> None:
    tally = Tally(lambda _line: None)
    tally(event(0, "waiting"))
    tally(event(0, "running", 20))
    assert tally.seconds_to_go() is None
    clock[0] = 10.0
    tally(event(0, "running", 40))
    assert tally.seconds_to_go() == pytest.approx(30)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (61, "1 min 01 s"),
        (660, "11 min"),
        (3900, "1 h 05 min"),
        (90_000, "1 d 1 h"),
        (float("inf"), "ever"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
