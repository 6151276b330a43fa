"""A card from a stranger can at worst be refused: it runs no code and touches no other file."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from sources import kept, npz

from offrl.data.cache import making_path
from offrl.data.card import Card, Environment, read_card
from offrl.data.dataset import load_dataset
from offrl.data.describe import check
from offrl.data.fetch import fetch, make
from offrl.data.resolve import resolve
from offrl.errors import InputError
from offrl.evaluation import environments
from offrl.trust import Untrusted

CARD = """
id = "pend"
version = 1
title = "made up"
licence = "none"
citation = "none"
[source]
{source}
[environment]
id = {environment}
max_episode_steps = 50
kwargs = {{ {kwargs} }}
[reference]
min = -500.0
max = 0.0
source = "made up"
"""
CODE = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
LOADER = f"{CODE}from offrl.datasets.neorl2 import *\n"
MAKER = f"""{CODE}
import shutil
def make(directory, progress=None):
    return shutil.copy(Path(__file__).with_name("a.npz"), directory / "made.npz")
"""


def write(
    folder: Path,
    source: str = 'loader = "neorl2"\nfiles = [{ name = "a.npz" }]',
    environment: str = '"Pendulum-v1"',
    kwargs: str = "",
) -> Path:
    """A card beside a small data file."""
    npz(folder / "a.npz")
    path = folder / "card.toml"
    path.write_text(CARD.format(source=source, environment=environment, kwargs=kwargs))
    return path


def own(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text({"loader": LOADER, "maker": MAKER}[name.removesuffix(".py")])
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server on this machine that gives one whole data file for every address."""
    payload = npz(tmp_path / "payload.npz").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    found = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}/a.npz"
    found.shutdown()
    found.server_close()
    thread.join()


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


