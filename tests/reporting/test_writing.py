"""A report is whole or absent, and takes the place of nothing but a report."""

import os
from pathlib import Path
from typing import Any

import pytest
from simulated import table

from offrl.errors import InputError
from offrl.reporting.report import check_replaceable, report_table
from offrl.results.failures import Failure
from offrl.results.table import ScoreTable
from offrl.statistics.resampling import Resampling


def write(*args: Any, **options: Any) -> Path:
    """A report with few resamples."""
    return report_table(*args, **{"resampling": Resampling(500), **options})


def test_the_same_scores_give_the_same_files(tmp_path):
    for name in ("one", "two"):
        write(
            table(tasks=1, steps=(0, 9)),
            tmp_path / name,
            resampling=Resampling(500, seed=3),
            formats=["pdf", "png"],
        )
    files = sorted(p for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len([path for path in files if path.parent.name == "figures"]) == 4 * 4
    for path in files:
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes(), path


def test_a_format_that_no_figure_has_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match="figures as 'gif': expected pdf or png"):
        write(table(), tmp_path / "out", formats=["gif"])
    assert not (tmp_path / "out").exists()


def test_no_finished_run_at_all_is_refused(tmp_path):
    frame = table(("IQL",), tasks=1).frame
    lost = [Failure("IQL", "task-0", seed, "killed") for seed in range(3)]
    with pytest.raises(InputError, match="all 3 runs failed"):
        write(ScoreTable.from_frame(frame, failures=lost), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    small = table(("IQL",), tasks=1, steps=(5,))
    out = tmp_path / "deep" / "out"
    write(small, out)
    before = (out / "index.html").stat().st_ino
    write(small, out)
    assert (out / "index.html").stat().st_ino != before
    (out / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match=r"mine\.txt"):
        write(small, out)
    assert (out / "mine.txt").read_text() == "kept"
    other = tmp_path / "other"
    other.mkdir()
    write(small, other)  # an empty folder is as good as none
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "summary.json").write_text('{"kind": "something"}')
    with pytest.raises(InputError, match="no report of offrl"):
        write(small, foreign)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        write(small, tmp_path / "file")


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder", "huge"])
def test_a_folder_whose_record_is_no_file_of_its_own_is_no_report(tmp_path, kind):
    small = table(("IQL",), tasks=1, steps=(5,))
    out = tmp_path / "out"
    write(small, out, resampling=Resampling(100))
    record = out / "summary.json"
    whole = record.rename(tmp_path / "whole.json")
    if kind == "pipe":
        os.mkfifo(record)
    elif kind == "device":
        record.symlink_to("/dev/zero")
    elif kind == "link":
        record.symlink_to(whole)
    elif kind == "folder":
        record.mkdir()
    else:
        with record.open("wb") as file:
            file.write(whole.read_bytes())
            file.truncate(2**36)  # sparse
    with pytest.raises(InputError, match="no report of offrl"):
        write(small, out, resampling=Resampling(100))
    assert (out / "index.html").exists()


def test_a_report_that_breaks_off_leaves_the_old_one_and_no_rest(tmp_path):
    small = table(("IQL",), tasks=1, steps=(5,))
    out = tmp_path / "out"
    page = write(small, out).read_bytes()

    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(small, out, resampling=Resampling(500, seed=9), progress=stop)
    assert (out / "index.html").read_bytes() == page
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("record", ["a pipe", "a device"])
def test_a_folder_whose_record_is_no_file_is_no_report(tmp_path: Path, record: str) -> None:
    path = tmp_path / "summary.json"
    if record == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="holds something that is no report of offrl"):
        check_replaceable(tmp_path)
