"""Verdicts on published cells, and the published values that ship."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from offrl.errors import InputError
from offrl.results.table import ScoreTable
from offrl.running.protocol import shipped_protocols
from offrl.statistics.published import (
    compare,
    find_table,
    headings,
    judge,
    lacking,
    runs_needed,
    tables,
    tally,
)


def test_the_interval_is_welchs() -> None:
    """scipy computes the same interval from the published side's own runs."""
    ours, theirs = np.array([64.0, 61.7, 63.3]), np.array([66.4198, 65.6003, 63.2523])
    found = judge(ours, theirs.mean(), theirs.std(ddof=1), 3, margin=1)
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.verdict == "underpowered"


@pytest.mark.parametrize(
    ("scores", "margin", "verdict"),
    [
        ([50.0, 50.2, 49.8, 50.1], 1.0, "reproduced"),
        ([50.0, 50.2, 49.8, 50.1], 0.1, "underpowered"),
        ([52.0, 52.2, 51.8, 52.1], 1.0, "differs"),
        ([52.0, 52.2, 51.8, 52.1], 3.0, "reproduced"),  # significant, but smaller than the margin
        ([40.0, 70.0, 50.0, 45.0], 3.0, "underpowered"),
        ([50.0], 3.0, "underpowered"),
    ],
)
def test_each_verdict(scores: list[float], margin: float, verdict: str) -> None:
    assert judge(scores, 50, 0.2, 4, margin).verdict == verdict


def test_without_a_published_spread_nothing_is_claimed() -> None:
    found = judge([50, 50, 50], 50, math.nan, 10, 3)
    assert found.verdict == "underpowered"
    assert math.isnan(found.low)


def test_equal_scores_need_no_interval() -> None:
    assert judge([0, 0, 0], 0.0, 0.0, 4, 1).verdict == "reproduced"
    assert judge([9, 9, 9], 0.0, 0.0, 4, 1).verdict == "differs"


def test_false_claims_of_reproduction_are_rare() -> None:
    """At a true difference of exactly the margin, at most 5 % are called reproduced."""
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(4000):
        ours, theirs = rng.normal(52, 1, 5), rng.normal(50, 1.5, 4)
        claims += judge(ours, theirs.mean(), theirs.std(ddof=1), 4, 2).verdict == "reproduced"
    assert claims / 4000 < 0.055  # 0.05 and 1.5 standard errors
    assert claims > 0


def records(frame: pd.DataFrame) -> Iterable[Any]:
    return cast(Iterable[Any], frame.itertuples())


def table(**columns: Sequence[object]) -> ScoreTable:
    return ScoreTable.from_frame(pd.DataFrame(columns))


def test_cells_are_compared_by_name_and_short_runs_are_unfinished() -> None:
    scores = table(
        algorithm=["bc"] * 3 + ["td3_bc"] * 3 + ["mine"] * 3,
        dataset=["neorl2-dmsd"] * 9,
        seed=[7, 42, 210] * 3,
        step=[1_000_000] * 3 + [20_000] * 3 + [1_000_000] * 3,
        score=[66.4, 65.6, 63.3, 60.0, 60.1, 60.2, 1.0, 2.0, 3.0],
    )
    found = compare(scores, "neorl2", margin=5).set_index("algorithm")
    ours = found[found["n"] > 0]
    assert list(ours.index) == ["bc", "td3_bc", "mine"]
    assert list(ours["verdict"]) == ["reproduced", "unfinished", "not in the table"]
    assert ours.loc["bc", "published"] == pytest.approx(65.0908)
    counts = {"reproduced": 1, "unfinished": 1, "not run": 61, "not in the table": 1}
    assert {verdict: n for verdict, n in tally(found.reset_index()).items() if n} == counts


