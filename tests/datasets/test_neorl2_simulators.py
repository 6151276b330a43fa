"""NeoRL-2's simulators beside DMSD and SafetyHalfCheetah, which test_simulators.py has.

Numbers marked as published are of the validation files of polixir/neorl2_dataset at a06cd69, whose
episode i starts from seed i.
"""

import math
import random
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from scipy.integrate import ode

from offrl.data.card import find_card, shipped_cards
from offrl.datasets import neorl2_hopper as hopper
from offrl.datasets import neorl2_pipeline as pipeline
from offrl.datasets import neorl2_simglucose as simglucose
from offrl.errors import InputError
from offrl.evaluation.environments import make, native, spaces

Array = NDArray[Any]
TASKS = ("pipeline", "simglucose", "rocket-recovery", "random-friction-hopper")


def pcg(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def made_up_patients() -> tuple[Array, dict[str, Array]]:
    """15 patients who never were, in the ranges of simglucose's."""
    scale = 1 + 0.01 * np.arange(15)
    values = {
        **{"BW": 60.0, "Fsnc": 1.0, "Ib": 100.0, "Km0": 250.0, "Vi": 0.05, "Vm0": 5.0},
        **{"Vmx": 0.07, "b": 0.8, "d": 0.25, "f": 0.9, "k1": 0.06, "k2": 0.07, "ka1": 0.002},
        **{"ka2": 0.012, "kabs": 0.1, "kd": 0.017, "ke1": 5e-4, "ke2": 339.0, "ki": 0.009},
        **{"kmax": 0.03, "kp1": 7.0, "kp2": 0.01, "kp3": 0.01, "ksc": 0.06, "m1": 0.17},
        **{"m2": 0.28, "m30": 0.25, "m4": 0.11, "p2u": 0.03, "u2ss": 1.2, "kmin": 0.01},
        "Vg": 1.7,
    }
    states = np.array([0, 0, 0, 250.0, 170.0, 5.0, 0, 100.0, 100.0, 3.0, 60.0, 90.0, 250.0])
    return np.tile(states[:, None], 15), {key: value * scale for key, value in values.items()}


@pytest.fixture
def patients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simglucose, "patients", made_up_patients)


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, patients: None) -> Any:  # noqa: ARG001
    """The environment of a card."""
    if request.param == "rocket-recovery":
        pytest.importorskip("Box2D")
    card = find_card(f"neorl2-{request.param}")
    assert card.environment is not None
    return card.environment


# --- all of them ---


@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity")
def test_passes_gymnasiums_checks_and_is_what_its_card_says(task: Any) -> None:
    env = make(task)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.spec is not None
    spec = gymnasium.spec(task.id.rpartition(":")[2])
    assert env.spec.max_episode_steps == spec.max_episode_steps == task.max_episode_steps
    size, actions = spaces(task)
    assert (size, actions.bound) in {(52, 1), (31, 1), (7, 1), (13, 1)}
    assert native(task)


