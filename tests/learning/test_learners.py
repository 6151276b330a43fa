"""One battery for every algorithm: the registered ones, the documented example, and a file of
yours by `pytest tests/learning/test_learners.py --algorithm ./my_algo.py`."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from battery import (
    EXAMPLE,
    SPEC,
    algorithms,
    chain,
    choices,
    data,
    named,
    parameters,
    settings,
    small,
    spec_of,
    suited,
    trained,
    untrained,
)

from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.learning import checkpoint
from offrl.learning.batch import Batch
from offrl.learning.learner import Learner, SingleSeedLearner, find_algorithm
from offrl.learning.sampler import UniformSampler, whole
from offrl.learning.single import build, schedule_of
from offrl.learning.spec import Spec, WatchedSpec
from offrl.learning.state import join, split

BOTH = [name for name in named() if len(find_algorithm(name).actions) == 2]  # kinds of actions
PLAIN = [name for name in named() if settings(name).plain is not None]
VARIANTS = [(name, changes) for name in named() for changes in settings(name).variants]
AXIS = ("actor", "critic", "value", "alpha", "validation")  # what a metric is about


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = algorithms(metafunc.config.getoption("--algorithm"))
        metafunc.parametrize("name", names, ids=lambda name: Path(name).stem)


def tensors(state: Any) -> list[torch.Tensor]:
    """All tensors of a nested state dict, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [t for key in state for t in tensors(state[key])]
    return [t for item in state for t in tensors(item)] if isinstance(state, list) else []


def same(a: Learner, b: Learner) -> bool:
    """Whether two learners are equal bit for bit."""
    left, right = tensors(a.state_dict()), tensors(b.state_dict())
    return len(left) == len(right) > 0 and all(map(torch.equal, left, right))


def acted(learner: Learner, observations: torch.Tensor) -> torch.Tensor:
    """What the policy does in the first step of an episode, (R, E, action_dim)."""
    policy = learner.policy()
    policy.begin(torch.ones(observations.shape[:2], dtype=torch.bool))
    return policy.act(observations)


def test_the_same_seed_twice_is_bit_equal_and_another_is_not(name: str) -> None:
    first, _ = trained(name, data(), [3], 20)
    again, _ = trained(name, data(), [3], 20)
    other, _ = trained(name, data(), [4], 20)
    assert same(first, again)
    assert not same(first, other)


def test_replicas_together_match_separate_learners(name: str) -> None:
    replicas_match(name, small(name), data())


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_replicas_match_in_other_variants(kind: str, changes: dict[str, Any]) -> None:
    replicas_match(kind, small(kind, **changes), data())


@pytest.mark.parametrize("kind", BOTH)
def test_with_discrete_actions_replicas_match_and_carry_on(kind: str, tmp_path: Path) -> None:
    replicas_match(kind, small(kind), choices(data()))
    carries_on(kind, small(kind), tmp_path, choices(data()))


@pytest.mark.parametrize("kind", BOTH)
def test_a_discrete_action_is_imitated(kind: str) -> None:
    """The most frequent one of each of two states: 3 of 4 rows; and odds are those of the data."""
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


