"""Our updates against those of the reference code, whose figures tests/golden/ keeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import ours

from offrl import registry
from offrl.learning.learner import find_algorithm

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.json"))
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # relative


def read(path: Path) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(path.read_text())
    return golden


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_updates_agree_with_the_reference(path: Path, precision: str) -> None:
    """Losses of every update, and every parameter after the first and the tenth."""
    golden = read(path)
    found = ours(golden["algorithm"], golden["config"], getattr(torch, precision))
    expected, tolerance = golden[precision], TOLERANCE[precision]
    assert expected["metrics"]
    # All that we train is compared, but that BC's actor goes by its second name, `acting`, the key
    # bias of attention has no effect, and ReBRAC's last actor loss is a metric that it keeps.
    last = str(max(map(int, expected["parameters"])))
    unnamed = found["parameters"][last].keys() - expected["parameters"][last].keys()
    assert {n for n in unnamed if not n.startswith("actor.") or golden["algorithm"] != "bc"} <= {
        name for name in unnamed if name.endswith("key.bias") or name == "last_actor_loss"
    }
    for name, values in expected["metrics"].items():
        scale = np.abs(values).max()
        near = {"rtol": 0.0, "atol": tolerance * scale}
        np.testing.assert_allclose(found["metrics"][name], values, **near, err_msg=name)
    for update, parameters in expected["parameters"].items():
        for name, (norm, probe) in parameters.items():
            got = found["parameters"][update][name]
            near = {"rtol": 0.0, "atol": tolerance * norm}
            np.testing.assert_allclose(got, [norm, probe], **near, err_msg=f"{name} {update}")


def test_an_algorithm_says_that_it_agrees_where_there_are_figures() -> None:
    claimed = {n for n in registry.modules("algorithms") if find_algorithm(n).agreement}
    assert claimed == {read(path)["algorithm"] for path in GOLDEN}
