"""Errors, resets, reference returns and speed of offrl's simulators.

    python benchmarks/simulators.py mazes speed    # some of them; without a name, all

A family (`mazes`, `locomotion`, `kitchen`) prints what docs/simulators.md says of it: how far one
step from each recorded state of D4RL's own environments is off, once as today's MuJoCo compiles the
model and once as offrl does, what resets draw, and the returns that D4RL published as references.
The recorded steps are read from the folder `shared` beside the checkout, or OFFRL_SHARED, and left
out where it is absent.

`speed` drives each environment with a small numpy policy, since a policy costs something too. Set
OMP_NUM_THREADS=1 for figures of one core.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from offrl.data.card import find_card
from offrl.datasets import d4rl_antmaze as antmaze
from offrl.datasets import d4rl_kitchen, d4rl_locomotion
from offrl.datasets import d4rl_maze2d as maze2d
from offrl.evaluation import environments
from offrl.evaluation.capsules import body_geoms

Array = NDArray[Any]
Run = dict[str, Array]
SHARED = Path(os.environ.get("OFFRL_SHARED", Path(__file__).parents[2] / "shared"))
RECORDED = SHARED / "data" / "d4rl_simulators"


def mean(values: Any) -> str:
    """A mean and its standard error."""
    values = np.asarray(values, np.float64)
    return f"{values.mean():8.2f} ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}"


# --- mazes ---

MAZES = {"umaze": "UMaze", "medium": "Medium", "large": "Large"}


def mazes(episodes: int) -> None:
    """Prints what docs/simulators.md says of antmaze and maze2d."""
    print("\nant: one step from each recorded state, largest |error|")
    maze_errors("ant", antmaze.AntMaze, as_compiled_ant)
    print("\npoint: one step from each recorded state, largest |error|")
    maze_errors("point", maze2d.Maze2d, as_compiled_point)
    ant_resets()
    point_resets()
    point_references(episodes)


def as_compiled_ant(env: antmaze.AntMaze) -> None:
    """Gives the ant today's capsules."""
    text = antmaze.model_text(env.maze).replace('inertiafromgeom="auto"', 'inertiafromgeom="true"')
    env.model = mujoco.MjModel.from_xml_string(text)
    env.data = mujoco.MjData(env.model)


def as_compiled_point(env: maze2d.Maze2d) -> None:
    """Gives the particle today's softness of contacts."""
    env.model = mujoco.MjModel.from_xml_string(maze2d.model_text(env.maze))
    env.data = mujoco.MjData(env.model)


def recorded(kind: str) -> Iterator[tuple[str, str, Run]]:
    """The recorded runs of ant or point: the kind of actions, the maze and the columns of each."""
    with np.load(RECORDED / "d4rl_mazes_mujoco210.npz") as archive:
        for name in sorted({key.partition("/")[0] for key in archive if key.startswith(kind)}):
            _, maze, actions, _ = name.split("_")
            columns = {
                key.partition("/")[2]: archive[key] for key in archive if key.startswith(f"{name}/")
            }
            yield actions, MAZES[maze], columns


def step_errors(env: Any, run: Run) -> tuple[list[float], list[float]]:
    """Largest errors of positions and of velocities, one step from each recorded state."""
    positions, velocities = [], []
    for t, action in enumerate(run["action"]):
        env.set_state(run["qpos"][t], run["qvel"][t])
        env.step(action)
        positions.append(float(np.abs(env.data.qpos - run["qpos"][t + 1]).max()))
        velocities.append(float(np.abs(env.data.qvel - run["qvel"][t + 1]).max()))
    return positions, velocities


def open_loop(env: Any, run: Run) -> list[float]:
    """Largest errors of positions after each of a run's actions, from its first state."""
    env.reset(seed=0)
    env.set_state(run["qpos"][0], run["qvel"][0])
    errors = []
    for t, action in enumerate(run["action"]):
        env.step(action)
        errors.append(float(np.abs(env.data.qpos - run["qpos"][t + 1]).max()))
    return errors


