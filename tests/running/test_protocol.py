"""Protocols become runs: which, in what order, with what configs, under which names."""

import csv
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from offrl import registry
from offrl.data.card import shipped_cards
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.transitions import Transitions
from offrl.errors import InputError
from offrl.evaluation.environments import Actions
from offrl.learning.learner import find_algorithm
from offrl.learning.single import build
from offrl.learning.template import TEMPLATE
from offrl.results.rows import Identity
from offrl.results.table import ScoreTable
from offrl.running.jobs import Job, configure, expand, identity
from offrl.running.patterns import patterns
from offrl.running.protocol import Evaluation, Protocol, find_protocol, shipped_protocols
from offrl.running.runner import run
from offrl.running.task import learner_spec

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
    assert jobs[0].evaluation == Evaluation(every=10, episodes=4, seed=0)
    assert len({j.folder(Path()) for j in jobs}) == 8


def test_a_job_carries_the_whole_config_and_what_a_worker_reads_from_it() -> None:
    greedy = expand(protocol())[2]
    assert greedy.config["beta"] == 10
    assert greedy.config["expectile"] == 0.7  # a default of the paper
    assert greedy.config["hidden"] == [8, 4]  # JSON, as run.json holds it
    config = configure(greedy.algorithm, greedy.config, "worker")
    assert config.hidden == (8, 4)
    assert config == configure("iql", {"beta": 10, "hidden": [8, 4]}, "protocol")


FOUR = ["hopper-medium-v2", "hopper-expert-v2", "walker2d-expert-v2", "pen-human-v1"]


