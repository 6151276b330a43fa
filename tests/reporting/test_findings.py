"""Findings: each number equals what the statistics compute, and is computed once."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulated import table, with_another_way

from offrl import statistics
from offrl.errors import InputError
from offrl.progress import stage
from offrl.reporting.findings import KIND, compute
from offrl.reporting.tables import paper_table
from offrl.reporting.typeset import written
from offrl.results.failures import Failure
from offrl.results.naming import naming
from offrl.results.steps import at_last_steps
from offrl.results.table import ScoreTable
from offrl.statistics.resampling import ENGINES, Resampling

FEW = Resampling(500, seed=3)


@pytest.fixture(scope="module")
def found():
    """Findings on three algorithms, one of them with a failed run and one run short."""
    scores = table(failures=[Failure("TD3+BC", "task-0", 2, "killed")], provenance=[{"lr": np.inf}])
    return compute(scores, resampling=FEW)


def same(one: Any, two: Any) -> None:
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_each_frame_is_what_its_function_gives(found):
    same(found.summary, statistics.summarise(found.table, resampling=FEW))
    same(found.per_task, statistics.per_task(found.table))
    same(found.profile, statistics.profile(found.table, resampling=FEW))
    same(found.ranks, statistics.ranks(found.table, resampling=FEW))
    same(found.comparison.pairs, statistics.compare(found.table, resampling=FEW).pairs)
    assert list(found.curves) == [None, "task-0", "task-1", "task-2"]
    for dataset, curve in found.curves.items():
        same(curve, statistics.curve(found.table, dataset, resampling=Resampling(seed=3)))


def test_profiles_and_ranks_take_no_more_resamples_than_their_figures_show():
    scores = table(tasks=1, steps=(0,))
    many = compute(scores, resampling=Resampling(20_000))
    same(many.ranks, statistics.ranks(scores, resampling=Resampling(10_000)))
    assert set(many.summary["reps"]) == {20_000}


def test_runs_are_counted_with_those_that_failed(found):
    assert found.runs == 27
    assert found.runs_each == (2, 3)
    assert found.failed == {"BC": 0, "IQL": 0, "TD3+BC": 1}
    assert found.labels == {"BC": "BC", "IQL": "IQL", "TD3+BC": "TD3+BC (1 failed)"}


def test_a_run_that_failed_by_two_causes_counts_once():
    causes = [Failure("IQL", "task-0", 2, cause) for cause in ("killed", "NaN loss")]
    findings = compute(table(tasks=1, steps=(0,), failures=causes), resampling=FEW)
    assert findings.runs == 9
    assert [failure.cause for failure in findings.failures] == ["NaN loss; killed"]
    assert findings.failed["IQL"] == 1
    assert findings.per_task.set_index("algorithm")["n_failed"]["IQL"] == 1


def test_resamples_are_those_behind_the_intervals(found):
    assert found.resamples == (500, 500)
    single = compute(table(("IQL",), tasks=1, runs=1), resampling=FEW)
    assert single.resamples is None
    assert (single.comparison, single.ranks, single.compared) == (None, None, ())


def test_algorithms_with_single_runs_are_not_compared():
    frame = table(("A", "B", "C"), steps=(0,)).frame
    frame = frame[(frame["algorithm"] != "C") | (frame["seed"] == 0)]
    findings: Any = compute(ScoreTable.from_frame(frame), resampling=FEW)
    assert findings.compared == ("A", "B")
    assert len(findings.comparison.pairs) == 1
    assert set(findings.ranks["algorithm"]) == {"A", "B"}
    assert any("C has a single run" in note for note in findings.notes)


def test_the_last_shared_steps_of_a_table_are_found_once(monkeypatch):
    seen = []

    def counted(frame: pd.DataFrame) -> Any:
        seen.append(len(frame))
        return at_last_steps(frame)

    monkeypatch.setattr("offrl.results.table.at_last_steps", counted)
    scores = table(tasks=2)
    compute(scores, resampling=FEW)
    assert seen.count(len(scores.frame)) == 1
    final = scores.final()
    assert final is scores.final() is final.final()


def test_scores_without_steps_have_no_curves():
    frame = table(steps=(0,)).frame.drop(columns="step")
    assert compute(ScoreTable.from_frame(frame), resampling=FEW).curves == {}


def test_the_engine_decides_which_interval_is_quoted(found):
    assert found.main_method == "expanded percentile"
    theirs = compute(table(tasks=1, steps=(0,)), resampling=Resampling(500, engine="rliable"))
    assert theirs.main_method == "percentile"
    assert theirs.main_method in set(theirs.summary["ci_method"])


def test_the_ranking_is_by_iqm_and_holds_what_the_other_frames_have(found):
    ranking = found.ranking.set_index("algorithm")
    assert list(ranking.index) == ["TD3+BC", "IQL", "BC"]  # `table` makes the later ones better
    main = found.summary[found.summary["ci_method"] == found.main_method]
    for metric in statistics.METRICS:
        of_metric = main[main["metric"] == metric].set_index("algorithm")
        assert (ranking[metric] == of_metric["estimate"][ranking.index]).all()
    assert list(ranking["best"]) == list(
        found.ranks.set_index("algorithm")["rank_1"][ranking.index]
    )
    assert list(ranking["runs"]) == [9, 9, 9]
    assert list(ranking["failed"]) == [1, 0, 0]
    told = found.comparison.pairs["verdict"].isin(["better", "worse"])
    apart = {frozenset(two) for two in found.comparison.pairs.loc[told, ["x", "y"]].to_numpy()}
    for one, two in (("TD3+BC", "IQL"), ("IQL", "BC"), ("TD3+BC", "BC")):
        shared = {*ranking["letters"][one].split()} & {*ranking["letters"][two].split()}
        assert bool(shared) == (frozenset((one, two)) not in apart)


def test_an_algorithm_without_an_aggregate_is_last_and_has_no_letters():
    frame = table(("A", "B", "C"), tasks=2, steps=(0,)).frame
    frame = frame[(frame["algorithm"] != "C") | (frame["dataset"] == "task-0")]
    scores = ScoreTable.from_frame(frame, complete=False)
    ranking = compute(scores, resampling=FEW).ranking
    assert list(ranking["algorithm"]) == ["B", "A", "C"]
    assert list(ranking["n_tasks"]) == [2, 2, 1]
    last = ranking.iloc[2]
    assert (last["letters"], last["runs"]) == ("", 3)
    assert np.isnan([last["iqm"], last["best"]]).all()


def test_groups_have_the_aggregates_of_their_data_sets():
    scores = table(("A", "B"), tasks=3, steps=(0,))
    names = naming(scores, groups=["odd=task-1", "even=*"], order=["A", "task-2"])
    findings = compute(scores, resampling=FEW, naming=names)
    groups = findings.groups.set_index(["group", "algorithm"])
    cells = scores.cells()["A"]
    even = [cells["task-0"], cells["task-2"]]
    assert groups.loc[("even", "A"), "iqm"] == pytest.approx(statistics.iqm(even), rel=1e-14)
    assert groups.loc[("even", "A"), "mean"] == pytest.approx(np.mean(even), rel=1e-14)
    assert groups.loc[("odd", "A"), "n_tasks"] == 1
    assert findings.algorithms == ["A", "B"]
    assert findings.datasets == ["task-1", "task-2", "task-0"]
    hole = scores.frame[(scores.frame["algorithm"] != "A") | (scores.frame["dataset"] != "task-0")]
    scores = ScoreTable.from_frame(hole, complete=False)
    groups = compute(scores, resampling=FEW, naming=names).groups.set_index(["group", "algorithm"])
    means = groups["mean"].to_dict()
    assert np.isnan(means["even", "A"])
    assert means["odd", "A"] == cells["task-1"].mean()


def test_each_setting_is_an_algorithm_beside_the_budget_of_all():
    frame = pd.concat(
        table(("iql", "bc"), tasks=2, steps=(0,)).frame.assign(setting=setting)
        for setting in ("low", "high")
    )
    frame = frame[(frame["algorithm"] == "iql") | (frame["setting"] == "low")]
    scores = ScoreTable.from_frame(frame)
    findings = compute(scores, resampling=FEW)
    assert set(findings.algorithms) == {"bc", "iql (low)", "iql (high)"}
    same(findings.budget, statistics.online_performance(scores, resampling=FEW))
    single = ScoreTable.from_frame(frame[frame["seed"] == 0])
    assert any("no tuning budget: " in n for n in compute(single, resampling=FEW).notes)
    frame.loc[frame["algorithm"] == "bc", "algorithm"] = "iql (low)"
    with pytest.raises(InputError, match=r"two settings are called 'iql \(low\)'"):
        compute(ScoreTable.from_frame(frame), resampling=FEW)


def test_the_record_is_json_and_holds_what_made_the_numbers(found):
    record = found.record("offrl report")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["kind"], record["command"]) == (KIND, "offrl report")
    assert FEW.record().items() <= record.items()
    assert record["provenance"] == [{"lr": None}]
    assert len(record["summary"]) == len(found.summary)
    assert len(record["comparisons"]) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_progress_rises_to_the_total(engine):
    seen = []
    resampling = Resampling(100, engine=engine)
    scores = table(tasks=2, steps=(0, 9))
    compute(scores, resampling=resampling, progress=lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {100}
    assert seen[-1] == (100, 100)


def test_a_stage_takes_its_share_of_the_whole():
    seen = []
    part = stage(lambda done, total: seen.append((done, total)), 40, 80)
    assert part is not None
    for done in (0, 1, 2):
        part(done, 2)
    part(0, 0)  # nothing to do
    assert seen == [(40, 100), (60, 100), (80, 100), (40, 100)]
    assert stage(None, 0, 50) is None


def test_no_finished_run_is_an_error():
    frame = table(("IQL",), tasks=1).frame
    lost = [Failure("IQL", "task-0", seed, "killed") for seed in range(3)]
    with pytest.raises(InputError, match=r"all 3 runs failed, the first \(IQL on task-0, seed 0\)"):
        compute(ScoreTable.from_frame(frame, failures=lost))


def test_another_level_than_the_one_that_pages_and_figures_name_is_an_error():
    with pytest.raises(InputError, match=r"level 0\.9: a report has 95 % intervals"):
        compute(table(), resampling=Resampling(500, level=0.9))


def test_another_way_to_act_counts_for_nothing_and_stands_beside_its_algorithm():
    failures = [Failure(f"BC{way}", "task-0", 9, "boom", way=way[2:]) for way in ("", ": fast")]
    plain = table(("BC", "IQL"), tasks=2, steps=(9,), failures=failures[:1])
    both = with_another_way(plain, "BC", "fast", failures=failures)
    one: Any = compute(plain, resampling=FEW)
    two: Any = compute(both, resampling=FEW)
    assert two.runs == one.runs == 13
    assert two.compared == one.compared == ("BC", "IQL")
    same(two.comparison.pairs, one.comparison.pairs)  # correction included
    same(two.ranks, one.ranks)
    assert [failure.algorithm for failure in two.failures] == ["BC"]
    assert two.labels["BC: fast"] == "BC: fast (same runs, 1 failed)"
    assert list(dict.fromkeys(two.summary["algorithm"])) == ["BC", "BC: fast", "IQL"]
    assert two.record()["algorithms"] == ["BC", "IQL"]
    assert two.record()["ways"] == {"BC: fast": "BC"}
    made = paper_table(two.final)
    assert "BC: fast (same runs)" in written(made, "latex")
    assert made.columns[1].text == "BC: fast (same runs)"


def test_another_way_to_act_is_compared_where_it_is_named():
    both = with_another_way(table(("BC", "IQL"), tasks=2, steps=(9,)), "BC", "fast")
    by_default = statistics.compare(both, resampling=FEW)
    assert len(by_default.pairs) == 1
    assert any("BC: fast is another way to act" in note for note in by_default.notes)
    named = statistics.compare(both, algorithms=["BC: fast", "IQL"], resampling=FEW)
    assert list(named.pairs[["x", "y"]].iloc[0]) == ["BC: fast", "IQL"]
    assert not any("another way" in note for note in named.notes)
    plan: dict[str, Any] = {"size": 3, "interims": 1, "alpha": 0.2, "resampling": FEW}
    assert len(statistics.decide(both, "task-0", **plan)) == 1
    against = statistics.decide(both, "task-0", baseline="BC: fast", **plan)
    assert set(against["y"]) == {"BC: fast"}
    chosen = statistics.decide(both, "task-0", algorithms=["BC: fast", "IQL"], **plan)
    assert list(chosen[["x", "y"]].iloc[0]) == ["BC: fast", "IQL"]
    ways = statistics.decide(both, "task-0", algorithms=["BC: fast", "BC"], **plan)
    assert list(ways[["x", "y"]].iloc[0]) == ["BC", "BC: fast"]
    with pytest.raises(InputError, match="unknown algorithm 'BC: slow'"):
        statistics.decide(both, "task-0", algorithms=["BC: slow", "IQL"], **plan)
