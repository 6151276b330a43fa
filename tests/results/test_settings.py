"""Settings: what tells the configs of one algorithm apart, as a column and as names."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_store import write_run

from offrl.errors import InputError
from offrl.results.collect import collect, read_runs
from offrl.results.failures import Failure
from offrl.results.files import read_scores, write_scores
from offrl.results.settings import setting_text, settings_of
from offrl.results.table import ScoreTable
from offrl.statistics.comparison import compare

CONFIG: dict[str, Any] = {"beta": 3.0, "hidden": [64, 64], "reward": "raw"}


def config_run(root: Path, seed: int, digit: int, status: str = "done", **config: Any) -> Path:
    """A run with a config of its own, whose hash ends with a digit."""
    whole = {**CONFIG, **config}
    return write_run(root, seed, status=status, config=whole, config_hash=f"0000000{digit}")


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two seeds of three settings, of which one has a run that failed and one a run that waits."""
    root = tmp_path / "runs"
    for seed in (0, 1):
        config_run(root, seed, 1, beta=1.0)
        config_run(root, seed, 2, beta=10.0, status="failed" if seed else "done")
        status = "interrupted" if seed else "done"
        config_run(root, seed, 3, beta=0.5, hidden=[64], status=status)
    unfinished = root / "tiny" / "my-maze" / "bc-00000003" / "seed-1" / "evaluations.jsonl"
    unfinished.write_text(unfinished.read_text().splitlines(keepends=True)[0])
    return root


def test_the_values_that_differ_are_the_setting(grid: Path, tmp_path: Path) -> None:
    table = read_runs(grid)
    names = ["beta=0.5, hidden=[64]", "beta=1, hidden=[64,64]", "beta=10, hidden=[64,64]"]
    assert sorted(set(table.frame["setting"])) == names
    assert table.algorithms == ["bc"]
    (failure,) = table.failures
    assert (failure.setting, failure.seed) == (names[2], 1)
    assert table.by_setting().algorithms == [f"bc ({name})" for name in names]
    assert table.notes == (f"unfinished: bc ({names[0]}) on maze, seed 1: step 10 of 20",)
    write_scores(table, tmp_path / "scores.csv")
    labels = ["algorithm", "dataset", "setting", "seed", "step", "score"]
    again = read_scores(tmp_path / "scores.csv").frame
    pd.testing.assert_frame_equal(again[labels], table.frame[labels])


def test_one_setting_is_chosen_by_its_name(grid: Path) -> None:
    (chosen, other) = ("bc (beta=1, hidden=[64,64])", "bc (beta=0.5, hidden=[64])")
    one = collect(grid, algorithms=[chosen])
    assert set(one.frame["setting"]) == {"beta=1, hidden=[64,64]"}
    assert [entry["config"]["beta"] for entry in one.provenance] == [1.0, 1.0]
    assert not one.notes
    assert not one.failures
    assert collect(grid, algorithms=[other]).notes == read_runs(grid).notes
    whole = collect(grid, algorithms=["bc"])
    assert len(whole.provenance) == 6
    by_setting = whole.by_setting().selected(algorithms=[chosen])
    assert [entry["config"]["beta"] for entry in by_setting.provenance] == [1.0, 1.0]
    with pytest.raises(InputError, match=r"unknown algorithm 'bc \(beta=2"):
        collect(grid, algorithms=["bc (beta=2, hidden=[64,64])"])


def test_settings_are_compared_as_algorithms(grid: Path) -> None:
    table = read_runs(grid)
    table = table.selected(algorithms=table.names_by_setting("bc")[:2])
    pairs = compare(table, algorithms=["bc"], baseline="bc (beta=1, hidden=[64,64])").pairs
    assert pairs[["x", "y"]].to_numpy().tolist() == [
        ["bc (beta=0.5, hidden=[64])", "bc (beta=1, hidden=[64,64])"],
    ]


def test_configs_of_different_data_sets_are_no_settings(tmp_path: Path) -> None:
    config_run(tmp_path, 0, 1, beta=1.0)
    folder = config_run(tmp_path, 0, 2, beta=10.0)
    for name in ("run.json", "evaluations.jsonl"):
        file = folder / name
        file.write_text(file.read_text().replace('"maze@2"', '"other@1"'))
    table = read_runs(tmp_path)
    assert "setting" not in table.frame
    assert table.algorithms == ["bc"]