def test_bad_names_and_margins_are_told() -> None:
    scores = table(algorithm=["mine"], dataset=["neorl2-dmsd"], seed=[0], score=[1.0])
    with pytest.raises(InputError, match="unknown published table 'neorl3'; did you mean 'neorl2'"):
        compare(scores, "neorl3", 3)
    with pytest.raises(InputError, match="none of these scores belongs to the table 'neorl2'"):
        compare(scores, "neorl2", 3)
    with pytest.raises(InputError, match="margin is 0; expected a positive number"):
        compare(scores, "neorl2", 0)


def test_shipped_cells_have_a_source_each_and_one_value() -> None:
    """A source or what it quotes is a paper or a repository at a commit; nothing stands for
    unknown but an empty field."""
    assert set(tables()) == set(headings())
    for name, rows in tables().items():
        assert headings()[name]["title"]
        assert not rows.duplicated(["algorithm", "dataset"]).any(), name
        assert rows["mean"].notna().all()
        origin = rows["source"] + "; " + rows["quoted_from"]
        assert origin.str.contains(r"arXiv \d{4}\.\d{5}|\w+/[\w-]+ at [0-9a-f]{7}").all(), name
        assert rows["rule"].isin(["", "final", "best", "last-3", "last-10"]).all()
        assert (rows["sd"].notna() | rows["ddof"].isna()).all()
        texts = rows.select_dtypes("object")
        assert not texts.apply(lambda column: column.str.fullmatch("(?i)unknown|nan|none|-")).any(
            axis=None
        )
        for protocol in set(rows["protocol"]) - {""}:
            assert protocol in shipped_protocols()
    assert sum(map(len, tables().values())) == 3004


def test_what_a_cell_lacks_is_said() -> None:
    (cell,) = records(find_table("iql-paper", ["iql"], ["hopper-medium-v2"]))
    assert lacking(cell) == ["n", "deviation", "ddof", "rule"]
    (cell,) = records(find_table("corl", ["iql"], ["hopper-medium-v2"]))
    assert lacking(cell) == []
    assert len(find_table("corl", ["iql"], ["antmaze-*", "hopper-medium-v2"])) == 7
    with pytest.raises(InputError, match="unknown data set of the published table corl 'hoper-"):
        find_table("corl", [], ["hoper-medium-v2"])


def test_the_fewest_runs_are_those_of_the_interval() -> None:
    """With k runs at the published mean and deviation the 90 % interval just fits, by scipy."""
    unit = np.array([-1.0, 0, 1])  # sample deviation 1
    needed = runs_needed(1.0, 3, 1.7)
    assert needed == 4

    def half_width(k: int) -> float:
        ours = np.linspace(-1, 1, k)
        ours = ours / ours.std(ddof=1)
        interval = stats.ttest_ind(ours, unit, equal_var=False).confidence_interval(0.9)
        return float(interval.high)

    assert half_width(needed) < 1.7 <= half_width(needed - 1)
    assert runs_needed(11.14, 3, 3) is None  # the published mean is not known that well
    assert runs_needed(math.nan, 3, 3) is None


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


NAMES = {"10% BC": "percent_bc", "10%BC": "percent_bc", "TD3+BC": "td3_bc", "SAC-N": "sac_n"}
NAMES["DT"] = "decision_transformer"


def named(algorithm: str) -> str:
    text = re.sub(r"\W+", "_", algorithm.replace("%", "").replace("+", ""))
    return NAMES.get(algorithm) or text.strip("_").lower()


