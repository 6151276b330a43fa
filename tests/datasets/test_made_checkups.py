"""What `offrl data check` finds on the made sets: nothing that makes training or scores wrong."""

import pytest

from offrl.data.card import shipped_cards
from offrl.evaluation.checkup import checkup

QUICK = ("cartpole-small", "mountaincar-small", "pointmaze-quickstart")
SMALL = sorted(name for name in shipped_cards() if name.endswith("-small"))


@pytest.mark.parametrize(
    "name",
    [
        *QUICK,
        *(
            pytest.param(name, marks=pytest.mark.nightly)  # some 20 s each
            for name in SMALL
            if name not in QUICK
        ),
    ],
)
def test_a_made_set_has_no_fault(name: str) -> None:
    found = checkup(name)
    assert found.of_verdict("fault") == []
    assert found.read.data_sha256 == found.dataset.checksum
    made = found.dataset.card.expected.made
    if made is not None and any(seen.here for seen in made.seen):
        assert found.read.made_sha256 == made.sha256
