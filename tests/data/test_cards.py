from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from sources import npz

from offrl.data.card import Card, Environment, find_card, read_card, shipped_cards
from offrl.data.dataset import load_dataset
from offrl.data.describe import check, stats
from offrl.data.families import family_tables
from offrl.data.fetch import fetch
from offrl.errors import InputError
from offrl.toml import validate

# d4rl/infos.py, REF_MIN_SCORE and REF_MAX_SCORE
D4RL = {
    "halfcheetah": (-280.178953, 12135.0, "HalfCheetah"),
    "hopper": (-20.272305, 3234.3, "Hopper"),
    "walker2d": (1.629008, 4592.3, "Walker2d"),
    "ant": (-325.6, 3879.7, "Ant"),
}


def test_every_card_says_where_from_and_under_what_licence() -> None:
    for name, card in shipped_cards().items():
        source = card.source
        assert card.licence, name
        assert card.citation or source.maker, name
        assert source.files or source.id or source.maker, name
        for file in [*source.files, *source.validation]:
            # The authors publish these demonstrations as a pickle, and offrl reads none.
            assert file.urls or name == "door-human-dapg", f"{name}: {file.name}"
            assert all(url.endswith("/" + file.name) for url in file.urls)
        assert card.family, name
        if not card.scored:
            assert "No environment" in card.notes or "no references" in card.notes, name
        if card.reference is not None:
            assert card.reference.min < card.reference.max, name
            assert card.reference.source, name


FAMILIES = """
[defaults]
version = 1
licence = "none"
citation = "none"
source.loader = "d4rl"
source.bases = ["http://a/", "http://b/"]
reference.source = "counted"

["{robot}-{size}"]
each = [
  [{ robot = "x", low = 1, set = "{size} x" }, { robot = "y", low = 2.5, set = "y" }],
  [{ size = "big" }, { size = "small" }],
]
title = "{size} {robot}, {{other}}"
group = "{set}"
source.files = [{ name = "{robot}.hdf5" }, { name = "{size}.hdf5", urls = ["http://c"] }]
reference.min = "{low}"
reference.max = 9

[single]
title = "alone"
source.files = [{ name = "z.hdf5" }]
source.bases = []
reference = { min = 0, max = 1 }
"""


def cards_of(path: Path) -> dict[str, Card]:
    return {name: validate(Card, table, where) for name, table, where in family_tables(path)}


def test_a_table_may_stand_for_several_data_sets(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text(FAMILIES)
    tables = cards_of(path)
    assert list(tables) == ["x-big", "x-small", "y-big", "y-small", "single"]
    card = tables["y-small"]
    assert card.title == "small y, {{other}}"
    assert (card.group, tables["x-big"].group) == ("y", "big x")
    assert [file.urls for file in card.source.files] == [
        ["http://a/y.hdf5", "http://b/y.hdf5"],
        ["http://c"],
    ]
    assert card.reference is not None
    assert card.reference.min == 2.5
    assert tables["single"].source.files[0].urls == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[single]", "[x-big]", r"\[x-big\]: 'x-big' has a table already; give each id once"),
        ("[{ size", "[3, { size", r"each: expected lists of tables of words, found \["),
        ("\n[defaults]", "alone = 3\n[defaults]", r"expected a table per data set, found 3"),
        ("size = ", "siz = ", r"id: .*pattern.*, found 'x-\{size\}'"),
        ('"http://b/"', "3", r"source\.bases: unknown key"),
    ],
)
def test_a_mistaken_family_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "f.toml"
    path.write_text(after.join(FAMILIES.split(before)))
    with pytest.raises(InputError, match=message):
        cards_of(path)


