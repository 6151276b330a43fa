from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offrl.errors import InputError
from offrl.results.table import ScoreTable
from offrl.statistics import bootstrap, comparison, permutations
from offrl.statistics.closed import closed_p
from offrl.statistics.comparison import Comparison, compare
from offrl.statistics.pair_intervals import resampled_iqms, resampled_probabilities
from offrl.statistics.pairs import PAIRS, Pair, probability_of_improvement
from offrl.statistics.permutations import Runs, Set, set_p
from offrl.statistics.resampling import Resampling
from offrl.statistics.significance import holm


def table_of(scores: dict[str, Any], **options: Any) -> ScoreTable:
    rows = [
        {"algorithm": a, "dataset": f"task{k}", "seed": run, "score": x[run, k]}
        for a, x in scores.items()
        for run in range(x.shape[0])
        for k in range(x.shape[1])
    ]
    return ScoreTable.from_frame(pd.DataFrame(rows), **options)


def ragged(scores: dict[str, list[Any]]) -> ScoreTable:
    rows = [
        {"algorithm": a, "dataset": f"task{k}", "seed": run, "score": score}
        for a, tasks in scores.items()
        for k, cell in enumerate(tasks)
        for run, score in enumerate(cell)
    ]
    return ScoreTable.from_frame(pd.DataFrame(rows))


def row(result: Comparison, x: str, y: str) -> Any:
    pairs = result.pairs
    return pairs[(pairs["x"] == x) & (pairs["y"] == y)].iloc[0]


def test_probabilities_of_improvement_are_the_known_ones(known):
    checked = 0
    for suite, table in known:
        cells = table.cells()
        for name, expected in suite["poi"].items():
            x, y = name.split(" > ")
            result = compare(table, algorithms=[x, y], resampling=Resampling(100), permutations=100)
            (got,) = result.pairs.to_dict("records")
            mine = got["probability"] if got["x"] == x else 1 - got["probability"]
            assert mine == pytest.approx(expected["point"], rel=1e-12)
            scores = ([cells[a][task] for task in suite["tasks"]] for a in (x, y))
            assert probability_of_improvement(*scores) == pytest.approx(mine, rel=1e-12)
            checked += 1
    assert checked >= 14


def test_ends_of_probabilities_are_the_known_ones_within_monte_carlo_error(known):
    reps = 20_000
    for suite, table in known:
        cells = table.cells()
        for name, expected in suite["poi"].items():
            x, y = name.split(" > ")
            pair = Pair(cells[x], cells[y])
            samples = np.sort(resampled_probabilities([pair], 0, reps, 3)[0])
            if pair.turned:
                samples = np.sort(1 - samples)
            mine = bootstrap.read(samples, 0.025, 0)
            # The known ends come from 100,000 resamples. Values lie on a grid of 1 / (n n T), and
            # a quantile between two of its points may fall on either.
            slack = np.array([mine.low_error, mine.high_error]) * np.sqrt(1 + reps / 100_000) * 6
            grid = 1.01 / (pair.above[0].size * len(pair.above))
            away = np.abs([mine.low, mine.high] - np.array(expected["fast_ci"]))
            assert (away <= slack + grid).all()


def test_probabilities_are_those_of_rliable():
    from rliable import library, metrics

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (6, 5)).astype(float), rng.integers(0, 9, (8, 5)) + 0.5
    y[:, 2] = x[:3, 2].mean().round()  # ties within and across
    reps = 1_000
    np.random.seed(0)  # noqa: NPY002 (rliable draws from the global generator)
    point, ci = library.get_interval_estimates(
        {"x,y": (x, y)}, metrics.probability_of_improvement, reps=reps
    )
    got = row(compare(table_of({"x": x, "y": y}), resampling=Resampling(100)), "x", "y")
    assert got["probability"] == pytest.approx(float(point["x,y"]), rel=1e-12)
    pair = Pair(*(dict(zip("abcde", s.T, strict=True)) for s in (x, y)))
    samples = resampled_probabilities([pair], 0, 20_000, 0)[0]
    mine = bootstrap.read(np.sort(1 - samples if pair.turned else samples), 0.025, 0)
    # A normal distribution's quantile has this standard error; values lie on a grid of 1 / 480.
    error = np.sqrt(0.025 * 0.975) / scipy.stats.norm.pdf(1.96) * samples.std()
    slack = 5 * error * np.sqrt(1 / reps + 1 / 20_000) + 1 / 480
    assert (np.abs([mine.low, mine.high] - ci["x,y"].ravel()) <= slack).all()


