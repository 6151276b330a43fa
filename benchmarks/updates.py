"""Gradient updates per second and seed of offrl's learners on one thread, sampling included.

    python benchmarks/updates.py td3_bc iql                     # one seed
    python benchmarks/updates.py td3_bc iql --replicas 5        # five seeds in one process
    python benchmarks/updates.py td3_bc iql --corl CORL/algorithms/offline   # in turn with CORL's
    python benchmarks/updates.py cql --config '{"n_actions": 4}'

Seconds are those of the processor. With `--corl` each round measures ours and then CORL's own file
(its classes and replay buffer, with stand-ins for what it imports of simulators and trackers); the
ratio is the median over rounds. The data are random numbers in D4RL's shape: 17 observations, 6
actions. The last column is the share of the matrix-multiply limit: the floating-point operations of
an update's matrix products, counted by torch in the plain batched path, times the rate, over the
speed of 256 x 256 products in float32.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from offrl.data.transitions import Transitions
from offrl.learning import kernels
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.learning.spec import Spec

OBSERVATIONS, ACTIONS, ROWS = 17, 6, 100_000


def random_data() -> dict[str, np.ndarray]:
    """Random transitions in D4RL's shape."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((ROWS, OBSERVATIONS), dtype=np.float32),
        "actions": rng.uniform(-1, 1, (ROWS, ACTIONS)).astype(np.float32),
        "rewards": rng.standard_normal(ROWS, dtype=np.float32),
        "next_observations": rng.standard_normal((ROWS, OBSERVATIONS), dtype=np.float32),
        "terminals": np.zeros(ROWS, dtype=np.float32),
    }


def prepared(name: str, changes: dict[str, Any], replicas: int = 1) -> tuple[Learner, Sampler]:
    """A learner with `changes` to its defaults, and its sampler."""
    columns = random_data()
    data = Transitions(
        terminations=columns.pop("terminals"),
        truncations=(np.arange(ROWS) % 1000 == 999).astype(np.float32),
        **columns,
    )
    algorithm = find_algorithm(name)
    config = algorithm.Config(**changes)
    spec = Spec(OBSERVATIONS, ACTIONS, 1.0, 1_000_000, np.zeros(17), np.ones(17))
    seeds = [*range(replicas)]
    learner = build(algorithm, spec, config, seeds)
    return learner, algorithm.sampler(algorithm.prepare(data, config), config, seeds, "cpu")


