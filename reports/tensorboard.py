"""Shows the curves of runs in TensorBoard: `tensorboard --logdir RUNS/tensorboard`."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offrl.running.boards import Shown

BOARD = "TensorBoard"
NEEDS = "tensorboard"
FILES = "events.out.tfevents.*"  # as the package names them


class _Events:
    """A run's file of events."""

    def __init__(self, place: Path):
        from torch.utils.tensorboard import SummaryWriter

        # The curves are written whole each time, from the run's own files.
        for old in place.glob(FILES):
            with contextlib.suppress(OSError):
                old.unlink()
        self.writer: Any = SummaryWriter(str(place), flush_secs=10)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values at a step."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the file."""
        self.writer.close()


def board(place: Path, run: "Shown") -> _Events:  # noqa: ARG001 (the folder names it)
    """A file of events for one run."""
    return _Events(place)
