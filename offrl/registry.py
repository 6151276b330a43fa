"""Finds what the four content folders hold. The core never imports a content module by name.

A content module is found in its folder, through an entry point of the same group (for example
`offrl.algorithms`, from an installed package), or at a path that the user gives. A path that a file
gives comes here only after `offrl.trust` allowed it.
"""

import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from offrl.errors import InputError, is_interrupt, unknown
from offrl.files import user_path

CONTENT = ("datasets", "algorithms", "protocols", "reports")


@functools.cache
def folder(group: str) -> Path:
    """The folder of a group: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    return (package if (package / "algorithms").is_dir() else package.parent) / group


def resources(group: str, suffix: str) -> list[Path]:
    """Files of a group that end in `suffix`, sorted by name."""
    return sorted(folder(group).glob(f"*{suffix}"))


def modules(group: str) -> dict[str, str]:
    """Importable module names of a group by short name, entry points included."""
    changed = folder(group).stat().st_mtime_ns
    return _shipped(group, changed) | _installed(group, tuple(sys.path))


@functools.cache  # whoever looks for a loader asks for each of them
def _shipped(group: str, changed: int) -> dict[str, str]:  # noqa: ARG001
    """Modules in the folder of a group; `changed` is when a file was last added or removed."""
    return {path.stem: f"offrl.{group}.{path.stem}" for path in resources(group, ".py")}


@functools.cache  # the search takes 30 ms in a full environment; a load would repeat it
def _installed(group: str, path: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG001
    """Modules that installed packages offer; `path` is sys.path, on which they are searched."""
    return {entry.name: entry.module for entry in entry_points(group=f"offrl.{group}")}


def simulator_plugins() -> set[str]:
    """Modules by which installed packages register simulators, through Gymnasium's plug-in group.

    The package of such a module counts too: importing the module imports it.
    """
    return _simulator_plugins(tuple(sys.path))


@functools.cache
def _simulator_plugins(path: tuple[str, ...]) -> set[str]:  # noqa: ARG001
    names = {entry.module for entry in entry_points(group="gymnasium.envs")}
    return names | {name.partition(".")[0] for name in names}


def load(group: str, name: str, kind: str) -> ModuleType:
    """The module called `name` in a group, or the file at path `name` where it ends in .py."""
    if name.endswith(".py"):
        return load_file(Path(name), kind)
    found = modules(group)
    if name not in found:
        raise unknown(kind, name, found, "or give the path of a .py file")
    try:
        return importlib.import_module(found[name])
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{kind} {name!r}: the module {found[name]} cannot be imported: {_reason(error)}; "
            "install the package that brings it anew, or remove it"
        ) from error


_STAMP = "__offrl_stamp__"  # size and time of a module's file when it was imported


def load_file(path: Path, kind: str) -> ModuleType:
    """A module from a file outside the package, imported anew where the file changed.

    Its name holds a hash of the path.
    """
    path = user_path(path).resolve()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give the path of a Python file with the {kind}")
    name = f"offrl_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    module = sys.modules.get(name)
    if module is not None and vars(module).get(_STAMP) == stamp:
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module)[_STAMP] = stamp
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # SystemExit, and whatever a file may raise
        del sys.modules[name]
        if is_interrupt(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        at = f", line {lines[-1]}" if lines else ""  # the message of a SyntaxError has its own
        raise InputError(f"{path}{at}: cannot be imported: {_reason(error)}") from error
    return module


def _reason(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