def replicas_match(name: str, config: Any, given: Transitions) -> None:
    seeds = [3, 0, 11]
    together, _ = trained(name, given, seeds, 30, config)
    observations = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1))
    actions = acted(together, observations)
    for r, seed in enumerate(seeds):
        alone, _ = trained(name, given, [seed], 30, config)
        if issubclass(find_algorithm(name), Learner):
            for parameter, own in zip(parameters(together), parameters(alone), strict=True):
                torch.testing.assert_close(parameter[r], own[0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(
            actions[r], acted(alone, observations[r : r + 1])[0], rtol=1e-3, atol=1e-4
        )


def test_save_load_continue_is_bit_equal_to_not_stopping(name: str, tmp_path: Path) -> None:
    carries_on(name, small(name), tmp_path, data())


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_other_variants_carry_on(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    carries_on(kind, small(kind, **changes), tmp_path, data())


def carries_on(name: str, config: Any, tmp_path: Path, given: Transitions) -> None:
    straight, _ = trained(name, given, [5, 6], 41, config)
    learner, sampler = trained(name, given, [5, 6], 20, config)
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, {"learner": learner.state_dict(), "sampler": sampler.state_dict()})
    resumed, sampler = untrained(name, given, [5, 6], config)
    assert not same(resumed, learner)
    state = checkpoint.load(path)
    resumed.load_state_dict(state["learner"])
    sampler.load_state_dict(state["sampler"])
    assert same(resumed, learner)
    for _ in range(21):
        resumed.update(sampler.sample())
    assert same(resumed, straight)


@pytest.mark.parametrize(("kind", "changes"), [*((name, {}) for name in named()), *VARIANTS])
def test_replicas_part_and_join_without_a_trace(kind: str, changes: dict[str, Any]) -> None:
    config, seeds = small(kind, **changes), [5, 6, 7]
    together, sampler = trained(kind, data(), seeds, 11, config)
    learned, drawn = split(together, 3), split(sampler, 3)
    assert together.state_dict().keys() == learned[0].keys()
    apart = [untrained(kind, data(), [seed], config) for seed in seeds]
    for r, (learner, own_sampler) in enumerate(apart):
        learner.load_state_dict(learned[r])
        own_sampler.load_state_dict(drawn[r])
    joined, joined_sampler = untrained(kind, data(), seeds, config)
    joined.load_state_dict(join([learner for learner, _ in apart]))
    joined_sampler.load_state_dict(join([sampler for _, sampler in apart]))
    assert same(joined, together)
    for _ in range(3):
        together.update(sampler.sample())
        joined.update(joined_sampler.sample())
    assert same(joined, together)
    for learner, own_sampler in apart:
        for _ in range(3):
            learner.update(own_sampler.sample())
    found = parameters(joined)
    for r, (learner, _) in enumerate(apart):
        for parameter, own in zip(found, parameters(learner), strict=True):
            torch.testing.assert_close(parameter[r], own[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "changes"), [*((n, {}) for n in (*named(), EXAMPLE)), *VARIANTS])
def test_the_number_of_steps_decides_updates_only_by_a_schedule(
    kind: str, changes: dict[str, Any]
) -> None:
    algorithm, config = find_algorithm(kind), small(kind, **changes)
    prepared = algorithm.prepare(suited(kind, data()), config)
    ended, schedules = [], set()
    for steps in (8, 1000):
        spec = WatchedSpec.of(dataclasses.replace(spec_of(prepared), steps=steps))
        learner = build(algorithm, spec, config, [3])
        schedules.add(schedule_of(algorithm, learner, spec))
        sampler = algorithm.sampler(prepared, config, [3], "cpu")
        for _ in range(6):
            learner.update(sampler.sample())
        ended.append(learner)
    assert schedules == {algorithm.schedule}
    assert same(*ended) == (algorithm.schedule == "")


def test_every_trained_parameter_moves(name: str) -> None:
    before, _ = untrained(name, data(), [0])
    after, _ = trained(name, data(), [0], 4)
    assert parameters(after)
    for old, new in zip(parameters(before), parameters(after), strict=True):
        matrices = (old != new).flatten(0, -3) if old.dim() > 2 else (old != new).unsqueeze(0)
        assert matrices.flatten(1).any(1).all()  # of each member of an ensemble


def test_metrics_have_standard_names_and_one_value_a_replica(name: str) -> None:
    learner, sampler = untrained(name, data(), [0, 1])
    metrics = [learner.update(sampler.sample()) for _ in range(2)][-1]
    assert {"actor/loss", "critic/loss"} & metrics.keys()
    for key, value in metrics.items():
        assert key.split("/")[0] in AXIS, key
        assert value.shape == (2,), key
        assert not value.requires_grad, key
        assert torch.isfinite(value).all(), key


def test_a_number_that_is_not_finite_shows_in_the_metrics(name: str) -> None:
    """That is where a run looks for it, and stops."""
    learner, sampler = untrained(name, data(), [0])
    for _ in range(2):
        batch = sampler.sample()
        column = batch.actions if batch.actions.is_floating_point() else batch.observations
        column[...] = torch.nan
        metrics = learner.update(batch)
        if any(not torch.isfinite(value).all() for value in metrics.values()):
            return
    pytest.fail("two updates on numbers that are NaN, and every metric is finite")


def test_a_data_set_with_one_action_is_imitated(name: str) -> None:
    imitating = settings(name).imitating
    if imitating is None:
        pytest.skip("nothing in its losses pulls towards the data's actions")
    only = np.array([1.0, -0.6, 0.2], np.float32)
    imitated = dataclasses.replace(
        data(), actions=np.tile(only, (400, 1)), rewards=np.ones(400, np.float32)
    )
    config = small(name, **{"actor_lr": 3e-3, "lr": 3e-3, **imitating})
    learner, _ = trained(name, imitated, [0], 500, config)
    actions = acted(learner, torch.as_tensor(imitated.observations).unsqueeze(0))[0]
    assert (actions - torch.as_tensor(only)).abs().mean() < 0.05 * 4  # of the range of actions


def test_each_row_alone_is_data_enough(name: str) -> None:
    """Episodes of length 1, constant rewards and observations, and a batch larger than the data."""
    for rows in (1, 3):
        flat = dataclasses.replace(
            data(rows),
            observations=np.full((rows, 5), 0.5, np.float32),
            next_observations=np.full((rows, 5), 0.5, np.float32),
            rewards=np.ones(rows, np.float32),
            terminations=np.ones(rows, np.float32),
            truncations=np.zeros(rows, np.float32),
        )
        try:
            learner, sampler = untrained(name, flat, [0])
        except InputError:  # one that says what it lacks is as good: ReBRAC needs a next action
            assert rows == 1
            continue
        for _ in range(3):
            metrics = learner.update(sampler.sample())
        assert all(torch.isfinite(value).all() for value in metrics.values())


def test_actions_at_and_beyond_the_bounds_stay_finite(name: str) -> None:
    edges = np.tile(np.array([2.0, -2.0, 2.8], np.float32), (400, 1))
    learner, _ = trained(name, dataclasses.replace(data(), actions=edges), [0], 20)
    assert all(torch.isfinite(parameter).all() for parameter in parameters(learner))


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize(("termination", "last"), [(1.0, 1.0), (0.0, 1 / (1 - 0.25))])
def test_the_chain_of_known_value_is_solved(kind: str, termination: float, last: float) -> None:
    """Q(s1) is 1 where the chain ends, whatever follows; a truncation bootstraps: 1 / (1 - 1/4)."""
    rates = {"critic_lr": 1e-2, "tau": 0.2, "gamma": 0.5, "num_critics": 3}
    plain = settings(kind).plain or {}
    transitions = chain(termination)
    learner, sampler = untrained(kind, transitions, [0], small(kind, **rates, **plain))
    if hasattr(learner, "log_alpha"):  # no bonus for entropy
        learner.log_alpha.data.fill_(-20)
    for _ in range(400):
        learner.update(sampler.sample())
    prepared = find_algorithm(kind).prepare(suited(kind, transitions), small(kind))
    for state, value in ((0, 0.5 * last), (1, last)):
        rows = np.flatnonzero(prepared.observations[:, state] == 1)[:32]
        metrics = learner.update(whole(prepared.rows(rows)))  # its critic/q is from before the step
        assert metrics["critic/q"].item() == pytest.approx(value, abs=0.05)


def test_a_value_based_algorithm_is_asked_for_the_chain(name: str) -> None:
    if name == EXAMPLE or name.endswith(".py"):
        pytest.skip("what config makes the critic of a file plain is not known")
    learner, sampler = untrained(name, data(), [0])
    assert ("critic/q" in learner.update(sampler.sample())) == (name in PLAIN)


def test_what_follows_a_termination_never_reaches_it(name: str) -> None:
    """The rewards of the next episode are changed; what is learned of the first one is not."""
    rows = 60
    ends = (np.arange(rows) % 30 == 29).astype(np.float32)
    two = dataclasses.replace(data(rows), terminations=ends, truncations=np.zeros_like(ends))
    samples = []
    for lower in (100, 200):  # lower, so that a filter by return keeps the first in both
        rewards = two.rewards - np.float32(lower) * (np.arange(rows) >= 30)
        _, sampler = untrained(name, dataclasses.replace(two, rewards=rewards), [0])
        samples.append([sampler.sample() for _ in range(20)])
    first = set(map(tuple, two.observations[:30].tolist()))
    met = 0
    for before, after in zip(*samples, strict=True):
        for b, kept in enumerate(before.observations.flatten(0, 1).flatten(1)[:, :5].tolist()):
            if tuple(kept) not in first:
                continue
            met += 1
            for field, column in vars(before).items():
                if column is not None:
                    other = getattr(after, field).flatten(0, 1)[b]
                    assert torch.equal(column.flatten(0, 1)[b], other), field
    assert met > 100


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
    assert same(quiet, run([1, 2], disturb=True))
    observations = torch.ones(1, 4, 5)
    alone = run([2], disturb=False).policy().act(observations)
    assert torch.equal(quiet.policy().act(observations.expand(2, -1, -1))[1], alone[0])
