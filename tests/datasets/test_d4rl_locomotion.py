"""D4RL's robots against steps of gym's v2 tasks on MuJoCo 2.1.0, and capsules against cylinders."""

import importlib
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from offrl.data.card import Environment, find_card
from offrl.datasets import d4rl_locomotion
from offrl.evaluation.capsules import (
    capsule_moments,
    cylinder_moments,
    restore_bodies,
    restore_inertia,
    turned,
)
from offrl.evaluation.environments import make, make_vector

Array = NDArray[Any]
RUNNERS = ["HalfCheetah", "Hopper", "Walker2d"]
ROBOTS = [*RUNNERS, "Ant"]


def robot(name: str) -> Any:
    """The robot's simulator, as a card names it."""
    environment = find_card(f"{name.lower()}-medium-v2").environment
    assert environment is not None
    return make(environment)


@pytest.fixture(scope="module")
def steps(shared: Path) -> dict[str, Array]:
    path = shared / "data" / "d4rl_simulators" / "d4rl_locomotion_mujoco210.npz"
    with np.load(path) as archive:
        return dict(archive) | ant_steps()


def ant_steps() -> dict[str, Array]:
    """Those of the ant, which `benchmarks/mujoco210.py` recorded."""
    with np.load(Path(__file__).parent / "ant_mujoco210.npz") as archive:
        return {f"Ant/{key}": archive[key] for key in archive}


def errors(env: Any, steps: dict[str, Array], name: str) -> Array:
    """The largest errors (steps, 2) of positions and velocities after each step."""
    found = []
    for row in range(len(steps[f"{name}/action"])):
        env.reset(seed=0)
        env.unwrapped.set_state(steps[f"{name}/qpos"][row], steps[f"{name}/qvel"][row])
        env.step(steps[f"{name}/action"][row])
        found.append(
            [
                abs(getattr(env.unwrapped.data, key) - steps[f"{name}/next_{key}"][row]).max()
                for key in ("qpos", "qvel")
            ]
        )
    return np.array(found)


# --- the recorded steps ---


@pytest.mark.parametrize("name", RUNNERS)
def test_every_step_is_that_of_mujoco_210(steps: dict[str, Array], name: str) -> None:
    found = errors(robot(name), steps, name)
    assert found.shape == (600, 2)
    assert found.max() < 1e-9


def test_every_step_of_an_ant_is_that_of_mujoco_210() -> None:
    """Its reward too, made of how far the recorded torso moved: gym's v2, without a force."""
    steps = ant_steps()
    env = robot("Ant")
    found = errors(env, steps, "Ant")
    assert found.shape == (40, 2)
    assert found.max() < 1e-9
    assert not steps["Ant/force"].any()
    for row, action in enumerate(steps["Ant/action"]):
        env.reset(seed=0)
        env.unwrapped.set_state(steps["Ant/qpos"][row], steps["Ant/qvel"][row])
        observation, reward, terminated, *_ = env.step(action)
        qpos, qvel = steps["Ant/next_qpos"][row], steps["Ant/next_qvel"][row]
        expected = steps["Ant/moved"][row] / 0.05 - 0.5 * np.square(action).sum() + 1
        assert reward == pytest.approx(expected, abs=1e-9)
        np.testing.assert_allclose(observation, [*qpos[2:], *qvel, *np.zeros(84)], atol=1e-9)
        assert terminated == (not 0.2 <= qpos[2] <= 1.0)


def test_an_ants_quaternion_is_normalised_at_a_reset() -> None:
    env = robot("Ant")
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        assert np.linalg.norm(observation[1:5]) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "position", "velocity"),
    [
        ("HalfCheetah", 1e-2, 1.0),
        ("Hopper", 3e-4, 0.07),
        ("Walker2d", 1e-2, 3.0),
        ("Ant", 1e-3, 0.015),
    ],
)
def test_gymnasiums_v4_makes_other_steps(
    steps: dict[str, Array], name: str, position: float, velocity: float
) -> None:
    env = make(Environment(id=f"{name}-v4", max_episode_steps=1000))
    found = errors(env, steps, name).max(0)
    assert found[0] > position
    assert found[1] > velocity


