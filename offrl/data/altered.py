"""Altered data sets: names such as `ID+corrupt[observations,random,rate=0.3,range=1,seed=0]`.

The name is the identity of what transforms make of a data set, and how it is given everywhere; its
columns are made once and kept in the cache, below a hash of the name, the clean columns and
VERSION.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from offrl.data.cache import SHORT, cache_folder, folder_name, write_columns
from offrl.data.card import Card
from offrl.data.choosing import DropActions, Mix, Subset
from offrl.data.columns import Columns, totals
from offrl.data.transforms import Corrupt, Delay, Noise, Transform
from offrl.errors import InputError, unknown
from offrl.text import one_line
from offrl.toml import Strict, shortened, shown, validate
from offrl.version import __version__

VERSION = 1  # of what transforms make: another is another folder
KINDS: dict[str, type[Transform]] = {
    kind.kind: kind for kind in (Corrupt, Delay, DropActions, Mix, Noise, Subset)
}
ALTERED = re.compile(r"(?P<of>.+?)(?P<transforms>(?:\+[a-z-]+\[[^\[\]]*\])+)", re.DOTALL)
TRANSFORM = re.compile(r"\+([a-z-]+)\[([^\[\]]*)\]")
RUN_SEED = re.compile(r"(?<=[\[,]seed=run)(:[0-9]+)?(?=\])")


class Entry(Strict):
    """A data set of a protocol, as a table: its name and what it is altered by, in order."""

    dataset: str
    transforms: list[dict[str, Any]] = Field(min_length=1)


def parted(name: str) -> tuple[str, tuple[Transform, ...]]:
    """The clean data set and the transforms that a name holds; a path that exists holds none.

    Raises InputError for a transform that there is not, or with a value that it does not take.
    """
    found = ALTERED.fullmatch(name)
    if found is None or not is_altered(name):
        return name, ()
    return found["of"], tuple(
        _from_text(kind, text) for kind, text in TRANSFORM.findall(found["transforms"])
    )


def is_altered(name: str) -> bool:
    """Whether a name holds transforms."""
    if ALTERED.fullmatch(name) is None:
        return False
    return not os.path.exists(name)  # noqa: PTH110 (Path.exists raises for a name that is too long)


def joined(name: str, transforms: Sequence[Transform]) -> str:
    """The name of what transforms make of a data set."""
    return "".join([name, *(f"+{transform}" for transform in transforms)])


def entry_name(entry: Any) -> Any:
    """The name of a data set that a protocol's file gives as a text or as an `Entry`.

    A value that is neither stays as it is. Raises InputError for a transform with a fault.
    """
    if isinstance(entry, str):
        name, transforms = parted(entry)
    elif isinstance(entry, dict):
        given = validate(Entry, entry, "data set")
        name, first = parted(given.dataset)
        transforms = (*first, *map(_from_table, given.transforms))
    else:
        return entry
    for transform in transforms:
        if isinstance(transform.seed, str) and transform.seed != "run":
            raise InputError(f"{transform}: expected a whole number or run as its seed")
    return joined(name, transforms)


def placed(name: str, place: Callable[[str], str]) -> str:
    """A name with `place` of the clean data set's and of those that are mixed with it."""
    of, transforms = parted(name)
    moved = [
        t.model_copy(update={"of": [(place(n), share) for n, share in getattr(t, "of", ())]})
        if t.others
        else t
        for t in transforms
    ]
    return joined(place(of), moved)


def clean_name(name: str) -> str | None:
    """The clean data set of an altered one, `@version` kept; None for a name without transforms."""
    whole, at, version = name.partition("@")
    found = ALTERED.fullmatch(whole)
    return f"{found['of']}{at}{version}" if found else None


def of_run(name: str, seed: int) -> str:
    """The name of the data set with which the run of a seed trains."""
    return RUN_SEED.sub(f":{seed}", name) if is_altered(name) else name


def of_all_runs(name: str) -> str:
    """The name that the data sets of all seeds share."""
    return RUN_SEED.sub("", name) if is_altered(name) else name


def altered_folder(card: Card, name: str, checksums: Sequence[str]) -> Path:
    """Where in the cache an altered data set lies, or will.

    Args:
        card: the clean one's.
        name: the altered one's.
        checksums: of the clean one, and of those that are mixed with it.
    """
    transforms = name.removeprefix(parted(name)[0])
    key = json.dumps([VERSION, transforms, *checksums])
    short = hashlib.sha256(key.encode()).hexdigest()[:SHORT]
    return cache_folder() / "altered" / folder_name(card, f"-{short}")


def write_altered(folder: Path, columns: Columns, notes: Sequence[str]) -> None:
    """Writes what transforms made to its folder of the cache; `notes` are of the clean set."""
    held = totals(columns.rewards, columns.terminations, columns.truncations)
    meta = {
        "offrl": __version__,
        "split": "train",
        "totals": dataclasses.asdict(held),
        "notes": [*notes, *columns.notes],
    }
    write_columns(folder, columns.arrays(), meta)


def _kind(name: Any) -> type[Transform]:
    if not isinstance(name, str) or name not in KINDS:
        raise unknown("transform", str(name), KINDS)
    return KINDS[name]


def _from_text(kind: str, text: str) -> Transform:
    made = _kind(kind)
    try:
        return made.model_validate_strings(made.read(text), strict=False)
    except ValidationError as error:
        raise _fault(one_line(f"{kind}[{text:.80}]"), error) from None


def _from_table(table: dict[str, Any]) -> Transform:
    values = dict(table)
    made = _kind(values.pop("kind", None))
    return validate(made, values, f"transform {made.kind}")


def _fault(where: str, error: ValidationError) -> InputError:
    first = error.errors()[0]
    key = one_line(".".join(map(shortened, first["loc"]))) or "(all)"
    return InputError(f"{where}: {key}: {first['msg']}, found {shown(first['input'])}")
