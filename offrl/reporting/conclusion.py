"""What a report concludes, in a sentence: who leads, who is told apart, how many seeds would."""

from collections.abc import Sequence

import pandas as pd

from offrl.reporting.findings import TOLD, Findings
from offrl.reporting.words import HTML, Target, Words, turned

MOST_NAMED = 4  # algorithms that a sentence names; more are counted


class Name(str):
    """A name of the table in a sentence: text of others, which a page shows as such."""

    __slots__ = ()


Sentence = tuple[str, ...]  # words and names, which follow one another without more space


def text(sentence: Sentence) -> str:
    """The sentence as plain text."""
    return "".join(sentence)


def conclusion(findings: Findings, target: Target = HTML) -> Sentence:
    """The sentence with which a report begins.

    Args:
        findings: the numbers.
        target: what it is written for, such as HTML or TERMINAL.
    """
    words = _Conclusion(findings, target)
    sentence = words.sentence()
    limits = []
    if findings.interim:
        limits.append("so far")
    if findings.failures:
        limits.append("over finished runs alone")
    if limits:
        sentence = (f"{' and '.join(limits)}, ", *sentence)
    first = sentence[0]
    if not isinstance(first, Name):
        sentence = (first[:1].upper() + first[1:], *sentence[1:])
    return sentence


