"""Each damage of each file of a store: the same scores, or a failure of that run; never others."""

import collections
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_runs

from offrl.results import store
from offrl.results.store import RunFolder, State
from offrl.running.opening import Interrupted
from offrl.running.runner import Plan
from offrl.running.training import train_run

FILES = ("run.json", "evaluations.jsonl", "checkpoint/state.safetensors")


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damages(data: bytes, flips: int) -> Iterator[tuple[str, bytes | None]]:
    """Ways in which a file may be damaged, by name, with what is left; None where nothing is."""
    yield "cut by a byte", data[:-1]
    yield "cut in half", data[: len(data) // 2]
    yield "without its first line", data.partition(b"\n")[2]
    yield "emptied", b""
    yield "zeroed", bytes(len(data))
    yield "zeroed in part", data[: len(data) // 3] + bytes(len(data) // 3)
    yield "deleted", None
    yield "garbage", bytes(range(256)) * (len(data) // 256 + 1)
    yield "text", b"not found\n"
    yield "twice", data + data
    for number in range(flips):
        bit = number * (8 * len(data) - 1) // (flips - 1)
        yield f"bit {bit} flipped", flip(data, bit)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    logging.getLogger("offrl").setLevel(logging.ERROR)
    patch = pytest.MonkeyPatch()
    patch.setattr(store, "commit", lambda: None)  # git takes longer than the run
    yield small_runs.planned(tmp_path_factory.mktemp("plan"))
    patch.undo()
    logging.getLogger("offrl").setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def finished(runs: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    small_runs.carry_out(runs, root)
    return root


@pytest.fixture(scope="module")
def unfinished(runs: Plan, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seed 0 stopped after two of four evaluations; seed 1 is done."""
    root = tmp_path_factory.mktemp("unfinished")
    shutil.copytree(finished, root, dirs_exist_ok=True)
    first = runs.jobs[0]
    shutil.rmtree(first.folder(root))
    with pytest.raises(Interrupted):
        train_run(first, root, small_runs.stop_after(20))
    assert RunFolder(first.folder(root)).read().state is State.UNFINISHED
    return root


def check_damages(
    runs: Plan, source: Path, finished: Path, work: Path, flips: int
) -> dict[str, int]:
    """Tries all; the number of each outcome. Fails where a run has other scores in silence."""
    first, second = runs.jobs
    before = small_runs.scores(source)
    whole, other = small_runs.scores(finished), small_runs.rows(second, finished)
    expected = small_runs.rows(first, finished)
    earlier = small_runs.rows(first, source)
    counts: collections.Counter[str] = collections.Counter()
    for name in FILES:
        data = (first.folder(source) / name).read_bytes()
        for what, left in damages(data, flips):
            case = f"{name} {what}"
            root = work / "store"
            shutil.copytree(source, root)
            file = first.folder(root) / name
            file.unlink() if left is None else file.write_bytes(left)
            counts["damages"] += 1

            stored = RunFolder(first.folder(root)).read()
            if stored.cause is None:
                kept = [row.model_dump(exclude={"wall_time"}) for row in stored.rows]
                # Rows after the checkpoint are no loss of an unfinished run: it writes them again.
                lost = stored.state is State.UNFINISHED and kept == earlier[: len(kept)]
                assert small_runs.scores(root) == before or lost, case
            else:
                assert first.folder(root).name in stored.cause, case
                assert "\n" not in stored.cause, case
                assert small_runs.scores(root) != before, case  # the table has the failure
                counts["seen by a reader"] += 1

            failed = [event for event in small_runs.carry_out(runs, root) if event.cause]
            assert small_runs.rows(second, root) == other, case
            if failed:
                assert [event.job for event in failed] == [first], case
                assert name == "run.json", case
                assert "delete the folder" in str(failed[0].cause), case
                counts["a failure of that run"] += 1
            else:
                assert small_runs.rows(first, root) == expected, case
                assert small_runs.scores(root) == whole, case
                counts["the same scores"] += 1
            assert not small_runs.left_over(root), case
            shutil.rmtree(root)
    sys.stdout.write(f"{dict(counts)}\n")
    return dict(counts)


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_each_damage_of_each_file(
    state: str, runs: Plan, unfinished: Path, finished: Path, tmp_path: Path
) -> None:
    source = unfinished if state == "unfinished" else finished
    counts = check_damages(runs, source, finished, tmp_path, flips=8)
    assert counts["damages"] == 3 * 18
    assert counts["the same scores"] >= 2 * 18


@pytest.mark.nightly  # 2,400 stores
@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_flipped_bits_all_over(
    state: str, runs: Plan, unfinished: Path, finished: Path, tmp_path: Path
) -> None:
    source = unfinished if state == "unfinished" else finished
    assert check_damages(runs, source, finished, tmp_path, flips=400)["damages"] == 3 * 410
