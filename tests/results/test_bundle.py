"""Bundles: what is packed comes back, and what a stranger sends does no harm."""

import hashlib
import json
import os
import stat
import subprocess
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from made_runs import write_runs

from offrl.errors import InputError
from offrl.learning import checkpoint
from offrl.results import bundle as bundle_module
from offrl.results.bundle import pack
from offrl.results.collect import read_runs
from offrl.results.differences import diff
from offrl.results.merging import merge_bundles
from offrl.results.unpacking import opened, unpack

Files = dict[str, bytes]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_runs(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def bundle(runs: Path, tmp_path: Path) -> Path:
    pack(runs, tmp_path / "runs.zip")
    return tmp_path / "runs.zip"


def content(bundle: Path) -> Files:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_sums(files: Files) -> Files:
    """The files with checksums that are right."""
    rest = {name: data for name, data in files.items() if name != "SHA256SUMS"}
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in rest.items()]
    return {**rest, "SHA256SUMS": "".join(lines).encode()}


def write(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def refusal(bundle: Path, tmp_path: Path) -> str:
    """The one line with which a bundle is refused; nothing is left of it."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        unpack(bundle, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(bundle))
    assert len(message) < 700
    return message.removeprefix(f"{bundle}: ")


def test_what_is_packed_comes_back(runs: Path, bundle: Path, tmp_path: Path) -> None:
    unpacked = unpack(bundle, tmp_path / "again")
    assert len(unpacked.runs) == 5
    pd.testing.assert_frame_equal(read_runs(tmp_path / "again").frame, read_runs(runs).frame)
    assert diff(runs, bundle).same == 5
    pack(tmp_path / "again", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()
    assert bundle.stat().st_size < 30_000
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "again")
    assert sums.returncode == 0
    with pytest.raises(InputError, match=r"again: something is there; give a new folder"):
        unpack(bundle, tmp_path / "again")


def test_names_of_machines_stay_at_home(runs: Path, tmp_path: Path) -> None:
    assert "a-name-of-mine" in next(runs.rglob("run.json")).read_text()
    pack(runs, tmp_path / "runs.zip")
    assert b"a-name-of-mine" not in b"".join(content(tmp_path / "runs.zip").values())


def test_a_damaged_run_is_not_packed_and_none_is_left_out_in_silence(
    runs: Path, tmp_path: Path
) -> None:
    rows = next(runs.rglob("seed-3")) / "evaluations.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b'"lengths": [200', b'"lengths": [201'))
    with pytest.raises(InputError, match=r"seed-3/evaluations.jsonl: line 1: .*checksum"):
        pack(runs, tmp_path / "runs.zip")
    with pytest.raises(InputError, match=r"unknown algorithm of .*did you mean 'td3_bc'"):
        pack(runs, tmp_path / "runs.zip", algorithms=["td3bc"])
    assert not (tmp_path / "runs.zip").exists()


def test_weights_are_packed_on_request_and_only_checkpoints_are(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without its checkpoint a run has no weights"):
        pack(runs, tmp_path / "runs.zip", weights=True)
    for run in runs.rglob("seed-*"):
        state = {"step": 4000, "learner": {"w": torch.zeros(3)}}
        checkpoint.save(run / "checkpoint" / "state.safetensors", state)
    pack(runs, tmp_path / "plain.zip")
    pack(runs, tmp_path / "runs.zip", weights=True)
    with opened(tmp_path / "plain.zip") as plain, opened(tmp_path / "runs.zip") as bundle:
        assert not plain.has_weights
        assert bundle.has_weights
        assert {*plain.files} < {*bundle.files}
    torch.save({"w": torch.zeros(3)}, run / "checkpoint" / "state.safetensors")  # a pickle
    pack(runs, tmp_path / "pickle.zip", weights=True)
    assert "expected a checkpoint of offrl" in refusal(tmp_path / "pickle.zip", tmp_path)


RUN = "quickstart@4/pointmaze-quickstart@1/td3_bc-12345678/seed-0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../out.txt", "it is no plain path within a folder"),
        (f"{RUN}/../../../../../run.json", "it is no plain path within a folder"),
        ("/etc/passwd", "it is an absolute path"),
        ("C:\\run.json", "it is no plain path within a folder"),
        (f"{RUN}/", "it is no plain path within a folder"),
        (f"{RUN}/state.pkl", "a bundle has no such file"),
        (f"{RUN}/run.json/more", "a bundle has no such file"),
        ("setup.py", "a bundle has no such file"),
        (f".hidden/{RUN[13:]}/run.json", "a part of it is hidden"),
        (f"\u202e{RUN}/run.json", "characters that cannot be seen"),
        (f"\x1b[31m{RUN}/run.json", "it is no plain path within a folder"),
        (f"{'a' * 300}/{RUN[13:]}/run.json", "more than 255 bytes"),
    ],
)
def test_no_file_is_written_that_a_bundle_has_not(
    bundle: Path, tmp_path: Path, name: str, said: str
) -> None:
    write(bundle, with_sums({**content(bundle), name: b"{}"}))
    assert said in refusal(bundle, tmp_path)


def changed(bundle: Path, change: Callable[[zipfile.ZipInfo], None]) -> None:
    """The bundle with other fields of its first run's record in the list of its files."""
    files = content(bundle)
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        change(next(m for m in archive.infolist() if m.filename.endswith("run.json")))


def test_links_and_encrypted_and_oddly_compressed_files_are_refused(
    bundle: Path, tmp_path: Path
) -> None:
    before = content(bundle)

    def link(member: zipfile.ZipInfo) -> None:
        member.external_attr = (stat.S_IFLNK | 0o777) << 16

    def encrypt(member: zipfile.ZipInfo) -> None:
        member.flag_bits |= 0x1

    changed(bundle, link)
    assert "is a link or a device" in refusal(bundle, tmp_path)
    changed(bundle, encrypt)
    assert "is encrypted" in refusal(bundle, tmp_path)
    write(bundle, before, zipfile.ZIP_LZMA)
    assert "is compressed by method 14 of zip" in refusal(bundle, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(bundle, "w") as archive:
            for name in ("submission.toml", "submission.toml"):
                archive.writestr(name, b"")
    assert "is there twice" in refusal(bundle, tmp_path)

    def outside(member: zipfile.ZipInfo) -> None:
        member.header_offset += 10**8

    def overlapping(member: zipfile.ZipInfo) -> None:
        member.compress_size = 10**6

    for change in (outside, overlapping):
        changed(write(bundle, before), change)
        assert "its files overlap or lie outside of it" in refusal(bundle, tmp_path)
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("submission.toml", bytes(2**14 + 1))
    assert "16,385 bytes; such a file of a bundle has at most 16,384" in refusal(bundle, tmp_path)
    write(bundle, before)
    (tmp_path / "link.zip").symlink_to(bundle)
    assert "it is a link; expected a file of its own" in refusal(tmp_path / "link.zip", tmp_path)
    os.mkfifo(tmp_path / "pipe.zip")
    assert "pipe or device" in refusal(tmp_path / "pipe.zip", tmp_path)


def test_bombs_take_neither_memory_nor_time_nor_disk(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, begun = content(bundle), time.process_time()
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{RUN}/run.json", bytes(2**24 + 1))
    assert bundle.stat().st_size < 20_000
    tracemalloc.start()
    assert "16,777,217 bytes; such a file of a bundle has at most" in refusal(bundle, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    with zipfile.ZipFile(bundle, "w") as archive:
        for k in range(17):
            archive.writestr(f"{RUN[:-1]}{k}/run.json", b"")
        for member in archive.infolist():
            member.file_size = 2**24
    assert "285,212,672 bytes of text; there may be at most 268,435,456" in refusal(
        bundle, tmp_path
    )

    def smaller(member: zipfile.ZipInfo) -> None:
        member.file_size = 10

    changed(write(bundle, files), smaller)
    assert "expected a bundle of offrl results pack, but" in refusal(bundle, tmp_path)
    with zipfile.ZipFile(bundle, "w") as archive:
        for k in range(11):
            archive.writestr(f"{k}", b"")
    with monkeypatch.context() as few:
        few.setattr(bundle_module, "MOST_FILES", 10)
        assert "11 files; a bundle has at most 10" in refusal(bundle, tmp_path)
    end = b"PK\5\6" + bytes(4) + b"\xff\xff\xff\xff" + (2**31).to_bytes(4, "little") + bytes(6)
    bundle.write_bytes(bytes(100) + end)
    assert "it lists more files than a bundle has" in refusal(bundle, tmp_path)
    assert time.process_time() - begun < 20


def test_damage_of_any_kind_is_one_line(bundle: Path, tmp_path: Path) -> None:
    files = content(bundle)
    rows = next(name for name in files if name.endswith("evaluations.jsonl"))
    record = rows.replace("evaluations.jsonl", "run.json")
    tampered = files[rows].replace(b'"returns": [', b'"returns": [9', 1)
    write(bundle, {**files, rows: tampered})
    assert refusal(bundle, tmp_path).startswith(
        f"{rows}: its SHA-256 is not that of SHA256SUMS: it was changed or damaged"
    )
    write(bundle, with_sums({**files, rows: tampered}))
    assert f"{rows}: line 1: expected the JSON that offrl writes, but its checksum" in refusal(
        bundle, tmp_path
    )
    line = json.loads(files[rows].splitlines()[0])
    del line["checksum"]
    line["returns"][0] = float("nan")
    write(bundle, with_sums({**files, rows: json.dumps(line).encode() + b"\n"}))
    assert "returns.0: Input should be a finite number" in refusal(bundle, tmp_path)
    million = json.dumps({**line, "returns": [0.0], "lengths": [1]}).encode() + b"\n"
    write(bundle, with_sums({**files, rows: million * (2**24 // len(million))}))
    assert "rows; a run has at most 10,000" in refusal(bundle, tmp_path)
    deep = b"[" * 100_000 + b"]" * 100_000
    for broken in (b"", b"\xff\xfe", deep, b'{"format": 99}', b"null"):
        write(bundle, with_sums({**files, record: broken}))
        assert record in refusal(bundle, tmp_path)
    elsewhere = {name.replace("/td3_bc-", "/td4_bc-"): data for name, data in files.items()}
    write(bundle, with_sums(elsewhere))
    assert "expected algorithm, config and seed" in refusal(bundle, tmp_path)
    other = {name.replace("quickstart@4/", "quickstart@5/"): data for name, data in files.items()}
    write(bundle, with_sums(other))
    assert "holds the run quickstart@4/" in refusal(bundle, tmp_path)
    stray = record.replace("seed-0", "seed-77").replace("run.json", "metrics.csv")
    write(bundle, with_sums({**files, stray: b""}))
    assert refusal(bundle, tmp_path).startswith(f"{stray}: belongs to no run")
    for sums, said in (
        (b"", "is not in SHA256SUMS"),
        (b"x y", "expected a checksum and a name"),
        (files["SHA256SUMS"] + b"0" * 64 + b"  more\n", "more: is in SHA256SUMS, but not in"),
    ):
        write(bundle, {**files, "SHA256SUMS": sums})
        assert said in refusal(bundle, tmp_path)
    del files["SHA256SUMS"]
    assert "has no SHA256SUMS" in refusal(write(bundle, files), tmp_path)
    whole = bundle.read_bytes()
    for cut in (b"", whole[:100], whole[:-1], whole + b"x", bytes(10_000)):
        bundle.write_bytes(cut)
        assert "expected a bundle of offrl results pack, but" in refusal(bundle, tmp_path)
    write(bundle, with_sums(files))
    bundle.write_bytes(b"junk" * 1000 + bundle.read_bytes())  # which zip files may begin with
    assert refusal(bundle, tmp_path).startswith("has bytes that belong to no file of it")


def test_bundles_are_merged_unless_they_contradict_one_another(tmp_path: Path) -> None:
    for name, seeds in (("a", [0, 1]), ("b", [2, 3, 4]), ("all", None)):
        write_runs(tmp_path / name, seeds=seeds)
        pack(tmp_path / name, tmp_path / f"{name}.zip")
    a, b, merged = tmp_path / "a.zip", tmp_path / "b.zip", tmp_path / "merged.zip"
    assert merge_bundles([a, b], merged) == 5
    assert merged.read_bytes() == (tmp_path / "all.zip").read_bytes()
    assert merge_bundles([a, merged], tmp_path / "more.zip") == 5

    def other_data(identity, _rows):
        identity["data_sha256"] = "1" * 64

    write_runs(tmp_path / "c", seeds=[0], draw=1)
    write_runs(tmp_path / "d", seeds=[9], change=other_data)
    for name, said in (("c", "another content than in .*a.zip"), ("d", "do not belong together")):
        pack(tmp_path / name, tmp_path / f"{name}.zip")
        with pytest.raises(InputError, match=said):
            merge_bundles([a, tmp_path / f"{name}.zip"], tmp_path / "no.zip")
    assert not (tmp_path / "no.zip").exists()

    def other_view(identity, rows):
        other_data(identity, rows)
        identity["view"] = "qlearning"

    write_runs(tmp_path / "e", "iql", seeds=[0], change=other_view)
    pack(tmp_path / "e", tmp_path / "e.zip")
    assert merge_bundles([a, tmp_path / "e.zip"], tmp_path / "views.zip") == 3


def test_differences_are_named(bundle: Path, tmp_path: Path) -> None:
    def change(identity, rows):
        identity["config"]["alpha"] = 5.0
        rows[-1]["returns"][0] += 100
        rows[-1]["return"] += 1
        rows[-1]["score"] += 100 / (138.381 - 8.185)

    write_runs(tmp_path / "other", seeds=[0, 1, 2, 3], change=change)
    found = diff(bundle, tmp_path / "other")
    assert found.same == 0
    (cell,) = found.cells
    assert (cell.n_a, cell.n_b) == (5, 4)
    assert cell.mean_a is not None
    of_seed = [(d.what, d.a, d.b) for d in found.runs if d.seed == 0]
    assert of_seed[0] == ("config.alpha", "2.5", "5.0")
    assert of_seed[1][0] == "returns from step 4,000 on"
    assert of_seed[2][0] == "score"
    assert [d[1:] for d in found.runs if d.seed == 4] == [(4, "run", "done", "no such run")]
