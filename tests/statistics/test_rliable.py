import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from offrl import statistics
from offrl.errors import InputError
from offrl.progress import Progress
from offrl.results.failures import Failure
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap, comparison, engines, own, rliable
from offrl.statistics.pair_intervals import resampled_probabilities
from offrl.statistics.pairs import PAIRS, Pair, comparable_cells, probability_of_improvement
from offrl.statistics.resampling import Resampling

OURS = 20_000  # our resamples, where intervals are compared
ORDER = ("median", "iqm", "mean", "optimality_gap")  # of expected.json


def table_of(scores: dict[str, Any], **options: Any) -> ScoreTable:
    return ScoreTable.from_arrays(
        scores, [f"task{k}" for k in range(next(iter(scores.values())).shape[1])], **options
    )


def random_table(seed: int = 0) -> ScoreTable:
    rng = np.random.default_rng(seed)
    return table_of(
        {
            "dt": rng.normal(60, 30, (4, 5)),
            "iql": rng.standard_t(3, (7, 5)) * 20 + 50,
            "cql": rng.integers(0, 9, (6, 5)) * 12.5,
        }
    )


def without(table: ScoreTable, algorithm: str, dataset: str, runs: int) -> ScoreTable:
    """The table with the first so many runs of a cell alone."""
    frame = table.frame
    cell = (frame["algorithm"] == algorithm) & (frame["dataset"] == dataset)
    return ScoreTable.from_frame(frame[~cell | (frame["seed"] < runs)])


def with_rliable(**options: Any) -> Resampling:
    return Resampling(**options, engine="rliable")


def summarise(
    table: ScoreTable, *, partial: bool = False, progress: Progress | None = None, **options: Any
) -> pd.DataFrame:
    resampling = with_rliable(**options)
    return statistics.summarise(table, resampling=resampling, partial=partial, progress=progress)


def profile(table: ScoreTable, tau: Any, **options: Any) -> pd.DataFrame:
    return statistics.profile(table, tau, resampling=with_rliable(**options))


def curve(
    table: ScoreTable, dataset: str | None = None, *, points: int = 100, **options: Any
) -> pd.DataFrame:
    resampling = with_rliable(**options)
    return statistics.curve(table, dataset, points=points, resampling=resampling)


