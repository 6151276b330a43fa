import os
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from numpy.typing import NDArray

from offrl.data.card import Card, find_card
from offrl.datasets import pointmaze


@pytest.fixture(scope="module")
def card() -> Card:
    return find_card(pointmaze.CARD)


def columns(folder: Path) -> dict[str, NDArray[Any]]:
    """All of a Minari data set, read by Minari."""
    episodes = list(minari.MinariDataset(folder / "data").iterate_episodes())
    keys = ("actions", "rewards", "terminations", "truncations")
    found = {key: np.stack([getattr(e, key) for e in episodes]) for key in keys}
    for key in episodes[0].observations:
        found[key] = np.stack([e.observations[key] for e in episodes])
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = pointmaze.make(tmp_path_factory.mktemp("made"))
    return folder


def test_the_data_are_those_that_the_card_expects(full: Path, card: Card) -> None:
    data = columns(full)
    assert card.environment is not None
    assert data["rewards"].shape == (card.expected.episodes, card.environment.max_episode_steps)
    assert data["rewards"].size == card.expected.transitions
    assert data["rewards"].sum(1).mean() == pytest.approx(card.expected.mean_return, abs=1e-5)
    assert set(np.unique(data["rewards"])) == {0, 1}
    assert not data["terminations"].any()
    assert data["truncations"][:, -1].all()
    assert data["truncations"].sum() == len(data["rewards"])
    assert data["observation"].shape == (240, 201, 4)
    assert data["actions"].dtype == np.float32
    assert np.abs(data["actions"]).max() <= 1


def test_skills_differ_as_the_card_says(full: Path, card: Card) -> None:
    returns = columns(full)["rewards"].sum(1)
    means = [returns[i :: len(pointmaze.SKILLS)].mean() for i in range(len(pointmaze.SKILLS))]
    assert f"{means[0]:.1f}, {means[1]:.1f} and {means[2]:.1f}" in card.notes


def test_recorded_actions_lead_to_the_recorded_observations(full: Path, card: Card) -> None:
    """The data set belongs to the card's environment: its episodes replay from their seeds."""
    dataset = minari.MinariDataset(full / "data")
    assert card.environment is not None
    env = gymnasium.make(
        card.environment.id,
        max_episode_steps=card.environment.max_episode_steps,
        **card.environment.kwargs,
    )
    metadata = list(dataset.storage.get_episode_metadata(range(3)))
    for episode, about in zip(dataset.iterate_episodes(range(3)), metadata, strict=True):
        observation, _ = env.reset(seed=about["seed"])
        for step, action in enumerate(episode.actions):
            for key, value in observation.items():
                np.testing.assert_allclose(value, episode.observations[key][step], atol=1e-9)
            observation, reward, *_ = env.step(action)
            assert reward == episode.rewards[step]
    assert dataset.spec.env_spec.max_episode_steps == card.environment.max_episode_steps
    env.close()


def test_two_makes_are_equal_and_a_short_one_is_a_beginning(full: Path, tmp_path: Path) -> None:
    first = pointmaze.make(tmp_path / "one", episodes=6)
    second = pointmaze.make(tmp_path / "two", episodes=6)
    one, two, whole = columns(first), columns(second), columns(full)
    for key, column in one.items():
        np.testing.assert_array_equal(column, two[key])
        np.testing.assert_array_equal(column, whole[key][:6])


def test_making_touches_no_global_state_and_reports_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    seen: list[tuple[int, int]] = []
    pointmaze.make(tmp_path / "here", lambda done, total: seen.append((done, total)), episodes=2)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert seen == [(1, 2), (2, 2)]
    assert os.environ["MINARI_DATASETS_PATH"] == str(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    np.testing.assert_array_equal(before["state"]["key"], after["state"]["key"])
    assert before["state"]["pos"] == after["state"]["pos"]


def test_minari_itself_loads_it_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pointmaze.make(tmp_path, episodes=3)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert list(minari.list_local_datasets()) == [folder.name]
    dataset = minari.load_dataset(folder.name)
    assert (dataset.total_episodes, dataset.total_steps) == (3, 600)
    env = dataset.recover_environment(eval_env=True)
    assert env.observation_space == dataset.observation_space
    env.close()


def test_an_interrupted_make_leaves_the_old_data_and_nothing_else(tmp_path: Path) -> None:
    folder = pointmaze.make(tmp_path, episodes=2)

    def interrupt(done: int, total: int) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pointmaze.make(tmp_path, interrupt, episodes=3)
    assert list(tmp_path.iterdir()) == [folder]
    assert len(columns(folder)["rewards"]) == 2
    assert pointmaze.make(tmp_path, episodes=3) == folder
    assert list(tmp_path.iterdir()) == [folder]
    assert len(columns(folder)["rewards"]) == 3


def test_references_measured_again_agree_with_the_card(card: Card) -> None:
    assert card.reference is not None
    references = (card.reference.min, card.reference.max)
    for returns, reference in zip(
        pointmaze.measure_references(60, seed=1), references, strict=True
    ):
        error = returns.std(ddof=1) / len(returns) ** 0.5
        assert error > 0
        assert returns.mean() == pytest.approx(reference, abs=4 * error)


def test_the_way_through_the_maze_is_the_shortest() -> None:
    class UMaze:
        maze_map = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, "g", 1]]  # noqa: RUF012

    towards = pointmaze.Maze(UMaze()).next_cell[3, 1]
    way = [(1, 1)]
    while way[-1] != (3, 1):
        way.append(towards[way[-1]])
    assert way == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]
