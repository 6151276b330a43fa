"""antmaze and maze2d against steps of D4RL's own environments, and against D4RL's definitions."""

import importlib
from collections import Counter
from collections.abc import Iterator
from math import pi
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from offrl.data.card import Environment, find_card
from offrl.data.dataset import load_dataset
from offrl.datasets import d4rl_antmaze as antmaze
from offrl.datasets import d4rl_maze2d as maze2d
from offrl.evaluation.environments import Actions, make, make_vector, native, spaces

Array = NDArray[Any]
MAZES = {"umaze": "UMaze", "medium": "Medium", "large": "Large"}
POINTS = [f"maze2d-{maze}{kind}-v1" for maze in MAZES for kind in ("", "-dense")]


def environment(card: str) -> Environment:
    found = find_card(card).environment
    assert found is not None
    return found


def recorded(shared: Path, kind: str) -> Iterator[tuple[str, dict[str, Array]]]:
    """The recorded runs of ant or point: the maze of each and its columns."""
    path = shared / "data" / "d4rl_simulators" / "d4rl_mazes_mujoco210.npz"
    with np.load(path) as archive:
        names = sorted({key.partition("/")[0] for key in archive if key.startswith(kind)})
        for name in names:
            columns = [key for key in archive if key.startswith(f"{name}/")]
            maze = MAZES[name.split("_")[1]]
            yield maze, {key.partition("/")[2]: archive[key] for key in columns}


def step_errors(env: Any, run: dict[str, Array]) -> tuple[Array, Array]:
    """Largest errors of positions and of velocities, one step from each recorded state."""
    positions, velocities = [], []
    for t, action in enumerate(run["action"]):
        env.set_state(run["qpos"][t], run["qvel"][t])
        env.step(action)
        positions.append(np.abs(env.data.qpos - run["qpos"][t + 1]).max())
        velocities.append(np.abs(env.data.qvel - run["qvel"][t + 1]).max())
    return np.array(positions), np.array(velocities)


# --- both ---


# The check warns of unbounded observations; these states have no bounds.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity")
@pytest.mark.parametrize("name", ["AntMazeUMaze-v2", "Maze2dUMaze-v1", "Maze2dLargeDense-v1"])
def test_passes_gymnasiums_checks(name: str) -> None:
    check_env(gymnasium.make(f"offrl/{name}").unwrapped, skip_render_check=True)


@pytest.mark.parametrize("module", [antmaze, maze2d])
def test_a_second_import_registers_nothing_again(module: Any) -> None:
    names = {name for name in gymnasium.registry if name.startswith("offrl/")}
    importlib.reload(module)  # warnings are errors, and registering twice warns
    assert {name for name in gymnasium.registry if name.startswith("offrl/")} == names


def test_sizes_are_those_of_d4rls_files() -> None:
    assert spaces(environment("antmaze-large-play-v2")) == (29, Actions((-1.0,) * 8, (1.0,) * 8))
    assert spaces(environment("maze2d-large-v1")) == (4, Actions((-1.0,) * 2, (1.0,) * 2))


# --- the ant ---


def test_the_ant_repeats_every_recorded_step(shared: Path) -> None:
    steps = touching = 0
    for maze, run in recorded(shared, "ant"):
        env = antmaze.AntMaze(maze)
        env.reset(seed=0)
        positions, velocities = step_errors(env, run)
        assert positions.max() < 1e-9
        assert velocities.max() < 1e-9
        steps += len(positions)
        touching += int((run.get("wall_contacts", np.zeros(1)) > 0).sum())
    assert steps == 2700
    assert touching == 40  # so that walls are tried too


def test_the_ant_weighs_what_it_weighed_before_mujoco_2_1_2() -> None:
    # Legs are cylinders of radius 0.08, half a radius longer at both ends than between the joints.
    disc = 5 * pi * 0.08**2
    hip, shin = disc * (np.hypot(0.2, 0.2) + 0.08), disc * (np.hypot(0.4, 0.4) + 0.08)
    torso = 5 * 4 / 3 * pi * 0.25**3
    model = antmaze.AntMaze("UMaze").model
    np.testing.assert_allclose(model.body_mass, [0, torso, *[hip, hip, shin] * 4], rtol=1e-14)
    assert model.body_mass.sum() == pytest.approx(0.87871, abs=5e-6)  # 0.91089 since
    np.testing.assert_allclose(model.body_inertia[1], 0.4 * torso * 0.25**2, rtol=1e-14)
    for leg, (x, y) in enumerate(antmaze.LEGS):
        for body, mass, length in zip(range(3), (hip, hip, shin), (0.2, 0.2, 0.4), strict=True):
            index = 2 + 3 * leg + body
            height = np.hypot(length, length) + 0.08
            across, along = mass * (3 * 0.08**2 + height**2) / 12, mass * 0.08**2 / 2
            np.testing.assert_allclose(
                model.body_inertia[index], [across, across, along], rtol=1e-14
            )
            frame = np.zeros(9)
            mujoco.mju_quat2Mat(frame, model.body_iquat[index])
            axis = frame.reshape(3, 3)[:, 2]
            np.testing.assert_allclose(axis, np.array([x, y, 0]) / np.sqrt(2), atol=1e-14)
            np.testing.assert_allclose(
                model.body_ipos[index], [x * length / 2, y * length / 2, 0], atol=1e-15
            )