def probabilities(
    table: ScoreTable,
    names: list[tuple[str, str]],
    *,
    progress: Progress | None = None,
    **options: Any,
) -> pd.DataFrame:
    """P(X > Y) with its interval, of pairs in any order."""
    cells = comparable_cells(table, None, [name for both in names for name in both])
    pairs = [Pair(cells[x], cells[y]) for x, y in names]
    estimates = rliable.compare_pairs(cells, names, pairs, with_rliable(**options), progress)
    rows = [
        (*both, estimate.probability, estimate.interval.low, estimate.interval.high)
        for both, estimate in zip(names, estimates, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(PAIRS[:5]))


def test_summaries_are_the_known_ones(known):
    reps = 400
    for suite, table in known:
        summary = summarise(table, reps=reps, seed=5).set_index("metric")
        for algorithm, expected in suite["algorithms"].items():
            rows = summary[summary["algorithm"] == algorithm].loc[list(ORDER)]
            np.testing.assert_allclose(rows["estimate"], expected["point"], rtol=1e-12, atol=1e-13)
            # The file's rule: six standard errors of the difference of two Monte-Carlo runs.
            errors = np.array(expected["mcse_at_1_rep"]) * np.sqrt(1 / reps + 1 / 400_000)
            for column, key in (("ci_low", "lo"), ("ci_high", "hi")):
                away = np.abs(rows[column] - expected[f"exact_ci_{key}_400k"])
                assert (away <= 6 * errors + 1e-12).all()


def test_profiles_are_the_known_ones(known):
    compared = 0
    for suite, table in known:
        for algorithm, expected in suite["profile"].items():
            got = profile(table, expected["tau"], reps=100)
            got = got[got["algorithm"] == algorithm]
            np.testing.assert_allclose(got["share"], expected["frac"], rtol=1e-12, atol=1e-15)
            compared += len(got)
    assert compared >= 80


def test_probabilities_are_the_known_ones(known):
    for suite, table in known:
        for name, expected in itertools.islice(suite["poi"].items(), 1):
            x, y = name.split(" > ")
            got = probabilities(table, [(x, y)], reps=100).iloc[0]
            assert got["probability"] == pytest.approx(expected["point"], rel=1e-12)
            low, high = expected["fast_ci"]  # of 100,000 resamples
            # A normal distribution's quantile of 100 resamples errs by .27 standard deviations.
            slack = 5 * 0.27 * (high - low) / 3.92
            assert abs(got["probability_low"] - low) <= slack
            assert abs(got["probability_high"] - high) <= slack


def test_summaries_have_our_labels_points_and_percentile_intervals():
    for seed, reps in ((0, 1_000), (1, None)):
        table = random_table(seed)
        ours = statistics.summarise(table, resampling=Resampling(OURS, seed=3))
        ours = ours[ours["ci_method"] == "percentile"].reset_index(drop=True)
        got = summarise(table, reps=reps, seed=3)
        labels = ["algorithm", "metric", "ci_method", "n_runs", "n_tasks"]
        pd.testing.assert_frame_equal(got[labels], ours[labels])
        assert list(got) == list(statistics.COLUMNS)
        used = reps or 2_000
        assert (got["reps"] == used).all()
        assert got["mc_error"].isna().all()
        np.testing.assert_allclose(got["estimate"], ours["estimate"], rtol=1e-12)
        slack = 6 * ours["mc_error"] * np.sqrt(1 + OURS / used) + 1e-9
        for column in ("ci_low", "ci_high"):
            assert (np.abs(got[column] - ours[column]) <= slack).all()


def test_the_scale_is_the_gap_s_gamma():
    scores = np.array([[0.5, 1.5], [0.25, 2.0]])
    for scale in (1.0, 100.0):
        got = summarise(table_of({"A": scores * scale}, scale=scale), reps=100)
        gap = got.set_index("metric")["estimate"]["optimality_gap"]
        assert gap == pytest.approx(scale * (1 - (0.5 + 0.25 + 1 + 1) / 4), rel=1e-12)


def resampled(runs: list[int], statistic: Callable[[Any], Any]) -> Any:
    """A statistic of our resamples, from their counts."""
    samples = np.empty(OURS)
    for place, counts in bootstrap.Draws(runs, 7, "test").blocks(0, OURS):
        samples[place] = statistic(counts)
    return samples


def agree(low: float, high: float, samples: Any, reps: int) -> None:
    """The ends are the samples' 2.5 and 97.5 % quantiles, within five standard errors of a level.

    So that many samples may tie at a quantile.
    """
    slack = 5 * np.sqrt(0.025 * 0.975 * (1 / reps + 1 / OURS))
    for end, level in ((low, 0.025), (high, 0.975)):
        assert (samples < end - 1e-9).mean() <= level + slack
        assert (samples <= end + 1e-9).mean() >= level - slack


def test_profiles_have_our_labels_points_and_percentile_limits():
    table, tau, reps = random_table(), [-500.0, 20, 50, 75, 500], 2_000
    ours = statistics.profile(table, tau, resampling=Resampling(100))
    got = profile(table, tau, reps=reps, seed=2)
    assert list(got) == list(ours)
    pd.testing.assert_frame_equal(got[["algorithm", "tau"]], ours[["algorithm", "tau"]])
    np.testing.assert_allclose(got["share"], ours["share"], rtol=0, atol=1e-12)
    assert got[["mc_error", "band_low", "band_high"]].isna().all().all()
    for _, row in got.iterrows():
        cells = list(table.cells()[row["algorithm"]].values())
        above = np.concatenate(cells) > row["tau"]
        samples = resampled([len(c) for c in cells], (above / len(above)).__matmul__)
        agree(row["ci_low"], row["ci_high"], samples, reps)
    assert got["ci_low"].between(0.05, 0.95).any()


def stepped(scores: dict[str, Any]) -> ScoreTable:
    """A table from arrays (runs, tasks, steps)."""
    steps = next(iter(scores.values())).shape[2]
    return table_of(scores, steps=[1000 * (k + 1) for k in range(steps)])


def test_curves_have_our_labels_points_and_percentile_limits():
    rng = np.random.default_rng(0)
    scores = {name: rng.standard_t(3, (n, 3, 6)).cumsum(2) for name, n in (("A", 5), ("B", 8))}
    table, reps = stepped(scores), 2_000
    for dataset in (None, "task1"):
        ours = statistics.curve(table, dataset, resampling=Resampling(100), points=3)
        got = curve(table, dataset, reps=reps, seed=1, points=3)
        assert list(got) == list(ours)
        pd.testing.assert_frame_equal(got[["algorithm", "step"]], ours[["algorithm", "step"]])
        np.testing.assert_allclose(got["iqm"], ours["iqm"], rtol=1e-12)
        assert got[["mc_error", "band_low", "band_high"]].isna().all().all()
        assert len(got) == 6
        for _, row in got.iterrows():
            cells = scores[row["algorithm"]][:, :, row["step"] // 1000 - 1].T
            cells = cells if dataset is None else cells[1:2]
            iqm = bootstrap.TrimmedMean(cells.ravel(), cells.size)
            samples = resampled([len(c) for c in cells], iqm)
            agree(row["ci_low"], row["ci_high"], samples, reps)
    assert curve(random_table(), reps=100).empty


def test_curves_leave_out_steps_that_a_run_lacks():
    table = stepped({"A": np.random.default_rng(0).normal(size=(3, 2, 3))})
    frame = table.frame
    last = (frame["dataset"] == "task1") & (frame["seed"] == 2) & (frame["step"] == 3000)
    torn = ScoreTable.from_frame(frame[~last])
    assert curve(torn, reps=100)["step"].tolist() == [1000, 2000]
    assert curve(torn, "task0", reps=100)["step"].tolist() == [1000, 2000, 3000]


def test_probabilities_have_our_labels_points_and_percentile_intervals():
    rng = np.random.default_rng(0)
    scores = {"iql": rng.integers(0, 9, (4, 3)) + 0.5, "cql": rng.integers(0, 9, (5, 3)) * 1.0}
    scores["iql"][:, 1] += 0.5  # ties
    table, reps = table_of(scores), 1_000
    pairs = [("iql", "cql"), ("cql", "iql")]
    got = probabilities(table, pairs, reps=reps, seed=4)
    ours = comparison.compare(table, resampling=Resampling(100), permutations=100).pairs
    assert list(got) == list(ours.columns[:5])
    assert list(zip(got["x"], got["y"], strict=True)) == pairs
    point, low, high = got.iloc[0, 2:].astype(float)
    expected = probability_of_improvement(list(scores["iql"].T), list(scores["cql"].T))
    assert point == pytest.approx(expected, rel=1e-12)
    pair = Pair(*(table.cells()[name] for name in pairs[0]))
    samples = resampled_probabilities([pair], 0, OURS, 0)[0]
    agree(low, high, 1 - samples if pair.turned else samples, reps)
    # The same pair the other way round.
    np.testing.assert_allclose(got.iloc[1, 2:].astype(float), [1 - point, 1 - high, 1 - low])


def all_frames(table: ScoreTable, **options: Any) -> list[pd.DataFrame]:
    """The four answers for a table with steps and algorithms A and B."""
    return [
        summarise(table, **options),
        profile(table, [0.0, 1.0], **options),
        curve(table, **options),
        probabilities(table, [("A", "B")], **options),
    ]


def test_the_seed_alone_decides_and_the_global_state_stays(capfd):
    rng = np.random.default_rng(0)
    table = stepped({name: rng.normal(size=(3, 2, 2)) for name in "AB"})
    np.random.seed(1)  # noqa: NPY002 (rliable draws from the global generator)
    np.random.standard_normal()  # noqa: NPY002 (and keeps a second one for the next call)
    before = np.random.get_state()  # noqa: NPY002
    first = all_frames(table, seed=3, reps=100)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    np.random.seed(2)  # noqa: NPY002
    for frame, again in zip(first, all_frames(table, seed=3, reps=100), strict=True):
        pd.testing.assert_frame_equal(frame, again, check_exact=True)
    for frame, other in zip(first[:3], all_frames(table, seed=2**40, reps=100)[:3], strict=True):
        assert not frame["ci_low"].equals(other["ci_low"])
    assert capfd.readouterr() == ("", "")


def test_the_engine_is_chosen_by_name():
    rng = np.random.default_rng(0)
    table = stepped({name: rng.normal(size=(3, 2, 2)) for name in "AB"})
    assert engines.engine(with_rliable()) is rliable
    assert engines.engine(Resampling()) is own
    options: dict[str, Any] = {"reps": 100, "seed": 3}
    pairs = comparison.compare(table, permutations=100, resampling=with_rliable(**options)).pairs
    expected = probabilities(table, [("A", "B")], **options)
    pd.testing.assert_frame_equal(pairs.iloc[:, :5], expected, check_exact=True)
    ours = comparison.compare(table, permutations=100, resampling=Resampling(**options)).pairs
    theirs = ["probability_low", "probability_high", "probability_error"]
    pd.testing.assert_frame_equal(pairs.drop(columns=theirs), ours.drop(columns=theirs))
    assert pairs["probability_error"].isna().all()


def test_intervals_have_the_level_that_was_given():
    table = random_table()
    wide, narrow = (summarise(table, reps=500, level=level) for level in (0.95, 0.5))
    assert (narrow["ci_low"] > wide["ci_low"]).all()
    assert (narrow["ci_high"] < wide["ci_high"]).all()
    assert narrow["estimate"].equals(wide["estimate"])


def test_the_global_state_is_put_back_after_an_error():
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    with pytest.raises(KeyboardInterrupt), rliable.seeded(0):
        raise KeyboardInterrupt
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before  # noqa: NPY002


def test_names_orders_and_other_algorithms_change_nothing():
    rng = np.random.default_rng(0)
    scores = {name: rng.integers(0, 40, (4, 3, 2)) / 8 for name in "AB"}
    frame = stepped(scores).frame
    names = {"algorithm": {"A": "Z", "B": "C"}, "dataset": {"task0": "x", "task1": "b"}}
    moved = frame.replace(names).assign(seed=3 - frame["seed"]).sample(frac=1, random_state=1)
    third = moved[moved["algorithm"] == "Z"].assign(algorithm="D", score=lambda f: f["score"] + 1)
    table = ScoreTable.from_frame(pd.concat([moved, third]))
    options: dict[str, Any] = {"reps": 100, "seed": 4}
    *frames, pairs = all_frames(stepped(scores), **options)
    others = [
        summarise(table, **options),
        profile(table, [0.0, 1.0], **options),
        curve(table, **options),
    ]
    for got, expected in zip(others, frames, strict=True):
        for old, new in (("A", "Z"), ("B", "C")):
            pd.testing.assert_frame_equal(
                got[got["algorithm"] == new].drop(columns="algorithm").reset_index(drop=True),
                expected[expected["algorithm"] == old]
                .drop(columns="algorithm")
                .reset_index(drop=True),
                check_exact=True,
            )
    got = probabilities(table, [("Z", "D"), ("Z", "C")], **options)
    pd.testing.assert_frame_equal(got.iloc[[1], 2:].reset_index(drop=True), pairs.iloc[:, 2:])


def test_unequal_runs_are_refused_with_their_cells():
    table = without(random_table(), "iql", "task3", 5)
    calls: list[Callable[[], Any]] = [
        lambda: summarise(table, reps=100),
        lambda: summarise(table, reps=100, partial=True),
        lambda: profile(table, [0.0], reps=100),
        lambda: probabilities(table, [("dt", "iql")], reps=100),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"'iql' on 'task3' \(5\).* fewer runs than the 7"):
            call()
    frame = stepped({"A": np.random.default_rng(0).normal(size=(3, 2, 2))}).frame
    torn = ScoreTable.from_frame(frame[(frame["dataset"] != "task0") | (frame["seed"] < 2)])
    with pytest.raises(InputError, match=r"'A' on 'task0' \(2\)"):
        curve(torn, reps=100)
    # Algorithms may differ among themselves.
    assert len(summarise(random_table(), reps=100)) == 12


def test_single_runs_get_no_interval():
    rng = np.random.default_rng(0)
    table = stepped({"A": rng.normal(size=(1, 2, 2)), "B": rng.normal(size=(3, 2, 2))})
    with pytest.raises(InputError, match="'A' on 'task0'"):
        summarise(table, reps=100)
    with pytest.raises(InputError, match="'A' on 'task0'"):
        probabilities(table, [("B", "A")], reps=100)
    summary = summarise(table, reps=100, partial=True)
    assert summary["reps"].tolist() == [0] * 4 + [100] * 4
    for frame in (
        summary,
        profile(table, [0.0], reps=100),
        curve(table, reps=100),
    ):
        alone = frame["algorithm"] == "A"
        assert frame.loc[alone, ["ci_low", "ci_high"]].isna().all().all()
        assert frame.loc[~alone, ["ci_low", "ci_high"]].notna().all().all()
        assert frame.drop(columns=["ci_low", "ci_high"]).notna().sum().min() in (0, len(frame))


def test_an_algorithm_without_a_finished_run_on_a_task_has_no_aggregate():
    rng = np.random.default_rng(0)
    frame = table_of({"A": rng.normal(size=(3, 2)), "B": rng.normal(size=(3, 2))}).frame
    failures = [Failure("A", "task0", seed, "killed") for seed in range(3)]
    table = ScoreTable.from_frame(frame, failures=failures)
    with pytest.raises(InputError, match="'A' on 'task0'"):
        summarise(table, reps=100)
    summary = summarise(table, reps=100, partial=True)
    mine = summary["algorithm"] == "A"
    assert summary.loc[mine, ["estimate", "ci_low", "ci_high"]].isna().all().all()
    assert summary.loc[~mine, ["estimate", "ci_low", "ci_high"]].notna().all().all()
    assert set(profile(table, [0.0], reps=100)["algorithm"]) == {"B"}
    with pytest.raises(InputError, match=r"'A' has no finished run.* failed by: "):
        probabilities(table, [("A", "B")], reps=100)


def test_unknown_algorithms_are_refused():
    table = random_table()
    with pytest.raises(InputError, match="did you mean 'iql'"):
        probabilities(table, [("iqll", "dt")])


def test_progress_counts_to_its_total():
    seen: list[tuple[int, int]] = []
    summarise(random_table(), reps=100, progress=lambda *at: seen.append(at))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    pairs = [("iql", "dt"), ("cql", "dt")]
    seen.clear()
    probabilities(random_table(), pairs, reps=100, progress=lambda *at: seen.append(at))
    # Of P(X > Y), then of the difference.
    assert seen == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4), (4, 4)]
