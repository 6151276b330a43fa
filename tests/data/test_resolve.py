"""What a user may pass: ids, paths, cards and views."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from sources import npz

from offrl.data.dataset import load_dataset
from offrl.errors import InputError


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("neorl2-dsmd", r"unknown data set 'neorl2-dsmd'; did you mean 'neorl2-dmsd'\?"),
        ("nowhere/a.npz", r"nowhere/a\.npz: no such file or folder"),
        ("gone.hdf5", r"gone\.hdf5: no such file or folder"),
        ("gone.toml", r"gone\.toml: no such file or folder"),
    ],
)
def test_what_is_not_there_is_named(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(source)


def test_other_formats_are_named(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1\n")
    with pytest.raises(InputError, match=r"data\.csv: cannot tell its format from '\.csv'"):
        load_dataset(tmp_path / "data.csv")
    with pytest.raises(InputError, match=r"holds no data/metadata\.json; expected .* Minari"):
        load_dataset(tmp_path)


def test_views_are_those_of_the_loader(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    message = r"a, loader 'neorl2': unknown view 'qlearning'; expected one of: transitions"
    with pytest.raises(InputError, match=message):
        load_dataset(path, view="qlearning")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        for key in ("observations", "actions", "rewards", "terminals"):
            file[key] = np.ones((2, 1))
    with pytest.raises(InputError, match=r"unknown view 'qlearn'; did you mean 'qlearning'\?"):
        load_dataset(tmp_path / "b.hdf5", view="qlearn")


def test_files_of_a_card_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    npz(tmp_path / "sub" / "train.npz")
    npz(tmp_path / "val.npz", rows=10)
    toml = tmp_path / "mine.toml"
    toml.write_text(
        'id = "mine"\nversion = 3\ntitle = "mine"\nlicence = "none"\ncitation = "none"\n'
        '[source]\nloader = "neorl2"\nfiles = [{ name = "sub/train.npz" }]\n'
        'validation = [{ name = "val.npz" }]\n[expected]\nvalidation_episodes = 2\n'
    )
    monkeypatch.chdir(tmp_path / "sub")
    data = load_dataset("../mine.toml")
    assert (data.card.id, data.card.version, len(data)) == ("mine", 3, 20)
    assert data.validation is not None
    assert len(data.validation) == 10
    assert data.validation.validation is None
    assert "validation split" in repr(data.validation)
