"""Code that a file names runs only where the user trusts that file.

A card, a protocol or the metadata of a data set is data and may come from a stranger; yet each can
name Python code: a loader, an environment, an algorithm. What ships with offrl, or is found through
an entry point, always runs. Anything else needs the user's word: `--trust FILE` on the command
line, `trust=[...]` from Python. Who builds a card or a protocol in Python names the code himself:
it has no origin, and runs.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from offrl.errors import InputError

Files = str | Path | Iterable[str | Path]


class Untrusted(InputError):
    """A file names code, and nobody has said that it may run."""


def trusted(files: Files) -> tuple[str, ...]:
    """What a user trusts, as absolute paths without links.

    A name such as `LOADER:NAME`, for which there is no path, stays as it is. Raises InputError for
    a path that does not exist.
    """
    given = [files] if isinstance(files, str | Path) else list(files)
    return tuple(dict.fromkeys(_trusted(str(file)) for file in given))


def _trusted(file: str) -> str:
    real = _real(file)
    if real == file and ":" in file and not Path(file).is_absolute():
        return file
    if not Path(real).exists():
        raise InputError(
            f"trust: {file}: no such file or folder; give the card, protocol or folder of data "
            "that names the code"
        )
    return real


def _real(file: str) -> str:
    """The path without links; a name for which there is no path unchanged."""
    path = Path(file)
    try:
        return file if ":" in file and not path.exists() else str(path.resolve())
    except (OSError, ValueError):  # a circle of links, a NUL
        return file


@dataclass(frozen=True)
class Origin:
    """Where a card or a protocol was read, and all that the user trusts.

    It is no part of what was read: all origins are equal.

    Attributes:
        file: a path, or `LOADER:NAME`, by which the user trusts it; None for what ships with offrl
            or was made in Python, which may name any code.
        trust: of `trusted`.
    """

    file: str | None = field(default=None, compare=False)
    trust: tuple[str, ...] = field(default=(), compare=False)

    def place(self, code: str) -> Path:
        """The path of a Python file that is named here; a relative one starts at this file."""
        return Path(code if self.file is None else Path(self.file).absolute().parent / code)

    def allow(self, key: str, code: str | Path) -> None:
        """Raises Untrusted unless this file, or the Python file `code`, is trusted.

        Args:
            key: what names the code, with its value.
            code: a path of a Python file, or the name of a module.
        """
        if self.file is None:
            return
        kind = "module" if isinstance(code, str) else "file"
        if _real(self.file) in self.trust or (kind == "file" and _real(str(code)) in self.trust):
            return
        raise Untrusted(
            f"{self.file}: {key} would import the {kind} {code}, which is no part of offrl or of a "
            f"plug-in; if you trust it, give --trust {shlex.quote(self.file)} (from Python: "
            f"trust=[{self.file!r}])"
        )
