"""Minari's data sets scored in the environments that their metadata name, from file to score."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium.wrappers import (
    ClipReward,
    FlattenObservation,
    FrameStackObservation,
    RescaleAction,
)
from minari.data_collector import EpisodeBuffer

import offrl
from offrl.data.dataset import load_dataset
from offrl.errors import InputError
from offrl.evaluation.environments import make
from offrl.running.evaluate import evaluate
from offrl.running.policies import load_policy
from offrl.trust import Untrusted

Env = gymnasium.Env[Any, Any]
STEPS = 12
ROWS = "evaluations.jsonl"


def wrapped_pendulum() -> Env:
    """A pendulum in wrappers, as one who collects has it."""
    env: Any = gymnasium.make("Pendulum-v1", max_episode_steps=STEPS)
    bounds: Any = (-1.0, 1.0)  # numbers that a specification can hold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bounds in float64
        env = FlattenObservation(FrameStackObservation(RescaleAction(env, *bounds), 2))
    return ClipReward(env, min_reward=-8.0, max_reward=0.0)


def episode(env: Env, seed: int) -> EpisodeBuffer:
    """An episode of random actions, as Minari's DataCollector, which needs jax, puts it down."""
    seen, taken = [env.reset(seed=seed)[0]], []
    rewards, ends = [], [(False, False)]
    while not any(ends[-1]):
        taken.append(env.action_space.sample())
        observation, reward, terminated, truncated, _ = env.step(taken[-1])
        seen.append(observation)
        rewards.append(float(reward))
        ends.append((terminated, truncated))
    observations: Any = (
        np.stack(seen)
        if not isinstance(seen[0], dict)
        else {key: np.stack([observation[key] for observation in seen]) for key in seen[0]}
    )
    terminations, truncations = map(list, zip(*ends[1:], strict=True))
    return EpisodeBuffer(
        observations=observations,
        actions=np.stack(taken),
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
    )


def point_maze() -> Env:
    import gymnasium_robotics  # noqa: F401

    return gymnasium.make("PointMaze_UMaze-v3", continuing_task=False, max_episode_steps=STEPS)