def test_printed_values_are_the_reference_ones(shared: Path) -> None:
    """Each cell that was printed, and no other, has the value of the reference file."""
    ours = {
        "README Offline - Last Scores": "corl",
        "README Offline - Best Scores (max over evaluations)": "corl-best",
        "README Offline-to-Online Scores - after offline pre-training": "corl-finetune-offline",
        "README Offline-to-Online Scores - after online fine-tuning": "corl-finetune-online",
        "ReBRAC Table 18": "rebrac-paper",
        "CABI README MuJoCo-v2": "td3-bc-paper",
    }
    of = {"EDAC paper": "edac-paper", "PRDC": "prdc-paper", "OfflineRL-Kit": "offlinerl-kit"}
    of |= dict.fromkeys(("quoted in TT", "Trajectory Tr"), "trajectory-transformer-paper")
    of |= {"Trajectory we": "trajectory-weighting", "JAX": "jax-corl"}
    of |= dict.fromkeys(("quoted in Diff", "Diffuser"), "diffuser-paper")
    of |= dict.fromkeys(("quoted in ReBRAC", "ReBRAC"), "rebrac-paper")
    of |= dict.fromkeys(("quoted in XQL", "XQL"), "xql-paper")
    cells = {
        (table, cell.algorithm, cell.dataset): cell
        for table, rows in tables().items()
        for cell in records(rows)
    }
    seen = dict.fromkeys(tables(), 0)
    for row in read(shared / "reference" / "published_scores.csv"):
        table = ours.get(row["table"])
        for start, name in of.items():
            if table is None and row["paper"].startswith(start):
                table = name
        if table is None:
            continue  # quotes that no paper or commit can be named for
        cell = cells[table, named(row["algorithm"]), row["dataset"].partition(" (")[0]]
        seen[table] += 1
        assert cell.mean == float(row["mean"])
        assert cell.printed_sd == pytest.approx(float(row["std"] or "nan"), nan_ok=True)
    for table, count in seen.items():
        assert count in (0, len(tables()[table])), table
    assert sum(seen.values()) == 2043


def test_neorl2_cells_follow_from_single_runs_by_both_groupings(shared: Path) -> None:
    """Upstream takes what stands before ",seed" of the sorted keys for a setting."""
    tasks = {"SafetyHalfCheetah": "safety-halfcheetah", "RocketRecovery": "rocket-recovery"}
    tasks["RandomFrictionHopper"] = "random-friction-hopper"
    runs: dict[str, dict[Any, dict[str, list[float]]]] = {"neorl2": {}, "neorl2-printed": {}}
    for row in read(shared / "scores" / "neorl2_benchmark_seeds.csv"):
        dataset = f"neorl2-{tasks.get(row['dataset'], row['dataset'].lower())}"
        keys = sorted(row["hyperparameters"].split(","))
        before = [key for key in keys if key.partition("=")[0] < "seed"]
        for table, setting in (("neorl2", keys), ("neorl2-printed", before)):
            cell = runs[table].setdefault((named(row["algorithm"]), dataset), {})
            cell.setdefault(",".join(setting), []).append(float(row["normalized_score"]))
    for table, cells in runs.items():
        assert len(tables()[table]) == len(cells) == 63
        for cell in records(tables()[table]):
            best = max(cells[cell.algorithm, cell.dataset].values(), key=np.mean)
            assert cell.mean == pytest.approx(np.mean(best), abs=6e-5)
            assert cell.sd == pytest.approx(np.std(best, ddof=1), abs=6e-5)
            assert cell.n == len(best)
    unlike = tables()["neorl2"]["mean"].to_numpy() != tables()["neorl2-printed"]["mean"].to_numpy()
    assert unlike.sum() == 13


def test_finetuning_and_d3rlpys_cells_follow_from_single_runs(shared: Path) -> None:
    runs: dict[Any, list[float]] = {}
    for row in read(shared / "scores" / "d3rlpy_benchmarks_final_best.csv"):
        table = "d3rlpy" if row["step"] == "final" else "d3rlpy-best"
        key = (table, {"PLAS+P": "plas_p"}.get(row["algorithm"]) or named(row["algorithm"]))
        runs.setdefault((*key, row["dataset"]), []).append(float(row["normalized_score"]))
    for row in read(shared / "scores" / "corl_finetune_final_best.csv"):
        if row["step"] == "final":
            key = (f"corl-finetune-{row['phase']}", named(row["algorithm"]))
            runs.setdefault((*key, row["dataset"]), []).append(float(row["normalized_score"]))
    assert len(runs) == 2 * 149 + 2 * 60
    for table in ("d3rlpy", "d3rlpy-best", "corl-finetune-offline", "corl-finetune-online"):
        for cell in records(tables()[table]):
            scores = runs[table, cell.algorithm, cell.dataset]
            digits = 0.0051 if table.startswith("corl") else 6e-5
            assert cell.n == len(scores)
            assert cell.mean == pytest.approx(np.mean(scores), abs=digits)
            assert cell.printed_sd == pytest.approx(np.std(scores), abs=digits)


