"""`offrl list` and `offrl show`."""

import dataclasses
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from offrl.cli import published
from offrl.cli.console import (
    AsJson,
    Columns,
    Trusted,
    names_of,
    new_table,
    out,
    print_json,
    print_line,
    show_rows,
)
from offrl.cli.options import (
    Episodes,
    Every,
    Seeds,
    Settings,
    Steps,
    config_values,
    seed_numbers,
)
from offrl.errors import InputError, unknown

if TYPE_CHECKING:
    from offrl.running.protocol import Protocol

KINDS = ("datasets", "algorithms", "protocols", "tables")
LONGEST_LINE = 100  # of a paragraph, in characters, however wide the terminal


def list_names(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="datasets, algorithms, protocols or tables.",
            autocompletion=lambda incomplete: [k for k in KINDS if k.startswith(incomplete)],
        ),
    ],
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only data sets of this family."),
    ] = None,
    scored: Annotated[
        bool, typer.Option("--scored", help="Only data sets whose policies can be scored.")
    ] = False,
    search: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="Only data sets whose cards have all these words."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List data sets, algorithms, protocols or published tables.

    Example: offrl list datasets --family d4rl --search antmaze
    """
    from offrl import registry
    from offrl.cli.cards import chosen_cards
    from offrl.running.protocol import find_protocol, shipped_protocols

    rows: list[dict[str, Any]]
    columns: Columns
    if what in KINDS[1:] and (family or scored or search):
        raise InputError(
            f"{what}: --family, --scored and --search choose among datasets; omit them"
        )
    if what == "datasets":
        rows = [
            {
                "id": card.id,
                "version": card.version,
                "title": card.title,
                "scored": card.scored,
                "family": card.family,
            }
            for card in chosen_cards(family, scored, search)
        ]
        columns = {
            "id": "id",
            "v": "version",
            "title": "title",
            "scored": lambda row: "yes" if row["scored"] else "no",
        }
    elif what == "algorithms":
        rows = [_algorithm(name) for name in sorted(registry.modules("algorithms"))]
        columns = {
            "id": "id",
            "title": "title",
            "paper": "paper",
            "agreement": lambda row: row["agreement"] or "not measured",
        }
    elif what == "protocols":
        rows = [
            {
                "id": name,
                "version": protocol.version,
                "title": protocol.title,
                "datasets": protocol.datasets,
                "algorithms": list(protocol.algorithms),
                "seeds": len(protocol.seeds),
                "steps": protocol.steps,
            }
            for name, protocol in ((n, find_protocol(n)) for n in sorted(shipped_protocols()))
        ]
        columns = {
            "id": "id",
            "v": "version",
            "title": "title",
            "sets": lambda row: str(len(row["datasets"])),
            "algorithms": lambda row: str(len(row["algorithms"])),
            "seeds": "seeds",
        }
    elif what == "tables":
        rows, columns = published.table_rows(), published.TABLE_COLUMNS
    else:
        raise unknown("kind", what, KINDS)
    if not (rows or as_json):
        print_line(f"no {what} of offrl's fit; offrl list {what} shows all")
        return
    show_rows(rows, columns, as_json)


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="An id, or the path of a .toml or .py file.",
            autocompletion=names_of("datasets", "algorithms", "protocols"),
        ),
    ],
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Print a protocol as the file that offrl run reads.")
    ] = False,
    steps: Steps = None,
    seed: Seeds = None,
    every: Every = None,
    episodes: Episodes = None,
    settings: Settings = None,
    trust: Trusted = None,
    as_json: AsJson = False,
) -> None:
    """Show a data set's card, an algorithm and its defaults, a protocol, or a published table.

    A protocol is shown whole, with what it extends and with what options as those of offrl run
    change.

    Example: offrl show corl --steps 100000 --toml > mine.toml
    """
    from offrl import registry
    from offrl.cli.cards import show_card
    from offrl.data.altered import is_altered
    from offrl.data.card import read_card, shipped_cards
    from offrl.data.resolve import resolve
    from offrl.running.changes import Changes, changed
    from offrl.running.protocol import find_protocol, shipped_protocols, tables
    from offrl.statistics.published import headings
    from offrl.toml import read_toml, to_toml
    from offrl.trust import trusted

    cards, algorithms = shipped_cards(), registry.modules("algorithms")
    protocols = shipped_protocols()
    card = cards.get(name)
    protocol = find_protocol(name) if name in protocols else None
    table = name if name in headings() else None
    algorithm = None
    if name in algorithms or name.endswith(".py"):
        algorithm = _algorithm_page(name)
    elif name.endswith(".toml") and "algorithms" in read_toml(Path(name)):
        protocol = find_protocol(name, trust or ())
    elif name.endswith(".toml"):
        card = read_card(Path(name))
    if not (card or protocol or algorithm or table):
        if is_altered(name):
            resolve(name)  # says that it has no card
        raise unknown("name", name, {*cards, *algorithms, *protocols, *headings()})
    changes = Changes(
        steps, seed_numbers(seed) if seed else None, every, episodes, config_values(settings or ())
    )
    if not protocol and (as_toml or changes != Changes()):
        raise InputError(f"{name}: is no protocol, which --toml and changes are for")
    if protocol:
        protocol = changed(protocol, changes, trust=trusted(trust or ()))
    if as_toml and protocol:
        sys.stdout.write(to_toml(tables(protocol)))
        return
    if as_json:
        kinds = {
            "protocol": protocol and protocol.model_dump(),
            "dataset": card and card.model_dump(),
            "algorithm": algorithm,
            "table": table and published.table_values(table),
        }
        print_json({kind: values for kind, values in kinds.items() if values})
        return
    if protocol:
        _show_protocol(protocol)
    if card:
        show_card(card)
    if algorithm:
        documentation = algorithm.pop("documentation")
        algorithm["agreement"] = algorithm["agreement"] or "not measured"
        _show_values(f"algorithm {name}", algorithm)
        for line in _refilled(documentation, min(out.width, LONGEST_LINE)):
            print_line(line)
    if table:
        published.show_table(table)


def _algorithm(name: str) -> dict[str, Any]:
    """What `offrl list` says of an algorithm."""
    from offrl.learning.learner import find_algorithm

    learner = find_algorithm(name)
    summary = (sys.modules[learner.__module__].__doc__ or learner.__doc__ or name).strip()
    return {
        "id": name,
        "title": summary.split("\n")[0].rstrip("."),
        "family": learner.family,
        "paper": learner.paper,
        "agreement": learner.agreement,
    }


def _algorithm_page(name: str) -> dict[str, Any]:
    """The same, with the defaults of its config and the docstring of its module."""
    from offrl.learning.learner import find_algorithm
    from offrl.running.jobs import configure

    module = sys.modules[find_algorithm(name).__module__]
    return {
        **_algorithm(name),
        "config": dataclasses.asdict(configure(name, {}, name)),
        "documentation": (module.__doc__ or "").strip(),
    }


def _show_values(title: str, values: dict[str, Any]) -> None:
    """Prints a row for each value that is set, and for each of a config."""
    rows = [{"key": key, "value": value} for key, value in _flat(values)]
    show_rows(rows, {"key": "key", "value": "value"}, as_json=False, title=title)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    from offrl.reporting.values import value_text

    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, item in enumerate(value):
                yield from _flat(item, f"{prefix}{key}[{i}].")
        elif value not in (None, [], {}, "") or prefix == "config.":
            yield f"{prefix}{key}", value_text(value).strip()


def _refilled(documentation: str, width: int) -> Iterator[str]:
    """The lines of a docstring, its paragraphs and lists filled to a width.

    Indented lines, such as equations, stay as they are where they fit.
    """
    block: list[str] = []  # the lines of a paragraph or of an item of a list
    hanging = ""  # the indent of its further lines

    def filled() -> list[str]:
        text = " ".join(line.strip() for line in block)
        block.clear()
        return textwrap.wrap(
            text, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
        )

    for line in documentation.splitlines():
        item = re.match(r"(\d+\.|[-*]) ", line)
        indent = line[: len(line) - len(line.lstrip())]
        if item or not line.strip():
            yield from filled()
            hanging = " " * len(item[0]) if item else ""
            if item:
                block.append(line)
            else:
                yield ""
        elif indent == hanging or not indent:
            if indent != hanging:
                yield from filled()
                hanging = ""
            block.append(line)
        else:
            yield from filled()
            hanging = ""
            yield from textwrap.wrap(
                line, width, subsequent_indent=f"{indent}    ", break_long_words=False
            )
    yield from filled()


def _show_protocol(protocol: "Protocol") -> None:
    """Prints what a paper's appendix does: what all data sets share, and what they do not."""
    from offrl.data.altered import of_all_runs
    from offrl.data.card import shipped_cards
    from offrl.data.resolve import id_of
    from offrl.reporting.values import value_text
    from offrl.running.jobs import expand
    from offrl.running.patterns import patterns

    jobs = expand(protocol)
    cards = shipped_cards()
    unscored = [n for n in protocol.datasets if n in cards and cards[n].environment is None]
    head = {
        "title": protocol.title,
        "version": protocol.version,
        "source": protocol.source,
        "notes": protocol.notes,
        "data sets": ", ".join(map(id_of, protocol.datasets)),
        "without a simulator": ", ".join(patterns(unscored, protocol.datasets)),
        "seeds": ", ".join(map(str, protocol.seeds)),
        "evaluation seed": protocol.evaluation.seed,
        **_scored(protocol),
        "runs": f"{len(jobs):,}",
    }
    _show_values(f"protocol {protocol.id}", head)
    for label, entry in protocol.algorithms.items():
        settings: dict[str, dict[str, str]] = {}
        for job in jobs:
            if (job.label, job.seed) == (label, protocol.seeds[0]):
                budget = job.evaluation.model_dump(include={"every", "episodes"})
                values = {"steps": job.steps, **budget, **job.config}
                settings[of_all_runs(job.dataset)] = {
                    key: f"{value:g}"
                    if isinstance(value, float)
                    else value_text(value, commas=True)
                    for key, value in values.items()
                } | {key: " or ".join(map(value_text, tried)) for key, tried in entry.grid.items()}
        algorithm = "" if entry.algorithm is None else f" ({Path(entry.algorithm).name})"
        everywhere = 1 < len(settings) == len(protocol.datasets)
        chosen = ", ".join(map(id_of, patterns(list(settings), protocol.datasets)))
        where = "all data sets" if everywhere else chosen
        out.print(Text.assemble((label, "bold"), f"{algorithm} on {where}"))
        _show_settings(settings)


