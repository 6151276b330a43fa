"""Data sets' cards: which of them a command lists, and a card as a person reads it."""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from offrl.cli.console import out
from offrl.errors import unknown
from offrl.text import one_line

if TYPE_CHECKING:
    from offrl.data.card import Card, Environment, File

UNKNOWN = "not known"


def chosen_cards(family: str | None, scored: bool, search: str | None) -> list["Card"]:
    """The shipped cards that are of a family, are scored and have all words of a search.

    A word may stand anywhere in a card's id, title, notes, faults, citation or environment.
    """
    from offrl.data.card import shipped_cards

    cards = list(shipped_cards().values())
    families = {card.family for card in cards}
    if family is not None and family not in families:
        raise unknown("family", family, families)
    words = (search or "").lower().split()
    return [
        card
        for card in cards
        if family in (None, card.family)
        and (card.scored or not scored)
        and all(word in _text(card) for word in words)
    ]


def _text(card: "Card") -> str:
    """What a search looks through."""
    environment = card.environment.id if card.environment else ""
    parts = [card.id, card.title, card.notes, *card.faults, card.citation, environment]
    return " ".join(parts).lower()


def show_card(card: "Card") -> None:
    """Prints a card: a heading, and a paragraph or a list for each of its parts."""
    out.print(Text(f"{card.id} v{card.version}", "bold"))
    _show_lines([card.title])
    for heading, lines in _parts(card):
        out.print(Text(heading, "bold"))
        _show_lines(lines)


class _Address(str):
    """A line that is never broken, so that its address can be copied."""


def _show_lines(lines: Iterable[str]) -> None:
    """Prints paragraphs, indented; what a stranger wrote stays in its own."""
    for line in map(_one_line, lines):
        if isinstance(line, _Address):
            out.print(Text(f"    {line}"), soft_wrap=True)
        else:
            out.print(Padding(Text(line), (0, 0, 0, 2)))


def _one_line(line: str) -> str:
    return type(line)(one_line(line))


def _parts(card: "Card") -> Iterator[tuple[str, list[str]]]:
    """The parts of a card that a person looks for, each with its lines."""
    yield "data", [*_source(card), *_expected(card)]
    yield "scores", _scores(card)
    if card.notes.strip():
        yield "notes", re.split(r"\n\s*\n", card.notes.strip())
    yield "known faults", card.faults or ["none noted"]
    yield "licence", [card.licence]
    yield "citation", [card.citation or UNKNOWN]


def _source(card: "Card") -> Iterator[str]:
    """Where the data come from, and by what a copy is checked."""
    source = card.source
    if source.maker:
        yield f"made on your machine by {source.maker}: offrl data make {card.command_name}"
    elif source.fetched_id:
        yield f"{source.loader}:{source.id}, fetched by the loader {source.loader}"
    for split, files in (("", source.files), ("validation: ", source.validation)):
        for file in files:
            yield f"{split}{file.name} ({_checks(file)})"
            yield from (
                _Address(f"{'mirror' if i else 'from'} {url}") for i, url in enumerate(file.urls)
            )
            if not file.urls:
                yield "without an address: a path, or for offrl data fetch --from FOLDER"
    family = f", of the family {card.family}" if card.family else ""
    yield f"read by the loader {source.loader}, view {card.view}{family}"


def _checks(file: "File") -> str:
    known = [f"MD5 {file.md5}" if file.md5 else "", f"SHA-256 {file.sha256}" if file.sha256 else ""]
    checksum = ", ".join(filter(None, known)) or f"checksum {UNKNOWN}"
    return f"{checksum}, {file.size:,} bytes" if file.size else checksum


def _expected(card: "Card") -> Iterator[str]:
    """What a copy holds, as far as the card says."""
    if card.actions is not None:
        names = f": {', '.join(card.actions.names)}" if card.actions.names else ""
        yield f"{card.actions.count:,} discrete actions{names}"
    expected = card.expected
    for split, prefix in (("", ""), ("validation: ", "validation_")):
        if prefix and not card.source.validation:
            continue
        counts = [
            f"{key} {UNKNOWN if number is None else f'{number:,}'}"
            for key in ("transitions", "episodes")
            for number in [getattr(expected, prefix + key)]
        ]
        mean = UNKNOWN if expected.mean_return is None else f"{expected.mean_return:.10g}"
        yield f"{split}{', '.join([*counts, *([] if prefix else [f'mean return {mean}'])])}"
    if made := expected.made:
        yield f"digest of the columns {made.sha256}, as seen with"
        for seen in made.seen:
            versions = [f"{name} {version}" for name, version in seen.packages.items()]
            yield f"  {', '.join([seen.processor, seen.mathematics, *versions])}"
        yield f"elsewhere episodes and mean return within {made.tolerance:.2%}"


def _scores(card: "Card") -> list[str]:
    """How a policy is scored: the simulator, its versions and the returns of 0 and 100."""
    lines = []
    if card.environment is None:
        lines.append("no environment: a policy cannot be scored")
    else:
        lines += _environment(card.environment)
        lines += [
            f"valid with {package} {wanted} ({_installed(package)})"
            for package, wanted in card.valid_with.items()
        ]
        if not card.valid_with:
            lines.append(f"versions of the simulator in which scores are valid: {UNKNOWN}")
    if card.reference is None:
        lines.append("no returns that count as 0 and 100")
    else:
        reference = card.reference
        lines.append(
            f"0 is a return of {reference.min!r}, 100 one of {reference.max!r}: {reference.source}"
        )
    return lines


def _environment(environment: "Environment") -> Iterator[str]:
    yield f"scored in {environment.id}, {environment.max_episode_steps:,} steps"
    if environment.kwargs:
        yield f"made with {', '.join(f'{k} = {v}' for k, v in environment.kwargs.items())}"
    if environment.observation_keys:
        yield f"observations: {', '.join(environment.observation_keys)}, in this order"
    if environment.wrappers:
        yield f"inside {', '.join(wrapper.entry_point for wrapper in environment.wrappers)}"


def _installed(package: str) -> str:
    try:
        return f"{version(package)} is installed"
    except (PackageNotFoundError, ValueError):
        return "not installed"
