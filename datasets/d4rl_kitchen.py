"""D4RL's kitchen, v0, on Gymnasium-Robotics' model: a Franka arm moves four elements.

Gupta et al. 2019 (Relay Policy Learning, arXiv 1910.11956); Fu et al. 2020 (D4RL, arXiv
2004.07219). Importing this module registers `offrl/KitchenLightSlider-v0` (kitchen-complete and
kitchen-partial) and `offrl/KitchenBurnerLight-v0` (kitchen-mixed) with Gymnasium.

Reference: d4rl/kitchen of Farama-Foundation/D4RL at 89141a6. The meshes and the model of
gymnasium-robotics 1.4 are D4RL's, which is checked: another file is refused. Its `FrankaKitchen-v1`
is another task, and the model compiles to other bodies today. The class here
1. lets the pedestal below the arm collide with nothing;
2. switches off MuJoCo's native convex collisions, the default since 3.3;
3. has contacts between boxes as if their distance was still halved, as MuJoCo did before 3.4: the
   kettle stands where it stood;
4. gives the capsules of the kettle and of the microwave's door the inertia that MuJoCo gave them
   before 2.1.2 (`offrl.evaluation.capsules`);
5. normalises the kettle's quaternion at a reset, which MuJoCo 2.1.0 did by itself;
6. has D4RL's observations: positions with noise and the goal, no velocities. The arm's next target
   starts at the joints as last observed, noise included, and so do reward and termination.

Known differences: with MuJoCo 3.4, 99 of 100 steps are MuJoCo 2.1.0's up to 4e-5 rad of the arm and
3e-4 of an object (`docs/simulators.md`). D4RL's random numbers were others.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.errors import InputError
from offrl.evaluation.capsules import body_geoms, restore_inertia

Array = NDArray[np.float64]

FILES = 74  # XML files and meshes of the model, with those that it does not read
# SHA-256 over lines "SHA-256, two spaces, path" of these files, sorted by path; equal in
# gymnasium-robotics 1.4.0, 1.4.1 and 1.4.2.
DIGEST = "aa25a3080f0fa8867498333675e9d31fc53de6cd201b6964b0baf97355f9d379"
CAPSULE_BODIES = ("kettleroot", "microdoorroot")
CAPSULE_MASS = 0.02  # kg of each capsule that collides, as their files give it

JOINTS = 9  # of arm and gripper; 21 numbers of objects follow in qpos
START = np.array(
    [
        *(1.48388023e-01, -1.76848573e00, 1.84390296e00, -2.47685760e00, 2.60252026e-01),
        *(7.12533105e-01, 1.59515394e00, 4.79267505e-02, 3.71350919e-02, -2.66279850e-04),
        *(-5.18043486e-05, 3.12877220e-05, -4.51199853e-05, -3.90842156e-06, -4.22629655e-05),
        *(6.28065475e-05, 4.04984708e-05, 4.62730939e-04, -2.26906415e-04, -4.65501369e-04),
        *(-6.44129196e-03, -1.77048263e-03, 1.08009684e-03, -2.69397440e-01, 3.50383255e-01),
        *(1.61944683e00, 1.00618764e00, 4.06395120e-03, -6.62095997e-03, -2.68278933e-04),
    ]
)
QUATERNION = slice(26, 30)  # of the kettle
# Observed positions are off by up to this much, by index in qpos: a tenth of franka_config.xml's.
NOISE = np.repeat(
    [0.01, 5e-4, 5e-5, 5e-4, 0.01, 5e-4, 0.01, 5e-4],
    [9, 2, 6, 3, 3, 3, 3, 1],
)
SPEED = 2.0  # rad/s or m/s of an action of 1; a limit of 10 is never reached
LOW = np.array([-2.9, -1.8, -2.9, -3.1, -2.9, 0.0, -2.9, 0.0, 0.0])  # of targets
HIGH = np.array([2.9, 1.8, 2.9, 0.0, 2.9, 3.8, 2.9, 0.04, 0.04])
SUBSTEPS = 40
NEAR = 0.3  # an element is done within this distance of its goal, in radians and metres alike

# Elements: their places in qpos, and where they should be.
GOALS = {
    "bottom burner": ([11, 12], [-0.88, -0.01]),
    "light switch": ([17, 18], [-0.69, -0.05]),
    "slide cabinet": ([19], [0.37]),
    "microwave": ([22], [-0.75]),
    "kettle": ([23, 24, 25, 26, 27, 28, 29], [-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06]),
}
LIGHT_SLIDER = ("microwave", "kettle", "light switch", "slide cabinet")
BURNER_LIGHT = ("microwave", "kettle", "bottom burner", "light switch")


def model_folder() -> Path:
    """The folder of the model's files in the installed gymnasium-robotics."""
    spec = importlib.util.find_spec("gymnasium_robotics")
    assert spec is not None  # offrl depends on it
    assert spec.origin is not None
    return Path(spec.origin).parent / "envs" / "assets" / "kitchen_franka"