def test_rows_equal_single_environments_and_episodes_are_independent(task: Any) -> None:
    def vector(mode: str, **more: Any) -> Any:
        return gymnasium.make_vec(
            task.id, num_envs=3, vectorization_mode=mode, max_episode_steps=5, **more
        )

    disabled = {"autoreset_mode": AutoresetMode.DISABLED}
    rows, singles = vector("vector_entry_point"), vector("sync", vector_kwargs=disabled)
    assert rows.observation_space == singles.observation_space
    assert rows.action_space == singles.action_space
    rng = np.random.default_rng(3)

    def same(left: tuple[Any, ...], right: tuple[Any, ...]) -> Array:
        for one, other in zip(left[:-1], right[:-1], strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        return np.array(left[0])

    def reset(seed: list[int | None], *mask: bool) -> Array:
        both = [env.reset(seed=seed, options={"reset_mask": np.array(mask)}) for env in pair]
        return same(*both)

    def step() -> None:
        actions = rng.uniform(-1.2, 1.2, rows.action_space.shape).astype(np.float32)
        same(rows.step(actions), singles.step(actions))

    pair = (rows, singles)
    first = reset([7, 2**40 + 1, 4], True, True, True)
    assert len(np.unique(first, axis=0)) == 3
    step()
    reset([None, 11, None], False, True, False)  # row 1 alone, before its end
    for _ in range(4):
        step()
    again = reset([7, None, None], True, False, True)  # row 2's generators carry on
    np.testing.assert_array_equal(again[0], first[0])
    assert (again[2] != first[2]).any()
    step()


def test_fusion_is_refused_by_what_is_missing() -> None:
    card = shipped_cards()["neorl2-fusion"]
    assert card.environment is None
    with pytest.raises(InputError, match=r"30 networks .* \(ONNX, 25 MB\), which do not ship"):
        card.scoring()


# --- RandomFrictionHopper ---


def test_hoppers_start_as_the_published_ones() -> None:
    env: Any = gymnasium.make("offrl/RandomFrictionHopper-v0")
    published = {  # height and friction
        0: (1.2476978302001953, 2.344421863555908),
        1: (1.254504680633545, 1.6343642473220825),
        217: (1.2522506713867188, 2.4603254795074463),
    }
    for seed, expected in published.items():
        observation, _ = env.reset(seed=seed)
        np.testing.assert_allclose(observation[[1, 12]], expected, rtol=1e-7)
        # Rounded in the model alone.
        assert observation[12] == random.Random(seed).uniform(1.5, 2.5)
        model = env.unwrapped.model
        assert model.geom_friction[model.geom("foot_geom").id, 0] == round(observation[12], 2)


def test_hoppers_step_as_the_published_ones() -> None:
    env = gymnasium.make("offrl/RandomFrictionHopper-v0")
    env.reset(seed=1)
    published = [  # action, reward, place, height and angle
        ([-0.28762224, -0.37675619, 1.0], -0.018027274, [-1.62045671e-05, 1.25408888, -0.00570973]),
        ([0.16848628, -0.47998112, 1.0], -0.050021213, [-0.0004063041, 1.25285017, -0.01041063]),
        ([0.51615709, -0.61126035, 1.0], -0.08238629, [-0.00105227, 1.250777, -0.01626057]),
    ]
    for action, expected, state in published:
        observation, reward, *_ = env.step(np.array(action, np.float32))
        assert reward == pytest.approx(expected, abs=1e-7)
        np.testing.assert_allclose(observation[:3], state, atol=1e-7)


def test_a_hopper_pays_raw_actions_and_nothing_for_being_upright() -> None:
    rewards = hopper.hopper_reward(np.array([0.0, 2.0]), np.array([[3.0, 0, 4.0], [0, 1.0, 0]]))
    assert rewards == pytest.approx([-0.025, 1.999])
    upright = np.array([5.0, 0.71, 0.19, 0, 0, -99.0, *[10.0] * 6, 2.0])
    observations = np.tile(upright, (5, 1))
    observations[1, 1], observations[2, 2] = 0.7, -0.2
    observations[3, 5], observations[4, 8] = -100.0, np.nan
    assert hopper.fallen(observations).tolist() == [False, True, True, True, True]


# --- Pipeline ---


def test_water_arrives_19_steps_after_the_gate_moved() -> None:
    env: Any = gymnasium.make("offrl/Pipeline-v0")
    observation, _ = env.reset(seed=0)
    flow, target = observation[:2]
    assert flow == np.float32(105.47847)  # published
    np.testing.assert_array_equal(observation[2:], [flow] * 25 + [0] * 25)
    seen = []
    for step in range(60):
        action = np.array([2.5 if step == 0 else -0.5], np.float32)  # the first counts as 1
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(observation[0])
        off = abs(observation[0].astype(float) - observation[1])
        assert reward == pytest.approx(((200 - off) / 100) ** 2 - 3)
        assert not terminated
        assert not truncated
    expected = [flow] * 19 + [flow + 1 - 0.5 * step for step in range(41)]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    np.testing.assert_array_equal(observation[2:27], seen[-2:-27:-1])
    assert observation[27:].tolist() == [-0.5] * 25
    assert target in pipeline.TARGETS


def test_a_gate_keeps_its_bounds() -> None:
    env = gymnasium.make("offrl/Pipeline-v0")
    for action, bound in ((1, 200), (-1, 0)):
        env.reset(seed=1)
        for _ in range(300):
            observation, *_ = env.step(np.array([action], np.float32))
        assert observation[0] == bound


def test_targets_change_by_upstreams_draws() -> None:
    env: Any = gymnasium.make_vec("offrl/Pipeline-v0", num_envs=40)
    observations, _ = env.reset(seed=list(range(40)))
    generators = [pcg(seed) for seed in range(40)]
    targets = np.zeros(40)
    for row, rng in enumerate(generators):
        assert observations[row, 0] == np.float32(rng.uniform(80, 120))
        rng.random()
        targets[row] = rng.choice([50, 80, 110, 140])
    np.testing.assert_array_equal(observations[:, 1], targets)
    changes = 0
    for _ in range(400):
        observations, *_ = env.step(np.zeros((40, 1)))
        for row, rng in enumerate(generators):
            if rng.random() < 0.003:
                targets[row] = rng.choice([50, 80, 110, 140])
                changes += 1
        np.testing.assert_array_equal(observations[:, 1], targets)
    assert 20 < changes < 80  # expected 48, with a deviation of 7


# --- Simglucose ---


def slow_derivatives(
    _: float, x: Array, p: dict[str, float], insulin: float, eaten: float, dose: float
) -> list[float]:
    """The equations of UVA/Padova's model as they are printed, for one patient."""
    q = x[0] + x[1]
    kgut = p["kmax"]
    if dose > 0:
        rises = math.tanh(5 / (2 * dose * (1 - p["b"])) * (q - p["b"] * dose))
        falls = math.tanh(5 / (2 * dose * p["d"]) * (q - p["d"] * dose))
        kgut = p["kmin"] + (p["kmax"] - p["kmin"]) / 2 * (rises - falls + 2)
    excreted = p["ke1"] * (x[3] - p["ke2"]) if x[3] > p["ke2"] else 0.0
    made = max(p["kp1"] - p["kp2"] * x[3] - p["kp3"] * x[8], 0.0)
    appears = p["f"] * p["kabs"] * x[2] / p["BW"]
    change = [
        -p["kmax"] * x[0] + eaten * 1000,
        p["kmax"] * x[0] - x[1] * kgut,
        kgut * x[1] - p["kabs"] * x[2],
        made + appears - p["Fsnc"] - excreted - p["k1"] * x[3] + p["k2"] * x[4],
        -(p["Vm0"] + p["Vmx"] * x[6]) * x[4] / (p["Km0"] + x[4]) + p["k1"] * x[3] - p["k2"] * x[4],
        -(p["m2"] + p["m4"]) * x[5] + p["m1"] * x[9] + p["ka1"] * x[10] + p["ka2"] * x[11],
        -p["p2u"] * x[6] + p["p2u"] * (x[5] / p["Vi"] - p["Ib"]),
        -p["ki"] * (x[7] - x[5] / p["Vi"]),
        -p["ki"] * (x[8] - x[7]),
        -(p["m1"] + p["m30"]) * x[9] + p["m2"] * x[5],
        insulin - (p["ka1"] + p["kd"]) * x[10],
        p["kd"] * x[10] - p["ka2"] * x[11],
        p["ksc"] * (x[3] - x[12]),
    ]
    still = [number for number in (3, 4, 5, 9, 10, 11, 12) if x[number] < 0]
    return [0.0 if number in still else float(value) for number, value in enumerate(change)]


def test_minutes_are_those_of_scipys_dopri5() -> None:
    states, parameters = made_up_patients()
    x, rng = states.copy(), np.random.default_rng(0)
    solver = ode(slow_derivatives).set_integrator("dopri5")
    dose = np.zeros(15)
    worst = np.zeros(13)
    for when in range(75):
        insulin = rng.uniform(0, 20, 15)
        eaten = np.full(15, 5.0 if when % 60 < 9 else 0.0)
        if when % 60 < 9:
            dose = (x[0] + x[1] if when % 60 == 0 else dose) + 5000
        after = simglucose.minute(x, parameters, insulin, eaten, dose)
        for row in (0, 14):
            p = {key: float(values[row]) for key, values in parameters.items()}
            solver.set_initial_value(x[:, row], 0)
            solver.set_f_params(p, insulin[row], eaten[row], dose[row])
            worst = np.maximum(worst, np.abs(solver.integrate(1) - after[:, row]))
        x = after
    assert x[0].max() > 1000  # mg are in the stomach
    assert worst[:3].max() < 0.1  # mg, where 5,000 are eaten in a minute
    assert worst[3:].max() < 5e-5  # glucose and insulin, of 170 and more


def test_negative_states_stay_and_kidneys_work_from_a_threshold_on() -> None:
    states, parameters = made_up_patients()
    x = states.copy()
    x[[3, 10], 0] = -1.0
    x[3, 1], x[3, 2] = 339 * 1.01 + 100, 339 * 1.02  # two patients' thresholds
    zero = np.zeros(15)
    change = simglucose.derivatives(x, parameters, zero + 9, zero, zero)
    assert change[3, 0] == change[10, 0] == 0
    for row in range(3):
        p = {key: float(values[row]) for key, values in parameters.items()}
        np.testing.assert_allclose(
            change[:, row], slow_derivatives(0, x[:, row], p, 9.0, 0.0, 0.0), rtol=1e-12
        )


def test_pumps_give_multiples_of_their_step() -> None:
    given = simglucose.pumped(np.array([-1.0, 1.0, 3.0, 0.0, -0.99999]))
    assert given == pytest.approx([0, 30000, 30000, 15000, 0.15])
    steps = simglucose.pumped(np.linspace(-1, 1, 999)) / 0.05
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)


