"""Data sets looked at from all sides, in the simulators of their cards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offrl.data.card import Card, Environment
from offrl.data.findings import Finding
from offrl.data.observations import flatten
from offrl.evaluation.checkup import checkup
from offrl.evaluation.environments import as_batch, make

HOPPER = "offrl.datasets.d4rl_locomotion:offrl/Hopper-D4RL-v2"
DOOR = "offrl.datasets.adroit:offrl/AdroitHandDoor-v0"
Columns = dict[str, Any]
pytestmark = pytest.mark.usefixtures("own_cache")


def play(environment: Environment, rows: int) -> Columns:
    """Random episodes of a simulator, as NeoRL-2 has them."""
    env = make(environment)
    rng = np.random.default_rng(0)
    space: Any = env.action_space
    played: list[tuple[Any, ...]] = []

    def flat(observation: Any) -> Any:
        return flatten(as_batch(observation), environment.observation_keys)[0]

    observation, _ = env.reset(seed=0)
    for _ in range(rows):
        action: Any = (
            rng.integers(space.n) if hasattr(space, "n") else rng.uniform(-1, 1, space.shape)
        )
        following, reward, terminated, truncated, _ = env.step(action)
        played.append((flat(observation), action, flat(following), reward, terminated, truncated))
        observation = following
        if terminated or truncated:
            observation, _ = env.reset()
    env.close()
    names = ("obs", "action", "next_obs", "reward", "done", "truncated")
    columns = dict(zip(names, map(np.array, zip(*played, strict=True)), strict=True))
    return {
        key: values if key == "action" and values.dtype.kind == "i" else values.astype(np.float32)
        for key, values in columns.items()
    }


def found(
    path: Path, columns: Columns, environment: Environment | None, **keys: Any
) -> dict[str, Finding]:
    np.savez(path, **columns)
    values = {"id": "mine", "version": 1, "title": "mine", "licence": "none", "citation": "none"}
    source = {"loader": "neorl2", "files": [{"name": str(path)}]}
    card = Card.model_validate({**values, "source": source, "environment": environment, **keys})
    return {finding.subject: finding for finding in checkup(card).findings}


def test_steps_of_a_hopper(tmp_path: Path) -> None:
    """They are made again from observations, which lack its x and clip its velocities."""
    hopper = Environment(id=HOPPER, max_episode_steps=50)
    columns = play(hopper, 150)
    assert columns["done"].any()
    right = found(tmp_path / "a.npz", columns, hopper)
    for subject in ("steps", "rewards of steps", "terminations of steps"):
        assert right[subject].verdict == "ok", right[subject]
    fallen = np.flatnonzero(columns["done"])
    mislabelled = columns | {"done": 0 * columns["done"], "truncated": columns["done"]}
    wrong = found(tmp_path / "b.npz", mislabelled, hopper)["terminations of steps"]
    assert wrong.verdict != "ok"
    assert "Hopper-D4RL-v2 terminates and the data do not" in wrong.text
    assert set(wrong.rows) <= set(fallen.tolist())
    scaled = found(tmp_path / "c.npz", columns | {"reward": 2 * columns["reward"]}, hopper)
    assert scaled["steps"].verdict == "ok"
    assert scaled["rewards of steps"].verdict == "fault"
    # As in Gymnasium's v4, whose bodies touch the ground otherwise.
    other = found(tmp_path / "a.npz", columns, Environment(id="Hopper-v4", max_episode_steps=50))
    assert other["steps"].verdict == "fault"
    assert other["rewards of steps"].verdict == "cannot be checked"


def test_steps_of_an_ant(tmp_path: Path) -> None:
    """Its steps are made again, not its rewards, which depend on steps before."""
    ant = Environment(id="offrl.datasets.d4rl_locomotion:offrl/Ant-D4RL-v2", max_episode_steps=50)
    right = found(tmp_path / "a.npz", play(ant, 150), ant)
    assert right["steps"].verdict == right["terminations of steps"].verdict == "ok"
    assert right["rewards of steps"].verdict == "cannot be checked"


def test_steps_of_a_cart(tmp_path: Path) -> None:
    cart = Environment(id="CartPole-v1", max_episode_steps=30)
    columns = play(cart, 300)
    right = found(tmp_path / "a.npz", columns, cart, actions={"count": 2})
    assert right["steps"].verdict == right["terminations of steps"].verdict == "ok"
    columns["next_obs"][:, 1] += 0.1
    wrong = found(tmp_path / "b.npz", columns, cart, actions={"count": 2})
    assert wrong["steps"].verdict == "fault"
    assert wrong["successors"].verdict == "fault"


def test_an_end_without_a_mark_is_no_step_of_the_cart(tmp_path: Path) -> None:
    """The simulator rules out what observations alone may be: a process that starts over."""
    cart = Environment(id="CartPole-v1", max_episode_steps=500)
    columns = play(cart, 600)
    keys: dict[str, Any] = {"actions": {"count": 2}}
    assert "jumps of steps" not in found(tmp_path / "a.npz", columns, cart, **keys)
    ends = np.flatnonzero(columns["done"])[[3, 8]]
    columns["done"][ends] = 0
    columns["next_obs"][ends] = columns["obs"][ends + 1]
    alone = found(tmp_path / "b.npz", columns, None, **keys)["boundaries"]
    assert (alone.verdict, alone.rows) == ("warning", tuple(ends))
    both = found(tmp_path / "b.npz", columns, cart, **keys)
    assert both["steps"].verdict == "ok"
    assert (both["jumps of steps"].verdict, both["jumps of steps"].rows) == ("fault", tuple(ends))
    assert "that CartPole-v1 does not take: episodes run into one" in both["jumps of steps"].text


def test_only_steps_that_were_compared_count(tmp_path: Path) -> None:
    """A cart's successors of terminations are anything, and of noise it falls nearly always."""
    cart = Environment(id="CartPole-v1", max_episode_steps=30)
    columns = play(cart, 300)
    keys: dict[str, Any] = {"actions": {"count": 2}}
    right = found(tmp_path / "a.npz", columns, cart, **keys)["steps"]
    number = int(right.text.split()[0])
    assert 200 < number <= 300 - columns["done"].sum()
    noise = np.random.default_rng(0).normal(scale=3, size=(2, 300, 4)).astype(np.float32)
    wrong = found(
        tmp_path / "b.npz", columns | {"obs": noise[0], "next_obs": noise[1]}, cart, **keys
    )
    apart, _, compared = wrong["steps"].text.split()[:3]
    assert wrong["steps"].verdict == "fault"
    assert apart == compared
    fallen = columns | {"obs": np.array([3, 1, 0.3, 1], np.float32) + 0.01 * noise[0]}
    none = found(tmp_path / "c.npz", fallen | {"done": np.ones(300, np.float32)}, cart, **keys)
    assert none["steps"].verdict == "cannot be checked"
    assert none["terminations of steps"].verdict == "ok"


