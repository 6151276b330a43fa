"""How long work reports where it stands."""

from collections.abc import Callable

# Called with what is done so far and the total: bytes, episodes, algorithms, parts of a report.
Progress = Callable[[int, int], None]
