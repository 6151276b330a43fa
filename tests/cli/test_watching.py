"""`offrl status` and `offrl log`: how runs stand, where, and why one failed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import BROKEN, CARD, PROTOCOL, Call, neorl2, spawn

from offrl.files import seal, unseal
from offrl.results.store import RunFolder, run_folders
from offrl.running import tally
from offrl.running.costs import Cost, note
from offrl.running.protocol import find_protocol
from offrl.running.runner import plan
from offrl.running.status import Stand, read_status
from offrl.running.training import train_group


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs, to be copied: done, failed, stale, waiting and damaged."""
    folder = tmp_path_factory.mktemp("made")
    np.savez(folder / "good.npz", **neorl2())  # type: ignore[arg-type]
    (folder / "card.toml").write_text(CARD)
    (folder / "tiny.toml").write_text(PROTOCOL.replace("[0]", "[0, 1, 2, 3]"))
    (folder / "broken.py").write_text(BROKEN)
    planned = [
        *plan(find_protocol(str(folder / "tiny.toml"))).jobs,
        *plan(find_protocol(str(folder / "tiny.toml")), [str(folder / "broken.py")]).jobs[:1],
    ]
    for job in planned:
        train_group([job], folder / "runs", 1, lambda _event: False)
    change(seed_folder(folder, 1), status="interrupted")
    change(seed_folder(folder, 2), status="waiting", sessions=[])
    for seed in (1, 2):
        (seed_folder(folder, seed) / "evaluations.jsonl").unlink()
        shutil.rmtree(seed_folder(folder, seed) / "checkpoint")
    (seed_folder(folder, 3) / "run.json").write_text("{")
    return folder / "runs"


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """The runs, in the folder in which the command line is called."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def seed_folder(tmp_path: Path, seed: int) -> Path:
    (folder,) = (tmp_path / "runs" / "tiny" / "card").glob(f"bc-*/seed-{seed}")
    return folder


def change(folder: Path, **values: Any) -> None:
    file = folder / "run.json"
    record = unseal(json.loads(file.read_text()))
    file.write_text(json.dumps(seal({**record, **values})))


@pytest.mark.usefixtures("runs")
def test_status_counts_runs_by_how_they_stand(call: Call) -> None:
    shown = call("status", "runs")
    assert shown.code == 0
    table = [line.split() for line in shown.stdout.splitlines()]
    assert ["tiny", "mine", "bc", "1", "1", "1"] in table  # done, stale, waiting
    assert ["tiny", "mine", "broken", "1"] in table
    assert ["tiny", "card", "bc", "1"] in table  # by its path alone
    assert "1 of 5 runs are done, 2 failed, 1 stale, 1 waiting" in shown.stdout
    assert "held by no process: give their offrl run again" in shown.stdout
    assert "failed: mine broken seed 0: " in shown.stdout
    assert "cannot learn (run.json has the traceback); offrl log " in shown.stdout
    values = json.loads(call("status", "runs", "--json").stdout)
    assert {stand.value: values[stand.value] for stand in Stand} == {
        "done": 1,
        "running": 0,
        "failed": 2,
        "stale": 1,
        "waiting": 1,
    }
    assert {run["stand"] for run in values["runs"]} == {"done", "failed", "stale", "waiting"}
    done = next(run for run in values["runs"] if run["stand"] == "done")
    assert (done["seed"], done["step"], done["steps"]) == (0, 20, 20)
    assert done["host"] == os.uname().nodename


def test_the_time_to_go_is_what_the_runs_left_will_cost(call: Call, runs: Path) -> None:
    shutil.rmtree(runs / ".costs")
    unknown = "time to go: not known before the first runs have measured their cost"
    assert unknown in call("status", "runs").stdout
    (run, *_) = (r for r in run_folders(runs) if r.read().record is not None)
    record = run.read().record
    assert record is not None
    of = record.identity
    note(runs, Cost.of(of, 1, "cpu", update=60.0, updates=9, episode=15.0))
    # Two runs of 20 updates and two evaluations of two episodes.
    assert "time to go: about 42 min of one process" in call("status", "runs").stdout
    assert read_status(runs).work == 2 * (20 * 60 + 4 * 15)
    assert read_status(runs).unknown == 0


def test_a_run_that_a_process_holds_is_running(runs: Path) -> None:
    path = next(r.path for r in read_status(runs).runs if r.stand is Stand.STALE)
    script = (
        "import sys\nfrom pathlib import Path\nfrom offrl.results.store import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).held():\n    print('held', flush=True)\n    input()"
    )
    words = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        grid = read_status(runs)
        held.communicate("\n")
    (running,) = (run for run in grid.runs if run.stand is Stand.RUNNING)
    assert (running.path, running.process) == (path, held.pid)
    assert running.host == os.uname().nodename
    assert grid.workers == 1
    assert read_status(runs).workers == 0


def test_a_holder_without_beats_for_too_long_holds_nothing(runs: Path) -> None:
    path = next(r.path for r in read_status(runs).runs if r.stand is Stand.STALE)
    lease = path / ".lease-10"  # of another machine, which has gone
    lease.write_text(
        '{"host": "far", "process": 7, "started": "2026-01-01T00:00:00+00:00", '
        '"machine": "another", "locked": true}'
    )
    assert next(r for r in read_status(runs).runs if r.path == path).stand is Stand.RUNNING
    os.utime(lease, (1e9, 1e9))
    assert next(r for r in read_status(runs).runs if r.path == path).stand is Stand.STALE


def test_the_log_of_a_failed_run(call: Call, runs: Path) -> None:
    (failed,) = (runs / "tiny" / "card").glob("broken-*/seed-0")
    shown = call("log", failed).stdout
    assert shown.startswith("mine@1 broken seed 0, tiny@1: failed\nscored up to step 0 of 20\n")
    assert "cause: " in shown
    assert f" on {os.uname().nodename}, offrl " in shown
    assert "RuntimeError: cannot learn\n" in shown
    shown = call("log", seed_folder(runs.parent, 0)).stdout
    assert "bc seed 0, tiny@1: done\nscored up to step 20 of 20\n" in shown
    assert "losses at step 20: actor/loss " in shown


@pytest.mark.usefixtures("runs")
def test_bad_folders(call: Call, tmp_path: Path) -> None:
    assert "no such folder; expected a folder that offrl run" in call("status", "nowhere").error
    (tmp_path / "empty").mkdir()
    assert "no run.json in this folder" in call("status", "empty").error
    assert "see offrl status RUNS" in call("log", "runs").error
    assert "run.json: expected the JSON" in call("log", seed_folder(tmp_path, 3)).error


def test_what_a_stranger_wrote_is_shown_and_not_obeyed(call: Call, runs: Path) -> None:
    (failed,) = (runs / "tiny" / "card").glob("broken-*/seed-0")
    evil = "\x1b[2J[red]\u202e\nnext"
    change(failed, cause=evil, traceback=[evil] * 1000)
    record = RunFolder(failed).read().record
    assert record is not None
    session = record.sessions[0].model_dump()
    session["hardware"]["host"] = evil
    change(failed, sessions=[session])
    for words in (["status", "runs"], ["log", failed]):
        shown = call(*words)
        assert shown.code == 0
        assert "\x1b" not in shown.stdout
        assert "\u202e" not in shown.stdout
        assert r"\x1b[2J[red]\u202e" in shown.stdout.replace("\n", "")
    assert len(call("log", failed).stdout.splitlines()) < 300


@pytest.mark.usefixtures("runs")
def test_only_failed_runs_are_run_again(call: Call, tiny: Path, made: Path, tmp_path: Path) -> None:
    for name in ("tiny.toml", "broken.py"):
        shutil.copy(made.with_name(name), tmp_path)
    (seed_folder(tmp_path, 0) / "evaluations.jsonl").write_text("")  # lacks its rows
    words = ["run", tiny, "-o", "runs", "-j", 1, "--only-failed"]
    again = call(*words)
    assert again.code == 1  # one is damaged beyond help
    assert "1 of 2 runs are done in runs\n" in again.stdout
    assert "done mine bc seed 0 at step 20" in again.stderr
    assert "failed mine bc seed 3 at step 0: damaged: " in again.stderr
    values = read_status(tmp_path / "runs")
    assert [values.count(stand) for stand in (Stand.DONE, Stand.STALE, Stand.WAITING)] == [1, 1, 1]
    shutil.rmtree(seed_folder(tmp_path, 3))
    done = call(*words)
    assert (done.code, done.stdout) == (0, "no run in runs has failed\n")
    assert not (seed_folder(tmp_path, 0).parent / "seed-3").exists()
    broken = call(*words, "--algorithm", "broken.py")
    assert "0 of 1 runs are done" in broken.stdout
    assert "failed mine broken seed 0 at step 1: " in broken.stderr


def test_a_run_that_was_done_before_has_no_line(tiny: Path, tmp_path: Path) -> None:
    done = spawn("run", tiny, "-o", "runs", "-j", 1, cwd=tmp_path)
    assert done.code == 0
    assert "done mine bc seed 0 at step 20" in done.stderr
    again = spawn("run", tiny, "-o", "runs", "-j", 1, cwd=tmp_path)
    assert (again.code, again.stderr) == (0, "")
    assert again.stdout == "1 of 1 runs are done in runs\n"


def test_lines_come_where_no_terminal_is(
    call: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "SECONDS", 0.0)
    shown = call("run", tiny, "-o", "runs", "-j", 1)
    assert shown.code == 0
    assert "0 of 1 runs done, 1 running; 50% of the steps" in shown.stderr
    assert "1 of 1 runs done; 100% of the steps, 0 s to go" in shown.stderr
