"""Data sets that are written: to other formats and back, and as subsets with a lineage."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from sources import npz

from offrl.data.card import File, Source
from offrl.data.choices import MOST_CHOICES, Choices
from offrl.data.choosing import Subset
from offrl.data.columns import Columns
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.deposit import deposit, deposit_derived, write_rows
from offrl.data.loader import writer_of
from offrl.errors import InputError


def source(folder: Path) -> Dataset:
    """Four episodes of five steps, of which the second and the last terminate."""
    data = load_dataset(npz(folder / "data.npz"))
    columns = {name: np.array(values) for name, values in data.columns().arrays().items()}
    columns["terminations"][[9, 19]] = True
    columns["truncations"][[9, 19]] = False
    columns["truncations"][19] = True  # both
    for name, values in columns.items():
        setattr(data, name, values)
    return data


def test_rows_whose_card_cannot_be_written_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_path: Path) -> str:
        raise KeyboardInterrupt

    columns = source(tmp_path).columns()
    with monkeypatch.context() as patched:
        patched.setattr("offrl.data.deposit.digest", stopped)
        with pytest.raises(KeyboardInterrupt):
            deposit(columns, tmp_path / "mine.toml", {"title": "mine"})
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz"}
    deposit(columns, tmp_path / "mine.toml", {"title": "mine"})
    with pytest.raises(InputError, match="is there already"):
        deposit(columns, tmp_path / "mine.toml", {"title": "mine"})


def exported(data: Dataset, path: Path) -> Path:
    write_rows(path, data.columns(), data.card, writer_of(path)[1])
    return path


def test_numbered_columns_after_a_gap_are_named(tmp_path: Path) -> None:
    frame = pd.read_parquet(exported(source(tmp_path), tmp_path / "whole.parquet"))
    gap = frame.rename(columns={"observation_1": "observation_7", "action_1": "action_3"})
    gap.drop(columns="next_observation_1").to_parquet(tmp_path / "gap.parquet")
    data = load_dataset(tmp_path / "gap.parquet")
    assert data.observations.shape == data.actions.shape == (20, 1)
    assert data.notes == [
        "left out, as the numbers before them have a gap: observation_7, observation_2, action_3, "
        "next_observation_2"
    ]


@pytest.mark.parametrize("name", ["back.parquet", "back.hdf5", "back.h5", "back"])
def test_an_export_is_read_back_without_loss(name: str, tmp_path: Path) -> None:
    data = source(tmp_path)
    back = load_dataset(exported(data, tmp_path / name))
    for column in data.columns().arrays():
        ours, theirs = getattr(data, column), getattr(back, column)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), column
    assert back.notes == []


def discrete(folder: Path, choices: Choices) -> Dataset:
    """The same with discrete actions, of which the first three occur."""
    data = source(folder)
    data.actions = np.arange(20, dtype=np.int64) % 3
    data.card = data.card.model_copy(update={"actions": choices})
    return data


LONG = [f"dose {k}, by the vein or the mouth" for k in range(MOST_CHOICES)]  # 350 kB


@pytest.mark.parametrize("name", ["back.parquet", "back.hdf5", "back.h5", "back"])
@pytest.mark.parametrize(
    "choices",
    [
        Choices(count=4),
        Choices(count=4, names=["left", "", '<b>"right"', "rechts é\n"]),
        Choices(count=MOST_CHOICES, names=LONG),
    ],
    ids=["count", "names", "most"],
)
def test_discrete_actions_come_back_with_their_names(
    name: str, choices: Choices, tmp_path: Path
) -> None:
    data = discrete(tmp_path, choices)
    path = exported(data, tmp_path / name)
    back = load_dataset(path)
    assert back.card.actions == choices
    assert back.actions.dtype == np.int64
    assert np.array_equal(back.actions, data.actions)
    assert load_dataset(path).card.actions == choices  # from the cache


def without_choices(path: Path) -> None:
    """An export as earlier versions wrote it."""
    if path.suffix == ".parquet":
        parquet.write_table(parquet.read_table(path).replace_schema_metadata(None), path)
    else:
        with h5py.File(path, "a") as file:
            del file["actions"].attrs["choices"]


@pytest.mark.parametrize("name", ["back.parquet", "back.hdf5"])
def test_a_file_that_does_not_count_its_actions_needs_a_card(name: str, tmp_path: Path) -> None:
    data = discrete(tmp_path, Choices(count=3, names=["a", "b", "c"]))
    path = exported(data, tmp_path / name)
    without_choices(path)
    with pytest.raises(InputError, match=r"give a card with actions\.count"):
        load_dataset(path)
    files = [File(name=str(path))]
    card = data.card.model_copy(update={"source": Source(loader=writer_of(path)[0], files=files)})
    assert np.array_equal(load_dataset(card).actions, data.actions)


def with_text(path: Path, text: bytes) -> None:
    """Puts another text into an export, in the place of its choices."""
    if path.suffix == ".parquet":
        table = parquet.read_table(path).replace_schema_metadata({"offrl.actions": text})
        parquet.write_table(table, path)
    elif path.suffix:
        with h5py.File(path, "a") as file:
            file["actions"].attrs["choices"] = np.bytes_(text)
    else:
        metadata = path / "metadata.json"
        values = json.loads(metadata.read_text()) | {"offrl_actions": text.decode("latin-1")}
        metadata.write_text(json.dumps(values))


@pytest.mark.parametrize("name", ["back.parquet", "back.hdf5", "back"])
def test_odd_choices_of_a_file_are_one_line(name: str, tmp_path: Path) -> None:
    path = exported(discrete(tmp_path, Choices(count=3)), tmp_path / name)
    for text, message in [
        (b"{", "expected JSON such as"),
        (b"\xff", "expected JSON such as"),
        (b"[" * 10_000, "expected JSON such as"),
        (b"[1]", "dictionary"),
        (b'{"count": 1%s}' % (b"0" * 5_000), "expected JSON such as"),
        (b'{"count": NaN}', "count: Input should be a valid integer"),
        (b'{"count": 10001}', "count: Input should be less than or equal to 10000"),
        (b'{"count": 3, "colour": 1}', "colour: unknown key"),
        (b'{"count": 3, "names": ["a", "b"]}', "2 names, 2 of them distinct, for 3 actions"),
        (b'{"count": 3, "names": ["a", "b", "c\\u0000"]}', "NUL"),
        (b'{"count": 3, "names": ["a", "b", "\\ud800"]}', "half a character"),
        (b'{"count": 2}', "2 discrete actions|names 2 actions, but the action_space has 3"),
        (b" " * (2**24 + 1), "at most 16,777,216 are read"),
    ]:
        with_text(path, text)
        with pytest.raises(InputError, match=message) as error:
            load_dataset(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600


@pytest.mark.parametrize("value", ["text", ["a", "b"], 3, h5py.Empty("S3")])
def test_choices_of_an_hdf5_file_have_a_size_before_they_are_read(
    value: Any, tmp_path: Path
) -> None:
    path = exported(discrete(tmp_path, Choices(count=3)), tmp_path / "back.hdf5")
    with h5py.File(path, "a") as file:
        file["actions"].attrs["choices"] = value
    with pytest.raises(InputError, match="expected one text of fixed length"):
        load_dataset(path)


def test_what_minari_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    data = source(tmp_path)
    data.next_observations[2] += 1
    with pytest.raises(InputError, match="next observation of row 2 is not the observation of row"):
        exported(data, tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]
    exported(data, tmp_path / "back.hdf5")  # which holds next observations


def test_an_export_replaces_nothing(tmp_path: Path) -> None:
    data = source(tmp_path)
    for name in ("there.parquet", "there"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match="is there already"):
            exported(data, tmp_path / name)
    with pytest.raises(InputError, match=r"no loader writes such files; expected .*\.parquet"):
        exported(data, tmp_path / "back.xlsx")


def returns(columns: Columns) -> list[float]:
    ends = np.flatnonzero(columns.terminations | columns.truncations)
    return [float(part.sum()) for part in np.split(columns.rewards, ends[:-1] + 1)]


def test_a_subset_is_whole_episodes_in_their_order(tmp_path: Path) -> None:
    """The episodes' returns are 10, 35, 60 and 85."""
    columns = source(tmp_path).columns()
    assert returns(Subset(episodes=2, by="first").made(columns)) == [10, 35]
    assert returns(Subset(episodes=2, by="top").made(columns)) == [60, 85]
    assert returns(Subset(share=0.5, by="bottom").made(columns)) == [10, 35]
    assert returns(Subset(share=0.01).made(columns)) in ([10], [35], [60], [85])
    assert returns(Subset(share=1).made(columns)) == [10, 35, 60, 85]


