"""Discrete actions, and boxes other than [-a, a], from a file to a policy in its simulator."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offrl.data.card import Environment
from offrl.errors import InputError
from offrl.evaluation.environments import Actions, make, spaces
from offrl.evaluation.rollouts import Evaluator
from offrl.learning import checkpoint
from offrl.learning.policy import StatelessPolicy
from offrl.learning.spec import Spec
from offrl.results.store import RunFolder
from offrl.running.evaluate import evaluate
from offrl.running.jobs import Job, expand
from offrl.running.policies import load_policy
from offrl.running.protocol import Protocol
from offrl.running.runner import plan
from offrl.running.training import train_run

CARTPOLE = 'id = "CartPole-v1"\nmax_episode_steps = 60'
PENDULUM = """id = "Pendulum-v1"
max_episode_steps = 20
[[environment.wrappers]]
entry_point = "gymnasium.wrappers:RescaleAction"
kwargs = { min_action = 0.0, max_action = 3.0 }"""


def card(folder: Path, environment: str, size: int, actions: Any, count: int = 0) -> Path:
    """A card of 200 rows of random states with these actions, in episodes of 20."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(201, size)).astype(np.float32)
    np.savez(
        folder / "data.npz",
        obs=states[:-1],
        action=actions,
        next_obs=states[1:],
        reward=np.ones(200, np.float32),
        done=np.zeros(200, np.float32),
        truncated=np.arange(200) % 20 == 19,
    )
    path = folder / "card.toml"
    path.write_text(
        'id = "mine"\nversion = 1\ntitle = "mine"\nlicence = "none"\ncitation = "none"\n'
        '[source]\nloader = "neorl2"\nfiles = [{ name = "data.npz" }]\n'
        + (f"[actions]\ncount = {count}\n" if count else "")
        + f"[environment]\n{environment}\n"
        + '[reference]\nmin = 0\nmax = 60\nsource = "counted"\n'
    )
    return path


def protocol(path: Path, algorithm: str, **config: Any) -> Protocol:
    return Protocol.model_validate(
        {
            "id": "tiny",
            "version": 1,
            "title": "A protocol for tests",
            "source": "offrl",
            "datasets": [str(path)],
            "seeds": [3],
            "steps": 300,
            "evaluation": {"every": 150, "episodes": 2},
            "algorithms": {algorithm: {"config": {"hidden": [16], "batch_size": 32, **config}}},
        }
    )


def trained(path: Path, algorithm: str, **config: Any) -> tuple[Job, RunFolder]:
    (job,) = expand(protocol(path, algorithm, **config))
    train_run(job, path.parent / "runs")
    return job, RunFolder(job.folder(path.parent / "runs"), path.parent / "runs")


def leaning(folder: Path) -> Path:
    """Actions by the sign of the third number of the state, the pole's angle."""
    path = card(folder, CARTPOLE, 4, np.zeros(200, int), 2)
    with np.load(folder / "data.npz") as archive:
        columns = dict(archive)
    columns["action"] = (columns["obs"][:, 2] > 0).astype(np.int64)
    np.savez(folder / "data.npz", **columns)
    return path


@pytest.mark.parametrize("algorithm", ["bc", "double_dqn"])
def test_a_policy_of_discrete_actions_is_trained_played_and_loaded(
    algorithm: str, tmp_path: Path
) -> None:
    rates = {"critic_lr": 1e-2} if algorithm == "double_dqn" else {"actor_lr": 1e-2}
    _, folder = trained(leaning(tmp_path), algorithm, **rates)
    rows = folder.rows()
    assert [row.step for row in rows] == [150, 300]
    policy = load_policy(folder.path)
    assert policy.spec.action_count == 2
    assert evaluate(policy, episodes=2).returns.tolist() == rows[-1].returns
    states = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    acted = policy.act(states)
    assert acted.dtype == np.int64
    assert acted.shape == (50,)
    assert set(acted.tolist()) <= {0, 1}
    one = policy.act(states[0])
    assert make(policy.environment()).action_space.contains(one[()])
    if algorithm == "bc":
        assert np.mean(acted == (states[:, 2] > 0)) > 0.9