def maze_errors(kind: str, make: Callable[[str], Any], as_compiled: Callable[[Any], None]) -> None:
    """Prints a row per kind of actions and one for all."""
    if not RECORDED.is_dir():
        print(f"  not measured: no {RECORDED}")
        return
    rows: dict[str, list[tuple[int, Array, Array, Array, float]]] = {}
    for name, maze, run in recorded(kind):
        env, other = make(maze), make(maze)
        as_compiled(other)
        env.reset(seed=0)
        other.reset(seed=0)
        positions, velocities = step_errors(env, run)
        compiled, _ = step_errors(other, run)
        touching = int((run.get("wall_contacts", np.zeros(1)) > 0).sum())
        apart = max(open_loop(env, run))
        figures = (touching, np.array(positions), np.array(velocities), np.array(compiled), apart)
        rows.setdefault(name, []).append(figures)
    rows["all"] = [figures for group in list(rows.values()) for figures in group]
    print("                   steps  at walls   positions  velocities   open loop   as compiled")
    for name, group in rows.items():
        touched, positions_of, velocities_of, compiled_of, apart_of = zip(*group, strict=True)
        errors = np.concatenate(compiled_of)
        largest = [np.concatenate(group).max() for group in (positions_of, velocities_of)]
        print(
            f"  {name:16} {len(errors):5} {sum(touched) or '':>9} "
            f"{largest[0]:11.1e} {largest[1]:11.1e} "
            f"{max(apart_of):11.1e}   median {np.median(errors):.1e}, max {errors.max():.1e}"
        )


def ant_resets() -> None:
    """Prints what 1,000 resets of the ant draw."""
    print("\nant: 1,000 resets")
    for maze in MAZES.values():
        env = antmaze.AntMaze(maze)
        corner = antmaze.cell_position(*antmaze.find(maze, "G"), maze)
        states, goals = [], []
        for seed in range(1000):
            states.append(env.reset(seed=seed)[0])
            goals.append(env.goal - corner)
        drawn, offsets = np.array(states), np.array(goals)
        places = np.delete(drawn[:, :15], range(3, 7), axis=1) - [0, 0, 0.75, *[0] * 8]
        print(
            f"  {maze:7} goal {corner} + [{offsets.min():.3f}, {offsets.max():.3f}], mean "
            f"{offsets.mean():.3f}; places within {np.abs(places).max():.3f}; quaternion's length "
            f"1 to {np.abs(np.linalg.norm(drawn[:, 3:7], axis=1) - 1).max():.0e}; velocities' sd "
            f"{drawn[:, 15:].std():.4f}; mass {env.model.body_mass.sum():.5f}"
        )


def point_resets() -> None:
    """Prints what 10,000 resets of the point draw."""
    print("\npoint: 10,000 resets")
    for maze in MAZES.values():
        rows = maze2d.Maze2dVector(10_000, maze)
        drawn, _ = rows.reset(seed=list(range(10_000)))
        cells, counts = np.unique(drawn[:, :2].round(), axis=0, return_counts=True)
        noise = drawn[:, :2] - drawn[:, :2].round()
        print(
            f"  {maze:7} {len(cells)} cells, {counts.min()} to {counts.max()} times each; noise "
            f"within {np.abs(noise).max():.3f}; velocities' sd {drawn[:, 2:].std():.4f}; target "
            f"{rows.target.tolist()}"
        )


def point_references(episodes: int) -> None:
    """Prints D4RL's reference returns of maze2d beside ours."""
    print(f"\npoint: returns of {episodes} episodes, mean ± standard error")
    print(
        "             published min   random actions    published max   controller kept  a new one"
    )
    for maze in MAZES:
        for kind in ("", "-dense"):
            card = find_card(f"maze2d-{maze}{kind}-v1")
            low, high = card.reference.min, card.reference.max  # type: ignore[union-attr]
            print(
                f"  {maze + kind:12} {low:11.2f} {random_returns(card, episodes):>18} {high:14.2f} "
                f"{controlled_returns(card, episodes, kept=True):>18} "
                f"{controlled_returns(card, episodes, kept=False):>18}"
            )


def random_returns(card: Any, episodes: int) -> str:
    """Mean return of uniformly random actions."""
    rng = np.random.default_rng(0)
    env: Any = environments.make(card.environment).unwrapped
    rows: Any = environments.make_vector(card.environment, episodes)
    rows.reset(seed=list(range(episodes)))
    total = np.zeros(episodes)
    for _ in range(card.environment.max_episode_steps):
        total += rows.step(rng.uniform(-1, 1, (episodes, *env.action_space.shape)))[1]
    return mean(total)


def controlled_returns(card: Any, episodes: int, kept: bool) -> str:
    """Mean return of D4RL's controller, kept for all episodes or made anew for each."""
    env = environments.make(card.environment)
    simulator: Any = env.unwrapped
    rng = np.random.default_rng(0)
    controller = maze2d.WaypointController(simulator.maze, rng)
    found = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        if not kept:
            controller = maze2d.WaypointController(simulator.maze, rng)
        total, over = 0.0, False
        while not over:
            action, _ = controller(observation, simulator.target)
            observation, reward, _, over, _ = env.step(action)
            total += float(reward)
        found.append(total)
    return mean(found)


