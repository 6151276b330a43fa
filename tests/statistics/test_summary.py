from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offrl import statistics
from offrl.errors import InputError
from offrl.results.failures import Failure
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap
from offrl.statistics.resampling import Resampling

METRICS = statistics.METRICS


def frame_of(scores: dict[str, Any]) -> pd.DataFrame:
    """A tidy frame from algorithm -> array (runs, tasks)."""
    return pd.DataFrame(
        [
            {"algorithm": a, "dataset": f"task{k}", "seed": run, "score": x[run, k]}
            for a, x in scores.items()
            for run in range(x.shape[0])
            for k in range(x.shape[1])
        ]
    )


def table_of(scores: dict[str, Any], **options: Any) -> ScoreTable:
    return ScoreTable.from_frame(frame_of(scores), **options)


def value(summary: pd.DataFrame, algorithm: str, metric: str, column: str, method: str) -> float:
    rows = summary[
        (summary["algorithm"] == algorithm)
        & (summary["metric"] == metric)
        & (summary["ci_method"] == method)
    ]
    return float(rows[column].item())


ORDER = ("median", "iqm", "mean", "optimality_gap")  # of expected.json


def test_point_values_are_the_known_ones(known):
    for suite, table in known:
        cells = table.cells()
        for algorithm, expected in suite["algorithms"].items():
            scores = np.stack([cells[algorithm][task] for task in suite["tasks"]], axis=1)
            got = [
                statistics.median(scores),
                statistics.iqm(scores),
                statistics.mean(scores),
                statistics.optimality_gap(scores, 1),
            ]
            np.testing.assert_allclose(got, expected["point"], rtol=1e-12, atol=1e-13)


def test_interval_ends_are_the_known_ones_within_monte_carlo_error(known):
    reps = 20_000
    for suite, table in known:
        summary = statistics.summarise(table, resampling=Resampling(reps, seed=5))
        for algorithm, expected in suite["algorithms"].items():
            for k, metric in enumerate(ORDER):
                # The file's rule: six standard errors of the difference of two Monte-Carlo runs.
                error = expected["mcse_at_1_rep"][k]
                slack = 6 * error * np.sqrt(1 / reps + 1 / 400_000) + 1e-12
                for column, key in (("ci_low", "lo"), ("ci_high", "hi")):
                    got = value(summary, algorithm, metric, column, "percentile")
                    assert abs(got - expected[f"exact_ci_{key}_400k"][k]) <= slack
                # mc_error is that same standard error, estimated from the resamples.
                mine = value(summary, algorithm, metric, "mc_error", "percentile")
                assert mine <= 2 * error / np.sqrt(reps) + 1e-12
                if metric != "median" and error > 0:  # a median of few values has atoms
                    assert mine >= 0.4 * error / np.sqrt(reps)


def test_the_profile_is_the_known_one(known):
    compared = 0
    for suite, table in known:
        for algorithm, expected in suite["profile"].items():
            got = statistics.profile(table, expected["tau"], resampling=Resampling(100))
            got = got[got["algorithm"] == algorithm]
            np.testing.assert_allclose(got["share"], expected["frac"], rtol=1e-12, atol=1e-15)
            compared += len(got)
    assert compared >= 80


def test_iqm_trims_as_scipy_does_and_differs_from_mean_and_median():
    scores = (np.arange(50.0) ** 1.0)[:, None]
    squares = np.array([0, 1, 4, 9, 16, 25, 36, 49.0])[:, None]
    assert statistics.iqm(squares) == 13.5  # (4 + 9 + 16 + 25) / 4
    assert statistics.mean(squares) == 17.5
    assert statistics.median([squares[:, 0]]) == 17.5  # of task means, and there is one task
    assert statistics.median(squares.T) == 12.5
    assert statistics.optimality_gap(squares, 10) == 10 - (0 + 1 + 4 + 9 + 4 * 10) / 8
    rng = np.random.default_rng(0)
    for shape in ((3, 1), (2, 2), (5, 7), (10, 26)):
        scores = rng.normal(size=shape)
        expected = scipy.stats.trim_mean(scores, 0.25, axis=None)
        assert statistics.iqm(scores) == pytest.approx(expected, rel=1e-13, abs=1e-15)


