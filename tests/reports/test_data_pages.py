"""Pages on data sets: self-contained, escaped, replaced only where they are pages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offrl.data.card import Card
from offrl.data.coverage import coverage
from offrl.data.dataset import Dataset, load_dataset
from offrl.errors import InputError
from offrl.evaluation.checkup import checkup
from offrl.plots.contents import action_plot
from offrl.reporting.datasets import report_checkup, report_stats

pytestmark = pytest.mark.usefixtures("own_cache")
STRANGE = "<script>alert(1)</script> \x1b[31m $x^2$ & \u202e"


def card(path: Path, rows: int = 60) -> Card:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    np.savez(
        path,
        obs=observations[:-1],
        next_obs=observations[1:],
        action=rng.integers(2, size=rows),
        reward=rng.normal(size=rows).astype(np.float32),
        done=np.zeros(rows, np.float32),
        truncated=(np.arange(rows) % 10 == 9).astype(np.float32),
    )
    values = {"id": "mine", "version": 1, "title": STRANGE, "licence": "", "citation": ""}
    source = {"loader": "neorl2", "files": [{"name": str(path)}]}
    actions = {"count": 2, "names": ["left", STRANGE]}
    return Card.model_validate(
        {**values, "source": source, "actions": actions, "faults": [STRANGE]}
    )


def checked(page: Path) -> str:
    """The page, which loads nothing and runs nothing, and whose folder lists its files."""
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:;" in text
    assert "<script" not in text
    assert "http:" not in text.replace("http://www.w3.org/", "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\x1b[31m $x^2$ &amp; \\u202e" in text
    folder = page.parent
    record = json.loads((folder / "summary.json").read_text())
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(record["files"]) == files
    return text


def test_a_page_of_a_check_up(tmp_path: Path) -> None:
    found = checkup(card(tmp_path / "a.npz"))
    folder = tmp_path / "page"
    text = checked(report_checkup(found, folder, command="offrl data check a"))
    for finding in found.findings:
        assert f"{finding.subject}: {finding.verdict}" in text
    assert text.count("<figure>") == 4
    assert text.index(": cannot be checked</b>") < text.index(": ok</b>")
    report_checkup(found, folder)
    (folder / "mine.txt").touch()
    with pytest.raises(InputError, match=r"mine\.txt does not belong to the report"):
        report_checkup(found, folder)


def test_a_page_of_data_sets_side_by_side(tmp_path: Path) -> None:
    one, other = (load_dataset(card(tmp_path / f"{k}.npz")) for k in range(2))
    sets: list[Dataset] = [one, other]
    covered = coverage(sets, one)
    rows: list[dict[str, Any]] = [{"what": "episodes", "values": ["6", "7"]}]
    labels = [STRANGE, "two"]
    page = report_stats(sets, rows, covered, tmp_path / "p", labels=labels, remarks=["a remark"])
    text = checked(page)
    assert text.count("<figure>") == 6
    assert "and 6 of the 6 of <bdi>two</bdi> are the same, bit by bit" in text
    assert '<th scope="row">episodes</th><td>6</td><td>7</td>' in text
    assert "<li>a remark</li>" in text
    apart = report_stats(sets, rows, None, tmp_path / "q", labels=labels)
    assert checked(apart).count("<figure>") == 4


def test_a_page_of_data_of_which_some_rows_have_no_action(tmp_path: Path) -> None:
    card(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as columns:
        actions = np.linspace(-1, 1, 60, dtype=np.float32)[:, None]
        np.savez(tmp_path / "b.npz", **{**columns, "action": actions})
    few = load_dataset(f"{tmp_path / 'b.npz'}+drop-actions[keep=0.7,from_returns=0..1]")
    covered = coverage([few])
    assert covered.pairs == [30]
    page = report_stats([few], [], covered, tmp_path / "page", labels=["few"])
    assert page.read_text().count("<figure>") == 4


def test_choices_have_their_names_below_the_axis() -> None:
    """Escaped and in lines; of many choices the numbers stand there, as of those without names."""
    taken = np.array([0, 0, 1, 0])
    ax = action_plot(taken, names=["left", "the one to the far right of $x^2$", "not taken"])
    texts = [text.get_text() for text in ax.get_xticklabels()]
    assert texts == ["left", "the one to\nthe far\nright of\n\\$x^2\\$", "not taken"]
    shares: Any = ax.patches[0]
    assert shares.get_data().values.tolist() == [0.75, 0.25, 0]
    many = action_plot(taken, names=[f"choice {k}" for k in range(9)])
    assert not {text.get_text() for text in many.get_xticklabels()} & {"choice 0", "choice 1"}
