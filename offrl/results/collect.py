"""Score tables from folders of runs and from several sources."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from offrl.errors import InputError
from offrl.results.checks import run_keys, run_text
from offrl.results.files import SUFFIXES, read_scores
from offrl.results.store import run_folders
from offrl.results.table import ScoreTable


def collect(sources: Sequence[Path], *, scale: float = 100.0, complete: bool = True) -> ScoreTable:
    """One table from several sources: score files, and folders of runs (which hold `run.json`).

    `scale` is that of the score files; runs are scored on 0-100, and another scale beside them is
    an InputError. `complete` is as in `ScoreTable.from_frame`.
    """
    if not sources:
        raise InputError("no source given; expected score tables or folders of runs")
    parts = []
    for source in map(Path, sources):
        if source.is_dir():
            if next(source.rglob("run.json"), None) is None:
                raise InputError(
                    f"{source}: no run.json in this folder; expected a folder of runs, or a score "
                    f"table ({', '.join(SUFFIXES)})"
                )
            if scale != 100:
                raise InputError(
                    f"{source}: runs are scored on 0-100, but scale {scale:g} is declared; bring "
                    "all scores to 0-100 and declare 100"
                )
            parts.append((str(source), read_runs(source)))
        else:
            parts.append((str(source), read_scores(source, scale=scale, complete=False)))
    return merge(parts, complete=complete)


def merge(parts: Sequence[tuple[str, ScoreTable]], *, complete: bool = True) -> ScoreTable:
    """One table from several, given with names; raises InputError where they clash."""
    owner: dict[tuple[Any, ...], str] = {}
    for where, table in parts:
        if table.scale != parts[0][1].scale:
            raise InputError(
                f"{where}: scores on 0-{table.scale:g}, but {parts[0][0]} is on "
                f"0-{parts[0][1].scale:g}; bring them to one scale first"
            )
        failed = {(f.algorithm, f.setting, f.dataset, f.seed) for f in table.failures}
        for run in sorted({*run_keys(table.frame)} | failed):
            if run in owner:
                raise InputError(
                    f"{where}: {run_text(*run)} is also in {owner[run]}; give each run once, "
                    "or rename the algorithm of one source"
                )
            owner[run] = where
    name = " + ".join(where for where, _ in parts)
    return ScoreTable.from_frame(
        pd.concat([table.frame for _, table in parts], ignore_index=True),
        name,
        scale=parts[0][1].scale,
        failures=[failure for _, table in parts for failure in table.failures],
        notes=[note for _, table in parts for note in table.notes],
        provenance=[entry for _, table in parts for entry in table.provenance],
        complete=complete,
    )


def _named(label: str, way: str) -> str:
    """The label of a score row: that of its run, and the way to act where there are several."""
    return f"{label}: {way}" if way else label


def read_runs(root: str | Path) -> ScoreTable:
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