def agree(mine: bootstrap.Interval, other: Any, reps: int, other_reps: int) -> None:
    """Two bootstraps agree within six standard errors of their difference."""
    ratio = np.sqrt(1 + reps / other_reps)
    assert abs(mine.low - other[0]) <= 6 * ratio * mine.low_error + 1e-9
    assert abs(mine.high - other[1]) <= 6 * ratio * mine.high_error + 1e-9


@pytest.mark.parametrize("shape", [(10, 4), (6, 5)])
def test_percentile_intervals_are_those_of_rliable(shape):
    from rliable import library, metrics

    scores = np.random.default_rng(shape[0]).normal(0.5, 0.4, size=shape)
    reps = 2_000
    np.random.seed(0)  # noqa: NPY002 (rliable draws from the global generator)
    point, ci = library.get_interval_estimates(
        {"A": scores},
        lambda x: np.array(
            [
                metrics.aggregate_iqm(x),
                metrics.aggregate_median(x),
                metrics.aggregate_mean(x),
                metrics.aggregate_optimality_gap(x),
            ]
        ),
        reps=reps,
    )
    mine = statistics.intervals(scores, resampling=Resampling(seed=1, reps=20_000), gamma=1)
    table = table_of({"A": scores}, scale=1)
    estimates = statistics.summarise(table, resampling=Resampling(100)).drop_duplicates("metric")[
        "estimate"
    ]
    np.testing.assert_allclose(estimates, point["A"], rtol=1e-12)
    for k, metric in enumerate(METRICS):
        agree(mine[metric]["percentile"], ci["A"][:, k], 20_000, reps)


@pytest.mark.parametrize("runs", [(10, 10, 10), (5, 9, 14, 9)])
def test_percentile_intervals_are_those_of_scipy_also_with_unequal_runs(runs):
    rng = np.random.default_rng(len(runs))
    cells = [rng.standard_t(3, size=n) + k for k, n in enumerate(runs)]

    def iqm(*samples: Any, axis: int) -> Any:
        pooled = np.sort(np.concatenate(samples, axis=axis), axis=axis)
        cut = pooled.shape[axis] // 4
        return pooled[..., cut : pooled.shape[axis] - cut].mean(axis=-1)

    def mean(*samples: Any, axis: int) -> Any:
        return np.mean([sample.mean(axis=axis) for sample in samples], axis=0)

    mine = statistics.intervals(cells, resampling=Resampling(seed=2, reps=20_000), gamma=1)
    for metric, function in (("iqm", iqm), ("mean", mean)):
        answer = scipy.stats.bootstrap(
            tuple(cells), function, n_resamples=20_000, method="percentile", rng=3
        ).confidence_interval
        agree(mine[metric]["percentile"], (answer.low, answer.high), 20_000, 20_000)


def test_profile_bands_narrow_to_the_point_where_all_runs_agree():
    scores = np.random.default_rng(0).uniform(20, 80, size=(5, 6))
    profile = statistics.profile(table_of({"A": scores}), [0, 50, 90], resampling=Resampling(2_000))
    assert profile["share"][0] == 1
    assert profile["share"].tolist() == pytest.approx([1, (scores > 50).mean(), 0], abs=1e-12)
    assert profile[["ci_low", "ci_high"]].iloc[0].tolist() == [1, 1]
    assert profile[["ci_low", "ci_high"]].iloc[2].tolist() == [0, 0]
    assert profile["ci_low"][1] < profile["share"][1] < profile["ci_high"][1]