def run_python(code: str) -> list[str]:
    """The lines that a process of its own prints."""
    words = [sys.executable, "-c", f"import sys\n{code}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def rename_class(folder: Path, entry_point: str) -> None:
    """Has the metadata of a folder name another class."""
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    for key in ("env_spec", "eval_env_spec"):
        metadata[key] = json.dumps(json.loads(metadata[key]) | {"entry_point": entry_point})
    path.write_text(json.dumps(metadata))


@pytest.fixture
def collect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes random episodes with Minari, and returns the folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def collected(env: Env, **about: Any) -> Path:
        env.action_space.seed(0)
        episodes = [episode(env, seed) for seed in range(6)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari's advice on metadata
            minari.create_dataset_from_buffers(
                "tests/collected-v0", episodes, env=env, algorithm_name="random", **about
            )
        env.close()
        return tmp_path / "minari" / "tests" / "collected-v0"

    return collected


@pytest.mark.usefixtures("pendulum")  # runs in this process
def test_a_set_is_trained_on_and_scored_in_its_wrapped_environment(
    collect: Callable[..., Path], tmp_path: Path
) -> None:
    collect(wrapped_pendulum(), ref_min_score=-90.0, ref_max_score=-10.0)
    data = load_dataset("minari:tests/collected-v0")
    assert data.observations.shape == (6 * STEPS, 6)
    environment = data.card.environment
    assert environment is not None
    assert [wrapper.entry_point.rpartition(":")[2] for wrapper in environment.wrappers] == [
        "RescaleAction",
        "FrameStackObservation",
        "FlattenObservation",
        "ClipReward",
    ]
    # The recorded episodes are those of the environment that is made of the metadata.
    env = make(environment)
    for episode in range(2):
        observation, _ = env.reset(seed=episode)
        for row in range(episode * STEPS, (episode + 1) * STEPS):
            np.testing.assert_allclose(observation, data.observations[row], rtol=1e-6)
            observation, reward, _, truncated, _ = env.step(data.actions[row])
            assert reward == pytest.approx(data.rewards[row], rel=1e-6)
            assert truncated == data.truncations[row]
    offrl.train("bc", "minari:tests/collected-v0", tmp_path / "runs", steps=4, episodes=3)
    [record] = (tmp_path / "runs").rglob("run.json")
    policy = load_policy(record.parent)
    outcome = evaluate(policy, episodes=3)
    assert outcome.lengths.tolist() == [STEPS] * 3
    assert (outcome.returns >= -8.0 * STEPS).all()  # clipped
    [row] = [json.loads(line) for line in (record.parent / ROWS).read_text().splitlines()]
    assert row["score"] == pytest.approx(100 * (outcome.returns.mean() + 90) / 80)


def test_environments_of_known_packages_are_found_by_their_class(
    collect: Callable[..., Path],
) -> None:
    folder = collect(point_maze(), ref_min_score=0.0, ref_max_score=1.0, eval_env=point_maze())
    data = load_dataset(folder)
    environment = data.card.environment
    assert environment is not None
    assert environment.entry_point == "gymnasium_robotics.envs.maze.point_maze:PointMazeEnv"
    # In a new process nothing has imported the package yet.
    found = run_python(
        "from offrl.data.dataset import load_dataset\n"
        "from offrl.evaluation.environments import make\n"
        f"environment = load_dataset({str(folder)!r}).card.environment\n"
        "print('gymnasium_robotics' in sys.modules)\n"
        "print(make(environment).unwrapped)\n"
    )
    assert found[0] == "False"
    assert "PointMazeEnv" in found[1]
    env = make(environment)
    theirs = minari.MinariDataset(folder / "data").recover_environment(eval_env=True)
    ours, other = env.reset(seed=1)[0], theirs.reset(seed=1)[0]
    for key, value in ours.items():
        np.testing.assert_array_equal(value, other[key])
    env.close()
    theirs.close()
    # A package that offrl's cards do not name has to be trusted, and others are not looked for.
    for entry_point, error, message in (
        ("minigrid.envs:Mine", Untrusted, "would import the module minigrid"),
        ("antigravity:Mine", InputError, "was made by 'antigravity:Mine', but is"),
    ):
        rename_class(folder, entry_point)
        environment = load_dataset(folder).card.environment
        assert environment is not None
        with pytest.raises(error, match=message):
            make(environment)
    assert "antigravity" not in sys.modules


def test_a_set_without_references_says_so(collect: Callable[..., Path], tmp_path: Path) -> None:
    folder = collect(wrapped_pendulum())
    with pytest.raises(InputError, match=r"no \[reference\].* min = 0 and max = 100 make a score"):
        offrl.train("bc", folder, tmp_path / "runs", steps=4)


class Doubled(gymnasium.RewardWrapper[Any, Any]):
    """A wrapper of one's own."""

    def reward(self, reward: Any) -> float:
        return 2 * float(reward)


class Recorded(Doubled, gymnasium.utils.RecordConstructorArgs):
    """One whose settings Gymnasium can save."""

    def __init__(self, env: Env) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)


def test_wrappers_of_ones_own_are_refused_by_name(collect: Callable[..., Path]) -> None:
    environment = load_dataset(collect(Recorded(wrapped_pendulum()))).card.environment
    assert environment is not None
    with pytest.raises(InputError, match=f"was wrapped in {__name__}:Recorded; offrl wraps"):
        make(environment)


def test_wrappers_without_settings_are_refused_by_name(collect: Callable[..., Path]) -> None:
    folder = collect(Doubled(wrapped_pendulum()))
    with pytest.raises(InputError, match="was wrapped in Doubled, whose settings"):
        load_dataset(folder)
