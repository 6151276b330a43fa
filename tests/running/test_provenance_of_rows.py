"""What a score row notes of the simulator that played."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

import offrl

VALID_WITH = '\nvalid_with = { hypothesis = ">=1", nowhere-to-be-found = "==1", mujoco = ">=1" }\n'


@pytest.mark.usefixtures("pendulum")
def test_rows_note_the_packages_with_which_a_card_is_valid(tmp_path: Path) -> None:
    """Without their versions no submission on the card could be valid."""
    card = Path("pend.toml")
    card.write_text(card.read_text() + VALID_WITH)
    offrl.train("bc", "pend.toml", tmp_path / "runs", steps=2, episodes=1)
    [path] = (tmp_path / "runs").rglob("evaluations.jsonl")
    names = ("gymnasium", "gymnasium-robotics", "mujoco", "offrl", "hypothesis")
    for line in path.read_text().splitlines():
        assert json.loads(line)["simulator"] == {name: version(name) for name in names}
