"""`offrl list` and `offrl show`."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from offrl.cli.console import AsJson, app, cell, new_table, out, print_json, toml
from offrl.errors import unknown

if TYPE_CHECKING:
    from offrl.running.protocol import Protocol


def _algorithm(name: str) -> dict[str, Any]:
    from offrl.learning.learner import find_algorithm

    found = find_algorithm(name)
    summary = (sys.modules[found.__module__].__doc__ or found.__doc__ or name).strip()
    return {
        "id": name,
        "title": summary.split("\n")[0].rstrip("."),
        "family": found.family,
        "paper": found.paper,
        "agreement": found.agreement,
    }


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="datasets, algorithms or protocols.")],
    as_json: AsJson = False,
) -> None:
    """List data sets, algorithms or protocols.

    Example: offrl list algorithms
    """
    from offrl import registry
    from offrl.data.card import shipped_cards
    from offrl.running.protocol import find_protocol, shipped_protocols

    rows: list[dict[str, Any]] = []
    columns = {"id": "id", "version": "v", "title": "title"}  # of the table, where JSON has all
    if what == "datasets":
        rows = [
            {
                "id": card.id,
                "version": card.version,
                "title": card.title,
                "scored": card.environment is not None and card.reference is not None,
            }
            for card in shipped_cards().values()
        ]
        columns["scored"] = "scored"
    elif what == "algorithms":
        rows = [_algorithm(name) for name in sorted(registry.modules("algorithms"))]
        columns = {name: name for name in ("id", "title", "paper", "agreement")}
    elif what == "protocols":
        for name in sorted(shipped_protocols()):
            protocol = find_protocol(name)
            rows.append(
                {
                    "id": name,
                    "version": protocol.version,
                    "title": protocol.title,
                    "datasets": protocol.datasets,
                    "algorithms": list(protocol.algorithms),
                    "seeds": len(protocol.seeds),
                    "steps": protocol.steps,
                }
            )
        columns |= {"datasets": "sets", "algorithms": "algorithms", "seeds": "seeds"}
    else:
        raise unknown("kind", what, ["datasets", "algorithms", "protocols"])
    if as_json:
        print_json(rows)
        return
    table = new_table(None, *columns.values())
    for row in rows:
        table.add_row(*(cell(row[name]) for name in columns))
    out.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="An id, or the path of a .toml or .py file.")],
    as_json: AsJson = False,
) -> None:
    """Show a data set's card, an algorithm's defaults or a protocol's settings.

    Example: offrl show neorl2-dmsd
    """
    from offrl import registry
    from offrl.data.card import read_card, shipped_cards
    from offrl.running.jobs import configure
    from offrl.running.protocol import find_protocol, shipped_protocols
    from offrl.toml import read_toml

    shown: dict[str, Any] = {}
    cards, algorithms = shipped_cards(), registry.modules("algorithms")
    protocols = shipped_protocols()
    if name in protocols:
        shown["protocol"] = find_protocol(name)
    if name in cards:
        shown["dataset"] = cards[name].model_dump()
    if name in algorithms or name.endswith(".py"):
        from offrl.learning.learner import find_algorithm

        found = find_algorithm(name)
        defaults = dataclasses.asdict(configure(name, {}, name))
        about = {**_algorithm(name), "config": defaults}
        about["documentation"] = (sys.modules[found.__module__].__doc__ or "").strip()
        shown["algorithm"] = about
    if name.endswith(".toml") and "algorithms" in read_toml(Path(name)):
        shown["protocol"] = find_protocol(name)
    elif name.endswith(".toml"):
        shown["dataset"] = read_card(Path(name)).model_dump()
    if not shown:
        raise unknown("name", name, {*cards, *algorithms, *protocols})
    if as_json:
        if "protocol" in shown:
            shown["protocol"] = shown["protocol"].model_dump()
        print_json(shown)
        return
    if "protocol" in shown:
        _show_protocol(shown.pop("protocol"))
    for kind, values in shown.items():
        documentation = values.pop("documentation", "")
        if kind == "algorithm":
            values["agreement"] = cell(values["agreement"])
        table = new_table(f"{kind} {name}", "key", "value")
        for key, value in _flat(values):
            table.add_row(key, value)
        out.print(table)
        if documentation:  # as it is written: it holds equations and lists
            out.print(documentation, markup=False, highlight=False, soft_wrap=True)


def _show_protocol(protocol: "Protocol") -> None:
    """Prints what a paper's appendix does: what all data sets share, and what they do not."""
    from offrl.data.card import shipped_cards
    from offrl.running.jobs import expand
    from offrl.running.patterns import patterns

    jobs = expand(protocol)
    cards = shipped_cards()
    unscored = [n for n in protocol.datasets if n in cards and cards[n].environment is None]
    head = {
        "title": protocol.title,
        "version": str(protocol.version),
        "source": protocol.source,
        "notes": protocol.notes.strip(),
        "data sets": ", ".join(protocol.datasets),
        "without a simulator": ", ".join(patterns(unscored, protocol.datasets)),
        "seeds": ", ".join(map(str, protocol.seeds)),
        "evaluation seed": str(protocol.evaluation.seed),
        "runs": f"{len(jobs):,}",
    }
    table = new_table(f"protocol {protocol.id}", "key", "value")
    for key, text in head.items():
        if text:
            table.add_row(key, Text(text))
    out.print(table)

    for label, entry in protocol.algorithms.items():
        settings: dict[str, dict[str, str]] = {}
        for job in jobs:
            if (job.label, job.seed) == (label, protocol.seeds[0]):
                budget = job.evaluation.model_dump(include={"every", "episodes"})
                values = {"steps": job.steps, **budget, **job.config}
                settings[job.dataset] = {k: _setting_text(value) for k, value in values.items()}
        of = "" if entry.algorithm is None else f" ({Path(entry.algorithm).name})"
        whole = 1 < len(settings) == len(protocol.datasets)
        on = "all data sets" if whole else ", ".join(patterns(list(settings), protocol.datasets))
        out.print(Text.assemble((label, "bold"), f"{of} on {on}"))
        _show_settings(settings)


