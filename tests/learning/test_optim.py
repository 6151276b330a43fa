"""Our Adam against torch's, and schedules on tensors against those on numbers."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from offrl.errors import Damaged
from offrl.learning.optim import (
    Adam,
    adam,
    adamw,
    cosine_decay,
    elementwise,
    fused,
    set_rate,
    step,
    steps_made,
    warm_up,
)

SHAPES = ((3, 4, 5), (3, 2, 1, 5), (3, 1))
STEPS = 300


def parameters(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]
    return [torch.nn.Parameter(tensor) for tensor in drawn]


def descend(optimizer: torch.optim.Optimizer, trained: list[Tensor], steps: int = STEPS) -> None:
    """Follows gradients that fall to nothing and turn, of all sizes."""
    generator = torch.Generator().manual_seed(1)
    for k in range(steps):
        for parameter in trained:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = (noise * 10.0 ** (-k % 7) + parameter.detach()).to(parameter.dtype)
        optimizer.step()


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 5e-6)], ids=str
)
def test_it_agrees_with_torchs_own(
    decay: float, decoupled: bool, dtype: torch.dtype, near: float
) -> None:
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    expected, found = parameters(dtype), parameters(dtype)
    descend(kind(expected, lr=3e-3, weight_decay=decay, fused=True), expected)
    descend(Adam(found, 3e-3, decay, decoupled), found)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=near, atol=near)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_the_fused_step_is_the_elementwise_one(decoupled: bool, decay: float) -> None:
    """The former is taken on GPUs. Its rate there is float32, as are the kernel's own numbers."""

    def moved(advance: Callable[..., None]) -> list[Tensor]:
        trained = [p.detach() for p in parameters()]
        means, squares = ([torch.zeros_like(p) for p in trained] for _ in range(2))
        count, rate = torch.zeros(()), torch.tensor(3e-3, dtype=torch.float64)
        generator = torch.Generator().manual_seed(1)
        for _ in range(STEPS):
            gradients = [torch.randn(p.shape, generator=generator) for p in trained]
            count += 1
            advance(trained, gradients, means, squares, count, rate, decay, decoupled)
        return [*trained, *means, *squares]

    for a, b in zip(moved(fused), moved(elementwise), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_each_replica_has_its_own_rate_and_decay() -> None:
    rates, decays = [1e-2, 1e-3, 0.0], [0.0, 0.1, 0.1]
    for make in (adam, adamw):
        trained = parameters(torch.float64)
        descend(make(trained, column(rates), column(decays)), trained)
        for r in range(3):
            alone = parameters(torch.float64)
            descend(make(alone, rates[r], decays[r]), alone)
            for a, b in zip(trained, alone, strict=True):
                torch.testing.assert_close(a[r], b[r], rtol=1e-6, atol=1e-9)  # of float32 rates


def column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).unsqueeze(1)


def test_torchs_own_serves_one_rate_on_a_cpu() -> None:
    assert type(adam(parameters(), 1e-3)) is torch.optim.Adam
    assert type(adamw(parameters(), 1e-3, 0.1)) is torch.optim.AdamW
    on_device = [torch.nn.Parameter(torch.empty(3, 2, device="meta"))]
    assert type(adam(on_device, 1e-3)) is Adam
    assert type(adamw(on_device, 1e-3, 0.1)) is Adam


def test_its_state_is_restored_in_place_and_reads_that_of_torchs_own() -> None:
    trained, other = parameters(), parameters()
    theirs = torch.optim.Adam(trained, lr=1e-3, fused=True)
    descend(theirs, trained, 5)
    ours = Adam(other, 5e-2)
    descend(ours, other, 2)
    held = [ours.count, ours.rate, *(ours.state[p]["exp_avg"] for p in other)]
    ours.load_state_dict(theirs.state_dict())
    assert ours.count == 5
    assert ours.rate == pytest.approx(1e-3)
    now = [ours.count, ours.rate, *(ours.state[p]["exp_avg"] for p in other)]
    assert all(a is b for a, b in zip(held, now, strict=True))
    for a, b in zip(trained, other, strict=True):
        assert torch.equal(theirs.state[a]["exp_avg_sq"], ours.state[b]["exp_avg_sq"])
    fresh = Adam(parameters(), 1e-3).state_dict()
    ours.load_state_dict(fresh)  # as before its first step
    assert ours.count == 0
    assert all(not ours.state[p]["exp_avg"].any() for p in other)
    assert theirs.state_dict()["state"][0].keys() == ours.state_dict()["state"][0].keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("state"),
        lambda s: s["param_groups"].clear(),
        lambda s: s["param_groups"][0].update(params=[0]),
        lambda s: s["state"][0].update(exp_avg=torch.zeros(7)),
        lambda s: s["state"][0].update(step="one"),
        lambda s: s["param_groups"][0].update(lr=torch.zeros(2)),
    ],
)
def test_the_state_of_another_is_damaged(change: Callable[[dict[str, Any]], Any]) -> None:
    trained = parameters()
    optimizer = Adam(trained, 1e-3)
    descend(optimizer, trained, 1)
    state = optimizer.state_dict()
    change(state)
    with pytest.raises(Damaged, match="no state of an Adam of 3 tensors"):
        Adam(parameters(), 1e-3).load_state_dict(state)


def test_gradients_are_clipped_to_each_replicas_norm() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = adam([weight], column([1.0, 1.0, 1.0]))
    step(optimizer, (weight.square() * 5).sum(1), column([1.0, 2.0, 100.0]))
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad.norm(dim=1), torch.tensor([1.0, 2.0, 20.0]))


def test_schedules_of_tensors_are_those_of_numbers() -> None:
    for updates in (0, 1, 7, 19, 20, 50):
        tensor = torch.tensor(updates)
        for schedule in (cosine_decay, warm_up):
            found = schedule(tensor, 20)
            assert isinstance(found, Tensor)
            assert found.item() == pytest.approx(schedule(updates, 20), abs=1e-15)
    assert cosine_decay(5, 20) == 0.5 * (1 + math.cos(math.pi / 4))
    assert warm_up(torch.tensor(0), 0) == 1


def test_rates_are_set_in_place_and_steps_are_counted_on_the_device() -> None:
    trained = parameters()
    ours, theirs = Adam(trained, 1e-3), adam(parameters(), 1e-3)
    held = ours.rate
    set_rate(ours, 0.25)
    set_rate(theirs, 0.25)
    assert held == 0.25
    assert theirs.param_groups[0]["lr"] == 0.25
    descend(ours, trained, 3)
    assert steps_made(ours, 7) is ours.count
    assert ours.count == 3
    assert steps_made(theirs, 7) == 7
    set_rate(ours, 0.5 * steps_made(ours, 0))
    assert held == 1.5
