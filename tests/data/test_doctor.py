"""Faults that published files have had, each in a file made to contain it."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offrl.data.card import Card
from offrl.data.contents import shared_episodes
from offrl.data.coverage import coverage
from offrl.data.dataset import load_dataset
from offrl.data.doctor import examine
from offrl.data.findings import Finding
from offrl.data.fingerprints import BLOCK, episode_prints, row_prints
from offrl.data.jumps import HIGH, jumps
from offrl.datasets.neorl2_simulators import DMSDVector

Columns = dict[str, Any]
STEPS, EPISODES = 100, 20
ENDS = np.arange(1, EPISODES + 1) * STEPS - 1  # of each episode, its last row
BOUNDS = (np.full(2, -1, np.float32), np.full(2, 1, np.float32))
pytestmark = pytest.mark.usefixtures("own_cache")


def good() -> Columns:
    """Episodes of two masses between springs, as NeoRL-2 has them."""
    env = DMSDVector(EPISODES)
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=list(range(EPISODES)))
    rows: list[tuple[Any, ...]] = []
    for _ in range(STEPS):
        actions = rng.uniform(-0.9, 0.9, (EPISODES, 2)).astype(np.float32)
        following, rewards, terminated, truncated, _ = env.step(actions)
        rows.append((observations, actions, rewards, following, terminated, truncated))
        observations = following.copy()
    names = ("obs", "action", "reward", "next_obs", "done", "truncated")
    columns = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
    return {
        name: column.reshape(EPISODES * STEPS, *column.shape[2:]).astype(np.float32)
        for name, column in zip(names, columns, strict=True)
    }


def card(path: Path, columns: Columns, **keys: Any) -> Card:
    np.savez(path, **columns)
    values = {"id": "mine", "version": 1, "title": "mine", "licence": "none", "citation": "none"}
    source = {"loader": "neorl2", "files": [{"name": str(path)}]}
    return Card.model_validate({**values, "source": source, **keys})


def examined(path: Path, columns: Columns, limit: int | None = STEPS) -> dict[str, Finding]:
    findings, _ = examine(load_dataset(card(path, columns)), limit, BOUNDS)
    return {finding.subject: finding for finding in findings}


def without_rows(columns: Columns, rows: Any) -> Columns:
    return {key: np.delete(values, rows, axis=0) for key, values in columns.items()}


def again(columns: Columns, order: Any) -> Columns:
    return {key: values[order] for key, values in columns.items()}


def timeouts_as_terminals(columns: Columns) -> Columns:
    return columns | {"done": columns["truncated"], "truncated": 0 * columns["truncated"]}


def terminals_too(columns: Columns) -> Columns:
    return columns | {"done": columns["truncated"]}


def last_transitions_dropped(columns: Columns) -> Columns:
    columns["truncated"][ENDS - 1] = 1
    return without_rows(columns, ENDS)


def without_timeouts(columns: Columns) -> Columns:
    columns["truncated"][:-1] = 0
    return columns


def one_timeout_missing(columns: Columns) -> Columns:
    columns["truncated"][499] = 0
    columns["next_obs"][499] = columns["obs"][500]
    return columns


def successors_of_next_episodes(columns: Columns) -> Columns:
    columns["next_obs"][ENDS[:-1]] = columns["obs"][ENDS[:-1] + 1]
    return columns


def timeouts_inside(columns: Columns) -> Columns:
    columns["truncated"][[30, 450]] = 1
    return columns


def broken_off(columns: Columns) -> Columns:
    columns["truncated"][1960] = 1
    return {key: values[:1961] for key, values in columns.items()}


def rows_missing(columns: Columns) -> Columns:
    return without_rows(columns, [250, 251, 1333])


def clipped(columns: Columns) -> Columns:
    return columns | {"action": (2 * columns["action"]).clip(-1, 1)}


def beyond(columns: Columns) -> Columns:
    return columns | {"action": columns["action"] * 1.5}


def bang_bang(columns: Columns) -> Columns:
    return columns | {"action": 0.5 * np.sign(columns["action"])}


def held(columns: Columns) -> Columns:
    return columns | {"action": np.repeat(columns["action"][::2], 2, axis=0)}


def idle(columns: Columns) -> Columns:
    return columns | {"action": 0 * columns["action"]}


def doubled(columns: Columns) -> Columns:
    return again(columns, np.r_[: STEPS * EPISODES, 300:500])


def padded(columns: Columns) -> Columns:
    rows = np.arange(STEPS * EPISODES)
    rows[280:300] = 279
    columns = again(columns, rows) | {"truncated": columns["truncated"]}
    columns["next_obs"][279:299] = columns["obs"][279]
    return columns


def constant(columns: Columns) -> Columns:
    for key in ("obs", "next_obs"):
        columns[key][:, 3] = 2
    return columns


@pytest.mark.parametrize(
    ("change", "subject", "verdict", "words", "row"),
    [
        (timeouts_as_terminals, "terminations", "fault", "20 of them (row 99, 199,", 99),
        (terminals_too, "terminations and truncations", "fault", "20 of 20 truncated", 99),
        (last_transitions_dropped, "step limit", "warning", "20 episodes of 99 steps", 98),
        (without_timeouts, "step limit", "fault", "2,000 steps, longer than the limit of 100", 0),
        (without_timeouts, "successors", "fault", "19 rows inside episodes (row 99, 199", 99),
        (one_timeout_missing, "boundaries", "fault", "1 step inside episodes (row 499) to", 499),
        (one_timeout_missing, "step limit", "fault", "1 episode (from row 400)", 400),
        (successors_of_next_episodes, "successors at ends", "fault", "after 19 truncations", 99),
        (timeouts_inside, "step limit", "warning", "4 episodes (ends at row 30, 99", 30),
        (timeouts_inside, "successors at ends", "warning", "2 episodes (ends at row 30, 450", 30),
        (broken_off, "last row", "warning", "an episode of 61 steps, where others", 1960),
        (rows_missing, "successors", "fault", "2 rows inside episodes (row 249, 1,330)", 249),
        (clipped, "actions on bounds", "warning", "of the entries lie exactly on a bound", None),
        (beyond, "actions in bounds", "warning", "% of the entries lie outside", None),
        (bang_bang, "distinct actions", "warning", "only 4 in 2,000 rows", None),
        (held, "repeated actions", "warning", "50.51% are bit by bit", 1),
        (idle, "distinct actions", "warning", "every action is the same", None),
        (doubled, "equal episodes", "fault", "2 episodes of 22 equal an earlier one", 2000),
        (padded, "padding", "fault", "1 episode (ends at row 299) whose last rows, 20 in", 299),
        (constant, "constant columns", "warning", "observation 3 (always 2)", None),
    ],
)
def test_a_fault_is_found(
    tmp_path: Path,
    change: Callable[[Columns], Columns],
    subject: str,
    verdict: str,
    words: str,
    row: int | None,
) -> None:
    found = examined(tmp_path / "a.npz", change(good()))[subject]
    assert found.verdict == verdict
    assert words in found.text
    assert row is None or found.rows[0] == row


def test_a_jump_that_may_be_the_process_own_is_a_warning(tmp_path: Path) -> None:
    """A missing mark looks as a machine does that starts as new: only a step limit rules it out."""
    found = examined(tmp_path / "a.npz", one_timeout_missing(good()), limit=None)["boundaries"]
    assert (found.verdict, found.rows) == ("warning", (499,))
    assert "without a mark, or the process itself starts over" in found.text


def walks(rng: np.random.Generator) -> Any:
    """A pulse with steps of Student's t, of 2 degrees of freedom, around another level each."""
    steps = np.stack(
        [rng.standard_t(2, (EPISODES, STEPS + 1)), rng.normal(size=(EPISODES, STEPS + 1))]
    )
    return 10 * rng.normal(size=(2, EPISODES, 1)) + np.cumsum(steps, axis=2)


