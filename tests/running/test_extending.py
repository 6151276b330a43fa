"""Protocols that say only in what they differ from another, and protocols as TOML."""

from pathlib import Path
from typing import Any

import pytest

from offrl.errors import InputError
from offrl.running.extending import MOST_EXTENDED
from offrl.running.jobs import expand
from offrl.running.protocol import Protocol, find_protocol, shipped_protocols, tables
from offrl.toml import parse_toml, to_toml
from offrl.trust import Untrusted

PLAIN = """
import dataclasses
import offrl

@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 16

class Plain(offrl.SingleSeedLearner):
    Config = Config
    def __init__(self, spec, config, seed, device="cpu"): ...
    def update(self, batch): ...
    def act(self, observations): ...
"""
BASE = """
id = "base"
version = 1
title = "base"
source = "offrl"
datasets = ["hopper-medium-v2", "antmaze-umaze-v2", "card.toml"]
seeds = [0, 1]
steps = 100
evaluation = { every = 10, episodes = 5, last = 2 }
[algorithms.iql.config]
beta = 4.0
tau = 0.01
[[algorithms.iql.on]]
datasets = ["antmaze-*", "card*.toml"]
config.beta = 9.0
[algorithms.own]
algorithm = "own.py"
[algorithms.mazes]
algorithm = "bc"
datasets = ["antmaze-*"]
"""


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write(tmp_path / "base" / "own.py", PLAIN)
    return Path(write(tmp_path / "base" / "base.toml", BASE))


def extension(tmp_path: Path, text: str, version: int = 1) -> str:
    own = f'extends = "../base/base.toml"\nid = "mine"\nversion = {version}\n'
    return write(tmp_path / "here" / "mine.toml", own + text)


def test_tables_are_merged_and_lists_replaced(base: Path, tmp_path: Path) -> None:
    text = """
seeds = [7]
evaluation.episodes = 50
algorithms.iql.config.beta = 1.0
algorithms.iql.grid.tau = [0.1, 0.2]
[algorithms.td3_bc]
"""
    mine = find_protocol(extension(tmp_path, text))
    whole = find_protocol(str(base))
    assert (mine.id, mine.version, mine.title, mine.seeds) == ("mine", 1, "base", [7])
    assert mine.evaluation.model_dump(exclude_none=True) == {
        "every": 10,
        "episodes": 50,
        "seed": 0,
        "last": 2,
    }
    assert mine.datasets == whole.datasets
    assert list(mine.algorithms) == ["iql", "own", "mazes", "td3_bc"]
    assert mine.algorithms["iql"].config == {"beta": 1.0, "tau": 0.01}
    assert mine.algorithms["iql"].on == whole.algorithms["iql"].on
    assert mine.algorithms["own"] == whole.algorithms["own"]
    replaced = "[[algorithms.iql.on]]\ndatasets = ['hopper-*']\nsteps = 5"
    (on,) = find_protocol(extension(tmp_path, replaced)).algorithms["iql"].on
    assert (on.datasets, on.steps, on.config) == (["hopper-*"], 5, {})


def test_what_is_for_none_of_the_data_sets_goes(base: Path, tmp_path: Path) -> None:
    mine = find_protocol(extension(tmp_path, 'datasets = ["walker2d-medium-v2"]'))
    assert list(mine.algorithms) == ["iql", "own"]
    assert mine.algorithms["iql"].on == []
    card = str(base.parent / "card.toml")
    mine = find_protocol(extension(tmp_path, f'datasets = ["{card}"]'))
    (on,) = mine.algorithms["iql"].on
    assert on.datasets == [str(base.parent / "card*.toml")]
    spoken_of = 'datasets = ["walker2d-medium-v2"]\nalgorithms.mazes.steps = 3'
    with pytest.raises(InputError, match=r"mine\.toml: algorithms\.mazes\.datasets: .*at least 1"):
        find_protocol(extension(tmp_path, spoken_of))
    with pytest.raises(InputError, match=r"mine\.toml: .*matches none of the protocol's data sets"):
        find_protocol(extension(tmp_path, "algorithms.iql.datasets = ['walker*']"))


def test_paths_start_at_the_file_that_has_them(base: Path, tmp_path: Path) -> None:
    write(tmp_path / "here" / "other.py", PLAIN)
    text = "[algorithms.other]\nalgorithm = 'other.py'"
    mine = find_protocol(extension(tmp_path, text))
    assert mine.datasets[2] == str(base.parent / "card.toml")
    assert {label: mine.algorithms[label].algorithm for label in ("own", "other")} == {
        "own": str(base.parent / "own.py"),
        "other": str(tmp_path / "here" / "other.py"),
    }


