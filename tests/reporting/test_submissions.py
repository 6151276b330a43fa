"""Golden packets: one submission without a fault, and others that are broken in one way each."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_runs import config_hash, write_runs

from offrl.errors import InputError
from offrl.files import CHECKSUM, seal
from offrl.learning import checkpoint
from offrl.reporting.similar_returns import common_form, correlated, near_copies
from offrl.reporting.submission import Submission, read_submission, submission_text
from offrl.reporting.submission_checks import Checked, check_submission
from offrl.results.bundle import pack

ABOUT: dict[str, Any] = {
    "name": "My TD3+BC",
    "authors": ["A. Author", "B. Author"],
    "contact": "a@host.org",
    "code": "https://github.com/a/td3",
    "commit": "0123abcd",
    "licence": "MIT",
    "tuning": {"kind": "online-selection", "settings_tried": 5, "online_episodes": 2_000},
    "compute": {"hours": 1, "hardware": "one CPU", "parameters": 70_000},
}


def about(**changes: Any) -> str:
    return submission_text(Submission.model_validate({**ABOUT, **changes}))


def packet(folder: Path, text: str | None = None, **options: Any) -> Path:
    write_runs(folder / "runs", **options)
    pack(folder / "runs", folder / "mine.zip", submission=about() if text is None else text)
    return folder / "mine.zip"


def test_a_whole_submission_has_no_fault(tmp_path: Path) -> None:
    path = packet(tmp_path)
    checked = check_submission(path)
    assert (checked.faults, checked.warnings) == ((), ())
    assert checked.submission == Submission.model_validate(ABOUT)
    assert [run.identity.seed for run in checked.runs] == [0, 1, 2, 3, 4]
    assert path.stat().st_size < 30_000


Row = dict[str, Any]
Change = Callable[[Row, list[Row]], object]


def in_last_row(**values: Any) -> Change:
    return lambda _, rows: rows[-1].update(values)


def in_identity(**values: Any) -> Change:
    return lambda identity, _: identity.update(values)


def drop_return(_: Row, rows: list[Row]) -> None:
    del rows[-1]["returns"][-1], rows[-1]["lengths"][-1]
    rows[-1]["return"] = float(np.mean(rows[-1]["returns"]))
    rows[-1]["score"] = 100 * (rows[-1]["return"] - 8.185) / (138.381 - 8.185)


def copy_of_seed(rows: dict[int, list[Row]], shuffled: bool = False, noise: float = 0) -> Change:
    """Seed 3 has the returns of seed 0, in its order or another, or nearly so."""

    def change(identity: Row, of: list[Row]) -> None:
        rows[identity["seed"]] = of
        if identity["seed"] == 3:
            random = np.random.default_rng(0)
            returns = np.array(rows[0][-1]["returns"]) + noise * random.normal(size=100)
            returns = random.permutation(returns) if shuffled else returns
            mean = float(np.mean(returns))
            score = 100 * (mean - 8.185) / (138.381 - 8.185)
            of[-1].update(returns=returns.tolist(), score=score)
            of[-1]["return"] = mean

    return change


def with_config(**values: Any) -> Change:
    def change(identity: Row, rows: list[Row]) -> None:
        identity["config"] = {**identity["config"], **values}
        identity["config_hash"] = config_hash("td3_bc", identity["config"])
        for row in rows:
            row["config"] = identity["config_hash"]

    return change


def of_protocol(name: str) -> Change:
    def change(identity: Row, rows: list[Row]) -> None:
        for each in (identity, *rows):
            each["protocol"] = name

    return change


def of_dataset(name: str) -> Change:
    def change(identity: Row, rows: list[Row]) -> None:
        for each in (identity, *rows):
            each["dataset"] = name

    return change


def of_algorithm(algorithm: str, code: str | None = None, label: str = "td3_bc") -> Change:
    def change(identity: Row, rows: list[Row]) -> None:
        made = config_hash(algorithm, identity["config"], code)
        identity.update(algorithm=algorithm, code=code, label=label, config_hash=made)
        for row in rows:
            row.update(algorithm=label, config=made)

    return change


OLD_MUJOCO = {"gymnasium": "1.2.0", "mujoco": "3.5.0", "offrl": "0.1.0"}
CELL = "pointmaze-quickstart, seed"
BROKEN: dict[str, tuple[Change, str]] = {
    "a stated score": (
        in_last_row(score=99.0),
        f"{CELL} 0: step 4,000: its returns give the score ",
    ),
    "a stated mean": (in_last_row(**{"return": 1.0}), f"{CELL} 0: step 4,000: its returns have"),
    "returns beyond all bounds": (
        in_last_row(returns=[1.7e308] * 100),
        f"{CELL} 0: step 4,000: has returns beyond 1e+70",
    ),
    "a return too few": (drop_return, f"{CELL} 0: step 4,000: expected 100 returns, found 99"),
    "lengths": (
        in_last_row(lengths=[201] * 100),
        f"{CELL} 0: step 4,000: expected a length from 1 to 200 of each episode",
    ),
    "the simulator": (
        in_last_row(environment="PointMaze_UMaze-v3"),
        f"{CELL} 0: step 4,000: played in 'PointMaze_UMaze-v3'; expected offrl.datasets",
    ),
    "the simulator's version": (
        in_last_row(simulator=OLD_MUJOCO),
        f"{CELL} 0: step 4,000: mujoco 3.5.0; scores on pointmaze-quickstart are valid with mujoco",
    ),
    "references": (
        in_identity(reference={"min": 0.0, "max": 1.0, "source": "ours"}),
        "pointmaze-quickstart: reference returns: expected {'min': 8.185",
    ),
    "a budget": (
        in_identity(evaluation={"every": 1000, "episodes": 10, "seed": 0}),
        f"{CELL} 0: evaluation: expected {{'every': 1000, 'episodes': 50",
    ),
    "a setting of the protocol": (
        with_config(actor_lr=0.01),
        f"{CELL} 0: config.actor_lr: expected 0.001 of quickstart, found 0.01",
    ),
    "a setting of the algorithm": (
        with_config(tau=0.5),
        f"{CELL} 0: config.tau: expected 0.005 of quickstart, found 0.5",
    ),
    "a setting that there is not": (
        with_config(secret=1),
        f"{CELL} 0: config.secret: expected None of quickstart, found 1",
    ),
    "a config's hash": (
        lambda identity, _: identity["config"].update(tau=0.1),
        f"{CELL} 0: config: its hash is ",
    ),
    "another algorithm": (
        of_algorithm("bc"),
        "algorithm: td3_bc of quickstart is td3_bc, which ships with offrl; found bc",
    ),
    "an algorithm of one's own": (
        of_algorithm("td3_bc.py", "1" * 64),
        "algorithm: td3_bc of quickstart is td3_bc, which ships with offrl; found td3_bc.py, a f",
    ),
    "the name of one that ships": (
        of_algorithm("awac.py", "1" * 64, "awac"),
        "algorithm: awac is awac, which ships with offrl; found awac.py, a file of its own",
    ),
    "no code of one's own": (
        of_algorithm("mine.py", None, "mine"),
        "algorithm: mine does not ship with offrl, and its runs lack the SHA-256 of its file",
    ),
    "another file": (
        of_algorithm("bc.py", "1" * 64, "mine"),
        "algorithm: mine is no name of its file; found bc.py, a file of its own",
    ),
    "a protocol of one's own": (of_protocol("mine@1"), "protocol: 'mine' is none that ships"),
    "an earlier protocol": (
        of_protocol("quickstart@3"),
        "protocol: quickstart is at version 4, and these runs are of version 3, whose board is",
    ),
    "an earlier data set": (
        of_dataset("pointmaze-quickstart@0"),
        "pointmaze-quickstart: is at version 1, and its runs are of version 0",
    ),
    "a view": (
        in_identity(view="qlearning"),
        "pointmaze-quickstart: view: expected transitions for td3_bc, found 'qlearning'",
    ),
    "no version of the simulator": (
        lambda _, rows: [row["simulator"].pop("mujoco") for row in rows],
        f"{CELL} 0: step 1,000: mujoco of no known version; scores on pointmaze-quickstart are",
    ),
    "times": (in_last_row(wall_time=1.0), f"{CELL} 0: wall_time: expected times that rise"),
    "data": (
        lambda identity, _: identity.update(data_sha256=f"{identity['seed']:064d}"),
        "pointmaze-quickstart@1: its runs trained on data with 5 checksums; expected one",
    ),
    "a copied seed": (
        copy_of_seed({}),
        f"{CELL} 0 and 3: have the same returns, which two seeds have not",
    ),
    "a shuffled copy": (copy_of_seed({}, shuffled=True), f"{CELL} 0 and 3: have the same returns"),
    "a copy with noise": (copy_of_seed({}, noise=0.01), f"{CELL} 0 and 3: their returns correlate"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_packet_that_is_broken_in_one_way_has_its_line(tmp_path: Path, name: str) -> None:
    change, said = BROKEN[name]
    checked = check_submission(packet(tmp_path, change=change))
    assert any(line.startswith(said) for line in checked.faults), checked.faults
    begins = CELL if said.startswith(CELL) else said  # the same of other seeds
    assert all(line.startswith(begins) for line in checked.faults), checked.faults
    assert not any("\n" in line for line in checked.faults)


def test_seeds_and_algorithms_are_those_of_one_entry(tmp_path: Path) -> None:
    one = check_submission(packet(tmp_path / "one", seeds=[0, 1, 3, 7]))
    assert one.faults == (
        "pointmaze-quickstart: lacks the seeds 2, 4 of quickstart; run them",
        "pointmaze-quickstart: has the seed 7, which quickstart has not; leave it out",
    )
    write_runs(tmp_path / "two" / "runs", "bc", draw=1)
    two = check_submission(packet(tmp_path / "two"))
    assert two.faults == (
        "algorithm: expected one in a submission, found 2: bc, td3_bc; make one of each",
        "pointmaze-quickstart@1: 2 configs; expected one on each data set",
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"code": None}, "code: is not declared; add it"),
        ({"tuning": None}, "tuning: is not declared; add it"),
        ({"tuning": {"kind": "none", "settings_tried": 1}}, "tuning.online_episodes: is not"),
        (
            {"tuning": {"kind": "none", "settings_tried": 1, "online_episodes": 9}},
            'tuning: online_episodes are above 0, so kind is "online-selection"',
        ),
        ({"code": "http://example.com/x"}, "code: expected the address of the code, not a place"),
        ({"code": "javascript:alert(1)"}, "code: expected an address such as https://"),
        ({"paper": 'https://x.org/"onclick="x'}, "paper: expected an address such as https://"),
        ({"authors": []}, "authors: List should have at least 1 item"),
        ({"name": "\u202etxt"}, "name: expected one line of text without characters that cannot"),
        ({"name": "a\x1b[31mb"}, "name: expected one line of text without characters that cannot"),
        ({"name": "x" * 61}, "name: String should have at most 60 characters"),
        ({"commit": "main"}, "commit: String should match pattern"),
        ({"compute": {"hours": float("nan"), "hardware": "x"}}, "compute.hours: Input should be"),
        ({"more": 1}, "more: Extra inputs are not permitted, found 1"),
    ],
)
def test_what_is_declared_is_declared_whole(changes: Row, line: str) -> None:
    from offrl.toml import to_toml

    values = {key: value for key, value in {**ABOUT, **changes}.items() if value is not None}
    with pytest.raises(InputError) as caught:
        read_submission(to_toml(values), "submission.toml")
    assert str(caught.value).startswith(f"submission.toml: {line}")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_name_has_the_form_that_tables_have() -> None:
    from offrl.toml import to_toml

    read = read_submission(to_toml({**ABOUT, "name": "Cafe\u0301"}), "submission.toml")
    assert read.name == "Caf\u00e9"


def test_every_fault_is_a_line_and_a_bundle_without_a_declaration_has_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_submission("name = 1\n[tuning]\nkind = 'best'\n", "it")
    lines = str(caught.value).splitlines()
    assert len(lines) == 10
    assert all(line.startswith("it: ") for line in lines)
    write_runs(tmp_path / "runs")
    pack(tmp_path / "runs", tmp_path / "mine.zip")
    (fault,) = check_submission(tmp_path / "mine.zip").faults
    assert fault.startswith("submission.toml: there is none; make the bundle by offrl leaderboard")
    assert check_submission(tmp_path / "none.zip").faults == (
        "No such file or directory; expected a bundle of offrl results pack",
    )


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(path: Path, files: dict[str, bytes]) -> Path:
    """The bundle with these files and checksums of them."""
    rest = {name: data for name, data in files.items() if name != "SHA256SUMS"}
    text = "".join(f"{hashlib.sha256(v).hexdigest()}  {k}\n" for k, v in rest.items())
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**rest, "SHA256SUMS": text.encode()}.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data + b"junk\n", "has lines that offrl does not write"),
        (lambda data: data[:-1] + b"," * 9 + b"\n" * 9, "has lines that offrl does not write"),
        (lambda _: b"step,x\n4000,1\n", "expected losses at step 1000, 2000, 3000"),
        (lambda _: b"", "expected losses up to step 4,000"),
    ],
)
def test_losses_are_whole_and_nothing_else(
    tmp_path: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    path = packet(tmp_path)
    files = unpacked(path)
    name = next(name for name in files if name.endswith("seed-2/metrics.csv"))
    checked = check_submission(repacked(path, {**files, name: change(files[name])}))
    assert checked.faults == (f"{CELL} 2: metrics.csv: {said}; run it again",)


def test_of_the_losses_those_at_evaluations_are_handed_in(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs")
    (file,) = (tmp_path / "runs").rglob("seed-2/metrics.csv")
    original = file.read_text()
    head, first, *others = original.splitlines()
    between = "1500," + first.partition(",")[2]
    file.write_text("\n".join([head, first, between, *others]) + "\n")
    for submission, expected in ((about(), original), (None, file.read_text())):
        pack(tmp_path / "runs", tmp_path / "mine.zip", submission=submission)
        files = unpacked(tmp_path / "mine.zip")
        (losses,) = (files[name] for name in files if name.endswith("seed-2/metrics.csv"))
        assert losses.decode() == expected


def test_checkpoints_are_whole_and_each_runs_own(tmp_path: Path) -> None:
    path = packet(tmp_path)
    files = unpacked(path)
    runs = [name.removesuffix("run.json") for name in files if name.endswith("run.json")]
    for number, run in enumerate(runs):
        weights = tmp_path / f"{number}.safetensors"
        checkpoint.save(weights, {"step": 4000, "learner": {"w": torch.full((2,), float(number))}})
        files[f"{run}checkpoint/state.safetensors"] = weights.read_bytes()
    assert check_submission(repacked(path, files)).faults == ()
    first, second, *_ = (f"{run}checkpoint/state.safetensors" for run in runs)
    same = {**files, second: files[first]}
    (fault,) = check_submission(repacked(path, same)).faults
    assert fault.startswith("checkpoint: ")
    assert fault.endswith("have the same; each run has its own")
    damaged = {
        **files,
        second: files[second].replace(b"\x00\x00\x80?" * 2, b"\x00\x00\xc0\x7f" * 2),
    }
    assert damaged != files
    (fault,) = check_submission(repacked(path, damaged)).faults
    assert fault.startswith(f"{CELL} 1: checkpoint/state.safetensors: ")


def tampered(path: Path, *, sums: bool, sealed: bool) -> Checked:
    """The check of a bundle in which one return was raised by a point."""
    files = unpacked(path)
    name = next(name for name in files if name.endswith("evaluations.jsonl"))
    first, *others = files[name].splitlines(keepends=True)
    row = json.loads(first)
    row["returns"][0] += 1
    if sealed:
        del row[CHECKSUM]
        row = seal(row)
    files[name] = json.dumps(row).encode() + b"\n" + b"".join(others)
    if sums:
        return check_submission(repacked(path, files))
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in files.items():
            archive.writestr(each, data)
    return check_submission(path)


def test_one_return_that_was_changed_is_found_by_checksums_and_by_recomputation(
    tmp_path: Path,
) -> None:
    path = packet(tmp_path)
    whole = path.read_bytes()
    for sums, sealed, said in (
        (False, False, "its SHA-256 is not that of SHA256SUMS"),
        (True, False, "its checksum is "),
        (True, True, "its returns have the mean "),
    ):
        path.write_bytes(whole)
        assert said in tampered(path, sums=sums, sealed=sealed).faults[0]


def test_what_is_odd_is_a_warning(tmp_path: Path) -> None:
    def high(_: Row, rows: list[Row]) -> None:
        for row in rows:
            row["returns"] = [value + 200 for value in row["returns"]]
            row["return"] += 200
            row["score"] = 100 * (row["return"] - 8.185) / (138.381 - 8.185)
            row["wall_time"] /= 1e6

    lines = check_submission(packet(tmp_path, change=high)).warnings
    assert f"{CELL} 0: a score of " in lines[0]
    assert any("steps a second, evaluations included" in line for line in lines)


def test_returns_that_never_vary_are_odd_and_no_fault(tmp_path: Path) -> None:
    def level(_: Row, rows: list[Row]) -> None:
        for row in rows:
            row.update(returns=[0.0] * len(row["returns"]), score=100 * -8.185 / (138.381 - 8.185))
            row["return"] = 0.0

    checked = check_submission(packet(tmp_path, change=level))
    assert checked.faults == ()
    assert checked.warnings == (
        "pointmaze-quickstart@1: every episode of every seed has the return 0",
    )


def same_up_to_order(x: list[float], y: list[float]) -> bool:
    return common_form(x) is not None and common_form(x) == common_form(y)


def test_returns_that_chance_makes_alike_are_no_copies() -> None:
    random = np.random.default_rng(0)
    zeros = [0.0] * 100
    assert not same_up_to_order(zeros, zeros)
    assert not same_up_to_order([*zeros, 1.0], [*zeros, 1.0])
    wins = random.integers(0, 2, 100).astype(float).tolist()
    assert same_up_to_order(wins, wins)
    assert not same_up_to_order(wins, sorted(wins))
    counts = random.integers(0, 40, 100).astype(float).tolist()  # of whole numbers that repeat
    assert len({*counts}) < 50
    assert same_up_to_order(counts, sorted(counts))
    assert not same_up_to_order(counts, [*counts[:-1], -1.0])
    x, y = random.normal(size=(2, 100)).tolist()
    assert same_up_to_order(x, sorted(x))
    assert not same_up_to_order(x, y)
    assert correlated(x, y) is None
    assert correlated(wins, wins) is None
    noisy = (np.array(x) + 1e-3 * random.normal(size=100)).tolist()
    assert [*near_copies([y, x, wins, wins, noisy, x[:50], [1.0] * 100])] == [(1, 4)]
    assert correlated(x, [2 * value + 1 for value in x]) == pytest.approx(1)
    pairs = random.normal(size=(2000, 2, 12))
    assert not any(correlated(*pair.tolist()) for pair in pairs)
