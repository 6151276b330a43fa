"""Protocols become runs: which, in what order, with what configs, under which names."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from offrl import registry
from offrl.card import shipped_cards
from offrl.dataset import Dataset, load_dataset
from offrl.errors import InputError
from offrl.protocol import (
    Job,
    Protocol,
    configure,
    expand,
    find_protocol,
    identity,
    shipped_protocols,
)

VALUES: dict[str, Any] = {
    "id": "mine",
    "version": 2,
    "title": "A protocol for tests",
    "source": "offrl",
    "datasets": ["neorl2-dmsd", "hopper-medium-v2"],
    "seeds": [3, 1],
    "steps": 50,
    "evaluation": {"every": 10, "episodes": 4},
    "algorithms": {
        "bc": {},
        "greedy": {"algorithm": "iql", "steps": 80, "config": {"beta": 10.0, "hidden": [8, 4]}},
    },
}

PLAIN = """
import dataclasses
import offrl

@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 16
    lr: float = 1e-3

class Plain(offrl.SingleSeedLearner):
    Config = Config

    def __init__(self, spec, config, seed, device="cpu"):
        pass

    def update(self, batch):
        return {}

    def act(self, observations):
        return observations
"""


CARD = """
id = "ten"
version = 1
title = "ten rows"
licence = "none"
citation = "none"
source = { loader = "neorl2", files = [{ name = "data.npz" }] }
environment = { id = "Nothing-v0", max_episode_steps = 9 }
reference = { min = 0, max = 20, source = "counted" }
"""


def columns(reward: float) -> dict[str, Any]:
    """One episode of ten steps in NeoRL-2's format."""
    vectors, numbers = np.zeros((10, 3), np.float32), np.zeros(10, np.float32)
    return {
        "obs": vectors,
        "action": vectors,
        "next_obs": vectors,
        "reward": numbers + np.float32(reward),
        "done": numbers,
        "truncated": numbers,
    }


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    np.savez(tmp_path / "data.npz", **columns(reward=1))
    return load_dataset(write(tmp_path / "card.toml", CARD))


def protocol(**changes: Any) -> Protocol:
    return Protocol.model_validate({**VALUES, **changes})


def job(**changes: Any) -> Job:
    return replace(expand(protocol())[0], **changes)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_runs_come_seed_by_seed_in_the_order_of_the_protocol() -> None:
    jobs = expand(protocol())
    assert [(j.seed, j.label, j.dataset) for j in jobs] == [
        (seed, label, dataset)
        for seed in (3, 1)
        for label in ("bc", "greedy")
        for dataset in ("neorl2-dmsd", "hopper-medium-v2")
    ]
    assert {j.protocol for j in jobs} == {"mine@2"}
    assert [(j.algorithm, j.steps) for j in jobs[1:3]] == [("bc", 50), ("iql", 80)]
    assert jobs[0].evaluation == {"every": 10, "episodes": 4, "seed": 0}
    assert len({j.folder(Path()) for j in jobs}) == 8


def test_a_job_carries_the_whole_config_and_what_a_worker_reads_from_it() -> None:
    greedy = expand(protocol())[2]
    assert greedy.config["beta"] == 10
    assert greedy.config["expectile"] == 0.7  # a default of the paper
    assert greedy.config["hidden"] == [8, 4]  # JSON, as run.json holds it
    config = configure(greedy.algorithm, greedy.config, "worker")
    assert config.hidden == (8, 4)
    assert config == configure("iql", {"beta": 10, "hidden": [8, 4]}, "protocol")


def test_only_the_algorithms_asked_for_run() -> None:
    jobs = expand(protocol(), ["greedy", "td3_bc", "greedy"])
    assert [j.label for j in jobs[::2]] == ["greedy", "td3_bc"] * 2
    assert jobs[0].config["beta"] == 10  # the protocol's own entry
    assert jobs[2].config["alpha"] == 2.5  # not in the protocol: its own defaults
    assert jobs[2].steps == 50
    with pytest.raises(InputError, match=r"unknown algorithm 'gredy'; did you mean 'greedy'\?"):
        expand(protocol(), ["gredy"])
    with pytest.raises(InputError, match=r"unknown algorithm 'x\.txt'.*path of a \.py file"):
        expand(protocol(), ["x.txt"])


def test_the_hash_follows_the_config_and_not_how_it_is_written() -> None:
    def hashed(**config: Any) -> str:
        entry = {"algorithms": {"iql": {"config": config}}}
        return expand(protocol(**entry))[0].config_hash

    plain = hashed()
    assert len(plain) == 8
    assert hashed(expectile=0.7, beta=3.0) == hashed(beta=3.0, expectile=0.7) == plain
    assert hashed(beta=3) == plain  # TOML's 3 for a float
    assert len({plain, hashed(beta=3.5), hashed(hidden=[256]), hashed(hidden=[256, 256, 256])}) == 4
    assert job(label="other", seed=9, steps=7).config_hash == job().config_hash
    assert job(algorithm="iql").config_hash != job().config_hash


