"""`--trust`: one line for code that a file names, and the option that lets it run."""

from pathlib import Path

import pytest
from command_line import BROKEN, CARD, PROTOCOL, Call

LOADER = (
    "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    "from offrl.datasets.neorl2 import *\n"
)


@pytest.fixture
def stranger(tiny: Path) -> Path:
    """A folder with a card and a protocol, each of which names a Python file beside it."""
    folder = tiny.parent / "bundle"
    folder.mkdir()
    for name in ("good.npz", "tiny.toml", "card.toml"):
        (tiny.parent / name).rename(folder / name)
    (folder / "card.toml").write_text(CARD.replace('"neorl2"', '"loader.py"'))
    (folder / "loader.py").write_text(LOADER)
    (folder / "broken.py").write_text(BROKEN)
    return folder


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("command", ["stats", "check", "fetch"])
def test_data_of_a_card_with_code(call: Call, stranger: Path, command: str) -> None:
    card = stranger / "card.toml"
    refused = call("data", command, card)
    assert refused.code == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: {card}: source.loader = 'loader.py' would import the file ")
    assert f"{stranger}/loader.py" in line
    assert f"--trust {card}" in line
    assert not (stranger / "loader.ran").exists()
    assert call("show", card).code == 0  # a card can be read
    assert not (stranger / "loader.ran").exists()
    assert call("data", command, card, "--trust", card).code == 0
    assert (stranger / "loader.ran").exists()


@pytest.mark.usefixtures("own_cache")
def test_a_maker_of_a_card(call: Call, stranger: Path) -> None:
    card = stranger / "card.toml"
    files = 'files = [{ name = "good.npz" }]'
    card.write_text(CARD.replace(files, 'maker = "maker.py"'))
    (stranger / "maker.py").write_text(
        "import shutil\nfrom pathlib import Path\n"
        "def make(directory, progress=None):\n"
        "    return Path(shutil.copy(Path(__file__).with_name('good.npz'), directory))\n"
    )
    refused = call("data", "make", card)
    assert refused.code == 2
    assert "source.maker = 'maker.py' would import the file" in refused.stderr
    assert call("data", "make", card, "--trust", card).code == 0


@pytest.mark.usefixtures("own_cache")
def test_runs_with_code(call: Call, stranger: Path) -> None:
    card, protocol = stranger / "card.toml", stranger / "tiny.toml"
    for words in (["run", protocol, "-o", "runs"], ["train", "bc", card]):
        refused = call(*words)
        assert refused.code == 2
        assert len(refused.stderr.splitlines()) == 1
        assert f"--trust {card}" in refused.stderr
    few = ["--steps", 2, "--every", 2, "--episodes", 1, "-j", 1]
    assert call("train", "bc", card, *few, "--trust", card).code == 0
    assert call("run", protocol, "-o", "runs", "-j", 1, "--trust", card).code == 0
    assert call("run", protocol, "-o", "runs", "-j", 1).code == 0  # its record says so
    mistyped = call("run", protocol, "-o", "runs", "--trust", "crad.toml")
    assert mistyped.code == 2
    assert "trust: crad.toml: no such file or folder" in mistyped.stderr


def test_showing_a_protocol_with_code(call: Call, stranger: Path) -> None:
    protocol = stranger / "tiny.toml"
    protocol.write_text(PROTOCOL + '[algorithms.broken]\nalgorithm = "broken.py"\n')
    refused = call("show", protocol)
    assert refused.code == 2
    assert f"algorithm broken would import the file {stranger}/broken.py" in refused.stderr
    assert call("show", protocol, "--trust", protocol).code == 0
    assert call("show", stranger / "broken.py").code == 0  # which the user gave
