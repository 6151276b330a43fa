"""NeoRL-2's RocketRecovery (Gao et al. 2025, arXiv 2503.19267), written from its equations.

Importing this module registers `offrl/RocketRecovery-v0` with Gymnasium: a rocket that lands on
flat ground in wind, after Gymnasium's LunarLander. It is stepped by Box2D, an optional dependency.

Reference: polixir/NeoRL2 at b50d91d0a65916a89342a4f6978188b17cb2d97a. Known differences:
1. Upstream draws the phase of the wind once per object from numpy's global generator; here it is
   drawn with each episode's seed. The other draws are upstream's.
2. Upstream has box2d-py 2.3.5; of Box2D 2.3.10 steps with contacts may differ.
"""

import warnings
from dataclasses import dataclass
from math import cos, pi, sin, tanh
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from offrl.errors import InputError
from offrl.evaluation.lockstep import Lockstep, Row

Array = NDArray[Any]
Bools = NDArray[np.bool_]

STEPS = 500
FPS = 50
SCALE = 30.0  # LunarLander's pixels in a metre
WIDTH, HEIGHT = 600 / SCALE, 400 / SCALE
GROUND = HEIGHT / 4
LEG_DOWN = 18 / SCALE
HULL = [(-14, 17), (-17, 0), (-17, -10), (17, -10), (17, 0), (14, 17)]
PUSH = 500.0  # of the first force, at most, in each direction
MAIN, SIDE = 13.0, 0.6  # impulses of the engines at full power
WIND = 10.0  # force, at most
PHASE = 9999  # of the wind at the start, at most, in steps
LANDED = 0.05  # height, as observed, at which an episode ends


def potential(observations: Array) -> Array:
    """How good observations (..., 7) are: minus distance, speed and angle."""
    x, y, fast, rising, angle, *_ = np.moveaxis(observations, -1, 0)
    # Rounded as upstream rounds it, in float32, which is up to 6e-5 of a reward.
    away, speed = np.sqrt(x * x + y * y), np.sqrt(fast * fast + rising * rising)
    return np.asarray(-100 * away - 100 * speed - 100 * np.abs(angle))


def engine_powers(actions: Array) -> tuple[Array, Array]:
    """Power (...) of the main engine and of the side engines, 0 where they are off."""
    main, side = actions[..., 0], np.abs(actions[..., 1])
    return (
        np.where(main > 0, (main.clip(0, 1) + 1) / 2, 0.0),
        np.where(side > 0.5, side.clip(0.5, 1), 0.0),
    )


def rocket_reward(before: Array, actions: Array, after: Array) -> tuple[Array, Bools]:
    """Rewards (...) between observations (..., 7), and which of the steps end an episode.

    A step to the ground earns 100 if the rocket stands and is slow, else -100, and nothing else.
    """
    main, side = engine_powers(actions)
    rewards = potential(after) - potential(before) - 0.3 * main - 0.03 * side
    down = np.abs(after[..., 1]) <= LANDED
    gentle = (np.abs(after[..., 4]) < 0.3) & (np.abs(after[..., 2]) < 0.5)
    gentle &= np.abs(after[..., 3]) < 2
    return np.where(down, np.where(gentle, 100.0, -100.0), rewards), down


def wind(step: int) -> float:
    """The wind's force in a step."""
    return WIND * tanh(sin(0.02 * step) + sin(0.01 * pi * step))


