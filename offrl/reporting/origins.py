"""Provenance for a reader: each key with its distinct values and the runs that have them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from offrl.reporting.values import value_text

LABELS = {"algorithm": "algorithms", "dataset": "data sets", "seed": "seeds"}
NAMES = {"data_sha256": "data checksum"}
DISTINCT = 12  # values of one key that are given; the entries hold them all


def origins(
    entries: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each key of provenance entries with its distinct values as text.

    Beside each value stand the runs that have it; nothing where all runs have it. Values of which
    every run has its own, such as times, are given as a range where they are many.

    Args:
        entries: `ScoreTable.provenance`, one per run or per score file.
    """
    flat = [dict(_items(entry)) for entry in entries]
    for key in dict.fromkeys(key for items in flat for key in items):
        groups: dict[str, list[dict[str, str]]] = {}
        for items in flat:
            if key in items:
                groups.setdefault(items[key], []).append(items)
        name = LABELS.get(key) or NAMES.get(key) or key.replace("_", " ")
        if key in LABELS or len(groups) == 1 == len(flat):
            yield name, [(", ".join(groups), "")]
        elif len(groups) == len(flat) > DISTINCT:
            yield name, [(f"{min(groups)} to {max(groups)}", "")]
        else:
            values = [
                (value, "" if len(members) == len(flat) else _runs(members, flat))
                for value, members in groups.items()
            ]
            if len(values) > DISTINCT:
                values[DISTINCT:] = [(f"and {len(values) - DISTINCT} more, in summary.json", "")]
            yield name, values


def _items(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys and values of an entry as text; those of records in a list (sessions) side by side."""
    for key, value in entry.items():
        if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for inner in dict.fromkeys(name for record in value for name in record):
                texts = [_text(record[inner]) for record in value if record.get(inner) is not None]
                if texts:
                    yield str(inner), " | ".join(dict.fromkeys(texts))
        elif value is not None and not (key == "label" and value == entry.get("algorithm")):
            yield str(key), _text(value)


def _text(value: Any) -> str:
    """The value as text; a mapping's own braces are left out."""
    text = value_text(value)
    return text[1:-1] if isinstance(value, Mapping) else text


def _runs(members: Sequence[dict[str, str]], everyone: Sequence[dict[str, str]]) -> str:
    """Which runs a value belongs to, by the labels that set them apart: `IQL`, `seed 3`."""
    parts = []
    for key in ("algorithm", "dataset", "seed"):
        names = _names(members, key)
        if names and len(names) < len(_names(everyone, key)):
            parts.append(f"{'seed ' if key == 'seed' else ''}{', '.join(names)}")
    return " · ".join(parts) or f"{len(members)} of {len(everyone)}"


def _names(entries: Sequence[dict[str, str]], key: str) -> list[str]:
    """The distinct values of a label, in order; an algorithm's are its labels in the table."""
    values = (e.get("label", e.get(key)) if key == "algorithm" else e.get(key) for e in entries)
    return [name for name in dict.fromkeys(values) if name is not None]