def test_glucose_is_paid_by_the_risk_that_it_loses() -> None:
    # Zero risk is where ln(c)^1.084 = 5.381, near 112.5 mg/dL.
    best = math.exp(5.381 ** (1 / 1.084))
    assert simglucose.risk(np.array(best)) == pytest.approx(0, abs=1e-20)
    assert simglucose.glucose_reward(np.array(best), np.array(best)) == pytest.approx(1)
    high = 10 * (1.509 * (math.log(300) ** 1.084 - 5.381)) ** 2
    rewards = simglucose.glucose_reward(
        np.array([best, 300.0, 50.0, 590.0, 100.0]), np.array([300.0, best, 40.0, 600.0, 599.9])
    )
    assert rewards[:2] == pytest.approx([1 - high / 100, 1 + high / 100])
    assert rewards[2:4].tolist() == [-15, 0]
    assert rewards[4] < 0.5


def test_patients_who_are_alike_part_when_they_eat(monkeypatch: pytest.MonkeyPatch) -> None:
    states, parameters = made_up_patients()
    alike = states, {key: np.full(15, values[0]) for key, values in parameters.items()}
    monkeypatch.setattr(simglucose, "patients", lambda: alike)
    env: Any = gymnasium.make_vec("offrl/Simglucose-v0", num_envs=60)
    hours = []
    for seed in range(60):
        rng = np.random.RandomState(seed)
        rng.randint(0, 1000)
        hours.append(int(rng.randint(0, 24)))
    observations, _ = env.reset(seed=list(range(60)))
    np.testing.assert_allclose(observations[:, 0], 250 / 1.7, rtol=1e-6)
    glucose = []
    for _ in range(50):
        observations, _, terminations, _, _ = env.step(np.full((60, 1), -1.0))
        assert not terminations.any()
        glucose.append(observations[:, 0])
    late = hours.index(22)  # nine hours before breakfast
    apart = np.abs(np.stack(glucose) - np.stack(glucose)[:, late : late + 1]) > 1e-3  # (50, 60)
    for hour, parts in zip(hours, apart.T, strict=True):
        until = min((meal - 60 * hour) % 1440 for meal in simglucose.MEALS) // 3  # steps
        assert not parts[:until].any()
        assert parts[until + 5 :].all()


