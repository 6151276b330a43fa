"""ReBRAC: its losses by hand, its rows against d4rl.qlearning_dataset, its order of updates."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from battery import Settings

from offrl.algorithms import rebrac
from offrl.data.card import Card
from offrl.data.dataset import load_dataset
from offrl.data.transitions import Transitions, transitions
from offrl.errors import InputError
from offrl.learning.sampler import UniformSampler
from offrl.learning.spec import Spec

BATTERY = Settings(plain={"critic_bc_coef": 0.0})
SPEC = Spec(5, 3, 1.0, 1000, np.zeros(5, np.float32), np.ones(5, np.float32))
SMALL = rebrac.ReBRACConfig(actor_hidden=(16, 16), critic_hidden=(16, 16), batch_size=32)


def random_data(rows: int = 40, cut: int = 10) -> Transitions:
    rng = np.random.default_rng(0)
    return Transitions(
        observations=rng.standard_normal((rows, 5), dtype=np.float32),
        actions=rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        rewards=rng.standard_normal(rows, dtype=np.float32),
        next_observations=rng.standard_normal((rows, 5), dtype=np.float32),
        terminations=np.zeros(rows, np.float32),
        truncations=(np.arange(rows) % cut == cut - 1).astype(np.float32),
    )


def trained(updates: int, config: rebrac.ReBRACConfig = SMALL, **changes: Any) -> rebrac.ReBRAC:
    data = rebrac.ReBRAC.prepare(replace(random_data(), **changes), config)
    learner, sampler = rebrac.ReBRAC(SPEC, config, [0]), UniformSampler(data, 32, [0])
    for _ in range(updates):
        learner.update(sampler.sample())
    return learner


def values(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_the_penalty_is_summed_over_dimensions() -> None:
    found = rebrac.penalty(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.0, 1.0]]]))
    assert found.tolist() == [[1 + 4]]


def test_backup_subtracts_the_penalty_from_the_lower_critic_unless_the_episode_ended() -> None:
    found = rebrac.backup(
        torch.tensor([[1.0, 1.0]]),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[[5.0, 7.0], [4.0, 9.0]]]),  # two critics
        torch.tensor([[6.0, 6.0]]),
        gamma=0.5,
        coef=0.1,
    )
    torch.testing.assert_close(found, torch.tensor([[1 + 0.5 * (4 - 0.6), 1.0]]))


def test_policy_loss_takes_the_lower_critic_over_its_mean_size() -> None:
    """Lower Q: -1 and 3, so lambda is 1 / 2 and the mean Q is 1."""
    q = torch.tensor([[[-1.0, 5.0], [2.0, 3.0]]], requires_grad=True)
    loss = rebrac.policy_loss(q, torch.tensor([[4.0, 6.0]]), coef=0.1)
    assert loss.item() == pytest.approx(0.1 * 5 - 0.5 * 1)
    (gradient,) = torch.autograd.grad(loss.sum(), q)  # lambda takes none
    torch.testing.assert_close(gradient, torch.tensor([[[-0.25, 0.0], [0.0, -0.25]]]))


def test_a_checkpoint_with_the_older_name_of_the_actors_last_loss_is_restored() -> None:
    state = trained(2).state_dict()
    state["actor_loss"] = state.pop("last_actor_loss")
    learner = trained(0)
    learner.load_state_dict(state)
    assert torch.equal(learner.last_actor_loss, state["actor_loss"])
    assert torch.equal(values(learner.actor), values(trained(2).actor))


def test_initial_layers_are_the_authors() -> None:
    learner = rebrac.ReBRAC(SPEC, SMALL, [0])
    for network, last in ((learner.actor, 1e-3), (learner.critic, 3e-3)):
        for bias in network.biases[:-1]:
            assert (bias == 0.1).all()
        for parameter in (network.weights[-1], network.biases[-1]):
            assert 0 < parameter.abs().max() <= last
        assert network.weights[-1].abs().max() > 0.8 * last
    assert not learner.actor.scales
    assert len(learner.critic.scales) == 2


def test_the_first_update_is_a_full_one_and_then_every_second() -> None:
    actors = [values(trained(n).actor) for n in range(4)]
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(actors)]
    assert moved == [True, False, True]


def test_the_target_actor_follows_the_actor_from_before_its_step() -> None:
    """After the first update it is where it was; after the third, toward the first update's."""
    before, first, third = trained(0), trained(1), trained(3)
    assert torch.equal(values(first.target_actor), values(before.actor))
    expected = torch.lerp(values(before.actor), values(first.actor), SMALL.tau)
    torch.testing.assert_close(values(third.target_actor), expected)
    moved = torch.lerp(values(before.critic), values(first.critic), SMALL.tau)
    torch.testing.assert_close(values(first.target_critic), moved)
    assert not torch.equal(values(first.target_critic), values(before.critic))


