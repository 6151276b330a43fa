"""Adroit's simulators against D4RL's equations, its reference returns and real demonstrations."""

import importlib
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from offrl.data.card import Environment, find_card
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.describe import stats
from offrl.data.fetch import fetch
from offrl.datasets import adroit
from offrl.evaluation.environments import Actions, make, spaces

Array = NDArray[Any]
TASKS = ["door", "hammer", "pen", "relocate"]
PALM, HANDLE, HINGE = slice(29, 32), slice(32, 35), 28  # in an observation of the door
ZERO = np.zeros(3)


def environment(task: str) -> Environment:
    found = find_card(f"{task}-human-v1").environment
    assert found is not None
    return found


def axis(index: int, length: float = 1.0) -> Array:
    return np.asarray(length * np.eye(3)[index])


@pytest.fixture
def demonstrations(shared: Path) -> dict[str, Array]:
    """The columns of the file, its rows at the start of episodes and those with a successor."""
    with np.load(shared / "data" / "adroit" / "door-human-dapg-demos.npz") as archive:
        columns = dict(archive)
    ends = np.flatnonzero(columns["timeouts"])
    columns["starts"] = np.append(0, ends[:-1] + 1)
    columns["inside"] = np.delete(np.arange(len(columns["rewards"])), ends)
    return columns


@pytest.fixture
def data(shared: Path) -> Dataset:
    fetch(find_card("door-human-dapg"), shared / "data" / "adroit")
    return load_dataset("door-human-dapg")


# --- the equations, d4rl/hand_manipulation_suite ---


def test_door_reward_takes_away_a_tenth_of_the_distance() -> None:
    still = np.zeros(30)
    wide = adroit.door_reward(ZERO, ZERO, 1.57, still)
    assert wide == 2 + 8 + 10
    assert wide - adroit.door_reward(axis(0, 3), ZERO, 1.57, still) == pytest.approx(0.3)
    angles = np.array([0.2, 0.57, 1.07, 1.35])
    bonus = adroit.door_reward(ZERO, ZERO, angles, np.zeros((4, 30))) + 0.1 * (angles - 1.57) ** 2
    np.testing.assert_allclose(bonus, [0, 2, 10, 10])  # each is paid above its angle, not at it
    assert wide - adroit.door_reward(ZERO, ZERO, 1.57, still + 10) == pytest.approx(30 * 1e-3)


def test_hammer_reward_by_hand() -> None:
    low, high = axis(2, 0.03), axis(2, 0.05)
    still = np.zeros(33)
    reward = adroit.hammer_reward(low + axis(0, 2), low, low, low, low + axis(1), still)
    assert reward == pytest.approx(-0.2 - 10)
    lifted = adroit.hammer_reward(high, high, high, high + axis(0, 0.5), ZERO, still)
    assert lifted == pytest.approx(2 - 0.5 - 10 * np.hypot(0.5, 0.05))
    driven = [
        adroit.hammer_reward(low, low, low, low, low + axis(0, left), still)
        for left in (0.005, 0.015, 0.025)
    ]
    np.testing.assert_allclose(driven, [100 - 0.05, 25 - 0.15, -0.25])
    fast = adroit.hammer_reward(low, low, low, low, low, still + axis(0, 4)[0])
    assert fast == pytest.approx(100 - 1e-2 * 4 * np.sqrt(33))  # the length, not its square


def test_pen_reward_by_hand() -> None:
    up, place = axis(2), axis(2, 0.2)

    def reward(degrees: float, away: float = 0.0, height: float = 0.2) -> float:
        turned = np.array([np.sin(np.radians(degrees)), 0, np.cos(np.radians(degrees))])
        pen = np.array([away, 0, height])
        return float(adroit.pen_reward(pen, np.array([0, 0, height]), turned, up))

    assert reward(0) == 61  # cos 0 and both bonuses
    assert reward(20) == pytest.approx(np.cos(np.radians(20)) + 10)  # 0.94: the first
    assert reward(30) == pytest.approx(np.cos(np.radians(30)))  # 0.87: none
    assert reward(0, away=0.08) == pytest.approx(1 - 0.08)
    assert reward(90, away=1, height=0.07) == pytest.approx(-1 - 5)
    assert adroit.pen_reward(place, place, up, -up) == -1


def test_relocate_reward_by_hand() -> None:
    table, air = axis(2, 0.03), axis(2, 0.5)
    assert adroit.relocate_reward(table + axis(0, 2), table, axis(1, 9)) == pytest.approx(-0.2)
    carried = adroit.relocate_reward(air, air, air + axis(0, 3))
    assert carried == pytest.approx(1 - 1.5 - 1.5)
    assert adroit.relocate_reward(air, air, air + axis(0, 0.07)) == pytest.approx(11 - 0.07)
    assert adroit.relocate_reward(air, air, air) == 31


# --- the simulators ---


@pytest.mark.parametrize(
    ("task", "sizes"),
    [
        ("door", (39, 28)),
        ("hammer", (46, 26)),
        ("pen", (45, 24)),
        ("relocate", (39, 30)),
    ],
)
def test_sizes_are_those_of_d4rls_files(task: str, sizes: tuple[int, int]) -> None:
    assert spaces(environment(task)) == (sizes[0], Actions((-1.0,) * sizes[1], (1.0,) * sizes[1]))


def test_a_second_import_registers_nothing_again() -> None:
    before = gymnasium.registry["offrl/AdroitHandDoor-v0"]
    importlib.reload(adroit)  # warnings are errors, and registering twice warns
    assert gymnasium.registry["offrl/AdroitHandDoor-v0"] is before


