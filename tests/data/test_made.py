"""What a maker makes is compared with its card: to the bit where that was seen, else by numbers."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import card, npz

from offrl import machine
from offrl.data.card import Card
from offrl.data.dataset import load_dataset
from offrl.errors import InputError

HERE = {"processor": machine.processor(), "mathematics": machine.mathematics()}
MAKER = """
from sources import npz

def make_for(card, directory, progress=None):
    return npz(directory / f"{card.id}.npz")
"""
# Twenty rows in four episodes, whose rewards are 0 to 19: a mean return of 47.5.


@pytest.fixture
def cards(tmp_path: Path, own_cache: Path) -> Callable[..., Card]:  # noqa: ARG001
    maker = tmp_path / "maker.py"
    maker.write_text(MAKER)

    def made(sha256: str, seen: dict[str, Any], tolerance: float = 0.0, **expected: Any) -> Card:
        about = {"sha256": sha256, "seen": [seen], "tolerance": tolerance}
        source = {"loader": "neorl2", "maker": str(maker)}
        return card([], source=source, expected={"transitions": 20, "made": about, **expected})

    return made


def digest(folder: Path) -> str:
    """The checksum of the maker's columns, from its file alone."""
    with np.load(npz(folder / "again.npz")) as file:
        keys = ("obs", "action", "reward", "next_obs", "done", "truncated")
        columns = [file[key] for key in keys]
    columns[4:] = [values.astype(np.bool_) for values in columns[4:]]
    parts = [f"{v.dtype.str}{v.shape}".encode() + v.tobytes() for v in columns]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_equal_bits_need_no_remark(cards: Callable[..., Card], tmp_path: Path) -> None:
    seen = {"processor": "another", "mathematics": "", "packages": {}}
    data = load_dataset(cards(digest(tmp_path), seen, mean_return=47.5))
    assert data.notes == []
    assert len(data) == 20


def test_other_bits_on_a_machine_where_they_were_seen_are_an_error(
    cards: Callable[..., Card], tmp_path: Path
) -> None:
    seen = {**HERE, "packages": {"numpy": np.__version__}}
    with pytest.raises(InputError, match=f"{digest(tmp_path)}, but 00ff was seen on .*--again"):
        load_dataset(cards("00ff", seen, 0.5, mean_return=47.5))


@pytest.mark.parametrize(
    "seen",
    [
        {**HERE, "processor": "another", "packages": {}},
        {**HERE, "mathematics": "another", "packages": {}},
        {**HERE, "packages": {"numpy": "0.1"}},
        {**HERE, "packages": {"offrl-of-nowhere": "1"}},
    ],
)
def test_elsewhere_episodes_and_mean_return_decide(
    seen: dict[str, Any], cards: Callable[..., Card], tmp_path: Path
) -> None:
    """Of 4 episodes with a mean return of 47.5; a tenth is allowed."""
    data = load_dataset(cards("00ff", seen, 0.1, mean_return=50.0, episodes=4))
    [note] = data.notes
    assert "another processor, C library or version of a package" in note
    processor = machine.processor() or "an unknown processor"
    assert f"{digest(tmp_path)}, made on {processor} with {machine.mathematics()}" in note
    assert "within 10.00%" in note
    with pytest.raises(InputError, match=r"mean return 47\.5, expected 60"):
        load_dataset(cards("00ff", seen, 0.1, mean_return=60.0))
    with pytest.raises(InputError, match="4 episodes, expected 5"):
        load_dataset(cards("00ff", seen, 0.1, episodes=5))
    load_dataset(cards("00ff", seen, 0.2, episodes=5))
    with pytest.raises(InputError, match="20 transitions, expected 21"):  # whatever the tolerance
        load_dataset(cards("00ff", seen, 0.1, transitions=21))
