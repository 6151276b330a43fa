"""Minari's folders, by path and by id."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari_sources import change, episode, minari_data
from numbered import numbers

from offrl.data.card import Environment, Expected, find_card
from offrl.data.dataset import load_dataset
from offrl.data.describe import stats
from offrl.data.fetch import fetch
from offrl.data.resolve import resolve
from offrl.errors import InputError
from offrl.evaluation.environments import Actions, make, spaces


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
        id="MountainCarContinuous-v0",
        max_episode_steps=77,
        entry_point="gymnasium.envs.classic_control.continuous_mountain_car:"
        "Continuous_MountainCarEnv",
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


def test_a_lost_source_is_still_compared_with_the_simulator_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)], minari_id="tests/lost-v0")
    change(folder, env_spec=spec_with(entry_point="other.module:PendulumEnv"))
    before = load_dataset("minari:tests/lost-v0").card
    minari.delete_dataset("tests/lost-v0")
    kept = load_dataset("minari:tests/lost-v0").card
    assert kept == before
    assert kept.environment is not None
    with pytest.raises(InputError, match=r"was made by 'other\.module:PendulumEnv'"):
        spaces(kept.environment)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("rewards", np.ones(2), r"episode 0: 2 rewards, but 4 observations, 3 actions"),
        ("actions", np.full((3, 1), np.nan), r"actions: nan in row 0"),
        ("actions", np.zeros(3, dtype=np.int64), r"episode 0: actions are int64"),
        ("observations", np.ones((7, 2)), r"episode 0: 3 rewards, but 7 observations"),
        ("terminations", None, r"cannot be read as minari data \(KeyError"),
        ("terminations", np.array([0, 0.5, 0]), r"terminations: 0\.5 in row 1; expected 0 or 1"),
        ("truncations", np.array([0, np.nan, 1]), r"truncations: nan in row 1"),
        ("truncations", np.array([0, 0, 2]), r"truncations: 2\.0 in row 2; expected 0 or 1"),
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


# --- spaces, environments and references of the metadata ---


@pytest.mark.parametrize("steps", [1, 2, 5])  # of 1 or 2, a tuple looks like an array
def test_minari_tuples_are_read_by_their_declared_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    box = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    parts = (numbers(steps + 1, 2), numbers(steps + 1, 2, 100))
    folder = minari_data(
        monkeypatch,
        tmp_path,
        [episode(steps, observations=parts)],
        gymnasium.spaces.Tuple((box, box)),
    )
    dataset = load_dataset(folder)
    side_by_side = np.concatenate(parts, 1)
    np.testing.assert_array_equal(dataset.observations, side_by_side[:-1])
    np.testing.assert_array_equal(dataset.next_observations, side_by_side[1:])
    assert dataset.notes == ["tuple observations flattened in the order 0, 1"]


@pytest.mark.parametrize("name", ["minari:D4RL/minigrid/fourrooms-v0", "minari-fourrooms-v0"])
def test_minaris_rooms_are_read_without_their_mission(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spaces are those of its metadata: a dict with a text, and seven discrete actions."""
    views = np.arange(4 * 147, dtype=np.uint8).reshape(4, 7, 7, 3)
    seen = {"direction": np.arange(4), "image": views, "mission": ["reach the goal"] * 4}
    space = gymnasium.spaces.Dict(
        direction=gymnasium.spaces.Discrete(4),
        image=gymnasium.spaces.Box(0, 255, (7, 7, 3), np.uint8),
        mission=gymnasium.spaces.Text(14),
    )
    taken = dataclasses.replace(episode(3, observations=seen), actions=np.array([0, 6, 2]))
    acting = gymnasium.spaces.Discrete(7)
    minari_data(monkeypatch, tmp_path, [taken], space, "D4RL/minigrid/fourrooms-v0", acting)
    source = resolve(name).model_copy(update={"expected": Expected()})  # of the whole set
    dataset = load_dataset(source)
    rows = np.concatenate([np.arange(4)[:, None], views.reshape(4, -1)], 1)
    np.testing.assert_array_equal(dataset.observations, rows[:-1])
    np.testing.assert_array_equal(dataset.next_observations, rows[1:])
    assert dataset.actions.tolist() == [0, 6, 2]
    assert dataset.action_count == 7
    assert "texts are left out, and no policy sees them: mission" in dataset.notes


def test_a_set_without_references_says_which_card_of_offrls_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari_data(monkeypatch, tmp_path, [episode(3)], minari_id="mujoco/hopper/expert-v0")
    with pytest.raises(InputError, match="; take minari-hopper-expert-v0, offrl's card of the"):
        load_dataset("minari:mujoco/hopper/expert-v0").card.scoring()
    minari_data(monkeypatch, tmp_path, [episode(3)], minari_id="D4RL/door/human-v2")
    with pytest.raises(InputError, match="; give a card"):  # offrl's has none either
        load_dataset("minari:D4RL/door/human-v2").card.scoring()


def test_minari_data_of_another_shape_than_declared_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)])
    change(
        folder,
        observation_space=json.dumps(SPACE | {"shape": [3], "low": [0, 0, 0], "high": [1] * 3}),
    )
    with pytest.raises(InputError, match=r"observations have shape \(2,\), but the declared space"):
        load_dataset(folder)
    change(folder, observation_space=json.dumps(SPACE | {"shape": [10**6, 10**6]}))
    with pytest.raises(InputError, match=r"needs [0-9,.]+ GiB of memory"):
        load_dataset(folder)
    change(folder, observation_space=None)  # Minari would make the environment to ask it
    with pytest.raises(InputError, match="its metadata declare no observation_space"):
        load_dataset(folder)


