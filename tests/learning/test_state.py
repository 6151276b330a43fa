"""What a checkpoint of a stranger can set: what training changes, in the shapes that it has."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import battery
import numpy as np
import pytest
import torch

import offrl
from offrl.errors import Damaged
from offrl.learning.learner import Learner
from offrl.learning.state import Stateful
from offrl.learning.streams import Streams

State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
    lr: float = 1e-3


class Plain(offrl.SingleSeedLearner):
    """An attribute of every kind."""

    Config = Config

    def __init__(self) -> None:
        self.config = Config()
        self.net = torch.nn.Linear(3, 2)
        self.scale = torch.nn.Parameter(torch.ones(2))
        self.nets = {"a": torch.nn.Linear(1, 1)}
        self.optimizer = torch.optim.Adam(self.net.parameters())
        self.net(torch.ones(1, 3)).sum().backward()
        self.optimizer.step()
        self.generator = torch.Generator()
        self.seen = torch.zeros(2)
        self.array = np.zeros(2)
        self.history: list[Any] = []
        self.average: Any = 0.0
        self.best: Any = None

    def update(self, batch: Any) -> dict[str, float]:
        raise NotImplementedError

    def act(self, observations: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def test_what_training_may_change_comes_back() -> None:
    trained = Plain()
    trained.seen = torch.ones(5)  # grew
    trained.array = np.ones(4)
    trained.history += [1.0, torch.ones(2)]
    trained.average = torch.tensor(0.5)  # a number at first
    trained.best = torch.ones(3)
    trained.nets["a"].bias.data += 1
    restored = Plain()
    restored.load_state_dict(trained.state_dict())
    assert restored.seen.shape == (5,)
    assert restored.array.tolist() == [1] * 4
    assert restored.history[0] == 1.0
    assert restored.average == 0.5
    assert restored.best is not None
    assert restored.nets["a"].bias == trained.nets["a"].bias


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("net"), "lacks 'net'"),
        (lambda s: s.update(extra=1), "has 'extra'"),
        (lambda s: s["net"].update(weight=torch.zeros(2, 4)), "net does not fit: .*size mismatch"),
        (lambda s: s["net"].pop("bias"), "net does not fit: .*[Mm]issing"),
        (lambda s: s.update(net=3), "net does not fit"),
        (lambda s: s.update(scale=torch.ones(3)), r"scale .* expected torch.float32 \[2\], found"),
        (lambda s: s.update(scale=torch.ones(2).double()), r"scale .* found torch.float64"),
        (lambda s: s.update(scale=1.0), "scale .* expected a tensor, found 1.0"),
        (lambda s: s.update(seen=torch.ones(2, dtype=torch.int64)), "seen .* found torch.int64"),
        (lambda s: s.update(array=torch.ones(2)), "array .* found torch.float32"),
        (lambda s: s.update(nets={}), "nets .* expected a dict with"),
        (lambda s: s.update(nets=[]), "nets .* expected a dict with"),
        (lambda s: s.update(history=1), "history .* expected a list"),
        (lambda s: s.update(average="x"), "average .* expected a number, found 'x'"),
        (lambda s: s.update(generator=torch.zeros(3)), "generator does not fit"),
        (lambda s: s.update(optimizer={}), "optimizer does not fit"),
        (
            lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(5)),
            r"optimizer .* exp_avg: expected \[2, 3\], found torch.float32 \[5\]",
        ),
    ],
)
def test_a_state_of_something_else_is_damaged(change: Callable[[State], Any], says: str) -> None:
    state = copy.deepcopy(Plain().state_dict())
    change(state)
    with pytest.raises(Damaged, match=says):
        Plain().load_state_dict(state)


def test_a_stream_s_state_is_damaged_or_its_own() -> None:
    streams = Streams([0, 1], "x")
    whole = streams.state_dict()
    for state in ({}, {"0": whole["0"]}, {**whole, "1": torch.zeros(3)}, {**whole, "1": 3}):
        with pytest.raises(Damaged, match="no state of 2 generators"):
            streams.load_state_dict(state)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", battery.named())
def test_a_checkpoint_sets_no_config_and_nothing_of_the_task(name: str) -> None:
    learner, _ = battery.untrained(name, battery.data(), [0, 1])
    before, state = copy.deepcopy(vars(learner)), learner.state_dict()
    for key, value in state.items():
        if key not in ("updates", "last_actor_loss") and isinstance(value, (int, float)):
            state[key] = value + 1
    state["config"] = {"batch_size": 1}
    if "standardise" in state:
        state["standardise"]["mean"] = state["standardise"]["mean"] + 1
    learner.load_state_dict(state)
    assert learner.config == before["config"]
    numbers = {k: v for k, v in before.items() if isinstance(v, (int, float))}
    assert {key: vars(learner)[key] for key in numbers} == numbers
    assert torch.equal(learner.standardise.mean, before["standardise"].mean)


def parameters(state: Any) -> list[tuple[Any, Any]]:
    """Where each tensor of a network stands in a state."""
    items = list(state.items()) if isinstance(state, dict) else []
    tensors = [(state, key) for key, value in items if isinstance(value, torch.Tensor)]
    return tensors + [place for _, value in items for place in parameters(value)]


@pytest.mark.parametrize("name", battery.named())
def test_no_parameter_takes_another_shape(name: str) -> None:
    learner: Learner
    learner, _ = battery.untrained(name, battery.data(), [0])
    fixed = type(learner).not_restored
    state = {
        key: value
        for key, value in learner.state_dict().items()
        if isinstance(vars(learner)[key], (torch.nn.Module, torch.nn.Parameter))
        and key not in fixed
    }
    places = parameters(state)
    assert places
    for holder, key in places:
        own = holder[key]
        holder[key] = torch.zeros(7, 7)
        with pytest.raises(Damaged):
            learner.load_state_dict({**learner.state_dict(), **state})
        holder[key] = own


def test_old_states_may_lack_what_is_not_restored() -> None:
    learner, _ = battery.untrained("bc", battery.data(), [0])
    state = {k: v for k, v in learner.state_dict().items() if k not in Learner.not_restored}
    learner.load_state_dict(state)
    assert issubclass(Learner, Stateful)
