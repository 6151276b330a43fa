"""Files that hold the cards of a family: `[defaults]`, and a table per data set or for several.

A data set's table is merged with the defaults key by key, and what it says itself counts. A table
with `each` stands for several data sets: one for every choice of an entry from each of its lists.
With `each = [[{ size = "medium" }, { size = "large", steps = 9 }], [{ task = 1 }, { task = 2 }]]`
there are four, whose texts, the id among them, have the chosen values for `{size}` and `{task}`. A
text that is nothing but `{steps}` becomes the value itself, such as a number. A value may hold
words of later lists.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from offrl.errors import InputError
from offrl.toml import read_toml


def family_tables(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Of each data set of a family's file the id, the whole table, and where in the file it stands.

    Raises InputError where two tables have one id.
    """
    tables = read_toml(path)
    defaults = tables.pop("defaults", {})
    seen: set[str] = set()
    for key, table in tables.items():
        where = f"{path}: [{key}]"
        if not isinstance(table, dict):
            raise InputError(f"{where}: expected a table per data set, found {table!r:.80}")
        for name, values in _each(key, table, where):
            if name in seen:
                raise InputError(f"{where}: {name!r} has a table already; give each id once")
            seen.add(name)
            yield name, {"id": name, **_merge(defaults, values)}, where


def _each(name: str, table: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The data sets that a table stands for: their ids, and the table of each."""
    lists = table.get("each", [])
    if not (isinstance(lists, list) and all(map(_is_choice, lists))):
        raise InputError(f"{where}: each: expected lists of tables of words, found {lists!r:.80}")
    rest = {key: value for key, value in table.items() if key != "each"}
    for chosen in itertools.product(*lists):
        words = {f"{{{key}}}": value for entry in chosen for key, value in entry.items()}
        yield str(_filled(name, words)), _filled(rest, words)


def _is_choice(entries: Any) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def _filled(value: Any, words: dict[str, Any]) -> Any:
    """A value whose texts have the words in place of their names."""
    if isinstance(value, str):
        if not isinstance(words.get(value, ""), str):
            return words[value]
        for name, word in words.items():
            value = value.replace(name, str(word))
        return value
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    return [_filled(item, words) for item in value] if isinstance(value, list) else value


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
