"""What a bundle holds, once all of it is checked. A bundle comes from a stranger.

Names and sizes are looked at before a byte is written, and what is written are regular files with
names that a bundle may have, below a new folder, no longer than was declared. Then checksums are
compared, and every run is read.
"""

import hashlib
import os
import re
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from offrl.errors import Damaged, InputError
from offrl.files import below, open_own, read_own, replacing_folder
from offrl.results.bundle import (
    LARGEST_TEXT,
    MOST_TEXT,
    SUBMISSION,
    SUMS,
    WEIGHTS,
    check_count,
    check_sizes,
    name_fault,
    run_place,
)
from offrl.results.store import RunFolder, State, StoredRun, run_folders

SOURCE = "get it again from its source"
MOST_ROWS = 10_000  # of a run; they take a second to read
_END = struct.Struct("<4s4H2LH")  # the end of a zip file: signature, counts, size, place, comment
_LARGEST_DIRECTORY = 2**23  # bytes; the names and sizes of as many files as there may be take half
_HEAD, _EXTRA = 30, 64  # bytes before a file's name, and at most those of what may follow it
_CHUNK = 2**20


@dataclass(frozen=True)
class Bundle:
    """A bundle that was unpacked and checked.

    Attributes:
        path: of the bundle.
        folder: where its files lie.
        digest: SHA-256 of its SHA256SUMS, which names its content however it is compressed.
        files: their SHA-256 by name, SHA256SUMS apart.
        runs: as they were read, by path.
    """

    path: Path
    folder: Path
    digest: str
    files: Mapping[str, str]
    runs: tuple[StoredRun, ...]

    @property
    def has_weights(self) -> bool:
        """Whether there is a checkpoint of every run."""
        weights = sum(name.endswith(WEIGHTS) for name in self.files)
        return weights == len(self.runs) > 0


def unpack(path: Path, folder: Path) -> Bundle:
    """Unpacks a bundle into a new folder, from which all that reads runs reads its runs.

    Raises InputError where something stands there, and where the bundle is none, holds what no
    bundle holds, or is not as its checksums say; nothing is left behind then.
    """

    def check(at: Path) -> None:
        raise InputError(f"{at}: something is there; give a new folder")

    with replacing_folder(folder, check, "free some space, or choose another -o") as temporary:
        bundle = _extract(path, temporary, MOST_TEXT)
    moved = (
        StoredRun(folder / run.path.relative_to(temporary), run.state, run.cause, run.record)
        for run in bundle.runs
    )
    return Bundle(path, folder, bundle.digest, bundle.files, tuple(moved))


@contextmanager
def opened(path: Path, most_text: int = MOST_TEXT) -> Iterator[Bundle]:
    """A bundle while it is unpacked in a temporary folder; errors are those of `unpack`."""
    with tempfile.TemporaryDirectory(prefix="offrl-") as folder:
        yield _extract(path, Path(folder), most_text)


def _extract(path: Path, folder: Path, most_text: int) -> Bundle:
    """Unpacks a bundle into an empty folder and checks all of it."""
    try:
        file: IO[bytes] = os.fdopen(open_own(path), "rb")
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}; expected a bundle of offrl results pack"
        ) from None
    with file:
        try:
            size, directory = _check_end(file)
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, str(path), size - directory, most_text)
                sums = {name: _write(archive, member, folder) for name, member in members.items()}
        except (
            *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
            *(struct.error, UnicodeError, ValueError),
        ) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: expected a bundle of offrl results pack, but {str(error)[:200]}; {SOURCE}"
            ) from None
    if SUMS not in sums:
        raise InputError(f"{path}: has no {SUMS}; expected a bundle of offrl results pack")
    digest = sums.pop(SUMS)
    _check_sums(path, folder / SUMS, sums)
    runs = _runs(path, folder)
    places = {run.path.relative_to(folder).as_posix() for run in runs}
    for name in sums:
        if name != SUBMISSION and "/".join(name.split("/")[:4]) not in places:
            raise InputError(f"{path}: {name}: belongs to no run; {SOURCE}")
    return Bundle(path, folder, digest, sums, runs)


