"""What the battery needs of each algorithm: small configurations, data, and trained learners."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offrl import registry
from offrl.data.transitions import Transitions
from offrl.learning.learner import Learner, SingleSeedLearner, find_algorithm
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.learning.spec import Spec

EXAMPLE = str(Path(__file__).parents[1] / "docs" / "my_algo.py")
SPEC = Spec(5, 3, 2.0, 1000, np.full(5, 0.1, np.float32), np.full(5, 1.2, np.float32))

# Where narrow `*hidden` fields and small batches are not all it takes to make a run quick.
SMALL: dict[str, dict[str, Any]] = {
    "decision_transformer": {
        "target_returns": (10.0, 5.0),
        "return_scale": 10.0,
        "context": 4,
        "embedding": 16,
        "layers": 1,
        "warmup": 10,
        "batch_size": 16,
    },
}

# At its default, alpha lets a Q that was fitted at one action only pull to the corners.
IMITATING: dict[str, dict[str, Any]] = {
    "edac": {"eta": 5.0, "critic_lr": 3e-3},
    "td3_bc": {"alpha": 0.1},
}

# Choices that take other ways through a learner than its defaults: two replicas and two halves of a
# run have to agree there too.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("awac", {"weights": "softmax", "log_std": "sigmoid", "advantage": "before"}),
    ("cql", {"lagrange": "corl", "order": "corl", "policy": "corl", "bc_steps": 0}),
    ("cql", {"order": "offlinerl", "backup": "min then max", "importance_sampling": False}),
    ("decision_transformer", {"padding": "right", "average_over": "all steps"}),
    ("edac", {"order": "corl", "max_q_backup": True}),
    ("edac", {"order": "offlinerl-kit"}),
    ("iql", {"order": "corl", "dropout": 0.1}),
    ("sac_n", {"order": "corl", "max_q_backup": True}),
]

# Settings with which the critic estimates the plain discounted return of the data's actions, so
# that a chain has a known solution. An algorithm that is not here has no critic to ask.
PLAIN: dict[str, dict[str, Any]] = {
    "awac": {},
    "cql": {"cql_alpha": 0.0},
    "edac": {"eta": 0.0},
    "iql": {"value_lr": 3e-3, "expectile": 0.5},
    "rebrac": {"critic_bc_coef": 0.0},
    "sac_n": {},
    "td3_bc": {},
}

# Nothing in its losses pulls towards the data's actions: where its critics agree, any action is as
# good as the data's.
NOT_IMITATING = ("sac_n",)


def data(rows: int = 400, bound: float = 2.0) -> Transitions:
    """Random transitions in episodes of 50, a tenth of them terminations."""
    rng = np.random.default_rng(0)
    return Transitions(
        observations=rng.standard_normal((rows, 5), dtype=np.float32),
        actions=rng.uniform(-bound, bound, (rows, 3)).astype(np.float32),
        rewards=rng.standard_normal(rows, dtype=np.float32),
        next_observations=rng.standard_normal((rows, 5), dtype=np.float32),
        terminations=(rng.random(rows) < 0.1).astype(np.float32),
        truncations=(np.arange(rows) % 50 == 49).astype(np.float32),
    )


def chain(termination: float) -> Transitions:
    """A two-step chain: s0 -> s1 pays 0, s1 -> s0 pays 1 and ends, or is cut off and goes on."""
    states = np.eye(5, dtype=np.float32)
    rng = np.random.default_rng(1)
    actions = rng.uniform(-2, 2, (400, 3)).astype(np.float32)
    first = np.arange(400) % 2 == 0
    return Transitions(
        observations=np.where(first[:, None], states[0], states[1]),
        actions=actions,
        rewards=np.where(first, 0, 1).astype(np.float32),
        next_observations=np.where(first[:, None], states[1], states[0]),
        terminations=np.where(first, 0, termination).astype(np.float32),
        truncations=np.where(np.arange(400) % 4 == 3, 1 - termination, 0).astype(np.float32),
    )


def small(name: str, **changes: Any) -> Any:
    """The algorithm's default config with narrow networks and small batches, and `changes`."""
    config = find_algorithm(name).Config()
    fields = [field.name for field in dataclasses.fields(config)]
    narrow: dict[str, Any] = {f: (16, 16) for f in fields if f.endswith("hidden")}
    narrow |= {"batch_size": 32, **SMALL.get(name, {})}
    known = {key: value for key, value in changes.items() if key in fields}
    return dataclasses.replace(config, **{**narrow, **known})


def untrained(
    name: str, transitions: Transitions, seeds: list[int], config: Any = None
) -> tuple[Learner, Sampler]:
    """A learner of the prepared data, and its sampler."""
    found: type[Learner] | type[SingleSeedLearner] = find_algorithm(name)
    config = config or small(name)
    prepared = found.prepare(transitions, config)
    learner = build(found, SPEC, config, seeds)
    return learner, found.sampler(prepared, config, seeds, "cpu")


def trained(
    name: str, transitions: Transitions, seeds: list[int], updates: int, config: Any = None
) -> tuple[Learner, Sampler]:
    """A learner after some updates, and its sampler."""
    learner, sampler = untrained(name, transitions, seeds, config)
    for _ in range(updates):
        learner.update(sampler.sample())
    return learner, sampler


def parameters(learner: Learner) -> list[torch.Tensor]:
    """The trained and target parameters of a learner."""
    found: list[torch.Tensor] = []
    for value in vars(learner).values():
        if isinstance(value, torch.nn.Module):
            found += list(value.parameters())
        elif isinstance(value, torch.nn.Parameter):
            found.append(value)
        elif isinstance(value, list):  # the single-seed learners of an algorithm without the axis
            found += [
                p for item in value if isinstance(item, SingleSeedLearner) for p in _plain(item)
            ]
    return found


def _plain(learner: SingleSeedLearner) -> list[torch.Tensor]:
    modules = [v for v in vars(learner).values() if isinstance(v, torch.nn.Module)]
    return [parameter for module in modules for parameter in module.parameters()]


def algorithms(paths: list[str]) -> list[str]:
    """All that the registry finds, entry points included, the documented example, and `paths`."""
    return [*sorted(registry.modules("algorithms")), EXAMPLE, *paths]
