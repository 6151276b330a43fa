"""A plug-in that cannot be imported: named once, and in the way of nothing else."""

import logging
import sys
from pathlib import Path

import pytest
from sources import npz

from offrl import registry
from offrl.data.dataset import load_dataset
from offrl.data.loader import loaders
from offrl.errors import InputError

BROKEN = {
    "raises": "SUFFIXES = ('.x',)\nimport a_module_that_is_not_there\n",
    "exits": "SUFFIXES = ('.x',)\nraise SystemExit('no\\nlicence')\n",
    "syntax": "SUFFIXES = (\n",
}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed packages whose entry points lead to modules that cannot be imported."""
    site = tmp_path / "site"
    (site / "broken-1.dist-info").mkdir(parents=True)
    (site / "broken-1.dist-info" / "METADATA").write_text("Name: broken\nVersion: 1\n")
    entries = [f"{name} = broken_{name}" for name in BROKEN]
    entries += ["gone = not_installed.loader", "compiled = itertools"]
    text = "\n".join(["[offrl.datasets]", *entries, "[offrl.algorithms]", *entries])
    (site / "broken-1.dist-info" / "entry_points.txt").write_text(text)
    for name, code in BROKEN.items():
        (site / f"broken_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.usefixtures("broken", "own_cache")
def test_a_broken_plugin_is_named_once_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert len(load_dataset(npz(tmp_path / "a.npz"))) == 20
    assert {"d4rl", "minari", "neorl2"} <= set(loaders())
    assert not {*BROKEN, "gone", "compiled"} & set(loaders())
    lines = [message for message in caplog.messages if "reads no data" in message]
    assert len(lines) == len(BROKEN) + 1
    assert not [line for line in lines if "\n" in line]
    assert any("'raises' reads no data" in line and "a_module_that" in line for line in lines)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("name", [*BROKEN, "gone"])
def test_a_broken_plugin_that_is_asked_for_is_one_line(name: str) -> None:
    for group, kind in (("datasets", "loader"), ("algorithms", "algorithm")):
        with pytest.raises(InputError, match=rf"{kind} '{name}': the module .* cannot") as caught:
            registry.load(group, name, kind)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=rf"loader '{name}': the module \S+ cannot be imported: "):
        load_dataset(f"{name}:data")
