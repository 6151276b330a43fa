"""Reads what CORL's scripts print, kept as text: a file, or a folder of *.log, *.out and *.txt.

    Training IQL, Env: halfcheetah-medium-v2, Seed: 0
    Time steps: 5000
    Evaluation over 10 episodes: 5021.331 , D4RL score: 42.704

A file may hold several runs, one after another. (CORL at eeeeef2: `algorithms/offline/iql.py` and
those of AWAC's kind print so; what others log, W&B exports.)
"""

import re
from pathlib import Path

import pandas as pd

from offrl.errors import InputError

SCORES = "what CORL's scripts print (*.log, *.out or *.txt)"
SUFFIXES = (".log", ".out", ".txt")
RUN = re.compile(
    r"Training (?P<algorithm>.{1,100}), Env: (?P<dataset>\S{1,100}), Seed: (?P<seed>[0-9]+)"
)
STEP = re.compile(r"Time steps: ([0-9]+)")
SCORE = re.compile(r"Evaluation over ([0-9]+) episodes: \S+ ?, D4RL score: (\S+)")
MOST_BYTES = 2**28  # of all files
BEGINNING = 2**18  # characters
LONGEST = 1_000  # characters of a line that may say something


def logs(path: Path) -> pd.DataFrame | None:
    """A row per evaluation of the runs in a file or folder; None where there are none."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    else:
        files = [path] if path.suffix in SUFFIXES else []
    files = [file for file in files if file.is_file() and (file == path or _has_run(file))]
    if sum(file.stat().st_size for file in files) > MOST_BYTES:
        raise InputError(f"{path}: its text has more than {MOST_BYTES / 2**20:.0f} MiB")
    rows = [row for file in files for row in _rows(file)]
    return pd.DataFrame(rows) if rows else None


def _has_run(file: Path) -> bool:
    """Whether a run begins near the top of a file: a folder of runs may hold other logs too."""
    with file.open(encoding="utf-8", errors="replace") as stream:
        return RUN.search(stream.read(BEGINNING)) is not None


def _rows(file: Path) -> list[dict[str, str]]:
    """The evaluations in a file."""
    rows: list[dict[str, str]] = []
    run: dict[str, str] = {}
    step = None
    with file.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST), ""), start=1):
            if fit := RUN.search(line):
                run, step = fit.groupdict(), None
            elif fit := STEP.search(line):
                step = fit[1]
            elif fit := SCORE.search(line):
                if not run or step is None:
                    raise InputError(
                        f"{file}, line {number}: a score before the line "
                        f"{'Time steps: N' if run else 'Training NAME, Env: ID, Seed: N'}"
                    )
                rows.append({**run, "step": step, "score": fit[2], "episodes": fit[1]})
    return rows
