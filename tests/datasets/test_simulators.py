import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from offrl.datasets import neorl2_simulators as simulators

DMSD = "offrl.datasets.neorl2_simulators:offrl/DMSD-v0"
CHEETAH = "offrl.datasets.neorl2_simulators:offrl/SafetyHalfCheetah-v0"
# Of 100 and 20 collected episodes the authors kept those without a violation: their seeds.
CHEETAH_SEEDS = {
    "100000-train": [1, 19, 25, 29, 31, 43, 49, 52, 58, 64, 70, 73, 76, 79, 82, 91, 92, 97],
    "20000-val": [3, 14],
}


def episodes(path: Path, steps: int) -> dict[str, NDArray[Any]]:
    """A NeoRL-2 file's columns with axes (episode, step, ...)."""
    with np.load(path) as columns:
        return {
            key: column.reshape(-1, steps, *column.shape[1:]) for key, column in columns.items()
        }


def small_actions(rows: int, steps: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    return rng.uniform(-1.2, 1.2, (steps, rows, 2)).astype(np.float32)


# --- both ---


# The check warns of unbounded observations; these states have no bounds.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity")
@pytest.mark.parametrize(("name", "steps"), [(DMSD, 100), (CHEETAH, 1000)])
def test_passes_gymnasiums_checks_and_truncates_at_its_limit(name: str, steps: int) -> None:
    env = gymnasium.make(name)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape or (), np.float32)
    ends = [env.step(action)[2:4] for _ in range(steps)]
    assert ends == [(False, False)] * (steps - 1) + [(False, True)]
    env.close()


def test_a_second_import_registers_nothing_again() -> None:
    before = gymnasium.registry["offrl/DMSD-v0"]
    importlib.reload(simulators)  # warnings are errors, and registering twice warns
    assert gymnasium.registry["offrl/DMSD-v0"] is before


# --- DMSD ---


def test_dmsd_reward_on_target_is_twice_log_100() -> None:
    at_target = np.array([0.5, -1.0, 3.0, 4.0, 0.5, -1.0])
    assert simulators.dmsd_reward(at_target) == pytest.approx(2 * math.log(100))
    one_off = np.array([[1.49, -1.0, 0.0, 0.0, 0.5, -1.0], [0.5, 0.09, 0.0, 0.0, 0.5, -0.9]])
    assert simulators.dmsd_reward(one_off) == pytest.approx([math.log(100), math.log(100)])


def test_dmsd_step_is_one_euler_step_of_the_equations() -> None:
    env = gymnasium.make(DMSD)
    (p1, p2, v1, v2, *_), _ = env.reset(seed=3)
    observation, *_ = env.step(np.array([0.25, -7.0], np.float32))  # the second counts as -1
    expected = [
        p1 + 0.2 * v1,
        p2 + 0.2 * v2,
        v1 + 0.2 / 20 * (-4 * p1 + 2 * p2 - 8 * v1 + 4 * v2 + 7.5),
        v2 + 0.2 / 20 * (2 * p1 - 4 * p2 + 4 * v1 - 8 * v2 - 30),
    ]
    np.testing.assert_allclose(observation[:4], expected, atol=1e-6)


def test_dmsd_settles_where_force_and_springs_balance() -> None:
    # -4 p1 + 2 p2 + f1 = 0 and 2 p1 - 4 p2 + f2 = 0 with f = (6, 0): p = (2, 1).
    env = gymnasium.make(DMSD, max_episode_steps=2000)
    env.reset(seed=0)
    for _ in range(1000):
        observation, *_ = env.step(np.array([0.2, 0.0], np.float32))
    np.testing.assert_allclose(observation[:4], [2, 1, 0, 0], atol=1e-5)


def test_dmsd_targets_hold_throughout_or_switch_once_at_step_50() -> None:
    targets = np.stack(
        [simulators.dmsd_start(np.random.RandomState(seed))[0] for seed in range(400)]
    )
    changes = np.diff(targets, axis=1) != 0  # (400, 99, 2)
    assert not np.delete(changes, 49, axis=1).any()
    assert changes[:, 49].mean() == pytest.approx(0.5, abs=3 * math.sqrt(0.25 / 800))
    assert np.abs(targets).max() <= 1.5


def test_dmsd_pays_a_switch_against_the_new_target() -> None:
    env = gymnasium.make(DMSD)
    for seed in range(20):
        targets = simulators.dmsd_start(np.random.RandomState(seed))[0]
        observation, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation[4:], targets[0].astype(np.float32))
        for step in range(1, 101):
            observation, reward, *_ = env.step(np.zeros(2, np.float32))
            np.testing.assert_array_equal(
                observation[4:], targets[min(step, 99)].astype(np.float32)
            )
            assert reward == simulators.dmsd_reward(observation)


