"""The contract of a loader: those that ship follow it, and one from outside uses all of it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from offrl.data.cache import cached_folder
from offrl.data.card import Card, Reference, Source
from offrl.data.dataset import load_dataset
from offrl.data.fetch import fetch
from offrl.data.loader import Describes, Fetches, loader_and_name, loader_of, loaders
from offrl.data.resolve import is_path, resolve
from offrl.errors import InputError

# Reads lines of rewards; a folder of such files has a name, and data with names lie in PLUG_DATA.
PLUG = """
import json
import os
from pathlib import Path

import numpy as np

from offrl.data import Columns, column, path_stamp
from offrl.errors import InputError

SUFFIXES = (".plug",)
VIEWS = ("transitions", "first")


def read(path, card):
    path = path / "data.plug" if path.is_dir() else path
    rewards = column([float(line) for line in path.read_text().split()], path, "line", 3, 1)
    rows = slice(1 if card.view == "first" else None)
    rewards = rewards[rows]
    ends = np.arange(len(rewards)) == len(rewards) - 1
    wide = rewards[:, None]
    return Columns(wide, wide, rewards, wide, ends, np.zeros_like(ends))


def card(source):
    folder = source if isinstance(source, Path) else fetch(source)
    if folder.suffix == ".plug":
        return {}
    if not (folder / "title").is_file():
        raise InputError(f"{folder}: holds no title; expected the folder of a plug")
    return {"title": (folder / "title").read_text()}


def fetch(name, folder=None):
    return (folder or Path(os.environ["PLUG_DATA"])) / name


def stamp(name):
    folder = fetch(name)
    return path_stamp(folder) if folder.exists() else None
"""


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data with names, whose loader is an installed package's."""
    site = tmp_path / "site"
    (site / "plug-1.dist-info").mkdir(parents=True)
    (site / "plug-1.dist-info" / "METADATA").write_text("Name: plug\nVersion: 1\n")
    entry = "[offrl.datasets]\nplug = plug_loader\n"
    (site / "plug-1.dist-info" / "entry_points.txt").write_text(entry)
    (site / "plug_loader.py").write_text(PLUG)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "plug_loader", raising=False)
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PLUG_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "one"
    folder.mkdir(parents=True)
    (folder / "data.plug").write_text("1\n2\n4\n")
    (folder / "title").write_text("one by name")
    return folder


def source_card(**source: object) -> Card:
    return Card.model_validate(
        {
            "id": "tiny",
            "version": 1,
            "title": "tiny",
            "source": source,
            "licence": "none",
            "citation": "none",
        }
    )


def test_loaders_that_ship_follow_the_contract() -> None:
    every = loaders()
    assert {"d4rl", "minari", "neorl2", "ogbench"} <= set(every)
    for name, loader in every.items():
        assert loader.VIEWS[0] == "transitions", name
        assert all(suffix.startswith(".") for suffix in loader.SUFFIXES), name
    assert [name for name, loader in every.items() if isinstance(loader, Fetches)] == ["minari"]
    assert [name for name, loader in every.items() if isinstance(loader, Describes)] == [
        *("minari", "rlds")
    ]