def doses(rng: np.random.Generator) -> Any:
    """A level that is set anew in 1.2 % of the steps, beside a pulse."""
    level = np.cumsum(0.01 * rng.normal(size=(EPISODES, STEPS + 1)), axis=1)
    sets = rng.random((EPISODES, STEPS + 1)) < 0.012
    last = np.maximum.accumulate(np.where(sets, np.arange(STEPS + 1), 0), axis=1)
    level += np.take_along_axis(rng.normal(size=(EPISODES, STEPS + 1)), last, axis=1)
    return np.stack([level, walks(rng)[1]])


def carried(rng: np.random.Generator) -> Any:
    """Two numbers that follow from time, of which one was not measured once."""
    numbers = rng.normal(size=(2, EPISODES, 1)) + 0.01 * np.arange(STEPS + 1)
    numbers[0, 3, 50] = numbers[0, 3, 49]
    return numbers


def goals(rng: np.random.Generator) -> Any:
    """A place, and a goal that changes in 1.1 % of the steps: its 99 % quantile is a change."""
    place = rng.uniform(-1, 1, (EPISODES, STEPS + 1))
    changes = np.arange(EPISODES * (STEPS + 1)).reshape(EPISODES, -1) // 90
    return np.stack([place, rng.normal(size=changes.max() + 1)[changes] ** 3])


