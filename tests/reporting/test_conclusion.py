"""The first sentence of a report is true, whatever the scores are."""

import itertools
import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from simulated import table, with_another_way

from offrl.errors import InputError
from offrl.reporting.conclusion import Name, conclusion, text
from offrl.reporting.findings import Findings, compute
from offrl.reporting.words import TERMINAL
from offrl.results.failures import Failure
from offrl.results.naming import naming
from offrl.results.table import ScoreTable
from offrl.statistics.resampling import Resampling

FEW = Resampling(100)
NAMES = ["A", "B", "C", "D"]  # by IQM, the best first


def said(findings: Findings) -> str:
    return text(conclusion(findings, TERMINAL))


def of(scores: ScoreTable, **options: Any) -> str:
    return said(compute(scores, resampling=FEW, **options))


@pytest.fixture(scope="module")
def four() -> Findings:
    return compute(table(NAMES[::-1], tasks=2, steps=(0,)), resampling=FEW)


def with_verdicts(findings: Findings, verdicts: dict[tuple[str, str], str]) -> Findings:
    """The findings with verdicts on x against y, where x comes before y in NAMES."""
    comparison: Any = findings.comparison
    pairs = comparison.pairs.copy()
    seeds = []
    for place, (x, y) in enumerate(zip(pairs["x"], pairs["y"], strict=True)):
        verdict = verdicts[min(x, y), max(x, y)]
        if x > y:
            verdict = {"better": "worse", "worse": "better"}.get(verdict, verdict)
        pairs.loc[place, "verdict"] = verdict
        told = verdict != "cannot tell"
        seeds.append(None if told else 10 * NAMES.index(max(x, y)) + NAMES.index(min(x, y)))
    pairs["seeds"] = pd.array(seeds, dtype="Int64")
    return replace(findings, comparison=replace(comparison, pairs=pairs))


def listed(words: str) -> set[str]:
    return set(re.split(", | and ", words))


def test_it_is_true_of_every_combination_of_verdicts_on_four_algorithms(four):
    assert list(four.ranking["algorithm"]) == NAMES
    pairs = list(itertools.combinations(NAMES, 2))
    kinds = set()
    for chosen in itertools.product(("better", "worse", "cannot tell"), repeat=len(pairs)):
        verdicts = dict(zip(pairs, chosen, strict=True))
        sentence = said(with_verdicts(four, verdicts))
        told = len(pairs) - chosen.count("cannot tell")
        of_first = {y: verdict for (x, y), verdict in verdicts.items() if x == "A"}
        open_, better, worse = (
            {y for y, verdict in of_first.items() if verdict == kind}
            for kind in ("cannot tell", "better", "worse")
        )
        if match := re.fullmatch(
            r"No two of the 4 algorithms are told apart with 3 seeds: A has the highest IQM, \S+ "
            r"\[\S+, \S+\]; some (\d+) seeds would tell A from B\.",
            sentence,
        ):
            assert (told, match[1]) == (0, "10")  # the fewest
        elif match := re.search(r"though by the test (.*) (is|are) better\.", sentence):
            assert listed(match[1]) == worse
            assert match[2] == ("is" if len(worse) == 1 else "are")
        elif "better than each of the other 3." in sentence:
            assert better == {"B", "C", "D"}
        elif match := re.search(r"apart from none of the others; (\d) of 6 pairs", sentence):
            assert (better, worse, int(match[1])) == (set(), set(), told)
        elif match := re.fullmatch(
            r"A and (\w) lead with IQMs of \S+ and \S+: they are not told apart, and A is better "
            r"than the other 2; some (\d+) seeds would tell them apart\.",
            sentence,
        ):
            assert (open_, len(better)) == ({match[1]}, 2)
            assert int(match[2]) == 10 * NAMES.index(match[1])
        else:
            match = re.fullmatch(
                r"A leads with an IQM of .*, better than (\d) of the other 3 and not told apart "
                r"from (.*); some (\d+) seeds would tell it from (\w)\.",
                sentence,
            )
            assert match is not None, sentence
            assert (len(better), listed(match[2])) == (int(match[1]), open_)
            assert (match[4], int(match[3])) == (min(open_), 10 * NAMES.index(min(open_)))
        kinds.add(re.sub(r"\b[A-D]\b|[\d.\[\]-]+", "", sentence))
    assert len(kinds) > 6


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("better", r"A is better than B: IQM \S+ against \S+ on 2 data sets with 3 seeds\."),
        ("worse", r"B is better than A by the test, though not by IQM: IQM \S+ against .*"),
        ("cannot tell", r"A and B are not told apart with 3 seeds: IQM .*; some 10 seeds would.*"),
    ],
)
def test_two_algorithms(verdict, expected):
    two = compute(table(["B", "A"], tasks=2, steps=(0,)), resampling=FEW)
    assert re.fullmatch(expected, said(with_verdicts(two, {("A", "B"): verdict})))


