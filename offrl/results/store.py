"""The run store: one folder per run, in which no file is ever half-written.

RUNS/<protocol>/<dataset>/<algorithm>-<config hash>/seed-<k>/
    run.json            format, identity, versions, git commit, hardware, status (`RunRecord`)
    evaluations.jsonl   score rows, appended (`ScoreRow`)
    metrics.csv         losses while it trained (`offrl.results.curves`); no score depends on them
    checkpoint/         state.safetensors: networks, optimisers, generators and their step;
                        next.safetensors while the other runs of a group are written
    .lease-<n>          which process works on the run (`offrl.results.leases`)

Nothing in these files is believed: they are regular files, links are not followed, record and rows
have a checksum, and the rows are all those that the record's status or the checkpoint's step calls
for. A gap is that run's fault alone, and named.
"""

import errno
import itertools
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from offrl.errors import Damaged, InputError
from offrl.files import open_own, read_own, replacing
from offrl.results import curves, leases
from offrl.results.failures import UNFINISHED
from offrl.results.provenance import commit, hardware, versions
from offrl.results.record_files import (
    Newer,
    Unreadable,
    read_record,
    read_rows,
    record_text,
    row_line,
)
from offrl.results.rows import (
    Attempt,
    Decision,
    Identity,
    Numerics,
    RunRecord,
    ScoreRow,
    Session,
    Status,
)

LOCK_SECONDS = 10.0  # a worker whose parent was killed ends, and frees its run, at its next step
SPACE = "free some space, or choose another -o"
RUN_NAMES = re.compile(r"(?P<label>.+)-(?P<config>[0-9a-f]{8})/seed-(?P<seed>[0-9]{1,18})")


class Held(InputError):
    """Another process holds the run; `holder` says which, as far as is known."""

    holder = "a process that is not known"
    silent = False  # whether it may be gone: beats of its lease are missing


class Lost(Held):
    """Another process has taken over the run that this one held, which writes nothing more."""


class Shorter(InputError):
    """A run folder holds the same run with fewer steps."""


class State(StrEnum):
    """What can be made of a run folder."""

    DONE = "done"
    UNFINISHED = "unfinished"
    FAILED = "failed"
    LACKING = "lacking"  # rows or the checkpoint: the run is known, and can be made whole
    DAMAGED = "damaged"  # nobody can tell which run it is, or it cannot be read here


UNSCORED = {
    Status.WAITING: "not begun",
    Status.RUNNING: "running, before its first evaluation",  # or its process was killed
    Status.INTERRUPTED: "stopped before its first evaluation; the same command carries on",
}


@dataclass(frozen=True)
class StoredRun:
    """A run folder as it was read."""

    path: Path
    state: State
    cause: str | None  # why the run has no score; None where its rows count
    record: RunRecord | None  # None where run.json cannot be read
    rows: tuple[ScoreRow, ...] = ()


