"""The rules that keep the prescribed top level working in a checkout, an install and a worker."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import offrl
from offrl import registry
from offrl.data.loader import loaders

ROOT = Path(__file__).parents[1]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("group", registry.CONTENT)
def test_content_folders_are_flat_and_no_packages(group: str) -> None:
    """With an __init__.py, `datasets/` would shadow Hugging Face's package in the root."""
    folder = ROOT / group
    assert not (folder / "__init__.py").exists()
    assert [p for p in folder.iterdir() if p.is_dir() and p.name != "__pycache__"] == []
    assert files(registry.folder(group)) == files(folder)


def test_every_content_folder_ships() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    wings = sorted(p.parent for p in (ROOT / "offrl").rglob("*/__init__.py"))
    names = [".".join(wing.relative_to(ROOT).parts) for wing in wings]
    assert sorted(settings["packages"]) == sorted(
        ["offrl", "offrl.templates", *names, *(f"offrl.{group}" for group in registry.CONTENT)]
    )
    assert settings["package-dir"] == {f"offrl.{group}": group for group in registry.CONTENT}
    suffixes = {
        p.suffix for group in registry.CONTENT for p in (ROOT / group).iterdir() if p.is_file()
    }
    shipped = {Path(pattern).suffix for pattern in settings["package-data"]["*"]}
    assert suffixes - {".py"} <= shipped


# Ground floor, then the wings in the order in which data travel; a module imports from above alone.
ORDER = (
    *("errors", "files", "locks", "machine", "progress", "registry", "text", "toml", "trust"),
    *("version",),
    *("data", "learning", "evaluation", "results", "statistics", "plots"),
    *("running", "reporting", "cli"),
)
WINGS = ORDER[ORDER.index("data") :]
TEMPLATES = ROOT / "offrl" / "templates"  # files that users get a copy of
LIBRARY = sorted(p for p in (ROOT / "offrl").rglob("*.py") if p.parent != TEMPLATES)


def imported(path: Path) -> list[tuple[str, str]]:
    """Modules of offrl that a file imports, at its top or later, and the names it takes of each."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found += [(str(node.module), alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module.split(".")[0] == "offrl"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_module_stands_in_a_room_of_the_house() -> None:
    faces = {"__init__", "__main__"}
    assert {path.stem if path.is_file() else path.name for path in (ROOT / "offrl").iterdir()} <= {
        *ORDER,
        *faces,
        "__pycache__",
        "py",  # py.typed
        TEMPLATES.name,
    }


def test_the_page_on_architecture_names_every_module() -> None:
    """A module of a wing in the paragraph on it, as `name` or `folder/name`."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    opening, *paragraphs = re.split(r"^\*\*(\w+)\.\*\*", page, flags=re.MULTILINE)
    wings = dict(zip(paragraphs[::2], paragraphs[1::2], strict=True))
    missing = []
    for path in LIBRARY:
        _, *folders, name = path.relative_to(ROOT).with_suffix("").parts
        text = wings.get(folders[0], "") if folders else opening
        if name not in ("__init__", "__main__") and not re.search(rf"[`/]{name}`", text):
            missing.append(module_name(path))
    assert missing == []


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_no_import_runs_back(path: Path) -> None:
    """A wing imports wings above it alone, and the ground floor imports no wing.

    Nothing imports a content module: they are found.
    """
    parts = module_name(path).split(".")
    for module, name in imported(path):
        other = (*module.split(".")[1:], name)[0]
        assert other in ORDER, f"{path}: imports {module}.{name}"
        if len(parts) == 1 or parts[1] == "__main__":
            continue  # the face and the way in stand above the house
        assert ORDER.index(other) <= ORDER.index(parts[1]), f"{path}: imports {module} below it"


def defined(path: Path) -> set[str]:
    """Names that a module itself defines at its top, or in a branch there."""
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        for node in ast.iter_child_nodes(nodes.pop()):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            elif isinstance(node, ast.If | ast.Try):
                nodes.append(node)
    return names