def test_a_box_of_any_bounds_is_rescaled_for_data_and_simulator_alike(tmp_path: Path) -> None:
    """Data that always act by 2.4 in [0, 3] teach 0.6 in [-1, 1], which is 2.4 in the simulator."""
    path = card(tmp_path, PENDULUM, 3, np.full((200, 1), 2.4, np.float32))
    planned = plan(protocol(path, "bc"))
    assert planned.dataset(planned.jobs[0]).actions.max() == np.float32(2.4)  # stay as they are
    _, folder = trained(path, "bc", actor_lr=1e-2)
    policy = load_policy(folder.path)
    assert (policy.spec.max_action, policy.spec.action_low) == (1.0, (0.0,))
    assert policy.spec.action_high == (3.0,)
    states = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    np.testing.assert_allclose(policy.act(states), 2.4, atol=0.05)
    assert evaluate(policy, episodes=2).returns.tolist() == folder.rows()[-1].returns
    returns = []
    for start in Evaluator(policy.environment(), [3], 2, 0).starts[0]:  # by the plainest loop
        env = make(policy.environment())
        state, _ = env.reset(seed=start)
        total, over = 0.0, False
        while not over:
            state, reward, terminated, truncated, _ = env.step(policy.act(state))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    np.testing.assert_allclose(folder.rows()[-1].returns, returns, rtol=1e-5)


def test_a_spec_maps_bounds_to_bounds_and_back() -> None:
    zeros = np.zeros(1, np.float32)
    spec = Spec(1, 2, 1.0, 10, zeros, zeros, None, (0.0, -1.0), (4.0, 0.0))
    actions = np.array([[0, -1], [4, 0], [1, -0.75], [5, 1]], np.float32)
    learned = spec.to_learner(actions)
    assert learned.tolist() == [[-1, -1], [1, 1], [-0.5, -0.5], [1.5, 3]]
    assert spec.to_simulator(torch.from_numpy(learned)).tolist() == actions.tolist()
    again = Spec.from_state(spec.state())
    assert (again.action_low, again.action_high) == ((0.0, -1.0), (4.0, 0.0))
    plain = Spec(1, 2, 1.0, 10, zeros, zeros).state()
    assert not {"action_count", "action_low", "action_high"} & plain.keys()  # as before


def test_a_checkpoint_keeps_the_number_and_the_bounds_of_actions(tmp_path: Path) -> None:
    zeros = np.zeros(1, np.float32)
    for spec in (
        Spec(1, 0, 0.0, 10, zeros, zeros, action_count=4),
        Spec(1, 1, 1.0, 10, zeros, zeros, None, (0.0,), (0.1,)),
    ):
        checkpoint.save(tmp_path / "a", {"spec": spec.state()})
        again = Spec.from_state(checkpoint.load(tmp_path / "a")["spec"])
        assert (again.action_count, again.action_high) == (spec.action_count, spec.action_high)


def test_an_algorithm_refuses_actions_that_it_does_not_take(tmp_path: Path) -> None:
    discrete, box = tmp_path / "discrete", tmp_path / "box"
    discrete.mkdir()
    box.mkdir()
    path = leaning(discrete)
    with pytest.raises(InputError) as caught:
        plan(protocol(path, "iql"))
    assert str(caught.value) == (
        "data set mine has discrete actions, but algorithm iql takes continuous ones only; those "
        "that take discrete ones are bc, double_dqn, percent_bc"
    )
    continuous = card(box, PENDULUM, 3, np.ones((200, 1), np.float32))
    message = r"mine has continuous actions, but algorithm double_dqn takes discrete ones only; "
    with pytest.raises(InputError, match=message + r"those .* are awac, bc, cql, "):
        plan(protocol(continuous, "double_dqn"))


@pytest.mark.parametrize(("environment", "count"), [(PENDULUM, 2), (CARTPOLE, 3), (CARTPOLE, 0)])
def test_data_and_simulator_have_the_same_actions(
    environment: str, count: int, tmp_path: Path
) -> None:
    size = 3 if environment == PENDULUM else 4
    actions: Any = np.arange(200) % count if count else np.ones((200, 1), np.float32)
    path = card(tmp_path, environment, size, actions, count)
    held = f"{count} discrete actions" if count else "actions of 1 numbers"
    with pytest.raises(InputError, match=rf"numbers and {held}, but environment .*; correct the c"):
        plan(protocol(path, "bc"))


@pytest.mark.parametrize(
    ("packages", "name", "size", "count"),
    [
        ("gymnasium", "MountainCar-v0", 2, 3),
        ("gymnasium", "Acrobot-v1", 6, 3),
        ("Box2D pygame", "LunarLander-v3", 8, 4),
        ("minatar", "MinAtar/Breakout-v1", 400, 3),
    ],
)
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")
def test_simulators_of_discrete_actions_can_be_played(
    packages: str, name: str, size: int, count: int
) -> None:
    if lacking := [p for p in packages.split() if importlib.util.find_spec(p) is None]:
        pytest.skip(f"{', '.join(lacking)}: not installed")
    environment = Environment(id=name, max_episode_steps=30)
    assert spaces(environment) == (size, Actions(count=count))
    policy = StatelessPolicy(lambda states: (states.abs().sum(-1) * 100).long() % count)
    played = Evaluator(environment, [0, 1], 3, 0)(policy)
    assert (played.lengths >= 1).all()
    assert (played.lengths <= 30).all()