# d4rl/infos.py: of each family of sets one, chosen for what is odd about its address.
@pytest.mark.parametrize(
    ("name", "address", "low", "high"),
    [
        ("walker2d-medium-replay-v0", "gym_mujoco/walker_mixed.hdf5", 1.629008, 4592.3),
        ("hopper-full-replay-v1", "gym_mujoco_v1/hopper_full_replay-v1.hdf5", -20.272305, 3234.3),
        ("ant-medium-expert-v2", "gym_mujoco_v2/ant_medium_expert-v2.hdf5", -325.6, 3879.7),
        ("ant-medium-replay-v0", "gym_mujoco/ant_mixed.hdf5", -325.6, 3879.7),
        (
            "hammer-cloned-v0",
            "hand_dapg/hammer-demos-v0-bc-combined.hdf5",
            -274.856578,
            12794.134825156867,
        ),
        ("maze2d-open-dense-v0", "maze2d/maze2d-open-dense.hdf5", 11.17817, 27.166538620695782),
        ("maze2d-eval-large-v1", "maze2d/maze2d-eval-large-sparse-v1.hdf5", 16.4, 302.22),
        ("maze2d-medium-v0", "maze2d/maze2d-medium-sparse.hdf5", 5.77, 85.14),
        (
            "antmaze-large-play-v0",
            "ant_maze_new/Ant_maze_hardest-maze_noisy_multistart_True_multigoal_False_sparse.hdf5",
            0,
            1,
        ),
        ("flow-merge-controller-v0", "flow/flow-merge-v0-idm.hdf5", 118.67993, 330.03179),
        (
            "carla-town-v0",
            "carla/carla_town_subsamp_flat-v0.hdf5",
            -114.81579500772153,
            2440.1772022247314,
        ),
        ("minigrid-fourrooms-random-v0", "minigrid/minigrid4rooms_random.hdf5", 0.01442, 2.89685),
        (
            "bullet-ant-medium-replay-v0",
            "bullet/bullet-ant_medium_replay.hdf5",
            373.705955,
            2650.495,
        ),
        ("bullet-maze2d-umaze-v0", "bullet/bullet-maze2d-umaze-sparse.hdf5", 32.46, 153.99),
    ],
)
def test_d4rls_other_cards(name: str, address: str, low: float, high: float) -> None:
    card = find_card(name)
    root = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"
    assert card.source.files[0].urls[0] == root + address
    assert card.reference is not None
    assert (card.reference.min, card.reference.max) == (low, high)


# neorl2/envs/info.py of polixir/NeoRL2
@pytest.mark.parametrize(
    ("name", "task", "low", "high", "md5"),
    [
        ("pipeline", "Pipeline", -296, 751, "59902b333be6edb9252acfc2302cc1ed"),
        ("simglucose", "Simglucose", 9.75, 475, "6195a3634379f576958440b7e0c8fc53"),
        ("rocket-recovery", "RocketRecovery", -176, 208, "b1a7bf1ec16cfef390b6b1cec2b13ddc"),
        (
            "random-friction-hopper",
            "RandomFrictionHopper",
            -3,
            503,
            "3ef2c41483689729d3b5a3aef3b7b8f7",
        ),
        ("fusion", "Fusion", -107.601, 98.05, "98979f97e0b59dd46bbb9237176a68ab"),
    ],
)
def test_neorl2_cards(name: str, task: str, low: float, high: float, md5: str) -> None:
    card = find_card(f"neorl2-{name}")
    (file,) = card.source.files
    assert (file.name, file.md5) == (f"{task}-train.npz", md5)
    assert file.urls[0] == f"http://datasets.polixir.site/neorl2/{task}/{task}-train.npz"
    assert card.reference is not None
    assert (card.reference.min, card.reference.max) == (low, high)


# Logs of Decision Transformer (mean return and rows of finished episodes), and episodes by
# the catalogue of TensorFlow Datasets, an unfinished last one included.
@pytest.mark.parametrize(
    ("name", "rows", "mean", "finished_rows", "with_last"),
    [
        ("halfcheetah-medium-v2", 1_000_000, 4770.335, 1_000_000, 1000),
        ("halfcheetah-medium-replay-v2", 202_000, 3093.286, 202_000, 202),
        ("halfcheetah-expert-v2", 1_000_000, 10656.426, 1_000_000, 1000),
        ("hopper-medium-v2", 1_000_000, 1422.056, 999_906, 2187),
        ("hopper-medium-replay-v2", 402_000, 467.302, 402_000, 2041),
        ("walker2d-medium-v2", 1_000_000, 2852.088, 999_995, 1191),
        ("walker2d-medium-replay-v2", 302_000, 682.701, 302_000, 1093),
    ],
)
def test_counts_of_d4rls_files(
    name: str, rows: int, mean: float, finished_rows: int, with_last: int
) -> None:
    expected = find_card(name).expected
    assert (expected.transitions, expected.mean_return) == (rows, mean)
    assert expected.episodes == with_last - (finished_rows < rows)


