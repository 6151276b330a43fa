import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray

from offrl.data.card import Card, Environment
from offrl.data.columns import column
from offrl.data.dataset import Dataset, load_dataset
from offrl.errors import InputError


def numbers(rows: int, size: int, start: int = 0) -> NDArray[np.float32]:
    """Rows that differ everywhere, so that a wrong row shows."""
    return (start + np.arange(rows * size, dtype=np.float32)).reshape(rows, size)


# --- D4RL ---


def d4rl_file(
    path: Path,
    rows: int,
    ends: Sequence[int] = (),
    cuts: Sequence[int] | None = None,
    successors: bool = False,
    **replaced: Any,
) -> Path:
    """A file in the layout of D4RL's locomotion data: names, types and the groups beside them.

    `ends` are the rows of terminals and `cuts` those of timeouts; `replaced` are whole columns.
    """
    observations = numbers(rows, 3)
    data: dict[str, Any] = {
        "observations": observations,
        "actions": numbers(rows, 2, 1000) / 2000,
        "rewards": np.arange(rows, dtype=np.float32) + 0.5,
        "terminals": np.isin(np.arange(rows), ends),
        "infos/qpos": np.zeros((rows, 4)),
        "metadata/algorithm": np.bytes_("SAC"),
    }
    if cuts is not None:
        data["timeouts"] = np.isin(np.arange(rows), cuts)
    if successors:  # a row's true successor is its own observation plus 100
        data["next_observations"] = observations + 100
    data |= replaced
    with h5py.File(path, "w") as file:
        for key, values in data.items():
            if values is not None:
                file.create_dataset(key, data=values)
    return path


def d4rl_card(path: Path, view: str = "transitions", limit: int | None = None) -> Card:
    card = Card.model_validate(
        {
            "id": path.stem,
            "version": 1,
            "title": "test",
            "source": {"loader": "d4rl", "files": [{"name": str(path)}]},
            "view": view,
            "licence": "none",
            "citation": "none",
        }
    )
    if limit is None:
        return card
    environment = Environment(id="CartPole-v1", max_episode_steps=limit)
    return card.model_copy(update={"environment": environment})


def straight_qlearning(path: Path, limit: int) -> dict[str, list[Any]]:
    """d4rl.qlearning_dataset, said again row by row in plain lists."""
    with h5py.File(path, "r") as file:
        data = {key: list(file[key]) for key in file if isinstance(file[key], h5py.Dataset)}
    out: dict[str, list[Any]] = {"row": [], "next": [], "terminal": []}
    counter = 0
    for row in range(len(data["rewards"]) - 1):
        final = data["timeouts"][row] if "timeouts" in data else counter == limit - 1
        if final:
            counter = 0
            continue
        if data["terminals"][row]:
            counter = 0
        out["row"].append(row)
        out["next"].append(row + 1)
        out["terminal"].append(bool(data["terminals"][row]))
        counter += 1
    return out


def rows_of(dataset: Dataset, size: int = 3) -> list[int]:
    return [int(first) // size for first in dataset.observations[:, 0]]


@pytest.mark.parametrize("successors", [False, True])
@pytest.mark.parametrize("with_timeouts", [False, True])
def test_qlearning_view_is_the_one_of_d4rl(
    tmp_path: Path, successors: bool, with_timeouts: bool
) -> None:
    rng = np.random.default_rng(np.random.SeedSequence(3))
    rows, limit = 200, 7
    ends = sorted(rng.choice(rows, 12, replace=False).tolist())
    cuts = sorted(rng.choice(rows, 20, replace=False).tolist()) if with_timeouts else None
    path = d4rl_file(tmp_path / "a.hdf5", rows, ends, cuts, successors)
    expected = straight_qlearning(path, limit)
    dataset = load_dataset(d4rl_card(path, "qlearning", limit))
    assert rows_of(dataset) == expected["row"]
    assert [int(first) // 3 for first in dataset.next_observations[:, 0]] == expected["next"]
    assert dataset.terminations.tolist() == expected["terminal"]
    np.testing.assert_array_equal(dataset.rewards, np.array(expected["row"]) + 0.5)
    assert not (dataset.terminations & dataset.truncations).any()


def test_qlearning_view_by_hand(tmp_path: Path) -> None:
    # episodes: rows 0-3 time out, rows 4-6 terminate, rows 7-9 time out
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3, 9])
    dataset = load_dataset(path, view="qlearning")
    assert rows_of(dataset) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert dataset.next_observations[5, 0] == 21  # row 7, the next episode's first
    assert dataset.terminations.nonzero()[0].tolist() == [5]
    assert dataset.truncations.nonzero()[0].tolist() == [2, 7]
    assert dataset.episode_lengths.tolist() == [3, 3, 2]
    assert (dataset.source.transitions, dataset.source.episodes) == (10, 3)
    assert dataset.source.mean_return == pytest.approx((10 * 9 / 2 + 5) / 3)
    assert "qlearning view: left out 1 rows at timeouts and the last row" in dataset.notes[-1]
    assert "qlearning view" in repr(dataset)


