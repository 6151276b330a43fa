"""What is fuzzed: for every reader a valid input, changes of it, and what another library reads.

`read` is what offrl makes of an input. `agree` compares that with what pandas, NumPy, h5py,
pyarrow, safetensors, json or tomllib read from the same bytes, and raises AssertionError where they
differ.
"""

import contextlib
import csv
import dataclasses
import gzip
import io
import json
import os
import re
import shutil
import struct
import tomllib
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from mutations import BYTES, TEXT, mutate, mutate_file, mutate_json, replace_by_oddity
from safetensors.torch import load as load_tensors

from offrl.cli.options import config_value, grid_values
from offrl.data.altered import entry_name
from offrl.data.card import read_card
from offrl.data.columns import Columns
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.logged import table_columns
from offrl.data.roles import Roles
from offrl.data.steps import Steps
from offrl.data.tables import open_table
from offrl.evaluation.replay import read_steps
from offrl.files import unseal
from offrl.learning import checkpoint
from offrl.reporting.findings import KIND
from offrl.reporting.report import check_replaceable
from offrl.results.collect import read_runs
from offrl.results.files import read_scores
from offrl.results.rows import Identity, ScoreRow, Status
from offrl.results.store import RunFolder
from offrl.results.table import ScoreTable
from offrl.running.jobs import Job, configure, expand
from offrl.running.protocol import Protocol, find_protocol, tables
from offrl.toml import parse_toml, to_toml


@dataclass(frozen=True)
class Subject:
    """A reader, with inputs for it and what to compare it with."""

    make: Callable[[Path], None]  # a valid input in an empty folder
    mutate: Callable[[Path, Random], None]
    read: Callable[[Path], Any]
    agree: Callable[[Path, Any], None]


# Score tables


ALGORITHMS, DATASETS = ("bc", "iql, tuned", "算法 é"), ("hopper-medium-v2", "pen-human-v1")


def _frame() -> pd.DataFrame:
    rows = [
        (algorithm, dataset, seed, step, 10.5 * seed + step / 7 + len(algorithm))
        for algorithm in ALGORITHMS
        for dataset in DATASETS
        for seed in range(3)
        for step in (100, 200)
    ]
    frame = pd.DataFrame(rows, columns=["algorithm", "dataset", "seed", "step", "score"])
    frame["failure"] = ""
    failed = pd.DataFrame(
        [("bc", DATASETS[0], 9, np.nan, np.nan, "Diverged: nan at step 5")], columns=frame.columns
    )
    frame = pd.concat([frame, failed], ignore_index=True)
    return frame.astype({"seed": "int64", "step": "Int64"})


def _make_csv(folder: Path) -> None:
    _frame().to_csv(folder / "scores.csv", index=False)


def _make_gz(folder: Path) -> None:
    (folder / "scores.csv.gz").write_bytes(gzip.compress(_frame().to_csv(index=False).encode()))


def _make_parquet(folder: Path) -> None:
    _frame().to_parquet(folder / "scores.parquet", index=False)


def _mutate_csv(folder: Path, random: Random) -> None:
    mutate_file(folder / "scores.csv", random, TEXT)


def _mutate_gz(folder: Path, random: Random) -> None:
    """Damage of the compressed file, or of the text in a whole one."""
    path = folder / "scores.csv.gz"
    if random.random() < 0.5:
        mutate_file(path, random)
    else:
        path.write_bytes(gzip.compress(mutate(gzip.decompress(path.read_bytes()), random, TEXT)))


def _odd_column(values: "pd.Series[Any]", random: Random) -> Any:
    """A column of another type, or with other values."""
    size = len(values)
    return random.choice(
        [
            lambda: values.astype(str),
            lambda: values.astype("category"),
            lambda: [None] * size,
            lambda: [bool(k % 2) for k in range(size)],
            lambda: pd.date_range("2024-01-01", periods=size),
            lambda: [[1, 2]] * size,
            lambda: [{"a": 1}] * size,
            lambda: [str(k).encode() for k in range(size)],
            lambda: np.arange(size, dtype="float16"),
            lambda: np.full(size, 2**63, dtype="uint64"),
            lambda: np.full(size, np.nan),
            lambda: [f"{k}" * 5000 for k in range(size)],
            lambda: pd.to_timedelta(range(size), unit="s"),
        ]
    )()


def _mutate_parquet(folder: Path, random: Random) -> None:
    """Damage of the file, or columns of other types, names and order."""
    path = folder / "scores.parquet"
    if random.random() < 0.6:
        mutate_file(path, random)
        return
    frame = _frame()
    column = str(random.choice(list(frame)))
    match random.randrange(5):
        case 0:
            frame = frame.rename(columns={column: random.choice(["x", "", " ", column.upper()])})
        case 1:
            frame = frame.set_index([column])
        case 2:
            frame = frame.drop(columns=column)
        case _:
            frame[column] = _odd_column(frame[column], random)
    frame.to_parquet(path)


def _read_table(folder: Path) -> ScoreTable:
    table = read_scores(next(folder.glob("scores.*")), complete=False)
    table.final()
    return table


Row = tuple[str, str, int, float]


def _plain(frame: pd.DataFrame, decimal: str = ".") -> list[tuple[Row, bool]]:
    """Algorithm, data set, seed and score of rows, NaN for none, and whether each failed."""
    rows = []
    failures = frame["failure"] if "failure" in frame else [""] * len(frame)
    for (algorithm, dataset, seed, score), failure in zip(
        frame[["algorithm", "dataset", "seed", "score"]].itertuples(index=False),
        failures,
        strict=True,
    ):
        absent = pd.api.types.is_scalar(failure) and pd.isna(failure)
        failed = not absent and str(failure).strip() != ""
        try:
            run = (_text(algorithm), _text(dataset), int(float(seed)))
        except (ValueError, TypeError, OverflowError):
            continue
        try:
            number = float(score.replace(decimal, ".") if isinstance(score, str) else score)
        except (ValueError, TypeError):
            number = np.nan
        rows.append(((*run, number), failed))
    return rows


def _text(label: Any) -> str:
    return unicodedata.normalize("NFC", str(label)).strip()


def _agree_rows(table: ScoreTable, readings: Sequence[Sequence[tuple[Row, bool]]]) -> None:
    """Every score of the table is in one of the peers' readings, and none of theirs is missing.

    Rows of a run that failed leave a table, those with a score included.
    """
    labels = ["algorithm", "dataset", "seed", "score"]
    found = Counter((_text(a), _text(d), s, x) for a, d, s, x in table.frame[labels].to_numpy())
    gaps = []
    for reading in readings:
        rows = Counter(row for row, _ in reading)
        gone = {row[:3] for row, failed in reading if failed}
        kept = {row for row in rows if row[:3] not in gone and np.isfinite(row[3])}
        needed = Counter({row: number for row, number in rows.items() if row in kept})
        gaps.append(f"too many {list(found - rows)[:2]}, too few {list(needed - found)[:2]}")
        if not found - rows and not needed - found:
            return
    raise AssertionError("; ".join(gaps) or "no peer reads it")


def _agree_csv(folder: Path, table: ScoreTable) -> None:
    path = next(folder.glob("scores.*"))
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    readings = []
    for separator, decimal in ((",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")):
        frame = _pandas_csv(text, separator)
        labels = ["algorithm", "dataset", "seed", "score"]
        if frame is not None and set(labels) <= set(frame):
            readings.append(_plain(frame, decimal))
    _agree_rows(table, readings)


