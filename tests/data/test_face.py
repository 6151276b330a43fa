"""What importing this wing costs, and what it offers."""

import subprocess
import sys

import pytest

import offrl.data


def modules_after(code: str, names: list[str]) -> str:
    """Which of these modules a new interpreter holds after `code`."""
    code = f"{code}\nimport sys; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_algorithm_draws_in_neither_cards_nor_the_cache() -> None:
    names = ["offrl.data.card", "offrl.data.cache", "offrl.data.dataset", "filelock", "pooch"]
    assert modules_after("import offrl.algorithms.iql", names) == "[]"
    assert modules_after("import offrl.data.transitions", [*names, "pydantic", "torch"]) == "[]"


def test_a_maker_draws_in_no_torch() -> None:
    assert modules_after("import offrl.datasets.pointmaze", ["torch"]) == "[]"


def test_names_of_the_face_resolve() -> None:
    for name in offrl.data.__all__:
        assert getattr(offrl.data, name).__module__.startswith("offrl.data.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = offrl.data.nothing
