"""Kills a run before, amid and after each of its file operations, and carries it on.

    python kills.py FOLDER TIMES REPLICAS

With TIMES above 1 what carries it on is killed too, at other moments, before it is left alone. With
REPLICAS above 1 so many runs train as one group. A
process without threads of its own, so that it can fork: a fork costs a hundredth of an import of
torch. Prints a line of JSON with the counts.
"""

import collections
import functools
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import small_runs
import torch

from offrl.results import store
from offrl.running.runner import Plan

CALLS = ("open", "mkdir", "unlink", "remove", "rmdir", "rename", "replace", "link", "symlink")


class Operations:
    """Counts this process's file operations below a folder, and ends it at one of them.

    Args:
        root: the folder.
        number: of the moment at which SIGKILL comes; each operation has one before and one after
            it, and writing one amid it, when half of the text is on the disk.
    """

    def __init__(self, root: Path, number: int | None):
        self.root = str(root)
        self.number = number
        self.moments: list[str] = []

    def pass_moment(self, name: str) -> None:
        if len(self.moments) == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        self.moments.append(name)

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        for name in ("fsync", "write", "pwrite", "ftruncate"):  # of descriptors
            setattr(os, name, self._counted(name, getattr(os, name), everywhere=True))
        io.open = self._counted_file(io.open)

    def _is_inside(self, path: Any) -> bool:
        return not isinstance(path, int) and os.fspath(path).startswith(self.root)

    def _counted(self, name: str, call: Callable[..., Any], *, everywhere: bool = False) -> Any:
        def counted(path: Any, *args: Any, **keys: Any) -> Any:
            if not everywhere and not self._is_inside(path):
                return call(path, *args, **keys)
            if name == "open" and not args[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return call(path, *args, **keys)
            what = name if everywhere else f"{name} {Path(os.fspath(path)).name}"
            self.pass_moment(f"before {what}")
            result = call(path, *args, **keys)
            self.pass_moment(f"after {what}")
            return result

        return counted

    def _counted_file(self, call: Callable[..., Any]) -> Any:
        def counted(path: Any, mode: str = "r", *args: Any, **keys: Any) -> Any:
            if not self._is_inside(path) or "r" in mode:
                return call(path, mode, *args, **keys)
            what = f"open {Path(os.fspath(path)).name} {mode}"
            self.pass_moment(f"before {what}")
            file = call(path, mode, *args, **keys)
            self.pass_moment(f"after {what}")
            return Written(file, self)

        return counted


class Written:
    """A file whose writing has a moment amid it."""

    def __init__(self, file: Any, operations: Operations):
        self.file = file
        self.operations = operations

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: Any) -> None:
        half = len(data) // 2
        self.file.write(data[:half])
        self.file.flush()
        self.operations.pass_moment("amid write")
        self.file.write(data[half:])
        self.file.flush()
        self.operations.pass_moment("after write")


def in_fork(work: Callable[[], Any]) -> int:
    """The status of a process of its own in which `work` is done."""
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def moments(runs: Plan, root: Path, replicas: int, report: Path) -> list[str]:
    """Every moment of whole runs."""

    def work() -> None:
        operations = Operations(root, None)
        operations.install()
        small_runs.carry_out(runs, root, replicas)
        report.write_text(json.dumps(operations.moments))

    assert in_fork(work) == 0
    return list(json.loads(report.read_text()))


def main(folder: Path, times: int, replicas: int) -> None:
    torch.set_num_threads(1)
    vars(store)["commit"] = lambda: None  # git, which takes longer than the run
    runs = small_runs.planned(folder, seeds=range(replicas))
    names = moments(runs, folder / "alone", replicas, folder / "moments.json")
    expected = small_runs.scores(folder / "alone")
    curves = small_runs.curves(folder / "alone")
    assert len(curves) == replicas
    counts = collections.Counter(operations=sum(name.startswith("before") for name in names))

    def killed(root: Path, number: int) -> None:
        Operations(root, number).install()
        small_runs.carry_out(runs, root, replicas)

    for number, name in enumerate(names):
        if times == 1 and name.startswith("after") and number + 1 < len(names):
            continue  # the disk is the same before the next operation
        root = folder / f"killed-{number}"
        for again in range(times):
            at = (number + 37 * again) % len(names)
            status = in_fork(functools.partial(killed, root, at))
            assert status == signal.SIGKILL or (again and status == 0), (name, status)
            counts["kills"] += 1 if status else 0
            counts["kills amid a write"] += 1 if status and names[at].startswith("amid") else 0
            if next(root.rglob("run.json"), None):
                small_runs.scores(root)  # can be read at any time
        assert in_fork(functools.partial(small_runs.carry_out, runs, root, replicas)) == 0, name
        assert small_runs.scores(root) == expected, name
        assert small_runs.curves(root) == curves, name
        assert not small_runs.left_over(root), name
        shutil.rmtree(root)
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
