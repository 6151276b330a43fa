"""The look of a paper's tables and figures: a small TOML file that all of them share."""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from offrl.errors import InputError
from offrl.results.naming import Naming, naming
from offrl.results.table import ScoreTable
from offrl.text import one_form
from offrl.toml import Strict, read_toml, validate

# Widths in inches, from the style files of 2024 and 2025: NeurIPS and ICLR have one column of 5.5,
# ICML has two of 3.25, 6.75 in all.
VENUES: Mapping[str, float] = {
    "neurips": 5.5,
    "iclr": 5.5,
    "icml": 3.25,
    "icml-wide": 6.75,
}
SMALLEST, LARGEST = 1.0, 40.0  # inches

Colour = Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]


class Look(Strict):
    """What a look file holds; names that a table lacks are those of other tables.

    order = ["bc", "iql", "mine"]
    [labels]
    mine = "Ours"
    [colours]
    mine = "#c94f00"
    [groups]
    locomotion = ["hopper-*", "walker2d-*"]
    """

    order: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    colours: dict[str, Colour] = Field(default_factory=dict)
    groups: dict[str, list[str]] = Field(default_factory=dict)


def read_look(path: Path | None) -> Look:
    """The look in a TOML file; an empty one for None."""
    return Look() if path is None else validate(Look, read_toml(path), str(path))


def naming_of(
    table: ScoreTable,
    look: Look,
    order: Sequence[str] = (),
    labels: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> Naming:
    """The naming of a table by a look, and by what the user says besides, which comes first.

    The arguments are those of `offrl.results.naming.naming`.
    """
    said = naming(table, order=order, labels=labels, groups=groups)
    names = {*table.algorithms, *table.datasets}

    def known(values: Mapping[str, Any]) -> dict[str, Any]:
        return {one_form(key): value for key, value in values.items() if one_form(key) in names}

    of_look = naming(
        table,
        order=[name for name in map(one_form, look.order) if name in names],
        labels=known(look.labels),
        groups=() if groups else _fitting(look.groups, table.datasets),
    )
    merged = {**of_look.labels, **said.labels}
    return Naming(
        (*said.order, *(name for name in of_look.order if name not in said.order)),
        naming(table, labels=merged).labels,  # once more: two may have one label now
        said.groups if groups else of_look.groups,
    )


def _fitting(groups: Mapping[str, Sequence[str]], datasets: Sequence[str]) -> dict[str, list[str]]:
    """The groups with those of their patterns that some data set fits."""
    fitting = {
        group: [p for p in patterns if p in datasets or fnmatch.filter(datasets, p)]
        for group, patterns in groups.items()
    }
    return {group: patterns for group, patterns in fitting.items() if patterns}


def size_of(text: str) -> tuple[float, float | None]:
    """Width and height in inches by a venue's name, whose height is None, or by WxH."""
    if text in VENUES:
        return VENUES[text], None
    width, _, height = text.partition("x")
    try:
        size = float(width), float(height)
    except ValueError:
        size = 0.0, 0.0
    if not all(SMALLEST <= inches <= LARGEST for inches in size):
        raise InputError(
            f"size {text!r:.40}: expected {', '.join(VENUES)}, or inches such as 5.5x3, each "
            f"{SMALLEST:g} to {LARGEST:g}"
        )
    return size
