"""How much memory nested and columnar files take, by their own lengths, before they are unpacked.

Compression, dictionaries, and names or references that share what they lead to make a small file a
large one. `offrl.data.foreign.check_size` compares what is found here with what there is.
"""

import mmap
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from offrl.data.foreign import MODEST, check_size, disk_usage
from offrl.errors import InputError

BLOCK = 1024  # values of unequal lengths that are looked at together, at most
ROW = 128  # bytes that a row of a table takes at least: each becomes an object or more


def nested_arrays(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """Each array of an open HDF5 file with its path.

    Raises InputError where two names lead to one group or array: read under each name, a few would
    be many.
    """
    import h5py

    waiting, seen = [("", file["/"])], set()
    while waiting:
        above, group = waiting.pop()
        for name in group:
            item, where = group[name], f"{above}/{name}"
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise InputError(
                    f"{path}: {where!r:.80} is a second name of what another leads to; write the "
                    f"file again without links"
                )
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append((where, item))
            elif isinstance(item, h5py.Dataset):
                yield where, item


def ragged_blocks(path: Path, array: Any) -> Iterator[Any]:
    """The values of an HDF5 array, whose values differ in length, in blocks.

    They are never compressed. Raises InputError where they are longer than the file: then several
    are one.
    """
    stored = disk_usage(path)
    block = max(1, min(BLOCK, MODEST // stored))
    size = 0
    for first in range(0, len(array), block):
        values = array[first : first + block]
        size += sum(len(value) * getattr(value, "itemsize", 1) for value in values)
        if size > stored:
            raise InputError(
                f"{path}: the values of {array.name!r:.80} are longer than the file, which is "
                f"damaged or hostile; copy it again"
            )
        yield values


def check_table(
    path: Path,
    stored: int,
    others: int = 0,
    look: Callable[[Any], None] | None = None,
    *,
    categories: bool = False,
) -> int:
    """The bytes in memory of a Parquet file, by its suffix, or of an Arrow file.

    Args:
        path: the file.
        stored: the bytes on disk of all files that are held together.
        others: the bytes in memory of those that were looked at before.
        look: called with blocks of its rows, which hold at least all texts and bytes.
        categories: whether a Parquet file may hold categories of texts, and decimals.

    Raises InputError where all these bytes, or those of its texts once each is as long as the
    longest, are more than `check_size` allows, and for types that repeat values; raises what
    pyarrow does where the file is damaged.
    """
    from pyarrow import compute

    parquet = path.suffix == ".parquet"
    rows, size = _parquet_size(path, stored) if parquet else _arrow_size(path)
    check_size(path, [(ROW * rows // 4,)], stored)
    check_size(path, [((others + size) // 4,)], stored)
    longest = texts = 0
    for block in _parquet_blocks(path, categories) if parquet else _arrow_blocks(path):
        block.validate(full=True)  # lengths and offsets that lie end a process, else
        for text in _texts(block.columns):
            texts += text.nbytes if parquet else 0  # held once, and counted so, for many rows
            longest = max(longest, compute.max(compute.binary_length(text)).as_py() or 0)
        check_size(path, [((others + size + texts) // 4,), (rows, longest)], stored)
        if look:
            look(block)
    return size + texts


def _parquet_blocks(path: Path, categories: bool) -> Iterator[Any]:
    """Texts and bytes of a Parquet file, in blocks of rows."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        _check_types(path, file.schema_arrow, categories)
        leaves = [file.schema.column(k) for k in range(len(file.schema))]
        names = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        held = file.metadata
        groups = [held.row_group(k) for k in range(held.num_row_groups)]
        largest = max((group.total_byte_size for group in groups), default=0)
        block = max(1, min(BLOCK, MODEST // max(1, largest)))
        yield from file.iter_batches(block, columns=names) if names else ()


def _arrow_blocks(path: Path) -> Iterator[Any]:
    """The rows of an Arrow file, in the blocks in which they were written."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_file(mapped) as file:
        _check_types(path, file.schema)
        yield from map(file.get_batch, range(file.num_record_batches))


def _check_types(path: Path, schema: Any, categories: bool = False) -> None:
    """Raises InputError for types of which a value, held once, may stand in many rows.

    Of categories and decimals it does not where these are taken.
    """
    from pyarrow import types

    waiting = [(field.name, field.type) for field in schema]
    while waiting:
        name, kind = waiting.pop()
        if types.is_struct(kind) or _is_list(kind):
            waiting += [(name, kind.field(k).type) for k in range(kind.num_fields)]
        elif categories and (
            types.is_decimal(kind) or (types.is_dictionary(kind) and _is_text(kind.value_type))
        ):
            continue  # `_texts` has the longest category, as long as which all may be
        elif not (types.is_primitive(kind) or types.is_null(kind) or _is_text(kind)):
            raise InputError(
                f"{path}: {name!r:.80} is {str(kind)[:80]}; expected numbers, texts, and lists and "
                f"structs of them"
            )


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in lists)


def _is_text(kind: Any) -> bool:
    """Whether values are texts or bytes."""
    from pyarrow import types

    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(is_kind(kind) for is_kind in texts)


def _texts(arrays: Iterable[Any]) -> Iterator[Any]:
    """Arrays of texts or bytes among arrays, nested ones included."""
    from pyarrow import types

    for array in arrays:
        if types.is_struct(array.type):
            yield from _texts(array.field(k) for k in range(array.type.num_fields))
        elif _is_list(array.type):
            yield from _texts([array.values])
        elif types.is_dictionary(array.type):
            yield from _texts([array.dictionary])
        elif _is_text(array.type):
            yield array


_ITEM = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


def _parquet_size(path: Path, stored: int) -> tuple[int, int]:
    """Rows and bytes, but for texts that repeat."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        held, schema = file.metadata, file.schema
        groups = range(held.num_row_groups)
        size = sum(held.row_group(k).total_byte_size for k in groups)
        check_size(path, [(size // 4,)], stored)
        for k in groups:
            # Raises where a column is damaged: asked for it alone, pyarrow ends the process.
            next(file.iter_batches(1, [k], use_threads=False), None)
        size = held.num_rows * sum(_width(field.type) for field in file.schema_arrow)
        for group in map(held.row_group, groups):
            for column in range(group.num_columns):
                chunk, leaf = group.column(column), schema.column(column)
                item = _ITEM.get(chunk.physical_type, max(0, leaf.length) or 8)
                size += max(chunk.num_values * item, chunk.total_uncompressed_size)
        return held.num_rows, size


def _width(kind: Any) -> int:
    """The bytes of a value of a type of Arrow, as far as the type decides."""
    from pyarrow import types

    if types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    if types.is_struct(kind):
        return sum(_width(kind.field(k).type) for k in range(kind.num_fields))
    try:
        return -(-int(kind.bit_width) // 8)
    except ValueError:  # of values whose lengths differ
        return 8


class _Record:
    """A table of a flatbuffer, the form in which an Arrow file says what it holds.

    Raises struct.error where it lies outside the bytes.
    """

    def __init__(self, data: Any, place: int) -> None:
        self.data, self.place = data, place

    def number(self, field: int, form: str) -> int:
        """A number, 0 where the record has none."""
        place = self._place(field)
        return _number(self.data, place, form) if place else 0

    def record(self, field: int) -> "_Record | None":
        """A record inside of this one."""
        place = self._place(field)
        return _Record(self.data, place + _number(self.data, place, "I")) if place else None

    def structs(self, field: int, form: str) -> Iterator[tuple[int, ...]]:
        """A vector of structs."""
        if place := self._place(field):
            place += _number(self.data, place, "I")
            size = struct.calcsize(f"<{form}")
            for k in range(_number(self.data, place, "I")):
                yield struct.unpack_from(f"<{form}", self.data, place + 4 + k * size)

    def _place(self, field: int) -> int:
        fields = self.place - _number(self.data, self.place, "i")
        inside = 4 + 2 * field < _number(self.data, fields, "H")
        offset = _number(self.data, fields + 4 + 2 * field, "H") if inside else 0
        return self.place + offset if offset else 0


def _number(data: Any, place: int, form: str) -> int:
    value: int = struct.unpack_from(f"<{form}", data, place)[0]
    return value


_DICTIONARY = 2  # the kind of a message of Arrow that holds a dictionary; 3 are rows


def _arrow_size(path: Path) -> tuple[int, int]:
    """Rows and bytes of an Arrow file: each buffer begins with its length before compression.

    Format: https://arrow.apache.org/docs/format/Columnar.html, Message.fbs and File.fbs.
    """
    rows = size = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = len(data) - 10  # "ARROW1" and the length of the footer
        start = end - _number(data, end, "i")
        footer = _Record(data, start + _number(data, start, "I"))
        for field in (2, 3):  # dictionaries, rows
            for place, header, _ in footer.structs(field, "qi4xq"):
                prefix = 8 if _number(data, place, "I") == 0xFFFFFFFF else 4
                begun = place + prefix
                message = _Record(data, begun + _number(data, begun, "I"))
                batch = message.record(2)
                if batch and message.number(1, "B") == _DICTIONARY:
                    batch = batch.record(1)
                if batch is None:
                    continue
                rows += batch.number(0, "q")
                packed = batch.record(3) is not None
                for offset, length in batch.structs(2, "qq"):
                    unpacked = -1
                    if packed and length >= 8:
                        unpacked = _number(data, place + header + offset, "q")
                    size += length if unpacked < 0 else unpacked
    return rows, size
