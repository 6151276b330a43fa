"""How long work reports where it stands."""

from collections.abc import Callable

# Called with what is done so far and the total: bytes, episodes, algorithms, parts of a report.
Progress = Callable[[int, int], None]


def stage(progress: Progress | None, first: int, last: int) -> Progress | None:
    """A callback for one stage of longer work, which takes it from `first` to `last` percent."""
    if progress is None:
        return None
    whole = progress
    return lambda done, total: whole(first + (last - first) * done // max(1, total), 100)