def test_one_algorithm_has_nothing_to_be_compared_with():
    expected = r"IQL has an IQM of \S+ \[.*\] on 1 data set with 3 seeds; there is no other .*\."
    assert re.fullmatch(expected, of(table(["IQL"], tasks=1, steps=(0,))))
    alone = of(table(["IQL"], tasks=1, runs=1, steps=(0,)))
    assert re.fullmatch(r"IQL has an IQM of [\d.]+ on 1 data set with 1 seed; .*", alone)


def test_single_runs_are_ranked_and_not_tested():
    expected = r"B has the highest IQM, [\d.]+, but nothing can be tested: that takes two .*"
    assert re.fullmatch(expected, of(table(("A", "B"), runs=1, steps=(0,))))
    frame = table(NAMES[:3], tasks=2, steps=(0,)).frame
    single = {name: (frame["algorithm"] == name) & (frame["seed"] > 0) for name in NAMES[:3]}
    assert re.fullmatch(
        r"[AB].*; C, the first by IQM \([\d.]+\), has too few runs to be tested\.",
        of(ScoreTable.from_frame(frame[~single["C"]])),
    )
    assert re.fullmatch(
        r"C is better than A: .* with 3 seeds; B has too few runs to be tested\.",
        of(ScoreTable.from_frame(frame[~single["B"]])),
    )
    hole = (frame["algorithm"] == "B") & (frame["dataset"] == "task-0")
    assert re.fullmatch(
        r"C is better than A: .*; B has no scores on some data sets\.",
        of(ScoreTable.from_frame(frame[~hole], complete=False)),
    )


def test_holes_leave_none_ranked_and_the_sentence_says_what_would_be():
    frame = table(NAMES, tasks=4, steps=(0,)).frame
    holes = (frame["algorithm"] == "D") ^ (frame["dataset"] == "task-3")
    scores = ScoreTable.from_frame(frame[~holes], complete=False)
    assert of(scores) == (
        "None of the 4 algorithms has scores on every one of the 4 data sets, so none is ranked; "
        "3 share 3 data sets: leave out D and add --common."
    )
    other = frame[(frame["algorithm"] == "D") == (frame["dataset"] == "task-3")]
    pair = other[other["algorithm"].isin(["C", "D"])]
    assert of(ScoreTable.from_frame(pair, complete=False)).endswith("so none is ranked.")
    one = frame[(frame["algorithm"] != "A") | (frame["dataset"] == "task-0")]
    two = one[one["algorithm"].isin(["A", "B"])]
    assert re.fullmatch(
        "B has an IQM of .* and is the only one of 2 algorithms with scores on every data set, .*",
        of(ScoreTable.from_frame(two, complete=False)),
    )


def test_failures_and_runs_that_go_on_limit_it():
    lost = table(failures=[Failure("BC", "task-0", 2, "killed")])
    assert of(lost).startswith("Over finished runs alone, ")
    frame = table().frame
    late = frame[(frame["algorithm"] != "IQL") | (frame["seed"] != 1) | (frame["step"] <= 5000)]
    assert of(ScoreTable.from_frame(late)).startswith("So far, ")
    both = ScoreTable.from_frame(late, failures=lost.failures)
    assert of(both).startswith("So far and over finished runs alone, ")


def test_pairs_that_are_too_many_are_not_called_equal(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise InputError("3 pairs; a comparison takes at most 2")

    monkeypatch.setattr("offrl.reporting.findings.compare", refuse)
    findings = compute(table(NAMES[:3], tasks=2, steps=(0,)), resampling=FEW)
    assert re.fullmatch(
        r"C has the highest IQM of 3 algorithms, \S+ \[.*\]; their pairs are too many to be tested "
        r"here\.",
        said(findings),
    )
    assert "no pair is tested: 3 pairs; a comparison takes at most 2" in findings.notes
    assert (findings.ranks, set(findings.ranking["letters"])) == (None, {""})


def test_other_ways_to_act_are_none_of_its_algorithms():
    both = with_another_way(table(("BC", "IQL"), tasks=1, steps=(9,)), "IQL", "fast")
    assert "fast" not in of(both)


def test_names_are_marked_as_such_and_have_their_labels():
    scores = table(("BC", "IQL"), tasks=1, steps=(0,))
    findings = compute(scores, resampling=FEW, naming=naming(scores, labels={"IQL": "<b>"}))
    names = {part for part in conclusion(findings) if isinstance(part, Name)}
    assert names == {"<b>", "BC"}
