"""Runs with other settings, on other data, as the replicas of one batch."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import battery
import numpy as np
import pytest
import torch

from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning.batch import Batch
from offrl.learning.groups import build_sampler, group_key, grouped
from offrl.learning.learner import Learner, SingleSeedLearner, find_algorithm
from offrl.learning.sampler import Stacked, UniformSampler
from offrl.learning.single import build
from offrl.learning.spec import Spec
from offrl.learning.state import join

SEEDS = [3, 0, 11]
ALONE = 100  # updates, over which rounding errors stay small in float64
# In place of others, where a variant's path through the learner needs them.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "awac": [{"weights": "softmax", "advantage": "before"}],
    "cql": [
        {"lagrange": "authors", "bc_steps": 50},
        {"lagrange": "corl", "importance_sampling": False, "bc_steps": 0},
    ],
    "iql": [{"deterministic": True, "order": "corl"}],
}
CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in battery.named()]
CASES += [(name, changes) for name, several in VARIANTS.items() for changes in several]


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def spec(r: int, differ: bool) -> Spec:
    """Statistics of replica r's own, where they differ."""
    own = 0.25 * r * differ
    return Spec(5, 3, 2.0, ALONE, np.full(5, own, np.float32), np.full(5, 1 + own, np.float32))


def different(name: str, changes: dict[str, Any]) -> list[Any]:
    """Three configs that differ in every field that may, by numbers that float32 holds."""
    quick = {"n_actions": 2, "num_critics": 3, "max_episode_steps": 50, "hidden": (8, 8)}
    config = battery.small(name, **{**quick, **changes, "batch_size": 8})
    config = dataclasses.replace(
        config, **{f: (8, 8) for f in vars(config) if f.endswith("_hidden")}
    )
    varying = find_algorithm(name).varying
    factors = (1.0, 0.75, 0.5)

    def value(field: str, factor: float) -> float:
        first = float(np.float32(getattr(config, field) or 0.25))
        return float(np.float32(first * factor))

    return [
        dataclasses.replace(config, **{field: value(field, f) for field in varying})
        for f in factors
    ]


def doubled(batch: Any) -> Any:
    columns = {}
    for field, value in vars(batch).items():
        real = value is not None and value.is_floating_point()
        columns[field] = value.double() if real else value
    return type(batch)(**columns)


def trained(
    name: str,
    configs: list[Any],
    specs: list[Spec],
    data: list[Transitions],
    seeds: list[int],
    updates: int = ALONE,
) -> tuple[Learner, list[dict[str, torch.Tensor]]]:
    algorithm = find_algorithm(name)
    data = [battery.suited(name, each) for each in data]
    specs = [battery.spec_of(*pair) for pair in zip(data, specs, strict=True)]
    config, one = grouped(algorithm, configs, specs)
    learner = build(algorithm, one, config, seeds)
    prepared = [algorithm.prepare(each, own) for each, own in zip(data, configs, strict=True)]
    sampler = build_sampler(algorithm, prepared, config, seeds, "cpu")
    metrics = [dict(learner.update(doubled(sampler.sample()))) for _ in range(updates)]
    return learner, metrics


def data(r: int) -> Transitions:
    """Replica r's data: the first and the last have as many rows."""
    rows = (300, 350, 300)[r]
    whole = battery.data(400)
    return whole.rows(np.arange(50 * r, 50 * r + rows))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "changes"), CASES)
def test_replicas_with_other_settings_and_data_train_as_alone(
    name: str, changes: dict[str, Any]
) -> None:
    configs = different(name, changes)
    specs = [spec(r, True) for r in range(3)]
    sets = [data(r) for r in range(3)]
    together, metrics = trained(name, configs, specs, sets, SEEDS)
    for r, seed in enumerate(SEEDS):
        alone, own = trained(name, [configs[r]], [specs[r]], [sets[r]], [seed])
        for left, right in zip(metrics, own, strict=True):
            for key, value in right.items():
                torch.testing.assert_close(left[key][r], value[0], rtol=1e-8, atol=1e-10)
        for parameter, single in zip(
            battery.parameters(together), battery.parameters(alone), strict=True
        ):
            torch.testing.assert_close(parameter[r], single[0], rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", battery.named())
def test_every_declared_field_changes_what_is_learned(name: str) -> None:
    """Else the test above could not fail for it. (Fields of a variant are not used by default.)"""
    algorithm = find_algorithm(name)
    unused = {"cql": {"target_gap"}}.get(name, set())
    first = different(name, {})[0]
    base, _ = trained(name, [first], [spec(0, False)], [data(0)], [0], 4)
    for field in algorithm.varying - unused:
        other = dataclasses.replace(first, **{field: 0.5 * getattr(first, field)})
        learner, _ = trained(name, [other], [spec(0, False)], [data(0)], [0], 4)
        pairs = zip(battery.parameters(base), battery.parameters(learner), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs), field


def test_fields_are_there() -> None:
    for name in battery.named():
        algorithm = find_algorithm(name)
        fields = {field.name for field in dataclasses.fields(algorithm.Config)}
        assert algorithm.varying | algorithm.preparing <= fields
        assert not algorithm.varying & algorithm.preparing


def test_values_that_agree_stay_numbers() -> None:
    algorithm = find_algorithm("td3_bc")
    a, b = battery.small("td3_bc"), battery.small("td3_bc", alpha=1.0)
    config, one = grouped(algorithm, [a, b], [battery.SPEC] * 2)
    assert config.gamma == 0.99
    assert config.alpha.dtype == torch.float32
    assert config.alpha.tolist() == [[2.5], [1.0]]
    assert one is not None
    assert np.array_equal(one.observation_mean, battery.SPEC.observation_mean)
    _, one = grouped(algorithm, [a, a], [spec(0, True), spec(1, True)])
    assert one.observation_mean.shape == one.observation_std.shape == (2, 1, 5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 7}, "td3_bc: batch_size is 32 in one run and 7 in another"),
        ({"policy_delay": 3}, "policy_delay is 2 in one run and 3 in another"),
        ({"actor_hidden": (8,)}, "actor_hidden is"),
        ({"normalize": "none"}, "normalize is 'all' in one run and 'none' in another"),
    ],
)
def test_what_shapes_control_flow_has_to_agree(changes: dict[str, Any], says: str) -> None:
    algorithm = find_algorithm("td3_bc")
    a, b = battery.small("td3_bc"), battery.small("td3_bc", **changes)
    assert group_key(algorithm, a, battery.SPEC, 10) != group_key(algorithm, b, battery.SPEC, 10)
    with pytest.raises(InputError, match=says):
        grouped(algorithm, [a, b], [battery.SPEC] * 2)