def two_cards(folder: Path, own: str = "") -> Path:
    """A protocol of two cards, of which one's name, read as a pattern, fits the other's."""
    for name in ("card [1].toml", "card 1.toml"):
        write(folder / name, CARD.replace('"ten"', f'"{re.sub(r"[^a-z0-9]+", "-", name)}"'))
    text = f"""
id = "two"
version = 1
title = "two"
source = "offrl"
datasets = ["card [1].toml", "card 1.toml"]
seeds = [0]
steps = 2
evaluation = {{ every = 2, episodes = 1 }}
[algorithms.bc]
{own}
"""
    return write(folder / "two.toml", text)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("card [1].toml", ["card [1].toml"]),
        ("card 1.toml", ["card 1.toml"]),
        ("card*.toml", ["card [1].toml", "card 1.toml"]),
        ("card [[]1].toml", ["card [1].toml"]),
        ("card [12].toml", ["card 1.toml"]),
    ],
)
def test_the_very_name_of_a_data_set_comes_before_patterns(
    pattern: str, names: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "folder [a-z] of * mine"
    everywhere = expand(find_protocol(str(two_cards(folder))), datasets=[pattern])
    assert [Path(j.dataset).name for j in everywhere] == names
    (whole,) = [str(folder / name) for name in names[:1]]
    assert whole in [j.dataset for j in expand(find_protocol(str(two_cards(folder))), (), [whole])]
    path = two_cards(folder, f"datasets = ['{pattern}']")
    assert [Path(j.dataset).name for j in expand(find_protocol(str(path)))] == names
    path = two_cards(folder, f"[[algorithms.bc.on]]\ndatasets = ['{pattern}']\nsteps = 9")
    steps = {Path(j.dataset).name: j.steps for j in expand(find_protocol(str(path)))}
    assert [name for name, number in steps.items() if number == 9] == names


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (" bc", "begins or ends with a space"),
        ("bc\u00a0", "begins or ends with a space"),
        ("a\nb", "control characters"),
        ("a\x00b", "control characters"),
        ("\x1b[2J", "control characters"),
        ("a\u202eb", "control characters"),
        ("a\u2028b", "control characters"),
        ("a\ud800", "control characters"),
        ("..", "dot"),
        ("a/b", "slash"),
        ("a\\b", "slash"),
        ("x" * 300, "200 bytes"),
        ("算" * 80, "200 bytes"),
    ],
)
def test_a_label_that_cannot_be_stored_or_read_is_refused(label: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        protocol(algorithms={label: {"algorithm": "bc"}})


def test_labels_that_can_be_stored_are_taken(tmp_path: Path) -> None:
    labels = ["bc", "TD3+BC (ours)", "算法", "[x]", "<b>", "e\u0301", "x" * 200, "=1+1"]
    made = protocol(algorithms={label: {"algorithm": "bc"} for label in labels}, seeds=[2**63 - 1])
    jobs = expand(made, datasets=["neorl2-dmsd"])
    for job in jobs:
        job.folder(tmp_path).mkdir(parents=True)
    rows = [{"algorithm": j.label, "dataset": "d", "seed": j.seed, "score": 1.0} for j in jobs]
    assert len(ScoreTable.from_frame(pd.DataFrame(rows)).algorithms) == len(labels)


def test_a_precision_is_part_of_a_run_and_for_gpus(tmp_path: Path) -> None:
    (job, *_) = expand(protocol(precision="tf32"))
    assert job.precision == "tf32"
    with pytest.raises(ValueError, match="precision"):
        protocol(precision="float16")
    with pytest.raises(InputError, match="precision 'tf32' is for GPUs, but the device is a CPU"):
        run(protocol(precision="tf32"), tmp_path / "runs", device="cpu")


def test_a_data_set_whose_runs_no_folder_can_hold_is_refused() -> None:
    made = protocol(datasets=["minari:" + "/".join(["part"] * 60)])
    with pytest.raises(InputError, match=r"folder of its runs: minari-part-.* more than 255 bytes"):
        expand(made)


def test_two_forms_of_one_label_are_refused() -> None:
    forms = {"\u00e9": {"algorithm": "bc"}, "e\u0301": {"algorithm": "bc"}}
    with pytest.raises(ValueError, match="two Unicode forms"):
        protocol(algorithms=forms)


def test_a_file_whose_name_is_no_label_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / " own.py", PLAIN)
    with pytest.raises(InputError, match="space; rename the file"):
        expand(protocol(), [str(path)])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"card 1.toml"', '"~nosuchuser/card.toml"'),
        ('"card 1.toml"', r'"card\u0000.toml"'),
        ("[algorithms.bc]", "[algorithms.bc]\ndatasets = ['~nosuchuser/*.toml', 'card*']"),
        ("[algorithms.bc]", "[algorithms.x]\nalgorithm = '~nosuchuser/x.py'"),
    ],
)
def test_paths_of_nobody_and_of_no_system_are_one_line(
    before: str, after: str, tmp_path: Path
) -> None:
    path = two_cards(tmp_path)
    write(path, path.read_text().replace(before, after))
    with pytest.raises(InputError, match=r"NUL|nosuchuser"):
        find_protocol(str(path))


def test_a_config_value_beyond_json_is_one_line() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for value in (deep, 10**5000):
        with pytest.raises(InputError, match="iql: ") as caught:
            configure("iql", {"hidden": value}, "iql")
        assert len(str(caught.value)) < 400


def test_later_overrides_replace_earlier_ones() -> None:
    entry = {
        "steps": 60,
        "config": {"beta": 2.0, "expectile": 0.6},
        "on": [
            {"datasets": ["*-expert-v2"], "steps": 70, "config": {"beta": 4.0}},
            {"datasets": ["hopper-*"], "every": 5, "config": {"beta": 8.0}},
            {"datasets": ["pen-human-v1"], "episodes": 9},
        ],
    }
    jobs = expand(protocol(datasets=FOUR, seeds=[0], algorithms={"iql": entry}))
    assert [
        (
            job.config["beta"],
            job.config["expectile"],
            job.steps,
            job.evaluation.every,
            job.evaluation.episodes,
        )
        for job in jobs
    ] == [
        (8, 0.6, 60, 5, 4),  # the protocol's own episodes, the entry's expectile
        (8, 0.6, 70, 5, 4),  # both overrides, of which the later one gives beta
        (4, 0.6, 70, 10, 4),
        (2, 0.6, 60, 10, 9),
    ]


