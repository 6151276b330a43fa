"""The run store: one folder per run, written so that nothing is ever half there.

RUNS/<protocol>/<dataset>/<algorithm>-<config hash>/seed-<k>/
    run.json            identity, versions, git commit, hardware, status
    evaluations.jsonl   score rows, appended
    checkpoint/         state.safetensors: networks, optimisers and generators
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from offrl import registry
from offrl.errors import InputError
from offrl.files import replacing
from offrl.version import __version__

if TYPE_CHECKING:
    from offrl.results.table import ScoreTable

LOCK_SECONDS = 10.0  # a worker whose parent was killed lets go at its next step


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected the JSON that offrl writes, but {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def commit() -> str | None:
    """The git commit of the checkout that offrl runs from, `-dirty` if changed; None in a wheel."""
    root = registry.folder("algorithms").parent
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "--", "offrl", *registry.CONTENT],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head


def hardware() -> dict[str, Any]:
    """The machine, as far as a score's last digits depend on it."""
    import torch

    return {
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Versions of what a score depends on, by distribution name."""
    names = ("numpy", "torch", "gymnasium", "gymnasium-robotics", "mujoco", "minari")
    return {
        "offrl": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


class RunFolder:
    """One run's folder. Writing needs `held`, which keeps every other process out."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint = path / "checkpoint" / "state.safetensors"

    @contextmanager
    def held(self, timeout: float = LOCK_SECONDS) -> Iterator[None]:
        """Holds the run. Raises InputError where another process has it."""
        (self.path / "checkpoint").mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise InputError(
                f"{self.path}: another process holds this run; wait for it, or choose another -o"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def enlist(self, identity: dict[str, Any]) -> None:
        """Notes a run that waits for its turn, so that reports know of it. Needs `held`."""
        self.check_same(identity)
        if not self.record():
            record: dict[str, Any] = {
                "identity": identity,
                "status": "waiting",
                "cause": None,
                "sessions": [],
            }
            write_json(self.path / "run.json", record)

    def begin(self, identity: dict[str, Any]) -> None:
        """Opens the run, or carries it on if it is the same run. Needs `held`."""
        self.enlist(identity)
        for left in [*self.path.glob(".*.tmp"), *self.checkpoint.parent.glob(".*.tmp")]:
            left.unlink()  # of a process that was killed while it wrote
        session = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "versions": versions(),
            "hardware": hardware(),
        }
        sessions = [*self.record()["sessions"], session]
        write_json(
            self.path / "run.json",
            {"identity": identity, "status": "running", "cause": None, "sessions": sessions},
        )

    def record(self) -> dict[str, Any]:
        """What run.json holds; empty where the run has not begun."""
        path = self.path / "run.json"
        return _read_json(path) if path.exists() else {}

    def check_same(self, identity: dict[str, Any]) -> None:
        """Raises InputError where the folder holds a run of another identity."""
        begun = self.record().get("identity", identity)
        keys = sorted(k for k in identity if begun.get(k) != identity[k])
        if keys:
            was = json.dumps({key: begun.get(key) for key in keys})
            now = json.dumps({key: identity[key] for key in keys})
            raise InputError(
                f"{self.path}: holds a run with {was[:200]}, but this one has {now[:200]}; choose "
                "another -o, or delete the folder"
            )

    def set_status(
        self, status: str, cause: str | None = None, traceback: str | None = None
    ) -> None:
        """Notes `done`, `interrupted` or `failed` with its cause. Needs `held`."""
        ended = {**self.record(), "status": status, "cause": cause}
        if traceback:
            ended["traceback"] = traceback.splitlines()
        write_json(self.path / "run.json", ended)

    def rows(self) -> list[dict[str, Any]]:
        """The score rows; a last line that a crash cut short does not count."""
        path = self.path / "evaluations.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().split("\n")
        rows = []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"{path}: line {number}: expected JSON, but {error}") from None
        return rows

    def rewind(self, step: int) -> None:
        """Drops the rows after `step`, which the run will write again. Needs `held`."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        with replacing(self.path / "evaluations.jsonl") as temporary:
            temporary.write_text("".join(kept))

    def append(self, row: dict[str, Any]) -> None:
        """Adds one score row and sees it to the disk. Needs `held`."""
        with (self.path / "evaluations.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def run_folders(root: Path) -> list[RunFolder]:
    """All runs below a folder, by path."""
    return [RunFolder(path.parent) for path in sorted(root.rglob("run.json"))]


def _named(label: str, way: str) -> str:
    """The label of a score row: that of its run, and the way to act where there are several."""
    return f"{label}: {way}" if way else label


def read_runs(root: str | Path) -> "ScoreTable":
    """The score table of all runs below a folder, with failures, notes and provenance.

    The table has a row per evaluation, and no times: the same scores give the same table. A failed
    run is a failure with its cause, and so is one that stopped before its first evaluation. An
    algorithm that ran on a data set under several protocols or configs (or versions of its file)
    appears once for each, with protocol and config hash in its name.
    """
    import pandas as pd

    from offrl.results.table import Failure, ScoreTable

    root = Path(root)
    folders = run_folders(root)
    if not folders:
        raise InputError(
            f"{root}: {'no run.json in this folder' if root.is_dir() else 'no such folder'}; "
            "expected a folder that offrl run has filled"
        )
    records = [(folder, folder.record()) for folder in folders]
    for folder, record in records:
        if not {"identity", "status", "sessions"} <= record.keys():
            raise InputError(
                f"{folder.path / 'run.json'}: lacks identity, status or sessions; expected a file "
                "that offrl wrote"
            )
    read = {folder.path: folder.rows() for folder in folders}
    protocols: dict[tuple[str, str], set[str]] = {}
    configs: dict[tuple[str, str, str], set[str]] = {}
    ways: dict[tuple[str, str, str], dict[str, None]] = {}  # to act, by run but for its seed
    for folder, record in records:
        i = record["identity"]
        cell = (i["label"], i["dataset"])
        protocols.setdefault(cell, set()).add(i["protocol"])
        configs.setdefault((*cell, i["protocol"]), set()).add(i["config_hash"])
        ways.setdefault((*cell, i["config_hash"]), {"": None}).update(
            dict.fromkeys(row["policy"] for row in read[folder.path])
        )
    many_protocols = {label for (label, _), found in protocols.items() if len(found) > 1}
    many_configs = {label for (label, _, _), found in configs.items() if len(found) > 1}

    rows, failures, provenance = [], [], []
    on: dict[str, dict[str, set[str]]] = {}  # data sets, by label and by name with the way to act
    unfinished: dict[tuple[str, str, int, int], list[int]] = {}
    for folder, record in records:
        identity = record["identity"]
        name, dataset = identity["label"], identity["dataset"].partition("@")[0]
        told = [identity["protocol"]] * (name in many_protocols | many_configs)
        told += [identity["config_hash"]] * (name in many_configs)
        acts = ways[name, identity["dataset"], identity["config_hash"]]
        name += f" ({' '.join(told)})" * bool(told)
        for way in acts:
            on.setdefault(name, {}).setdefault(_named(name, way), set()).add(dataset)
        found = read[folder.path]
        if record["status"] == "failed" or not found:
            cause = "stopped before its first evaluation; the same command carries on"
            if record["status"] == "failed":
                cause = record["cause"]
            failures += [Failure(_named(name, w), dataset, identity["seed"], cause) for w in acts]
        elif record["status"] != "done":
            key = (name, dataset, found[-1]["step"], identity["steps"])
            unfinished.setdefault(key, []).append(identity["seed"])
        rows += [
            {
                "protocol": row["protocol"],
                "dataset": dataset,
                "algorithm": _named(name, row["policy"]),
                "config": row["config"],
                "seed": row["seed"],
                "step": row["step"],
                "score": row["score"],
                "return": row["return"],
                "episodes": len(row["returns"]),
                "environment": row["environment"],
                "mujoco": row["simulator"]["mujoco"],
            }
            for row in found
        ]
        provenance.append({**identity, "label": name, "sessions": record["sessions"]})
    # One that has fewer ways to act on some data sets could not be compared as a whole.
    partial = sorted(way for name, by in on.items() for way in by if by[way] < by[name])
    rows = [row for row in rows if row["algorithm"] not in partial]
    failures = [failure for failure in failures if failure.algorithm not in partial]
    notes = [
        f"unfinished: {name} on {dataset}, seed {', '.join(map(str, sorted(seeds)))}: "
        f"step {step:,} of {steps:,}"
        for (name, dataset, step, steps), seeds in sorted(unfinished.items())
    ]
    notes += [f"{way} is left out: it is not on all data sets of its label" for way in partial]
    for entry in provenance:
        codes = {
            (s["commit"], s["versions"]["offrl"], s["versions"]["torch"]) for s in entry["sessions"]
        }
        if len(codes) > 1:
            notes.append(
                f"{entry['label']} on {entry['dataset']}, seed {entry['seed']}, was interrupted "
                "and carried on with another version of offrl or torch"
            )
    simulators = sorted({row["mujoco"] for row in rows})
    if len(simulators) > 1:
        notes.append(
            f"scores from several versions of MuJoCo are pooled: {', '.join(simulators)}; from 3.5 "
            "on Hopper, Ant and Humanoid move differently"
        )
    columns = ["protocol", "dataset", "algorithm", "config", "seed", "step", "score"]
    return ScoreTable.from_frame(
        pd.DataFrame(rows, columns=list(rows[0]) if rows else columns),
        str(root),
        failures=failures,
        notes=notes,
        provenance=provenance,
        complete=False,
    )
