"""The battery on every algorithm: those registered, and the template for users' own."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from battery import EXAMPLE, SPEC, data, named, settings, small, subject, trained, untrained

from offrl.learning.batch import Batch
from offrl.learning.battery import Subject
from offrl.learning.checks import (
    CHECKS,
    IN_EVERY_WAY,
    Check,
    NotApplicable,
    acted,
    difference,
    imitates,
    parts_and_joins,
    solves_the_chain,
    stays_on_its_device,
)
from offrl.learning.learner import Learner, SingleSeedLearner, find_algorithm
from offrl.learning.sampler import UniformSampler
from offrl.learning.single import build
from offrl.learning.spec import Spec

NAMES = [*named(), EXAMPLE]
CASES = [
    pytest.param(
        check, way, id=f"{check.__name__}-{Path(name).stem}{f'-{way}' if str(way) else ''}"
    )
    for name in NAMES
    for check in CHECKS
    for way in (subject(name).ways() if check in IN_EVERY_WAY else [subject(name)])
]
BOTH = [name for name in named() if len(find_algorithm(name).actions) == 2]  # kinds of actions


@pytest.mark.parametrize(("check", "way"), CASES)
def test_an_algorithm_holds_to_the_battery(check: Check, way: Subject) -> None:
    if applies(check, way):
        check(way)
    else:
        with pytest.raises(NotApplicable):
            check(way)


def applies(check: Check, way: Subject) -> bool:
    """What has to be checked: a reason not to has to be in an algorithm's settings or its kind."""
    on_axis = issubclass(way.algorithm, Learner)
    if check in (parts_and_joins, stays_on_its_device):
        return on_axis
    stated: dict[Check, Any] = {
        imitates: way.settings.imitating,
        solves_the_chain: way.settings.plain,
    }
    return stated.get(check, {}) is not None


@pytest.mark.parametrize("name", named())
def test_a_value_based_algorithm_states_how_it_solves_the_chain(name: str) -> None:
    learner, sampler = untrained(name, data(), [0])
    has_value = "critic/q" in learner.update(sampler.sample())
    assert has_value == (settings(name).plain is not None)


@pytest.mark.parametrize("kind", BOTH)
def test_odds_are_those_of_the_data(kind: str) -> None:
    """In each of two states one action has 3 of 4 rows, and is taken."""
    rows = np.arange(400)
    states = np.eye(5, dtype=np.float32)[rows % 2]
    taken = np.where(rows // 2 % 4 == 0, 0, 1 + rows % 2)
    given = dataclasses.replace(data(), observations=states, actions=taken)
    config = small(kind, actor_lr=1e-2, fraction=1.0, normalize=False)
    learner, _ = trained(kind, given, [0], 400, config)
    two = torch.eye(5)[:2].unsqueeze(0)
    assert acted(learner, two).tolist() == [[1, 2]]
    odds = learner.actor(two).softmax(-1)[0]  # type: ignore[attr-defined]
    expected = torch.tensor([[0.25, 0.75, 0.0], [0.25, 0.0, 0.75]])
    torch.testing.assert_close(odds, expected, rtol=0, atol=0.06)


def test_a_single_seed_learner_is_kept_apart_from_the_global_generator() -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        batch_size: int = 8

    class Plain(SingleSeedLearner):
        def __init__(self, spec: Spec, config: Config, seed: int, device: Any = "cpu"):
            del config, seed, device
            self.net = torch.nn.Linear(spec.observation_dim, spec.action_dim)
            self.optimizer = torch.optim.Adam(self.net.parameters())

        def update(self, batch: Batch) -> dict[str, torch.Tensor]:
            noisy = batch.actions + torch.randn_like(batch.actions)
            loss = (self.net(batch.observations) - noisy).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            return {"actor/loss": loss}

        def act(self, observations: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                actions: torch.Tensor = self.net(observations)
                return actions

    def run(seeds: list[int], disturb: bool) -> Learner:
        learner = build(Plain, SPEC, Config(), seeds)
        sampler = UniformSampler(data(), 8, seeds)
        for _ in range(5):
            if disturb:
                torch.randn(3)
            learner.update(sampler.sample())
        return learner

    before = torch.get_rng_state()
    quiet = run([1, 2], disturb=False)
    assert torch.equal(before, torch.get_rng_state())
    assert not difference(quiet, run([1, 2], disturb=True))
    observations = torch.ones(1, 4, 5)
    alone = run([2], disturb=False).policy().act(observations)
    assert torch.equal(quiet.policy().act(observations.expand(2, -1, -1))[1], alone[0])