# The pages below minari.farama.org/main/datasets, of each namespace one or two.
@pytest.mark.parametrize(
    ("name", "source", "steps", "episodes"),
    [
        ("minari-relocate-cloned-v2", "D4RL/relocate/cloned-v2", 1_000_000, 3758),
        ("minari-pen-expert-v2", "D4RL/pen/expert-v2", 499_206, 4958),
        ("minari-pointmaze-open-dense-v2", "D4RL/pointmaze/open-dense-v2", 1_000_000, 9525),
        ("minari-antmaze-umaze-diverse-v1", "D4RL/antmaze/umaze-diverse-v1", 1_000_000, 1430),
        ("minari-fourrooms-random-v0", "D4RL/minigrid/fourrooms-random-v0", 1_000_070, 10_174),
        ("minari-walker2d-medium-v0", "mujoco/walker2d/medium-v0", 999_613, 1044),
        ("minari-humanoidstandup-simple-v0", "mujoco/humanoidstandup/simple-v0", 1_000_000, 1000),
        (
            "minari-BabyAI-KeyCorridor-v0",
            "minigrid/BabyAI-KeyCorridor/optimal-v0",
            110_708,
            1000,
        ),
        (
            "minari-BabyAI-GoToObjS6-fullobs-v0",
            "minigrid/BabyAI-GoToObjS6/optimal-fullobs-v0",
            2498,
            1000,
        ),
        ("minari-atari-upndown-v0", "atari/upndown/expert-v0", 262_276, 10),
        ("minari-metaworld-hammer-v0", "metaworld/hammer/expert-v0", 25_000, 50),
    ],
)
def test_minari_cards(name: str, source: str, steps: int, episodes: int) -> None:
    card = find_card(name)
    assert card.source.id == source
    assert (card.expected.transitions, card.expected.episodes) == (steps, episodes)


@pytest.mark.parametrize(
    ("namespace", "sets"),
    [("D4RL", 31), ("mujoco", 28), ("minigrid", 170), ("atari", 57), ("metaworld", 50)],
)
def test_cards_of_minaris_namespaces(namespace: str, sets: int) -> None:
    ids = [card.source.id or "" for card in shipped_cards().values()]
    assert sum(name.startswith(f"{namespace}/") for name in ids) == sets


# normalizing_boundaries.json of CarloRomeo427/ASPEQ at 6ca4054
@pytest.mark.parametrize(
    ("body", "low", "high", "limit"),
    [
        ("Hopper", 16.85648238301579, 3857.803603002423, 1000),
        ("InvertedPendulum", 5.196, 1000.0, 1000),
        ("Reacher", -43.38096210332422, -4.3438852096245055, 50),
    ],
)
def test_minaris_robots_are_scored_between_a_random_policy_and_the_expert_data(
    body: str, low: float, high: float, limit: int
) -> None:
    card = find_card(f"minari-{body.lower()}-expert-v0")
    environment, reference = card.scoring()
    assert (reference.min, reference.max, card.expected.mean_return) == (low, high, high)
    assert (environment.id, environment.max_episode_steps) == (f"{body}-v5", limit)
    with gymnasium.make(environment.id, max_episode_steps=limit) as simulator:
        simulator.action_space.seed(0)
        returns = np.array([_random_return(simulator, seed) for seed in range(100)])
    spread = returns.std(ddof=1) / np.sqrt(len(returns))
    assert abs(returns.mean() - low) < 3 * spread


def _random_return(simulator: gymnasium.Env[Any, Any], seed: int) -> float:
    simulator.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        _, reward, terminated, truncated, _ = simulator.step(simulator.action_space.sample())
        total, ended = total + float(reward), terminated or truncated
    return total