def repairs(rng: np.random.Generator) -> Any:
    """Machines that wear out, of which two are repaired and begin as new."""
    rates = rng.uniform(1, 1.1, (2, EPISODES, STEPS + 1))
    worn = np.cumsum(rates, axis=2)
    for machine in (3, 8):
        worn[:, machine, 60:] -= worn[:, machine, 59, None]
    return worn


@pytest.mark.parametrize("process", [walks, doses, carried, goals, repairs])
def test_right_marks_of_logged_data_are_no_fault(
    tmp_path: Path, process: Callable[[np.random.Generator], Any]
) -> None:
    rng = np.random.default_rng(0)
    numbers = np.moveaxis(process(rng), 0, -1)
    count = EPISODES * STEPS
    ends = np.isin(np.arange(count), ENDS)
    columns = {
        "obs": numbers[:, :-1].reshape(count, 2),
        "action": rng.uniform(-1, 1, (count, 2)),
        "reward": rng.normal(size=count),
        "next_obs": numbers[:, 1:].reshape(count, 2),
        "done": 0 * ends,
        "truncated": ends,
    }
    columns = {key: values.astype(np.float32) for key, values in columns.items()}
    found = examined(tmp_path / "a.npz", columns, limit=None)
    assert "fault" not in {finding.verdict for finding in found.values()}
    if process is goals:
        assert found["boundaries"].verdict != "warning"
    if process is repairs:
        assert found["boundaries"].rows == (359, 859)
        assert "the process itself starts over" in found["boundaries"].text


def test_faithful_data_have_none(tmp_path: Path) -> None:
    found = examined(tmp_path / "a.npz", good())
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert "100% of the 19 marked ends would be seen" in found["boundaries"].text
    found = examined(tmp_path / "b.npz", timeouts_as_terminals(good()), limit=None)
    assert "each of 20 episodes terminates after 100 steps" in found["terminations"].text
    assert found["step limit"].verdict == "cannot be checked"


def test_episodes_in_two_splits_are_found(tmp_path: Path) -> None:
    """The held-out episodes are the last of the training data, and one more."""
    columns = good()
    np.savez(tmp_path / "val.npz", **again(columns, np.r_[1700:2000, 0:50, 1000:1050]))
    source = {"loader": "neorl2", "files": [{"name": str(tmp_path / "a.npz")}]}
    source["validation"] = [{"name": str(tmp_path / "val.npz")}]
    data = load_dataset(card(tmp_path / "a.npz", columns, source=source))
    findings, _ = examine(data, STEPS, BOUNDS)
    (leak,) = (finding for finding in findings if finding.subject == "held out")
    assert (leak.verdict, leak.split) == ("fault", "validation")
    assert leak.text.startswith("3 of 4 episodes are in the training data")
    assert data.validation is not None
    assert shared_episodes(data, data.validation) == 3


