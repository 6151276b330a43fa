"""Arrays of an HDF5 file of many small groups, by name: quickly, and in little memory.

HDF5 keeps what it knows of each group that it has seen, and h5py makes some objects for each
question about an array: much memory and time for a file of ten thousand episodes.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from offrl.data.foreign import check_size, disk_usage, most_bytes
from offrl.data.links import refuse_source
from offrl.errors import InputError

KNOWN = 2**21  # bytes that HDF5 keeps of groups and arrays it has seen


class Nested:
    """An open HDF5 file whose arrays of numbers are read, group after group.

    Each is looked at before it is read: that it lies in this file, and that all that were read are
    not larger than `check_size` allows.
    """

    def __init__(self, path: Path, file: Any):
        from h5py import h5d, h5g, h5l, h5p, h5s, h5t

        self._path = path
        self._stored, self._size = disk_usage(path), 0
        self._most = most_bytes(self._stored)
        self._open_group, self._open_array = h5g.open, h5d.open
        self._all, self._hard, self._chunked = h5s.ALL, h5l.TYPE_HARD, h5d.CHUNKED
        self._type_of = h5t.py_create
        self._types: dict[np.dtype[Any], Any] = {}
        self._access = h5p.create(h5p.DATASET_ACCESS)
        self._access.set_chunk_cache(1, 0, 1.0)  # each chunk is read once
        self._root = self._without_links(file, "/")

    def group(self, name: str, within: Any = None) -> Any:
        """A group of the file or of another group. Raises KeyError where there is none.

        Raises InputError where something in it, or on the way to it, is a link: it may lead out of
        the file.
        """
        found = within or self._root
        for part in name.split("/"):
            found = self._without_links(found, part)
        return found

    def _without_links(self, above: Any, name: str) -> Any:
        """The group of this name in one that has no links. Raises InputError where it has some."""
        found = self._open_group(above, name.encode())
        links: list[bytes] = []

        def look(inside: bytes, info: Any) -> None:
            if info.type != self._hard:
                links.append(inside)

        found.links.iterate(look, info=True)
        if links:
            raise InputError(
                f"{self._path}: {links[0].decode(errors='replace')!r:.80} in {name!r:.80} is a "
                "link; its arrays may lie elsewhere, so copy them into one file"
            )
        return found

    def read(self, group: Any, name: str, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """The values of an array of a group. Raises KeyError where there is none.

        Args:
            group: which `group` returned.
            name: of the array.
            dtype: to which HDF5 converts them; None for the stored one.

        Raises InputError where its values are no numbers, are elsewhere, or are too many, and what
        h5py does where they cannot be converted.
        """
        *way, last = name.split("/")
        if way:
            group = self.group("/".join(way), group)
        array = self._open_array(group, last.encode(), self._access)
        plan, shape = array.get_create_plist(), array.shape
        layout = plan.get_layout()
        if layout != self._chunked:
            refuse_source(self._path, name, plan)
        kind = np.dtype(array.dtype if dtype is None else dtype)
        if kind.kind not in "fiub" or not shape:
            raise InputError(f"{self._path}: {name!r:.80} is of {kind!s:.40}; expected numbers")
        self._size += max(4, kind.itemsize) * math.prod(shape)
        chunk = plan.get_chunk() if layout == self._chunked else ()
        unpacked = max(self._size, 8 * math.prod(chunk))
        if unpacked > self._most:
            check_size(self._path, [(unpacked // 4,)], self._stored, memory=False)
        if kind not in self._types:
            self._types[kind] = self._type_of(kind)
        values = np.empty(shape, kind)
        array.read(self._all, self._all, values, self._types[kind])
        return values


@contextlib.contextmanager
def open_nested(path: Path) -> Iterator[Nested]:
    """The arrays of a file, while it is open. Raises what h5py does where it is damaged."""
    from h5py import h5f, h5p

    access = h5p.create(h5p.FILE_ACCESS)
    known = access.get_mdc_config()
    known.set_initial_size, known.initial_size = True, KNOWN
    known.min_size = known.max_size = KNOWN
    access.set_mdc_config(known)
    file = h5f.open(str(path).encode(), h5f.ACC_RDONLY, fapl=access)
    try:
        yield Nested(path, file)
    finally:
        file.close()
