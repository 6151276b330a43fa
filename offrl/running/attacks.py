"""Adversarial corruption: noise that lowers what a critic trained on the data makes of some rows.

As Yang et al. 2024 (RIQL, attack.py) do: noise n starts uniform in [-range, range] times the
column's standard deviation, is moved 100 times by 0.01 range against the sign of the gradient of
the critics' mean Q, stays in [-range, range], and is added in standard deviations. Q is Q(s + n, a)
for observations, Q(s, a + n) for actions and Q(s' + n, pi(s' + n)) for next observations.

Known differences: theirs has critics that were trained for 3,000 epochs and are published for three
data sets; here an algorithm's critics are trained for `updates` with its default config. Theirs
steps by Adam, begun anew each time, which is a step by the sign but for gradients below 1e-8.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offrl.data.columns import Columns
from offrl.data.transforms import Corrupt, check_known, spread_of
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.evaluation.environments import Actions
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.single import build
from offrl.running.faults import blaming
from offrl.running.task import learner_spec

log = logging.getLogger(__name__)

STEPS = 100
RATE = 0.01  # of a step, in ranges
ROWS = 2**12  # that are attacked together

Value = Callable[[Tensor, Tensor], Tensor]  # of states and actions, (1, B, dim) each: (1, B)
Policy = Callable[[Tensor], Tensor]


def attacked(transform: Corrupt, columns: Columns) -> Columns:
    """The rows, some of which an adversarial transform corrupts.

    Raises InputError where its critic is no algorithm that has one, where actions are discrete, or
    where rows have none.
    """
    if columns.actions.dtype.kind == "i":
        raise InputError(f"{transform}: its actions are discrete; choose mode random")
    check_known(columns, transform)
    value, policy = trained(transform, columns)
    rows = transform.rows(len(columns.rewards), np.random.RandomState(transform.drawn))
    new = np.array(getattr(columns, transform.element))
    spread = torch.from_numpy(spread_of(new).astype(np.float32))
    generator = torch.Generator().manual_seed(transform.drawn)
    for first in range(0, len(rows), ROWS):
        block = rows[first : first + ROWS]
        attack = _attack(transform.element, columns, block, value, policy)
        new[block] += noise(attack, len(block), spread, transform.range, generator).numpy()
    return transform.corrupted(columns, rows, new)


def noise(
    attack: Callable[[Tensor], Tensor],
    rows: int,
    spread: Tensor,
    limit: float,
    generator: torch.Generator,
) -> Tensor:
    """Noise (rows, dim) that lowers what `attack` gives, within `limit` standard deviations.

    Args:
        attack: the value to be lowered, of noise of that shape.
        rows: how many.
        spread: standard deviations (dim,).
        limit: of the noise in each dimension, in standard deviations.
        generator: of where it starts.
    """
    start = torch.rand(rows, len(spread), generator=generator)
    moved = (limit * (2 * start - 1) * spread).requires_grad_()
    for _ in range(STEPS):
        (gradient,) = torch.autograd.grad(attack(moved * spread).sum(), moved)
        with torch.no_grad():
            moved -= RATE * limit * gradient.sign()
            moved.clamp_(-limit, limit)
    return (moved * spread).detach()


def trained(transform: Corrupt, columns: Columns) -> tuple[Value, Policy]:
    """The mean Q of the critics that were trained on the rows, and the policy beside them."""
    assert transform.critic is not None
    assert transform.updates is not None
    kind = find_algorithm(transform.critic)
    rows = Transitions(
        np.asarray(columns.observations),
        np.asarray(columns.actions),
        np.asarray(columns.rewards),
        np.asarray(columns.next_observations),
        np.asarray(columns.terminations, dtype=np.float32),
        np.asarray(columns.truncations, dtype=np.float32),
    )
    config: Any = kind.Config()
    data = kind.prepare(rows, config)
    bound = float(np.abs(rows.actions).max()) or 1.0
    actions = Actions.within(bound, rows.actions.shape[1])
    seeds = [transform.drawn]
    learner = build(kind, learner_spec(data, actions, transform.updates), config, seeds)
    critic: Any = getattr(learner, "critic", None)
    if not (issubclass(kind, Learner) and callable(critic)):
        raise InputError(f"{transform}: algorithm {transform.critic} has no critic; choose another")
    log.info("%s: training the critic of %s", transform, transform.critic)
    sampler = kind.sampler(data, config, seeds, "cpu")
    with blaming(kind, "update"):
        for _ in range(transform.updates):
            learner.update(sampler.sample())
    policy: Any = learner.policy()

    def seen(states: Tensor) -> Tensor:
        return learner.states(states) if hasattr(config, "normalize") else states

    def value(states: Tensor, taken: Tensor) -> Tensor:
        q: Tensor = critic(torch.cat([seen(states), taken], -1))
        return q.squeeze(-1).mean(1)

    return value, policy.function


def _attack(
    element: str, columns: Columns, rows: NDArray[np.int64], value: Value, policy: Policy
) -> Callable[[Tensor], Tensor]:
    """The value of noise on an element of these rows."""

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(getattr(columns, name)[rows]))

    if element == "next_observations":
        after = tensor(element)
        return lambda n: value((after + n)[None], policy((after + n)[None]))
    states, actions = tensor("observations"), tensor("actions")
    if element == "actions":
        return lambda n: value(states[None], (actions + n)[None])
    return lambda n: value((states + n)[None], actions[None])
