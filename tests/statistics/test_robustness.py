"""Altered data sets beside the clean ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from offrl.reporting.report import report_table
from offrl.results.table import ScoreTable
from offrl.statistics.resampling import Resampling
from offrl.statistics.robustness import robustness

CORRUPT = "a+corrupt[rewards,random,rate=0.3,range=1,seed=run]"
SCORES = {
    ("bc", "a"): [10, 20, 30],
    ("bc", CORRUPT): [5, 10, 15, 14],
    ("iql", "a"): [-3, -1],
    ("iql", CORRUPT): [4],
    ("bc", "b+delay[steps=2]"): [1, 3],  # whose clean set is not there
    ("iql", "b+delay[steps=2]"): [1, 2],
}


def scores() -> ScoreTable:
    rows = [
        {"algorithm": algorithm, "dataset": dataset, "seed": seed, "score": float(score)}
        for (algorithm, dataset), of_seeds in SCORES.items()
        for seed, score in enumerate(of_seeds)
    ]
    return ScoreTable.from_frame(pd.DataFrame(rows))


def test_a_difference_has_welchs_interval_and_a_ratio() -> None:
    bc, iql = robustness(scores()).to_dict("records")
    assert (bc["algorithm"], bc["dataset"], bc["clean"]) == ("bc", CORRUPT, "a")
    assert (bc["clean_mean"], bc["altered_mean"], bc["difference"]) == (20, 11, -9)
    assert bc["ratio"] == pytest.approx(11 / 20)
    test = scipy.stats.ttest_ind(SCORES["bc", CORRUPT], SCORES["bc", "a"], equal_var=False)
    expected = test.confidence_interval(0.95)
    assert (bc["ci_low"], bc["ci_high"]) == pytest.approx((expected.low, expected.high))
    assert (iql["difference"], iql["n_clean"], iql["n_altered"]) == (6, 2, 1)
    assert np.isnan([iql["ci_low"], iql["ci_high"], iql["ratio"]]).all()


def test_a_report_sets_clean_and_altered_side_by_side(tmp_path: Path) -> None:
    report_table(scores(), tmp_path / "report", resampling=Resampling(500))
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    section = page.partition('<section id="robustness">')[2].partition("</section>")[0]
    assert "a+corrupt[rewards,random,rate=0.3,range=1,seed=run]" in section
    assert "<td>20.0</td><td>11.0</td><td>−9.0 [" in section
    assert "<td>0.55</td><td>3 / 4</td>" in section
    assert (tmp_path / "report" / "tables" / "robustness.csv").is_file()
    clean = scores().frame.loc[lambda frame: ~frame["dataset"].str.contains("+", regex=False)]
    report_table(ScoreTable.from_frame(clean), tmp_path / "clean", resampling=Resampling(500))
    assert "robustness" not in (tmp_path / "clean" / "index.html").read_text(encoding="utf-8")
    assert not (tmp_path / "clean" / "tables" / "robustness.csv").exists()
