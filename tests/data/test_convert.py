"""Reading a source once: what a card expects, and several files."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import card, left_over, npz

from offrl.data import columns
from offrl.data.cache import digest
from offrl.data.dataset import load_dataset
from offrl.data.describe import check
from offrl.data.fetch import fetch
from offrl.errors import InputError


def test_several_files_follow_one_another(tmp_path: Path) -> None:
    files = [{"name": str(npz(tmp_path / f"{i}.npz", seed=i, rows=10 * i))} for i in (1, 2)]
    data = load_dataset(card(files, expected={"transitions": 30, "mean_return": 235 / 6}))
    assert len(data) == 30
    assert data.episode_returns.tolist() == [10, 35, 10, 35, 60, 85]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"transitions": 21}, r"tiny: 20 transitions, expected 21; the data are not those of card"),
        ({"episodes": 5}, r"tiny: 4 episodes, expected 5"),
        ({"mean_return": 47.6}, r"tiny: mean return 47\.5, expected 47\.6"),
    ],
)
def test_data_other_than_expected_are_refused(
    tmp_path: Path, own_cache: Path, expected: dict[str, Any], message: str
) -> None:
    files = [{"name": str(npz(tmp_path / "a.npz"))}]
    with pytest.raises(InputError, match=message):
        load_dataset(card(files, expected=expected))
    assert list((own_cache / "datasets").glob("tiny-*")) == []
    load_dataset(card(files))
    with pytest.raises(InputError, match=message):  # also where the cache already holds them
        load_dataset(card(files, expected=expected))


def test_expected_validation_counts_are_checked(tmp_path: Path) -> None:
    files = [{"name": str(npz(tmp_path / "a.npz"))}]
    source = {"loader": "neorl2", "files": files, "validation": files}
    data = load_dataset(card(files, source=source, expected={"validation_transitions": 19}))
    with pytest.raises(InputError, match="20 validation transitions, expected 19"):
        _ = data.validation


ODD = """
import numpy as np
from offrl.data import Columns
SUFFIXES, VIEWS = (), ("transitions",)
def read(path, card):
    wide, ends = np.ones((4, 2), np.float32), np.arange(4) == 3
    columns = Columns(wide, wide, wide[:, 0], wide, ends, np.zeros_like(ends))
    {change}
    return columns
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("columns.actions = np.full((4, 2), np.nan, np.float32)", "actions: nan in row 0"),
        ("columns.rewards = np.array([0, 0, np.inf, 0], np.float32)", "rewards: inf in row 2"),
        ("columns.observations = np.ones((4, 2))", "observations: float64, expected an array of f"),
        ("columns.actions = np.ones((4, 2), int)", "actions: int64, expected an array of float32"),
        ("columns.actions = [[1.0]] * 4", "actions: list, expected an array of float32"),
        ("columns.truncations = np.zeros(4)", "truncations: float64, expected an array of bool"),
        (
            "columns.next_observations = wide[:3]",
            r"next_observations: shape \(3, 2\), expected \(4",
        ),
        ("columns.next_observations = wide[:, :1]", r"next_observations: shape \(4, 1\), but obse"),
        ("columns.rewards = wide", r"rewards: shape \(4, 2\), expected \(4,\)"),
        ("columns.terminations = ends[1:]", r"terminations: shape \(3,\), expected \(4,\) by the"),
        ("columns.actions = wide[:, :0]", r"actions: shape \(4, 0\), expected \(4, dimensions\)"),
        ("columns.rewards = wide[:0, 0]", r"observations: shape \(4, 2\), expected \(rows, dim"),
        ("columns.terminations = ~ends", "truncations: the last row ends no episode"),
        ("columns.notes = 'odd'", "notes: 'odd', expected a list of sentences"),
        ("columns.source = (4, 1)", r"source: \(4, 1\), expected offrl\.data\.Totals or None"),
        ("columns = vars(columns)", r"its loader returned dict, expected offrl\.data\.Columns"),
    ],
)
def test_what_a_loader_returns_is_checked(
    tmp_path: Path, own_cache: Path, change: str, message: str
) -> None:
    path = tmp_path / "odd.py"
    path.write_text(ODD.format(change="pass"))
    (tmp_path / "data").touch()
    source = {"loader": str(path), "files": [{"name": str(tmp_path / "data")}]}
    assert len(load_dataset(card([], source=source))) == 4
    path.write_text(ODD.format(change=change))
    with pytest.raises(InputError, match=rf"/data: .*{message}") as caught:
        load_dataset(card([], source=source))
    assert "\n" not in str(caught.value)
    assert len(list((own_cache / "datasets").glob("tiny-*"))) == 1


def test_numbers_that_are_not_finite_are_seen_in_every_block(monkeypatch: Any) -> None:
    monkeypatch.setattr(columns, "BLOCK", 4)
    values = np.ones((7, 3), np.float32)
    for row in range(7):
        bad = values.copy()
        bad[row, row % 3] = np.inf
        with pytest.raises(InputError, match=f"f: key: inf in row {row} "):
            columns.column(bad, Path("f"), "key", 7, 2)


FOLDERS = """
from offrl.datasets.neorl2 import VIEWS, read as read_file
SUFFIXES = ()
def read(path, card):
    return read_file(path / "a.npz" if path.is_dir() else path, card)
"""


def test_a_folder_among_files_leaves_each_its_checksum(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "folders.py").write_text(FOLDERS)
    (tmp_path / "folder").mkdir()
    npz(tmp_path / "folder" / "a.npz", seed=1)
    data = npz(tmp_path / "b.npz").read_bytes()
    npz(tmp_path / "c.npz", seed=2)
    files = [
        {"name": str(tmp_path / "folder")},
        {"name": "b.npz", "urls": ["http://x"]},
        {"name": str(tmp_path / "c.npz"), "sha256": digest(tmp_path / "c.npz")},
    ]
    source = card([], source={"loader": str(tmp_path / "folders.py"), "files": files})
    fetch(source, tmp_path)
    loaded = load_dataset(source)
    sha256 = hashlib.sha256(data).hexdigest()
    assert loaded.notes == [f"b.npz has no published checksum; its SHA-256 here is {sha256}"]
    found = check(source)
    assert sorted(Path(path).name for path in found.files) == ["b.npz", "c.npz"]
    assert f"the card's checksum of {tmp_path / 'c.npz'}" in found.compared
    assert own_cache.is_dir()


def test_a_failed_conversion_leaves_nothing(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match="No space left on device; free some space"):
        load_dataset(npz(tmp_path / "a.npz"))
    assert left_over(own_cache) == []
    assert list((own_cache / "datasets").glob("a-v1-*")) == []


LOAD = """
import sys, offrl
data = offrl.load_dataset(sys.argv[1])
print(len(data), int(data.rewards.sum(dtype=float)))
"""


def test_processes_that_convert_at_once_do_not_break_each_other(
    tmp_path: Path, own_cache: Path
) -> None:
    path = npz(tmp_path / "a.npz", rows=5000)
    workers = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(path)], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    outputs = {worker.communicate(timeout=60)[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0] * 4
    assert outputs == {b"5000 12497500\n"}
    assert len(list((own_cache / "datasets").glob("a-v1-*"))) == 1
    assert left_over(own_cache) == []
