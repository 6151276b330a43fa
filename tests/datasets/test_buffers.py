"""Loaders of other libraries' buffers: files written as those libraries write them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from offrl.data.dataset import load_dataset
from offrl.errors import InputError

RNG = np.random.default_rng(0)


def d3rlpy(path: Path, episodes: list[tuple[int, bool]], **changes: Any) -> Path:
    """A buffer as d3rlpy 2's `dump` writes it: episodes by steps and whether they terminated."""
    keys = ["observations", "actions", "rewards", "terminated"]
    with h5py.File(path, "w") as file:
        file["columns"] = keys
        file["num_episodes"] = len(episodes)
        for k, (steps, terminated) in enumerate(episodes):
            file[f"observations_{k}"] = 10.0 * k + np.arange(steps)[:, None].repeat(3, 1)
            file[f"actions_{k}"] = RNG.uniform(-1, 1, (steps, 2)).astype(np.float32)
            file[f"rewards_{k}"] = np.arange(steps, dtype=np.float32)[:, None]
            file[f"terminated_{k}"] = terminated
        file["version"] = "2.1"
        for name, value in changes.items():
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value
    return path


def test_a_buffer_of_d3rlpy(tmp_path: Path) -> None:
    data = load_dataset(d3rlpy(tmp_path / "buffer.h5", [(3, True), (4, False)]))
    assert data.card.source.loader == "d3rlpy"
    assert data.observations[:, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert data.next_observations[:, 0].tolist() == [1, 2, 2, 11, 12, 13]
    assert data.rewards.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.terminations.tolist() == [False, False, True, False, False, False]
    assert data.truncations.tolist() == [False] * 5 + [True]
    assert any("left out the last row of 1 episode" in note for note in data.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_episodes": 10**9}, "num_episodes is 1,000,000,000, but it holds"),
        ({"num_episodes": 0}, "num_episodes is 0"),
        ({"actions_1": None}, "actions_1 is no array of numbers"),
        ({"actions_1": np.ones((4, 2), int)}, "episode 1: actions are int64"),
        ({"observations_1_0": np.ones(4)}, "observations of episode 1 have several parts"),
        ({"rewards_1": np.array([0, 1, np.nan, 0])}, "episode 1: rewards: nan in row 2"),
        ({"terminated_1": "yes"}, "terminated_1 is no array of numbers"),
    ],
)
def test_a_damaged_buffer_of_d3rlpy(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(d3rlpy(tmp_path / "buffer.h5", [(3, True), (4, False)], **changes))


def sb3(path: Path, full: bool = False, **changes: Any) -> Path:
    """A buffer of five steps of two environments; the number of a row is its reward."""
    steps, environments = 5, 2
    order = np.roll(np.arange(steps), 2) if full else np.arange(steps)  # what stands where
    rewards = (order[:, None] + [0, 100]).astype(np.float32)
    observations = rewards[..., None].repeat(3, 2)
    dones = np.zeros((steps, environments), dtype=np.float32)
    timeouts = np.zeros((steps, environments), dtype=np.float32)
    dones[order == 1] = 1
    timeouts[order == 1, 1] = 1
    arrays = {
        "observations": observations,
        "next_observations": observations + 1,
        "actions": np.full((steps, environments, 2), 0.5, dtype=np.float32),
        "rewards": rewards,
        "dones": dones,
        "timeouts": timeouts,
        "pos": 2 if full else 3,
        "full": full,
        **changes,
    }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_a_buffer_of_stable_baselines3(tmp_path: Path) -> None:
    """The three rows that are filled of each environment; a timeout is done, but no termination."""
    data = load_dataset(sb3(tmp_path / "buffer.npz"))
    assert data.card.source.loader == "sb3"
    assert data.rewards.tolist() == [0, 1, 2, 100, 101, 102]
    assert data.next_observations[:, 0].tolist() == [1, 2, 3, 101, 102, 103]
    assert data.terminations.tolist() == [False, True, False, False, False, False]
    assert data.truncations.tolist() == [False, False, True, False, True, True]
    assert "2 episodes end with no flag: marked as truncated" in data.notes


def test_images_of_stable_baselines3_are_flattened(tmp_path: Path) -> None:
    images = np.arange(5 * 2 * 12, dtype=np.uint8).reshape(5, 2, 3, 2, 2)
    changes: dict[str, Any] = {"observations": images, "next_observations": images + 1}
    data = load_dataset(sb3(tmp_path / "buffer.npz", **changes))
    expected = images[:3].transpose(1, 0, 2, 3, 4).reshape(6, 12)
    np.testing.assert_array_equal(data.observations, expected)
    np.testing.assert_array_equal(data.next_observations, expected + 1)


def test_a_full_buffer_of_stable_baselines3_begins_with_its_oldest_row(tmp_path: Path) -> None:
    data = load_dataset(sb3(tmp_path / "buffer.npz", full=True))
    assert data.rewards.tolist() == [*range(5), *range(100, 105)]
    assert np.flatnonzero(data.terminations).tolist() == [1]
    assert np.flatnonzero(data.truncations).tolist() == [4, 6, 9]


def test_actions_of_stable_baselines3_get_the_simulators_bounds(tmp_path: Path) -> None:
    """It keeps them in [-1, 1]: 0.5 is three quarters of the way from low to high."""
    bounds: dict[str, Any] = {"low": np.array([-2.0, 0.0]), "high": np.array([2.0, 10.0])}
    data = load_dataset(sb3(tmp_path / "bounds.npz", **bounds))
    assert data.actions[0].tolist() == [1.0, 7.5]
    assert not any("keeps them" in note for note in data.notes)
    data = load_dataset(sb3(tmp_path / "bare.npz"))
    assert data.actions[0].tolist() == [0.5, 0.5]
    assert any("keeps them whatever the simulator's bounds" in note for note in data.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": np.zeros(3), "high": np.ones(3)}, r"low and high: expected finite bounds of"),
        ({"timeouts": None}, "sb3 needs timeouts|lacks timeouts"),
        ({"rewards": np.ones(5)}, r"rewards: shape \(5,\), expected \(steps, environments\)"),
        ({"dones": np.zeros((4, 2))}, r"dones: shape \(4, 2\), expected \(5, 2\)"),
        ({"pos": 9}, "pos is 9, but the buffer has 5 rows"),
        ({"actions": np.ones((5, 2, 1), int)}, "actions are int64"),
        ({"pos": "x"}, "pos and full: expected"),
    ],
)
def test_a_damaged_buffer_of_stable_baselines3(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(sb3(tmp_path / "buffer.npz", **changes))


def torchrl(path: Path, batch: tuple[int, ...], joint: str = ".", **changes: Any) -> Path:
    """Transitions as a flattened TensorDict has them; the number of a row is its reward."""
    rewards = np.arange(np.prod(batch), dtype=np.float32).reshape(*batch, 1)
    flat = {
        "observation": rewards.repeat(3, -1),
        "action": np.full((*batch, 2), 0.5, dtype=np.float32),
        "next.observation": rewards.repeat(3, -1) + 1,
        "next.reward": rewards,
        "next.terminated": rewards == 1,
        "next.truncated": rewards == 3,
        "next.done": (rewards == 1) | (rewards == 3),
        **changes,
    }
    named = {name.replace(".", joint): value for name, value in flat.items() if value is not None}
    np.savez(path, **named)
    return path


@pytest.mark.parametrize("joint", [".", "_"])
@pytest.mark.parametrize("batch", [(6,), (2, 3)])
def test_transitions_of_torchrl(batch: tuple[int, ...], joint: str, tmp_path: Path) -> None:
    data = load_dataset(torchrl(tmp_path / "buffer.npz", batch, joint))
    assert data.card.source.loader == "torchrl"
    assert data.rewards.tolist() == [*range(6)]
    assert data.next_observations[:, 0].tolist() == [*range(1, 7)]
    assert np.flatnonzero(data.terminations).tolist() == [1]
    ends = [2, 3, 5] if len(batch) == 2 else [3, 5]  # of an environment's steps too
    assert np.flatnonzero(data.truncations).tolist() == ends


@pytest.mark.parametrize("joint", [".", "/", "_"])
def test_ids_of_trajectories_end_episodes_of_torchrl(joint: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"collector.traj_ids": np.array([0, 0, 1, 1, 2, 2])}
    data = load_dataset(torchrl(tmp_path / "buffer.npz", (6,), joint, **changes))
    assert data.episode_lengths.tolist() == [2, 2, 2]


def test_a_storage_of_torchrl_that_runs_on_into_its_oldest_row(tmp_path: Path) -> None:
    rows = np.array([4, 5, 0, 1, 2, 3], dtype=np.float32)[:, None].repeat(3, 1)
    changes: dict[str, Any] = {
        "observation": rows,
        "next.observation": rows + 1,
        "next.terminated": np.zeros(6, bool),
        "next.truncated": None,
        "next.done": None,
    }
    data = load_dataset(torchrl(tmp_path / "buffer.npz", (6,), **changes))
    assert data.episode_lengths.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"next.terminated": None}, "lacks next.terminated|torchrl needs next.terminated"),
        ({"action": np.ones((5, 2))}, r"action: shape \(5, 2\), expected \(6,\) first"),
        ({"next.reward": np.float32(1)}, r"next.reward: shape \(\)"),
        ({"action": np.ones((6, 2), int)}, "action are int64"),
    ],
)
def test_damaged_transitions_of_torchrl(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(torchrl(tmp_path / "buffer.npz", (6,), **changes))


def rlds(folder: Path, name: str, steps: int, terminal: bool, **changes: Any) -> None:
    """An episode of so many transitions: one step more, whose action and reward are filled."""
    folder.mkdir(exist_ok=True)
    at = np.arange(steps + 1)
    last = at == steps
    arrays = {
        "observation": at[:, None].repeat(3, 1).astype(np.float32),
        "action": np.where(last, 99, 0.5)[:, None].astype(np.float32),
        "reward": np.where(last, 99, at).astype(np.float32),
        "is_first": at == 0,
        "is_last": last,
        "is_terminal": last & terminal,
        **changes,
    }
    np.savez(folder / name, **{key: value for key, value in arrays.items() if value is not None})


def test_a_folder_of_rlds(tmp_path: Path) -> None:
    rlds(tmp_path / "own", "b.npz", 2, terminal=False)
    rlds(tmp_path / "own", "a.npz", 3, terminal=True)
    data = load_dataset(tmp_path / "own")
    assert (data.card.source.loader, data.card.id) == ("rlds", "own")
    assert data.observations[:, 0].tolist() == [0, 1, 2, 0, 1]
    assert data.next_observations[:, 0].tolist() == [1, 2, 3, 1, 2]
    assert data.rewards.tolist() == [0, 1, 2, 0, 1]
    assert np.flatnonzero(data.terminations).tolist() == [2]
    assert np.flatnonzero(data.truncations).tolist() == [4]


def test_a_file_of_several_episodes_of_rlds(tmp_path: Path) -> None:
    rlds(tmp_path / "own", "a.npz", 2, terminal=True)
    with np.load(tmp_path / "own" / "a.npz") as one:
        twice: dict[str, Any] = {name: np.concatenate([one[name], one[name]]) for name in one.files}
    np.savez(tmp_path / "own" / "a.npz", **twice)
    assert load_dataset(tmp_path / "own").episode_lengths.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_terminal": None}, "lacks is_terminal"),
        ({"is_last": np.array([0, 1, 0])}, "episode of steps 0 to 2 .* goes on after its last"),
        ({"is_first": np.array([1, 1, 0])}, "episode of steps 0 to 0 .* has one step alone"),
        ({"reward": np.ones(7)}, "and reward differ in length"),
        ({"action": np.ones((3, 1), int)}, "actions are int64"),
    ],
)
def test_a_damaged_folder_of_rlds(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    rlds(tmp_path / "own", "a.npz", 2, terminal=True, **changes)
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "own")
