"""How long an evaluation takes: all episodes at once, one after another, and in two processes.

    python benchmarks/evaluation.py                     # half-cheetah, 10 episodes of 1,000 steps
    python benchmarks/evaluation.py hopper-medium-v2 --episodes 5

All play the same episodes of a data set's simulator with the same policy, an untrained TD3+BC
actor of two layers of 256, in turn: offrl's `Evaluator`; a loop over episodes with a batch of one
observation, as CORL has it; and two processes with half of the episodes each, as `offrl train`
plays them where a core has nothing to train. Prints the time of each, ratios (the medians over
rounds), and the share of the physics: the time of as many calls of `mj_step` alone. What two
processes can gain at most is measured too: by two that play the whole evaluation each.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch

from offrl.data.resolve import resolve
from offrl.evaluation.environments import make
from offrl.evaluation.rollouts import WHOLE, Evaluator, Part
from offrl.learning import kernels
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


def prepared(
    dataset: str, episodes: int, kernel: str, part: Part = WHOLE
) -> tuple[Evaluator, Policy]:
    """The evaluator of a data set's simulator, and the policy."""
    torch.set_num_threads(1)
    kernels.use(kernel)
    environment, _ = resolve(dataset).scoring()
    env = make(environment)
    sizes = [int(np.prod(space.shape or ())) for space in (env.observation_space, env.action_space)]
    env.close()
    algorithm = find_algorithm("td3_bc")
    spec = Spec(sizes[0], sizes[1], 1.0, 1, np.zeros(sizes[0]), np.ones(sizes[0]))
    policy = build(algorithm, spec, algorithm.Config(), [0]).policy()
    return Evaluator(environment, [0], episodes, 0, part=part), policy


def play_in_process(dataset: str, episodes: int, kernel: str, part: Part) -> None:
    """Plays a part in this process, which keeps its environments for the next time."""
    if (dataset, part) not in kept:
        kept[dataset, part] = prepared(dataset, episodes, kernel, part)
    evaluator, policy = kept[dataset, part]
    evaluator(policy)


kept: dict[tuple[str, Part], tuple[Evaluator, Policy]] = {}


def main() -> None:
    """Prints three lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="halfcheetah-medium-v2")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kernel", choices=kernels.KERNELS, default="blas", help="of products")
    arguments = parser.parse_args()
    dataset, episodes, kernel = arguments.dataset, arguments.episodes, arguments.kernel
    evaluator, policy = prepared(dataset, episodes, kernel)
    env = make(evaluator.environment)
    steps = int(evaluator(policy).lengths.sum())
    workers = [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(2)]

    def at_once(parts: list[Part]) -> None:
        calls = [
            worker.submit(play_in_process, dataset, episodes, kernel, part)
            for worker, part in zip(workers, parts, strict=True)
        ]
        for call in calls:
            call.result()

    halves, wholes = [Part(0, 2), Part(1, 2)], [WHOLE, WHOLE]
    works: dict[str, Callable[[], Any]] = {
        "together": lambda: evaluator(policy),
        "one by one": lambda: one_by_one(env, policy, episodes),
        "mj_step alone": lambda: physics(env, steps),
        "in two processes": lambda: at_once(halves),
        "two wholes at once": lambda: at_once(wholes),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for name in ("in two processes", "two wholes at once"):  # environments are made
        works[name]()
    for _ in range(arguments.rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    evaluator.close()
    for worker in workers:
        worker.shutdown()

    def ratio(slow: str, fast: str, factor: int = 1) -> float:
        return factor * float(np.median(np.divide(times[slow], times[fast])))

    print(f"{dataset}: {episodes} episodes of {steps} steps in all, {kernel}, medians of seconds:")
    print(", ".join(f"{name} {np.median(values):.2f}" for name, values in times.items()))
    print(
        f"together {ratio('one by one', 'together'):.2f} times as fast as one by one, mj_step "
        f"{ratio('mj_step alone', 'together'):.0%} of it; two processes "
        f"{ratio('together', 'in two processes'):.2f} times as fast as one, where two wholes at "
        f"once gain {ratio('together', 'two wholes at once', 2):.2f}"
    )


if __name__ == "__main__":
    main()
