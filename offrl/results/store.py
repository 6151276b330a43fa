"""The run store: one folder per run, in which no file is ever half-written.

RUNS/<protocol>/<dataset>/<algorithm>-<config hash>/seed-<k>/
    run.json            format, identity, versions, git commit, hardware, status (`RunRecord`)
    evaluations.jsonl   score rows, appended (`ScoreRow`)
    checkpoint/         state.safetensors: networks, optimisers and generators
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from offrl.errors import InputError
from offrl.files import replacing
from offrl.results.provenance import commit, hardware, versions
from offrl.results.rows import FORMAT, Decision, Identity, RunRecord, ScoreRow, Session, Status
from offrl.toml import Model, validate
from offrl.version import __version__

LOCK_SECONDS = 10.0  # a worker whose parent was killed ends, and frees its run, at its next step


class Damaged(InputError):
    """A run folder that does not hold what offrl wrote; the message names file and fault."""


class State(StrEnum):
    """What can be made of a run folder."""

    DONE = "done"
    UNFINISHED = "unfinished"
    FAILED = "failed"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class StoredRun:
    """A run folder as it was read."""

    path: Path
    state: State
    cause: str | None  # why the run counts as failed; None where its rows count
    record: RunRecord | None  # None where run.json cannot be read
    rows: tuple[ScoreRow, ...] = ()


class RunFolder:
    """One run's folder. Writing needs `held`, which keeps every other process out."""

    def __init__(self, path: Path):
        self.path = path
        self.record_file = path / "run.json"
        self.rows_file = path / "evaluations.jsonl"
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

    def enlist(self, identity: Identity, trust: Decision | None = None) -> StoredRun:
        """The run as it stands; a new one is noted as waiting, so that reports show it.

        `trust` is what the user trusts, kept in a new record. Needs `held`. Raises InputError
        where the folder holds a run of another identity.
        """
        if not self.record_file.exists() and not self.rows_file.exists():
            self._write(RunRecord(identity=identity, status=Status.WAITING, trust=trust))
        stored = self.read()
        if stored.record is not None:
            self._check_same(stored.record.identity, identity)
        return stored

    def begin(self, identity: Identity, trust: Decision | None = None) -> None:
        """Opens the run, or carries it on if it is the same run. Needs `held`."""
        stored = self.enlist(identity, trust)
        if stored.record is None or stored.state is State.DAMAGED:
            raise Damaged(stored.cause)
        for left in [*self.path.glob(".*.tmp"), *self.checkpoint.parent.glob(".*.tmp")]:
            left.unlink()  # of a process that was killed while it wrote
        session = Session(
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            versions=versions(),
            hardware=hardware(),
        )
        begun = {
            "status": Status.RUNNING,
            "cause": None,
            "traceback": None,
            "trust": trust or stored.record.trust,
            "sessions": [*stored.record.sessions, session],
        }
        self._write(stored.record.model_copy(update=begun))

    def read(self) -> StoredRun:
        """The run as it stands, whatever its files hold.

        Raises InputError only where a newer offrl wrote it.
        """
        record: RunRecord | None = None
        try:
            record = self.record()
            rows = tuple(self.rows())
            self._check_rows(record, rows)
        except Damaged as error:
            cause = f"damaged: {error}; delete the folder and run it again, or restore the file"
            return StoredRun(self.path, State.DAMAGED, cause, record)
        match record.status:
            case Status.DONE:
                return StoredRun(self.path, State.DONE, None, record, rows)
            case Status.FAILED:
                cause = record.cause or "no cause was noted"
                return StoredRun(self.path, State.FAILED, cause, record, rows)
        unscored = "stopped before its first evaluation; the same command carries on"
        return StoredRun(self.path, State.UNFINISHED, None if rows else unscored, record, rows)

    def record(self) -> RunRecord:
        """What run.json holds. Raises Damaged where it is no record of offrl's."""
        values = _parse(self.record_file, _text(self.record_file))
        written = values.get("format", FORMAT)
        if isinstance(written, int) and written > FORMAT:
            raise InputError(
                f"{self.record_file}: format {written}, but offrl {__version__} reads formats up "
                f"to {FORMAT}; update offrl"
            )
        return _validated(RunRecord, values, str(self.record_file))

    def set_status(
        self, status: Status, cause: str | None = None, traceback: str | None = None
    ) -> None:
        """Notes how the run ended, a failure with its cause. Needs `held`."""
        ended: dict[str, Any] = {"status": status, "cause": cause}
        if traceback:
            ended["traceback"] = traceback.splitlines()
        self._write(self.record().model_copy(update=ended))

    def rows(self) -> list[ScoreRow]:
        """The score rows; a last line that a crash cut short does not count."""
        if not self.rows_file.exists():
            return []
        lines = _text(self.rows_file).split("\n")
        rows = []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn
            where = f"{self.rows_file}: line {number}"
            rows.append(_validated(ScoreRow, _parse(where, line), where))
        return rows

    def rewind(self, step: int) -> None:
        """Drops the rows after `step`, which the run will write again. Needs `held`."""
        kept = [_line(row) for row in self.rows() if row.step <= step]
        with replacing(self.rows_file) as temporary:
            temporary.write_text("".join(kept))

    def append(self, row: ScoreRow) -> None:
        """Adds one score row and syncs it to the disk. Needs `held`."""
        with self.rows_file.open("a") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())

    def _check_rows(self, record: RunRecord, rows: Sequence[ScoreRow]) -> None:
        """Raises Damaged where the rows are not those of the run, or lack its last step."""
        identity = record.identity
        run = (identity.protocol, identity.config_hash, identity.seed)
        for number, row in enumerate(rows, 1):
            of_row = (row.protocol, row.config, row.seed)
            if of_row != run:
                raise Damaged(
                    f"{self.rows_file}: line {number}: expected protocol, config and seed {run}, "
                    f"found {of_row}"
                )
        if record.status is Status.DONE and (not rows or rows[-1].step != identity.steps):
            last = f"step {rows[-1].step:,}" if rows else "none"
            raise Damaged(
                f"{self.rows_file}: the run is done, so expected its last score at step "
                f"{identity.steps:,}, found {last}"
            )

    def _check_same(self, begun: Identity, identity: Identity) -> None:
        """Raises InputError, with the keys that differ, where the folder holds another run."""
        if keys := identity.differing(begun):
            was = json.dumps({key: begun.model_dump().get(key) for key in keys})
            now = json.dumps({key: identity.model_dump().get(key) for key in keys})
            raise InputError(
                f"{self.path}: holds a run with {was[:200]}, but this one has {now[:200]}; choose "
                "another -o, or delete the folder"
            )

    def _write(self, record: RunRecord) -> None:
        left_out = {key for key in ("traceback", "trust") if getattr(record, key) is None}
        values = record.model_dump(exclude=left_out)
        with replacing(self.record_file) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n")


def run_folders(root: Path) -> list[RunFolder]:
    """All runs below a folder, by path."""
    names = ("run.json", "evaluations.jsonl")
    return [RunFolder(p) for p in sorted({f.parent for f in root.rglob("*") if f.name in names})]


def _line(row: ScoreRow) -> str:
    return json.dumps(row.model_dump(by_alias=True)) + "\n"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(f"{path}: expected the JSON that offrl writes, but {error}") from None


def _parse(where: Path | str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{where}: expected the JSON that offrl writes, but {error}") from None
    if not isinstance(value, dict):
        raise Damaged(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def _validated(model: type[Model], values: dict[str, Any], where: str) -> Model:
    try:
        return validate(model, values, where)
    except InputError as error:
        raise Damaged(str(error)) from None
