"""NeoRL-2's RocketRecovery; what all simulators of NeoRL-2 hold, test_neorl2_simulators.py has.

Numbers marked as published are of the validation file of polixir/neorl2_dataset at a06cd69, whose
episode i starts from seed i.
"""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from offrl.data.card import find_card
from offrl.datasets import neorl2_rocket as rocket
from offrl.errors import InputError
from offrl.evaluation.environments import make


def test_rockets_fly_as_the_published_ones() -> None:
    pytest.importorskip("Box2D")
    phases = {0: 6635, 1: -8316}  # of the wind, found in the files

    class Published(rocket.RocketRecoveryVector):
        def generator(self, seed: int | None) -> Any:
            draws = super().generator(seed)
            phase: Callable[..., int] = lambda *_: phases[seed or 0]  # noqa: E731
            return SimpleNamespace(steps=draws.steps, phases=SimpleNamespace(randint=phase))

    env = Published(2)
    first = [
        [0.0029263496, 1.4046766758, 0.2964037359, -0.2774833739, -0.0033842411, -0.0671398044],
        [-0.001335907, 1.4138100147, -0.1353285611, 0.1284372658, 0.0015547654, 0.0306539424],
    ]
    steps = [  # actions, rewards, next observations
        (
            [[-1.0, -1.0], [-1.0, -0.02582104504108429]],
            [-1.074143648147583, 1.4559478759765625],
            [
                [0.00584993, 1.3978657, 0.29379335, -0.30271894, -0.00480241, -0.02836577],
                [-0.00265226, 1.4161218, -0.13316134, 0.10275184, 0.00305977, 0.03010347],
            ],
        ),
        (
            [[-1.0, -0.8929249048233032], [-1.0, 0.06295174360275269]],
            [-1.1042566299438477, 1.300811767578125],
            [
                [0.00877495, 1.3904505, 0.29212445, -0.3295669, -0.00442315, 0.00758607],
                [-0.0039526, 1.4178343, -0.13154812, 0.07610461, 0.00455574, 0.02992219],
            ],
        ),
    ]
    observations, _ = env.reset(seed=[0, 1])
    np.testing.assert_allclose(observations[:, :6], first, atol=1e-8, rtol=1e-7)
    np.testing.assert_allclose(observations[:, 6], [9.1780424118, 2.8983533382], rtol=1e-7)
    for actions, rewards, expected in steps:
        observations, earned, terminations, _, _ = env.step(np.array(actions))
        np.testing.assert_allclose(earned, rewards, atol=1e-6)
        np.testing.assert_allclose(observations[:, :6], expected, atol=1e-7)
        assert not terminations.any()


def test_a_rocket_is_paid_for_its_potential_and_for_how_it_lands() -> None:
    high = np.array([0.3, 0.4, 0.0, -0.5, 0.2, 0.0, 1.0])
    assert rocket.potential(high) == pytest.approx(-100 * (0.5 + 0.5 + 0.2))
    actions = np.array([[0.5, -0.75], [-1.0, 0.5]])
    main, side = rocket.engine_powers(actions)
    assert main.tolist() == [0.75, 0]
    assert side.tolist() == [0.75, 0]
    rewards, down = rocket.rocket_reward(np.stack([high] * 2), actions, np.stack([high] * 2))
    assert rewards == pytest.approx([-0.3 * 0.75 - 0.03 * 0.75, 0])
    assert not down.any()
    after = np.stack([high] * 4)
    after[:, 1] = [0.05, -0.05, 0.02, 0.0]
    after[1, 4], after[2, 2], after[3, 3] = 0.3, -0.5, -2.0  # slanted, drifting, fast
    rewards, down = rocket.rocket_reward(after, np.zeros((4, 2)), after)
    assert rewards.tolist() == [100, -100, -100, -100]
    assert down.all()


def test_a_rocket_without_engines_falls_by_gravity_and_wind() -> None:
    pytest.importorskip("Box2D")
    env: Any = gymnasium.make("offrl/RocketRecovery-v0")
    before, _ = env.reset(seed=5)
    winds = []
    for _ in range(25):
        after, _, terminated, _, _ = env.step(np.zeros(2, np.float32))
        winds.append(after[6])
    # Gravity of 10 for half a second, in units of 6.67 metres and 50 frames; legs swing.
    assert after[3] - before[3] == pytest.approx(-10 / 2 * (20 / 3) / 50, rel=0.02)
    assert np.sign(after[2] - before[2]) == np.sign(np.mean(winds))
    while not terminated:
        after, reward, terminated, truncated, _ = env.step(np.zeros(2, np.float32))
        assert not truncated
    assert reward == -100
    assert abs(after[1]) <= 0.05


def test_rockets_without_box2d_are_refused_by_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    environment = find_card("neorl2-rocket-recovery").environment
    assert environment is not None
    with pytest.raises(InputError, match=r"pip install 'offrl\[box2d\]'"):
        make(environment)
