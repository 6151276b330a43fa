"""Named arrays in one of numpy's archives, whose sizes are known before any is read."""

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as header
from numpy.typing import NDArray

from offrl.errors import InputError


@dataclass(frozen=True)
class Stored:
    """An array of an archive that is not read yet: `stored[()]` reads it."""

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, _: tuple[()]) -> NDArray[Any]:
        with self.archive.open(self.member) as stream:
            values = header.read_array(stream, allow_pickle=False)
            stream.read(1)  # the checksum is compared at the end of the member
        return np.asarray(values)


class Archive(Mapping[str, Stored]):
    """The arrays of an archive by name; one that is not asked for is not looked at.

    `others` are the names of what it holds besides.

    Raises InputError for an array whose header says another size than the archive; other damage
    raises what zipfile and numpy raise. Arrays of Python objects raise ValueError when read.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path
        self.others = [
            member.filename for member in archive.infolist() if not member.filename.endswith(".npy")
        ]
        self._members = {
            member.filename.removesuffix(".npy"): member
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }

    def __getitem__(self, name: str) -> Stored:
        return _stored(self._archive, self._members[name], self._path)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The arrays of an archive, while it is open."""
    with zipfile.ZipFile(path) as archive:
        yield Archive(archive, path)


def _stored(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Stored:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # numpy writes no other, and some take as much memory as their header says.
        raise InputError(
            f"{path}: {member.filename}: is compressed by method {member.compress_type} of zip; "
            "write the file by numpy.savez or numpy.savez_compressed"
        )
    with archive.open(member) as stream:
        version = header.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = header.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = header.read_array_header_2_0(stream)
        else:  # (3, 0) is for structures with names in Unicode
            raise InputError(f"{path}: {member.filename}: expected an array of plain numbers")
        begun = stream.tell()
    size = begun + int(np.prod([*shape, dtype.itemsize], dtype=object))
    if not dtype.hasobject and size != member.file_size:
        raise InputError(
            f"{path}: {member.filename}: has {member.file_size:,} bytes, but shape {shape} of "
            f"{dtype} needs {size:,}; the file is damaged, so copy or write it again"
        )
    return Stored(archive, member, shape, dtype)