def test_check_says_what_a_card_does_not_know() -> None:
    assert find_card("neorl2-dmsd").unknown == []
    assert find_card("neorl2-fusion").unknown == ["transitions", "episodes", "mean return"]
    assert find_card("hopper-medium-v2").unknown == []
    assert find_card("hopper-random-v2").unknown == [
        "transitions",
        "episodes",
        "mean return",
        "the checksum of hopper_random-v2.hdf5",
    ]
    assert find_card("minari-door-human-v2").unknown == ["mean return"]


@pytest.mark.parametrize("task", D4RL)
@pytest.mark.parametrize(
    "quality", ["random", "medium", "expert", "medium-replay", "medium-expert", "full-replay"]
)
def test_d4rl_cards(task: str, quality: str) -> None:
    card = find_card(f"{task}-{quality}-v2")
    low, high, robot = D4RL[task]
    assert card.reference is not None
    assert (card.reference.min, card.reference.max) == (low, high)
    assert card.environment is not None
    assert card.environment.id == f"offrl.datasets.d4rl_locomotion:offrl/{robot}-D4RL-v2"
    assert card.environment.max_episode_steps == 1000
    assert card.version == 2  # 1 was scored in Gymnasium's v4, the ant's not at all
    name = f"{task}_{quality.replace('-', '_')}-v2.hdf5"
    root = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/"
    assert card.source.files[0].urls[0] == root + name
    assert card.view == "qlearning"
    assert card.licence == "CC BY 4.0"


# d4rl/infos.py for URLs and references; the step limits are those of d4rl's registrations.
ADROIT = {
    "pen": (96.262799, 3076.8331017826877, 100),
    "door": (-56.512833, 2880.5693087298737, 200),
    "hammer": (-274.856578, 12794.134825156867, 200),
    "relocate": (-6.425911, 4233.877797728884, 200),
}
MAZES = {
    "antmaze-umaze-v2": ("u-maze_noisy_multistart_False_multigoal_False", 0, 1, "UMaze", 700),
    "antmaze-umaze-diverse-v2": ("u-maze_noisy_multistart_True_multigoal_True", 0, 1, "UMaze", 700),
    "antmaze-medium-play-v2": (
        "big-maze_noisy_multistart_True_multigoal_False",
        0,
        1,
        "Medium",
        1000,
    ),
    "antmaze-medium-diverse-v2": (
        "big-maze_noisy_multistart_True_multigoal_True",
        0,
        1,
        "Medium",
        1000,
    ),
    "antmaze-large-play-v2": (
        "hardest-maze_noisy_multistart_True_multigoal_False",
        0,
        1,
        "Large",
        1000,
    ),
    "antmaze-large-diverse-v2": (
        "hardest-maze_noisy_multistart_True_multigoal_True",
        0,
        1,
        "Large",
        1000,
    ),
    "maze2d-umaze-v1": ("maze2d-umaze-sparse-v1", 23.85, 161.86, "UMaze", 300),
    "maze2d-medium-v1": ("maze2d-medium-sparse-v1", 13.13, 277.39, "Medium", 600),
    "maze2d-large-v1": ("maze2d-large-sparse-v1", 6.7, 273.99, "Large", 800),
    "maze2d-umaze-dense-v1": (
        "maze2d-umaze-dense-v1",
        68.537689,
        193.66285642381482,
        "UMazeDense",
        300,
    ),
    "maze2d-medium-dense-v1": (
        "maze2d-medium-dense-v1",
        44.264742,
        297.4552547777125,
        "MediumDense",
        600,
    ),
    "maze2d-large-dense-v1": (
        "maze2d-large-dense-v1",
        30.569041,
        303.4857382709002,
        "LargeDense",
        800,
    ),
}