def test_expanded_level_is_the_closed_form():
    # Equal variances on M tasks of n runs: df = M (n - 1), widening sqrt(n / (n - 1)).
    for runs, tasks in ((3, 9), (5, 1), (10, 4)):
        t = scipy.stats.t.ppf(0.975, tasks * (runs - 1))
        expected = scipy.stats.norm.cdf(-np.sqrt(runs / (runs - 1)) * t)
        got = bootstrap.expanded_level(np.full(tasks, 7.0), np.full(tasks, runs), 0.95)
        assert got == pytest.approx(expected, rel=1e-12)
    # All variance on one task: that task's degrees of freedom, whatever the others have.
    got = bootstrap.expanded_level(np.array([0, 2.0]), np.array([9, 3]), 0.95)
    assert got == pytest.approx(scipy.stats.norm.cdf(-np.sqrt(1.5) * scipy.stats.t.ppf(0.975, 2)))


def test_the_mean_of_normal_scores_gets_students_interval():
    # One task, many runs: the expanded percentile interval of a mean nears Student's.
    scores = np.random.default_rng(4).normal(size=(40, 1))
    ci = statistics.intervals(scores, resampling=Resampling(seed=0, reps=50_000), gamma=1)["mean"]
    student = scipy.stats.t.interval(0.95, 39, scores.mean(), scipy.stats.sem(scores[:, 0]))
    wide, plain = ci["expanded percentile"], ci["percentile"]
    assert wide.high - wide.low == pytest.approx(student[1] - student[0], rel=0.03)
    assert plain.high - plain.low < 0.97 * (student[1] - student[0])


def test_expanded_intervals_cover_at_three_runs_where_percentile_intervals_do_not():
    # 1,500 simulated suites of 9 tasks x 3 runs, t with 3 degrees of freedom, true IQM 0. Measured
    # with 20,000 suites once: .957 and .881; a standard error of this test is .005 and .008.
    suites, rng = 1_500, np.random.default_rng(2015)
    covered = dict.fromkeys(statistics.DEFAULT_METHODS, 0)
    for scores in rng.standard_t(3, size=(suites, 3, 9)):
        ci = statistics.intervals(
            scores, resampling=Resampling(seed=int(rng.integers(2**31)), reps=1_000), gamma=1
        )["iqm"]
        for method, ends in ci.items():
            covered[method] += ends.low <= 0 <= ends.high
    share = {method: count / suites for method, count in covered.items()}
    assert 0.93 <= share["expanded percentile"] <= 0.985
    assert share["percentile"] <= 0.91


def test_studentized_intervals_are_the_bootstrap_t():
    # Written out for the mean and the IQM, one resample at a time.
    rng = np.random.default_rng(8)
    scores = rng.standard_t(4, size=(6, 4)) + np.arange(4)
    runs, tasks = scores.shape

    def mean(x: Any) -> tuple[float, float]:
        return x.mean(), np.sqrt((x.var(axis=0, ddof=1) / runs).sum()) / tasks

    def iqm(x: Any) -> tuple[float, float]:
        pooled = np.sort(x.ravel())
        inside = np.clip(x, pooled[6], pooled[-7])  # a quarter of 24 at each end
        error = np.sqrt((inside.var(axis=0, ddof=1) * runs).sum()) / 12
        return scipy.stats.trim_mean(x.ravel(), 0.25), error

    mine = statistics.intervals(
        scores, gamma=1, resampling=Resampling(20_000, seed=1), methods=statistics.METHODS
    )
    for metric, function in (("mean", mean), ("iqm", iqm)):
        estimate, error = function(scores)
        t = []
        for _ in range(10_000):
            drawn = scores[rng.integers(0, runs, scores.shape), np.arange(tasks)]
            middle, spread = function(drawn)
            t.append((middle - estimate) / spread)
        high, low = np.quantile(t, [0.025, 0.975])
        agree(
            mine[metric]["studentized"],
            (estimate - error * low, estimate - error * high),
            20_000,
            10_000,
        )
    assert "studentized" not in mine["median"]