def box2d() -> Any:
    """The module Box2D. Raises InputError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of SWIG's types, from Python 3.12 on
            import Box2D
    except ImportError:
        raise InputError(
            "RocketRecovery is stepped by Box2D, which is missing: pip install 'offrl[box2d]'"
        ) from None
    return Box2D


class _World:
    """A rocket above the ground, 13 metres up, that a force pushes in the first step."""

    def __init__(self, library: Any, push: Array) -> None:
        self.world = library.b2World(gravity=(0, -10))
        ground = self.world.CreateStaticBody(
            shapes=library.b2EdgeShape(vertices=[(0, 0), (WIDTH, 0)])
        )
        for part in range(10):
            ends = [(WIDTH / 10 * part, GROUND), (WIDTH / 10 * (part + 1), GROUND)]
            ground.CreateEdgeFixture(vertices=ends, density=0, friction=0.1)
        hull = library.b2PolygonShape(vertices=[(x / SCALE, y / SCALE) for x, y in HULL])
        self.rocket = self.world.CreateDynamicBody(
            position=(WIDTH / 2, HEIGHT),
            angle=0.0,
            fixtures=library.b2FixtureDef(
                shape=hull,
                density=5.0,
                friction=0.1,
                categoryBits=0x0010,
                maskBits=0x001,
                restitution=0.0,
            ),
        )
        self.rocket.ApplyForceToCenter(push.tolist(), True)
        for side, lower, upper in ((-1, 0.4, 0.9), (1, -0.9, -0.4)):
            leg = self.world.CreateDynamicBody(
                position=(WIDTH / 2 - side * 20 / SCALE, HEIGHT),
                angle=side * 0.05,
                fixtures=library.b2FixtureDef(
                    shape=library.b2PolygonShape(box=(2 / SCALE, 8 / SCALE)),
                    density=1.0,
                    restitution=0.0,
                    categoryBits=0x0020,
                    maskBits=0x001,
                ),
            )
            self.world.CreateRevoluteJoint(
                bodyA=self.rocket,
                bodyB=leg,
                localAnchorA=(0, 0),
                localAnchorB=(side * 20 / SCALE, LEG_DOWN),
                enableMotor=True,
                enableLimit=True,
                maxMotorTorque=40,
                motorSpeed=0.3 * side,
                lowerAngle=lower,
                upperAngle=upper,
            )

    def step(
        self, action: Array, main: float, side: float, blow: float, noise: Array
    ) -> list[float]:
        """The observation after a step, by engines' powers, wind and dispersion (2,)."""
        rocket = self.rocket
        rocket.ApplyForceToCenter((blow, 0.0), True)
        x, y = rocket.position
        tip, across = (
            (sin(rocket.angle), cos(rocket.angle)),
            (-cos(rocket.angle), sin(rocket.angle)),
        )
        first, second = noise.tolist()
        if main:
            along = 4 / SCALE + 2 * first
            away = (tip[0] * along + across[0] * second, -tip[1] * along - across[1] * second)
            impulse = (-away[0] * MAIN * main, -away[1] * MAIN * main)
            rocket.ApplyLinearImpulse(impulse, (x + away[0], y + away[1]), True)
        if side:
            wide = 3 * second + (12 / SCALE if action[1] > 0 else -12 / SCALE)
            away = (tip[0] * first + across[0] * wide, -tip[1] * first - across[1] * wide)
            # LunarLander's place of this impulse, a mixture of both axes.
            place = (x + away[0] - tip[0] * 17 / SCALE, y + away[1] + tip[1] * 14 / SCALE)
            impulse = (-away[0] * SIDE * side, -away[1] * SIDE * side)
            rocket.ApplyLinearImpulse(impulse, place, True)
        self.world.Step(1.0 / FPS, 6 * 30, 2 * 30)
        (x, y), (fast, rising) = rocket.position, rocket.linearVelocity
        return [
            (x - WIDTH / 2) / (WIDTH / 2),
            (y - GROUND - LEG_DOWN) / (HEIGHT / 2),
            fast * (WIDTH / 2) / FPS,
            rising * (HEIGHT / 2) / FPS,
            rocket.angle,
            20.0 * rocket.angularVelocity / FPS,
            blow,
        ]


@dataclass(frozen=True)
class _Draws:
    """A row's generators: of upstream's draws, and of the wind's phase."""

    steps: np.random.Generator
    phases: np.random.RandomState


class RocketRecoveryVector(Lockstep):
    """`num_envs` rockets; `offrl/RocketRecovery-v0` for `gymnasium.make_vec`.

    Observations (num_envs, 7), float32, are place (two), velocity (two), angle, angular velocity
    and the wind of the last step. Actions (num_envs, 2), clipped to [-1, 1], are the main engine
    and the side engines. Terminates on the ground.
    """

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = STEPS) -> None:
        space = Box(-np.inf, np.inf, (7,), np.float32)
        super().__init__(num_envs, space, Box(-1.0, 1.0, (2,), np.float32), max_episode_steps)
        self._library = box2d()
        self._worlds: list[Any] = [None] * num_envs
        self._phases = np.zeros(num_envs, np.int64)
        self._seen = np.zeros((num_envs, 7))
        self._still = np.zeros((num_envs, 2))

    def generator(self, seed: int | None) -> _Draws:
        """Upstream's generators."""
        phases = np.random.RandomState(None if seed is None else seed % 2**32)
        return _Draws(super().generator(seed), phases)

    def begin(self, row: int, rng: _Draws) -> None:
        """Starts a row as upstream does, with a step without engines."""
        rng.steps.uniform(size=12)  # upstream draws a landscape here, and flattens it
        self._worlds[row] = _World(self._library, rng.steps.uniform(-PUSH, PUSH, 2))
        self._phases[row] = rng.phases.randint(-PHASE, PHASE)
        self._step(row, self._still[row], 0.0, 0.0)

    def observe(self) -> Array:
        """The last observations."""
        return self._seen.astype(np.float32)

    def advance(self, actions: Array) -> tuple[Array, Array, Bools]:
        """One step of every row."""
        actions = actions.clip(-1.0, 1.0)
        main, side = (power.tolist() for power in engine_powers(actions))
        before = self.observe()
        for row in range(self.num_envs):
            self._step(row, actions[row], main[row], side[row])
        after = self.observe()
        rewards, down = rocket_reward(before, actions, after)
        return after, rewards, down

    def _step(self, row: int, action: Array, main: float, side: float) -> None:
        noise = self._rngs[row].steps.uniform(-1.0, 1.0, 2) / SCALE
        blow = wind(int(self._phases[row]))
        self._seen[row] = self._worlds[row].step(action, main, side, blow, noise)
        self._phases[row] += 1


class RocketRecovery(Row):
    """A rocket."""

    rows = RocketRecoveryVector


if "offrl/RocketRecovery-v0" not in gymnasium.registry:  # a reload
    gymnasium.register(
        "offrl/RocketRecovery-v0",
        entry_point=f"{__name__}:RocketRecovery",
        vector_entry_point=f"{__name__}:RocketRecoveryVector",
        max_episode_steps=STEPS,
    )