OUTSIDE = [
    "../../../mine",
    "../x",
    "..",
    ".",
    "a/../../b",
    "sub/x",
    "{}/mine",
    "a\\\\b",
    "",
    ".x.lock",
]


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("name", [*OUTSIDE, "a\\u0000b", "a\\nb"])
def test_a_file_that_is_downloaded_has_a_plain_name(tmp_path: Path, server: str, name: str) -> None:
    """Else it would be written, or what is there removed, wherever the card says."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("mine")
    (tmp_path / "from").mkdir()
    name = name.format(tmp_path)
    path = write(
        tmp_path, f'loader = "neorl2"\nfiles = [{{ name = "{name}", urls = ["{server}"] }}]'
    )
    before = everything(tmp_path)
    for act in (
        load_dataset,
        check,
        lambda p: fetch(resolve(p)),
        lambda p: fetch(resolve(p), p.parent / "from"),
    ):
        with pytest.raises(
            InputError,
            match=r"card\.toml: (source\.files\.0: name: expected the plain name|.*holds a NUL)",
        ):
            act(path)
    assert everything(tmp_path) == before


def test_a_plain_name_is_downloaded(tmp_path: Path, own_cache: Path, server: str) -> None:
    path = write(
        tmp_path, f'loader = "neorl2"\nfiles = [{{ name = "x.npz", urls = ["{server}"] }}]'
    )
    assert len(load_dataset(path)) == 20
    assert [file.name for file in kept(own_cache)] == ["x.npz"]


def test_a_card_made_in_python_keeps_to_the_cache_too(tmp_path: Path, own_cache: Path) -> None:
    source = {"loader": "neorl2", "files": [{"name": "../../../mine"}]}
    card = Card.model_validate(
        {"id": "a", "version": 1, "title": "", "source": source, "licence": "", "citation": ""}
    )
    (tmp_path / "from").mkdir()
    for folder in (None, tmp_path / "from"):
        with pytest.raises(InputError, match="expected a plain name"):
            fetch(card, folder)
    assert not own_cache.exists()


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("role", ["loader", "maker"])
def test_a_python_file_of_a_card_runs_only_where_the_card_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    (tmp_path / "cards").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    source = {
        "loader": 'loader = "loader.py"\nfiles = [{ name = "a.npz" }]',
        "maker": 'loader = "neorl2"\nmaker = "./maker.py"',
    }[role]
    path = write(tmp_path / "cards", source)
    code = own(tmp_path / "cards", f"{role}.py")
    other = own(elsewhere, f"{role}.py")  # a namesake in the working folder never runs
    message = rf"card\.toml: source\.{role} = .* would import the file {code}.* give --trust {path}"
    for act in (load_dataset, check):
        with pytest.raises(Untrusted, match=message):
            act(path)
    if role == "maker":
        with pytest.raises(Untrusted, match=message):
            make(read_card(path))
    assert not code.with_suffix(".ran").exists()
    assert len(load_dataset(path, trust=[path])) == 20
    assert code.with_suffix(".ran").exists()
    assert not other.with_suffix(".ran").exists()
    assert len(load_dataset(path, trust=[code])) == 20
    check(path, trust=[path])


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("environment", "kwargs", "module"),
    [
        ('"mine_module:Env-v0"', "", "mine_module"),
        ('"this:X-v0"', "", "this"),
        ('"a:b:X-v0"', "", "a:b"),
        ('"offrl.cli.main:X-v0"', "", r"offrl\.cli\.main"),
        ('"Pendulum-v1"', 'env_id = "mine_module:Env-v0"', "mine_module"),
        ('"Pendulum-v1"', 'a = [{ b = "mine_module:Env" }]', "mine_module"),
        # Gymnasium imports what stands before the colon, whatever stands behind it:
        ('"mine_module:-x"', "", "mine_module"),
        ('"Pendulum-v1"', 'env_id = "mine_module:Env v0"', "mine_module"),
        ('"Pendulum-v1"', 'env_id = "mine_module:"', "mine_module"),
        ('"Pendulum-v1"', 'env_id = "mine_module:-x"', "mine_module"),
        ('"Pendulum-v1"', 'env_id = "mine_module://x"', "mine_module"),
        ('"Pendulum-v1"', 'env_id = "mine_module:\\u00e9\\n"', "mine_module"),
        ('"Pendulum-v1"', 'env_id = "my-mod:Env-v0"', "my-mod"),
        ('"/mine:Env"', "", "/mine"),
    ],
)
def test_a_simulator_of_a_card_is_imported_only_where_the_card_is_trusted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    kwargs: str,
    module: str,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_module.py").write_text(CODE)
    path = write(tmp_path, environment=environment, kwargs=kwargs)
    data = load_dataset(path)  # its numbers can be looked at
    message = (
        rf"card\.toml: environment\.\S+ = .* would import the module {module}, .*--trust {path}"
    )
    assert data.card.environment is not None
    with pytest.raises(Untrusted, match=message):
        environments.make(data.card.environment)
    with pytest.raises(Untrusted, match=message):
        data.card.scoring()
    assert not (tmp_path / "mine_module.ran").exists()
    load_dataset(path, trust=path).card.scoring()


def test_simulators_of_offrl_and_of_plugins_need_no_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "plug-1.dist-info").mkdir(parents=True)
    (site / "plug-1.dist-info" / "METADATA").write_text("Name: plug\nVersion: 1\n")
    (site / "plug-1.dist-info" / "entry_points.txt").write_text(
        "[gymnasium.envs]\n__root__ = plug.register:them\n"
    )
    monkeypatch.syspath_prepend(site)
    for name in (
        "Pendulum-v1",
        "gymnasium_robotics:PointMaze_UMaze-v3",
        "offrl.datasets.neorl2_simulators:offrl/DMSD-v0",
        "plug:Env-v0",
        "plug.register:Env-v0",
    ):
        read_card(write(tmp_path, environment=f'"{name}"')).scoring()
    Environment(id="mine:Env-v0", max_episode_steps=1).check_code()  # made in Python


def test_paths_and_addresses_among_the_arguments_name_no_module(tmp_path: Path) -> None:
    kwargs = (
        'xml_file = "/models/a:b.xml", page = ["https://host:80/x", "file:///a"], mode = "fast"'
    )
    read_card(write(tmp_path, kwargs=kwargs)).scoring()


def test_a_folder_that_offrl_did_not_make_stays(tmp_path: Path, own_cache: Path) -> None:
    path = write(tmp_path)
    folder = load_dataset(path).folder
    for file in folder.iterdir():
        file.unlink()
    (folder / "thesis").write_text("mine")
    with pytest.raises(InputError, match=r"has no meta\.json, so offrl did not make it; move it"):
        load_dataset(path)
    own(tmp_path, "maker.py")
    card = read_card(
        write(tmp_path, 'loader = "neorl2"\nmaker = "maker.py"'), trust=tmp_path / "card.toml"
    )
    making_path(card).mkdir(parents=True)
    (making_path(card) / "thesis").write_text("mine")
    with pytest.raises(InputError, match=r"has no made\.json, so offrl did not make it; move it"):
        make(card)
    texts = [p.read_text() for p in own_cache.rglob("thesis")]
    assert texts == ["mine", "mine"]


def test_a_cache_that_lost_its_meta_is_made_again(tmp_path: Path, own_cache: Path) -> None:
    data = load_dataset(write(tmp_path))
    (data.folder / "meta.json").unlink()
    again = load_dataset(tmp_path / "card.toml")
    np.testing.assert_array_equal(again.rewards, data.rewards)
    assert data.folder.is_relative_to(own_cache)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("written", ["../../../../secret.npz", "/etc/passwd", "a\0b"])
def test_what_a_maker_is_said_to_have_made_lies_in_its_folder(tmp_path: Path, written: str) -> None:
    own(tmp_path, "maker.py")
    path = write(tmp_path, 'loader = "neorl2"\nmaker = "maker.py"')
    made = make(read_card(path, trust=path))
    note = made.parent / "made.json"
    note.write_text(json.dumps({"path": written}))
    again = make(read_card(path, trust=path))
    assert again == made
    assert json.loads(note.read_text()) == {"path": "made.npz"}


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"source\.maker: '\S+maker\.py' is no maker: it has no function make"),
        (
            "from pathlib import Path\ndef make(d, progress=None): return Path('/etc/passwd')\n",
            r"made /etc/passwd, which is not in the folder that it was given",
        ),
    ],
)
def test_a_maker_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "maker.py").write_text(text)
    path = write(tmp_path, 'loader = "neorl2"\nmaker = "maker.py"')
    with pytest.raises(InputError, match=message):
        load_dataset(path, trust=path)
