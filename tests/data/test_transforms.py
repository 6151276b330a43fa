"""Transforms of columns, and data sets that are named by them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import npz

from offrl.data.altered import entry_name, joined, of_all_runs, of_run, parted
from offrl.data.choosing import DropActions, Mix
from offrl.data.columns import NAMES, Columns
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.deposit import write_rows
from offrl.data.describe import stats
from offrl.data.loader import writer_of
from offrl.data.resolve import resolve
from offrl.data.transforms import Corrupt, Delay, Noise, has_action
from offrl.errors import InputError
from offrl.toml import validate

GOLDEN_ROWS = [14, 15, 16]  # of Yang et al. 2024's attack.py: seed 0, 20 rows, rate 0.3
GOLDEN_DRAWS = [0.95723668, 0.59831713, -0.07704128]  # uniform in [-1, 1], the next three


def rows(count: int, length: int = 5, width: int = 3, seed: int = 0) -> Columns:
    """Episodes of equal lengths; next observations are those of the next row."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(count + 1, width)).astype(np.float32)
    ends = np.arange(1, count + 1) % length == 0
    return Columns(
        observations=states[:-1],
        actions=rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        rewards=rng.normal(size=count).astype(np.float32),
        next_observations=states[1:],
        terminations=np.zeros(count, dtype=np.bool_),
        truncations=ends,
    )


def changed(before: Columns, after: Columns) -> dict[str, list[int]]:
    """The rows in which columns differ, by the names of these columns."""
    differ = {}
    for name, one in before.arrays().items():
        odd = np.atleast_2d((one != after.arrays()[name]).T).any(0)
        differ[name] = np.flatnonzero(odd).tolist()
    return {name: numbers for name, numbers in differ.items() if numbers}


def test_corrupted_rows_are_those_of_the_reference() -> None:
    columns = rows(20)
    made = Corrupt(element="observations").made(columns)
    assert changed(columns, made) == {"observations": GOLDEN_ROWS}
    added = made.observations[14] - columns.observations[14]
    spread = columns.observations.astype(np.float64).std(0)
    assert added / spread == pytest.approx(GOLDEN_DRAWS, abs=1e-6)
    many = Corrupt(element="actions").made(rows(1000))
    assert len(changed(rows(1000), many)["actions"]) == 307


def test_corrupt_rewards_are_replaced_or_turned_around() -> None:
    columns = rows(20)
    replaced = Corrupt(element="rewards").made(columns)
    assert changed(columns, replaced) == {"rewards": GOLDEN_ROWS}
    assert replaced.rewards[14:17] == pytest.approx(30 * np.array(GOLDEN_DRAWS), abs=1e-5)
    turned = Corrupt(element="rewards", mode="adversarial", range=2.0).made(columns)
    assert changed(columns, turned) == {"rewards": GOLDEN_ROWS}
    assert np.array_equal(turned.rewards[14:17], -2 * columns.rewards[14:17])


def test_noise_on_observations_is_that_of_a_sensor() -> None:
    """What is seen after a step is what the next row begins with; its size is as asked for."""
    columns = rows(20_000)
    made = Noise(element="observations", scale=0.5).made(columns)
    inside = np.flatnonzero(~columns.truncations)
    assert np.array_equal(made.next_observations[inside], made.observations[inside + 1])
    noise = (made.observations - columns.observations).std(0)
    assert noise / columns.observations.std(0) == pytest.approx([0.5] * 3, rel=0.03)
    last = np.flatnonzero(columns.truncations)
    assert (made.next_observations[last] != columns.next_observations[last]).any(1).all()
    assert set(changed(columns, made)) == {"observations", "next_observations"}


def test_delayed_rewards_come_at_the_end_of_their_steps() -> None:
    columns = rows(10)
    columns.rewards[:] = np.arange(1, 11)
    made = Delay(steps=3).made(columns)
    assert made.rewards.tolist() == [0, 0, 6, 0, 9, 0, 0, 21, 0, 19]


