"""Verdicts on published cells, and the published values that ship."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from offrl.cli.main import main
from offrl.errors import InputError
from offrl.results.table import ScoreTable
from offrl.statistics.published import compare, judge, tables


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
    assert list(found.index) == ["bc", "td3_bc"]
    assert found.loc["bc", "verdict"] == "reproduced"
    assert found.loc["td3_bc", "verdict"] == "unfinished"
    assert found.loc["bc", "published"] == pytest.approx(65.0908)


def test_bad_names_and_margins_are_told() -> None:
    scores = table(algorithm=["mine"], dataset=["neorl2-dmsd"], seed=[0], score=[1.0])
    with pytest.raises(InputError, match="unknown published table 'neorl3'; did you mean 'neorl2'"):
        compare(scores, "neorl3", 3)
    with pytest.raises(InputError, match="none of these scores belongs to the table 'neorl2'"):
        compare(scores, "neorl2", 3)
    with pytest.raises(InputError, match="margin is 0; expected a positive number"):
        compare(scores, "neorl2", 0)


def test_shipped_cells_are_unique_and_complete() -> None:
    for name, rows in tables().items():
        assert not rows.duplicated(["algorithm", "dataset"]).any(), name
        assert rows[["mean", "steps", "source"]].notna().all(axis=None)
    assert len(tables()["corl"]) == 300


def test_neorl2_cells_are_the_published_ones(shared: Path) -> None:
    with (shared / "scores" / "neorl2_published.csv").open() as file:
        cells = {(r["task"], r["algorithm"]): r for r in csv.DictReader(file)}
    names = {"bc": "BC", "td3_bc": "TD3+BC", "cql": "CQL", "edac": "EDAC"}
    tasks = {"neorl2-dmsd": "DMSD", "neorl2-safety-halfcheetah": "SafetyHalfCheetah"}
    rows = tables()["neorl2"]
    assert len(rows) == 8
    for row in records(rows):
        cell = cells[tasks[row.dataset], names[row.algorithm]]
        assert row.mean == pytest.approx(float(cell["score_mean"]), abs=1e-4)
        assert row.sd == pytest.approx(float(cell["score_std_ddof1"]), abs=1e-4)


def test_corl_cells_are_the_published_ones(shared: Path) -> None:
    with (shared / "reference" / "published_scores.csv").open() as file:
        cells = {
            (r["algorithm"], r["dataset"]): (float(r["mean"]), float(r["std"]))
            for r in csv.DictReader(file)
            if r["table"] == "README Offline - Last Scores"
        }
    names = {"percent_bc": "10% BC", "td3_bc": "TD3+BC", "sac_n": "SAC-N", "rebrac": "ReBRAC"}
    names["decision_transformer"] = "DT"
    for row in records(tables()["corl"]):
        algorithm = names.get(row.algorithm, row.algorithm.upper())
        assert (row.mean, row.printed_sd) == cells[algorithm, row.dataset]


def test_deviations_over_n_become_those_of_a_sample() -> None:
    """CORL prints numpy's standard deviation, which divides by n = 4 and not by n - 1."""
    corl = tables()["corl"]
    assert (corl["ddof"] == 0).all()
    assert corl["sd"].to_numpy() == pytest.approx(corl["printed_sd"] * (4 / 3) ** 0.5)
    scores = np.array([70.0, 71, 78, 84])
    assert scores.std() * (4 / 3) ** 0.5 == pytest.approx(scores.std(ddof=1))
    umaze = corl[(corl["algorithm"] == "iql") & (corl["dataset"] == "antmaze-umaze-v2")].iloc[0]
    assert (umaze["printed_sd"], umaze["sd"]) == (5.52, pytest.approx(6.374, abs=1e-3))
    for name, ddof in (("neorl2", 1), ("rebrac-paper", 1)):
        assert (tables()[name]["ddof"] == ddof).all()
        assert tables()[name]["sd"].equals(tables()[name]["printed_sd"])
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
    found = compare(ScoreTable.from_frame(frame), "corl", 3).iloc[0]
    assert found["verdict"] == "underpowered"
    assert found["published_sd"] == pytest.approx(6.374, abs=1e-3)


def test_the_command_prints_a_verdict_for_each_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that has only some of the cells is enough."""
    scores = tmp_path / "scores.csv"
    lines = [f"bc,neorl2-dmsd,{seed},{score}" for seed, score in enumerate([66.4, 65.6, 63.3])]
    lines.append("td3_bc,neorl2-safety-halfcheetah,0,60")
    scores.write_text("\n".join(["algorithm,dataset,seed,score", *lines]))
    command = ["offrl", "reproduce", "neorl2", str(scores), "--margin", "5"]
    monkeypatch.setattr("sys.argv", [*command, "--json"])  # with no NaN, which JSON does not know
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    verdicts = {row["algorithm"]: row["verdict"] for row in rows}
    assert verdicts == {"bc": "reproduced", "td3_bc": "underpowered"}
    monkeypatch.setattr("sys.argv", [*command[:-1], "0"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "margin is 0; expected a positive" in capsys.readouterr().err


def test_runs_of_another_protocol_or_longer_ones_are_not_judged() -> None:
    scores = table(
        protocol=["mine@1"] * 3 + ["neorl2-dmsd@2"] * 6,
        algorithm=["bc (mine@1)"] * 3 + ["bc (neorl2-dmsd@2)"] * 3 + ["td3_bc"] * 3,
        dataset=["neorl2-dmsd"] * 9,
        seed=[7, 42, 210] * 3,
        step=[1_000_000] * 6 + [2_000_000] * 3,
        score=[66.4, 65.6, 63.3] * 2 + [60.0, 60.1, 60.2],
    )
    found = compare(scores, "neorl2", margin=5).set_index("algorithm")["verdict"]
    assert found.to_dict() == {
        "bc (mine@1)": "other settings",
        "bc (neorl2-dmsd@2)": "reproduced",
        "td3_bc": "other settings",
    }
