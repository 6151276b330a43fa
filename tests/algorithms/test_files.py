"""What every algorithm file has in common, so that the next one can be written like the last."""

import ast
from pathlib import Path

import pytest

from offrl import learning, registry
from offrl.learning.learner import Algorithm, find_algorithm

FILES = sorted(registry.folder("algorithms").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_algorithm_file_has_one_import_from_offrl(path: Path) -> None:
    modules = [
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("offrl")
    ]
    assert modules == ["offrl.learning"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_algorithm_that_ships_names_its_paper_and_family(path: Path) -> None:
    algorithm = find_algorithm(path.stem)
    assert algorithm.paper != Algorithm.paper
    assert algorithm.family != Algorithm.family


def test_what_algorithms_import_is_sorted_and_there() -> None:
    names = learning.__all__
    assert all(hasattr(learning, name) for name in names)
    kinds = [(not n.isupper(), not n[0].isupper(), n) for n in names]
    assert kinds == sorted(kinds)