def model_path() -> Path:
    """The file of the model."""
    return model_folder() / "kitchen_assets" / "kitchen_env_model.xml"


def check_files(folder: Path) -> None:
    """Raises InputError unless the XML files and meshes of the model make D4RL's."""
    paths = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.suffix in (".xml", ".stl")
    )
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in paths]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    if digest != DIGEST:
        raise InputError(
            f"{folder}: {len(paths)} files of the kitchen with SHA-256 {digest:.12}..., expected "
            f"{FILES} with {DIGEST:.12}..., which make D4RL's model; install gymnasium-robotics "
            f"1.4.2 again (pip install --force-reinstall gymnasium-robotics==1.4.2)"
        )


@functools.cache
def kitchen_model() -> mujoco.MjModel:
    """The model that all kitchens of a process share: it takes a second and 64 MB."""
    check_files(model_folder())
    if box_distances_are_halved():
        model = mujoco.MjModel.from_xml_path(str(model_path()))
    else:
        model = model_with_halved_distances()
    pedestal = model.body("panda0_link0").parentid[0]
    model.geom_contype[body_geoms(model, pedestal)] = 0
    model.geom_conaffinity[body_geoms(model, pedestal)] = 0
    if hasattr(mujoco.mjtDisableBit, "mjDSBL_NATIVECCD"):  # before, it had to be switched on
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_NATIVECCD
    for name in CAPSULE_BODIES:
        body = model.body(name).id
        geoms = body_geoms(model, body)
        collide = (model.geom_contype[geoms] | model.geom_conaffinity[geoms]) != 0
        capsules = model.geom_type[geoms] == mujoco.mjtGeom.mjGEOM_CAPSULE
        restore_inertia(model, body, geoms[collide & capsules], CAPSULE_MASS)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


TWO_BOXES = """
<mujoco><worldbody>
<geom type="box" size="1 1 1"/>
<body pos="0 0 1.98"><freejoint/><geom type="box" size="1 1 1"/></body>
</worldbody></mujoco>"""


def box_distances_are_halved() -> bool:
    """Whether boxes count as half as deep in each other as they are, as before MuJoCo 3.4."""
    model = mujoco.MjModel.from_xml_string(TWO_BOXES)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return bool(data.contact.dist.min() > -0.015)  # of -0.02


def model_with_halved_distances() -> mujoco.MjModel:
    """The kitchen with contacts between boxes as if MuJoCo still halved their distance d.

    A contact with margin m exists where d < m and pulls towards d / 2 = m with stiffness k. That is
    d = 2 m with stiffness k / 2, which a gap of -m gives: MuJoCo pulls towards margin - gap. The
    stiffness falls with the square of solref's second number, and the width of the impedance has to
    double with the distance.
    """
    spec = mujoco.MjSpec.from_file(str(model_path()))
    for number, geom in enumerate(spec.geoms):
        geom.name = geom.name or f"geom {number}"
    model = spec.compile()
    for pair in map(list, colliding_boxes(model)):
        one, other = pair
        weight = model.geom_solmix[one] / model.geom_solmix[pair].sum()
        solref, solimp = (
            weight * values[one] + (1 - weight) * values[other]
            for values in (model.geom_solref, model.geom_solimp)
        )
        friction = model.geom_friction[pair].max(0)
        margin = model.geom_margin[pair].max()
        spec.add_pair(
            geomname1=model.geom(one).name,
            geomname2=model.geom(other).name,
            condim=int(model.geom_condim[pair].max()),
            solref=solref * [1, np.sqrt(2)],
            solimp=solimp * [1, 1, 2, 1, 1],
            friction=friction[[0, 0, 1, 2, 2]],
            margin=margin,
            gap=-margin,
        )
    return spec.compile()


