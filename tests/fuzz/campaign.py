"""Runs fuzz cases in processes with limits of time and memory, and counts what became of them.

A case is a number: it fixes the reader and every change of its input. One case, with its traceback
and its input left behind: `python tests/fuzz/campaign.py CASE FOLDER`.
"""

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from subjects import SUBJECTS

SECONDS = 5  # per case, by a signal
LAST_SECONDS = 20  # per case, where a signal does not end it
FIRST_SECONDS = 300  # for the imports of a worker, which busy cores make slow
MEMORY = 2 * 2**30  # bytes above what the imports take
LONGEST = 2000  # characters of a message


@dataclass(frozen=True)
class Outcome:
    """What became of a case: refused and read are well."""

    case: int
    reader: str
    kind: str
    detail: str = ""

    @property
    def well(self) -> bool:
        """Whether the case ended in an InputError, or in what the peer reads."""
        return self.kind in ("refused", "read")


def reader_of(case: int) -> str:
    """The reader of a case."""
    return list(SUBJECTS)[case % len(SUBJECTS)]


class _Slow(BaseException):
    """The case took too long."""


def _ring(_signal: int, _frame: Any) -> None:
    raise _Slow


def play(case: int, templates: Path, folder: Path, show: bool = False) -> Outcome:
    """Carries out one case in an empty folder, which then holds its input."""
    from offrl.errors import InputError

    subject = SUBJECTS[reader_of(case)]
    template, home = templates / reader_of(case), folder / "input"
    if not template.exists():
        template.mkdir(parents=True)
        subject.make(template)
    shutil.copytree(template, home)
    subject.mutate(home, Random(case))
    os.environ["OFFRL_CACHE"] = str(folder / "cache")
    os.environ["MINARI_DATASETS_PATH"] = str(home)

    def ended(kind: str, detail: str = "") -> Outcome:
        return Outcome(case, reader_of(case), kind, detail)

    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SECONDS)
    try:
        try:
            value = subject.read(home)
        except InputError as error:
            if len(str(error)) > LONGEST:
                return ended("long", f"a message of {len(str(error))} characters: {error!s:.200}")
            if _out_of_memory(error):
                return ended("memory", str(error)[:300])
            if left := _half_written(folder):
                return ended("left over", ", ".join(left))
            return ended("refused", str(error)[:300])
        subject.agree(home, value)
    except _Slow:
        return ended("slow", f"more than {SECONDS} s: {_place(sys.exc_info()[2])}")
    except MemoryError:
        return ended("memory", _place(sys.exc_info()[2]))
    except Exception as error:
        if show:
            traceback.print_exc()
        kind = (
            "differs"
            if isinstance(error, AssertionError) and "agree" in _place(error.__traceback__)
            else "crashed"
        )
        text = f"{type(error).__name__}: {error}".split("\n")[0][:300]
        return ended(kind, f"{text} at {_place(error.__traceback__)}")
    finally:
        signal.alarm(0)
    return ended("read")


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out before the refusal; a check of sizes refuses before it does."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _half_written(folder: Path) -> list[str]:
    """What a reader began to write and left, hidden files and folders but for locks."""
    return [path.name for path in folder.rglob(".*") if path.suffix in (".tmp", ".old")]


def _place(trace: Any) -> str:
    """The last lines of a traceback that are not of libraries, as `file:line`."""
    frames = [
        f"{Path(f.filename).name}:{f.lineno} {f.name}"
        for f in traceback.extract_tb(trace)
        if "site-packages" not in f.filename and "/lib/python" not in f.filename
    ]
    return " < ".join(reversed(frames[-3:]))


def _work(first: int, stop: int, step: int, folder: Path) -> None:
    """A worker: plays its cases and prints a line of JSON before and after each."""
    # The imports so far are not the case's memory.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps([None]), flush=True)  # noqa: T201
    for case in range(first, stop, step):
        print(json.dumps([case]), flush=True)  # noqa: T201
        place = folder / f"case-{case}"
        place.mkdir(parents=True)
        outcome = play(case, folder / f"templates-{os.getpid()}", place)
        print(json.dumps([case, outcome.reader, outcome.kind, outcome.detail]), flush=True)  # noqa: T201
        shutil.rmtree(place, ignore_errors=True)


def _lines(process: "subprocess.Popen[str]") -> Iterator[list[Any]]:
    """The lines that a worker prints, until it ends or prints none for too long."""
    assert process.stdout is not None
    patience = FIRST_SECONDS
    while select.select([process.stdout], [], [], patience)[0]:
        line = process.stdout.readline()
        if not line:
            return
        patience = LAST_SECONDS
        yield json.loads(line)


def _watch(first: int, stop: int, step: int, folder: Path, outcomes: list[Outcome]) -> None:
    """Keeps one worker at work, and starts another behind a case in which it dies or hangs."""
    # A worker finds what stands beside this file even where PYTHONSAFEPATH is set.
    modules = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    upcoming = first
    while upcoming < stop:
        log = folder / f"worker-{first}-{upcoming}.txt"
        words = ["work", *map(str, (upcoming, stop, step)), str(folder)]
        with (
            log.open("w") as errors,
            subprocess.Popen(
                [sys.executable, __file__, *words],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(modules)},
                text=True,
                bufsize=1,
            ) as process,
        ):
            begun = False
            for case, *rest in _lines(process):
                begun = case is not None and not rest
                if rest:
                    outcomes.append(Outcome(case, *rest))
                    upcoming = case + step
            ended = process.poll() is not None
            process.kill()
        if upcoming < stop:
            if not begun:
                raise RuntimeError(f"no worker begins: {log.read_text()[-2000:]}")
            kind = "died" if ended else "hung"
            outcomes.append(Outcome(upcoming, reader_of(upcoming), kind, log.read_text()[-300:]))
            upcoming += step


def run(cases: range, folder: Path, workers: int) -> list[Outcome]:
    """The outcomes of cases of a range, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    first, stop = cases[0], cases[-1] + 1
    outcomes: list[Outcome] = []
    watchers = [
        threading.Thread(target=_watch, args=(first + k, stop, workers, folder, outcomes))
        for k in range(workers)
    ]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    assert len(outcomes) == len(cases)
    return sorted(outcomes, key=lambda outcome: outcome.case)


def counts(outcomes: Sequence[Outcome]) -> str:
    """A line per reader: its cases by outcome."""
    by_reader: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        by_reader.setdefault(outcome.reader, Counter())[outcome.kind] += 1
    by_reader["all"] = Counter(outcome.kind for outcome in outcomes)
    return "\n".join(
        f"{reader:<10} {kinds.total():>7,}: "
        + ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
        for reader, kinds in by_reader.items()
    )


def main() -> None:
    """A worker, one case, or a campaign from the command line."""
    match sys.argv[1:]:
        case ["work", first, stop, step, folder]:
            _work(int(first), int(stop), int(step), Path(folder))
        case [case, folder]:
            place = Path(folder)
            outcome = play(int(case), place / "templates", place, show=True)
            print(outcome)  # noqa: T201
        case [first, stop, folder]:
            outcomes = run(range(int(first), int(stop)), Path(folder), 2)
            for outcome in outcomes:
                if not outcome.well:
                    print(outcome)  # noqa: T201
            print(counts(outcomes))  # noqa: T201


if __name__ == "__main__":
    main()