def test_a_file_is_named_after_itself_and_hashed_with_its_content(
    tmp_path: Path, data: Dataset
) -> None:
    file = write(tmp_path / "here" / "my_algo.py", PLAIN)
    (first, *_) = expand(protocol(), [str(file)])
    assert first.label == "my_algo"
    assert Path(first.algorithm) == file.resolve()
    assert first.config == {"batch_size": 16, "lr": 1e-3}
    moved = write(tmp_path / "there" / "my_algo.py", PLAIN)
    (same, *_) = expand(protocol(), [str(moved)])
    assert same.config_hash == first.config_hash
    assert identity(same, data) == identity(first, data)  # so a moved project carries on
    file.write_text(PLAIN + "# changed\n")
    (changed, *_) = expand(protocol(), [str(file)])
    assert changed.config_hash != first.config_hash
    with pytest.raises(InputError, match="a second 'my_algo'; rename the file of one"):
        expand(protocol(), [str(file), str(moved)])


def test_paths_in_a_file_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sub" / "plain.py", PLAIN)
    text = """
id = "mine"
version = 1
title = "mine"
source = "offrl"
datasets = ["card.toml", "data/raw.npz", "neorl2-dmsd", "minari:a/b-v0"]
seeds = [0]
steps = 1
evaluation = { every = 1, episodes = 1 }
[algorithms.x]
algorithm = "plain.py"
[algorithms.bc]
"""
    write(tmp_path / "sub" / "mine.toml", text)
    monkeypatch.chdir(tmp_path)
    found = find_protocol("sub/mine.toml")
    here = tmp_path / "sub"
    assert found.datasets == [
        str(here / "card.toml"),
        str(here / "data" / "raw.npz"),
        "neorl2-dmsd",
        "minari:a/b-v0",
    ]
    assert found.algorithms["x"].algorithm == str(here / "plain.py")
    assert found.algorithms["bc"].algorithm is None
    folders = {j.folder(Path()).parts[1] for j in expand(found)}
    assert folders == {"card", "raw", "neorl2-dmsd", "minari-a-b-v0"}


def test_folders_are_told_apart() -> None:
    bc = job()
    assert bc.folder(Path("runs")) == Path(f"runs/mine/neorl2-dmsd/bc-{bc.config_hash}/seed-3")
    for dataset, name in {
        "minari:D4RL/pointmaze/umaze-v2": "minari-D4RL-pointmaze-umaze-v2",
        "minari:D4RL/antmaze/umaze-v2": "minari-D4RL-antmaze-umaze-v2",
        "/data/my set.toml": "my set",
    }.items():
        assert job(dataset=dataset).folder(Path()).parts[1] == name
    with pytest.raises(InputError, match=r"/a/x\.toml and /b/x\.toml would share a folder"):
        expand(protocol(datasets=["/a/x.toml", "/b/x.toml"]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bata": 1}, r"where: unknown config key 'bata'; did you mean 'beta'\?"),
        ({"beta": "10"}, r"where: beta: .*valid number, found '10'"),
        ({"beta": True}, r"where: beta: .*valid number, found True"),
        ({"beta": float("nan")}, r"where: beta: expected a number, found nan"),
        ({"batch_size": 2.5}, r"where: batch_size: .*valid integer, found 2\.5"),
        ({"batch_size": 0}, r"where: batch_size: expected .*positive integer, found 0"),
        ({"hidden": 8}, r"where: hidden: .*, found 8"),
        ({"hidden": [8, "x"]}, r"where: hidden\.1: .*valid integer, found 'x'"),
        ({"reward": "raw "}, r"where: reward: .*'raw'.* found 'raw '"),
    ],
)
def test_configure_names_place_key_and_value(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configure("iql", config, "where")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("    Config = Config\n", "    pass\n", "class Plain has no Config; expected a frozen"),
        ("    Config = Config\n", "    Config = 3\n", "class Plain has no Config; expected a froz"),
        ("batch_size: int", "batch: int", "batch_size: expected a field of Config.* found None"),
        ("int = 16", "int", "batch_size: Field required"),
        ("int = 16", "float = 16.0", "batch_size: expected .*positive integer, found 16.0"),
        (
            "lr: float = 1e-3",
            "lr: object = object()",
            "cannot be written as TOML.* give its fields",
        ),
        ("lr: float = 1e-3", "lr: 'Nowhere' = 1", "cannot be written as TOML.* give its fields"),
        (PLAIN, "x = 1", r"plain\.py: expected one class derived from offrl\.Learner.* found 0"),
        ("import offrl", "import nowhere", r"plain\.py: cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_file_that_is_no_algorithm_is_refused(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    file = write(tmp_path / "plain.py", PLAIN.replace(before, after))
    with pytest.raises(InputError, match=f"where: .*{message}") as caught:
        configure(str(file), {}, "where")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [0, 1, 0]}, "0 stands there twice"),
        ({"seeds": [0, -1]}, "greater than or equal to 0"),
        ({"seeds": []}, "at least 1"),
        ({"datasets": ["a", "a"]}, "'a' stands there twice"),
        ({"algorithms": {"../bc": {"algorithm": "bc"}}}, "match pattern"),
        ({"algorithms": {}}, "at least 1"),
        ({"steps": 0}, "greater than 0"),
        ({"id": "a/b"}, "match pattern"),
        ({"evaluation": {"every": 1, "episodes": 1, "seed": -1}}, "greater than or equal to 0"),
    ],
)
def test_a_protocol_that_cannot_be_run_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        protocol(**changes)


