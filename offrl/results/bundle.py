"""Bundles: runs in one file of text, small enough to pass on, which anyone can check.

NAME.zip
    SHA256SUMS                   of every other file, in the form of sha256sum
    submission.toml              in those that are handed in to a leaderboard
    <protocol>@<version>/<dataset>@<version>/<algorithm>-<config hash>/seed-<k>/
        run.json                 as in a run folder, without names of machines and users' paths
        evaluations.jsonl        the same rows
        metrics.csv              the same losses, on a leaderboard those at evaluations
        checkpoint/state.safetensors   on request

The same runs give the same bytes. Unpacked, a bundle is a folder of runs. One comes from a
stranger: names and sizes are checked before a byte is written, and no file of another name is.
"""

import hashlib
import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from offrl.errors import InputError, unknown
from offrl.files import (
    LONGEST_NAME,
    open_own,
    plain,
    read_own,
    replacing,
)
from offrl.results import curves
from offrl.results.record_files import record_text, row_line
from offrl.results.rows import Identity, RunRecord
from offrl.results.store import RUN_NAMES, State, StoredRun, run_folders
from offrl.text import visible

SUMS, SUBMISSION = "SHA256SUMS", "submission.toml"
TEXTS = ("run.json", "evaluations.jsonl", "metrics.csv")
WEIGHTS = "checkpoint/state.safetensors"
MOST_FILES = 30_000
MOST_TEXT = 2**28  # bytes of all files but weights, unpacked
LARGEST_TEXT = 2**24  # bytes of one of them; a run of 200 evaluations of 1,000 episodes has 4 MB
LARGEST_WEIGHTS = 2**28  # bytes of a checkpoint
LARGEST_SUBMISSION = (
    2**14
)  # bytes of what is declared of a bundle, whose reader is slow for odd texts


def pack(
    runs: Path,
    output: Path,
    *,
    protocols: Sequence[str] = (),
    algorithms: Sequence[str] = (),
    weights: bool = False,
    submission: str | None = None,
) -> list[StoredRun]:
    """Writes a bundle of the runs below a folder; the runs that it holds.

    Args:
        runs: the folder.
        output: the bundle's file, which is replaced.
        protocols: ids, with a version or not; the runs of these alone.
        algorithms: labels; the runs of these alone.
        weights: whether checkpoints are packed too.
        submission: the text of submission.toml; of the losses, those at evaluations are packed.

    Raises InputError where a run is damaged, where a checkpoint is asked for and there is none, and
    where there are no runs.
    """
    stored = chosen_runs(runs, protocols, algorithms)
    files: dict[str, bytes | Path] = {}
    owner: dict[str, Path] = {}
    for run in stored:
        assert run.record is not None, "runs without one are not chosen"
        place = run_place(run.record.identity, str(run.path))
        if place in owner:
            raise InputError(f"{run.path}: is also in {owner[place]}; leave one of them out")
        owner[place] = run.path
        public = _public(run.record)
        files[f"{place}/run.json"] = record_text(public).encode()
        if run.rows:
            files[f"{place}/evaluations.jsonl"] = "".join(map(row_line, run.rows)).encode()
            if losses := _losses(run, submission is not None):
                files[f"{place}/metrics.csv"] = losses
        if weights:
            files[f"{place}/{WEIGHTS}"] = _weights(run)
    if submission is not None:
        files[SUBMISSION] = submission.encode()
    write_bundle(output, files)
    return stored


def run_place(identity: Identity, where: str) -> str:
    """The folder of a run in a bundle. Raises InputError, which begins with `where`, if none is."""
    label = f"{identity.label}-{identity.config_hash}"
    parts = (identity.protocol, identity.dataset, label, f"seed-{identity.seed}")
    place = "/".join(parts)
    if len(place.split("/")) != len(parts) or (fault := name_fault(f"{place}/run.json")):
        raise InputError(
            f"{where}: {place!r:.100} cannot be the name of a folder: "
            f"{fault if place.count('/') == 3 else 'a name has a slash'}; rename what it names"
        )
    return place


