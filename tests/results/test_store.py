"""Run folders: what is written, what is read back, and what a damaged one does to the others."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offrl.errors import Damaged, InputError
from offrl.files import CHECKSUM, replacing, seal
from offrl.learning import checkpoint
from offrl.results import leases
from offrl.results.collect import collect, read_runs
from offrl.results.rows import FORMAT, Identity, Numerics, ScoreRow, Status
from offrl.results.store import Held, Lost, RunFolder, State, finish_saving, run_folders

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


def rows_text(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(seal(row)) + "\n" for row in rows)


def change_record(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    record = json.loads((folder / "run.json").read_text())
    change(record)
    (folder / "run.json").write_text(json.dumps(record))


def test_an_older_folder_is_read_and_carried_on_and_gains_the_format_alone(tmp_path: Path) -> None:
    folder = RunFolder(write_run(tmp_path, 0, status="interrupted"))
    before = json.loads((folder.path / "run.json").read_text())
    assert folder.read().state is State.UNFINISHED
    with folder.held():
        folder.begin(Identity(**IDENTITY))
        folder.carry_on([""], 10)
        folder.append(ScoreRow.model_validate({**ROW, "step": 20}))
        folder.set_status(Status.FAILED, "it broke", "Traceback:\n  broken")
    after = json.loads((folder.path / "run.json").read_text())
    assert after.pop("format") == FORMAT
    assert list(after) == [*before, "ways", "traceback", CHECKSUM]
    assert after["ways"] == [""]
    assert after["identity"] == before["identity"]
    assert list(after["identity"]) == list(IDENTITY)
    assert after["sessions"][0] == SESSION
    assert len(after["sessions"]) == 2
    assert (after["status"], after["cause"]) == ("failed", "it broke")
    assert after["traceback"] == ["Traceback:", "  broken"]
    written = (folder.path / "evaluations.jsonl").read_text()
    assert written == rows_text(ROW, {**ROW, "step": 20})
    with folder.held():
        folder.begin(Identity(**IDENTITY))
    again = json.loads((folder.path / "run.json").read_text())
    assert "traceback" not in again
    assert (again["status"], again["cause"]) == ("running", None)


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(), st.integers(0, 2**63 - 1))
def test_a_line_as_it_was_written_gives_the_same_row_as_its_values(
    number: float, text: str, count: int
) -> None:
    """The first has its checksum over the text, and is read in a third of the time."""
    values = {
        **ROW,
        "score": number,
        "metrics": {text: number},
        "step": count,
        "mine": [text, count],
    }
    with tempfile.TemporaryDirectory() as name:
        rows = []
        for line in (
            json.dumps(seal(values)),
            json.dumps(seal(values), indent=None).replace("{", "{ ", 1),
        ):
            (Path(name) / "evaluations.jsonl").write_text(line + "\n")
            rows += RunFolder(Path(name)).rows()
    assert rows[0] == rows[1]
    assert repr(rows[0]) == repr(rows[1])  # a number's type and its last digit too


def test_a_line_whose_checksum_is_right_is_still_checked(tmp_path: Path) -> None:
    """Anybody can make a checksum."""
    path = write_run(tmp_path, 0)
    changes: list[dict[str, Any]] = [{"score": "7"}, {"seed": 1}, {"step": 11}, {"score": None}]
    for change in [*changes, {"returns": [[[]]]}]:
        lines = [{**ROW, **change}, {**ROW, "step": 20}]
        text = "".join(json.dumps(seal(line)) + "\n" for line in lines)
        (path / "evaluations.jsonl").write_text(text)
        stored = RunFolder(path).read()
        assert stored.state is State.LACKING, change
        assert "evaluations.jsonl: line 1" in str(stored.cause)


def test_keys_that_a_model_lacks_are_kept(tmp_path: Path) -> None:
    """A later offrl may add to a folder of the same format; an earlier one leaves that there."""
    path = write_run(tmp_path, 0, status="interrupted")
    change_record(path, lambda record: record.update(kernel="plain"))
    change_record(path, lambda record: record["sessions"][0].update(host="a"))
    (path / "evaluations.jsonl").write_text(json.dumps({**ROW, "energy": 3}) + "\n")
    folder = RunFolder(path)
    with folder.held():
        folder.begin(Identity(**IDENTITY))
        folder.carry_on([""], 10)
    record = json.loads((path / "run.json").read_text())
    assert record["kernel"] == "plain"
    assert record["sessions"][0]["host"] == "a"
    assert (path / "evaluations.jsonl").read_text() == rows_text({**ROW, "energy": 3})


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


def test_a_newer_format_is_that_run_s_failure(tmp_path: Path) -> None:
    path = write_run(tmp_path, 0)
    write_run(tmp_path, 1)
    change_record(path, lambda record: record.update(format=FORMAT + 1, identity="elsewhere"))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    table = read_runs(tmp_path)
    assert set(table.frame["seed"]) == {1}
    (failure,) = table.failures
    assert (failure.algorithm, failure.dataset, failure.seed) == ("bc", "maze", 0)
    assert re.search(r"run\.json: format 2, but .* up to 1; update offrl$", failure.cause)
    folder = RunFolder(path)
    assert (folder.read().state, folder.read().cause) == ("damaged", failure.cause)
    with folder.held(), pytest.raises(InputError, match="update offrl"):
        folder.begin(Identity(**IDENTITY))
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert {file: after[file] for file in before} == before


def torn(folder: Path) -> None:
    """A line in the middle that a crash of the machine cut short."""
    first, second = (folder / "evaluations.jsonl").read_text().splitlines()
    (folder / "evaluations.jsonl").write_text(f"{first[:40]}\n{second}\n")


def write_rows(folder: Path, *changes: dict[str, Any]) -> None:
    """Rows of seed 1 with these changes, without checksums, as earlier versions wrote them."""
    (folder / "evaluations.jsonl").write_text(
        "".join(json.dumps({**ROW, "seed": 1, **change}) + "\n" for change in changes)
    )


def seal_record(folder: Path, old: str, new: str) -> None:
    """Changes the text of a sealed record."""
    values = json.loads((folder / "run.json").read_text())
    text = json.dumps(seal(values))
    assert old in text
    (folder / "run.json").write_text(text.replace(old, new))


def seal_rows(folder: Path, old: str, new: str) -> None:
    """Changes the text of sealed rows."""
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    text = rows_text(*map(json.loads, lines))
    assert old in text
    (folder / "evaluations.jsonl").write_text(text.replace(old, new))


DEEP = "[" * 200 + "]" * 200
RECORDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda f: (f / "run.json").write_text(""), "run.json: expected the JSON that offrl"),
    "not JSON": (lambda f: (f / "run.json").write_text("{"), "run.json: expected the JSON that"),
    "not text": (lambda f: (f / "run.json").write_bytes(b"\xff\x00"), "run.json: expected the"),
    "a list": (lambda f: (f / "run.json").write_text("[]"), "a list; expected a JSON object"),
    "nested": (lambda f: (f / "run.json").write_text("[" * 10**5), "run.json: expected the JSON"),
    "deep": (
        lambda f: change_record(f, lambda r: r["identity"].update(config=json.loads(DEEP))),
        "it has more than 50 levels",
    ),
    "gone": (lambda f: (f / "run.json").unlink(), "run.json: expected the JSON that offrl writes"),
    "digits": (lambda f: (f / "run.json").write_text('{"a": ' + "1" * 5000 + "}"), "4300 digits"),
    "no identity": (
        lambda f: change_record(f, lambda record: record.pop("identity")),
        "run.json: identity: Field required",
    ),
    "no label": (
        lambda f: change_record(f, lambda record: record["identity"].pop("label")),
        "run.json: identity.label: Field required",
    ),
    "evaluated less than never": (
        lambda f: change_record(f, lambda r: r["identity"]["evaluation"].update(every=-1)),
        "run.json: identity.evaluation.every: Input should be greater than or equal to 0",
    ),
    "a nameless data set": (
        lambda f: change_record(f, lambda record: record["identity"].update(dataset="@1")),
        "run.json: identity.dataset: ",
    ),
    "a huge seed": (
        lambda f: change_record(f, lambda record: record["identity"].update(seed=2**70)),
        "run.json: identity.seed: ",
    ),
    "another seed": (
        lambda f: change_record(f, lambda record: record["identity"].update(seed=0)),
        "expected algorithm, config and seed ('bc', '0123abcd', '1') of its folder, found",
    ),
    "another status": (
        lambda f: change_record(f, lambda record: record.update(status="paused")),
        "run.json: status: Input should be 'waiting', 'running', 'done', 'failed' or 'interrupted'",
    ),
    "a wrong format": (
        lambda f: change_record(f, lambda record: record.update(format="new")),
        "run.json: format: ",
    ),
    "a flipped bit": (
        lambda f: seal_record(f, '"lr": 0.001', '"lr": 0.003'),
        "run.json: expected the JSON that offrl writes, but its checksum is ",
    ),
}
ROWS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "torn": (torn, "evaluations.jsonl: line 1: expected the JSON that offrl writes, but"),
    "not text": (
        lambda f: (f / "evaluations.jsonl").write_bytes(b"\xff\xfe\n"),
        "line 1: expected the JSON that offrl writes, but 'utf-8' codec can't decode",
    ),
    "no step": (
        lambda f: (f / "evaluations.jsonl").write_text("{}\n"),
        "evaluations.jsonl: line 1: protocol: Field required",
    ),
    "another's rows": (
        lambda f: write_rows(f, {"seed": 2}, {"seed": 2, "step": 20}),
        "line 1: expected a row of ('tiny@1', 'maze@2', 'bc', '0123abcd', 1), found",
    ),
    "another data set's": (
        lambda f: write_rows(f, {}, {"dataset": "maze@3", "step": 20}),
        "line 2: expected a row of ('tiny@1', 'maze@2', ",
    ),
    "no rows": (
        lambda f: (f / "evaluations.jsonl").unlink(),
        "the run is done, so expected 2 scores up to step 20, found none",
    ),
    "an empty file": (
        lambda f: (f / "evaluations.jsonl").write_text(""),
        "the run is done, so expected 2 scores up to step 20, found none",
    ),
    "fewer rows": (
        lambda f: write_rows(f, {}),
        "the run is done, so expected 2 scores up to step 20, found 1 up to step 10",
    ),
    "a hole": (
        lambda f: write_rows(f, {"step": 20}),
        "line 1: expected step and way to act (10, ''), found (20, '')",
    ),
    "a row more": (
        lambda f: write_rows(f, {}, {"step": 20}, {"step": 20}),
        "line 3: expected step and way to act (-1, ''), found (20, '')",
    ),
    "a row twice": (
        lambda f: write_rows(f, {}, {}, {"step": 20}),
        "line 2: expected step and way to act (20, ''), found (10, '')",
    ),
    "a way less": (
        lambda f: write_rows(f, {"policy": "still"}, {}, {"policy": "still", "step": 20}),
        "the run is done, so expected 4 scores up to step 20, found 3 up to step 20",
    ),
    "no number": (
        lambda f: write_rows(f, {}, {"step": 20, "score": float("nan")}),
        "line 2: score: Input should be a finite number, found nan",
    ),
    "an infinite return": (
        lambda f: write_rows(f, {}, {"step": 20, "returns": [1.0, float("inf")]}),
        "line 2: returns.1: Input should be a finite number, found inf",
    ),
    "a flipped digit": (
        lambda f: seal_rows(f, '"score": 12.5', '"score": 13.5'),
        "line 1: expected the JSON that offrl writes, but its checksum is ",
    ),
}


@pytest.mark.parametrize("name", [*RECORDS, *(f"rows: {name}" for name in ROWS)])
def test_a_damaged_folder_is_a_failure_beside_the_others(name: str, tmp_path: Path) -> None:
    folders = [write_run(tmp_path, seed) for seed in range(3)]
    whole = read_runs(tmp_path)
    is_rows = name.startswith("rows: ")
    damage, cause = ROWS[name[6:]] if is_rows else RECORDS[name]
    damage(folders[1])
    assert len(run_folders(tmp_path)) == 3
    stored = RunFolder(folders[1]).read()
    assert stored.state is (State.LACKING if is_rows else State.DAMAGED)
    assert stored.rows == ()
    for table in (read_runs(tmp_path), collect([tmp_path])):
        (failure,) = table.failures
        assert (failure.algorithm, failure.dataset, failure.seed) == ("bc", "maze", 1)
        assert failure.cause == stored.cause
        assert failure.cause.startswith(f"damaged: {folders[1]}/")
        assert cause in failure.cause
        advice = "offrl run runs it again" if is_rows else "delete the folder and run it"
        assert advice in failure.cause
        assert "or restore the file" in failure.cause
        assert "\n" not in failure.cause
        expected = whole.frame[whole.frame["seed"] != 1].reset_index(drop=True)
        assert table.frame.equals(expected)
        assert table.notes == whole.notes
    run = RunFolder(folders[1])
    with run.held():
        if not is_rows:
            with pytest.raises(Damaged):
                run.begin(Identity(**{**IDENTITY, "seed": 1}))
            return
        run.begin(Identity(**{**IDENTITY, "seed": 1}))
        assert run.carry_on([""], 0) == []
    assert run.read().state is State.UNFINISHED


BOMBS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "holes": ("run.json", lambda p: os.truncate(p, 2**40), "above 268435456 B"),
    "holes for rows": ("evaluations.jsonl", lambda p: os.truncate(p, 2**40), "above 268435456 B"),
    "values": ("run.json", lambda p: p.write_text("[" + "{}," * 2**24 + "0]"), "16,777,216 bytes"),
    "values in a row": (
        "evaluations.jsonl",
        lambda p: p.write_text("[" + "{}," * 2**24 + "0]\n"),
        "line 1: .* 16,777,216 bytes",
    ),
    "empty rows": ("evaluations.jsonl", lambda p: p.write_bytes(b"\n" * 2**26), "line 1: expected"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_large_files_are_that_runs_failure_and_take_no_memory(name: str, tmp_path: Path) -> None:
    file, damage, cause = BOMBS[name]
    folders = [write_run(tmp_path, seed) for seed in range(2)]
    damage(folders[1] / file)
    tracemalloc.start()
    try:
        (failure,) = read_runs(tmp_path).failures
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert re.search(rf"seed-1/{file}: .*{cause}", failure.cause)
    assert peak < 2**29 + 2**26  # what is read of a file, twice


def test_rows_up_to_the_checkpoint_are_demanded_of_an_unfinished_run(tmp_path: Path) -> None:
    folder = RunFolder(write_run(tmp_path, 0, status="interrupted"))
    checkpoint.save(folder.checkpoint, {"step": 15, "learner": {"w": torch.ones(2)}})
    assert folder.read().state is State.UNFINISHED
    lines = folder.rows_file.read_text().splitlines(keepends=True)
    folder.rows_file.write_text(lines[0])  # 20 is beyond the checkpoint
    assert folder.read().state is State.UNFINISHED
    for text, cause in [
        ("", "the checkpoint is at step 15, so expected 1 scores up to step 15, found none"),
        (lines[0][:-1], "so expected 1 scores up to step 15, found none"),
        (lines[1], "line 1: expected step and way to act (10, ''), found (20, '')"),
    ]:
        folder.rows_file.write_text(text)
        stored = folder.read()
        assert stored.state is State.LACKING
        assert cause in str(stored.cause)
        with folder.held(), pytest.raises(Damaged):
            folder.carry_on([""], 15)
        assert folder.rows_file.read_text() == text
    folder.rows_file.write_text(lines[0] + "torn")
    with folder.held():
        assert [row.step for row in folder.carry_on([""], 15)] == [10]
    assert folder.rows_file.read_text() == rows_text(json.loads(lines[0]))


@pytest.mark.parametrize("left", [b"", b"x" * 90, b"\x08" + bytes(7) + b'{"a":1} '])
def test_a_checkpoint_that_is_none_is_a_gap_of_its_run(left: bytes, tmp_path: Path) -> None:
    folder = RunFolder(write_run(tmp_path, 0, status="interrupted"))
    folder.checkpoint.parent.mkdir()
    folder.checkpoint.write_bytes(left)
    stored = folder.read()
    assert stored.state is State.LACKING
    assert "state.safetensors: expected a checkpoint of offrl, but " in str(stored.cause)


def replaced(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


NUMERICS = Numerics(
    step=0, replicas=1, group=None, kernel="blas", dtype="float32", threads=1, device="cpu"
)
STATE = {"step": 10, "learner": {"w": torch.ones(2)}}
WRITES: dict[str, Callable[[RunFolder], Any]] = {
    "a new record": lambda run: run.enlist(Identity(**IDENTITY)),
    "a beginning": lambda run: run.begin(Identity(**IDENTITY)),
    "rows that are kept": lambda run: run.carry_on([""], 10),
    "a row": lambda run: run.append(ScoreRow.model_validate(ROW)),
    "an end": lambda run: run.set_status(Status.DONE),
    "a failure": lambda run: run.fail("it broke"),
    "numerics": lambda run: run.note_numerics(NUMERICS),
    "a checkpoint": lambda run: checkpoint.save(run.checkpoint, STATE, run.check_held),
    "checkpoints of a group": lambda run: finish_saving({run: 20}),
    "no checkpoint": lambda run: run.drop_checkpoint(),
    "metrics": lambda run: run.append_metrics([(10, {"actor/loss": 0.5})]),
    "a lost process": lambda run: run.note_attempt("killed", "a host"),
    "more steps": lambda run: run.lengthen(Identity(**{**IDENTITY, "steps": 40}), "", write=True),
}


@pytest.mark.parametrize("name", WRITES)
def test_who_lost_a_run_writes_nothing(name: str, tmp_path: Path) -> None:
    run = RunFolder(write_run(tmp_path, 0, status="interrupted"))
    checkpoint.save(run.checkpoint, STATE)
    checkpoint.save(run.upcoming, {**STATE, "step": 11})
    with run.held():
        (run.path / ".lease-2").write_text("another's")
        if name == "a new record":
            run.record_file.unlink()
            run.rows_file.unlink()
        before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        with pytest.raises(Lost, match=r"has taken this run over .*; nothing more is written"):
            WRITES[name](run)
        assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_a_write_that_was_stopped_halfway_puts_nothing_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes a run over removes what its former holder began to write, which it then misses."""
    monkeypatch.setenv(leases.SECONDS, "0.1")
    run = RunFolder(write_run(tmp_path, 0, status="interrupted"))
    before = run.record_file.read_bytes()

    def write() -> None:
        with replacing(run.record_file) as temporary:
            temporary.write_text("of the former holder")
            (run.path / ".lease-2").write_text("another's")
            os.utime(run.path / ".lease-2", (0, 0))
            leases.wait(run.path, 30).release()

    with run.held(), pytest.raises(InputError, match="cannot be written"):
        write()
    assert run.record_file.read_bytes() == before