def test_ogbenchs_cells_are_the_reference_ones(shared: Path) -> None:
    cells = tables()["ogbench"].set_index(["algorithm", "dataset"])
    rows = read(shared / "scores" / "protocols" / "ogbench_published.csv")
    assert len(rows) == len(cells) == 510
    for row in rows:
        cell: Any = cells.loc[(named(row["algorithm"]), row["dataset"])]
        assert (cell["mean"], cell["sd"], cell["n"]) == tuple(
            float(row[name]) for name in ("mean", "std", "seeds")
        )


def test_deviations_over_n_become_those_of_a_sample() -> None:
    """CORL prints numpy's standard deviation, which divides by n = 4 and not by n - 1."""
    corl = tables()["corl"]
    assert (corl["ddof"] == 0).all()
    assert corl["sd"].to_numpy() == pytest.approx(corl["printed_sd"] * (4 / 3) ** 0.5)
    scores = np.array([70.0, 71, 78, 84])
    assert scores.std() * (4 / 3) ** 0.5 == pytest.approx(scores.std(ddof=1))
    umaze = corl[(corl["algorithm"] == "iql") & (corl["dataset"] == "antmaze-umaze-v2")].iloc[0]
    assert (umaze["printed_sd"], umaze["sd"]) == (5.52, pytest.approx(6.374, abs=1e-3))
    rebrac = tables()["rebrac-paper"]
    for rows in (tables()["neorl2"], rebrac[rebrac["quoted_from"] == ""]):
        assert (rows["ddof"] == 1).all()
        assert rows["sd"].equals(rows["printed_sd"])
    for name in ("edac-paper", "iql-paper"):  # these sources do not say
        assert tables()[name]["ddof"].isna().all()


def test_a_verdict_takes_the_deviation_of_a_sample() -> None:
    """Runs that the printed deviation of CORL would call different, and a sample's does not."""
    cell: Any = (
        tables()["corl"].set_index(["algorithm", "dataset"]).loc[("iql", "antmaze-umaze-v2")]
    )
    ours = np.array([-1.0, 0, 0, 1]) + cell["mean"] - 8.9
    assert judge(ours, cell["mean"], cell["printed_sd"], 4, 3).verdict == "differs"
    assert judge(ours, cell["mean"], cell["sd"], 4, 3).verdict == "underpowered"
    rows = [{"algorithm": "iql", "dataset": "antmaze-umaze-v2"}] * 4
    frame = pd.DataFrame(rows).assign(seed=range(4), score=ours)
    compared = compare(ScoreTable.from_frame(frame), "corl", 3)
    (found,) = compared[compared["n"] > 0].to_dict("records")
    assert found["verdict"] == "underpowered"
    assert found["published_sd"] == pytest.approx(6.374, abs=1e-3)


