"""A data file that reads other files of this machine is refused, whichever loader opens it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from offrl.data.dataset import load_dataset
from offrl.data.links import refuse_links
from offrl.data.nested import open_nested
from offrl.errors import InputError

Write = Callable[[Any, Path], None]


def external_link(file: Any, other: Path) -> None:
    file["observations"] = h5py.ExternalLink(str(other), "/x")


def nested_link(file: Any, other: Path) -> None:
    file.create_group("infos/deep")["x"] = h5py.ExternalLink(str(other), "/x")
    file["observations"] = h5py.SoftLink("/infos/deep/x")


def external_storage(file: Any, other: Path) -> None:
    whole = [(str(other), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("observations", (8,), np.uint8, external=whole)


def virtual(file: Any, other: Path) -> None:
    layout = h5py.VirtualLayout((4, 2), np.float64)
    layout[:] = h5py.VirtualSource(str(other), "x", (4, 2))
    file.create_virtual_dataset("observations", layout)


def fill(file: Any) -> None:
    """What else a D4RL file of four rows holds."""
    file["actions"] = np.zeros((4, 1))
    file["rewards"] = np.zeros(4)
    file["terminals"] = np.arange(4) == 3
    file["timeouts"] = np.zeros(4, dtype=bool)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("write", [external_link, nested_link, external_storage, virtual])
def test_bytes_of_other_files_are_refused(tmp_path: Path, write: Write) -> None:
    other = tmp_path / "secret.hdf5"
    with h5py.File(other, "w") as file:
        file["x"] = np.ones((4, 2))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        fill(file)
        write(file, other)
    message = (
        r"a\.hdf5: '/\S+' (is a link to another file|lies in the file \S+secret\.hdf5); a data"
    )
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "a.hdf5")


@pytest.mark.parametrize("write", [external_link, nested_link, external_storage, virtual])
def test_bytes_of_other_files_are_refused_in_nested_files(tmp_path: Path, write: Write) -> None:
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["x"] = np.ones((4, 2))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["own/x"] = np.array([True, False, True])
        write(file.create_group("g"), tmp_path / "secret.hdf5")
    link = r"'observations' in 'g' is a link; its arrays may lie"
    message = rf"a\.hdf5: ({link}|'observations' lies in the file \S+secret\.hdf5)"
    with open_nested(tmp_path / "a.hdf5") as nested:
        with pytest.raises(InputError, match=message):
            nested.read(nested.group("g"), "observations")
        assert nested.read(nested.group("own"), "x").tolist() == [1, 0, 1]


def test_links_on_the_way_to_an_array_are_refused_in_nested_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["x/y"] = np.ones(4)
    outside = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "/x")
    with h5py.File(tmp_path / "top.hdf5", "w") as file:
        file["g"] = outside
    with (
        pytest.raises(InputError, match=r"top\.hdf5: 'g' in '/' is a link; its arrays may lie"),
        open_nested(tmp_path / "top.hdf5"),
    ):
        pass
    with h5py.File(tmp_path / "deep.hdf5", "w") as file:
        file["g/a/own/x"] = np.arange(2)
        file["g/b"] = np.zeros(2)
        file.create_group("g/c/d")["l"] = outside
    with open_nested(tmp_path / "deep.hdf5") as nested:
        group = nested.group("g")
        assert nested.read(group, "a/own/x").tolist() == [0, 1]
        for reading in (
            lambda: nested.read(group, "c/d/l/y"),
            lambda: nested.group("c/d/l", group),
        ):
            with pytest.raises(InputError, match=r"deep\.hdf5: 'l' in 'd' is a link"):
                reading()


def test_soft_links_in_a_circle_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["infos/here"] = h5py.SoftLink("/infos/there")
        file["infos/there"] = h5py.SoftLink("here")
    with pytest.raises(InputError, match=r"a\.hdf5: '/infos/here' is a soft link .* in a circle"):
        refuse_links(tmp_path / "a.hdf5")


@pytest.mark.usefixtures("own_cache")
def test_links_within_a_file_are_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        fill(file)
        file["group/x"] = np.ones((4, 2))
        file["group/circle"] = file["/"]
        file["group/nowhere"] = h5py.SoftLink("/lost")
        file["kind"] = np.dtype("f4")
        file["empty"] = h5py.Empty("f4")
        layout = h5py.VirtualLayout((4, 2), np.float64)
        layout[:] = h5py.VirtualSource(file["group/x"])
        file.create_virtual_dataset("virtual", layout)
        file["observations"] = h5py.SoftLink("/group/x")
    refuse_links(tmp_path / "a.hdf5")
    assert len(load_dataset(tmp_path / "a.hdf5")) == 4