@pytest.mark.parametrize("name", ROBOTS)
def test_bodies_are_those_that_mujoco_210_compiled(steps: dict[str, Array], name: str) -> None:
    model = robot(name).unwrapped.model
    stored = {key: steps[f"{name}/body_{key}"] for key in ("mass", "inertia", "ipos", "iquat")}
    np.testing.assert_allclose(model.body_mass, stored["mass"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(model.body_ipos, stored["ipos"], rtol=0, atol=1e-14)
    for body in range(1, model.nbody):
        ours = turned(model.body_inertia[body], model.body_iquat[body])
        theirs = turned(stored["inertia"][body], stored["iquat"][body])
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


# --- without them ---


def test_half_cheetah_keeps_its_total_mass() -> None:
    model = robot("HalfCheetah").unwrapped.model
    assert model.body_mass.sum() == pytest.approx(14)
    head_and_torso = [0.046**2 * (1 + 0.046), 0.046**2 * (0.3 + 0.046)]  # r^2 (2 h + r)
    others = [0.046**2 * (2 * h + 0.046) for h in (0.145, 0.15, 0.094, 0.133, 0.106, 0.07)]
    share = sum(head_and_torso) / sum(head_and_torso + others)
    assert model.body("torso").mass[0] == pytest.approx(14 * share)


@pytest.mark.parametrize("name", ROBOTS)
def test_actions_are_clipped_before_they_cost(name: str) -> None:
    env = robot(name)
    rewards = []
    for size in (1.0, 3.0):
        env.reset(seed=0)
        rewards.append(env.step(np.full(env.action_space.shape, size, np.float32))[1])
    assert rewards[0] == rewards[1]


# The check warns of unbounded observations; these states have no bounds.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity")
@pytest.mark.parametrize("name", ROBOTS)
def test_passes_gymnasiums_checks(name: str) -> None:
    env = gymnasium.make(f"offrl/{name}-D4RL-v2")
    check_env(env.unwrapped, skip_render_check=True)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 1000


def test_a_second_import_registers_nothing_again() -> None:
    before = gymnasium.registry["offrl/Hopper-D4RL-v2"]
    importlib.reload(d4rl_locomotion)  # warnings are errors, and registering twice warns
    assert gymnasium.registry["offrl/Hopper-D4RL-v2"] is before


# --- many at once ---


@pytest.mark.parametrize("name", ROBOTS)
def test_rows_equal_single_environments_bit_for_bit(name: str) -> None:
    """Over ends of episodes of either kind, with seeds of their own and without."""
    limit, rows = 40, 3
    card = Environment(
        id=f"offrl.datasets.d4rl_locomotion:offrl/{name}-D4RL-v2", max_episode_steps=limit
    )
    many = make_vector(card, rows)
    assert isinstance(many, d4rl_locomotion.RobotVector)
    single = [make(card) for _ in range(rows)]
    reset: Any = many.reset
    observations, _ = reset(seed=[5, 6, 7])
    expected = [env.reset(seed=5 + row)[0] for row, env in enumerate(single)]
    np.testing.assert_array_equal(observations, expected)
    rng = np.random.default_rng(0)
    ends: set[str] = set()
    for _ in range(2 * limit):
        actions = rng.uniform(-1.5, 1.5, (rows, *single[0].action_space.shape))  # type: ignore[misc]
        actions = actions.astype(np.float32)
        stepped = many.step(actions)
        alone = [env.step(action) for env, action in zip(single, actions, strict=True)]
        for part in range(4):
            np.testing.assert_array_equal(stepped[part], [step[part] for step in alone])
        over = stepped[2] | stepped[3]
        kinds = zip(("fall", "limit"), stepped[2:4], strict=True)
        ends |= {kind for kind, flags in kinds if flags.any()}
        if over.any():
            seeds = [None if row == 1 else 11 for row in range(rows)]
            observations, _ = reset(seed=seeds, options={"reset_mask": over})
            for row in np.flatnonzero(over):
                first, _ = single[row].reset(seed=seeds[row])
                np.testing.assert_array_equal(observations[row], first)
    assert ends == {"limit"} if name == "HalfCheetah" else "fall" in ends


def test_states_end_an_episode_as_gymnasium_says() -> None:
    """Each limit from both sides: height, angle, and, of the hopper, any number beyond 100."""
    for name in ("Hopper", "Walker2d", "Ant"):
        single = robot(name).unwrapped
        many = getattr(d4rl_locomotion, f"{name}Vector")()
        states = np.zeros((0, single.model.nq + single.model.nv))
        base = np.concatenate([single.init_qpos, single.init_qvel])
        for number, values in (
            (1, [0.69, 0.71, 0.79, 0.81, 1.99, 2.01]),
            (2, [-1.01, -0.99, -0.21, -0.19, 0.19, 0.2, 0.21, 0.99, 1.0, 1.01, np.nan]),
            (4, [-100.1, -99.9, 99.9, 100.1]),
            (len(base) - 1, [99.9, 100.1]),
        ):
            for value in values:
                states = np.vstack([states, base])
                states[-1, number] = value
        qpos, qvel = np.split(states, [single.model.nq], axis=1)
        expected = []
        for row in range(len(states)):
            single.set_state(qpos[row], qvel[row])
            expected.append(single.terminated)
        assert any(expected)
        assert not all(expected)
        np.testing.assert_array_equal(many.fallen(qpos, qvel), expected)


# --- capsules ---

SHAPES = [(0.05, 0.2), (0.08, 0.1), (0.03, 0.4)]  # radius and half length


def chain(kind: str, settotalmass: float = -1.0) -> mujoco.MjModel:
    """A body of two slanted rods, and one of a third that hangs from it."""
    sizes = {"capsule": SHAPES, "cylinder": [(r, h + r / 2) for r, h in SHAPES]}[kind]
    rods = [f'type="{kind}" size="{r} {h}" density="700"' for r, h in sizes]
    return mujoco.MjModel.from_xml_string(f"""
        <mujoco><compiler inertiafromgeom="true" settotalmass="{settotalmass}"/>
        <option><flag contact="disable"/></option><worldbody><body>
        <joint type="slide" axis="1 0 0"/><joint type="hinge" axis="0 1 0"/>
        <geom {rods[0]} pos="0.1 0.2 0" euler="20 50 0"/><geom {rods[1]} pos="-.3 0 .2"/>
        <body pos="0 0 -.4"><joint type="hinge" axis="0 1 0" pos="0 0 .2"/><geom {rods[2]}/></body>
        </body></worldbody></mujoco>""")


@pytest.mark.parametrize("total", [None, 14.0])
def test_capsules_weigh_and_turn_as_cylinders_half_a_radius_longer(total: float | None) -> None:
    """MuJoCo compiles the cylinders itself, and both models then move alike."""
    model, expected = chain("capsule", total or -1.0), chain("cylinder", total or -1.0)
    data, other = mujoco.MjData(model), mujoco.MjData(expected)
    mujoco.mj_step(model, data, 50)
    mujoco.mj_step(expected, other, 50)
    assert abs(data.qpos - other.qpos).max() > 1e-3
    restore_bodies(model, data, keep_total=total is not None)
    for key in ("body_mass", "body_ipos", "body_invweight0", "dof_invweight0", "body_subtreemass"):
        np.testing.assert_allclose(getattr(model, key), getattr(expected, key), atol=1e-12)
    for body in (1, 2):
        np.testing.assert_allclose(
            turned(model.body_inertia[body], model.body_iquat[body]),
            turned(expected.body_inertia[body], expected.body_iquat[body]),
            rtol=0,
            atol=1e-13,
        )
    mujoco.mj_resetData(model, data)
    mujoco.mj_resetData(expected, other)
    mujoco.mj_step(model, data, 50)
    mujoco.mj_step(expected, other, 50)
    np.testing.assert_allclose(data.qpos, other.qpos, rtol=0, atol=1e-10)


def test_moments_of_a_capsule_then_and_now() -> None:
    then = cylinder_moments(2.0, 0.1, 0.3)  # a cylinder of length 0.7
    np.testing.assert_allclose(then, [2 * (0.03 + 0.49) / 12, 2 * (0.03 + 0.49) / 12, 0.01])
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><geom type="capsule" size=".1 .3" mass="2"/></body></worldbody>'
        "</mujoco>"
    )
    np.testing.assert_allclose(capsule_moments(2.0, 0.1, 0.3), model.body_inertia[1])


def test_capsules_of_a_known_mass_leave_the_rest_of_a_body() -> None:
    def compiled(kind: str, half: float) -> mujoco.MjModel:
        return mujoco.MjModel.from_xml_string(f"""
            <mujoco><worldbody><body><geom type="box" size=".1 .2 .3" mass="3"/>
            <geom type="{kind}" size=".05 {half}" mass=".5" pos=".3 0 0" euler="0 40 0"/>
            </body></worldbody></mujoco>""")

    model, expected = compiled("capsule", 0.2), compiled("cylinder", 0.225)
    restore_inertia(model, 1, [1], 0.5)
    np.testing.assert_allclose(
        turned(model.body_inertia[1], model.body_iquat[1]),
        turned(expected.body_inertia[1], expected.body_iquat[1]),
        rtol=0,
        atol=1e-12,
    )
    np.testing.assert_allclose(model.body_ipos, expected.body_ipos, atol=1e-15)


def test_a_body_of_capsules_and_something_else_is_refused() -> None:
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><geom size="1"/><geom type="capsule" size="1 1"/></body>'
        "</worldbody></mujoco>"
    )
    with pytest.raises(ValueError, match="body 1: expected capsules alone"):
        restore_bodies(model, mujoco.MjData(model))