def test_ant_margins_are_the_ants_alone() -> None:
    model = antmaze.AntMaze("UMaze").model
    moving = model.geom_bodyid > 0
    assert (model.geom_margin[moving] == 0.01).all()
    assert (model.geom_margin[~moving] == 0).all()
    assert moving.sum() == 13


@pytest.mark.parametrize(
    ("card", "corner", "steps"),
    [
        ("antmaze-umaze-v2", (0, 8), 700),
        ("antmaze-umaze-diverse-v2", (0, 8), 700),
        ("antmaze-medium-play-v2", (20, 20), 1000),
        ("antmaze-medium-diverse-v2", (20, 20), 1000),
        ("antmaze-large-play-v2", (32, 24), 1000),
        ("antmaze-large-diverse-v2", (32, 24), 1000),
    ],
)
def test_ants_start_at_the_origin_and_goals_lie_beyond_a_cells_centre(
    card: str, corner: tuple[int, int], steps: int
) -> None:
    env = make(environment(card))
    assert env.spec is not None
    assert environment(card).max_episode_steps == env.spec.max_episode_steps == steps
    simulator: Any = env.unwrapped
    starts, goals = [], []
    for seed in range(500):
        observation, _ = env.reset(seed=seed)
        starts.append(observation)
        goals.append(simulator.goal - corner)
    states, offsets = np.array(starts), np.array(goals)
    # U(0, 1) + U(0, 0.5) on each axis: mean 0.75, variance 1/12 + 1/48.
    assert offsets.min() >= 0
    assert offsets.max() <= 1.5
    assert offsets.max() > 1.2
    spread = np.sqrt(5 / 48)
    np.testing.assert_allclose(offsets.mean(0), 0.75, atol=4 * spread / np.sqrt(500))
    np.testing.assert_allclose(offsets.std(0), spread, rtol=0.12)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.2
    places = np.delete(states[:, :15], range(3, 7), axis=1) - np.array([0, 0, 0.75, *[0] * 8])
    assert np.abs(places).max() <= 0.1
    np.testing.assert_allclose(places.std(0), 0.2 / np.sqrt(12), rtol=0.12)
    np.testing.assert_allclose(np.linalg.norm(states[:, 3:7], axis=1), 1, atol=1e-14)
    assert (states[:, 3] > 0.98).all()
    assert (np.abs(states[:, 4:7]) < 0.1 / 0.9).all()
    np.testing.assert_allclose(states[:, 15:].std(0), 0.1, rtol=0.15)
    env.close()


def test_an_ants_goal_is_drawn_before_its_state_and_anew() -> None:
    env = antmaze.AntMaze("Large")
    observation, _ = env.reset(seed=4)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(4)))
    goal = np.array([32, 24]) + rng.uniform(0, 1, 2) + rng.uniform(0, 0.5, 2)
    np.testing.assert_array_equal(env.goal, goal)
    qpos = rng.uniform(-0.1, 0.1, 15)
    np.testing.assert_allclose(observation[:2], qpos[:2], atol=1e-15)
    np.testing.assert_allclose(observation[15:], 0.1 * rng.standard_normal(14), atol=1e-15)
    env.reset()
    assert (env.goal != goal).all()


def test_an_ant_earns_1_and_ends_within_half_a_metre_of_its_goal() -> None:
    env = antmaze.AntMaze("UMaze")

    def outcome(away: tuple[float, float]) -> tuple[float, bool]:
        env.reset(seed=1)
        reached = np.array([8.0, 4.0])
        env.goal = reached + away
        # At rest on its back in the air, where a torque turns nothing within the plane of x and y.
        env.set_state(np.array([*reached, 3.0, 0, 1, 0, 0, *[0] * 8]), np.zeros(14))
        observation, reward, terminated, truncated, _ = env.step(np.zeros(8, np.float32))
        assert not truncated
        np.testing.assert_allclose(observation[:2], reached, atol=2e-3)
        return reward, terminated

    assert outcome((0.3, 0.39)) == (1, True)  # 0.492
    assert outcome((-0.49, 0)) == (1, True)
    assert outcome((0.3, 0.41)) == (0, False)  # 0.508
    assert outcome((0.45, 0.45)) == (0, False)