def test_an_algorithm_may_run_on_some_of_the_data_sets() -> None:
    algorithms = {"bc": {"datasets": ["*-expert-v2"]}, "iql": {}}
    described = protocol(datasets=FOUR, seeds=[0], algorithms=algorithms)
    jobs = expand(described)
    assert [job.dataset for job in jobs] == [*FOUR[1:3], *FOUR]
    jobs = expand(described, datasets=["pen-*", "hopper-expert-v2"])
    assert [(job.label, job.dataset) for job in jobs] == [
        ("bc", "hopper-expert-v2"),
        ("iql", "hopper-expert-v2"),
        ("iql", "pen-human-v1"),
    ]
    jobs = expand(described, ["td3_bc"], ["walker2d-*"])  # that the protocol does not list
    assert [(job.label, job.dataset) for job in jobs] == [("td3_bc", "walker2d-expert-v2")]
    with pytest.raises(InputError, match=r"data set of mine 'pen-human-v2'; did you mean 'pen-hum"):
        expand(described, datasets=["pen-human-v2"])


def test_patterns_match_the_names_and_nothing_else() -> None:
    assert patterns(FOUR, FOUR) == ["hopper-*", "walker2d-expert-v2", "pen-human-v1"]
    assert patterns(FOUR[1:3], FOUR) == ["*-expert-v2"]
    assert patterns(FOUR[:3], FOUR) == ["hopper-*", "walker2d-expert-v2"]
    assert patterns([FOUR[0], FOUR[2]], FOUR) == [FOUR[0], FOUR[2]]
    assert patterns(["/a/my-set.toml"], ["/a/my-set.toml", "x"]) == ["/a/my-set.toml"]
    assert patterns([], FOUR) == []


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
    found = find_protocol("sub/mine.toml", trust=["sub/mine.toml"])
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
        ({"beta": float("nan")}, r"where: beta: Input should be a finite number, found nan"),
        ({"batch_size": 2.5}, r"where: batch_size: .*valid integer, found 2\.5"),
        (
            {"batch_size": 0},
            r"where: batch_size: Input should be greater than or equal to 1, found 0",
        ),
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
        (
            "import offrl",
            "import nowhere",
            r"plain\.py, line 3: cannot be imported: ModuleNotFound",
        ),
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
        ({"algorithms": {"../bc": {"algorithm": "bc"}}}, "begins with a dot, or has a slash"),
        ({"seeds": [2**63]}, "less than 9223372036854775808"),
        ({"steps": 2**63}, "less than 9223372036854775808"),
        ({"id": "x" * 300}, "at most 200 characters"),
        ({"algorithms": {}}, "at least 1"),
        ({"steps": 0}, "greater than 0"),
        ({"id": "a/b"}, "match pattern"),
        ({"evaluation": {"every": 1, "episodes": 1, "seed": -1}}, "greater than or equal to 0"),
        (
            {"algorithms": {"bc": {"datasets": ["hoper-*"]}}},
            "bc: 'hoper-.' matches none of the pro",
        ),
        ({"algorithms": {"bc": {"datasets": []}}}, "at least 1"),
        ({"algorithms": {"bc": {"on": [{"datasets": ["neorl"]}]}}}, "bc: 'neorl' matches none"),
        ({"algorithms": {"bc": {"on": [{"steps": 3}]}}}, "Field required"),
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
    written = json.dumps(first.model_dump())
    assert Identity.model_validate(json.loads(written)) == first  # as it is compared with run.json
    others = [
        identity(job(**change), data)
        for change in (
            {"protocol": "mine@3"},
            {"config": {"batch_size": 1}},
            {"steps": 51},
            {"evaluation": Evaluation(every=10, episodes=5)},
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


def test_the_class_that_a_simulator_is_compared_with_is_no_part_of_the_identity(
    data: Dataset, tmp_path: Path
) -> None:
    """Runs recorded before cards kept it match."""
    text = CARD.replace("_steps = 9 }", '_steps = 9, entry_point = "a:B" }')
    changed = load_dataset(write(tmp_path / "card.toml", text))
    assert changed.card.environment is not None
    assert changed.card.environment.entry_point == "a:B"
    assert identity(job(), changed) == identity(job(), data)
    assert "entry_point" not in json.dumps(identity(job(), changed).model_dump())


@pytest.mark.parametrize("name", sorted(shipped_protocols()))
def test_shipped_protocols_are_whole(name: str) -> None:
    found = find_protocol(name)
    assert found.id == name
    assert set(found.datasets) <= set(shipped_cards())
    jobs = expand(found)
    runs = [d for e in found.algorithms.values() for d in found.datasets if e.runs_on(d)]
    assert len(jobs) == len(runs) * len(found.seeds)
    assert set(runs) == set(found.datasets)
    assert {j.algorithm for j in jobs} <= set(registry.modules("algorithms"))
    assert len({j.folder(Path()) for j in jobs}) == len(jobs)
    assert all(j.steps >= j.evaluation.every for j in jobs)


SMALL = {"hidden": (4,), "actor_hidden": (4,), "critic_hidden": (4,), "embedding": 4}


@pytest.mark.parametrize("name", sorted(shipped_protocols()))
def test_every_setting_of_a_shipped_protocol_makes_a_learner(name: str) -> None:
    """What a Config's types cannot say, its learner does; the sizes of networks are ours."""
    random = np.random.default_rng(0)
    rows = 2200
    cut = np.zeros(rows, np.float32)
    cut[99::100] = 1
    ended = np.zeros(rows, np.float32)
    ended[[499, 1199]] = 1  # CORL cuts trajectories at terminations
    observations = random.normal(size=(rows, 3)).astype(np.float32)
    data = Transitions(
        observations,
        random.uniform(-1, 1, (rows, 2)).astype(np.float32),
        random.normal(size=rows).astype(np.float32),
        np.roll(observations, -1, 0),
        ended,
        cut,
    )
    settings = {(job.algorithm, json.dumps(job.config)): job for job in expand(find_protocol(name))}
    cards = shipped_cards()
    for job in settings.values():
        config = configure(job.algorithm, job.config, name)
        sizes = {key: value for key, value in SMALL.items() if hasattr(config, key)}
        if hasattr(config, "num_critics"):
            sizes["num_critics"] = min(config.num_critics, 2)
        config = replace(config, **sizes)
        algorithm = find_algorithm(job.algorithm)
        given, actions = data, Actions.within(1.0, 2)
        if count := cards[job.dataset].action_count:
            given = replace(data, actions=np.arange(rows) % count)
            actions = Actions(count=count)
        prepared = algorithm.prepare(given, config)
        learner = build(algorithm, learner_spec(prepared, actions, job.steps), config, [job.seed])
        assert learner.policies(), (job.label, job.dataset)


# Settings of the publications, as our configs call them. CORL's: corl-team/CORL at eeeeef2, files
# of configs/offline/.
PUBLISHED: list[tuple[str, str, str, dict[str, Any]]] = [
    # bc/antmaze/umaze_v2.yaml, bc_10/hopper/medium_v2.yaml
    ("corl", "bc", "antmaze-umaze-v2", {"episodes": 100, "normalize": True, "batch_size": 256}),
    ("corl", "percent_bc", "hopper-medium-v2", {"fraction": 0.1, "gamma": 1.0, "split": "corl"}),
    # td3_bc/antmaze/large_play_v2.yaml, td3_bc/hopper/medium_v2.yaml
    ("corl", "td3_bc", "antmaze-large-play-v2", {"reward": "minus one", "alpha": 2.5}),
    ("corl", "td3_bc", "hopper-medium-v2", {"reward": "raw", "episodes": 10}),
    # awac/halfcheetah/medium_v2.yaml, awac/pen/human_v1.yaml
    ("corl", "awac", "halfcheetah-medium-v2", {"temperature": 0.3333, "every": 5000}),
    ("corl", "awac", "pen-human-v1", {"temperature": 0.1, "reward": "raw", "episodes": 10}),
    # cql/antmaze/umaze_v2.yaml, cql/hopper/medium_v2.yaml, cql/maze2d/large_v1.yaml
    (
        "corl",
        "cql",
        "antmaze-umaze-v2",
        {
            "cql_alpha": 5.0,
            "target_gap": 0.8,
            "gap_min": -200.0,
            "backup": "min then max",
            "critic_hidden": [256] * 5,
            "reward_scale": 10.0,
            "reward_bias": -5.0,
            "normalize": False,
            "actor_lr": 1e-4,
            "every": 50_000,
        },
    ),
    ("corl", "cql", "hopper-medium-v2", {"reward": "corl return range", "actor_lr": 3e-5}),
    ("corl", "cql", "maze2d-large-v1", {"lagrange": "corl", "target_gap": 5.0, "cql_alpha": 10.0}),
    # iql/hopper/medium_replay_v2.yaml, iql/hopper/medium_expert_v2.yaml, iql/door/human_v1.yaml
    ("corl", "iql", "hopper-medium-replay-v2", {"deterministic": True, "tau": 0.001}),
    ("corl", "iql", "hopper-medium-expert-v2", {"expectile": 0.5, "beta": 6.0, "tau": 0.005}),
    ("corl", "iql", "door-human-v1", {"expectile": 0.8, "beta": 3.0, "dropout": 0.1}),
    # rebrac/antmaze/medium_play_v2.yaml, rebrac/maze2d/umaze_v1.yaml
    (
        "corl",
        "rebrac",
        "antmaze-medium-play-v2",
        {
            "actor_bc_coef": 0.001,
            "critic_bc_coef": 0.0005,
            "actor_lr": 3e-4,
            "critic_lr": 5e-5,
            "gamma": 0.999,
            "reward_scale": 100.0,
            "batch_size": 256,
        },
    ),
    ("corl", "rebrac", "maze2d-umaze-v1", {"actor_bc_coef": 0.003, "critic_bc_coef": 0.001}),
    # sac_n/hopper/medium_v2.yaml, edac/pen/human_v1.yaml, edac/walker2d/medium_expert_v2.yaml
    ("corl", "sac_n", "hopper-medium-v2", {"num_critics": 500, "steps": 3_000_000}),
    ("corl", "edac", "pen-human-v1", {"num_critics": 20, "eta": 1000.0, "reward": "raw"}),
    ("corl", "edac", "walker2d-medium-expert-v2", {"num_critics": 10, "eta": 5.0}),
    # dt/walker2d/medium_v2.yaml, dt/antmaze/umaze_diverse_v2.yaml
    (
        "corl",
        "decision_transformer",
        "walker2d-medium-v2",
        {"batch_size": 4096, "actor_lr": 8e-4, "target_returns": [5000.0, 2500.0]},
    ),
    (
        "corl",
        "decision_transformer",
        "antmaze-umaze-diverse-v2",
        {"batch_size": 64, "target_returns": [1.0, 0.5, 0.25, 0.125, 0.06, 0.03], "every": 10_000},
    ),
    # ikostrikov/implicit_q_learning 09d7002, README and configs/
    ("iql-paper", "iql", "hopper-medium-v2", {"expectile": 0.7, "reward": "return range"}),
    ("iql-paper", "iql", "antmaze-large-play-v2", {"beta": 10.0, "every": 100_000}),
    ("iql-paper", "iql", "pen-human-v1", {"beta": 0.5, "dropout": 0.1, "reward": "raw"}),
    ("iql-paper", "iql", "kitchen-mixed-v0", {"beta": 0.5, "dropout": 0.1, "every": 5000}),
    # aviralkumar2907/CQL d67dbe9, README and d4rl/examples/cql_antmaze_new.py
    ("cql-paper", "cql-alpha-10", "hopper-medium-v2", {"cql_alpha": 10.0, "lagrange": "off"}),
    ("cql-paper", "cql-alpha-5", "antmaze-umaze-v2", {"reward_scale": 4.0, "reward_bias": -2.0}),
    # kzl/decision-transformer e2d82e6, gym/experiment.py
    ("dt-paper", "decision_transformer", "hopper-medium-v2", {"steps": 100_000, "batch_size": 64}),
    # tinkoff-ai/ReBRAC 694385b, configs/rebrac/
    ("rebrac-paper", "rebrac", "walker2d-random-v2", {"critic_bc_coef": 0.0, "batch_size": 1024}),
    ("rebrac-paper", "rebrac", "pen-cloned-v1", {"actor_bc_coef": 0.05, "critic_bc_coef": 0.5}),
    # tinkoff-ai/lb-sac 7253267, configs/; snu-mllab/EDAC 198d570, README
    ("edac-paper", "sac_n", "walker2d-expert-v2", {"num_critics": 100, "steps": 3_000_000}),
    ("edac-paper", "edac", "hopper-random-v2", {"num_critics": 50, "eta": 0.0}),
    ("edac-paper", "edac", "pen-cloned-v1", {"max_q_backup": True, "actor_lr": 3e-5}),
    ("edac-paper", "edac", "pen-human-v1", {"max_q_backup": False, "reward": "standardised"}),
    # sfujim/TD3_BC 8791ad7, run_experiments.sh
    ("td3-bc-paper", "td3_bc", "hopper-random-v2", {"alpha": 2.5, "every": 5000, "episodes": 10}),
]


@pytest.mark.parametrize(("name", "label", "dataset", "published"), PUBLISHED)
def test_settings_are_the_published_ones(
    name: str, label: str, dataset: str, published: dict[str, Any]
) -> None:
    jobs = expand(find_protocol(name), datasets=[dataset])
    job = next(job for job in jobs if job.label == label)
    told = {**job.config, **job.evaluation.model_dump(), "steps": job.steps}
    assert {key: told[key] for key in published} == published


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("corl", [0, 1, 2, 3]),  # four; CORL does not tell which
        ("td3-bc-paper", [0, 1, 2, 3, 4]),  # run_experiments.sh
        ("rebrac-paper", list(range(10, 20))),  # configs/sweeps/eval/rebrac_d4rl_sweep.yaml
    ],
)
def test_seeds_are_the_published_ones(name: str, seeds: list[int]) -> None:
    assert find_protocol(name).seeds == seeds


