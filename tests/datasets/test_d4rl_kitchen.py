"""D4RL's kitchen against steps of D4RL's own model on MuJoCo 2.1.0, and its rules by hand."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from offrl.data.card import find_card
from offrl.datasets import d4rl_kitchen as kitchen
from offrl.errors import InputError
from offrl.evaluation.capsules import turned
from offrl.evaluation.environments import make

Array = NDArray[Any]
EPISODES = (0, 5, 9, 11, 14, 15)
WIDTHS = (  # of D4RL's noise, by index in qpos
    *([0.01] * 9 + [5e-4] * 2 + [5e-5] * 6 + [5e-4] * 3),
    *([0.01] * 3 + [5e-4] * 3 + [0.01] * 3 + [5e-4]),
)
IDLE = np.zeros(9, np.float32)


@pytest.fixture(scope="module")
def env() -> Any:
    environment = find_card("kitchen-complete-v0").environment
    assert environment is not None
    return make(environment)


@pytest.fixture(scope="module")
def steps(shared: Path) -> dict[str, Array]:
    path = shared / "data" / "d4rl_simulators" / "d4rl_kitchen_mujoco210.npz"
    with np.load(path) as archive:
        return dict(archive)


def start(env: Any, **elements: list[float]) -> None:
    """A new episode in the state of a reset, but for elements that are put somewhere."""
    env.reset(seed=0)
    qpos = env.unwrapped.data.qpos.copy()
    for name, values in elements.items():
        qpos[kitchen.GOALS[name.replace("_", " ")][0]] = values
    env.unwrapped.set_state(qpos, np.zeros(29))


# --- the recorded steps ---


def test_steps_are_nearly_those_of_mujoco_210(env: Any, steps: dict[str, Array]) -> None:
    arm, objects, controls = [], [], []
    for episode in EPISODES:
        qpos, qvel, action, ctrl = (
            steps[f"{episode}/{key}"] for key in ("qpos", "qvel", "action", "ctrl")
        )
        for row in range(len(action)):
            env.reset(seed=0)
            env.unwrapped.set_state(qpos[row], qvel[row])
            env.step(action[row])
            away = abs(env.unwrapped.data.qpos - qpos[row + 1])
            arm.append(away[:9].max())
            objects.append(away[9:].max())
            controls.append(abs(env.unwrapped.data.ctrl - ctrl[row]).max())
    assert len(arm) == 840
    assert max(controls) < 1e-12
    assert np.quantile(arm, 0.9) < 1e-6
    assert np.quantile(arm, 0.99) < 2e-4
    assert max(arm) < 3e-3
    assert np.median(objects) < 1e-9
    assert np.quantile(objects, 0.99) < 1e-3
    assert max(objects) < 1e-2


def test_bodies_are_those_that_mujoco_210_compiled(env: Any, steps: dict[str, Array]) -> None:
    model = env.unwrapped.model
    stored = {key: steps[f"model/body_{key}"] for key in ("mass", "inertia", "ipos", "iquat")}
    np.testing.assert_array_equal(model.body_mass, stored["mass"])
    np.testing.assert_allclose(model.body_ipos, stored["ipos"], rtol=0, atol=1e-8)
    for body in range(1, model.nbody):
        if model.body_weldid[body]:  # what is fixed moves nothing
            ours = turned(model.body_inertia[body], model.body_iquat[body])
            theirs = turned(stored["inertia"][body], stored["iquat"][body])
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8)
    capsules = [model.body(name).id for name in kitchen.CAPSULE_BODIES]
    np.testing.assert_allclose(
        model.body_inertia[capsules], stored["inertia"][capsules], rtol=0, atol=1e-15
    )


def test_a_reset_is_the_recorded_one(env: Any, steps: dict[str, Array]) -> None:
    env.reset(seed=3)
    np.testing.assert_array_equal(env.unwrapped.data.qpos, steps["0/qpos"][0])
    np.testing.assert_array_equal(env.unwrapped.data.qvel, steps["0/qvel"][0])


# --- observations and control ---


def test_noise_has_d4rls_widths_and_goals_have_none(env: Any) -> None:
    observations = np.array([env.reset(seed=seed)[0] for seed in range(300)])
    noise = observations[:, :30] - env.unwrapped.data.qpos
    assert (abs(noise) <= WIDTHS).all()
    assert (abs(noise).max(0) > 0.97 * np.array(WIDTHS)).all()
    np.testing.assert_allclose(noise.std(0), np.array(WIDTHS) / np.sqrt(3), rtol=0.12)
    goal = np.zeros(30)
    goal[[17, 18, 19, 22]] = -0.69, -0.05, 0.37, -0.75
    goal[23:] = -0.23, 0.75, 1.62, 0.99, 0, 0, -0.06
    np.testing.assert_array_equal(observations[:, 30:], np.tile(goal, (300, 1)))


def test_mixed_has_the_burner_for_the_cabinet() -> None:
    environment = find_card("kitchen-mixed-v0").environment
    assert environment is not None
    observation, _ = make(environment).reset(seed=0)
    np.testing.assert_array_equal(observation[30 + 11 : 30 + 13], [-0.88, -0.01])
    assert observation[30 + 19] == 0
    assert np.count_nonzero(observation[30:]) == 2 + 2 + 1 + 5


def test_targets_start_at_the_last_observation(env: Any) -> None:
    observation, _ = env.reset(seed=1)
    for number in range(3):
        action = np.full(9, 0.4 * number, np.float32)
        expected = observation[:9] + 2 * 0.08 * action.astype(np.float64)
        expected[7:] = expected[7:].clip(0.0, 0.04)  # the fingers' limits
        observation = env.step(action)[0]
        np.testing.assert_allclose(env.unwrapped.data.ctrl, expected, rtol=0, atol=1e-12)
    env.step(np.full(9, 5.0, np.float32))
    expected = (observation[:9] + 2 * 0.08).clip(kitchen.LOW, kitchen.HIGH)
    np.testing.assert_allclose(env.unwrapped.data.ctrl, expected, rtol=0, atol=1e-12)


def test_the_kettle_stands_where_it_stood(env: Any) -> None:
    """As MuJoCo 3.4 sees boxes it stands 0.08 mm elsewhere."""
    env.reset(seed=0)
    for _ in range(10):
        env.step(IDLE)
    assert env.unwrapped.data.qpos[25] == pytest.approx(1.619352, abs=1e-5)


def test_the_pedestal_touches_nothing() -> None:
    model = kitchen.kitchen_model()
    pedestal = model.body_parentid[model.body("panda0_link0").id]
    geoms = np.flatnonzero(model.geom_bodyid == pedestal)
    assert len(geoms) == 1
    assert model.geom_type[geoms[0]] == mujoco.mjtGeom.mjGEOM_CYLINDER
    assert not model.geom_contype[geoms[0]]
    assert not model.geom_conaffinity[geoms[0]]


# --- reward and termination ---


def test_an_element_pays_once_and_all_four_end_the_episode(env: Any) -> None:
    goals = {name: goal for name, (_, goal) in kitchen.GOALS.items()}
    start(env)
    assert env.step(IDLE)[1:3] == (0.0, False)
    two = {"microwave": goals["microwave"], "slide_cabinet": goals["slide cabinet"]}
    start(env, **two)
    assert env.step(IDLE)[1:3] == (2.0, False)
    assert env.step(IDLE)[1:3] == (0.0, False)  # both are there still
    env.unwrapped.set_state(
        _with(env, {"light switch": goals["light switch"], "kettle": goals["kettle"]}), np.zeros(29)
    )
    assert env.step(IDLE)[1:3] == (2.0, True)
    env.reset(seed=0)
    assert env.step(IDLE)[1:3] == (0.0, False)


def _with(env: Any, elements: dict[str, list[float]]) -> Array:
    """The state with elements put somewhere."""
    qpos = env.unwrapped.data.qpos.copy()
    for name, values in elements.items():
        qpos[kitchen.GOALS[name][0]] = values
    return np.asarray(qpos)


def test_an_element_is_done_within_a_distance_of_its_observation() -> None:
    observation = np.zeros(60)
    for away, done in ((0.299, True), (0.301, False)):
        observation[22] = -0.75 + away
        assert kitchen.is_done("microwave", observation) == done
        observation[23:30] = -0.23, 0.75, 1.62, 0.99, 0, 0, -0.06
        observation[23:25] += away * np.array([0.6, 0.8])
        assert kitchen.is_done("kettle", observation) == done


# The check warns of unbounded observations; these states have no bounds.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity")
@pytest.mark.parametrize("name", ["LightSlider", "BurnerLight"])
def test_passes_gymnasiums_checks(name: str) -> None:
    env = gymnasium.make(f"offrl/Kitchen{name}-v0")
    check_env(env.unwrapped, skip_render_check=True)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 280


def test_a_second_import_registers_nothing_again() -> None:
    before = gymnasium.registry["offrl/KitchenLightSlider-v0"]
    importlib.reload(kitchen)  # warnings are errors, and registering twice warns
    assert gymnasium.registry["offrl/KitchenLightSlider-v0"] is before


# --- the model's files ---


@pytest.mark.parametrize("change", ["mesh", "chain", "missing"])
def test_other_files_than_d4rls_are_refused(tmp_path: Path, change: str) -> None:
    kitchen.check_files(kitchen.model_folder())
    folder = tmp_path / "kitchen_franka"
    shutil.copytree(kitchen.model_folder(), folder)
    kitchen.check_files(folder)
    mesh = next(folder.rglob("kettle.stl"))
    if change == "missing":
        mesh.unlink()
    elif change == "mesh":
        content = bytearray(mesh.read_bytes())
        content[-1] ^= 1
        mesh.write_bytes(content)
    else:
        chain = next(folder.rglob("kettle_chain.xml"))
        chain.write_text(chain.read_text().replace("mass='.8'", "mass='.9'"))
    with pytest.raises(InputError, match=r"files of the kitchen with SHA-256 .*, expected 74 with"):
        kitchen.check_files(folder)