@pytest.mark.parametrize("task", ADROIT)
@pytest.mark.parametrize("quality", ["human", "cloned", "expert"])
def test_adroit_cards(task: str, quality: str) -> None:
    card = find_card(f"{task}-{quality}-v1")
    low, high, steps = ADROIT[task]
    assert card.reference is not None
    assert (card.reference.min, card.reference.max) == (low, high)
    assert card.environment is not None
    assert card.environment.id == f"offrl.datasets.adroit:offrl/AdroitHand{task.title()}-v0"
    assert card.environment.max_episode_steps == steps
    root = "http://rail.eecs.berkeley.edu/datasets/offline_rl/hand_dapg_v1/"
    assert card.source.files[0].urls[0] == f"{root}{task}-{quality}-v1.hdf5"
    assert card.view == "qlearning"


# kitchen/__init__.py of d4rl
KITCHEN = {
    "complete": ("mini_kitchen_microwave_kettle_light_slider", "LightSlider"),
    "partial": ("kitchen_microwave_kettle_light_slider", "LightSlider"),
    "mixed": ("kitchen_microwave_kettle_bottomburner_light", "BurnerLight"),
}


@pytest.mark.parametrize("name", KITCHEN)
def test_kitchen_cards(name: str) -> None:
    card = find_card(f"kitchen-{name}-v0")
    file, elements = KITCHEN[name]
    root = "http://rail.eecs.berkeley.edu/datasets/offline_rl/kitchen/"
    assert card.source.files[0].urls == [f"{root}{file}-v0.hdf5"]
    environment, reference = card.scoring()
    assert (reference.min, reference.max) == (0, 4)
    assert environment.id == f"offrl.datasets.d4rl_kitchen:offrl/Kitchen{elements}-v0"
    assert environment.max_episode_steps == 280
    assert card.view == "qlearning"


@pytest.mark.parametrize("name", MAZES)
def test_maze_cards(name: str) -> None:
    card = find_card(name)
    file, low, high, maze, steps = MAZES[name]
    folder, name = ("maze2d", file)
    simulator = f"offrl.datasets.d4rl_maze2d:offrl/Maze2d{maze}-v1"
    if card.id.startswith("antmaze"):
        folder, name = "ant_maze_v2", f"Ant_maze_{file}_sparse_fixed"
        simulator = f"offrl.datasets.d4rl_antmaze:offrl/AntMaze{maze}-v2"
    root = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"
    assert card.source.files[0].urls[0] == f"{root}{folder}/{name}.hdf5"
    assert card.reference is not None
    assert (card.reference.min, card.reference.max) == (low, high)
    assert card.environment is not None
    assert (card.environment.id, card.environment.max_episode_steps) == (simulator, steps)
    assert card.version == 2  # 1 had no simulator


def test_the_demonstrations_are_not_taken_for_d4rls() -> None:
    ours, d4rls = find_card("door-human-dapg"), find_card("door-human-v1")
    assert ours.environment == d4rls.environment
    assert ours.reference == d4rls.reference
    assert ours.source != d4rls.source
    assert "Not D4RL's door-human-v1" in ours.notes


# References: neorl2/envs/info.py of polixir/NeoRL2. Means: measured on the published files.
@pytest.mark.parametrize(
    ("name", "low", "high", "mean", "score", "validation", "rows"),
    [
        ("neorl2-dmsd", 30.60, 849.51, 494.453, 56.64, 55.03, (100_000, 1000, 20_000, 200)),
        ("neorl2-safety-halfcheetah", -283, 2507, 1769.308, 73.56, 69.52, (18_000, 18, 2_000, 2)),
    ],
)
def test_neorl2_data_are_the_published_ones(
    shared: Path,
    name: str,
    low: float,
    high: float,
    mean: float,
    score: float,
    validation: float,
    rows: tuple[int, int, int, int],
) -> None:
    card = find_card(name)
    assert card.reference is not None
    assert (card.reference.min, card.reference.max) == (low, high)
    fetch(card, shared / "data" / "neorl2")
    data = load_dataset(name)
    other = data.validation
    assert other is not None
    assert (len(data), len(data.episode_starts)) == rows[:2]
    assert (len(other), len(other.episode_starts)) == rows[2:]
    assert data.episode_returns.mean() == pytest.approx(mean, abs=5e-4)
    assert float(data.normalized(data.episode_returns.mean())) == pytest.approx(score, abs=5e-3)
    assert float(other.normalized(other.episode_returns.mean())) == pytest.approx(
        validation, abs=5e-3
    )
    inside = ~data.truncations[:-1]
    np.testing.assert_array_equal(
        data.next_observations[:-1][inside], data.observations[1:][inside]
    )
    assert not data.terminations.any()
    assert stats(data).actions_outside == 0
    assert len(check(name).files) == 2