def test_runs_of_another_protocol_or_longer_ones_are_not_judged() -> None:
    scores = table(
        protocol=["mine@1"] * 3 + ["neorl2-dmsd@2"] * 6,
        algorithm=["bc (mine@1)"] * 3 + ["bc (neorl2-dmsd@2)"] * 3 + ["td3_bc"] * 3,
        dataset=["neorl2-dmsd"] * 9,
        seed=[7, 42, 210] * 3,
        step=[1_000_000] * 6 + [2_000_000] * 3,
        score=[66.4, 65.6, 63.3] * 2 + [60.0, 60.1, 60.2],
    )
    found = compare(scores, "neorl2", margin=5)
    found = found[found["n"] > 0].set_index("algorithm")
    assert found["verdict"].to_dict() == {
        "bc (mine@1)": "other settings",
        "bc (neorl2-dmsd@2)": "reproduced",
        "td3_bc": "other settings",
    }
    assert found.loc["bc (mine@1)", "reason"] == "protocol mine, published as neorl2-dmsd"
    assert found.loc["td3_bc", "reason"] == "2,000,000 steps, published 1,000,000"
    longer: Any = found.loc["td3_bc"]
    assert longer[["difference", "low", "high"]].isna().all()


def of_hopper(table_name: str, dataset: str = "hopper-medium-v2", **columns: object) -> Any:
    """The comparison of four runs of CORL's IQL that agree with the published mean."""
    cells = tables()[table_name].set_index(["algorithm", "dataset"])
    mean = cells["mean"].get(("iql", dataset), 50.0)
    known = {
        "protocol": "corl@2",
        "environment": "offrl.datasets.d4rl_locomotion:offrl/Hopper-D4RL-v2",
        "episodes": 10,
        "step": 1_000_000,
        "last_evaluations": 1,
    }
    frame = pd.DataFrame({"seed": range(4), "score": [mean - 0.1, mean, mean, mean + 0.1]})
    values: Any = known | columns
    frame = frame.assign(algorithm="iql", dataset=dataset, **values)
    found = compare(ScoreTable.from_frame(frame), table_name, 10)
    (cell,) = records(found[found["n"] > 0])
    return cell


@pytest.mark.parametrize(
    ("table_name", "columns", "reason"),
    [
        ("corl-best", {}, "score final, published best"),
        ("corl", {"last_evaluations": 10}, "score last-10, published final"),
        ("corl", {"protocol": "iql-paper@2"}, "protocol iql-paper, published as corl"),
        (
            "corl",
            {"environment": "Hopper-v4"},
            "simulator Hopper-v4, published as offrl/Hopper-D4RL-v2",
        ),
        ("iql-paper", {"dataset": "antmaze-umaze-v2", "protocol": "iql-paper@2"}, "antmaze"),
        ("xql-paper", {}, "protocol corl, no protocol has the published settings"),
    ],
)
def test_what_is_unlike_is_named_and_not_compared(
    table_name: str, columns: dict[str, Any], reason: str
) -> None:
    cell = of_hopper(table_name, **columns)
    assert cell.verdict == "other settings"
    if reason == "antmaze":
        reason = "data antmaze-umaze-v2, published antmaze-umaze-v0"
    assert cell.reason.split("; ")[0] == reason
    assert math.isnan(cell.difference)


def test_like_settings_are_judged_whatever_the_seeds_and_episodes() -> None:
    plain = of_hopper("corl")
    assert (plain.verdict, plain.reason) == ("reproduced", "")
    seeds = of_hopper("corl", protocol="corl+seeds=0..5@2", episodes=100)
    assert (seeds.verdict, seeds.reason) == ("reproduced", "100 episodes, published 10")
    pen = of_hopper("corl", dataset="pen-human-v1", environment="mine:offrl/AdroitHandPen-v0")
    assert pen.reason == (
        "simulator offrl/AdroitHandPen-v0, not seen to repeat D4RL's, MuJoCo 2.1.0 by mujoco-py"
    )


def test_a_source_that_says_too_little_gives_no_verdict() -> None:
    cell = of_hopper("iql-paper", protocol="iql-paper@2")
    assert cell.verdict == "no verdict"
    assert cell.reason == "the source does not give n, deviation, ddof, rule"
    assert abs(cell.difference) < 0.1
    assert math.isnan(cell.low)