def test_the_example_of_the_documentation_is_a_protocol() -> None:
    page = Path(__file__).parents[2] / "docs" / "protocols.md"
    example = tomllib.loads(page.read_text().split("```toml\n")[1].split("```")[0])
    jobs = expand(Protocol.model_validate(example))
    assert len(jobs) == 4 * (3 + 2 * 2)
    maze, _ = (
        j for j in jobs if j.dataset.startswith("ant") and j.algorithm == "iql" and j.seed == 0
    )
    assert (maze.label, maze.config["beta"], maze.config["expectile"]) == ("iql-greedy", 10, 0.9)


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
        "reward": "raw",
        "actor_hidden": [256, 256, 256],
        "critic_hidden": [256, 256],
        "batch_size": 256,
    }
    steps, edac = configs["edac"]
    assert (steps, edac["order"], edac["initialisation"]) == (3_000_000, *["offlinerl-kit"] * 2)
    assert (edac["actor_lr"], edac["critic_lr"]) == (1e-4, 3e-4)
    steps, cql = configs["cql"]
    assert (steps, cql["order"], cql["lagrange"]) == (1_000_000, "offlinerl", "authors")
    assert (cql["actor_lr"], cql["critic_lr"], cql["bc_steps"]) == (1e-4, 3e-4, 40_000)
    assert cql["backup_entropy"]


