"""Submissions as entries of a board, and what they say of one another."""

import itertools
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from offrl.data.card import shipped_cards
from offrl.errors import InputError
from offrl.reporting.replaying import Agreement, agreements, read_replay, replay_path
from offrl.reporting.similar_returns import common_form, near_copies
from offrl.reporting.submission import Submission
from offrl.reporting.submission_checks import Checked, check_submission, version_number
from offrl.reporting.submission_runs import cells, listed
from offrl.results.rows import Status
from offrl.statistics.published import ERROR_RATE, judge
from offrl.statistics.significance import welch
from offrl.toml import Strict, read_toml, validate

Scores = Mapping[str, Mapping[int, float]]  # of runs by data set and seed
MARGIN = 5.0  # points of the score within which two groups' means agree
WITHDRAWN = "withdrawn.toml"


class Withdrawal(Strict):
    """A submission that stays in the history with the reason."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    reason: str = Field(min_length=1, max_length=300)


class Withdrawals(Strict):
    """The content of withdrawn.toml."""

    withdrawn: list[Withdrawal] = Field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Entry:
    """A submission on a board.

    Attributes:
        checked: it has no faults.
        name: its own; with its authors where another of the board has the same.
        scores: by data set and seed.
        since: the day on which its last session began, as its record says.
        unranked: why it has no rank; None where it has one.
        replayed: what its weights played, by data set; none where they were not given.
        confirmed: the entries of others whose scores are the same within MARGIN.
        contradicted: those of others whose scores differ.
        ended: why it stands in the history; None for a live one.
        successor: the digest of the one that replaces it.
    """

    checked: Checked
    name: str
    scores: Scores
    since: str
    unranked: str | None
    replayed: tuple[Agreement, ...] = ()
    confirmed: tuple["Entry", ...] = ()
    contradicted: tuple["Entry", ...] = ()
    ended: str | None = None
    successor: str | None = None

    @property
    def submission(self) -> Submission:
        """What its submission.toml says."""
        assert self.checked.submission is not None, "an entry has no faults"
        return self.checked.submission

    @property
    def algorithm(self) -> str:
        """The label of its runs."""
        return self.checked.runs[0].identity.label

    @property
    def protocol(self) -> str:
        """Of its runs, with its version."""
        return self.checked.runs[0].identity.protocol

    @property
    def badges(self) -> tuple[str, ...]:
        """How far it was looked at, beyond what its authors say."""
        found = ["checked"]
        if self.replayed and all(part.holds for part in self.replayed):
            found.append("re-evaluated")
        if self.confirmed and not self.contradicted:
            found.append("reproduced by others")
        return tuple(found)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against it."""
        found = [
            f"re-evaluation differs on {part.dataset}"
            + (f", seed {listed(part.apart)}" if part.apart else "")
            + f": {part.replayed:.4g} for {part.claimed:.4g} over all seeds"
            for part in self.replayed
            if not part.holds
        ]
        return (*found, *(f"scores differ from those of {e.name}" for e in self.contradicted))


def read_entry(path: Path) -> Entry:
    """The submission in a bundle. Raises InputError where it has faults."""
    checked = check_submission(path, standing=True)
    runs = checked.runs
    if checked.faults:
        count = len(checked.faults)
        more = f" (and {count - 1} more: offrl leaderboard check)" if count > 1 else ""
        raise InputError(f"{path}: {checked.faults[0]}{more}")
    assert checked.submission is not None, "it has no faults"
    odd = [line for line in checked.warnings if line.endswith("shown and not ranked")]
    scores = cells(runs)
    if not odd and min((len(of) for of in scores.values()), default=0) < 2:
        odd = ["a run a data set, so that nothing can be tested"]
    days = [session.started[:10] for run in runs for session in run.record.sessions]
    file = replay_path(path)
    replayed = read_replay(file)
    agreed = agreements(checked, replayed, str(file)) if replayed is not None else []
    return Entry(
        checked,
        checked.submission.name,
        scores,
        max(days, default=""),
        odd[0] if odd else None,
        tuple(agreed),
    )


def withdrawals(folder: Path) -> dict[str, str]:
    """The reasons in a folder's withdrawn.toml, by digest."""
    path = folder / WITHDRAWN
    if not path.exists():
        return {}
    listed = validate(Withdrawals, read_toml(path), str(path))
    return {each.digest: each.reason for each in listed.withdrawn}


def changed(entry: Entry, **changes: object) -> Entry:
    """The entry with other values."""
    return Entry(**{**vars(entry), **changes})