def _pandas_csv(text: str, separator: str) -> pd.DataFrame | None:
    """The cells as text, None where pandas cannot read them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = pd.read_csv(
                io.StringIO(text, newline=""),
                sep=separator,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                engine="python",
            )
    except (ValueError, csv.Error):
        return None
    return frame.rename(columns=_column)


def _column(name: Any) -> str:
    """A column's name; labels are known whatever their case."""
    text = str(name).strip()
    return text.lower() if text.lower() in ("algorithm", "dataset", "seed", "score") else text


def _agree_parquet(folder: Path, table: ScoreTable) -> None:
    stored = pq.read_table(folder / "scores.parquet")
    frame = stored.replace_schema_metadata().to_pandas()  # pandas' own may be damaged
    labels = ["algorithm", "dataset", "seed", "score"]
    if not set(labels) <= set(frame):
        frame = frame.reset_index()
    frame.columns = [_column(name) for name in frame.columns]
    _agree_rows(table, [_plain(frame)])


# What other programs wrote


RUN_NAMES = ("IQL-hopper-medium-v2-0a1b2c3d", "IQL-hopper-medium-v2-4", "10% BC-pen-human-v1-seed1")


def _make_panel(folder: Path) -> None:
    """A panel as Weights & Biases exports it."""
    columns: dict[str, list[Any]] = {"Step": [1000, 2000, 3000]}
    for k, name in enumerate(RUN_NAMES):
        values = [10.5 * k + step / 7 for step in range(2)]
        for end in ("", "__MIN", "__MAX"):
            columns[f"{name} - d4rl_normalized_score{end}"] = [*values, "" if k else 3.25]
    text = pd.DataFrame(columns).to_csv(index=False, quoting=csv.QUOTE_ALL)
    (folder / "scores.csv").write_text(text)


def _read_others(folder: Path) -> ScoreTable:
    return read_scores(next(folder.iterdir()), complete=False)


def _agree_panel(folder: Path, table: ScoreTable) -> None:
    text = (folder / "scores.csv").read_bytes().decode("utf-8-sig")
    theirs: Counter[float] = Counter()
    for separator in (",", ";", "\t"):
        frame = _pandas_csv(text, separator)
        cells = [] if frame is None else frame.to_numpy().ravel().tolist()
        for cell in cells:
            with contextlib.suppress(ValueError):
                theirs[float(cell.strip().removeprefix("'"))] += 1
    assert not Counter(table.frame["score"].tolist()) - theirs


def _make_arrays(folder: Path) -> None:
    """rliable's arrays as numpy keeps them."""
    arrays = {name: np.arange(6.0).reshape(3, 2) + k for k, name in enumerate(("BC", "IQL"))}
    np.savez(folder / "scores.npz", datasets=["hopper", "pen"], **arrays)  # type: ignore[arg-type]


def _mutate_arrays(folder: Path, random: Random) -> None:
    """Damage of the archive, or other arrays."""
    path = folder / "scores.npz"
    if random.random() < 0.6:
        mutate_file(path, random)
        return
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = random.choice(["BC", "IQL"])
    arrays[random.choice([name, "steps", "datasets", ""])] = _odd_array(arrays[name], random)
    np.savez(path, **arrays)


def _agree_arrays(folder: Path, table: ScoreTable) -> None:
    theirs: Counter[float] = Counter()
    with np.load(folder / "scores.npz", allow_pickle=False) as archive:
        for name in archive.files:
            if archive[name].dtype.kind in "iuf":
                theirs.update(archive[name].astype(float).ravel().tolist())
    assert not Counter(table.frame["score"].tolist()) - theirs


# Runs


def _make_store(folder: Path) -> None:
    """Two runs that are done, one that failed and one that was interrupted."""
    statuses = [Status.DONE, Status.DONE, Status.FAILED, Status.INTERRUPTED]
    for seed, status in enumerate(statuses):
        identity = Identity(
            protocol="tiny@1",
            dataset="d@1",
            data_sha256="0" * 64,
            view="transitions",
            environment={"id": "E-v0", "max_episode_steps": 9},
            reference={"min": 0.0, "max": 1.0, "source": "none"},
            label="bc",
            algorithm="bc",
            config={"hidden": [8], "lr": 0.001},
            code=None,
            config_hash="01234567",
            steps=20,
            evaluation={"every": 10, "episodes": 2, "seed": 0},
            seed=seed,
        )
        run = RunFolder(_run_folder(folder, seed))
        with run.held():
            run.begin(identity)
            for step in (10, 20) if status is Status.DONE else (10,):
                run.append(_row(seed, step))
            cause = "Diverged: nan" if status is Status.FAILED else None
            run.set_status(status, cause)


def _run_folder(folder: Path, seed: int) -> Path:
    return folder / "runs" / "tiny" / "d" / "bc-01234567" / f"seed-{seed}"


def _row(seed: int, step: int) -> ScoreRow:
    return ScoreRow.model_validate(
        {
            "protocol": "tiny@1",
            "dataset": "d@1",
            "environment": "E-v0",
            "simulator": {"mujoco": "3.1.6"},
            "algorithm": "bc",
            "config": "01234567",
            "seed": seed,
            "step": step,
            "score": 50.5 + seed + step,
            "return": 7.25,
            "returns": [7.0, 7.5],
            "lengths": [9, 9],
            "policy": "",
            "action_mode": "deterministic",
            "metrics": {"actor/loss": 0.5},
            "wall_time": 1.5,
        }
    )


def _mutate_store(folder: Path, random: Random) -> None:
    """Damage of a record or of rows, with checksums or, as earlier versions wrote, without."""
    files = sorted(f for f in (folder / "runs").rglob("*") if f.suffix in (".json", ".jsonl"))
    path = random.choice(files)
    if random.random() < 0.5:
        documents = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        path.write_text("".join(json.dumps(unseal(json.loads(d))) + "\n" for d in documents))
    match random.randrange(8):
        case 0:
            replace_by_oddity(path, random)
        case 1 | 2 | 3 if path.suffix == ".json":
            path.write_bytes(mutate_json(path.read_bytes(), random))
        case 1 | 2 | 3:
            lines = path.read_bytes().splitlines()
            place = random.randrange(len(lines))
            lines[place] = mutate_json(lines[place], random)
            path.write_bytes(b"\n".join(lines) + b"\n")
        case _:
            mutate_file(path, random, TEXT)


def _read_store(folder: Path) -> ScoreTable:
    table = read_runs(folder / "runs")
    table.final()
    return table


def _agree_store(folder: Path, table: ScoreTable) -> None:
    """Scores are those in the files as JSON reads them, and every gap has a name."""
    written = []
    for path in (folder / "runs").rglob("evaluations.jsonl"):
        if not path.is_file():
            continue
        for line in path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
                written.append((row["seed"], row["step"], row["score"]))
            except (ValueError, RecursionError, KeyError, TypeError):
                continue
    found = table.frame[["seed", "step", "score"]].to_numpy().tolist()
    for seed, step, score in found:
        assert (seed, step, score) in written, (seed, step, score)
    whole = {(0, 10), (0, 20), (1, 10), (1, 20), (2, 10), (3, 10)}
    missing = whole - {(int(seed), int(step)) for seed, step, _ in found}
    failed = {failure.seed for failure in table.failures}

    def named(seed: int) -> bool:
        place = str(_run_folder(folder, seed))
        left_out = any(place in note and "left out" in note for note in table.notes)
        return seed in failed or left_out

    for seed, step in missing:
        assert named(seed), f"the score of seed {seed} at step {step} is missing in silence"
    assert named(2), "seed 2 had failed"


