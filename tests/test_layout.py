"""The rules that keep the prescribed top level working in a checkout, an install and a worker."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import offrl
from offrl import registry

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("group", registry.CONTENT)
def test_content_folders_are_flat_and_no_packages(group: str) -> None:
    """With an __init__.py, `datasets/` would shadow Hugging Face's package in the root."""
    folder = ROOT / group
    assert not (folder / "__init__.py").exists()
    assert [p for p in folder.iterdir() if p.is_dir() and p.name != "__pycache__"] == []
    assert registry.folder(group) == folder


def test_every_content_folder_ships() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    wings = sorted(p.parent for p in (ROOT / "offrl").rglob("*/__init__.py"))
    names = [".".join(wing.relative_to(ROOT).parts) for wing in wings]
    assert sorted(settings["packages"]) == sorted(
        ["offrl", *names, *(f"offrl.{group}" for group in registry.CONTENT)]
    )
    assert settings["package-dir"] == {f"offrl.{group}": group for group in registry.CONTENT}
    suffixes = {
        p.suffix for group in registry.CONTENT for p in (ROOT / group).iterdir() if p.is_file()
    }
    shipped = {Path(pattern).suffix for pattern in settings["package-data"]["*"]}
    assert suffixes - {".py"} <= shipped


def test_the_core_has_no_module_named_like_a_folder() -> None:
    names = {path.stem for path in (ROOT / "offrl").iterdir()}
    assert names.isdisjoint(registry.CONTENT)


def test_content_modules_do_not_import_their_neighbours() -> None:
    for group in registry.CONTENT:
        for path in (ROOT / group).glob("*.py"):
            assert f"offrl.{group}" not in "".join(
                line for line in path.read_text().splitlines() if "import" in line.split("#")[0]
            ), f"{path} imports its neighbour"


def test_the_core_names_no_content_module() -> None:
    for path in (ROOT / "offrl").rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert not any(
                    words[1].startswith(f"offrl.{group}") for group in registry.CONTENT
                ), path


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_importing_offrl_is_cheap_and_draws_in_nothing() -> None:
    heavy = ["torch", "matplotlib", "pandas", "gymnasium", "minari", "pydantic"]
    assert fresh(f"import offrl, sys; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_public_names_resolve() -> None:
    modules = {path.stem for path in Path(offrl.__file__).parent.glob("*.py")}
    for name in offrl.__all__:
        assert name not in modules, f"importing offrl.{name} would hide the public {name}"
        assert getattr(offrl, name) is not None
        assert name in dir(offrl)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = offrl.nothing


def test_a_spawned_worker_finds_content_modules() -> None:
    code = (
        "import multiprocessing as m\n"
        "from offrl.learning.learner import find_algorithm\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(find_algorithm, ('bc',)).__module__)\n"
    )
    # A spawned child imports the main module again, which a -c program has none of.
    assert fresh(code) == "offrl.algorithms.bc"