def test_an_ant_on_its_back_goes_on() -> None:
    env = antmaze.AntMaze("UMaze")
    env.reset(seed=1)
    env.set_state(np.array([0, 0, 0.3, 0, 1, 0, 0, *[0] * 8]), np.zeros(14))
    ends = [env.step(np.zeros(8))[1:4] for _ in range(60)]
    assert ends == [(0, False, False)] * 60
    assert env.data.qpos[3] < 0.5


def test_ants_clip_their_actions_and_scale_them_to_30() -> None:
    env = antmaze.AntMaze("UMaze")
    env.reset(seed=1)
    env.step(np.array([-3, -1, -0.5, 0, 0.25, 0.5, 1, 2], np.float32))
    assert env.data.ctrl.tolist() == [-30, -30, -15, 0, 7.5, 15, 30, 30]
    assert env.data.time == pytest.approx(0.1)


# --- the point ---


def test_the_point_repeats_every_recorded_step_and_reward(shared: Path) -> None:
    steps = 0
    for maze, run in recorded(shared, "point"):
        env = maze2d.Maze2d(maze)
        env.reset(seed=0)
        positions, velocities = step_errors(env, run)
        assert positions.max() < 1e-9
        assert velocities.max() < 1e-9
        rewards = maze2d.sparse_reward(run["qpos"][1:], env.target)
        np.testing.assert_array_equal(rewards, run["reward"])
        steps += len(positions)
    assert steps == 3000


def test_a_contact_of_the_point_is_as_soft_as_before_mujoco_3() -> None:
    model = maze2d.Maze2d("UMaze").model
    assert model.body_mass.tolist() == pytest.approx([0, 4 / 3 * pi * 0.1**3 * 1000])
    assert model.body_invweight0[1, 0] == pytest.approx(2 / 3 / 4.18879, rel=1e-6)
    assert (model.geom_margin[model.geom_bodyid == 0] == 0).all()


@pytest.mark.parametrize(
    ("maze", "free", "target"),
    [("UMaze", 7, (1, 1)), ("Medium", 26, (6, 6)), ("Large", 46, (7, 9))],
)
def test_points_start_in_every_free_cell_the_targets_too(
    maze: str, free: int, target: tuple[int, int]
) -> None:
    env = maze2d.Maze2d(maze)
    assert env.target.tolist() == [*target]
    states = np.array([env.reset(seed=seed)[0] for seed in range(60 * free)])
    places = states[:, :2].round()
    counts = Counter((int(i), int(j)) for i, j in places)
    assert set(counts) == set(maze2d.cells(maze, ".G"))
    assert len(counts) == free
    assert target in counts
    # Uniform: chi-square on free - 1 degrees of freedom, 4 standard deviations.
    chi = sum((n - 60) ** 2 / 60 for n in counts.values())
    assert chi < free - 1 + 4 * np.sqrt(2 * (free - 1))
    noise = states[:, :2] - places
    assert np.abs(noise).max() <= 0.1
    np.testing.assert_allclose(noise.std(0), 0.2 / np.sqrt(12), rtol=0.1)
    np.testing.assert_allclose(states[:, 2:].std(0), 0.1, rtol=0.12)


@pytest.mark.parametrize(("maze", "steps"), [("umaze", 300), ("medium", 600), ("large", 800)])
def test_point_rewards_limits_and_no_end(maze: str, steps: int) -> None:
    sparse, dense = (make(environment(f"maze2d-{maze}{kind}-v1")) for kind in ("", "-dense"))
    simulators: Any = (sparse.unwrapped, dense.unwrapped)
    for env in (sparse, dense):
        env.reset(seed=3)
        ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(steps)]
        assert ends == [(False, False)] * (steps - 1) + [(False, True)]
    for away in (0.0, 0.49, 0.51, 2.0):
        rewards = []
        for simulator in simulators:
            place = maze2d.target(simulator.maze)
            simulator.target = place + away * np.array([0.6, 0.8])
            simulator.set_state(place, np.zeros(2))
            _, reward, terminated, truncated, _ = simulator.step(np.zeros(2))
            assert not terminated
            assert not truncated
            rewards.append(reward)
        assert rewards == [float(away < 0.5), pytest.approx(np.exp(-away))]