def test_equal_rows_and_episodes_have_equal_prints(tmp_path: Path) -> None:
    numbers = np.array([[1.0, 0.0], [1.0, -0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    prints = row_prints(numbers)
    assert prints[0] == prints[1] == prints[3] != prints[2]
    assert row_prints(numbers[:1, ::-1]) != prints[0]  # the same numbers in another order
    parts = row_prints(numbers[:, :1], numbers[:, 1])
    assert parts.tolist() == prints.tolist()
    whole = row_prints(np.arange(100_000))
    assert len(np.unique(whole)) == 100_000
    wide = np.zeros((3, 2 * BLOCK), np.float32)  # one row is more than a block
    wide[1, -1] = 1
    assert (row_prints(wide) == row_prints(wide)[0]).tolist() == [True, False, True]
    columns = good()
    swapped = np.arange(STEPS * EPISODES)
    swapped[[5, 6]] = 6, 5  # the same rows in another order are another episode
    one = episode_prints(load_dataset(card(tmp_path / "a.npz", columns)))
    other = episode_prints(load_dataset(card(tmp_path / "b.npz", again(columns, swapped))))
    assert np.flatnonzero(one != other).tolist() == [0]


def test_successors_of_terminations_do_not_blur_what_a_step_is(tmp_path: Path) -> None:
    """As of a view whose successor of a termination is the next episode's first observation."""
    columns = good()
    ends = np.arange(19, STEPS * EPISODES - 1, 20)
    shuffled = np.random.default_rng(0).permutation(STEPS * EPISODES)
    columns["done"][ends] = 1
    columns["truncated"][ends] = 0
    columns["next_obs"][ends] = columns["obs"][shuffled[: len(ends)]]
    scores = jumps(load_dataset(card(tmp_path / "a.npz", columns)))
    inside = np.setdiff1d(np.arange(STEPS * EPISODES), ends)
    assert scores.steps[inside].max() < 4
    assert np.median(scores.steps[ends]) > 4


def test_waiting_among_few_choices_is_no_fault(tmp_path: Path) -> None:
    columns = padded(good()) | {"action": np.zeros(STEPS * EPISODES, np.int64)}
    data = load_dataset(card(tmp_path / "a.npz", columns, actions={"count": 2}))
    found = {finding.subject: finding for finding in examine(data)[0]}["padding"]
    assert found.verdict == "warning"
    assert found.text.endswith("or nothing happened in them")


def test_observations_that_do_not_move_have_no_jumps(tmp_path: Path) -> None:
    columns = good()
    columns |= {"obs": 0 * columns["obs"], "next_obs": 0 * columns["obs"]}
    data = load_dataset(card(tmp_path / "a.npz", columns))
    scores = jumps(data)
    assert scores.columns == 0
    assert not scores.steps.any()
    assert examined(tmp_path / "a.npz", columns)["boundaries"].verdict == "cannot be checked"


def test_wide_observations_take_a_bounded_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of a GiB when all 2,000 columns were predicted by all; a jump shows in some too."""
    for module in ("jumps", "coverage"):
        monkeypatch.setattr(f"offrl.data.{module}.COLUMNS", 64)
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(size=(2001, 2000)).astype(np.float32), axis=0)
    drift[1200:] += 100 * rng.normal(size=2000)  # row 1199 leads to where another episode begins
    ends = np.arange(1, 2001) % 500 == 0
    columns = {
        "obs": drift[:-1],
        "action": rng.uniform(-1, 1, (2000, 2)).astype(np.float32),
        "reward": np.zeros(2000, np.float32),
        "next_obs": drift[1:],
        "done": np.zeros(2000, np.float32),
        "truncated": ends.astype(np.float32),
    }
    dataset = load_dataset(card(tmp_path / "wide.npz", columns))
    tracemalloc.start()
    try:
        scores = jumps(dataset)
        coverage([dataset])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**25
    assert scores.steps.argmax() == 1199
    assert scores.steps[1199] > HIGH
