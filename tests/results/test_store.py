"""Run folders: what is written, what is read back, and what a damaged one does to the others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offrl.errors import InputError
from offrl.results.collect import collect, read_runs
from offrl.results.rows import FORMAT, Identity, ScoreRow, Status
from offrl.results.store import Damaged, RunFolder, State, run_folders

IDENTITY: dict[str, Any] = {
    "protocol": "tiny@1",
    "dataset": "maze@2",
    "data_sha256": "00",
    "view": "transitions",
    "environment": {"id": "E-v1", "max_episode_steps": 9, "kwargs": {}, "observation_keys": []},
    "reference": {"min": 0.0, "max": 20.0, "source": "counted"},
    "label": "bc",
    "algorithm": "bc",
    "config": {"batch_size": 4, "lr": 0.001},
    "code": None,
    "config_hash": "0123abcd",
    "steps": 20,
    "evaluation": {"every": 10, "episodes": 2, "seed": 0},
    "seed": 0,
}
SESSION: dict[str, Any] = {
    "started": "2026-01-01T00:00:00+00:00",
    "commit": None,
    "versions": {"offrl": "0.1.0", "torch": "2.0"},
    "hardware": {"cpus": 2},
}
ROW: dict[str, Any] = {
    "protocol": "tiny@1",
    "dataset": "maze@2",
    "environment": "E-v1",
    "simulator": {"mujoco": "3.4.0", "offrl": "0.1.0"},
    "algorithm": "bc",
    "config": "0123abcd",
    "seed": 0,
    "step": 10,
    "score": 12.5,
    "return": 2.5,
    "returns": [2.0, 3.0],
    "lengths": [9, 9],
    "policy": "",
    "action_mode": "deterministic",
    "metrics": {"actor/loss": 0.25},
    "wall_time": 1.5,
}


def write_run(root: Path, seed: int, status: str = "done", **identity: Any) -> Path:
    """A run as offrl wrote it before run.json had a format number."""
    whole = {**IDENTITY, **identity, "seed": seed}
    name = f"{whole['label']}-{whole['config_hash']}"
    folder = root / "tiny" / "my-maze" / name / f"seed-{seed}"
    folder.mkdir(parents=True)
    record = {"identity": whole, "status": status, "cause": None, "sessions": [SESSION]}
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    labels = {"seed": seed, "algorithm": whole["label"], "config": whole["config_hash"]}
    rows = [{**ROW, **labels, "step": step} for step in (10, 20)]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "evaluations.jsonl").write_text("".join(lines))
    return folder


def change_record(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    record = json.loads((folder / "run.json").read_text())
    change(record)
    (folder / "run.json").write_text(json.dumps(record))


def test_an_older_folder_is_read_and_carried_on_and_gains_the_format_alone(tmp_path: Path) -> None:
    folder = RunFolder(write_run(tmp_path, 0, status="interrupted"))
    before = json.loads((folder.path / "run.json").read_text())
    rows = (folder.path / "evaluations.jsonl").read_text()
    assert folder.read().state is State.UNFINISHED
    with folder.held():
        folder.begin(Identity(**IDENTITY))
        folder.rewind(20)
        folder.append(ScoreRow.model_validate({**ROW, "step": 30}))
        folder.set_status(Status.FAILED, "it broke", "Traceback:\n  broken")
    after = json.loads((folder.path / "run.json").read_text())
    assert after.pop("format") == FORMAT
    assert list(after) == [*before, "traceback"]
    assert after["identity"] == before["identity"]
    assert list(after["identity"]) == list(IDENTITY)
    assert after["sessions"][0] == SESSION
    assert len(after["sessions"]) == 2
    assert (after["status"], after["cause"]) == ("failed", "it broke")
    assert after["traceback"] == ["Traceback:", "  broken"]
    written = (folder.path / "evaluations.jsonl").read_text()
    assert written == rows + json.dumps({**ROW, "step": 30}) + "\n"
    with folder.held():
        folder.begin(Identity(**IDENTITY))
    again = json.loads((folder.path / "run.json").read_text())
    assert "traceback" not in again
    assert (again["status"], again["cause"]) == ("running", None)


def test_keys_that_a_model_lacks_are_kept(tmp_path: Path) -> None:
    """A later offrl may add to a folder of the same format; an earlier one leaves that there."""
    path = write_run(tmp_path, 0, status="interrupted")
    change_record(path, lambda record: record.update(kernel="plain"))
    change_record(path, lambda record: record["sessions"][0].update(host="a"))
    (path / "evaluations.jsonl").write_text(json.dumps({**ROW, "energy": 3}) + "\n")
    folder = RunFolder(path)
    with folder.held():
        folder.begin(Identity(**IDENTITY))
        folder.rewind(10)
    record = json.loads((path / "run.json").read_text())
    assert record["kernel"] == "plain"
    assert record["sessions"][0]["host"] == "a"
    assert json.loads((path / "evaluations.jsonl").read_text()) == {**ROW, "energy": 3}


def test_another_identity_is_named_by_its_keys(tmp_path: Path) -> None:
    path = write_run(tmp_path, 0)
    folder = RunFolder(path)
    other = Identity(**{**IDENTITY, "steps": 30, "data_sha256": "11"})
    message = r'holds a run with \{"data_sha256": "00", "steps": 20\}, but this one has .*"11".* 30'
    with folder.held(), pytest.raises(InputError, match=message):
        folder.enlist(other)
    change_record(path, lambda record: record["identity"].update(noise=0.1))
    message = r'holds a run with \{"noise": 0.1\}, but this one has \{"noise": null\}'
    with folder.held(), pytest.raises(InputError, match=message):  # it decides scores
        folder.begin(Identity(**IDENTITY))


def test_a_newer_format_ends_in_one_line(tmp_path: Path) -> None:
    path = write_run(tmp_path, 0)
    write_run(tmp_path, 1)
    change_record(path, lambda record: record.update(format=FORMAT + 1, identity="elsewhere"))
    with pytest.raises(InputError, match=r"run\.json: format 2, but .* up to 1; update") as caught:
        read_runs(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="update offrl"):
        RunFolder(path).read()


def torn(folder: Path) -> None:
    """A line in the middle that a crash of the machine cut short."""
    first, second = (folder / "evaluations.jsonl").read_text().splitlines()
    (folder / "evaluations.jsonl").write_text(f"{first[:40]}\n{second}\n")


def without_key(folder: Path) -> None:
    row = {key: value for key, value in ROW.items() if key != "step"}
    (folder / "evaluations.jsonl").write_text(json.dumps(row) + "\n")


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda f: (f / "run.json").write_text(""), "run.json: expected the JSON that offrl"),
    "not JSON": (lambda f: (f / "run.json").write_text("{"), "run.json: expected the JSON that"),
    "not text": (lambda f: (f / "run.json").write_bytes(b"\xff\x00"), "run.json: expected the"),
    "a list": (lambda f: (f / "run.json").write_text("[]"), "expected a JSON object, found list"),
    "nested": (lambda f: (f / "run.json").write_text("[" * 10**5), "run.json: expected the JSON"),
    "gone": (lambda f: (f / "run.json").unlink(), "run.json: expected the JSON that offrl writes"),
    "no identity": (
        lambda f: change_record(f, lambda record: record.pop("identity")),
        "run.json: identity: Field required",
    ),
    "no label": (
        lambda f: change_record(f, lambda record: record["identity"].pop("label")),
        "run.json: identity.label: Field required",
    ),
    "a huge seed": (
        lambda f: change_record(f, lambda record: record["identity"].update(seed=2**70)),
        "run.json: identity.seed: ",
    ),
    "another status": (
        lambda f: change_record(f, lambda record: record.update(status="paused")),
        "run.json: status: Input should be 'waiting', 'running', 'done', 'failed' or 'interrupted'",
    ),
    "a wrong format": (
        lambda f: change_record(f, lambda record: record.update(format="new")),
        "run.json: format: ",
    ),
    "torn": (torn, "evaluations.jsonl: line 1: expected the JSON that offrl writes, but"),
    "no step": (without_key, "evaluations.jsonl: line 1: step: Field required"),
    "another's rows": (
        lambda f: (f / "evaluations.jsonl").write_text(json.dumps({**ROW, "seed": 2}) + "\n"),
        "expected protocol, config and seed ('tiny@1', '0123abcd', 1), found ('tiny@1', '0123abcd'",
    ),
    "no rows": (
        lambda f: (f / "evaluations.jsonl").unlink(),
        "evaluations.jsonl: the run is done, so expected its last score at step 20, found none",
    ),
    "fewer rows": (
        lambda f: (f / "evaluations.jsonl").write_text(json.dumps({**ROW, "seed": 1}) + "\n"),
        "the run is done, so expected its last score at step 20, found step 10",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_a_failure_beside_the_others(name: str, tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(3)]
    whole = read_runs(tmp_path)
    damage, cause = DAMAGES[name]
    damage(folders[1])
    assert len(run_folders(tmp_path)) == 3
    stored = RunFolder(folders[1]).read()
    assert stored.state is State.DAMAGED
    assert stored.rows == ()
    for table in (read_runs(tmp_path), collect([tmp_path])):
        (failure,) = table.failures
        assert (failure.algorithm, failure.dataset, failure.seed) == ("bc", "maze", 1)
        assert failure.cause == stored.cause
        assert failure.cause.startswith(f"damaged: {folders[1]}/")
        assert cause in failure.cause
        assert "delete the folder and run it again, or restore the file" in failure.cause
        assert "\n" not in failure.cause
        expected = whole.frame[whole.frame["seed"] != 1].reset_index(drop=True)
        assert table.frame.equals(expected)
        assert table.notes == whole.notes
    with RunFolder(folders[1]).held():
        if stored.record is None or stored.record.identity == Identity(**{**IDENTITY, "seed": 1}):
            with pytest.raises(Damaged):
                RunFolder(folders[1]).begin(Identity(**{**IDENTITY, "seed": 1}))


def test_damaged_folders_alone_are_failures_by_their_path(tmp_path: Path) -> None:
    folder = write_run(tmp_path, 7, label="iql-greedy")
    (folder / "run.json").write_text("")
    (failure,) = read_runs(tmp_path).failures
    assert (failure.algorithm, failure.dataset, failure.seed) == ("iql-greedy", "my-maze", 7)


def test_a_damaged_run_takes_no_other_config_s_scores_along(tmp_path: Path) -> None:
    write_run(tmp_path, 0)
    other = write_run(tmp_path, 0, config_hash="ffffffff")
    (other / "run.json").write_text("")
    table = read_runs(tmp_path)
    assert set(table.frame["algorithm"]) == {"bc (tiny@1 0123abcd)"}
    assert [failure.algorithm for failure in table.failures] == ["bc (tiny@1 ffffffff)"]


def test_a_damaged_folder_whose_path_is_not_that_of_a_run_is_left_out_aloud(tmp_path: Path) -> None:
    aside = write_run(tmp_path, 0)
    (aside / "run.json").write_text("")
    aside.rename(aside.with_name("aside"))
    with pytest.raises(InputError, match=r"damaged: .*aside/run\.json: expected the JSON"):
        read_runs(tmp_path)
    write_run(tmp_path, 0)
    table = read_runs(tmp_path)
    assert not table.failures
    assert len(table.frame) == 2
    (note,) = table.notes
    assert "aside is left out, as its name is not that of a run: damaged: " in note


def test_states_of_runs(tmp_path: Path) -> None:
    states = {}
    for seed, status in enumerate(Status):
        stored = RunFolder(write_run(tmp_path, seed, status=status)).read()
        states[status] = stored.state
        assert (stored.cause is None) == (status != Status.FAILED)
    assert states == {
        Status.WAITING: State.UNFINISHED,
        Status.RUNNING: State.UNFINISHED,
        Status.INTERRUPTED: State.UNFINISHED,
        Status.FAILED: State.FAILED,
        Status.DONE: State.DONE,
    }
    (failure,) = read_runs(tmp_path).failures
    assert (failure.seed, failure.cause) == (3, "no cause was noted")
