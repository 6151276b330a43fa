"""Data sets: cards, loaders, the cache, and the arrays that algorithms train on.

Names below are loaded on first use, so that an algorithm, which imports `offrl.data.transitions`,
draws in neither the cache nor downloads.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offrl.data.archive import open_archive as open_archive
    from offrl.data.card import Card as Card
    from offrl.data.card import Environment as Environment
    from offrl.data.card import Reference as Reference
    from offrl.data.card import Wrapper as Wrapper
    from offrl.data.card import find_card as find_card
    from offrl.data.card import shipped_cards as shipped_cards
    from offrl.data.choices import Choices as Choices
    from offrl.data.choices import choices_text as choices_text
    from offrl.data.choices import read_choices as read_choices
    from offrl.data.columns import Columns as Columns
    from offrl.data.columns import Totals as Totals
    from offrl.data.columns import actions as actions
    from offrl.data.columns import column as column
    from offrl.data.columns import cut_off as cut_off
    from offrl.data.columns import flags as flags
    from offrl.data.columns import gathered as gathered
    from offrl.data.columns import moved as moved
    from offrl.data.dataset import Dataset as Dataset
    from offrl.data.dataset import load_dataset as load_dataset
    from offrl.data.foreign import check_size as check_size
    from offrl.data.foreign import disk_usage as disk_usage
    from offrl.data.foreign import size_of as size_of
    from offrl.data.links import refuse_links as refuse_links
    from offrl.data.loader import path_stamp as path_stamp
    from offrl.data.nested import Nested as Nested
    from offrl.data.nested import open_nested as open_nested
    from offrl.data.observations import flatten as flatten
    from offrl.data.observations import layout_of as layout_of
    from offrl.data.observations import texts_of as texts_of
    from offrl.data.room import Room as Room
    from offrl.data.sequences import episode_columns as episode_columns
    from offrl.data.steps import Steps as Steps
    from offrl.data.steps import precedes as precedes
    from offrl.data.transitions import Transitions as Transitions
    from offrl.data.unfolded import check_table as check_table
    from offrl.data.unfolded import nested_arrays as nested_arrays
    from offrl.data.unfolded import ragged_blocks as ragged_blocks

_NAMES = {
    "archive": ("open_archive",),
    "card": (
        "Card",
        "Environment",
        "Reference",
        "Wrapper",
        "find_card",
        "shipped_cards",
    ),
    "choices": ("Choices", "choices_text", "read_choices"),
    "columns": (
        "Columns",
        "Totals",
        "actions",
        "column",
        "cut_off",
        "flags",
        "gathered",
        "moved",
    ),
    "dataset": ("Dataset", "load_dataset"),
    "links": ("refuse_links",),
    "nested": ("Nested", "open_nested"),
    "observations": ("flatten", "layout_of", "texts_of"),
    "foreign": ("check_size", "disk_usage", "size_of"),
    "loader": ("path_stamp",),
    "room": ("Room",),
    "sequences": ("episode_columns",),
    "steps": ("Steps", "precedes"),
    "transitions": ("Transitions",),
    "unfolded": ("check_table", "nested_arrays", "ragged_blocks"),
}
_MODULE = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'offrl.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"offrl.data.{_MODULE[name]}"), name)
