"""Updates on torch's meta device, where what a GPU would wait for or a capture refuse raises."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import battery
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from offrl.learning.battery import Subject
from offrl.learning.checks import stays_on_its_device
from offrl.learning.graphs import UNROLLED
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.meta import staying_on
from offrl.learning.networks import LookUp, look_up
from offrl.learning.sampler import Sampler

ON_AXIS = [name for name in battery.named() if issubclass(find_algorithm(name), Learner)]
VARIANTS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in ON_AXIS]
VARIANTS += [(name, dict(v)) for name in ON_AXIS for v in battery.settings(name).variants]
MORE: list[tuple[str, dict[str, Any]]] = [
    ("iql", {"deterministic": True}),
    ("cql", {"lagrange": "authors", "importance_sampling": False, "gap_min": -200.0}),
    ("cql", {"backup": "max then min", "sampled_dtype": "bfloat16", "bc_steps": 2}),
    ("cql", {"backup": "min then max", "backup_entropy": True, "order": "offlinerl"}),
    ("td3_bc", {"policy_delay": 3, "normalize": "actor"}),
    ("rebrac", {"normalize": True}),
    ("decision_transformer", {"activation": "gelu", "heads": 2}),
    ("bc", {"output": "linear", "activation": "leaky_relu"}),
]
VARIANTS += [*MORE, ("bc", {"discrete": True}), ("percent_bc", {"discrete": True})]  # of the data


def way(name: str, changes: dict[str, Any]) -> Subject:
    own = {key: value for key, value in changes.items() if key != "discrete"}
    subject = battery.subject(name)
    discrete = subject.discrete or "discrete" in changes
    return dataclasses.replace(subject, changes=own, discrete=discrete)


def on_meta(name: str, changes: dict[str, Any]) -> tuple[Learner, Sampler]:
    return way(name, changes).untrained(battery.data(), [3, 0, 11], device="meta")


@pytest.mark.parametrize(("name", "changes"), MORE)
def test_an_update_stays_on_its_device_in_other_ways_too(
    name: str, changes: dict[str, Any]
) -> None:
    """The battery has each algorithm's own."""
    stays_on_its_device(way(name, changes))


MISTAKES: dict[str, Callable[[Tensor], Any]] = {
    "a number is read": lambda x: x.sum().item(),
    "a branch depends on data": lambda x: bool(x.sum() > 0),
    "a shape depends on data": lambda x: x.nonzero(),
    "a mask picks rows": lambda x: x[x[:, 0] > 0],
    "a copy goes to the host": lambda x: x.cpu(),
    "an array is made": lambda x: x.numpy(),
    "a copy comes from the host": lambda x: x.copy_(torch.zeros(4, 3)),
    "an operand is on the host": lambda x: x + torch.ones(3),
    "a product is with the host's": lambda x: x @ torch.ones(3, 2),
    "an index is on the host": lambda x: x[torch.tensor([0, 1])],
    "an index is a list": lambda x: x[[0, 1]],
    "a tensor is made of a list": lambda x: x * torch.tensor([1.0, 2.0, 3.0], device="meta"),
    "a loop is over values": lambda x: [value for value in x[0].tolist() if value],
    "noise is drawn on the host": lambda x: x + torch.randn(3),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_kind_of_mistake_is_found(mistake: str) -> None:
    x = torch.empty(4, 3, device="meta")
    errors = (AssertionError, RuntimeError, NotImplementedError, TypeError)
    with pytest.raises(errors), staying_on("meta"):
        MISTAKES[mistake](x)


class Stream(TorchDispatchMode):
    """Keeps the operations, with the shapes and numbers that they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        seen = [tuple(x.shape) if isinstance(x, Tensor) else copy.copy(x) for x in leaves]
        if func.namespace != "profiler":
            self.operations.append((str(func), seen))
        return func(*args, **(kwargs or {}))


def operations(learner: Learner, sampler: Sampler) -> list[Any]:
    stream = Stream()
    with stream:
        learner.update(sampler.sample())
    return stream.operations


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_the_work_repeats_after_the_stated_period(name: str, changes: dict[str, Any]) -> None:
    """A graph freezes operations, shapes and Python's numbers: they have to be the same again.

    Nothing but the end of a stated phase changes them, and the period is the shortest.
    """
    learner, sampler = on_meta(name, changes)
    period = learner.period
    assert period is not None
    start = max([1, *(p for p in learner.phases if p < 100)])  # the first makes moments
    start = period * -(-start // period)
    for _ in range(start):
        learner.update(sampler.sample())
    made = [operations(learner, sampler) for _ in range(2 * period)]
    assert made[:period] == made[period:]
    if period > 1:
        assert any(work != made[0] for work in made[1:period])
    assert len(made[0]) > 20


def test_a_phase_changes_the_work() -> None:
    learner, sampler = on_meta("cql", {"bc_steps": 2})
    made = [operations(learner, sampler) for _ in range(4)]
    assert made[1] != made[2] == made[3]
    assert learner.phases == (2,)
    assert UNROLLED >= 2


def test_rows_are_looked_up_as_by_torch() -> None:
    """The gradient of the path for GPUs, in float64 and against autograd through an index."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(3, 7, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    rows = torch.randint(7, (3, 5, 6), generator=generator)
    weight = torch.randn(3, 5, 6, 4, dtype=torch.float64, generator=generator)
    expected = torch.stack([table[r][rows[r]] for r in range(3)])
    for found in (look_up(table, rows), LookUp.apply(table, rows)):
        assert torch.equal(found, expected)
        (gradient,) = torch.autograd.grad((found * weight).sum(), table)
        (right,) = torch.autograd.grad((expected * weight).sum(), table, retain_graph=True)
        torch.testing.assert_close(gradient, right, rtol=1e-12, atol=1e-12)