def test_qlearning_view_counts_steps_as_d4rl_does_after_a_terminal(tmp_path: Path) -> None:
    # d4rl counts the first step after a terminal as the second: the next cut comes a step early
    path = d4rl_file(tmp_path / "a.hdf5", 12, ends=[2])
    dataset = load_dataset(d4rl_card(path, "qlearning", 4))
    assert rows_of(dataset) == [0, 1, 2, 3, 4, 6, 7, 8, 10]
    whole = load_dataset(d4rl_card(path, "transitions", 4))
    assert whole.episode_lengths.tolist() == [3, 3, 3]  # of 3, 4, 4 and 1 steps: last rows go


def test_transitions_view_keeps_every_row_with_successors(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3], successors=True)
    dataset = load_dataset(path)
    assert rows_of(dataset) == list(range(10))
    np.testing.assert_array_equal(dataset.next_observations, np.asarray(dataset.observations) + 100)
    assert dataset.terminations.nonzero()[0].tolist() == [6]
    assert dataset.truncations.nonzero()[0].tolist() == [3, 9]
    assert dataset.notes == ["the last episode is unfinished: marked as truncated"]
    assert dataset.episode_lengths.tolist() == [4, 3, 3]
    assert dataset.source.episodes == 2  # finished ones, as d4rl counts
    assert dataset.source.mean_return == pytest.approx((7 * 6 / 2 + 3.5) / 2)


def test_transitions_view_without_successors_drops_what_has_none(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3])
    dataset = load_dataset(path)
    assert rows_of(dataset) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert [int(v) // 3 for v in dataset.next_observations[:, 0]] == [1, 2, 3, 5, 6, 6, 8, 9]
    assert dataset.truncations.nonzero()[0].tolist() == [2, 7]
    assert dataset.terminations.nonzero()[0].tolist() == [5]
    assert "left out 2 rows" in dataset.notes[-1]
    assert "1 terminal rows their own observation" in dataset.notes[-1]


def test_a_row_that_terminates_at_the_limit_is_a_termination(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 6, [2, 5], [2])
    dataset = load_dataset(path)
    assert dataset.terminations.nonzero()[0].tolist() == [2, 5]
    assert len(dataset) == 6


def test_a_one_step_episode_that_times_out_leaves_no_flag_behind(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 6, [2, 5], [3])  # rows 0-2, row 3 alone, rows 4-5
    dataset = load_dataset(path)
    assert rows_of(dataset) == [0, 1, 2, 4, 5]
    assert not dataset.truncations.any()


def test_float64_and_column_shaped_rewards_are_read(tmp_path: Path) -> None:
    path = d4rl_file(
        tmp_path / "a.h5",
        4,
        [3],
        [],
        observations=numbers(4, 3).astype(np.float64),
        rewards=np.ones((4, 1)),
        terminals=np.array([0, 0, 0, 1], dtype=np.uint8),
    )
    dataset = load_dataset(path)
    assert dataset.observations.dtype == np.float32
    assert dataset.rewards.shape == (4,)
    assert dataset.episode_returns.tolist() == [4.0]


@pytest.mark.parametrize("view", ["transitions", "qlearning"])
def test_d4rls_columns_in_an_npz_file_are_the_same(tmp_path: Path, view: str) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [6], [3, 9])
    with h5py.File(path) as file:
        columns = {k: v[()] for k, v in file.items() if isinstance(v, h5py.Dataset)}
    np.savez_compressed(tmp_path / "b.npz", **columns)
    one = load_dataset(d4rl_card(path, view))
    other = load_dataset(d4rl_card(tmp_path / "b.npz", view))
    assert other.checksum == one.checksum
    assert (other.source, other.notes) == (one.source, one.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"b\.npz: not a whole \.npz file \(.*delete it and fetch it again"),
        (b"PK\x03\x04 and no more", r"b\.npz: not a whole \.npz file \("),
        (None, r"b\.npz: not a whole \.npz file \(Object arrays cannot be loaded"),
    ],
)
def test_npz_files_that_are_not_whole_are_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "b.npz"
    if content is None:  # a pickle inside
        np.savez(path, observations=np.array([{}], dtype=object))
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(d4rl_card(path))
    assert "\n" not in str(caught.value)


