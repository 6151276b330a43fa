"""Leaderboards from a folder of submissions: every number and verdict that a site shows.

FOLDER/**/NAME.zip             a submission, which never changes
FOLDER/**/NAME.replay.json     what its weights played when it was merged (`replaying`)
FOLDER/withdrawn.toml          [[withdrawn]] digest = "...", reason = "..."

Each version of a protocol has a board of its own, and those of earlier versions stay as they are. A
submission that another replaces, or that is withdrawn, stays in its board's history.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from offrl.data.card import shipped_cards
from offrl.errors import InputError
from offrl.reporting.entries import (
    Entry,
    check_data,
    check_one_each,
    copied_entries,
    ended_entries,
    named_entries,
    placed_entries,
    read_entry,
    reproduced_entries,
    withdrawals,
)
from offrl.reporting.findings import Findings, compute
from offrl.results.provenance import POOLED
from offrl.results.table import ScoreTable
from offrl.running.protocol import find_protocol, shipped_protocols
from offrl.statistics.published import tables
from offrl.statistics.resampling import Resampling

MOST_SUBMISSIONS = 10_000


@dataclass(frozen=True)
class Line:
    """A line of a ranking: an entry, its rank, its letters and its IQM with its interval."""

    entry: Entry
    rank: int
    letters: str
    iqm: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Board:
    """The board of one version of a protocol.

    Attributes:
        protocol: its id.
        version: of the protocol.
        title: the protocol's; empty for an earlier version.
        newest: the version that has the current board.
        datasets: of its entries, with versions.
        ranking: the best first.
        unranked: live entries without a rank.
        history: replaced and withdrawn ones.
        quoted: published scores under this protocol, as `statistics.published.tables` has them.
        notes: for the reader of the ranking.
    """

    protocol: str
    version: int
    title: str
    newest: int
    datasets: tuple[str, ...]
    ranking: tuple[Line, ...]
    unranked: tuple[Entry, ...]
    history: tuple[Entry, ...]
    quoted: pd.DataFrame
    notes: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """Of the protocol, with its version."""
        return f"{self.protocol}@{self.version}"

    @property
    def live(self) -> tuple[Entry, ...]:
        """All entries that are not history."""
        return (*(line.entry for line in self.ranking), *self.unranked)


def read_boards(folder: Path, *, resampling: Resampling = Resampling()) -> list[Board]:
    """The boards of a folder of submissions, the current ones first, by name.

    Raises InputError where a submission has faults, where two are the same, where two live ones
    have one algorithm, way of tuning and an author or the contact in common (one of them replaces
    the other), or trained on other data under one name.
    """
    paths = sorted(folder.rglob("*.zip")) if folder.is_dir() else []
    if not paths:
        what = "no submission (.zip) in this folder" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {what}; offrl leaderboard submit makes them")
    if len(paths) > MOST_SUBMISSIONS:
        raise InputError(f"{folder}: more than {MOST_SUBMISSIONS:,} submissions; split it")
    entries: dict[str, Entry] = {}
    for path in paths:
        entry = read_entry(path)
        if (digest := entry.checked.digest) in entries:
            same = entries[digest].checked.path
            raise InputError(f"{path}: has the content of {same}; delete one of them")
        entries[digest] = entry
    entries = ended_entries(entries, withdrawals(folder))
    check_data([entry for entry in entries.values() if entry.ended is None])
    boards: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries.values():
        boards[entry.protocol].append(entry)
    published = pd.concat([of.assign(table=table) for table, of in tables().items()])
    made = [_board(name, of, published, resampling) for name, of in boards.items()]
    current = {board.protocol for board in made if board.version == board.newest}
    made += _quoted_alone(current, published)
    return sorted(made, key=lambda b: (not b.live, b.version != b.newest, b.protocol, -b.version))


def _board(
    name: str, entries: Sequence[Entry], published: pd.DataFrame, resampling: Resampling
) -> Board:
    protocol, _, version = name.partition("@")
    known = find_protocol(protocol)
    live = [entry for entry in entries if entry.ended is None]
    check_one_each(live)
    named = placed_entries(reproduced_entries(named_entries(live)))
    ranked = [entry for entry in named if entry.unranked is None]
    unranked = [entry for entry in named if entry.unranked is not None]
    lines, notes = _ranking(ranked, resampling)
    current = int(version) == known.version
    return Board(
        protocol,
        int(version),
        known.title if current else "",
        known.version,
        tuple(sorted({dataset for entry in named for dataset in entry.scores})),
        tuple(lines),
        tuple(sorted(unranked, key=lambda entry: entry.name)),
        tuple(entry for entry in entries if entry.ended is not None),
        _quoted(protocol, published),
        (*notes, *_pooled(named), *_outdated(named), *_copied(named)),
    )


def _quoted(protocol: str, published: pd.DataFrame) -> pd.DataFrame:
    """The published scores under a protocol."""
    return published[published["protocol"] == protocol].reset_index(drop=True)


def _quoted_alone(known: Collection[str], published: pd.DataFrame) -> list[Board]:
    """Boards without an entry, of the other protocols of which there are published scores."""
    boards = []
    for name in ({*published["protocol"]} & shipped_protocols().keys()) - {*known}:
        of = find_protocol(name)
        empty = ((), (), (), ())
        quoted = _quoted(name, published)
        boards.append(Board(name, of.version, of.title, of.version, *empty, quoted))
    return boards


def _ranking(ranked: Sequence[Entry], resampling: Resampling) -> tuple[list[Line], tuple[str, ...]]:
    """Lines with ranks, and notes on them.

    A rank is one more than the largest rank of those that the comparison shows to be better: two
    that are told apart never share one.
    """
    if not ranked:
        return [], ()
    by_name = {entry.name: entry for entry in ranked}
    rows = [
        {"algorithm": name, "dataset": dataset, "seed": seed, "score": score}
        for name, entry in by_name.items()
        for dataset, of in entry.scores.items()
        for seed, score in of.items()
    ]
    found = compute(ScoreTable.from_frame(pd.DataFrame(rows)), resampling=resampling)
    ranks = _ranks(found)
    lines = [
        Line(
            by_name[row["algorithm"]],
            ranks[row["algorithm"]],
            row["letters"] or "a",
            row["iqm"],
            row["ci_low"],
            row["ci_high"],
        )
        for row in found.ranking.to_dict("records")
    ]
    notes = found.comparison.notes if found.comparison is not None else ()
    notes = tuple(note for note in notes if "P(X > Y)" not in note)  # which a board does not show
    return sorted(lines, key=lambda line: (line.rank, -line.iqm, line.entry.name)), notes


def _ranks(found: Findings) -> dict[str, int]:
    names = list(found.ranking["algorithm"])
    better: dict[str, set[str]] = {name: set() for name in names}
    if found.comparison is not None:
        for row in found.comparison.pairs.to_dict("records"):
            if row["verdict"] == "better":
                better[row["y"]].add(row["x"])
            elif row["verdict"] == "worse":
                better[row["x"]].add(row["y"])
    ranks: dict[str, int] = {}
    while len(ranks) < len(names):  # by their means nobody is better than one that beats it
        for name in names:
            if name not in ranks and better[name] <= ranks.keys():
                ranks[name] = 1 + max((ranks[above] for above in better[name]), default=0)
    return ranks


def _pooled(entries: Sequence[Entry]) -> list[str]:
    """Notes on what the entries of a board do not have in common."""
    notes = []
    for package, (name, why) in POOLED.items():
        rows = [row for e in entries for run in e.checked.runs for row in run.rows]
        versions = sorted({row.simulator[package] for row in rows if package in row.simulator})
        if len(versions) > 1:
            notes.append(f"several versions of {name}: {', '.join(versions)}; {why}")
    data: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in entries:
        for of in (run.identity for run in entry.checked.runs):
            data[of.dataset, of.view].add(of.data_sha256)
    notes += [
        f"{dataset}: entries trained on data with {len(sums)} checksums, as machines that make "
        "them differ in last bits"
        for (dataset, _), sums in sorted(data.items())
        if len(sums) > 1
    ]
    return notes


def _outdated(entries: Sequence[Entry]) -> Iterator[str]:
    """Notes on data sets that went on since entries ran on them."""
    for dataset in sorted({dataset for entry in entries for dataset in entry.scores}):
        name, _, version = dataset.partition("@")
        card = shipped_cards().get(name)
        if card is None:
            yield f"{dataset}: does not ship with offrl any more"
        elif version != str(card.version):
            yield (
                f"{dataset}: is an earlier version of the data set, now at {card.version}; scores "
                "on one are not those on the other"
            )


def _copied(entries: Sequence[Entry]) -> list[str]:
    """Notes on entries that are one measurement."""
    return [
        f"{', '.join(sorted(entry.name for entry in group))}: have the same returns, or nearly, "
        "and count as one measurement: a copy, or the same command on the same kind of machine"
        for group in copied_entries(entries)
    ]
