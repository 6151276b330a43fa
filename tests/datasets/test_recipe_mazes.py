"""The made mazes: the simulator in closed form, the behaviours, and a set as its card says."""

from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from offrl.data.card import find_card
from offrl.data.dataset import load_dataset
from offrl.datasets import goal_maze, pointmaze_recipes
from offrl.errors import InputError
from offrl.evaluation.collecting import collect_rows
from offrl.evaluation.environments import make_vector


def test_a_point_moves_by_a_fifth_of_its_action_and_stops_at_walls() -> None:
    """The cell around (0, 0) has walls left and above, free cells right and below it."""
    places = np.zeros((4, 2))
    moves = 0.2 * np.array([[1, 0.5], [-1, 0], [-1, -1], [0.5, 1]])
    np.testing.assert_allclose(goal_maze.moved(places, moves), moves, atol=1e-15)
    for _ in range(30):
        places = goal_maze.moved(places, moves)
    # Half-width 0.5: walls left of -2 and above stop at -1.5, and one right of 6 at 5.5. From
    # x = 2.5 on the way down is free.
    np.testing.assert_allclose(places, [[5.5, 3.0], [-1.5, 0], [-1.5, -1.5], [3.0, 6.0]], atol=1e-9)


def test_cells_are_classed_and_goals_are_four_away() -> None:
    assert len(goal_maze.CELLS) == 26
    corridors = sorted(set(goal_maze.CELLS) - set(goal_maze.OPEN))
    assert corridors == [(3, 3), (4, 5), (5, 1), (5, 6), (6, 2)]
    assert goal_maze.WAYS[1, 1][1][6, 6] == 10  # steps from the last row's end to the first cell
    for start, goals in goal_maze.FOUR_AWAY.items():
        assert goals
        assert {goal_maze.WAYS[goal][1][start] for goal in goals} == {4}


@pytest.mark.parametrize("kind", ["Navigate", "Stitch"])
def test_a_row_of_many_is_the_task_alone(kind: str) -> None:
    env = gymnasium.make(f"offrl/PointMaze{kind}-v0")
    card = find_card(f"recipe-pointmaze-{kind.lower()}-small").environment
    assert card is not None
    rows = make_vector(card, 3)
    assert isinstance(rows.unwrapped, goal_maze.GoalMazeVector)
    rng = np.random.default_rng(1)
    state, _ = env.reset(seed=5)
    states, _ = rows.reset(seed=[4, 5, 6])  # type: ignore[arg-type]
    for _ in range(150):
        np.testing.assert_array_equal(states[1], state)
        actions = rng.uniform(-1.5, 1.5, (3, 2))
        state, reward, *_ = env.step(actions[1])
        states, rewards, *_ = rows.step(actions)
        assert rewards[1] == reward
    rows.close()


def test_a_set_is_as_its_card_says() -> None:
    """Loading compares counts, mean return and, where they were seen, all bits."""
    data = load_dataset("recipe-pointmaze-stitch-small")
    assert data.card.expected.made is not None
    if any(seen.here for seen in data.card.expected.made.seen):
        assert data.notes == []
    assert np.unique(data.actions * 1024 % 1).tolist() == [0]
    places, goals = np.split(data.observations.astype(np.float64), 2, axis=1)
    arrived = np.square(data.next_observations[:, :2] - goals).sum(1) <= 1
    near = np.abs(np.sqrt(np.square(data.next_observations[:, :2] - goals).sum(1)) - 1) < 1e-6
    np.testing.assert_array_equal(arrived[~near], data.rewards[~near] == 1)
    assert not data.terminations.any()
    for start, end in pairwise(data.episode_starts[:20]):
        assert (goals[start:end] == goals[start]).all()
        first, last = (goal_maze.indices(v[start]) for v in (places, goals))
        row, column = map(int, last)
        begun = (int(first[0]), int(first[1]))
        assert goal_maze.WAYS[row, column][1][begun] == goal_maze.APART


def test_a_goal_that_is_reached_pays_and_moves_on() -> None:
    card = find_card("recipe-pointmaze-navigate").environment
    assert card is not None
    made = collect_rows(card, lambda rows: goal_maze.Directed(rows, 1000), 2000, (0,))
    other = (made.observations[:, 2:] != made.next_observations[:, 2:]).any(1)
    np.testing.assert_array_equal(other, made.rewards == 1)
    assert 10 < other.sum() < 40
    again = collect_rows(card, lambda rows: goal_maze.Directed(rows, 1000), 2000, (0,))
    assert again.digest() == made.digest()


def test_three_skills_drive_to_goals_that_they_see() -> None:
    card = find_card("recipe-pointmaze-umaze-small").environment
    assert card is not None
    maze = pointmaze_recipes.Maze(card)
    found = []
    for skill in pointmaze_recipes.SKILLS:
        drivers = pointmaze_recipes.crew(maze, skill, 300)
        made = collect_rows(card, drivers, 4 * 300, (0,))
        assert made.observations.shape == (1200, 6)
        goals, places = made.observations[:, 4:], made.next_observations[:, :2]
        np.testing.assert_array_equal(
            np.linalg.norm(places.astype(np.float64) - goals, axis=1) <= 0.45, made.rewards == 1
        )
        found.append(made.rewards.sum())
    assert found[0] > found[1] > found[2]


def test_a_card_of_another_name_has_no_recipe(tmp_path: Path) -> None:
    card = find_card("recipe-pointmaze-stitch").model_copy(update={"id": "mine"})
    for maker in (goal_maze, pointmaze_recipes):
        with pytest.raises(InputError, match="unknown recipe 'mine'"):
            maker.make_for(card, tmp_path)
