"""How much the choice of the best setting lifts NeoRL-2's BC on DMSD; docs/results.md quotes it."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

OURS = np.array([64.01308905, 61.65005891, 63.29999305])  # docs/results/neorl2-dmsd.csv


@pytest.fixture
def runs(shared: Path) -> NDArray[np.float64]:
    """The published scores, settings by seeds (6, 3)."""
    settings: dict[str, dict[str, float]] = {}
    with (shared / "scores" / "neorl2_benchmark_seeds.csv").open() as file:
        for row in csv.DictReader(file):
            if (row["algorithm"], row["dataset"]) == ("BC", "DMSD"):
                setting = settings.setdefault(row["hyperparameters"], {})
                setting[row["seed"]] = float(row["normalized_score"])
    return np.array(
        [[setting[seed] for seed in ("7", "42", "210")] for setting in settings.values()]
    )


def test_the_best_of_six_like_settings_is_above_the_mean_by_chance(
    runs: NDArray[np.float64],
) -> None:
    assert runs.shape == (6, 3)
    means = runs.mean(1)
    within = float(np.sqrt(runs.var(1, ddof=1).mean()))
    assert (means.min(), means.max()) == pytest.approx((64.12, 65.09), abs=5e-3)
    assert (runs.mean(), within) == pytest.approx((64.63, 1.27), abs=5e-3)
    assert stats.f_oneway(*runs).pvalue == pytest.approx(0.91, abs=5e-3)
    expected, _ = integrate.quad(
        lambda z: z * 6 * stats.norm.pdf(z) * stats.norm.cdf(z) ** 5, -8, 8
    )  # of the greatest of six standard normals
    assert expected * within / np.sqrt(3) == pytest.approx(0.93, abs=5e-3)
    assert means.max() - runs.mean() == pytest.approx(0.46, abs=5e-3)
    deals = np.array(list(itertools.permutations(range(6))))
    first_two = runs[:, 0] + runs[:, 1][deals]  # (720, 6)
    third = runs[:, 2][deals]
    best = np.mean([(sums + third).max(1).mean() / 3 for sums in first_two])
    assert best - runs.mean() == pytest.approx(0.81, abs=5e-3)


def test_what_is_left_is_not_shown_by_three_runs(runs: NDArray[np.float64]) -> None:
    welch = stats.ttest_ind(OURS, runs.ravel(), equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert OURS.mean() - runs.mean() == pytest.approx(-1.64, abs=5e-3)
    assert (interval.low, interval.high) == pytest.approx((-4.24, 0.95), abs=5e-3)
    assert welch.pvalue == pytest.approx(0.13, abs=5e-3)
    assert stats.ttest_ind(OURS, runs.ravel()).pvalue == pytest.approx(0.03, abs=5e-3)
    seven = np.array([*OURS, 64.83, 64.50, 62.45, 62.94])
    welch = stats.ttest_ind(seven, runs.ravel(), equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert (seven.mean(), seven.std(ddof=1)) == pytest.approx((63.38, 1.14), abs=5e-3)
    assert (interval.low, interval.high) == pytest.approx((-2.36, -0.13), abs=5e-3)
    assert welch.pvalue == pytest.approx(0.03, abs=5e-3)