def test_a_studentized_interval_without_an_end_is_infinite_and_named():
    table = table_of({"A": np.array([[1.0], [5.0], [6.0]])})
    summary = statistics.summarise(table, resampling=Resampling(500), studentized=True)
    rows = summary[summary["ci_method"] == "studentized"]
    assert rows["ci_low"].tolist() == [-np.inf] * 3
    assert rows["ci_high"].tolist() == [np.inf] * 3
    notes = statistics.explain(table, summary)
    assert any("has no end" in note and note.endswith(": A") for note in notes)
    tied = table_of({"A": np.ones((3, 2))})
    rows = statistics.summarise(tied, resampling=Resampling(500), studentized=True)
    assert (rows["ci_low"] == rows["estimate"]).all()


def test_ranks_count_ties_in_equal_parts():
    scores = {"A": np.full((3, 2), 9.0), "B": np.full((3, 2), 5.0), "C": np.full((3, 2), 5.0)}
    found: Any = statistics.ranks(table_of(scores), resampling=Resampling(100)).set_index(
        "algorithm"
    )
    assert found.loc["A", ["rank_1", "rank_2", "rank_3"]].tolist() == [1, 0, 0]
    for name in "BC":
        assert found.loc[name, ["rank_1", "rank_2", "rank_3"]].tolist() == [0, 0.5, 0.5]
    assert found["mean_rank"].to_dict() == {"A": 1, "B": 2.5, "C": 2.5}
    assert (found["ci_low"] == found["mean_rank"]).all()


def test_a_huge_score_leaves_the_others_digits_alone():
    scores = np.random.default_rng(0).normal(50, 9, (10, 9))
    wild = scores.copy()
    wild[0, 0], scores[0, 0] = 1e15, 1e3  # cut off in either case
    first, second = (
        statistics.intervals(s, gamma=100, resampling=Resampling(1_000))["iqm"]
        for s in (scores, wild)
    )
    low, high = first["percentile"].low, first["percentile"].high
    assert second["percentile"].low == pytest.approx(low, rel=1e-12)
    assert second["percentile"].high == pytest.approx(high, rel=1e-12)
    # And ranks on a data set are those of its own scores.
    table = {"A": np.full((2, 2), 50.0), "B": np.full((2, 2), 55.0), "C": np.full((2, 2), 60.0)}
    table["D"] = np.array([[1.0, -1e14], [1.0, -1e14]])
    found = statistics.ranks(table_of(table), resampling=Resampling(100)).set_index("algorithm")
    assert found["mean_rank"].to_dict() == {"C": 1, "B": 2, "A": 3, "D": 4}


def test_ranks_are_those_of_a_plain_bootstrap():
    rng = np.random.default_rng(3)
    scores = {
        name: rng.normal(shift, 1, (4, 3)) for name, shift in (("A", 0), ("B", 0.3), ("C", 1))
    }
    found = statistics.ranks(table_of(scores), resampling=Resampling(20_000)).set_index("algorithm")
    counts, means = np.zeros((3, 3)), []
    for _ in range(10_000):
        drawn = [x[rng.integers(0, 4, x.shape), np.arange(3)].mean(axis=0) for x in scores.values()]
        rank = scipy.stats.rankdata(-np.array(drawn), axis=0)
        means.append(rank.mean(axis=1))
        for k in range(3):
            counts[k] += (rank[k] == np.array([[1], [2], [3]])).sum(axis=1)
    expected = counts / 30_000
    got = found.loc[list("ABC"), ["rank_1", "rank_2", "rank_3"]].to_numpy()
    # A share of 10,000 resamples whose three data sets are independent.
    assert np.abs(got - expected).max() <= 5 * 0.5 / np.sqrt(10_000)
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(got.sum(axis=0), 1, rtol=1e-12)
    ends = np.quantile(means, [0.025, 0.975], axis=0).T
    assert (np.abs(found.loc[list("ABC"), ["ci_low", "ci_high"]] - ends) <= 1 / 3 + 1e-9).all(None)


