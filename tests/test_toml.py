"""TOML files of any kind and size: read, or refused in one line and at once."""

import json
import os
from pathlib import Path

import pytest

from offrl.data.dataset import load_dataset
from offrl.errors import InputError, unknown
from offrl.files import user_path
from offrl.running.protocol import Evaluation, Protocol, find_protocol
from offrl.toml import MOST_BYTES, parse_toml, read_toml, shown, validate


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 'x'\r\n")
    assert read_toml(path) == {"a": 1, "b": "x"}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large", "loop"])
def test_what_is_no_small_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.toml"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "large":
            path.touch()
            os.truncate(path, 2**40)  # a terabyte of nothing
        case "loop":
            path.symlink_to(path.name)
    with pytest.raises(InputError, match=r"a.toml: .*TOML file"):
        read_toml(path)


def test_the_limit_of_size_is_far_above_what_ships() -> None:
    from offrl import registry

    files = [file for group in registry.CONTENT for file in registry.resources(group, ".toml")]
    assert 20 * max(file.stat().st_size for file in files) < MOST_BYTES


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = " + "[" * 5000, "nested"),
        ("a = " + "[" * 200 + "]" * 200, "nested"),
        ("a = " + "{b = " * 3000, "nested"),
        (".".join("abcd" * 100) + " = 1", "nested"),
        ("a = " + "9" * 5000, "TOML"),
        (r'a = "x\u0000y"', "NUL"),
        (r'["a\u0000"]', "NUL"),
        (r'a = [{ b = ["\u0000"] }]', "NUL"),
        ("a = \x00", "TOML"),
    ],
)
def test_limits_of_the_parser_and_nul_are_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=None if reason == "TOML" else reason):
        parse_toml(text)
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InputError, match=f"a.toml: .*{reason}") as caught:
        read_toml(tmp_path / "a.toml")
    assert len(str(caught.value)) < 500


def test_a_message_shows_the_beginning_of_a_key_and_a_value() -> None:
    with pytest.raises(InputError) as caught:
        validate(Evaluation, {"every": "x" * 9000, "episodes": 1}, "here")
    assert len(str(caught.value)) < 300
    with pytest.raises(InputError) as caught:
        validate(Evaluation, {"k" * 9000: 1}, "here")
    assert len(str(caught.value)) < 500
    assert shown(10**5000) == "an int that is too large"
    for known in ([], ["y" * 9000] * 20, ["x" * 8999]):
        assert len(str(unknown("algorithm", "x" * 9000, known))) < 1500


def test_a_reason_that_quotes_a_value_shows_its_beginning() -> None:
    entry = {"algorithm": "bc", "datasets": ["x" * 9000]}
    protocol = find_protocol("quickstart").model_dump() | {"algorithms": {"mine": entry}}
    with pytest.raises(InputError, match=r"^here: .* algorithm mine: 'x{200}") as caught:
        validate(Protocol, protocol, "here")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("path", ["~nosuchuser/x", "a\0b", "a" * 300, "a/" * 3000, "\u00e9" * 128])
def test_a_path_that_no_system_can_open_is_one_line(path: str, tmp_path: Path) -> None:
    message = r"no such user's home|NUL|a path has at most 4095 bytes, 255 in each name"
    with pytest.raises(InputError, match=message):
        user_path(path)
    for source in (path, f"{path}.npz"):
        with pytest.raises(InputError, match=f"{message}|unknown data set"):
            load_dataset(source)
    keys = {"id": "a", "version": 1, "title": "", "licence": "", "citation": ""}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    lines += ["[source]", 'loader = "neorl2"', f"files = [{{ name = {json.dumps(path)} }}]"]
    (tmp_path / "card.toml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(tmp_path / "card.toml")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