@pytest.mark.parametrize("runs", [(7, 7, 7), (4, 9, 6)])
def test_difference_intervals_are_those_of_scipy(runs):
    rng = np.random.default_rng(1)
    x = [rng.standard_t(3, n) + k for k, n in enumerate(runs)]
    y = [rng.standard_t(3, n + 1) - k for k, n in enumerate(runs)]

    def difference(*samples: Any, axis: int) -> Any:
        def iqm(cells: Any) -> Any:
            return scipy.stats.trim_mean(np.concatenate(cells, axis=axis), 0.25, axis=axis)

        return iqm(samples[: len(runs)]) - iqm(samples[len(runs) :])

    answer = scipy.stats.bootstrap(
        (*x, *y), difference, n_resamples=9_999, method="percentile", rng=3
    ).confidence_interval
    pair = Pair(*(dict(zip("abc", cells, strict=True)) for cells in (x, y)))
    sides = [
        resampled_iqms({(): side}, purpose, 0, 20_000, 0)[()]
        for side, purpose in zip(pair.sides, ("first", "second"), strict=True)
    ]
    mine = bootstrap.read(np.sort(pair.sign * (sides[0] - sides[1])), 0.025, 0)
    assert abs(mine.low - answer.low) <= 6 * np.sqrt(3) * mine.low_error
    assert abs(mine.high - answer.high) <= 6 * np.sqrt(3) * mine.high_error
    # And the interval of the table is wider, by the degrees of freedom.
    got = row(compare(ragged({"x": x, "y": y}), resampling=Resampling(20_000)), "x", "y")
    assert got["difference_low"] < mine.low < mine.high < got["difference_high"]


def test_permutations_stay_within_tasks():
    # Tasks far apart: exchanging runs across them would hide this difference of 1 in each.
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.3, (5, 6)) + 1000 * np.arange(6)
    got = row(compare(table_of({"x": x + 1, "y": x}), resampling=Resampling(100)), "x", "y")
    assert got["p"] < 0.01


def test_welch_is_that_of_scipy_and_undefined_without_spread():
    rng = np.random.default_rng(2)
    x, y = [rng.normal(0, 1, 4), rng.normal(3, 9, 6)], [rng.normal(1, 5, 3), rng.normal(0, 1, 5)]
    x, y = [*x, np.ones(3)], [*y, np.full(3, 4.0)]
    tasks = compare(ragged({"x": x, "y": y}), resampling=Resampling(100), permutations=100).tasks
    for k in (0, 1):
        expected = scipy.stats.ttest_ind(x[k], y[k], equal_var=False)
        ci = expected.confidence_interval()
        got = tasks.iloc[k]
        assert got["p"] == pytest.approx(expected.pvalue, rel=1e-10)
        assert got["ci_low"] == pytest.approx(ci.low, rel=1e-10)
        assert got["ci_high"] == pytest.approx(ci.high, rel=1e-10)
    assert tasks.iloc[2][["p", "p_holm", "ci_low", "ci_high"]].isna().all()
    assert tasks.iloc[2]["difference"] == -3


def test_holm_is_the_step_down_rule():
    # By hand: 4 x .01, 3 x .02 = .06, then 2 x .03 is no less than that, and .5.
    np.testing.assert_allclose(
        holm(np.array([0.03, 0.01, 0.5, 0.02])), [0.06, 0.04, 0.5, 0.06], rtol=1e-12
    )
    np.testing.assert_allclose(holm(np.array([0.9, np.nan, 0.6])), [1, np.nan, 1])
    assert holm(np.array([0.2])).tolist() == [0.2]


def test_verdicts():
    rng = np.random.default_rng(3)
    base = rng.normal(50, 2, (5, 9))
    scores = {
        "low": base - 20,
        "near": rng.normal(50, 2, (5, 9)),
        "base": base,
        "wild": base + np.tile([[-40], [-20], [5], [20], [40]], 9),
    }
    result = compare(table_of(scores), margin=5)
    assert row(result, "base", "low")["verdict"] == "better"
    assert row(result, "low", "near")["verdict"] == "worse"
    assert row(result, "base", "near")["verdict"] == "equivalent"
    wild = row(result, "base", "wild")
    assert wild["verdict"] == "cannot tell"
    assert wild["seeds"] > 5
    assert result.pairs["seeds"].notna().sum() == (result.pairs["verdict"] == "cannot tell").sum()
    # Without a margin nothing is equivalent.
    assert "equivalent" not in set(
        compare(table_of(scores), resampling=Resampling(200)).pairs["verdict"]
    )


