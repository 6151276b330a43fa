"""Simulators as their cards describe them."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from offrl.data.card import Environment, Wrapper, simulator_modules
from offrl.data.dataset import Dataset
from offrl.data.observations import flatten, layout_of
from offrl.errors import InputError, is_interrupt

OWN = ("offrl.evaluation.margins:OldMargins",)  # wrappers of offrl that a card may name
# Wrappers that draw or record: they open windows and write files, and change no episode.
WATCHING = ("HumanRendering", "RecordVideo", "RenderCollection", "AddWhiteNoise", "ObstructView")
# Wrappers that scale by what they have seen so far: the same policy's score would depend on the
# episodes before, and the averages with which the data were collected are not among them.
ADAPTING = ("NormalizeObservation", "NormalizeReward")


@contextlib.contextmanager
def simulator_errors(environment: Environment, when: str) -> Iterator[None]:
    """Whatever a simulator raises inside becomes one InputError that names it and its state."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:  # simulators raise errors of any library, and SystemExit
        if is_interrupt(error):
            raise
        text = " ".join(str(error).split())[:300]
        todo = "correct it, or environment of the card"
        if isinstance(error, ModuleNotFoundError) and error.name:
            todo = f"install the package that has {error.name} (mostly pip install {error.name})"
        raise InputError(
            f"environment {environment.id!r} of the data set's card raised {type(error).__name__} "
            f"when {when}: {text or '(no reason given)'}; {todo}"
        ) from error