def test_the_door_pays_by_what_the_observation_shows() -> None:
    env = make(environment("door"))
    unwrapped: Any = env.unwrapped
    random = np.random.default_rng(0)
    observation, _ = env.reset(seed=1)
    for step in range(200):
        action = random.uniform(-1, 1, 28)
        observation, reward, terminated, truncated, _ = env.step(action)
        apart = np.linalg.norm(observation[PALM] - observation[HANDLE])
        speed = np.square(unwrapped.data.qvel).sum()
        closed = 0.1 * (observation[HINGE] - 1.57) ** 2
        assert reward == pytest.approx(-0.1 * apart - closed - 1e-5 * speed, abs=1e-12)
        assert not terminated
        assert truncated == (step == 199)


@pytest.mark.parametrize("task", TASKS)
def test_actions_beyond_the_bounds_are_clipped(task: str) -> None:
    seen = []
    for size in (1.0, 3.0):
        env = make(environment(task))
        env.reset(seed=2)
        action = size * np.sign(np.random.default_rng(3).normal(size=env.action_space.shape or ()))
        seen.append([env.step(action)[:2] for _ in range(3)])
    for (inside, low), (beyond, high) in zip(*seen, strict=True):
        np.testing.assert_array_equal(inside, beyond)
        assert low == high


def test_a_dropped_pen_ends_the_episode() -> None:
    env = make(environment("pen"))
    random = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(100):
        observation, reward, terminated, truncated, _ = env.step(random.uniform(-1, 1, 24))
        dropped = observation[26] < 0.075  # 24 joints, then the pen's position
        assert terminated == dropped
        if terminated or truncated:
            break
    assert terminated
    assert float(reward) < 1 - 5 + 0.5


@pytest.mark.parametrize(("task", "episodes"), [("door", 20), ("hammer", 20), ("relocate", 20)])
def test_uniform_actions_earn_d4rls_lower_reference(task: str, episodes: int) -> None:
    """D4RL's is the mean of 100 episodes of such actions on mujoco-py.

    With the palm's distance paid for, doors return 11 more, hammers 8 and balls 16.
    """
    reference = find_card(f"{task}-human-v1").reference
    assert reference is not None
    env = make(environment(task))
    random = np.random.default_rng(0)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        env.reset(seed=episode)
        for _ in range(200):
            returns[episode] += float(env.step(random.uniform(-1, 1, env.action_space.shape))[1])
    error = returns.std(ddof=1) * np.sqrt(1 / episodes + 1 / 100)
    assert returns.mean() == pytest.approx(reference.min, abs=4 * error)
    assert 4 * error < 6


# --- the demonstrations ---


def test_door_human_is_the_published_file(data: Dataset, demonstrations: dict[str, Array]) -> None:
    inside = demonstrations["inside"]
    assert (data.source.transitions, data.source.episodes) == (6729, 25)
    assert data.source.mean_return == pytest.approx(794.10, abs=5e-3)
    for name in ("observations", "actions", "rewards"):
        expected = demonstrations[name].astype(np.float32)[inside]
        np.testing.assert_array_equal(getattr(data, name), expected)
    after = demonstrations["observations"].astype(np.float32)[inside + 1]
    np.testing.assert_array_equal(data.next_observations, after)
    assert (data.episode_lengths.min(), data.episode_lengths.max()) == (222, 299)
    assert not data.terminations.any()
    assert len(data.notes) == 1
    assert stats(data).actions_outside == pytest.approx(0.0563, abs=5e-5)


def test_rewards_of_the_demonstrations_are_d4rls(demonstrations: dict[str, Array]) -> None:
    """All but the velocities' term, which the file does not tell, and which is below 0.024."""
    inside = demonstrations["inside"]
    after = demonstrations["observations"][inside + 1]
    told = demonstrations["rewards"][inside]
    palm, handle, hinge = after[:, PALM], after[:, HANDLE], after[:, HINGE]
    still = adroit.door_reward(palm, handle, hinge, np.zeros((len(after), 30)))
    rest = still - told
    assert rest.min() > 2e-5
    assert rest.max() < 0.024
    # What velocities show between two observations, 0.01 s apart, accounts for it.
    before = demonstrations["observations"][inside]
    speed = np.square((after[:, :29] - before[:, :29]) / 0.01).sum(1)
    assert np.corrcoef(rest, speed)[0, 1] > 0.99
    assert rest.sum() / (1e-5 * speed.sum()) == pytest.approx(1, abs=0.02)
    wrong = rest + 0.2 * np.linalg.norm(palm - handle, axis=1)  # where the distance pays
    assert wrong.max() > 0.05


def test_first_observations_are_rebuilt(demonstrations: dict[str, Array]) -> None:
    """The first joint, along which the arm slides, is not observed: it follows from the palm."""
    env: Any = make(environment("door")).unwrapped
    env.reset(seed=0)

    def observe(joints: Array, door: Array) -> Array:
        state = {"qpos": joints, "qvel": np.zeros(30), "door_body_pos": door}
        env.set_env_state(state)
        return np.asarray(env._get_obs())

    for row, door in zip(
        demonstrations["starts"], demonstrations["init_door_body_pos"], strict=True
    ):
        told = demonstrations["observations"][row]
        joints = np.concatenate([[0.0], told[:27], [told[HINGE]], [told[27]]])
        resting = observe(joints, door)[PALM]
        direction = observe(joints + np.eye(30)[0], door)[PALM] - resting
        joints[0] = direction @ (told[PALM] - resting)
        np.testing.assert_allclose(observe(joints, door), told, atol=7e-8)
