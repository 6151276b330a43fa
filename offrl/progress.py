"""How long work reports where it stands."""

from collections.abc import Callable

# Called with what is done so far and the total: bytes, episodes, algorithms, parts of a report.
Progress = Callable[[int, int], None]


def parts(
    progress: Progress | None, first: int, second: int
) -> tuple[Progress | None, Progress | None]:
    """Callbacks for the two parts of a job, given their numbers of steps; none for no steps."""
    if progress is None or not second:
        return progress, None
    whole, total = progress, first + second
    return (
        lambda done, _: whole(done, total),
        lambda done, _: whole(first + done, total),
    )


def stage(progress: Progress | None, first: int, last: int) -> Progress | None:
    """A callback for one stage of longer work, which takes it from `first` to `last` percent."""
    if progress is None:
        return None
    whole = progress
    return lambda done, total: whole(first + (last - first) * done // max(1, total), 100)
