"""How the names of a score table are shown: their order, their labels, groups of data sets."""

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from offrl.data.card import shipped_cards
from offrl.errors import InputError, unknown
from offrl.results.table import ScoreTable
from offrl.text import one_form

Texts = Mapping[str, str] | Sequence[str]  # by name, or "NAME=TEXT" each
Patterns = Mapping[str, Sequence[str]] | Sequence[str]  # by group, or "GROUP=PATTERN" each

NO_NAME = "(no name)"  # in place of an empty label


@dataclass(frozen=True)
class Naming:
    """What is written in place of names, and in which order; make one with `naming`.

    Attributes:
        order: algorithms and data sets that come first, in this order.
        labels: what is written in place of a name.
        groups: data sets by the name of their group; each is in one group at most.
    """

    order: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def label(self, name: str) -> str:
        """What is written in place of an algorithm's or a data set's name; the name by default."""
        text = self.labels.get(name, name)
        return text if text.strip() else NO_NAME

    def ordered(self, names: Iterable[str]) -> list[str]:
        """The names, those of `order` first; the others keep the order in which they are given."""
        given = list(dict.fromkeys(names))
        first = [name for name in self.order if name in set(given)]
        return [*first, *(name for name in given if name not in set(first))]

    def grouped(self, datasets: Iterable[str]) -> list[tuple[str, list[str]]]:
        """The data sets by group, with those of no group last, under an empty name."""
        names = self.ordered(datasets)
        parts = [
            (group, [name for name in names if name in set(members)])
            for group, members in self.groups.items()
        ]
        inside = {name for _, members in parts for name in members}
        parts.append(("", [name for name in names if name not in inside]))
        return [(group, members) for group, members in parts if members]


def naming(
    table: ScoreTable,
    *,
    order: Sequence[str] = (),
    labels: Texts = (),
    groups: Patterns = (),
) -> Naming:
    """The naming of a table; raises InputError for a name or a pattern that the table lacks.

    Args:
        table: the scores.
        order: algorithms and data sets that come first.
        labels: what is written in place of algorithms and data sets. Texts such as "mine=Ours"
            are parted at the sign of equality that leaves a name of the table before it.
        groups: names or patterns of data sets by group, or texts such as "locomotion=*-v2". A data
            set is in the first group that it fits. By default the groups of the shipped cards of
            the table's data sets, if there are two or more.
    """
    names = [*table.algorithms, *table.datasets]
    for name in map(one_form, order):
        _check(name, names)
    pairs = labels.items() if isinstance(labels, Mapping) else _parted(labels, names)
    texts = {one_form(name): text for name, text in pairs}
    for name in texts:
        _check(name, names)
    for of in (table.algorithms, table.datasets):
        shown: dict[str, str] = {}
        for name in of:
            text = texts.get(name, name)
            if shown.setdefault(text, name) != name:
                raise InputError(
                    f"{shown[text]!r} and {name!r} would both be called {text!r}; give each a "
                    "label of its own"
                )
    members = _members(table.datasets, groups) if groups else _groups_of_cards(table.datasets)
    return Naming(tuple(dict.fromkeys(map(one_form, order))), texts, members)


def _check(name: str, names: Collection[str]) -> None:
    if name not in names:
        raise unknown("algorithm or data set", name, names)


def _parted(texts: Sequence[str], names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names and what is written in their place, of texts that hold both."""
    for text in texts:
        places = [place for place, sign in enumerate(text) if sign == "="]
        if not places:
            raise InputError(f"label {text!r}: expected NAME=TEXT, such as mine=Ours")
        known = (place for place in places if one_form(text[:place]) in names)
        place = next(known, places[0])
        yield text[:place], text[place + 1 :]


def _members(datasets: Sequence[str], groups: Patterns) -> dict[str, tuple[str, ...]]:
    """The data sets of each group that patterns describe."""
    patterns: dict[str, list[str]] = {}
    if isinstance(groups, Mapping):
        patterns = {name: list(several) for name, several in groups.items()}
    else:
        for text in groups:
            name, sign, pattern = text.partition("=")
            if not (name and sign and pattern):
                raise InputError(f"group {text!r}: expected NAME=PATTERN, such as maze=*maze*")
            patterns.setdefault(name, []).append(pattern)
    taken: set[str] = set()
    members = {}
    for name, several in patterns.items():
        fitting = set()
        for pattern in map(one_form, several):
            fits = {pattern} & {*datasets} or set(fnmatch.filter(datasets, pattern))
            if not fits:
                raise unknown("data set", pattern, datasets)
            fitting |= fits
        members[name] = tuple(d for d in datasets if d in fitting and d not in taken)
        if not members[name]:
            raise InputError(
                f"group {name}: all of its data sets are in a group before it; put {name} first, "
                "or leave it out"
            )
        taken |= fitting
    return members


def _groups_of_cards(datasets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The data sets by the group that their shipped card names; none where all have the same."""
    cards = shipped_cards()
    members: dict[str, list[str]] = {}
    for name in datasets:
        card = cards.get(name.partition("@")[0])
        members.setdefault(card.group if card else "", []).append(name)
    several = len(members) > 1 and members.keys() - {""}
    return {g: tuple(of) for g, of in members.items() if g} if several else {}