def _scored(protocol: "Protocol") -> dict[str, str]:
    """How a run's score comes from its evaluations, where it is not the last one's alone."""
    evaluation = protocol.evaluation
    scored = {}
    if evaluation.last > 1:
        scored["score"] = f"mean of the last {evaluation.last} evaluations"
    if evaluation.final_episodes is not None:
        scored["episodes at the last step"] = f"{evaluation.final_episodes:,}"
    return scored


def _show_settings(settings: dict[str, dict[str, str]]) -> None:
    """Prints what all data sets share, then a row for each distinct setting.

    Where the terminal is too narrow for a column per key that varies, a row says what differs from
    the values that half of the data sets have.
    """
    from offrl.data.resolve import id_of
    from offrl.running.patterns import patterns

    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, values in settings.items():
        groups.setdefault(tuple(values.items()), []).append(name)
    shared, usual, varying = [], [], []
    for key in next(iter(settings.values())):
        counts = Counter(values[key] for values in settings.values())
        value, count = counts.most_common(1)[0]
        if count == len(settings):
            shared.append((key, value))
            continue
        varying.append(key)
        if 2 * count >= len(settings):
            usual.append((key, value))
    out.print(Padding(_pairs(shared), (0, 0, 0, 2)))
    if not varying:
        out.print()
        return
    wide, narrow = new_table("data sets", *varying), new_table("data sets", "setting")
    wide.columns[0].min_width = 24
    for column in wide.columns[1:]:
        column.no_wrap = True
    for setting, group in groups.items():
        names = ", ".join(map(id_of, patterns(group, list(settings))))
        wide.add_row(names, *(dict(setting)[key] for key in varying))
        others = [pair for pair in setting if pair not in shared + usual]
        narrow.add_row(names, _pairs(others) or "as above")
    if out.measure(wide, options=out.options.update(max_width=1000)).minimum <= out.width:
        out.print(wide)
        return
    if usual:
        out.print(Padding(f"and, unless said below, {_pairs(usual)}", (0, 0, 0, 2)))
    out.print(narrow)


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)
