"""Metrics that are given as functions."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from offrl import plots, statistics
from offrl.errors import InputError
from offrl.results.failures import Failure
from offrl.results.table import ScoreTable
from offrl.statistics import METRICS, Resampling
from offrl.statistics.bootstrap import Interval

OPTIONS = {"mine": statistics.mean, "middle": statistics.iqm}


def table_of(scores: dict[str, Any], **options: Any) -> ScoreTable:
    rows = [
        {"algorithm": name, "dataset": f"task{k}", "seed": run, "score": score}
        for name, cells in scores.items()
        for k, cell in enumerate(cells)
        for run, score in enumerate(cell)
    ]
    return ScoreTable.from_frame(pd.DataFrame(rows), **options)


def random_cells(*runs: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(10 * k, 3 + 4 * k, n) for k, n in enumerate(runs)]


def ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high, interval.low_error, interval.high_error]


@pytest.mark.parametrize("runs", [(5, 5, 5), (3, 4, 9)])
def test_a_function_that_is_built_in_has_its_percentile_interval(runs):
    cells = random_cells(*runs)
    options: dict[str, Any] = {"gamma": 20, "resampling": Resampling(2_000, 1)}
    got = statistics.intervals(cells, metrics=OPTIONS, **options)
    assert list(got) == [*METRICS, *OPTIONS]
    assert {metric: got[metric] for metric in METRICS} == statistics.intervals(cells, **options)
    for name, metric in (("mine", "mean"), ("middle", "iqm")):
        assert list(got[name]) == list(statistics.DEFAULT_METHODS)
        expected = got[metric]["percentile"]
        np.testing.assert_allclose(ends(got[name]["percentile"]), ends(expected), rtol=1e-9)


@pytest.mark.parametrize("runs", [(3,) * 6, (3, 4, 9, 5), (2, 8)])
def test_the_expanded_interval_of_the_mean_is_near_the_built_in_one(runs):
    cells = random_cells(*runs)
    got = statistics.intervals(
        cells,
        gamma=1,
        metrics={"mine": statistics.mean},
        resampling=Resampling(20_000),
        methods=statistics.METHODS,
    )
    assert "studentized" not in got["mine"]
    built_in, mine = (got[name]["expanded percentile"] for name in ("mean", "mine"))
    width = built_in.high - built_in.low
    assert mine.low == pytest.approx(built_in.low, abs=0.02 * width)
    assert mine.high == pytest.approx(built_in.high, abs=0.02 * width)
    # Both are wider than the percentile interval.
    assert mine.high - mine.low > 1.1 * (
        got["mine"]["percentile"].high - got["mine"]["percentile"].low
    )


def test_expanded_intervals_of_a_function_cover_where_percentile_intervals_do_not():
    """Of a contrast of six data sets at 3 runs, where tasks count with opposite signs."""

    signs = np.array([1, -1, 1, -1, 1, -1])
    rng = np.random.default_rng(0)
    held = dict.fromkeys(statistics.DEFAULT_METHODS, 0)
    for suite in range(200):
        got = statistics.intervals(
            rng.normal(50, (2, 6, 4, 2, 6, 4), (3, 6)),
            gamma=1,
            metrics={"contrast": lambda scores: float(scores.mean(axis=0) @ signs)},
            resampling=Resampling(600, suite),
        )["contrast"]
        for method, interval in got.items():
            held[method] += interval.low <= 0 <= interval.high
    # 173 and 188 of 200.
    assert held["percentile"] < 180
    assert 184 <= held["expanded percentile"] <= 198


def test_rows_of_functions_follow_those_of_the_metrics():
    table = table_of({"B": random_cells(3, 3), "A": random_cells(4, 2, seed=1)})
    options: dict[str, Any] = {"resampling": Resampling(300, 2), "studentized": True}
    plain = statistics.summarise(table, **options)
    seen: list[tuple[int, int]] = []
    got = statistics.summarise(
        table, metrics=OPTIONS, progress=lambda *at: seen.append(at), **options
    )
    built_in = got["metric"].isin(METRICS)
    pd.testing.assert_frame_equal(got[built_in].reset_index(drop=True), plain, check_exact=True)
    mine = got[~built_in]
    assert list(dict.fromkeys(got[got["algorithm"] == "A"]["metric"])) == [*METRICS, *OPTIONS]
    assert set(mine["ci_method"]) == set(statistics.DEFAULT_METHODS)
    assert (mine["reps"] == 300).all()
    assert mine[["ci_low", "ci_high", "mc_error"]].notna().all().all()
    assert seen == [(k, 6) for k in (0, 1, 2, 2, 3, 4, 5, 6)]
    assert statistics.explain(table, got) == statistics.explain(table, plain)
    assert plots.interval_plot(got, "middle").get_xlabel().startswith("middle of the score")


def test_rliable_computes_functions_too():
    cells = random_cells(5, 5, 5)
    resampling = Resampling(400, 3, engine="rliable")
    table = table_of({"A": cells})
    plain = statistics.summarise(table, resampling=resampling)
    got = statistics.summarise(table, metrics=OPTIONS, resampling=resampling)
    pd.testing.assert_frame_equal(got.iloc[:4], plain, check_exact=True)
    rows = got.set_index("metric")[["estimate", "ci_low", "ci_high"]]
    np.testing.assert_allclose(rows.loc["mine"], rows.loc["mean"], rtol=1e-12)
    np.testing.assert_allclose(rows.loc["middle"], rows.loc["iqm"], rtol=1e-12)
    one = statistics.intervals(cells, gamma=100, metrics=OPTIONS, resampling=resampling)
    assert list(one["mine"]) == ["percentile"]
    assert one["mine"]["percentile"].low == rows.loc["mine", "ci_low"]


def mean_of_data_set(number: int, scores: Any) -> float:
    cell = scores[:, number] if isinstance(scores, np.ndarray) else scores[number]
    return float(np.mean(cell))


@pytest.mark.parametrize(
    ("engine", "runs"), [("offrl", (4, 4, 4)), ("offrl", (5, 3, 4)), ("rliable", (4, 4, 4))]
)
def test_functions_take_data_sets_in_the_table_s_order_whatever_the_scores(engine, runs):
    """Of scores on which the order of data sets by score is another for each algorithm."""
    levels = {"A": (0, 100, 200), "B": (200, 0, 100), "C": (100, 200, 0)}
    table = table_of(
        {
            name: [
                level + 10 * np.random.default_rng(level).random(n)
                for level, n in zip(at, runs, strict=True)
            ]
            for name, at in levels.items()
        }
    )
    metrics = {f"task{k}": partial(mean_of_data_set, k) for k in range(3)}
    got = statistics.summarise(table, metrics=metrics, resampling=Resampling(200, engine=engine))
    for name, cells in table.cells().items():
        for dataset, cell in cells.items():
            rows = got[(got["algorithm"] == name) & (got["metric"] == dataset)]
            np.testing.assert_allclose(rows["estimate"], cell.mean())
            assert rows["ci_low"].min() >= cell.min() - 1e-9  # a mean of equal runs is rounded
            assert rows["ci_high"].max() <= cell.max() + 1e-9
            assert (rows["ci_low"] < rows["ci_high"]).all()


def test_functions_have_repetitions_of_their_own():
    table = table_of({"A": random_cells(9, 9)})
    plain = statistics.summarise(table)
    got = statistics.summarise(table, metrics={"constant": lambda _: 3.0})
    built_in = got["metric"].isin(METRICS)
    pd.testing.assert_frame_equal(got[built_in].reset_index(drop=True), plain, check_exact=True)
    constant = got[~built_in]
    assert (constant[["estimate", "ci_low", "ci_high"]] == 3).all().all()
    assert (constant["reps"] == 10_000).all()


def test_single_and_missing_runs_have_no_interval():
    cells = random_cells(3, 3)
    table = table_of(
        {"A": [cells[0][:1], cells[1]], "B": cells[:1], "C": cells},
        failures=[Failure("B", "task1", 0, "killed")],
    )
    for engine in ("rliable", "offrl"):
        resampling = Resampling(100, engine=engine)
        if engine == "rliable":
            table_ = table_of({"A": [cell[:1] for cell in cells], "C": cells})
        else:
            table_ = table
        got = statistics.summarise(table_, metrics=OPTIONS, partial=True, resampling=resampling)
        mine = got[got["metric"] == "mine"].set_index("algorithm")
        mean = got[got["metric"] == "mean"].set_index("algorithm")
        np.testing.assert_allclose(mine["estimate"], mean["estimate"])
        assert mine["reps"].tolist() == mean["reps"].tolist()
        assert mine.loc[["A"], ["ci_low", "ci_high"]].isna().to_numpy().all()


@pytest.mark.parametrize("engine", ["offrl", "rliable"])
def test_bad_functions_are_named(engine):
    resampling = Resampling(100, engine=engine)
    scores = np.random.default_rng(0).normal(size=(4, 3))
    for value in (np.nan, np.inf, np.ones(2)):

        def bad(_: Any, returned: Any = value) -> Any:
            return returned

        with pytest.raises(InputError, match=r"metric 'bad' returned .* expected a finite number"):
            statistics.intervals(scores, gamma=1, metrics={"bad": bad}, resampling=resampling)
    with pytest.raises(InputError, match="metric 'iqm' is built in; give yours another name"):
        statistics.intervals(scores, gamma=1, metrics={"iqm": np.mean}, resampling=resampling)
    with pytest.raises(InputError, match="metric 'mean' is built in"):
        statistics.summarise(
            table_of({"A": scores.T}), metrics={"mean": np.mean}, resampling=resampling
        )
