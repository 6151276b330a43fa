import json
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from offrl.results.table import ScoreTable


def pytest_configure() -> None:
    """Lets Ctrl-C reach what tests start: a shell has what runs behind its back ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows the counts that tests of kills, of damage and of fuzzed inputs print."""
    for report in terminalreporter.getreports("passed"):
        folders = Path(report.nodeid.partition("::")[0]).parts
        if report.when == "call" and {"crash", "fuzz"} & set(folders) and report.capstdout:
            terminalreporter.write_line(f"{report.nodeid}\n{report.capstdout.rstrip()}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of published data and scores that OFFRL_SHARED names; absent on most machines."""
    root = Path(os.environ.get("OFFRL_SHARED", Path(__file__).parents[2] / "shared"))
    if not root.is_dir():
        pytest.skip(f"published data not found at {root} (set OFFRL_SHARED)")
    return root


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Torch on one thread, as in a worker: bit-equality and speed are promised for that."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the test run's own, so that no test reads or leaves anything in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["OFFRL_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def kernel() -> None:
    """One kernel for all runs, which need not measure them then."""
    from offrl.learning import kernels

    os.environ["OFFRL_KERNEL"] = kernels.KERNELS[0]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("OFFRL_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def known(shared: Path) -> list[Any]:
    """Known answers of the statistics: (a suite's expectations, its table), on 0-1."""
    folder = shared / "scores" / "statistics"
    frame = pd.read_csv(folder / "scores.csv", float_precision="round_trip")
    frame = frame.rename(columns={"task": "dataset", "run": "seed"})
    suites = json.loads((folder / "expected.json").read_text())["suites"]
    return [
        (suite, ScoreTable.from_frame(frame[frame["suite"] == name], scale=1))
        for name, suite in suites.items()
    ]