def ended_entries(entries: Mapping[str, Entry], withdrawn: Mapping[str, str]) -> dict[str, Entry]:
    """The entries, those marked that were withdrawn or that another replaces."""
    for digest in withdrawn:
        if digest not in entries:
            raise InputError(f"{WITHDRAWN}: no submission has the digest {digest}")
    found = dict(entries)
    for digest, entry in entries.items():
        old = entry.submission.replaces
        if old is None:
            continue
        if old not in entries or entries[old].protocol != entry.protocol:
            raise InputError(
                f"{entry.checked.path}: replaces: no submission under {entry.protocol} has the "
                f"digest {old}"
            )
        of, by = entries[old].submission, entry.submission
        if {*of.authors}.isdisjoint(by.authors) or of.contact != by.contact:
            raise InputError(
                f"{entry.checked.path}: replaces: {old:.12} is by others; a submission is replaced "
                "by one of its authors, under the same contact; else it is withdrawn "
                f"({WITHDRAWN})"
            )
        found[old] = changed(entries[old], ended="replaced", successor=digest)
    for digest, reason in withdrawn.items():
        found[digest] = changed(found[digest], ended=f"withdrawn: {reason}")
    return found


def check_one_each(live: Sequence[Entry]) -> None:
    """Raises InputError for two live entries of one algorithm, way of tuning and group.

    Entries are of one group where they have an author or the contact in common.
    """
    alike: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in live:
        others = alike[entry.algorithm, entry.submission.tuning.kind]
        for other in others:
            if not _apart(entry, other):
                first = other.checked
                raise InputError(
                    f"{entry.checked.path}: {entry.algorithm} under {entry.protocol}, tuned alike, "
                    f"with an author or the contact in common, is in {first.path} too; the newer "
                    f'one says replaces = "{first.digest}" (or, if that is the older file, '
                    f'"{entry.checked.digest}"); a file that was never merged is deleted'
                )
        others.append(entry)


def check_data(live: Sequence[Entry]) -> None:
    """Raises InputError for live entries of one data set and view that trained on other data.

    Data that a maker makes are left out: their last bits depend on the machine.
    """
    owner: dict[tuple[str, str], tuple[str, Path]] = {}
    for entry in live:
        for of in (run.identity for run in entry.checked.runs):
            card = shipped_cards().get(of.dataset.partition("@")[0])
            if card is None or card.source.maker is not None:
                continue
            own = (of.data_sha256, entry.checked.path)
            first, path = owner.setdefault((of.dataset, of.view), own)
            if of.data_sha256 != first:
                raise InputError(
                    f"{entry.checked.path}: {of.dataset}: its runs trained on data of checksum "
                    f"{of.data_sha256:.12}, those of {path} on data with {first:.12}; a version "
                    "holds the same rows everywhere, so find the right one and withdraw the other"
                )


def named_entries(live: Sequence[Entry]) -> list[Entry]:
    """The entries with names of their own.

    One that others have too gets authors and digest, by 6 digits or, where that is the name of
    another, by all: no name of a submission is as long.
    """
    names = [entry.name for entry in live]
    for digits in (6, None):
        counts = Counter(names)
        names = [
            f"{entry.name} ({', '.join(entry.submission.authors)[:80]}, "
            f"{entry.checked.digest[:digits]})"
            if counts[name] > 1
            else name
            for name, entry in zip(names, live, strict=True)
        ]
    return [changed(entry, name=name) for name, entry in zip(names, live, strict=True)]