def test_the_band_of_a_profile_holds_its_pointwise_limits():
    scores = np.random.default_rng(1).uniform(0, 100, (5, 9))
    found: Any = statistics.profile(table_of({"A": scores}), resampling=Resampling(2_000))
    assert (found["band_low"] <= found["ci_low"]).all()
    assert (found["band_high"] >= found["ci_high"]).all()
    assert (found["band_high"] - found["band_low"]).mean() > 1.2 * (
        found["ci_high"] - found["ci_low"]
    ).mean()
    assert found[["band_low", "band_high"]].stack().between(0, 1).all()


def test_one_run_gives_no_interval_and_says_so():
    scores = np.random.default_rng(0).normal(50, 9, size=(3, 2))
    frame = frame_of({"A": scores, "B": scores + 1})
    table = ScoreTable.from_frame(frame[~((frame["algorithm"] == "A") & (frame["seed"] > 0))])
    with pytest.raises(InputError, match="'A' on 'task0'"):
        statistics.summarise(table, resampling=Resampling(200))
    summary = statistics.summarise(table, resampling=Resampling(200), partial=True)
    mine = summary[summary["algorithm"] == "A"]
    assert mine[["ci_low", "ci_high", "mc_error"]].isna().all().all()
    assert mine["estimate"].notna().all()
    assert summary[summary["algorithm"] == "B"]["ci_low"].notna().all()
    notes = statistics.explain(table, summary)
    assert any("A has a single run on task0, task1: no interval" in note for note in notes)
    assert statistics.per_task(table)["std"].isna().tolist() == [True, True, False, False]
    assert statistics.profile(table, resampling=Resampling(200))["ci_low"].isna().sum() == 101
    with pytest.raises(InputError, match="two runs"):
        statistics.intervals(scores[:1], resampling=Resampling(seed=0), gamma=1)


def test_ties_give_a_point_and_the_reason():
    scores = np.tile([0.1, 0.7, 0.2], (3, 1))
    table = table_of({"A": scores}, scale=1)
    summary = statistics.summarise(table, resampling=Resampling(500))
    assert (summary["ci_low"] == summary["estimate"]).all()
    assert (summary["ci_high"] == summary["estimate"]).all()
    assert (summary["mc_error"] == 0).all()
    assert any("single point for A" in note for note in statistics.explain(table, summary))
    # Above gamma only the optimality gap ties.
    above = table_of({"A": np.random.default_rng(0).uniform(2, 3, (9, 6))}, scale=1)
    notes = statistics.explain(above, statistics.summarise(above, resampling=Resampling(500)))
    assert [note for note in notes if "interval of optimality gap is a single point" in note]
    assert not [note for note in notes if "IQM" in note.split(" is a single point")[0]]


def test_two_runs_whose_winsorised_variance_is_zero_still_get_an_interval():
    scores = np.array([[0.0, 10.0], [1.0, 11.0]])
    ci = statistics.intervals(scores, resampling=Resampling(seed=0, reps=2_000), gamma=100)["iqm"]
    assert ci["expanded percentile"].low < 5.5 < ci["expanded percentile"].high


def test_too_few_runs_for_the_expanded_interval_are_named():
    rng = np.random.default_rng(0)
    small = table_of({"A": rng.normal(50, 9, (3, 1))})
    notes = statistics.explain(small, statistics.summarise(small, resampling=Resampling(2_000)))
    assert any("may cover less than 95 % (some 75 %" in note and ": A (" in note for note in notes)
    narrow = statistics.summarise(small, resampling=Resampling(2_000, level=0.9))
    assert any("may cover less than 90 %:" in note for note in statistics.explain(small, narrow))
    large = table_of({"A": rng.normal(50, 9, (10, 9))})
    assert (
        statistics.explain(large, statistics.summarise(large, resampling=Resampling(2_000))) == []
    )