def test_points_are_slowed_to_5_before_a_step_and_stop_at_walls() -> None:
    env = maze2d.Maze2d("UMaze")
    env.reset(seed=0)
    env.set_state(np.array([1.0, 2.0]), np.array([-0.5, 9.0]))
    observation, *_ = env.step(np.zeros(2))
    damped = 1 / (1 + 0.01 / (4 / 3 * pi))  # of the implicit Euler step; the mass is 4/3 pi
    np.testing.assert_allclose(observation[2:], [-0.5 * damped, 5 * damped], rtol=1e-6)

    def rest(x: float, y: float) -> Array:
        """Where the particle, pushed in one direction from cell (1, 2), comes to rest."""
        env.set_state(np.array([1.0, 2.0]), np.zeros(2))
        for _ in range(400):
            env.step(np.array([x, y]))
        return np.array(env.data.qpos)

    # The row of cells (1, 1) to (1, 3) spans 0.3 to 1.3 and 0.3 to 3.3; the radius is 0.1.
    np.testing.assert_allclose(rest(-5, 0), [0.4, 2], atol=0.02)
    np.testing.assert_allclose(rest(1, 0), [1.2, 2], atol=0.02)
    np.testing.assert_allclose(rest(0, -1), [1, 0.4], atol=0.02)
    np.testing.assert_allclose(rest(0, 1), [1, 3.2], atol=0.02)


@pytest.mark.parametrize("card", POINTS)
def test_points_in_lockstep_are_single_points(card: str) -> None:
    described = environment(card)
    single = make(described)
    assert native(described)
    rows: Any = make_vector(described, 5)
    assert rows.max_episode_steps == described.max_episode_steps
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.5, 1.5, (200, 5, 2)).repeat(3, 0)[:300].astype(np.float32)
    observations, _ = rows.reset(seed=[3, 4, 5, 6, 7])
    steps = [(observations, *rows.step(a)[:4]) for a in actions]
    after = [rows.observe()]
    for row in range(5):
        observation, _ = single.reset(seed=3 + row)
        np.testing.assert_array_equal(steps[0][0][row], observation)
        for step, a in zip(steps, actions, strict=True):
            observation, reward, terminated, truncated, _ = single.step(a[row])
            np.testing.assert_array_equal(step[1][row], observation)
            assert step[2][row] == pytest.approx(reward, rel=1e-15)
            assert (step[3][row], step[4][row]) == (terminated, truncated)
        np.testing.assert_array_equal(after[0][row], observation)
    single.close()


def returns(card: str, act: Any, episodes: int) -> Array:
    """Returns of episodes that start from seeds 0, 1, ...; `act` maps rows of states to actions."""
    described = environment(card)
    env = make_vector(described, episodes)
    observations, _ = env.reset(seed=list(range(episodes)))  # type: ignore[arg-type]
    total = np.zeros(episodes)
    for _ in range(described.max_episode_steps):
        observations, rewards, *_ = env.step(act(observations))
        total += rewards
    return total


@pytest.mark.parametrize("card", POINTS)
def test_random_actions_return_the_published_minimum(card: str) -> None:
    reference = find_card(card).reference
    assert reference is not None
    rng = np.random.default_rng(0)
    found = returns(card, lambda states: rng.uniform(-1, 1, (len(states), 2)), 200)
    # D4RL's is a mean of 100 episodes, whose error is not published and not allowed for here.
    error = found.std(ddof=1) / np.sqrt(200)
    assert found.mean() == pytest.approx(reference.min, abs=3 * error)


# --- D4RL's controller ---


def test_the_shortest_way_is_the_one_of_q_iteration() -> None:
    assert maze2d.shortest_way("UMaze", (3, 1), (1, 1)) == [
        (3, 2),
        (3, 3),
        (2, 3),
        (1, 3),
        (1, 2),
        (1, 1),
    ]
    moves = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]  # d4rl/pointmaze/gridcraft/grid_env.py
    free = maze2d.cells("Medium", ".G")
    for goal in free:
        values: dict[tuple[int, int], list[float]] = {cell: [0.0] * 5 for cell in free}
        for _ in range(50):
            best = {cell: max(q) for cell, q in values.items()}
            values = {
                (i, j): [
                    float((i, j) == goal) + 0.99 * best.get((i + di, j + dj), best[i, j])
                    for di, dj in moves
                ]
                for i, j in free
            }
        for start in free:
            cell = start
            way: list[tuple[int, int]] = []
            while cell != goal or not way:
                q = values[cell]
                i, j = moves[q.index(max(q))]
                cell = (cell[0] + i, cell[1] + j)
                way.append(cell)
            assert maze2d.shortest_way("Medium", start, goal) == way
    assert maze2d.shortest_way("Medium", (0, 1), (1, 2)) == [(1, 1), (1, 2)]  # out of a wall
    assert maze2d.shortest_way("Medium", (0, 0), (1, 1)) == [(1, 1)]  # and out of a corner