class _Conclusion:
    def __init__(self, findings: Findings, target: Target):
        self.findings, self.words = findings, Words(target, findings.table.scale)
        ranking = findings.ranking[findings.ranking["iqm"].notna()]
        mains = findings.table.main_algorithms
        self.rows = {
            row["algorithm"]: row
            for row in ranking.to_dict("records")
            if row["algorithm"] in set(mains)
        }
        self.everyone = len(mains)
        self.unranked = [name for name in mains if name not in self.rows]
        self.verdicts: dict[tuple[str, str], str] = {}
        self.seeds: dict[frozenset[str], int] = {}
        if findings.comparison is not None:
            for pair in findings.comparison.pairs.to_dict("records"):
                for row in (pair, turned(pair)):
                    self.verdicts[row["x"], row["y"]] = row["verdict"]
                if not pd.isna(pair["seeds"]):
                    self.seeds[frozenset((pair["x"], pair["y"]))] = int(pair["seeds"])

    def sentence(self) -> Sentence:
        """The sentence, without what limits it."""
        if not self.rows:
            return self._without_aggregates()
        compared = [name for name in self.rows if name in set(self.findings.compared)]
        first = next(iter(self.rows))
        if len(compared) < 2:
            return self._without_tests(first)
        if self.findings.comparison is None:
            return (
                *self._name(first),
                f" has the highest IQM of {len(self.rows)} algorithms, {self._estimate(first)}; "
                "their pairs are too many to be tested here.",
            )
        sentence = self._two(*compared) if len(compared) == 2 else self._several(compared)
        for names, lack in (
            ([name for name in self.rows if name not in compared], "too few runs to be tested"),
            (self.unranked, "no scores on some data sets"),
        ):
            if names:
                have = "has" if len(names) == 1 else "have"
                listed = self._listed(names)
                if names[0] == first:
                    listed = (*listed[:1], f", the first by IQM ({self._iqm(first)}),", *listed[1:])
                sentence = (*sentence, "; ", *listed, f" {have} {lack}")
        return (*sentence, ".")

    def _without_aggregates(self) -> Sentence:
        datasets = len(self.findings.table.datasets)
        if self.everyone == 1:
            (name,) = self.findings.table.main_algorithms
            return (
                *self._name(name),
                f" lacks scores on some of the {datasets} data sets, so no aggregate is computed.",
            )
        return (
            f"none of the {self.everyone} algorithms has scores on every one of the {datasets} "
            "data sets, so none is ranked",
            *self._shared(),
            ".",
        )

    def _shared(self) -> Sentence:
        """The largest table without holes that algorithms of this one make, if several do."""
        having: dict[str, set[str]] = {}
        tasks = self.findings.per_task
        for name, dataset in tasks.loc[tasks["n"] > 0, ["algorithm", "dataset"]].itertuples(
            index=False
        ):
            having.setdefault(name, set()).add(dataset)
        mains = self.findings.table.main_algorithms
        tables = [
            (datasets, [name for name in mains if datasets <= having.get(name, set())])
            for datasets in having.values()
        ]
        datasets, names = max(tables, key=lambda table: len(table[0]) * len(table[1]))
        others = [name for name in mains if name not in names]
        if len(names) < 2:
            return ()
        count = f"{len(datasets)} data set{'s' if len(datasets) > 1 else ''}"
        advice: Sentence = ("choose them and add",)
        if not others:
            advice = ("add",)
        elif len(others) <= MOST_NAMED:
            advice = ("leave out ", *self._listed(others), " and add")
        return (f"; {len(names)} share {count}: ", *advice, " --common")

    def _without_tests(self, first: str) -> Sentence:
        lead = (*self._name(first), f" has an IQM of {self._estimate(first)}")
        if self.everyone == 1:
            where = f"on {self._datasets()} with {self._runs()}"
            return (*lead, f" {where}; there is no other algorithm to compare it with.")
        if len(self.rows) == 1:
            return (
                *lead,
                f" and is the only one of {self.everyone} algorithms with scores on "
                "every data set, so nothing can be compared.",
            )
        return (
            *self._name(first),
            f" has the highest IQM, {self._iqm(first)}, but nothing can be "
            "tested: that takes two algorithms with two finished runs or more on every data "
            "set.",
        )

    def _two(self, one: str, other: str) -> Sentence:
        verdict = self.verdicts[one, other]
        both = f"IQM {self._iqm(one)} against {self._iqm(other)} on {self._datasets()}"
        if verdict == "better":
            return (
                *self._name(one),
                " is better than ",
                *self._name(other),
                f": {both} with {self._runs()}",
            )
        if verdict == "worse":
            return (
                *self._name(other),
                " is better than ",
                *self._name(one),
                f" by the test, though not by IQM: {both} with {self._runs()}",
            )
        return (
            *self._name(one),
            " and ",
            *self._name(other),
            f" are not told apart with {self._runs()}: {both}",
            *self._would(one, other, "tell"),
        )

    def _several(self, names: Sequence[str]) -> Sentence:
        first, others = names[0], names[1:]
        told = [pair for pair, verdict in self.verdicts.items() if verdict == "better"]
        behind = [name for name in others if self.verdicts[first, name] == "better"]
        beside = [name for name in others if self.verdicts[first, name] not in TOLD]
        ahead = [name for name in others if self.verdicts[first, name] == "worse"]
        iqm = self._estimate(first)
        if not told:
            return (
                f"no two of the {len(names)} algorithms are told apart with {self._runs()}: ",
                *self._name(first),
                f" has the highest IQM, {iqm}",
                *self._nearest_pair(),
            )
        if ahead:
            return (
                *self._name(first),
                f" has the highest IQM, {iqm}, though by the test ",
                *self._listed(ahead),
                f" {'is' if len(ahead) == 1 else 'are'} better",
            )
        if not beside:
            return (
                *self._name(first),
                f" leads with an IQM of {iqm}: it is better than each of the other {len(others)}",
            )
        if not behind:
            pairs = len(names) * len(others) // 2
            return (
                *self._name(first),
                f" has the highest IQM, {iqm}, but is told apart from none of "
                f"the others; {len(told)} of {pairs} pairs are told apart",
            )
        rest = "the other one" if len(behind) == 1 else f"the other {len(behind)}"
        if len(beside) == 1:
            (second,) = beside
            return (
                *self._name(first),
                " and ",
                *self._name(second),
                f" lead with IQMs of {self._iqm(first)} and {self._iqm(second)}: they are not told "
                "apart, and ",
                *self._name(first),
                f" is better than {rest}",
                *self._would(first, second, "tell them apart"),
            )
        return (
            *self._name(first),
            f" leads with an IQM of {iqm}, better than {len(behind)} of the "
            f"other {len(others)} and not told apart from ",
            *self._listed(beside),
            *self._would(first, beside[0], "tell it from "),
        )

    def _would(self, one: str, other: str, verb: str) -> Sentence:
        """How many seeds would tell two apart, as the end of a sentence; nothing if unknown."""
        seeds = self.seeds.get(frozenset((one, other)))
        if seeds is None:
            return ()
        end = self._name(other) if verb.endswith(" ") else ()
        return (f"; some {seeds:,} seeds would {verb}", *end)

    def _nearest_pair(self) -> Sentence:
        if not self.seeds:
            return ()
        fewest = min(self.seeds.values())
        pair = next(p for p in self.verdicts if self.seeds.get(frozenset(p)) == fewest)
        x, y = sorted(pair, key=list(self.rows).index)
        return (f"; some {fewest:,} seeds would tell ", *self._name(x), " from ", *self._name(y))

    def _listed(self, names: Sequence[str]) -> Sentence:
        if len(names) > MOST_NAMED:
            return (f"{len(names)} others, the nearest ", *self._name(names[0]))
        parts: list[str] = []
        for k, name in enumerate(names):
            if k:
                parts.append(" and " if k == len(names) - 1 else ", ")
            parts += self._name(name)
        return tuple(parts)

    def _name(self, name: str) -> Sentence:
        return (Name(self.findings.naming.label(name)),)

    def _iqm(self, name: str) -> str:
        return self.words.score(self.rows[name]["iqm"])

    def _estimate(self, name: str) -> str:
        row = self.rows[name]
        if pd.isna(row["ci_low"]):
            return self._iqm(name)
        return f"{self._iqm(name)} {self.words.interval(row['ci_low'], row['ci_high'])}"

    def _datasets(self) -> str:
        datasets = len(self.findings.table.datasets)
        return f"{datasets} data set{'s' if datasets > 1 else ''}"

    def _runs(self) -> str:
        tasks, names = self.findings.per_task, self.findings.compared or tuple(self.rows)
        sizes = tasks.loc[tasks["algorithm"].isin(names) & (tasks["n"] > 0), "n"]
        low, high = int(sizes.min()), int(sizes.max())
        text = f"{low}" if low == high else f"{low} to {high}"
        return f"{text} seed{'s' if high > 1 else ''}"