def make(environment: Environment, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """One environment of a card, in its wrappers, which draws as `render_mode` says.

    Raises InputError where Gymnasium cannot make it, and Untrusted where it is code that the card
    may not name.
    """
    environment.check_code()
    module, _, _ = environment.id.rpartition(":")
    with simulator_errors(environment, "imported"), contextlib.redirect_stderr(io.StringIO()):
        # gymnasium-robotics prints a notice on the rewards of Adroit tasks when imported.
        importlib.import_module(module or "gymnasium")
        _register(environment.id.rpartition(":")[2])
    _check_entry_point(environment)
    with warnings.catch_warnings(), simulator_errors(environment, "made"):
        # D4RL's scores need the v4 tasks; Gymnasium warns of each that v5 is out, and wrappers of
        # bounds in float64.
        warnings.filterwarnings("ignore", message=r".*is out of date.*")
        warnings.filterwarnings("ignore", message=r".*precision lowered by casting.*")
        env: gymnasium.Env[Any, Any] = gymnasium.make(
            environment.id,
            max_episode_steps=environment.max_episode_steps,
            disable_env_checker=True,
            **_kwargs(environment),
            **({} if render_mode is None else {"render_mode": render_mode}),
        )
        for wrapper in environment.wrappers:
            env = _wrapped(env, wrapper, environment)  # raises for one that is not Gymnasium's
    # gymnasium-robotics 1.4 never removes the file that it writes for a maze.
    if maze_file := getattr(env.unwrapped, "tmp_xml_file_path", None):
        Path(maze_file).unlink(missing_ok=True)
    return env


def _register(name: str) -> None:
    """Has an installed package register its environments, as Gymnasium did before 1.0.

    Its entry point has the name of what stands before the slash of theirs, such as MinAtar.
    """
    if name not in gymnasium.registry and "/" in name:
        for entry in entry_points(group="gymnasium.envs", name=name.partition("/")[0]):
            entry.load()()


def _kwargs(environment: Environment) -> dict[str, Any]:
    """The arguments of an environment, but for how it was watched."""
    return {key: value for key, value in environment.kwargs.items() if key != "render_mode"}


def _check_entry_point(environment: Environment) -> None:
    """Raises InputError where the data come from another class than the one of this name.

    A class that moved inside its package is the same. Nothing that the data name is imported.
    """
    if environment.entry_point is None:
        return
    spec = gymnasium.registry.get(environment.id.rpartition(":")[2])
    if spec is None:
        raise InputError(
            f"environment {environment.id!r} of the data set is not registered here; it was made "
            f"by {environment.entry_point!r}, so install the package that registers it, or give a "
            f"card whose environment.id names its module"
        )
    here = spec.entry_point
    if not isinstance(here, str):
        here = f"{getattr(here, '__module__', '')}:{getattr(here, '__qualname__', here)}"
    if _place(here) != _place(environment.entry_point):
        raise InputError(
            f"environment {environment.id!r} of the data set was made by "
            f"{environment.entry_point!r}, but is {here!r} here; install the package that it came "
            f"from, or give a card whose environment.id names the right one"
        )


def _place(entry_point: str) -> tuple[str, str]:
    """The package and the class of an entry point."""
    module, _, name = entry_point.partition(":")
    return module.partition(".")[0], name


def _wrapped(
    env: gymnasium.Env[Any, Any], wrapper: Wrapper, environment: Environment
) -> gymnasium.Env[Any, Any]:
    """An environment in one of Gymnasium's or offrl's wrappers; others are refused by name."""
    module, _, name = wrapper.entry_point.partition(":")
    own = module == "gymnasium.wrappers" or module.startswith("gymnasium.wrappers.")
    if not (own or wrapper.entry_point in OWN) or not name.isidentifier() or name in WATCHING:
        raise InputError(
            f"environment {environment.id!r} of the data set was wrapped in {wrapper.entry_point}; "
            f"offrl wraps in Gymnasium's own wrappers only, and not in those that draw or record, "
            f"so give a card whose environment.id makes the environment as it should be"
        )
    if name in ADAPTING:
        raise InputError(
            f"environment {environment.id!r} of the data set was wrapped in {wrapper.entry_point}, "
            f"whose averages over earlier episodes are not in the data, so no episode can be "
            f"played as it was; give a card whose environment.id makes one with fixed averages"
        )
    made: Any = load_env_creator(wrapper.entry_point)(env=env, **wrapper.kwargs)
    return cast("gymnasium.Env[Any, Any]", made)


def make_vector(environment: Environment, count: int) -> VectorEnv[Any, Any, Any]:
    """`count` environments of a card behind Gymnasium's vector interface."""
    if native(environment):
        with simulator_errors(environment, "made"):
            return gymnasium.make_vec(
                environment.id.rpartition(":")[2],
                count,
                "vector_entry_point",
                wrappers=(),
                max_episode_steps=environment.max_episode_steps,
                **_kwargs(environment),
            )
    with simulator_errors(environment, "made"):
        return SyncVectorEnv(
            [lambda: make(environment)] * count, copy=False, autoreset_mode=AutoresetMode.DISABLED
        )


def native(environment: Environment) -> bool:
    """Whether the environment simulates many episodes by itself; `make` must have run before.

    It counts only where its class leaves the start of a new episode to the caller (`AutoresetMode`
    DISABLED): others pay no heed to the starts that an evaluation gives.
    """
    spec = gymnasium.spec(environment.id.rpartition(":")[2])
    creator: Any = spec.vector_entry_point
    if creator is None or environment.wrappers or spec.additional_wrappers:
        return False
    if isinstance(creator, str):
        with simulator_errors(environment, "imported"):
            creator = load_env_creator(creator)
    metadata = getattr(creator, "metadata", None) or {}
    return metadata.get("autoreset_mode") is AutoresetMode.DISABLED


@dataclass(frozen=True)
class Actions:
    """The actions of a simulator: a box with finite bounds, or a number of choices.

    Attributes:
        low: of each dimension; empty where actions are discrete.
        high: likewise.
        count: of discrete actions, which are 0 to count - 1.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    count: int | None = None

    @classmethod
    def within(cls, bound: float, size: int) -> "Actions":
        """Actions in [-bound, bound] in each of so many dimensions."""
        return cls((-bound,) * size, (bound,) * size)

    @property
    def bound(self) -> float | None:
        """The bound a of actions in [-a, a] in every dimension; None for any others."""
        bounds = {*self.high, *(-low for low in self.low)}
        return bounds.pop() if len(bounds) == 1 else None

    @property
    def rescaled(self) -> bool:
        """Whether a learner acts in [-1, 1] for them."""
        return self.count is None and self.bound is None

    @property
    def bounds(self) -> float | tuple[tuple[float, ...], tuple[float, ...]]:
        """The bound a of actions in [-a, a], else low and high of each dimension."""
        return (self.low, self.high) if self.bound is None else self.bound

    def __str__(self) -> str:
        if self.count is not None:
            return f"{self.count} discrete actions"
        return f"actions of {len(self.low)} numbers"


def spaces(environment: Environment) -> tuple[int, Actions]:
    """The size of observations (flattened), and the actions.

    Plays one step on trial, so that a simulator that cannot be played is found before training.
    Raises InputError for one, for observations other than their declared space, for a reward that
    is no number, and for actions other than a finite box of one axis or discrete ones from 0.
    """
    env = make(environment)
    where = f"environment {environment.id!r} of the data set's card"
    with simulator_errors(environment, "asked for its spaces"):
        actions, observations = env.action_space, env.observation_space
    acting = _actions(actions, environment)
    layout = layout_of(observations, environment.observation_keys, where)

    def check(observation: Any, when: str) -> int:
        flat = flatten(as_batch(observation), environment.observation_keys, where, layout)
        if not np.isfinite(flat).all():
            raise InputError(
                f"{where}: an observation is not finite when {when}; correct the environment"
            )
        return int(flat.shape[1])

    with simulator_errors(environment, "reset"):
        returned: Any = env.reset(seed=0)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise InputError(
            f"{where}: returned {type(returned).__name__} when reset; expected an observation and "
            "a dict, as of Gymnasium's environments, so correct it, or wrap it for Gymnasium"
        )
    size = check(returned[0], "reset")
    with simulator_errors(environment, "stepped"):
        middle = np.add(acting.low, acting.high, dtype=np.float64) / 2
        first: Any = np.int64(0) if acting.count else middle.astype(actions.dtype)
        observation, reward, terminated, truncated, _ = env.step(first)
    check(observation, "stepped")
    earned = np.asarray(reward)
    for name, value in (("reward", earned), ("terminated", terminated), ("truncated", truncated)):
        kind = np.asarray(value).dtype.kind
        if np.size(value) != 1 or kind not in ("fiub" if name == "reward" else "iub"):
            expected = "one number" if name == "reward" else "one flag"
            raise InputError(
                f"{where}: {name} is {value!r:.60} when stepped; expected {expected}, so correct "
                f"the environment"
            )
    if not np.isfinite(earned).all():
        raise InputError(f"{where}: reward is {reward} when stepped; expected a finite number")
    with simulator_errors(environment, "closed"):
        env.close()
    return size, acting


def known_actions(environment: Environment | None) -> Actions | None:
    """The actions of an environment where it is cheap to find them, else None.

    Cheap is what runs no code but that of offrl and of installed packages.
    """
    if environment is None:
        return None
    module, _, _ = environment.id.rpartition(":")
    if module and module not in simulator_modules():
        return None
    try:
        env = make(environment)
        env.close()
        return _actions(env.action_space, environment)
    except Exception:  # whatever is wrong with it: nobody plays in it here
        return None


class Unfit(InputError):
    """A simulator whose observations or actions are not those of the data."""


def actions_of(dataset: Dataset, environment: Environment | None) -> Actions:
    """The simulator's actions; where there is none, those that the data show.

    Raises Unfit where the data are of another simulator.
    """
    held = Actions(count=dataset.action_count)
    if held.count is None:
        # Where there is a simulator, only the number of dimensions is compared.
        bound = 1.0 if environment else float(np.nanmax(np.abs(dataset.actions))) or 1.0
        held = Actions.within(bound, dataset.actions.shape[1])
    if environment is None:
        return held
    observation_dim, actions = spaces(environment)
    same = len(held.low) == len(actions.low) and held.count == actions.count
    if dataset.observations.shape[1] != observation_dim or not same:
        raise Unfit(
            f"data set {dataset.card.id}: holds observations of {dataset.observations.shape[1]} "
            f"numbers and {held}, but environment {environment.id!r} of its card has observations "
            f"of {observation_dim} and {actions}; correct the card"
        )
    return actions


def _actions(space: gymnasium.Space[Any], environment: Environment) -> Actions:
    """Raises InputError unless it is a finite box of one axis, or discrete from 0."""
    where = f"environment {environment.id!r}"
    if isinstance(space, gymnasium.spaces.Discrete):
        if space.start != 0:
            raise InputError(
                f"{where} counts its {space.n} actions from {space.start}; wrap it so that they "
                f"count from 0"
            )
        return Actions(count=int(space.n))
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise InputError(
            f"{where} has {space}; offrl's algorithms act in a Box of one axis, or in a Discrete; "
            f"several choices that are taken together are one among all their combinations"
        )
    if space.dtype is None or space.dtype.kind != "f":
        raise InputError(f"{where} has {space}; offrl acts in floats only")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise InputError(
            f"{where} has actions in [{space.low}, {space.high}], which are not finite; wrap it "
            f"in Gymnasium's RescaleAction or ClipAction with the bounds that its data keep to"
        )
    if not (space.low < space.high).all():
        raise InputError(
            f"{where} has actions in [{space.low}, {space.high}]; expected low below high in every "
            f"dimension, so leave out those that are fixed"
        )
    return Actions(tuple(space.low.tolist()), tuple(space.high.tolist()))


def as_batch(observation: Any) -> Any:
    """An observation as a batch of one."""
    if isinstance(observation, dict):
        return {key: as_batch(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(map(as_batch, observation))
    return np.asarray(observation)[None]
