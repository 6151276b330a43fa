"""One battery for every registered algorithm, and the closed forms of each one's losses."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offrl import checkpoint, registry
from offrl.algorithms import bc, iql, td3_bc
from offrl.batch import Batch, Transitions
from offrl.learner import Learner, SingleSeedLearner, Spec, build, find_algorithm
from offrl.sampler import UniformSampler, whole

ALGORITHMS = sorted(registry.modules("algorithms"))
WITH_CRITIC = ["iql", "td3_bc"]
SPEC = Spec(5, 3, 1.0, 1000, np.full(5, 0.1, np.float32), np.full(5, 1.2, np.float32))


@pytest.fixture(scope="module")
def data() -> Transitions:
    rng = np.random.default_rng(0)
    rows = 400
    return Transitions(
        observations=rng.standard_normal((rows, 5), dtype=np.float32),
        actions=rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        rewards=rng.standard_normal(rows, dtype=np.float32),
        next_observations=rng.standard_normal((rows, 5), dtype=np.float32),
        terminations=(rng.random(rows) < 0.1).astype(np.float32),
        truncations=(np.arange(rows) % 50 == 49).astype(np.float32),
    )


def small(name: str, **changes: Any) -> Any:
    """The algorithm's default config with narrow networks and small batches."""
    config = find_algorithm(name).Config()
    hidden = {f.name: (16, 16) for f in dataclasses.fields(config) if f.name.endswith("hidden")}
    return dataclasses.replace(config, batch_size=32, **hidden, **changes)


def trained(
    name: str, data: Transitions, seeds: list[int], updates: int, config: Any = None
) -> tuple[Learner, UniformSampler]:
    """A learner after some updates, and its sampler."""
    config = config or small(name)
    learner = build(find_algorithm(name), SPEC, config, seeds)
    sampler = UniformSampler(data, config.batch_size, seeds)
    for _ in range(updates):
        learner.update(sampler.sample())
    return learner, sampler


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


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_twice_is_bit_equal_and_another_is_not(name: str, data: Transitions) -> None:
    first, _ = trained(name, data, [3], 20)
    again, _ = trained(name, data, [3], 20)
    other, _ = trained(name, data, [4], 20)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_replicas_together_match_separate_learners(name: str, data: Transitions) -> None:
    seeds = [3, 0, 11]
    together, _ = trained(name, data, seeds, 50)
    observations = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1))
    acted = together.policy().act(observations)
    for r, seed in enumerate(seeds):
        alone, _ = trained(name, data, [seed], 50)
        for parameter, own in zip(parameters(together), parameters(alone), strict=True):
            torch.testing.assert_close(parameter[r], own[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            acted[r], alone.policy().act(observations[r : r + 1])[0], rtol=1e-4, atol=1e-5
        )


def parameters(learner: Learner) -> list[torch.Tensor]:
    """The trained and target parameters of a learner."""
    found: list[torch.Tensor] = []
    for value in vars(learner).values():
        if isinstance(value, torch.nn.Module):
            found += list(value.parameters())
        elif isinstance(value, torch.nn.Parameter):
            found.append(value)
    return found


@pytest.mark.parametrize("name", ALGORITHMS)
def test_save_load_continue_is_bit_equal_to_not_stopping(
    name: str, data: Transitions, tmp_path: Path
) -> None:
    straight, _ = trained(name, data, [5, 6], 41)
    learner, sampler = trained(name, data, [5, 6], 20)
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, {"learner": learner.state_dict(), "sampler": sampler.state_dict()})
    resumed, sampler = trained(name, data, [5, 6], 0)
    assert not same(resumed, learner)
    state = checkpoint.load(path)
    resumed.load_state_dict(state["learner"])
    sampler.load_state_dict(state["sampler"])
    assert same(resumed, learner)
    for _ in range(21):
        resumed.update(sampler.sample())
    assert same(resumed, straight)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_trained_parameter_moves(name: str, data: Transitions) -> None:
    before, _ = trained(name, data, [0], 0)
    after, _ = trained(name, data, [0], 4)
    assert parameters(after)
    for old, new in zip(parameters(before), parameters(after), strict=True):
        assert not torch.equal(old, new)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_metrics_have_standard_names_and_one_value_a_replica(name: str, data: Transitions) -> None:
    config = small(name)
    learner = build(find_algorithm(name), SPEC, config, [0, 1])
    sampler = UniformSampler(data, config.batch_size, [0, 1])
    metrics = [learner.update(sampler.sample()) for _ in range(2)][-1]
    assert "actor/loss" in metrics
    for key, value in metrics.items():
        assert key.split("/")[0] in {"actor", "critic", "value", "eval", "validation"}
        assert value.shape == (2,)
        assert torch.isfinite(value).all()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_data_set_with_one_action_is_imitated(name: str, data: Transitions) -> None:
    only = np.array([0.5, -0.3, 0.1], np.float32)
    imitated = dataclasses.replace(
        data, actions=np.tile(only, (len(data.actions), 1)), rewards=np.ones_like(data.rewards)
    )
    # At its default of 2.5, alpha lets a Q that was fitted at one action only pull to the corners.
    changes = {"alpha": 0.1} if name == "td3_bc" else {}
    learner, _ = trained(name, imitated, [0], 500, small(name, actor_lr=3e-3, **changes))
    acted = learner.policy().act(torch.as_tensor(data.observations).unsqueeze(0))[0]
    assert (acted - torch.as_tensor(only)).abs().mean() < 0.1


