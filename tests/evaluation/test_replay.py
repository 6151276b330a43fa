"""Data that hold states, made again step by step in a simulator."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest

from offrl.data import foreign
from offrl.data.card import Card, Environment, File, Source
from offrl.errors import InputError
from offrl.evaluation.environments import make
from offrl.evaluation.replay import Replay, check_steps, read_steps, replay

HOPPER = "offrl.datasets.d4rl_locomotion:offrl/Hopper-D4RL-v2"
ANT = "offrl.datasets.d4rl_locomotion:offrl/Ant-D4RL-v2"
ROWS = 300


def environment(name: str = HOPPER) -> Environment:
    return Environment(id=name, max_episode_steps=20)


def card(path: Path, simulator: Environment | None, loader: str = "d4rl") -> Card:
    return Card(
        id="mine",
        version=1,
        title="mine",
        source=Source(loader=loader, files=[File(name=str(path))]),
        environment=simulator,
        licence="none",
        citation="none",
    )


def play(name: str = HOPPER, after: bool = False) -> dict[str, Any]:
    """The columns of random episodes, with each row's state before or after its action."""
    env = make(environment(name))
    held: Any = env.unwrapped
    rng = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = []
    observation, _ = env.reset(seed=0)
    for _ in range(ROWS):
        action = rng.uniform(-1, 1, env.action_space.shape)
        state = held.data.qpos.copy(), held.data.qvel.copy()
        following, reward, terminated, truncated, _ = env.step(action)
        if after:
            state = held.data.qpos.copy(), held.data.qvel.copy()
        rows.append((observation, action, reward, terminated, truncated, *state))
        observation = following
        if terminated or truncated:
            observation, _ = env.reset()
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    columns = map(np.array, zip(*rows, strict=True))
    return dict(zip((*names, "infos/qpos", "infos/qvel"), columns, strict=True))


def write(path: Path, columns: dict[str, Any], precision: str = "float32") -> Path:
    stored = {
        key: values.astype(precision) if values.dtype.kind == "f" else values
        for key, values in columns.items()
    }
    if path.suffix == ".npz":
        np.savez(path, **stored)
        return path
    with h5py.File(path, "w") as file:
        for key, values in stored.items():
            file[key] = values
    return path


def replayed(path: Path, name: str = HOPPER) -> Replay:
    (found,), notes = check_steps(card(path, environment(name)), [path])
    assert notes == []
    return found


@pytest.mark.parametrize("after", [False, True])
def test_data_of_the_simulator_are_off_by_their_rounding(tmp_path: Path, after: bool) -> None:
    columns = play(after=after)
    assert columns["terminals"].any()
    assert columns["timeouts"].any()
    found = replayed(write(tmp_path / "a.hdf5", columns))
    assert found.environment == "offrl/Hopper-D4RL-v2"
    assert found.note == f"a row holds the state {'after' if after else 'before'} its action"
    ends = columns["terminals"] | columns["timeouts"]
    assert found.steps == ROWS - 1 - ends[:-1].sum()
    assert found.rounding is not None
    for errors, rounding in zip((found.positions, found.velocities), found.rounding, strict=True):
        assert 0 < errors.median < 1e-6
        assert errors.median < 2 * rounding.median
        assert errors.median <= errors.quantile_99 <= errors.maximum < 4 * rounding.maximum
    exact = replayed(write(tmp_path / "b.hdf5", columns, "float64"))
    assert exact.rounding is None
    assert exact.velocities.maximum < 1e-9


def test_data_of_other_bodies_are_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", play("Hopper-v4"))
    found, own = replayed(path), replayed(path, "Hopper-v4")
    assert found.rounding is not None
    assert found.velocities.median > 1e3 * found.rounding[1].median
    assert own.velocities.median < 1e-6


@pytest.mark.parametrize("name", [ANT, "Ant-v4", "Ant-v5"])
def test_rewards_that_depend_on_steps_before_are_not_compared(tmp_path: Path, name: str) -> None:
    """An ant's: the simulator, set to a state, does not pay what it paid when it came there."""
    found = replayed(write(tmp_path / "a.hdf5", play(name)), name)
    assert found.velocities.median < 1e-5
    assert found.endings_apart == 0
    assert found.rewards is None
    assert found.rewards_apart is None