# --- locomotion and kitchen ---

ROBOTS = ("HalfCheetah", "Hopper", "Walker2d", "Ant")
ANT = Path(__file__).parents[1] / "tests" / "datasets" / "ant_mujoco210.npz"
BODIES = ("body_mass", "body_inertia", "body_ipos", "body_iquat")


def errors_text(errors: Any) -> str:
    """Median, 90 %, 99 % and largest of the largest errors (steps,) or errors (steps, numbers)."""
    figures = np.quantile(errors.reshape(len(errors), -1).max(1), [0.5, 0.9, 0.99, 1])
    return "  ".join(f"{figure:8.1e}" for figure in figures)


def locomotion(_: int) -> None:
    """Prints what docs/simulators.md says of the robots."""
    print("\nlocomotion: one step from each recorded state, |error|: median, 90 %, 99 %, largest")
    if not RECORDED.is_dir():
        print(f"  not measured: no {RECORDED}")
        return
    with np.load(RECORDED / "d4rl_locomotion_mujoco210.npz") as archive:
        recorded = dict(archive)
    with np.load(ANT) as archive:
        recorded |= {f"Ant/{key}": archive[key] for key in archive}
    for name in ROBOTS:
        columns = {key: recorded[f"{name}/{key}"] for key in ("qpos", "qvel", "action")}
        after = recorded[f"{name}/next_qpos"], recorded[f"{name}/next_qvel"]
        mended = getattr(d4rl_locomotion, name)()
        for text, env in (
            ("Gymnasium's v4", gymnasium.make(f"{name}-v4").unwrapped),
            ("offrl's", mended),
        ):
            positions, velocities = after_steps(env, columns)
            print(f"  {name:11} {text:14}  positions  {errors_text(abs(positions - after[0]))}")
            print(f"  {'':11} {'':14}  velocities {errors_text(abs(velocities - after[1]))}")
        model = mended.model
        apart = max(abs(getattr(model, key) - recorded[f"{name}/{key}"]).max() for key in BODIES)
        print(f"  {name:11} masses, inertias and their frames: {apart:.0e} from the recorded")


def after_steps(env: Any, columns: Run) -> tuple[Array, Array]:
    """Positions and velocities after each recorded action from its recorded state."""
    positions, velocities = [], []
    for qpos, qvel, action in zip(
        columns["qpos"], columns["qvel"], columns["action"], strict=False
    ):
        env.reset(seed=0)
        env.set_state(qpos, qvel)
        env.step(action)
        positions.append(env.data.qpos.copy())
        velocities.append(env.data.qvel.copy())
    return np.array(positions), np.array(velocities)


def kitchen(_: int) -> None:
    """Prints what docs/simulators.md says of the kitchen."""
    env = d4rl_kitchen.Kitchen()
    seen = np.array([env.reset(seed=seed)[0][:30] - env.data.qpos for seed in range(1000)])
    groups = np.split(np.abs(seen).max(0), [9, 11, 17, 20, 23, 26, 29])
    widths = ", ".join(f"{group.max():.1e}" for group in groups)
    print(f"\nkitchen: noise of 1,000 first observations, largest: {widths}")
    print("kitchen: one step from each recorded state, |error|: median, 90 %, 99 %, largest")
    if not RECORDED.is_dir():
        print(f"  not measured: no {RECORDED}")
        return
    with np.load(RECORDED / "d4rl_kitchen_mujoco210.npz") as archive:
        recorded = dict(archive)
    for text, model in kitchen_models():
        env.model, env.data = model, mujoco.MjData(model)
        arm: list[Array] = []
        objects: list[Array] = []
        controls: Any = 0.0
        for episode in sorted({key.partition("/")[0] for key in recorded} - {"model"}, key=int):
            columns = {key: recorded[f"{episode}/{key}"] for key in ("qpos", "qvel", "action")}
            positions, _velocities = after_steps(env, columns)
            apart = abs(positions - columns["qpos"][1:])
            arm.append(apart[:, :9].max(1))
            objects.append(apart[:, 9:].max(1))
            controls = max(controls, abs(env.data.ctrl - recorded[f"{episode}/ctrl"][-1]).max())
        print(f"  {text:38} arm     {errors_text(np.concatenate(arm))}")
        print(f"  {'':38} objects {errors_text(np.concatenate(objects))}")
    print(f"  targets of the arm: {controls:.0e} from the recorded")


