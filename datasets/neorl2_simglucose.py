"""NeoRL-2's Simglucose (Gao et al. 2025, arXiv 2503.19267), written from its equations.

Importing this module registers `offrl/Simglucose-v0` with Gymnasium: insulin for virtual patients
with type 1 diabetes, who eat six meals a day that are not announced. The patients are those of
UVA/Padova's model (Dalla Man et al. 2007) in the package simglucose 0.2.11 (MIT), which is no
dependency, since it needs old versions of Gymnasium: `pip install --no-deps simglucose==0.2.11`. Of
it the table of patients is read, and nothing is imported.

Reference: polixir/NeoRL2 at b50d91d0a65916a89342a4f6978188b17cb2d97a. Known differences:
1. All episodes are integrated at once, a minute in four classical Runge-Kutta steps, where upstream
   has scipy's dopri5 with its default tolerance; `docs/simulators.md` says how far they are apart.
2. Upstream draws patient and hour from numpy's global generator, which its forked workers share;
   here they come from one with the episode's seed, so that episodes are independent.
"""

import csv
import functools
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.errors import InputError
from offrl.evaluation.lockstep import Lockstep, Row

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Values = dict[str, Array]

STEPS = 480  # of 3 minutes
MINUTES = 3
SUBSTEPS = 4  # Runge-Kutta steps in a minute
MEALS = {420: 45, 570: 10, 720: 70, 900: 10, 1080: 80, 1290: 10}  # grams by minute of the day
BITE = 5.0  # grams in a minute, at most
FASTEST = 5.0  # units of insulin in a minute, at action 1
SENSOR = (10.0, 600.0)  # mg/dL
ALIVE = (40.0, 600.0)  # mg/dL of blood glucose
# What is observed of a patient, in this order.
OBSERVED = (
    *("BW", "Fsnc", "Ib", "Km0", "Vi", "Vm0", "Vmx", "b", "d", "f", "k1", "k2", "ka1", "ka2"),
    *("kabs", "kd", "ke1", "ke2", "ki", "kmax", "kp1", "kp2", "kp3", "ksc", "m1", "m2", "m30"),
    *("m4", "p2u", "u2ss"),
)
PARAMETERS = (*OBSERVED, "kmin", "Vg")
STATES = tuple(f"x0_{number:2}" for number in range(1, 14))
KEPT = [3, 4, 5, 9, 10, 11, 12]  # states that do not move while they are negative
PATIENTS = [f"{age}#{n:03}" for age in ("adolescent", "adult", "child") for n in range(1, 6)]
TABLE_MD5 = "22cead8072c77e3e78c5229a40c8c0ea"
INSTALL = "pip install --no-deps simglucose==0.2.11"


@functools.cache
def patients() -> tuple[Array, Values]:
    """The first states (13, 15), and each parameter (15,), of the patients of training.

    Raises InputError where simglucose is not installed, or has another table.
    """
    spec = find_spec("simglucose")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"Simglucose's patients come from a package that is missing: {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "params" / "vpatient_params.csv"
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != TABLE_MD5:
        raise InputError(f"{path}: not the patients of simglucose 0.2.11; {INSTALL}")
    rows = {row["Name"]: row for row in csv.DictReader(content.decode().splitlines())}

    def column(key: str) -> Array:
        return np.array([float(rows[name][key]) for name in PATIENTS])

    return np.stack([column(key) for key in STATES]), {key: column(key) for key in PARAMETERS}


def pumped(actions: Array) -> Array:
    """Insulin in pmol a minute of actions in [-1, 1]: a multiple of 0.05, as pumps give it."""
    units = FASTEST * (actions.clip(-1.0, 1.0) + 1) / 2
    return np.asarray(np.round(units * 6000 / 0.05) * 0.05)


def derivatives(x: Array, p: Values, insulin: Array, eaten: Array, dose: Array) -> Array:
    """Derivatives (13, N) of states (13, N), by the minute.

    Args:
        x: stomach (two), gut, glucose (two), insulin, its effects (three), liver, skin (two) and
            the tissue in which the sensor lies.
        p: parameters (N,) of the patients.
        insulin: infused, pmol/kg/min.
        eaten: carbohydrates, g/min.
        dose: what the last meal put, with the rest of earlier ones, into the stomach, mg.
    """
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13 = x
    fed = np.where(dose > 0, dose, 1.0)
    filled = x1 + x2
    emptying = np.tanh(5 / (2 * fed * (1 - p["b"])) * (filled - p["b"] * fed))
    emptying -= np.tanh(5 / (2 * fed * p["d"]) * (filled - p["d"] * fed))
    kgut = p["kmin"] + (p["kmax"] - p["kmin"]) / 2 * (emptying + 2)
    kgut = np.where(dose > 0, kgut, p["kmax"])
    liver = np.maximum(p["kp1"] - p["kp2"] * x4 - p["kp3"] * x9, 0)
    meal = p["f"] * p["kabs"] * x3 / p["BW"]
    kidneys = p["ke1"] * np.maximum(x4 - p["ke2"], 0)
    used = (p["Vm0"] + p["Vmx"] * x7) * x5 / (p["Km0"] + x5)
    level = x6 / p["Vi"]
    change = np.stack(
        [
            -p["kmax"] * x1 + 1000 * eaten,
            p["kmax"] * x1 - kgut * x2,
            kgut * x2 - p["kabs"] * x3,
            liver + meal - p["Fsnc"] - kidneys - p["k1"] * x4 + p["k2"] * x5,
            -used + p["k1"] * x4 - p["k2"] * x5,
            -(p["m2"] + p["m4"]) * x6 + p["m1"] * x10 + p["ka1"] * x11 + p["ka2"] * x12,
            p["p2u"] * (level - p["Ib"] - x7),
            -p["ki"] * (x8 - level),
            -p["ki"] * (x9 - x8),
            -(p["m1"] + p["m30"]) * x10 + p["m2"] * x6,
            insulin - (p["ka1"] + p["kd"]) * x11,
            p["kd"] * x11 - p["ka2"] * x12,
            p["ksc"] * (x4 - x13),
        ]
    )
    change[KEPT] *= x[KEPT] >= 0
    return change