def test_minari_actions_that_are_several_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = dataclasses.replace(episode(3), actions=np.array([[0, 1], [1, 1], [2, 0]]))
    several = gymnasium.spaces.MultiDiscrete([3, 2])
    folder = minari_data(monkeypatch, tmp_path, [one], actions=several, minari_id="d-v0")
    with pytest.raises(InputError, match=r"its actions are MultiDiscrete\(\[3 2\]\); offrl reads"):
        load_dataset(folder)


@pytest.mark.parametrize("start", [0, 4])
def test_minari_discrete_actions_count_from_zero(
    start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = dataclasses.replace(episode(3), actions=np.array([0, 2, 1]) + start)
    space = gymnasium.spaces.Discrete(3, start=start)
    folder = minari_data(monkeypatch, tmp_path, [one], actions=space, minari_id="d-v0")
    dataset = load_dataset(folder)
    assert dataset.action_count == 3
    assert dataset.actions.dtype == np.int64
    assert dataset.actions.tolist() == [0, 2, 1]
    other = dataset.card.model_copy(update={"actions": None})
    with pytest.raises(InputError, match=r"Discrete\(3.*\), but its card has no discrete actions"):
        load_dataset(other)


SPACE = {"type": "Box", "dtype": "float32", "low": [-1, -1], "high": [1, 1], "shape": [2]}


def spec_with(*wrappers: dict[str, Any], **keys: Any) -> str:
    spec = json.loads(gymnasium.spec("Pendulum-v1").to_json())
    return json.dumps(spec | {"additional_wrappers": wrappers, **keys})


RESCALE = {
    "name": "RescaleAction",
    "entry_point": "gymnasium.wrappers.transform_action:RescaleAction",
    "kwargs": {"min_action": -1.0, "max_action": 1.0},
}


def test_minari_environments_are_played_as_minari_recovers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)])
    plain = spec_with(kwargs={"g": 9.0})
    change(folder, env_spec=plain, eval_env_spec=spec_with(RESCALE, kwargs={"g": 8.0}))
    environment = load_dataset(folder).card.environment
    assert environment is not None
    assert spaces(environment) == (3, Actions((-1.0,), (1.0,)))
    mine = make(environment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bounds in float64
        theirs = minari.MinariDataset(folder / "data").recover_environment(eval_env=True)
    for env in (mine, theirs):
        env.reset(seed=3)
    for action in (np.array([0.5], np.float32), np.array([-1.0], np.float32)):
        ours, other = mine.step(action), theirs.step(action)
        np.testing.assert_array_equal(ours[0], other[0])
        assert ours[1] == other[1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            spec_with(RESCALE | {"entry_point": "os:system"}),
            "was wrapped in os:system; offrl wraps",
        ),
        (
            spec_with(RESCALE | {"entry_point": "gymnasium.wrappers:RecordVideo"}),
            "was wrapped in gymnasium.wrappers:RecordVideo",
        ),
        (
            spec_with(
                RESCALE | {"entry_point": "gymnasium.wrappers.stateful_reward:NormalizeReward"}
            ),
            "NormalizeReward, whose averages over earlier episodes are not in the data",
        ),
        (spec_with(entry_point="other.module:PendulumEnv"), "was made by 'other.module:Pendulum"),
        (spec_with(id="nobody/Has-v0"), "'nobody/Has-v0' of the data set is not registered here"),
    ],
)
def test_minari_environments_that_cannot_be_had_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)])
    change(folder, env_spec=spec)
    environment = load_dataset(folder).card.environment
    assert environment is not None
    with pytest.raises(InputError, match=message):
        spaces(environment)


def test_a_wrapper_without_settings_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)])
    change(folder, env_spec=spec_with({"name": "Mine", "entry_point": "a:Mine", "kwargs": None}))
    with pytest.raises(InputError, match=r"metadata\.json: its environment was wrapped in Mine"):
        load_dataset(folder)


def test_minari_references_that_are_swapped_or_no_numbers_leave_the_data_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari_data(monkeypatch, tmp_path, [episode(3)])
    for low, high in ((3.0, -1.0), (2.0, 2.0), ("a", 1.0), (float("nan"), 1.0), (None, 1.0)):
        change(folder, ref_min_score=low, ref_max_score=high, env_spec=spec_with())
        dataset = load_dataset(folder)
        assert len(dataset) == 3
        assert any("reference returns are" in n or "unusable" in n for n in dataset.notes)
        assert stats(dataset).score_mean is None
        assert "score" not in repr(dataset)
        with pytest.raises(InputError, match="scored"):
            dataset.card.scoring()
        with pytest.raises(InputError, match="no return can be normalised"):
            dataset.normalized(1.0)


@pytest.mark.parametrize(
    "text", ["[" * 5000, "[]", '{"env_spec": 3}', "\x00", '{"env_spec": "[]"}']
)
def test_odd_metadata_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.json").write_text(text)
    said = r"metadata\.json: expected Minari's metadata, but its (JSON|env_spec) .*, or correct it$"
    with pytest.raises(InputError, match=said) as caught:
        load_dataset(tmp_path)
    assert "\n" not in str(caught.value)