def test_unequal_runs_are_allowed_shown_and_weighed_as_said():
    frame = frame_of({"A": np.arange(12.0).reshape(4, 3) ** 2})
    table = ScoreTable.from_frame(frame[(frame["dataset"] != "task0") | (frame["seed"] < 2)])
    assert statistics.per_task(table)["n"].tolist() == [2, 4, 4]
    summary = statistics.summarise(table, resampling=Resampling(200))
    assert set(summary["n_runs"]) == {2}
    cells = list(table.cells()["A"].values())
    assert value(summary, "A", "mean", "estimate", "percentile") == pytest.approx(
        np.mean([cell.mean() for cell in cells])
    )
    assert value(summary, "A", "iqm", "estimate", "percentile") == pytest.approx(
        scipy.stats.trim_mean(np.concatenate(cells), 0.25)
    )
    assert any("from 2 to 4" in note for note in statistics.explain(table, summary))


def test_an_algorithm_without_a_finished_run_on_a_task_has_no_aggregate():
    frame = frame_of({"A": np.ones((3, 2)), "B": np.full((3, 2), 2.0)})
    failures = [Failure("A", "task0", seed, "killed") for seed in range(3)]
    table = ScoreTable.from_frame(frame, failures=failures)
    summary = statistics.summarise(table, resampling=Resampling(200), partial=True)
    assert summary[summary["algorithm"] == "A"]["estimate"].isna().all()
    assert summary[summary["algorithm"] == "B"]["estimate"].notna().all()
    notes = statistics.explain(table, summary)
    assert any("A has no finished run on task0" in note for note in notes)
    cell = statistics.per_task(table).iloc[0]
    assert (cell["n"], cell["n_failed"]) == (0, 3)
    assert set(statistics.profile(table, resampling=Resampling(200))["algorithm"]) == {"B"}


def test_per_task_says_its_standard_deviation():
    row = statistics.per_task(table_of({"A": np.array([[1.0], [2.0], [6.0]])})).iloc[0]
    assert row["mean"] == 3
    assert row["std"] == pytest.approx(np.sqrt(7))  # ddof 1; ddof 0 gives sqrt(14 / 3)
    assert row["n"] == 3


def test_bad_scores_are_refused():
    refused: list[Any] = [np.array([[1.0], [np.nan]]), np.ones(3), np.ones((0, 2)), []]
    for scores in refused:
        with pytest.raises(InputError):
            statistics.iqm(scores)


def test_curves_hold_only_steps_that_every_run_has():
    rng = np.random.default_rng(0)
    steps = [frame_of({"A": rng.normal(s, 1, (3, 2))}).assign(step=s) for s in (10, 20, 30)]
    frame = pd.concat(steps)
    torn = frame[~((frame["dataset"] == "task1") & (frame["seed"] == 2) & (frame["step"] == 30))]
    curve = statistics.curve(ScoreTable.from_frame(torn), resampling=Resampling(200))
    assert curve["step"].tolist() == [10, 20]
    assert (
        statistics.curve(ScoreTable.from_frame(torn), "task0", resampling=Resampling(200))[
            "step"
        ].max()
        == 30
    )
    at = frame[frame["step"] == 20]["score"]
    assert curve["iqm"][1] == pytest.approx(scipy.stats.trim_mean(at, 0.25))
    assert (curve["ci_low"] < curve["iqm"]).all()
    thin = statistics.curve(ScoreTable.from_frame(frame), resampling=Resampling(200), points=2)
    assert thin["step"].tolist() == [10, 30]
    assert statistics.curve(table_of({"A": np.ones((2, 2))})).empty


def test_progress_counts_to_its_total():
    seen: list[tuple[int, int]] = []
    table = table_of({"A": np.ones((2, 2)), "B": np.ones((2, 2))})
    statistics.summarise(
        table,
        resampling=Resampling(100),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]


suites = st.tuples(st.integers(2, 5), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-400, 1600).map(lambda i: i / 8))
)
quick = settings(max_examples=40, deadline=None)