def test_equivalence_is_two_one_sided_welch_tests():
    rng = np.random.default_rng(4)
    x, y = rng.normal(0, 1, 8), rng.normal(0.3, 3, 5)
    pair = Pair({"t": x}, {"t": y})
    welch: Any = scipy.stats.ttest_ind
    for margin in (0.1, 2.0, 5.0):
        one_sided = [
            welch(x + side * margin, y, equal_var=False, alternative=way).pvalue
            for side, way in ((1, "greater"), (-1, "less"))
        ]
        assert pair.equivalence_p(margin) == pytest.approx(max(one_sided), rel=1e-10)
    # On two data sets the difference is that of means of means.
    two = Pair({"a": x, "b": x + 9}, {"a": y, "b": y + 9})
    assert two.mean_difference == pytest.approx(x.mean() - y.mean())
    assert two.mean_variances.sum() == pytest.approx(pair.mean_variances.sum() / 2)


def test_corrections_are_those_of_their_names():
    rng = np.random.default_rng(0)
    table = table_of({name: rng.normal(50 + k, 1, (4, 5)) for k, name in enumerate("abcd")})
    options: dict[str, Any] = {"resampling": Resampling(100), "permutations": 500}
    closed, by_holm = compare(table, **options), compare(table, correction="holm", **options)
    assert (closed.correction, by_holm.correction) == ("closed", "holm")
    np.testing.assert_array_equal(closed.pairs["p"], by_holm.pairs["p"])
    np.testing.assert_array_equal(by_holm.pairs["p_adjusted"], holm(closed.pairs["p"].to_numpy()))
    assert (closed.pairs["p_adjusted"] >= closed.pairs["p"]).all()
    assert closed.pairs["p_adjusted"].sum() < by_holm.pairs["p_adjusted"].sum()


def test_without_spread_nothing_is_equivalent():
    scores = {"a": np.full((5, 9), 50.0), "b": np.full((5, 9), 50.5)}
    result = compare(table_of(scores), margin=5, resampling=Resampling(200))
    assert row(result, "a", "b")["verdict"] == "worse"
    assert row(result, "a", "b")["p"] < 0.001
    scores = {"a": np.full((3, 4), 50.0), "b": np.full((3, 4), 50.0)}
    result = compare(table_of(scores), margin=5, resampling=Resampling(200))
    assert row(result, "a", "b")["verdict"] == "cannot tell"
    assert row(result, "a", "b")["p_adjusted"] == 1


def test_the_number_of_seeds_would_tell():
    # Normal scores at their quantiles, so that the table shows what the population is.
    z = scipy.stats.norm.ppf((np.arange(10) + 0.5) / 10)
    x = np.tile(z[:, None] / z.std(ddof=1), (1, 2))
    pair = Pair(*({"a": c[:, 0], "b": c[:, 1]} for c in (x + 0.7, x)))
    seeds = pair.seeds(0.05, 0.05, 10_000, None)
    assert seeds is not None
    assert 10 < seeds < 40
    rng = np.random.default_rng(0)
    drawn = [
        Set([Runs([*rng.normal(shift, 1, (2, seeds))]) for shift in (0.7, 0)]) for _ in range(400)
    ]
    told = (set_p(drawn, 400, 0) <= 0.05).mean()
    assert 0.72 <= told <= 0.88  # 0.8, 4 standard errors of .02


def test_the_number_of_seeds_would_tell_one_of_six_from_a_baseline():
    z = scipy.stats.norm.ppf((np.arange(5) + 0.5) / 5)
    x = (z / z.std(ddof=1))[:, None]
    table = table_of({"base": x} | {f"equal {k}": x for k in range(4)} | {"more": x + 1.5})
    planned = row(compare(table, baseline="base", resampling=Resampling(100)), "more", "base")
    rng = np.random.default_rng(0)
    told = 0
    for suite in range(200):
        scores = rng.normal(0, 1, (6, 1, planned["seeds"]))
        scores[5] += 1.5
        told += closed_p([Runs(some) for some in scores], 300, suite, baseline=True)[0, 5] <= 0.05
    assert told / 200 >= 0.8 - 2 * 0.03


def test_advised_seeds_are_more_than_now_and_enough_for_the_permutation_test():
    # Far apart, but C(6, 3) = 20 ways give no p below 0.1; C(8, 4) = 70 do.
    x = np.array([[0.0], [1.0], [2.0]])
    assert (
        row(compare(table_of({"x": x + 50, "y": x}), resampling=Resampling(100)), "x", "y")["seeds"]
        == 4
    )
    # Of 6 algorithms 3 pairs may be equal, which needs p of 0.05 / 3: 2 / C(10, 5) is the first.
    names = {name: np.arange(4.0)[:, None] + 40 * k for k, name in enumerate("abcdef")}
    pairs = compare(table_of(names), resampling=Resampling(100)).pairs
    assert (pairs["seeds"] == 5).all()


