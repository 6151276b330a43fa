"""Plays further episodes with the policy of a run, and draws one as a video."""

import contextlib
import math
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from offrl.data.card import Environment
from offrl.data.observations import flatten
from offrl.errors import InputError, is_interrupt
from offrl.evaluation.environments import as_batch, make, simulator_errors
from offrl.evaluation.rollouts import Diverged, Evaluator
from offrl.files import replacing
from offrl.learning import kernels
from offrl.learning.policy import Policy
from offrl.learning.streams import spawn_seed
from offrl.progress import Progress
from offrl.results.provenance import SIMULATORS, versions
from offrl.running.policies import RunPolicy
from offrl.trust import Files

FORMATS = (".mp4", ".gif")
MOST_GIF_FRAMES = 25  # a second: a GIF holds each of them whole


@dataclass(frozen=True)
class Outcome:
    """The episodes that a policy has played, undiscounted.

    Attributes:
        returns: (episodes,).
        lengths: (episodes,), in steps.
        bounds: the returns that score 0 and 100, None where there are none.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    bounds: tuple[float, float] | None

    def summary(self) -> dict[str, float | int | None]:
        """Mean return, its standard error (None for one episode), score, quartiles and lengths."""
        mean, count = float(self.returns.mean()), len(self.returns)
        error = float(self.returns.std(ddof=1)) / math.sqrt(count) if count > 1 else None
        score = score_error = None
        if self.bounds is not None:
            low, high = self.bounds
            score = 100 * (mean - low) / (high - low)
            score_error = None if error is None else 100 * error / (high - low)
        low_quartile, median, high_quartile = map(
            float, np.quantile(self.returns, [0.25, 0.5, 0.75])
        )
        return {
            "episodes": count,
            "mean_return": mean,
            "standard_error": error,
            "score": score,
            "score_standard_error": score_error,
            "first_quartile": low_quartile,
            "median": median,
            "third_quartile": high_quartile,
            "mean_length": float(self.lengths.mean()),
            "shortest": int(self.lengths.min()),
            "longest": int(self.lengths.max()),
        }


def evaluate(
    policy: RunPolicy,
    *,
    episodes: int = 100,
    seed: int | None = None,
    progress: Progress | None = None,
    trust: Files = (),
) -> Outcome:
    """Plays episodes in the simulator that scores the run; nothing is written.

    Args:
        policy: of `load_policy`; its episodes so far are lost, so `begin` all of them afterwards.
        episodes: how many; the first are those of the run's own evaluations.
        seed: of the episodes' starts, together with the run's; by default the protocol's.
        progress: called with the episodes done and all.
        trust: the run's folder, where its record names a simulator that neither offrl nor a plug-in
            has.

    Raises InputError for a number of episodes below 1, a simulator that cannot be played, and where
    an action or a return is not finite.
    """
    if episodes < 1:
        raise InputError(f"episodes is {episodes}; expected at least 1")
    environment = policy.environment(trust)
    seeds = [policy.record.identity.seed]
    evaluator = Evaluator(environment, seeds, episodes, _seed(policy, seed))
    with closing(evaluator):
        limit = environment.max_episode_steps * math.ceil(episodes / evaluator.width)
        watched = _Watched(policy.policy, episodes, evaluator.width, limit, progress)
        try:
            with kernels.using(_kernel(policy)):
                played = evaluator(watched)
        except Diverged as error:
            raise InputError(f"{policy.run}: {error}; its policy cannot be scored") from None
    if not np.isfinite(played.returns).all():
        raise InputError(f"{policy.run}: the return of an episode is not finite")
    reference = policy.reference()
    bounds = None if reference is None else (reference.min, reference.max)
    return Outcome(played.returns[0], played.lengths[0], bounds)


def simulator_notes(policy: RunPolicy) -> list[str]:
    """One note per package of simulators that has another version here than where the run ended."""
    sessions, here = policy.record.sessions, versions()
    there = sessions[-1].versions if sessions else {}
    return [
        f"{policy.title} was scored with {name} {there[name]}, and here is {here[name]}: returns "
        "may differ"
        for name in SIMULATORS
        if name in there and there[name] != here.get(name, there[name])
    ]


def _kernel(policy: RunPolicy) -> str:
    """The kernel of the run's own evaluations; that of runs before there was a choice."""
    numerics = policy.record.numerics
    return numerics[-1].kernel if numerics else kernels.KERNELS[0]


def _seed(policy: RunPolicy, seed: int | None) -> int:
    """The evaluation seed: the given one, else that of the run's protocol."""
    return policy.record.identity.evaluation.get("seed", 0) if seed is None else seed


