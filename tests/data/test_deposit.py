"""Data sets that are written: to other formats and back, and as subsets with a lineage."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sources import npz

from offrl.data.card import Choices, File, Source
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


@pytest.mark.parametrize("name", ["back.parquet", "back.hdf5", "back"])
def test_discrete_actions_are_read_back_without_loss(name: str, tmp_path: Path) -> None:
    """Minari alone says how many there are; for the others a card has to."""
    data = source(tmp_path)
    data.actions = np.arange(20, dtype=np.int64) % 3
    data.card = data.card.model_copy(update={"actions": Choices(count=4)})
    path = exported(data, tmp_path / name)
    given: Any = path
    if path.suffix:
        with pytest.raises(InputError, match=r"give a card with actions\.count"):
            load_dataset(path)
        files = [File(name=str(path))]
        given = data.card.model_copy(
            update={"source": Source(loader=writer_of(path)[0], files=files)}
        )
    back = load_dataset(given)
    assert back.action_count == 4
    assert back.actions.dtype == np.int64
    assert np.array_equal(back.actions, data.actions)


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
        f"Made by: subset[episodes=2,by=top] of data version 1, view transitions, data "
        f"{data.checksum}"
    )
    best = load_dataset(tmp_path / "best.toml")
    assert best.card.id == "best"
    assert best.episode_returns.tolist() == [60, 85]
    assert best.normalized(5.0) == 50
    with pytest.raises(InputError, match="5 episodes of 4"):
        Subset(episodes=5).made(data.columns())