def test_code_needs_trust_in_the_file_that_names_it(base: Path, tmp_path: Path) -> None:
    write(tmp_path / "here" / "other.py", PLAIN)
    text = "algorithms.own.config.batch_size = 4\n[algorithms.other]\nalgorithm = 'other.py'"
    mine = extension(tmp_path, text)

    def labels(*trust: str | Path, algorithm: str) -> list[str]:
        found = find_protocol(mine, list(trust))
        return [job.label for job in expand(found, [algorithm], ["hopper-*"])]

    with pytest.raises(Untrusted, match=rf"{base.name}: algorithm own would import .*--trust"):
        labels(mine, algorithm="own")
    assert labels(base, algorithm="own") == ["own", "own"]
    with pytest.raises(Untrusted, match=r"mine\.toml: algorithm other would import"):
        labels(base, algorithm="other")
    assert labels(mine, algorithm="other") == ["other", "other"]
    write(tmp_path / "here" / "own.py", PLAIN)
    mine = extension(tmp_path, "algorithms.own.algorithm = 'own.py'")
    assert labels(mine, algorithm="own") == ["own", "own"]


def test_a_chain_of_protocols(tmp_path: Path) -> None:
    for number in range(MOST_EXTENDED + 2):
        of = f"p{number - 1}.toml" if number else "quickstart"
        text = f'extends = "{of}"\nid = "p{number}"\nversion = 1\nsteps = {number + 1}'
        write(tmp_path / f"p{number}.toml", text)
    last = find_protocol(str(tmp_path / f"p{MOST_EXTENDED - 1}.toml"))
    assert last.steps == MOST_EXTENDED
    assert list(last.algorithms) == list(find_protocol("quickstart").algorithms)
    with pytest.raises(InputError, match="extends more than 10 protocols in a row"):
        find_protocol(str(tmp_path / f"p{MOST_EXTENDED + 1}.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "mine.toml"\nid = "mine"\nversion = 1', "extends .*: a circle; cut it"),
        ('extends = "there/two.toml"\nid = "mine"\nversion = 1', "two.toml: extends .*a circle"),
        ('extends = "corl"\nversion = 1', "mine.toml: id: a protocol that extends another has"),
        ('extends = "corl"\nid = "mine"', "mine.toml: version: a protocol that extends another"),
        ('extends = "corl"\nid = "corl"\nversion = 9', "id 'corl' is that of a protocol that it"),
        ('extends = "there/one.toml"\nid = "corl"\nversion = 9', "id 'corl' is that of a protocol"),
        ('extends = "crl"\nid = "mine"\nversion = 1', "mine.toml: extends: unknown protocol 'crl'"),
        ('extends = 3\nid = "mine"\nversion = 1', "extends: expected the id .*, found 3"),
        ('extends = "no.toml"\nid = "mine"\nversion = 1', "no.toml: no such file"),
        ('extends = "corl"\nid = "m"\nversion = 1\nalgorithms = 3', "mine.toml: algorithms: "),
        ('extends = "corl"\nid = "m"\nversion = 1\nalgorithms.iql = 3', "algorithms.iql: "),
        ('extends = "corl"\nid = "m"\nversion = 1\ndatasets = [3]', "datasets.0: .*string"),
        ('extends = "corl"\nid = "m"\nversion = 1\nstep = 3', "mine.toml: step: unknown key"),
    ],
)
def test_a_bad_extension_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "there" / "one.toml", 'extends = "corl"\nid = "one"\nversion = 1')
    two = 'extends = "../mine.toml"\nid = "two"\nversion = 1'
    write(tmp_path / "there" / "two.toml", two)
    with pytest.raises(InputError, match=message) as caught:
        find_protocol(write(tmp_path / "mine.toml", text))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", sorted(shipped_protocols()))
def test_a_protocol_as_toml_is_read_back_equal(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "again.toml", to_toml(tables(find_protocol(name))))
    again = find_protocol(path)
    assert again == find_protocol(name)
    assert expand(again) == expand(find_protocol(name))


@pytest.mark.usefixtures("base")
def test_an_extended_protocol_as_toml_is_read_back_equal(tmp_path: Path) -> None:
    text = "algorithms.iql.grid.tau = [0.1, 0.2]\nnotes = 'tab\\t, \"quotes\" and \\\\'"
    mine = find_protocol(extension(tmp_path, text))
    elsewhere = write(tmp_path / "elsewhere" / "x.toml", to_toml(tables(mine)))
    assert find_protocol(elsewhere) == mine


def test_odd_texts_survive_toml() -> None:
    labels = {label: {"algorithm": "bc"} for label in ("TD3+BC (ours)", "算法", '"', "e\u0301")}
    odd = "\r\n \t \\ \" ''' \u007f \u202e"
    values: dict[str, Any] = {
        "id": "mine",
        "version": 1,
        "title": odd,
        "source": "",
        "datasets": ["a"],
        "seeds": [2**63 - 1],
        "steps": 1,
        "evaluation": {"every": 1, "episodes": 1},
        "algorithms": labels,
    }
    made = Protocol.model_validate(values)
    assert Protocol.model_validate(parse_toml(to_toml(tables(made)))) == made
