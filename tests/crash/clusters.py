"""What tests of clusters share: a protocol of a few seconds, and processes that carry it out."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import small_runs
from command_line import Result

from offrl.results.store import RunFolder, run_folders

COMMAND = [sys.executable, "-m", "offrl"]
SECONDS = 240  # that a command takes at most
COPIED = ("--replicas", "2")  # with a kernel, what a run's last digits depend on


def write_protocol(folder: Path, steps: int) -> None:
    """`small.toml` with four runs of so many steps, and its data."""
    small_runs.planned(folder, seeds=range(4))
    file = folder / "small.toml"
    text = file.read_text().replace("steps = 35", f"steps = {steps}")
    file.write_text(text.replace("every = 10", f"every = {steps // 4}"))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """With a cache of the test's own, and nothing of a cluster around it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))}
    own = {"OFFRL_CACHE": str(folder / "cache"), "OFFRL_KERNEL": "batched"}
    own |= {"HOME": str(folder)}  # Ray writes a token there
    return {**kept, **own, **more}


def start(folder: Path, output: str, *words: str, **more: str) -> subprocess.Popen[str]:
    """`offrl run` on the protocol of a folder."""
    return subprocess.Popen(
        [*COMMAND, "run", "small.toml", "-o", output, *COPIED, *words],
        cwd=folder,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> Result:
    """What it prints in the end."""
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"it does not end: {stdout} {stderr}") from None
    return Result(process.returncode, stdout, stderr)


def scores(folder: Path, output: str) -> bytes:
    """The score table of runs, as `offrl scores` writes it."""
    table = folder / f"{output}.csv"
    subprocess.run(
        [*COMMAND, "scores", output, "-o", str(table)],
        cwd=folder,
        env=environment(folder),
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    return table.read_bytes()


def wait_for(seen: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits until something is seen of a process that goes on."""
    until = time.monotonic() + SECONDS
    while not seen():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "nothing was seen"
        time.sleep(0.1)


def under_way(root: Path) -> list[RunFolder]:
    """Runs that have a score and are not done."""
    return [
        folder
        for folder in run_folders(root)
        if folder.record_file.exists() and folder.record().status == "running" and folder.rows()
    ]


def fake_version(folder: Path, package: str, version: str) -> Mapping[str, str]:
    """The environment in which a package says that it is of another version."""
    info = folder / "faked" / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    path = os.pathsep.join(filter(None, (str(info.parent), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path}