def write_bundle(output: Path, files: Mapping[str, bytes | Path]) -> None:
    """Writes a bundle of files, given by name as bytes or as the file that holds them.

    Raises InputError where it would have more, or larger files, than a bundle may have.
    """
    sums = {name: _sum(content) for name, content in files.items()}
    check_count(str(output), len(files) + 1)
    whole = {**files, SUMS: _sums_text(sums).encode()}
    check_sizes(str(output), {name: _size(content) for name, content in whole.items()}, MOST_TEXT)
    with (
        replacing(output, "free some space, or choose another -o") as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        for name in sorted(whole):
            content = whole[name]
            member = zipfile.ZipInfo(name)  # of 1980, so that the same runs give the same bytes
            member.create_system = 3  # Unix, whatever writes it
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            stored = name.endswith(WEIGHTS)
            member.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            data = content if isinstance(content, bytes) else read_own(content, LARGEST_WEIGHTS)
            archive.writestr(member, data, compresslevel=None if stored else 9)


def chosen_runs(
    root: Path, protocols: Sequence[str] = (), algorithms: Sequence[str] = ()
) -> list[StoredRun]:
    """The runs below a folder under these protocols and of these algorithms; by default all.

    Raises InputError for damaged ones, and where there are none.
    """
    stored = [folder.read() for folder in run_folders(root)]
    if not stored:
        what = "no run.json in this folder" if root.is_dir() else "no such folder"
        raise InputError(f"{root}: {what}; expected a folder that offrl run has filled")
    known = [(run, run.record.identity) for run in stored if run.record is not None]
    ids = {name for _, of in known for name in (of.protocol, of.protocol.split("@")[0])}
    labels = {of.label for _, of in known}
    for kind, names, all_ in (("protocol", protocols, ids), ("algorithm", algorithms, labels)):
        for name in names:
            if name not in all_:
                raise unknown(f"{kind} of {root}", name, all_)
    for run in stored:
        if run.record is None:
            raise InputError(f"{run.cause}")
    chosen = [
        run
        for run, of in known
        if (not protocols or {of.protocol, of.protocol.split("@")[0]} & {*protocols})
        and (not algorithms or of.label in algorithms)
    ]
    for run in chosen:
        if run.state in (State.LACKING, State.DAMAGED):
            raise InputError(f"{run.cause}")
    if not chosen:
        raise InputError(f"{root}: no run of these algorithms under these protocols; name others")
    return chosen


def _public(record: RunRecord) -> RunRecord:
    """The record without what is nobody's business: machines' names, and paths on them."""
    sessions = [
        session.model_copy(
            update={"hardware": {k: v for k, v in session.hardware.items() if k != "host"}}
        )
        for session in record.sessions
    ]
    attempts = [attempt.model_copy(update={"host": ""}) for attempt in record.attempts or []]
    return record.model_copy(
        update={
            "sessions": sessions,
            "attempts": attempts or None,
            "trust": None,
            "traceback": None,
        }
    )


def _losses(run: StoredRun, at_evaluations: bool) -> bytes:
    """The run's metrics.csv up to its last evaluation, or at its evaluations alone.

    Empty where there is none.
    """
    try:
        data = read_own(run.path / "metrics.csv", curves.LARGEST)
    except OSError:
        return b""
    losses = curves.up_to(data, run.rows[-1].step)
    return curves.at(losses, {row.step for row in run.rows}) if at_evaluations else losses


def _weights(run: StoredRun) -> Path:
    path = run.path / WEIGHTS
    try:
        os.close(open_own(path))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}; without its checkpoint a run has no weights, so "
            "leave out --weights, or run it again"
        ) from None
    return path


def _sum(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with os.fdopen(open_own(content), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _sums_text(sums: Mapping[str, str]) -> str:
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def check_count(where: str, count: int) -> None:
    """Raises InputError for more files than a bundle may have."""
    if count > MOST_FILES:
        raise InputError(
            f"{where}: {count:,} files; a bundle has at most {MOST_FILES:,}, so make several, "
            "by protocol or algorithm"
        )


def check_sizes(where: str, sizes: Mapping[str, int], most_text: int) -> None:
    """Raises InputError for larger files than a bundle may have, and for more text."""
    total = 0
    for name, size in sizes.items():
        largest = LARGEST_WEIGHTS if name.endswith(WEIGHTS) else LARGEST_TEXT
        largest = LARGEST_SUBMISSION if name == SUBMISSION else largest
        if size > largest:
            raise InputError(
                f"{where}: {name}: {size:,} bytes; such a file of a bundle has at most {largest:,}"
            )
        total += 0 if name.endswith(WEIGHTS) else size
    if total > most_text:
        raise InputError(
            f"{where}: {total:,} bytes of text; there may be at most {most_text:,}, so make "
            "several bundles, by protocol or algorithm"
        )


def name_fault(name: str) -> str | None:
    """Why no file of a bundle has this name; None for one that it may have."""
    if name in (SUMS, SUBMISSION):
        return None
    parts = name.split("/")
    if len(parts) > 1 and PurePosixPath(name).is_absolute():
        return "it is an absolute path"
    for part in parts:
        try:
            plain(part, "")
        except InputError:
            return "it is no plain path within a folder"
        if part.startswith(".") or part != part.strip() or visible(part) != part:
            return "a part of it is hidden, or has characters that cannot be seen"
        if len(part.encode()) > LONGEST_NAME:
            return f"a part of it has more than {LONGEST_NAME} bytes"
    run, file = "/".join(parts[2:4]), "/".join(parts[4:])
    if len(parts) < 5 or not RUN_NAMES.fullmatch(run) or file not in (*TEXTS, WEIGHTS):
        return "a bundle has no such file"
    return None
