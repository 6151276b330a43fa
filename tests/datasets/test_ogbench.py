"""OGBench's files: a row more than steps in each trajectory, and rewards by a task."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered import numbers

from offrl.data.card import Card, find_card, shipped_cards
from offrl.data.dataset import load_dataset
from offrl.errors import InputError


def ogbench_file(path: Path, **replaced: Any) -> Path:
    """Two trajectories: of three steps and of two."""
    data: dict[str, Any] = {
        "observations": numbers(7, 3),
        "actions": numbers(7, 2) / 100,
        "terminals": np.array([0, 0, 0, 1, 0, 0, 1], dtype=np.float32),
        "qpos": numbers(7, 15),
    }
    data |= replaced
    np.savez(path, **{key: values for key, values in data.items() if values is not None})
    return path


def card(path: Path, environment: str | None = None, view: str = "transitions") -> Card:
    given = {"environment": {"id": environment, "max_episode_steps": 9}} if environment else {}
    return Card.model_validate(
        {
            "id": "tiny",
            "version": 1,
            "title": "tiny",
            "source": {"loader": "ogbench", "files": [{"name": str(path)}]},
            "licence": "none",
            "citation": "none",
            "view": view,
        }
        | given
    )


def test_the_last_row_of_a_trajectory_is_only_a_successor(tmp_path: Path) -> None:
    data = load_dataset(card(ogbench_file(tmp_path / "a.npz"), "ogbench:antmaze-medium-v0"))
    rows = numbers(7, 3)
    np.testing.assert_array_equal(data.observations, rows[[0, 1, 2, 4, 5]])
    np.testing.assert_array_equal(data.next_observations, rows[[1, 2, 3, 5, 6]])
    assert data.truncations.tolist() == [False, False, True, False, True]
    assert not data.terminations.any()
    assert not data.rewards.any()
    assert (data.source.transitions, data.source.episodes) == (5, 2)
    assert any("has no rewards" in note for note in data.notes)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"terminals": None}, r"lacks terminals; found observations, actions, qpos, expected"),
        ({"terminals": np.zeros(7)}, r"its last row ends no trajectory"),
        ({"terminals": np.array([0, 0, 1, 1, 0, 0, 1.0])}, r"ends in row 3 .* has one row"),
        ({"actions": np.ones((5, 2))}, r"actions: 5 rows, but the first column has 7"),
        ({"observations": np.array([{}] * 7, dtype=object)}, r"Object arrays cannot"),
    ],
)
def test_odd_files_are_refused(tmp_path: Path, replaced: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(card(ogbench_file(tmp_path / "a.npz", **replaced)))


def test_a_task_needs_the_package_the_states_and_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ogbench", None)
    path, bare = ogbench_file(tmp_path / "a.npz"), ogbench_file(tmp_path / "b.npz", qpos=None)
    for source, environment, message in [
        (path, "ogbench:antmaze-medium-v0", "rewards of antmaze-medium-singletask-task1-v0 are"),
        (bare, "ogbench:antmaze-medium-v0", "lacks qpos, of which"),
        (path, "Ant-v4", "view 'task1' needs an environment of OGBench"),
        (path, None, "view 'task1' needs an environment of OGBench"),
    ]:
        with pytest.raises(InputError, match=message):
            load_dataset(card(source, environment, "task1"))


def random_words() -> list[int]:
    """The state of NumPy's global generator."""
    state: Any = np.random.get_state()  # noqa: NPY002
    words: list[int] = state[1].tolist()
    return words


def test_rewards_of_a_single_task(tmp_path: Path) -> None:
    """Of antmaze-medium: 0 within 0.5 of the goal of its first task, (20, 20), -1 elsewhere."""
    pytest.importorskip("ogbench", reason="the rewards of OGBench's tasks are its package's")
    places = np.zeros((7, 15))
    at = [[0, 0], [20.3, 20.3], [20, 20.4], [20, 20], [20.4, 20.4], [9, 9], [20, 20]]
    places[:, :2] = np.array(at)
    path = ogbench_file(tmp_path / "a.npz", qpos=places)
    before = random_words()
    data = load_dataset(card(path, "ogbench:antmaze-medium-singletask-task1-v0", "task1"))
    assert random_words() == before
    assert data.rewards.tolist() == [-1, 0, 0, -1, -1]
    assert data.terminations.tolist() == [False, True, True, False, False]
    assert data.truncations.tolist() == [False, False, False, False, True]
    assert data.source.episodes == 2
    assert data.source.mean_return == -1.5


def test_cards_have_the_sizes_of_the_generator() -> None:
    """A million steps of antmaze-large-navigate, as OGBench's README says, and a tenth besides."""
    expected = find_card("antmaze-large-navigate-v0").expected
    assert (expected.transitions, expected.episodes) == (1_000_000, 1000)
    assert (expected.validation_transitions, expected.validation_episodes) == (100_000, 100)
    task = find_card("antmaze-large-navigate-singletask-task4-v0")
    assert task.source.files[0].name == "antmaze-large-navigate-v0.npz"
    assert task.environment is not None
    assert task.environment.id == "ogbench:antmaze-large-singletask-task4-v0"
    assert task.expected == expected
    assert task.view == "task4"


def test_cards_name_environments_of_the_package() -> None:
    pytest.importorskip("ogbench", reason="its registrations are what the cards are compared with")
    import gymnasium

    cards = [card for card in shipped_cards().values() if card.family == "ogbench"]
    assert len(cards) == 47 * 6
    for known in cards:
        assert known.environment is not None
        spec = gymnasium.spec(known.environment.id.removeprefix("ogbench:"))
        assert spec.max_episode_steps == known.environment.max_episode_steps, known.id