@pytest.mark.usefixtures("patients")
def test_an_overdose_ends_an_episode_by_the_blood_not_by_the_sensor() -> None:
    env: Any = gymnasium.make_vec("offrl/Simglucose-v0", num_envs=24)
    env.reset(seed=list(range(24)))
    ended, seen = np.zeros(24, bool), np.zeros(24)
    for _ in range(120):
        observations, _, terminations, _, _ = env.step(np.ones((24, 1)))
        seen[terminations & ~ended] = observations[terminations & ~ended, 0]
        ended |= terminations
        if ended.all():
            break
        if terminations.any():
            env.reset(options={"reset_mask": terminations})
    assert ended.all()
    assert (seen > 40).any()


def test_patients_come_from_simglucose_or_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    simglucose.patients.cache_clear()
    monkeypatch.setattr(simglucose, "find_spec", lambda _: None)
    environment = find_card("neorl2-simglucose").environment
    assert environment is not None
    with pytest.raises(InputError, match=r"missing: pip install --no-deps simglucose==0\.2\.11"):
        make(environment)


def test_patients_are_the_published_ones() -> None:
    simglucose.patients.cache_clear()
    try:
        states, _ = simglucose.patients()
    except InputError as error:
        pytest.skip(str(error))
    assert states.shape == (13, 15)
    env: Any = gymnasium.make_vec("offrl/Simglucose-v0", num_envs=2)
    observations, _ = env.reset(seed=[0, 1])
    published = [
        [138.55999755859375, 102.31999969482422, 1.0, 100.25],
        [133.83106994628906, 41.23303985595703, 1.0, 96.38653564453125],
    ]
    np.testing.assert_array_equal(observations[:, :4], np.array(published, np.float32))
    _, rewards, *_ = env.step(np.array([[-0.96013838], [-0.99138945]]))
    np.testing.assert_allclose(rewards, [0.99999988, 1.0], atol=1e-7)
