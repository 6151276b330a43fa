"""Whole episodes, many at a time: nothing may depend on how many."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from offrl.data.card import Environment
from offrl.data.observations import flatten
from offrl.errors import InputError
from offrl.evaluation import rollouts
from offrl.evaluation.environments import Actions, known_actions, make, spaces
from offrl.evaluation.rollouts import Diverged, Episodes, Evaluator, Part
from offrl.learning.policy import StatelessPolicy
from offrl.learning.streams import spawn_seed

PENDULUM = Environment(id="Pendulum-v1", max_episode_steps=20)
MAZE = Environment(
    id="gymnasium_robotics:PointMaze_UMaze-v3",
    max_episode_steps=15,
    kwargs={"continuing_task": False},
    observation_keys=["observation", "desired_goal"],
)
DMSD = Environment(id="offrl.datasets.neorl2_simulators:offrl/DMSD-v0", max_episode_steps=100)
CARTPOLE = Environment(id="CartPole-v1", max_episode_steps=60)
BALANCE = Environment(id="InvertedPendulum-v5", max_episode_steps=40)  # ends when it falls


def linear(size: int, out: int) -> StatelessPolicy:
    """A fixed policy: tanh of a random projection, or the larger of two where `out` is 0."""
    weight = torch.randn(size, out or 2, generator=torch.Generator().manual_seed(0))
    if out == 0:
        return StatelessPolicy(lambda observations: (observations @ weight).argmax(-1))
    return StatelessPolicy(lambda observations: torch.tanh(observations @ weight))


def play(environment: Environment, policy: StatelessPolicy, seed: int) -> tuple[float, int]:
    """The return and length of one episode, by the plainest loop."""
    env = make(environment)
    observation, _ = env.reset(seed=seed)
    total, steps, over = 0.0, 0, False
    while not over:
        batch: Any = (
            {k: v[None] for k, v in observation.items()}
            if isinstance(observation, dict)
            else observation[None]
        )
        states = torch.from_numpy(flatten(batch, environment.observation_keys))
        action = policy.act(states[None])[0, 0].numpy()
        observation, reward, terminated, truncated, _ = env.step(action)
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    env.close()
    return total, steps


@pytest.mark.parametrize(
    ("environment", "size", "out"),
    [(PENDULUM, 3, 1), (BALANCE, 4, 1), (MAZE, 6, 2), (DMSD, 6, 2), (CARTPOLE, 4, 0)],
    ids=["pendulum", "balance", "maze", "dmsd", "cartpole"],
)
def test_each_episode_is_the_one_that_its_seed_gives(
    environment: Environment, size: int, out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five episodes on two environments, so that episodes of unequal length overtake each other."""
    monkeypatch.setattr(rollouts, "WIDTH", 2)
    policy = linear(size, out)
    evaluator = Evaluator(environment, [7, 8], episodes=5, seed=3)
    found = evaluator(policy)
    again = evaluator(policy)
    evaluator.close()
    assert found.returns.shape == found.lengths.shape == (2, 5)
    np.testing.assert_array_equal(found.returns, again.returns)
    for r, run in enumerate([7, 8]):
        for i in range(5):
            start = spawn_seed(run, "evaluation episode", 3, i)
            total, steps = play(environment, policy, start)
            assert found.lengths[r, i] == steps
            assert found.returns[r, i] == pytest.approx(total, rel=1e-5)


