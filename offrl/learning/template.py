"""Begins a file with an algorithm of the user's own from one that works."""

import importlib.util
import keyword
import sys
from pathlib import Path

from offrl import registry
from offrl.errors import InputError
from offrl.files import replacing, user_path

TEMPLATE = Path(__file__).parents[1] / "templates" / "my_algo.py"
NAME, CLASS = "my_algo", "MyAlgo"  # what the template calls its algorithm
LONGEST = 60  # characters of a name, which becomes part of a folder's


def new_algorithm(name: str, path: Path | None = None) -> Path:
    """Writes a whole, plain algorithm called `name`, at ./NAME.py unless there is a path.

    Raises InputError for a name that Python or offrl cannot use, and where the file exists.
    """
    advice = "give a name such as my_algo"
    if not (name.isidentifier() and name.isascii()) or len(name) > LONGEST:
        raise InputError(
            f"{name!r:.80}: expected a Python identifier of at most {LONGEST} letters, digits and "
            f"_; {advice}"
        )
    if keyword.iskeyword(name) or not _class_name(name):
        raise InputError(f"{name!r}: expected a name that Python leaves free; {advice}")
    if name in registry.modules("algorithms"):
        raise InputError(f"{name!r}: expected a new name, but offrl has that algorithm; {advice}")
    own_path = path is not None
    path = user_path(path or f"{name}.py")
    if path.suffix != ".py":
        raise InputError(f"{path}: expected the name of a .py file; give {name}.py")

    def check() -> None:
        if path.is_symlink() or path.exists():
            raise InputError(f"{path}: exists, and is left as it is; give another name or file")
        if not own_path and _is_module(name):
            raise InputError(
                f"{name!r}: expected a new name, but Python has a module {name}, which {path} "
                f"would hide from programs in this folder; {advice}"
            )

    with replacing(path, check=check) as temporary:
        temporary.write_text(text_of(name), encoding="utf-8")
    return path


def text_of(name: str) -> str:
    """The template with the algorithm's name in its docstring, its class and its config."""
    text = TEMPLATE.read_text(encoding="utf-8")
    return text.replace(CLASS, _class_name(name)).replace(NAME, name)


def _is_module(name: str) -> bool:
    """Whether Python imports something of this name; a folder is no module."""
    if name in sys.modules:
        return True
    module = importlib.util.find_spec(name)
    return module is not None and module.origin is not None


def _class_name(name: str) -> str:
    """In camel case; empty for a name of underscores alone, or one that begins with a digit."""
    joined = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return joined if joined.isidentifier() and not keyword.iskeyword(joined) else ""
