"""Readers of all formats on thousands of damaged, odd and hostile inputs.

Each case ends in an InputError, or in what another library reads from the same bytes. The cases are
the same every time: `python tests/fuzz/campaign.py CASE FOLDER` shows one. OFFRL_FUZZ_CASES is the
number of those that run at night.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from campaign import counts, play, run
from subjects import SUBJECTS

from offrl.data.foreign import check_size, reading

CASES = 2_000
AT_NIGHT = int(os.environ.get("OFFRL_FUZZ_CASES", 100_000))


def check(cases: range, folder: Path) -> None:
    outcomes = run(cases, folder, workers=2)
    sys.stdout.write(f"{counts(outcomes)}\n")
    wrong = [outcome for outcome in outcomes if not outcome.well]
    assert not wrong, "\n".join(map(str, [f"{len(wrong)} of {len(cases)}", *wrong[:20]]))
    read = {outcome.reader for outcome in outcomes if outcome.kind == "read"}
    assert read == set(SUBJECTS)  # else nothing is compared


def test_fuzzed_inputs_are_refused_or_read_as_others_read_them(tmp_path: Path) -> None:
    check(range(CASES), tmp_path)


@pytest.mark.nightly  # an hour
def test_many_fuzzed_inputs_are_refused_or_read_as_others_read_them(tmp_path: Path) -> None:
    check(range(CASES, CASES + AT_NIGHT), tmp_path)


@pytest.mark.parametrize("reader", list(SUBJECTS))
def test_the_inputs_that_are_changed_are_read_whole(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))  # made there, and restored
    subject = SUBJECTS[reader]
    subject.make(tmp_path)
    subject.agree(tmp_path, subject.read(tmp_path))


def test_a_reader_that_crashes_or_reads_something_else_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    csv = replace(SUBJECTS["csv"], mutate=lambda _folder, _random: None)

    def kind(read: Callable[[Path], Any]) -> str:
        monkeypatch.setitem(SUBJECTS, "csv", replace(csv, read=read))
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return play(0, tmp_path / "templates", folder).kind

    def crash(_folder: Path) -> Any:
        raise KeyError("x")

    def other(folder: Path) -> Any:
        table = csv.read(folder)
        table.frame.loc[0, "score"] += 1e-9
        return table

    def hang(_folder: Path) -> Any:
        while True:
            pass

    def greedy(folder: Path) -> Any:
        with reading(folder, "a table", "copy it"):
            raise MemoryError

    def bounded(folder: Path) -> Any:
        check_size(folder, [(2**40, 2**10)], stored=10)

    assert [kind(read) for read in (csv.read, crash, other, hang, greedy, bounded)] == [
        *("read", "crashed", "differs", "slow", "memory", "refused")
    ]
