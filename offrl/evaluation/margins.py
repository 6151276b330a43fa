"""Contact margins as MuJoCo read them before 3.5, with which older scores were made.

Up to 3.4 the margin of a contact was the larger one of its two geoms; since 3.5 it is their sum. In
Gymnasium's hopper, ant, humanoids and pusher all geoms share one margin, so contacts begin at twice
the distance, and a step may end elsewhere by whole units of velocity. Halved margins make them
what they were. Half-cheetah, walker and swimmer have none.
"""

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from offrl.errors import InputError

Array = NDArray[Any]


def margins_add() -> bool:
    """Whether the margins of two geoms are added here, as from MuJoCo 3.5 on."""
    major, minor, *_ = mujoco.__version__.split(".")
    return (int(major), int(minor)) >= (3, 5)


def touching(model: mujoco.MjModel) -> Array:
    """Pairs (P, 2) of geoms that may touch, those of neighbouring bodies included."""
    types, affinities = model.geom_contype, model.geom_conaffinity
    may = (types[:, None] & affinities) | (types & affinities[:, None])
    bodies = model.body_weldid[model.geom_bodyid]
    return np.argwhere(np.triu(may.astype(bool) & (bodies[:, None] != bodies)))


def restore_margins(model: mujoco.MjModel) -> None:
    """Gives contacts the margins of before MuJoCo 3.5, where they are others.

    Args:
        model: changed in place. A pair of which one geom alone has a margin is as before. Raises
            InputError where margins of several sizes meet, or gaps: halves do not restore these.
    """
    if not margins_add():
        return
    pairs = touching(model)
    low, high = np.sort(model.geom_margin[pairs], axis=1).T
    shared = (low == high) & (high > 0)
    halved = np.zeros(model.ngeom, np.bool_)
    halved[pairs[shared]] = True
    odd = ~shared & ((low > 0) | (halved[pairs].any(1) & (high > 0)))
    odd |= (model.geom_gap[pairs] != 0).any(1)
    if odd.any():
        names = [model.geom(int(geom)).name or f"number {geom}" for geom in pairs[odd][0]]
        raise InputError(
            f"MuJoCo {mujoco.__version__} adds the margins of two geoms, and those of "
            f"{' and '.join(names)} differ or have gaps, so the contacts of before 3.5 cannot be "
            f"restored; install mujoco<3.5"
        )
    model.geom_margin[halved] /= 2


class OldMargins(gymnasium.Wrapper[Any, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """A simulator of MuJoCo's with the contact margins of before 3.5.

    In a card: `wrappers = [{ entry_point = "offrl.evaluation.margins:OldMargins" }]`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        model = getattr(env.unwrapped, "model", None)
        if not isinstance(model, mujoco.MjModel):
            raise InputError(f"{env}: has no model of MuJoCo's, whose margins would be restored")
        restore_margins(model)
