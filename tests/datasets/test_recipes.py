"""Recipes: the policies that ship, the proportions of their sets, and what is made of them."""

import itertools

import numpy as np
import pytest
import torch

from offrl.data.card import shipped_cards
from offrl.data.dataset import load_dataset
from offrl.datasets import recipes
from offrl.evaluation.collecting import collect_rows

CARDS = {name: card for name, card in shipped_cards().items() if card.source.maker == "recipes"}
BODIES = sorted({recipes.recipes()[name].body for name in CARDS})


def test_each_body_has_every_level_in_d4rls_proportions() -> None:
    """A body comes whole: D4RL's five levels, each with a small version."""
    million = 1_000_000
    replay = {"hopper": 402_000, "halfcheetah": 202_000, "walker2d": 302_000}
    for body in BODIES:
        sizes = {"random": million, "medium": million, "medium-replay": replay[body]}
        sizes |= {"expert": million, "medium-expert": 2 * million}
        for (level, size), end in itertools.product(sizes.items(), ("", "-small")):
            name = f"recipe-{body}-{level}{end}"
            parts = recipes.recipes()[name].parts
            expected = 100_000 if end else size
            assert CARDS[name].expected.transitions == expected == sum(n for _, n in parts)
            assert len({rows for _, rows in parts}) == 1
            for policy, _ in parts:
                assert policy == "random" or f"{body}/{policy}" in recipes.policies()
            assert ("no replay buffer" in CARDS[name].notes) == (level == "medium-replay")
            ours, theirs = CARDS[name].reference, shipped_cards()[f"{body}-medium-v2"].reference
            assert ours is not None
            assert theirs is not None
            values = f"{ours.max:.10g} here and of {theirs.max:.10g} in D4RL"
            assert f"100 is a return of {values}, so no score of a paper" in CARDS[name].notes


def test_bits_are_expected_only_with_all_versions_on_which_they_depend() -> None:
    """Each recipe has bits. Where one is another, numbers decide, and not bits nobody saw."""
    common = {"numpy", "gymnasium"}
    packages = {
        "recipes": {*common, "mujoco"},
        "pointmaze_recipes": {*common, "mujoco", "gymnasium-robotics"},
        "goal_maze": common,
    }
    found = set()
    for card in shipped_cards().values():
        if made := card.expected.made:
            found.add(card.source.maker)
            for seen in made.seen:
                assert set(seen.packages) == packages[str(card.source.maker)], card.id
        else:
            assert card.source.maker not in packages, card.id
    assert found == set(packages)


def test_policies_compute_what_torch_does() -> None:
    rng = np.random.default_rng(0)
    for name, policy in recipes.policies().items():
        weights = [(torch.tensor(w), torch.tensor(b)) for w, b in policy.layers]
        assert [len(b) for _, b in weights[:2]] == [64, 64]
        observations = rng.normal(size=(7, len(weights[0][0])))
        values = torch.tensor(observations)
        for number, (weight, bias) in enumerate(weights):
            values = values @ weight + bias
            values = values.relu() if number < 2 else values
        found = policy.means(observations)
        np.testing.assert_allclose(found, values.numpy(), rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("body", BODIES)
def test_few_steps_are_made_again_to_the_bit(body: str) -> None:
    card = CARDS[f"recipe-{body}-medium-small"].environment
    assert card is not None
    made = [
        collect_rows(card, recipes.crew(body, "medium", 1000), 300, (recipes.SEED, 0))
        for _ in range(2)
    ]
    assert made[0].digest() == made[1].digest()
    assert np.unique(made[0].actions * 1024 % 1).tolist() == [0]
    # The first action of the first episode, from the policy and the episode's own generator.
    own = np.random.SeedSequence(recipes.SEED, spawn_key=(0, 0)).spawn(2)[1]
    policy = recipes.policies()[f"{body}/medium"]
    noise = np.random.default_rng(own).standard_normal(len(policy.deviation))
    action = np.tanh(policy.means(made[0].observations[:1])[0] + policy.deviation * noise)
    np.testing.assert_array_equal(made[0].actions[0], np.rint(action * 1024) / 1024)


@pytest.mark.nightly  # some 20 s each
@pytest.mark.parametrize("name", sorted(name for name in CARDS if name.endswith("-small")))
def test_small_sets_are_as_their_cards_say(name: str) -> None:
    """Loading compares counts, mean return and, where they were seen, all bits."""
    data = load_dataset(name)
    made = data.card.expected.made
    if made is not None and any(seen.here for seen in made.seen):
        assert data.notes == []
