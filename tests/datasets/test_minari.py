"""Minari's folders, by path and by id."""

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from numbered import numbers

from offrl.data.card import Environment, find_card
from offrl.data.dataset import load_dataset
from offrl.data.fetch import fetch
from offrl.errors import InputError


def episode(
    steps: int,
    start: int = 0,
    terminated: bool = False,
    truncated: bool = True,
    observations: Any = None,
) -> EpisodeBuffer:
    ends = np.arange(steps) == steps - 1
    return EpisodeBuffer(
        observations=numbers(steps + 1, 2, start) if observations is None else observations,
        actions=np.linspace(-1, 1, steps, dtype=np.float32)[:, None],
        rewards=np.full(steps, 0.5),
        terminations=ends & terminated,
        truncations=ends & truncated,
    )


def minari_data(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    episodes: list[EpisodeBuffer],
    space: gymnasium.Space[Any] | None = None,
    minari_id: str = "tests/tiny-v0",
    **about: Any,
) -> Path:
    """A data set in Minari's own storage, written by Minari."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari's advice on metadata
        minari.create_dataset_from_buffers(
            minari_id,
            episodes,
            observation_space=space or gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            action_space=gymnasium.spaces.Box(-1, 1, (1,), np.float32),
            author="tests",
            author_email="tests@example.org",
            code_permalink="https://example.org",
            algorithm_name="none",
            description="for tests",
            **about,
        )
    return root / minari_id


def test_minari_rows_from_t_plus_one_observations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(
        monkeypatch,
        tmp_path,
        [episode(3), episode(2, 100, terminated=True, truncated=False)],
    )
    dataset = load_dataset("minari:tests/tiny-v0")
    np.testing.assert_array_equal(
        dataset.observations, [[0, 1], [2, 3], [4, 5], [100, 101], [102, 103]]
    )
    np.testing.assert_array_equal(
        dataset.next_observations, [[2, 3], [4, 5], [6, 7], [102, 103], [104, 105]]
    )
    assert dataset.terminations.nonzero()[0].tolist() == [4]
    assert dataset.truncations.nonzero()[0].tolist() == [2]
    assert dataset.episode_returns.tolist() == [1.5, 1.0]
    by_path = load_dataset(folder)
    np.testing.assert_array_equal(by_path.observations, dataset.observations)
    assert by_path.card.id == "tests-tiny-v0"


def test_minari_dict_observations_in_the_declared_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    space = gymnasium.spaces.Dict(
        {"observation": box, "goal": gymnasium.spaces.Dict({"b": box, "a": box})}
    )
    observations = {
        "observation": numbers(4, 2).astype(np.float64),
        "goal": {"b": numbers(4, 2, 200), "a": numbers(4, 2, 100)},
    }
    folder = minari_data(monkeypatch, tmp_path, [episode(3, observations=observations)], space)
    loose = load_dataset(folder)
    np.testing.assert_array_equal(loose.observations[0], [100, 101, 200, 201, 0, 1])
    assert loose.notes == ["dict observations flattened in the order goal/a, goal/b, observation"]
    card = loose.card.model_copy(
        update={
            "environment": Environment(
                id="CartPole-v1", max_episode_steps=3, observation_keys=["observation", "goal/b"]
            )
        }
    )
    strict = load_dataset(card)
    np.testing.assert_array_equal(strict.next_observations[2], [6, 7, 206, 207])
    assert strict.notes == []
    wrong = card.model_copy(
        update={
            "environment": Environment(
                id="CartPole-v1", max_episode_steps=3, observation_keys=["achieved"]
            )
        }
    )
    with pytest.raises(InputError, match=r"lack 'achieved'; found goal/a, goal/b, observation"):
        load_dataset(wrong)


def test_minari_episodes_without_flags_or_final_observation_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(
        monkeypatch,
        tmp_path,
        [
            episode(3, truncated=False),  # cut off by the end of the collection
            episode(3, 100),
            episode(3, 200, terminated=True, truncated=False),
        ],
    )
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for name in ("episode_1", "episode_2"):  # as in some antmaze data
            short = file[name]["observations"][:-1]
            del file[name]["observations"]
            file[name]["observations"] = short
    dataset = load_dataset(folder)
    assert dataset.episode_lengths.tolist() == [3, 2, 3]
    assert dataset.truncations.nonzero()[0].tolist() == [2, 4]
    assert dataset.terminations.nonzero()[0].tolist() == [7]
    np.testing.assert_array_equal(dataset.next_observations[4], [104, 105])
    np.testing.assert_array_equal(dataset.next_observations[7], dataset.observations[7])
    assert [note.split(":")[0] for note in dataset.notes] == [
        "1 episodes end with neither flag",
        "1 episodes lack their final observation",
        "1 terminated episodes lack their final observation",
    ]


def test_minari_environment_and_reference_come_from_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(
        monkeypatch,
        tmp_path,
        [episode(3)],
        env=gymnasium.make("MountainCarContinuous-v0", max_episode_steps=77),
        ref_min_score=-1.0,
        ref_max_score=3.0,
    )
    dataset = load_dataset(folder)
    assert dataset.card.environment == Environment(
        id="MountainCarContinuous-v0", max_episode_steps=77
    )
    assert dataset.normalized(1.0) == 50.0


def test_minari_data_collected_again_are_read_again_and_a_lost_source_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari_data(monkeypatch, tmp_path, [episode(3)], minari_id="tests/again-v0")
    assert len(load_dataset("minari:tests/again-v0")) == 3
    minari.delete_dataset("tests/again-v0")
    assert len(load_dataset("minari:tests/again-v0")) == 3  # from the cache
    minari_data(monkeypatch, tmp_path, [episode(5)], minari_id="tests/again-v0")
    assert len(load_dataset("minari:tests/again-v0")) == 5


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("rewards", np.ones(2), r"episode 0: 2 rewards, but 4 observations, 3 actions"),
        ("actions", np.full((3, 1), np.nan), r"actions: nan in row 0"),
        ("actions", np.zeros(3, dtype=np.int64), r"episode 0: actions are int64"),
        ("observations", np.ones((7, 2)), r"episode 0: 3 rewards, but 7 observations"),
        ("terminations", None, r"Minari cannot read it \(KeyError"),
    ],
)
def test_odd_minari_data_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, values: Any, message: str
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)])
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0"][key]
        if values is not None:
            file["episode_0"][key] = values
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(folder)
    assert "\n" not in str(caught.value)


def test_minari_metadata_that_miscount_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)])
    path = folder / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"total_steps": 4}))
    with pytest.raises(InputError, match="3 steps in its episodes, but 4 by its metadata"):
        load_dataset(folder)


def test_minari_main_file_given_as_d4rl_says_to_give_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)])
    with pytest.raises(InputError, match="Minari's, so give its folder"):
        load_dataset(folder / "data" / "main_data.hdf5")


def test_missing_minari_data_name_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari_data(monkeypatch, tmp_path, [episode(3)])
    with pytest.raises(InputError, match=r"minari:not an id: .*MINARI_DATASETS_PATH"):
        load_dataset("minari:not an id")
    for name in ("../outside-v0", "/etc", "a/../../b-v0", "a//b-v0"):
        with pytest.raises(InputError, match=rf"minari:{name}: expected a plain name"):
            load_dataset(f"minari:{name}")


def test_minari_keeps_its_own_folder(tmp_path: Path) -> None:
    message = r"minari:D4RL/pointmaze/umaze-v2: .* set MINARI_DATASETS_PATH=\S+ instead of --from"
    with pytest.raises(InputError, match=message):
        fetch(find_card("pointmaze-umaze-v2"), tmp_path)
