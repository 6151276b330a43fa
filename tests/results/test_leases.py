"""Leases between real processes, some of which are killed or stopped."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from offrl.errors import InputError
from offrl.results import leases
from offrl.results.leases import Occupied, check_locks, holder, take, wait

HOLD = """
import sys
from pathlib import Path
from offrl.results.leases import take
lease = take(Path(sys.argv[1]))
print(lease.number, flush=True)
for line in sys.stdin:
    print(lease.is_mine(), flush=True)
lease.release()
"""


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """A lease's limit, far shorter than five minutes."""
    monkeypatch.setenv(leases.SECONDS, "1")
    return 1.0


@contextmanager
def another(folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """A process that holds a folder; a line to it asks whether it does still."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], **pipes)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        yield process


def asked(process: "subprocess.Popen[str]") -> bool:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline() == "True\n"


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.name[7:]) for path in folder.glob(".lease-*"))


def test_a_lease_that_is_given_back_is_taken_with_the_next_number(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        assert holder(tmp_path) is None
        lease = take(tmp_path)
        assert lease.is_mine()
        assert lease.number == number
        found = holder(tmp_path)
        assert found is not None
        assert found.holder is not None
        assert found.holder.process == os.getpid()
        lease.release()
        assert numbers(tmp_path) == [number]  # the older files are gone, and no number comes twice


def test_a_live_process_keeps_its_lease_and_is_named(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        with pytest.raises(Occupied, match=rf"process {process.pid} on host .* \(since 2.* UTC, l"):
            wait(tmp_path, 0.3)
        assert asked(process)
        process.communicate()
        assert take(tmp_path).number == 2


def test_a_killed_process_is_followed_at_once(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        process.kill()
        process.wait()
        (tmp_path / ".run.json.12345678.tmp").write_text("half")
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint" / ".state.safetensors.12345678.tmp").write_text("half")
        lease = take(tmp_path)
    assert lease.number == 2
    assert not list(tmp_path.rglob("*.tmp"))  # nothing is left that it could put in place


def test_the_process_number_of_another_confuses_nothing(tmp_path: Path) -> None:
    """The lease names a process that lives, but nobody has locked it: its holder is gone."""
    with another(tmp_path) as process:
        process.kill()
        process.wait()
        path = tmp_path / ".lease-1"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "process": os.getpid()}))
        assert take(tmp_path).number == 2


@pytest.mark.usefixtures("seconds")
def test_a_stopped_process_is_followed_after_the_limit_and_finds_out(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        lease = wait(tmp_path, 30.0)
        assert time.monotonic() - begun >= 0.7  # the last beat was up to 0.1 s before
        assert (lease.number, numbers(tmp_path)) == (2, [2])
        os.kill(process.pid, signal.SIGCONT)
        assert not asked(process)
        process.communicate()
        assert lease.is_mine()  # what the other gave back was no longer its own
        lease.release()


def test_a_clock_that_jumps_takes_no_live_lease_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(leases.SECONDS, "10")
    with another(tmp_path) as process:
        for moved in (-10_000, 10_000):
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                at = time.time() + moved
                os.utime(tmp_path / ".lease-1", (at, at))
                with pytest.raises(Occupied) as refused:
                    wait(tmp_path, 0.5)
                assert refused.value.lease.silent or abs(refused.value.lease.beat or 0) < 5
        assert asked(process)


def elsewhere(folder: Path, age: float = 0.0, **changes: Any) -> Path:
    """The lease of a process on another host."""
    values = {
        "host": "far\x1b[2Jaway",
        "process": 7,
        "started": "2026-01-02T03:04:05+00:00",
        "machine": "another",
        "locked": True,
    }
    path = folder / ".lease-4"
    path.write_text(json.dumps({**values, **changes}))
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.usefixtures("seconds")
def test_a_lease_of_another_host_lives_as_long_as_it_beats(tmp_path: Path) -> None:
    path, ended = elsewhere(tmp_path), threading.Event()

    def beat() -> None:
        while not ended.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(Occupied) as refused:
            wait(tmp_path, 2.0, patient=True)
    finally:
        ended.set()
        thread.join()
    assert r"process 7 on host far\x1b[2Jaway (since 2026-01-02 03:04:05 UTC" in str(refused.value)
    begun = time.monotonic()
    assert wait(tmp_path, 30.0).number == 5
    assert 0.5 < time.monotonic() - begun < 10.0


@pytest.mark.usefixtures("seconds")
@pytest.mark.parametrize("moved", [-1e6, 1e6], ids=["in the past", "in the future"])
def test_a_silent_lease_is_waited_for_without_more_time(moved: float, tmp_path: Path) -> None:
    """Whatever its clock said, it ends; one in the past as soon as two beats were due."""
    elsewhere(tmp_path, age=-moved)
    with pytest.raises(Occupied, match="taken over after 1 s without one"):
        wait(tmp_path, 0.0)
    begun = time.monotonic()
    assert wait(tmp_path, 0.0, patient=True).number == 5
    assert time.monotonic() - begun > (0.15 if moved < 0 else 0.8)


@pytest.mark.usefixtures("seconds")
@pytest.mark.parametrize("text", ["?", '{"host": 1}', "[" * 4000, '{"process": 1e999}'])
def test_a_lease_that_names_nobody_ends_without_beats(text: str, tmp_path: Path) -> None:
    (tmp_path / ".lease-1").write_text(text)
    with pytest.raises(Occupied, match="a process that its lease does not name"):
        take(tmp_path)
    assert wait(tmp_path, 30.0).number == 2


def test_what_is_no_lease_is_passed_over(tmp_path: Path) -> None:
    for name in (".lease-0", ".lease-01", ".lease--1", f".lease-{10**18}", ".lease-1x", ".lease-"):
        (tmp_path / name).mkdir()
    lease = take(tmp_path)
    assert lease.number == 1
    lease.release()


def test_one_of_many_that_take_at_once_has_it(tmp_path: Path) -> None:
    """Each process takes and gives back as fast as it can, and looks whether it was alone."""
    script = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from offrl.results.leases import Occupied, take
        folder, taken = Path(sys.argv[1]), 0
        while taken < 40:
            try:
                lease = take(folder)
            except Occupied:
                continue
            os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
            assert lease.is_mine()
            os.unlink(folder / "alone")
            lease.release()
            taken += 1
            print(lease.number)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    taken = [int(line) for out, _ in outputs for line in out.split()]
    assert len({*taken}) == 120
    for out, _ in outputs:
        own = [int(line) for line in out.split()]
        assert own == sorted(own)


def test_locks_are_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_locks(tmp_path)
    assert not list(tmp_path.iterdir())
    opened = os.open

    def careless(path: Any, flags: int, *mode: int) -> int:
        return opened(path, flags & ~os.O_EXCL, *mode)

    monkeypatch.setattr(os, "open", careless)
    with pytest.raises(InputError, match=f"{re.escape(str(tmp_path))}: .* no working locks: .* -o"):
        check_locks(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", lambda *_: None)
    with pytest.raises(InputError, match="no working locks"):
        check_locks(tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_without_locks_of_files_beats_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", unsupported)
    lease = take(tmp_path)
    assert json.loads(lease.path.read_text())["locked"] is False
    with pytest.raises(Occupied):
        take(tmp_path)
    lease.release()
    assert take(tmp_path).number == 2


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_no_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(leases.SECONDS, text)
    with pytest.raises(InputError, match="OFFRL_LEASE_SECONDS: expected seconds"):
        leases.limit()