def test_names_are_imported_from_the_modules_that_define_them() -> None:
    paths = {module_name(path): path for path in LIBRARY}
    face = ast.parse(paths["offrl"].read_text())
    (home,) = (
        ast.literal_eval(node.value)
        for node in face.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOME"
    )
    uses = [("offrl", module, name) for name, module in home.items()]
    for user, path in paths.items():
        if path.name != "__init__.py" or user == "offrl":
            uses += [(user, module, name) for module, name in imported(path) if name]
    for user, module, name in uses:
        if f"{module}.{name}" not in paths:
            assert name in defined(paths[module]), f"{user}: {name} is not defined in {module}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {module_name(path) for path in LIBRARY}
    uses: dict[str, set[str]] = {}
    for path in LIBRARY:
        targets = {f"{m}.{n}" if f"{m}.{n}" in names else m for m, n in imported(path)}
        uses[module_name(path)] = targets & names
    try:
        list(graphlib.TopologicalSorter(uses).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_private_name_crosses_a_module() -> None:
    files = [
        path
        for folder in ("offrl", "tests", "benchmarks", "docs", *registry.CONTENT)
        for path in (ROOT / folder).rglob("*.py")
    ]
    for path in files:
        modules = set()  # names under which this file holds modules of offrl
        for module, name in imported(path):
            private = name.startswith("_") and not name.startswith("__")
            assert not private, f"{path}: imports {name} of {module}"
            modules.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                assert not (private and node.value.id in modules), f"{path}: {ast.unparse(node)}"


def test_the_core_has_no_module_named_like_a_folder() -> None:
    names = {path.stem for path in (ROOT / "offrl").iterdir()}
    assert names.isdisjoint(registry.CONTENT)


def test_content_modules_do_not_import_their_neighbours() -> None:
    for group in registry.CONTENT:
        for path in (ROOT / group).glob("*.py"):
            assert f"offrl.{group}" not in "".join(
                line for line in path.read_text().splitlines() if "import" in line.split("#")[0]
            ), f"{path} imports its neighbour"


# What the library may name nevertheless, by module; docs/architecture.md says why.
NAMED = {
    "data.archive": {"zipfile"},
    "data.links": {"h5py"},
    "data.nested": {"h5py"},
    "data.unfolded": {"h5py"},
    "evaluation.capsules": {"mujoco"},
    "evaluation.margins": {"mujoco"},
    "results.bundle": {"zipfile"},
    "results.unpacking": {"zipfile"},
    "results.provenance": {"gymnasium-robotics", "hopper", "minari", "mujoco"},
    "cli.console": {"minari"},
    "cli.published": {"corl", "neorl2"},
    "cli.running": {"tensorboard", "wandb"},
}


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_the_library_names_no_loader_algorithm_format_source_or_peer(path: Path) -> None:
    """A new one of each is one new file. Docstrings and comments may give examples."""
    suffixes = [suffix.lstrip(".") for loader in loaders().values() for suffix in loader.SUFFIXES]
    suffixes.remove("parquet")  # of tables, which the library reads and writes itself
    libraries = ["h5py", "mujoco", "gymnasium_robotics", "gymnasium-robotics", "zipfile"]
    peers = ["corl", "d3rlpy", "hopper", "offlinerl", "offlinerl-kit", "rlkit", "unifloral"]
    modules = [*registry.modules("datasets"), *registry.modules("algorithms")]
    # rliable is an engine too.
    modules += {*registry.modules("reports")} - {
        *("html", "data_pages", "reproduction", "rliable", "site")
    }
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef():
                if ast.get_docstring(node) is not None:
                    node.body[0] = ast.Pass()
    code = ast.unparse(tree).lower()
    named = {
        name
        for name in [*modules, *suffixes, *libraries, *peers]
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code)
    }
    assert named == NAMED.get(module_name(path).removeprefix("offrl."), set())


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


def test_no_two_files_of_tests_have_one_name() -> None:
    """Pytest imports each by its name alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