def test_an_entry_with_an_unknown_algorithm_names_protocol_and_label() -> None:
    entry = {"algorithms": {"fast": {"algorithm": "td3bc"}}}
    message = r"mine, algorithm fast: unknown algorithm 'td3bc'; did you mean 'td3_bc'\?"
    with pytest.raises(InputError, match=message):
        expand(protocol(**entry))


def test_identity_survives_json_and_holds_what_a_score_depends_on(
    data: Dataset, tmp_path: Path
) -> None:
    first = identity(job(), data)
    assert json.loads(json.dumps(first)) == first  # as it is compared with run.json
    others = [
        identity(job(**change), data)
        for change in (
            {"protocol": "mine@3"},
            {"config": {"batch_size": 1}},
            {"steps": 51},
            {"evaluation": {"every": 10, "episodes": 5, "seed": 0}},
            {"seed": 4},
            {"code": "00"},
        )
    ]
    for before, after in (("version = 1", "version = 2"), ("steps = 9", "steps = 8"), ("20", "30")):
        card = write(tmp_path / "card.toml", CARD.replace(before, after))
        others.append(identity(job(), load_dataset(card)))
    np.savez(tmp_path / "data.npz", **columns(reward=2))
    others.append(identity(job(), load_dataset(write(tmp_path / "card.toml", CARD))))
    assert all(other != first for other in others)


@pytest.mark.parametrize("name", sorted(shipped_protocols()))
def test_shipped_protocols_are_whole(name: str) -> None:
    found = find_protocol(name)
    assert found.id == name
    assert set(found.datasets) <= set(shipped_cards())
    jobs = expand(found)
    assert len(jobs) == len(found.datasets) * len(found.algorithms) * len(found.seeds)
    assert {j.algorithm for j in jobs} <= set(registry.modules("algorithms"))
    assert len({j.folder(Path()) for j in jobs}) == len(jobs)
    assert all(j.steps >= j.evaluation["every"] for j in jobs)


def test_an_unknown_protocol_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown protocol 'quikstart'; did you mean 'quickst"):
        find_protocol("quikstart")


# Gao et al. 2025 (NeoRL-2), benchmark/ of the published code: seeds, steps, networks.
def test_neorl2_follows_the_published_settings() -> None:
    found = find_protocol("neorl2-dmsd")
    assert found.seeds == [7, 42, 210]
    assert found.evaluation.every == 20_000
    assert found.evaluation.episodes == 1000
    configs = {j.label: (j.steps, j.config) for j in expand(found)}
    steps, bc = configs["bc"]
    assert steps == 1_000_000
    assert bc == {
        "actor_lr": 1e-3,
        "hidden": [256, 256],
        "activation": "leaky_relu",
        "output": "linear",
        "normalize": False,
        "checkpoint": "best validation",
        "validation_interval": 1000,
        "batch_size": 256,
    }
    steps, td3_bc = configs["td3_bc"]
    assert steps == 1_000_000
    assert td3_bc == {
        "alpha": 0.2,
        "actor_lr": 3e-4,
        "critic_lr": 3e-4,
        "gamma": 0.99,
        "tau": 5e-3,
        "policy_noise": 0.5,
        "noise_clip": 0.5,
        "policy_delay": 2,
        "normalize": "actor",
        "actor_hidden": [256, 256, 256],
        "critic_hidden": [256, 256],
        "batch_size": 256,
    }


def test_neorl2_settings_are_those_that_the_published_table_chose(shared: Path) -> None:
    """The table's cell is the setting of the grid with the highest mean return over the seeds."""
    scores: dict[tuple[str, str], list[float]] = {}
    seeds = set()
    with (shared / "scores" / "neorl2_benchmark_seeds.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["dataset"] == "DMSD":
                setting = row["algorithm"], row["hyperparameters"]
                scores.setdefault(setting, []).append(float(row["normalized_score"]))
                seeds.add(int(row["seed"]))
    found = find_protocol("neorl2-dmsd")
    assert set(found.seeds) == seeds
    for algorithm, label, size in (("BC", "bc", 6), ("TD3+BC", "td3_bc", 9)):
        grid = {settings: mean(s) for (name, settings), s in scores.items() if name == algorithm}
        assert len(grid) == size
        best = dict(item.split("=") for item in max(grid, key=lambda s: grid[s]).split(","))
        config = found.algorithms[label].config
        if "actor_layers" in best:
            assert len(config["hidden"]) == int(best.pop("actor_layers"))
        for key, value in best.items():
            assert config[key] == float(value), key