@pytest.mark.parametrize("split", ["100000-train", "20000-val"])
def test_dmsd_replays_every_published_episode_from_its_seed(shared: Path, split: str) -> None:
    data = episodes(shared / f"data/neorl2/DMSD-high-{split}.npz", 100)
    rows = len(data["obs"])
    env: Any = gymnasium.make_vec(DMSD, num_envs=rows)
    observations, _ = env.reset(seed=list(range(rows)))
    np.testing.assert_array_equal(observations, data["obs"][:, 0])
    for step in range(100):
        observations, rewards, terminations, truncations, _ = env.step(data["action"][:, step])
        np.testing.assert_allclose(observations, data["next_obs"][:, step], atol=1e-6)
        # d(reward)/d(position) is up to 100 beside a target: the 2e-7 that the positions lose to
        # the file's rounded actions may cost that much more here. Without that loss: below.
        np.testing.assert_allclose(rewards, data["reward"][:, step], atol=5e-5)
        np.testing.assert_array_equal(terminations, data["done"][:, step] == 1)
        np.testing.assert_array_equal(truncations, data["truncated"][:, step] == 1)
    np.testing.assert_allclose(
        simulators.dmsd_reward(data["next_obs"]), data["reward"], atol=1e-6, rtol=0
    )


# --- DMSD, many rows ---


def make_sync(rows: int) -> Any:
    mode = {"autoreset_mode": AutoresetMode.DISABLED}
    return gymnasium.make_vec(
        DMSD, num_envs=rows, vectorization_mode="sync", vector_kwargs=mode, max_episode_steps=4
    )


def make_native(rows: int) -> Any:
    return gymnasium.make_vec(DMSD, num_envs=rows, max_episode_steps=4)


def test_dmsd_rows_equal_single_environments_through_masked_resets() -> None:
    native, sync = make_native(3), make_sync(3)
    assert isinstance(native, simulators.DMSDVector)
    assert isinstance(sync, SyncVectorEnv)
    assert native.metadata["autoreset_mode"] is sync.metadata["autoreset_mode"]
    assert native.observation_space == sync.observation_space
    assert native.action_space == sync.action_space
    actions = iter(small_actions(3, 8))

    def same(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
        assert len(left) == len(right)
        for one, other in zip(left[:-1], right[:-1], strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype

    def reset(seed: list[int | None] | int | None, mask: list[bool] | None = None) -> None:
        def options() -> dict[str, Any] | None:  # a dict each: SyncVectorEnv empties its own
            return None if mask is None else {"reset_mask": np.array(mask)}

        same(
            native.reset(seed=seed, options=options()),
            sync.reset(seed=seed, options=options()),
        )

    def step() -> None:
        action = next(actions)
        same(native.step(action), sync.step(action))

    reset([7, 1, 4])
    step()
    reset([None, 11, None], [False, True, False])  # row 1 alone, before its end
    step()
    step()
    step()  # rows 0 and 2 are truncated here
    reset([9, 9, None], [True, False, True])  # row 1 runs on; row 2's generator carries on
    step()
    reset(None)
    step()
    reset(20)
    step()


def test_dmsd_rows_need_a_reset_before_the_first_step_and_after_the_last() -> None:
    env = make_native(2)
    action = np.zeros((2, 2), np.float32)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)
    env.reset(seed=0)
    for _ in range(4):
        *_, truncations, _ = env.step(action)
    assert truncations.all()
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"rows \[1\]"):
        env.step(action)


@pytest.mark.parametrize("make", [make_native, make_sync])
@pytest.mark.parametrize(
    ("seed", "mask", "error"),
    [
        ([1, 2, 3], None, ValueError),
        (None, [True, False], TypeError),
        (None, np.array([1, 0]), TypeError),
        (None, np.array([True]), ValueError),
        (None, np.array([False, False]), ValueError),
    ],
)
def test_dmsd_refuses_what_gymnasiums_vector_refuses(
    make: Callable[[int], Any],
    seed: list[int | None] | None,
    mask: object,
    error: type[Exception],
) -> None:
    options = None if mask is None else {"reset_mask": mask}
    with pytest.raises(error):
        make(2).reset(seed=seed, options=options)