def test_holm_has_the_permutations_that_it_needs(monkeypatch):
    monkeypatch.setattr(permutations, "WORK", 1)
    rng = np.random.default_rng(0)
    table = table_of({name: rng.normal(9 * k, 1, (6, 2)) for k, name in enumerate("abcdefghijkl")})
    pairs = compare(table, correction="holm", resampling=Resampling(100)).pairs
    assert (pairs["verdict"] == "worse").all()
    assert pairs["p"].max() <= 0.05 / 66
    monkeypatch.setattr(comparison, "MOST_DEALT", 66 * 1320 * 24 - 1)
    with pytest.raises(InputError, match="66 pairs need 1,320 permutations each, more than"):
        compare(table, correction="holm", resampling=Resampling(100))


def test_few_runs_that_cannot_tell_are_said_so():
    x = np.array([[0.0], [1.0], [2.0]])
    result = compare(table_of({"x": x + 50, "y": x}), resampling=Resampling(100))
    assert row(result, "x", "y")["p"] == 0.1  # 2 of C(6, 3) ways
    assert row(result, "x", "y")["verdict"] == "cannot tell"
    assert any("smallest p" in note and "0.1," in note for note in result.notes)
    assert any("single point" in note and "x and y" in note for note in result.notes)


def test_a_baseline_and_a_choice_of_algorithms():
    rng = np.random.default_rng(0)
    table = table_of({name: rng.normal(size=(3, 4)) for name in "abcd"}, scale=1)
    pairs = compare(table, baseline="c", resampling=Resampling(100), permutations=100).pairs
    assert list(zip(pairs["x"], pairs["y"], strict=True)) == [("a", "c"), ("b", "c"), ("d", "c")]
    pairs = compare(
        table, algorithms=["d", "a"], resampling=Resampling(100), permutations=100
    ).pairs
    assert list(zip(pairs["x"], pairs["y"], strict=True)) == [("a", "d")]
    assert len(compare(table, resampling=Resampling(100), permutations=100).tasks) == 6 * 4


def test_bad_requests_are_refused():
    rng = np.random.default_rng(0)
    good = table_of({name: rng.normal(size=(3, 2)) for name in ("iql", "cql")}, scale=1)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"baseline": "iqll"}, "did you mean 'iql'"),
        ({"algorithms": ["iql"]}, "two algorithms"),
        ({"margin": -1.0}, "margin"),
        ({"alpha": 0.7}, "alpha"),
        ({"permutations": 5}, "permutations 5"),
        ({"correction": "holms"}, "unknown correction 'holms'; did you mean 'holm'"),
    ]
    for options, message in bad:
        with pytest.raises(InputError, match=message):
            compare(good, **options)
    single = table_of({"a": rng.normal(size=(3, 2)), "b": rng.normal(size=(1, 2))}, scale=1)
    with pytest.raises(InputError, match="'b' on 'task0'"):
        compare(single)


def test_too_many_pairs_are_refused_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    table = table_of({str(k): rng.normal(size=(2, 3)) for k in range(20)}, scale=1)
    monkeypatch.setattr("offrl.statistics.comparison.MOST_COMPARED", 2_000)
    message = r"20 algorithms: their 190 pairs have 2,280 runs.* at most 2,000; .*\(19 pairs\)"
    with pytest.raises(InputError, match=message):
        compare(table)
    few: dict[str, Any] = {"resampling": Resampling(100), "permutations": 100}
    assert len(compare(table, baseline="3", **few).pairs) == 19


def test_means_that_differ_the_other_way_round_than_iqms_are_said_so():
    rng = np.random.default_rng(0)
    base = rng.normal(50, 1, (8, 6))
    lucky = base - 3
    lucky[:2] += 40  # two runs in eight, which the IQM leaves out
    result = compare(table_of({"base": base, "lucky": lucky}), resampling=Resampling(100))
    (pair,) = result.pairs.to_dict("records")
    assert pair["difference"] > 0 > pair["mean_difference"]
    assert pair["verdict"] == "worse"
    (note,) = [note for note in result.notes if "other way round" in note]
    assert note.endswith("base and lucky")


