"""Recorded updates against single ones, with a recorder that replays operations on a CPU."""

import dataclasses
import logging
import re
from collections.abc import Iterator
from typing import Any

import battery
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from offrl.learning.graphs import Captured, Work
from offrl.learning.groups import build_sampler, grouped
from offrl.learning.learner import Learner, find_algorithm
from offrl.learning.optim import Adam
from offrl.learning.sampler import Sampler
from offrl.learning.single import build
from offrl.learning.streams import Streams

SEEDS = [3, 0]
ON_AXIS = [name for name in battery.named() if issubclass(find_algorithm(name), Learner)]
VIEWS = ("detach", "view", "slice", "select", "unsqueeze", "squeeze", "expand", "t", "transpose")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """The way of a GPU through the networks, and differences that are not rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Record(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class Replayer:
    """Calls the recorded operations again, on the same tensors and with the same numbers.

    That is what a CUDA graph does; unlike one, it does the work when it records it.
    """

    def __init__(self) -> None:
        self.replays = 0

    def warm_up(self, work: Work) -> None:
        work()

    def record(self, work: Work) -> Work:
        with Record() as record:
            work()

        def replay() -> None:
            self.replays += 1
            with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
                for func, args, kwargs, out in record.calls:
                    name = func._schema.name.split("::")[1]
                    if func.is_view or name in VIEWS:
                        continue
                    result = func(*args, **kwargs)
                    if not func._schema.is_mutable:
                        pairs = zip(tree_leaves(out), tree_leaves(result), strict=True)
                        for old, new in pairs:
                            if isinstance(old, Tensor):
                                old.copy_(new)

        return replay


class Doubled:
    """A sampler's batches in float64."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler

    def sample(self) -> Any:
        batch = self.sampler.sample()
        return type(batch)(
            **{
                name: value.double() if value is not None and value.is_floating_point() else value
                for name, value in vars(batch).items()
            }
        )

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state)


def made(name: str, **changes: Any) -> tuple[Learner, Sampler]:
    """Two replicas with rates of their own, hence our Adam, that draw by counting."""
    algorithm = find_algorithm(name)
    quick = {"n_actions": 2, "num_critics": 3, "max_episode_steps": 50, "hidden": (8, 8)}
    config = battery.small(name, **{**quick, "batch_size": 8, **changes})
    rates = [field for field in vars(config) if field.endswith("_lr")]
    other = dataclasses.replace(config, **{f: 0.5 * getattr(config, f) for f in rates})
    spec = dataclasses.replace(battery.SPEC, steps=20)  # schedules change within a few updates
    data = algorithm.prepare(battery.suited(name, battery.data()), config)
    spec = battery.spec_of(data, spec)
    both, spec = grouped(algorithm, [config, other], [spec, spec])
    learner = build(algorithm, spec, both, SEEDS)
    sampler = build_sampler(algorithm, [data] * 2, both, SEEDS, "cpu")
    for owner in (learner, sampler):
        for value in vars(owner).values():
            if isinstance(value, Streams):
                value.load_state_dict({"draws": torch.tensor(0)})
    assert any(isinstance(value, Adam) for value in vars(learner).values())
    return learner, Doubled(sampler)


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, dict):
        return [t for key in state for t in tensors(state[key])]
    if isinstance(state, list):
        return [t for item in state for t in tensors(item)]
    return [state] if isinstance(state, Tensor) else []


