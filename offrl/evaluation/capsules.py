"""Bodies of capsules as MuJoCo compiled them before 2.1.2, with which older scores were made.

Up to then a capsule of radius r and half length h weighed and turned like a cylinder of radius r
and length 2h + r: its middle part, lengthened by half a radius at both ends. MuJoCo 2.1.2 computes
capsules exactly (its changelog: "Computed capsule inertias are now exact").
"""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def cylinder_moments(mass: float, radius: float, half: float) -> Array:
    """Moments (3,) about a capsule's own axes, z along it, as before 2.1.2."""
    length = 2 * half + radius
    across = mass * (3 * radius**2 + length**2) / 12
    return np.array([across, across, mass * radius**2 / 2])


def capsule_moments(mass: float, radius: float, half: float) -> Array:
    """Moments (3,) about a capsule's own axes, z along it: exact, as from 2.1.2 on."""
    length = 2 * half
    caps = mass * 4 * radius / (4 * radius + 3 * length)  # of both hemispheres
    middle = mass - caps
    across = middle * (3 * radius**2 + length**2) / 12
    across += caps * (2 * radius**2 / 5 + length * (3 * radius + 2 * length) / 8)
    return np.array([across, across, middle * radius**2 / 2 + caps * 2 * radius**2 / 5])


def restore_bodies(model: mujoco.MjModel, data: mujoco.MjData, *, keep_total: bool = False) -> None:
    """Gives every moving body of a model the mass and inertia of before 2.1.2.

    A body without a capsule stays as it is; one with a capsule has to consist of capsules of one
    density.

    Args:
        model: changed in place, with all that MuJoCo derives from masses.
        data: of that model; its state becomes the initial one.
        keep_total: whether all bodies are scaled to the total mass that the model has now, as the
            compiler's `settotalmass` does.
    """
    total = model.body_mass.sum()
    for body in range(1, model.nbody):
        geoms = body_geoms(model, body)
        capsules = model.geom_type[geoms] == mujoco.mjtGeom.mjGEOM_CAPSULE
        if not capsules.any():
            continue
        if not capsules.all():
            raise ValueError(f"body {body}: expected capsules alone")
        radii, halves, _ = model.geom_size[geoms].T
        areas = np.pi * radii**2
        density = model.body_mass[body] / (areas * (2 * halves + 4 / 3 * radii)).sum()
        masses = density * areas * (2 * halves + radii)
        mass = masses.sum()
        centre = masses @ model.geom_pos[geoms] / mass
        tensor = np.zeros((3, 3))
        for geom, part in zip(geoms, masses, strict=True):
            radius, half, _ = model.geom_size[geom]
            away = model.geom_pos[geom] - centre
            tensor += turned(cylinder_moments(part, radius, half), model.geom_quat[geom])
            tensor += part * (away @ away * np.eye(3) - np.outer(away, away))
        model.body_mass[body] = mass
        set_inertia(model, body, centre, tensor)
    if keep_total:
        scale = total / model.body_mass.sum()
        model.body_mass *= scale
        model.body_inertia *= scale
    mujoco.mj_setConst(model, data)


def restore_inertia(model: mujoco.MjModel, body: int, geoms: Sequence[int], mass: float) -> None:
    """Gives capsules of a body, each of this mass, the inertia of before 2.1.2.

    The body's other geoms, its mass and its centre stay. `mujoco.mj_setConst` has to follow.
    """
    tensor = turned(model.body_inertia[body], model.body_iquat[body])
    for geom in geoms:
        radius, half, _ = model.geom_size[geom]
        change = cylinder_moments(mass, radius, half) - capsule_moments(mass, radius, half)
        tensor += turned(change, model.geom_quat[geom])
    set_inertia(model, body, model.body_ipos[body].copy(), tensor)


def body_geoms(model: mujoco.MjModel, body: int) -> Array:
    """The numbers of a body's geoms."""
    first = model.body_geomadr[body]
    return np.arange(first, first + model.body_geomnum[body])


def turned(moments: Array, quaternion: Array) -> Array:
    """The tensor (3, 3) of moments (3,) about axes that a quaternion (4,) turns."""
    axes = axes_of(quaternion)
    return np.asarray(axes @ np.diag(moments) @ axes.T)


def axes_of(quaternion: Array) -> Array:
    """The axes (3, 3), one a column, that a quaternion (4,) turns into place."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def set_inertia(model: mujoco.MjModel, body: int, centre: Array, tensor: Array) -> None:
    """Sets a body's inertia by a tensor (3, 3) about its centre (3,), in its principal axes.

    The compiled frame stays where it is principal still. Another coincides no longer with that of
    the body or of a geom, which would let MuJoCo take one for the other.
    """
    axes = axes_of(model.body_iquat[body])
    own = axes.T @ tensor @ axes
    moments = np.diag(own)
    if np.allclose(centre, model.body_ipos[body], rtol=0, atol=1e-12) and np.allclose(
        own, np.diag(moments), rtol=0, atol=1e-12 * moments.max()
    ):
        model.body_inertia[body] = moments
        return
    moments, vectors, quaternion = np.zeros(3), np.zeros(9), np.zeros(4)
    mujoco.mju_eig3(moments, vectors, quaternion, tensor.ravel())
    model.body_ipos[body] = centre
    model.body_iquat[body] = quaternion
    model.body_inertia[body] = moments
    model.body_sameframe[body] = 0
    model.geom_sameframe[body_geoms(model, body)] = 0
