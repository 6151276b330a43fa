import json
import math
from pathlib import Path

import numpy as np
import pytest

from offrl.reporting.values import json_value, value_text


def test_json_has_null_for_what_is_not_finite_at_any_depth():
    value = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": np.float32("nan"), 3: None}
    assert json_value(value) == {"a": [1.5, None, [None, {"b": None}]], "c": None, "3": None}


def test_json_keeps_numbers_truth_and_text_and_writes_out_the_rest():
    value = {
        "number": np.int64(3),
        "truth": np.bool_(True),
        "array": np.arange(3),
        "path": Path("a/b"),
        "text": "NaN",
        "large": 2**63,
    }
    text = json.dumps(json_value(value), allow_nan=False)
    assert json.loads(text) == {
        "number": 3,
        "truth": True,
        "array": [0, 1, 2],
        "path": "a/b",
        "text": "NaN",
        "large": 2**63,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (np.bool_(False), "false"),
        (None, "none"),
        (3e-4, "0.0003"),
        (1e-5, "1e-05"),
        (5.0, "5.0"),
        (np.float64(0.1), "0.1"),
        (math.inf, "inf"),
        (1_000_000, "1000000"),
        ("as it is", "as it is"),
        ([256, (True, None)], "[256, [true, none]]"),
        ({"lr": 3e-4, "net": {"hidden": [8, 8]}}, "{lr = 0.0003, net = {hidden = [8, 8]}}"),
    ],
)
def test_a_value_as_text(value, text):
    assert value_text(value) == text


def test_whole_numbers_may_have_commas():
    assert value_text([1_000_000, 0.5, True, "1000"], commas=True) == "[1,000,000, 0.5, true, 1000]"