def test_d4rl_without_timeouts_and_limit_is_refused(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10)
    with pytest.raises(InputError, match=r"a\.hdf5: has no timeouts.*environment\.max_episode_st"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"actions": None}, r"a\.hdf5: lacks actions; found infos, metadata, observations"),
        ({"rewards": np.ones(9)}, r"rewards: 9 rows, but the first column has 10"),
        ({"actions": np.ones((10, 2, 2))}, r"actions: shape \(10, 2, 2\), expected \(rows, dim"),
        ({"terminals": np.full(10, 0.5)}, r"terminals: 0\.5 in row 0; expected 0 or 1"),
        ({"rewards": np.array([b"x"] * 10)}, r"rewards: expected numbers, found \|S1"),
        ({"observations": np.ones((0, 3))}, r"terminals: 10 rows|no rows"),
        ({"next_observations": np.ones((10, 4))}, r"next_observations: shape \(10, 4\), expected"),
    ],
)
def test_odd_d4rl_files_are_refused_in_one_line(
    tmp_path: Path, replaced: dict[str, Any], message: str
) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 10, [], [4, 9], **replaced)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_name_column_and_row(tmp_path: Path, bad: float) -> None:
    observations = numbers(70_000, 1).astype(np.float64)
    observations[66_000, 0] = bad  # in the second block of the search
    observations[69_000, 0] = bad
    path = d4rl_file(tmp_path / "a.hdf5", 70_000, [], [69_999], observations=observations)
    with pytest.raises(InputError, match=r"observations: -?(nan|inf|1e\+300) in row 66000"):
        load_dataset(path)


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = d4rl_file(tmp_path / "a.hdf5", 1000, [], [999])
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"<!DOCTYPE html><title>403 Forbidden</title>"):
        path.write_bytes(part)
        with pytest.raises(InputError, match=r"a\.hdf5: not a whole HDF5 file .* fetch it again"):
            load_dataset(path)


def test_column_counts_rows_and_axes() -> None:
    where = Path("x.npz")
    assert column([1, 2], where, "action", 2, 2).shape == (2, 1)
    with pytest.raises(InputError, match=r"x\.npz: reward: shape \(2, 3\), expected \(rows,\)"):
        column(np.ones((2, 3)), where, "reward", 2, 1)


# --- NeoRL-2 ---


def neorl2_file(path: Path, **replaced: Any) -> Path:
    observations = numbers(6, 3)
    data: dict[str, Any] = {
        "obs": observations,
        "action": numbers(6, 2),
        "next_obs": observations + 100,
        "reward": np.arange(6, dtype=np.float32),
        "done": np.array([0, 0, 1, 0, 0, 0], dtype=np.float32),
        "truncated": np.array([0, 0, 0, 0, 0, 1], dtype=np.float32),
    }
    data |= replaced
    np.savez(path, **{key: values for key, values in data.items() if values is not None})
    return path


def test_neorl2_keeps_done_and_truncated_apart(tmp_path: Path) -> None:
    dataset = load_dataset(neorl2_file(tmp_path / "a.npz"))
    assert dataset.terminations.tolist() == [False, False, True, False, False, False]
    assert dataset.truncations.tolist() == [False, False, False, False, False, True]
    assert dataset.episode_starts.tolist() == [0, 3]
    assert dataset.episode_returns.tolist() == [3.0, 12.0]
    assert dataset.notes == []
    np.testing.assert_array_equal(dataset.next_observations, numbers(6, 3) + 100)


def test_neorl2_unfinished_last_episode_is_noted(tmp_path: Path) -> None:
    dataset = load_dataset(neorl2_file(tmp_path / "a.npz", truncated=np.zeros(6)))
    assert dataset.truncations.tolist() == [False] * 5 + [True]
    assert dataset.notes == ["the last row ends no episode: marked as truncated"]


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"reward": None}, r"lacks reward; found obs, action, next_obs, done, truncated"),
        ({"action": np.ones((5, 2))}, r"action: 5 rows, but the first column has 6"),
        ({"reward": np.array([0, 1, np.nan, 0, np.nan, 0])}, r"reward: nan in row 2"),
        ({"done": np.full(6, 2.0)}, r"done: 2\.0 in row 0; expected 0 or 1"),
        ({"obs": np.array([{}] * 6, dtype=object)}, r"not a whole \.npz file without pickles"),
    ],
)
def test_odd_neorl2_files_are_refused(
    tmp_path: Path, replaced: dict[str, Any], message: str
) -> None:
    path = neorl2_file(tmp_path / "a.npz", **replaced)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)


def test_truncated_npz_is_refused(tmp_path: Path) -> None:
    path = neorl2_file(tmp_path / "a.npz")
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"<!DOCTYPE html>"):
        path.write_bytes(part)
        with pytest.raises(InputError, match=r"a\.npz: not a whole \.npz file"):
            load_dataset(path)


# --- Minari ---


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
    assert len(load_dataset("minari:tests/again-v0")) == 3  # the cache still knows it
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
