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
    assert checkup(name).of_verdict("fault") == []