def colliding_boxes(model: mujoco.MjModel) -> Iterator[tuple[int, int]]:
    """Pairs of boxes that MuJoCo lets collide, by its rules for bodies that hang together."""
    boxes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_BOX)
    bodies = model.body_weldid[model.geom_bodyid]
    parents = model.body_weldid[model.body_parentid[bodies]]
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            meets = model.geom_contype[one] & model.geom_conaffinity[other]
            met = model.geom_contype[other] & model.geom_conaffinity[one]
            a, b = bodies[one], bodies[other]
            child = a and b and (parents[one] == b or parents[other] == a)
            if (meets or met) and a != b and not child:
                yield int(one), int(other)


class Kitchen(MujocoEnv):
    """Moves four elements to their goals, each of which pays 1 once. Terminates when all are done.

    Args:
        elements: names of `GOALS`.
        kwargs: of Gymnasium's MujocoEnv.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array", "depth_array"],
        "render_fps": 12,
    }

    def __init__(self, elements: Sequence[str] = LIGHT_SLIDER, **kwargs: Any) -> None:
        self.elements = tuple(elements)
        self.goal = np.zeros(len(START))
        for element in self.elements:
            places, values = GOALS[element]
            self.goal[places] = values
        self._left = set(self.elements)
        self._observed = START[:JOINTS]  # the arm, as last observed
        space = Box(-np.inf, np.inf, (2 * len(START),), np.float64)
        super().__init__(str(model_path()), SUBSTEPS, observation_space=space, **kwargs)
        self.action_space = Box(-1.0, 1.0, (JOINTS,), np.float32)

    def step(self, action: Any) -> Any:
        """The next observation, and how many elements it shows done for the first time."""
        speed = SPEED * np.asarray(action, np.float64).clip(-1.0, 1.0)
        target = self._observed + self.dt * speed
        self.do_simulation(np.clip(target, LOW, HIGH), self.frame_skip)
        observation = self._observe()
        done = {element for element in self._left if is_done(element, observation)}
        self._left -= done
        if self.render_mode == "human":
            self.render()  # type: ignore[no-untyped-call]
        return observation, float(len(done)), not self._left, False, {"done": sorted(done)}

    def reset_model(self) -> Array:
        """The first observation: the start is always the same, the noise is not."""
        self._left = set(self.elements)
        qpos = START.copy()
        qpos[QUATERNION] /= np.linalg.norm(qpos[QUATERNION])
        self.set_state(qpos, np.zeros(self.model.nv))
        return self._observe()

    def set_state(self, qpos: Array, qvel: Array) -> None:
        """Sets positions and velocities; the arm counts as observed where it is, without noise."""
        super().set_state(qpos, qvel)  # type: ignore[no-untyped-call]
        self._observed = qpos[:JOINTS].copy()

    def _observe(self) -> Array:
        noise = self.np_random.uniform(-1.0, 1.0, len(NOISE))
        seen = self.data.qpos + NOISE * noise
        self._observed = seen[:JOINTS]
        return np.concatenate([seen, self.goal])

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = kitchen_model()
        return model, mujoco.MjData(model)


def is_done(element: str, observation: Array) -> bool:
    """Whether an observation, as noisy as it is, shows an element near its goal."""
    places, goal = GOALS[element]
    return bool(np.linalg.norm(observation[places] - goal) < NEAR)


for _name, _elements in (("LightSlider", LIGHT_SLIDER), ("BurnerLight", BURNER_LIGHT)):
    if (_id := f"offrl/Kitchen{_name}-v0") not in gymnasium.registry:  # a reload
        gymnasium.register(
            _id,
            entry_point=f"{__name__}:Kitchen",
            max_episode_steps=280,
            kwargs={"elements": _elements},
        )