class RunFolder:
    """One run's folder. Writing needs `held`, which keeps every other process out.

    Args:
        path: of the run.
        root: the folder of runs, below which nothing that belongs to the run may be a link.
    """

    def __init__(self, path: Path, root: Path | None = None):
        self.path = path
        self.root = root
        self.record_file = path / "run.json"
        self.rows_file = path / "evaluations.jsonl"
        self.metrics_file = path / "metrics.csv"
        self.checkpoint = path / "checkpoint" / "state.safetensors"
        self.upcoming = path / "checkpoint" / "next.safetensors"
        self._lease: leases.Lease | None = None

    @contextmanager
    def held(self, timeout: float = LOCK_SECONDS, patient: bool = False) -> Iterator[None]:
        """Holds the run, and says for whom it waits.

        Raises Held where another process has it for `timeout` seconds, Unreadable where it cannot
        be held, and InputError where the disk is full. `patient` waits on for one that may be gone;
        see `leases.wait`.
        """
        self._check_folders()
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self._lease = leases.wait(self.path, timeout, patient)
        except leases.Occupied as error:
            held = Held(
                f"{self.path}: another process holds this run: {error}; wait for it, or choose "
                "another -o"
            )
            held.holder, held.silent = error.lease.name, error.lease.silent
            raise held from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"{self.path}: cannot be held: {error.strerror}; {SPACE}"
                ) from None
            raise Unreadable(f"{error.filename or self.path}: {error.strerror or error}") from None
        try:
            yield
        finally:
            lease, self._lease = self._lease, None
            lease.release()

    def check_held(self) -> None:
        """Raises Lost where another process has taken the run over. Needs `held`."""
        assert self._lease is not None, "what writes to a run holds it"
        if self._lease.is_mine():
            return
        other = None
        with suppress(Unreadable):
            other = self.holder()
        by = f" ({other.name})" if other else ""
        lost = Lost(
            f"{self.path}: another process{by} has taken this run over while this one was stopped; "
            "nothing more is written here"
        )
        lost.holder = other.name if other else lost.holder
        raise lost

    def holder(self) -> leases.OtherLease | None:
        """Which process holds the run, this one too; None where none does. Writes nothing.

        Raises Unreadable where its lease cannot be read.
        """
        try:
            return leases.holder(self.path)
        except OSError as error:
            raise Unreadable(f"{error.filename or self.path}: {error.strerror or error}") from None

    def enlist(self, identity: Identity, trust: Decision | None = None) -> StoredRun:
        """The run as it stands; a new one is noted as waiting, so that reports show it.

        `trust` is what the user trusts, kept in a new record. Needs `held`. Raises InputError
        where the folder holds a run of another identity.
        """
        if not os.path.lexists(self.record_file) and not os.path.lexists(self.rows_file):
            self.drop_checkpoint()  # of a run whose identity is gone
            self._write(RunRecord(identity=identity, status=Status.WAITING, trust=trust))
        stored = self.read()
        if stored.record is not None:
            self._check_same(stored.record.identity, identity)
        return stored

    def lengthen(self, identity: Identity, schedule: str, *, write: bool) -> None:
        """Has a run go on to more steps than it began with, as if it had begun with as many.

        Needs `held`. Raises InputError where it would not end with the scores of such a run.

        Args:
            identity: of the run, with more steps.
            schedule: what depends on their number; empty where nothing does.
            write: whether to do it; else it is only checked.
        """
        stored = self.read()
        if stored.record is None or stored.record.identity.steps >= identity.steps:
            return
        begun, last = stored.record.identity, stored.rows[-1:]
        longer = f"{begun.steps:,} steps cannot go on to {identity.steps:,}"
        otherwise = "choose another -o, or delete the folder"
        if schedule:
            raise InputError(
                f"{self.path}: its run of {longer}, as {schedule} depends on their number; "
                f"{otherwise}"
            )
        extra = begun.steps % begun.every or begun.evaluation.get("final_episodes")
        if extra and [row.step for row in last] == [begun.steps]:
            raise InputError(
                f"{self.path}: its run of {longer}, as its last evaluation, at step "
                f"{begun.steps:,}, is none of the longer run's; {otherwise}"
            )
        status = stored.record.status
        changes = {
            "identity": identity,
            "status": Status.WAITING if status is Status.DONE else status,
        }
        if write:
            self._write(stored.record.model_copy(update=changes))

    def begin(self, identity: Identity, trust: Decision | None = None) -> None:
        """Opens the run, or carries it on if it is the same run. Needs `held`."""
        stored = self.enlist(identity, trust)
        if stored.record is None or stored.state is State.DAMAGED:
            raise Damaged(stored.cause)
        self.check_held()
        for left in [*self.path.glob(".*.tmp"), *self.checkpoint.parent.glob(".*.tmp")]:
            left.unlink(missing_ok=True)  # of a process that was killed while it wrote
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

    def carry_on(self, ways: Sequence[str], step: int) -> list[ScoreRow]:
        """Keeps the rows of all evaluations up to `step`, and returns them; notes the ways to act.

        Rows after `step` are dropped, as the run writes them again, and so are lines of
        metrics.csv. Needs `held`. Raises Damaged,
        and changes nothing, where a row up to `step` is missing or damaged.
        """
        record = self.record().model_copy(update={"ways": list(ways)})
        kept = record.identity.evaluations(step) * len(ways)
        rows = list(itertools.islice(read_rows(self.rows_file), kept)) if kept else []
        self._check_rows(record, rows, step, f"the checkpoint is at step {step:,}")
        with replacing(self.rows_file, SPACE, check=self.check_held) as temporary:
            temporary.write_text("".join(map(row_line, rows)), encoding="utf-8")
        self._keep_metrics(step)
        if record.ways != self.record().ways:
            self._write(record)
        return rows

    def read(self) -> StoredRun:
        """The run as it stands, whatever its files hold."""
        record: RunRecord | None = None
        try:
            self._check_folders()
            record = self.record()
            # Before the rows: a run that goes on meanwhile has more rows than it calls for, not
            # fewer.
            step, why = self._demanded(record)
            rows = tuple(read_rows(self.rows_file))
            self._check_rows(record, rows, step, why)
        except Newer as error:
            return StoredRun(self.path, State.DAMAGED, str(error), None)
        except Unreadable as error:
            cause = f"unreadable: {error}; make it a folder and files of its own that you may read"
            return StoredRun(self.path, State.DAMAGED, cause, record)
        except Damaged as error:
            if record is None:
                cause = f"damaged: {error}; delete the folder and run it again, or restore the file"
                return StoredRun(self.path, State.DAMAGED, cause, None)
            cause = f"damaged: {error}; offrl run runs it again, or restore the file"
            return StoredRun(self.path, State.LACKING, cause, record)
        match record.status:
            case Status.DONE:
                return StoredRun(self.path, State.DONE, None, record, rows)
            case Status.FAILED:
                cause = record.cause or "no cause was noted"
                return StoredRun(self.path, State.FAILED, cause, record, rows)
        unscored = None if rows else f"{UNFINISHED}{UNSCORED[record.status]}"
        return StoredRun(self.path, State.UNFINISHED, unscored, record, rows)

    def record(self) -> RunRecord:
        """What run.json holds. Raises Damaged where it is no record of this run, or a newer one."""
        record = read_record(self.record_file)
        labels = (record.identity.label, record.identity.config_hash, str(record.identity.seed))
        named = RUN_NAMES.fullmatch("/".join(self.path.absolute().parts[-2:]))
        if named and named.groups() != labels:
            raise Damaged(
                f"{self.record_file}: expected algorithm, config and seed {named.groups()} of its "
                f"folder, found {labels}"
            )
        return record

    def set_status(
        self, status: Status, cause: str | None = None, traceback: str | None = None
    ) -> None:
        """Notes how the run ended, a failure with its cause. Needs `held`."""
        ended: dict[str, Any] = {"status": status, "cause": cause}
        if traceback:
            ended["traceback"] = traceback.splitlines()
        self._write(self.record().model_copy(update=ended))

    def fail(self, cause: str, traceback: str | None = None) -> StoredRun:
        """Notes that the run failed; the run as it then stands.

        A run that is done stays done, and a damaged folder as it is. Needs `held`.
        """
        stored = self.read()
        if stored.record is None or stored.state in (State.DONE, State.DAMAGED):
            return stored
        self.set_status(Status.FAILED, cause, traceback)
        return self.read()

    def note_attempt(self, cause: str, host: str) -> None:
        """Notes that a process was lost which worked on the run. Needs `held`."""
        record = self.record()
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        attempts = [*(record.attempts or []), Attempt(cause=cause, host=host, ended=ended)]
        changed = {"status": Status.INTERRUPTED, "cause": None, "attempts": attempts}
        self._write(record.model_copy(update=changed))

    def rows(self) -> list[ScoreRow]:
        """The score rows; a last line that a crash cut short does not count."""
        return list(read_rows(self.rows_file))

    def note_numerics(self, numerics: Numerics) -> None:
        """Notes how the run is computed from now on, where that differs. Needs `held`."""
        record = self.record()
        before = record.numerics[-1:]
        if [numerics.model_copy(update={"step": last.step}) for last in before] == before != []:
            return
        self._write(record.model_copy(update={"numerics": [*record.numerics, numerics]}))

    def checkpoint_step(self, steps: int, upcoming: bool = False) -> int:
        """The step of the checkpoint by the file's header, without its tensors; 0 without a file.

        Raises Damaged where it is no step of a run of so many steps.
        """
        path = self.upcoming if upcoming else self.checkpoint
        if not os.path.lexists(path):
            return 0
        from safetensors import SafetensorError, safe_open

        try:
            os.close(open_own(path))
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror or error}") from None
        try:
            # As NumPy's: reports of runs need no torch.
            with safe_open(path, "np") as file:
                step = json.loads(file.metadata()["state"])["step"]
        except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise Damaged(f"{path}: expected a checkpoint of offrl, but {error}") from None
        if not isinstance(step, int) or not 0 <= step <= steps:
            raise Damaged(f"{path}: expected a step up to {steps:,}, found {step!r:.40}")
        return step

    def append(self, row: ScoreRow) -> None:
        """Adds one score row and syncs it to the disk. Needs `held`."""
        self.check_held()
        try:
            with self.rows_file.open("a", encoding="utf-8") as file:
                self.check_held()  # a run that is taken over has its rows in a new file
                file.write(row_line(row))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"{self.rows_file}: cannot be written: {error.strerror or error}; {SPACE}"
            ) from error

    def drop_checkpoint(self) -> None:
        """Deletes the checkpoint, so that the run begins anew. Needs `held`."""
        self.check_held()
        self.checkpoint.unlink(missing_ok=True)

    def append_metrics(self, lines: Sequence[curves.Line]) -> None:
        """Adds lines to metrics.csv, which are not synced to the disk. Needs `held`."""
        self.check_held()  # before opening makes the file
        try:
            data = read_own(self.metrics_file, curves.LARGEST)
        except OSError:  # there is none yet, or the writer says what it is
            data = b""
        whole, more = curves.added(data, lines)
        if whole != data:
            self._write_metrics(whole + more)
            return
        try:
            with self.metrics_file.open("ab") as file:
                self.check_held()  # as `append` does
                file.write(more)
        except OSError as error:
            raise InputError(
                f"{self.metrics_file}: cannot be written: {error.strerror or error}; {SPACE}"
            ) from error

    def _keep_metrics(self, step: int) -> None:
        """Drops the lines of metrics.csv after a step, and the whole where it is not ours.

        What is kept is written to a new file: see `append`.
        """
        try:
            data = read_own(self.metrics_file, curves.LARGEST)
        except FileNotFoundError:
            return
        except OSError:
            data = b""
        if kept := curves.up_to(data, step):
            self._write_metrics(kept)
            return
        self.check_held()
        with suppress(OSError):  # where it stays, what is appended fails
            self.metrics_file.unlink()

    def _write_metrics(self, data: bytes) -> None:
        with replacing(self.metrics_file, SPACE, check=self.check_held) as temporary:
            temporary.write_bytes(data)

    def _demanded(self, record: RunRecord) -> tuple[int, str]:
        """The step up to which the run has all its rows, and what says so."""
        match record.status:
            case Status.DONE:
                return record.identity.steps, "the run is done"
            case Status.FAILED:  # counts as failed whatever it lacks
                return 0, ""
        step = self.checkpoint_step(record.identity.steps)
        return step, f"the checkpoint is at step {step:,}"

    def _check_folders(self) -> None:
        """Raises Unreadable where the run's folder is reached by a link below the root."""
        parts, root = self.path.parts, self.root.parts if self.root else self.path.parts
        within = range(len(parts) - 1, len(root), -1) if parts[: len(root)] == root else ()
        above: list[str | Path] = [os.path.join(*parts[:n]) for n in within]  # noqa: PTH118 (faster)
        for folder in [*above, self.path, self.checkpoint.parent]:
            try:
                mode = os.lstat(folder).st_mode
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Unreadable(f"{folder}: {error.strerror or error}") from None
            if not stat.S_ISDIR(mode):
                raise Unreadable(f"{folder}: it is a link or a file; expected a folder of runs")

    def _check_rows(self, record: RunRecord, rows: Sequence[ScoreRow], step: int, why: str) -> None:
        """Raises Damaged where the rows are not those of the run, or lack one up to `step`."""
        identity = record.identity
        run = (identity.protocol, identity.dataset, identity.label, identity.config_hash)
        due = record.due(rows)
        for number, row in enumerate(rows, 1):
            of_row = (row.protocol, row.dataset, row.algorithm, row.config, row.seed)
            if of_row != (*run, identity.seed):
                raise Damaged(
                    f"{self.rows_file}: line {number}: expected a row of {(*run, identity.seed)}, "
                    f"found {of_row}"
                )
            if (row.step, row.policy) != due[number - 1]:
                raise Damaged(
                    f"{self.rows_file}: line {number}: expected step and way to act "
                    f"{due[number - 1]}, found {(row.step, row.policy)}"
                )
        ways = record.ways or {row.policy for row in rows} or [""]
        expected = identity.evaluations(step) * len(ways)
        if len(rows) < expected:
            last = f"{len(rows)} up to step {rows[-1].step:,}" if rows else "none"
            raise Damaged(
                f"{self.rows_file}: {why}, so expected {expected} scores up to step {step:,}, "
                f"found {last}"
            )

    def _check_same(self, begun: Identity, identity: Identity) -> None:
        """Raises InputError, with the keys that differ, where the folder holds another run."""
        if keys := identity.differing(begun):
            kind = Shorter if keys == ["steps"] and begun.steps < identity.steps else InputError
            was = json.dumps({key: begun.model_dump().get(key) for key in keys})
            now = json.dumps({key: identity.model_dump().get(key) for key in keys})
            raise kind(
                f"{self.path}: holds a run with {was[:200]}, but this one has {now[:200]}; choose "
                "another -o, or delete the folder"
            )

    def _write(self, record: RunRecord) -> None:
        with replacing(self.record_file, SPACE, check=self.check_held) as temporary:
            temporary.write_text(record_text(record), encoding="utf-8")


