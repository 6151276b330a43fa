"""Room for the columns of a data set while they are read: in memory, or in a file.

A file is taken where the columns would fill much of the memory that is free: the system writes its
pages back to the disk as it needs their place, so a data set may be larger than the memory.
"""

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offrl.data.cache import ADVICE, cache_folder
from offrl.data.foreign import check_size, free_memory, size_of
from offrl.errors import InputError

SHARE = 3  # of the memory that is free, the part that columns may take


class Room:
    """Gives arrays for columns, which are as large as what a file declares.

    Args:
        where: the file that is read, for messages.
        arrays: of it, as `check_size` takes them.
        stored: the bytes that the file takes on disk.

    Raises InputError where a few bytes declare many, as `check_size` does.
    """

    def __init__(self, where: str | Path, arrays: Iterable[Any], stored: int):
        arrays = list(arrays)
        check_size(where, arrays, stored, memory=False)
        free = free_memory()
        self.where = where
        self.in_file = free is not None and SHARE * size_of(arrays) > free

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array of any content. Raises InputError where the disk has no place for it."""
        if not self.in_file or 0 in shape:
            return np.empty(shape, dtype)
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:  # has no name: it ends with the array
                _reserve(file.fileno(), math.prod(shape) * np.dtype(dtype).itemsize)
                return np.memmap(file, dtype, "r+", shape=shape)
        except OSError as error:
            raise InputError(
                f"{self.where}: its columns would fill the memory that is free, and cannot be put "
                f"into a file of {folder}: {error.strerror or error}; {ADVICE}"
            ) from error


def release(values: NDArray[Any]) -> None:
    """Takes the pages of a column of the cache out of this process' memory, to be read again."""
    mapped = values.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _reserve(descriptor: int, size: int) -> None:
    """Takes bytes of the disk: a page that has no place there would end the process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    status = os.fstatvfs(descriptor)  # systems that lack it only say what is free
    if size > status.f_bavail * status.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(descriptor, size)