def test_steps_of_a_file_larger_than_the_memory_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path / name, play(), "float64") for name in ("a.hdf5", "a.npz")]
    monkeypatch.setattr(foreign, "free_memory", lambda: 1000)
    assert read_steps(card(paths[0], None), paths[0], most=20) is not None
    with pytest.raises(InputError, match="of memory, but"):  # its columns are read whole
        read_steps(card(paths[1], None), paths[1], most=20)


def test_steps_are_spread_over_the_file_and_cross_no_end(tmp_path: Path) -> None:
    columns = play()
    for name in ("a.hdf5", "a.npz"):
        path = write(tmp_path / name, columns, "float64")
        steps = read_steps(card(path, None), path, most=20)
        assert steps is not None
        assert len(steps) == 20
        numbers = [
            int(np.flatnonzero((columns["infos/qpos"] == qpos).all(1))[0]) for qpos in steps.qpos
        ]
        assert numbers[0] == 0
        assert numbers[-1] > ROWS - 25
        assert np.diff(numbers).max() < 30
        assert not (columns["terminals"] | columns["timeouts"])[numbers].any()
        np.testing.assert_array_equal(steps.actions, columns["actions"][numbers])
        after = np.array(numbers) + 1
        np.testing.assert_array_equal(steps.next_qvel, columns["infos/qvel"][after])


def test_states_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    columns = play()
    inside = np.flatnonzero(~(columns["terminals"] | columns["timeouts"]))[10]
    columns["infos/qvel"][inside] = np.nan
    path = write(tmp_path / "a.hdf5", columns)
    steps = read_steps(card(path, None), path)
    assert steps is not None
    assert np.isfinite(steps.next_qvel).all()


def test_data_without_states_are_not_replayed(tmp_path: Path) -> None:
    columns = play()
    del columns["infos/qvel"]
    path = write(tmp_path / "a.hdf5", columns)
    assert check_steps(card(path, environment()), [path]) == ([], [])
    assert check_steps(card(path, None), [path]) == ([], [])
    assert check_steps(card(path, environment(), "neorl2"), [path]) == ([], [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Pendulum-v1", r"'Pendulum-v1' .* cannot be set to a state: it has no set_state"),
        ("HalfCheetah-v4", "has 9 numbers of qpos, and the file 6: they are of another model"),
        ("no_such_module:A-v0", "no_such_module"),
    ],
)
def test_states_of_another_simulator_have_a_note(tmp_path: Path, name: str, reason: str) -> None:
    path = write(tmp_path / "a.hdf5", play())
    replays, (note,) = check_steps(card(path, environment(name)), [path])
    assert replays == []
    assert note.startswith(f"{path} holds states that were not replayed: ")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(note)


@pytest.mark.parametrize(
    "odd", [np.zeros((ROWS, 0)), np.zeros(ROWS), np.zeros((7, 6)), np.zeros((ROWS, 6), np.int32)]
)
def test_states_of_another_shape_are_refused(tmp_path: Path, odd: Any) -> None:
    path = write(tmp_path / "a.hdf5", play() | {"infos/qpos": odd})
    with pytest.raises(InputError, match=r"a\.hdf5: infos/qpos: .* expected floats of shape"):
        read_steps(card(path, None), path)


class Broken(gymnasium.Env[Any, Any]):
    """A simulator that can be set to a state, but not stepped."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self) -> None:
        self.data = SimpleNamespace(qpos=np.zeros(6), qvel=np.zeros(6))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def set_state(self, qpos: Any, qvel: Any) -> None:
        self.data.qpos, self.data.qvel = qpos, qvel

    def step(self, action: Any) -> Any:
        raise RuntimeError(f"no {action}")


def test_a_simulator_that_fails_is_named(tmp_path: Path) -> None:
    if "Broken-v0" not in gymnasium.registry:
        gymnasium.register("Broken-v0", entry_point=Broken)  # type: ignore[arg-type]
    path = write(tmp_path / "a.hdf5", play())
    steps = read_steps(card(path, None), path)
    assert steps is not None
    message = "'Broken-v0' of the data set's card raised RuntimeError when set to states"
    with pytest.raises(InputError, match=message):
        replay(environment("Broken-v0"), steps)