# The grids' keys in the published logs, and ours.
GRIDS: dict[str, tuple[str, int, dict[str, str]]] = {
    "BC": ("bc", 6, {"actor_lr": "actor_lr"}),
    "TD3+BC": ("td3_bc", 9, {"alpha": "alpha", "policy_noise": "policy_noise"}),
    "CQL": ("cql", 16, {"lagrange_thresh": "target_gap", "min_q_weight": "cql_alpha"}),
    "EDAC": ("edac", 4, {"eta": "eta", "num_critics": "num_critics"}),
}


@pytest.mark.parametrize(
    ("name", "task"),
    [("neorl2-dmsd", "DMSD"), ("neorl2-safety-halfcheetah", "SafetyHalfCheetah")],
)
def test_neorl2_settings_are_those_that_the_published_table_chose(
    shared: Path, name: str, task: str
) -> None:
    """The table's cell is the setting of the grid with the highest mean return over the seeds."""
    scores: dict[tuple[str, str], list[float]] = {}
    seeds = set()
    with (shared / "scores" / "neorl2_benchmark_seeds.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["dataset"] == task:
                setting = row["algorithm"], row["hyperparameters"]
                scores.setdefault(setting, []).append(float(row["normalized_score"]))
                seeds.add(int(row["seed"]))
    found = find_protocol(name)
    assert set(found.seeds) == seeds
    configs = {job.label: job.config for job in expand(found)}
    for algorithm, (label, size, names) in GRIDS.items():
        grid = {settings: np.mean(s) for (alg, settings), s in scores.items() if alg == algorithm}
        assert len(grid) == size
        best = dict(item.split("=") for item in max(grid, key=lambda s: grid[s]).split(","))
        config = configs[label]
        if "actor_layers" in best:
            assert len(config["hidden"]) == int(best.pop("actor_layers"))
        if "min_q_version" in best:  # 3 is CQL(H), 2 is CQL(rho)
            assert config["importance_sampling"] == (best.pop("min_q_version") == "3")
        for key, value in best.items():
            assert config[names[key]] == float(value), key


@pytest.mark.parametrize(
    ("algorithm", "config", "says"),
    [
        ("iql", {"gamma": 2.0}, "gamma: Input should be less than or equal to 1, found 2.0"),
        ("bc", {"hidden": [256, 0]}, "hidden.1: Input should be greater than or equal to 1"),
        ("cql", {"n_actions": 0}, "n_actions: Input should be greater than or equal to 1"),
        ("iql", {"dropout": 1.0}, "dropout: Input should be less than 1, found 1.0"),
        ("td3_bc", {"actor_lr": 0.0}, "actor_lr: Input should be greater than 0, found 0.0"),
        ("edac", {"eta": -1.0}, "eta: Input should be greater than or equal to 0, found -1.0"),
        (
            "cql",
            {"sampled_dtype": "bf16"},
            "sampled_dtype: Input should be 'float32' or 'bfloat16'",
        ),
    ],
)
def test_a_value_out_of_range_is_named_before_anything_runs(
    algorithm: str, config: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=re.escape(f"here: {says}")):
        configure(algorithm, config, "here")


def test_settings_by_data_set_hold_for_paths_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        """
        id = "mine"
        version = 1
        title = "t"
        source = "s"
        datasets = ["sub/one.toml", "two.toml"]
        seeds = [0]
        steps = 10
        [evaluation]
        every = 10
        episodes = 1
        [algorithms.bc]
        [[algorithms.bc.on]]
        datasets = ["sub/one.toml"]
        config = { batch_size = 3 }
        [algorithms.iql]
        datasets = ["two.toml"]
        """
    )
    protocol = find_protocol(str(tmp_path / "mine.toml"))
    found = {(j.label, Path(j.dataset).name): j.config["batch_size"] for j in expand(protocol)}
    assert found == {("bc", "one.toml"): 3, ("bc", "two.toml"): 256, ("iql", "two.toml"): 256}
    chosen = expand(protocol, datasets=["two.toml"])
    assert {Path(job.dataset).name for job in chosen} == {"two.toml"}


