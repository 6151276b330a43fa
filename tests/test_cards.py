from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offrl.card import find_card, read_card, shipped_cards
from offrl.dataset import check, load_dataset, stats
from offrl.download import fetch
from offrl.errors import InputError

# d4rl/infos.py, REF_MIN_SCORE and REF_MAX_SCORE
D4RL = {
    "halfcheetah": (-280.178953, 12135.0, "HalfCheetah-v4"),
    "hopper": (-20.272305, 3234.3, "Hopper-v4"),
    "walker2d": (1.629008, 4592.3, "Walker2d-v4"),
}


def test_every_card_says_where_from_and_under_what_licence() -> None:
    for name, card in shipped_cards().items():
        source = card.source
        assert card.licence, name
        assert card.citation or source.maker, name
        assert source.files or source.minari_id or source.maker, name
        for file in [*source.files, *source.validation]:
            assert file.urls, f"{name}: {file.name}"
            assert file.urls[0].endswith("/" + file.name)
        assert card.environment is not None, name
        if card.reference is not None:
            assert card.reference.min < card.reference.max, name
            assert card.reference.source, name


@pytest.mark.parametrize("task", D4RL)
@pytest.mark.parametrize("quality", ["medium", "medium-replay", "medium-expert"])
def test_d4rl_cards(task: str, quality: str) -> None:
    card = find_card(f"{task}-{quality}-v2")
    low, high, environment = D4RL[task]
    assert card.reference is not None
    assert (card.reference.min, card.reference.max) == (low, high)
    assert card.environment is not None
    assert (card.environment.id, card.environment.max_episode_steps) == (environment, 1000)
    name = f"{task}_{quality.replace('-', '_')}-v2.hdf5"
    root = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/"
    assert card.source.files[0].urls[0] == root + name
    assert card.view == "qlearning"
    assert card.licence == "CC BY 4.0"


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
        ('licence = "none"', 'licence = "none"\nview = "all"', r"view: .*'transitions' or 'qlea"),
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