def _show_settings(settings: dict[str, dict[str, str]]) -> None:
    """Prints what all data sets share, then a row for each distinct setting.

    Where the terminal is too narrow for a column per key that varies, a row says what differs from
    the values that half of the data sets have.
    """
    from offrl.running.patterns import patterns

    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, values in settings.items():
        groups.setdefault(tuple(values.items()), []).append(name)
    shared, usual, varying = [], [], []
    for key in next(iter(settings.values())):
        found = Counter(values[key] for values in settings.values())
        value, count = found.most_common(1)[0]
        if count == len(settings):
            shared.append((key, value))
            continue
        varying.append(key)
        if 2 * count >= len(settings):
            usual.append((key, value))
    out.print(Padding(Text(_pairs(shared)), (0, 0, 0, 2)))
    if not varying:
        out.print()
        return
    wide, narrow = new_table(None, "data sets", *varying), new_table(None, "data sets", "setting")
    wide.columns[0].min_width = 24
    for column in wide.columns[1:]:
        column.no_wrap = True
    for setting, group in groups.items():
        names = ", ".join(patterns(group, list(settings)))
        wide.add_row(names, *(Text(dict(setting)[key]) for key in varying))
        others = [pair for pair in setting if pair not in shared + usual]
        narrow.add_row(names, Text(_pairs(others) or "as above"))
    if out.measure(wide, options=out.options.update(max_width=1000)).minimum <= out.width:
        out.print(wide)
        return
    if usual:
        out.print(Padding(Text(f"and, unless said below, {_pairs(usual)}"), (0, 0, 0, 2)))
    out.print(narrow)


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)


def _setting_text(value: Any) -> str:
    """A value as TOML has it, but for the commas of large whole numbers."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_setting_text, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, item in enumerate(value):
                yield from _flat(item, f"{prefix}{key}[{i}].")
        elif value not in (None, [], {}, ""):
            yield f"{prefix}{key}", value.strip() if isinstance(value, str) else toml(value)
        elif value is None and prefix == "config.":
            yield f"{prefix}{key}", "none"
