"""`offrl results`: a bundle goes to another machine, and is there what it was here."""

import json
from pathlib import Path

from command_line import Call
from made_runs import write_runs


def test_runs_are_packed_unpacked_merged_and_compared(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", "bc", seeds=[0, 1])
    write_runs(tmp_path / "runs", "iql", seeds=[0, 1])
    for name in ("bc", "iql"):
        packed = call("results", "pack", "runs", "-o", f"{name}.zip", "--algorithm", name)
        assert packed.stdout.startswith("2 runs, ")
    assert call("results", "pack", "runs", "-o", "runs.tar").code == 2
    merged = call("results", "merge", "bc.zip", "iql.zip", "-o", "both.zip")
    assert merged.stdout == "4 runs in both.zip\n"
    unpacked = call("results", "unpack", "both.zip", "-o", "again")
    assert unpacked.stdout == "4 runs in again\n"
    assert call("scores", "again", "-o", "a.csv").code == 0
    assert call("scores", "runs", "-o", "b.csv").code == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    same = call("results", "diff", "runs", "both.zip")
    assert (same.code, same.stdout.splitlines()[-1]) == (
        0,
        "4 runs are the same; 0 differences in the others",
    )
    differing = call("results", "diff", "both.zip", "bc.zip")
    assert differing.code == 1
    assert "iql on pointmaze-quickstart, seed 0, 1: run: done / no such run" in differing.stdout
    listed = json.loads(call("results", "diff", "both.zip", "bc.zip", "--json").stdout)
    assert (listed["same"], len(listed["runs"]), len(listed["cells"])) == (2, 2, 2)
    assert listed["runs"][0]["what"] == "run"
