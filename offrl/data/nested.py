"""Arrays of an HDF5 file of many small groups, by path: quickly, and in little memory.

HDF5 keeps what it knows of each group that it has seen, and h5py looks twice at each array. A file
of ten thousand episodes would take hundreds of megabytes and most of a minute.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.foreign import check_size, disk_usage
from offrl.data.links import refuse_source
from offrl.errors import InputError

KNOWN = 2**21  # bytes that HDF5 keeps of groups and arrays it has seen


class Nested:
    """An open HDF5 file whose arrays of numbers are read, group after group.

    Each is looked at before it is read: that it lies in this file, and that all that were read are
    not larger than `check_size` allows.
    """

    def __init__(self, path: Path, file: Any):
        from h5py import h5p

        self._path, self._file = path, file
        self._stored, self._size = disk_usage(path), 0
        self._access = h5p.create(h5p.DATASET_ACCESS)
        self._access.set_chunk_cache(1, 0, 1.0)  # each chunk is read once

    def group(self, name: str, within: Any = None) -> Any:
        """A group of the file or of another group. Raises KeyError where there is none."""
        from h5py import h5g

        above = within or self._file
        self._check_link(above, name)
        return h5g.open(above, name.encode())

    def read(self, group: Any, name: str) -> NDArray[Any]:
        """The values of an array of a group. Raises KeyError where there is none.

        Raises InputError where its values are no numbers, are elsewhere, or are too many.
        """
        from h5py import h5d, h5s

        self._check_link(group, name)
        array = h5d.open(group, name.encode(), self._access)
        plan, dtype, shape = array.get_create_plist(), array.dtype, array.shape
        refuse_source(self._path, name, plan)
        if dtype.kind not in "fiub" or not shape:
            raise InputError(f"{self._path}: {name!r:.80} is of {dtype!s:.40}; expected numbers")
        chunk = plan.get_chunk() if plan.get_layout() == h5d.CHUNKED else ()
        self._size += max(4, dtype.itemsize) * math.prod(shape)
        unpacked = max(self._size, dtype.itemsize * math.prod(chunk))
        check_size(self._path, [(unpacked // 4,)], self._stored, memory=False)
        values = np.empty(shape, dtype)
        array.read(h5s.ALL, h5s.ALL, values)
        return values

    def _check_link(self, group: Any, name: str) -> None:
        from h5py import h5l

        try:
            kind = group.links.get_info(name.encode()).type
        except RuntimeError as error:  # of HDF5, which says no name
            raise KeyError(f"{name!r:.80}: {error}") from error
        if kind != h5l.TYPE_HARD:
            raise InputError(
                f"{self._path}: {name!r:.80} is a link; its arrays may lie elsewhere, so copy them "
                "into one file"
            )


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
