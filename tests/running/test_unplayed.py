"""Runs on data without a simulator: they train, and have losses in place of scores."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import offrl
from offrl.errors import InputError
from offrl.results.collect import read_runs
from offrl.results.rows import ScoreRow, Status
from offrl.results.store import run_folders

pytestmark = pytest.mark.usefixtures("pendulum")


@pytest.fixture
def bare(pendulum: None, tmp_path: Path) -> Path:  # noqa: ARG001 (it writes the card)
    """The pendulum's card without its simulator."""
    lines = (tmp_path / "pend.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("environment", "reference"))]
    (tmp_path / "bare.toml").write_text("\n".join(kept).replace('"pend"', '"bare"'))
    return tmp_path / "bare.toml"


def train(algorithm: str, card: Path, runs: str = "runs", **options: Any) -> list[Any]:
    values = {"steps": 4, "evaluate_every": 2, "config": {"hidden": [8], "batch_size": 4}}
    return offrl.train(algorithm, card, runs, **{**values, **options})


def rows(runs: str) -> list[list[ScoreRow]]:
    return [folder.rows() for folder in run_folders(Path(runs))]


@pytest.mark.parametrize("algorithm", ["bc", "iql", "percent_bc"])
def test_a_set_without_a_simulator_is_trained_on(
    algorithm: str, bare: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (event,) = train(algorithm, bare)
    assert (event.status, event.step, event.score) == (Status.DONE, 4, None)
    assert "bare: its card has no simulator, so no policy is evaluated" in caplog.text
    (written,) = rows("runs")
    assert [row.step for row in written] == [2, 4]
    for row in written:
        assert (row.score, row.mean_return, row.returns, row.environment) == (None, None, [], "")
        assert np.isfinite(row.metrics["actor/loss"])


def test_the_metrics_are_those_of_the_same_run_with_a_simulator(bare: Path) -> None:
    """Training does not depend on whether episodes are played."""
    linear = {"hidden": [8], "batch_size": 4, "output": "linear"}  # no bound of actions in it
    train("bc", bare, "bare", config=linear)
    train("bc", bare.with_name("pend.toml"), "played", config=linear)
    ours, theirs = ([row.metrics for row in rows(name)[0]] for name in ("bare", "played"))
    assert ours == theirs


def test_it_carries_on_with_the_numbers_of_an_uninterrupted_run(bare: Path) -> None:
    train("bc", bare, "whole", steps=8)
    train("bc", bare, "parts", steps=4)
    train("bc", bare, "parts", steps=8)
    whole, parts = ([row.metrics for row in rows(name)[0]] for name in ("whole", "parts"))
    assert len(whole) == 4
    assert whole == parts


def test_replicas_have_the_losses_of_runs_alone(bare: Path) -> None:
    train("bc", bare, "together", seeds=[0, 1], replicas=2)
    train("bc", bare, "alone", seeds=[0, 1], replicas=1)
    for ours, theirs in zip(rows("together"), rows("alone"), strict=True):
        for one, two in zip(ours, theirs, strict=True):
            assert one.metrics == pytest.approx(two.metrics, rel=1e-5)


def test_validation_losses_are_of_the_split_and_train_nothing(bare: Path, tmp_path: Path) -> None:
    """A split of one row, many times: every batch has its loss, which the policy gives too."""
    state, action = np.array([[0.5, -0.25, 1.0]], np.float32), np.array([[0.75]], np.float32)
    np.savez(
        tmp_path / "held.npz",
        obs=state.repeat(9, 0),
        action=action.repeat(9, 0),
        next_obs=state.repeat(9, 0),
        reward=np.ones(9, np.float32),
        done=np.zeros(9, np.float32),
        truncated=np.ones(9, np.float32),
    )
    text = bare.read_text()
    split = text.replace("]\n", "]\n").replace(
        'files = [{ name = "pend.npz" }]',
        'files = [{ name = "pend.npz" }], validation = [{ name = "held.npz" }]',
    )
    bare.with_name("split.toml").write_text(split)
    train("bc", bare, "bare")
    train("bc", bare.with_name("split.toml"), "split")
    (without,), (written,) = rows("bare"), rows("split")
    assert "validation/actor/loss" not in without[-1].metrics
    assert [r.metrics["actor/loss"] for r in written] == [r.metrics["actor/loss"] for r in without]
    (folder,) = run_folders(Path("split"))
    policy = offrl.load_policy(folder.path)
    taken = policy.act(state)
    expected = float(((taken - action) ** 2).mean())
    assert written[-1].metrics["validation/actor/loss"] == pytest.approx(expected, rel=1e-4)


def test_a_report_says_first_that_no_policy_was_evaluated(bare: Path, tmp_path: Path) -> None:
    train("bc", bare, seeds=[0, 1])
    train("iql", bare)
    page = offrl.report("runs", tmp_path / "report").read_text()
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert re.findall(r"<p>(.*?)</p>", body)[:2] == [
        "<strong>No policy was evaluated: the data have no simulator, so nothing here says how "
        "well an algorithm acts.</strong>",
        "Losses of different algorithms do not compare: each measures something else, and a lower "
        "one does not make a better policy, not even among settings of one algorithm.",
    ]
    record = json.loads((tmp_path / "report" / "summary.json").read_text())
    losses = {(loss["algorithm"], loss["name"]): loss for loss in record["losses"]}
    seeds = [written[-1].metrics["actor/loss"] for written in rows("runs") if "bc" in str(written)]
    found = losses["bc", "actor/loss"]
    assert (found["runs"], found["mean"]) == (2, pytest.approx(np.mean(seeds)))
    assert found["sd"] == pytest.approx(np.std(seeds, ddof=1))
    checksums = {entry["data_sha256"] for entry in record["provenance"]}
    assert len(record["provenance"]) == 3
    assert all(checksum in page for checksum in checksums)
    assert record["versions"]["offrl"] in page[page.index("Report made with") :]
    offrl.report("runs", tmp_path / "report")  # replaces its own
    with pytest.raises(InputError, match="no policy was evaluated"):
        read_runs("runs")


def test_runs_without_a_simulator_are_named_beside_scores(bare: Path, tmp_path: Path) -> None:
    train("bc", bare)
    train("bc", bare.with_name("pend.toml"))
    table = read_runs("runs")
    assert table.datasets == ["pend"]
    said = "no policy was evaluated on bare (1 runs): no simulator"
    assert said in table.notes
    page = offrl.report("runs", tmp_path / "report").read_text()
    assert said in page
    assert "No policy was evaluated on bare, which has no simulator" in page
    (written,) = (run for run in rows("runs") if run[0].score is None)
    record = json.loads((tmp_path / "report" / "summary.json").read_text())
    means = {loss["name"]: loss["mean"] for loss in record["losses"]}
    assert means["actor/loss"] == written[-1].metrics["actor/loss"]
    assert len(record["provenance"]) == 2
    section = page[page.index('<section id="losses">') :]
    assert f"{means['actor/loss']:.4g}" in section[: section.index('<section id="notes">')]
    assert (tmp_path / "report" / "losses.csv").read_text().count("\n") == 1 + len(means)


def test_a_choice_of_data_sets_chooses_among_losses_too(bare: Path, tmp_path: Path) -> None:
    train("bc", bare)
    train("bc", bare.with_name("pend.toml"))
    played = offrl.report("runs", tmp_path / "played", datasets=["pend"]).read_text()
    assert '<section id="losses">' not in played
    losses = offrl.report("runs", tmp_path / "losses", datasets=["b*"]).read_text()
    assert "<strong>No policy was evaluated" in losses
    with pytest.raises(InputError, match="unknown algorithm 'iql'"):
        offrl.report("runs", tmp_path / "none", algorithms=["iql"])


def test_its_policy_can_be_loaded_and_not_evaluated(bare: Path) -> None:
    train("bc", bare)
    (folder,) = run_folders(Path("runs"))
    policy = offrl.load_policy(folder.path)
    with pytest.raises(InputError, match="have no simulator, so no policy can be played"):
        policy.environment()
