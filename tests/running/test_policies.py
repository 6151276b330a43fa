"""The policy of a run: loaded, played on, drawn and exported."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from battery import EXAMPLE, data, named, small, spec_of, suited, trained
from command_line import CARD, neorl2

import offrl
from offrl.data.dataset import load_dataset
from offrl.errors import InputError
from offrl.evaluation.rollouts import Evaluator
from offrl.files import CHECKSUM
from offrl.learning import checkpoint, kernels
from offrl.learning.policy import StatelessPolicy
from offrl.results.collect import read_runs
from offrl.results.provenance import SIMULATORS
from offrl.results.rows import Status, main_scores
from offrl.results.store import RunFolder
from offrl.running.evaluate import Outcome, evaluate, record_video, simulator_notes
from offrl.running.events import ended_before
from offrl.running.export import export_onnx
from offrl.running.jobs import Job, expand
from offrl.running.policies import RunPolicy, freeze, load_policy
from offrl.running.protocol import Protocol
from offrl.running.training import train_run

PROTOCOL: dict[str, Any] = {
    "id": "tiny",
    "version": 1,
    "title": "A protocol for tests",
    "source": "offrl",
    "seeds": [3],
    "steps": 20,
    "evaluation": {"every": 8, "episodes": 2, "last": 2, "final_episodes": 5},
    "algorithms": {
        "bc": {"config": {"hidden": [8], "batch_size": 4}},
        "dt": {
            "algorithm": "decision_transformer",
            "config": {
                "context": 3,
                "layers": 1,
                "heads": 1,
                "embedding": 4,
                "batch_size": 4,
                "target_returns": [20.0, 10.0],
            },
        },
        "own": {"algorithm": EXAMPLE, "config": {"batch_size": 4}},
    },
}


@dataclass(frozen=True)
class Home:
    """Runs, and what made them."""

    root: Path
    jobs: dict[str, Job]

    def folder(self, label: str) -> RunFolder:
        return RunFolder(self.jobs[label].folder(self.root), self.root)

    def run(self, label: str) -> Path:
        return self.folder(label).path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One finished run each of a plain algorithm, one with memory and one of the user's own."""
    folder = tmp_path_factory.mktemp("policies")
    np.savez(folder / "good.npz", **neorl2())  # type: ignore[arg-type]
    (folder / "card.toml").write_text(CARD)
    protocol = Protocol.model_validate({**PROTOCOL, "datasets": [str(folder / "card.toml")]})
    jobs = {job.label: job for job in expand(protocol)}
    for job in jobs.values():
        train_run(job, folder / "runs")
    return Home(folder / "runs", jobs)