def chain(termination: float) -> Transitions:
    """A two-step chain: s0 -> s1 pays 0, s1 -> s2 pays 1 and ends, or is cut off and repeats."""
    states = np.eye(5, dtype=np.float32)
    rng = np.random.default_rng(1)
    actions = rng.uniform(-1, 1, (200, 3)).astype(np.float32)
    first = np.arange(200) % 2 == 0
    return Transitions(
        observations=np.where(first[:, None], states[0], states[1]),
        actions=actions,
        rewards=np.where(first, 0, 1).astype(np.float32),
        next_observations=np.where(first[:, None], states[1], states[0]),
        terminations=np.where(first, 0, termination).astype(np.float32),
        truncations=np.where(first, 0, 1 - termination).astype(np.float32),
    )


@pytest.mark.parametrize("name", WITH_CRITIC)
@pytest.mark.parametrize(("termination", "last"), [(1.0, 1.0), (0.0, 1 / (1 - 0.25))])
def test_the_chain_of_known_value_is_solved(name: str, termination: float, last: float) -> None:
    """Q(s1) is 1 where the chain ends; a truncation bootstraps: Q(s1) = 1 / (1 - gamma^2)."""
    changes = {"critic_lr": 3e-3, "tau": 0.05, "gamma": 0.5}
    if name == "iql":
        changes |= {"value_lr": 3e-3, "expectile": 0.5}
    learner, _ = trained(name, chain(termination), [0], 1500, small(name, **changes))
    assert isinstance(learner, (iql.IQL, td3_bc.TD3BC))
    batch = whole(chain(termination))
    states = batch.observations
    if isinstance(learner, td3_bc.TD3BC):
        states = learner.standardise(states)
    q = learner.critic(torch.cat([states, batch.actions], -1)).squeeze(-1)[0, 0]
    assert q[1::2].mean().item() == pytest.approx(last, abs=0.05)
    assert q[::2].mean().item() == pytest.approx(0.5 * last, abs=0.05)


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_what_follows_a_termination_never_reaches_a_target(name: str, data: Transitions) -> None:
    ended = dataclasses.replace(data, terminations=np.ones_like(data.terminations))
    changed = dataclasses.replace(ended, next_observations=data.next_observations + 10)
    a, _ = trained(name, ended, [0], 1)
    b, _ = trained(name, changed, [0], 1)
    assert isinstance(a, (iql.IQL, td3_bc.TD3BC))
    assert isinstance(b, (iql.IQL, td3_bc.TD3BC))
    for p, q in zip(a.critic.parameters(), b.critic.parameters(), strict=True):
        assert torch.equal(p, q)


def test_expectile_loss() -> None:
    """Expectile 0.5 is half the squared error; 0.7 weighs an error of +2 with 0.7, -1 with 0.3."""
    diff = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    torch.testing.assert_close(iql.expectile_loss(diff, 0.5), diff.square().mean(-1) / 2)
    expected = torch.tensor([(0.7 * 4 + 0.3 * 1) / 2, 0.7 * 9 / 2])
    torch.testing.assert_close(iql.expectile_loss(diff, 0.7), expected)


def test_gaussian_log_prob() -> None:
    mean, log_std = torch.zeros(1, 1, 2), torch.tensor([[[0.0, math.log(2.0)]]])
    actions = torch.tensor([[[1.0, 2.0]]])
    expected = -0.5 - 0.5 - math.log(2) - math.log(2 * math.pi)
    assert iql.gaussian_log_prob(actions, mean, log_std).item() == pytest.approx(expected)


def test_return_range_splits_where_the_next_observation_is_not_the_next_row() -> None:
    observations = np.array([[0], [1], [5], [6], [9]], np.float32)
    data = Transitions(
        observations,
        np.zeros((5, 1), np.float32),
        np.array([1, 2, 10, 20, -4], np.float32),
        np.array([[1], [2], [6], [9], [10]], np.float32),
        np.array([0, 0, 0, 1, 0], np.float32),
        np.array([0, 1, 0, 0, 1], np.float32),
    )
    assert iql.return_range(data) == 30 - -4  # episodes of return 3, 30 and -4


def test_actor_loss_of_td3_bc_scales_q_to_alpha() -> None:
    """With Q = 2 everywhere the Q term is -alpha; cloning is the mean square over B and actions."""
    q = torch.full((1, 4), 2.0)
    actions = torch.zeros(1, 4, 2)
    loss = td3_bc.actor_loss(q, actions + torch.tensor([1.0, 3.0]), actions, alpha=2.5)
    assert loss.item() == pytest.approx(-2.5 + (1 + 9) / 2)


def test_bc_keeps_the_parameters_with_the_lowest_validation_error(data: Transitions) -> None:
    learner, sampler = trained("bc", data, [0, 1], 0, small("bc", checkpoint="best validation"))
    assert isinstance(learner, bc.BC)
    target = whole(data)
    errors = [learner.validate(target)["validation/loss"]]
    acted = [learner.policy().act(target.observations.expand(2, -1, -1))]
    for _ in range(6):
        for _ in range(5):
            learner.update(sampler.sample())
        with torch.no_grad():  # a jump that makes one replica much worse, then lets it recover
            learner.actor.biases[-1][0] += 0.5
        errors.append(learner.validate(target)["validation/loss"])
        acted.append(learner.policy().act(target.observations.expand(2, -1, -1)))
    best = torch.stack(errors).argmin(0)
    assert best[0] != best[1]
    for r in range(2):
        assert torch.equal(acted[-1][r], acted[int(best[r])][r])


def test_a_single_seed_learner_is_kept_apart_from_the_global_generator(data: Transitions) -> None:
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
                acted: torch.Tensor = self.net(observations)
                return acted

    def run(seeds: list[int], disturb: bool) -> Learner:
        learner = build(Plain, SPEC, Config(), seeds)
        sampler = UniformSampler(data, 8, seeds)
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