def _make_checkpoint(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        "learner": {"w": torch.randn(3, 4, generator=generator), "steps": 7, "names": ["a", "b"]},
        "sampler": {"state": torch.arange(16, dtype=torch.uint8), 0: {"x": torch.zeros(2)}},
        "step": 300,
        "seconds": 1.25,
    }
    checkpoint.save(folder / "state.safetensors", state)


def _mutate_checkpoint(folder: Path, random: Random) -> None:
    """Damage of the file, or of its header in a file whose lengths fit."""
    path = folder / "state.safetensors"
    match random.randrange(10):
        case 0:
            replace_by_oddity(path, random)
        case 1 | 2 | 3 | 4:
            mutate_file(path, random)
        case number:
            data = path.read_bytes()
            (size,) = struct.unpack("<Q", data[:8])
            header = data[8 : 8 + size]
            if random.random() < 0.7:  # as earlier versions wrote it: nothing hides what is inside
                values = json.loads(header)
                del values["__metadata__"]["sha256"]
                header = json.dumps(values).encode()
            if number < 7:
                header = mutate_json(header, random)
            elif number < 9:
                values = json.loads(header)
                state = values["__metadata__"]["state"].encode()
                state = mutate_json(state, random) if number == 7 else mutate(state, random, TEXT)
                values["__metadata__"]["state"] = state.decode("utf-8", "replace")
                header = json.dumps(values).encode()
            else:
                header = mutate(header, random, TEXT)
            path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])


def _read_checkpoint(folder: Path) -> dict[str, Any]:
    return checkpoint.load(folder / "state.safetensors")