def finish_saving(folders: Mapping[RunFolder, int]) -> None:
    """Puts the upcoming checkpoints of a group's runs in place, if they have all been written.

    First the upcoming checkpoint of every run is written, then each takes its place. So where one
    has taken it, all of them were whole, and a group that was killed in between ends this now. Else
    they are removed. Needs `held` of each.

    Args:
        folders: of the runs, with their gradient steps.
    """

    def step(folder: RunFolder, upcoming: bool) -> int:
        try:
            return folder.checkpoint_step(folders[folder], upcoming)
        except Damaged:
            return 0

    upcoming = {folder: step(folder, True) for folder in folders}
    current = {folder: step(folder, False) for folder in folders}
    complete = len({*upcoming.values()}) == 1
    reached = max(current.values(), default=0)
    for folder, at in upcoming.items():
        folder.check_held()
        try:
            if at > current[folder] and (complete or at == reached):
                folder.upcoming.replace(folder.checkpoint)
            else:
                folder.upcoming.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder.upcoming}: cannot be renamed: {error.strerror or error}; {SPACE}"
            ) from error


def run_folders(root: Path) -> list[RunFolder]:
    """All runs below a folder, by path.

    Folders that may not be listed, and links that lead away, are among them: nobody can tell which
    runs they hold, so that reading them is a failure with a cause.
    """
    runs: set[Path] = set()
    aside: set[Path] = set()
    errors: list[OSError] = []
    away = os.path.realpath(root)
    for place, folders, files in os.walk(root, onerror=errors.append):
        if not {"run.json", "evaluations.jsonl"}.isdisjoint([*folders, *files]):
            runs.add(Path(place))
        elif "state.safetensors" in files and Path(place).name == "checkpoint":
            runs.add(Path(place).parent)
        for name in folders:
            link = os.path.join(place, name)  # noqa: PTH118 (a tenth of the time)
            if os.path.islink(link) and not Path(os.path.realpath(link)).is_relative_to(away):  # noqa: PTH114
                aside.add(Path(link))
    aside |= {Path(error.filename) for error in errors if isinstance(error, PermissionError)}
    # Where the checkpoint's folder is one of these, its run has the fault.
    runs |= {path for path in aside if path.parent not in runs}
    return [RunFolder(path, root) for path in sorted(runs)]