def test_a_config_that_can_be_changed_is_refused(tmp_path: Path) -> None:
    text = TEMPLATE.read_text().replace("@dataclass(frozen=True)", "@dataclass")
    (tmp_path / "loose.py").write_text(text)
    with pytest.raises(InputError, match=r"Config is a dataclass that can be changed; write @data"):
        configure(str(tmp_path / "loose.py"), {}, "here")


def test_what_an_evaluation_adds_is_in_the_identity_only_where_it_changes_a_score(
    data: Dataset,
) -> None:
    """So that the runs of protocols without these keys stay what they are."""

    def recorded(**keys: int) -> dict[str, int]:
        evaluation = {**VALUES["evaluation"], **keys}
        (first, *_) = expand(protocol(evaluation=evaluation))
        return identity(first, data).evaluation

    plain = {"every": 10, "episodes": 4, "seed": 0}
    assert recorded() == recorded(last=1, final_episodes=4) == plain
    assert recorded(last=3, final_episodes=100) == {**plain, "last": 3, "final_episodes": 100}


def test_a_score_of_more_evaluations_than_a_run_has_is_refused_with_both_numbers() -> None:
    evaluation = {**VALUES["evaluation"], "every": 15, "last": 4}
    assert expand(protocol(evaluation=evaluation))  # at steps 15, 30, 45 and 50
    with pytest.raises(InputError, match=r"last is 5, but a run of 50 steps, .* every 15, has 4;"):
        expand(protocol(evaluation={**evaluation, "last": 5}))