def test_finding_a_loader_imports_no_simulator_and_no_library_of_a_format() -> None:
    heavy = ["gymnasium", "mujoco", "minari", "h5py", "torch"]
    code = (
        "import sys; from offrl.data.loader import loaders; loaders(); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_loader_from_outside_reads_files_folders_and_names(plug: Path) -> None:
    by_file = load_dataset(plug / "data.plug")
    assert by_file.rewards.tolist() == [1, 2, 4]
    assert by_file.card.id == "data"
    by_folder = load_dataset(plug)
    assert (by_folder.card.id, by_folder.card.title) == ("one", "one by name")
    by_name = load_dataset("plug:one")
    assert (by_name.card.id, by_name.card.title) == ("plug-one", "one by name")
    assert by_name.checksum == by_folder.checksum == by_file.checksum
    assert load_dataset("plug:one", view="first").rewards.tolist() == [1]
    with pytest.raises(InputError, match="unknown view 'frist'; did you mean 'first'"):
        load_dataset("plug:one", view="frist")


def test_data_with_names_are_read_again_when_they_change_and_kept_when_they_go(plug: Path) -> None:
    first = load_dataset("plug:one", view="first")
    whole = load_dataset("plug:one")
    (plug / "data.plug").write_text("1\n2\n40\n")
    changed = load_dataset("plug:one")
    assert changed.rewards.tolist() == [1, 2, 40]
    assert changed.folder != whole.folder
    for file in plug.iterdir():
        file.unlink()
    plug.rmdir()
    kept = load_dataset("plug:one")
    assert (kept.folder, kept.card) == (changed.folder, changed.card)
    assert load_dataset("plug:one", view="first").folder == first.folder


def test_the_card_that_is_kept_is_that_of_the_name(plug: Path) -> None:
    """Not one of a file that has its id and its source, but numbers of its own."""
    first = load_dataset("plug:one")
    theirs = source_card(loader="plug", id="one").model_copy(update={"id": "plug-one"})
    reference = Reference(min=0, max=1, source="made up")
    theirs = theirs.model_copy(update={"reference": reference, "view": "transitions"})
    shutil.rmtree(first.folder)
    load_dataset(theirs)
    shutil.rmtree(plug)
    with pytest.raises(InputError, match=r"plug:one|cannot be read|no title"):
        load_dataset("plug:one")
    assert len(load_dataset(theirs)) == 3


def test_data_with_names_may_come_from_a_folder(plug: Path) -> None:
    card = source_card(loader="plug", id="one")
    assert fetch(card) == [plug]
    assert fetch(card, plug.parent) == [plug]


@pytest.mark.usefixtures("plug")
def test_what_no_loader_reads_lists_all_that_loaders_do(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1\n")
    formats = (
        r"\.h5 \(d3rlpy\), \.hdf5 or \.h5 or \.npz \(d4rl\), \.npz \(neorl2\), .*, "
        r"\.plug \(plug\) or a folder \(minari, rlds, plug\); a table of your own comes in by"
    )
    with pytest.raises(InputError, match=r"expected \.toml \(a card\), " + formats):
        load_dataset(tmp_path / "data.csv")
    with pytest.raises(
        InputError, match=r"a Minari data set; .*RLDS episodes; .*: holds no title; expected"
    ):
        load_dataset(tmp_path)
    with pytest.raises(InputError, match=r"\(or give a path, or minari:ID, or plug:ID\)"):
        load_dataset("neorl2-dsmd")


def test_a_suffix_that_two_loaders_read_needs_a_card(plug: Path) -> None:
    module = plug.parents[1] / "site" / "plug_loader.py"
    module.write_text(PLUG.replace('(".plug",)', '(".npz",)'))
    (plug / "a.npz").write_bytes(b"")
    readers = "d4rl and neorl2 and sb3 and torchrl and plug"
    message = rf"a\.npz: loaders {readers} read \.npz files; give a card"
    with pytest.raises(InputError, match=message):
        load_dataset(plug / "a.npz")


@pytest.mark.usefixtures("plug")
def test_paths_ids_and_names_are_told_apart() -> None:
    paths = ["a/b", "a\\b", "mine.toml", "a.hdf5", "a.plug", "unheard:a/b"]
    others = ["halfcheetah-medium-v2", "a.csv", "plug:a/b.npz", "minari:D4RL/door/human-v2"]
    assert [text for text in paths + others if is_path(text)] == paths
    assert loader_and_name("plug:a:b") == ("plug", "a:b")
    assert loader_and_name("d4rl:a") is None  # which fetches nothing by name


def test_a_module_that_is_no_loader_is_named() -> None:
    message = (
        r"card tiny: source\.loader: 'adroit' is no loader \(it has no SUFFIXES, VIEWS, read\)"
    )
    with pytest.raises(InputError, match=message + r"; expected a loader such as d3rlpy, d4rl, "):
        resolve(source_card(loader="adroit", files=[{"name": "a"}]))
    with pytest.raises(InputError, match=r"card tiny: unknown loader 'd4r'; did you mean 'd4rl'\?"):
        resolve(source_card(loader="d4r", files=[{"name": "a"}]))


def test_a_source_that_gives_no_data_says_so() -> None:
    with pytest.raises(InputError, match="card tiny: source: expected files, a maker or an id"):
        load_dataset(source_card(loader="d4rl"))
    with pytest.raises(InputError, match=r"loader 'd4rl' fetches nothing by source\.id \('x'\); g"):
        load_dataset(source_card(loader="d4rl", id="x"))


def test_an_id_may_be_spelled_with_its_loader() -> None:
    plain, spelled = (
        source_card(loader="minari", **{key: "a/b-v0"}) for key in ("id", "minari_id")
    )
    assert plain == spelled
    assert cached_folder(plain) == cached_folder(spelled)
    assert Source.model_validate(json.loads(spelled.source.model_dump_json())) == plain.source
    with pytest.raises(ValueError, match="minari_id"):
        source_card(loader="d4rl", minari_id="a/b-v0")
    assert loader_of(plain) is loaders()["minari"]


def test_the_loader_of_the_docs_reads_its_files(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    examples = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "VIEWS" in code]
    assert len(examples) == 1
    loader = tmp_path / "my_format.py"
    loader.write_text(examples[0])
    table = np.random.default_rng(np.random.SeedSequence(0)).normal(size=(6, 13))
    table[:, 11:] = [[0, 0], [0, 1], [0, 0], [0, 0], [1, 0], [0, 1]]
    np.savetxt(tmp_path / "may.log", table, delimiter=",")
    files = [{"name": str(tmp_path / "may.log")}]
    data = load_dataset(source_card(loader=str(loader), files=files))
    assert data.episode_lengths.tolist() == [2, 3, 1]
    np.testing.assert_array_equal(data.actions, table[:, 8:10].astype(np.float32))
