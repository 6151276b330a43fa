"""The quickstart's maze: one episode, many at a time, and Gymnasium-Robotics' own."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from offrl.data.card import find_card
from offrl.datasets import pointmaze_u
from offrl.evaluation.environments import make, make_vector, native

KWARGS: dict[str, Any] = {
    "continuing_task": True,
    "reset_target": False,
    "reward_type": "sparse",
}


def test_a_row_of_many_episodes_and_gymnasium_robotics_make_the_same_steps() -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.2, 1.2, (150, 5, 2)).astype(np.float32)
    vector = pointmaze_u.PointMazeVector(5, 150, **KWARGS)
    alone = pointmaze_u.PointMaze(**KWARGS)
    peer = gymnasium.make("PointMaze_UMaze-v3", max_episode_steps=150, **KWARGS)
    first, _ = vector.reset(seed=[*range(20, 25)])
    steps = [vector.step(action) for action in actions]
    assert not any(terminated.any() for _, _, terminated, _, _ in steps)
    assert [bool(truncated.all()) for *_, truncated, _ in steps] == [False] * 149 + [True]
    for row in range(5):
        for env in (alone, peer):
            observation, _ = env.reset(seed=20 + row)
            for key, values in observation.items():
                np.testing.assert_array_equal(first[key][row], values)
            for action, (following, rewards, *_) in zip(actions[:, row], steps, strict=True):
                observation, reward, *_ = env.step(action)
                assert reward == rewards[row]
                for key, values in observation.items():
                    tolerance = 0 if env is alone else 1e-9  # its solver starts warm
                    np.testing.assert_allclose(following[key][row], values, rtol=0, atol=tolerance)
    peer.close()
    vector.close()


def test_some_rows_begin_anew_and_the_others_go_on() -> None:
    vector = pointmaze_u.PointMazeVector(3, 200, **KWARGS)
    vector.reset(seed=[1, 2, 3])
    push = np.ones((3, 2), np.float32)
    before: Any = vector.step(push)[0]
    mask = np.array([False, True, False])
    after: Any
    after, _ = vector.reset(seed=[None, 7, None], options={"reset_mask": mask})
    for key, values in after.items():
        np.testing.assert_array_equal(values[[0, 2]], before[key][[0, 2]])
    other, _ = pointmaze_u.PointMaze(**KWARGS).reset(seed=7)
    np.testing.assert_array_equal(after["desired_goal"][1], other["desired_goal"])


def test_an_episode_may_end_at_the_goal() -> None:
    kwargs = {**KWARGS, "continuing_task": False}
    vector, alone = pointmaze_u.PointMazeVector(1, 400, **kwargs), pointmaze_u.PointMaze(**kwargs)
    vector.reset(seed=[3])
    observation, _ = alone.reset(seed=3)
    ended = np.zeros(1, np.bool_)
    for _ in range(400):
        push = np.sign(observation["desired_goal"] - observation["achieved_goal"])
        _, rewards, ended, *_ = vector.step(push[None])
        observation, reward, terminated, *_ = alone.step(push)
        assert (rewards[0], ended[0]) == (reward, terminated)
        if ended[0]:
            break
    with pytest.raises(ValueError, match="reset_target is true"):
        pointmaze_u.PointMazeVector(1, reset_target=True)


def test_the_card_is_played_many_at_a_time() -> None:
    environment = find_card("pointmaze-quickstart").environment
    assert environment is not None
    make(environment).close()
    assert native(environment)
    vector = make_vector(environment, 2)
    assert isinstance(vector, pointmaze_u.PointMazeVector)
    assert vector.max_episode_steps == 200
    vector.close()
