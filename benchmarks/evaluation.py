"""How long an evaluation takes: all episodes at once against one after another.

    python benchmarks/evaluation.py                     # half-cheetah, 10 episodes of 1,000 steps
    python benchmarks/evaluation.py hopper-medium-v2 --episodes 5

Both play the same episodes of a data set's simulator with the same policy, an untrained TD3+BC
actor of two layers of 256, in turn: offrl's `Evaluator`, and a loop over episodes with a batch of
one observation, as CORL has it. Prints the time of each, the ratio (the median over rounds), and
the share of the physics: the time of as many calls of `mj_step` alone.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch

from offrl.data.resolve import resolve
from offrl.evaluation.environments import make
from offrl.evaluation.rollouts import Evaluator
from offrl.learning.learner import find_algorithm
from offrl.learning.policy import Policy
from offrl.learning.single import build
from offrl.learning.spec import Spec
from offrl.learning.streams import spawn_seed


def seconds(work: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_by_one(env: gymnasium.Env[Any, Any], policy: Policy, episodes: int) -> None:
    """Plays the evaluator's episodes, one after another."""
    for i in range(episodes):
        observation, _ = env.reset(seed=spawn_seed(0, "evaluation episode", 0, i))
        over = False
        while not over:
            state = torch.as_tensor(observation, dtype=torch.float32).view(1, 1, -1)
            action = policy.act(state)[0, 0].numpy()
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated


def physics(env: gymnasium.Env[Any, Any], steps: int) -> None:
    """As many steps of the model alone."""
    inner: Any = env.unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (100, inner.model.nu))
    for step in range(steps):
        inner.data.ctrl[:] = actions[step % 100]
        mujoco.mj_step(inner.model, inner.data, inner.frame_skip)


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="halfcheetah-medium-v2")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    environment, _ = resolve(arguments.dataset).scoring()
    env = make(environment)
    sizes = [int(np.prod(space.shape or ())) for space in (env.observation_space, env.action_space)]
    algorithm = find_algorithm("td3_bc")
    spec = Spec(sizes[0], sizes[1], 1.0, 1, np.zeros(sizes[0]), np.ones(sizes[0]))
    policy = build(algorithm, spec, algorithm.Config(), [0]).policy()
    evaluator = Evaluator(environment, [0], arguments.episodes, 0)
    times: dict[str, list[float]] = {"together": [], "apart": [], "physics": []}
    played = evaluator(policy)
    steps = int(played.lengths.sum())
    for _ in range(arguments.rounds):
        times["together"].append(seconds(lambda: evaluator(policy)))
        times["apart"].append(seconds(lambda: one_by_one(env, policy, arguments.episodes)))
        times["physics"].append(seconds(lambda: physics(env, steps)))
    evaluator.close()
    medians = {name: float(np.median(values)) for name, values in times.items()}
    ratio = float(np.median(np.divide(times["apart"], times["together"])))
    print(
        f"{arguments.dataset}: {arguments.episodes} episodes of {steps} steps in all: together "
        f"{medians['together']:.2f} s, one by one {medians['apart']:.2f} s, ratio {ratio:.2f}; "
        f"mj_step alone {medians['physics']:.2f} s, {medians['physics'] / medians['together']:.0%}"
    )


if __name__ == "__main__":
    main()