def placed_entries(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of a board, those without a rank that lack data which others have.

    So does one that ran on an earlier version of a data set. What others have is not what the
    protocol says now: a board stays as it is where protocols and cards go on.
    """
    newest: dict[str, int] = {}
    for entry in entries:
        for name, version in map(_versioned, entry.scores if entry.unranked is None else ()):
            newest[name] = max(version, newest.get(name, 0))
    placed = []
    for entry in entries:
        earlier = [d for d in sorted(entry.scores) if _versioned(d)[1] < newest.get(*_versioned(d))]
        lacking = sorted(newest.keys() - {_versioned(dataset)[0] for dataset in entry.scores})
        why = f"partial: lacks {listed(lacking)}" if lacking else None
        if earlier:
            why = f"ran on {listed(earlier)}, of which others ran on a later version"
        placed.append(changed(entry, unranked=entry.unranked or why))
    return placed


def _versioned(dataset: str) -> tuple[str, int]:
    """The id and the version of a data set."""
    name, _, version = dataset.partition("@")
    return name, version_number(version) or 0


def reproduced_entries(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with those of other groups that agree with each, and those that do not.

    Two entries have one algorithm where protocol, label and code are the same. Equal returns are no
    second measurement: they are a copy, or the same command on the same machine.
    """
    agreeing: dict[str, list[Entry]] = defaultdict(list)
    differing: dict[str, list[Entry]] = defaultdict(list)
    copied = {
        frozenset({x.checked.digest, y.checked.digest})
        for group in copied_entries(entries)
        for x, y in itertools.combinations(group, 2)
    }
    for x, y in itertools.permutations(entries, 2):
        digest, other = x.checked.digest, y.checked.digest
        same = _of_algorithm(x) == _of_algorithm(y)
        if not same or not _apart(x, y) or frozenset({digest, other}) in copied:
            continue
        verdict = verdict_of_others(x.scores, y.scores)
        if verdict == "differs":
            differing[digest].append(y)
        elif verdict == "reproduced":
            agreeing[digest].append(y)
    return [
        changed(
            entry,
            confirmed=tuple(agreeing[entry.checked.digest]),
            contradicted=tuple(differing[entry.checked.digest]),
        )
        for entry in entries
    ]


def copied_entries(entries: Sequence[Entry]) -> list[tuple[Entry, ...]]:
    """Groups of entries with the same returns, of whatever seeds and in whatever order.

    So are returns that are the same but for a little noise, episode by episode.
    """
    having: dict[Hashable, dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        for run in entry.checked.runs:
            form = common_form(run.rows[-1].returns) if run.rows else None
            if form is not None:
                having[run.identity.dataset, form][entry.checked.digest] = entry
    groups = {tuple(group): tuple(group.values()) for group in having.values() if len(group) > 1}
    known = {frozenset(pair) for of in groups for pair in itertools.combinations(of, 2)}
    played: dict[str, list[tuple[Entry, list[float]]]] = defaultdict(list)
    for entry in entries:
        for run in entry.checked.runs:
            if run.rows:
                played[run.identity.dataset].append((entry, run.rows[-1].returns))
    for of in played.values():
        for i, j in near_copies([returns for _, returns in of]):
            pair = of[i][0], of[j][0]
            digests = tuple(entry.checked.digest for entry in pair)
            if len({*digests}) == 2 and frozenset(digests) not in known:
                groups[digests] = pair
                known.add(frozenset(digests))
    return list(groups.values())


def _of_algorithm(entry: Entry) -> tuple[str, str | None]:
    """What an entry trained: the label, and the SHA-256 of a file that does not ship."""
    return entry.algorithm, entry.checked.runs[0].identity.code


def _apart(x: Entry, y: Entry) -> bool:
    """Whether two entries are of groups with no author and no contact in common."""
    (authors, contact), (others, other) = map(_group, (x, y))
    return authors.isdisjoint(others) and contact != other


def _group(entry: Entry) -> tuple[set[str], str]:
    """The authors and the contact of an entry, however they are spelt."""

    def form(text: str) -> str:
        return " ".join(unicodedata.normalize("NFKC", text).casefold().split())

    return {*map(form, entry.submission.authors)}, form(entry.submission.contact)


def verdict_of_others(ours: Scores, theirs: Scores) -> str:
    """What another group's scores say of ours: `reproduced`, `differs`, or nothing.

    They are reproduced where they are on each of our data sets. They differ where they do on one on
    which they are not reproduced, by Welch's tests with Holm's correction over the data sets that
    both have.
    """
    both = sorted(ours.keys() & theirs.keys())
    common = [name for name in both if min(len(ours[name]), len(theirs[name])) > 1]
    if not common:
        return ""
    cells = {
        label: {name: np.array([*scores[name].values()]) for name in common}
        for label, scores in (("x", ours), ("y", theirs))
    }
    p = welch(cells, [("x", "y")])["p_holm"]
    verdicts = []
    for name, adjusted in zip(common, p, strict=True):
        x, y = cells["x"][name], cells["y"][name]
        verdict = judge(x, float(y.mean()), float(y.std(ddof=1)), len(y), MARGIN).verdict
        verdicts.append("" if verdict == "differs" and adjusted > ERROR_RATE else verdict)
    if "differs" in verdicts:
        return "differs"
    whole = len(common) == len(ours) and {*verdicts} == {"reproduced"}
    return "reproduced" if whole else ""


def curve(entry: Entry) -> dict[str, dict[int, float]]:
    """The mean score over an entry's runs by data set and step."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in entry.checked.runs:
        for row in run.rows if run.record.status is Status.DONE else ():
            if row.score is not None:
                values[run.identity.dataset][row.step].append(row.score)
    return {
        dataset: {step: math.fsum(of) / len(of) for step, of in sorted(steps.items())}
        for dataset, steps in sorted(values.items())
    }