def _check_end(file: IO[bytes]) -> tuple[int, int]:
    """The size of a file, and that of the directory and end of it.

    Raises ValueError unless it ends as a zip file with a small directory. What lists the files is
    read whole, so that its size is looked at first.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _END.size - 20, 0))
    tail = file.read()
    if len(tail) < _END.size:
        raise ValueError("it is no zip file")
    signature, *numbers, comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\5\6" or comment:
        raise ValueError("it is no zip file, or has something after its end")
    if tail[: -_END.size][-20:-16] == b"PK\6\7" or numbers[4] > _LARGEST_DIRECTORY:
        raise ValueError("it lists more files than a bundle has")
    return size, numbers[4] + _END.size


def _members(
    archive: zipfile.ZipFile, where: str, size: int, most_text: int
) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name, all of which a bundle may have, by name and size."""
    members: dict[str, zipfile.ZipInfo] = {}
    forms: set[str] = set()
    check_count(where, len(archive.infolist()))
    for member in archive.infolist():
        name = member.orig_filename
        shown = f"{where}: {name!r:.100}"
        if fault := name_fault(name):
            raise InputError(f"{shown}: {fault}; {SOURCE}, and mistrust it")
        form = unicodedata.normalize("NFC", name).casefold()
        if form in forms:  # would be one file where a file system pays no heed to case
            raise InputError(f"{shown}: is there twice; {SOURCE}")
        forms.add(form)
        if member.flag_bits & 0x1:
            raise InputError(f"{shown}: is encrypted; a bundle is not, so {SOURCE}")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise InputError(f"{shown}: is a link or a device; a bundle has files alone")
        methods = [zipfile.ZIP_STORED]
        methods += [] if name.endswith(WEIGHTS) else [zipfile.ZIP_DEFLATED]
        if member.compress_type not in methods:
            raise InputError(
                f"{shown}: is compressed by method {member.compress_type} of zip; write it by "
                "offrl results pack"
            )
        members[name] = member
    packed = sum(member.compress_size for member in members.values())
    outside = any(not 0 <= member.header_offset < size for member in members.values())
    if packed > size or outside:  # files that share bytes would be many of few
        raise InputError(f"{where}: its files overlap or lie outside of it; {SOURCE}")
    heads = sum(_HEAD + len(member.orig_filename.encode()) for member in members.values())
    if size - packed - heads > _EXTRA * len(members):
        raise InputError(f"{where}: has bytes that belong to no file of it; {SOURCE}")
    check_sizes(where, {name: member.file_size for name, member in members.items()}, most_text)
    return members


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> str:
    """Writes a file into its place below a folder, no longer than was declared; its SHA-256."""
    target = below(folder, *member.orig_filename.split("/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), member.file_size
    with archive.open(member) as stream, target.open("xb") as file:
        while block := stream.read(_CHUNK):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile(f"{member.filename!r:.100} is larger than it says")
            digest.update(block)
            file.write(block)
    if left:
        raise zipfile.BadZipFile(f"{member.filename!r:.100} is smaller than it says")
    return digest.hexdigest()


def _check_sums(path: Path, listed: Path, sums: Mapping[str, str]) -> None:
    """Raises InputError where the files of a bundle are not those of its SHA256SUMS."""
    expected: dict[str, str] = {}
    for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if match is None or match[2] in expected:
            raise InputError(f"{path}: {SUMS}: expected a checksum and a name, found {line!r:.80}")
        expected[match[2]] = match[1]
    for name in sorted(expected.keys() | sums.keys()):
        if name not in sums:
            raise InputError(f"{path}: {name}: is in {SUMS}, but not in the bundle; {SOURCE}")
        if name not in expected:
            raise InputError(f"{path}: {name}: is not in {SUMS}; {SOURCE}")
        if sums[name] != expected[name]:
            raise InputError(
                f"{path}: {name}: its SHA-256 is not that of {SUMS}: it was changed or damaged; "
                f"{SOURCE}"
            )


def _runs(path: Path, folder: Path) -> tuple[StoredRun, ...]:
    """The runs of an unpacked bundle, each of them whole and in its place."""
    runs = []
    for each in run_folders(folder):
        place = each.path.relative_to(folder).as_posix()
        if (rows := _lines(each.rows_file)) > MOST_ROWS:
            raise InputError(f"{path}: {place}: {rows:,} rows; a run has at most {MOST_ROWS:,}")
        run = each.read()
        if run.record is None or run.state in (State.LACKING, State.DAMAGED):
            cause = str(run.cause).replace(f"{folder}/", "").rpartition("; ")[0]
            raise InputError(f"{path}: {cause}; {SOURCE}")
        named = run_place(run.record.identity, f"{path}: {place}")
        if named != place:
            raise InputError(f"{path}: {place}: holds the run {named}; {SOURCE}")
        try:
            if (run.path / WEIGHTS).exists():
                RunFolder(run.path).checkpoint_step(run.record.identity.steps)
        except Damaged as error:
            raise InputError(f"{path}: {str(error).replace(f'{folder}/', '')}; {SOURCE}") from None
        runs.append(run)
    if not runs:
        raise InputError(f"{path}: holds no run; expected a bundle of offrl results pack")
    return tuple(runs)


def _lines(path: Path) -> int:
    try:
        return read_own(path, LARGEST_TEXT).count(b"\n")
    except OSError:
        return 0