class Line(gymnasium.Env[Any, Any]):
    """Each step pays where the episode started, which decides when it ends too."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, ends: bool = True):
        self.ends = ends

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed, options=options)
        self.start, self.steps = self.np_random.random(), 0
        return np.zeros(1, np.float32), {}

    def step(self, _: Any) -> Any:
        self.steps += 1
        ended = self.ends and self.steps >= 1 + 4 * self.start
        return np.zeros(1, np.float32), self.start, ended, False, {}


class Deaf(SyncVectorEnv):
    """As a simulator outside offrl may be: whoever resets one episode starts all anew."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, **_: Any):
        super().__init__([Line] * num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        assert options is None or "reset_mask" in options
        return super().reset(seed=seed)


class Endless(SyncVectorEnv):
    """Says that it leaves resets to the caller, and never truncates an episode."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, num_envs: int, **_: Any):
        forever = [lambda: Line(ends=False)] * num_envs
        super().__init__(forever, autoreset_mode=AutoresetMode.DISABLED)


def deaf(**kwargs: Any) -> Deaf:
    return Deaf(**kwargs)


for name, many in {"Function": deaf, "Class": Deaf, "Endless": Endless}.items():
    gymnasium.register(f"offrl-test/{name}-v0", Line, vector_entry_point=many)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Function", "Class"])
def test_a_simulator_that_does_not_leave_resets_to_the_caller_is_played_one_by_one(
    name: str,
) -> None:
    environment = Environment(id=f"offrl-test/{name}-v0", max_episode_steps=9)
    policy = StatelessPolicy(lambda observations: observations)
    found = Evaluator(environment, [4, 5], episodes=3, seed=0)(policy)
    for r, run in enumerate([4, 5]):
        for i in range(3):
            total, steps = play(environment, policy, spawn_seed(run, "evaluation episode", 0, i))
            assert found.lengths[r, i] == steps
            assert found.returns[r, i] == pytest.approx(total)


def test_an_episode_beyond_the_limit_is_an_error_with_the_environment() -> None:
    environment = Environment(id="offrl-test/Endless-v0", max_episode_steps=5)
    evaluator = Evaluator(environment, [4], episodes=2, seed=0)
    with pytest.raises(InputError, match=r"'offrl-test/Endless-v0' .* step 6 .* of 5; correct it"):
        evaluator(StatelessPolicy(lambda observations: observations))


def test_the_width_and_the_other_replicas_change_no_return(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = linear(3, 1)
    wide = Evaluator(PENDULUM, [1, 2], episodes=4, seed=0)(policy)
    monkeypatch.setattr(rollouts, "WIDTH", 3)
    narrow = Evaluator(PENDULUM, [2], episodes=4, seed=0)(policy)
    np.testing.assert_allclose(wide.returns[1], narrow.returns[0], rtol=1e-6)
    assert not np.allclose(wide.returns[0], wide.returns[1])


@pytest.mark.parametrize("environment", [BALANCE, DMSD], ids=["balance", "dmsd"])
@pytest.mark.parametrize("width", [7, 3], ids=["whole", "narrow"])
def test_the_parts_of_an_evaluation_play_its_episodes_to_the_bit(
    environment: Environment, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "WIDTH", width)
    policy = linear(4, 1) if environment is BALANCE else linear(6, 2)
    whole = Evaluator(environment, [7], episodes=7, seed=3)(policy)
    parts = [
        Evaluator(environment, [7], episodes=7, seed=3, part=Part(number, 3))(policy)
        for number in range(3)
    ]
    cut = width == 7 or environment is DMSD  # DMSD steps all episodes together
    sizes = [part.returns.shape[1] for part in parts]
    assert sizes == ([2, 2, 3] if cut else [7, 0, 0])
    joined = Episodes.of_parts(parts)
    np.testing.assert_array_equal(joined.returns, whole.returns)
    np.testing.assert_array_equal(joined.lengths, whole.lengths)


class Diary:
    """Acts in InvertedPendulum and keeps, for each slot, what it was told of each episode."""

    mode = "deterministic"

    def __init__(self) -> None:
        self.episodes: list[list[list[float]]] = []

    def begin(self, starts: torch.Tensor) -> None:
        if not self.episodes:
            self.episodes = [[] for _ in starts.flatten()]
        for slot, start in zip(self.episodes, starts.flatten().tolist(), strict=True):
            if start:
                slot.append([])

    def act(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.tanh(-5 * observations.sum(-1, keepdim=True))

    def reward(self, rewards: torch.Tensor) -> None:
        for slot, reward in zip(self.episodes, rewards.flatten().tolist(), strict=True):
            slot[-1].append(reward)


def test_a_policy_is_told_of_starts_and_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was told of each slot's episodes are the returns and lengths that were counted."""
    monkeypatch.setattr(rollouts, "WIDTH", 2)
    policy = Diary()
    found = Evaluator(BALANCE, [7, 8], episodes=5, seed=3)(policy)
    assert len({*found.lengths.flatten().tolist()}) > 1  # or no slot would start on its own
    for r in range(2):
        told = [episode for slot in policy.episodes[2 * r : 2 * r + 2] for episode in slot]
        sums = sorted(sum(episode) for episode in told)
        lengths = [len(episode) for episode in told]
        for total, length in zip(found.returns[r], found.lengths[r], strict=True):
            assert min(abs(s - total) for s in sums) < 1e-4
            assert length in lengths


def test_a_policy_may_keep_the_observations_that_it_was_given() -> None:
    """Simulators write the next ones into the same buffer."""
    kept: list[torch.Tensor] = []
    copies: list[torch.Tensor] = []

    def act(observations: torch.Tensor) -> torch.Tensor:
        kept.append(observations)
        copies.append(observations.clone())
        return observations[..., :1] * 0

    Evaluator(PENDULUM, [0], episodes=1, seed=0)(StatelessPolicy(act))
    assert all(map(torch.equal, kept, copies))


def test_an_action_that_is_not_finite_stops_the_run() -> None:
    evaluator = Evaluator(PENDULUM, [0], episodes=2, seed=0)
    policy = StatelessPolicy(lambda observations: observations[..., :1] * torch.nan)
    with pytest.raises(Diverged, match=r"action is not finite in evaluation$"):
        evaluator(policy)


def test_an_observation_that_is_not_finite_is_named() -> None:
    environment = odd(fault="not finite later", steps=2)
    evaluator = Evaluator(environment, [0], episodes=1, seed=0)
    with pytest.raises(Diverged, match="nor is an observation before it"):
        evaluator(StatelessPolicy(lambda observations: observations[..., :1]))


def test_a_dict_is_flattened_in_the_declared_order() -> None:
    observations = {"b": np.array([[1.0, 2.0], [3.0, 4.0]]), "a": np.array([5.0, 6.0])}
    assert flatten(observations, ["a", "b"]).tolist() == [[5, 1, 2], [6, 3, 4]]
    assert flatten(observations, ["b"]).tolist() == [[1, 2], [3, 4]]
    assert flatten(observations, []).tolist() == [[5, 1, 2], [6, 3, 4]]
    assert flatten(observations["b"], []).dtype == np.float32


def test_spaces() -> None:
    assert spaces(PENDULUM) == (3, Actions((-2.0,), (2.0,)))
    assert spaces(PENDULUM)[1].bound == 2.0
    assert spaces(MAZE) == (6, Actions((-1.0, -1.0), (1.0, 1.0)))
    assert spaces(CARTPOLE) == (4, Actions(count=2))
    lopsided = spaces(lopsidedly(gymnasium.spaces.Box(0, 3, (1,))))[1]
    assert lopsided == Actions((0.0,), (3.0,))
    assert (lopsided.bound, lopsided.bounds) == (None, ((0.0,), (3.0,)))
    uneven = gymnasium.spaces.Box(np.array([-1, -2]), np.array([1, 2]), dtype=np.float32)
    assert spaces(lopsidedly(uneven))[1].bound is None


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (
            gymnasium.spaces.Box(0, np.inf, (1,)),
            r"actions in \[\[0.\], \[inf\]\], which are not fin",
        ),
        (gymnasium.spaces.Box(-np.inf, np.inf, (2,)), "not finite; wrap it in .* RescaleAction"),
        (gymnasium.spaces.Box(1, 1, (1,)), "expected low below high"),
        (gymnasium.spaces.Discrete(3, start=1), "counts its 3 actions from 1; wrap it"),
        (gymnasium.spaces.MultiDiscrete([2, 3]), "one among all their combinations"),
        (gymnasium.spaces.Box(0, 1, (2, 2)), "a Box of one axis, or in a Discrete"),
    ],
)
def test_actions_that_no_algorithm_takes_are_named(space: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        spaces(lopsidedly(space))


class Lopsided(gymnasium.Env[Any, Any]):
    """Observations are the last action; it pays the first of its numbers."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))

    def __init__(self, space: Any):
        self.action_space = space

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        first = np.ravel(action).astype(np.float32)[:1]
        return first, float(first[0]), False, False, {}


gymnasium.register("offrl-test/Lopsided-v0", Lopsided)  # type: ignore[arg-type]


def lopsidedly(space: Any) -> Environment:
    """An environment with these actions; no card can hold a space, so its model is passed by."""
    environment = Environment(id="offrl-test/Lopsided-v0", max_episode_steps=3)
    return environment.model_copy(update={"kwargs": {"space": space}})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NoSuchTask-v0", "NoSuchTask"),
        ("no_such_module:Task-v0", "no_such_module"),
        ("Pendulum-v1", "unexpected keyword"),
    ],
)
def test_an_environment_that_cannot_be_made_is_named(name: str, says: str) -> None:
    environment = Environment(id=name, max_episode_steps=5, kwargs={"gravitation": 1})
    with pytest.raises(InputError, match=says):
        make(environment)


class Odd(gymnasium.Env[Any, Any]):
    """Raises, or returns something odd, where `fault` says so."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, fault: str = "", steps: int = 0, render_mode: str | None = None):
        box = gymnasium.spaces.Box(-1, 1, (1,))
        goal = gymnasium.spaces.Dict(b=box, a=gymnasium.spaces.Tuple((box, box)))
        self.observation_space = gymnasium.spaces.Dict(observation=box, goal=goal)
        self.fault, self.steps = fault, steps
        if fault == "made" or render_mode is not None:
            raise AttributeError("no asset\nfile")
        if fault == "made, and ends":
            raise SystemExit("no licence")
        if fault == "spaces":
            del self.observation_space

    def seen(self) -> Any:
        one = np.zeros(2 if self.fault == "observation" else 1, np.float32)
        if self.fault == "not finite" or (self.fault == "not finite later" and self.steps < 0):
            one += np.nan
        return {"observation": one, "goal": {"b": one + 1, "a": (one + 2, one + 3)}}

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        if self.fault == "reset":
            raise RuntimeError("no simulator")
        if self.fault == "older":  # Gym's interface
            return self.seen()  # type: ignore[no-any-return]
        return self.seen(), {}

    def step(self, _: Any) -> Any:
        self.steps -= 1
        if self.fault == "stepped" and self.steps < 0:
            raise KeyError("body")
        reward: Any = {"vector": np.ones(2), "text": "a", "nan": np.nan}.get(self.fault, 1.0)
        return self.seen(), reward, [0, 1] if self.fault == "flag" else False, False, {}

    def close(self) -> None:
        if self.fault == "closed":
            raise OSError("port lost")


gymnasium.register("offrl-test/Odd-v0", Odd)  # type: ignore[arg-type]


def odd(**kwargs: Any) -> Environment:
    return Environment(id="offrl-test/Odd-v0", max_episode_steps=4, kwargs=kwargs)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("made", "raised AttributeError when made: no asset file; correct it"),
        ("reset", "raised RuntimeError when reset: no simulator"),
        ("stepped", "raised KeyError when stepped: 'body'"),
        ("closed", "raised OSError when closed: port lost"),
        ("made, and ends", "raised SystemExit when made: no licence"),
        ("spaces", "raised AttributeError when asked for its spaces: .*observation_space"),
        ("older", "returned dict when reset; expected an observation and a dict"),
        ("not finite", "an observation is not finite when reset"),
        ("vector", r"reward is array\(\[1\., 1\.\]\) when stepped; expected one number"),
        ("text", "reward is array.* when stepped; expected one number"),
        ("nan", "reward is nan when stepped; expected a finite number"),
        ("flag", r"terminated is \[0, 1\] when stepped; expected one flag"),
        (
            "observation",
            r"observations have goal/a/0 \(2,\), .* the declared space has goal/a/0 \(",
        ),
    ],
)
def test_one_trial_step_finds_what_would_break_a_run(fault: str, says: str) -> None:
    with pytest.raises(InputError, match="'offrl-test/Odd-v0'.*" + says) as caught:
        spaces(odd(fault=fault))
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(
        InputError, match=r"when imported: .*; install the package that has nowhere "
    ):
        spaces(Environment(id="nowhere:Maze-v0", max_episode_steps=4))