def test_the_controller_plans_once_per_target_and_comes_to_rest_there() -> None:
    env, controller = (
        maze2d.Maze2d("UMaze"),
        maze2d.WaypointController("UMaze", np.random.default_rng(0)),
    )
    observation, _ = env.reset(seed=0)
    env.set_state(np.array([3.0, 1.0]), np.zeros(2))
    observation = np.array([3.0, 1, 0, 0])
    action, arrived = controller(observation, env.target)
    *between, last = controller.waypoints
    assert len(between) == 5
    assert last.tolist() == [1, 1]
    for waypoint, cell in zip(between, [(3, 2), (3, 3), (2, 3), (1, 3), (1, 2)], strict=True):
        assert (waypoint <= cell).all()
        assert (waypoint >= np.array(cell) - 0.2).all()
    np.testing.assert_allclose(action, (10 * (between[0] - [3, 1])).clip(-1, 1))
    steps = 0
    while not arrived and steps < 300:
        observation, *_ = env.step(action)
        action, arrived = controller(observation, env.target)
        steps += 1
    assert arrived
    assert steps > 100
    # Kept for another episode, it goes on with what is left of the plan, through the wall.
    controller(np.array([3.0, 1, 0, 0]), env.target)
    assert [w.tolist() for w in controller.waypoints] == [[1, 1]]
    controller(np.array([3.0, 1, 0, 0]), np.array([3.04, 2.97]))
    assert len(controller.waypoints) == 2


@pytest.mark.nightly  # a minute
@pytest.mark.parametrize("card", POINTS)
def test_the_controller_returns_the_published_maximum_if_it_is_kept(card: str) -> None:
    reference = find_card(card).reference
    assert reference is not None
    env = make(environment(card))
    simulator: Any = env.unwrapped
    means, errors = [], []
    for kept in (True, False):
        rng = np.random.default_rng(0)
        controller = maze2d.WaypointController(simulator.maze, rng)
        found = []
        for seed in range(200):
            observation, _ = env.reset(seed=seed)
            if not kept:
                controller = maze2d.WaypointController(simulator.maze, rng)
            over, total = False, 0.0
            while not over:
                action, _ = controller(observation, simulator.target)
                observation, reward, _, over, _ = env.step(action)
                total += float(reward)
            found.append(total)
        means.append(np.mean(found))
        errors.append(np.std(found, ddof=1) / np.sqrt(200))
    assert means[0] == pytest.approx(reference.max, abs=3 * errors[0])
    assert means[1] > reference.max + 3 * errors[1]  # a plan for each episode is far better
    env.close()


# --- the maker ---


def test_the_maker_records_what_the_simulator_does(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = maze2d.make(tmp_path, lambda done, total: seen.append((done, total)), rows=10_000)
    assert seen == [(10_000, 10_000)]
    assert path.parent == tmp_path
    card = find_card("maze2d-umaze-waypoints")
    assert (card.source.maker, card.environment) == (
        "d4rl_maze2d",
        environment("maze2d-umaze-v1"),
    )
    with np.load(path) as archive:
        columns = dict(archive)
    states, actions, rewards = (columns[k] for k in ("observations", "actions", "rewards"))
    env = maze2d.Maze2d("UMaze")
    env.reset(seed=0)
    for row in range(300):
        env.set_state(states[row, :2], states[row, 2:])
        observation, *_ = env.step(actions[row])
        np.testing.assert_allclose(observation, states[row + 1], atol=1e-4)  # float32
    np.testing.assert_array_equal(rewards, maze2d.sparse_reward(states[:, :2], env.target))
    assert 0.02 < rewards.mean() < 0.2
    assert np.abs(actions).max() == 1
    assert not columns["terminals"].any()
    lengths = np.diff(np.flatnonzero(columns["timeouts"]))
    assert 80 < len(lengths) < 200
    assert lengths.max() <= 300
    data = load_dataset(path)
    # Every target reached, and the run that the file ends in; where one is drawn in the cell in
    # which the particle is, its only row is at a timeout.
    short = int((lengths == 1).sum())
    assert len(data.episode_starts) == len(lengths) + 2 - short
    again = maze2d.make(tmp_path / "again", rows=2000)
    with np.load(again) as archive:
        np.testing.assert_array_equal(archive["observations"], states[:2000])
