"""The run store: one folder per run, written so that nothing is ever half there.

RUNS/<protocol>/<dataset>/<algorithm>-<config hash>/seed-<k>/
    run.json            identity, versions, git commit, hardware, status
    evaluations.jsonl   score rows, appended
    checkpoint/         state.safetensors: networks, optimisers and generators
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from offrl.errors import InputError
from offrl.files import replacing
from offrl.results.provenance import commit, hardware, versions

if TYPE_CHECKING:
    pass

LOCK_SECONDS = 10.0  # a worker whose parent was killed lets go at its next step


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected the JSON that offrl writes, but {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


class RunFolder:
    """One run's folder. Writing needs `held`, which keeps every other process out."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint = path / "checkpoint" / "state.safetensors"

    @contextmanager
    def held(self, timeout: float = LOCK_SECONDS) -> Iterator[None]:
        """Holds the run. Raises InputError where another process has it."""
        (self.path / "checkpoint").mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise InputError(
                f"{self.path}: another process holds this run; wait for it, or choose another -o"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def enlist(self, identity: dict[str, Any]) -> None:
        """Notes a run that waits for its turn, so that reports know of it. Needs `held`."""
        self.check_same(identity)
        if not self.record():
            record: dict[str, Any] = {
                "identity": identity,
                "status": "waiting",
                "cause": None,
                "sessions": [],
            }
            write_json(self.path / "run.json", record)

    def begin(self, identity: dict[str, Any]) -> None:
        """Opens the run, or carries it on if it is the same run. Needs `held`."""
        self.enlist(identity)
        for left in [*self.path.glob(".*.tmp"), *self.checkpoint.parent.glob(".*.tmp")]:
            left.unlink()  # of a process that was killed while it wrote
        session = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "versions": versions(),
            "hardware": hardware(),
        }
        sessions = [*self.record()["sessions"], session]
        write_json(
            self.path / "run.json",
            {"identity": identity, "status": "running", "cause": None, "sessions": sessions},
        )

    def record(self) -> dict[str, Any]:
        """What run.json holds; empty where the run has not begun."""
        path = self.path / "run.json"
        return _read_json(path) if path.exists() else {}

    def check_same(self, identity: dict[str, Any]) -> None:
        """Raises InputError where the folder holds a run of another identity."""
        begun = self.record().get("identity", identity)
        keys = sorted(k for k in identity if begun.get(k) != identity[k])
        if keys:
            was = json.dumps({key: begun.get(key) for key in keys})
            now = json.dumps({key: identity[key] for key in keys})
            raise InputError(
                f"{self.path}: holds a run with {was[:200]}, but this one has {now[:200]}; choose "
                "another -o, or delete the folder"
            )

    def set_status(
        self, status: str, cause: str | None = None, traceback: str | None = None
    ) -> None:
        """Notes `done`, `interrupted` or `failed` with its cause. Needs `held`."""
        ended = {**self.record(), "status": status, "cause": cause}
        if traceback:
            ended["traceback"] = traceback.splitlines()
        write_json(self.path / "run.json", ended)

    def rows(self) -> list[dict[str, Any]]:
        """The score rows; a last line that a crash cut short does not count."""
        path = self.path / "evaluations.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().split("\n")
        rows = []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"{path}: line {number}: expected JSON, but {error}") from None
        return rows

    def rewind(self, step: int) -> None:
        """Drops the rows after `step`, which the run will write again. Needs `held`."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        with replacing(self.path / "evaluations.jsonl") as temporary:
            temporary.write_text("".join(kept))

    def append(self, row: dict[str, Any]) -> None:
        """Adds one score row and sees it to the disk. Needs `held`."""
        with (self.path / "evaluations.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def run_folders(root: Path) -> list[RunFolder]:
    """All runs below a folder, by path."""
    return [RunFolder(path.parent) for path in sorted(root.rglob("run.json"))]