def test_the_labelled_part_is_that_of_the_lower_returns() -> None:
    """Twenty episodes: without the lowest, a tenth of 19 is 1, of the lower half of the ranks."""
    columns = rows(100)
    columns.rewards[:] = np.repeat(np.random.default_rng(1).permutation(20), 5)
    made = DropActions(keep=0.2).made(columns)
    labels = has_action(made.actions)
    assert changed(columns, made) == {"actions": np.flatnonzero(~labels).tolist()}
    assert labels.sum() == 3 * 5
    assert set(made.rewards[labels].astype(int)) <= {*range(1, 10)}
    assert np.isnan(made.actions[~labels]).all()
    with pytest.raises(InputError, match="leaves the actions of none of 20 episodes"):
        DropActions(keep=0.01).made(columns)
    columns.actions = np.zeros(100, dtype=np.int64)
    assert (DropActions(keep=0.2).made(columns).actions >= 0).sum() == 15


def test_a_mixture_has_whole_episodes_of_each() -> None:
    """As in Hong et al.: of each, episodes until it has more than its share."""
    good, bad = rows(200, seed=1), rows(500, length=10, seed=2)
    mixed = Mix(of=[("bad", 0.9)]).made(good, {"bad": bad})
    held = [
        np.flatnonzero((mixed.observations[:, None] == part.observations).all(2).any(1))
        for part in (good, bad)
    ]
    assert held[0].tolist() == list(range(25))  # more than 20
    assert held[1].tolist() == list(range(25, 25 + 180))  # more than 175
    assert np.flatnonzero(mixed.truncations).tolist() == [
        *range(4, 25, 5),
        *range(34, 205, 10),
    ]
    assert "the data set itself 12.1951% (25 rows of 5 episodes)" in mixed.notes[0]
    assert "bad 87.8049% (180 rows of 18 episodes)" in mixed.notes[0]
    with pytest.raises(InputError, match="895 rows of bad, which has 500"):
        Mix(of=[("bad", 0.9)], rows=1000).made(good, {"bad": bad})
    more = Mix(of=[("bad", 0.9)], rows=1000, replace=True).made(good, {"bad": bad})
    assert len(more.rewards) > 1000
    with pytest.raises(InputError, match="bad has other observations"):
        Mix(of=[("bad", 0.9)]).made(good, {"bad": rows(20, width=4)})