def minute(x: Array, p: Values, insulin: Array, eaten: Array, dose: Array) -> Array:
    """The states (13, N) a minute later; arguments as of `derivatives`."""
    h = 1 / SUBSTEPS
    for _ in range(SUBSTEPS):
        first = derivatives(x, p, insulin, eaten, dose)
        second = derivatives(x + h / 2 * first, p, insulin, eaten, dose)
        third = derivatives(x + h / 2 * second, p, insulin, eaten, dose)
        fourth = derivatives(x + h * third, p, insulin, eaten, dose)
        x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
    return x


def risk(glucose: Array) -> Array:
    """How dangerous a glucose (mg/dL) is, 0 to some 100 (Kovatchev et al. 1997)."""
    return np.asarray(10 * np.square(1.509 * (np.log(glucose) ** 1.084 - 5.381)))


def glucose_reward(before: Array, after: Array) -> Array:
    """Reward of a step between two observed glucoses."""
    reward = (risk(before) - risk(after) + 100) / 100
    return np.where(after <= ALIVE[0], -15.0, np.where(after >= ALIVE[1], 0.0, reward))


class SimglucoseVector(Lockstep):
    """`num_envs` patients in lockstep; `offrl/Simglucose-v0` for `gymnasium.make_vec`.

    Observations (num_envs, 31), float32, are the glucose by the sensor (mg/dL, mean of a step's
    three minutes) and 30 constants of the patient. Actions (num_envs, 1), clipped to [-1, 1], are
    insulin, 0 to 5 units a minute. Terminates where the blood glucose leaves 40 to 600.
    """

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = STEPS) -> None:
        space = Box(0.0, np.inf, (1 + len(OBSERVED),), np.float32)
        super().__init__(num_envs, space, Box(-1.0, 1.0, (1,), np.float32), max_episode_steps)
        self._states, self._parameters = patients()
        zeros = np.zeros(num_envs)
        self._patients = np.zeros((len(OBSERVED), num_envs), np.float32)
        self._p = {key: zeros.copy() for key in PARAMETERS}
        self._x = np.zeros((len(STATES), num_envs))
        self._clock = np.zeros(num_envs, np.int64)  # minute of the day
        self._planned, self._eaten = zeros.copy(), zeros.copy()  # g; of the last minute
        self._rest, self._meal = zeros.copy(), zeros.copy()  # mg before a meal, g of it
        self._reading, self._glucose = zeros.copy(), zeros.copy()  # of the sensor; as observed

    def generator(self, seed: int | None) -> np.random.RandomState:
        """Upstream's generator."""
        return np.random.RandomState(None if seed is None else seed % 2**32)

    def begin(self, row: int, rng: np.random.RandomState) -> None:
        """Starts a row as upstream does."""
        rng.randint(0, 1000)  # upstream's sensor has a seed, and no noise
        self._clock[row] = 60 * rng.randint(0, 24)
        patient = rng.choice(len(PATIENTS))
        for key, values in self._parameters.items():
            self._p[key][row] = values[patient]
        self._patients[:, row] = [self._parameters[key][patient] for key in OBSERVED]
        self._x[:, row] = self._states[:, patient]
        for zero in (self._planned, self._eaten, self._rest, self._meal):
            zero[row] = 0
        glucose = self._x[-1, row] / self._p["Vg"][row]
        self._reading[row] = self._glucose[row] = np.clip(glucose, *SENSOR)

    def observe(self) -> Array:
        """Glucose and constants."""
        return np.concatenate([self._glucose[None], self._patients]).T.astype(np.float32)

    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """Three minutes of every row."""
        insulin = pumped(actions[:, 0]) / self._p["BW"]
        blood = np.zeros(self.num_envs)
        for _ in range(MINUTES):
            dose = self._eat()
            self._x = minute(self._x, self._p, insulin, self._eaten, dose)
            blood += self._x[-1] / self._p["Vg"] / MINUTES
        before, last = self._glucose, self._reading
        self._reading = (self._x[-1] / self._p["Vg"]).clip(*SENSOR)
        # The sensor reads in the last minute; in those before it shows what it has read.
        self._glucose = ((MINUTES - 1) * last + self._reading) / MINUTES
        rewards = glucose_reward(before, self._glucose)
        return self.observe(), rewards, (blood < ALIVE[0]) | (blood > ALIVE[1])

    def _eat(self) -> Array:
        """Goes on with meals for a minute, and returns the dose (N,) of `derivatives`."""
        for when, grams in MEALS.items():
            self._planned += grams * (self._clock == when)
        self._clock = (self._clock + 1) % 1440
        eaten = np.minimum(BITE, self._planned)
        self._planned -= eaten
        begins = (eaten > 0) & (self._eaten == 0)
        self._rest = np.where(begins, self._x[0] + self._x[1], self._rest)
        self._meal = np.where(begins, 0, self._meal) + eaten
        self._eaten = eaten
        return self._rest + 1000 * self._meal


class Simglucose(Row):
    """A patient."""

    rows = SimglucoseVector


if "offrl/Simglucose-v0" not in gymnasium.registry:  # a reload
    gymnasium.register(
        "offrl/Simglucose-v0",
        entry_point=f"{__name__}:Simglucose",
        vector_entry_point=f"{__name__}:SimglucoseVector",
        max_episode_steps=STEPS,
    )