def touched(path: Path) -> Path:
    path.touch()
    return path


FOREIGN: dict[str, Callable[[Path, Path], Any]] = {
    "a pipe for run.json": lambda f, _: os.mkfifo(replaced(f / "run.json")),
    "a pipe for rows": lambda f, _: os.mkfifo(replaced(f / "evaluations.jsonl")),
    "another's file for the lease": lambda f, o: os.link(o / "rows", f / ".lease-1"),
    "a pipe for the lease": lambda f, _: os.mkfifo(f / ".lease-1"),
    "a folder for the lease": lambda f, _: (f / ".lease-1").mkdir(),
    "a linked lease": lambda f, o: (f / ".lease-1").symlink_to(o / "rows"),
    "a lease of 1 TB": lambda f, _: os.truncate(touched(f / ".lease-1"), 2**40),
    "a lease with the last number": lambda f, _: touched(f / f".lease-{10**18 - 1}"),
    "zeros without end": lambda f, _: replaced(f / "run.json").symlink_to("/dev/zero"),
    "rows without end": lambda f, _: replaced(f / "evaluations.jsonl").symlink_to("/dev/zero"),
    "a folder for run.json": lambda f, _: replaced(f / "run.json").mkdir(),
    "linked rows": lambda f, o: replaced(f / "evaluations.jsonl").symlink_to(o / "rows"),
    "a linked checkpoint": lambda f, o: replaced(f / "checkpoint").symlink_to(o),
    "a linked run": lambda f, o: replaced(f).symlink_to(o),
    "a link to itself": lambda f, _: replaced(f / "run.json").symlink_to("run.json"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_pipes_devices_and_links_are_a_failure_of_that_run(name: str, tmp_path: Path) -> None:
    """Nothing hangs, nothing is read or written elsewhere, and the run does not vanish."""
    root, outside = tmp_path / "runs", tmp_path / "outside"
    for seed in range(3):
        write_run(root, seed, status="interrupted")
    path = RunFolder(write_run(root, 3)).path
    write_run(tmp_path / "other", 3, status="interrupted").rename(outside)
    (outside / "rows").write_text((outside / "evaluations.jsonl").read_text())
    (outside / ".x.tmp").write_text("mine")
    before = {p.name: p.read_bytes() for p in outside.iterdir() if p.is_file()}
    FOREIGN[name](path, outside)
    table = read_runs(root)
    assert len(table.frame) == (8 if "lease" in name else 6)
    if "lease" not in name:
        (failure,) = table.failures
        assert failure.seed == 3
        assert failure.cause.startswith(f"unreadable: {path}")
        assert "\n" not in failure.cause
    folder = RunFolder(path, root)
    with pytest.raises((Damaged, Held), match=str(path)), folder.held(timeout=0.1):
        folder.begin(Identity(**{**IDENTITY, "seed": 3}))
    assert {p.name: p.read_bytes() for p in outside.iterdir() if p.is_file()} == before


def test_links_within_the_store_are_no_second_runs_and_links_away_are_named(
    tmp_path: Path,
) -> None:
    root = tmp_path / "runs"
    write_run(root, 0)
    (root / "latest").symlink_to(root / "tiny", target_is_directory=True)
    table = read_runs(root)
    assert (len(table.frame), len(table.failures), len(table.notes)) == (2, 0, 0)
    write_run(tmp_path / "scratch", 1, protocol="large@1")
    (root / "large").symlink_to(tmp_path / "scratch")
    table = read_runs(root)
    assert len(table.frame) == 2
    (note,) = table.notes
    assert f"{root}/large is left out" in note
    assert "it is a link" in note
    linked = root / "large" / "tiny" / "my-maze" / "bc-0123abcd" / "seed-1"
    stored = RunFolder(linked, root).read()
    assert stored.state is State.DAMAGED
    assert f"{root}/large: it is a link" in str(stored.cause)


def test_a_copy_of_a_run_is_left_out_by_its_path_and_stops_nothing(tmp_path: Path) -> None:
    folder = write_run(tmp_path, 0)
    write_run(tmp_path, 1)
    shutil.copytree(folder, folder.with_name("seed-0.bak"))
    empty = folder.with_name("copy")
    shutil.copytree(folder, empty)
    (empty / "evaluations.jsonl").write_text("")
    table = read_runs(tmp_path)
    assert len(table.frame) == 4
    assert not table.failures
    left = [f"{folder.with_name(name)} is left out, as {folder}" for name in ("copy", "seed-0.bak")]
    assert [note.partition(" holds")[0] for note in table.notes] == left


def test_a_damaged_folder_of_a_runs_name_gives_way_to_a_whole_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path, 0)
    lost = write_run(tmp_path / "older", 0)
    (lost / "evaluations.jsonl").write_text("")
    table = read_runs(tmp_path)
    assert (len(table.frame), table.failures) == (2, ())
    assert table.notes == (f"{lost} is left out, as {folder} holds the same run",)
    (folder / "evaluations.jsonl").write_text("")
    assert len(read_runs(tmp_path).failures) == 1


def test_two_whole_folders_of_one_run_are_named(tmp_path: Path) -> None:
    folders = sorted([write_run(tmp_path, 0), write_run(tmp_path / "older", 0)])
    with pytest.raises(InputError, match="hold the same run; move one") as caught:
        read_runs(tmp_path)
    assert all(str(folder) in str(caught.value) for folder in folders)


READ_AS_ANOTHER = """
import os, sys
from pathlib import Path
import offrl.results.collect
offrl.results.collect.read_runs(Path(sys.argv[1]))  # imports all that the other user may not read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
table = offrl.results.collect.read_runs(Path(sys.argv[1]))
print(len(table.frame))
for failure in table.failures:
    print(failure.seed, failure.cause)
for note in table.notes:
    print(note)
"""


@pytest.mark.parametrize("closed", ["seed-1", "seed-1/run.json", "seed-1/evaluations.jsonl", "."])
def test_what_may_not_be_read_does_not_vanish(closed: str) -> None:
    # Not in pytest's own folder, which every session that begins closes to other users.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        root = Path(place) / "runs"
        for seed in range(3):
            folder = write_run(root, seed).parent
        write_run(root, 0, label="other")
        (folder / closed).chmod(0)
        if os.getuid():
            table = read_runs(root)
            lines = [str(len(table.frame)), *(f"{f.seed} {f.cause}" for f in table.failures)]
            lines += table.notes
        else:
            result = subprocess.run(
                [sys.executable, "-c", READ_AS_ANOTHER, root], capture_output=True, text=True
            )
            assert result.returncode == 0, result.stderr
            lines = result.stdout.splitlines()
        (folder / closed).chmod(0o755)
    assert len(lines) == 2
    assert "Permission denied" in lines[1]
    assert str(folder) in lines[1]
    if closed == ".":
        assert lines[0] == "2"
        assert "is left out" in lines[1]
    else:
        assert lines[0] == "6"
        assert lines[1].startswith("1 unreadable: ")


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


def test_a_run_s_name_in_another_unicode_form_is_one_name_and_noted(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    write_run(tmp_path / "runs", 0, label=apart)
    write_run(tmp_path / "runs", 1, status="failed", label=apart)
    (tmp_path / "s.csv").write_text(f"algorithm,dataset,seed,score\n{composed},maze,2,5\n")
    alone = read_runs(tmp_path / "runs")
    assert alone.algorithms == [composed]
    assert [failure.algorithm for failure in alone.failures] == [composed]
    assert not any("Unicode" in note for note in alone.notes)
    whole = collect([tmp_path / "runs", tmp_path / "s.csv"])
    assert whole.algorithms == [composed]
    assert sum("several Unicode forms" in note for note in whole.notes) == 1
    assert len(whole.selected(algorithms=[apart]).provenance) == 3