def test_what_breaks_later_names_the_environment_too() -> None:
    environment = odd(fault="stepped", steps=2)
    assert spaces(environment) == (4, Actions((-1.0,), (1.0,)))
    evaluator = Evaluator(environment, [0], episodes=2, seed=0)
    with pytest.raises(InputError, match=r"'offrl-test/Odd-v0' .* raised KeyError when stepped"):
        evaluator(StatelessPolicy(lambda observations: observations[..., :1]))


def test_nested_observations_reach_the_policy_as_the_data_are_flattened() -> None:
    seen: list[torch.Tensor] = []

    def act(observations: torch.Tensor) -> torch.Tensor:
        seen.append(observations[0, 0])
        return observations[..., :1]

    environment = odd(render_mode="human")  # which an evaluation leaves out
    Evaluator(environment, [0], episodes=1, seed=0)(StatelessPolicy(act))
    assert seen[0].tolist() == [2, 3, 1, 0]  # goal/a/0, goal/a/1, goal/b, observation
    kitchen = Environment(id="gymnasium_robotics:FrankaKitchen-v1", max_episode_steps=280)
    assert spaces(kitchen) == (59 + 2 * 17, Actions((-1.0,) * 9, (1.0,) * 9))


def test_bounds_are_known_where_no_code_of_a_card_runs() -> None:
    for environment, bound in ((PENDULUM, 2.0), (DMSD, 1.0)):
        known = known_actions(environment)
        assert known is not None
        assert known.bounds == bound
    assert known_actions(None) is None
    assert known_actions(CARTPOLE) == Actions(count=2)
    assert known_actions(Environment(id="numbered:Pendulum-v1", max_episode_steps=5)) is None


def test_an_installed_package_registers_its_environments_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gymnasium left that to the user with version 1.0; MinAtar relies on it."""
    (tmp_path / "grid_games.py").write_text(
        "import gymnasium\n\n\ndef register():\n"
        "    gymnasium.register('GridGames/Cart-v0', "
        "'gymnasium.envs.classic_control.cartpole:CartPoleEnv')\n"
    )
    about = tmp_path / "grid_games-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: grid-games\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[gymnasium.envs]\nGridGames = grid_games:register\n")
    environment = Environment(id="GridGames/Cart-v0", max_episode_steps=5)
    with pytest.raises(InputError, match="Namespace GridGames not found"):
        make(environment)
    monkeypatch.syspath_prepend(tmp_path)
    assert spaces(environment) == (4, Actions(count=2))