def kitchen_models() -> Iterator[tuple[str, Any]]:
    """Gymnasium-Robotics' model as it is, with the mends one after another, and offrl's."""
    path = str(d4rl_kitchen.model_path())
    model = mujoco.MjModel.from_xml_path(path)
    yield "Gymnasium-Robotics' as it is", model
    pedestal = body_geoms(model, model.body("panda0_link0").parentid[0])
    model.geom_contype[pedestal] = model.geom_conaffinity[pedestal] = 0
    if hasattr(mujoco.mjtDisableBit, "mjDSBL_NATIVECCD"):
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_NATIVECCD
    yield "+ pedestal and native collisions off", model
    yield "+ boxes and inertias: offrl's", d4rl_kitchen.kitchen_model()


# --- speed ---

ENVIRONMENTS = [  # name, rows, steps, whether it simulates many rows by itself
    ("offrl.datasets.neorl2_simulators:offrl/DMSD-v0", 1000, 100, True),
    ("offrl.datasets.neorl2_simulators:offrl/SafetyHalfCheetah-v0", 10, 1000, False),
    ("offrl.datasets.d4rl_antmaze:offrl/AntMazeLarge-v2", 5, 300, False),
    ("offrl.datasets.d4rl_locomotion:offrl/HalfCheetah-D4RL-v2", 10, 300, True),
    ("offrl.datasets.d4rl_locomotion:offrl/HalfCheetah-D4RL-v2", 10, 300, False),
    ("offrl.datasets.d4rl_kitchen:offrl/KitchenLightSlider-v0", 5, 100, False),
    ("offrl.datasets.d4rl_maze2d:offrl/Maze2dLarge-v1", 100, 800, True),
    ("offrl.datasets.d4rl_maze2d:offrl/Maze2dLarge-v1", 20, 800, False),  # as others are played
]


def speed(_: int) -> None:
    """Episodes and steps per second of one process; medians of 5 rounds, in turn."""
    print("\nspeed")
    rounds = [[measure(*environment) for environment in ENVIRONMENTS] for _ in range(5)]
    for (name, rows, steps, vectorised), seconds in zip(
        ENVIRONMENTS, np.median(rounds, 0), strict=True
    ):
        print(
            f"  {name.partition(':')[2]:28} {rows:4} {'in one' if vectorised else 'objects'}: "
            f"{seconds:.2f} s, {rows * steps / seconds:,.0f} steps/s"
        )
    native, others = np.array(rounds)[:, -2] / 100, np.array(rounds)[:, -1] / 20
    print(f"  maze2d, objects over in one, per episode: {np.median(others / native):.1f}")


def measure(name: str, rows: int, steps: int, vectorised: bool) -> float:
    """Seconds for `rows` episodes in lockstep, resets and a 256-256 policy included."""
    if vectorised:
        env: Any = gymnasium.make_vec(name, rows)
    else:
        env = SyncVectorEnv([lambda: gymnasium.make(name)] * rows, autoreset_mode="Disabled")
    rng = np.random.default_rng(0)
    sizes = [env.single_observation_space.shape[0], 256, 256, env.single_action_space.shape[0]]
    layers = [rng.normal(size=pair).astype(np.float32) / pair[0] for pair in pairwise(sizes)]

    start = time.perf_counter()
    observations, _ = env.reset(seed=list(range(rows)))
    for _ in range(steps):
        hidden = np.asarray(observations, np.float32)
        for layer in layers[:-1]:
            hidden = np.maximum(hidden @ layer, 0)
        observations, _, terminations, _, _ = env.step(np.tanh(hidden @ layers[-1]))
    elapsed = time.perf_counter() - start
    assert not terminations.any()
    env.close()
    return elapsed


FAMILIES: dict[str, Callable[[int], None]] = {
    "mazes": mazes,
    "locomotion": locomotion,
    "kitchen": kitchen,
    "speed": speed,
}


def main() -> None:
    """Prints the families that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("families", nargs="*", help=", ".join(FAMILIES))
    parser.add_argument("--episodes", type=int, default=200, help="of each reference return")
    options = parser.parse_args()
    if unknown := set(options.families) - set(FAMILIES):
        parser.error(f"no family {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")
    print(f"MuJoCo {mujoco.__version__}, numpy {np.__version__}")
    for name in options.families or FAMILIES:
        FAMILIES[name](options.episodes)


if __name__ == "__main__":
    main()