@dataclass
class _Watched:
    """A policy that reports how far an evaluation is, by its episodes and by its steps."""

    policy: Policy
    episodes: int
    width: int  # environments that play at a time
    limit: int  # steps of all of them, at most
    progress: Progress | None
    steps: int = 0
    begun: int = field(default=0)

    @property
    def mode(self) -> str:
        return self.policy.mode

    def act(self, observations: Tensor) -> Tensor:
        self.steps += 1
        if self.progress is not None:
            by_steps = self.episodes * self.steps // self.limit
            ended = max(self.begun - self.width, by_steps)
            self.progress(min(ended, self.episodes), self.episodes)
        return self.policy.act(observations)

    def begin(self, starts: Tensor) -> None:
        self.begun += int(starts.sum())
        self.policy.begin(starts)

    def reward(self, rewards: Tensor) -> None:
        self.policy.reward(rewards)


def record_video(
    policy: RunPolicy,
    path: Path,
    *,
    seed: int | None = None,
    progress: Progress | None = None,
    trust: Files = (),
) -> float:
    """Draws the first episode that `evaluate` plays into a .mp4 or .gif file; its return.

    A video needs the extra `video`, a GIF nothing more. Arguments are those of `evaluate`.

    Raises InputError for another kind of file, where the simulator has no pictures or cannot draw
    them here, and where what writes a video is not installed.
    """
    check_video(path)
    environment = policy.environment(trust)
    plain = make(environment)
    modes, rate = plain.metadata.get("render_modes", []), plain.metadata.get("render_fps") or 30
    plain.close()
    if "rgb_array" not in modes:
        raise InputError(
            f"environment {environment.id!r} has no pictures, so no video can be made of it; leave "
            "out --video"
        )
    every = math.ceil(rate / MOST_GIF_FRAMES) if path.suffix == ".gif" else 1
    with _drawing(environment):
        env = make(environment, render_mode="rgb_array")
    with closing(env), _frames(path, rate / every) as append:
        start = spawn_seed(
            policy.record.identity.seed, "evaluation episode", _seed(policy, seed), 0
        )
        with simulator_errors(environment, "reset"):
            observation, _ = env.reset(seed=start)
        policy.begin(True)
        total, steps, over = 0.0, 0, False
        limit = environment.max_episode_steps
        while not over:
            if steps % every == 0:
                with _drawing(environment):
                    append(env.render())
            flat = flatten(as_batch(observation), environment.observation_keys)
            action = policy.act(flat)[0]
            if not np.isfinite(action).all():
                raise InputError(f"{policy.run}: the policy's action is not finite at step {steps}")
            with simulator_errors(environment, "stepped"):
                observation, reward, terminated, truncated, _ = env.step(action)
            policy.reward(float(reward))
            total, steps = total + float(reward), steps + 1
            over = bool(terminated or truncated)
            if progress is not None:
                progress(steps, limit)
        with _drawing(environment):
            append(env.render())
    return total


def check_video(path: Path) -> None:
    """Raises InputError for a file of another kind, or where what writes it is not installed."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: expected a name that ends in {' or '.join(FORMATS)}")
    try:
        import imageio  # noqa: F401

        if path.suffix == ".mp4":
            import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{path}: {error.name} is not installed, which writes videos; install it by "
            "pip install 'offrl[video]', or give a .gif"
        ) from None


@contextlib.contextmanager
def _drawing(environment: Environment) -> Iterator[None]:
    """What drawing raises becomes one InputError, with what to do where there is no display."""
    hook = sys.unraisablehook
    try:
        yield
    except InputError:
        raise
    except BaseException as error:  # whatever a driver may raise
        if is_interrupt(error):
            raise
        text = " ".join(str(error).split())[:200]
        # A window that was half made complains again, on stderr, when it is collected.
        sys.unraisablehook = lambda _: None
        traceback.clear_frames(error.__traceback__)
        raise InputError(
            f"environment {environment.id!r} cannot be drawn here: {type(error).__name__}: "
            f"{text or '(no reason given)'}; without a display, set MUJOCO_GL=egl (or osmesa) "
            "before the command, and install the library that it names"
        ) from None
    finally:
        sys.unraisablehook = hook


@contextlib.contextmanager
def _frames(path: Path, rate: float) -> Iterator[Any]:
    """Takes the frames (height, width, 3) of a video, uint8; the file is there when all are."""
    import imageio.v2 as imageio

    # Writers know a format by the name's end, and write in several turns.
    with tempfile.TemporaryDirectory() as folder:
        unfinished = Path(folder) / f"video{path.suffix}"
        options: dict[str, Any] = {"loop": 0, "duration": 1000 / rate}
        if path.suffix == ".mp4":
            options = {"fps": rate, "macro_block_size": 2, "ffmpeg_log_level": "error"}
        writer: Any
        with imageio.get_writer(unfinished, mode="I", **options) as writer:
            yield writer.append_data
        with replacing(path) as temporary:
            shutil.copyfile(unfinished, temporary)