def test_runs_that_do_not_overlap_are_told_apart_at_five_seeds_on_one_data_set():
    scores = {
        "bc": [45.0, 50, 54, 56, 58.5],
        "cql": [30.0, 45, 52, 61, 70],
        "dt": [25.0, 30, 33, 36, 37],
        "iql": [62.0, 68, 70, 73, 77],
        "td3_bc": [60.0, 66, 71, 72, 78],
    }
    result = compare(table_of({name: np.array([x]).T for name, x in scores.items()}))
    assert row(result, "bc", "iql")["verdict"] == "worse"
    assert row(result, "bc", "iql")["p"] == 2 / 252  # C(10, 5)
    assert row(result, "bc", "cql")["verdict"] == "cannot tell"


suites = st.tuples(st.integers(2, 4), st.integers(1, 3)).flatmap(
    lambda shape: st.tuples(
        *[arrays(np.float64, shape, elements=st.integers(0, 60).map(lambda i: i / 4))] * 3
    )
)
quick = settings(max_examples=25, deadline=None)
NUMBERS = [c for c in PAIRS if c not in ("x", "y", "p_adjusted", "verdict", "seeds")]


def test_of_two_algorithms_with_each_others_scores_no_name_decides():
    a, b, c = np.random.default_rng(1).normal(50, 9, (3, 4))
    scores = {"A": np.stack([a, b, c], 1), "B": np.stack([b, c, a], 1)}
    first = row(compare(table_of(scores), resampling=Resampling(500)), "A", "B")
    other = {"A": scores["B"], "B": scores["A"]}
    second = row(compare(table_of(other), resampling=Resampling(500)), "A", "B")
    assert second["probability_low"] == pytest.approx(1 - first["probability_high"], abs=1e-12)
    assert second["difference_low"] == -first["difference_high"]


@quick
@given(suites, st.randoms(use_true_random=False))
def test_names_and_orders_change_nothing(scores, random):
    a, b, c = scores
    # Of identical twins a name must decide which is called x.
    assume(len({tuple(np.sort(s.ravel())) for s in scores}) == 3)
    rng = np.random.default_rng(random.getrandbits(32))
    tasks = rng.permutation(a.shape[1])
    moved = {name: rng.permuted(s, axis=0)[:, tasks] for name, s in (("Z", a), ("M", b), ("A", c))}
    options: dict[str, Any] = {"permutations": 100, "resampling": Resampling(100, seed=4)}
    first = compare(table_of({"1": a, "2": b, "3": c}), **options)
    second = compare(table_of(moved), **options)
    for x, y in (("Z", "M"), ("Z", "A"), ("M", "A")):
        old = {"Z": "1", "M": "2", "A": "3"}
        expected, got = row(first, old[x], old[y]), row(second, y, x)
        # Now asked for the other way round: everything is turned.
        assert got["probability"] == pytest.approx(1 - expected["probability"], abs=1e-15)
        assert got["probability_low"] == pytest.approx(1 - expected["probability_high"], abs=1e-15)
        assert got["difference"] == -expected["difference"]
        assert got["difference_low"] == -expected["difference_high"]
        assert got["difference_high"] == -expected["difference_low"]
        assert got["p"] == expected["p"]
        assert got["p_adjusted"] == expected["p_adjusted"]
        assert (got["seeds"] is pd.NA and expected["seeds"] is pd.NA) or (
            got["seeds"] == expected["seeds"]
        )


@quick
@given(suites)
def test_another_algorithm_changes_no_bit_of_a_pair(scores):
    a, b, c = scores
    options: dict[str, Any] = {"permutations": 100, "resampling": Resampling(100, seed=4)}
    alone = row(compare(table_of({"A": a, "B": b}), **options), "A", "B")
    both = row(compare(table_of({"A": a, "B": b, "C": c}), **options), "A", "B")
    assert both[NUMBERS].equals(alone[NUMBERS])


@quick
@given(suites, st.sampled_from([0.25, 8.0]), st.sampled_from([-64.0, 5.0]))
def test_affine_changes_carry_through(scores, factor, shift):
    a, b, _ = scores
    options: dict[str, Any] = {"permutations": 100, "resampling": Resampling(100, seed=4)}
    first = row(compare(table_of({"A": a, "B": b}), **options), "A", "B")
    second = row(
        compare(table_of({"A": factor * a + shift, "B": factor * b + shift}), **options), "A", "B"
    )
    for name in ("p", "probability", "probability_low", "probability_high"):
        assert second[name] == first[name]
    for name in ("difference", "difference_low", "difference_high"):
        assert second[name] == pytest.approx(factor * first[name], rel=1e-9, abs=1e-9)
