"""Episodes collected many at a time are those of the simulator alone, however many run at once."""

import itertools

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from offrl.data.card import Environment
from offrl.data.columns import Columns, episodes
from offrl.evaluation import collecting
from offrl.evaluation.collecting import collect_rows

HOPPER = Environment(id="offrl.datasets.d4rl_locomotion:offrl/Hopper-D4RL-v2", max_episode_steps=40)


class Leaning:
    """Acts by what it sees and by numbers of its own."""

    def __init__(self, rows: int) -> None:
        self.rngs: list[np.random.Generator] = [np.random.default_rng()] * rows

    def begin(self, row: int, rng: np.random.Generator) -> None:
        self.rngs[row] = rng

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        own = np.array([rng.uniform(-0.9, 0.9, 3) for rng in self.rngs])
        return own + 0.1 * np.tanh(observations[:, :3].astype(np.float64))


@pytest.fixture(scope="module")
def made() -> Columns:
    return collect_rows(HOPPER, Leaning, 400, (3, 1))


def test_the_number_of_rows_changes_nothing(made: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (1, 3):
        monkeypatch.setattr(collecting, "MOST_ROWS", rows)
        assert collect_rows(HOPPER, Leaning, 400, (3, 1)).digest() == made.digest()
    other = collect_rows(HOPPER, Leaning, 400, (3, 2))
    assert other.digest() != made.digest()


def test_there_are_as_many_transitions_as_are_wanted_in_whole_episodes_but_the_last(
    made: Columns,
) -> None:
    assert len(made.rewards) == 400
    starts, lengths = episodes(made.terminations, made.truncations)
    assert len(starts) > 10
    assert lengths.sum() == 400
    ends = starts + lengths - 1
    assert made.terminations[ends[:-1]].any()
    assert ((lengths[:-1] == 40) == made.truncations[ends[:-1]]).all()
    inner = np.setdiff1d(np.arange(400), ends)
    np.testing.assert_array_equal(made.observations[inner + 1], made.next_observations[inner])
    # A longer collection begins with the same episodes, and goes on where this one was cut.
    longer = collect_rows(HOPPER, Leaning, 420, (3, 1))
    np.testing.assert_array_equal(longer.actions[:400], made.actions)


def test_actions_lie_on_a_grid_and_lead_to_the_recorded_states(made: Columns) -> None:
    assert np.unique(made.actions * 1024 % 1).tolist() == [0]
    env = gymnasium.make("offrl/Hopper-D4RL-v2", max_episode_steps=40)
    starts, _ = episodes(made.terminations, made.truncations)
    for number, (start, end) in itertools.islice(enumerate(itertools.pairwise(starts)), 3):
        sequence = np.random.SeedSequence(3, spawn_key=(1, number)).spawn(2)[0]
        state, _ = env.reset(seed=int(sequence.generate_state(1)[0]))
        for row in range(start, end):
            np.testing.assert_array_equal(made.observations[row], state.astype(np.float32))
            state, reward, terminated, truncated, _ = env.step(made.actions[row])
            assert np.float32(reward) == made.rewards[row]
            assert (terminated, truncated) == (made.terminations[row], made.truncations[row])