def test_published_d4rl_means_are_read_from_the_whole_file() -> None:
    # half medium, half expert: the mean of the two published means
    halves = (4770.335 + 10656.426) / 2
    card = find_card("halfcheetah-medium-expert-v2")
    assert card.expected.mean_return == pytest.approx(halves, abs=1e-3)
    assert find_card("walker2d-medium-v2").expected.episodes == 1190  # and 5 rows cut off


TINY = """
id = "mine"
version = 1
title = "mine"
licence = "none"
citation = "none"
[source]
loader = "neorl2"
files = [{ name = "a.npz" }]
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("version = 1", 'version = "1"', r"mine\.toml: version: .*integer, found '1'"),
        ("version = 1", "version = 0", r"version: .*greater than or equal to 1, found 0"),
        ("title", "titel", r"titel: unknown key 'titel'; did you mean 'title'\?"),
        ("loader", "lodaer", r"source\.lodaer: unknown key .*'loader'\?"),
        ("name =", "nmae =", r"source\.files\.0\.nmae: unknown key .*'name'\?"),
        ('id = "mine"', 'id = "my set"', r"id: .*pattern.*, found 'my set'"),
        ('"a.npz" }]', '"a.npz" }', r"mine\.toml: expected a TOML file, but"),
        (
            'licence = "none"',
            'licence = "none"\nview = "all"',
            r"unknown view 'all'; expected one of: tr",
        ),
        ('"neorl2"', '"neorl3"', r"unknown loader 'neorl3'; did you mean 'neorl2'\?"),
    ],
)
def test_a_mistaken_card_names_file_key_and_value(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TINY.replace(before, after))
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)


def test_files_without_urls_are_relative_to_the_card(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TINY.replace('"a.npz" }', '"a.npz" }, { name = "b.npz", urls = ["http://x"] }'))
    files: Any = read_card(path).source.files
    assert [file.name for file in files] == [str(tmp_path / "a.npz"), "b.npz"]


def test_a_list_of_wrappers_is_recorded_only_where_there_is_one() -> None:
    """So that a run recorded before there were any is carried on."""
    keys: dict[str, Any] = {
        "id": "A-v0",
        "max_episode_steps": 3,
        "kwargs": {},
        "observation_keys": [],
    }
    assert Environment(**keys).model_dump() == keys
    named = Environment(**keys, entry_point="a:B")
    assert named.model_dump(exclude={"entry_point"}) == keys  # as a run records it
    wrapper = {"entry_point": "gymnasium.wrappers:ClipAction", "kwargs": {}}
    wrapped = Environment.model_validate(keys | {"wrappers": [wrapper]})
    assert wrapped.model_dump() == keys | {"wrappers": [wrapper]}
    assert Environment.model_validate(wrapped.model_dump()) == wrapped
    with pytest.raises(ValueError, match="max_episode_steps"):
        Environment(id="A-v0", max_episode_steps=10**20)


def test_references_that_are_equal_or_swapped_leave_the_data_readable(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz")
    path = tmp_path / "mine.toml"
    path.write_text(f"{TINY}[reference]\nmin = 2.0\nmax = 1.0\nsource = 'mine'\n")
    data = load_dataset(path)
    assert data.notes == [
        "reference returns are 2 (min) and 1 (max): min must be below, so no return can be scored"
    ]
    assert stats(data).score_mean is None
    with pytest.raises(InputError, match=r"mine: reference returns are .*; correct \[reference\]"):
        data.normalized(1.5)
    environment = Environment(id="Pendulum-v1", max_episode_steps=5)
    with pytest.raises(InputError, match=r"mine: reference returns are .* cannot be scored"):
        data.card.model_copy(update={"environment": environment}).scoring()
