"""The made sets of discrete actions hold what their cards say, and are the simulator's."""

import hashlib
import itertools
from pathlib import Path
from types import ModuleType

import gymnasium
import numpy as np
import pytest

from offrl.data.card import find_card
from offrl.data.dataset import Dataset, load_dataset
from offrl.datasets import cartpole, mountaincar
from offrl.evaluation.collecting import Behaviour, collect, returns

MAKERS = [cartpole, mountaincar]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.CARD)
def made(request: pytest.FixtureRequest) -> tuple[ModuleType, Dataset]:
    maker: ModuleType = request.param
    return maker, load_dataset(maker.CARD)  # which compares counts and mean return with the card


def test_skills_return_what_the_card_says(made: tuple[ModuleType, Dataset]) -> None:
    maker, data = made
    ends = np.cumsum([0, *maker.EPISODES.values()])
    assert ends[-1] == len(data.episode_lengths)
    means = [f"{data.episode_returns[a:b].mean():.1f}" for a, b in itertools.pairwise(ends)]
    assert f"{means[0]}, {means[1]} and {means[2]}" in data.card.notes.replace("\n", " ")
    assert data.card.actions is not None
    assert len(data.card.actions.names) == data.action_count == data.actions.max() + 1


def test_actions_lead_to_the_recorded_states(made: tuple[ModuleType, Dataset]) -> None:
    maker, data = made
    assert data.card.environment is not None
    env = gymnasium.make(data.card.environment.id)
    for number in (0, len(data.episode_starts) - 1):
        start = np.random.SeedSequence(maker.SEED, spawn_key=(number,)).spawn(2)[0]
        state, _ = env.reset(seed=int(start.generate_state(1)[0]))
        first = data.episode_starts[number]
        for row in range(first, first + data.episode_lengths[number]):
            np.testing.assert_array_equal(data.observations[row], state)
            state, reward, terminated, truncated, _ = env.step(data.actions[row])
            np.testing.assert_array_equal(data.next_observations[row], state)
            assert (reward, terminated, truncated) == (
                data.rewards[row],
                data.terminations[row],
                data.truncations[row],
            )


def test_a_second_make_has_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = mountaincar.make(tmp_path / name)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("maker", "act", "end"),
    [
        (cartpole, cartpole.controller(cartpole.BALANCING, 1.0), "min"),
        (mountaincar, mountaincar.driver(mountaincar.swing, 1.0), "min"),
        (mountaincar, mountaincar.driver(mountaincar.swing, 0.0), "max"),
    ],
)
def test_references_are_those_of_the_card(maker: ModuleType, act: Behaviour, end: str) -> None:
    """Of 30 episodes, within four standard errors of what the card states.

    CartPole's upper one is the most that an episode can return.
    """
    card = find_card(maker.CARD)
    assert card.environment is not None
    found = returns(collect(card.environment, [act] * 30, seed=5))
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - getattr(card.reference, end)) <= 4 * error