def test_random_subsets_lie_inside_each_other(tmp_path: Path) -> None:
    columns = source(tmp_path).columns()
    for seed in range(5):
        nested = [{*returns(Subset(episodes=k, seed=seed).made(columns))} for k in (1, 2, 3)]
        assert nested[0] < nested[1] < nested[2]
    drawn = {tuple(returns(Subset(episodes=1, seed=seed).made(columns))) for seed in range(20)}
    assert len(drawn) == 4


def test_a_subset_keeps_its_simulator_and_says_where_it_comes_from(tmp_path: Path) -> None:
    data = source(tmp_path)
    reference = {"min": 0.0, "max": 10.0, "source": "made up"}
    card = type(data.card).model_validate({**data.card.model_dump(), "reference": reference})
    chosen = Subset(episodes=2, by="top")
    made = deposit_derived(
        chosen.made(data.columns()), card, data.checksum, chosen, tmp_path / "best.toml"
    )
    assert made.reference == card.reference
    assert made.notes.endswith(
        f"Made by: subset[episodes=2,by=top] of data version 1, view transitions, data checksum "
        f"{data.checksum}"
    )
    best = load_dataset(tmp_path / "best.toml")
    assert best.card.id == "best"
    assert best.episode_returns.tolist() == [60, 85]
    assert best.normalized(5.0) == 50
    with pytest.raises(InputError, match="5 episodes of 4"):
        Subset(episodes=5).made(data.columns())
