"""The file of a run's losses: what is appended, what is kept, and what others may put there."""

import os
from pathlib import Path

import pytest

from offrl.errors import InputError
from offrl.results.curves import added, at, interval, read_curves, up_to
from offrl.results.store import RunFolder

FIRST = [(100, {"actor/loss": 0.5, "critic/loss": 1 / 3}), (200, {"actor/loss": 0.25})]
TEXT = b"step,actor/loss,critic/loss\n100,0.5,0.3333333\n200,0.25,\n"


def written(data: bytes, *lines: tuple[int, dict[str, float]]) -> bytes:
    return b"".join(added(data, lines))


@pytest.mark.parametrize(
    ("steps", "expected"), [(35, 100), (100_000, 100), (100_001, 200), (1_000_000, 1000)]
)
def test_a_run_has_at_most_a_thousand_lines_beside_its_evaluations(
    steps: int, expected: int
) -> None:
    assert interval(steps) == expected
    assert steps // expected <= 1000


def test_a_new_metric_gets_a_column() -> None:
    data = written(b"", *FIRST)
    assert data == TEXT
    assert added(TEXT, [(300, {"critic/loss": 2.0})]) == (TEXT, b"300,,2\n")
    more = written(TEXT, (300, {"actor/loss": 1.0, "validation/loss": 7.0}))
    assert more.decode().splitlines() == [
        "step,actor/loss,critic/loss,validation/loss",
        "100,0.5,0.3333333,",
        "200,0.25,,",
        "300,1,,7",
    ]


def test_names_are_data(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_bytes(written(b"", (1, {"a,b": 1.0, "=x": 2.0, "c\nd\x1b": 3.0})))
    assert file.read_text() == 'step,"a,b",\'=x,c d\\x1b\n1,1,2,3\n'
    assert read_curves(file) == [(1, {"a,b": 1.0, "=x": 2.0, "c d\\x1b": 3.0})]
    assert written(file.read_bytes(), (2, {"a,b": 0.0})).endswith(b"1,1,2,3\n2,0,,\n")


def test_lines_after_a_step_and_torn_ones_are_dropped() -> None:
    assert up_to(TEXT, 200) == TEXT
    assert up_to(TEXT, 150) == TEXT[: -len(b"200,0.25,\n")]
    assert up_to(TEXT, 99) == b""
    assert up_to(TEXT[:-4], 200) == up_to(TEXT, 150)
    assert up_to(TEXT + b"200,1,1\n300,1,1\n", 300) == TEXT  # no step comes twice
    assert up_to(TEXT + b"x,1,1\n300,1,1\n", 300) == TEXT
    assert up_to(b"other,columns\n1,2\n", 300) == b""
    assert up_to(b"", 300) == up_to(b"step", 300) == up_to(b"\xff\n", 300) == b""


def test_a_folder_keeps_losses_up_to_its_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.held():
        folder.append_metrics(FIRST)
        folder.append_metrics([(300, {"actor/loss": 0.125})])
    assert folder.metrics_file.read_bytes() == TEXT + b"300,0.125,\n"
    assert read_curves(folder.metrics_file)[1:] == [
        (200, {"actor/loss": 0.25}),
        (300, {"actor/loss": 0.125}),
    ]


@pytest.mark.parametrize("planted", ["link", "folder", "pipe"])
def test_what_is_no_file_of_the_runs_own_is_not_written_through(
    tmp_path: Path, planted: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    if planted == "link":
        folder.metrics_file.symlink_to(victim)
    elif planted == "pipe":
        os.mkfifo(folder.metrics_file)
    else:
        folder.metrics_file.mkdir()
    with folder.held():
        if planted == "folder":
            with pytest.raises(InputError, match=r"metrics.csv: cannot be written: Is a directory"):
                folder.append_metrics(FIRST)
        else:
            folder.append_metrics(FIRST)  # as a new file
            assert folder.metrics_file.read_bytes() == TEXT
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("text", ["step,step\n100,x\n", f"step,a\n100,{'1' * 200_000}\n"])
def test_lines_that_are_none_of_ours_are_left_out(text: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    assert read_curves(path) == []


def test_a_metric_called_step_has_a_column_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"".join(added(b"", [(100, {"step": 7.0, "loss": 0.5})])))
    assert read_curves(path) == [(100, {"step_": 7.0, "loss": 0.5})]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({200, 900}, b"step,actor/loss,critic/loss\n200,0.25,\n"),
        ({100, 200}, TEXT),
        ({150}, b""),
    ],
)
def test_lines_at_some_steps(steps: set[int], expected: bytes) -> None:
    assert at(TEXT, steps) == expected
    assert at(b"", steps) == b""