def of_corl(folder: Path, name: str, device: str = "cpu") -> Callable[[], None]:
    """One update of CORL's own file with its defaults, sampling included, on a device."""
    for module in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules.setdefault(module, MagicMock())
    spec = importlib.util.spec_from_file_location(f"corl_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    code: Any = importlib.util.module_from_spec(spec)
    sys.modules["pyrallis"].wrap = lambda: lambda function: function  # type: ignore[attr-defined]
    spec.loader.exec_module(code)
    config = code.TrainConfig()
    buffer = code.ReplayBuffer(OBSERVATIONS, ACTIONS, ROWS, device)
    with contextlib.redirect_stdout(io.StringIO()):
        buffer.load_d4rl_dataset(random_data())
    with torch.device(device):  # where the networks are made
        trainer = TRAINERS[name](code, config, device)
    update = trainer.update if name in ("sac_n", "edac") else trainer.train
    return lambda: update(buffer.sample(config.batch_size)) and None


def _adam(network: Any, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=lr)


def _td3_bc(code: Any, config: Any, device: str) -> Any:
    actor = code.Actor(OBSERVATIONS, ACTIONS, 1.0)
    one, two = code.Critic(OBSERVATIONS, ACTIONS), code.Critic(OBSERVATIONS, ACTIONS)
    return code.TD3_BC(
        1.0,
        actor,
        _adam(actor, 3e-4),
        one,
        _adam(one, 3e-4),
        two,
        _adam(two, 3e-4),
        discount=config.discount,
        tau=config.tau,
        policy_noise=config.policy_noise,
        noise_clip=config.noise_clip,
        policy_freq=config.policy_freq,
        alpha=config.alpha,
        device=device,
    )


def _iql(code: Any, config: Any, device: str) -> Any:
    q, v = code.TwinQ(OBSERVATIONS, ACTIONS), code.ValueFunction(OBSERVATIONS)
    actor = code.GaussianPolicy(OBSERVATIONS, ACTIONS, 1.0)
    return code.ImplicitQLearning(
        max_action=1.0,
        actor=actor,
        actor_optimizer=_adam(actor, config.actor_lr),
        q_network=q,
        q_optimizer=_adam(q, config.qf_lr),
        v_network=v,
        v_optimizer=_adam(v, config.vf_lr),
        iql_tau=config.iql_tau,
        beta=config.beta,
        max_steps=config.max_timesteps,
        discount=config.discount,
        tau=config.tau,
        device=device,
    )


def _cql(code: Any, config: Any, device: str) -> Any:
    layers, orthogonal = config.q_n_hidden_layers, config.orthogonal_init
    one = code.FullyConnectedQFunction(OBSERVATIONS, ACTIONS, orthogonal, layers)
    two = code.FullyConnectedQFunction(OBSERVATIONS, ACTIONS, orthogonal)
    actor = code.TanhGaussianPolicy(OBSERVATIONS, ACTIONS, 1.0, orthogonal_init=orthogonal)
    same = (
        "discount alpha_multiplier use_automatic_entropy_tuning backup_entropy policy_lr qf_lr "
        "soft_target_update_rate bc_steps target_update_period cql_n_actions cql_lagrange "
        "cql_importance_sample cql_target_action_gap cql_temp cql_alpha cql_max_target_backup "
        "cql_clip_diff_min cql_clip_diff_max"
    )
    return code.ContinuousCQL(
        critic_1=one,
        critic_1_optimizer=_adam(one, config.qf_lr),
        critic_2=two,
        critic_2_optimizer=_adam(two, config.qf_lr),
        actor=actor,
        actor_optimizer=_adam(actor, config.policy_lr),
        target_entropy=-float(ACTIONS),
        device=device,
        **{key: getattr(config, key) for key in same.split()},
    )


def _ensemble(code: Any, config: Any, device: str) -> Any:
    actor = code.Actor(OBSERVATIONS, ACTIONS, config.hidden_dim, config.max_action)
    critic = code.VectorizedCritic(OBSERVATIONS, ACTIONS, config.hidden_dim, config.num_critics)
    more = {"eta": config.eta} if hasattr(config, "eta") else {}
    return (code.EDAC if more else code.SACN)(
        actor=actor,
        actor_optimizer=_adam(actor, config.actor_learning_rate),
        critic=critic,
        critic_optimizer=_adam(critic, config.critic_learning_rate),
        gamma=config.gamma,
        tau=config.tau,
        alpha_learning_rate=config.alpha_learning_rate,
        device=device,
        **more,
    )


TRAINERS: dict[str, Callable[[Any, Any, str], Any]] = {
    "td3_bc": _td3_bc,
    "iql": _iql,
    "cql": _cql,
    "sac_n": _ensemble,
    "edac": _ensemble,
}


def rate(update: Callable[[], None], seconds: float) -> float:
    """Calls per second of this process's time, for about so many seconds."""
    start, calls = time.process_time(), 0
    while (passed := time.process_time() - start) < seconds:
        update()
        calls += 1
    return calls / passed


def operations(name: str, changes: dict[str, Any]) -> float:
    """Floating-point operations in an update's matrix products, the mean of four updates.

    In float64, which takes the path without operations of our own, so that torch counts them all.
    """
    torch.set_default_dtype(torch.float64)
    try:
        learner, sampler = prepared(name, changes)
        batches = []
        for _ in range(4):
            columns = vars(sampler.sample()).items()
            batch = {
                k: v.double() if v is not None and v.is_floating_point() else v for k, v in columns
            }
            batches.append(type(sampler.sample())(**batch))
        for value in vars(learner).values():
            if isinstance(value, torch.nn.Module):
                value.double()
        with FlopCounterMode(display=False) as counter:
            for batch in batches:
                learner.update(batch)
    finally:
        torch.set_default_dtype(torch.float32)
    return float(counter.get_total_flops()) / 4


def product_speeds() -> dict[str, float]:
    """Floating-point operations per second of 256 x 256 products, by library and type."""
    a, b = torch.randn(2, 256, 256)
    low_a, low_b = a.bfloat16(), b.bfloat16()
    products: dict[str, Callable[[], Any]] = {"blas": lambda: torch.mm(a, b)}
    linear = torch.ops.mkldnn._linear_pointwise
    if torch.float32 in kernels.ONEDNN:
        products["onednn"] = lambda: linear(a, b.mT, None, "none", [], "")
    if torch.bfloat16 in kernels.ONEDNN:
        products["onednn bfloat16"] = lambda: linear(low_a, low_b.mT, None, "none", [], "")
    return {
        name: max(rate(multiply, 0.1) for _ in range(5)) * 2 * 256**3
        for name, multiply in products.items()
    }


def processor() -> str:
    """The name that the system gives the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "an unknown processor"


def main() -> None:
    """Prints one line per algorithm: rate, ratio to CORL's where asked, share of the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", nargs="+", help="NAME")
    parser.add_argument("--replicas", type=int, default=1, help="seeds in one process")
    parser.add_argument("--seconds", type=float, default=0.5, help="per measurement")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--config", default="{}", help="changes to the defaults, as JSON")
    parser.add_argument("--kernel", choices=kernels.KERNELS, help="of matrix products")
    parser.add_argument("--corl", type=Path, help="the folder of CORL's algorithms/offline")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    changes = json.loads(arguments.config)
    kernels.use(arguments.kernel or kernels.KERNELS[0])
    speeds = product_speeds()
    limit = max(speed for name, speed in speeds.items() if "bfloat16" not in name)
    shown = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in speeds.items())
    print(f"{processor()}, torch {torch.__version__}; GFLOP/s of 256 x 256 products: {shown}")
    for name in arguments.algorithm:
        learner, sampler = prepared(name, changes, arguments.replicas)

        def ours(learner: Learner = learner, sampler: Sampler = sampler) -> None:
            learner.update(sampler.sample())

        theirs = of_corl(arguments.corl, name) if arguments.corl else None
        rates, others = [], []
        for round_number in range(arguments.rounds + 1):
            mine = rate(ours, arguments.seconds) * arguments.replicas
            other = rate(theirs, arguments.seconds) if theirs else math.nan
            if round_number:  # the first warms up
                rates.append(mine)
                others.append(other)
        median = float(np.median(rates))
        ratio = ""
        if theirs:
            quotient = float(np.median(np.divide(rates, others)))
            ratio = f"CORL {np.median(others):8.1f}, ratio {quotient:5.2f}, "
        count = operations(name, changes)
        print(
            f"{name:22s} {kernels.current()}, R = {arguments.replicas}: "
            f"{median:8.1f} updates/s and seed, {ratio}"
            f"{count / 1e9:7.3f} GFLOP an update, {count * median / limit:4.0%} of the limit",
            flush=True,
        )


if __name__ == "__main__":
    main()
