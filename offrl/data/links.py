"""Whether a file of nested arrays reads bytes of other files: those of a stranger must not.

HDF5 has three ways to do so: external links, external storage and virtual data sets. Every loader
that opens such a file passes here first. A soft link that leads in a circle is refused too.
"""

from pathlib import Path
from typing import Any

from offrl.errors import InputError


def refuse_links(path: Path) -> None:
    """Raises InputError where arrays of an HDF5 file lie in other files, or links in a circle.

    Raises OSError, or what h5py raises, where the file cannot be opened or is damaged.
    """
    import h5py
    from h5py import h5d, h5g, h5l, h5o

    with h5py.File(path, "r") as file:
        waiting, seen = [("", file.id)], set()  # a hard link may close a circle
        soft = []
        while waiting:
            above, group = waiting.pop()
            for name, kind in _links(group):
                where = f"{above}/{name.decode(errors='replace')}"
                if kind == h5l.TYPE_SOFT:  # to a path of this file, whose own links are looked at
                    soft.append((group, name, where))
                    continue
                if kind != h5l.TYPE_HARD:
                    raise _outside(path, where, "is a link to another file")
                item = h5o.open(group, name)
                if isinstance(item, h5d.DatasetID):
                    refuse_source(path, where, item.get_create_plist())
                if isinstance(item, h5g.GroupID):
                    address = h5o.get_info(item).addr
                    if address not in seen:
                        seen.add(address)
                        waiting.append((where, item))
        for group, name, where in soft:  # now that no link leads out of the file
            try:
                h5o.open(group, name)
            except KeyError:  # to nothing: whoever looks for it says so
                continue
            except RuntimeError as error:
                raise InputError(
                    f"{path}: {where!r:.80} is a soft link that leads in a circle, or by too many "
                    f"others; copy what it stands for in its place, or delete it"
                ) from error


def refuse_source(path: Path, where: str, plan: Any) -> None:
    """Raises InputError where an array of an HDF5 file has values of another file, by its plan."""
    if source := _source(plan):
        raise _outside(path, where, f"lies in the file {source}")


def _links(group: Any) -> list[tuple[bytes, int]]:
    """Name and kind of each link in a group."""
    found: list[tuple[bytes, int]] = []
    group.links.iterate(lambda name, info: found.append((name, info.type)), info=True)
    return found


def _source(plan: Any) -> str | None:
    """Another file from which an array's values come, or None."""
    from h5py import h5d

    if plan.get_layout() == h5d.VIRTUAL:
        names = (plan.get_virtual_filename(i) for i in range(plan.get_virtual_count()))
        return next((name for name in names if name != "."), None)
    if plan.get_layout() == h5d.CONTIGUOUS and plan.get_external_count():
        name: bytes = plan.get_external(0)[0]
        return name.decode(errors="replace")
    return None


def _outside(path: Path, where: str, how: str) -> InputError:
    return InputError(
        f"{path}: {where!r:.80} {how}; a data file that reads other files of this machine is not "
        "opened, so copy the arrays into one file"
    )
