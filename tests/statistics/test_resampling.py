import dataclasses
import json
from typing import Any

import pytest

from offrl.errors import InputError
from offrl.statistics import ENGINES, Resampling


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reps": 10}, "reps 10: too few resamples.* give 100 or more"),
        ({"reps": 0}, "reps 0"),
        ({"seed": -1}, "seed -1: expected a whole number, 0 or more"),
        ({"level": 0.4}, "level 0.4: expected a coverage"),
        ({"level": 1}, "level 1"),
        ({"level": float("nan")}, "level nan"),
        ({"level": 95}, "level 95"),
        ({"engine": "rliably"}, "unknown engine 'rliably'; did you mean 'rliable'"),
    ],
)
def test_it_is_checked_when_it_is_made(options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        Resampling(**options)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Resampling(), **options)


def test_it_records_itself():
    record = Resampling(500, 3, 0.9, ENGINES[1]).record()
    assert record == {"seed": 3, "engine": "rliable", "reps": 500, "level": 0.9}
    again = json.loads(json.dumps(Resampling().record()))
    assert again == {"seed": 0, "engine": "offrl", "reps": None, "level": 0.95}
    assert Resampling(**again) == Resampling()


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Resampling().seed = 1  # type: ignore[misc]
