"""Names as shown: their order, labels and groups, and what is no name of the table."""

import pandas as pd
import pytest
from simulated import table

from offrl.errors import InputError
from offrl.results.naming import Naming, naming
from offrl.results.table import ScoreTable


def of_names(algorithms: list[str], datasets: list[str]) -> ScoreTable:
    rows = [(a, d, 0, 1.0) for a in algorithms for d in datasets]
    return ScoreTable.from_frame(
        pd.DataFrame(rows, columns=["algorithm", "dataset", "seed", "score"])
    )


def test_names_come_in_the_order_asked_for_and_then_as_given():
    names = naming(table(), order=["TD3+BC", "task-2"])
    assert names.ordered(["BC", "IQL", "TD3+BC"]) == ["TD3+BC", "BC", "IQL"]
    assert names.ordered(["task-0", "task-1", "task-2"]) == ["task-2", "task-0", "task-1"]
    assert Naming().ordered(["b", "a", "b"]) == ["b", "a"]


def test_a_label_stands_for_its_name_wherever_signs_of_equality_are():
    scores = of_names(["iql (beta=3)", "iql"], ["x"])
    names = naming(scores, labels=["iql (beta=3)=IQL (β=3)", "iql=IQL"])
    assert names.label("iql (beta=3)") == "IQL (β=3)"
    assert names.label("iql") == "IQL"
    assert names.label("x") == "x"
    assert naming(scores, labels={"x": "X"}).label("x") == "X"
    assert naming(scores, labels={"x": " "}).label("x") == "(no name)"


def test_a_data_set_is_in_the_first_group_that_it_fits():
    scores = of_names(["a"], ["maze-1", "maze-2", "pen", "hopper"])
    names = naming(scores, groups=["maze=maze-*", "first=*1", "first=pen"], order=["maze-2"])
    assert names.groups == {"maze": ("maze-1", "maze-2"), "first": ("pen",)}
    assert names.grouped(scores.datasets) == [
        ("maze", ["maze-2", "maze-1"]),
        ("first", ["pen"]),
        ("", ["hopper"]),
    ]
    assert naming(scores, groups={"all": ["*"]}).grouped(["pen"]) == [("all", ["pen"])]


def test_cards_name_groups_where_there_are_several():
    walker, maze, pen = "walker2d-medium-v2", "antmaze-umaze-v2", "pen-human-v1"
    names = naming(of_names(["a"], [walker, maze, pen, "mine"]))
    assert set(names.groups) == {"locomotion", "antmaze", "adroit"}
    assert names.grouped([walker, "mine"])[-1] == ("", ["mine"])
    assert naming(of_names(["a"], [walker, "hopper-medium-v2"])).groups == {}
    assert naming(of_names(["a"], ["x", "y"])).groups == {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"order": ["IQ"]}, "unknown algorithm or data set 'IQ'; did you mean 'IQL'"),
        ({"labels": ["ILQ=x"]}, "unknown algorithm or data set 'ILQ'"),
        ({"labels": ["IQL"]}, "label 'IQL': expected NAME=TEXT"),
        ({"labels": {"IQL": "BC"}}, "'BC' and 'IQL' would both be called 'BC'"),
        ({"groups": ["maze"]}, "group 'maze': expected NAME=PATTERN"),
        ({"groups": ["maze=maze*"]}, r"unknown data set 'maze\*'"),
        ({"groups": ["all=*", "one=*1"]}, "group one: all of its data sets are in a group before"),
    ],
)
def test_what_is_no_name_of_the_table_is_one_clear_line(options, expected):
    with pytest.raises(InputError, match=expected):
        naming(table(), **options)