@pytest.fixture
def copy(home: Home, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a run, to be damaged."""

    def copied(label: str) -> Path:
        path = tmp_path.joinpath(*home.run(label).parts[-2:])
        shutil.copytree(home.run(label), path)
        return path

    return copied


def play(policy: RunPolicy, episodes: int) -> list[float]:
    with_starts = Evaluator(policy.environment(), [3], episodes, 0)
    return list(with_starts(policy.policy).returns[0])


def test_a_run_s_last_evaluation_has_its_own_episodes_and_its_score_is_a_mean(home: Home) -> None:
    rows = home.folder("bc").rows()
    assert [(row.step, len(row.returns)) for row in rows] == [(8, 2), (16, 2), (20, 5)]
    expected = sum(main_scores(rows[1:])) / 2
    event = ended_before(home.jobs["bc"], home.folder("bc").read())
    assert event.score == pytest.approx(expected)
    final = read_runs(home.root).final().frame.set_index("algorithm")
    assert final.loc["bc", "score"] == pytest.approx(expected)
    other = main_scores([row for row in home.folder("dt").rows() if row.policy == "target 2"])
    assert final.loc["dt: target 2", "score"] == pytest.approx(sum(other[-2:]) / 2)


@pytest.mark.parametrize(("label", "way"), [("bc", ""), ("dt", ""), ("dt", "target 2")])
def test_a_loaded_policy_plays_the_run_s_last_evaluation_again(
    home: Home, label: str, way: str
) -> None:
    policy = offrl.load_policy(home.run(label), way=way)
    last = [row for row in home.folder(label).rows() if row.policy == way][-1]
    assert policy.step == 20
    assert play(policy, 5) == last.returns
    outcome = evaluate(policy, episodes=5)
    assert outcome.returns.tolist() == last.returns
    assert outcome.summary()["score"] == pytest.approx(last.score)


def test_an_evaluation_multiplies_as_the_run_did(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(home.run("bc"))
    (numerics,) = policy.record.numerics
    other = numerics.model_copy(update={"kernel": "batched"})
    policy.record = policy.record.model_copy(update={"numerics": [other]})
    used: list[str] = []
    play_all = Evaluator.__call__

    def watched(self: Evaluator, acting: Any) -> Any:
        used.append(kernels.current())
        return play_all(self, acting)

    monkeypatch.setattr(Evaluator, "__call__", watched)
    before = kernels.current()
    evaluate(policy, episodes=1)
    assert (used, kernels.current()) == (["batched"], before)


def test_a_policy_acts_on_one_observation_and_on_many_of_any_kind(home: Home) -> None:
    policy = load_policy(home.run("bc"))
    rows = np.random.default_rng(0).normal(size=(4, 6))
    actions = policy.act(rows)
    assert actions.shape == (4, 2)
    assert actions.dtype == np.dtype("float32")
    np.testing.assert_array_equal(policy.act(torch.from_numpy(rows)), actions)
    np.testing.assert_allclose(policy.act(rows[1]), actions[1], atol=1e-6)
    assert policy.act(rows[1].tolist()).shape == (2,)
    np.testing.assert_array_equal(load_policy(home.run("bc")).act(rows), actions)
    for wrong in (rows[:, :5], rows[None], np.float64(1)):
        with pytest.raises(InputError, match=r"observations have shape .*expected \(episodes, 6\)"):
            policy.act(wrong)
    with pytest.raises(InputError, match="observations are a str that is no array of numbers"):
        policy.act("north")


def test_a_policy_with_memory_follows_the_episodes(home: Home) -> None:
    """Two episodes at a time act as each alone; a new one forgets what was before."""
    rng = np.random.default_rng(0)
    observations, rewards = rng.normal(size=(5, 2, 6)), rng.normal(size=(5, 2))
    both, alone = load_policy(home.run("dt")), load_policy(home.run("dt"))
    assert both.ways == ("", "target 2")
    acted = []
    for seen, earned in zip(observations, rewards, strict=True):
        acted.append(both.act(seen))
        both.reward(earned)
    for seen, earned, actions in zip(observations[:, 1], rewards[:, 1], acted, strict=True):
        np.testing.assert_allclose(alone.act(seen), actions[1], atol=1e-5)
        alone.reward(earned)
    both.begin([False, True])
    alone.begin(True)
    again = both.act(observations[0])
    np.testing.assert_allclose(again[1], acted[0][1], atol=1e-5)
    np.testing.assert_allclose(alone.act(observations[0, 1]), acted[0][1], atol=1e-5)
    assert not np.allclose(again[0], acted[0][0], atol=1e-5)
    with pytest.raises(InputError, match="observations of 3 episodes, but 2 began"):
        both.act(np.zeros((3, 6)))
    with pytest.raises(InputError, match="3 episodes do not all begin, but 2 ran before"):
        both.begin([True, False, True])


def test_no_data_set_is_needed_but_for_folders_of_earlier_versions(
    home: Home, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = copy("bc"), np.random.default_rng(0).normal(size=(4, 6))
    expected = load_policy(path).act(rows)
    file = path / "checkpoint" / "state.safetensors"
    state = checkpoint.load(file)
    del state["spec"]
    checkpoint.save(file, state)
    with pytest.raises(InputError, match=r"of an earlier offrl, without .*data set mine@1 has a f"):
        load_policy(path)
    card = home.jobs["bc"].dataset
    found = load_dataset(card)
    monkeypatch.setattr("offrl.running.policies.load_dataset", lambda *_, **__: found)
    np.testing.assert_array_equal(load_policy(path).act(rows), expected)
    monkeypatch.setattr(found, "checksum", "another")
    with pytest.raises(InputError, match="mine@1 is not the data set that the run was trained on"):
        load_policy(path)


def test_a_file_of_the_user_s_own_runs_only_where_it_is_given_unchanged(
    home: Home, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"trained my_algo.py, a file .*--algorithm my_algo.py"):
        load_policy(home.run("own"))
    policy = load_policy(home.run("own"), algorithm=EXAMPLE)
    assert policy.act(np.zeros((3, 6))).shape == (3, 2)
    other = tmp_path / "my_algo.py"
    other.write_text(f"{Path(EXAMPLE).read_text()}\n")
    with pytest.raises(InputError, match=r"with SHA-256 \w{12}\.\.\., but .* has \w{12}"):
        load_policy(home.run("own"), algorithm=other)
    with pytest.raises(InputError, match="trained bc, which ships with offrl; leave out"):
        load_policy(home.run("bc"), algorithm=EXAMPLE)


def _older(path: Path) -> None:
    file = path / "checkpoint" / "state.safetensors"
    state = checkpoint.load(file)
    del state["learner"]["actor_optimizer"]
    checkpoint.save(file, state)


def _torn(path: Path) -> None:
    file = path / "checkpoint" / "state.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def _of_another_task(path: Path) -> None:
    file = path / "checkpoint" / "state.safetensors"
    state = checkpoint.load(file)
    state["spec"]["observation_mean"] = torch.zeros(2)
    checkpoint.save(file, state)


def _larger(path: Path) -> None:
    record = json.loads((path / "run.json").read_text())
    record.pop(CHECKSUM)
    record["identity"]["config"]["hidden"] = [6_000, 6_000]
    (path / "run.json").write_text(json.dumps(record))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "size": (_larger, r"makes a learner that is many times as large as the [\d,]+ bytes of its ch"),
    "older": (
        _older,
        r"lacks 'actor_optimizer'.*; it is of offrl .*, and this is .*: load it with",
    ),
    "task": (_of_another_task, "observation_mean of the task: expected a tensor of 6 numbers; it"),
    "torn": (_torn, "expected a checkpoint of offrl, but"),
    "none": (lambda p: shutil.rmtree(p / "checkpoint"), r"the run \(done\) has no checkpoint yet"),
    "record": (lambda p: (p / "run.json").write_text("{"), "expected the JSON that offrl writes"),
    "no run": (lambda p: (p / "run.json").unlink(), "no run.json in this folder; expected the fol"),
    "nothing": (shutil.rmtree, "no such folder; expected the folder of one run"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_run_without_a_policy_is_one_line(name: str, copy: Callable[[str], Path]) -> None:
    path = copy("bc")
    damage, message = FAULTS[name]
    damage(path)
    with pytest.raises(InputError, match=message) as error:
        load_policy(path)
    assert "\n" not in str(error.value)


def test_a_folder_of_runs_names_one_of_them_and_a_way_is_by_name(home: Home) -> None:
    with pytest.raises(InputError, match=r"one of the 3 below it, such as .*seed-3"):
        load_policy(home.root)
    with pytest.raises(InputError, match=r"unknown way to act 'target 3'; did you mean 'tar"):
        load_policy(home.run("dt"), way="target 3")


def test_an_unfinished_run_has_the_policy_of_its_checkpoint(copy: Callable[[str], Path]) -> None:
    path = copy("bc")
    file = path / "checkpoint" / "state.safetensors"
    checkpoint.save(file, {**checkpoint.load(file), "step": 17})
    folder = RunFolder(path)
    with folder.held():
        folder.set_status(Status.INTERRUPTED)
    assert load_policy(path).step == 17


def test_a_simulator_of_one_s_own_is_code_too(copy: Callable[[str], Path]) -> None:
    path = copy("bc")
    record = json.loads((path / "run.json").read_text())
    record.pop(CHECKSUM)
    record["identity"]["environment"]["id"] = "a_stranger:Mine-v0"
    (path / "run.json").write_text(json.dumps(record))
    policy = load_policy(path)
    with pytest.raises(InputError, match=r"would import the module a_stranger, .*--trust"):
        evaluate(policy, episodes=1)
    with pytest.raises(InputError, match="No module named 'a_stranger'"):
        evaluate(policy, episodes=1, trust=[path])


def test_an_outcome_is_summarised_by_closed_forms() -> None:
    """0, 2, 4, 10 have mean 4, median 3, quartiles 1.5 and 5.5, and variance 56 / 3."""
    outcome = Outcome(np.array([0.0, 2, 4, 10]), np.array([5, 5, 5, 9]), (2.0, 12.0))
    summary = outcome.summary()
    error = (56 / 3 / 4) ** 0.5
    assert summary == pytest.approx(
        {
            "episodes": 4,
            "mean_return": 4,
            "standard_error": error,
            "score": 20,
            "score_standard_error": 10 * error,
            "first_quartile": 1.5,
            "median": 3,
            "third_quartile": 5.5,
            "mean_length": 6,
            "shortest": 5,
            "longest": 9,
        }
    )
    one = Outcome(np.array([1.0]), np.array([5]), None).summary()
    assert one["standard_error"] is one["score"] is None


def test_another_version_of_a_simulator_is_noted(home: Home) -> None:
    policy = load_policy(home.run("bc"))
    assert simulator_notes(policy) == []
    (session,) = policy.record.sessions
    name, was = next((name, session.versions[name]) for name in SIMULATORS)
    older = session.model_copy(update={"versions": {**session.versions, name: "0.1"}})
    record = policy.record.model_copy(update={"sessions": [older]})
    (note,) = simulator_notes(replace(policy, record=record))
    assert f"was scored with {name} 0.1, and here is {was}: returns may differ" in note


def test_progress_goes_up_to_all_episodes(home: Home) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(load_policy(home.run("bc")), episodes=25, progress=lambda *counts: seen.append(counts))
    done = [count for count, _ in seen]
    assert done == sorted(done)
    assert done[-1] == 25
    assert {total for _, total in seen} == {25}


needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="onnx and onnxruntime are not installed",
)


def run_policy(home: Home, name: str) -> RunPolicy:
    """A policy with standardised inputs after a few updates, as if it were of a run."""
    learner, _ = trained(name, data(), [0], 4, small(name, normalize=True))
    freeze(learner)
    loaded = load_policy(home.run("bc"))
    spec = spec_of(suited(name, data()))
    checked = replace(loaded.policy, policy=learner.policy(), spec=spec)
    return replace(loaded, spec=spec, policy=checked)


@needs_onnx
@pytest.mark.parametrize("name", named())
def test_onnx_gives_equal_actions(name: str, home: Home, tmp_path: Path) -> None:
    policy, path = run_policy(home, name), tmp_path / "policy.onnx"
    if policy.has_memory:
        with pytest.raises(InputError, match="acts by the episode so far"):
            export_onnx(policy, path)
        return
    exported_acts_alike(policy, path)


@needs_onnx
def test_a_run_of_one_s_own_file_is_exported_too(home: Home, tmp_path: Path) -> None:
    policy = load_policy(home.run("own"), algorithm=EXAMPLE)
    exported_acts_alike(policy, tmp_path / "policy.onnx")


def exported_acts_alike(policy: RunPolicy, path: Path) -> None:
    import onnxruntime

    export_onnx(policy, path)
    session = onnxruntime.InferenceSession(path)
    for rows in (1, 7):
        seen = np.random.default_rng(rows).normal(size=(rows, policy.spec.observation_dim))
        seen = seen.astype(np.float32)
        (actions,) = session.run(["actions"], {"observations": seen})
        assert policy.spec.action_count or np.abs(actions).max() > 1e-3
        np.testing.assert_allclose(actions, policy.act(seen), rtol=0, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["step"] == "20"


def test_what_cannot_be_exported_is_one_line(home: Home, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dt acts by the episode so far .*; use offrl.load_pol"):
        export_onnx(load_policy(home.run("dt")), tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"expected a name that ends in \.onnx"):
        export_onnx(load_policy(home.run("bc")), tmp_path / "a.pt")
    policy = load_policy(home.run("bc"))
    drawn = StatelessPolicy(lambda observations: observations, "stochastic")
    stochastic = replace(policy, policy=replace(policy.policy, policy=drawn))
    with pytest.raises(InputError, match="bc draws its actions"):
        export_onnx(stochastic, tmp_path / "a.onnx")


def test_a_video_needs_a_simulator_with_pictures(home: Home, tmp_path: Path) -> None:
    policy = load_policy(home.run("bc"))
    with pytest.raises(InputError, match=r"a name that ends in .mp4 or .gif"):
        record_video(policy, tmp_path / "a.avi")
    record = policy.record.model_copy(
        update={
            "identity": policy.record.identity.model_copy(
                update={
                    "environment": {
                        "id": "offrl.datasets.neorl2_simulators:offrl/DMSD-v0",
                        "max_episode_steps": 100,
                    }
                }
            )
        }
    )
    with pytest.raises(InputError, match="offrl/DMSD-v0' has no pictures"):
        record_video(replace(policy, record=record), tmp_path / "a.gif")