def test_both_coefficients_count() -> None:
    plain = trained(3)
    assert not torch.equal(
        values(plain.critic), values(trained(3, replace(SMALL, critic_bc_coef=0.0)).critic)
    )
    other = trained(1, replace(SMALL, actor_bc_coef=0.0))
    assert torch.equal(values(other.critic), values(trained(1).critic))
    assert not torch.equal(values(other.actor), values(trained(1).actor))


def test_an_action_after_a_termination_never_counts() -> None:
    ended = np.ones(40, np.float32)
    data = rebrac.ReBRAC.prepare(replace(random_data(), terminations=ended), SMALL)
    assert data.next_actions is not None
    critics = []
    for shift in (0, 1):
        changed = replace(data, next_actions=data.next_actions + np.float32(shift))
        learner, sampler = rebrac.ReBRAC(SPEC, SMALL, [0]), UniformSampler(changed, 32, [0])
        learner.update(sampler.sample())
        critics.append(values(learner.critic))
    assert torch.equal(*critics)


def test_rewards_are_scaled() -> None:
    data = random_data()
    prepared = rebrac.ReBRAC.prepare(data, replace(SMALL, reward_scale=100.0))
    np.testing.assert_allclose(prepared.rewards[:9], 100 * data.rewards[:9])


def test_data_without_a_next_action_are_refused() -> None:
    with pytest.raises(InputError, match="none of the 4 transitions has a next action"):
        rebrac.ReBRAC.prepare(random_data(4, cut=1), SMALL)


def d4rl_file(
    path: Path, rows: int, ends: Sequence[int], cuts: Sequence[int], successors: bool
) -> Path:
    """A file in D4RL's layout; row i observes i, acts -i and earns 10 i."""
    numbers = np.arange(rows, dtype=np.float32)
    data = {
        "observations": numbers[:, None],
        "actions": -numbers[:, None],
        "rewards": 10 * numbers,
        "terminals": np.isin(numbers, ends),
        "timeouts": np.isin(numbers, cuts),
    }
    if successors:
        data["next_observations"] = numbers[:, None] + 1
    with h5py.File(path, "w") as file:
        for key, column in data.items():
            file.create_dataset(key, data=column)
    return path


def prepared_rows(path: Path) -> Transitions:
    card = Card.model_validate(
        {
            "id": path.stem,
            "version": 1,
            "title": "test",
            "source": {"loader": "d4rl", "files": [{"name": str(path)}]},
            "view": "qlearning",
            "licence": "none",
            "citation": "none",
        }
    )
    dataset = load_dataset(card, view=rebrac.ReBRAC.view)
    return rebrac.ReBRAC.prepare(transitions(dataset), rebrac.ReBRACConfig())


def authors_rows(rows: int, cuts: Sequence[int]) -> list[int]:
    """The rows of d4rl.qlearning_dataset: not the last, none at a timeout."""
    return [row for row in range(rows - 1) if row not in cuts]


@pytest.mark.parametrize("end", ["terminal", "timeout", "unfinished"])
def test_rows_and_next_actions_are_those_of_qlearning_dataset(tmp_path: Path, end: str) -> None:
    rng = np.random.default_rng(1)
    rows = 200
    ends = rng.choice(rows - 1, 15, replace=False).tolist()
    cuts = rng.choice(rows - 1, 15, replace=False).tolist()
    cuts[:2] = ends[:2]  # a termination at the limit
    if end != "unfinished":
        (ends if end == "terminal" else cuts).append(rows - 1)
    data = prepared_rows(d4rl_file(tmp_path / f"{end}.hdf5", rows, ends, cuts, successors=True))
    expected = authors_rows(rows, cuts)
    assert data.observations[:, 0].tolist() == expected
    assert data.next_observations[:, 0].tolist() == [row + 1 for row in expected]
    assert data.next_actions is not None
    assert data.next_actions[:, 0].tolist() == [-(row + 1) for row in expected]
    assert data.rewards.tolist() == [10 * row for row in expected]
    assert data.terminations.nonzero()[0].tolist() == [
        i for i, row in enumerate(expected) if row in ends
    ]


def test_without_successors_the_row_before_a_timeout_is_left_out_too(tmp_path: Path) -> None:
    """Row 4 times out and row 9 is unfinished; row 6 terminates."""
    data = prepared_rows(d4rl_file(tmp_path / "a.hdf5", 10, [6], [4], successors=False))
    assert authors_rows(10, [4]) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert data.observations[:, 0].tolist() == [0, 1, 2, 5, 6, 7]
    assert data.next_actions is not None
    kept = data.terminations == 0
    assert data.next_actions[kept, 0].tolist() == [-1, -2, -3, -6, -8]
