"""Reading a source once: what a card expects, and several files."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import card, left_over, npz

from offrl.data.dataset import load_dataset
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
