"""Observations of any form as one vector: the same for data and for simulators."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from offrl.data.observations import flatten, layout_of, texts_of
from offrl.errors import InputError

BOX = spaces.Box(-1, 1, (2,), np.float32)
FORMS: dict[str, tuple[spaces.Space[Any], int]] = {
    "box": (BOX, 2),
    "image": (spaces.Box(0, 255, (4, 3, 2), np.uint8), 24),
    "discrete": (spaces.Discrete(5), 1),
    "choices": (spaces.MultiDiscrete([3, 4]), 2),
    "tuple": (spaces.Tuple((BOX, spaces.Box(-1, 1, (3,)))), 5),
    "equal tuple": (spaces.Tuple((BOX, BOX)), 4),
    "nested": (spaces.Dict(o=BOX, goal=spaces.Dict(b=BOX, a=spaces.Tuple((BOX, BOX)))), 8),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_is_flattened_element_by_element(form: str, count: int) -> None:
    """As gymnasium's vector environments batch; each row is that of the element alone."""
    space, size = FORMS[form]
    space.seed(0)
    elements = [space.sample() for _ in range(count)]
    empty: Any = create_empty_array(space, count)
    batch = concatenate(space, elements, empty)
    layout = layout_of(space, [], "here")
    rows = flatten(batch, (), "here", layout)
    assert rows.shape == (count, size)
    assert rows.dtype == np.float32
    assert batch_space(space, count).contains(batch)
    for row, element in zip(rows, elements, strict=True):
        empty = create_empty_array(space, 1)
        one = concatenate(space, [element], empty)
        np.testing.assert_array_equal(flatten(one, (), "here", layout)[0], row)


def test_parts_stand_sorted_or_as_declared() -> None:
    values = {"b": (np.array([[1], [2]]), np.array([[3], [4]])), "a": np.array([5, 6])}
    assert flatten(values).tolist() == [[5, 1, 3], [6, 2, 4]]
    assert flatten(values, ["b/1", "a"]).tolist() == [[3, 5], [4, 6]]
    with pytest.raises(
        InputError, match=r"here: observations lack 'c'; found a, b/0, b/1; correct"
    ):
        flatten(values, ["c"], "here")


def test_texts_are_left_out_unless_a_key_names_them() -> None:
    space = spaces.Dict(mission=spaces.Text(5), image=BOX)
    values = {"mission": ["go", "stay"], "image": np.array([[1, 2], [3, 4]])}
    layout = layout_of(space, [], "here")
    assert layout == {"image": (2,)}
    assert flatten(values, (), "here", layout).tolist() == [[1, 2], [3, 4]]
    assert flatten({**values, "mission": ("go", "stay")}).tolist() == [[1, 2], [3, 4]]
    assert texts_of(space) == ["mission"]
    with pytest.raises(InputError, match="mission is Text; offrl reads Box, Discrete"):
        layout_of(space, ["image", "mission"], "here")
    assert flatten({**values, "mission": [10**8 * "a", *[""] * 10**6]}).shape == (2, 2)
    with pytest.raises(InputError, match="the observation space is Text; offrl reads"):
        layout_of(spaces.Text(5), [], "here")


def test_what_is_not_of_the_declared_space_is_refused() -> None:
    layout = layout_of(spaces.Tuple((BOX, BOX)), [], "here")
    with pytest.raises(InputError, match=r"here: observations have shape \(2,\), but the declared"):
        flatten(np.zeros((3, 2)), (), "here", layout)
    graph = spaces.Dict(net=spaces.Graph(BOX, None), image=BOX)
    with pytest.raises(InputError, match="net is Graph; offrl reads Box, Discrete"):
        layout_of(graph, [], "here")
    assert layout_of(graph, ["image"], "here") == {"image": (2,)}
    with pytest.raises(InputError, match="observations are text; offrl reads arrays of numbers"):
        flatten(np.array(["a"]), (), "here")
