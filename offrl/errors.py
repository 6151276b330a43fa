"""The one exception that the command line turns into a single line and exit code 2."""

import difflib
import multiprocessing
from collections.abc import Iterable

SHOWN = 80  # characters of a name in a message


class InputError(ValueError):
    """Bad input from outside: its message says what was read, what was expected and what to do."""


class Damaged(InputError):
    """A file of offrl's own that does not hold what offrl wrote; the message has file and fault."""


def is_interrupt(error: BaseException) -> bool:
    """Whether the user ended the work by Ctrl-C, which no worker process gets to see."""
    return isinstance(error, KeyboardInterrupt) and multiprocessing.parent_process() is None


def unknown(kind: str, name: str, known: Iterable[str], advice: str = "") -> InputError:
    """An InputError for a name that is not among `known`, with the nearest one if any is near.

    Of long names it has the beginning.
    """
    names = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    if near:
        hint = f"did you mean {lowered[near[0]]!r:.{SHOWN}}?"
    else:
        shown = [f"{candidate:.{SHOWN}}" for candidate in names[:13]]
        shown = [*shown[:12], "..."] if len(names) > 13 else shown
        hint = f"expected one of: {', '.join(shown) or '(none)'}"
    return InputError(f"unknown {kind} {name!r:.{SHOWN}}; {hint}{f' ({advice})' if advice else ''}")