def same(a: Learner, b: Learner) -> bool:
    pairs = zip(tensors(a.state_dict()), tensors(b.state_dict()), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def compare(name: str, counts: list[int], **changes: Any) -> tuple[Captured, Learner]:
    learner, sampler = made(name, **changes)
    captured = Captured(learner, sampler, "cpu", recorder=Replayer())
    twin, twin_sampler = made(name, **changes)
    for count in counts:
        captured.advance(count)
        for _ in range(count):
            metrics = twin.update(twin_sampler.sample())
        for key, value in metrics.items():
            assert torch.equal(captured.metrics[key], value), key
    assert captured.made == sum(counts)
    return captured, twin


@pytest.mark.parametrize("name", ON_AXIS)
def test_replays_are_the_updates_one_by_one(name: str) -> None:
    """From the first update, cut anywhere: 2 alone, 8 alone, 20 by graph, 5 alone, 5, 10."""
    captured, twin = compare(name, [2, 8, 20, 5, 15])
    assert same(captured.learner, twin)
    assert isinstance(captured.recorder, Replayer)
    assert captured.recorder.replays == 3
    assert getattr(captured.learner, "updates", 45) == getattr(twin, "updates", 45)


def test_a_graph_is_kept_within_a_phase() -> None:
    captured, twin = compare("cql", [40], bc_steps=13)
    assert same(captured.learner, twin)
    assert isinstance(captured.recorder, Replayer)
    assert captured.recorder.replays == 1 + 2


def test_graphs_start_at_whole_periods() -> None:
    captured, twin = compare("td3_bc", [1, 30, 2], policy_delay=3)
    assert captured.size == 9
    assert same(captured.learner, twin)
    assert isinstance(captured.recorder, Replayer)
    assert captured.recorder.replays == 3


def test_a_wrong_period_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above could not fail."""
    monkeypatch.setattr(find_algorithm("td3_bc"), "period", 1)
    learner, sampler = made("td3_bc", policy_delay=3)
    captured = Captured(learner, sampler, "cpu", recorder=Replayer())
    captured.advance(20)
    twin, twin_sampler = made("td3_bc", policy_delay=3)
    for _ in range(20):
        twin.update(twin_sampler.sample())
    assert not same(learner, twin)


def test_a_frozen_rate_is_noticed() -> None:
    """A schedule on the host's count of updates stays where it was when it was recorded."""
    learner, sampler = made("iql")
    captured = Captured(learner, sampler, "cpu", recorder=Replayer())
    captured.advance(10)
    before = [v.rate.clone() for v in vars(learner).values() if isinstance(v, Adam)]
    captured.advance(5)
    after = [v.rate for v in vars(learner).values() if isinstance(v, Adam)]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_state_goes_on_after_it_is_saved_and_recorded_anew() -> None:
    captured, twin = compare("iql", [20])
    state, drawn = captured.learner.state_dict(), captured.sampler.state_dict()
    learner, sampler = made("iql")
    learner.load_state_dict(state)
    sampler.load_state_dict(drawn)
    resumed = Captured(learner, sampler, "cpu", made=20, recorder=Replayer())
    resumed.advance(20)
    captured.advance(20)
    assert same(learner, captured.learner)
    assert not same(learner, twin)


class Failing(Replayer):
    """A capture that breaks, after it has changed the state."""

    def record(self, work: Work) -> Work:
        work()
        raise RuntimeError("operation not permitted when stream is capturing")


def test_where_it_fails_it_goes_on_and_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    learner, sampler = made("td3_bc")
    captured = Captured(learner, sampler, "cpu", recorder=Failing())
    twin, twin_sampler = made("td3_bc")
    with caplog.at_level(logging.WARNING):
        captured.advance(30)
    for _ in range(30):
        twin.update(twin_sampler.sample())
    assert same(learner, twin)
    (record,) = caplog.records
    assert "TD3BC: updates are made one by one" in record.message
    assert "operation not permitted when stream is capturing" in record.message


def test_a_card_without_memory_is_the_callers_affair() -> None:
    class Small(Replayer):
        def record(self, work: Work) -> Work:
            work()
            raise torch.OutOfMemoryError

    learner, sampler = made("bc")
    captured = Captured(learner, sampler, "cpu", recorder=Small())
    twin, twin_sampler = made("bc")
    with pytest.raises(torch.OutOfMemoryError):
        captured.advance(30)
    assert captured.made == 0
    for owner in (learner, twin):
        owner.update((sampler if owner is learner else twin_sampler).sample())
    assert same(learner, twin)


@pytest.mark.parametrize(
    ("attribute", "change", "says"),
    [
        ("average", lambda self: setattr(self, "average", self.average + 1), r"\.average is anoth"),
        ("rate", lambda self: setattr(self, "rate", 0.9 * self.rate), r"\.rate is a number of the"),
    ],
)
def test_what_cannot_be_replayed_is_named(
    attribute: str, change: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    base: Any = find_algorithm("bc")

    class Odd(base):  # type: ignore[misc]
        def update(self, batch: Any) -> Any:
            change(self)
            return super().update(batch)

    learner, sampler = made("bc")
    learner.__class__ = Odd
    setattr(learner, attribute, torch.zeros(2) if attribute == "average" else 1.0)
    captured = Captured(learner, sampler, "cpu", recorder=Replayer())
    captured.advance(10)
    assert captured.recorder is None
    assert re.search(says, caplog.text)


def test_a_learner_without_a_period_is_not_recorded() -> None:
    learner, sampler = battery.untrained(battery.EXAMPLE, battery.data(), [0])
    assert learner.period is None
    captured = Captured(learner, Doubled(sampler), "cpu", recorder=Replayer())
    assert captured.metrics == {}
    captured.advance(2)
    assert captured.graph is None
    assert captured.made == 2
    assert "actor/loss" in captured.metrics