MIXING = """
import sys
from offrl.data.dataset import load_dataset
import offrl.data.choosing
def most():  # kilobytes, of this process alone: ru_maxrss begins with those of its parent
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
load_dataset(sys.argv[1])
before = most()
mixed = load_dataset(f"{sys.argv[1]}+mix[{sys.argv[2]}=0.5]", check=True)
size = sum(values.nbytes for values in mixed.columns().arrays().values())
print(1024 * (most() - before) / size)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks of memory are Linux's")
def test_a_mixture_takes_less_than_twice_its_memory(tmp_path: Path) -> None:
    """Its sources, each as large as it, are mapped into memory: 3.1 times, when all at once."""
    width, count = 20, 150_000
    paths = [str(tmp_path / name) for name in ("a.npz", "b.npz")]
    for path in paths:
        part = rows(count, length=250, width=width)
        np.savez(
            path,
            observations=part.observations,
            actions=part.actions,
            rewards=part.rewards,
            next_observations=part.next_observations,
            terminals=part.terminations,
            timeouts=part.truncations,
        )
        load_dataset(path)
    words = [sys.executable, "-c", MIXING, *paths]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 2


def test_a_mixture_that_no_memory_holds_is_refused() -> None:
    parts = {"b": rows(20)}
    with pytest.raises(InputError, match=r"mix\[.*: needs at least .* of memory, but"):
        Mix(of=[("b", 0.5)], rows=10**14, replace=True).made(rows(20), parts)


def test_every_transform_repeats_itself_and_differs_by_seed() -> None:
    columns, parts = rows(100), {"b": rows(100, seed=3)}
    names = "corrupt[rewards] noise[actions] subset[share=0.5] drop-actions[keep=0.3] mix[b=0.5]"
    for name in names.split():
        first, again, other = (
            parted(f"a+{name[:-1]},seed={seed}]")[1][0].made(columns, parts) for seed in (1, 1, 2)
        )
        assert all(
            np.array_equal(first.arrays()[key], again.arrays()[key], equal_nan=key == "actions")
            for key in NAMES
        )
        assert len(first.rewards) != len(other.rewards) or changed(first, other)


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("corrupt[rewards]", "corrupt[rewards,random,rate=0.3,range=1,seed=0]"),
        (
            "corrupt[actions,rate=0.25,seed=run]",
            "corrupt[actions,random,rate=0.25,range=1,seed=run]",
        ),
        ("subset[share=0.1,by=top,seed=4]", "subset[share=0.1,by=top]"),
        ("subset[from_returns=0..0.5]", "subset[from_returns=0..0.5]"),
        ("delay[steps=20]+noise[rewards]", "delay[steps=20]+noise[rewards,scale=0.1,seed=0]"),
        ("mix[b/c.toml=0.95]", "mix[b/c.toml=0.95,replace=false,seed=0]"),
        ("drop-actions[]", "drop-actions[from_returns=0..0.5,keep=0.1,seed=0]"),
    ],
)
def test_a_name_holds_all_parameters(given: str, whole: str) -> None:
    name = joined(*parted(f"a-v2+{given}"))
    assert name == f"a-v2+{whole}" == entry_name(name)
    assert joined(*parted(name)) == name
    of_seed = of_run(name, 7)
    assert of_all_runs(of_seed) == name
    assert ("seed=run:7" in of_seed) == ("seed=run" in name)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a+corupt[rewards]", "unknown transform 'corupt'; did you mean 'corrupt'"),
        ("a+corrupt[]", r"corrupt\[\]: element: Field required"),
        ("a+corrupt[rewards,rate=2]", "rate: Input should be less than or equal to 1"),
        ("a+corrupt[rewards,level=2]", "level: Extra inputs are not permitted"),
        ("a+corrupt[actions,adversarial]", "need critic, the name of an algorithm, and updates"),
        ("a+corrupt[actions,critic=edac]", "only adversarial values other than rewards take cr"),
        ("a+corrupt[actions,adversarial,critic=a.py,updates=1]", "critic: String should match"),
        ("a+corrupt[actions,seed=-1]", "expected a whole number from 0 to 4294967295"),
        ("a+corrupt[actions,seed=run:3]", "expected a whole number or run"),
        ("a+mix[b=1]", "leave some of 1 to the data set itself"),
        ("a+mix[b\u202e=0.1]", "a name has one of .* or cannot be shown"),
        ("a+mix[=0.1]", "a name is empty"),
        ("a+mix[b=0.1,b=0.2]", "a data set stands there twice"),
        ("a+subset[seed=1]", "expected episodes, share or rows"),
        ("a+subset[from_returns=1..0]", "expected two shares that rise"),
        ({"dataset": "a", "transforms": [{"kind": "delay"}]}, "transform delay: steps: Field req"),
        ({"dataset": "a", "transforms": [{"steps": 2}]}, "unknown transform 'None'"),
        ({"dataset": "a"}, "data set: transforms: Field required"),
    ],
)
def test_a_fault_in_a_transform_is_one_line(entry: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        entry_name(entry)
    assert "\n" not in str(raised.value)


def clean(folder: Path) -> Dataset:
    return load_dataset(npz(folder / "data.npz"))


def test_an_altered_set_is_loaded_by_its_name(tmp_path: Path, own_cache: Path) -> None:
    """It is made once, keeps the card, says what was done, and has a checksum of its own."""
    data = clean(tmp_path)
    path = str(tmp_path / "data.npz")
    altered = load_dataset(f"{path}+corrupt[rewards,seed=3]", check=True)
    whole = "corrupt[rewards,random,rate=0.3,range=1,seed=3]"
    assert altered.card.id == f"{data.card.id}+{whole}"
    assert altered.notes[-1].startswith(f"{whole}: ")
    assert altered.checksum != data.checksum
    assert set(changed(data.columns(), altered.columns())) == {"rewards"}
    (folder,) = (own_cache / "altered").glob("data*")
    again = load_dataset(f"{path}+{whole}")
    assert again.folder == altered.folder == folder
    (folder / "rewards.npy").write_bytes(b"damaged")
    assert load_dataset(f"{path}+{whole}", check=True).checksum == altered.checksum
    with pytest.raises(InputError, match="a run's, which a protocol has; give a number"):
        load_dataset(f"{path}+{whole[:-2]}run]")
    seeded = load_dataset(f"{path}+{whole[:-2]}run:3]")
    assert seeded.card.id == f"{data.card.id}+{whole[:-2]}run]"
    assert seeded.checksum == altered.checksum
    with pytest.raises(InputError, match=r"transform behind .*data.npz is written as KIND\[...\]"):
        load_dataset(f"{path}+corrupt")
    for source in (f"{path}+{whole}", altered.card):
        with pytest.raises(InputError, match=r"is made of .* when it is loaded"):
            resolve(source)


def test_rows_without_actions_are_described_and_not_written(tmp_path: Path) -> None:
    clean(tmp_path)
    data = load_dataset(f"{tmp_path / 'data.npz'}+drop-actions[keep=0.5,from_returns=0..1]")
    known = data.actions[has_action(data.actions)]
    described = stats(data)
    assert len(known) == 5
    assert (described.action_min, described.action_max) == (known.min(), known.max())
    path = tmp_path / "out.parquet"
    with pytest.raises(InputError, match="15 of 20 rows have no action, which no format holds"):
        write_rows(path, data.columns(), data.card, writer_of(path)[1])
    assert not path.exists()


def test_a_data_set_of_other_columns_is_another_altered_one(
    tmp_path: Path, own_cache: Path
) -> None:
    clean(tmp_path)
    name = f"{tmp_path / 'data.npz'}+noise[rewards]"
    first = load_dataset(name)
    npz(tmp_path / "data.npz", seed=1)
    second = load_dataset(name)
    assert first.folder != second.folder
    assert first.checksum != second.checksum
    assert len([*(own_cache / "altered").glob("data*")]) == 2


def test_actions_that_are_not_known_take_no_noise() -> None:
    columns = DropActions(keep=0.5, from_returns=(0, 1)).made(rows(40))
    transforms = (Corrupt(element="actions"), Noise(element="actions"))
    for transform in transforms:
        with pytest.raises(InputError, match="some rows have no action; put drop-actions behind"):
            transform.made(columns)
    assert np.isfinite(Noise(element="observations").made(columns).observations).all()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            "corrupt[rewards,range=2e9]",
            "range: Input should be less than or equal to 1000000000, fou",
        ),
        (
            "noise[rewards,scale=2e9]",
            "scale: Input should be less than or equal to 1000000000, foun",
        ),
        ("delay[steps=1000000001]", "steps: Input should be less than or equal to 1000000000, fo"),
        ("corrupt[rewards,adversarial,range=1e9]", r"range=1000000000,seed=0\]: makes rewar"),
        ("corrupt[observations,range=1e9]", "makes observations that are larger than float32"),
        ("noise[observations,scale=1e9]", r"scale=1000000000,seed=0\]: makes obse"),
        ("delay[steps=1000]", r"delay\[steps=1000\]: makes rewards that are larger than float32"),
        ("subset[rows=3]", "the first episode has 5 rows, more than 3; choose more rows"),
        ("subset[from_returns=0..0.01]", "no episode of 20 has a return in that range; widen fro"),
        ("subset[episodes=21]", "21 episodes of 20 that are eligible; choose fewer"),
    ],
)
def test_what_no_data_set_can_be_made_of_is_refused_by_name(transform: str, message: str) -> None:
    columns = rows(100)
    columns.rewards[:] = 1e38
    columns.observations *= 1e30
    with pytest.raises(InputError, match=message) as raised:
        parted(f"a+{transform}")[1][0].made(columns)
    assert "\n" not in str(raised.value)


def test_discrete_actions_take_no_noise() -> None:
    columns = rows(20)
    columns.actions = np.zeros(20, dtype=np.int64)
    for transform in (Corrupt(element="actions"), Noise(element="actions")):
        with pytest.raises(InputError, match="its actions are discrete"):
            transform.made(columns)
    assert validate(Noise, {"element": "rewards"}, "noise").made(columns).actions is columns.actions
