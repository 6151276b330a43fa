"""Summaries of data sets, and reading every byte again."""

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
from sources import card, npz

from offrl.data.columns import NAMES
from offrl.data.dataset import load_dataset
from offrl.data.describe import check, stats
from offrl.errors import InputError


def test_stats(tmp_path: Path) -> None:
    found = stats(load_dataset(card([{"name": str(npz(tmp_path / "a.npz"))}])))
    assert (found.transitions, found.episodes) == (20, 4)
    assert (found.terminations, found.truncations) == (0, 4)
    assert (found.length_min, found.length_mean, found.length_max) == (5, 5.0, 5)
    assert found.return_mean == 47.5
    assert found.return_std == pytest.approx(25 * math.sqrt(5 / 3))
    assert found.return_quantiles == pytest.approx([10, 13.75, 28.75, 47.5, 66.25, 81.25, 85])
    assert found.score_mean == pytest.approx(46.875)
    assert found.action_min is not None
    assert found.action_max is not None
    assert -1 <= found.action_min < found.action_max <= 1
    assert found.actions_outside == 0


def test_stats_count_actions_outside_the_bounds(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    with np.load(path) as archive:
        columns = dict(archive)
    columns["action"][:3, 0] = [1.5, -2, 1]
    np.savez(path, **columns)
    found = stats(load_dataset(path))
    assert (found.action_min, found.action_max) == (-2, 1.5)
    assert found.action_bound == 1.0
    assert found.actions_outside == pytest.approx(2 / 40)
    wider = stats(load_dataset(path), bound=1.9)
    assert wider.action_bound == 1.9
    assert wider.actions_outside == pytest.approx(1 / 40)


def test_check_lists_what_it_compared(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    found = check(card([{"name": str(path), "md5": md5}], expected={"transitions": 20}))
    assert found.totals["train"].mean_return == 47.5
    assert set(found.columns["train"]) == set(NAMES)
    assert found.files == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    assert found.compared == [
        "the cache's checksums",
        "the card's checksum of " + str(path),
        "transitions",
    ]


@pytest.mark.usefixtures("own_cache")
def test_check_finds_a_file_that_changed_since_it_was_read(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    stamp = path.stat()
    load_dataset(path)
    path.write_bytes(b"x" * stamp.st_size)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(InputError, match=r"a\.npz: SHA-256 \w+, but \w+ when it was first read"):
        check(path)
