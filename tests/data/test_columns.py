"""Checks of what a loader reads."""

from pathlib import Path

import numpy as np
import pytest

from offrl.data.columns import column
from offrl.errors import InputError


def test_column_counts_rows_and_axes() -> None:
    where = Path("x.npz")
    assert column([1, 2], where, "action", 2, 2).shape == (2, 1)
    with pytest.raises(InputError, match=r"x\.npz: reward: shape \(2, 3\), expected \(rows,\)"):
        column(np.ones((2, 3)), where, "reward", 2, 1)
