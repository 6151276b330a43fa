"""Data that a user brings or derives: one file of rows, and a card beside it that names it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from offrl.data.cache import digest
from offrl.data.card import Card, read_card
from offrl.data.choices import Choices
from offrl.data.choosing import Subset
from offrl.data.columns import Columns, check_columns, totals
from offrl.data.loader import Writes, writer_of
from offrl.data.logged import table_columns
from offrl.data.roles import Roles
from offrl.data.sequences import episode_columns
from offrl.data.tables import Table
from offrl.data.transforms import has_action
from offrl.errors import InputError
from offrl.files import replacing, replacing_folder, user_path
from offrl.text import counted, visible
from offrl.toml import to_toml, validate

LONGEST_NOTE = 2_000  # characters of one of a card's notes, which may name many columns

# Of files of rows, after the card's name, by the key of the card's source.
SUFFIXES = {"files": ".transitions.parquet", "validation": ".validation.parquet"}


def deposit(
    columns: Columns,
    output: str | Path,
    about: Mapping[str, Any],
    validation: Columns | None = None,
) -> Card:
    """The card of rows that are written to a file beside it.

    Args:
        columns: the rows.
        output: of the card, NAME.toml; the rows become NAME.transitions.parquet.
        about: keys of the card, such as title and notes.
        validation: rows of a validation split; they become NAME.validation.parquet.

    Raises InputError where one of the two files is there already: cards are edited by hand.
    """
    path = card_path(output)
    parts = (
        {"files": columns} if validation is None else {"files": columns, "validation": validation}
    )
    files = {key: path.with_name(path.stem + SUFFIXES[key]) for key in parts}
    loader, writer = writer_of(files["files"])
    values: dict[str, Any] = {
        "id": re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "data",
        "version": 1,
        "licence": "unknown",
        "citation": "",
        **about,
        "source": {"loader": loader, **{key: [{"name": f.name}] for key, f in files.items()}},
        "expected": {},
    }
    card = validate(Card, values, str(path))
    written: list[Path] = []
    try:
        for key, part in parts.items():
            check_columns(part, path, card.action_count)
            held = totals(part.rewards, part.terminations, part.truncations)
            split = "" if key == "files" else f"{key}_"
            values["expected"][f"{split}transitions"] = held.transitions
            values["expected"][f"{split}episodes"] = held.episodes
            if not split:
                values["expected"]["mean_return"] = held.mean_return
            write_rows(files[key], part, card, writer)
            written.append(files[key])
            values["source"][key][0]["sha256"] = digest(files[key])
        with replacing(path, check=lambda: _check_new(path)) as temporary:
            temporary.write_text(to_toml(values), encoding="utf-8")
    except BaseException:  # rows without a card are of no use, and in the way of another try
        for file in written:
            file.unlink(missing_ok=True)
        raise
    return read_card(path)


def deposit_table(
    table: Table,
    roles: Roles,
    output: str | Path,
    impute: str | None = None,
    validation: float = 0,
) -> Card:
    """The card of a logged table; its notes say what was taken and changed. See `table_columns`.

    `validation` is the share of the episodes that become the validation split, chosen at random.
    """
    card_path(output)  # before anything is read
    if not 0 <= validation < 1:
        raise InputError(f"validation is {validation:g}; expected a share of at least 0, below 1")
    columns = table_columns(table, roles, impute)
    title = f"Logged data: {Path(table.where).name}"
    return _deposit_own(columns, output, title, columns.choices, validation)


def deposit_episodes(
    episodes: Iterable[Mapping[str, Any]], output: str | Path, names: int | Sequence[str] = ()
) -> Card:
    """The card of episodes in memory. See `episode_columns`.

    `names` are those of discrete actions, or how many there are; empty: they are continuous.
    """
    card_path(output)
    choices = None
    if isinstance(names, int) or names:
        count, called = (names, []) if isinstance(names, int) else (len(names), list(names))
        choices = validate(Choices, {"count": count, "names": called}, "discrete actions")
    columns = episode_columns(episodes, count=choices.count if choices else None)
    return _deposit_own(columns, output, "Logged data: episodes from Python", choices)


def _deposit_own(
    columns: Columns,
    output: str | Path,
    title: str,
    choices: Choices | None,
    validation: float = 0,
) -> Card:
    notes, held_out = columns.notes, None
    if validation:
        held_out, columns = Subset(share=validation).parted(columns)
        if not len(columns.rewards):
            raise InputError("validation takes all episodes; choose a smaller share")
        episodes = int((held_out.terminations | held_out.truncations).sum())
        rows = len(held_out.rewards)
        notes.append(
            f"validation split: {counted(rows, 'row')} of {counted(episodes, 'episode')}, at random"
        )
    about: dict[str, Any] = {
        "title": visible(title),
        "notes": visible("\n\n".join(map(_shortened, notes))),
    }
    if choices is not None:
        about["actions"] = choices.model_dump(exclude_defaults=True)
    return deposit(columns, output, about, held_out)


def _shortened(note: str) -> str:
    return note if len(note) <= LONGEST_NOTE else f"{note[: LONGEST_NOTE - 3]}..."


def deposit_derived(
    columns: Columns, card: Card, checksum: str, transform: Any, output: str | Path
) -> Card:
    """The card of rows that a transform made of a data set's.

    It keeps the simulator and the reference returns, and its notes end with its lineage.

    Args:
        columns: what the transform made.
        card: of the data set that was transformed.
        checksum: of that data set.
        transform: the transform, whose text says its parameters.
        output: of the card.
    """
    path = card_path(output)
    kept = card.model_dump(
        mode="json",
        exclude={"id", "source", "expected", "view", "notes"},
        exclude_none=True,
        exclude_defaults=True,
    )
    of = f"{transform} of {card.id} version {card.version}, view {card.view}"
    of += f", data checksum {checksum}"
    notes = "\n\n".join(filter(None, [card.notes, f"Made by: {of}"]))
    return deposit(columns, path, {**kept, "title": f"{card.title}: {transform}", "notes": notes})


def card_path(output: str | Path) -> Path:
    """The path of a new card. Raises InputError unless it and its files of rows can be new."""
    path = user_path(output)
    if path.suffix != ".toml":
        raise InputError(f"{path}: expected the name of a card, which ends in .toml")
    for new in (path, *(path.with_name(path.stem + suffix) for suffix in SUFFIXES.values())):
        _check_new(new)
    return path


def _check_new(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InputError(f"{path}: is there already; choose another name, or remove it")


def write_rows(path: Path, columns: Columns, card: Card, writer: Writes) -> None:
    """Writes rows to a new file or folder, whole or not at all."""
    path = user_path(path).absolute()
    _check_new(path)
    if lacking := int((~has_action(columns.actions)).sum()):
        raise InputError(
            f"{path}: {lacking:,} of {len(columns.rewards):,} rows have no action, which no format "
            f"holds; export {card.id} without the transform that drops them"
        )
    if path.suffix:
        with replacing(path, check=lambda: _check_new(path)) as temporary:
            writer.write(temporary, columns, card)
        return
    with replacing_folder(path, _check_new) as temporary:
        writer.write(temporary, columns, card)