def test_keys_are_equal_for_what_can_be_grouped() -> None:
    algorithm, one = find_algorithm("td3_bc"), battery.SPEC
    a, b = battery.small("td3_bc"), battery.small("td3_bc", alpha=1.0, reward="minus one")
    moved = dataclasses.replace(one, observation_mean=np.zeros(5))
    assert group_key(algorithm, a, one, 10) == group_key(algorithm, b, moved, 10)
    grouped(algorithm, [a, b], [one, moved])
    for other in (
        dataclasses.replace(one, max_action=1.0),
        dataclasses.replace(one, action_dim=4),
        dataclasses.replace(one, steps=5),
        dataclasses.replace(one, action_count=3),
        dataclasses.replace(one, action_low=(0.0,) * 3, action_high=(1.0,) * 3),
    ):
        assert group_key(algorithm, a, one, 10) != group_key(algorithm, a, other, 10)
        with pytest.raises(InputError, match="in one run and"):
            grouped(algorithm, [a, a], [one, other])
    assert group_key(algorithm, a, one, 10) != group_key(algorithm, a, one, 20)
    assert group_key(algorithm, a, one, 10) != group_key(find_algorithm("bc"), a, one, 10)


def test_the_states_of_replicas_on_other_data_are_joined() -> None:
    """Statistics of the data differ, which no checkpoint sets."""
    algorithm, config = find_algorithm("percent_bc"), battery.small("percent_bc", normalize=True)
    specs = [battery.SPEC, dataclasses.replace(battery.SPEC, observation_mean=np.zeros(5))]
    apart = [build(algorithm, one, config, [seed]) for seed, one in enumerate(specs)]
    together = build(algorithm, grouped(algorithm, [config] * 2, specs)[1], config, [5, 6])
    together.load_state_dict(join(apart))
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 7, 5))).float()
    taken = together.policy().act(states)
    for r, learner in enumerate(apart):
        alone = learner.policy().act(states[r : r + 1])[0]
        torch.testing.assert_close(taken[r], alone, rtol=1e-4, atol=1e-5)


def test_an_algorithm_for_one_seed_trains_alone() -> None:
    algorithm = find_algorithm(battery.EXAMPLE)
    assert issubclass(algorithm, SingleSeedLearner)
    config = algorithm.Config()
    keys = [group_key(algorithm, config, battery.SPEC, 10) for _ in range(2)]
    assert keys[0] != keys[1]
    with pytest.raises(InputError, match="written for one seed"):
        grouped(algorithm, [config] * 2, [battery.SPEC] * 2)
    assert grouped(algorithm, [config], [battery.SPEC]) == (config, battery.SPEC)


class Reversed(Learner):
    """Its own sampler looks into the data, of which it expects one set."""

    @classmethod
    def sampler(cls, data: Transitions, config: Any, seeds: Any, device: Any) -> UniformSampler:
        flipped = dataclasses.replace(data, rewards=-data.rewards)
        return UniformSampler(flipped, config.batch_size, seeds, device)


def test_a_sampler_of_an_algorithms_own_is_called_for_each_data_set() -> None:
    config = battery.small("bc")
    sets = [data(0), data(1), data(0)]
    sets[2] = sets[0]
    sampler = build_sampler(Reversed, sets, config, SEEDS, "cpu")
    assert isinstance(sampler, Stacked)
    batch: Batch = sampler.sample()
    assert batch.next_actions is None
    for r, seed in enumerate(SEEDS):
        alone = UniformSampler(sets[r], config.batch_size, [seed]).sample()
        assert torch.equal(batch.rewards[r], -alone.rewards[0])
        assert torch.equal(batch.observations[r], alone.observations[0])
    state = sampler.state_dict()
    expected = sampler.sample()
    again = build_sampler(Reversed, sets, config, SEEDS, "cpu")
    again.load_state_dict(state)
    assert torch.equal(again.sample().rewards, expected.rewards)
    assert isinstance(build_sampler(Reversed, sets[:1] * 2, config, [0, 1], "cpu"), UniformSampler)


def test_one_table_holds_each_data_set_once() -> None:
    first, second = data(0), data(1)
    sampler = UniformSampler([first, second, first], 500, SEEDS)
    assert len(sampler.columns["rewards"]) == 650
    batch = sampler.sample()
    for r, own in enumerate((first, second, first)):
        assert set(batch.rewards[r].tolist()) <= set(own.rewards.tolist())
        alone = UniformSampler(own, 500, [SEEDS[r]]).sample()
        assert torch.equal(batch.observations[r], alone.observations[0])
    with pytest.raises(ValueError, match="2 data sets for 3 replicas"):
        UniformSampler([first, second], 5, SEEDS)