def _agree_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Every tensor is one of the file's, and every other value stands in its header."""
    data = (folder / "state.safetensors").read_bytes()
    tensors = list(load_tensors(data).values())
    header = data[8 : 8 + struct.unpack("<Q", data[:8])[0]]
    text = json.loads(header)["__metadata__"]["state"]

    def walk(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            assert any(value.dtype == t.dtype and _same(value, t) for t in tensors), value
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        else:
            assert json.dumps(value) in text or repr(value) in text or value in text, value

    walk(state)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


# Cards and protocols


CARD = """
id = "tiny"
version = 1
title = "Twenty rows"
licence = "none"
citation = "none"
notes = "made by a test"

[source]
loader = "neorl2"
files = [{ name = "data.npz" }]

[environment]
id = "gymnasium_robotics:PointMaze_UMaze-v3"
max_episode_steps = 20
observation_keys = ["observation", "desired_goal"]
kwargs = { reward_type = "dense" }

[reference]
min = -10
max = 0.5
source = "counted"

[expected]
transitions = 20
episodes = 4
"""


def _make_card(folder: Path) -> None:
    _make_npz(folder)
    (folder / "card.toml").write_text(CARD)


def _mutate_card(folder: Path, random: Random) -> None:
    if random.random() < 0.05:
        replace_by_oddity(folder / "card.toml", random)
    else:
        mutate_file(folder / "card.toml", random, TEXT)


def _read_card(folder: Path) -> tuple[Any, Dataset]:
    card = read_card(folder / "card.toml")
    return card, load_dataset(card)


def _agree_card(folder: Path, read: tuple[Any, Dataset]) -> None:
    card, dataset = read
    _agree_toml(folder / "card.toml", card.model_dump(mode="json"), leave=("name", "loader_id"))
    _agree_npz(folder, dataset)


def _agree_toml(path: Path, values: dict[str, Any], leave: Sequence[str] = ()) -> None:
    """Every value of the file is in the record; paths, which are placed, end in it."""
    written = tomllib.loads(path.read_bytes().decode("utf-8-sig"))

    def walk(given: Any, kept: Any, where: str) -> None:
        if isinstance(given, dict):
            for key, item in given.items():
                if key not in leave:
                    assert key in kept, f"{where}.{key}"
                    walk(item, kept[key], f"{where}.{key}")
        elif isinstance(given, list):
            assert len(given) == len(kept), where
            for item, other in zip(given, kept, strict=True):
                walk(item, other, where)
        else:
            placed = isinstance(given, str) and isinstance(kept, str) and kept.endswith(given)
            same = given == kept or placed or (given != given and kept != kept)
            assert same, f"{where}: {given!r} became {kept!r}"

    walk(written, values, "")


PROTOCOL = """
id = "tiny"
version = 1
title = "A protocol for tests"
source = "offrl"
datasets = ["neorl2-dmsd", "hopper-medium-v2", "own [1].toml"]
seeds = [0, 1, 2]
steps = 500

[evaluation]
every = 100
episodes = 4

[algorithms.bc]

[algorithms.mine]
algorithm = "iql"
steps = 700
datasets = ["hopper-*", "own [1].toml"]
config = { beta = 2.5, hidden = [8, 4], expectile = 0.8 }

[[algorithms.mine.on]]
datasets = ["hopper-medium-v2"]
episodes = 5
config = { beta = 10 }

[algorithms.mine.grid]
tau = [0.01, 0.02]
"""

EXTENSION = """
extends = "protocol.toml"
id = "longer"
version = 2
datasets = ["hopper-medium-v2", "hopper-expert-v2"]
steps = 900
evaluation.every = 300

[algorithms.mine.config]
beta = 3.5
tau = 0.5
"""


def _make_protocol(folder: Path) -> None:
    (folder / "protocol.toml").write_text(PROTOCOL)
    (folder / "own [1].toml").write_text(CARD.replace("tiny", "own"))


def _mutate_protocol(folder: Path, random: Random) -> None:
    if random.random() < 0.05:
        replace_by_oddity(folder / "protocol.toml", random)
    else:
        mutate_file(folder / "protocol.toml", random, TEXT)


def _read_protocol(folder: Path) -> tuple[Protocol, list[Job]]:
    protocol = find_protocol(str(folder / "protocol.toml"))
    return protocol, expand(protocol)


def _agree_protocol(folder: Path, read: tuple[Protocol, list[Job]]) -> None:
    """The values are the file's, and what the jobs are called can be stored and read again."""
    protocol, jobs = read
    values = protocol.model_dump(mode="json")
    _agree_toml(folder / "protocol.toml", values, leave=("datasets", "algorithm"))
    assert {job.seed for job in jobs} <= set(protocol.seeds)
    for job in jobs:
        place = job.folder(folder / "runs")
        assert place.resolve().is_relative_to((folder / "runs").resolve()), place
        if job.seed == protocol.seeds[0]:
            place.mkdir(parents=True)
    columns = ["algorithm", "dataset", "setting", "seed", "score"]
    rows = [(j.label, j.dataset, j.setting, j.seed, 1.0) for j in jobs]
    if rows:
        ScoreTable.from_frame(pd.DataFrame(rows, columns=columns), complete=False)


def _make_extension(folder: Path) -> None:
    _make_protocol(folder)
    (folder / "longer.toml").write_text(EXTENSION)


def _mutate_extension(folder: Path, random: Random) -> None:
    name = "protocol.toml" if random.random() < 0.2 else "longer.toml"
    mutate_file(folder / name, random, TEXT)


def _read_extension(folder: Path) -> Protocol:
    protocol = find_protocol(str(folder / "longer.toml"))
    expand(protocol)
    return protocol


def _agree_extension(folder: Path, protocol: Protocol) -> None:
    """What the file says holds; what it leaves out is the other's; as TOML it is the same."""
    own = tomllib.loads((folder / "longer.toml").read_text(encoding="utf-8-sig"))
    values = protocol.model_dump()
    for key in ("id", "version", "seeds", "steps", "title", "source", "precision"):
        if key in own or "extends" not in own:
            assert own.get(key, values[key]) == values[key]
    for label, entry in own.get("algorithms", {}).items():
        for key, value in entry.get("config", {}).items():
            kept = values["algorithms"][label]["config"][key]
            assert kept == value or (kept != kept and value != value)
    if own.get("extends") == "protocol.toml":
        base = find_protocol(str(folder / "protocol.toml")).model_dump()
        assert {key for key in base if base[key] != values[key]} <= own.keys() | {"algorithms"}
    again = Protocol.model_validate(parse_toml(to_toml(tables(protocol))))
    assert repr(again) == repr(protocol)


# Data sets


def _columns(names: Sequence[str]) -> dict[str, Any]:
    """Four episodes of five steps: observations, actions, next ones, rewards and both ends."""
    random = np.random.default_rng(0)
    observations = random.normal(size=(20, 3)).astype(np.float32)
    after = random.normal(size=(20, 3)).astype(np.float32)
    actions = random.uniform(-1, 1, (20, 2)).astype(np.float32)
    ends = np.arange(20) % 5 == 4
    done = ends & (np.arange(20) > 10)
    values = [observations, actions, after, np.arange(20, dtype=np.float32), done, ends & ~done]
    return dict(zip(names, values, strict=True))


NEORL2 = ("obs", "action", "next_obs", "reward", "done", "truncated")
D4RL = ("observations", "actions", "next_observations", "rewards", "terminals", "timeouts")


def _odd_array(array: np.ndarray[Any, Any], random: Random) -> Any:
    """The array with another type, shape or value."""
    place = tuple(random.randrange(size) for size in array.shape)
    odd = array.astype(np.float64)
    odd[place] = random.choice([np.nan, np.inf, 1e39, -1e308, 0.5, -0.0])
    kinds = ["float16", "float64", "int8", "int64", "uint64", "complex64", "bool", "S3", ">f4"]
    return random.choice(
        [
            lambda: odd,
            lambda: array.astype(random.choice(kinds)),
            lambda: array.astype(str),
            lambda: array[: random.randrange(20)],
            lambda: array.reshape(-1),
            lambda: array[None],
            lambda: array[..., None],
            lambda: array.T,
            lambda: np.asfortranarray(array),
            lambda: np.float32(1),
            lambda: np.empty((0, 3), np.float32),
            lambda: np.repeat(array, 50, 0),
            lambda: array.astype([("a", "f4")]) if array.ndim == 1 else array,
            lambda: array.astype("datetime64[s]") if array.ndim == 1 else array,
        ]
    )()


def _make_npz(folder: Path) -> None:
    np.savez_compressed(folder / "data.npz", **_columns(NEORL2))


def _mutate_npz(folder: Path, random: Random) -> None:
    """Damage of the archive, of a member in a whole one, or other arrays."""
    path = folder / "data.npz"
    columns = _columns(random.choice([NEORL2, NEORL2, D4RL]))
    key = random.choice(list(columns))
    match random.randrange(10):
        case 0:
            replace_by_oddity(path, random)
        case 1 | 2 | 3:
            mutate_file(path, random)
        case 4 | 5 | 6:
            columns[key] = _odd_array(columns[key], random)
            if random.random() < 0.1:
                del columns[key]
            np.savez(path, **columns)
        case _:
            with zipfile.ZipFile(path) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            name = random.choice(list(members))
            members[name] = mutate(members[name], random, TEXT)
            kinds = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
            with zipfile.ZipFile(path, "w", random.choice(kinds)) as archive:
                for member, data in members.items():
                    archive.writestr(member, data)
            if random.random() < 0.3:
                mutate_file(path, random)


def _read_npz(folder: Path) -> Dataset:
    return load_dataset(folder / "data.npz")


def _agree_npz(folder: Path, dataset: Dataset) -> None:
    with np.load(folder / "data.npz", allow_pickle=False) as archive:
        names = NEORL2 if set(NEORL2) <= set(archive.files) else D4RL
        _agree_columns(dataset, archive, names)


def _agree_columns(dataset: Dataset, stored: Any, names: Sequence[str]) -> None:
    """The rows of a data set are rows of its file, in their order and with their values."""
    ours = _joined(dataset.observations, dataset.actions, dataset.rewards)
    observations, actions, _, rewards, terminations, _ = names
    theirs = _joined(*(np.asarray(stored[name]) for name in (observations, actions, rewards)))
    _agree_in_order(ours, theirs)
    assert np.isfinite(ours).all()
    ends = np.asarray(stored[terminations]).astype(float)
    assert int(dataset.terminations.sum()) <= int((ends != 0).sum())


def _joined(*columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rows = len(columns[0])
    with np.errstate(over="ignore"):
        return np.concatenate([c.reshape(rows, -1).astype(np.float32) for c in columns], axis=1)


def _agree_in_order(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> None:
    """Every row of ours is a row of theirs, in the same order."""
    place = 0
    for number, row in enumerate(ours):
        while place < len(theirs) and not np.array_equal(theirs[place], row):
            place += 1
        assert place < len(theirs), f"row {number} is not in the file: {row}"
        place += 1


OGBENCH = ("observations", "actions", "terminals")


def _ogbench_columns() -> dict[str, Any]:
    """Four trajectories of four steps, each with its last successor."""
    columns = _columns(D4RL)
    kept: dict[str, Any] = {name: columns[name] for name in OGBENCH}
    return kept | {"terminals": np.arange(20) % 5 == 4}


def _make_ogbench(folder: Path) -> None:
    np.savez_compressed(folder / "data.npz", **_ogbench_columns())
    head, _, _ = CARD.replace('"neorl2"', '"ogbench"').partition("[environment]")
    (folder / "card.toml").write_text(head)


def _mutate_ogbench(folder: Path, random: Random) -> None:
    """Damage of the archive, or other arrays."""
    if random.random() < 0.5:
        mutate_file(folder / "data.npz", random)
        return
    columns = _ogbench_columns()
    key = random.choice(OGBENCH)
    columns[key] = _odd_array(columns[key], random)
    np.savez(folder / "data.npz", **columns)


def _read_carded(folder: Path) -> Dataset:
    return load_dataset(folder / "card.toml")


def _agree_ogbench(folder: Path, dataset: Dataset) -> None:
    """Rows are those of the file that end no trajectory, and each goes on to the next row."""
    with np.load(folder / "data.npz", allow_pickle=False) as archive:
        observations, actions, ends = (np.asarray(archive[name]) for name in OGBENCH)
    kept = ends.reshape(-1).astype(float) == 0
    theirs = _joined(observations, actions)
    ours = _joined(dataset.observations, dataset.actions)
    np.testing.assert_array_equal(ours, theirs[kept])
    after = _joined(observations)[1:][kept[:-1]]
    np.testing.assert_array_equal(_joined(dataset.next_observations), after)
    assert np.isfinite(ours).all()


STATES = ("infos/qpos", "infos/qvel")


def _make_hdf5(folder: Path) -> None:
    with h5py.File(folder / "data.hdf5", "w") as file:
        for name, values in _columns(D4RL).items():
            file[name] = values
        for name in STATES:
            file[name] = np.arange(40, dtype=np.float32).reshape(20, 2)
        file["metadata/algorithm"] = "none"


def _mutate_hdf5(folder: Path, random: Random) -> None:
    path = folder / "data.hdf5"
    match random.randrange(10):
        case 0:
            replace_by_oddity(path, random)
        case 1 | 2 | 3 | 4:
            mutate_file(path, random)
        case _:
            with h5py.File(path, "r+") as file:
                _odd_item(file, random.choice((*D4RL, *STATES)), random)


def _odd_item(group: Any, name: str, random: Random) -> None:
    """Something else in place of a data set of an HDF5 file."""
    values = group[name][()]
    del group[name]
    match random.randrange(10):
        case 0:
            group.create_group(name)
        case 1:
            group[name] = h5py.SoftLink("/nowhere")
        case 2:
            group[name] = h5py.SoftLink(f"/{random.choice(D4RL)}")
        case 3:
            huge = (2 ** random.choice([31, 40, 62]), *values.shape[1:])
            group.create_dataset(name, huge, "f4", chunks=True, maxshape=(None, *values.shape[1:]))
        case 4:
            group.create_dataset(name, data=[str(v) for v in values.ravel()])
        case 5:
            group.create_dataset(name, data=h5py.Empty("f4"))
        case 6:
            filters: list[Any] = [{"compression": "gzip"}, {"fletcher32": True}, {"shuffle": True}]
            filters = filters[:1] if values.dtype.hasobject else filters  # texts take no others
            group.create_dataset(name, data=values, chunks=True, **random.choice(filters))
        case _:
            numbers = np.arange(values.size, dtype="f4") if values.dtype.hasobject else values
            odd = _odd_array(numbers, random)
            if odd.dtype.kind not in "UM":
                group[name] = odd


def _read_hdf5(folder: Path) -> tuple[Dataset, Steps | None]:
    dataset = load_dataset(folder / "data.hdf5")
    return dataset, read_steps(dataset.card, folder / "data.hdf5")


def _agree_hdf5(folder: Path, read: tuple[Dataset, Steps | None]) -> None:
    dataset, steps = read
    with h5py.File(folder / "data.hdf5") as file:
        names = [name for name in (*D4RL, *STATES) if hasattr(file.get(name), "shape")]
        stored = {name: file[name][()] for name in names}
    _agree_columns(dataset, stored, D4RL)
    if steps is not None:
        for ours in (steps.qpos, steps.next_qpos):
            _agree_in_order(ours, stored[STATES[0]])
        for ours in (steps.qvel, steps.next_qvel):
            _agree_in_order(ours, stored[STATES[1]])
        _agree_in_order(steps.actions, stored["actions"].reshape(len(stored["actions"]), -1))
        assert np.isfinite(np.concatenate([steps.qpos, steps.next_qvel, steps.actions], 1)).all()


def _make_minari(folder: Path) -> None:
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    columns = _columns(D4RL)
    episodes = []
    for first in (0, 5, 10):
        rows = slice(first, first + 5)
        observations = np.concatenate(
            [columns["observations"][rows], columns["next_observations"][rows][-1:]]
        )
        episodes.append(
            EpisodeBuffer(
                observations=observations,
                actions=columns["actions"][rows],
                rewards=columns["rewards"][rows],
                terminations=np.zeros(5, bool),
                truncations=np.arange(5) == 4,
            )
        )
    numbers = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    texts = gymnasium.spaces.Dict(x=numbers, mission=gymnasium.spaces.Text(9))
    told = [
        dataclasses.replace(e, observations={"x": e.observations, "mission": 6 * ["go"]})
        for e in episodes
    ]
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    for form, name, held, space in (
        ("hdf5", "own/tiny-v0", episodes, numbers),
        ("hdf5", "own/texts-v0", told, texts),
        ("arrow", "own/arrow-v0", episodes, numbers),
        ("parquet", "own/rows-v0", episodes, numbers),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari's advice on metadata
            minari.create_dataset_from_buffers(
                name,
                held,
                env="Pendulum-v1",
                observation_space=space,
                action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
                ref_min_score=0.0,
                ref_max_score=9.0,
                data_format=form,
            )


def _mutate_minari(folder: Path, random: Random) -> None:
    own = folder / "own"
    chosen = random.choice(["tiny-v0", "texts-v0", "arrow-v0", "rows-v0"])
    if chosen != "tiny-v0":
        shutil.rmtree(own / "tiny-v0")
        (own / chosen).rename(own / "tiny-v0")
    data = own / "tiny-v0" / "data"
    metadata, episodes = data / "metadata.json", data / "main_data.hdf5"
    if chosen in ("arrow-v0", "rows-v0"):
        (episodes,) = data.glob(f"{random.randrange(3)}/part-0.*")
    match random.randrange(12):
        case 0:
            replace_by_oddity(random.choice([metadata, episodes]), random)
        case 1 | 2:
            mutate_file(episodes, random)
        case 3 | 4:
            mutate_file(metadata, random, TEXT)
        case 5 | 6:
            metadata.write_bytes(mutate_json(metadata.read_bytes(), random))
        case 7 | 8:
            values = json.loads(metadata.read_bytes())
            key = random.choice(["env_spec", "observation_space", "action_space"])
            text = values[key].encode()
            text = random.choice([mutate_json(text, random), mutate(text, random, TEXT)])
            values[key] = text.decode("utf-8", "replace")
            metadata.write_text(json.dumps(values))
        case _ if chosen in ("arrow-v0", "rows-v0"):
            _write_table(_odd_table(_read_rows(episodes), random), episodes, random)
        case _:
            with h5py.File(episodes, "r+") as file:
                episode = file[f"episode_{random.randrange(3)}"]
                if random.random() < 0.2:
                    name = random.choice(["id", "total_steps", "seed", "x"])
                    episode.attrs[name] = random.choice([-1, 7, 2**40, "x", 1.5, [1, 2]])
                else:
                    seen = episode["observations"]
                    within = random.choice([episode, seen]) if chosen == "texts-v0" else episode
                    names = [k for k in within if isinstance(within[k], h5py.Dataset)]
                    _odd_item(within, random.choice(names), random)


def _read_rows(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path, partitioning=None)
    with pa.ipc.open_file(path) as file:
        return file.read_all()


def _write_table(table: pa.Table, path: Path, random: Random) -> None:
    if path.suffix == ".parquet":
        kinds = random.choice(["none", "snappy", "zstd"])
        pq.write_table(table, path, compression=kinds, use_dictionary=random.random() < 0.5)
        return
    options = pa.ipc.IpcWriteOptions(compression=random.choice([None, "lz4", "zstd"]))
    with pa.ipc.new_file(path, table.schema, options=options) as file:
        file.write_table(table)


def _odd_table(table: pa.Table, random: Random) -> pa.Table:
    """The table with a column of another type, with other values or less, or other rows."""
    place = random.randrange(table.num_columns)
    name, column, size = table.column_names[place], table.column(place), table.num_rows
    match random.randrange(4):
        case 0:
            return table.drop_columns([name])
        case 1:
            return table.slice(random.randrange(size), random.randrange(size))
        case 2:
            return pa.concat_tables([table] * random.choice([2, 3000])).combine_chunks()
    odd: Any = random.choice(
        [
            lambda: pa.nulls(size),
            lambda: pa.nulls(size, column.type),
            lambda: pa.array([f"{k}" * 500 for k in range(size)]),
            lambda: pa.array(["x"] * size).dictionary_encode(),
            lambda: pa.array([{"a": k} for k in range(size)]),
            lambda: pa.array([[1.0] * k for k in range(size)]),
            lambda: pa.array([[1.0] * 7] * size, pa.list_(pa.float32(), 7)),
            lambda: pa.array([k % 2 == 0 for k in range(size)]),
            lambda: pa.array(np.arange(size) * 1e300),
            lambda: pa.array([np.nan] * size),
            lambda: pa.array([b"\xff\xd8"] * size),
        ]
    )()
    return table.set_column(place, name, odd)


def _read_minari(folder: Path) -> Dataset:
    return load_dataset(folder / "own" / "tiny-v0")


def _agree_minari(folder: Path, dataset: Dataset) -> None:
    data = folder / "own" / "tiny-v0" / "data"
    keys = ("observations", "actions", "rewards")
    parts = []
    if (main := data / "main_data.hdf5").exists():
        with h5py.File(main, rdcc_nbytes=0) as file:  # or a wrong chunk size stops it
            for name in sorted(file, key=lambda name: int(name.removeprefix("episode_"))):
                rows = len(file[name]["rewards"])
                stored = {key: file[name][key] for key in keys}
                if isinstance(stored["observations"], h5py.Group):  # with texts beside them
                    stored["observations"] = stored["observations"]["x"]
                parts.append(_joined(*(values[:rows] for values in stored.values())))
    for number in range(3):
        for path in data.glob(f"{number}/part-0.*"):
            table = _read_rows(path).slice(0, _read_rows(path).num_rows - 1)  # the last is filling
            parts.append(_joined(*(np.array(table[key].to_pylist()) for key in keys)))
    ours = _joined(dataset.observations, dataset.actions, dataset.rewards)
    _agree_in_order(ours, np.concatenate(parts))


# Data of a user's own


LOGGED = Roles(["obs_a", "obs_b"], ["u"], "r", episode="id", time="t", terminal="end")
NUMBERS = ("obs_a", "obs_b", "u", "r")


def _logged() -> pd.DataFrame:
    """Twenty rows of four episodes, two of which terminate, in a mixed order."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(20, 4)).astype(np.float32), columns=[*NUMBERS])
    frame.insert(0, "id", [f"p{k % 4}" for k in range(20)])
    frame.insert(1, "t", [k // 4 for k in range(20)])
    frame["end"] = [int(k >= 18) for k in range(20)]
    return frame.sample(frac=1, random_state=0)


def _make_log(folder: Path) -> None:
    _logged().to_csv(folder / "log.csv", index=False)


def _mutate_log(folder: Path, random: Random) -> None:
    """Damage of the text, or another cell."""
    path = folder / "log.csv"
    if random.random() < 0.5:
        mutate_file(path, random, TEXT)
        return
    frame = _logged().astype(object)
    cells = ["", "NA", "nan", "inf", "1e39", "-0", " 1", "1_0", "0x1", "true", "é", '"', "1,5", "2"]
    for _ in range(random.randrange(1, 4)):
        frame.iat[random.randrange(20), random.randrange(7)] = random.choice(cells)
    frame.to_csv(path, index=False, sep=random.choice(",,;\t"))


def _make_log_table(folder: Path) -> None:
    _logged().to_parquet(folder / "log.parquet", index=False)


def _mutate_log_table(folder: Path, random: Random) -> None:
    path = folder / "log.parquet"
    if random.random() < 0.5:
        mutate_file(path, random)
        return
    frame = _logged()
    column = str(random.choice(list(frame)))
    frame[column] = _odd_column(frame[column], random)
    frame.to_parquet(path)


def _read_log(folder: Path) -> Columns:
    return table_columns(open_table(next(folder.glob("log.*"))), LOGGED)


def _agree_log(folder: Path, columns: Columns) -> None:
    data = (folder / "log.csv").read_bytes()
    text = data.decode("utf-8-sig")
    frames = [_cells_of_csv(text, separator) for separator in (",", ";", "\t")]
    _agree_logged(columns, [frame for frame in frames if frame is not None])


def _cells_of_csv(text: str, separator: str) -> pd.DataFrame | None:
    """Cells of text by the csv module; None where the names are not among the first line's."""
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    if not rows or not {*NUMBERS} <= {*rows[0]} or {len(row) for row in rows} != {len(rows[0])}:
        return None
    return pd.DataFrame(rows[1:], columns=rows[0])


def _agree_log_table(folder: Path, columns: Columns) -> None:
    stored = pq.read_table(folder / "log.parquet")
    _agree_logged(columns, [stored.replace_schema_metadata().to_pandas()])


def _agree_logged(columns: Columns, peers: Sequence[pd.DataFrame]) -> None:
    """Each row is one of a peer's, none more often than there; the last ends an episode."""
    ours = _joined(columns.observations, columns.actions, columns.rewards)
    assert np.isfinite(ours).all()
    assert columns.terminations[-1] or columns.truncations[-1]
    theirs = []
    for peer in peers:
        cells = peer[[*NUMBERS]].map(_truth)
        values = [pd.to_numeric(cells[name], errors="coerce").to_numpy(float) for name in NUMBERS]
        theirs.append(Counter(map(bytes, _joined(*values) + np.float32(0))))
    found = Counter(map(bytes, ours + np.float32(0)))
    assert any(found <= rows for rows in theirs), "rows that no peer reads"


def _truth(cell: Any) -> Any:
    """A text that is a truth value as a number, and any other cell as it is."""
    words = {"true": "1", "false": "0"}
    return words.get(cell.strip().lower(), cell) if isinstance(cell, str) else cell


def _make_transitions(folder: Path) -> None:
    columns = _columns(D4RL)
    cells: dict[str, Any] = {"reward": columns["rewards"]}
    for name, key in (("observation", D4RL[0]), ("action", D4RL[1]), ("next_observation", D4RL[2])):
        cells |= {f"{name}_{k}": part for k, part in enumerate(columns[key].T)}
    cells |= {"termination": columns["terminals"], "truncation": columns["timeouts"]}
    pd.DataFrame(cells).to_parquet(folder / "data.parquet", index=False)


def _mutate_transitions(folder: Path, random: Random) -> None:
    path = folder / "data.parquet"
    if random.random() < 0.5:
        mutate_file(path, random)
        return
    _write_table(_odd_table(pq.read_table(path), random), path, random)


def _read_transitions(folder: Path) -> Dataset:
    return load_dataset(folder / "data.parquet")


def _agree_transitions(folder: Path, dataset: Dataset) -> None:
    frame = pq.read_table(folder / "data.parquet").replace_schema_metadata().to_pandas()
    names = [f"observation_{k}" for k in range(dataset.observations.shape[1])]
    names += [f"action_{k}" for k in range(dataset.actions.shape[1])]
    theirs = _joined(*(frame[name].to_numpy(float) for name in (*names, "reward")))
    ours = _joined(dataset.observations, dataset.actions, dataset.rewards)
    assert np.array_equal(ours, theirs), "rows differ"


KEPT = json.dumps({"count": 4, "names": ["left", "none", "right", "é"]}).encode()


def _make_choices(folder: Path) -> None:
    """Discrete actions of which the files have the names, as offrl exports them."""
    columns = _columns(D4RL) | {"actions": np.arange(20) % 3}
    with h5py.File(folder / "data.hdf5", "w") as file:
        for name, values in columns.items():
            file[name] = values
    _make_transitions(folder)
    table = pq.read_table(folder / "data.parquet").drop_columns(["action_0", "action_1"])
    pq.write_table(table.append_column("action", [columns["actions"]]), folder / "data.parquet")
    _keep_choices(folder, KEPT)


def _keep_choices(folder: Path, text: bytes) -> None:
    with h5py.File(folder / "data.hdf5", "r+") as file:
        file["actions"].attrs["choices"] = np.bytes_(text)
    table = pq.read_table(folder / "data.parquet")
    pq.write_table(table.replace_schema_metadata({"offrl.actions": text}), folder / "data.parquet")


def _mutate_choices(folder: Path, random: Random) -> None:
    match random.randrange(6):
        case 0 | 1:
            _keep_choices(folder, mutate_json(KEPT, random))
        case 2 | 3:
            _keep_choices(folder, mutate(KEPT, random, TEXT).replace(b"\0", b"0"))
        case 4:
            mutate_file(folder / random.choice(["data.hdf5", "data.parquet"]), random)
        case _:
            with h5py.File(folder / "data.hdf5", "r+") as file:
                odd = random.choice(["{}", KEPT.decode(), [KEPT], 3, h5py.Empty("S3")])
                file["actions"].attrs["choices"] = odd


def _read_choices(folder: Path) -> tuple[Dataset, ...]:
    return load_dataset(folder / "data.hdf5"), load_dataset(folder / "data.parquet")


def _agree_choices(folder: Path, read: tuple[Dataset, ...]) -> None:
    with h5py.File(folder / "data.hdf5") as file:
        actions, text = file["actions"][()], file["actions"].attrs["choices"]
    table = pq.read_table(folder / "data.parquet")
    stored = [
        (actions, text),
        (table["action"].to_numpy(), table.schema.metadata[b"offrl.actions"]),
    ]
    for dataset, (taken, held) in zip(read, stored, strict=True):
        assert np.array_equal(dataset.actions, taken.reshape(-1)), "actions differ"
        assert dataset.card.actions is not None
        ours = dataset.card.actions.model_dump()
        assert ours == {"names": []} | json.loads(held), "choices differ"


def _make_d3rlpy(folder: Path) -> None:
    columns = _columns(D4RL)
    with h5py.File(folder / "data.h5", "w") as file:
        file["columns"] = ["observations", "actions", "rewards", "terminated"]
        file["num_episodes"] = 4
        for k in range(4):
            for name in ("observations", "actions", "rewards"):
                file[f"{name}_{k}"] = columns[name][5 * k : 5 * k + 5]
            file[f"terminated_{k}"] = bool(columns["terminals"][5 * k + 4])


def _mutate_d3rlpy(folder: Path, random: Random) -> None:
    path = folder / "data.h5"
    match random.randrange(10):
        case 0:
            replace_by_oddity(path, random)
        case 1 | 2 | 3 | 4:
            mutate_file(path, random)
        case _:
            with h5py.File(path, "r+") as file:
                name = random.choice(["observations", "actions", "rewards", "num_episodes"])
                name = name if name == "num_episodes" else f"{name}_{random.randrange(4)}"
                if name == "num_episodes":
                    del file[name]
                    file[name] = random.choice([-1, 0, 3, 5, 2**62, 1.5, "4", [4, 4]])
                else:
                    _odd_item(file, name, random)


def _read_d3rlpy(folder: Path) -> Dataset:
    return load_dataset(folder / "data.h5")


def _agree_d3rlpy(folder: Path, dataset: Dataset) -> None:
    with h5py.File(folder / "data.h5") as file:
        parts = [
            _joined(*(file[f"{name}_{k}"][()] for name in ("observations", "actions", "rewards")))
            for k in range(int(file["num_episodes"][()]))
        ]
    ours = _joined(dataset.observations, dataset.actions, dataset.rewards)
    _agree_in_order(ours, np.concatenate(parts))


BUFFERS = {
    "sb3": ("observations", "actions", "next_observations", "rewards", "dones", "timeouts"),
    "torchrl": ("observation", "action", "next.observation", "next.reward", "next.terminated", "x"),
}


def _make_buffer(folder: Path) -> None:
    """Two environments of ten steps each, whose rows stand beside each other."""
    columns = {
        name: values.reshape(2, 10, *values.shape[1:]).swapaxes(0, 1)
        for name, values in _columns(BUFFERS["sb3"]).items()
    }
    columns["dones"] = columns["dones"] | columns["timeouts"]
    np.savez(folder / "data.npz", **columns, pos=0, full=True)


def _mutate_buffer(folder: Path, random: Random) -> None:
    path = folder / "data.npz"
    if random.random() < 0.4:
        mutate_file(path, random)
        return
    with np.load(path) as archive:
        columns = {name: archive[name] for name in archive.files}
    if random.random() < 0.5:
        columns = _columns(BUFFERS["torchrl"])
        columns["collector.traj_ids"] = np.arange(20) // 5
    name = random.choice([name for name, values in columns.items() if values.ndim])
    columns[name] = _odd_array(columns[name], random)
    np.savez(path, **columns)


def _agree_buffer(folder: Path, dataset: Dataset) -> None:
    """Each row is one of the file's."""
    with np.load(folder / "data.npz", allow_pickle=False) as archive:
        names = next(n for n in BUFFERS.values() if {*n[:4]} <= {*archive.files})
        rewards = archive[names[3]]
        axes = 2 if names is BUFFERS["sb3"] else max(1, rewards.ndim - (rewards.shape[-1:] == (1,)))
        count = int(np.prod(rewards.shape[:axes]))
        theirs = _joined(*(archive[names[k]].reshape(count, -1) for k in (0, 1, 3)))
    ours = _joined(dataset.observations, dataset.actions, dataset.rewards)
    assert Counter(map(bytes, ours)) <= Counter(map(bytes, theirs)), "rows that no peer reads"


def _make_rlds(folder: Path) -> None:
    (folder / "own").mkdir()
    columns = _columns(D4RL)
    for k in range(3):
        rows = slice(5 * k, 5 * k + 5)
        last = np.arange(5) == 4
        np.savez(
            folder / "own" / f"{k}.npz",
            observation=columns["observations"][rows],
            action=columns["actions"][rows],
            reward=columns["rewards"][rows],
            is_first=np.arange(5) == 0,
            is_last=last,
            is_terminal=last & (k == 1),
        )


def _mutate_rlds(folder: Path, random: Random) -> None:
    path = folder / "own" / f"{random.randrange(3)}.npz"
    if random.random() < 0.4:
        mutate_file(path, random)
        return
    with np.load(path) as archive:
        columns = {name: archive[name] for name in archive.files}
    name = random.choice(list(columns))
    columns[name] = _odd_array(columns[name], random)
    np.savez(path, **columns)


def _read_rlds(folder: Path) -> Dataset:
    return load_dataset(folder / "own")


def _agree_rlds(folder: Path, dataset: Dataset) -> None:
    parts = []
    for path in sorted((folder / "own").glob("*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            parts.append(_joined(*(archive[key] for key in ("observation", "action", "reward"))))
    ours = _joined(dataset.observations, dataset.actions, dataset.rewards)
    _agree_in_order(ours, np.concatenate(parts))


# Files of offrl's own, and settings


def _make_report(folder: Path) -> None:
    report = folder / "report"
    (report / "figures").mkdir(parents=True)
    files = ["figures/scores.svg", "index.html", "summary.json"]
    for name in files[:2]:
        (report / name).write_text("made by a test")
    record = {"kind": KIND, "seed": 0, "notes": ["a note"], "summary": [{"x": 1.5}], "files": files}
    (report / "summary.json").write_text(json.dumps(record))


def _mutate_report(folder: Path, random: Random) -> None:
    """Damage of the record of a report, or a file that the report does not have."""
    path = folder / "report" / "summary.json"
    match random.randrange(10):
        case 0:
            replace_by_oddity(path, random)
        case 1:
            (folder / "report" / random.choice(["notes.txt", "figures/x", "é"])).touch()
        case 2 | 3 | 4 | 5:
            path.write_bytes(mutate_json(path.read_bytes(), random))
        case _:
            mutate_file(path, random, TEXT)


def _read_report(folder: Path) -> None:
    check_replaceable(folder / "report")


def _agree_report(folder: Path, _: None) -> None:
    """What would be replaced is a report, and it lists every file that would go."""
    report = folder / "report"
    record = json.loads((report / "summary.json").read_bytes())
    assert record["kind"] == KIND
    for path in report.rglob("*"):
        assert path.is_dir() or path.relative_to(report).as_posix() in record["files"], path


def _make_cache(folder: Path) -> None:
    _make_npz(folder)


def _load_cached(folder: Path) -> Dataset:
    os.environ["OFFRL_CACHE"] = str(folder / "own cache")
    return load_dataset(folder / "data.npz", check=True)


def _mutate_cache(folder: Path, random: Random) -> None:
    """Damage of a column or of the cache's record, with its checksum or without."""
    _load_cached(folder)  # here, as the name of its folder depends on where the data are
    inside = sorted(p for p in (folder / "own cache").rglob("*") if p.suffix in (".npy", ".json"))
    path = random.choice(inside) if random.random() < 0.5 else inside[0].with_name("meta.json")
    if path.suffix == ".json" and random.random() < 0.7:
        path.write_text(json.dumps(unseal(json.loads(path.read_text()))))
    match random.randrange(10):
        case 0:
            replace_by_oddity(path, random)
        case 1 | 2 | 3 | 4 | 5 if path.suffix == ".json":
            path.write_bytes(mutate_json(path.read_bytes(), random))
        case _:
            mutate_file(path, random, TEXT if path.suffix == ".json" else BYTES)


SETTINGS = (
    *("beta=10", "expectile=0.8", "hidden=[8, 4]", "actor_lr=3e-4", "dropout=0.1"),
    *("reward=corl return range", "normalize=true", 'policy="gaussian"', "batch_size=0x10"),
)


def _make_settings(folder: Path) -> None:
    (folder / "settings.txt").write_text("beta=10")


def _mutate_settings(folder: Path, random: Random) -> None:
    text = random.choice(SETTINGS).encode()
    (folder / "settings.txt").write_bytes(mutate(text, random, TEXT))


def _setting(folder: Path) -> str:
    """The text of `--set`, as an argument of the command line may be."""
    return os.fsdecode((folder / "settings.txt").read_bytes().replace(b"\0", b""))


def _read_settings(folder: Path) -> tuple[str, Any, Any]:
    key, value = config_value(_setting(folder))
    return key, value, getattr(configure("iql", {key: value}, "offrl train"), key)


def _agree_settings(folder: Path, read: tuple[str, Any, Any]) -> None:
    """The value is what TOML reads, or a bare word, and the config holds it."""
    key, value, kept = read
    name, _, text = _setting(folder).partition("=")
    expected: Any
    try:
        tables = tomllib.loads(f"value = {text}")
        expected = tables["value"] if len(tables) == 1 else text
    except ValueError:
        expected = text
    assert (key, value) == (name, expected)
    assert kept == (tuple(value) if isinstance(value, list) else value)


GRIDS = (
    "beta=1,3,10",
    "hidden=[64,64],[128,128]",
    'reward="raw","minus one"',
    "order=corl,authors",
)


def _mutate_grid(folder: Path, random: Random) -> None:
    text = random.choice(GRIDS).encode()
    (folder / "settings.txt").write_bytes(mutate(text, random, TEXT))


def _read_grid(folder: Path) -> dict[str, list[Any]]:
    return grid_values([_setting(folder)])


def _agree_grid(folder: Path, grid: dict[str, list[Any]]) -> None:
    """The values are those of a TOML array, or else what stands between the commas."""
    ((key, values),) = grid.items()
    name, _, text = _setting(folder).partition("=")
    assert key == name
    try:
        read = tomllib.loads(f"value = [{text}]")
    except ValueError:
        assert len(values) == text.count(",") + 1
        return
    if len(read) == 1:
        assert repr(values) == repr(read["value"])


ALTERED = (
    "a+corrupt[observations,random,rate=0.3,range=1,seed=0]",
    "a+mix[b/c.toml=0.95,rows=100,replace=true,seed=7]+noise[actions,scale=0.1]",
    "a+subset[from_returns=0..0.5,share=0.25,by=random,seed=run]",
    "a+drop-actions[keep=0.1,seed=3]+delay[steps=20]",
    "a+corrupt[actions,adversarial,critic=edac,updates=5]",
)


def _mutate_altered(folder: Path, random: Random) -> None:
    text = random.choice(ALTERED).encode()
    (folder / "settings.txt").write_bytes(mutate(text, random, TEXT))


def _read_altered(folder: Path) -> str:
    name: str = entry_name(_setting(folder))
    return name


def _agree_altered(folder: Path, name: str) -> None:
    """The name says what was given, in Python's numbers, and is read again as it stands."""
    assert entry_name(name) == name
    if name == _setting(folder):
        return
    given, read = (
        [dict(re.findall(r"(\w+)=([^,\]]+)", text)) for text in re.findall(r"\[([^\]]*)\]", whole)]
        for whole in (_setting(folder), name)
    )
    for ours, theirs in zip(read, given, strict=True):
        for key in ours.keys() & theirs.keys():
            with contextlib.suppress(ValueError):
                assert float(ours[key]) == float(theirs[key])


SUBJECTS = {
    "csv": Subject(_make_csv, _mutate_csv, _read_table, _agree_csv),
    "csv.gz": Subject(_make_gz, _mutate_gz, _read_table, _agree_csv),
    "parquet": Subject(_make_parquet, _mutate_parquet, _read_table, _agree_parquet),
    "panel": Subject(_make_panel, _mutate_csv, _read_others, _agree_panel),
    "arrays": Subject(_make_arrays, _mutate_arrays, _read_others, _agree_arrays),
    "run store": Subject(_make_store, _mutate_store, _read_store, _agree_store),
    "checkpoint": Subject(
        _make_checkpoint, _mutate_checkpoint, _read_checkpoint, _agree_checkpoint
    ),
    "card": Subject(_make_card, _mutate_card, _read_card, _agree_card),
    "protocol": Subject(_make_protocol, _mutate_protocol, _read_protocol, _agree_protocol),
    "npz": Subject(_make_npz, _mutate_npz, _read_npz, _agree_npz),
    "ogbench": Subject(_make_ogbench, _mutate_ogbench, _read_carded, _agree_ogbench),
    "hdf5": Subject(_make_hdf5, _mutate_hdf5, _read_hdf5, _agree_hdf5),
    "minari": Subject(_make_minari, _mutate_minari, _read_minari, _agree_minari),
    "log.csv": Subject(_make_log, _mutate_log, _read_log, _agree_log),
    "log.parq": Subject(_make_log_table, _mutate_log_table, _read_log, _agree_log_table),
    "rows": Subject(_make_transitions, _mutate_transitions, _read_transitions, _agree_transitions),
    "choices": Subject(_make_choices, _mutate_choices, _read_choices, _agree_choices),
    "d3rlpy": Subject(_make_d3rlpy, _mutate_d3rlpy, _read_d3rlpy, _agree_d3rlpy),
    "buffer": Subject(_make_buffer, _mutate_buffer, _read_npz, _agree_buffer),
    "rlds": Subject(_make_rlds, _mutate_rlds, _read_rlds, _agree_rlds),
    "report": Subject(_make_report, _mutate_report, _read_report, _agree_report),
    "cache": Subject(_make_cache, _mutate_cache, _load_cached, _agree_npz),
    "settings": Subject(_make_settings, _mutate_settings, _read_settings, _agree_settings),
    "grid": Subject(_make_settings, _mutate_grid, _read_grid, _agree_grid),
    "extension": Subject(_make_extension, _mutate_extension, _read_extension, _agree_extension),
    "altered": Subject(_make_settings, _mutate_altered, _read_altered, _agree_altered),
}
