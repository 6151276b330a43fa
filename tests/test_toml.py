"""TOML of others: one line for what is no TOML, however long or deep."""

import os
from pathlib import Path

import pytest

from offrl import toml
from offrl.errors import InputError
from offrl.toml import parse_toml, read_toml


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deep"),
        ("a = " + "9" * 5000, "4300 digits"),
        ("a = ", "Invalid value"),
        ("a = 1\na = 2", "Cannot overwrite"),
    ],
)
def test_what_is_no_toml_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match=words):
        parse_toml(text)


def test_a_file_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "device.toml"):
        with pytest.raises(InputError, match="a pipe or a device"):
            read_toml(tmp_path / name)
    (tmp_path / "c.toml").write_text("a = 1  # and more")
    monkeypatch.setattr(toml, "MOST_BYTES", 9)
    with pytest.raises(InputError, match="over 9 bytes"):
        read_toml(tmp_path / "c.toml")
