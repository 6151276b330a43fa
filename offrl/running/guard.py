"""Whether a script may start worker processes: each of them imports the script anew."""

import ast
import inspect
import sys
from pathlib import Path
from types import FrameType

from offrl.errors import InputError

WRITE = """put the call under `if __name__ == "__main__":`"""
# What a condition mentions that is true in the first process alone.
GUARDS = {"__name__", "parent_process", "current_process"}


def check_guard() -> None:
    """Raises InputError where workers would carry out the script that calls for them.

    A worker starts with an import of the main script, which would ask for workers of its own. In a
    notebook, in a console and in `python -c` there is no script, and nothing to guard.
    """
    frame = _module_frame()
    if frame is None:
        return
    path = frame.f_code.co_filename
    if frame.f_globals.get("__name__") == "__mp_main__":  # a worker: no guard that we could read
        raise InputError(f"{path}, line {frame.f_lineno}: a worker came here again; {WRITE}")
    if getattr(sys.modules["__main__"], "__file__", None) is None:
        return
    if path == "<stdin>":
        raise InputError(
            "a script from standard input cannot start workers, which read it again; save it to a "
            f"file and {WRITE}"
        )
    if not _guarded(path, frame.f_lineno):
        raise InputError(
            f"{path}, line {frame.f_lineno}: starts workers, each of which imports this script and "
            f"would start it again; {WRITE} (in a notebook: call it in a cell, not by %run)"
        )


def _module_frame() -> FrameType | None:
    """The innermost frame of the main script's own level, None where that does not call."""
    frame = inspect.currentframe()
    while frame is not None:
        main = frame.f_globals.get("__name__") in ("__main__", "__mp_main__")
        if main and frame.f_code.co_name == "<module>":
            return frame
        frame = frame.f_back
    return None


def _guarded(path: str, line: int) -> bool:
    """Whether a line of a script is inside of a condition that workers do not fulfil.

    True too where the script cannot be read: then nothing is known of it.
    """
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, ValueError, SyntaxError):
        return True
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and node.lineno <= line <= (node.end_lineno or line):
            names = {
                part.id if isinstance(part, ast.Name) else part.attr
                for part in ast.walk(node.test)
                if isinstance(part, ast.Name | ast.Attribute)
            }
            if names & GUARDS:
                return True
    return False
