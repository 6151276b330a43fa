"""Rows that tests can tell apart."""

import numpy as np
from numpy.typing import NDArray


def numbers(rows: int, size: int, start: int = 0) -> NDArray[np.float32]:
    """Rows that differ everywhere, so that a wrong row shows."""
    return (start + np.arange(rows * size, dtype=np.float32)).reshape(rows, size)