def test_dmsd_refuses_actions_that_would_broadcast() -> None:
    env = make_native(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected shape \(2, 2\), found \(2, 1\)"):
        env.step(np.zeros((2, 1), np.float32))


# --- SafetyHalfCheetah ---


def test_cheetah_reward_is_speed_less_control_until_the_limit() -> None:
    action = np.array([2.0, 0, 0, 0, 0, -1.0])  # beyond the bound: it costs all the same
    speeds = np.array([-1.0, 3.2096, 3.2097])
    rewards = simulators.cheetah_reward(speeds, np.stack([action] * 3))
    assert rewards == pytest.approx([-1.5, 2.7096, -100])


def test_cheetah_pays_raw_actions_but_moves_with_clamped_ones() -> None:
    outcomes = []
    for scale in (1, 3):
        env = gymnasium.make(CHEETAH)
        env.reset(seed=2)
        outcomes.append(env.step(np.full(6, -scale, np.float32)))
        env.close()
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    assert float(outcomes[0][1]) - float(outcomes[1][1]) == pytest.approx(0.1 * 6 * (9 - 1))


def test_cheetah_observes_its_full_state_and_pays_its_displacement() -> None:
    env = gymnasium.make(CHEETAH)
    observation, _ = env.reset(seed=12)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(12)))
    expected = np.concatenate([rng.uniform(-0.1, 0.1, 9), 0.1 * rng.standard_normal(9)])
    np.testing.assert_allclose(observation, expected, atol=1e-15)
    after, reward, *_ = env.step(np.zeros(6, np.float32))
    assert observation.dtype == after.dtype == np.float64
    assert reward == pytest.approx((after[0] - observation[0]) / 0.05)
    env.close()


@pytest.mark.parametrize("split", list(CHEETAH_SEEDS))
def test_cheetah_replays_the_published_steps(shared: Path, split: str) -> None:
    data = episodes(shared / f"data/neorl2/SafetyHalfCheetah-high-{split}.npz", 1000)
    env = gymnasium.make(CHEETAH)
    simulator: Any = env.unwrapped
    for episode, seed in enumerate(CHEETAH_SEEDS[split]):
        # From the seed. The contacts are chaotic: later, rounding of another MuJoCo shows.
        observation, _ = env.reset(seed=seed)
        np.testing.assert_allclose(observation, data["obs"][episode, 0], atol=1e-7)
        for step in range(20):
            observation, *_ = env.step(data["action"][episode, step])
            np.testing.assert_allclose(observation, data["next_obs"][episode, step], atol=1e-5)
    flat = {key: values.reshape(-1, *values.shape[2:]) for key, values in data.items()}

    def one_step(state: Any, action: Any) -> tuple[Any, float]:
        simulator.set_state(state[:9], state[9:])
        reached, reward, *_ = simulator.step(action)
        return reached, float(reward)

    states = flat["obs"].astype(np.float64)
    steps = [one_step(s, a) for s, a in zip(states, flat["action"], strict=True)]
    errors = np.abs(np.array([reached for reached, _ in steps]) - flat["next_obs"])
    assert np.abs([reward for _, reward in steps] - flat["reward"]).max() < 2e-4
    assert errors[:, :9].max() < 1e-4
    assert np.median(errors, axis=0).max() < 2e-6
    beyond = np.flatnonzero(errors.max(1) > 1e-3)
    assert len(beyond) <= 1
    # The file holds float32. Where a foot touches, states that round to the same row part by more
    # than 1e-3 in one step; the published next state has to lie among theirs.
    rng = np.random.default_rng(0)
    for row in beyond:
        half = np.spacing(np.abs(flat["obs"][row])).astype(np.float64) / 2
        among = [
            one_step(states[row] + rng.uniform(-half, half), flat["action"][row])[0]
            for _ in range(200)
        ]
        assert (np.min(among, 0) - 1e-6 <= flat["next_obs"][row]).all()
        assert (np.max(among, 0) + 1e-6 >= flat["next_obs"][row]).all()
    env.close()


@pytest.mark.parametrize("split", list(CHEETAH_SEEDS))
def test_cheetah_reward_is_the_published_one(shared: Path, split: str) -> None:
    data = episodes(shared / f"data/neorl2/SafetyHalfCheetah-high-{split}.npz", 1000)
    x, next_x = (data[key][..., 0].astype(np.float64) for key in ("obs", "next_obs"))
    rewards = simulators.cheetah_reward((next_x - x) / 0.05, data["action"])
    # At x = 100 a float32 resolves 7.6e-6, which is 1.5e-4 of speed.
    np.testing.assert_allclose(rewards, data["reward"], atol=2e-4, rtol=0)