def test_steps_and_rewards_of_a_maze(tmp_path: Path) -> None:
    """Its observation shows place, velocity and goal, so that the state follows."""
    maze = Environment(
        id="offrl.datasets.pointmaze_u:offrl/PointMaze-UMaze-v3",
        max_episode_steps=200,
        kwargs={"continuing_task": True, "reset_target": False},
        observation_keys=["observation", "desired_goal"],
    )
    columns = play(maze, 200)
    start, goal = columns["obs"][0, :2], columns["next_obs"][100, :2]
    columns["obs"][:, 4:] = columns["next_obs"][:, 4:] = goal
    places = columns["next_obs"][:, :2]
    columns["reward"] = np.float32(np.linalg.norm(places - goal, axis=1) <= 0.45)
    assert 0 < columns["reward"].sum() < 200
    right = found(tmp_path / "a.npz", columns, maze)
    assert right["steps"].verdict == right["rewards of steps"].verdict == "ok"
    columns["reward"] = np.float32(np.linalg.norm(places - start, axis=1) <= 0.45)
    assert found(tmp_path / "b.npz", columns, maze)["rewards of steps"].verdict == "fault"


def test_the_doors_sign_is_found(tmp_path: Path) -> None:
    """Gymnasium-Robotics pays for the distance between palm and handle, and D4RL takes it away."""
    door = Environment(id=DOOR, max_episode_steps=200)
    columns = play(door, 100)
    right = found(tmp_path / "a.npz", columns, door)
    assert right["rewards"].verdict == "ok"
    assert right["simulator"].verdict == "cannot be checked"
    after = columns["next_obs"]
    columns["reward"] += 0.2 * np.linalg.norm(after[:, 29:32] - after[:, 32:35], axis=1)
    wrong = found(tmp_path / "b.npz", columns, door)["rewards"]
    assert wrong.verdict == "fault"
    assert (
        " of 100 (row 0, 1, 2, 3, 4, ...) rewards disagree with what observations show"
        in wrong.text
    )


def test_counts_that_the_card_expects_otherwise(tmp_path: Path) -> None:
    cart = Environment(id="CartPole-v1", max_episode_steps=30)
    columns = play(cart, 60)
    keys: dict[str, Any] = {"actions": {"count": 2}}
    wrong = found(tmp_path / "a.npz", columns, cart, expected={"transitions": 61}, **keys)
    assert wrong["card"].verdict == "fault"
    assert "mine: 60 transitions, expected 61" in wrong["card"].text
    unknown = found(tmp_path / "a.npz", columns, None, **keys)
    assert unknown["simulator"].verdict == "cannot be checked"
    lacking = unknown["what the card lacks"]
    assert lacking.verdict == "cannot be checked"
    assert "does not know transitions, episodes, mean return" in lacking.text


def test_what_was_expected_is_not_what_the_card_lacks(tmp_path: Path) -> None:
    columns = play(Environment(id="CartPole-v1", max_episode_steps=30), 60)
    np.savez(tmp_path / "a.npz", **columns)
    values = {"id": "mine", "version": 1, "title": "mine", "licence": "none", "citation": "none"}
    card = Card.model_validate(
        {
            **values,
            "source": {"loader": "neorl2", "files": [{"name": str(tmp_path / "a.npz")}]},
            "actions": {"count": 2},
            "expected": {"transitions": 61, "mean_return": 1.5},
        }
    )
    made = checkup(card)
    assert made.read.unknown == ["episodes"]
    assert {"transitions", "mean_return"} <= set(made.read.compared)
    (wrong,) = made.of_verdict("fault")
    assert "60 transitions, expected 61" in wrong.text


def test_a_simulator_of_another_size_is_a_fault(tmp_path: Path) -> None:
    cart = Environment(id="CartPole-v1", max_episode_steps=30)
    columns = play(cart, 60)
    other = Environment(id="Acrobot-v1", max_episode_steps=500)
    wrong = found(tmp_path / "a.npz", columns, other, actions={"count": 2})["environment"]
    assert wrong.verdict == "fault"
    assert "holds observations of 4 numbers and 2 discrete actions, but" in wrong.text
    assert "'Acrobot-v1' of its card has observations of 6 and 3 discrete" in wrong.text
