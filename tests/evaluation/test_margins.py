"""Contact margins of before MuJoCo 3.5.

`margins_of_mujoco_340.json` has three steps of each of Gymnasium's robots, with contacts, from
MuJoCo 3.4.0: a state, an action and the next state. `tox -e mujoco350` runs this where margins add.
"""

import json
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from offrl.data.card import Environment, Wrapper
from offrl.errors import InputError
from offrl.evaluation import margins
from offrl.evaluation.environments import make

GOLDEN = json.loads(Path(__file__).with_name("margins_of_mujoco_340.json").read_text())
WRAPPER = Wrapper(entry_point="offrl.evaluation.margins:OldMargins")


def model(geoms: str) -> mujoco.MjModel:
    """A floor, and geoms each on a body of its own."""
    bodies = "".join(f"<body><freejoint/>{geom}</body>" for geom in geoms.split("\n"))
    floor = '<geom name="floor" type="plane" size="1 1 1" margin="0.01"/>'
    return mujoco.MjModel.from_xml_string(
        f"<mujoco><worldbody>{floor}{bodies}</worldbody></mujoco>"
    )


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_steps_are_those_of_mujoco_3_4(name: str) -> None:
    env = make(Environment(id=name, max_episode_steps=10, wrappers=[WRAPPER]))
    robot: Any = env.unwrapped
    env.reset(seed=0)
    for step in GOLDEN[name]:
        mujoco.mj_resetData(robot.model, robot.data)
        robot.set_state(np.array(step["qpos"]), np.array(step["qvel"]))
        robot.data.qacc_warmstart[:] = 0
        robot.do_simulation(np.array(step["action"]), robot.frame_skip)
        np.testing.assert_allclose(robot.data.qpos, step["next_qpos"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(robot.data.qvel, step["next_qvel"], rtol=0, atol=1e-9)
    env.close()


def test_shared_margins_are_halved_where_they_add(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = '<geom type="sphere" size="0.1" margin="0.01"/>'
    ghost = '<geom type="sphere" size="0.1" margin="0.3" contype="0" conaffinity="0"/>'
    changed = model(f"{ball}\n{ball}\n{ghost}")
    monkeypatch.setattr(margins, "margins_add", lambda: False)
    margins.restore_margins(changed)
    assert changed.geom_margin.tolist() == [0.01, 0.01, 0.01, 0.3]
    monkeypatch.setattr(margins, "margins_add", lambda: True)
    margins.restore_margins(changed)
    assert changed.geom_margin.tolist() == [0.005, 0.005, 0.005, 0.3]
    alone = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="plane" size="1 1 1"/><body><freejoint/>'
        '<geom type="sphere" size="0.1" margin="0.01"/></body></worldbody></mujoco>'
    )
    margins.restore_margins(alone)  # of a pair with one margin the sum is the larger one
    assert alone.geom_margin.tolist() == [0, 0.01]


@pytest.mark.parametrize(
    ("geoms", "names"),
    [
        ('<geom name="ball" type="sphere" size="0.1" margin="0.02"/>', "floor and ball"),
        (
            '<geom type="sphere" size="0.1" margin="0.01"/>\n'
            '<geom name="bare" type="sphere" size="0.1"/>',
            "floor and bare",
        ),
        (
            '<geom name="ball" type="sphere" size="0.1" margin="0.01" gap="0.005"/>',
            "floor and ball",
        ),
    ],
)
def test_margins_of_several_sizes_and_gaps_are_refused(
    monkeypatch: pytest.MonkeyPatch, geoms: str, names: str
) -> None:
    monkeypatch.setattr(margins, "margins_add", lambda: True)
    with pytest.raises(InputError, match=f"those of {names} differ or have gaps"):
        margins.restore_margins(model(geoms))


def test_what_has_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="has no model of MuJoCo's"):
        margins.OldMargins(gymnasium.make("CartPole-v1"))
    environment = Environment(id="CartPole-v1", max_episode_steps=10, wrappers=[WRAPPER])
    with pytest.raises(InputError, match="has no model of MuJoCo's"):
        make(environment)