def test_the_last_evaluation_alone_has_its_own_episodes() -> None:
    evaluation = Evaluation(every=10, episodes=4, final_episodes=7)
    assert [evaluation.episodes_at(step, 20) for step in (10, 20)] == [4, 7]
    assert Evaluation(every=10, episodes=4).episodes_at(20, 20) == 4


def test_a_grid_makes_a_run_of_each_combination_with_each_seed() -> None:
    grid = {"beta": [1, 10], "expectile": [0.5, 0.9]}
    entry = {"config": {"beta": 4.0, "tau": 0.01}, "grid": grid}
    entry["on"] = [{"datasets": ["pen-human-v1"], "config": {"beta": 7.0, "gamma": 0.9}}]
    jobs = expand(protocol(datasets=[FOUR[0], FOUR[3]], algorithms={"iql": entry}))
    assert [(j.seed, j.dataset, j.setting) for j in jobs] == [
        (seed, dataset, f"beta={beta}, expectile={expectile}")
        for seed in (3, 1)
        for dataset in (FOUR[0], FOUR[3])
        for beta in (1, 10)
        for expectile in (0.5, 0.9)
    ]
    assert {(j.config["beta"], j.config["tau"], j.config["gamma"]) for j in jobs} == {
        (beta, 0.01, gamma) for beta in (1, 10) for gamma in (0.9, 0.99)
    }
    assert jobs[1].title == "hopper-medium-v2 iql (beta=1, expectile=0.9) seed 3"
    assert len({j.folder(Path()) for j in jobs}) == 16
    alone = expand(protocol(datasets=FOUR[:1], algorithms={"iql": {"config": {"beta": 10.0}}}))
    of_grid = protocol(datasets=FOUR[:1], algorithms={"iql": {"grid": {"beta": [1, 10]}}})
    assert expand(of_grid)[1].folder(Path()) == alone[0].folder(Path())  # one run, however given


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"beta": []}, "beta has no value to try"),
        ({"beta": [1, 2, 1.0]}, r"beta has the value 1\.0 twice"),
        ({"beta": 3}, "valid list"),
        ({"hidden": [[8], [8.0]]}, r"hidden\.0: .*integer"),
        ({"bata": [1]}, "mine, algorithm iql: unknown config key 'bata'; did you mean 'beta'"),
        ({"beta": [1, "x"]}, "beta: .*valid number, found 'x'"),
        ({"beta": [*range(200)], "tau": [k / 999 for k in range(1, 200)]}, "makes 159,200 runs"),
    ],
)
def test_a_bad_grid_is_one_line(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(protocol(algorithms={"iql": {"grid": grid}}))