def test_configs_that_no_value_tells_apart_have_their_hashes_in_the_name(tmp_path: Path) -> None:
    config_run(tmp_path, 0, 1)
    config_run(tmp_path, 0, 2)  # another file of code
    table = read_runs(tmp_path)
    assert table.algorithms == ["bc (tiny@1 00000001)", "bc (tiny@1 00000002)"]
    assert "setting" not in table.frame


@pytest.mark.parametrize(
    ("configs", "texts"),
    [
        ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], ["b=2", "b=3"]),
        ([{"a": 1}, {"a": 1.5}, None], ["a=1", "a=1.5", "config 2"]),
        ([{"a": 1}], [""]),
        ([{"a": 1}, {"a": 1}], None),
        ([{"a": 1}, None], None),
        ([{"a": 1}, {"a": 2, "new": 0}], None),  # of another version of the algorithm
        ([{"a": "x" * 80}, {"a": "x" * 81}], None),
    ],
)
def test_settings_by_what_differs(configs: list[Any], texts: list[str] | None) -> None:
    by_hash = {str(number): config for number, config in enumerate(configs)}
    found = settings_of(by_hash, [by_hash.keys()])
    assert found == (None if texts is None else dict(zip(by_hash, texts, strict=True)))


def test_a_config_missing_on_one_data_set_is_called_alike_on_all() -> None:
    configs = {"x": {"a": 1, "b": 1}, "y": {"a": 2, "b": 1}, "z": {"a": 1, "b": 5}}
    assert settings_of(configs, [{"x", "y"}, {"z"}]) == {"x": "a=1", "y": "a=2", "z": "a=1"}
    assert settings_of(configs, [{"x"}, {"y"}, {"z"}]) == {"x": "", "y": "", "z": ""}


def test_values_as_text() -> None:
    values = {"a": 3.0, "b": 1e-07, "c": True, "d": "minus one", "e": [[64], 2.5], "f": None}
    assert setting_text(values) == "a=3, b=1e-07, c=true, d=minus one, e=[[64],2.5], f=null"
    assert setting_text({}) == ""
    assert len(setting_text({"a": "x" * 1000})) < 80


def test_other_ways_to_act_stay_with_their_setting() -> None:
    rows = [
        (name, way, "x", setting, seed, 10.0 * seed)
        for setting in ("lr=1", "lr=2")
        for name, way in (("A", ""), ("A: fast", "fast"))
        for seed in range(2)
    ]
    columns = ["algorithm", "way", "dataset", "setting", "seed", "score"]
    frame = pd.DataFrame(rows, columns=columns)
    lost = [Failure("A: fast", "x", 7, "killed", "lr=2", "fast")]
    table = ScoreTable.from_frame(frame, failures=lost).by_setting()
    assert table.algorithms == ["A (lr=1)", "A (lr=1): fast", "A (lr=2)", "A (lr=2): fast"]
    assert table.ways == {"A (lr=1): fast": "A (lr=1)", "A (lr=2): fast": "A (lr=2)"}
    one = ScoreTable.from_frame(frame).selected(algorithms=["A (lr=2)"])
    assert set(one.frame["algorithm"]) == {"A", "A: fast"}
    assert set(one.frame["setting"]) == {"lr=2"}


def test_scores_of_a_changed_protocol_are_never_pooled(tmp_path: Path) -> None:
    """Neither on one data set nor on several, in one folder nor in two."""

    def runs(name: str, protocol: str, seed: int, dataset: str) -> Path:
        folder = write_run(tmp_path / name, seed, protocol=protocol, dataset=f"{dataset}@1")
        file = folder / "evaluations.jsonl"
        text = file.read_text().replace('"maze@2"', f'"{dataset}@1"')
        file.write_text(text.replace('"tiny@1"', f'"{protocol}"'))
        return tmp_path / name

    runs("two sets", "tiny@1", 0, "a")
    both = read_runs(runs("two sets", "tiny+steps=9@1", 1, "b"))
    assert set(both.algorithms) == {"bc (tiny@1)", "bc (tiny+steps=9@1)"}
    one, two = runs("one", "tiny@1", 0, "a"), runs("two", "tiny+steps=9@1", 1, "a")
    with pytest.raises(InputError, match=r"two: 'bc' on 'a' ran under protocol tiny\+steps=9@1, "):
        collect([one, two])
    assert collect([one, runs("three", "tiny@1", 1, "a")]).algorithms == ["bc"]