@quick
@given(suites, st.randoms(use_true_random=False))
def test_order_of_runs_and_order_and_names_of_tasks_change_nothing(scores, random):
    rng = np.random.default_rng(random.getrandbits(32))
    other = rng.permuted(scores, axis=0)[:, rng.permutation(scores.shape[1])]
    names = {f"task{k}": f"{rng.integers(1000)}-{k}" for k in range(scores.shape[1])}
    frame = frame_of({"A": other}).replace({"dataset": names}).sample(frac=1, random_state=1)
    expected = statistics.summarise(table_of({"A": scores}), resampling=Resampling(200, seed=3))
    got = statistics.summarise(ScoreTable.from_frame(frame), resampling=Resampling(200, seed=3))
    pd.testing.assert_frame_equal(got, expected, check_exact=True)


@quick
@given(suites, suites)
def test_another_algorithm_changes_no_bit_of_the_others(scores, other):
    alone = table_of({"M": scores})
    tasks = scores.shape[1]
    others = {name: np.resize(other, (3, tasks)) for name in ("A", "Z")}
    together = table_of({"A": others["A"], "M": scores, "Z": others["Z"]})
    for function in (
        lambda table: statistics.summarise(table, resampling=Resampling(200, seed=3)),
        lambda table: statistics.profile(
            table, np.arange(0, 100, 20), resampling=Resampling(200, seed=3)
        ),
    ):
        got = function(together)
        got = got[got["algorithm"] == "M"].reset_index(drop=True)
        pd.testing.assert_frame_equal(got, function(alone), check_exact=True)


@quick
@given(suites, st.sampled_from([0.25, 3.0, 40.0]), st.sampled_from([-64.0, 0.0, 5.0]))
def test_affine_changes_carry_through(scores, factor, shift):
    def read(x: Any, gamma: float) -> Any:
        ci = statistics.intervals(x, resampling=Resampling(seed=1, reps=200), gamma=gamma)
        ends = [[ci[m][method].low, ci[m][method].high] for m in METRICS for method in ci[m]]
        points = [statistics.iqm(x), statistics.median(x), statistics.mean(x)]
        return np.array(ends), np.array(points), statistics.optimality_gap(x, gamma)

    ends, points, gap = read(scores, 50.0)
    moved_ends, moved_points, moved_gap = read(factor * scores + shift, factor * 50.0 + shift)
    # Scores and gamma move together, so the gap is only stretched.
    shifts = np.array([shift] * 6 + [0.0] * 2)[:, None]
    np.testing.assert_allclose(moved_ends, factor * ends + shifts, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(moved_points, factor * points + shift, rtol=1e-9, atol=1e-8)
    assert moved_gap == pytest.approx(factor * gap, rel=1e-9, abs=1e-8)


@quick
@given(suites)
def test_the_expanded_interval_holds_the_percentile_interval(scores):
    ci = statistics.intervals(scores, resampling=Resampling(seed=1, reps=500), gamma=100)
    for metric in METRICS:
        wide, plain = ci[metric]["expanded percentile"], ci[metric]["percentile"]
        assert wide.low <= plain.low <= plain.high <= wide.high


def test_the_seed_alone_decides():
    table = table_of({"A": np.random.default_rng(0).normal(size=(4, 5))}, scale=1)
    first = statistics.summarise(table, resampling=Resampling(300, seed=1))
    pd.testing.assert_frame_equal(
        statistics.summarise(table, resampling=Resampling(300, seed=1)), first
    )
    assert not statistics.summarise(table, resampling=Resampling(300, seed=2))["ci_low"].equals(
        first["ci_low"]
    )


def test_an_end_at_the_extreme_resample_has_an_error_of_a_sample_at_least():
    # Squares of 0 to 99: the lowest quantile lies between the first two, which are 1 apart.
    ends = bootstrap.read(np.arange(100.0) ** 2, 1e-9, 0.0)
    assert ends.low_error == pytest.approx(0.5, rel=0.02)
    assert ends.high_error == pytest.approx((99**2 - 98**2) / 2, rel=0.02)
